//! Rights to repositories that a connection lacks now, although it is accepted: somebody can give them.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    clock::now_ms,
    foreign_text::one_line,
    model::names::{ConnectionId, RepoPath},
};

/// Of one connection so many are known at most: enough to see what is wrong.
const MOST: usize = 100;
/// How long after the last call that met it a missing right is forgotten, unless the forge is asked about the repository
/// anyway: whatever waits for it tries more often, so nothing does any more.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(1800);

/// What keeps a connection from using one repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingRight {
    /// Why, without secrets.
    pub reason: String,
    /// What to do about it.
    pub fix: String,
    /// Since when, in milliseconds since 1970.
    pub since_ms: i64,
    /// Whether the forge says so when it is asked about the repository, so that it also says when that ends.
    pub(super) asked: bool,
    /// When a call met it last; none where only the question did.
    met: Option<Instant>,
}

/// Who says that a right is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SaidBy {
    /// The forge, asked about the repository itself.
    Question,
    /// A call that failed.
    Call,
}

/// The missing rights of all connections.
#[derive(Debug, Default)]
pub(super) struct MissingRights(Mutex<BTreeMap<ConnectionId, BTreeMap<RepoPath, MissingRight>>>);

impl MissingRights {
    // Nothing awaits while holding it.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ConnectionId, BTreeMap<RepoPath, MissingRight>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn of(&self, connection: &ConnectionId) -> BTreeMap<RepoPath, MissingRight> {
        self.lock().get(connection).cloned().unwrap_or_default()
    }

    /// Notes one; whether it is new.
    pub(super) fn note(
        &self,
        connection: &ConnectionId,
        path: &RepoPath,
        reason: &str,
        fix: &str,
        said_by: SaidBy,
    ) -> bool {
        let mut all = self.lock();
        let known = all.entry(connection.clone()).or_default();
        if known.len() >= MOST && !known.contains_key(path) {
            return false;
        }
        let new = !known.contains_key(path);
        let right = known.entry(path.clone()).or_insert_with(|| MissingRight {
            reason: String::new(),
            fix: String::new(),
            since_ms: now_ms(),
            asked: false,
            met: None,
        });
        match said_by {
            SaidBy::Question => right.asked = true,
            SaidBy::Call => right.met = Some(Instant::now()),
        }
        // What the forge says of the repository itself is more exact than what a call failed with.
        if said_by == SaidBy::Question || !right.asked {
            right.reason = one_line(reason, 500);
            right.fix = one_line(fix, 500);
        }
        new
    }

    /// Ends one; whether there was one.
    pub(super) fn end(&self, connection: &ConnectionId, path: &RepoPath) -> bool {
        let mut all = self.lock();
        all.get_mut(connection)
            .is_some_and(|known| known.remove(path).is_some())
    }

    /// Forgets those that no call has met for long; those that the forge names of repositories that are `listed` stay.
    pub(super) fn forget_old(&self, connection: &ConnectionId, listed: &[RepoPath]) {
        if let Some(known) = self.lock().get_mut(connection) {
            known.retain(|path, right| {
                right.met.is_some_and(|met| met.elapsed() < FORGOTTEN_AFTER) || right.asked && listed.contains(path)
            });
        }
    }
}
