//! Why driving an attempt stopped before its end.

use super::checkpoint::CheckpointError;
use crate::store::StoreError;

/// Why the task stopped without an end: somebody else goes on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stopped {
    /// Another daemon owns the attempt.
    #[error("another daemon took the attempt over")]
    Fenced,
    /// The daemon stops in order; the machine goes on by itself.
    #[error("the daemon is stopping")]
    Shutdown,
    /// The database cannot be used; the attempt is adopted again in a moment.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// As `Store`.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}
