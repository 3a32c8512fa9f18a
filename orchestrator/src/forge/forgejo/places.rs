//! Where repositories were found last.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use tokio::time::Instant;

use super::PATH_KNOWN_FOR;
use crate::model::names::{RepoPath, RepositoryId};

/// Paths that are remembered.
const PATHS: usize = 1000;

/// The path of each repository, and when its id was compared there.
#[derive(Default)]
pub(super) struct Places(pub(super) Mutex<HashMap<RepositoryId, (RepoPath, Instant)>>);

impl Places {
    pub(super) fn last(&self, id: &RepositoryId) -> Option<(RepoPath, Instant)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// The repository of this id is here now.
    pub(super) fn learn(&self, id: &RepositoryId, path: &RepoPath) {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if places.len() >= PATHS {
            places.retain(|_, (_, since)| since.elapsed() < PATH_KNOWN_FOR);
        }
        places.insert(id.clone(), (path.clone(), Instant::now()));
    }

    pub(super) fn forget(&self, id: &RepositoryId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}
