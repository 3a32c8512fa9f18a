//! Steps and checkpoints of an attempt.

use super::attempts;
use crate::{
    foreign_text::clip,
    model::{ids::AttemptId, state::StepState},
    store::{
        Store, StoreError,
        engine::{
            transitions::{predecessors, transition_sql},
            tx::{Row, Tx, args},
        },
    },
};

/// Where a step stands, as its driver reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepUpdate {
    /// Its position in the job, from 0.
    pub index: u32,
    /// What people call it; foreign text.
    pub name: String,
    /// Its state.
    pub state: StepState,
    /// How its command ended.
    pub exit_code: Option<i32>,
    /// What to say about it.
    pub message: Option<String>,
    /// Milliseconds since 1970.
    pub started_ms: Option<i64>,
    /// Milliseconds since 1970.
    pub ended_ms: Option<i64>,
    /// It failed and the job went on.
    pub allowed_failure: bool,
}

/// A stored step: what its driver reported last.
pub type StepRow = StepUpdate;

impl Store {
    /// Stores what the driver resumes from, in place of what was there. `false`: fenced.
    pub async fn checkpoint(&self, id: AttemptId, epoch: i64, sealed: &[u8]) -> Result<bool, StoreError> {
        in_tx!(self, "store a checkpoint", [sealed = sealed.to_vec()], |tx| checkpoint(
            tx, id, epoch, sealed
        ))
    }

    /// What the driver of a live attempt resumes from.
    pub async fn load_checkpoint(&self, id: AttemptId) -> Result<Option<Vec<u8>>, StoreError> {
        let mut tx = self.read_single("read a checkpoint").await?;
        let row = tx
            .row("SELECT sealed FROM checkpoints WHERE attempt_id = $1", args![id])
            .await?;
        row.map(|row| row.blob("sealed")).transpose()
    }

    /// The steps of an attempt, in order.
    pub async fn steps(&self, id: AttemptId) -> Result<Vec<StepRow>, StoreError> {
        of_attempt(&mut self.read_single("read steps").await?, id).await
    }
}

/// The steps of an attempt, in order.
pub(in crate::store) async fn of_attempt(tx: &mut Tx, id: AttemptId) -> Result<Vec<StepRow>, StoreError> {
    let rows = tx
        .rows(
            "SELECT idx, name, state, exit_code, message, started_ms, ended_ms, allowed_failure
             FROM steps WHERE attempt_id = $1 ORDER BY idx",
            args![id],
        )
        .await?;
    rows.iter().map(step_row).collect()
}

fn step_row(row: &Row) -> Result<StepRow, StoreError> {
    Ok(StepRow {
        index: row.num("idx")?,
        name: row.text("name")?,
        state: row.parse("state")?,
        exit_code: row
            .opt_int("exit_code")?
            .map(|code| i32::try_from(code).unwrap_or(i32::MAX)),
        message: row.opt_text("message")?,
        started_ms: row.opt_int("started_ms")?,
        ended_ms: row.opt_int("ended_ms")?,
        allowed_failure: row.flag("allowed_failure")?,
    })
}

/// Stores where a step stands. A step that has ended is not changed again; telling the same twice is harmless. `false`:
/// fenced.
pub(super) async fn update(tx: &mut Tx, id: AttemptId, epoch: i64, step: &StepUpdate) -> Result<bool, StoreError> {
    if !attempts::holds(tx, id, epoch).await? {
        return Ok(false);
    }
    let message = step.message.as_deref().map(|m| clip(m, 4000));
    let values = args![
        id,
        step.index,
        step.state,
        clip(&step.name, 1000),
        step.exit_code,
        message,
        step.started_ms,
        step.ended_ms,
        step.allowed_failure
    ];
    let inserted = tx
        .execute(
            "INSERT INTO steps (attempt_id, idx, state, name, exit_code, message, started_ms, ended_ms, allowed_failure)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (attempt_id, idx) DO NOTHING",
            values,
        )
        .await?;
    if inserted == 0 {
        // A step that stays where it is may still learn its name or times, while it has not ended.
        let mut sql = transition_sql(
            "UPDATE steps SET state = $3, name = $4, exit_code = $5, message = $6,
                 started_ms = COALESCE($7, started_ms), ended_ms = $8, allowed_failure = $9
             WHERE attempt_id = $1 AND idx = $2 AND (state IN ({from})",
            &predecessors(step.state),
            step.state,
        );
        sql.push_str(if step.state.is_terminal() {
            ")"
        } else {
            " OR state = $3)"
        });
        tx.execute(sql, values).await?;
    }
    Ok(true)
}

/// See [`Store::checkpoint`].
pub(super) async fn checkpoint(tx: &mut Tx, id: AttemptId, epoch: i64, sealed: &[u8]) -> Result<bool, StoreError> {
    if !attempts::holds(tx, id, epoch).await? {
        return Ok(false);
    }
    tx.execute(
        "INSERT INTO checkpoints (attempt_id, sealed, at_ms) VALUES ($1, $2, $3)
         ON CONFLICT (attempt_id) DO UPDATE SET sealed = excluded.sealed, at_ms = excluded.at_ms",
        args![id, sealed, tx.now],
    )
    .await?;
    Ok(true)
}
