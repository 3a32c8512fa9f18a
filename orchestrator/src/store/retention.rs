//! Retention: what is due to go. Rows go at once. A file is marked first, in a row that names its node; that node removes
//! it and then the row. So a crash anywhere leaves a row that is found again, and no node touches another's files.

use super::{Store, StoreError};
use crate::{
    config,
    model::{
        ids::{AttemptId, RunId},
        names::NodeName,
        state::{AttemptState, MachineState, RunState},
    },
    store::{
        engine::{
            transitions::{live, states_sql},
            tx::{Row, Tx, Value, args, list},
        },
        people::access,
        run::runs,
    },
};

/// A kind of files that lie on one node and go after their time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileClass {
    /// The log of an attempt, whose id is the file's.
    Log,
}

impl FileClass {
    fn as_str(self) -> &'static str {
        match self {
            Self::Log => "log",
        }
    }

    fn read(row: &Row) -> Result<Self, StoreError> {
        match row.text("class")?.as_str() {
            "log" => Ok(Self::Log),
            other => Err(row.unreadable("class", format!("`{other}` is no class of files"))),
        }
    }
}

/// Files of one node that are to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removal {
    /// Their kind.
    pub class: FileClass,
    /// The attempt that they belong to.
    pub attempt: AttemptId,
}

/// At most so many rows of each kind in one transaction, so that none is long.
const BATCH: u32 = 500;
const DAY_MS: i64 = 24 * 3600 * 1000;

impl Store {
    /// Removes the rows that nothing hangs on and whose time is over (bodies of deliveries, deliveries and triggers
    /// that led to nothing, reports of no run, sessions), and marks this node's logs whose time is over: from then on they are not shown.
    /// At most 500 of each; `true` when there may be more.
    pub async fn expire(&self, node: &NodeName, retention: &config::Retention) -> Result<bool, StoreError> {
        in_tx!(
            self,
            "remove what has expired",
            [node = node.clone(), retention = retention.clone()],
            |tx| expire(tx, node, retention)
        )
    }

    /// Runs whose time is over, at most 500, each to be forgotten by [`Store::forget_run`]. A run stays while one of
    /// its machines does.
    pub async fn expired_runs(&self, retention: &config::Retention) -> Result<Vec<RunId>, StoreError> {
        let mut tx = self.read_single("look for runs that have expired").await?;
        let sql = states_sql(
            "SELECT r.id FROM runs r JOIN run_attempts a ON a.run_id = r.id AND a.number = r.attempt
             WHERE a.ended_ms < $1 AND NOT EXISTS (
                 SELECT 1 FROM jobs j JOIN attempts t ON t.job_id = j.id JOIN machines m ON m.attempt_id = t.id
                 WHERE j.run_id = r.id AND m.state IN ({from}))
             ORDER BY a.ended_ms LIMIT $2",
            live::<MachineState>(),
        );
        let before = before(&tx, retention.runs_days);
        let rows = tx.rows(sql, args![before, BATCH]).await?;
        rows.iter().map(|row| row.parse("id")).collect()
    }

    /// Forgets a run and everything about it; those of its logs that are still there are marked for their nodes to
    /// remove. `false`: it was started again, and stays. Forgetting what is not there is harmless.
    pub async fn forget_run(&self, id: RunId) -> Result<bool, StoreError> {
        in_tx!(self, "forget a run", [], |tx| forget(tx, id))
    }

    /// Files of this node that are marked, at most 500, in a fixed order: those behind `after`.
    pub async fn removals(&self, node: &NodeName, after: Option<Removal>) -> Result<Vec<Removal>, StoreError> {
        let mut tx = self.read_single("list files that are to go").await?;
        let (class, id) = after.map_or_else(Default::default, |r| (r.class.as_str(), r.attempt.to_string()));
        let rows = tx
            .rows(
                "SELECT class, id FROM removals WHERE node = $1 AND (class > $2 OR class = $2 AND id > $3)
                 ORDER BY class, id LIMIT $4",
                args![node, class, id, BATCH],
            )
            .await?;
        let removal = |row: &Row| {
            Ok(Removal {
                class: FileClass::read(row)?,
                attempt: row.parse("id")?,
            })
        };
        rows.iter().map(removal).collect()
    }

    /// Notes that marked files of this node are gone.
    pub async fn removed(&self, node: &NodeName, removal: Removal) -> Result<(), StoreError> {
        in_tx!(
            self,
            "note that files are gone",
            [node = node.clone()],
            |tx| async move {
                tx.execute(
                    "DELETE FROM removals WHERE node = $1 AND class = $2 AND id = $3",
                    args![node, removal.class.as_str(), removal.attempt],
                )
                .await
                .map(drop)
            }
        )
    }

    /// Attempts of this node that have ended and whose logs nobody has seen sealed, at most 500, oldest first: those
    /// behind `after`.
    pub async fn unsealed_logs(&self, node: &NodeName, after: Option<AttemptId>) -> Result<Vec<AttemptId>, StoreError> {
        let mut tx = self.read_single("look for logs that are not sealed").await?;
        let sql = "SELECT id FROM attempts
             WHERE node = $1 AND id > $2 AND state = 'ended' AND log_sealed = 0 AND log_removed = 0 ORDER BY id LIMIT $3";
        let after = after.map(|id| id.to_string()).unwrap_or_default();
        let rows = tx.rows(sql, args![node, after, BATCH]).await?;
        rows.iter().map(|row| row.parse("id")).collect()
    }

