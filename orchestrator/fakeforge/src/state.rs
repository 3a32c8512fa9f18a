//! What the forge knows: repositories, tokens, statuses, check runs, deliveries, and a log of every
//! request. One mutex holds it, because nothing here waits; every change wakes those who wait for one.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::Value;
use tokio::sync::{mpsc, watch};

use crate::{
    access::Access,
    auth::{App, Token},
    delivery::{Delivery, Hook},
    fault::{Ordered, Outage},
    schema::Schemas,
};

/// Which forge's API a repository is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Forgejo (and Gitea).
    Forgejo,
    /// GitHub with an App.
    Github,
}

impl Kind {
    /// `forgejo` or `github`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Forgejo => "forgejo",
            Self::Github => "github",
        }
    }
}

/// A repository, bare, on disk.
#[derive(Debug, Clone)]
pub struct Repository {
    /// The forge's number for it.
    pub id: i64,
    /// Whose API it is behind.
    pub kind: Kind,
    /// `owner/name`.
    pub path: String,
    /// Whether reading it needs a token.
    pub private: bool,
    /// `main`; in a Forgejo repository the first branch that is pushed.
    pub default_branch: String,
    /// Whether no branch was ever pushed.
    pub empty: bool,
    /// Whether it takes no more pushes; statuses it still takes.
    pub archived: bool,
    /// Whether the forge's own Actions are on, as they are in a new Forgejo repository.
    pub has_actions: bool,
    /// The App installation that covers it (GitHub: one per owner).
    pub installation: Option<i64>,
    /// What it was forked from.
    pub fork_of: Option<i64>,
    /// Where its bare repository lies.
    pub dir: PathBuf,
    /// When it was made.
    pub created_ms: i64,
}

impl Repository {
    pub(crate) fn split(&self) -> (&str, &str) {
        self.path.split_once('/').unwrap_or((&self.path, ""))
    }
}

/// One state that the forge was told about a commit, in the order of arrival.
#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    pub at_ms: i64,
    pub repository: i64,
    /// The login of whoever told it.
    pub creator: String,
    pub sha: String,
    /// The status context or the check run's name.
    pub context: String,
    /// The check run's id (GitHub) or the status' id (Forgejo).
    pub id: i64,
    /// `pending`, `success`… (Forgejo); `queued`, `in_progress` or `completed` (GitHub).
    pub state: String,
    /// GitHub's conclusion, once completed.
    pub conclusion: Option<String>,
    /// The status' description, or the check run's output title.
    pub description: String,
    /// The link to the details.
    pub target_url: Option<String>,
    /// GitHub's `external_id`.
    pub external_id: Option<String>,
}

impl Received {
    /// One word: the state, or the conclusion of a completed check run.
    #[must_use]
    pub fn word(&self) -> &str {
        self.conclusion.as_deref().unwrap_or(&self.state)
    }
}

/// A check run as it stands.
#[derive(Debug, Clone)]
pub struct CheckRun {
    pub id: i64,
    pub repository: i64,
    /// The installation whose token made it: nobody else may change it.
    pub(crate) installation: i64,
    pub head_sha: String,
    /// Everything else, under the API's own names.
    pub fields: BTreeMap<String, Value>,
    /// All annotations so far; they append.
    pub annotations: Vec<Value>,
}

/// A request as it came in.
#[derive(Debug, Clone)]
pub struct Request {
    pub at_ms: i64,
    /// `GET`, `POST`…
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The query, if any.
    pub query: Option<String>,
    /// How it authenticated: `none`, `token`, `jwt`, `basic`. The credential itself is not kept.
    pub authorization: &'static str,
    /// The body, where it was JSON.
    pub body: Value,
    /// The answer's status; `None` while it is being answered, or when the connection was cut.
    pub status: Option<u16>,
}

/// A request body that the forge's published description does not allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// `POST /repos/{owner}/{repo}/check-runs`.
    pub operation: String,
    /// What is wrong, with the place in the body.
    pub problem: String,
}

