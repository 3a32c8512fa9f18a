//! Reading for pages, the API and the command line.

use crate::{
    model::{
        diagnostic::Diagnostic,
        ids::{JobId, RunId, TriggerId},
        names::{CommitSha, ConnectionId, RefName, RepoPath, RepositoryId},
        plan::{EnvTemplate, Plan, PlannedJob},
        state::RunState,
        trigger::Repository,
    },
    store::{
        Store, StoreError,
        attempt::{
            attempts::{self, AttemptRow},
            steps::{self, StepRow},
        },
        engine::tx::{Row, Tx, Value, args},
        run::{
            cancel_request,
            cancel_request::CancelRequest,
            jobs::{self, JobRow},
            runs,
        },
    },
};

/// Which runs to list.
#[derive(Debug, Clone, Default)]
pub struct RunFilter {
    /// Of this repository: connection and the forge's id.
    pub repository: Option<(ConnectionId, RepositoryId)>,
    /// Of the repository that had this path when the run was made; forges ignore its case.
    pub path: Option<RepoPath>,
    /// In this state.
    pub state: Option<RunState>,
    /// Only of these repositories: what a visitor who has not signed in may see.
    pub public_only: Option<Vec<(ConnectionId, RepoPath)>>,
    /// Only older ones than this.
    pub before: Option<RunId>,
    /// At most 100; 0 means 50.
    pub limit: u32,
}

/// A run in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSummary {
    /// Its id.
    pub id: RunId,
    /// What asked for it.
    pub trigger: TriggerId,
    /// Whose code it runs.
    pub repository: Repository,
    /// The ref that was pushed or asked for.
    pub ref_name: RefName,
    /// The commit it runs.
    pub commit: CommitSha,
    /// The commit's title; foreign text.
    pub title: String,
    /// Who, for people to read.
    pub actor: String,
    /// The event's name in workflow files.
    pub event: String,
    /// The workflow's name.
    pub workflow: String,
    /// The workflow file's path.
    pub path: String,
    /// The newest attempt's number.
    pub attempt: u32,
    /// Where the newest attempt stands.
    pub state: RunState,
    /// When the run was made, in milliseconds since 1970.
    pub created_ms: i64,
    /// When the newest attempt ended.
    pub ended_ms: Option<i64>,
    /// Jobs of the newest attempt: ended, all.
    pub jobs: (u32, u32),
}

/// A run with everything about it.
#[derive(Debug, Clone)]
pub struct RunDetail {
    /// What lists show.
    pub summary: RunSummary,
    /// The workflow file's text; foreign.
    pub source: String,
    /// Why it could not be planned.
    pub diagnostics: Vec<Diagnostic>,
    /// All attempts, the first first.
    pub attempts: Vec<RunAttemptRow>,
    /// Checks the forge has not accepted, with its reason.
    pub undelivered: Vec<String>,
}

/// One attempt of a run.
#[derive(Debug, Clone)]
pub struct RunAttemptRow {
    /// From 1.
    pub number: u32,
    /// Its state.
    pub state: RunState,
    /// Who asked for it.
    pub by: String,
    /// Milliseconds since 1970.
    pub created_ms: i64,
    /// Milliseconds since 1970.
    pub ended_ms: Option<i64>,
    /// Somebody asked for its end.
    pub cancel: Option<CancelRequest>,
    /// Its jobs in plan order.
    pub jobs: Vec<JobRow>,
}

/// A job with everything about it.
#[derive(Debug, Clone)]
pub struct JobDetail {
    /// The job.
    pub job: JobRow,
    /// Its run.
    pub run: RunSummary,
    /// The run attempt it belongs to.
    pub run_attempt: u32,
    /// What it does.
    pub plan: PlannedJob,
    /// Environment of every step of the workflow.
    pub workflow_env: EnvTemplate,
    /// Its attempts, the first first; of a carried-over job, those of the job that ran.
    pub attempts: Vec<AttemptRow>,
    /// The steps of the newest attempt.
    pub steps: Vec<StepRow>,
}

