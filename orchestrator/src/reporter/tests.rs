use std::collections::VecDeque;

use tokio::time::timeout;

use super::*;
use crate::{
    forge::{FetchAccess, ForgeError, Webhooks},
    model::{
        names::{CommitSha, ForgeContext, RefName, RepoPath},
        report::ReportState,
        trigger::Repository,
    },
};

/// Only ends a hang; the clock of these tests is tokio's, which jumps when everybody waits.
const LONG: Duration = Duration::from_secs(3600);

/// What became of a report.
#[derive(Debug, Clone, PartialEq)]
enum Said {
    Delivered(Option<String>),
    Later(Duration, String),
    Refused(String),
}

#[derive(Default)]
struct Memory {
    due: Mutex<VecDeque<Owed>>,
    said: Mutex<Vec<(ReportId, Said)>>,
    changed: Notify,
    broken: Mutex<u32>,
}

impl Memory {
    fn say(&self, owed: &Owed, said: Said) {
        self.said.lock().unwrap().push((owed.id, said));
        self.changed.notify_waiters();
    }

    fn said(&self, id: ReportId) -> Option<Said> {
        self.said
            .lock()
            .unwrap()
            .iter()
            .rev()
            .find(|(i, _)| *i == id)
            .map(|(_, s)| s.clone())
    }

    async fn wait_for(&self, what: impl Fn(&Self) -> bool) {
        let waiting = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if what(self) {
                    return;
                }
                changed.await;
            }
        };
        timeout(LONG, waiting).await.expect("it never came");
    }
}

#[async_trait]
impl Outbox for Memory {
    async fn claim(&self, limit: u32, _lease: Duration) -> Result<Vec<Owed>, OutboxError> {
        let mut broken = self.broken.lock().unwrap();
        if *broken > 0 {
            *broken -= 1;
            return Err("the database is locked".into());
        }
        let mut due = self.due.lock().unwrap();
        let count = due.len().min(limit as usize);
        Ok(due.drain(..count).collect())
    }

    async fn delivered(&self, owed: &Owed, remote: Option<&str>) -> Result<(), OutboxError> {
        self.say(owed, Said::Delivered(remote.map(str::to_owned)));
        Ok(())
    }

    async fn later(&self, owed: &Owed, after: Duration, reason: &str) -> Result<(), OutboxError> {
        self.say(owed, Said::Later(after, reason.to_owned()));
        Ok(())
    }

    async fn refused(&self, owed: &Owed, reason: &str) -> Result<(), OutboxError> {
        self.say(owed, Said::Refused(reason.to_owned()));
        Ok(())
    }

    async fn next_due(&self) -> Result<Option<i64>, OutboxError> {
        Ok(None)
    }
}

/// Answers reports by a script; an empty script accepts.
#[derive(Debug, Default)]
struct Scripted {
    script: Mutex<VecDeque<Answer>>,
    reports: Mutex<Vec<(String, String, Option<String>)>>,
}

#[derive(Debug, Clone)]
enum Answer {
    Later(Option<Duration>),
    Refuse,
    Hang,
}

#[async_trait]
impl Forge for Scripted {
    fn workflow_folders(&self) -> &'static [&'static str] {
        &[]
    }

    fn webhooks(&self) -> Option<Arc<dyn Webhooks>> {
        None
    }

    async fn read_ref(&self, _: &Repository, _: &RefName) -> Result<Option<CommitSha>, ForgeError> {
        Ok(None)
    }

    async fn find_repository(&self, _: &RepoPath, _: &ForgeContext) -> Result<Option<Repository>, ForgeError> {
        Ok(None)
    }

    async fn fetch_access(&self, _: &Repository) -> Result<FetchAccess, ForgeError> {
        Ok(FetchAccess {
            url: String::new(),
            authorization: None,
        })
    }

    async fn report(&self, report: &Report, details: &str, known: Option<&str>) -> Result<Option<String>, ForgeError> {
        let answer = self.script.lock().unwrap().pop_front();
        self.reports
            .lock()
            .unwrap()
            .push((report.name.clone(), details.to_owned(), known.map(str::to_owned)));
        let (forge, call) = ("https://forge.example".to_owned(), "POST /x".to_owned());
        match answer {
            None => Ok(Some("7".to_owned())),
            Some(Answer::Later(retry_after)) => Err(ForgeError::Away {
                forge,
                call,
                reason: "500".to_owned(),
                retry_after,
            }),
            Some(Answer::Refuse) => Err(ForgeError::Refused {
                forge,
                call,
                reason: "403".to_owned(),
            }),
            Some(Answer::Hang) => std::future::pending().await,
        }
    }

    async fn check(&self, _: &[RepoPath]) -> Result<crate::forge::Checked, ForgeError> {
        unreachable!("the reporter only reports")
    }
}

