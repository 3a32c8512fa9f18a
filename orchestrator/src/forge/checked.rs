//! What a forge says of a connection when it is asked whether that works: of itself, and of each repository.

use crate::model::names::RepoPath;

/// A connection that is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// What the forge said of itself and of us, one line.
    pub answer: String,
    /// What it said of the repositories that it was asked about, in their order.
    pub repositories: Vec<CheckedRepository>,
}

/// What a forge says of one repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedRepository {
    /// As it was asked for.
    pub path: RepoPath,
    /// What we may do there.
    pub access: Access,
}

/// What a connection may do with a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// It may read it and set statuses, as far as can be seen without doing so.
    Granted {
        /// Whether the forge runs workflow files of this repository by itself.
        actions: bool,
    },
    /// A right is missing.
    Missing {
        /// Which, in a sentence without secrets.
        reason: String,
        /// What to do about it.
        fix: String,
    },
    /// It cannot be said now.
    Unknown {
        /// Why, without secrets.
        reason: String,
    },
}

impl CheckedRepository {
    /// A right is missing.
    pub(super) fn missing(path: &RepoPath, reason: impl Into<String>, fix: impl Into<String>) -> Self {
        let access = Access::Missing {
            reason: reason.into(),
            fix: fix.into(),
        };
        Self {
            path: path.clone(),
            access,
        }
    }
}