const SUMMARY: &str = "SELECT r.id, r.trigger_id, r.connection, r.repository_id, r.repository_path, r.forge_context,
    r.ref_name, r.commit_sha, r.title, r.actor, r.event, r.name, r.path, r.attempt, a.state, r.created_ms, a.ended_ms,
    (SELECT COUNT(*) FROM jobs j WHERE j.run_id = r.id AND j.run_attempt = r.attempt AND j.ended_ms IS NOT NULL)
        AS jobs_ended,
    (SELECT COUNT(*) FROM jobs j WHERE j.run_id = r.id AND j.run_attempt = r.attempt) AS jobs_all
    FROM runs r JOIN run_attempts a ON a.run_id = r.id AND a.number = r.attempt";

fn summary(row: &Row) -> Result<RunSummary, StoreError> {
    Ok(RunSummary {
        id: row.parse("id")?,
        trigger: row.parse("trigger_id")?,
        repository: runs::repository(row)?,
        ref_name: row.parse("ref_name")?,
        commit: row.parse("commit_sha")?,
        title: row.text("title")?,
        actor: row.text("actor")?,
        event: row.text("event")?,
        workflow: row.text("name")?,
        path: row.text("path")?,
        attempt: row.num("attempt")?,
        state: row.parse("state")?,
        created_ms: row.int("created_ms")?,
        ended_ms: row.opt_int("ended_ms")?,
        jobs: (row.num("jobs_ended")?, row.num("jobs_all")?),
    })
}

/// Conditions joined by AND, with their values numbered as they come.
#[derive(Default)]
struct Conditions {
    sql: Vec<String>,
    args: Vec<Value>,
}

impl Conditions {
    fn next(&mut self, value: impl Into<Value>) -> usize {
        self.args.push(value.into());
        self.args.len()
    }
}

fn conditions(filter: &RunFilter) -> Conditions {
    let mut all = Conditions::default();
    if let Some((connection, id)) = &filter.repository {
        let (connection, id) = (all.next(connection), all.next(id));
        all.sql
            .push(format!("r.connection = ${connection} AND r.repository_id = ${id}"));
    }
    if let Some(path) = &filter.path {
        let path = all.next(path.as_str().to_ascii_lowercase());
        all.sql.push(format!("lower(r.repository_path) = ${path}"));
    }
    if let Some(state) = filter.state {
        let state = all.next(state);
        all.sql.push(format!("a.state = ${state}"));
    }
    if let Some(before) = filter.before {
        let before = all.next(before);
        all.sql.push(format!("r.id < ${before}"));
    }
    if let Some(public) = &filter.public_only {
        let mut any = vec!["1 = 0".to_owned()];
        for (connection, path) in public {
            let (connection, path) = (all.next(connection), all.next(path.as_str().to_ascii_lowercase()));
            any.push(format!(
                "(r.connection = ${connection} AND lower(r.repository_path) = ${path})"
            ));
        }
        all.sql.push(format!("({})", any.join(" OR ")));
    }
    all
}

impl Store {
    /// Runs, the newest first.
    pub async fn runs(&self, filter: &RunFilter) -> Result<Vec<RunSummary>, StoreError> {
        let mut all = conditions(filter);
        let limit = all.next(match filter.limit {
            0 => 50,
            n => n.min(100),
        });
        if all.sql.is_empty() {
            all.sql.push("1 = 1".to_owned());
        }
        let sql = format!(
            "{SUMMARY} WHERE {} ORDER BY r.id DESC LIMIT ${limit}",
            all.sql.join(" AND ")
        );
        let mut tx = self.read_single("list runs").await?;
        tx.rows(sql, &all.args).await?.iter().map(summary).collect()
    }

