//! Machines: the rows that come before and go after anything on a host.

use super::{
    Store, StoreError, jobs,
    law::{among, before, guarded, live},
    tx::{Row, Tx, args},
};
use crate::{
    config::Size,
    model::{
        ids::AttemptId,
        names::{Label, MachineName, NodeName},
        state::MachineState,
    },
};

/// A machine that may still exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineRow {
    /// Its name.
    pub name: MachineName,
    /// Whose machine it is.
    pub attempt: AttemptId,
    /// Where it is.
    pub node: NodeName,
    /// Its image.
    pub label: Label,
    /// What it has.
    pub size: Size,
    /// Where it stands.
    pub state: MachineState,
    /// Milliseconds since 1970.
    pub created_ms: i64,
}

impl Store {
    /// Moves a machine on. `true` when it is now in that state, also when it was before; `false` when
    /// the move is not legal or there is no such machine.
    pub async fn machine_state(&self, name: &MachineName, to: MachineState) -> Result<bool, StoreError> {
        in_tx!(self, "store a machine's state", [name = name.clone()], |tx| go(
            tx, name, to
        ))
    }

    /// The machines of a node that are not gone.
    pub async fn machines_of(&self, node: &NodeName) -> Result<Vec<MachineRow>, StoreError> {
        let mut tx = self.glance("list machines").await?;
        let sql = among(
            "SELECT name, attempt_id, node, label, cpus, memory_mib, disk_gib, state, created_ms
             FROM machines WHERE node = $1 AND state IN ({from}) ORDER BY name",
            live::<MachineState>(),
        );
        let rows = tx.rows(sql, args![node]).await?;
        rows.iter().map(machine_row).collect()
    }
}

fn machine_row(row: &Row) -> Result<MachineRow, StoreError> {
    Ok(MachineRow {
        name: row.parse("name")?,
        attempt: row.parse("attempt_id")?,
        node: row.parse("node")?,
        label: row.parse("label")?,
        size: jobs::size(row)?,
        state: row.parse("state")?,
        created_ms: row.int("created_ms")?,
    })
}

/// See [`Store::machine_state`].
pub(super) async fn go(tx: &mut Tx, name: &MachineName, to: MachineState) -> Result<bool, StoreError> {
    let sql = guarded(
        "UPDATE machines SET state = $2, gone_ms = CASE WHEN $3 = 1 THEN $4 ELSE gone_ms END
         WHERE name = $1 AND state IN ({from})",
        &before(to),
        to,
    );
    if tx.execute(sql, args![name, to, to.is_terminal(), tx.now]).await? == 1 {
        return Ok(true);
    }
    let row = tx
        .row(
            "SELECT name FROM machines WHERE name = $1 AND state = $2",
            args![name, to],
        )
        .await?;
    Ok(row.is_some())
}
