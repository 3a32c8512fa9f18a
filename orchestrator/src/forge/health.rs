//! Whether each connection works: a forge that refuses a credential is a state of the connection, which begins and ends,
//! and not a verdict on whatever was asked meanwhile. It is asked at the start, on a timer, and soon after a call was
//! answered with 401; nothing ends because of an answer. The same holds for a right to one repository that is missing: a
//! fault of that repository, which is asked about until it ends.

mod repositories;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
    time::Duration,
};

use futures::future::{FutureExt as _, join_all};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use self::repositories::Faults;
pub use self::repositories::RepositoryFault;
use super::{Access, CheckedRepository, Forge, ForgeError};
use crate::{
    clock::now_ms,
    config::Connection,
    foreign_text::one_line,
    model::names::{ConnectionId, RepoPath},
};

/// How long the answers are waited for, and for each repository that is asked about so much longer.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
const ANSWER_ABOUT_ONE: Duration = Duration::from_millis(500);
/// Repositories that are asked about in one round, those with faults first.
const ASKED: usize = 100;
/// How often a connection that works is asked.
const WORKING_INTERVAL: Duration = Duration::from_secs(300);
/// After how long one that does not work is asked again, at first and at most; doubled each time. A forge may ask for a
/// longer pause.
const BROKEN_INTERVAL: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(60));
/// Refused calls cannot make us ask more often.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(10);

/// What is known of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectionState {
    /// It has not answered since the daemon started or took up a configuration.
    Unknown,
    /// It accepts us.
    Working {
        /// What it said of itself and of us, one line: `Forgejo or Gitea 11.0.1 as ci-bot`.
        answer: String,
    },
    /// It answers, and does not accept us: a credential, a permission or the address is wrong. Only a person can mend it.
    Refused {
        /// Why, without secrets.
        reason: String,
        /// Since when, in milliseconds since 1970.
        since_ms: i64,
    },
    /// It does not answer, or not now.
    Unreachable {
        /// Why, without secrets.
        reason: String,
        /// Since when, in milliseconds since 1970.
        since_ms: i64,
    },
}

impl ConnectionState {
    /// Its name in metrics, pages and the API.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Working { .. } => "working",
            Self::Refused { .. } => "refused",
            Self::Unreachable { .. } => "unreachable",
        }
    }

    /// Whether it is known not to work.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Unreachable { .. })
    }

    /// What an administrator does; none when nothing is known to be wrong.
    #[must_use]
    pub fn fix(&self) -> Option<&'static str> {
        match self {
            Self::Unknown | Self::Working { .. } => None,
            Self::Refused { .. } => Some("check the connection's token or App, and its address"),
            Self::Unreachable { .. } => Some("check address, network and proxy"),
        }
    }
}

impl fmt::Display for ConnectionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("not asked yet"),
            Self::Working { answer } => f.write_str(answer),
            Self::Refused { reason, .. } | Self::Unreachable { reason, .. } => f.write_str(reason),
        }
    }
}

/// What a forge said when it was asked.
#[derive(Debug)]
pub struct Probed {
    /// Whether the connection works.
    pub state: ConnectionState,
    /// Its rights to the repositories that were asked about; none where it does not work.
    pub repositories: Vec<CheckedRepository>,
    /// The pause that the forge asked for.
    pause: Option<Duration>,
}

