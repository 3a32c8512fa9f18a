//! When a job or a step runs (`if:`), as far as that is known without evaluating an expression.

use serde::{Deserialize, Serialize};

/// A status function of the workflow language.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// `success()`, which is also what no `if:` means: all has gone well so far.
    #[default]
    Success,
    /// `failure()`: a step has failed, and the job is not cancelled.
    Failure,
    /// `cancelled()`: a person has asked for the end, or the job's time is over.
    Cancelled,
    /// `always()`.
    Always,
}

/// How a job has gone so far. It only becomes worse, in this order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Well.
    #[default]
    Success,
    /// A step has failed that was not allowed to.
    Failure,
    /// A person has asked for the end, or the job's time is over.
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
