//! Whether each connection works: a forge that refuses a credential is a state of the connection, which begins and ends,
//! and not a verdict on whatever was asked meanwhile. It is asked at the start, on a timer, and soon after a call was
//! answered with 401; nothing ends because of an answer.

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

use super::{Forge, ForgeError};
use crate::{clock::now_ms, foreign_text::one_line, model::names::ConnectionId};

/// How long one answer is waited for.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
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

/// Asks a forge once.
pub async fn probe(forge: &dyn Forge) -> ConnectionState {
    probe_with_pause(forge).await.0
}

/// As [`probe`], with the pause that the forge asked for.
async fn probe_with_pause(forge: &dyn Forge) -> (ConnectionState, Option<Duration>) {
    let since_ms = now_ms();
    match tokio::time::timeout(ANSWER_WITHIN, forge.check()).await {
        Ok(Ok(answer)) => (ConnectionState::Working { answer }, None),
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
            let reason = format!("no answer within {} s", ANSWER_WITHIN.as_secs());
            (ConnectionState::Unreachable { reason, since_ms }, None)
        }
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
    counted: Family<StateLabel, Gauge>,
}

impl ConnectionHealth {
    /// Nothing is known of these connections yet; [`ConnectionHealth::run`] asks them.
    #[must_use]
    pub fn new<'a>(connections: impl IntoIterator<Item = &'a ConnectionId>) -> Self {
        let states: BTreeMap<_, _> = connections
            .into_iter()
            .map(|id| (id.clone(), ConnectionState::Unknown))
            .collect();
        let inner = Inner {
            rechecks: states.keys().map(|id| (id.clone(), Arc::default())).collect(),
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
        self.probe_with_pause(connection, forge).await.0
    }

    async fn probe_with_pause(
        &self,
        connection: &ConnectionId,
        forge: &dyn Forge,
    ) -> (ConnectionState, Option<Duration>) {
        let (state, pause) = probe_with_pause(forge).await;
        self.set(connection, state.clone());
        (state, pause)
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
            let (state, pause) = self.probe_with_pause(connection, forge).await;
            // Calls that were refused until now, our own among them, are answered by this.
            let _refused = recheck.notified().now_or_never();
            if state.is_broken() {
                tokio::time::sleep(wait.max(pause.unwrap_or_default())).await;
                wait = (wait * 2).min(BROKEN_INTERVAL.1);
                continue;
            }
            wait = BROKEN_INTERVAL.0;
            tokio::time::sleep(SHORTEST_INTERVAL).await;
            let _elapsed_or_refused = tokio::time::timeout(WORKING_INTERVAL, recheck.notified()).await;
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

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, sync::Mutex};

    use async_trait::async_trait;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        forge::{FetchAccess, Webhooks},
        model::{
            names::{CommitSha, ForgeContext, RefName, RepoPath},
            report::Report,
            trigger::Repository,
        },
    };

    /// Answers the question whether it works, and nothing else is asked of it.
    #[derive(Debug)]
    struct Scripted(Mutex<VecDeque<Answer>>);

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Answer {
        Works,
        Refuses,
        Away,
        /// Asks for a pause of [`PAUSE`].
        Limits,
        Hangs,
    }

    const PAUSE: Duration = Duration::from_secs(1200);

    #[async_trait]
    impl Forge for Scripted {
        fn workflow_folders(&self) -> &'static [&'static str] {
            &[]
        }

        fn webhooks(&self) -> Option<Arc<dyn Webhooks>> {
            None
        }

        async fn read_ref(&self, _: &Repository, _: &RefName) -> Result<Option<CommitSha>, ForgeError> {
            unreachable!()
        }

        async fn find_repository(&self, _: &RepoPath, _: &ForgeContext) -> Result<Option<Repository>, ForgeError> {
            unreachable!()
        }

        async fn fetch_access(&self, _: &Repository) -> Result<FetchAccess, ForgeError> {
            unreachable!()
        }

        async fn report(&self, _: &Report, _: &str, _: Option<&str>) -> Result<Option<String>, ForgeError> {
            unreachable!()
        }

        /// The last answer stays.
        async fn check(&self) -> Result<String, ForgeError> {
            let answer = {
                let mut script = self.0.lock().unwrap();
                match script.len() {
                    1 => script[0],
                    _ => script.pop_front().unwrap(),
                }
            };
            let (forge, call) = ("https://forge.example".to_owned(), "GET /user".to_owned());
            let reason = "401: Unauthorized".to_owned();
            match answer {
                Answer::Works => Ok("Forgejo as bot".to_owned()),
                Answer::Refuses => Err(ForgeError::Refused { forge, call, reason }),
                Answer::Away | Answer::Limits => Err(ForgeError::Away {
                    forge,
                    call,
                    reason,
                    retry_after: (answer == Answer::Limits).then_some(PAUSE),
                }),
                Answer::Hangs => std::future::pending().await,
            }
        }
    }

    fn word(answer: Answer) -> &'static str {
        match answer {
            Answer::Works => "working",
            Answer::Refuses => "refused",
            Answer::Away | Answer::Limits | Answer::Hangs => "unreachable",
        }
    }

    fn id() -> ConnectionId {
        "berg".parse().unwrap()
    }

    /// A connection that is being asked, on a clock that jumps when everybody waits.
    struct Asked {
        health: ConnectionHealth,
        forge: Arc<Scripted>,
        stop: CancellationToken,
        task: tokio::task::JoinHandle<()>,
    }

    impl Asked {
        fn new(script: &[Answer]) -> Self {
            let (health, stop) = (ConnectionHealth::new([&id()]), CancellationToken::new());
            let forge = Arc::new(Scripted(Mutex::new(script.iter().copied().collect())));
            let forges = HashMap::from([(id(), Arc::clone(&forge) as Arc<dyn Forge>)]);
            let task = tokio::spawn(health.clone().run(forges, stop.clone()));
            Self {
                health,
                forge,
                stop,
                task,
            }
        }

        async fn until(&self, word: &str) -> ConnectionState {
            let mut states = self.health.0.states.subscribe();
            let found = states.wait_for(|states| states[&id()].as_str() == word).await.unwrap();
            found[&id()].clone()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_credential_is_a_state_that_begins_and_ends() {
        let asked = Asked::new(&[Answer::Refuses, Answer::Refuses, Answer::Works]);
        assert_eq!(asked.health.state(&id()), ConnectionState::Unknown);
        let begun = tokio::time::Instant::now();
        let state = asked.until("refused").await;
        assert!(state.is_broken() && state.fix().is_some(), "{state:?}");
        assert!(state.to_string().contains("401: Unauthorized"), "{state}");
        // A daemon that asks is not ended by an answer, and asks again.
        let state = asked.until("working").await;
        assert_eq!((state.fix(), state.to_string().as_str()), (None, "Forgejo as bot"));
        assert!(
            begun.elapsed() < WORKING_INTERVAL,
            "mended within minutes: {:?}",
            begun.elapsed()
        );
        asked.stop.cancel();
        asked.task.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_was_refused_has_a_working_connection_asked_soon() {
        let asked = Asked::new(&[Answer::Works]);
        asked.until("working").await;
        *asked.forge.0.lock().unwrap() = VecDeque::from([Answer::Refuses]);
        let begun = tokio::time::Instant::now();
        asked.health.recheck(&id()).notify_one();
        asked.until("refused").await;
        assert!(begun.elapsed() <= SHORTEST_INTERVAL, "{:?}", begun.elapsed());
        // One that nobody configured has no state, and may be asked for.
        let other = "other".parse().unwrap();
        asked.health.recheck(&other).notify_one();
        assert_eq!(asked.health.state(&other), ConnectionState::Unknown);
    }

    #[tokio::test(start_paused = true)]
    async fn a_forge_that_asks_for_a_pause_is_left_alone_so_long() {
        let asked = Asked::new(&[Answer::Limits, Answer::Works]);
        let begun = tokio::time::Instant::now();
        asked.health.until_broken(&id()).await;
        asked.health.until_working(&id()).await;
        assert!((PAUSE..PAUSE * 2).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    }

    fn answers() -> impl Strategy<Value = Vec<Answer>> {
        let answer = prop_oneof![
            Just(Answer::Works),
            Just(Answer::Refuses),
            Just(Answer::Away),
            Just(Answer::Hangs)
        ];
        proptest::collection::vec(answer, 1..12)
    }

    proptest! {
        #[test]
        fn the_state_is_the_last_answer_whatever_came_before(script in answers(), doubts in 0u32..4) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
            runtime.block_on(async {
                let asked = Asked::new(&script);
                let last = *script.last().unwrap();
                for _ in 0..doubts {
                    asked.health.recheck(&id()).notify_one();
                }
                // Longer than every answer and every pause together.
                tokio::time::sleep((WORKING_INTERVAL + ANSWER_WITHIN) * 13).await;
                let state = asked.health.state(&id());
                prop_assert_eq!(state.as_str(), word(last));
                let mut registry = Registry::default();
                asked.health.register(&mut registry);
                let mut text = String::new();
                prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
                for known in ["unknown", "working", "refused", "unreachable"] {
                    let line = format!("connections{{state=\"{known}\"}} {}", u8::from(known == word(last)));
                    prop_assert!(text.contains(&line), "{} {}", line, text);
                }
                Ok(())
            })?;
        }
    }
}
