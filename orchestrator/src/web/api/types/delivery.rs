//! Deliveries of forges, and what was missed.

use serde::{Deserialize, Serialize};

use crate::model::{
    ids::{DeliveryId, TriggerId},
    names::{CommitSha, ConnectionId, RefName, RepoPath},
    state::IntakeState,
};

/// One webhook, and what came of it. Its body is never shown.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Delivery {
    /// Our id of it.
    pub id: DeliveryId,
    /// The connection through which it came.
    pub connection: ConnectionId,
    /// The forge's word for the event.
    pub event: String,
    /// The forge's id of it.
    pub key: String,
    /// From 1, and one more for each time that the forge or the daemon delivered it again.
    pub number: u32,
    /// The repository, where the body names one.
    pub repository: Option<RepoPath>,
    /// The ref, where the body names one.
    #[serde(rename = "ref")]
    pub ref_name: Option<RefName>,
    /// The commit, where the body names one.
    pub commit: Option<CommitSha>,
    /// Where it stands, as its newest build does.
    pub state: IntakeState,
    /// What came of it, in a sentence.
    pub outcome: String,
    /// Delivered again, it is planned again.
    pub retryable: bool,
    /// When it came.
    pub received: String,
    /// What it caused.
    pub builds: Vec<DeliveryBuild>,
}

/// One build that a delivery caused.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DeliveryBuild {
    /// The build's id.
    pub id: TriggerId,
    /// Where it stands.
    pub state: IntakeState,
    /// Why nothing runs, or why it is tried again.
    pub reason: Option<String>,
    /// How often planning was tried.
    pub tries: u32,
    /// When it is tried next.
    pub next: Option<String>,
    /// How many runs it has.
    pub runs: u32,
}

/// `GET /api/v1/deliveries`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DeliveryList {
    /// Newest first.
    pub deliveries: Vec<Delivery>,
    /// The `before` of the next page; none on the last.
    pub next: Option<DeliveryId>,
}

/// A ref at a forge for whose tip no run was planned.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MissedRef {
    /// The forge connection of the configuration.
    pub connection: ConnectionId,
    /// `owner/name`.
    pub repository: RepoPath,
    /// The branch or tag.
    #[serde(rename = "ref")]
    pub ref_name: RefName,
    /// What it points at.
    pub commit: CommitSha,
    /// When that was first seen.
    pub seen: String,
}

/// When a repository's refs were last compared with what was planned.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Compared {
    /// The forge connection of the configuration.
    pub connection: ConnectionId,
    /// `owner/name`.
    pub repository: RepoPath,
    /// When it last succeeded.
    pub at: Option<String>,
    /// When it was last tried.
    pub tried: String,
    /// Why it failed then.
    pub reason: Option<String>,
}

/// `GET /api/v1/missed`: as of the last comparisons with the forges.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MissedList {
    /// Refs whose tips no run was planned for.
    pub missed: Vec<MissedRef>,
    /// Each repository's last comparison.
    pub compared: Vec<Compared>,
}

/// What a comparison of one connection did.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CaughtUp {
    /// The forge connection of the configuration.
    pub connection: ConnectionId,
    /// How many repositories were compared.
    pub repositories: u32,
    /// How many deliveries that had led to nothing were delivered again.
    pub delivered_again: u32,
    /// Why nothing could be compared.
    pub broken: Option<String>,
}

/// What `POST /api/v1/catch-up` answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CatchUp {
    /// Each connection.
    pub connections: Vec<CaughtUp>,
    /// What is missed now.
    #[serde(flatten)]
    pub missed: MissedList,
}
