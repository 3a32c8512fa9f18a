//! The contract of the store. Every test runs on SQLite, and on a Postgres server of its own.

mod access;
mod attempts;
mod cancelling;
mod comparing;
mod deliveries;
mod hints;
mod intake;
mod keeping;
mod lanes;
mod moves;
mod nodes;
mod opening;
mod plans;
mod reading;
mod reporting;
mod rerunning;
mod retaining;
mod round_trips;
mod scheduling;
mod schema;
mod server;
mod writing;

use std::time::Duration;

use super::*;
use crate::{
    config::Database,
    model::{
        ids::{AttemptId, InstanceId, JobId, RunId},
        names::{CommitSha, MachineName, NodeName},
        plan::{Action, Condition, PLAN_VERSION, Plan, PlanSpan, PlannedJob, PlannedStep, Shell, Template},
        size::Size,
        state::{JobResult, JobState, MachineState, RunState},
        trigger::{Event, RefCause, RefEvent, Repository, Retry, Subject, Trigger},
    },
    secret::Secret,
};

/// Declares the tests of a file: each takes a [`Lab`] and runs once per database.
macro_rules! contract {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::store::tests::Lab::sqlite().await).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if let Some(lab) = $crate::store::tests::Lab::postgres().await {
                    super::$name(lab).await;
                }
            })*
        }
    };
}
use contract;

const MINUTE: Duration = Duration::from_secs(60);
const TRIES: u32 = 3;

/// Makes runs and attempts old, for retention.
pub(crate) const AGE_RUNS: &str = "UPDATE run_attempts SET ended_ms = ended_ms - 400 * CAST(86400000 AS BIGINT)";
/// As [`AGE_RUNS`].
pub(crate) const AGE_ATTEMPTS: &str = "UPDATE attempts SET ended_ms = ended_ms - 100 * CAST(86400000 AS BIGINT)";

/// A store with one registered node.
#[derive(Debug, Clone)]
pub(crate) struct Lab {
    pub(crate) store: Store,
    pub(crate) node: NodeName,
    instance: InstanceId,
}

/// A job that was claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClaimedJob {
    pub(crate) attempt: AttemptId,
    pub(crate) epoch: i64,
    pub(crate) job: JobId,
    pub(crate) run: RunId,
    pub(crate) run_attempt: u32,
    pub(crate) number: u32,
}

impl Store {
    /// Claims one job of these classes.
    pub(crate) async fn claim_job(
        &self,
        node: &NodeName,
        instance: InstanceId,
        classes: &[String],
    ) -> Result<Option<ClaimedJob>, StoreError> {
        let classes = classes.to_vec();
        let one = move |used: &[MachineUse]| if used.is_empty() { classes.clone() } else { Vec::new() };
        let claimed = self.claim_jobs(node, instance, Vec::new(), one).await?.pop();
        Ok(claimed.map(|attempt| ClaimedJob {
            attempt: attempt.id,
            epoch: attempt.epoch,
            job: attempt.job,
            run: attempt.run,
            run_attempt: attempt.run_attempt,
            number: attempt.number,
        }))
    }
}

/// A workflow to be made into a run.
#[derive(Debug, Clone)]
pub(crate) struct Workflow<'a> {
    repository: u64,
    commit: u8,
    name: &'a str,
    class: &'a str,
    /// Keys with their needs.
    jobs: &'a [(&'a str, &'a [&'a str])],
}