/// Everything the forge knows; read it through [`crate::FakeForge::state`] or
/// [`crate::FakeForge::wait_for`].
#[derive(Debug, Default)]
pub struct ForgeState {
    pub(crate) repositories: BTreeMap<i64, Repository>,
    /// Where repositories have been, in lower case, and which.
    pub(crate) redirects: BTreeMap<String, i64>,
    /// Rights given or (`None`) taken, by repository and login.
    pub(crate) collaborators: BTreeMap<(i64, String), Option<Access>>,
    /// Rights in every repository that `collaborators` does not name, by login.
    pub(crate) everywhere: BTreeMap<String, Access>,
    /// The statuses that a branch requires of what is merged into it.
    pub(crate) protections: BTreeMap<(i64, String), Vec<String>>,
    pub(crate) hooks: BTreeMap<i64, Hook>,
    pub(crate) installations: BTreeMap<String, i64>,
    pub(crate) users: Vec<String>,
    pub(crate) tokens: Vec<Token>,
    pub(crate) history: Vec<Received>,
    pub(crate) checks: BTreeMap<i64, CheckRun>,
    pub(crate) deliveries: Vec<Delivery>,
    pub(crate) requests: Vec<Request>,
    pub(crate) violations: Vec<Violation>,
    pub(crate) faults: Vec<Ordered>,
    /// How often all hangs were ended.
    pub(crate) hangs_ended: u64,
    /// Pull requests by their number, which is unique in the whole forge.
    pub(crate) pulls: BTreeMap<i64, crate::pulls::Pull>,
    pub(crate) permissions: BTreeMap<String, String>,
    pub(crate) token_lifetime: Option<Duration>,
    pub(crate) hold: bool,
    pub(crate) away: Option<Outage>,
    /// Whether the listener takes connections; it follows `away`.
    pub(crate) listening: bool,
    /// How long a receiver of webhooks may take; the forges' own times when `None`.
    pub(crate) delivery_timeout: Option<Duration>,
    numbers: i64,
}

impl ForgeState {
    /// A number that was not given before; each kind of thing shares the sequence, so that mixing two
    /// kinds up cannot go unnoticed.
    pub(crate) fn number(&mut self) -> i64 {
        self.numbers += 1;
        1000 + self.numbers
    }

    pub fn repositories(&self) -> impl Iterator<Item = &Repository> {
        self.repositories.values()
    }

    /// The repository under `owner/name`, as forges look it up: case does not matter.
    #[must_use]
    pub fn repository(&self, path: &str) -> Option<&Repository> {
        self.repositories.values().find(|r| r.path.eq_ignore_ascii_case(path))
    }

    /// The Forgejo repository that has been under this path, if none is there now.
    pub(crate) fn moved(&self, path: &str) -> Option<&Repository> {
        if self.repository(path).is_some() {
            return None;
        }
        self.repositories.get(self.redirects.get(&path.to_ascii_lowercase())?)
    }

    /// Every state received for the commit, in the order of arrival.
    #[must_use]
    pub fn history(&self, sha: &str) -> Vec<Received> {
        self.history.iter().filter(|r| r.sha == sha).cloned().collect()
    }

    /// The words ([`Received::word`]) of one context of a commit, in the order of arrival.
    #[must_use]
    pub fn words(&self, sha: &str, context: &str) -> Vec<String> {
        let wanted = |r: &&Received| r.sha == sha && r.context == context;
        self.history
            .iter()
            .filter(wanted)
            .map(|r| r.word().to_owned())
            .collect()
    }

    /// What counts now for one context of a commit: the newest.
    #[must_use]
    pub fn latest(&self, sha: &str, context: &str) -> Option<&Received> {
        self.history.iter().rev().find(|r| r.sha == sha && r.context == context)
    }

