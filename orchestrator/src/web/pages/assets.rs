//! The static files: part of the binary, under addresses that change with their content, so that
//! browsers may keep them for ever.

use axum::{
    extract::{Path, State},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};

use crate::{
    digest::sha256_hex,
    web::{AppState, http::problem::Problem},
};

/// The stylesheet; public for the test of its contrast.
pub const STYLE: &str = include_str!("../../../static/style.css");
const SCRIPT: &str = include_str!("../../../static/app.js");
const ICON: &str = include_str!("../../../static/icon.svg");

/// Where the static files are.
#[derive(Debug, Clone)]
pub struct Assets {
    /// The stylesheet's path.
    pub style: String,
    /// The script's path.
    pub script: String,
    /// The icon's path.
    pub icon: String,
}

impl Assets {
    /// Computes the paths.
    #[must_use]
    pub fn new() -> Self {
        let path = |name: &str, text: &str, ext: &str| format!("/static/{name}.{}.{ext}", &sha256_hex(text)[..12]);
        Self {
            style: path("style", STYLE, "css"),
            script: path("app", SCRIPT, "js"),
            icon: path("icon", ICON, "svg"),
        }
    }
}

impl Default for Assets {
    fn default() -> Self {
        Self::new()
    }
}

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
