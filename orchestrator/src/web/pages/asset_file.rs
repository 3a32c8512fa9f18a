//! Serves the static files.

use axum::{
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use http::{HeaderValue, header};

use super::assets::{ICON, SCRIPT, STYLE};
use crate::web::{AppState, http::problem::Problem};

/// `GET /static/{file}`
pub async fn file(State(state): State<AppState>, Path(name): Path<String>) -> Result<Response, Problem> {
    let assets = state.assets();
    let path = format!("/static/{name}");
    let (text, kind) = if path == assets.style {
        (STYLE, "text/css; charset=utf-8")
    } else if path == assets.script {
        (SCRIPT, "text/javascript; charset=utf-8")
    } else if path == assets.icon {
        (ICON, "image/svg+xml")
    } else {
        return Err(Problem::not_found());
    };
    let mut response = text.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("public, max-age=31536000, immutable"),
    );
    Ok(response)
}
