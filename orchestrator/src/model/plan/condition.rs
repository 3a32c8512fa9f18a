//! When a job or a step runs (`if:`), as far as that is known without evaluating an expression.

use serde::{Deserialize, Serialize};

/// A status function of the workflow language.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// `success()`, which also holds for whoever says nothing: all has gone well so far.
    #[default]
    Success,
    /// `failure()`: something has failed, and nobody has asked for the end.
    Failure,
    /// `cancelled()`: somebody has asked for the end, or the job's time was over.
    Cancelled,
    /// `always()`.
    Always,
}

/// How things have gone so far. They only become worse, in this order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Well.
    #[default]
    Success,
    /// Something has failed for which this was not allowed.
    Failure,
    /// Somebody has asked for the end, or the time is over.
    Cancelled,
}

impl Condition {
    /// Whether it holds.
    #[must_use]
    pub fn holds(self, status: Status) -> bool {
        match self {
            Self::Success => status == Status::Success,
            Self::Failure => status == Status::Failure,
            Self::Cancelled => status == Status::Cancelled,
            Self::Always => true,
        }
    }
}
