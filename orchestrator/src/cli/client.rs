//! The CLI's way to the daemon: its JSON API with a bearer token.

use std::{path::Path, time::Duration};

use reqwest::{Method, StatusCode};
use serde_json::Value;

use super::{Common, Exit};
use crate::{
    clock::now_ms,
    config::Config,
    secret::Secret,
    store::{NewToken, Store},
    web::identity::{ADMIN_SCOPE, new_token, token_hash},
};

/// The life of a token that the CLI makes for itself.
const LOCAL_TOKEN: Duration = Duration::from_secs(12 * 3600);

/// A call that did not work.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub(super) enum ClientError {
    /// Nobody answered.
    #[error("cannot reach the daemon at {server}: {reason}")]
    #[diagnostic(help("is it running (`svcs helios-ci`), and is --server right?"))]
    Unreachable {
        /// Where.
        server: String,
        /// Why.
        reason: String,
    },
    /// It said no.
    #[error("the daemon refused {call}: {message}")]
    Refused {
        /// What was asked.
        call: String,
        /// Its words.
        message: String,
        /// Its status.
        status: u16,
    },
    /// There is no token to use.
    #[error("no API token: {reason}")]
    #[diagnostic(help(
        "make one with `helios-ci token create NAME` on the server, and give it by --token-file or HELIOS_CI_TOKEN"
    ))]
    NoToken {
        /// Why none could be made.
        reason: String,
    },
}

impl ClientError {
    /// The process's exit code for it.
    pub fn exit(&self) -> Exit {
        Exit::Unreachable
    }
}

/// A daemon and a token for it.
pub(super) struct Client {
    http: reqwest::Client,
    server: String,
    token: Secret,
    /// A token made for this process alone, to be revoked at its end.
    own: Option<(Store, crate::model::ids::TokenId)>,
}

impl Client {
    /// Finds the daemon and a token as the options, the environment and the configuration say.
    pub async fn connect(common: &Common) -> miette::Result<Self> {
        let given = match (&common.token_file, std::env::var("HELIOS_CI_TOKEN")) {
            (Some(path), _) => Some(read_token(path)?),
            (None, Ok(token)) if !token.is_empty() => Some(Secret::new(token)),
            _ => None,
        };
        let mut at = None;
        let (server, token, own) = match (&common.server, given) {
            (Some(server), Some(token)) => (server.clone(), token, None),
            (server, given) => {
                let config = super::config::load(common)?;
                let server = server.clone().unwrap_or_else(|| {
                    let (server, host) = local_url(&config);
                    at = host.map(|host| (host, config.listen));
                    server
                });
                match given {
                    Some(token) => (server, token, None),
                    None => {
                        let (token, own) = local_token(&config).await?;
                        (server, token, Some(own))
                    }
                }
            }
        };
        let mut http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(10))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        if let Some((host, listen)) = at {
            http = http.resolve(&host, listen);
        }
        let http = http.build().map_err(|e| ClientError::Unreachable {
            server: server.clone(),
            reason: e.to_string(),
        })?;
        Ok(Self {
            http,
            server: server.trim_end_matches('/').to_owned(),
            token,
            own,
        })
    }

    /// Revokes a token that was made for this process.
    pub async fn close(self) {
        if let Some((store, id)) = self.own {
            let _it_expires_anyway = store.revoke_token(id).await;
            store.close().await;
        }
    }

    /// `GET`, JSON back.
    pub async fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.call(Method::GET, path, None).await
    }

    /// `POST`, JSON back.
    pub async fn post(&self, path: &str, body: Option<Value>) -> Result<Value, ClientError> {
        self.call(Method::POST, path, body).await
    }

    /// `POST` of bytes, once; JSON back.
    pub async fn post_bytes(&self, path: &str, body: Vec<u8>) -> Result<Value, ClientError> {
        let request = self
            .request(Method::POST, path)
            .timeout(Duration::from_secs(60))
            .header("content-type", "application/octet-stream")
            .body(body);
        let response = request.send().await.map_err(|e| self.unreachable(&e))?;
        let response = self.checked("POST", path, response).await?;
        response.json().await.map_err(|e| self.unreachable(&e))
    }

    /// `GET`, the body as it comes.
    pub async fn open(&self, path: &str, headers: &[(&str, String)]) -> Result<reqwest::Response, ClientError> {
        let mut request = self.request(Method::GET, path);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let response = request.send().await.map_err(|e| self.unreachable(&e))?;
        self.checked("GET", path, response).await
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.server))
            .bearer_auth(self.token.expose())
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value, ClientError> {
        let name = method.to_string();
        let mut request = self.request(method, path).timeout(Duration::from_secs(60));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.map_err(|e| self.unreachable(&e))?;
        let response = self.checked(&name, path, response).await?;
        response.json().await.map_err(|e| self.unreachable(&e))
    }

    async fn checked(
        &self,
        method: &str,
        path: &str,
        response: reqwest::Response,
    ) -> Result<reqwest::Response, ClientError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body: Value = response.json().await.unwrap_or_default();
        let message = match body["error"]["message"].as_str() {
            Some(message) => message.to_owned(),
            None if status == StatusCode::UNAUTHORIZED => "the token is not valid".to_owned(),
            None => status.to_string(),
        };
        Err(ClientError::Refused {
            call: format!("{method} {path}"),
            message,
            status: status.as_u16(),
        })
    }

    fn unreachable(&self, error: &reqwest::Error) -> ClientError {
        // The URL is in the message already, and its source says what really happened.
        let mut reason = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            reason = cause.to_string();
            source = cause.source();
        }
        ClientError::Unreachable {
            server: self.server.clone(),
            reason,
        }
    }
}

