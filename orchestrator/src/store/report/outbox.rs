//! Writing to the outbox, in the transaction of whatever happened. One row per check holds the newest
//! wanted state; each change raises its version, and the reporter delivers what it is behind with.
//!
//! A check's name does not say event and ref, because protection rules name checks and must go on finding
//! them. So a name may stand for several facts: a branch and a tag on one commit, each with a run. Then the
//! check says the worst of them, whoever ended last, and leads there.

use crate::{
    model::{
        diagnostic::Diagnostic,
        ids::{JobId, ReportId, RunId},
        names::{CommitSha, RefName},
        report::AGGREGATE,
        state::AttemptState,
        trigger::{Repository, Trigger},
    },
    store::{
        StoreError,
        engine::tx::{Row, Tx, args},
        report::report_text::{self, JobFacts, ReportText},
    },
};

/// Completes the condition of a statement over `runs r` at a commit: the runs that count there. Of those
/// for one workflow file, event and ref only the newest does: it measured the same thing again.
macro_rules! of_current_runs {
    ($sql:expr) => {
        concat!($sql, " AND r.superseded = 0")
    };
}

pub(super) use of_current_runs;

/// A commit of a repository: where checks are shown.
#[derive(Debug, Clone)]
pub(in crate::store) struct CheckTarget {
    pub(in crate::store) repository: Repository,
    pub(in crate::store) commit: CommitSha,
}

impl CheckTarget {
    /// Where the checks of a trigger's runs are shown.
    pub(in crate::store) fn of(trigger: &Trigger, commit: &CommitSha) -> Self {
        Self {
            repository: trigger.repository.clone(),
            commit: commit.clone(),
        }
    }

    /// Two transactions that end runs of one commit at once must not both miss the other's end in
    /// the aggregate.
    pub(in crate::store) async fn lock(&self, tx: &mut Tx) -> Result<(), StoreError> {
        let Repository { connection, id, .. } = &self.repository;
        let hash = crate::digest::sha256(format!("{connection}/{id}/{}", self.commit));
        let section = hash.iter().take(8).fold(0_i64, |n, byte| (n << 8) | i64::from(*byte));
        tx.exclusive(section).await
    }
}

/// What a check is to say, and what it is about.
pub(super) struct Wanted {
    pub(super) text: ReportText,
    pub(super) run: Option<RunId>,
    pub(super) job: Option<JobId>,
    pub(super) started_ms: Option<i64>,
    pub(super) completed_ms: Option<i64>,
}

struct Current {
    generation: u32,
    state: String,
    title: String,
    summary: String,
    run: Option<RunId>,
    job: Option<JobId>,
    completed_ms: Option<i64>,
}

async fn current(tx: &mut Tx, target: &CheckTarget, name: &str) -> Result<Option<Current>, StoreError> {
    let row = tx
        .row(
            "SELECT generation, state, title, summary, run_id, job_id, completed_ms FROM reports
             WHERE connection = $1 AND repository_id = $2 AND commit_sha = $3 AND name = $4",
            args![
                &target.repository.connection,
                &target.repository.id,
                &target.commit,
                name
            ],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Current {
        generation: row.num("generation")?,
        state: row.text("state")?,
        title: row.text("title")?,
        summary: row.text("summary")?,
        run: row.opt_parse("run_id")?,
        job: row.opt_parse("job_id")?,
        completed_ms: row.opt_int("completed_ms")?,
    }))
}

/// Wants a check to say something. One that was final and no longer is begins a new generation, because
/// forges keep what is final.
pub(super) async fn put(tx: &mut Tx, target: &CheckTarget, name: &str, wanted: &Wanted) -> Result<(), StoreError> {
    let text = &wanted.text;
    let state = super::reports::word(text.state);
    let generation = match current(tx, target, name).await? {
        None => 1,
        Some(row) => {
            let same = (row.state.as_str(), &row.title, &row.summary) == (state, &text.title, &text.summary);
            if same && (row.run, row.job) == (wanted.run, wanted.job) {
                return Ok(());
            }
            row.generation + u32::from(row.completed_ms.is_some() && !text.state.is_final())
        }
    };
    // What kept the old version from being sent may not keep the new one, so that is tried at once and with all its
    // tries; a pause that the forge asked for is kept. Where nothing was in the way, the old version's time is of no use: the
    // clock may have been set back since.
    tx.execute(
        "INSERT INTO reports (id, connection, repository_id, repository_path, forge_context, commit_sha, name,
             generation, state, title, summary, run_id, job_id, started_ms, completed_ms, version, since_version,
             due_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, 1, 1, $16)
         ON CONFLICT (connection, repository_id, commit_sha, name) DO UPDATE SET
             repository_path = excluded.repository_path, forge_context = excluded.forge_context,
             state = excluded.state, title = excluded.title, summary = excluded.summary,
             run_id = excluded.run_id, job_id = excluded.job_id,
             started_ms = excluded.started_ms, completed_ms = excluded.completed_ms,
             version = reports.version + 1,
             since_version = CASE WHEN excluded.generation > reports.generation
                 THEN reports.version + 1 ELSE reports.since_version END,
             remote = CASE WHEN excluded.generation > reports.generation THEN NULL ELSE reports.remote END,
             generation = excluded.generation,
             due_ms = CASE WHEN reports.tries > 0 OR reports.delivered = reports.version OR reports.reason IS NULL
                 THEN excluded.due_ms ELSE reports.due_ms END,
             tries = 0, refused = 0",
        args![
            ReportId::new(),
            &target.repository.connection,
            &target.repository.id,
            &target.repository.path,
            &target.repository.context,
            &target.commit,
            name,
            generation,
            state,
            &text.title,
            &text.summary,
            wanted.run,
            wanted.job,
            wanted.started_ms,
            wanted.completed_ms,
            tx.now,
        ],
    )
    .await
    .map(drop)
}

