//! How the daemon is.

use serde::{Deserialize, Serialize};

use crate::model::names::{ConnectionId, NodeName, RepoPath};

/// What the daemon can do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum DaemonState {
    /// Everything, as far as is known.
    #[serde(rename = "ready")]
    Ready,
    /// It takes deliveries and answers, but some forge refuses us or does not answer.
    #[serde(rename = "degraded")]
    Degraded,
    /// The database does not answer.
    #[serde(rename = "not ready")]
    NotReady,
    /// It is about to end.
    #[serde(rename = "stopping")]
    Stopping,
}

/// `GET /api/v1/status`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Status {
    /// What the daemon can do now.
    pub state: DaemonState,
    /// How many connections to forges there are and work.
    pub connections: ConnectionCount,
    /// The node that answers; only for administrators.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// Each connection and the work at hand; only for administrators.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<StatusDetails>,
}

/// Connections to forges, counted.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ConnectionCount {
    /// That are configured.
    pub all: usize,
    /// That are known not to work.
    pub broken: usize,
}

/// What administrators see of the daemon.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StatusDetails {
    /// Each connection of the configuration.
    pub connections: Vec<ConnectionStatus>,
    /// What waits and what runs; none while the database does not answer.
    pub work: Option<WorkStatus>,
}

/// What is known of one connection.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ConnectionStatus {
    /// Its name in the configuration.
    pub name: ConnectionId,
    /// The forge's address.
    pub url: String,
    /// Where its webhooks must go.
    pub webhook: String,
    /// `unknown`, `working`, `refused` or `unreachable`.
    pub state: String,
    /// The same in a sentence, with the forge's own words.
    pub detail: String,
    /// Since when it does not work.
    pub since: Option<String>,
    /// What to do about it.
    pub fix: Option<String>,
    /// The repositories that it may not use although it works.
    #[serde(default)]
    pub repositories: Vec<RepositoryStatus>,
}

/// A repository to which a connection lacks a right.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RepositoryStatus {
    /// `owner/name`.
    pub path: RepoPath,
    /// Which right is missing, or what said so.
    pub detail: String,
    /// Since when.
    pub since: String,
    /// What to do about it.
    pub fix: String,
}

/// What waits and what runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct WorkStatus {
    /// Jobs in the queue.
    pub queued: u64,
    /// Jobs that run.
    pub active: u64,
    /// Checks that their forge was not told yet.
    pub reports_undelivered: u64,
    /// Those of them that it refused.
    pub reports_refused: u64,
}
