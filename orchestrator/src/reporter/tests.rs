//! The reporter over an outbox in memory and forges that answer by a script, on a clock that jumps when everybody waits.

mod delivering;
mod failures;

use std::{collections::VecDeque, sync::Mutex};

use tokio::time::{Instant, timeout};

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
const LONG: Duration = Duration::from_secs(24 * 3600);

/// What became of a report.
#[derive(Debug, Clone, PartialEq)]
enum Said {
    Delivered(Option<String>),
    Held(Duration),
    Failed(Duration, String),
    Refused(Duration, String),
}

struct Row {
    owed: Owed,
    due: Instant,
    claimed: bool,
    /// Whether the newest version was delivered.
    delivered: bool,
}

impl Row {
    fn is_due(&self, lane: &Lane) -> bool {
        let owed = self.owed.report.lane() == *lane && !self.claimed && !self.delivered;
        owed && self.due <= Instant::now()
    }

    fn put_off(&mut self, after: Duration) {
        let now = Instant::now();
        self.due = now + after;
    }

    fn failed(&mut self, after: Duration) {
        self.put_off(after);
        self.owed.tries += 1;
    }
}

/// The outbox's promises, without a database.
#[derive(Default)]
struct Memory {
    rows: Mutex<Vec<Row>>,
    said: Mutex<Vec<(ReportId, Instant, Said)>>,
    /// Why lanes were held.
    held: Mutex<Vec<(Lane, String)>>,
    changed: Notify,
    /// So many reads fail.
    broken: Mutex<u32>,
}

impl Memory {
    /// A check has a newer state.
    fn renew(&self, id: ReportId, state: ReportState) {
        let mut rows = self.rows.lock().unwrap();
        let row = rows.iter_mut().find(|row| row.owed.id == id).unwrap();
        row.owed.version += 1;
        row.owed.report.state = state;
        row.delivered = false;
    }

    fn say(&self, owed: &Owed, said: Said, change: impl Fn(&mut Row)) {
        let mut rows = self.rows.lock().unwrap();
        let row = rows.iter_mut().find(|row| row.owed.id == owed.id).unwrap();
        assert!(row.claimed, "what is not claimed has no end");
        row.claimed = false;
        change(row);
        self.said.lock().unwrap().push((owed.id, Instant::now(), said));
        self.changed.notify_waiters();
    }

    fn said(&self, id: ReportId) -> Vec<(Instant, Said)> {
        let said = self.said.lock().unwrap();
        let of_it = said.iter().filter(|(of, ..)| *of == id);
        of_it.map(|(_, at, said)| (*at, said.clone())).collect()
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

    fn read(&self) -> Result<(), OutboxError> {
        let mut broken = self.broken.lock().unwrap();
        if *broken > 0 {
            *broken -= 1;
            return Err("the database is locked".into());
        }
        Ok(())
    }
}

#[async_trait]
impl Outbox for Memory {
    async fn lanes(&self) -> Result<Vec<(Lane, Duration)>, OutboxError> {
        self.read()?;
        let mut lanes = std::collections::BTreeMap::new();
        for row in self
            .rows
            .lock()
            .unwrap()
            .iter()
            .filter(|row| !row.claimed && !row.delivered)
        {
            let wait = row.due.saturating_duration_since(Instant::now());
            let earliest = lanes.entry(row.owed.report.lane()).or_insert(wait);
            *earliest = wait.min(*earliest);
        }
        Ok(lanes.into_iter().collect())
    }

    async fn claim(&self, lane: &Lane, states: ReportStates, _lease: Duration) -> Result<Option<Owed>, OutboxError> {
        self.read()?;
        let mut rows = self.rows.lock().unwrap();
        let wanted = |row: &Row| states == ReportStates::All || row.owed.report.state.is_final();
        let due = rows.iter_mut().filter(|row| row.is_due(lane) && wanted(row));
        let next = due.min_by_key(|row| (!row.owed.report.state.is_final(), row.due));
        Ok(next.map(|row| {
            row.claimed = true;
            row.owed.clone()
        }))
    }