    /// Every context that was reported for the commit.
    #[must_use]
    pub fn contexts(&self, sha: &str) -> Vec<String> {
        let mut contexts: Vec<String> = Vec::new();
        for received in self.history.iter().filter(|r| r.sha == sha) {
            if !contexts.contains(&received.context) {
                contexts.push(received.context.clone());
            }
        }
        contexts
    }

    /// A check run as it stands.
    #[must_use]
    pub fn check(&self, id: i64) -> Option<&CheckRun> {
        self.checks.get(&id)
    }

    /// Every delivery, oldest first.
    #[must_use]
    pub fn deliveries(&self) -> &[Delivery] {
        &self.deliveries
    }

    /// Every request, oldest first.
    #[must_use]
    pub fn requests(&self) -> &[Request] {
        &self.requests
    }

    /// How many requests of this method had a path that contains `part`.
    #[must_use]
    pub fn count(&self, method: &str, part: &str) -> usize {
        let wanted = |r: &&Request| r.method == method && r.path.contains(part);
        self.requests.iter().filter(wanted).count()
    }

    /// Request bodies that the published descriptions do not allow.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// A user's number; users exist from the moment they are named.
    pub(crate) fn user(&mut self, login: &str) -> i64 {
        let position = self.users.iter().position(|u| u == login).unwrap_or_else(|| {
            self.users.push(login.to_owned());
            self.users.len() - 1
        });
        i64::try_from(position).unwrap_or(i64::MAX - 1) + 1
    }
}

/// What all tasks of one forge share.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<ForgeState>,
    changes: watch::Sender<u64>,
    /// Pushes are found by comparing refs before and after, so only one may happen at a time.
    pub(crate) pushing: tokio::sync::Mutex<()>,
    /// `http://127.0.0.1:port`.
    pub(crate) url: String,
    pub(crate) root: PathBuf,
    pub(crate) app: App,
    pub(crate) schemas: Option<Schemas>,
    /// Ids of deliveries to send, in order.
    pub(crate) outgoing: mpsc::UnboundedSender<String>,
}

impl Shared {
    pub(crate) fn new(
        url: String,
        root: PathBuf,
        app: App,
        schemas: Option<Schemas>,
        outgoing: mpsc::UnboundedSender<String>,
    ) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            changes: watch::Sender::new(0),
            pushing: tokio::sync::Mutex::default(),
            url,
            root,
            app,
            schemas,
            outgoing,
        })
    }

    /// Reads. A panic of another holder leaves plain data behind, so a poisoned lock is still good.
    pub(crate) fn state(&self) -> MutexGuard<'_, ForgeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes, and wakes those who wait for a change.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut ForgeState) -> R) -> R {
        let result = change(&mut self.state());
        self.changes.send_modify(|n| *n += 1);
        result
    }

    /// Silence, for so long at most.
    pub(crate) async fn hang(&self, time: Duration) {
        let (ended, mut changes) = (self.state().hangs_ended, self.changes());
        let over = async { while self.state().hangs_ended == ended && changes.changed().await.is_ok() {} };
        let _either_way = tokio::time::timeout(time, over).await;
    }

    /// Waits until the forge is not suspended any more.
    pub(crate) async fn suspension(&self) {
        let mut changes = self.changes();
        while self.state().away == Some(Outage::Suspended) && changes.changed().await.is_ok() {}
    }

    /// Waits until the forge is stopped, or no longer.
    pub(crate) async fn until_stopped(&self, stopped: bool) {
        let mut changes = self.changes();
        while (self.state().away == Some(Outage::Stopped)) != stopped && changes.changed().await.is_ok() {}
    }

    /// Waits until connections are taken, or refused, as the state has it.
    pub(crate) async fn until_listening(&self, listening: bool) {
        let mut changes = self.changes();
        while self.state().listening != listening && changes.changed().await.is_ok() {}
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

impl Shared {
    /// The repository of this number.
    pub(crate) fn repository(&self, id: i64) -> Result<Repository, crate::Error> {
        self.state()
            .repositories
            .get(&id)
            .cloned()
            .ok_or(crate::Error::UnknownRepository(id))
    }
}
