//! The normalised event: what every forge's webhook, the API and the CLI turn into.

use serde::{Deserialize, Serialize};

use super::{
    names::{CommitSha, ConnectionId, RefName, RepoPath},
    payload::Payload,
};

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
    /// What the forge said of the event. None for what a person asked for, and for what was stored before this was.
    #[serde(default)]
    pub payload: Option<Payload>,
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
        /// Runs what a push of the ref would run, as a push. What was stored before this was known
        /// asked for `workflow_dispatch`.
        #[serde(default)]
        as_push: bool,
        /// This workflow file alone, by its path or file name, whatever it listens to.
        #[serde(default)]
        workflow: Option<String>,
    },
}

/// What a delivery is about, as its body claims; what is no name is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    /// The forge's own id of the repository.
    pub repository_id: Option<i64>,
    /// `owner/name`.
    pub repository: Option<RepoPath>,
    /// The full ref; events other than a push name none, or a short one that is no ref's name.
    pub ref_name: Option<RefName>,
    /// What a push says that the ref points at now; all zeros when it was deleted.
    pub commit: Option<CommitSha>,
}

/// Whether an event that led to no run may be planned when it comes again. What led to runs, or is
/// still on its way, is done once whatever comes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It asks for no run and never will: a deletion, a ping, a skip word.
    Never,
    /// When its forge or a person delivers it again.
    OnRequest,
    /// Also by ourselves, once the connection works: the connection or its configuration kept it from running.
    Automatic,
}

impl Subject {
    /// Whether it is the end of its ref.
    #[must_use]
    pub fn is_deletion(&self) -> bool {
        self.commit.as_ref().is_some_and(CommitSha::is_zero)
    }
}

impl Retry {
    /// The word that the database uses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::OnRequest => "on_request",
            Self::Automatic => "automatic",
        }
    }
}

impl Event {
    /// The word workflow files use for it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Push { .. } | Self::Manual { as_push: true, .. } => "push",
            Self::Manual { as_push: false, .. } => "workflow_dispatch",
        }
    }

    /// The ref it is about.
    #[must_use]
    pub fn ref_name(&self) -> &RefName {
        match self {
            Self::Push { ref_name, .. } | Self::Manual { ref_name, .. } => ref_name,
        }
    }

    /// The commit that whoever asked named, where one was named.
    #[must_use]
    pub fn commit(&self) -> Option<&CommitSha> {
        match self {
            Self::Push { commit, .. } => Some(commit),
            Self::Manual { commit, .. } => commit.as_ref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trigger_stored_without_a_payload_is_read_and_one_with_it_is_kept() {
        let stored = r#"{"repository":{"connection":"forge","id":7,"path":"o/r"},"event":{"name":"push",
            "ref_name":"refs/heads/main","commit":"1111111111111111111111111111111111111111","before":null},
            "installation":null,"actor":"ada","title":"Fix"}"#;
        let mut trigger: Trigger = serde_json::from_str(stored).unwrap();
        assert_eq!(trigger.payload, None);
        trigger.payload = Some(Payload::of(br#"{"ref":"refs/heads/main","size":3}"#).unwrap());
        let again: Trigger = serde_json::from_str(&serde_json::to_string(&trigger).unwrap()).unwrap();
        assert_eq!(again, trigger);
        assert_eq!(again.payload.unwrap().fields["size"], 3);
    }
}
