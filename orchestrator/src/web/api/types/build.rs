//! Builds: what a push or a person asked for, and the runs that came of it.

use serde::{Deserialize, Serialize};

use super::run::{CancelOutcome, Run};
use crate::model::{
    ids::{RunId, TriggerId},
    names::{ConnectionId, RefName, RepoPath},
    state::IntakeState,
};

/// The body of `POST /api/v1/builds`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateBuild {
    /// The forge connection of the configuration.
    pub connection: String,
    /// `owner/name`.
    pub repository: String,
    /// A branch's name, or a full ref.
    #[serde(rename = "ref")]
    pub ref_name: String,
    /// A commit that the ref points at or reaches; its tip when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Only this workflow file, by path or name, whatever it listens to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    /// What workflow files are asked for.
    #[serde(default)]
    pub event: AskedEvent,
}

/// What runs are to be made for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum AskedEvent {
    /// What a push of the ref would run, as a push.
    #[default]
    Push,
    /// What listens to `workflow_dispatch`.
    WorkflowDispatch,
}

/// What `POST /api/v1/builds` answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BuildCreated {
    /// The build's id.
    pub id: TriggerId,
    /// The full name of the ref that was meant.
    #[serde(rename = "ref")]
    pub ref_name: RefName,
}

/// `GET /api/v1/builds/{id}`: what became of a trigger.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Build {
    /// The build's id.
    pub id: TriggerId,
    /// Where it stands.
    pub state: IntakeState,
    /// Why nothing runs.
    pub reason: Option<String>,
    /// When it was asked for.
    pub created: String,
    /// How often planning was tried.
    pub tries: u32,
    /// The forge connection of the configuration.
    pub connection: ConnectionId,
    /// `owner/name`.
    pub repository: RepoPath,
    /// The event's name in workflow files.
    pub event: String,
    /// The ref that was pushed or asked for.
    #[serde(rename = "ref")]
    pub ref_name: RefName,
    /// Its runs, one for each workflow file that wants it.
    pub runs: Vec<Run>,
}

/// One run of a build that was cancelled.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CancelledRun {
    /// The run.
    pub run: RunId,
    /// What became of the request.
    pub outcome: CancelOutcome,
}

/// One run of a build that runs again.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StartedRun {
    /// The run.
    pub run: RunId,
    /// The number of its new attempt.
    pub attempt: u32,
}

/// What `POST /api/v1/builds/{id}/cancel` and `…/rerun` answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BuildRuns<T> {
    /// The build.
    pub id: TriggerId,
    /// Each of its runs.
    pub runs: Vec<T>,
}
