//! A small local forge for helios-ci's demo and tests. It speaks the parts of Forgejo's and GitHub's
//! API that a CI uses, serves real git over HTTP, sends real signed webhooks, remembers every request and status
//! in order, and fails on request.
//!
//! # Layout
//! `repositories`, `people` and `events` are what tests do with it; `state` is what it knows; `git` and
//! `smart_http` are real git; `api` the two REST APIs; `hooks`, `pushes` and `pulls` which events there are, `envelope`
//! in which form, `delivery` how they are sent; `auth` and `access` who may; `fault` failures and outages; `schema` the
//! check against the forges' published descriptions, of requests and of our own answers; `page` is for people.
//!
//! The Forgejo side does what a real one was seen to do (10-dev, November 2024), also where its description
//! promises something else. Left out, although a real one has it: the Actions and their pending checks (only whether
//! they are on is shown), the header `Link` (`X-Total-Count` is there), tokens that are limited to some repositories,
//! `ALLOWED_HOST_LIST`, the queues' delay before an event leaves, branch filters of webhooks, events that outlive a
//! restart, opening pull requests through the API, and those kinds of `pull_request` events that need comments,
//! reviews, labels or milestones.

#![allow(
    missing_docs,
    reason = "nobody outside this repository imports it, and names of fields say what a line of documentation would repeat"
)]
// One `json!` of a whole repository is deeper than the default allows.
#![recursion_limit = "256"]

mod access;
mod api;
mod auth;
mod delivery;
mod envelope;
mod error;
mod events;
mod fault;
mod git;
mod hooks;
mod page;
mod people;
mod pulls;
mod pushes;
mod repositories;
#[cfg(feature = "schemas")]
mod schema;
#[cfg(not(feature = "schemas"))]
#[path = "unchecked.rs"]
mod schema;
mod serve;
mod shapes;
mod smart_http;
mod state;
mod time;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, MutexGuard},
    time::Duration,
};

use tokio_util::sync::DropGuard;

pub use crate::{
    access::Access,
    delivery::{Content, Delivery, Hook, HookType, NewHook, Try},
    error::Error,
    fault::Fault,
    state::{CheckRun, ForgeState, Kind, Received, Repository, Request, Violation},
};
use crate::{
    auth::{Grant, new_secret},
    fault::{Ordered, Outage},
    state::Shared,
};

/// Whether this build can check bodies against the forges' descriptions ([`Options::schemas`]).
pub const CHECKS_BODIES: bool = cfg!(feature = "schemas");

/// How to start a forge.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the bare repositories go; a temporary directory when `None`.
    pub root: Option<PathBuf>,
    /// Where to listen. Default: a free port of 127.0.0.1.
    pub listen: SocketAddr,
    /// A folder with `forgejo.json` and `github.json`, the published descriptions; every body is then
    /// checked, and a build without the feature `schemas` does not start. Default: none.
    pub schemas: Option<PathBuf>,
    /// The GitHub App's id.
    pub app_id: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            root: None,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            schemas: None,
            app_id: 4242,
        }
    }
}

/// A running forge. Dropping it ends it and, where the root was temporary, removes every file.
#[derive(Debug)]
pub struct FakeForge {
    shared: Arc<Shared>,
    client: reqwest::Client,
    _stop: DropGuard,
    /// Held for its `Drop`.
    _root: Option<tempfile::TempDir>,
}

impl FakeForge {
    /// Starts a forge; it serves when this returns.
    ///
    /// # Errors
    /// When the root, the address or the descriptions cannot be used.
    pub async fn start(options: Options) -> Result<Self, Error> {
        let (root, guard) = match options.root {
            Some(root) => (root, None),
            None => {
                let guard = tempfile::tempdir().map_err(|source| Error::Io {
                    path: std::env::temp_dir(),
                    source,
                })?;
                (guard.path().to_owned(), Some(guard))
            }
        };
        let schemas = options.schemas.as_deref().map(schema::Schemas::load).transpose()?;
        let app = auth::App::with_test_key(options.app_id)?;
        let client = reqwest::Client::builder()
            .no_proxy()
            .build()
            .map_err(|e| Error::Client(e.to_string()))?;
        let (shared, stop) = serve::start(options.listen, root, app, schemas, client.clone()).await?;
        shared.change(|state| {
            state.permissions = [
                ("checks", "write"),
                ("contents", "read"),
                ("metadata", "read"),
                ("pull_requests", "read"),
            ]
            .map(|(name, level)| (name.to_owned(), level.to_owned()))
            .into();
        });
        Ok(Self {
            shared,
            client,
            _stop: stop,
            _root: guard,
        })
    }

