//! Whether anything waits for somebody: the slow timer behind every hint, in one short statement.

use crate::store::{Store, StoreError, engine::tx::args};

/// Work that somebody could take now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// A delivery that was not read.
    Delivery,
    /// A trigger that was not planned.
    Trigger,
    /// A job in the queue.
    Job,
    /// A report that its forge has not accepted.
    Report,
    /// A machine that is kept: its time may be over, or another node's daemon was asked about it.
    Kept,
}

impl Store {
    /// Each kind of work of which there is some, found with one statement: an idle daemon does little else.
    pub async fn waiting(&self) -> Result<Vec<Waiting>, StoreError> {
        let mut tx = self.read_single("look for waiting work").await?;
        let rows = tx
            .rows(
                "SELECT 'delivery' AS kind WHERE EXISTS
                     (SELECT 1 FROM deliveries WHERE state = 'received' AND lease_until <= $1)
                 UNION ALL SELECT 'trigger' WHERE EXISTS
                     (SELECT 1 FROM triggers WHERE state = 'received' AND lease_until <= $1 AND due_ms <= $1)
                 UNION ALL SELECT 'job' WHERE EXISTS (SELECT 1 FROM jobs WHERE state = 'queued')
                 UNION ALL SELECT 'report' WHERE EXISTS
                     (SELECT 1 FROM reports WHERE delivered < version AND due_ms <= $1 AND lease_until <= $1)
                 UNION ALL SELECT 'kept' WHERE EXISTS (SELECT 1 FROM machines WHERE state = 'kept' AND state <> 'gone')",
                args![tx.now],
            )
            .await?;
        rows.iter()
            .map(|row| match row.text("kind")?.as_str() {
                "delivery" => Ok(Waiting::Delivery),
                "trigger" => Ok(Waiting::Trigger),
                "job" => Ok(Waiting::Job),
                "kept" => Ok(Waiting::Kept),
                _ => Ok(Waiting::Report),
            })
            .collect()
    }
}
