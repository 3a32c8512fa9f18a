//! A small local forge for helios-ci's demo and tests. It speaks the parts of Forgejo's and GitHub's
//! API that a CI uses, serves real git over HTTP, sends real signed webhooks, remembers everything it
//! was told in order, and has bad days on request.
//!
//! # Layout
//! `state` is what it knows; `git` and `smart_http` are repositories; `api` the two REST APIs; `hooks`
//! and `pulls` what is sent out; `auth` who may; `fault` the bad days; `schema` the check against the
//! forges' published descriptions, of requests and of our own answers; `page` is for people.

// One `json!` of a whole repository is deeper than the default allows.
#![recursion_limit = "256"]

mod api;
mod auth;
mod fault;
mod git;
mod hooks;
mod page;
mod pulls;
mod schema;
mod serve;
mod shapes;
mod smart_http;
mod state;
mod time;

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio_util::sync::DropGuard;

use crate::{
    auth::{Grant, Token, new_secret},
    git::Moved,
    hooks::blocking,
    state::{Pull, Shared},
    time::now_ms,
};
pub use crate::{
    fault::Fault,
    state::{CheckRun, Delivery, ForgeState, Hook, Kind, Received, Repository, Request, Try, Violation},
};

/// How to start a forge.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the bare repositories go; a temporary directory when `None`.
    pub root: Option<PathBuf>,
    /// Where to listen. Default: a free port of 127.0.0.1.
    pub listen: SocketAddr,
    /// A folder with `forgejo.json` and `github.json`, the published descriptions; every body is then
    /// checked. Default: none.
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

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// git failed.
    #[error("`git {command}` failed: {reason}")]
    Git {
        /// Its arguments.
        command: String,
        /// Its words.
        reason: String,
    },
    /// A file or folder could not be used.
    #[error("cannot use {path}")]
    Io {
        /// Which one.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which one.
        address: SocketAddr,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// The built-in test key cannot be used.
    #[error("the test key cannot be used: {0}")]
    TestKey(String),
    /// The HTTP client for webhooks cannot be made.
    #[error("cannot make an HTTP client: {0}")]
    Client(String),
    /// No such repository.
    #[error("there is no repository {0}")]
    UnknownRepository(i64),
    /// The path is taken, or not `owner/name`.
    #[error("`{0}` cannot be a new repository: it exists or is not `owner/name` of letters, digits, `-`, `_` and `.`")]
    BadPath(String),
    /// No such ref or commit.
    #[error("there is no `{0}`")]
    UnknownRef(String),
    /// No such thing of another kind.
    #[error("there is no {what} `{id}`")]
    Unknown {
        /// `delivery`, `check run`, `pull request`.
        what: &'static str,
        /// Which one.
        id: String,
    },
    /// What was waited for did not come.
    #[error("{what} did not come within {seconds} s; last seen: {last}")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
        /// The newest states received.
        last: String,
    },
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

    /// What the App may do from now on with newly minted tokens, such as `[("checks", "write")]`.
    pub fn set_app_permissions(&self, permissions: &[(&str, &str)]) {
        let permissions = permissions.iter().map(|(n, l)| ((*n).to_owned(), (*l).to_owned()));
        self.shared.change(|state| state.permissions = permissions.collect());
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

    /// Gives a person (or bot) a token that works for the APIs of both kinds and for git; with `write`
    /// it may push and set statuses.
    #[must_use]
    pub fn create_token(&self, login: &str, write: bool) -> String {
        let secret = new_secret("");
        self.add_token(login, write, &secret);
        secret
    }

    /// As [`FakeForge::create_token`], with a given secret.
    pub fn add_token(&self, login: &str, write: bool, secret: &str) {
        let token = Token {
            secret: secret.to_owned(),
            grant: Grant::Person {
                login: login.to_owned(),
                write,
            },
            repositories: None,
        };
        self.shared.change(|state| {
            state.user(login);
            state.tokens.push(token);
        });
    }

    /// Takes a token back.
    pub fn revoke_token(&self, secret: &str) {
        self.shared.change(|state| state.tokens.retain(|t| t.secret != secret));
    }

    /// Makes an empty repository and answers with its number.
    ///
    /// # Errors
    /// When the path is taken or not `owner/name`, or git fails.
    pub async fn create_repository(&self, kind: Kind, path: &str, private: bool) -> Result<i64, Error> {
        self.new_repository(kind, path, private, None).await
    }

    /// Makes a fork with all branches and answers with its number.
    ///
    /// # Errors
    /// As [`FakeForge::create_repository`].
    pub async fn fork(&self, repository: i64, path: &str) -> Result<i64, Error> {
        let parent = self.shared.repository(repository)?;
        let id = self
            .new_repository(parent.kind, path, parent.private, Some(repository))
            .await?;
        let fork = self.shared.repository(id)?;
        blocking(move || git::copy(&parent.dir, &fork.dir)).await?;
        Ok(id)
    }

    async fn new_repository(&self, kind: Kind, path: &str, private: bool, fork_of: Option<i64>) -> Result<i64, Error> {
        let part = |part: &str| {
            !part.is_empty()
                && !part.starts_with(['.', '-'])
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        let owner = match path.split_once('/') {
            Some((owner, name)) if part(owner) && part(name) => owner.to_owned(),
            _ => return Err(Error::BadPath(path.to_owned())),
        };
        if self.shared.state().repository(path).is_some() {
            return Err(Error::BadPath(path.to_owned()));
        }
        let dir = self.shared.root.join(format!("{path}.git"));
        let init = dir.clone();
        blocking(move || git::init(&init)).await?;
        Ok(self.shared.change(|state| {
            let id = state.number();
            let installation = match kind {
                Kind::Forgejo => None,
                Kind::Github => Some(match state.installations.get(&owner) {
                    Some(id) => *id,
                    None => {
                        let id = state.number();
                        state.installations.insert(owner, id);
                        id
                    }
                }),
            };
            let repository = Repository {
                id,
                kind,
                path: path.to_owned(),
                private,
                default_branch: "main".to_owned(),
                installation,
                fork_of,
                dir,
                created_ms: now_ms(),
            };
            state.repositories.insert(id, repository);
            id
        }))
    }

    /// Renames or moves a repository: its number stays, its path changes, as on the real forges.
    ///
    /// # Errors
    /// When the repository does not exist or the path is taken.
    pub fn rename_repository(&self, repository: i64, path: &str) -> Result<(), Error> {
        self.shared.repository(repository)?;
        if self.shared.state().repository(path).is_some() {
            return Err(Error::BadPath(path.to_owned()));
        }
        self.shared.change(|state| {
            if let Some(found) = state.repositories.get_mut(&repository) {
                found.path = path.to_owned();
            }
        });
        Ok(())
    }

    /// Where the repository is cloned from: `<url>/owner/name.git`.
    ///
    /// # Errors
    /// When it does not exist.
    pub fn clone_url(&self, repository: i64) -> Result<String, Error> {
        Ok(format!(
            "{}/{}.git",
            self.shared.url,
            self.shared.repository(repository)?.path
        ))
    }

    /// Where the bare repository lies.
    ///
    /// # Errors
    /// When it does not exist.
    pub fn repository_dir(&self, repository: i64) -> Result<PathBuf, Error> {
        Ok(self.shared.repository(repository)?.dir)
    }

    /// Commits files (`(path, content, mode)`, mode 0o644 or 0o755, or a whole git mode such as
    /// 0o120000) on top of the branch and pushes: every hook is told. The commit's id.
    ///
    /// # Errors
    /// When the repository does not exist or git fails.
    pub async fn push<C: AsRef<[u8]>>(
        &self,
        repository: i64,
        branch: &str,
        files: &[(&str, C, u32)],
        message: &str,
    ) -> Result<String, Error> {
        let found = self.shared.repository(repository)?;
        let files: Vec<_> = files
            .iter()
            .map(|(path, content, mode)| ((*path).to_owned(), content.as_ref().to_vec(), *mode))
            .collect();
        let (dir, branch_name, message) = (found.dir.clone(), branch.to_owned(), message.to_owned());
        let sha = blocking(move || git::write_commit(&dir, &branch_name, &files, &message, "alice")).await?;
        self.update_ref(repository, &format!("refs/heads/{branch}"), Some(&sha))
            .await?;
        Ok(sha)
    }

    /// Points a ref at a commit of the repository, or removes it, and tells every hook: for tags,
    /// deleted branches and forced pushes.
    ///
    /// # Errors
    /// When the repository does not exist or git fails.
    pub async fn update_ref(&self, repository: i64, name: &str, sha: Option<&str>) -> Result<(), Error> {
        let found = self.shared.repository(repository)?;
        let _turn = self.shared.pushing.lock().await;
        let (dir, name, sha) = (found.dir.clone(), name.to_owned(), sha.map(str::to_owned));
        let moved: Vec<Moved> = blocking(move || {
            let before = git::refs(&dir)?;
            git::update_ref(&dir, &name, sha.as_deref())?;
            Ok(git::moved(&before, &git::refs(&dir)?))
        })
        .await?;
        hooks::pushed(&self.shared, repository, &moved, "alice").await
    }

    /// Opens a pull request and tells the base's hooks. Its number and head commit; the head is
    /// `refs/pull/<number>/head` of the base.
    ///
    /// # Errors
    /// When a repository or branch does not exist.
    pub async fn open_pull_request(
        &self,
        (base, base_branch): (i64, &str),
        (head, head_branch): (i64, &str),
        author: &str,
    ) -> Result<(i64, String), Error> {
        let pull = self.shared.change(|state| {
            let number = i64::try_from(state.pulls.len()).unwrap_or(i64::MAX - 1) + 1;
            let pull = Pull {
                number,
                base,
                head,
                base_branch: base_branch.to_owned(),
                head_branch: head_branch.to_owned(),
                author: author.to_owned(),
            };
            state.pulls.insert(number, pull.clone());
            pull
        });
        let sha = pulls::announce(&self.shared, &pull, "opened").await?;
        Ok((pull.number, sha))
    }

    /// Tells the base's hooks that the head of a pull request moved (after a push to its branch). The
    /// new head commit.
    ///
    /// # Errors
    /// When the pull request or its branches do not exist.
    pub async fn synchronize_pull_request(&self, number: i64) -> Result<String, Error> {
        let pull = self.shared.state().pulls.get(&number).cloned();
        let pull = pull.ok_or_else(|| Error::Unknown {
            what: "pull request",
            id: number.to_string(),
        })?;
        let action = match self.shared.repository(pull.base)?.kind {
            Kind::Forgejo => "synchronized",
            Kind::Github => "synchronize",
        };
        pulls::announce(&self.shared, &pull, action).await
    }

    /// Configures a webhook for all events and answers with its number.
    pub fn add_hook(&self, repository: i64, url: &str, secret: &str) -> i64 {
        self.shared.change(|state| {
            let id = state.number();
            let hook = Hook {
                id,
                repository,
                url: url.to_owned(),
                secret: secret.to_owned(),
            };
            state.hooks.insert(id, hook);
            id
        })
    }

    /// Holds deliveries back (`true`): they are made and listed, but only [`FakeForge::redeliver`]
    /// sends them. For lost and reordered deliveries.
    pub fn hold_deliveries(&self, hold: bool) {
        self.shared.change(|state| state.hold = hold);
    }

    /// Sends a delivery once more, byte for byte and with the same id, and waits for the answer.
    ///
    /// # Errors
    /// When there is no such delivery.
    pub async fn redeliver(&self, id: &str) -> Result<Try, Error> {
        let found = self.shared.state().deliveries.iter().find(|d| d.id == id).cloned();
        let delivery = found.ok_or_else(|| Error::Unknown {
            what: "delivery",
            id: id.to_owned(),
        })?;
        let outcome = hooks::post(&self.client, &delivery.url, &delivery.headers, delivery.body).await;
        let tried = Try {
            at_ms: now_ms(),
            outcome,
        };
        self.shared.change(|state| {
            if let Some(delivery) = state.deliveries.iter_mut().find(|d| d.id == id) {
                delivery.tries.push(tried.clone());
            }
        });
        Ok(tried)
    }

    /// Posts any bytes with any headers, as an attacker can. The answer's status, or why none came.
    ///
    /// # Errors
    /// The transport's reason, as text, when there is no answer.
    pub async fn deliver_raw(
        &self,
        url: &str,
        headers: &[(String, String)],
        body: impl Into<Bytes>,
    ) -> Result<u16, String> {
        hooks::post(&self.client, url, headers, body.into()).await
    }

    /// Queues an event of any name and body (the common fields are added where missing), signed for
    /// every hook of the repository. The deliveries' ids.
    ///
    /// # Errors
    /// When the repository does not exist.
    pub fn deliver_event(&self, repository: i64, event: &str, body: Value) -> Result<Vec<String>, Error> {
        let found = self.shared.repository(repository)?;
        let mut whole = hooks::common(&self.shared, &found, "alice");
        if let (Some(whole), Value::Object(body)) = (whole.as_object_mut(), body) {
            whole.extend(body);
        }
        Ok(hooks::send(&self.shared, &found, event, event, whole))
    }

    /// A person pressed "Re-run" on a check run, or with `identifier` one of its own buttons.
    ///
    /// # Errors
    /// When there is no such check run.
    pub fn press(&self, check_run: i64, identifier: Option<&str>) -> Result<Vec<String>, Error> {
        let unknown = || Error::Unknown {
            what: "check run",
            id: check_run.to_string(),
        };
        let repository = self.shared.state().checks.get(&check_run).map(|run| run.repository);
        let repository = self.shared.repository(repository.ok_or_else(unknown)?)?;
        let shape = api::checks::shape(&self.shared, &repository, check_run).map_err(|_| unknown())?;
        let body = match identifier {
            None => json!({"action": "rerequested", "check_run": shape}),
            Some(identifier) => json!({
                "action": "requested_action", "check_run": shape, "requested_action": {"identifier": identifier},
            }),
        };
        self.deliver_event(repository.id, "check_run", body)
    }

    /// The next request whose `METHOD /path` contains the pattern meets this fault. Several queue up.
    pub fn fail_next(&self, pattern: &str, fault: Fault) {
        self.shared
            .change(|state| state.faults.push((pattern.to_owned(), fault)));
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