/// One workflow `ci` of repository 1 with these jobs.
pub(crate) fn ci<'a>(jobs: &'a [(&'a str, &'a [&'a str])]) -> Workflow<'a> {
    Workflow {
        repository: 1,
        commit: 0xab,
        name: "ci",
        class: "small",
        jobs,
    }
}

/// One job of a repository.
pub(crate) const ONE: &[(&str, &[&str])] = &[("build", &[])];

impl Store {
    /// As somebody asks for it.
    pub(crate) async fn rerun(&self, run: RunId, which: Rerun, by: &str) -> Result<RerunOutcome, StoreError> {
        let act = AuditEntry {
            who: by.to_owned(),
            action: "re-run".to_owned(),
            subject: run.to_string(),
            evidence: "a test".to_owned(),
            request_id: String::new(),
        };
        self.run_again(run, which, act).await
    }

    /// One piece of news alone.
    pub(crate) async fn attempt_running(&self, id: AttemptId, epoch: i64, facts: &str) -> Result<bool, StoreError> {
        let running = Some(facts.to_owned());
        let news = AttemptNews {
            running,
            ..AttemptNews::default()
        };
        self.attempt_news(id, epoch, news).await
    }

    /// As much.
    pub(crate) async fn step(&self, id: AttemptId, epoch: i64, step: StepUpdate) -> Result<bool, StoreError> {
        let news = AttemptNews {
            steps: vec![step],
            ..AttemptNews::default()
        };
        self.attempt_news(id, epoch, news).await
    }
}

impl Lab {
    pub(crate) async fn sqlite() -> Self {
        Self::of(Store::open_temporary().await.unwrap()).await
    }

    async fn postgres() -> Option<Self> {
        let url = Self::fresh_schema().await?;
        let store = Store::open(&Database::Postgres(Secret::new(url))).await.unwrap();
        Some(Self::of(store).await)
    }

    /// The URL of a fresh schema, so that tests do not see each other.
    async fn fresh_schema() -> Option<String> {
        let url = tokio::task::spawn_blocking(server::url).await.unwrap()?;
        use sqlx::{Connection as _, Executor as _};
        let schema = format!("t{}", InstanceId::new());
        let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
        let sql = sqlx::AssertSqlSafe(format!("CREATE SCHEMA {schema}"));
        connection.execute(sqlx::raw_sql(sql)).await.unwrap();
        connection.close().await.unwrap();
        let joint = if url.contains('?') { '&' } else { '?' };
        Some(format!("{url}{joint}options=-c%20search_path%3D{schema}"))
    }

    async fn of(store: Store) -> Self {
        let lab = Self {
            store,
            node: "node-a".parse().unwrap(),
            instance: InstanceId::new(),
        };
        lab.register().await;
        lab
    }

    /// Another node on the same store.
    pub(crate) async fn node(&self, name: &str) -> Self {
        let lab = Self {
            store: self.store.clone(),
            node: name.parse().unwrap(),
            instance: InstanceId::new(),
        };
        lab.register().await;
        lab
    }

    async fn register(&self) {
        let registered = self.store.register_node(&self.node, self.instance, MINUTE).await;
        assert_eq!(registered.unwrap(), Registered::Ok);
    }

    pub(crate) async fn run(&self, workflow: &Workflow<'_>) -> RunId {
        self.runs(std::slice::from_ref(workflow)).await[0]
    }

    /// All runs of one trigger, at the commit of the first.
    async fn runs(&self, workflows: &[Workflow<'_>]) -> Vec<RunId> {
        let (repository, commit) = (workflows[0].repository, sha(workflows[0].commit));
        let claimed = self.trigger(repository, &commit).await;
        let outcome = TriggerOutcome::Planned {
            commit,
            title: "Mend <the> thing".into(),
            runs: workflows.iter().map(planned).collect(),
        };
        let created = self.store.finish_trigger(claimed.id, claimed.epoch, outcome).await;
        created.unwrap().unwrap()
    }

    /// A trigger, claimed.
    async fn trigger(&self, repository: u64, commit: &CommitSha) -> ClaimedTrigger {
        self.store
            .create_trigger(&push(repository, commit), "ann")
            .await
            .unwrap();
        self.store.claim_trigger(&self.node, MINUTE).await.unwrap().unwrap()
    }

    pub(crate) async fn claim(&self) -> Option<ClaimedJob> {
        self.claim_of(&["small"]).await
    }

    async fn claim_of(&self, classes: &[&str]) -> Option<ClaimedJob> {
        let classes: Vec<String> = classes.iter().map(ToString::to_string).collect();
        self.store.claim_job(&self.node, self.instance, &classes).await.unwrap()
    }

    pub(crate) async fn start(&self, claimed: &ClaimedJob) {
        let started = self.store.attempt_running(claimed.attempt, claimed.epoch, "{}").await;
        assert!(started.unwrap());
    }

    pub(crate) async fn end(&self, claimed: &ClaimedJob, result: JobResult) -> EndOutcome {
        let end = AttemptEnd::Result {
            result,
            message: format!("ended in {result:?}"),
        };
        let outcome = self.store.end_attempt(claimed.attempt, claimed.epoch, end, TRIES).await;
        outcome.unwrap()
    }

    pub(crate) async fn fail_infra(&self, claimed: &ClaimedJob, cause: &str) -> EndOutcome {
        let end = AttemptEnd::Infra { cause: cause.into() };
        let outcome = self.store.end_attempt(claimed.attempt, claimed.epoch, end, TRIES).await;
        outcome.unwrap()
    }

    /// Claims, starts and ends one job.
    pub(crate) async fn play(&self, result: JobResult) -> (ClaimedJob, EndOutcome) {
        let claimed = self.claim().await.unwrap();
        self.start(&claimed).await;
        let outcome = self.end(&claimed, result).await;
        (claimed, outcome)
    }

    /// The jobs of a run's newest attempt.
    async fn jobs(&self, run: RunId) -> Vec<JobRow> {
        let run = self.store.run(run).await.unwrap().unwrap();
        run.attempts.last().unwrap().jobs.clone()
    }

    async fn job_states(&self, run: RunId) -> Vec<JobState> {
        self.jobs(run).await.iter().map(|job| job.state).collect()
    }

    async fn run_state(&self, run: RunId) -> RunState {
        self.store.run(run).await.unwrap().unwrap().summary.state
    }

    /// What the outbox wants a check to say, as `state: title`; none when it was never told.
    async fn says(&self, commit: u8, check: &str) -> Option<String> {
        let mut tx = self.store.read("look into the outbox").await.unwrap();
        let row = tx
            .row(
                "SELECT state, title FROM reports WHERE commit_sha = $1 AND name = $2",
                engine::tx::args![&sha(commit), check],
            )
            .await
            .unwrap()?;
        Some(format!(
            "{}: {}",
            row.text("state").unwrap(),
            row.text("title").unwrap()
        ))
    }

    /// Claims what is due of all lanes, of each up to a limit.
    async fn claim_reports(&self, limit: u32, lease: Duration) -> Vec<ClaimedReport> {
        let mut claimed = Vec::new();
        for (lane, _) in self.store.report_lanes().await.unwrap() {
            let states = ReportStates::All;
            let of_lane = self.store.claim_reports(&self.node, &lane, states, limit, lease);
            claimed.extend(of_lane.await.unwrap());
        }
        claimed
    }

    /// Nothing is left of the attempt's machine.
    pub(crate) async fn gone(&self, claimed: &ClaimedJob) {
        let machine = MachineName::of(claimed.attempt);
        assert!(self.store.machine_state(&machine, MachineState::Gone).await.unwrap());
    }

    /// Changes rows behind the store's back.
    pub(crate) async fn sql(&self, sql: &'static str) {
        self.store.sql(sql).await;
    }

    /// One number.
    async fn number(&self, sql: &'static str) -> i64 {
        let mut tx = self.store.read("count for a test").await.unwrap();
        tx.row(sql, &[]).await.unwrap().unwrap().int("n").unwrap()
    }
}

fn sha(byte: u8) -> CommitSha {
    hex::encode([byte; 20]).parse().unwrap()
}

fn push(repository: u64, commit: &CommitSha) -> Trigger {
    Trigger {
        repository: Repository {
            connection: "forge".parse().unwrap(),
            id: repository.into(),
            path: format!("owner/repo-{repository}").parse().unwrap(),
            context: 7.into(),
        },
        event: Event::push("refs/heads/main".parse().unwrap(), commit.clone(), None),
        actor: "ann".into(),
        title: "Mend <the> thing".into(),
        payload: None,
    }
}

fn planned(workflow: &Workflow<'_>) -> NewRun {
    let job = |(key, needs): &(&str, &[&str])| PlannedJob {
        id: (*key).into(),
        span: PlanSpan::at(1, 1),
        name: Template::default_of((*key).into()),
        condition: Template::default_of(Condition::Success),
        strategy: None,
        runs_on: Vec::new(),
        needs: needs.iter().map(ToString::to_string).collect(),
        env: Vec::new(),
        timeout_minutes: Template::default_of(360),
        outputs: Vec::new(),
        call: None,
        steps: vec![PlannedStep {
            id: None,
            span: PlanSpan::at(1, 1),
            name: Template::default_of("true".into()),
            condition: Template::default_of(Condition::Success),
            action: Action::Run {
                script: Template::default_of("true".into()),
                shell: Template::default_of(Shell::Default),
                working_directory: None,
            },
            env: Vec::new(),
            timeout_minutes: None,
            continue_on_error: Template::default_of(false),
        }],
    };
    let path = format!(".helios/workflows/{}.yml", workflow.name);
    let requirement = JobRequirement {
        label: "debian".parse().unwrap(),
        size: Size {
            cpus: 2,
            memory_mib: 2048,
            disk_gib: None,
        },
        class: workflow.class.into(),
    };
    NewRun {
        path: path.clone(),
        name: workflow.name.into(),
        source: "jobs:\n".into(),
        plan: Ok(PlannedRun {
            plan: Plan {
                version: PLAN_VERSION,
                path,
                name: workflow.name.into(),
                env: vec![("A".into(), Template::default_of("1".into()))],
                jobs: workflow.jobs.iter().map(job).collect(),
            },
            jobs: vec![requirement; workflow.jobs.len()],
        }),
    }
}

/// A key for an agent or a token.
fn hash(byte: u8) -> [u8; 32] {
    [byte; 32]
}

fn unknown_attempt() -> AttemptId {
    AttemptId::new()
}

fn unknown_job() -> JobId {
    JobId::new()
}
