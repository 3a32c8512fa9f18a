//! The end of an attempt and what follows from it, in one transaction.

use super::{attempts, machines};
use crate::{
    foreign_text::clip,
    model::{
        ids::{AttemptId, JobId},
        names::MachineName,
        state::{AttemptState, JobResult, JobState, RunState},
    },
    store::{
        Store, StoreError,
        engine::{
            transitions::{predecessors, transition_sql},
            tx::{Tx, args, to_json},
        },
        run::{jobs, runs},
    },
};

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptEnd {
    /// Its steps decided.
    Result {
        /// How the job ends.
        result: JobResult,
        /// One line: what failed. May quote foreign text.
        message: String,
    },
    /// We failed, not the user's code: the job is tried again.
    Infra {
        /// The cause, for people to read.
        cause: String,
    },
}

/// What the end of an attempt led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndOutcome {
    /// The job has ended.
    Ended {
        /// How.
        job: JobState,
        /// Where its run stands now.
        run: RunState,
        /// Jobs that may now be claimed.
        freed: Vec<JobId>,
    },
    /// The job is back in the queue.
    Requeued {
        /// How many of its attempts ended because we failed.
        tries: u32,
    },
    /// The epoch no longer counts, or the attempt had ended: nothing was stored.
    Fenced,
}

impl Store {
    /// Ends an attempt: its machine is to be destroyed, or kept when somebody asked for that; its job ends, or goes back to the queue when we
    /// failed and fewer than `infra_tries` of its attempts did; then whatever follows in the run. A job
    /// whose end somebody asked for is cancelled instead of tried again.
    pub async fn end_attempt(
        &self,
        id: AttemptId,
        epoch: i64,
        end: AttemptEnd,
        infra_tries: u32,
    ) -> Result<EndOutcome, StoreError> {
        in_tx!(self, "end an attempt", [end = end], |tx| end_attempt(
            tx,
            id,
            epoch,
            end,
            infra_tries
        ))
    }
}

/// See [`Store::end_attempt`].
pub(in crate::store) async fn end_attempt(
    tx: &mut Tx,
    id: AttemptId,
    epoch: i64,
    end: &AttemptEnd,
    infra_tries: u32,
) -> Result<EndOutcome, StoreError> {
    let Some((locked, job)) = attempts::lock_run_of(tx, id).await? else {
        return Ok(EndOutcome::Fenced);
    };
    if !store_end(tx, id, epoch, end).await? {
        return Ok(EndOutcome::Fenced);
    }
    machines::attempt_ended(tx, &MachineName::of(id)).await?;
    // It holds secrets, sealed as it is, and nobody resumes an attempt that has ended.
    tx.execute("DELETE FROM checkpoints WHERE attempt_id = $1", args![id])
        .await?;
    let row = tx
        .row(
            "SELECT j.run_id, j.run_attempt, j.tries, COALESCE(j.cancel_ms, a.cancel_ms) AS cancel_ms
             FROM jobs j JOIN run_attempts a ON a.run_id = j.run_id AND a.number = j.run_attempt WHERE j.id = $1",
            args![job],
        )
        .await?;
    let Some(row) = row else { return Ok(EndOutcome::Fenced) };
    let (run, number) = (row.parse("run_id")?, row.num("run_attempt")?);
    let mut tries = row.num("tries")?;
    let (to, reason) = match end {
        AttemptEnd::Result { result, message } => (result.state(), message.clone()),
        AttemptEnd::Infra { cause } => {
            tries += 1;
            tx.execute("UPDATE jobs SET tries = $2 WHERE id = $1", args![job, tries])
                .await?;
            if row.opt_int("cancel_ms")?.is_some() {
                (JobState::Cancelled, format!("cancelled; its machine was lost: {cause}"))
            } else if tries >= infra_tries {
                (JobState::Error, format!("we failed {tries} times, last: {cause}"))
            } else {
                (JobState::Queued, cause.clone())
            }
        }
    };
    let reason = Some(reason.as_str()).filter(|r| !r.is_empty());
    if !jobs::set_state(tx, job, JobState::Active, to, reason).await? {
        return Err(StoreError::Internal {
            what: tx.what,
            reason: format!("attempt {id} was alive but its job {job} was not active"),
        });
    }
    let settled = runs::settle_and_report(tx, &locked, run, number, &[job]).await?;
    Ok(if to == JobState::Queued {
        EndOutcome::Requeued { tries }
    } else {
        EndOutcome::Ended {
            job: to,
            run: settled.state,
            freed: settled.freed,
        }
    })
}

async fn store_end(tx: &mut Tx, id: AttemptId, epoch: i64, end: &AttemptEnd) -> Result<bool, StoreError> {
    let (result, message, cause) = match end {
        AttemptEnd::Result { result, message } => (Some(to_json(tx.what, result)?), Some(clip(message, 4000)), None),
        AttemptEnd::Infra { cause } => (None, None, Some(clip(cause, 4000))),
    };
    let to = AttemptState::Ended;
    let sql = transition_sql(
        "UPDATE attempts SET state = $3, result = $4, message = $5, cause = $6, ended_ms = $7
         WHERE id = $1 AND epoch = $2 AND state IN ({from})",
        &predecessors(to),
        to,
    );
    let changed = tx
        .execute(sql, args![id, epoch, to, result, message, cause, tx.now])
        .await?;
    Ok(changed == 1)
}
