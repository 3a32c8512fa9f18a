//! For the adapters' tests: a listener that records what it is asked and answers by a function, and
//! the forges' own API descriptions to hold the requests against.

use std::sync::{Arc, Mutex};

use axum::{Router, body::Body, extract::Request, response::Response};
use http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::model::{
    ids::{JobId, RunId},
    report::{Report, ReportState},
    trigger::Repository,
};

pub const SHA: &str = "1111111111111111111111111111111111111111";
pub const DETAILS: &str = "https://ci.example/jobs/1";

/// One request.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub query: String,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Seen {
    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    pub fn authorization(&self) -> &str {
        self.headers
            .get(header::AUTHORIZATION)
            .map_or("", |v| v.to_str().unwrap())
    }
}

/// What is answered.
pub enum Reply {
    Json(u16, Value),
    Limited(u16, u64),
    Text(&'static str),
    /// Never.
    Hang,
    /// The beginning of an answer, and then the connection is cut.
    Cut,
}

pub struct Listener {
    pub base: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Listener {
    pub async fn new(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (record, answer) = (seen.clone(), Arc::new(answer));
        let router = Router::new().fallback(move |request: Request| {
            let (record, answer) = (record.clone(), answer.clone());
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let one = Seen {
                    method: parts.method.to_string(),
                    path: parts.uri.path().to_owned(),
                    query: parts.uri.query().unwrap_or_default().to_owned(),
                    headers: parts.headers,
                    body: if body.is_empty() {
                        Value::Null
                    } else {
                        serde_json::from_slice(&body).unwrap()
                    },
                };
                record.lock().unwrap().push(one.clone());
                respond(answer(&one)).await
            }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { base, seen }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub fn lines(&self) -> Vec<String> {
        self.seen().iter().map(Seen::line).collect()
    }
}

async fn respond(reply: Reply) -> Response {
    let response = Response::builder();
    match reply {
        Reply::Json(status, body) => response.status(status).body(Body::from(body.to_string())),
        Reply::Limited(status, seconds) => response
            .status(status)
            .header(header::RETRY_AFTER, seconds)
            .body(Body::empty()),
        Reply::Text(text) => response.status(StatusCode::OK).body(Body::from(text)),
        Reply::Hang => std::future::pending().await,
        Reply::Cut => {
            let cut = tokio_stream::iter([Ok("{"), Err(std::io::Error::other("cut"))]);
            response.status(StatusCode::CREATED).body(Body::from_stream(cut))
        }
    }
    .unwrap()
}

pub fn repository() -> Repository {
    Repository {
        connection: "hub".parse().unwrap(),
        id: 42.into(),
        path: "acme/tool".parse().unwrap(),
        context: 9.into(),
    }
}

pub fn report(state: ReportState) -> Report {
    Report {
        repository: repository(),
        commit: SHA.parse().unwrap(),
        name: "helios-ci / ci / build (x86, 1)".to_owned(),
        generation: 1,
        state,
        title: "2 of 3 jobs failed".to_owned(),
        summary: "| step | result |\n|---|---|\n".to_owned(),
        run: Some(RunId::new()),
        job: Some(JobId::new()),
        started_ms: (state != ReportState::Queued).then_some(1_468_275_250_000),
        completed_ms: state.is_final().then_some(1_468_275_260_000),
    }
}

pub const STATES: [ReportState; 8] = [
    ReportState::Queued,
    ReportState::Running,
    ReportState::Success,
    ReportState::Failure,
    ReportState::Cancelled,
    ReportState::TimedOut,
    ReportState::Skipped,
    ReportState::Error,
];

/// A forge's own description of its API.
pub struct Description {
    document: Value,
    prefix: &'static str,
}

impl Description {
    /// None, and a line that says so, where the conformance data is absent.
    pub fn read(name: &str, prefix: &'static str) -> Option<Self> {
        let path = crate::prerequisites::needs_conformance(&format!("openapi/{name}"))?;
        let text = std::fs::read_to_string(path).unwrap();
        let mut document: Value = serde_json::from_str(&text).unwrap();
        allow_null(&mut document);
        Some(Self { document, prefix })
    }

    /// Fails the test when a request is to a path that is not described, or its body is not as described.
    pub fn check(&self, seen: &Seen) {
        let errors = self.errors(seen);
        assert!(errors.is_empty(), "{}: {errors:?}\n{}", seen.line(), seen.body);
    }

    /// What is wrong with a request's body.
    pub fn errors(&self, seen: &Seen) -> Vec<String> {
        let path = format!("{}{}", self.prefix, seen.path);
        let paths = self.document["paths"].as_object().unwrap();
        let fitting = paths.iter().filter(|(template, _)| fits(template, &path));
        let described = fitting.max_by_key(|(template, _)| template.matches('/').count());
        let (template, operations) = described.unwrap_or_else(|| panic!("{path} is not described"));
        let operation = &operations[seen.method.to_lowercase()];
        assert!(operation.is_object(), "{} {template} is not described", seen.method);
        let body_parameter = || {
            operation["parameters"]
                .as_array()?
                .iter()
                .find(|p| p["in"] == "body")
                .map(|p| &p["schema"])
        };
        let schema = operation
            .pointer("/requestBody/content/application~1json/schema")
            .or_else(body_parameter);
        let Some(schema) = schema else {
            assert!(seen.body.is_null(), "{} {template} takes no body", seen.method);
            return vec![];
        };
        let mut whole = self.document.clone();
        whole["allOf"] = json!([schema]);
        let validator = jsonschema::options()
            .with_draft(jsonschema::Draft::Draft4)
            .build(&whole)
            .unwrap();
        validator
            .iter_errors(&seen.body)
            .map(|e| format!("{}: {e}", e.instance_path()))
            .collect()
    }
}

/// Whether a path is one of a template's; a ref at its end may hold slashes.
fn fits(template: &str, path: &str) -> bool {
    let mut parts = path.split('/');
    let mut template = template.split('/').peekable();
    while let Some(wanted) = template.next() {
        let Some(part) = parts.next() else { return false };
        if wanted.starts_with('{') {
            if template.peek().is_none() && ["{ref}", "{branch}"].contains(&wanted) {
                return !part.is_empty();
            }
        } else if wanted != part {
            return false;
        }
    }
    parts.next().is_none()
}

/// OpenAPI 3.0 says `nullable`, JSON Schema says `null` is one of the types.
fn allow_null(node: &mut Value) {
    match node {
        Value::Object(map) => {
            if map.get("nullable") == Some(&json!(true)) {
                if let Some(kind) = map.get("type").cloned() {
                    map.insert("type".to_owned(), json!([kind, "null"]));
                }
                if let Some(Value::Array(values)) = map.get_mut("enum") {
                    values.push(Value::Null);
                }
            }
            map.values_mut().for_each(allow_null);
        }
        Value::Array(items) => items.iter_mut().for_each(allow_null),
        _ => {}
    }
}

#[test]
fn templates_fit_their_paths_only() {
    assert!(fits(
        "/repos/{owner}/{repo}/git/ref/{ref}",
        "/repos/a/b/git/ref/heads/x/y"
    ));
    assert!(fits("/repos/{owner}/{repo}", "/repos/a/b"));
    assert!(!fits("/repos/{owner}/{repo}/tags", "/repos/a/b/refs"));
    assert!(!fits("/app", "/app/x"));
}