    async fn delivered(&self, owed: &Owed, remote: Option<&str>) -> Result<(), OutboxError> {
        self.say(owed, Said::Delivered(remote.map(str::to_owned)), |row| {
            row.delivered = row.owed.version == owed.version;
        });
        Ok(())
    }

    async fn held(&self, owed: &Owed, after: Duration, _reason: &str) -> Result<(), OutboxError> {
        self.say(owed, Said::Held(after), |row| row.put_off(after));
        Ok(())
    }

    async fn failed(&self, owed: &Owed, after: Duration, reason: &str) -> Result<(), OutboxError> {
        self.say(owed, Said::Failed(after, reason.to_owned()), |row| row.failed(after));
        Ok(())
    }

    async fn refused(&self, owed: &Owed, after: Duration, reason: &str) -> Result<(), OutboxError> {
        self.say(owed, Said::Refused(after, reason.to_owned()), |row| row.failed(after));
        Ok(())
    }

    async fn hold(&self, lane: &Lane, after: Duration, reason: &str) -> Result<(), OutboxError> {
        let now = Instant::now();
        for row in self.rows.lock().unwrap().iter_mut() {
            if row.owed.report.lane() == *lane && !row.claimed {
                row.due = row.due.max(now + after);
            }
        }
        self.held.lock().unwrap().push((lane.clone(), reason.to_owned()));
        Ok(())
    }

    async fn refuse_all(&self, lane: &Lane, after: Duration, reason: &str) -> Result<u64, OutboxError> {
        self.read()?;
        let mut rows = self.rows.lock().unwrap();
        let due: Vec<&mut Row> = rows.iter_mut().filter(|row| row.is_due(lane)).collect();
        let refused = due.len() as u64;
        for row in due {
            row.put_off(after);
            let said = Said::Refused(after, reason.to_owned());
            self.said.lock().unwrap().push((row.owed.id, Instant::now(), said));
        }
        self.changed.notify_waiters();
        Ok(refused)
    }

    async fn retry_failed(&self, lane: &Lane, most: u32) -> Result<u64, OutboxError> {
        let mut retried = 0;
        for row in self.rows.lock().unwrap().iter_mut() {
            let tried = (1..most).contains(&row.owed.tries);
            if row.owed.report.lane() == *lane && !row.claimed && tried && row.due > Instant::now() {
                row.put_off(Duration::ZERO);
                retried += 1;
            }
        }
        Ok(retried)
    }
}

/// A forge: each report is answered by the first of these that says something. What nothing is said of is accepted.
#[derive(Debug, Default)]
struct Scripted {
    /// The answer to everything, also to the question whether it is there.
    all: Mutex<Option<Answer>>,
    /// The answer to all reports, and to nothing else.
    reporting: Mutex<Option<Answer>>,
    /// The answers to the reports of a check.
    of: Mutex<HashMap<String, Answer>>,
    /// The answers to the next reports.
    script: Mutex<VecDeque<Answer>>,
    reports: Mutex<Vec<(String, String, Option<String>)>>,
    /// The states of these checks, as they were reported.
    states: Mutex<Vec<(String, ReportState)>>,
    /// When it was asked whether it is there.
    asked: Mutex<Vec<Instant>>,
}

#[derive(Debug, Clone)]
enum Answer {
    Away(Option<Duration>),
    Later,
    Unauthorized,
    Forbidden,
    Refused,
    Hang,
}

impl Answer {
    async fn give<T>(answer: Option<Self>, accepted: T) -> Result<T, ForgeError> {
        let (forge, call) = ("https://forge.example".to_owned(), "POST /secret/repo".to_owned());
        let reason = |status: &str| status.to_owned();
        Err(match answer {
            None => return Ok(accepted),
            Some(Self::Away(retry_after)) => ForgeError::Away {
                forge,
                call,
                reason: reason("502"),
                retry_after,
            },
            Some(Self::Later) => ForgeError::Later {
                forge,
                call,
                reason: reason("500"),
                retry_after: None,
            },
            Some(Self::Unauthorized) => ForgeError::Unauthorized {
                forge,
                call,
                reason: reason("401"),
            },
            Some(Self::Forbidden) => ForgeError::Forbidden {
                forge,
                call,
                reason: reason("403"),
            },
            Some(Self::Refused) => ForgeError::Refused {
                forge,
                call,
                reason: reason("422"),
            },
            Some(Self::Hang) => std::future::pending().await,
        })
    }
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

