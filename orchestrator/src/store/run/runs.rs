//! Run attempts: their lock, and what `model::advance` makes of them.

use super::jobs;
use crate::{
    foreign_text::clip,
    model::{
        advance::{Cause, JobView, Move, Snapshot, advance},
        ids::{JobId, RunId},
        state::{JobState, RunState},
        trigger::Repository,
    },
    store::{
        StoreError,
        engine::{
            transitions::{predecessors, transition_sql},
            tx::{Row, Tx, args},
        },
        report::{
            aggregate,
            outbox::{self, CheckTarget},
        },
    },
};

/// A run that nobody else changes until the end of the transaction.
pub(in crate::store) struct Locked {
    /// Where its checks are shown.
    pub(in crate::store) target: CheckTarget,
    /// The number of its newest attempt.
    pub(in crate::store) attempt: u32,
}

/// What became due in a run attempt, and was done.
#[derive(Debug)]
pub(in crate::store) struct Settled {
    pub(in crate::store) state: RunState,
    /// Jobs that may now be claimed.
    pub(in crate::store) freed: Vec<JobId>,
    /// Jobs that ended without an attempt.
    pub(in crate::store) ended: Vec<JobId>,
}

/// Locks a run, and after it the commit its checks are shown at: always in this order.
pub(in crate::store) async fn lock(tx: &mut Tx, run: RunId) -> Result<Option<Locked>, StoreError> {
    let row = tx
        .row(
            "UPDATE runs SET version = version + 1 WHERE id = $1
             RETURNING connection, repository_id, repository_path, forge_context, commit_sha, attempt",
            args![run],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let locked = Locked {
        target: check_target(&row)?,
        attempt: row.num("attempt")?,
    };
    locked.target.lock(tx).await?;
    Ok(Some(locked))
}

/// Where the checks of a row of `runs` are shown.
pub(in crate::store) fn check_target(row: &Row) -> Result<CheckTarget, StoreError> {
    Ok(CheckTarget {
        repository: repository(row)?,
        commit: row.parse("commit_sha")?,
    })
}

/// The repository of a row.
pub(in crate::store) fn repository(row: &Row) -> Result<Repository, StoreError> {
    Ok(Repository {
        connection: row.parse("connection")?,
        id: row.parse("repository_id")?,
        path: row.parse("repository_path")?,
        context: row.parse("forge_context")?,
    })
}

/// Stores a run attempt; one that could not be planned begins and ends in `error`.
pub(in crate::store) async fn insert_attempt(
    tx: &mut Tx,
    run: RunId,
    number: u32,
    by: &str,
    state: RunState,
) -> Result<(), StoreError> {
    let ended = state.is_terminal().then_some(tx.now);
    tx.execute(
        "INSERT INTO run_attempts (run_id, number, state, by_whom, created_ms, ended_ms)
         VALUES ($1, $2, $3, $4, $5, $6)",
        args![run, number, state, clip(by, 200), tx.now, ended],
    )
    .await
    .map(drop)
}

/// Where a run attempt stands.
pub(in crate::store) async fn attempt_state(
    tx: &mut Tx,
    run: RunId,
    number: u32,
) -> Result<Option<RunState>, StoreError> {
    let row = tx
        .row(
            "SELECT state FROM run_attempts WHERE run_id = $1 AND number = $2",
            args![run, number],
        )
        .await?;
    row.map(|row| row.parse("state")).transpose()
}

async fn snapshot(tx: &mut Tx, run: RunId, number: u32) -> Result<Snapshot, StoreError> {
    let rows = tx
        .rows(
            "SELECT id, job_key, state, needs FROM jobs WHERE run_id = $1 AND run_attempt = $2 ORDER BY place",
            args![run, number],
        )
        .await?;
    let jobs = rows
        .iter()
        .map(|row| {
            Ok(JobView {
                id: row.parse("id")?,
                key: row.text("job_key")?,
                state: row.parse("state")?,
                needs: row.json("needs")?,
            })
        })
        .collect::<Result<_, StoreError>>()?;
    let cancel = tx
        .row(
            "SELECT cancel_ms FROM run_attempts WHERE run_id = $1 AND number = $2",
            args![run, number],
        )
        .await?;
    Ok(Snapshot {
        jobs,
        cancel_requested: match cancel {
            Some(row) => row.opt_int("cancel_ms")?.is_some(),
            None => false,
        },
    })
}

/// Makes every transition that is due. The caller holds the lock and writes the reports.
pub(in crate::store) async fn settle(tx: &mut Tx, run: RunId, number: u32) -> Result<Settled, StoreError> {
    let snapshot = snapshot(tx, run, number).await?;
    let mut settled = Settled {
        state: RunState::Active,
        freed: Vec::new(),
        ended: Vec::new(),
    };
    for step in advance(&snapshot) {
        let (id, to, reason) = match step {
            Move::Queue(id) => (id, JobState::Queued, None),
            Move::Skip(id, Cause { key, state }) => {
                let how = match state {
                    JobState::Skipped => "was skipped",
                    _ => "did not succeed",
                };
                (id, JobState::Skipped, Some(format!("`{key}` {how}")))
            }
            Move::Cancel(id) => (id, JobState::Cancelled, Some("cancelled before it began".to_owned())),
            Move::End(state) => {
                end(tx, run, number, state).await?;
                settled.state = state;
                continue;
            }
        };
        let from = snapshot.jobs.iter().find(|job| job.id == id).map(|job| job.state);
        if jobs::set_state(tx, id, from.unwrap_or(JobState::Waiting), to, reason.as_deref()).await? {
            if to == JobState::Queued {
                &mut settled.freed
            } else {
                &mut settled.ended
            }
            .push(id);
        }
    }
    Ok(settled)
}

async fn end(tx: &mut Tx, run: RunId, number: u32, to: RunState) -> Result<(), StoreError> {
    let sql = transition_sql(
        "UPDATE run_attempts SET state = $3, ended_ms = $4 WHERE run_id = $1 AND number = $2 AND state IN ({from})",
        &predecessors(to),
        to,
    );
    tx.execute(sql, args![run, number, to, tx.now]).await.map(drop)
}

/// `settle`, then the reports of what it moved and of `also`, then the aggregate.
pub(in crate::store) async fn settle_and_report(
    tx: &mut Tx,
    locked: &Locked,
    run: RunId,
    number: u32,
    also: &[JobId],
) -> Result<Settled, StoreError> {
    let settled = settle(tx, run, number).await?;
    for id in also.iter().chain(&settled.freed).chain(&settled.ended) {
        outbox::job(tx, &locked.target, *id).await?;
    }
    aggregate::update(tx, &locked.target).await?;
    Ok(settled)
}
