//! What both conversations need: a receiver of webhooks, an HTTP client, the published descriptions.

use std::sync::{Arc, Mutex};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, routing::post};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use helios_fakeforge::{FakeForge, Options};
use ring::hmac;
use serde_json::{Value, json};

use crate::{deadline, prerequisites};

pub async fn forge() -> FakeForge {
    let options = Options {
        // Bodies are checked against the published descriptions.
        schemas: prerequisites::needs_conformance("openapi"),
        ..Options::default()
    };
    FakeForge::start(options).await.unwrap()
}

pub type Inbox = Arc<Mutex<Vec<(HeaderMap, Bytes)>>>;

/// A receiver of webhooks: its URL, and what came.
pub async fn receiver() -> (String, Inbox) {
    let inbox = Inbox::default();
    let app = Router::new()
        .route(
            "/hook",
            post(
                |State(inbox): State<Inbox>, headers: HeaderMap, body: Bytes| async move {
                    inbox.lock().unwrap().push((headers, body));
                },
            ),
        )
        .with_state(inbox.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, inbox)
}

/// Waits until every delivery of the forge was tried, then takes what came.
pub async fn delivered(forge: &FakeForge, inbox: &Inbox, count: usize) -> Vec<(HeaderMap, Value)> {
    forge
        .wait_for("deliveries", deadline::PROMPT, |state| {
            let tried = state.deliveries().iter().filter(|d| !d.tries.is_empty()).count();
            (tried >= count).then_some(())
        })
        .await
        .unwrap();
    let taken = inbox.lock().unwrap().clone();
    taken
        .into_iter()
        .map(|(headers, body)| (headers, serde_json::from_slice(&body).unwrap()))
        .collect()
}

/// Whether the SHA-256 signature in this header is right.
pub fn signed(headers: &HeaderMap, body: &[u8], secret: &str) -> bool {
    let text = headers["x-hub-signature-256"].to_str().unwrap();
    let signature = hex::decode(text.strip_prefix("sha256=").unwrap()).unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    hmac::verify(&key, body, &signature).is_ok()
}

/// One call: status and JSON answer.
pub async fn call(method: &str, url: &str, authorization: Option<&str>, body: Option<Value>) -> (u16, Value) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut request = client.request(method.parse().unwrap(), url);
    if let Some(authorization) = authorization {
        request = request.header("authorization", authorization);
    }
    if let Some(body) = body {
        request = request.json(&body);
    }
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let body = response.bytes().await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

/// git, as a person runs it who has no configuration.
pub fn git(dir: &std::path::Path, args: &[&str]) -> std::process::Output {
    std::process::Command::new("git")
        .args(["-c", "user.name=alice", "-c", "user.email=alice@example.org"])
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env_remove("GIT_ASKPASS")
        .env("no_proxy", "127.0.0.1")
        .output()
        .unwrap()
}

/// The setting that has git send a token as its password.
pub fn with_token(token: &str) -> String {
    let basic = STANDARD.encode(format!("helios-ci:{token}"));
    format!("http.extraHeader=Authorization: Basic {basic}")
}

/// A status, as a CI sends it.
pub fn status_of(state: &str, context: &str) -> Option<Value> {
    Some(json!({"state": state, "context": context}))
}

/// The names of the events that came, each with its ref.
pub fn events(got: &[(HeaderMap, Value)]) -> Vec<(&str, &str)> {
    got.iter()
        .map(|(headers, body)| {
            (
                headers["x-forgejo-event"].to_str().unwrap(),
                body["ref"].as_str().unwrap_or_default(),
            )
        })
        .collect()
}