    /// `http://127.0.0.1:port`, without a trailing slash.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.shared.url
    }

    /// What GitHub clients take as API address: `<url>/api/v3`.
    #[must_use]
    pub fn github_api_url(&self) -> String {
        format!("{}/api/v3", self.shared.url)
    }

    /// The GitHub App's id.
    #[must_use]
    pub fn app_id(&self) -> u64 {
        self.shared.app.id
    }

    /// The GitHub App's private key, PEM (PKCS#1). A public test key: see `testkey.pem`.
    #[must_use]
    pub fn app_private_key(&self) -> &'static str {
        auth::TEST_KEY
    }

    /// How long newly minted installation tokens live; an hour unless set.
    pub fn set_token_lifetime(&self, lifetime: Duration) {
        self.shared.change(|state| state.token_lifetime = Some(lifetime));
    }

    /// Ends every installation token at once.
    pub fn expire_installation_tokens(&self) {
        self.shared.change(|state| {
            state.tokens.retain(|t| matches!(t.grant, Grant::Person { .. }));
        });
    }

    /// The next request whose `METHOD /path` contains the pattern meets this fault. Several queue up.
    pub fn fail_next(&self, pattern: &str, fault: Fault) {
        self.shared
            .change(|state| state.faults.push(Ordered::once(pattern, fault)));
    }

    /// Every such request meets this fault, until [`FakeForge::drop_faults`]: whoever else asks takes it from nobody.
    pub fn fail_all(&self, pattern: &str, fault: Fault) {
        self.shared
            .change(|state| state.faults.push(Ordered::lasting(pattern, fault)));
    }

    /// Ends every hang that is under way or still ordered, before its time: what a test waits for meanwhile may take
    /// as long as it likes.
    pub fn end_hangs(&self) {
        self.shared.change(|state| {
            state.faults.retain(|ordered| !matches!(ordered.fault, Fault::Hang(_)));
            state.hangs_ended += 1;
        });
    }

    /// Forgets every fault that was ordered with this pattern, and that no request has met yet or that lasts.
    pub fn drop_faults(&self, pattern: &str) {
        self.shared
            .change(|state| state.faults.retain(|ordered| ordered.pattern != pattern));
    }

    /// Ends the forge's process, as it were: connections that are open are cut, and new ones refused, of the APIs and of
    /// git, once this returns. What it knows stays.
    pub async fn stop(&self) {
        self.shared.change(|state| state.away = Some(Outage::Stopped));
        self.shared.until_listening(false).await;
    }

    /// Starts it again after [`FakeForge::stop`], at the same address; it serves when this returns.
    pub async fn restart(&self) {
        self.shared.change(|state| state.away = None);
        self.shared.until_listening(true).await;
    }

    /// Has every request be answered with this status, as a proxy in front of a forge that is away does; `None` ends it.
    pub fn answer_all_with(&self, status: Option<u16>) {
        self.shared.change(|state| state.away = status.map(Outage::Status));
    }

    /// Stops the forge as `SIGSTOP` does (`true`) and lets it go on: until then it takes requests, of the APIs and of git,
    /// and does and answers none; then it does all of them, also those whose callers have given up.
    pub fn set_suspended(&self, suspended: bool) {
        self.shared
            .change(|state| state.away = suspended.then_some(Outage::Suspended));
    }

    /// What the forge knows now. Do not hold it across an `await`.
    pub fn state(&self) -> MutexGuard<'_, ForgeState> {
        self.shared.state()
    }

    /// Every state received for the commit, in the order of arrival.
    #[must_use]
    pub fn history(&self, sha: &str) -> Vec<Received> {
        self.shared.state().history(sha)
    }

    /// Every request so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.shared.state().requests.clone()
    }

    /// Bodies, received or sent by us, that the published descriptions do not allow.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        self.shared.state().violations.clone()
    }

    /// Waits until `look` finds what it looks for: it is asked now and after every change. The
    /// deadline only ends a hang.
    ///
    /// # Errors
    /// [`Error::TimedOut`], with the newest states received.
    pub async fn wait_for<T>(
        &self,
        what: &str,
        deadline: Duration,
        mut look: impl FnMut(&ForgeState) -> Option<T>,
    ) -> Result<T, Error> {
        let mut changes = self.shared.changes();
        let search = async {
            loop {
                changes.borrow_and_update();
                if let Some(found) = look(&self.shared.state()) {
                    return Some(found);
                }
                if changes.changed().await.is_err() {
                    return None;
                }
            }
        };
        if let Ok(Some(found)) = tokio::time::timeout(deadline, search).await {
            return Ok(found);
        }
        let state = self.shared.state();
        let last: Vec<String> = state
            .history
            .iter()
            .rev()
            .take(8)
            .map(|r| format!("{} {}={}", r.sha.get(..8).unwrap_or_default(), r.context, r.word()))
            .collect();
        Err(Error::TimedOut {
            what: what.to_owned(),
            seconds: deadline.as_secs(),
            last: last.join(", "),
        })
    }

    /// Waits until the newest state of a context has this word (see [`Received::word`]).
    ///
    /// # Errors
    /// As [`FakeForge::wait_for`].
    pub async fn wait_for_word(
        &self,
        sha: &str,
        context: &str,
        word: &str,
        deadline: Duration,
    ) -> Result<Received, Error> {
        let what = format!("`{word}` for `{context}` of {sha}");
        let newest = |state: &ForgeState| state.latest(sha, context).filter(|r| r.word() == word).cloned();
        self.wait_for(&what, deadline, newest).await
    }
}

/// A new unguessable webhook secret.
#[must_use]
pub fn new_webhook_secret() -> String {
    new_secret("whs_")
}

/// Writes a file only its owner may read, all at once.
///
/// # Errors
/// When the folder cannot be written.
pub fn write_private(path: &Path, content: &str) -> Result<(), Error> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    let io = |source| Error::Io {
        path: path.to_owned(),
        source,
    };
    let temporary = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(io)?;
    file.write_all(content.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(io)?;
    std::fs::rename(&temporary, path).map_err(io)
}
