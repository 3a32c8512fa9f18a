//! Runs, run attempts, jobs and their tries.

use serde::{Deserialize, Serialize};

use super::machine::Keep;
use crate::model::{
    diagnostic::Diagnostic,
    ids::{AttemptId, JobId, RunId, TriggerId},
    names::{CommitSha, ConnectionId, Label, NodeName, RefName, RepoPath},
    state::{AttemptState, JobResult, JobState, RunState, StepState},
};

/// One run, as lists show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Run {
    /// The run's id.
    pub id: RunId,
    /// The build (the trigger) that it belongs to.
    pub build: TriggerId,
    /// The forge connection of the configuration.
    pub connection: ConnectionId,
    /// `owner/name` when the run was made.
    pub repository: RepoPath,
    /// The ref that was pushed or asked for.
    #[serde(rename = "ref")]
    pub ref_name: RefName,
    /// The commit that is tested.
    pub commit: CommitSha,
    /// The commit's title; foreign text.
    pub title: String,
    /// Who caused it, by the forge's name; foreign text.
    pub actor: String,
    /// The event's name in workflow files: `push`, `workflow_dispatch` …
    pub event: String,
    /// The workflow's name; foreign text.
    pub workflow: String,
    /// The workflow's file in the repository.
    pub path: String,
    /// The newest run attempt, from 1.
    pub attempt: u32,
    /// Where the newest run attempt stands.
    pub state: RunState,
    /// When the run was made.
    pub created: String,
    /// When the newest run attempt ended.
    pub ended: Option<String>,
    /// Jobs of the newest run attempt that have ended.
    pub jobs_ended: u32,
    /// Jobs of the newest run attempt.
    pub jobs: u32,
}

/// `GET /api/v1/runs`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RunList {
    /// Newest first.
    pub runs: Vec<Run>,
    /// The `before` of the next page; none on the last.
    pub next: Option<RunId>,
}

/// `GET /api/v1/runs/{id}`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RunDetail {
    /// What lists show.
    pub run: Run,
    /// What is wrong with the workflow file.
    pub diagnostics: Vec<Diagnostic>,
    /// The first first.
    pub attempts: Vec<RunAttempt>,
    /// Checks that the forge has not accepted, with its reason.
    pub undelivered: Vec<String>,
}

/// One attempt of a run: the first, or a re-run.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RunAttempt {
    /// From 1.
    pub number: u32,
    /// Where it stands.
    pub state: RunState,
    /// Who asked for it.
    pub by: String,
    /// When it was made.
    pub created: String,
    /// When its last job ended.
    pub ended: Option<String>,
    /// Somebody asked for its end.
    pub cancel: Option<Cancel>,
    /// In the order of the workflow file.
    pub jobs: Vec<Job>,
}

/// A request for an early end.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Cancel {
    /// When.
    pub at: String,
    /// Who asked.
    pub by: String,
    /// Why, in their words or ours.
    pub reason: String,
    /// Asked for a second time: nothing is waited for.
    pub force: bool,
}

/// What a job's machine gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MachineSize {
    /// Processors.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Disk in GiB; the image's own size when there is none.
    pub disk_gib: Option<u64>,
}

/// One job of a run attempt.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Job {
    /// The job's id.
    pub id: JobId,
    /// Its key in the workflow file.
    pub key: String,
    /// Its name; foreign text.
    pub name: String,
    /// `runs-on`, resolved.
    pub label: Label,
    /// Where it stands.
    pub state: JobState,
    /// Why it waits, was skipped or ended.
    pub reason: Option<String>,
    /// Keys of the jobs it waits for.
    pub needs: Vec<String>,
    /// The job of an earlier run attempt whose result this one carries.
    pub carried_from: Option<JobId>,
    /// How many machines were tried.
    pub tries: u32,
    /// What its machine gets.
    pub size: MachineSize,
    /// When the job was made.
    pub created: String,
    /// When it could first be claimed.
    pub queued: Option<String>,
    /// When its first machine was asked for.
    pub started: Option<String>,
    /// When it ended.
    pub ended: Option<String>,
    /// Its newest attempt.
    pub attempt: Option<AttemptId>,
    /// Somebody asked for its end.
    pub cancel: Option<Cancel>,
}

