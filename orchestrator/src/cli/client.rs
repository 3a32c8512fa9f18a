//! The CLI's way to the daemon: its JSON API with a bearer token. No redirect is followed and no proxy variable read.

use std::{
    error::Error,
    future::Future,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use clap::Args;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyDataStream, BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::MaybeHttpsStream;
use hyper_util::{
    client::legacy::{
        Client as Http,
        connect::{HttpConnector, dns::Name},
    },
    rt::{TokioExecutor, TokioIo},
};
use miette::IntoDiagnostic as _;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    net::TcpStream,
    signal::unix::{Signal, SignalKind, signal},
    time::timeout,
};
use tower::{BoxError, Service, service_fn, util::BoxCloneSyncService};
use url::Url;

use super::Common;
use crate::{
    clock::now_ms,
    config::Config,
    connector,
    error_chain::innermost,
    model::ids::TokenId,
    secret::Secret,
    store::{NewToken, Store, StoreError},
    web::{
        api::types::Failure,
        identity::{ADMIN_SCOPE, new_token, token_hash},
    },
};

/// The life of a token that the CLI makes for itself.
const LIFE_OF_LOCAL_TOKEN: Duration = Duration::from_secs(12 * 3600);
/// Resolving, connecting and TLS.
const CONNECT: Duration = Duration::from_secs(10);
/// An answer up to its last byte, or the head of one that is read as it comes.
const ANSWER: Duration = Duration::from_secs(60);

/// How to see whether the daemon runs, on this system.
const IS_IT_RUNNING: &str = if cfg!(target_os = "illumos") {
    "is it running (`svcs -x helios-ci`), and is --server right?"
} else {
    "is it running (`helios-ci serve`), and is --server right?"
};
/// A call without a body.
pub(super) const NOTHING: Option<&()> = None;

/// Where the daemon is, and who asks.
#[derive(Debug, Args)]
#[command(next_help_heading = "Daemon")]
pub(super) struct ClientArgs {
    /// The daemon to talk to, as `https://host`. Default: the one of the configuration.
    #[arg(long, env = "HELIOS_CI_SERVER")]
    server: Option<String>,
    /// A file that holds an API token. Default: $HELIOS_CI_TOKEN, else a short-lived token made in
    /// the database of the configuration, which only the daemon's user and root can do.
    #[arg(long, env = "HELIOS_CI_TOKEN_FILE")]
    token_file: Option<PathBuf>,
}