/// Asks a forge once, also about these repositories.
pub async fn probe(forge: &dyn Forge, repositories: &[RepoPath]) -> Probed {
    let since_ms = now_ms();
    let within = ANSWER_WITHIN + ANSWER_ABOUT_ONE * u32::try_from(repositories.len()).unwrap_or(u32::MAX);
    let (state, pause) = match tokio::time::timeout(within, forge.check(repositories)).await {
        Ok(Ok(checked)) => {
            return Probed {
                state: ConnectionState::Working { answer: checked.answer },
                repositories: checked.repositories,
                pause: None,
            };
        }
        Ok(Err(error)) => {
            let reason = one_line(&error.to_string(), 500);
            let pause = error.retry_after();
            let state = match error {
                ForgeError::Refused { .. } | ForgeError::Forbidden { .. } | ForgeError::Unauthorized { .. } => {
                    ConnectionState::Refused { reason, since_ms }
                }
                ForgeError::Later { .. } | ForgeError::Away { .. } => ConnectionState::Unreachable { reason, since_ms },
            };
            (state, pause)
        }
        Err(_) => {
            let reason = format!("no answer within {} s", within.as_secs());
            (ConnectionState::Unreachable { reason, since_ms }, None)
        }
    };
    Probed {
        state,
        repositories: Vec::new(),
        pause,
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

/// The states of all connections of one configuration. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ConnectionHealth(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    states: watch::Sender<BTreeMap<ConnectionId, ConnectionState>>,
    /// One for each connection: a call of it was refused, so it is probed soon.
    rechecks: BTreeMap<ConnectionId, Arc<Notify>>,
    /// One for each connection: a right that was missing is there.
    mended: BTreeMap<ConnectionId, Notify>,
    /// Those that the configuration lists.
    listed: BTreeMap<ConnectionId, Vec<RepoPath>>,
    faults: Faults,
    counted: Family<StateLabel, Gauge>,
}

impl ConnectionHealth {
    /// Nothing is known of these connections yet; [`ConnectionHealth::run`] asks them.
    #[must_use]
    pub fn new<'a>(connections: impl IntoIterator<Item = &'a ConnectionId>) -> Self {
        Self::listing(connections.into_iter().map(|id| (id.clone(), Vec::new())).collect())
    }

    /// As [`ConnectionHealth::new`], for the connections of a configuration: the repositories that it lists are asked about.
    #[must_use]
    pub fn of<'a>(connections: impl IntoIterator<Item = (&'a ConnectionId, &'a Connection)>) -> Self {
        let listed = connections
            .into_iter()
            .map(|(id, connection)| (id.clone(), connection.repositories.clone()));
        Self::listing(listed.collect())
    }

    fn listing(listed: BTreeMap<ConnectionId, Vec<RepoPath>>) -> Self {
        let states: BTreeMap<_, _> = listed.keys().map(|id| (id.clone(), ConnectionState::Unknown)).collect();
        let inner = Inner {
            rechecks: states.keys().map(|id| (id.clone(), Arc::default())).collect(),
            mended: states.keys().map(|id| (id.clone(), Notify::new())).collect(),
            listed,
            faults: Faults::default(),
            states: watch::Sender::new(states),
            counted: Family::default(),
        };
        inner.count();
        Self(Arc::new(inner))
    }

    /// What is known of one connection; [`ConnectionState::Unknown`] of one that is not configured.
    #[must_use]
    pub fn state(&self, connection: &ConnectionId) -> ConnectionState {
        let states = self.0.states.borrow();
        states.get(connection).cloned().unwrap_or(ConnectionState::Unknown)
    }

    /// What is known of all, by name.
    #[must_use]
    pub fn states(&self) -> BTreeMap<ConnectionId, ConnectionState> {
        self.0.states.borrow().clone()
    }

    /// To be notified when a call of this connection was answered with 401: it is asked soon whether it still works.
    #[must_use]
    pub fn recheck(&self, connection: &ConnectionId) -> Arc<Notify> {
        self.0.rechecks.get(connection).cloned().unwrap_or_default()
    }

    /// Adds the number of connections by state to a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("connections", "Forge connections by state", self.0.counted.clone());
    }

    /// Asks a connection now, and keeps what it says.
    pub async fn probe(&self, connection: &ConnectionId, forge: &dyn Forge) -> ConnectionState {
        self.probe_all(connection, forge).await.state
    }

    async fn probe_all(&self, connection: &ConnectionId, forge: &dyn Forge) -> Probed {
        let probed = probe(forge, &self.asked(connection)).await;
        self.set(connection, probed.state.clone());
        for found in &probed.repositories {
            self.found(connection, found);
        }
        probed
    }

    /// The repositories that a connection is asked about.
    fn asked(&self, connection: &ConnectionId) -> Vec<RepoPath> {
        let faulty = self.0.faults.of(connection);
        let listed = self.0.listed.get(connection).map_or(&[][..], Vec::as_slice);
        let others = listed.iter().filter(|path| !faulty.contains_key(*path));
        faulty.keys().chain(others).take(ASKED).cloned().collect()
    }

    fn found(&self, connection: &ConnectionId, found: &CheckedRepository) {
        let path = &found.path;
        match &found.access {
            Access::Missing { reason, fix } => {
                if self.0.faults.note(connection, path, reason, fix, true) {
                    tracing::warn!(%connection, repository = %path, reason, fix, "the connection has not the rights it needs");
                }
            }
            Access::Granted { .. } => {
                // One that only a call met may still be there: that the next call says.
                if self.0.faults.of(connection).get(path).is_some_and(|fault| fault.asked) {
                    self.repository_works(connection, path);
                    if let Some(mended) = self.0.mended.get(connection) {
                        mended.notify_one();
                    }
                }
            }
            Access::Unknown { .. } => {}
        }
    }

    /// The repositories that a connection may not use now.
    #[must_use]
    pub fn repository_faults(&self, connection: &ConnectionId) -> BTreeMap<RepoPath, RepositoryFault> {
        self.0.faults.of(connection)
    }

    /// A call about this repository failed because a right is missing: the forge is asked about it soon, and until that ends.
    pub fn repository_refused(&self, connection: &ConnectionId, path: &RepoPath, reason: &str, fix: &str) {
        if self.0.faults.note(connection, path, reason, fix, false) {
            tracing::warn!(%connection, repository = %path, reason, fix, "the token or App may not read a repository; its pushes wait");
            self.recheck(connection).notify_one();
        }
    }

    /// A call about this repository was answered, or nothing waits for it any more.
    pub fn repository_works(&self, connection: &ConnectionId, path: &RepoPath) {
        if self.0.faults.end(connection, path).is_some() {
            tracing::info!(%connection, repository = %path, "the repository has no fault any more");
        }
    }

    /// Waits until a right of a connection that was missing is there.
    pub async fn until_mended(&self, connection: &ConnectionId) {
        match self.0.mended.get(connection) {
            Some(mended) => mended.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Waits until a connection is known to work.
    pub async fn until_working(&self, connection: &ConnectionId) {
        let works = |state: &ConnectionState| matches!(state, ConnectionState::Working { .. });
        self.until(connection, works).await;
    }

    /// Waits until a connection is known not to work.
    pub async fn until_broken(&self, connection: &ConnectionId) {
        self.until(connection, ConnectionState::is_broken).await;
    }

    async fn until(&self, connection: &ConnectionId, wanted: impl Fn(&ConnectionState) -> bool) {
        let mut states = self.0.states.subscribe();
        // The sender lives as long as `self`, so only what is wanted ends this.
        let _there = states.wait_for(|all| all.get(connection).is_some_and(&wanted)).await;
    }

    /// Asks every connection, each at its own pace, until `stop`.
    pub async fn run(self, forges: HashMap<ConnectionId, Arc<dyn Forge>>, stop: CancellationToken) {
        let asked = forges
            .iter()
            .map(|(connection, forge)| self.probe_repeatedly(connection, forge.as_ref()));
        stop.run_until_cancelled(join_all(asked)).await;
    }

    async fn probe_repeatedly(&self, connection: &ConnectionId, forge: &dyn Forge) {
        let recheck = self.recheck(connection);
        let mut wait = BROKEN_INTERVAL.0;
        loop {
            let Probed { state, pause, .. } = self.probe_all(connection, forge).await;
            // Calls that were refused until now, our own among them, are answered by this.
            let _refused = recheck.notified().now_or_never();
            if state.is_broken() {
                tokio::time::sleep(wait.max(pause.unwrap_or_default())).await;
                wait = (wait * 2).min(BROKEN_INTERVAL.1);
                continue;
            }
            tokio::time::sleep(SHORTEST_INTERVAL).await;
            let faulty = !self.0.faults.of(connection).is_empty();
            let next = if faulty { wait } else { WORKING_INTERVAL };
            let _elapsed_or_refused = tokio::time::timeout(next, recheck.notified()).await;
            wait = if faulty {
                (wait * 2).min(BROKEN_INTERVAL.1)
            } else {
                BROKEN_INTERVAL.0
            };
        }
    }

    /// Stores what was found, and says in the log when it is something new.
    pub(crate) fn set(&self, connection: &ConnectionId, mut state: ConnectionState) {
        let mut before = ConnectionState::Unknown;
        self.0.states.send_if_modified(|states| {
            let Some(known) = states.get_mut(connection) else {
                return false;
            };
            before.clone_from(known);
            keep_since(known, &mut state);
            let changed = *known != state;
            known.clone_from(&state);
            changed
        });
        self.0.count();
        if before.as_str() == state.as_str() {
            return;
        }
        match state.fix() {
            Some(fix) => tracing::warn!(%connection, reason = %state, fix, "the connection is {}", state.as_str()),
            None if before.is_broken() => tracing::info!(%connection, "the connection works again: {state}"),
            None => tracing::info!(%connection, "the connection works: {state}"),
        }
    }
}

/// What is wrong for longer began when it began.
fn keep_since(known: &ConnectionState, state: &mut ConnectionState) {
    use ConnectionState::{Refused, Unreachable};
    match (known, state) {
        (Refused { since_ms: first, .. }, Refused { since_ms, .. })
        | (Unreachable { since_ms: first, .. }, Unreachable { since_ms, .. }) => *since_ms = *first,
        _ => {}
    }
}

impl Inner {
    fn count(&self) {
        let states = self.states.borrow();
        for word in ["unknown", "working", "refused", "unreachable"] {
            let number = states.values().filter(|state| state.as_str() == word).count();
            let gauge = self.counted.get_or_create(&StateLabel { state: word });
            gauge.set(i64::try_from(number).unwrap_or(i64::MAX));
        }
    }
}
