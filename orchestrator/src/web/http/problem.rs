//! Everything that can be answered instead of what was asked for. A handler returns a [`Problem`];
//! [`render`] words it once, at the border: as a page, or as JSON below `/api/`.

use std::fmt::Display;

use askama::Template;
use axum::{
    extract::{Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{Html, IntoResponse, Response},
};

use super::headers::RequestId;
use crate::web::{
    AppState,
    api::types::{Failure, FailureText},
    pages::assets::Assets,
};

/// What every 401 asks for.
pub(in crate::web) const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"helios-ci\"");

/// A refusal or failure, with the words its reader gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    message: String,
    retry_after_s: Option<u64>,
    /// The methods a 405 names, kept from the framework's own answer.
    allow: Option<HeaderValue>,
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            retry_after_s: None,
            allow: None,
        }
    }

    /// There is no such thing, or the caller may not know of it: one answer for both.
    #[must_use]
    pub fn not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not_found",
            "There is nothing here, or you may not see it. Logging in may help.",
        )
    }

    /// There is no such thing, told to one who may see everything: what is missing, and what there is.
    pub fn absent(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// The request cannot be understood.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// The request is understood and cannot be done as it stands.
    pub fn unprocessable(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message)
    }

    /// The thing's state does not allow it.
    pub fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    /// It was here once.
    pub fn gone(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "gone", message)
    }

    /// A valid token is needed.
    #[must_use]
    pub fn unauthorized() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "This needs a valid token. Log in, or send `Authorization: Bearer hci_…`.",
        )
    }

    /// The caller is known, or need not be, and still must not.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    /// Slow down.
    pub fn too_many(message: impl Into<String>, retry_after_s: u64) -> Self {
        Self {
            retry_after_s: Some(retry_after_s),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", message)
        }
    }

    /// Something we depend on does not answer; it may later.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self {
            retry_after_s: Some(5),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
        }
    }

    /// We failed. The cause goes to our log, never to the caller.
    pub fn internal(what: &str, cause: impl Display) -> Self {
        tracing::error!(what, %cause, "a request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "helios-ci failed to answer this. The daemon's log says why, under the request id below.",
        )
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    fn of_status(response: &Response) -> Option<Self> {
        let status = response.status();
        let problem = match status {
            StatusCode::NOT_FOUND => Self::not_found(),
            StatusCode::METHOD_NOT_ALLOWED => Self {
                allow: response.headers().get(header::ALLOW).cloned(),
                ..Self::new(status, "method_not_allowed", "This address does not take that method.")
            },
            StatusCode::PAYLOAD_TOO_LARGE => Self::new(status, "too_large", "The request's body is too large."),
            StatusCode::REQUEST_TIMEOUT => Self::new(status, "timeout", "The request took too long."),
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Self::new(
                status,
                "unsupported_media_type",
                "The body's Content-Type is not one that is understood here.",
            ),
            s if s.is_client_error() => Self::new(status, "bad_request", "The request cannot be understood."),
            s if s.is_server_error() && s != StatusCode::SERVICE_UNAVAILABLE => Self::internal("answering", s),
            _ => return None,
        };
        Some(problem)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemPage<'a> {
    assets: &'a Assets,
    title: &'a str,
    status: u16,
    message: &'a str,
    request_id: Option<&'a str>,
}

fn is_page(response: &Response) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"))
}

/// Words every refusal that leaves, our own and the framework's.
pub async fn render(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let api = request.uri().path().starts_with("/api/");
    let head = request.method() == Method::HEAD;
    let id = request.extensions().get::<RequestId>().cloned();
    let mut response = next.run(request).await;
    let problem = match response.extensions_mut().remove::<Problem>() {
        Some(problem) => problem,
        // A 416 carries the length of what there is; it is an answer, not a page.
        None if response.headers().contains_key(header::CONTENT_RANGE) => return response,
        // A page of ours has words of its own, such as a login that was refused.
        None if is_page(&response) => return response,
        None => match Problem::of_status(&response) {
            Some(problem) => problem,
            None => return response,
        },
    };
    let mut answer = if api {
        (
            problem.status,
            axum::Json(Failure {
                error: FailureText {
                    code: problem.code.to_owned(),
                    message: problem.message.clone(),
                },
            }),
        )
            .into_response()
    } else {
        // An absent and a hidden page must have the same body, so only our own failures show the id.
        let shown = id.as_ref().filter(|_| problem.status.is_server_error());
        let page = ProblemPage {
            assets: state.assets(),
            title: problem.status.canonical_reason().unwrap_or("Error"),
            status: problem.status.as_u16(),
            message: &problem.message,
            request_id: shown.map(|id| id.0.as_str()),
        };
        match page.render() {
            Ok(_) if head => problem.status.into_response(),
            Ok(text) => (problem.status, Html(text)).into_response(),
            Err(_) => (problem.status, problem.message.clone()).into_response(),
        }
    };
    let headers = answer.headers_mut();
    if let Some(seconds) = problem.retry_after_s {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(allow) = problem.allow {
        headers.insert(header::ALLOW, allow);
    }
    if problem.status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, CHALLENGE);
    }
    answer
}