struct Rig {
    outbox: Arc<Memory>,
    forges: HashMap<ConnectionId, Arc<Scripted>>,
    wake: Arc<Notify>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn rig(scripts: &[(&str, &[Answer])]) -> Rig {
    rig_with(scripts, |_| {})
}

fn rig_with(scripts: &[(&str, &[Answer])], prepare: impl Fn(&Memory)) -> Rig {
    let outbox = Arc::new(Memory::default());
    prepare(&outbox);
    let scripted = |(name, script): &(&str, &[Answer])| {
        let forge = Scripted {
            script: Mutex::new(script.iter().cloned().collect()),
            ..Scripted::default()
        };
        (name.parse::<ConnectionId>().unwrap(), Arc::new(forge))
    };
    let forges: HashMap<_, _> = scripts.iter().map(scripted).collect();
    let (wake, stop) = (Arc::new(Notify::new()), CancellationToken::new());
    let dynamic = forges
        .iter()
        .map(|(id, f)| (id.clone(), f.clone() as Arc<dyn Forge>))
        .collect();
    let reporter = Reporter::with_outbox(outbox.clone(), dynamic, "https://ci.example/", wake.clone());
    let task = tokio::spawn(reporter.work(stop.clone()));
    Rig {
        outbox,
        forges,
        wake,
        stop,
        task,
    }
}

impl Rig {
    fn owe(&self, owed: Owed) -> ReportId {
        let id = owed.id;
        self.outbox.due.lock().unwrap().push_back(owed);
        self.wake.notify_one();
        id
    }

    async fn said(&self, id: ReportId) -> Said {
        self.outbox.wait_for(|memory| memory.said(id).is_some()).await;
        self.outbox.said(id).unwrap()
    }

    fn reports(&self, forge: &str) -> Vec<(String, String, Option<String>)> {
        self.forges[&forge.parse().unwrap()].reports.lock().unwrap().clone()
    }

