//! A stored wish for the end of a run or a job.

use crate::store::{StoreError, engine::tx::Row};

/// Somebody asked for the end of a run or a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CancelRequest {
    /// When first, in milliseconds since 1970.
    pub at_ms: i64,
    /// Who asked last.
    pub by: String,
    /// Why; foreign text.
    pub reason: String,
    /// It was asked for twice: no more waiting for steps to end by themselves.
    pub force: bool,
}

/// Reads `cancel_ms`, `cancel_by`, `cancel_reason` and `cancel_force` of a row.
pub(in crate::store) fn request(row: &Row) -> Result<Option<CancelRequest>, StoreError> {
    let Some(at_ms) = row.opt_int("cancel_ms")? else {
        return Ok(None);
    };
    Ok(Some(CancelRequest {
        at_ms,
        by: row.opt_text("cancel_by")?.unwrap_or_default(),
        reason: row.opt_text("cancel_reason")?.unwrap_or_default(),
        force: row.flag("cancel_force")?,
    }))
}
