//! The aggregate: the check of a commit as a whole. It says where the commit's current runs stand. A push that could not be
//! planned is one of its facts, too, until the same push comes again and is planned or ignored.

use super::{
    held,
    outbox::{CheckTarget, Wanted, of_current_runs, put},
    report_text::{self, JobCounts, ReportText, RunFacts, UnplannedFacts},
};
use crate::{
    model::{
        ids::{RunId, TriggerId},
        report::{AGGREGATE, ReportState},
        state::{JobState, RunState},
        trigger::Trigger,
    },
    store::{
        StoreError,
        engine::tx::{Tx, args},
    },
};

/// How bad a run's state is: the aggregate leads to the worst.
fn severity(state: RunState) -> u8 {
    match state {
        RunState::Skipped => 0,
        RunState::Success => 1,
        RunState::Active => 2,
        RunState::Cancelled => 3,
        RunState::Failure => 4,
        RunState::Error => 5,
    }
}

/// Wants the aggregate to say where the commit's current runs (the newest attempt of each) stand and which pushes could
/// not be planned, and to lead to the worst of the runs. It says nothing where there is neither.
pub(in crate::store) async fn update(tx: &mut Tx, target: &CheckTarget) -> Result<(), StoreError> {
    let Some(wanted) = wanted_aggregate(tx, target).await? else {
        return Ok(());
    };
    put(tx, target, AGGREGATE, &wanted).await
}

async fn wanted_aggregate(tx: &mut Tx, target: &CheckTarget) -> Result<Option<Wanted>, StoreError> {
    let runs = current_runs(tx, target).await?;
    let unplanned = unplanned(tx, target).await?;
    let held = held::of(tx, target).await?;
    let waits_alone = runs.is_empty() && unplanned.is_empty();
    if waits_alone && held.is_none() {
        return Ok(None);
    }
    let jobs = job_counts(tx, target).await?;
    let worst = runs.iter().map(|run| (severity(run.facts.state), run.id)).max();
    let created = runs.iter().map(|run| run.created_ms);
    let started_ms = created
        .chain(unplanned.iter().map(|push| push.created_ms))
        .chain(held.iter().map(|push| push.created_ms))
        .min();
    let completed_ms = runs.iter().filter_map(|run| run.ended_ms).max().unwrap_or(tx.now);
    let runs: Vec<RunFacts> = runs.into_iter().map(|run| run.facts).collect();
    let unplanned: Vec<UnplannedFacts> = unplanned.into_iter().map(|push| push.facts).collect();
    let text = match &held {
        Some(push) if waits_alone => report_text::held(&push.reason),
        Some(push) => report_text::with_held(report_text::aggregate(&runs, &unplanned, &jobs), &push.reason),
        None => report_text::aggregate(&runs, &unplanned, &jobs),
    };
    // What could not be planned has no run to lead to, and a run that went well is not what is wrong.
    let any_run = unplanned.is_empty() || !text.state.is_final();
    let is_cause = |(how_bad, _): &(u8, RunId)| any_run || *how_bad == severity(RunState::Error);
    Ok(Some(Wanted {
        run: worst.filter(is_cause).map(|(_, run)| run),
        job: None,
        started_ms,
        completed_ms: text.state.is_final().then_some(completed_ms),
        text,
    }))
}

struct CurrentRun {
    id: RunId,
    facts: RunFacts,
    created_ms: i64,
    ended_ms: Option<i64>,
}

async fn current_runs(tx: &mut Tx, target: &CheckTarget) -> Result<Vec<CurrentRun>, StoreError> {
    let rows = tx
        .rows(
            concat!(
                of_current_runs!(
                    "SELECT r.id, r.name, a.state, a.created_ms, a.ended_ms
                     FROM runs r JOIN run_attempts a ON a.run_id = r.id AND a.number = r.attempt
                     WHERE r.connection = $1 AND r.repository_id = $2 AND r.commit_sha = $3"
                ),
                " ORDER BY r.id"
            ),
            args![&target.repository.connection, &target.repository.id, &target.commit],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(CurrentRun {
                id: row.parse("id")?,
                facts: RunFacts {
                    name: row.text("name")?,
                    state: row.parse("state")?,
                },
                created_ms: row.int("created_ms")?,
                ended_ms: row.opt_int("ended_ms")?,
            })
        })
        .collect()
}

