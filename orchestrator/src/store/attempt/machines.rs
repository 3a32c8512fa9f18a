//! Machines: the rows that come before and go after anything on a host.

use crate::{
    model::{
        ids::AttemptId,
        names::{Label, MachineName, NodeName},
        size::Size,
        state::MachineState,
    },
    store::{
        Store, StoreError,
        engine::{
            transitions::{live, predecessors, states_sql, transition_sql},
            tx::{Row, Tx, args},
        },
        run::jobs,
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
    /// Its state.
    pub state: MachineState,
    /// Milliseconds since 1970.
    pub created_ms: i64,
    /// How it is kept, or is to be; none when nobody asked.
    pub keep: Option<Keep>,
}

/// How a machine is kept for a person, or is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keep {
    /// Who asked for it.
    pub by: String,
    /// When, in milliseconds since 1970.
    pub asked_ms: i64,
    /// For how long from the end of its job, or from when it was asked for last, in milliseconds.
    pub for_ms: i64,
    /// Until when, in milliseconds since 1970; none while its job runs.
    pub until_ms: Option<i64>,
    /// The back end that keeps it, once the guest is cut off from its node.
    pub backend: Option<String>,
    /// Who types on its console; none when the console is free.
    pub console_by: Option<String>,
    /// Its node has been asked to let go of the console.
    pub console_release: bool,
}

/// The columns that [`machine_row`] reads.
pub(in crate::store) const COLUMNS: &str =
    "name, attempt_id, node, label, cpus, memory_mib, disk_gib, state, created_ms, keep_by,
    keep_asked_ms, keep_for_ms, keep_until_ms, keep_backend, console_by, console_release";

impl Store {
    /// Moves a machine on. `true` when it is now in that state, also when it was before; `false` when
    /// the transition is not legal or there is no such machine. A state that a power failure takes back is found on the
    /// host again, so it is not synced by itself.
    pub async fn machine_state(&self, name: &MachineName, to: MachineState) -> Result<bool, StoreError> {
        in_tx!(self, "store a machine's state", WithNext, [name = name.clone()], |tx| {
            set_state(tx, name, to)
        })
    }

    /// Marks the machine of an attempt that has ended for removal, unless it is kept. `true` when it is to be
    /// removed now.
    pub async fn drain(&self, name: &MachineName) -> Result<bool, StoreError> {
        in_tx!(self, "mark a machine for removal", [name = name.clone()], |tx| drain(
            tx, name
        ))
    }

    /// One machine.
    pub async fn machine(&self, name: &MachineName) -> Result<Option<MachineRow>, StoreError> {
        let mut tx = self.read_single("read a machine").await?;
        let sql = format!("SELECT {COLUMNS} FROM machines WHERE name = $1");
        tx.row(sql, args![name]).await?.as_ref().map(machine_row).transpose()
    }

    /// The machines of a node that are not gone.
    pub async fn machines_of(&self, node: &NodeName) -> Result<Vec<MachineRow>, StoreError> {
        let mut tx = self.read_single("list machines").await?;
        let sql = format!(
            "SELECT {COLUMNS} FROM machines WHERE node = $1 AND state IN ({{from}}) AND state <> 'gone' ORDER BY name"
        );
        let sql = states_sql(&sql, live::<MachineState>());
        let rows = tx.rows(sql, args![node]).await?;
        rows.iter().map(machine_row).collect()
    }
}

pub(in crate::store) fn machine_row(row: &Row) -> Result<MachineRow, StoreError> {
    Ok(MachineRow {
        name: row.parse("name")?,
        attempt: row.parse("attempt_id")?,
        node: row.parse("node")?,
        label: row.parse("label")?,
        size: jobs::size(row)?,
        state: row.parse("state")?,
        created_ms: row.int("created_ms")?,
        keep: match row.opt_text("keep_by")? {
            None => None,
            Some(by) => Some(Keep {
                by,
                asked_ms: row.int("keep_asked_ms")?,
                for_ms: row.int("keep_for_ms")?,
                until_ms: row.opt_int("keep_until_ms")?,
                backend: row.opt_text("keep_backend")?,
                console_by: row.opt_text("console_by")?,
                console_release: row.flag("console_release")?,
            }),
        },
    })
}

async fn drain(tx: &mut Tx, name: &MachineName) -> Result<bool, StoreError> {
    let to = MachineState::Draining;
    let sql = transition_sql(
        "UPDATE machines SET state = $2 WHERE name = $1 AND state IN ({from})",
        &[MachineState::Preparing, MachineState::Running],
        to,
    );
    tx.execute(sql, args![name, to]).await?;
    let sql = "SELECT name FROM machines WHERE name = $1 AND state = $2";
    Ok(tx.row(sql, args![name, to]).await?.is_some())
}

/// The end of its attempt: it is kept when somebody asked for that and it was started, else it is to be
/// removed. One statement, so that whoever asks at the same moment was in time or learns that it was not.
pub(in crate::store) async fn attempt_ended(tx: &mut Tx, name: &MachineName) -> Result<(), StoreError> {
    let sql = transition_sql(
        "UPDATE machines
         SET state = CASE WHEN state = 'running' AND keep_for_ms IS NOT NULL THEN 'kept' ELSE 'draining' END,
             keep_until_ms = $2 + keep_for_ms
         WHERE name = $1 AND state IN ({from})",
        &[MachineState::Preparing, MachineState::Running],
        MachineState::Draining,
    );
    tx.execute(sql, args![name, tx.now]).await.map(drop)
}

/// See [`Store::machine_state`].
pub(in crate::store) async fn set_state(tx: &mut Tx, name: &MachineName, to: MachineState) -> Result<bool, StoreError> {
    let sql = transition_sql(
        "UPDATE machines SET state = $2, gone_ms = CASE WHEN $3 = 1 THEN $4 ELSE gone_ms END
         WHERE name = $1 AND state IN ({from})",
        &predecessors(to),
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