/// A call that did not work.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub(super) enum ClientError {
    /// Nobody answered.
    #[error("cannot reach the daemon at {server}: {reason}")]
    #[diagnostic(help("{IS_IT_RUNNING}"))]
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
    /// It said something else than was asked for.
    #[error("cannot understand the daemon's answer to {call}: {reason}")]
    #[diagnostic(help("are this command and the daemon of one version? `helios-ci version` tells"))]
    NotUnderstood {
        /// What was asked.
        call: String,
        /// What is wrong with it.
        reason: String,
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

/// A signal ended the command; whoever sent it knows.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("interrupted")]
pub(super) struct Interrupted;

/// SIGINT and SIGTERM, from now on.
struct EndSignals([Signal; 3]);

impl EndSignals {
    fn new() -> io::Result<Self> {
        // A terminal that is closed says so by SIGHUP.
        Ok(Self([
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ]))
    }

    /// The next of them; never where none is waited for.
    async fn next(signals: &mut Option<Self>) {
        let Some(Self([interrupt, terminate, hangup])) = signals else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// A daemon and a token for it.
pub(super) struct Client {
    http: Http<Connector, Full<Bytes>>,
    /// Without a slash at its end.
    server: String,
    authorization: HeaderValue,
}

/// What there is to show to the daemon.
enum Given {
    Token(Secret),
    /// Nothing: a token must be made in the database of this configuration.
    Database(Box<Config>),
}

/// The daemon, what to show it, and where to connect to if it is this host's own.
fn find(common: &Common, args: &ClientArgs) -> miette::Result<(String, Given, Option<SocketAddr>)> {
    let given = match (&args.token_file, std::env::var("HELIOS_CI_TOKEN")) {
        (Some(path), _) => Some(read_token(path)?),
        (None, Ok(token)) if !token.is_empty() => Some(Secret::new(token)),
        _ => None,
    };
    let given = match (&args.server, given) {
        // No configuration is read for what it would not be asked for.
        (Some(server), Some(token)) => return Ok((server.clone(), Given::Token(token), None)),
        (_, given) => given,
    };
    let config = crate::cli::commands::config::load(common)?;
    let (server, at) = match &args.server {
        Some(server) => (server.clone(), None),
        None => {
            let (server, named) = local_url(&config);
            (server, named.then_some(config.listen))
        }
    };
    Ok((
        server,
        given.map_or_else(|| Given::Database(Box::new(config)), Given::Token),
        at,
    ))
}

fn authorization(token: &Secret) -> Result<HeaderValue, ClientError> {
    let value = HeaderValue::from_str(&format!("Bearer {}", token.expose()));
    let mut value = value.map_err(|_| ClientError::NoToken {
        reason: "no header can carry it: check the file or variable it is read from".to_owned(),
    })?;
    value.set_sensitive(true);
    Ok(value)
}

impl Client {
    /// Finds the daemon and a token as the options, the environment and the configuration say, and does `work` with
    /// them. A token that was made for this is revoked however the work ends, SIGINT, SIGTERM and SIGHUP included.
    pub async fn with<T>(
        common: &Common,
        args: &ClientArgs,
        work: impl AsyncFnOnce(&Self) -> miette::Result<T>,
    ) -> miette::Result<T> {
        Self::run(common, args, true, work).await
    }

    /// As [`Client::with`], for work that ends by itself, and in order, at SIGINT and SIGTERM.
    pub async fn with_own_signals<T>(
        common: &Common,
        args: &ClientArgs,
        work: impl AsyncFnOnce(&Self) -> miette::Result<T>,
    ) -> miette::Result<T> {
        Self::run(common, args, false, work).await
    }

    async fn run<T>(
        common: &Common,
        args: &ClientArgs,
        signals_end_it: bool,
        work: impl AsyncFnOnce(&Self) -> miette::Result<T>,
    ) -> miette::Result<T> {
        let (server, given, at) = find(common, args)?;
        let url = address(&server)?;
        let connector = connector(url.scheme() == "https", at).map_err(|e| unreachable(&server, &e))?;
        let http = Http::builder(TokioExecutor::new()).build(connector);
        let server = url.as_str().trim_end_matches('/').to_owned();
        // Last, so that nothing can go wrong between the token and what revokes it. Without one of our own a signal
        // needs no answer.
        let (token, own, mut signals) = match given {
            Given::Token(token) => (token, None, None),
            Given::Database(config) => {
                let signals = signals_end_it.then(EndSignals::new).transpose().into_diagnostic()?;
                let (token, own) = LocalToken::make(&config).await?;
                (token, Some(own), signals)
            }
        };
        let done = match authorization(&token) {
            Ok(authorization) => {
                let client = Self {
                    http,
                    server,
                    authorization,
                };
                tokio::select! {
                    done = work(&client) => done,
                    () = EndSignals::next(&mut signals) => Err(Interrupted.into()),
                }
            }
            Err(error) => Err(error.into()),
        };
        if let Some(own) = own {
            own.revoke().await;
        }
        done
    }

    /// `GET`, JSON back.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call(Method::GET, path, None).await
    }

    /// `POST`, JSON back.
    pub async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: Option<&B>,
    ) -> Result<T, ClientError> {
        let bytes = body.map(serde_json::to_vec).transpose();
        let bytes = bytes.map_err(|e| not_understood(path, &e))?;
        self.call(Method::POST, path, bytes.map(|bytes| ("application/json", bytes)))
            .await
    }

    /// `POST` of bytes, once; JSON back.
    pub async fn post_bytes<T: DeserializeOwned>(&self, path: &str, body: Vec<u8>) -> Result<T, ClientError> {
        self.call(Method::POST, path, Some(("application/octet-stream", body)))
            .await
    }

    /// `GET`, the body as it comes.
    pub async fn open(&self, path: &str, headers: &[(&str, String)]) -> Result<BodyDataStream<Incoming>, ClientError> {
        let mut request = Request::get(format!("{}{path}", self.server));
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let answer = async { self.checked("GET", path, self.send(request, Vec::new()).await?).await };
        let response = self.within(answer).await?;
        Ok(response.into_body().into_data_stream())
    }

    /// One exchange; a body with its type.
    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<(&'static str, Vec<u8>)>,
    ) -> Result<T, ClientError> {
        let mut request = Request::builder().method(&method).uri(format!("{}{path}", self.server));
        let mut bytes = Vec::new();
        if let Some((kind, body)) = body {
            request = request.header(header::CONTENT_TYPE, kind);
            bytes = body;
        }
        self.within(async {
            let response = self.send(request, bytes).await?;
            let response = self.checked(method.as_str(), path, response).await?;
            let body = response.into_body().collect().await.map_err(|e| self.unreachable(&e))?;
            serde_json::from_slice(&body.to_bytes()).map_err(|e| not_understood(path, &e))
        })
        .await
    }

    async fn send(&self, request: http::request::Builder, body: Vec<u8>) -> Result<Response<Incoming>, ClientError> {
        let request = request
            .header(header::AUTHORIZATION, self.authorization.clone())
            .header(header::ACCEPT, "*/*")
            .body(Full::from(body))
            .map_err(|e| self.unreachable(&e))?;
        tracing::debug!(method = %request.method(), uri = %request.uri(), "asking the daemon");
        let response = self.http.request(request).await.map_err(|e| self.unreachable(&e))?;
        tracing::debug!(status = %response.status(), "the daemon answers");
        Ok(response)
    }

    async fn within<T>(&self, answer: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
        match timeout(ANSWER, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(self.unreachable(&late("answer", ANSWER))),
        }
    }

    async fn checked(
        &self,
        method: &str,
        path: &str,
        response: Response<Incoming>,
    ) -> Result<Response<Incoming>, ClientError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.into_body().collect().await;
        let failure: Option<Failure> = body.ok().and_then(|body| serde_json::from_slice(&body.to_bytes()).ok());
        let message = match failure {
            Some(failure) => failure.error.message,
            None if status == StatusCode::UNAUTHORIZED => "the token is not valid".to_owned(),
            None => status.to_string(),
        };
        Err(ClientError::Refused {
            call: format!("{method} {path}"),
            message,
            status: status.as_u16(),
        })
    }

    /// The daemon, or what is between, does not do what it should.
    pub fn broken(&self, reason: String) -> ClientError {
        ClientError::Unreachable {
            server: self.server.clone(),
            reason,
        }
    }

    fn unreachable(&self, error: &(dyn Error + 'static)) -> ClientError {
        unreachable(&self.server, error)
    }
}

/// An answer as JSON text for programs, its keys in alphabetical order.
pub(super) fn json_text(answer: &impl Serialize) -> miette::Result<String> {
    serde_json::to_value(answer)
        .map(|answer| format!("{answer:#}"))
        .into_diagnostic()
}

/// An answer that is not of the expected shape.
pub(super) fn not_understood(path: &str, error: &dyn Error) -> ClientError {
    ClientError::NotUnderstood {
        call: path.to_owned(),
        reason: error.to_string(),
    }
}

/// The innermost cause says what really happened.
fn unreachable(server: &str, error: &(dyn Error + 'static)) -> ClientError {
    ClientError::Unreachable {
        server: server.to_owned(),
        reason: innermost(error),
    }
}

/// Whatever else `--server` holds, nothing can be asked for there.
fn address(server: &str) -> Result<Url, ClientError> {
    let web = |url: &Url| matches!(url.scheme(), "http" | "https");
    Url::parse(server)
        .ok()
        .filter(web)
        .ok_or_else(|| ClientError::Unreachable {
            server: server.to_owned(),
            reason: "this is not an address; write it as https://HOST or http://HOST:PORT".to_owned(),
        })
}

fn late(what: &str, after: Duration) -> io::Error {
    io::Error::new(
        io::ErrorKind::TimedOut,
        format!("no {what} within {} s", after.as_secs()),
    )
}

type Connector = BoxCloneSyncService<Uri, MaybeHttpsStream<TokioIo<TcpStream>>, BoxError>;

/// Connects within a time, to this address if the daemon's own is known.
fn connector(https: bool, at: Option<SocketAddr>) -> io::Result<Connector> {
    let mut connector = HttpConnector::new_with_resolver(Resolver(at));
    connector.set_nodelay(true);
    let connector = connector::tls(connector, https)?;
    Ok(BoxCloneSyncService::new(service_fn(move |to: Uri| {
        let connecting = connector.clone().call(to);
        async move {
            match timeout(CONNECT, connecting).await {
                Ok(connected) => connected,
                Err(_) => Err(late("connection", CONNECT).into()),
            }
        }
    })))
}

/// Finds every name at one address if there is one, else where the system's resolver says.
#[derive(Debug, Clone)]
struct Resolver(Option<SocketAddr>);

type Resolving = Pin<Box<dyn Future<Output = io::Result<std::vec::IntoIter<SocketAddr>>> + Send>>;

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Resolving;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Resolving {
        let at = self.0;
        Box::pin(async move {
            let found = match at {
                Some(at) => vec![at],
                None => tokio::net::lookup_host((name.as_str(), 0)).await?.collect(),
            };
            Ok(found.into_iter())
        })
    }
}

fn read_token(path: &Path) -> Result<Secret, ClientError> {
    let text = std::fs::read_to_string(path).map_err(|e| ClientError::NoToken {
        reason: format!("cannot read {}: {e}", path.display()),
    })?;
    Ok(Secret::new(text.trim()))
}

/// This host's daemon. With TLS it is called by the name that its certificate is for, and the second is true: it is at
/// the listener's address, wherever the name leads others.
fn local_url(config: &Config) -> (String, bool) {
    let public = Url::parse(&config.public_url).ok();
    match public.as_ref().and_then(Url::host_str).filter(|_| config.tls.is_some()) {
        Some(host) => (format!("https://{host}:{}", config.listen.port()), true),
        None => (format!("http://{}", config.listen), false),
    }
}

/// A token made for this process alone. Whoever may write the database administers the daemon anyway.
struct LocalToken {
    store: Store,
    id: TokenId,
}

impl LocalToken {
    async fn make(config: &Config) -> Result<(Secret, Self), ClientError> {
        let failed = |e: StoreError| ClientError::NoToken { reason: e.to_string() };
        let store = Store::open_beside_daemon(&config.database).await.map_err(failed)?;
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
                expires_ms: now_ms() + i64::try_from(LIFE_OF_LOCAL_TOKEN.as_millis()).unwrap_or(0),
                scopes: vec![ADMIN_SCOPE.into()],
            })
            .await
            .map_err(failed)?;
        Ok((token, Self { store, id }))
    }

    async fn revoke(self) {
        if let Err(error) = self.store.revoke_token(self.id).await {
            tracing::warn!(%error, token = %self.id, "this command's token could not be revoked; it expires by itself");
        }
        self.store.close().await;
    }
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
            ("http://127.0.0.1:8080".to_owned(), false)
        );
        assert_eq!(
            url("listen: 0.0.0.0:8443\npublic_url: https://ci.example.org\ntls: {certificate: /c, key: /k}"),
            ("https://ci.example.org:8443".to_owned(), true)
        );
    }
}
