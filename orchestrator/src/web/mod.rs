//! Pages, the JSON API and live logs. They read the store and the log files, and they change the
//! world only by writing intents into the store, each through [`authorize::authorize`].
//!
//! - [`routes`]: the table of all routes, from which the router is made
//! - [`authorize`], [`identity`], [`session`]: who may do what, and how they prove who they are
//! - `lookup`: from an id in an address to the thing, or to the answer of an absent one
//! - [`pages`]: HTML; [`api`]: JSON, and the forms of the pages
//! - [`live`]: logs while they grow, raw logs with `Range`
//! - [`health`], [`metrics`]: how the daemon is, for balancers and for monitoring
//! - [`http`]: listeners, TLS, limits on callers and connections, their orderly end

pub mod api;
pub mod authorize;
pub mod health;
pub mod http;
pub mod identity;
pub mod live;
mod lookup;
pub mod metrics;
pub mod pages;
pub mod routes;
pub mod session;
mod single_flight;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use self::single_flight::SingleFlight;
use crate::{
    config::Config,
    forge::{ConnectionHealth, ForgeError},
    logs::LogStore,
    machine::Machines,
    model::{
        names::{CommitSha, ConnectionId, RefName, RepoPath},
        trigger::Repository,
    },
    planner::Caught,
    queue::{Hint, Hints},
    store::{Store, StoreError},
    telemetry::Metrics,
};

pub use routes::router;

/// What became of a comparison with the forges, for everybody who waits for it.
type CatchUpResult = Result<Arc<Vec<Caught>>, Arc<dyn std::error::Error + Send + Sync>>;

/// What the API asks of forges: the repository under a path, now.
#[async_trait]
pub trait Repositories: Send + Sync {
    /// The repository, to be stored with what is asked for it; `None` when the forge has none under this path (or none
    /// that it shows us).
    async fn find(&self, connection: &ConnectionId, path: &RepoPath) -> Result<Option<Repository>, ForgeError>;

    /// What a ref points at now; `None` when there is none of this name.
    async fn read_ref(&self, repository: &Repository, name: &RefName) -> Result<Option<CommitSha>, ForgeError>;

    /// Tries every connection and compares what its refs point at with the pushes that are known.
    async fn catch_up(&self) -> Result<Vec<Caught>, StoreError>;
}

/// Everything the handlers need.
#[derive(Clone)]
pub struct AppState(Arc<Inner>);

struct Inner {
    store: Store,
    logs: LogStore,
    config: Arc<Config>,
    machines: Arc<dyn Machines>,
    repositories: Arc<dyn Repositories>,
    connections: ConnectionHealth,
    hints: Arc<dyn Hints>,
    stream_poll: Option<Duration>,
    catch_up: SingleFlight<CatchUpResult>,
    metrics: Metrics,
    draining: CancellationToken,
    assets: pages::assets::Assets,
    logins: http::limits::Attempts,
    viewers: http::limits::Viewers,
    origin: String,
}

/// What [`AppState::new`] is made of.
pub struct Parts {
    /// The state.
    pub store: Store,
    /// The logs.
    pub logs: LogStore,
    /// The configuration.
    pub config: Arc<Config>,
    /// This node's machines, whose consoles are read and typed on.
    pub machines: Arc<dyn Machines>,
    /// Repositories by path, asked for by `POST /api/v1/builds`.
    pub repositories: Arc<dyn Repositories>,
    /// Whether the forges accept us.
    pub connections: ConnectionHealth,
    /// What requests change wakes others through them, and what others change wakes live pages.
    pub hints: Arc<dyn Hints>,
    /// How often live pages look for what nobody hinted at: [`live::poll`].
    pub stream_poll: Option<Duration>,
    /// Metrics.
    pub metrics: Metrics,
    /// Cancelled when the daemon begins to stop: readiness fails and live streams end.
    pub draining: CancellationToken,
}