fn read_token(path: &Path) -> Result<Secret, ClientError> {
    let text = std::fs::read_to_string(path).map_err(|e| ClientError::NoToken {
        reason: format!("cannot read {}: {e}", path.display()),
    })?;
    Ok(Secret::new(text.trim()))
}

/// This host's daemon. With TLS it is called by the name that its certificate is for, which is also returned: it is at
/// the listener's address, wherever the name leads others.
fn local_url(config: &Config) -> (String, Option<String>) {
    let public = reqwest::Url::parse(&config.public_url).ok();
    match public
        .as_ref()
        .and_then(reqwest::Url::host_str)
        .filter(|_| config.tls.is_some())
    {
        Some(host) => (
            format!("https://{host}:{}", config.listen.port()),
            Some(host.to_owned()),
        ),
        None => (format!("http://{}", config.listen), None),
    }
}

/// Whoever may write the database administers the daemon anyway.
async fn local_token(config: &Config) -> Result<(Secret, (Store, crate::model::ids::TokenId)), ClientError> {
    let failed = |e: crate::store::StoreError| ClientError::NoToken { reason: e.to_string() };
    let store = Store::open(&config.database).await.map_err(failed)?;
    let token = new_token();
    let hash = token_hash(token.expose()).ok_or_else(|| ClientError::NoToken {
        reason: "none could be made".into(),
    })?;
    let owner = format!("uid {}", nix::unistd::getuid());
    let id = store
        .create_token(NewToken {
            name: "command line".into(),
            hash,
            owner,
            expires_ms: now_ms() + i64::try_from(LOCAL_TOKEN.as_millis()).unwrap_or(0),
            scopes: vec![ADMIN_SCOPE.into()],
        })
        .await
        .map_err(failed)?;
    Ok((token, (store, id)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LoadOptions;

    #[test]
    fn with_a_certificate_the_daemon_is_called_by_its_name() {
        let url = |text: &str| {
            let text = format!("node: n\nbackend: qemu\n{text}\n");
            let loaded = Config::parse(Path::new("ci.yaml"), &text, LoadOptions::default()).unwrap();
            local_url(&loaded.config)
        };
        assert_eq!(
            url("listen: 127.0.0.1:8080"),
            ("http://127.0.0.1:8080".to_owned(), None)
        );
        assert_eq!(
            url("listen: 0.0.0.0:8443\npublic_url: https://ci.example.org\ntls: {certificate: /c, key: /k}"),
            (
                "https://ci.example.org:8443".to_owned(),
                Some("ci.example.org".to_owned())
            )
        );
    }
}
