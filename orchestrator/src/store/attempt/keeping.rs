//! Machines that stay for a person to look into after their job. The wish is a column of the machine's row, so
//! that it is there before anything is done and each transition is one guarded statement.

use std::time::Duration;

use super::machines::{self, COLUMNS, MachineRow};
use crate::{
    foreign_text::clip,
    model::{
        names::{MachineName, NodeName},
        state::MachineState,
    },
    store::{
        Store, StoreError,
        engine::{
            transitions::transition_sql,
            tx::{Tx, args},
        },
        ms,
    },
};

/// What became of the wish to keep a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepOutcome {
    /// Its job runs; it will be kept when that has ended.
    AtItsEnd,
    /// It is kept.
    Until {
        /// Until when, in milliseconds since 1970.
        until_ms: i64,
    },
    /// It is being removed, or gone.
    TooLate,
    /// There is no such machine.
    Unknown,
}

/// What became of the wish that a machine go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReleaseOutcome {
    /// Its job runs; it will not be kept.
    Withdrawn,
    /// It was kept and is being removed, or was being removed already.
    Removing,
    /// Its job runs and nobody asked to keep it: it goes with its job.
    Live,
    /// Nothing of it is left.
    Gone,
    /// There is no such machine.
    Unknown,
}

impl Store {
    /// Keeps a machine for this long: from now on when its job has ended, else from the end of its job. Asking
    /// again replaces what was asked before.
    pub async fn keep_machine(&self, name: &MachineName, by: &str, time: Duration) -> Result<KeepOutcome, StoreError> {
        in_tx!(
            self,
            "keep a machine",
            [name = name.clone(), by = clip(by, 200).to_owned()],
            |tx| keep(tx, name, by, ms(time))
        )
    }

    /// Ends a keep, whoever asked for it: the machine's node removes a kept machine now, and one whose job runs
    /// goes with its job.
    pub async fn release_machine(&self, name: &MachineName) -> Result<ReleaseOutcome, StoreError> {
        in_tx!(self, "release a machine", [name = name.clone()], |tx| release(tx, name))
    }

    /// The kept machines of a node.
    pub async fn kept_machines(&self, node: &NodeName) -> Result<Vec<MachineRow>, StoreError> {
        let mut tx = self.read_single("list kept machines").await?;
        let sql = format!(
            "SELECT {COLUMNS} FROM machines WHERE node = $1 AND state = 'kept' AND state <> 'gone'
             ORDER BY name"
        );
        let rows = tx.rows(sql, args![node]).await?;
        rows.iter().map(machines::machine_row).collect()
    }

    /// Marks the machines of a node for removal whose time is over, and names them.
    pub async fn end_keeps(&self, node: &NodeName) -> Result<Vec<MachineName>, StoreError> {
        in_tx!(self, "end the keeping of machines", [node = node.clone()], |tx| end(
            tx, node
        ))
    }

    /// Notes that a kept machine is cut off from its node, by this back end.
    pub async fn machine_cut_off(&self, name: &MachineName, backend: &str) -> Result<(), StoreError> {
        in_tx!(
            self,
            "note that a machine is cut off",
            [name = name.clone(), backend = backend.to_owned()],
            |tx| async move {
                let sql = "UPDATE machines SET keep_backend = $2 WHERE name = $1 AND state = 'kept'";
                tx.execute(sql, args![name, backend]).await.map(drop)
            }
        )
    }

    /// Lets somebody type on the console of a kept machine that is cut off. `None`: it is no such machine, or the
    /// console is being let go; else whether somebody else, or nobody, had the console before.
    pub async fn take_console(&self, name: &MachineName, by: &str) -> Result<Option<bool>, StoreError> {
        in_tx!(
            self,
            "give a console to somebody",
            [name = name.clone(), by = clip(by, 200).to_owned()],
            |tx| take_console(tx, name, by)
        )
    }

    /// Asks the node of a kept machine to let go of its console. `false`: it is not kept.
    pub async fn release_console(&self, name: &MachineName) -> Result<bool, StoreError> {
        in_tx!(self, "ask for a console", [name = name.clone()], |tx| async move {
            let sql = "UPDATE machines SET console_release = 1 WHERE name = $1 AND state = 'kept'";
            Ok(tx.execute(sql, args![name]).await? == 1)
        })
    }

