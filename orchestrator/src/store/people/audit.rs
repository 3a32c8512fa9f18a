//! The audit log: who did what, and on what grounds it was allowed.

use crate::{
    foreign_text::clip,
    store::{
        Store, StoreError,
        engine::tx::{Tx, args},
    },
};

/// One act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// Who.
    pub who: String,
    /// What: `cancel`, `rerun`, `token.create`.
    pub action: String,
    /// On what: an id or a path.
    pub subject: String,
    /// Why it was allowed.
    pub evidence: String,
    /// The request it came with.
    pub request_id: String,
}

impl Store {
    /// Writes one act down.
    pub async fn audit(&self, entry: AuditEntry) -> Result<(), StoreError> {
        in_tx!(self, "write to the audit log", [entry = entry], |tx| write(tx, entry))
    }
}

/// See [`Store::audit`].
pub(in crate::store) async fn write(tx: &mut Tx, entry: &AuditEntry) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO audit (at_ms, who, action, subject, evidence, request_id) VALUES ($1, $2, $3, $4, $5, $6)",
        args![
            tx.now,
            clip(&entry.who, 200),
            clip(&entry.action, 100),
            clip(&entry.subject, 400),
            clip(&entry.evidence, 2000),
            clip(&entry.request_id, 100)
        ],
    )
    .await
    .map(drop)
}
