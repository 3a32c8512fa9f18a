//! Repositories that a connection may not use now, although it is accepted: a right is missing, which somebody can give.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    clock::now_ms,
    foreign_text::one_line,
    model::names::{ConnectionId, RepoPath},
};

/// Of one connection so many are known at most: enough to see what is wrong.
const MOST: usize = 100;

/// What keeps a connection from using one repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryFault {
    /// Why, without secrets.
    pub reason: String,
    /// What to do about it.
    pub fix: String,
    /// Since when, in milliseconds since 1970.
    pub since_ms: i64,
    /// Whether the forge says so when it is asked about the repository, so that it also says when that ends.
    pub(super) asked: bool,
}

/// The faults of all connections.
#[derive(Debug, Default)]
pub(super) struct Faults(Mutex<BTreeMap<ConnectionId, BTreeMap<RepoPath, RepositoryFault>>>);

impl Faults {
    // Nothing awaits while holding it.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ConnectionId, BTreeMap<RepoPath, RepositoryFault>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn of(&self, connection: &ConnectionId) -> BTreeMap<RepoPath, RepositoryFault> {
        self.lock().get(connection).cloned().unwrap_or_default()
    }

    /// Notes a fault; whether it is a new one. `asked`: the forge said so when it was asked about the repository.
    pub(super) fn note(
        &self,
        connection: &ConnectionId,
        path: &RepoPath,
        reason: &str,
        fix: &str,
        asked: bool,
    ) -> bool {
        let mut all = self.lock();
        let known = all.entry(connection.clone()).or_default();
        if known.len() >= MOST && !known.contains_key(path) {
            return false;
        }
        let before = known.get(path);
        let fault = RepositoryFault {
            reason: one_line(reason, 500),
            fix: one_line(fix, 500),
            since_ms: before.map_or_else(now_ms, |before| before.since_ms),
            asked: asked || before.is_some_and(|before| before.asked),
        };
        let new = before.is_none();
        // What the forge says of the repository itself is more exact than what a call failed with.
        if asked || before.is_none_or(|before| !before.asked) {
            known.insert(path.clone(), fault);
        }
        new
    }

    /// Ends a fault, if there is one.
    pub(super) fn end(&self, connection: &ConnectionId, path: &RepoPath) -> Option<RepositoryFault> {
        self.lock().get_mut(connection)?.remove(path)
    }
}
