//! The normalised event: what every forge's webhook, the API and the CLI turn into.

use serde::{Deserialize, Serialize};

use super::names::{CommitSha, ConnectionId, RefName, RepoPath};

/// A repository as a connection knows it. Everything of it is keyed by (connection, id): a renamed
/// or recreated repository never inherits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Repository {
    /// The forge connection.
    pub connection: ConnectionId,
    /// The forge's own id of the repository.
    pub id: i64,
    /// Its path when the event was made; for URLs and people, never a key.
    pub path: RepoPath,
}

/// What asks for runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trigger {
    /// Where.
    pub repository: Repository,
    /// The event, by its name in workflow files.
    pub event: Event,
    /// GitHub's installation id, where the delivery named one.
    pub installation: Option<i64>,
    /// Who, for people to read (the forge's login); never a source of trust.
    pub actor: String,
    /// The commit's title, at most 200 characters; foreign text.
    pub title: String,
}

/// The events known so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum Event {
    /// A branch or tag now points at a commit.
    Push {
        /// The branch or tag.
        ref_name: RefName,
        /// What it points at, as the delivery claims; the planner reads it again.
        commit: CommitSha,
        /// What it pointed at; none for a new ref.
        before: Option<CommitSha>,
    },
    /// A person asked, through the API or the CLI, for a branch or tag of the base repository.
    Manual {
        /// The branch or tag.
        ref_name: RefName,
        /// The commit, where the person named one: it must be what the ref points at or be
        /// reachable from it.
        commit: Option<CommitSha>,
    },
}

impl Event {
    /// The word workflow files use for it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Push { .. } => "push",
            Self::Manual { .. } => "workflow_dispatch",
        }
    }

    /// The ref it is about.
    #[must_use]
    pub fn ref_name(&self) -> &RefName {
        match self {
            Self::Push { ref_name, .. } | Self::Manual { ref_name, .. } => ref_name,
        }
    }
}