/// One job of those that a check's name stands for.
struct Fact {
    text: ReportText,
    event: String,
    ref_name: RefName,
    run: RunId,
    /// The job that the check links to.
    job: JobId,
    started_ms: Option<i64>,
    ended_ms: Option<i64>,
}

/// Wants the check of a job to say the worst of what its name stands for: where the jobs of that name stand
/// in the commit's current runs.
pub(in crate::store) async fn job(tx: &mut Tx, target: &CheckTarget, id: JobId) -> Result<(), StoreError> {
    let row = tx.row("SELECT check_name FROM jobs WHERE id = $1", args![id]).await?;
    let Some(row) = row else { return Ok(()) };
    let name = row.text("check_name")?;
    let mut facts = facts(tx, target, &name, id).await?;
    // Of equals the newest run's, so that the order in which they ended does not matter.
    facts.sort_by_key(|fact| (fact.text.state.severity(), fact.run));
    let told: Vec<_> = facts
        .iter()
        .map(|fact| (fact.event.as_str(), &fact.ref_name, &fact.text))
        .collect();
    let text = report_text::worst(&told);
    let (Some(text), Some(worst)) = (text, facts.last()) else {
        return Ok(());
    };
    let wanted = Wanted {
        text,
        run: Some(worst.run),
        job: Some(worst.job),
        started_ms: worst.started_ms,
        completed_ms: worst.ended_ms,
    };
    put(tx, target, &name, &wanted).await
}

macro_rules! facts {
    ($condition:literal) => {
        concat!(
            "SELECT COALESCE(j.carried_from, j.id) AS job, j.run_id, j.state, j.reason, j.needs, j.tries, j.started_ms,
                 j.ended_ms, r.event, r.ref_name, a.node, a.state AS attempt_state
             FROM runs r JOIN jobs j ON j.run_id = r.id AND j.run_attempt = r.attempt
             LEFT JOIN attempts a ON a.job_id = j.id
                 AND a.number = (SELECT MAX(b.number) FROM attempts b WHERE b.job_id = j.id) WHERE ",
            $condition
        )
    };
}

/// The jobs of a check's name in the current runs; a job whose run is no longer current, and whose successor
/// has no such job, goes on speaking for itself.
async fn facts(tx: &mut Tx, target: &CheckTarget, check: &str, job: JobId) -> Result<Vec<Fact>, StoreError> {
    let sql = of_current_runs!(facts!(
        "r.connection = $1 AND r.repository_id = $2 AND r.commit_sha = $3 AND j.check_name = $4"
    ));
    let at = args![
        &target.repository.connection,
        &target.repository.id,
        &target.commit,
        check
    ];
    let mut rows = tx.rows(sql, at).await?;
    if rows.is_empty() {
        rows = tx.rows(facts!("j.id = $1"), args![job]).await?;
    }
    rows.iter().map(fact).collect()
}

fn fact(row: &Row) -> Result<Fact, StoreError> {
    let reason = row.opt_text("reason")?;
    let needs: Vec<String> = row.json("needs")?;
    let node = row.opt_text("node")?;
    let begun = row
        .opt_parse::<AttemptState>("attempt_state")?
        .is_some_and(|state| state != AttemptState::Preparing);
    Ok(Fact {
        text: report_text::job(&JobFacts {
            state: row.parse("state")?,
            reason: reason.as_deref(),
            needs: &needs,
            running_on: node.as_deref().filter(|_| begun),
            tries: row.num("tries")?,
        }),
        event: row.text("event")?,
        ref_name: row.parse("ref_name")?,
        run: row.parse("run_id")?,
        job: row.parse("job")?,
        started_ms: row.opt_int("started_ms")?,
        ended_ms: row.opt_int("ended_ms")?,
    })
}

/// Wants a failed check for a workflow file that cannot be planned.
pub(in crate::store) async fn unusable(
    tx: &mut Tx,
    target: &CheckTarget,
    run: RunId,
    name: &str,
    path: &str,
    complaints: &[Diagnostic],
) -> Result<(), StoreError> {
    let check = format!("{AGGREGATE} / {name}");
    let wanted = Wanted {
        text: report_text::unusable(path, complaints),
        run: Some(run),
        job: None,
        started_ms: Some(tx.now),
        completed_ms: Some(tx.now),
    };
    put(tx, target, &check, &wanted).await
}
