//! The HTTP side: routes, and one layer around all of them that writes down every request, plays
//! ordered faults, and checks bodies against the published descriptions.

pub(crate) mod checks;
pub(crate) mod forgejo;
mod github;

use std::sync::Arc;

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request as HttpRequest, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use serde_json::{Value, json};

use crate::{
    auth::{Credential, Token},
    fault::{Fault, Outage},
    page, smart_http,
    state::{Kind, Repository, Request, Shared, Violation},
    time::now_ms,
};

/// Marks a response that must never reach its caller: the connection is closed instead.
#[derive(Clone, Copy)]
pub(crate) struct Cut;

/// The largest body of an API call; forges have similar bounds.
const MAX_BODY: usize = 10 << 20;

const MAX_PACK: usize = 1 << 30;

/// Everything that is served.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(page::index))
        .route("/{owner}/{name}/{*rest}", any(smart_http::serve))
        .nest("/api/v1", forgejo::router(shared.clone()))
        .nest("/api/v3", github::router())
        .layer(axum::extract::DefaultBodyLimit::max(MAX_PACK))
        .layer(middleware::from_fn_with_state(shared.clone(), observe))
        .with_state(shared)
}

fn api_of(path: &str) -> Option<Kind> {
    if path.starts_with("/api/v1/") {
        Some(Kind::Forgejo)
    } else if path.starts_with("/api/v3/") {
        Some(Kind::Github)
    } else {
        None
    }
}

async fn observe(State(shared): State<Arc<Shared>>, request: HttpRequest, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let (method, path) = (parts.method.as_str().to_owned(), parts.uri.path().to_owned());
    let api = api_of(&path);
    let (body, json_body) = match api {
        None => (body, Value::Null),
        Some(_) => match to_bytes(body, MAX_BODY).await {
            Ok(bytes) => {
                let json = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
                (Body::from(bytes), json)
            }
            Err(_) => return Refusal::new(413, "request body too large").into_response(),
        },
    };
    let entry = Request {
        at_ms: now_ms(),
        method: method.clone(),
        path: path.clone(),
        query: parts.uri.query().map(str::to_owned),
        authorization: Credential::of(&parts.headers).kind(),
        body: json_body.clone(),
        status: None,
    };
    let (position, away) = shared.change(|state| {
        state.requests.push(entry);
        (state.requests.len() - 1, state.away)
    });
    match away {
        // It came on a connection that is not cut yet.
        Some(Outage::Stopped) => return cut_off(StatusCode::BAD_GATEWAY.into_response()),
        Some(Outage::Status(status)) => {
            shared.change(|state| state.requests[position].status = Some(status));
            return Refusal::new(status, "the forge is away").into_response();
        }
        Some(Outage::Suspended) | None => {}
    }
    let suspended = away == Some(Outage::Suspended);
    let observed = Observed {
        shared: shared.clone(),
        method,
        path,
        api,
        json_body,
        position,
    };
    if !suspended {
        return observed.answer(HttpRequest::from_parts(parts, body), next).await;
    }
    // A task of its own, which goes on when the caller hangs up: what a suspended process was sent lies in its socket.
    let later = tokio::spawn(async move {
        shared.suspension().await;
        observed.answer(HttpRequest::from_parts(parts, body), next).await
    });
    later
        .await
        .unwrap_or_else(|e| Refusal::new(500, e.to_string()).into_response())
}

/// A request that was written down.
struct Observed {
    shared: Arc<Shared>,
    method: String,
    path: String,
    api: Option<Kind>,
    json_body: Value,
    /// Its place in the list of requests.
    position: usize,
}