    async fn end(self) {
        self.stop.cancel();
        timeout(LONG, self.task).await.expect("it stops").unwrap();
    }
}

fn owed(connection: &str, state: ReportState) -> Owed {
    let mut report = crate::forge::testing::report(state);
    report.repository.connection = connection.parse().unwrap();
    Owed {
        id: ReportId::new(),
        version: 3,
        report,
        remote: Some("5".to_owned()),
    }
}

#[tokio::test(start_paused = true)]
async fn a_report_is_delivered_with_its_link_and_what_is_known() {
    let rig = rig(&[("hub", &[])]);
    let mine = owed("hub", ReportState::Success);
    let (job, name) = (mine.report.job.unwrap(), mine.report.name.clone());
    let id = rig.owe(mine);
    assert_eq!(rig.said(id).await, Said::Delivered(Some("7".to_owned())));
    assert_eq!(
        rig.reports("hub"),
        [(name, format!("https://ci.example/jobs/{job}"), Some("5".to_owned()))]
    );

    let mut aggregate = owed("hub", ReportState::Queued);
    aggregate.report.job = None;
    let run = aggregate.report.run.unwrap();
    let id = rig.owe(aggregate);
    rig.said(id).await;
    assert_eq!(rig.reports("hub")[1].1, format!("https://ci.example/runs/{run}"));
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn failures_are_put_off_longer_each_time_and_refusals_are_noted() {
    let later = Answer::Later(None);
    let rig = rig(&[("hub", &[later.clone(), later.clone(), later, Answer::Refuse])]);
    let mine = owed("hub", ReportState::Failure);
    let mut waited = Vec::new();
    for _ in 0..3 {
        rig.outbox.said.lock().unwrap().clear();
        rig.owe(mine.clone());
        let Said::Later(after, reason) = rig.said(mine.id).await else {
            panic!("it was not put off")
        };
        assert!(reason.contains("did not take `POST /x` now"), "{reason}");
        waited.push(after);
        tokio::time::sleep(Duration::from_secs(61)).await;
    }
    let bounds = [1, 2, 4].map(|s| Duration::from_millis(s * 500)..=Duration::from_secs(s));
    assert!(
        waited.iter().zip(bounds).all(|(after, bounds)| bounds.contains(after)),
        "{waited:?}"
    );
    rig.outbox.said.lock().unwrap().clear();
    rig.owe(mine.clone());
    assert!(matches!(rig.said(mine.id).await, Said::Refused(reason) if reason.contains("403")));
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_forge_asks_for_holds_for_its_whole_lane() {
    let rig = rig(&[("hub", &[Answer::Later(Some(Duration::from_secs(90)))])]);
    let first = rig.owe(owed("hub", ReportState::Success));
    let Said::Later(after, _) = rig.said(first).await else {
        panic!("it was not put off")
    };
    assert!(after >= Duration::from_secs(90));
    let second = rig.owe(owed("hub", ReportState::Success));
    let Said::Later(after, _) = rig.said(second).await else {
        panic!("it was not put off")
    };
    assert!(after > Duration::from_secs(80), "{after:?}");
    assert_eq!(rig.reports("hub").len(), 1, "the second was not even tried");
    let mut other = owed("hub", ReportState::Success);
    other.report.repository.context = 10.into();
    let other = rig.owe(other);
    assert!(
        matches!(rig.said(other).await, Said::Delivered(_)),
        "another context has its own limits"
    );
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_forge_that_hangs_delays_nobody_else() {
    let rig = rig(&[("hang", &[Answer::Hang]), ("hub", &[])]);
    let waiting: Vec<ReportId> = (0..40).map(|_| rig.owe(owed("hang", ReportState::Success))).collect();
    let id = rig.owe(owed("hub", ReportState::Success));
    let before = tokio::time::Instant::now();
    assert!(matches!(rig.said(id).await, Said::Delivered(_)));
    assert!(before.elapsed() < Duration::from_secs(1), "{:?}", before.elapsed());
    // What does not fit into the queue is put back, what waited too long is due again at once.
    for id in waiting {
        let said = timeout(Duration::from_secs(300), rig.said(id)).await;
        assert!(matches!(said, Ok(Said::Later(..))), "{said:?}");
    }
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn bursts_are_throttled_to_the_forges_rate() {
    let rig = rig(&[("hub", &[])]);
    let before = tokio::time::Instant::now();
    for _ in 0..80 {
        let id = rig.owe(owed("hub", ReportState::Running));
        assert!(matches!(rig.said(id).await, Said::Delivered(_)));
    }
    // 600 a minute are ten a second; three quarters of the burst of 20 are for states that are not final.
    let took = before.elapsed();
    assert!(
        (Duration::from_secs(6)..Duration::from_secs(8)).contains(&took),
        "{took:?}"
    );
    let before = tokio::time::Instant::now();
    for _ in 0..4 {
        let id = rig.owe(owed("hub", ReportState::Success));
        assert!(matches!(rig.said(id).await, Said::Delivered(_)));
    }
    assert!(
        before.elapsed() < Duration::from_millis(50),
        "the rest is for final ones: {:?}",
        before.elapsed()
    );
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_report_of_a_connection_that_is_gone_is_refused_in_words() {
    let rig = rig(&[]);
    let id = rig.owe(owed("gone", ReportState::Success));
    assert!(matches!(rig.said(id).await, Said::Refused(reason) if reason.contains("`gone`")));
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_for_a_while_loses_nothing() {
    let rig = rig_with(&[("hub", &[])], |memory| *memory.broken.lock().unwrap() = 3);
    let id = rig.owe(owed("hub", ReportState::Success));
    assert!(matches!(rig.said(id).await, Said::Delivered(_)));
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_puts_back_what_was_not_begun() {
    let rig = rig_with(&[("hang", &[Answer::Hang])], |memory| {
        memory
            .due
            .lock()
            .unwrap()
            .extend((0..4).map(|_| owed("hang", ReportState::Success)));
    });
    let hanging = rig.forges[&"hang".parse::<ConnectionId>().unwrap()].clone();
    while hanging.reports.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    let outbox = rig.outbox.clone();
    rig.end().await;
    let said = outbox.said.lock().unwrap();
    assert_eq!(said.len(), 3, "the one under way is left to its lease: {said:?}");
    assert!(
        said.iter()
            .all(|(_, said)| matches!(said, Said::Later(Duration::ZERO, _))),
        "{said:?}"
    );
}