/// `GET /api/v1/jobs/{id}`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct JobDetail {
    /// What lists show.
    #[serde(flatten)]
    pub job: Job,
    /// Its run.
    pub run: RunId,
    /// The run attempt that it belongs to, from 1.
    pub run_attempt: u32,
    /// Its tries, the first first.
    pub attempts: Vec<Attempt>,
    /// The steps of the newest try.
    pub steps: Vec<Step>,
    /// How the newest try's machine is kept, or is to be.
    pub keep: Option<Keep>,
}

/// One try of a job, on one machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Attempt {
    /// The attempt's id.
    pub id: AttemptId,
    /// From 1.
    pub number: u32,
    /// Where it stands.
    pub state: AttemptState,
    /// How its job ended; none while it runs, and when the infrastructure failed.
    pub result: Option<JobResult>,
    /// What went wrong with the infrastructure.
    pub cause: Option<String>,
    /// Where it runs.
    pub node: NodeName,
    /// When it was made.
    pub created: String,
    /// When its steps began.
    pub running: Option<String>,
    /// When it ended.
    pub ended: Option<String>,
    /// Its log's time is over.
    pub log_removed: bool,
}

/// One step of a try.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Step {
    /// From 0.
    pub index: u32,
    /// Its name; foreign text.
    pub name: String,
    /// Where it stands.
    pub state: StepState,
    /// Its command's exit status.
    pub exit_code: Option<i32>,
    /// What went wrong.
    pub message: Option<String>,
    /// When it began.
    pub started: Option<String>,
    /// When it ended.
    pub ended: Option<String>,
    /// It failed and `continue-on-error` let it pass.
    pub allowed_failure: bool,
}

/// `GET /api/v1/jobs/{id}/why`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Why {
    /// Where the job stands.
    pub state: JobState,
    /// Why it waits, or how it ended.
    pub reason: Option<String>,
    /// Its place in the queue of its class, from 1; 0 when it is not queued.
    pub position: u32,
    /// Jobs of its class that run now.
    pub class_running: u32,
    /// Names of the jobs that it waits for.
    pub waiting_for: Vec<String>,
    /// The node that answers.
    pub node: NodeName,
    /// Why that node would not start it now; none when it would.
    pub refused_here: Option<String>,
    /// How its machine is kept, or is to be.
    pub keep: Option<Keep>,
}

/// What became of a request to cancel. Asking for the end of what has ended is answered with the fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum CancelOutcome {
    /// It ends as soon as its steps let it.
    Requested,
    /// It was asked for a second time and ends now.
    Forced,
    /// It had ended before.
    AlreadyEnded,
}

impl CancelOutcome {
    /// What a person reads.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Requested => "cancellation requested",
            Self::Forced => "cancellation forced",
            Self::AlreadyEnded => "already ended",
        }
    }
}

/// What `POST …/cancel` of a run or job answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Cancelled<Id> {
    /// Of the run or job.
    pub id: Id,
    /// What became of the request.
    pub outcome: CancelOutcome,
}

/// Which jobs run again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Which {
    /// All of them.
    #[default]
    All,
    /// Those that did not succeed, and whatever needs them.
    Failed,
}

/// The body of `POST …/rerun`; all jobs when there is none.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RerunBody {
    /// Which jobs.
    #[serde(default)]
    pub which: Option<Which>,
}

/// What `POST /api/v1/runs/{id}/rerun` answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Rerun {
    /// The run.
    pub id: RunId,
    /// The number of its new attempt.
    pub attempt: u32,
}
