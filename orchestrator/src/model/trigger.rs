//! The normalised event: what every forge's webhook, the API and the CLI turn into.

use serde::{Deserialize, Deserializer, Serialize};

use super::{
    names::{CommitSha, ConnectionId, ForgeContext, RefName, RepoPath, RepositoryId},
    payload::Payload,
};

/// A repository as a connection knows it. Everything of it is keyed by (connection, id): a renamed
/// or recreated repository never inherits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Repository {
    /// The forge connection.
    pub connection: ConnectionId,
    /// The forge's own id of the repository.
    #[serde(deserialize_with = "text_or_number")]
    pub id: RepositoryId,
    /// Its path when the event was made; for URLs and people, never a key.
    pub path: RepoPath,
    /// What its forge's adapter wants to know again.
    #[serde(default, skip_serializing_if = "ForgeContext::is_empty")]
    pub context: ForgeContext,
}

/// Ids were numbers in what was stored first.
fn text_or_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RepositoryId, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Stored {
        Number(u64),
        Text(RepositoryId),
    }
    Ok(match Stored::deserialize(deserializer)? {
        Stored::Number(id) => id.into(),
        Stored::Text(id) => id,
    })
}

/// What asks for runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredTrigger")]
pub struct Trigger {
    /// Where.
    pub repository: Repository,
    /// The event, by its name in workflow files.
    pub event: Event,
    /// Who, for people to read (the forge's login); never a source of trust.
    pub actor: String,
    /// The commit's title, at most 200 characters; foreign text.
    pub title: String,
    /// What the forge said of the event. None for what a person asked for, and for what was stored before this was.
    pub payload: Option<Payload>,
}

/// A trigger as any version stored it: the first had GitHub's installation beside the repository.
#[derive(Deserialize)]
struct StoredTrigger {
    repository: Repository,
    event: Event,
    #[serde(default)]
    installation: Option<u64>,
    actor: String,
    title: String,
    #[serde(default)]
    payload: Option<Payload>,
}

impl From<StoredTrigger> for Trigger {
    fn from(stored: StoredTrigger) -> Self {
        let StoredTrigger {
            mut repository,
            event,
            installation,
            actor,
            title,
            payload,
        } = stored;
        if let Some(id) = installation {
            repository.context = id.into();
        }
        Self {
            repository,
            event,
            actor,
            title,
            payload,
        }
    }
}

/// What asks for runs, by where the code lies that they run: this decides which commits they may run, and how far these
/// are trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Event {
    /// The code is on a branch or tag of the repository itself.
    Ref(RefEvent),
}

/// An event about a branch or tag of the repository itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefEvent {
    /// The branch or tag.
    pub ref_name: RefName,
    /// Why it asks for runs.
    #[serde(flatten)]
    pub cause: RefCause,
}