impl AppState {
    /// Wires the parts.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(Inner {
            origin: origin_of(&parts.config.public_url),
            store: parts.store,
            logs: parts.logs,
            config: parts.config,
            machines: parts.machines,
            repositories: parts.repositories,
            connections: parts.connections,
            hints: parts.hints,
            stream_poll: parts.stream_poll,
            catch_up: SingleFlight::default(),
            metrics: parts.metrics,
            draining: parts.draining,
            assets: pages::assets::Assets::new(),
            logins: http::limits::Attempts::new(10, Duration::from_secs(15 * 60)),
            viewers: http::limits::Viewers::new(64, 1024),
        }))
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// The logs.
    #[must_use]
    pub fn logs(&self) -> &LogStore {
        &self.0.logs
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// This node's machines.
    #[must_use]
    pub fn machines(&self) -> &dyn Machines {
        &*self.0.machines
    }

    /// The metrics.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Repositories by path.
    #[must_use]
    pub fn repositories(&self) -> &dyn Repositories {
        &*self.0.repositories
    }

    /// Whether the forges accept us.
    #[must_use]
    pub fn connections(&self) -> &ConnectionHealth {
        &self.0.connections
    }

    /// The static files' addresses.
    #[must_use]
    pub fn assets(&self) -> &pages::assets::Assets {
        &self.0.assets
    }

    /// Wakes whoever waits for these changes. A lost hint costs latency only.
    pub fn notify(&self, changes: impl IntoIterator<Item = Hint>) {
        changes.into_iter().for_each(|change| self.0.hints.notify(change));
    }

    pub(crate) fn hints(&self) -> &dyn Hints {
        &*self.0.hints
    }

    pub(crate) fn stream_poll(&self) -> Option<Duration> {
        self.0.stream_poll
    }

    /// The comparison with the forges that a person asked for, while it goes on.
    pub(crate) fn catch_up(&self) -> &SingleFlight<CatchUpResult> {
        &self.0.catch_up
    }

    pub(crate) fn draining(&self) -> &CancellationToken {
        &self.0.draining
    }

    pub(crate) fn logins(&self) -> &http::limits::Attempts {
        &self.0.logins
    }

    pub(crate) fn viewers(&self) -> &http::limits::Viewers {
        &self.0.viewers
    }

    /// `https://ci.example.org`: what the `Origin` of our own forms is.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.0.origin
    }

    /// Whether browsers reach us over TLS, ours or a proxy's.
    #[must_use]
    pub fn secure(&self) -> bool {
        self.0.config.tls.is_some() || self.0.config.public_url.starts_with("https://")
    }

    /// Whether the listener is for this host alone.
    #[must_use]
    pub fn loopback(&self) -> bool {
        self.0.config.listen.ip().is_loopback()
    }

    /// The session's cookie. Browsers accept the prefix `__Host-` only with `Secure`, so development
    /// over plain HTTP on a loopback address has another name.
    #[must_use]
    pub fn session_cookie(&self) -> &'static str {
        if self.secure() { "__Host-helios" } else { "helios" }
    }

    /// The cookie that ties a login form to its browser.
    #[must_use]
    pub fn login_cookie(&self) -> &'static str {
        if self.secure() {
            "__Host-helios-login"
        } else {
            "helios-login"
        }
    }
}

impl fmt::Debug for AppState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppState")
            .field("origin", &self.0.origin)
            .finish_non_exhaustive()
    }
}

/// Scheme, host and port of a URL, as browsers write an origin.
fn origin_of(url: &str) -> String {
    let origin = match url.split_once("://") {
        Some((scheme, rest)) => {
            let authority = rest.split('/').next().unwrap_or_default().to_ascii_lowercase();
            let default_port = if scheme == "https" { ":443" } else { ":80" };
            format!(
                "{scheme}://{}",
                authority.strip_suffix(default_port).unwrap_or(&authority)
            )
        }
        None => url.to_owned(),
    };
    origin.trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod origin_tests {
    use super::origin_of;

    #[test]
    fn an_origin_has_no_path_and_no_default_port() {
        assert_eq!(origin_of("https://CI.example.org:443/ci"), "https://ci.example.org");
        assert_eq!(origin_of("http://127.0.0.1:8080"), "http://127.0.0.1:8080");
    }
}
