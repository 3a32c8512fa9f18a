//! What both conversations need: a receiver of webhooks, an HTTP client, the published descriptions.

use std::sync::{Arc, Mutex};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, routing::post};
use helios_fakeforge::{FakeForge, Options};
use ring::hmac;
use serde_json::Value;

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
