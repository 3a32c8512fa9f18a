//! Requests below `/hooks` that are no delivery to a connection. Whoever sends one is a forge with a wrong address or a
//! person who tries one, so each is answered in plain words that lead to the right address, and never with a page.

use axum::{
    extract::{Path, Request, State},
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};

use super::{Intake, named, refusal::RequestOutcome};

/// An address that is no webhook's.
pub(super) async fn no_webhook(State(intake): State<Intake>, request: Request) -> Response {
    if let Err(refusal) = intake.count_address(&request) {
        return intake.refused("", refusal);
    }
    let shown: String = request.uri().path().chars().take(100).collect();
    tracing::warn!(path = ?shown, method = %request.method(), "no webhook has this address");
    intake.count(RequestOutcome::UnknownConnection);
    let base = intake.config.public_url.trim_end_matches('/');
    let words = format!(
        "no webhook has this address: it is {base}/hooks/NAME, with the name of a connection in the configuration\n"
    );
    (StatusCode::NOT_FOUND, words).into_response()
}

/// A webhook's address, and another method than POST.
pub(super) async fn not_posted(
    State(intake): State<Intake>,
    Path(address): Path<String>,
    request: Request,
) -> Response {
    if named(&address).is_none() {
        return no_webhook(State(intake), request).await;
    }
    if let Err(refusal) = intake.count_address(&request) {
        return intake.refused("", refusal);
    }
    intake.count(RequestOutcome::BadRequest);
    let words = "a forge POSTs its deliveries to this address: set the webhook's HTTP method to POST\n";
    let mut response = (StatusCode::METHOD_NOT_ALLOWED, words).into_response();
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static("POST"));
    response
}
