//! Where repositories were found last.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use tokio::time::Instant;

use crate::model::names::{RepoPath, RepositoryId};

/// Paths that are remembered.
const PATHS: usize = 1000;

/// The path of each repository, and when its id was compared there.
#[derive(Default)]
pub(super) struct KnownPaths(pub(super) Mutex<HashMap<RepositoryId, (RepoPath, Instant)>>);

impl KnownPaths {
    pub(super) fn last(&self, id: &RepositoryId) -> Option<(RepoPath, Instant)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// The repository of this id is here now.
    pub(super) fn learn(&self, id: &RepositoryId, path: &RepoPath) {
        let mut paths = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if paths.len() >= PATHS && !paths.contains_key(id) {
            // Each is found again with one request.
            paths.clear();
        }
        paths.insert(id.clone(), (path.clone(), Instant::now()));
    }

    pub(super) fn forget(&self, id: &RepositoryId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_paths_are_remembered_than_the_bound() {
        let (paths, path) = (KnownPaths::default(), "acme/tool".parse().unwrap());
        for id in 0..3 * PATHS as u64 {
            paths.learn(&id.into(), &path);
            paths.learn(&id.into(), &path);
            assert!(paths.last(&id.into()).is_some());
            assert!(paths.0.lock().unwrap().len() <= PATHS);
        }
    }
}
