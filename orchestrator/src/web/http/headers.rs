//! What every answer carries: the request id, the security headers, and `no-store` unless the
//! handler said otherwise. The outermost layer, so nothing leaves without it.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, header},
    middleware::Next,
    response::Response,
};
use ulid::Ulid;

use crate::web::AppState;

/// The content security policy: nothing but our own files, no inline script or style, no framing.
pub const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                       form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Names one request in answers, logs and the audit log. Made here, never taken from the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(pub String);

/// The security headers of every answer of every listener.
pub fn complete(headers: &mut HeaderMap) {
    let mut set = |name: HeaderName, value: &'static str| {
        headers.insert(name, HeaderValue::from_static(value));
    };
    set(header::CONTENT_SECURITY_POLICY, CSP);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    // Not `no-referrer`: with it browsers send `Origin: null` with forms, and the check of the
    // origin could not tell us from anybody else.
    set(header::REFERRER_POLICY, "same-origin");
    set(HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    set(HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

/// Names the request, serves it, and seals the answer.
pub async fn envelope(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = Ulid::generate().to_string().to_ascii_lowercase();
    request.extensions_mut().insert(RequestId(id.clone()));
    let method = request.method().clone();
    // The route's pattern, not the path: metrics and logs hold no ids and no repository names.
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("unmatched", MatchedPath::as_str)
        .to_owned();
    let mut response = next.run(request).await;

    let headers = response.headers_mut();
    complete(headers);
    if state.secure() {
        headers.insert(
            header::STRICT_TRANSPORT_SECURITY,
            HeaderValue::from_static("max-age=31536000"),
        );
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert(HeaderName::from_static("x-request-id"), value);
    }
    let elapsed = started.elapsed();
    let status = response.status().as_u16();
    state.metrics().http(&method, &route, status, elapsed);
    tracing::debug!(%method, route, status, ms = elapsed.as_millis(), request = id, "served");
    response
}
