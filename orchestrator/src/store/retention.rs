//! Retention: what is due to go, and forgetting it once its files are gone.

use super::{
    Store, StoreError,
    law::{among, live},
    sessions,
    tx::{Tx, args},
};
use crate::{
    config,
    model::{
        ids::{AttemptId, RunId},
        state::{MachineState, RunState},
    },
};

/// What is due to go. The files go first, then `logs_removed` or `forget_run` is called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expired {
    /// Attempts whose logs go.
    pub logs: Vec<AttemptId>,
    /// Runs that go with everything about them.
    pub runs: Vec<RunId>,
}

/// At most so many of each at a time, so that no transaction is long.
const BATCH: u32 = 500;
const DAY_MS: i64 = 24 * 3600 * 1000;

impl Store {
    /// What is due to go now, at most 500 of each. Bodies of old deliveries, deliveries and triggers
    /// that led to nothing, and dead sessions go at once, because nothing else hangs on them.
    pub async fn expired(&self, retention: &config::Retention) -> Result<Expired, StoreError> {
        in_tx!(
            self,
            "look for what has expired",
            [retention = retention.clone()],
            |tx| { expired(tx, retention) }
        )
    }

    /// Forgets a run and everything about it. Its logs must be gone.
    pub async fn forget_run(&self, id: RunId) -> Result<(), StoreError> {
        in_tx!(self, "forget a run", [], |tx| forget(tx, id))
    }

    /// Notes that an attempt's log is gone.
    pub async fn logs_removed(&self, id: AttemptId) -> Result<(), StoreError> {
        in_tx!(self, "note that a log is gone", [], |tx| logs_removed(tx, id))
    }
}

async fn expired(tx: &mut Tx, retention: &config::Retention) -> Result<Expired, StoreError> {
    let before = |days: u32| match days {
        // For ever.
        0 => i64::MIN,
        days => tx.now - i64::from(days) * DAY_MS,
    };
    let (logs, runs, deliveries) = (
        before(retention.logs_days),
        before(retention.runs_days),
        before(retention.deliveries_days),
    );
    tx.execute(
        "UPDATE deliveries SET body = NULL WHERE seq IN (SELECT seq FROM deliveries
             WHERE body IS NOT NULL AND state <> 'received' AND received_ms < $1 ORDER BY seq LIMIT $2)",
        args![deliveries, BATCH],
    )
    .await?;
    tx.execute(
        "DELETE FROM deliveries WHERE state <> 'received' AND received_ms < $1",
        args![runs],
    )
    .await?;
    tx.execute(
        "DELETE FROM triggers WHERE state <> 'received' AND created_ms < $1
             AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.trigger_id = triggers.id)",
        args![runs],
    )
    .await?;
    tx.execute(
        "DELETE FROM sessions WHERE created_ms < $1",
        args![tx.now - sessions::ABSOLUTE_MS],
    )
    .await?;
    let logs = tx
        .rows(
            "SELECT id FROM attempts WHERE log_removed = 0 AND ended_ms < $1 ORDER BY ended_ms LIMIT $2",
            args![logs, BATCH],
        )
        .await?;
    let runs = tx
        .rows(
            among(
                "SELECT r.id FROM runs r JOIN run_attempts a ON a.run_id = r.id AND a.number = r.attempt
                 WHERE a.ended_ms < $1 AND NOT EXISTS (
                     SELECT 1 FROM jobs j JOIN attempts t ON t.job_id = j.id JOIN machines m ON m.attempt_id = t.id
                     WHERE j.run_id = r.id AND m.state IN ({from}))
                 ORDER BY a.ended_ms LIMIT $2",
                live::<MachineState>(),
            ),
            args![runs, BATCH],
        )
        .await?;
    Ok(Expired {
        logs: logs.iter().map(|row| row.parse("id")).collect::<Result<_, _>>()?,
        runs: runs.iter().map(|row| row.parse("id")).collect::<Result<_, _>>()?,
    })
}

async fn forget(tx: &mut Tx, id: RunId) -> Result<(), StoreError> {
    let active = tx
        .row(
            "SELECT number FROM run_attempts WHERE run_id = $1 AND state = $2",
            args![id, RunState::Active],
        )
        .await?;
    if active.is_some() {
        return Err(StoreError::Invalid {
            what: tx.what,
            reason: format!("run {id} has not ended"),
        });
    }
    tx.execute(
        "DELETE FROM machines WHERE state = 'gone' AND attempt_id IN (
             SELECT a.id FROM attempts a JOIN jobs j ON j.id = a.job_id WHERE j.run_id = $1)",
        args![id],
    )
    .await?;
    tx.execute("DELETE FROM reports WHERE run_id = $1", args![id]).await?;
    let row = tx
        .row("DELETE FROM runs WHERE id = $1 RETURNING trigger_id", args![id])
        .await?;
    if let Some(row) = row {
        tx.execute(
            "DELETE FROM triggers WHERE id = $1 AND NOT EXISTS (SELECT 1 FROM runs WHERE trigger_id = $1)",
            args![row.text("trigger_id")?],
        )
        .await?;
    }
    Ok(())
}

async fn logs_removed(tx: &mut Tx, id: AttemptId) -> Result<(), StoreError> {
    tx.execute("UPDATE attempts SET log_removed = 1 WHERE id = $1", args![id])
        .await
        .map(drop)
}
