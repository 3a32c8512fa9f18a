use std::{
    collections::{BTreeSet, VecDeque},
    sync::Mutex,
};

use async_trait::async_trait;
use proptest::prelude::*;

use super::*;
use crate::{
    forge::{Checked, FetchAccess, Webhooks},
    model::{
        names::{CommitSha, ForgeContext, RefName, RepoPath},
        report::Report,
        trigger::Repository,
    },
};

/// Answers the question whether it works, and nothing else is asked of it.
#[derive(Debug)]
struct Scripted(Mutex<VecDeque<Answer>>, Mutex<Rights>);

/// What it says of each repository that it is asked about, and how often it was asked about any.
#[derive(Debug, Default)]
struct Rights {
    missing: BTreeSet<RepoPath>,
    asked: BTreeMap<RepoPath, u32>,
}

impl Scripted {
    fn of(&self, path: &RepoPath) -> CheckedRepository {
        let mut rights = self.1.lock().unwrap();
        *rights.asked.entry(path.clone()).or_default() += 1;
        match rights.missing.contains(path) {
            true => CheckedRepository::missing(path, "it is out of sight", "add the bot"),
            false => CheckedRepository {
                path: path.clone(),
                access: Access::Granted { actions: false },
            },
        }
    }
}

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

    async fn locate(&self, _: &Repository) -> Result<Repository, ForgeError> {
        unreachable!()
    }

    async fn fetch_access(&self, _: &Repository) -> Result<FetchAccess, ForgeError> {
        unreachable!()
    }

    async fn report(&self, _: &Report, _: &str, _: Option<&str>) -> Result<Option<String>, ForgeError> {
        unreachable!()
    }

    /// The last answer stays.
    async fn check(&self, repositories: &[RepoPath]) -> Result<Checked, ForgeError> {
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
            Answer::Works => Ok(Checked {
                answer: "Forgejo as bot".to_owned(),
                repositories: repositories.iter().map(|path| self.of(path)).collect(),
            }),
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
        Self::with(script, ConnectionHealth::new([&id()]))
    }

    fn with(script: &[Answer], health: ConnectionHealth) -> Self {
        let stop = CancellationToken::new();
        let forge = Arc::new(Scripted(Mutex::new(script.iter().copied().collect()), Mutex::default()));
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

/// A connection that works, whose configuration lists `ada/engine`.
fn listing() -> Asked {
    let listed = BTreeMap::from([(id(), vec![engine()])]);
    Asked::with(&[Answer::Works], ConnectionHealth::listing(listed))
}

fn engine() -> RepoPath {
    "ada/engine".parse().unwrap()
}

fn missing(asked: &Asked) -> Vec<String> {
    let missing = asked.health.missing_rights(&id());
    missing
        .into_iter()
        .map(|(path, right)| format!("{path}: {}", right.reason))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_right_that_is_missing_is_named_until_it_is_there() {
    let asked = listing();
    asked.forge.1.lock().unwrap().missing.insert(engine());
    asked.until("working").await;
    tokio::time::sleep(BROKEN_INTERVAL.1).await;
    assert_eq!(missing(&asked), ["ada/engine: it is out of sight"]);
    assert!(!asked.health.state(&id()).is_broken(), "the others work");
    let berg = id();
    let waiting = asked.health.until_granted(&berg);
    tokio::pin!(waiting);
    assert!(waiting.as_mut().now_or_never().is_none());
    let begun = tokio::time::Instant::now();
    asked.forge.1.lock().unwrap().missing.clear();
    assert_eq!(waiting.await, BTreeSet::from([engine()]));
    assert_eq!(missing(&asked), Vec::<String>::new());
    assert!(
        begun.elapsed() <= SHORTEST_INTERVAL + BROKEN_INTERVAL.1,
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_that_lacks_a_right_has_its_repository_asked_about_and_only_its_own_end_ends_it() {
    let asked = Asked::new(&[Answer::Works]);
    asked.until("working").await;
    let other: RepoPath = "ada/other".parse().unwrap();
    let begun = tokio::time::Instant::now();
    for _ in 0..3 {
        asked
            .health
            .repository_refused(&id(), &other, "git was refused", "add the bot");
    }
    while asked.forge.1.lock().unwrap().asked.is_empty() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(begun.elapsed() <= SHORTEST_INTERVAL * 2, "{:?}", begun.elapsed());
    tokio::time::sleep(WORKING_INTERVAL).await;
    // The forge lets us ask about it, and yet calls fail: nothing is woken for ever.
    assert_eq!(missing(&asked), ["ada/other: git was refused"]);
    assert!(asked.health.until_granted(&id()).now_or_never().is_none());
    asked.health.repository_works(&id(), &other);
    assert_eq!(missing(&asked), Vec::<String>::new());
    let before = asked.forge.1.lock().unwrap().asked[&other];
    tokio::time::sleep(WORKING_INTERVAL * 3).await;
    assert!(
        asked.forge.1.lock().unwrap().asked[&other] <= before + 1,
        "it is asked about no more"
    );
}

#[tokio::test(start_paused = true)]
async fn a_missing_right_that_no_call_meets_any_more_is_forgotten_unless_its_repository_is_listed() {
    let asked = listing();
    asked.until("working").await;
    let other: RepoPath = "ada/other".parse().unwrap();
    asked.forge.1.lock().unwrap().missing.extend([engine(), other.clone()]);
    for path in [engine(), other.clone()] {
        asked
            .health
            .repository_refused(&id(), &path, "git was refused", "add the bot");
    }
    tokio::time::sleep(Duration::from_secs(1200)).await;
    assert_eq!(missing(&asked).len(), 2);
    tokio::time::sleep(Duration::from_secs(1200)).await;
    assert_eq!(missing(&asked), ["ada/engine: it is out of sight"]);
    let times = asked.forge.1.lock().unwrap().asked[&other];
    tokio::time::sleep(WORKING_INTERVAL * 3).await;
    assert_eq!(
        asked.forge.1.lock().unwrap().asked[&other],
        times,
        "it is asked about no more"
    );
}

#[tokio::test(start_paused = true)]
async fn between_the_regular_times_only_repositories_with_a_missing_right_are_asked_about() {
    let listed: Vec<RepoPath> = (0..50).map(|n| format!("ada/r{n}").parse().unwrap()).collect();
    let asked = Asked::with(
        &[Answer::Works],
        ConnectionHealth::listing(BTreeMap::from([(id(), listed.clone())])),
    );
    asked.forge.1.lock().unwrap().missing.insert(listed[7].clone());
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let times = asked.forge.1.lock().unwrap().asked.clone();
    assert!(times[&listed[7]] > 40, "{times:?}");
    assert!(times[&listed[8]] <= 13, "{times:?}");
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