/// Why a branch or tag asks for runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum RefCause {
    /// It now points at a commit.
    Push {
        /// What it points at, as the delivery claims; the planner reads it again.
        commit: CommitSha,
        /// What it pointed at; none for a new ref.
        before: Option<CommitSha>,
    },
    /// A person asked, through the API or the CLI.
    Manual {
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
    pub repository_id: Option<RepositoryId>,
    /// `owner/name`.
    pub repository: Option<RepoPath>,
    /// The full ref, of a push or a deletion.
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
    /// What an event of this name says of it: a push where its ref is now, `delete` that it is gone, which is all that
    /// Forgejo tells of a deleted branch. Any other says nothing of a ref, also where its body names one, as Forgejo's
    /// `create` does, which comes before or after the push.
    #[must_use]
    pub fn said_by(mut self, event: &str) -> Self {
        match event {
            "push" => {}
            "delete" => self.commit = "0".repeat(40).parse().ok(),
            _ => (self.ref_name, self.commit) = (None, None),
        }
        self
    }

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
    /// A push of a branch or tag.
    #[must_use]
    pub fn push(ref_name: RefName, commit: CommitSha, before: Option<CommitSha>) -> Self {
        let cause = RefCause::Push { commit, before };
        Self::Ref(RefEvent { ref_name, cause })
    }

    /// The word workflow files use for it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        let Self::Ref(RefEvent { cause, .. }) = self;
        match cause {
            RefCause::Push { .. } | RefCause::Manual { as_push: true, .. } => "push",
            RefCause::Manual { as_push: false, .. } => "workflow_dispatch",
        }
    }

    /// The ref of the repository that it is about.
    #[must_use]
    pub fn ref_name(&self) -> &RefName {
        let Self::Ref(RefEvent { ref_name, .. }) = self;
        ref_name
    }

    /// The commit that whoever asked named, where one was named.
    #[must_use]
    pub fn commit(&self) -> Option<&CommitSha> {
        let Self::Ref(RefEvent { cause, .. }) = self;
        match cause {
            RefCause::Push { commit, .. } => Some(commit),
            RefCause::Manual { commit, .. } => commit.as_ref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the first version stored.
    const OF_VERSION_1: [&str; 3] = [
        r#"{"repository":{"connection":"hub","id":42,"path":"acme/tool"},"event":{"name":"push",
            "ref_name":"refs/heads/main","commit":"2222222222222222222222222222222222222222",
            "before":"1111111111111111111111111111111111111111"},"installation":9,"actor":"ada","title":"Fix"}"#,
        r#"{"repository":{"connection":"berg","id":7,"path":"o/r"},"event":{"name":"manual",
            "ref_name":"refs/tags/v1","commit":null,"as_push":true,"workflow":"ci.yml"},"installation":null,
            "actor":"ann","title":""}"#,
        r#"{"repository":{"connection":"berg","id":7,"path":"o/r"},"event":{"name":"manual",
            "ref_name":"refs/heads/main","commit":"2222222222222222222222222222222222222222"},"installation":null,
            "actor":"ann","title":""}"#,
    ];

    #[test]
    fn only_a_push_and_a_deletion_say_where_a_ref_is() {
        let named = Subject {
            ref_name: "refs/heads/x".parse().ok(),
            commit: "1".repeat(40).parse().ok(),
            ..Subject::default()
        };
        assert_eq!(named.clone().said_by("push"), named);
        let deleted = named.clone().said_by("delete");
        assert!(deleted.is_deletion() && deleted.ref_name == named.ref_name);
        assert_eq!(named.said_by("create"), Subject::default());
    }

    #[test]
    fn what_the_first_version_stored_is_read() {
        let [push, manual, older] = OF_VERSION_1.map(|text| serde_json::from_str::<Trigger>(text).unwrap());
        assert_eq!(
            (push.repository.id.as_str(), push.repository.context.as_str()),
            ("42", "9")
        );
        let commit: CommitSha = "2222222222222222222222222222222222222222".parse().unwrap();
        assert_eq!(
            push.event,
            Event::push(
                "refs/heads/main".parse().unwrap(),
                commit.clone(),
                Some("1111111111111111111111111111111111111111".parse().unwrap()),
            )
        );
        assert_eq!(
            (manual.repository.id.as_str(), manual.repository.context.is_empty()),
            ("7", true)
        );
        assert_eq!(
            manual.event,
            Event::Ref(RefEvent {
                ref_name: "refs/tags/v1".parse().unwrap(),
                cause: RefCause::Manual {
                    commit: None,
                    as_push: true,
                    workflow: Some("ci.yml".to_owned()),
                },
            })
        );
        assert_eq!(
            older.event,
            Event::Ref(RefEvent {
                ref_name: "refs/heads/main".parse().unwrap(),
                cause: RefCause::Manual {
                    commit: Some(commit),
                    as_push: false,
                    workflow: None,
                },
            })
        );
    }

    #[test]
    fn events_are_stored_in_the_shape_of_the_first_version() {
        for text in OF_VERSION_1 {
            let trigger: Trigger = serde_json::from_str(text).unwrap();
            let stored = serde_json::to_value(&trigger).unwrap();
            let before: serde_json::Value = serde_json::from_str(text).unwrap();
            for (key, value) in before["event"].as_object().unwrap() {
                assert_eq!(&stored["event"][key], value, "{key} of {text}");
            }
        }
    }

    #[test]
    fn what_is_stored_now_is_read_again() {
        for text in OF_VERSION_1 {
            let trigger: Trigger = serde_json::from_str(text).unwrap();
            let stored = serde_json::to_string(&trigger).unwrap();
            assert_eq!(serde_json::from_str::<Trigger>(&stored).unwrap(), trigger);
        }
    }

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
