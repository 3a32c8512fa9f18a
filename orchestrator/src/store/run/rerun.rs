//! Running again: a new attempt of a run, from the stored plan. No row is reopened.

use super::{
    cancel,
    jobs::{self, NewJob},
    runs,
};
use crate::{
    model::{
        ids::{JobId, RunId},
        state::{JobState, RunState},
    },
    store::{
        Store, StoreError,
        engine::tx::{Row, Tx, args},
        people::audit::{self, AuditEntry},
        run::jobs::JobRequirement,
    },
};

/// Which jobs run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rerun {
    /// All.
    All,
    /// Those that did not succeed; the others carry their result and outputs over.
    Failed,
}

/// What became of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RerunOutcome {
    /// A new run attempt has begun.
    Started {
        /// Its number.
        run_attempt: u32,
    },
    /// The newest attempt has not ended.
    StillActive,
    /// Every job succeeded or was skipped.
    NothingFailed,
    /// No such run.
    Unknown,
    /// The workflow file could not be planned; only a new commit helps.
    NoPlan,
}

impl Store {
    /// Begins a new attempt of a run for somebody, and writes that down, whatever the outcome.
    pub async fn run_again(&self, run: RunId, which: Rerun, act: AuditEntry) -> Result<RerunOutcome, StoreError> {
        in_tx!(self, "run again", [act = act], |tx| async move {
            audit::write(tx, act).await?;
            rerun(tx, run, which, &act.who).await
        })
    }
}

async fn rerun(tx: &mut Tx, run: RunId, which: Rerun, by: &str) -> Result<RerunOutcome, StoreError> {
    let Some(locked) = runs::lock(tx, run).await? else {
        return Ok(RerunOutcome::Unknown);
    };
    let last = locked.attempt;
    if !cancel::over(runs::attempt_state(tx, run, last).await?) {
        return Ok(RerunOutcome::StillActive);
    }
    let rows = tx
        .rows(
            "SELECT id, place, job_key, name, check_name, needs, label, cpus, memory_mib, disk_gib, class, state,
                 carried_from
             FROM jobs WHERE run_id = $1 AND run_attempt = $2 ORDER BY place",
            args![run, last],
        )
        .await?;
    if rows.is_empty() {
        return Ok(RerunOutcome::NoPlan);
    }
    let states: Vec<JobState> = rows.iter().map(|row| row.parse("state")).collect::<Result<_, _>>()?;
    let harmless = |state: &JobState| matches!(state, JobState::Success | JobState::Skipped);
    if which == Rerun::Failed && states.iter().all(harmless) {
        return Ok(RerunOutcome::NothingFailed);
    }
    // What was skipped runs again with what failed: it was skipped because of that.
    let again = |state: &JobState| which == Rerun::All || *state != JobState::Success;
    let again: Vec<bool> = states.iter().map(again).collect();
    let number = last + 1;
    tx.execute("UPDATE runs SET attempt = $2 WHERE id = $1", args![run, number])
        .await?;
    runs::insert_attempt(tx, run, number, by, RunState::Active).await?;
    let mut fresh = Vec::new();
    for (row, again) in rows.iter().zip(again) {
        let new = successor(row, run, number, again)?;
        if again {
            jobs::insert(tx, &locked.target, &new).await?;
            fresh.push(new.id);
        } else {
            carry(tx, &locked, row, &new).await?;
        }
    }
    runs::settle_and_report(tx, &locked, run, number, &fresh).await?;
    Ok(RerunOutcome::Started { run_attempt: number })
}

/// The row that follows a job's in the next run attempt.
fn successor(row: &Row, run: RunId, run_attempt: u32, again: bool) -> Result<NewJob, StoreError> {
    let id: JobId = row.parse("id")?;
    Ok(NewJob {
        id: JobId::new(),
        run,
        run_attempt,
        place: row.num("place")?,
        key: row.text("job_key")?,
        name: row.text("name")?,
        check_name: row.text("check_name")?,
        needs: row.json("needs")?,
        requirement: JobRequirement {
            label: row.parse("label")?,
            size: jobs::size(row)?,
            class: row.text("class")?,
        },
        state: if again { JobState::Waiting } else { JobState::Success },
        // Of a chain of re-runs, the job that really ran.
        carried_from: if again {
            None
        } else {
            Some(row.opt_parse("carried_from")?.unwrap_or(id))
        },
    })
}

async fn carry(tx: &mut Tx, locked: &runs::Locked, row: &Row, new: &NewJob) -> Result<(), StoreError> {
    let old: JobId = row.parse("id")?;
    jobs::insert(tx, &locked.target, new).await?;
    tx.execute(
        "UPDATE jobs SET queued_ms = o.queued_ms, started_ms = o.started_ms, ended_ms = o.ended_ms, reason = o.reason
         FROM (SELECT queued_ms, started_ms, ended_ms, reason FROM jobs WHERE id = $2) AS o WHERE id = $1",
        args![new.id, old],
    )
    .await?;
    tx.execute(
        "INSERT INTO outputs (job_id, name, value) SELECT CAST($1 AS TEXT), name, value FROM outputs WHERE job_id = $2",
        args![new.id, old],
    )
    .await
    .map(drop)
}
