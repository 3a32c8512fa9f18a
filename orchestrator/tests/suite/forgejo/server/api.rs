//! Forgejo's API, as one person uses it.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::deadline;

/// The password of everybody.
pub const PASSWORD: &str = "all-of-us-share-it";

/// What a person who gives name and password sends.
pub fn basic(login: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{login}:{PASSWORD}")))
}

/// One person's use of a forge's API.
#[derive(Debug, Clone)]
pub struct Api {
    client: reqwest::Client,
    base: String,
    authorization: String,
}

impl Api {
    /// The API of the forge at this address, with the value of the header `Authorization`.
    pub fn new(url: &str, authorization: String) -> Self {
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(deadline::PROMPT)
            .build()
            .expect("a client");
        Self {
            client,
            base: format!("{url}/api/v1"),
            authorization,
        }
    }

    /// The same API as another person uses it.
    pub fn of(&self, authorization: String) -> Self {
        Self {
            authorization,
            ..self.clone()
        }
    }

    /// One call: status and what was answered, null where it is no JSON.
    pub async fn call(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let method: http::Method = method.parse().expect("a method");
        let mut request = self
            .client
            .request(method.clone(), format!("{}{path}", self.base))
            .header("authorization", &self.authorization);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap_or_else(|e| panic!("{method} {path}: {e}"));
        let status = answer.status().as_u16();
        let body = answer.bytes().await.unwrap_or_else(|e| panic!("{method} {path}: {e}"));
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    /// What is to be read; it must be there.
    pub async fn get(&self, path: &str) -> Value {
        let (status, answer) = self.call("GET", path, None).await;
        assert_eq!(status, 200, "GET {path}: {answer}");
        answer
    }

    /// A change that must succeed.
    pub async fn must(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let (status, answer) = self.call(method, path, body).await;
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }
}
