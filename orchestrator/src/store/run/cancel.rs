//! Cancelling is data: what has not begun ends in the same transaction, what runs is asked to end.

use super::{jobs, runs};
use crate::{
    foreign_text::clip,
    model::{
        ids::{AttemptId, JobId, RunId},
        state::{AttemptState, JobState, RunState},
    },
    store::run::cancel_request::{CancelRequest, request},
    store::{
        Store, StoreError,
        engine::{
            transitions::{live, states_sql},
            tx::{Tx, args},
        },
    },
};

/// What became of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CancelOutcome {
    /// It is stored.
    Requested {
        /// Attempts that are to end.
        running: Vec<AttemptId>,
        /// Jobs that have ended at once.
        ended: Vec<JobId>,
        /// It had been asked for before.
        forced: bool,
    },
    /// There was nothing left to cancel.
    AlreadyEnded,
    /// No such run or job.
    Unknown,
}

impl Store {
    /// Asks for the end of a run's newest attempt. A second request forces.
    pub async fn cancel_run(&self, run: RunId, by: &str, reason: &str) -> Result<CancelOutcome, StoreError> {
        in_tx!(
            self,
            "cancel a run",
            [by = by.to_owned(), reason = reason.to_owned()],
            |tx| { cancel_run(tx, run, by, reason) }
        )
    }

    /// Asks for the end of one job. A second request forces.
    pub async fn cancel_job(&self, job: JobId, by: &str, reason: &str) -> Result<CancelOutcome, StoreError> {
        in_tx!(
            self,
            "cancel a job",
            [by = by.to_owned(), reason = reason.to_owned()],
            |tx| { cancel_job(tx, job, by, reason) }
        )
    }

    /// Whether somebody asked for the end of this attempt, through its job or its run.
    pub async fn cancel_state(&self, attempt: AttemptId) -> Result<Option<CancelRequest>, StoreError> {
        let mut tx = self.read_single("look for a cancel request").await?;
        let row = tx
            .row(
                "SELECT COALESCE(j.cancel_ms, r.cancel_ms) AS cancel_ms, COALESCE(j.cancel_by, r.cancel_by) AS cancel_by,
                     COALESCE(j.cancel_reason, r.cancel_reason) AS cancel_reason,
                     CASE WHEN j.cancel_force = 1 THEN j.cancel_force ELSE r.cancel_force END AS cancel_force
                 FROM attempts a JOIN jobs j ON j.id = a.job_id
                 JOIN run_attempts r ON r.run_id = j.run_id AND r.number = j.run_attempt WHERE a.id = $1",
                args![attempt],
            )
            .await?;
        row.as_ref().map_or(Ok(None), request)
    }
}

async fn cancel_run(tx: &mut Tx, run: RunId, by: &str, reason: &str) -> Result<CancelOutcome, StoreError> {
    let Some(locked) = runs::lock(tx, run).await? else {
        return Ok(CancelOutcome::Unknown);
    };
    let number = locked.attempt;
    let row = tx
        .row(
            "UPDATE run_attempts SET cancel_force = CASE WHEN cancel_ms IS NULL THEN 0 ELSE 1 END,
                 cancel_ms = COALESCE(cancel_ms, $3), cancel_by = $4, cancel_reason = $5
             WHERE run_id = $1 AND number = $2 AND state = 'active' RETURNING cancel_force",
            args![run, number, tx.now, clip(by, 200), clip(reason, 1000)],
        )
        .await?;
    let Some(row) = row else {
        return Ok(CancelOutcome::AlreadyEnded);
    };
    let settled = runs::settle_and_report(tx, &locked, run, number, &[]).await?;
    let sql = states_sql(
        "SELECT a.id FROM attempts a JOIN jobs j ON j.id = a.job_id
         WHERE j.run_id = $1 AND j.run_attempt = $2 AND a.state IN ({from}) ORDER BY a.id",
        live::<AttemptState>(),
    );
    let running = tx.rows(sql, args![run, number]).await?;
    Ok(CancelOutcome::Requested {
        running: running.iter().map(|row| row.parse("id")).collect::<Result<_, _>>()?,
        ended: settled.ended,
        forced: row.flag("cancel_force")?,
    })
}

async fn cancel_job(tx: &mut Tx, job: JobId, by: &str, reason: &str) -> Result<CancelOutcome, StoreError> {
    let row = tx.row("SELECT run_id FROM jobs WHERE id = $1", args![job]).await?;
    let Some(row) = row else {
        return Ok(CancelOutcome::Unknown);
    };
    let run: RunId = row.parse("run_id")?;
    let Some(locked) = runs::lock(tx, run).await? else {
        return Ok(CancelOutcome::Unknown);
    };
    let sql = states_sql(
        "UPDATE jobs SET cancel_force = CASE WHEN cancel_ms IS NULL THEN 0 ELSE 1 END,
             cancel_ms = COALESCE(cancel_ms, $2), cancel_by = $3, cancel_reason = $4
         WHERE id = $1 AND state IN ({from}) RETURNING state, run_attempt, cancel_force",
        live::<JobState>(),
    );
    let row = tx
        .row(sql, args![job, tx.now, clip(by, 200), clip(reason, 1000)])
        .await?;
    let Some(row) = row else {
        return Ok(CancelOutcome::AlreadyEnded);
    };
    let (state, forced): (JobState, bool) = (row.parse("state")?, row.flag("cancel_force")?);
    if state == JobState::Active {
        let sql = states_sql(
            "SELECT id FROM attempts WHERE job_id = $1 AND state IN ({from})",
            live::<AttemptState>(),
        );
        let running = tx.rows(sql, args![job]).await?;
        return Ok(CancelOutcome::Requested {
            running: running.iter().map(|row| row.parse("id")).collect::<Result<_, _>>()?,
            ended: Vec::new(),
            forced,
        });
    }
    jobs::set_state(tx, job, state, JobState::Cancelled, Some("cancelled before it began")).await?;
    let settled = runs::settle_and_report(tx, &locked, run, row.num("run_attempt")?, &[job]).await?;
    let mut ended = vec![job];
    ended.extend(settled.ended);
    Ok(CancelOutcome::Requested {
        running: Vec::new(),
        ended,
        forced,
    })
}

/// Whether a run attempt has ended.
pub(in crate::store) fn over(state: Option<RunState>) -> bool {
    state.is_some_and(RunState::is_terminal)
}