    /// One run with all its attempts and jobs.
    pub async fn run(&self, id: RunId) -> Result<Option<RunDetail>, StoreError> {
        let mut tx = self.read("read a run").await?;
        let row = tx.row(format!("{SUMMARY} WHERE r.id = $1"), args![id]).await?;
        let Some(row) = row else { return Ok(None) };
        let more = tx
            .row("SELECT source, diagnostics FROM runs WHERE id = $1", args![id])
            .await?;
        let (source, diagnostics) = match more {
            Some(more) => (more.text("source")?, more.json("diagnostics")?),
            None => return Ok(None),
        };
        Ok(Some(RunDetail {
            summary: summary(&row)?,
            source,
            diagnostics,
            attempts: run_attempts(&mut tx, id).await?,
            undelivered: undelivered(&mut tx, id).await?,
        }))
    }

    /// One job with its run, attempts and steps.
    pub async fn job(&self, id: JobId) -> Result<Option<JobDetail>, StoreError> {
        let mut tx = self.read("read a job").await?;
        // Where a run was planned before each job's part was stored, its whole plan stands for it.
        let sql = format!(
            "SELECT j.run_id, j.run_attempt,
                 COALESCE((SELECT p.plan FROM job_plans p WHERE p.run_id = j.run_id AND p.job_key = j.job_key),
                     (SELECT r.plan FROM runs r WHERE r.id = j.run_id)) AS plan, {}
             FROM jobs j WHERE j.id = $1",
            jobs::COLUMNS
        );
        let Some(row) = tx.row(sql, args![id]).await? else {
            return Ok(None);
        };
        let job = jobs::job_row(&row)?;
        let run: RunId = row.parse("run_id")?;
        let run_row = tx.row(format!("{SUMMARY} WHERE r.id = $1"), args![run]).await?;
        let Some(run_row) = run_row else { return Ok(None) };
        let plan = Plan::read(&row.text("plan")?).map_err(|e| row.unreadable("plan", e))?;
        let planned = plan.jobs.into_iter().find(|planned| planned.id == job.key);
        let attempts = attempts::of_job(&mut tx, job.carried_from.unwrap_or(id)).await?;
        let steps = match attempts.last() {
            Some(last) => steps::of_attempt(&mut tx, last.id).await?,
            None => Vec::new(),
        };
        Ok(Some(JobDetail {
            run: summary(&run_row)?,
            run_attempt: row.num("run_attempt")?,
            plan: planned.ok_or_else(|| StoreError::Internal {
                what: tx.what,
                reason: format!("the plan of run {run} has no job `{}`", job.key),
            })?,
            workflow_env: plan.env,
            attempts,
            steps,
            job,
        }))
    }
}

async fn run_attempts(tx: &mut Tx, run: RunId) -> Result<Vec<RunAttemptRow>, StoreError> {
    let rows = tx
        .rows(
            "SELECT number, state, by_whom, created_ms, ended_ms, cancel_ms, cancel_by, cancel_reason, cancel_force
             FROM run_attempts WHERE run_id = $1 ORDER BY number",
            args![run],
        )
        .await?;
    let mut all = Vec::with_capacity(rows.len());
    for row in &rows {
        let number = row.num("number")?;
        let sql = format!(
            "SELECT {} FROM jobs j WHERE j.run_id = $1 AND j.run_attempt = $2 ORDER BY j.place",
            jobs::COLUMNS
        );
        let jobs = tx.rows(sql, args![run, number]).await?;
        all.push(RunAttemptRow {
            number,
            state: row.parse("state")?,
            by: row.text("by_whom")?,
            created_ms: row.int("created_ms")?,
            ended_ms: row.opt_int("ended_ms")?,
            cancel: cancel_request::request(row)?,
            jobs: jobs.iter().map(jobs::job_row).collect::<Result<_, _>>()?,
        });
    }
    Ok(all)
}

/// What the forge has not accepted about this run, in words; what is only on its way is not shown.
async fn undelivered(tx: &mut Tx, run: RunId) -> Result<Vec<String>, StoreError> {
    let rows = tx
        .rows(
            "SELECT name, reason FROM reports WHERE run_id = $1 AND delivered < version AND reason IS NOT NULL
             ORDER BY name",
            args![run],
        )
        .await?;
    rows.iter()
        .map(|row| Ok(format!("{}: {}", row.text("name")?, row.text("reason")?)))
        .collect()
}
