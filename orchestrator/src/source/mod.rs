//! Source: bare mirrors of what forges hold, what a commit contains, grants, and serving a grant to
//! the machine it was made for.
//!
//! A mirror belongs to one (connection, repository id) and is never served. A grant is a repository
//! of its own, with the granted commit's closure, or for a checkout of everything that of all branches and
//! tags, and nothing else: git's protocol v2 gives out any
//! object by its id, hidden or not, so what must not be read must not be there. No object store is
//! shared between repositories or grants.
//!
//! Every git command is built in `git`, by the rules against injection: an empty environment, no
//! configuration but ours, no hooks, one protocol, explicit refspecs behind `--end-of-options`, no
//! credential in an argument or a URL, no redirects. The one exception is a person's own working tree (`worktree`), which
//! only `helios-ci run` reads, and its person's git with it.

mod adopt;
mod error;
mod git;
mod grant;
mod heads;
mod mirror;
mod objects;
mod refs;
mod serve;
mod survey;
#[cfg(test)]
mod tests;
mod tips;
mod version;
mod worktree;

use std::{
    collections::HashMap,
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, Semaphore};

pub use adopt::Snapshot;
pub use error::SourceError;
pub use grant::{COMMIT_REF, Grant};
pub use objects::Objects;
pub use survey::LeftOut;
pub use tips::RemoteRef;
pub use version::{GIT_FIX, GitError, git_version};
pub use worktree::WorkTree;

use crate::{
    config::Config,
    model::{
        ids::AttemptId,
        names::{CommitSha, ConnectionId, RepositoryId},
        trigger::Repository,
    },
};

/// Fetches from forges at one time: enough to hide latency, few enough to spare disks and forges.
const FETCHES: usize = 4;
/// Connections of one attempt at one time; a checkout needs one.
const CONNECTIONS: usize = 4;

/// The mirrors and grants of this node.
#[derive(Debug, Clone)]
pub struct Source(Arc<Inner>);

/// A mirror's name: never the repository's path, which another repository may get one day.
type MirrorKey = (ConnectionId, RepositoryId);

#[derive(Debug)]
struct Inner {
    mirrors: PathBuf,
    grants: PathBuf,
    /// Largest mirror, in bytes.
    repository_bytes: u64,
    fetches: Semaphore,
    /// One lock per mirror. A `std` mutex around the map: nothing awaits while holding it.
    locks: Mutex<HashMap<MirrorKey, Arc<AsyncMutex<()>>>>,
    connections: Mutex<HashMap<AttemptId, usize>>,
}

impl Source {
    /// Mirrors and grants below the configured data directory. Folders are made when they are needed.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self::at(&config.data_dir, config.limits.repository_bytes)
    }

    fn at(data_dir: &Path, repository_bytes: u64) -> Self {
        // git is told absolute paths, whatever folder it runs in; without a current folder a relative
        // path is as good as any.
        let data_dir = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
        git::forget_credentials(&data_dir.join("mirrors"));
        Self(Arc::new(Inner {
            mirrors: data_dir.join("mirrors"),
            grants: data_dir.join("grants"),
            repository_bytes,
            fetches: Semaphore::new(FETCHES),
            locks: Mutex::default(),
            connections: Mutex::default(),
        }))
    }

    fn mirror(&self, repository: &Repository) -> PathBuf {
        self.0
            .mirrors
            .join(repository.connection.as_str())
            .join(format!("{}.git", repository.id))
    }

    /// A task that changes a mirror or a mirror's grant holds this lock.
    async fn lock(&self, repository: &Repository) -> OwnedMutexGuard<()> {
        let key = (repository.connection.clone(), repository.id.clone());
        let lock = {
            let mut locks = self.0.locks.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(locks.entry(key).or_default())
        };
        lock.lock_owned().await
    }
}

fn make_private(path: &Path) -> Result<(), SourceError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| SourceError::io("create the folder", path, source))
}

/// Forty or sixty-four digits say which hash a repository uses, by git's name for it.
pub(crate) fn object_format(commit: &CommitSha) -> &'static str {
    if commit.as_str().len() == 64 { "sha256" } else { "sha1" }
}