    async fn locate(&self, repository: &Repository) -> Result<Repository, ForgeError> {
        Ok(repository.clone())
    }

    async fn fetch_access(&self, _: &Repository) -> Result<FetchAccess, ForgeError> {
        Ok(FetchAccess {
            url: String::new(),
            authorization: None,
        })
    }

    async fn report(&self, report: &Report, details: &str, known: Option<&str>) -> Result<Option<String>, ForgeError> {
        let sent = (report.name.clone(), details.to_owned(), known.map(str::to_owned));
        self.reports.lock().unwrap().push(sent);
        self.states.lock().unwrap().push((report.name.clone(), report.state));
        let all = self.all.lock().unwrap().clone();
        let reporting = || self.reporting.lock().unwrap().clone();
        let of_it = || self.of.lock().unwrap().get(&report.name).cloned();
        let answer = all
            .or_else(reporting)
            .or_else(of_it)
            .or_else(|| self.script.lock().unwrap().pop_front());
        Answer::give(answer, Some("7".to_owned())).await
    }

    async fn answers(&self) -> Result<(), ForgeError> {
        self.asked.lock().unwrap().push(Instant::now());
        let answer = self.all.lock().unwrap().clone();
        Answer::give(answer, ()).await
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
        self.outbox.rows.lock().unwrap().push(due(owed));
        self.wake.notify_one();
        id
    }

    /// What was said of it first.
    async fn said(&self, id: ReportId) -> Said {
        self.outbox.wait_for(|memory| !memory.said(id).is_empty()).await;
        self.outbox.said(id)[0].1.clone()
    }

    /// When it was delivered.
    async fn delivered(&self, id: ReportId) -> Instant {
        let found = |memory: &Memory| {
            let mut said = memory.said(id).into_iter();
            said.find(|(_, said)| matches!(said, Said::Delivered(_)))
        };
        self.outbox.wait_for(|memory| found(memory).is_some()).await;
        found(&self.outbox).unwrap().0
    }

    fn forge(&self, name: &str) -> &Scripted {
        &self.forges[&name.parse().unwrap()]
    }

    fn answer_all(&self, name: &str, answer: Option<Answer>) {
        *self.forge(name).all.lock().unwrap() = answer;
    }

    /// The forge answers so to the reports of a check.
    fn answer_of(&self, forge: &str, check: &str, answer: Answer) {
        let of = &self.forge(forge).of;
        of.lock().unwrap().insert(check.to_owned(), answer);
    }

    /// How often the forge was sent a check.
    fn sent(&self, forge: &str, check: &str) -> usize {
        self.reports(forge).iter().filter(|(name, ..)| name == check).count()
    }

    fn reports(&self, forge: &str) -> Vec<(String, String, Option<String>)> {
        self.forge(forge).reports.lock().unwrap().clone()
    }

    async fn end(self) {
        self.stop.cancel();
        timeout(LONG, self.task).await.expect("it stops").unwrap();
    }
}

fn due(owed: Owed) -> Row {
    Row {
        owed,
        due: Instant::now(),
        claimed: false,
        delivered: false,
    }
}

fn owed(connection: &str, state: ReportState) -> Owed {
    let mut report = crate::forge::testing::report(state);
    report.repository.connection = connection.parse().unwrap();
    Owed {
        id: ReportId::new(),
        version: 3,
        tries: 0,
        report,
        remote: Some("5".to_owned()),
    }
}

/// As [`owed`], of a check of this name.
fn named(name: &str, connection: &str, state: ReportState) -> Owed {
    let mut owed = owed(connection, state);
    owed.report.name = name.to_owned();
    owed
}