    /// Notes that the console of a machine is free.
    pub async fn console_free(&self, name: &MachineName) -> Result<(), StoreError> {
        in_tx!(
            self,
            "note that a console is free",
            [name = name.clone()],
            |tx| async move {
                let sql = "UPDATE machines SET console_release = 0, console_by = NULL WHERE name = $1";
                tx.execute(sql, args![name]).await.map(drop)
            }
        )
    }
}

async fn state_of(tx: &mut Tx, name: &MachineName) -> Result<Option<MachineState>, StoreError> {
    let row = tx
        .row("SELECT state FROM machines WHERE name = $1", args![name])
        .await?;
    row.map(|row| row.parse("state")).transpose()
}

async fn keep(tx: &mut Tx, name: &MachineName, by: &str, time: i64) -> Result<KeepOutcome, StoreError> {
    let row = tx
        .row(
            "UPDATE machines SET keep_by = $2, keep_asked_ms = $3, keep_for_ms = $4,
                 keep_until_ms = CASE WHEN state = 'kept' THEN $5 ELSE NULL END
             WHERE name = $1 AND (state IN ('preparing', 'running') OR state = 'kept' AND keep_until_ms > $3)
             RETURNING keep_until_ms",
            args![name, by, tx.now, time, tx.now.saturating_add(time)],
        )
        .await?;
    Ok(match row {
        Some(row) => match row.opt_int("keep_until_ms")? {
            Some(until_ms) => KeepOutcome::Until { until_ms },
            None => KeepOutcome::AtItsEnd,
        },
        None if state_of(tx, name).await?.is_some() => KeepOutcome::TooLate,
        None => KeepOutcome::Unknown,
    })
}

async fn release(tx: &mut Tx, name: &MachineName) -> Result<ReleaseOutcome, StoreError> {
    let over = "UPDATE machines SET keep_until_ms = $2 WHERE name = $1 AND state = 'kept' AND keep_until_ms > $2";
    if tx.execute(over, args![name, tx.now]).await? == 1 {
        return Ok(ReleaseOutcome::Removing);
    }
    let withdrawn = tx
        .execute(
            "UPDATE machines SET keep_by = NULL, keep_asked_ms = NULL, keep_for_ms = NULL
             WHERE name = $1 AND state IN ('preparing', 'running') AND keep_for_ms IS NOT NULL",
            args![name],
        )
        .await?;
    if withdrawn == 1 {
        return Ok(ReleaseOutcome::Withdrawn);
    }
    Ok(match state_of(tx, name).await? {
        None => ReleaseOutcome::Unknown,
        Some(MachineState::Preparing | MachineState::Running) => ReleaseOutcome::Live,
        Some(MachineState::Kept | MachineState::Draining) => ReleaseOutcome::Removing,
        Some(MachineState::Gone) => ReleaseOutcome::Gone,
    })
}

async fn end(tx: &mut Tx, node: &NodeName) -> Result<Vec<MachineName>, StoreError> {
    let to = MachineState::Draining;
    let sql = transition_sql(
        "UPDATE machines SET state = $2 WHERE node = $1 AND keep_until_ms <= $3 AND state IN ({from}) AND state <> 'gone'
         RETURNING name",
        &[MachineState::Kept],
        to,
    );
    let rows = tx.rows(sql, args![node, to, tx.now]).await?;
    rows.iter().map(|row| row.parse("name")).collect()
}

async fn take_console(tx: &mut Tx, name: &MachineName, by: &str) -> Result<Option<bool>, StoreError> {
    const OPEN: &str = "name = $1 AND state = 'kept' AND keep_backend IS NOT NULL AND console_release = 0";
    let taken = tx
        .execute(
            format!("UPDATE machines SET console_by = $2 WHERE {OPEN} AND (console_by IS NULL OR console_by <> $2)"),
            args![name, by],
        )
        .await?;
    if taken == 1 {
        return Ok(Some(true));
    }
    let own = tx
        .row(
            format!("SELECT name FROM machines WHERE {OPEN} AND console_by = $2"),
            args![name, by],
        )
        .await?;
    Ok(own.map(|_| false))
}