impl Observed {
    /// Does and answers it, or does to it what a fault orders.
    async fn answer(self, request: HttpRequest, next: Next) -> Response {
        let Self {
            shared,
            method,
            path,
            api,
            json_body,
            position,
        } = self;
        let fault = shared.change(|state| state.take_fault(&method, &path));
        let operation = match (&shared.schemas, api) {
            (Some(schemas), Some(kind)) => schemas.operation(kind, &method, &path),
            _ => None,
        };
        let violation = match (&shared.schemas, &operation) {
            (Some(schemas), Some(operation)) => schemas.check_request(operation, &json_body),
            _ => None,
        };
        if let (Some(problem), Some(operation)) = (&violation, &operation) {
            record(&shared, &operation.name, problem);
        }
        // GitHub refuses what its description does not allow; Forgejo reads what it can, and that is written down alone.
        let valid = violation.is_none();
        let violation = violation.filter(|_| api == Some(Kind::Github));
        let cut = fault == Some(Fault::AcceptThenCut);
        let instead = match fault {
            Some(Fault::AcceptThenStatus(status)) => Some(status),
            _ => None,
        };
        let mut response = match (fault, violation) {
            (Some(Fault::Status(code)), _) => Refusal::new(code, "a fault was ordered").into_response(),
            (Some(Fault::RateLimited { retry_after_s }), _) => rate_limited(retry_after_s),
            (Some(Fault::Postponed { status, retry_after_s }), _) => {
                let refusal = Refusal::new(status, "a fault was ordered");
                ([(header::RETRY_AFTER, retry_after_s.to_string())], refusal).into_response()
            }
            (Some(Fault::Hang(time)), _) => {
                shared.hang(time).await;
                return cut_off(StatusCode::GATEWAY_TIMEOUT.into_response());
            }
            (_, Some(problem)) => Refusal::new(422, format!("Invalid request.\n\n{problem}")).into_response(),
            _ => next.run(request).await,
        };
        if cut {
            return cut_off(response);
        }
        if let Some(status) = instead {
            response = Refusal::new(status, "").into_response();
        }
        let status = response.status().as_u16();
        shared.change(|state| state.requests[position].status = Some(status));
        if let (Some(schemas), Some(operation), true) = (&shared.schemas, &operation, valid) {
            let (parts, body) = response.into_parts();
            let bytes = to_bytes(body, MAX_BODY).await.unwrap_or_default();
            let json = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
            if let Some(problem) = schemas.check_answer(operation, status, &json) {
                record(&shared, &operation.name, &problem);
            }
            response = Response::from_parts(parts, Body::from(bytes));
        }
        response
    }
}

/// Writes down what a description does not allow.
fn record(shared: &Shared, operation: &str, problem: &str) {
    let violation = Violation {
        operation: operation.to_owned(),
        problem: problem.to_owned(),
    };
    shared.change(|state| state.violations.push(violation));
}

fn cut_off(mut response: Response) -> Response {
    response.extensions_mut().insert(Cut);
    response
}

fn rate_limited(retry_after_s: u64) -> Response {
    let mut response = Refusal::new(429, "You have exceeded a secondary rate limit.").into_response();
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_after_s));
    headers.insert("x-ratelimit-remaining", HeaderValue::from(0));
    response
}

/// An answer in the 4xx or 5xx, in the shape both forges use.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    message: String,
}

impl Refusal {
    pub(crate) fn new(status: u16, message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            message: message.into(),
        }
    }
}

impl From<crate::Error> for Refusal {
    fn from(error: crate::Error) -> Self {
        Self::new(500, error.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({"message": self.message, "documentation_url": "", "url": "", "errors": []});
        (self.status, axum::Json(body)).into_response()
    }
}

/// Finds a repository of GitHub's for the caller, as GitHub does: what one may not see does not exist.
pub(crate) fn admit(
    shared: &Shared,
    headers: &HeaderMap,
    path: &str,
    permission: &str,
    write: bool,
) -> Result<(Repository, Option<Token>), Refusal> {
    let state = shared.state();
    let credential = Credential::of(headers);
    let token = credential.token(&state, Kind::Github, now_ms());
    if token.is_none() && credential != Credential::None {
        return Err(Refusal::new(401, "Bad credentials"));
    }
    let found = state.repository(path).filter(|r| r.kind == Kind::Github).cloned();
    let hidden = || Refusal::new(404, "Not Found");
    let Some(token) = token else {
        return match found {
            Some(repository) if !repository.private && !write => Ok((repository, None)),
            _ if write => Err(Refusal::new(401, "Requires authentication")),
            _ => Err(hidden()),
        };
    };
    let repository = found.ok_or_else(hidden)?;
    if !token.covers(&repository) && (repository.private || write) {
        return Err(hidden());
    }
    if !token.may(permission, write) && (repository.private || write) {
        return Err(Refusal::new(403, "Resource not accessible by integration"));
    }
    Ok((repository, Some(token)))
}