/// Where the jobs of the current runs stand.
async fn job_counts(tx: &mut Tx, target: &CheckTarget) -> Result<JobCounts, StoreError> {
    let rows = tx
        .rows(
            concat!(
                of_current_runs!(
                    "SELECT j.state, COUNT(*) AS jobs, COUNT(CASE WHEN j.carried_from IS NULL THEN j.started_ms END)
                         AS begun, COUNT(j.carried_from) AS carried
                     FROM runs r JOIN jobs j ON j.run_id = r.id AND j.run_attempt = r.attempt
                     WHERE r.connection = $1 AND r.repository_id = $2 AND r.commit_sha = $3"
                ),
                " GROUP BY j.state"
            ),
            args![&target.repository.connection, &target.repository.id, &target.commit],
        )
        .await?;
    let mut jobs = JobCounts::default();
    for row in &rows {
        let count = u64::from(row.num("jobs")?);
        jobs.all += count;
        let state: JobState = row.parse("state")?;
        match state {
            JobState::Success => jobs.succeeded += count,
            JobState::Failure | JobState::TimedOut | JobState::Error => jobs.failed += count,
            JobState::Skipped => jobs.skipped += count,
            JobState::Waiting | JobState::Queued | JobState::Active | JobState::Cancelled => {}
        }
        let ended_here = state.is_terminal() && count > u64::from(row.num("carried")?);
        jobs.begun |= ended_here || row.num("begun")? > 0;
    }
    Ok(jobs)
}

/// The SQL of "trigger `n` is a later one of the same push as `t`, and says what came of it": one that failed at the same
/// commit repeats the failure, one that was planned or ignored ends it.
macro_rules! repeats {
    () => {
        "n.connection = t.connection AND n.repository_id = t.repository_id AND n.ref_name = t.ref_name AND n.seq > t.seq
             AND (n.commit_sha = t.commit_sha AND n.state <> 'received'
                 OR n.claimed_sha = t.claimed_sha AND n.state IN ('planned', 'ignored'))"
    };
}

struct Unplanned {
    facts: UnplannedFacts,
    created_ms: i64,
}

/// The pushes of a commit that could not be planned, each unless it came again since.
async fn unplanned(tx: &mut Tx, target: &CheckTarget) -> Result<Vec<Unplanned>, StoreError> {
    let rows = tx
        .rows(
            concat!(
                "SELECT t.ref_name, t.reason, t.created_ms FROM triggers t
                 WHERE t.connection = $1 AND t.repository_id = $2 AND t.commit_sha = $3 AND t.state = 'failed'
                     AND NOT EXISTS (SELECT 1 FROM triggers n WHERE ",
                repeats!(),
                ") ORDER BY t.seq"
            ),
            args![&target.repository.connection, &target.repository.id, &target.commit],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Unplanned {
                facts: UnplannedFacts {
                    ref_name: row.opt_parse("ref_name")?,
                    reason: row.opt_text("reason")?.unwrap_or_default(),
                },
                created_ms: row.int("created_ms")?,
            })
        })
        .collect()
}

/// Takes back what earlier triggers of the same push wanted, which could not be planned, now that this one has ended:
/// their commit's aggregate says what else there is, or with `reason` that there is nothing to run.
pub(in crate::store) async fn take_back(
    tx: &mut Tx,
    id: TriggerId,
    trigger: &Trigger,
    reason: &str,
) -> Result<(), StoreError> {
    let rows = tx
        .rows(
            concat!(
                "SELECT DISTINCT t.commit_sha FROM triggers n JOIN triggers t ON ",
                repeats!(),
                " WHERE n.id = $1 AND t.state = 'failed' AND t.commit_sha IS NOT NULL"
            ),
            args![id],
        )
        .await?;
    for row in &rows {
        let target = CheckTarget::of(trigger, &row.parse("commit_sha")?);
        say_what_is_left(tx, &target, reason).await?;
    }
    Ok(())
}

/// Wants the aggregate to say what there is of a commit, or with `reason` that there is nothing to run.
pub(in crate::store) async fn say_what_is_left(
    tx: &mut Tx,
    target: &CheckTarget,
    reason: &str,
) -> Result<(), StoreError> {
    target.lock(tx).await?;
    let wanted = wanted_aggregate(tx, target).await?.unwrap_or_else(|| Wanted {
        text: ReportText::new(
            ReportState::Skipped,
            &format!("Nothing to run: {reason}"),
            report_text::escape(reason),
        ),
        run: None,
        job: None,
        started_ms: Some(tx.now),
        completed_ms: Some(tx.now),
    });
    put(tx, target, AGGREGATE, &wanted).await
}
