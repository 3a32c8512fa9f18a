//! Answers that are not about a stored delivery.

use std::{error::Error, time::Duration};

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use crate::{foreign_text::one_line, forge::Dialect};

pub(super) const MIB: usize = 1024 * 1024;

/// How requests end; the label of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum RequestOutcome {
    Stored,
    Duplicate,
    BadSignature,
    BadRequest,
    WrongType,
    Unusable,
    UnknownConnection,
    TooLarge,
    TooSlow,
    TooMany,
    NotStored,
}

impl RequestOutcome {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Duplicate => "duplicate",
            Self::BadSignature => "bad_signature",
            Self::BadRequest => "bad_request",
            Self::WrongType => "wrong_type",
            Self::Unusable => "unusable",
            Self::UnknownConnection => "unknown_connection",
            Self::TooLarge => "too_large",
            Self::TooSlow => "too_slow",
            Self::TooMany => "too_many",
            Self::NotStored => "not_stored",
        }
    }
}

/// Why a request is refused.
pub(super) struct Refusal {
    pub(super) outcome: RequestOutcome,
    pub(super) status: StatusCode,
    /// What the sender reads.
    pub(super) reason: String,
    retry_after: Option<Duration>,
}

impl Refusal {
    fn new(outcome: RequestOutcome, status: StatusCode, reason: impl Into<String>) -> Self {
        Self {
            outcome,
            status,
            reason: reason.into(),
            retry_after: None,
        }
    }

    fn again_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// The same text whatever was wrong, so that nobody learns which part to work on.
    pub(super) fn bad_signature(dialect: &Dialect) -> Self {
        let remedy = dialect.signature_remedy;
        Self::new(
            RequestOutcome::BadSignature,
            StatusCode::UNAUTHORIZED,
            format!("the signature is missing or does not match: {remedy}"),
        )
    }

    /// The body is no JSON by its own account.
    pub(super) fn wrong_type(content_type: &str) -> Self {
        let shown = one_line(content_type, 100);
        Self::new(
            RequestOutcome::WrongType,
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!("the body's type is `{shown}`: set the webhook's content type to application/json"),
        )
    }

    pub(super) fn bad_request(reason: impl Into<String>) -> Self {
        Self::new(RequestOutcome::BadRequest, StatusCode::BAD_REQUEST, reason)
    }

    pub(super) fn unknown_connection(reason: &str) -> Self {
        Self::new(RequestOutcome::UnknownConnection, StatusCode::NOT_FOUND, reason)
    }

    /// `limit` in bytes.
    pub(super) fn too_large(limit: usize) -> Self {
        let reason = format!(
            "the body is larger than {} MiB and was not stored: after `helios-ci catch-up`, \
             `helios-ci deliveries --missed` says how to run its push",
            limit / MIB
        );
        Self::new(RequestOutcome::TooLarge, StatusCode::PAYLOAD_TOO_LARGE, reason)
    }

    pub(super) fn too_slow() -> Self {
        Self::new(
            RequestOutcome::TooSlow,
            StatusCode::REQUEST_TIMEOUT,
            "the body did not arrive in time",
        )
    }

    pub(super) fn too_many(wait: Duration) -> Self {
        Self::new(
            RequestOutcome::TooMany,
            StatusCode::TOO_MANY_REQUESTS,
            "too many deliveries at once",
        )
        .again_after(wait)
    }

    /// What may wait to be stored is used up: `what` of it.
    pub(super) fn no_room(what: &str) -> Self {
        Self::new(
            RequestOutcome::TooMany,
            StatusCode::SERVICE_UNAVAILABLE,
            format!("too many {what} at once"),
        )
        .again_after(Duration::from_secs(10))
    }

    /// The cause is for the log alone.
    pub(super) fn not_stored(error: &(dyn Error + 'static)) -> Self {
        tracing::error!(error, "a webhook could not be stored");
        Self::new(
            RequestOutcome::NotStored,
            StatusCode::SERVICE_UNAVAILABLE,
            "the delivery could not be stored: deliver it again",
        )
        .again_after(Duration::from_secs(30))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(json!({ "error": self.reason }))).into_response();
        if let Some(wait) = self.retry_after {
            // Rounded up: an early return would only be refused again.
            let seconds = HeaderValue::from(wait.as_secs() + u64::from(wait.subsec_nanos() > 0));
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}