    /// Notes that the logs of these attempts are sealed, or that there are none.
    pub async fn logs_sealed(&self, attempts: &[AttemptId]) -> Result<(), StoreError> {
        if attempts.is_empty() {
            return Ok(());
        }
        in_tx!(
            self,
            "note that logs are sealed",
            [attempts = attempts.to_vec()],
            |tx| async move {
                let sql = list(
                    "UPDATE attempts SET log_sealed = 1 WHERE id IN ({list})",
                    1,
                    attempts.len(),
                );
                let values: Vec<Value> = attempts.iter().map(|id| (*id).into()).collect();
                tx.execute(sql, &values).await.map(drop)
            }
        )
    }
}

/// What is older than so many days, as a time; 0 days are for ever.
fn before(tx: &Tx, days: u32) -> i64 {
    match days {
        0 => i64::MIN,
        days => tx.now - i64::from(days) * DAY_MS,
    }
}

async fn expire(tx: &mut Tx, node: &NodeName, retention: &config::Retention) -> Result<bool, StoreError> {
    let (logs, runs, deliveries) = (
        before(tx, retention.logs_days),
        before(tx, retention.runs_days),
        before(tx, retention.deliveries_days),
    );
    let rows = [
        (
            "UPDATE deliveries SET body = NULL WHERE seq IN (SELECT seq FROM deliveries
                 WHERE body IS NOT NULL AND state <> 'received' AND received_ms < $1 ORDER BY seq LIMIT $2)",
            deliveries,
        ),
        (
            "DELETE FROM deliveries WHERE seq IN (SELECT seq FROM deliveries
                 WHERE state <> 'received' AND received_ms < $1 ORDER BY seq LIMIT $2)",
            runs,
        ),
        (
            "DELETE FROM triggers WHERE seq IN (SELECT seq FROM triggers
                 WHERE state <> 'received' AND created_ms < $1
                     AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.trigger_id = triggers.id) ORDER BY seq LIMIT $2)",
            runs,
        ),
        // Those of runs go with their runs.
        (
            "DELETE FROM reports WHERE id IN (SELECT id FROM reports
                 WHERE run_id IS NULL AND completed_ms < $1 ORDER BY completed_ms LIMIT $2)",
            runs,
        ),
        (
            "DELETE FROM sessions WHERE hash IN (SELECT hash FROM sessions WHERE created_ms < $1 LIMIT $2)",
            tx.now - access::ABSOLUTE_MS,
        ),
    ];
    let mut more = false;
    for (sql, before) in rows {
        more |= tx.execute(sql, args![before, BATCH]).await? == u64::from(BATCH);
    }
    // Whatever the clock says: the log of an attempt that lives is written.
    let marked = tx
        .execute(
            "INSERT INTO removals (class, id, node, marked_ms)
             SELECT CAST($1 AS TEXT), id, node, CAST($2 AS BIGINT) FROM attempts
             WHERE node = $3 AND log_removed = 0 AND ended_ms < $4 AND state = $5 ORDER BY ended_ms LIMIT $6
             ON CONFLICT (node, class, id) DO NOTHING",
            args![FileClass::Log.as_str(), tx.now, node, logs, AttemptState::Ended, BATCH],
        )
        .await?;
    tx.execute(
        "UPDATE attempts SET log_removed = 1 WHERE node = $1 AND log_removed = 0
             AND id IN (SELECT id FROM removals WHERE node = $1 AND class = $2)",
        args![node, FileClass::Log.as_str()],
    )
    .await?;
    Ok(more || marked == u64::from(BATCH))
}

/// The run before a forgotten one counts again: it was started again and ended later.
async fn restore_superseded(tx: &mut Tx, forgotten: &Row) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE runs SET superseded = 0 WHERE id = (SELECT MAX(n.id) FROM runs n
             WHERE n.connection = $1 AND n.repository_id = $2 AND n.commit_sha = $3 AND n.path = $4 AND n.event = $5
                 AND n.ref_name = $6)",
        args![
            forgotten.text("connection")?,
            forgotten.text("repository_id")?,
            forgotten.text("commit_sha")?,
            forgotten.text("path")?,
            forgotten.text("event")?,
            forgotten.text("ref_name")?,
        ],
    )
    .await
    .map(drop)
}

async fn forget(tx: &mut Tx, id: RunId) -> Result<bool, StoreError> {
    // Against a re-run at the same moment, and another node that forgets the same run.
    let Some(locked) = runs::lock(tx, id).await? else {
        return Ok(true);
    };
    if runs::attempt_state(tx, id, locked.attempt).await? == Some(RunState::Active) {
        return Ok(false);
    }
    tx.execute(
        "INSERT INTO removals (class, id, node, marked_ms)
         SELECT CAST($2 AS TEXT), a.id, a.node, CAST($3 AS BIGINT) FROM attempts a JOIN jobs j ON j.id = a.job_id
         WHERE j.run_id = $1 AND a.log_removed = 0 ON CONFLICT (node, class, id) DO NOTHING",
        args![id, FileClass::Log.as_str(), tx.now],
    )
    .await?;
    tx.execute(
        "DELETE FROM machines WHERE state = 'gone' AND attempt_id IN (
             SELECT a.id FROM attempts a JOIN jobs j ON j.id = a.job_id WHERE j.run_id = $1)",
        args![id],
    )
    .await?;
    tx.execute("DELETE FROM reports WHERE run_id = $1", args![id]).await?;
    let row = tx
        .row(
            "DELETE FROM runs WHERE id = $1
             RETURNING trigger_id, connection, repository_id, commit_sha, path, event, ref_name, superseded",
            args![id],
        )
        .await?;
    if let Some(row) = row {
        if !row.flag("superseded")? {
            restore_superseded(tx, &row).await?;
        }
        tx.execute(
            "DELETE FROM triggers WHERE id = $1 AND NOT EXISTS (SELECT 1 FROM runs WHERE trigger_id = $1)",
            args![row.text("trigger_id")?],
        )
        .await?;
    }
    Ok(true)
}
