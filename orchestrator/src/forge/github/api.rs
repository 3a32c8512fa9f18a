//! octocrab over our checked client, with App and installation tokens.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use axum::http::HeaderMap;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt, Full};
use octocrab::{AuthState, OctoBody, Octocrab, OctocrabBuilder, service::middleware::base_uri::BaseUriLayer};
use serde::{Deserialize, Serialize};

use super::{
    jwt::SigningKey,
    token::{Scope, Token, TokenAnswer, Tokens},
};
use crate::{
    clock,
    forge::{
        ForgeError,
        answer::{Answer, Call},
        http::{Outgoing, SendError, cause},
    },
    model::names::RepoPath,
    secret::Secret,
};

/// Installations that are remembered for repositories whose triggers named none.
const INSTALLATIONS: usize = 1000;

/// One call.
pub struct Ask<'a, B> {
    /// GET, POST or PATCH.
    pub method: Method,
    /// From `/` on, already encoded.
    pub route: &'a str,
    /// For GET none.
    pub body: Option<&'a B>,
    /// Another media type than JSON.
    pub accept: Option<&'static str>,
}

impl<'a> Ask<'a, ()> {
    /// A GET.
    pub fn get(route: &'a str) -> Self {
        Self {
            method: Method::GET,
            route,
            body: None,
            accept: None,
        }
    }
}

/// The REST API of one GitHub, as one App.
pub struct Api {
    crab: Octocrab,
    forge: String,
    key: SigningKey,
    tokens: Tokens,
    installations: Mutex<HashMap<RepoPath, u64>>,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // octocrab's own form prints what it authenticates with.
        f.debug_struct("Api")
            .field("forge", &self.forge)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

impl Api {
    /// Needs a running tokio runtime: octocrab starts a task.
    pub fn new(http: Outgoing, key: SigningKey) -> Self {
        let base = http.base().clone();
        let forge = base.to_string().trim_end_matches('/').to_owned();
        let http = Arc::new(http);
        let service = tower::service_fn(move |request| exchange(http.clone(), request));
        let built = OctocrabBuilder::new_empty()
            .with_service(service)
            .with_layer(&BaseUriLayer::new(base))
            .with_auth(AuthState::None)
            .build();
        let crab = match built {
            Ok(crab) => crab,
            Err(never) => match never {},
        };
        Self {
            crab,
            forge,
            key,
            tokens: Tokens::default(),
            installations: Mutex::default(),
        }
    }

    /// The App's id.
    pub fn app_id(&self) -> u64 {
        self.key.app_id()
    }

    /// A message's place: this call.
    pub fn call(&self, method: &Method, route: &str) -> Call {
        let path = route.split('?').next().unwrap_or(route);
        Call {
            forge: self.forge.clone(),
            call: format!("{method} {path}"),
        }
    }

    /// Calls as the App itself.
    ///
    /// # Errors
    /// As [`Answer::judge`], and when no answer came.
    pub async fn as_app<B: Serialize>(&self, ask: Ask<'_, B>) -> Result<Answer, ForgeError> {
        let call = self.call(&ask.method, ask.route);
        let token = self
            .key
            .token(clock::now_ms() / 1000)
            .ok_or_else(|| call.later("this host gives no random bytes to sign with", None))?;
        Answer::judge(call.clone(), self.send(&ask, &token, &call).await?)
    }

    /// Calls with an installation's token; one that GitHub has withdrawn is replaced once.
    ///
    /// # Errors
    /// As [`Answer::judge`], and when no token or no answer came.
    pub async fn as_installation<B: Serialize>(&self, scope: Scope, ask: Ask<'_, B>) -> Result<Answer, ForgeError> {
        let call = self.call(&ask.method, ask.route);
        let token = self.token(scope).await?;
        let mut response = self.send(&ask, &token, &call).await?;
        if response.status() == http::StatusCode::UNAUTHORIZED {
            self.tokens.forget(scope, &token).await;
            let token = self.token(scope).await?;
            response = self.send(&ask, &token, &call).await?;
        }
        Answer::judge(call, response)
    }

    /// A valid installation token of this scope.
    ///
    /// # Errors
    /// When GitHub gives none.
    pub async fn token(&self, scope: Scope) -> Result<Secret, ForgeError> {
        let mint = async || {
            let route = format!("/app/installations/{}/access_tokens", scope.installation);
            let body = scope.request();
            let ask = Ask {
                method: Method::POST,
                route: &route,
                body: Some(&body),
                accept: None,
            };
            let help = "the App is not installed there any more, or the key belongs to another App";
            self.as_app(ask).await?.needed::<TokenAnswer>(help).map(Token::from)
        };
        self.tokens.get(scope, mint).await
    }

    /// The installation that a repository belongs to; none when the App is not installed on it.
    ///
    /// # Errors
    /// When GitHub does not say.
    pub async fn installation(&self, path: &RepoPath, known: Option<u64>) -> Result<Option<u64>, ForgeError> {
        let remembered = || self.installations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = known.or_else(|| remembered().get(path).copied()) {
            return Ok(Some(id));
        }
        #[derive(Deserialize)]
        struct Installation {
            id: u64,
        }
        let route = format!("/repos/{path}/installation");
        let found: Option<Installation> = self.as_app(Ask::get(&route)).await?.json()?;
        if let Some(found) = &found {
            let mut all = remembered();
            if all.len() >= INSTALLATIONS {
                all.clear();
            }
            all.insert(path.clone(), found.id);
        }
        Ok(found.map(|i| i.id))
    }

    /// Forgets what [`Api::installation`] remembered: the App may have been installed again.
    pub fn forget_installation(&self, path: &RepoPath) {
        self.installations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(path);
    }

    async fn send<B: Serialize>(
        &self,
        ask: &Ask<'_, B>,
        token: &Secret,
        call: &Call,
    ) -> Result<Response<Bytes>, ForgeError> {
        let failed = |error: octocrab::Error| call.failed(&cause(&error));
        let crab = self.crab.user_access_token(token.expose()).map_err(failed)?;
        let response = match ask.method {
            Method::GET => {
                let accept = ask
                    .accept
                    .map(|a| HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(a))]));
                crab._get_with_headers(ask.route, accept).await
            }
            Method::PATCH => crab._patch(ask.route, ask.body).await,
            _ => crab._post(ask.route, ask.body).await,
        };
        let (parts, body) = response.map_err(failed)?.into_parts();
        let body = body.collect().await.map_err(failed)?.to_bytes();
        Ok(Response::from_parts(parts, body))
    }
}

/// octocrab's request through our client, with the answer read and bounded already.
async fn exchange(http: Arc<Outgoing>, request: Request<OctoBody>) -> Result<Response<Full<Bytes>>, SendError> {
    let (mut parts, body) = request.into_parts();
    let json = HeaderValue::from_static("application/vnd.github+json");
    parts.headers.entry(header::ACCEPT).or_insert(json);
    let body = body.collect().await.map_err(|error| cause(&error))?.to_bytes();
    // octocrab writes a length of its own for requests without a body; ours is computed.
    parts.headers.remove(header::CONTENT_LENGTH);
    Ok(http
        .send(Request::from_parts(parts, Full::new(body)))
        .await?
        .map(Full::new))
}
