//! Machines that cannot be removed.

use std::time::Duration;

use crate::{
    model::{
        names::{MachineName, NodeName},
        state::MachineState,
    },
    store::{
        Store, StoreError,
        engine::{transitions::states_sql, tx::args},
        ms,
    },
};

impl Store {
    /// A machine of the node whose removal should have been over for `after`, if there is one: its attempt
    /// ended, or was given up, before that, and nobody kept it for longer.
    pub async fn overdue_removal(&self, node: &NodeName, after: Duration) -> Result<Option<MachineName>, StoreError> {
        let mut tx = self.read_single("look for machines that hang").await?;
        let before = tx.now.saturating_sub(ms(after));
        let sql = states_sql(
            "SELECT m.name FROM machines m JOIN attempts a ON a.id = m.attempt_id
             WHERE m.node = $1 AND m.state IN ({from}) AND m.state <> 'gone'
                 AND COALESCE(m.keep_until_ms, a.ended_ms) <= $2 ORDER BY m.name LIMIT 1",
            [MachineState::Draining],
        );
        let row = tx.row(sql, args![node, before]).await?;
        row.map(|row| row.parse("name")).transpose()
    }
}
