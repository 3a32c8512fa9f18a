//! Whether each connection works: a forge that refuses a credential is a state of the connection, which begins and ends,
//! and not a verdict on whatever was asked meanwhile. It is asked at the start, on a timer, and soon after a call was
//! answered with 401; nothing ends because of an answer. The same holds for a right to one repository that is missing: the
//! forge is asked about that repository until the right is there, or nothing waits for it.

mod rights;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt, mem,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::future::{FutureExt as _, join_all};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

pub use self::rights::MissingRight;
use self::rights::{MissingRights, SaidBy};
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
/// Repositories that are asked about every [`WORKING_INTERVAL`], those with a missing right first.
const ASKED: usize = 100;
/// Repositories with a missing right that are asked about more often: GitHub takes 5000 calls an hour for everything.
const ASKED_OFTEN: usize = 20;
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
    /// One for each connection.
    granted: BTreeMap<ConnectionId, Granted>,
    /// Those that the configuration lists.
    listed: BTreeMap<ConnectionId, Vec<RepoPath>>,
    missing: MissingRights,
    counted: Family<StateLabel, Gauge>,
}

/// The repositories to which a right that was missing was given.
#[derive(Debug, Default)]
struct Granted {
    // Nothing awaits while holding it.
    paths: Mutex<BTreeSet<RepoPath>>,
    more: Notify,
}

impl Granted {
    fn add(&self, path: &RepoPath) {
        let mut paths = self.paths.lock().unwrap_or_else(PoisonError::into_inner);
        paths.insert(path.clone());
        self.more.notify_one();
    }

    async fn take(&self) -> BTreeSet<RepoPath> {
        loop {
            let paths = mem::take(&mut *self.paths.lock().unwrap_or_else(PoisonError::into_inner));
            if !paths.is_empty() {
                return paths;
            }
            self.more.notified().await;
        }
    }
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
            granted: states.keys().map(|id| (id.clone(), Granted::default())).collect(),
            listed,
            missing: MissingRights::default(),
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
        self.probe_about(connection, forge, &self.asked(connection)).await.state
    }

    async fn probe_about(&self, connection: &ConnectionId, forge: &dyn Forge, repositories: &[RepoPath]) -> Probed {
        let probed = probe(forge, repositories).await;
        self.set(connection, probed.state.clone());
        for found in &probed.repositories {
            self.found(connection, found);
        }
        probed
    }

    fn listed(&self, connection: &ConnectionId) -> &[RepoPath] {
        self.0.listed.get(connection).map_or(&[], Vec::as_slice)
    }

    /// The repositories that a connection is asked about.
    fn asked(&self, connection: &ConnectionId) -> Vec<RepoPath> {
        let lacking = self.0.missing.of(connection);
        let others = self
            .listed(connection)
            .iter()
            .filter(|path| !lacking.contains_key(*path));
        lacking.keys().chain(others).take(ASKED).cloned().collect()
    }

    fn found(&self, connection: &ConnectionId, found: &CheckedRepository) {
        let path = &found.path;
        match &found.access {
            Access::Missing { reason, fix } => {
                if self.0.missing.note(connection, path, reason, fix, SaidBy::Question) {
                    tracing::warn!(%connection, repository = %path, reason, fix, "the connection has not the rights it needs");
                }
            }
            Access::Granted { .. } => {
                // One that only a call met may still be missing: that the next call says.
                if self.0.missing.of(connection).get(path).is_some_and(|right| right.asked) {
                    self.end(connection, path);
                    if let Some(granted) = self.0.granted.get(connection) {
                        granted.add(path);
                    }
                }
            }
            Access::Unknown { .. } => {}
        }
    }

    /// The repositories that a connection may not use now.
    #[must_use]
    pub fn missing_rights(&self, connection: &ConnectionId) -> BTreeMap<RepoPath, MissingRight> {
        self.0.missing.of(connection)
    }

    /// A call about this repository failed because a right is missing: the forge is asked about it soon, and until it is
    /// there or no call has met it for half an hour.
    pub fn repository_refused(&self, connection: &ConnectionId, path: &RepoPath, reason: &str, fix: &str) {
        if self.0.missing.note(connection, path, reason, fix, SaidBy::Call) {
            tracing::warn!(%connection, repository = %path, reason, fix, "the token or App may not read a repository; its pushes wait");
            self.recheck(connection).notify_one();
        }
    }

    /// A call about this repository was answered. Where the forge says that a right is missing, which may be another one, it
    /// is asked again soon.
    pub fn repository_works(&self, connection: &ConnectionId, path: &RepoPath) {
        match self.0.missing.of(connection).get(path) {
            None => {}
            Some(right) if right.asked => self.recheck(connection).notify_one(),
            Some(_) => self.end(connection, path),
        }
    }

    fn end(&self, connection: &ConnectionId, path: &RepoPath) {
        if self.0.missing.end(connection, path) {
            tracing::info!(%connection, repository = %path, "the right that was missing is there");
        }
    }

    /// Waits until rights that were missing are there; which repositories they are to, each once.
    pub async fn until_granted(&self, connection: &ConnectionId) -> BTreeSet<RepoPath> {
        match self.0.granted.get(connection) {
            Some(granted) => granted.take().await,
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
        let mut asked_all: Option<Instant> = None;
        loop {
            self.0.missing.forget_old(connection, self.listed(connection));
            // Between the regular times only those are asked about that may have changed.
            let all = asked_all.is_none_or(|at| at.elapsed() >= WORKING_INTERVAL);
            let repositories = match all {
                true => self.asked(connection),
                false => self.0.missing.of(connection).into_keys().take(ASKED_OFTEN).collect(),
            };
            let Probed { state, pause, .. } = self.probe_about(connection, forge, &repositories).await;
            // Calls that were refused until now, our own among them, are answered by this.
            let _refused = recheck.notified().now_or_never();
            if state.is_broken() {
                tokio::time::sleep(wait.max(pause.unwrap_or_default())).await;
                wait = (wait * 2).min(BROKEN_INTERVAL.1);
                continue;
            }
            if all {
                asked_all = Some(Instant::now());
            }
            tokio::time::sleep(SHORTEST_INTERVAL).await;
            let lacking = !self.0.missing.of(connection).is_empty();
            let next = if lacking { wait } else { WORKING_INTERVAL };
            let _elapsed_or_refused = tokio::time::timeout(next, recheck.notified()).await;
            wait = if lacking {
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
