//! What the JSON API answers and takes, as types that the daemon writes and the command line reads: one shape, one place.
//!
//! Their JSON schema is committed (`docs/api.schema.json`) and a test compares the two, so no field comes, goes or
//! changes unseen. Fields may be added; one that is removed or means something else needs an `/api/v2`. Readers ignore
//! fields that they do not know. Moments are RFC 3339 in UTC with milliseconds.

use serde::{Deserialize, Serialize};

use crate::model::{
    diagnostic::Diagnostic,
    ids::{AttemptId, DeliveryId, JobId, RunId, TriggerId},
    names::{CommitSha, ConnectionId, Label, MachineName, NodeName, RefName, RepoPath},
    state::{AttemptState, IntakeState, JobResult, JobState, MachineState, RunState, StepState},
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

/// How a machine is kept after its job.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Keep {
    /// The machine; only in answers about jobs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineName>,
    /// Who asked.
    pub by: String,
    /// When.
    pub asked: String,
    /// For how many seconds after the job.
    pub for_s: i64,
    /// Until when; none before the job's end.
    pub until: Option<String>,
    /// What kind of machine it is: `zone`, `qemu`.
    pub backend: Option<String>,
    /// Who types on its console; none also for readers who may not know.
    pub console_by: Option<String>,
    /// The node has let go of the console; none for readers who may not know.
    pub console_free: Option<bool>,
    /// The line that attaches to its console; none while that is not possible, and for readers who may not know.
    pub attach: Option<String>,
    /// All of that in a sentence.
    pub words: String,
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
    pub fn words(self) -> &'static str {
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

/// `GET /api/v1/machines/{id}`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Machine {
    /// Its name on the host.
    pub name: MachineName,
    /// The try that it was made for.
    pub attempt: AttemptId,
    /// The job of that try.
    pub job: JobId,
    /// Where it is.
    pub node: NodeName,
    /// Where it stands.
    pub state: MachineState,
    /// When its row was written, which is before it exists.
    pub created: String,
    /// How it is kept, or is to be.
    pub keep: Option<Keep>,
}

/// One machine of a list.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ListedMachine {
    /// Its name on the host.
    pub name: MachineName,
    /// Where it stands.
    pub state: MachineState,
    /// How it is kept, or is to be.
    pub keep: Option<Keep>,
}

/// `GET /api/v1/machines`: the machines of the node that answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MachineList {
    /// The node.
    pub node: NodeName,
    /// Its machines.
    pub machines: Vec<ListedMachine>,
}

/// The body of `POST /api/v1/machines/{id}/keep`; the configured time when there is none.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct KeepBody {
    /// For how many seconds.
    #[serde(default)]
    pub for_s: Option<u64>,
}

/// Since when a machine is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum KeepOutcome {
    /// It is kept now.
    Kept,
    /// It will be, when its job ends.
    AtItsEnd,
}

/// What `POST /api/v1/machines/{id}/keep` answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Kept {
    /// Since when.
    pub outcome: KeepOutcome,
    /// The machine as it is now.
    pub machine: Machine,
}

/// What becomes of a machine that is no longer kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ReleaseOutcome {
    /// Its job runs; it goes with the job.
    Withdrawn,
    /// It is being removed.
    Removing,
    /// It was gone already.
    Gone,
}

impl ReleaseOutcome {
    /// What a person reads after the machine's name.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Withdrawn => "will not be kept and goes with its job",
            Self::Removing => "is being removed",
            Self::Gone => "was gone already",
        }
    }
}

/// What `POST /api/v1/machines/{id}/release` and `…/destroy` answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Released {
    /// The machine.
    pub machine: MachineName,
    /// What becomes of it.
    pub outcome: ReleaseOutcome,
}

/// `GET /api/v1/machines/{id}/console`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ConsoleRead {
    /// What the guest has said, in base64 (RFC 4648, section 4): any bytes.
    pub base64: String,
    /// The `from` of the next call.
    pub next: u64,
    /// Where the machine stands.
    pub state: MachineState,
}

/// What `POST /api/v1/machines/{id}/console` answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ConsoleTyped {
    /// The machine.
    pub machine: MachineName,
    /// Bytes that were typed.
    pub bytes: usize,
}

/// What every refusal and failure answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Failure {
    /// The one thing that went wrong.
    pub error: FailureText,
}

/// Why a call was refused or failed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FailureText {
    /// For programs: `not_found`, `still_active` …
    pub code: String,
    /// For people.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use schemars::{JsonSchema, generate::SchemaSettings};

    use super::*;

    /// The schema of every body of the API, by its name.
    fn schema() -> String {
        #[derive(JsonSchema)]
        #[allow(dead_code)]
        struct Bodies {
            run_list: RunList,
            run: RunDetail,
            job: JobDetail,
            why: Why,
            create_build: CreateBuild,
            build_created: BuildCreated,
            build: Build,
            delivery_list: DeliveryList,
            missed_list: MissedList,
            catch_up: CatchUp,
            cancelled_run: Cancelled<RunId>,
            cancelled_job: Cancelled<JobId>,
            cancelled_build: BuildRuns<CancelledRun>,
            rerun_body: RerunBody,
            rerun: Rerun,
            rerun_build: BuildRuns<StartedRun>,
            machine_list: MachineList,
            machine: Machine,
            keep_body: KeepBody,
            kept: Kept,
            released: Released,
            console_read: ConsoleRead,
            console_typed: ConsoleTyped,
            failure: Failure,
        }
        let schema = SchemaSettings::draft2020_12()
            .for_serialize()
            .into_generator()
            .into_root_schema_for::<Bodies>();
        format!("{:#}\n", schema.to_value())
    }

    #[test]
    fn the_committed_schema_is_that_of_the_types() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/api.schema.json");
        let now = schema();
        if std::env::var_os("HELIOS_BLESS").is_some() {
            std::fs::write(path, &now).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == now,
            "the API's types are no longer those of docs/api.schema.json; a field that only came is blessed by \
             HELIOS_BLESS=1 cargo test -p helios-ci --lib web::api"
        );
    }
}
