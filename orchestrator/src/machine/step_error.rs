//! Why a step of a back end failed. The port adds the operation and the machine.

use std::{fmt, io};

use super::{MachineError, Operation};
use crate::{exec::ExecError, model::names::MachineName};

/// Why a step failed.
#[derive(Debug)]
pub struct StepError {
    /// What failed, on what.
    pub reason: String,
    /// Another try, maybe on another machine, may succeed.
    pub retryable: bool,
}

impl StepError {
    /// Another machine would fail in the same way.
    pub(crate) fn permanent(reason: impl fmt::Display) -> Self {
        Self {
            reason: reason.to_string(),
            retryable: false,
        }
    }

    /// Another try may succeed.
    pub(crate) fn retryable(reason: impl fmt::Display) -> Self {
        Self {
            reason: reason.to_string(),
            retryable: true,
        }
    }

    /// As [`StepError::retryable`], with the error's cause.
    pub(crate) fn with_cause(error: &dyn std::error::Error) -> Self {
        let cause = error.source().map(|source| format!(": {source}"));
        Self::retryable(format!("{error}{}", cause.unwrap_or_default()))
    }

    /// Adds the operation that failed and its machine.
    pub(crate) fn of(operation: Operation, machine: &MachineName) -> impl FnOnce(Self) -> MachineError {
        move |error| MachineError {
            operation,
            machine: machine.to_string(),
            reason: error.reason,
            retryable: error.retryable,
        }
    }
}

impl From<io::Error> for StepError {
    fn from(error: io::Error) -> Self {
        Self::with_cause(&error)
    }
}

impl From<ExecError> for StepError {
    fn from(error: ExecError) -> Self {
        Self::with_cause(&error)
    }
}
