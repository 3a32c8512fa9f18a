//! Why a step of a back end failed, before it is known to whom it must be told.

use std::{fmt, io};

use super::{MachineError, Operation};
use crate::{exec::ExecError, model::names::MachineName};

/// Why a step failed.
#[derive(Debug)]
pub struct Trouble {
    /// What failed, on what.
    pub reason: String,
    /// Another try, maybe on another machine, may succeed.
    pub retryable: bool,
}

impl Trouble {
    /// A failure that another machine would meet again.
    pub(crate) fn lasting(reason: impl fmt::Display) -> Self {
        Self {
            reason: reason.to_string(),
            retryable: false,
        }
    }

    /// A failure that another try may not meet.
    pub(crate) fn passing(reason: impl fmt::Display) -> Self {
        Self {
            reason: reason.to_string(),
            retryable: true,
        }
    }

    /// As [`Trouble::passing`], with the error's cause.
    pub(crate) fn caused(error: &dyn std::error::Error) -> Self {
        let cause = error.source().map(|source| format!(": {source}"));
        Self::passing(format!("{error}{}", cause.unwrap_or_default()))
    }

    /// Says which operation on which machine failed.
    pub(crate) fn named(operation: Operation, machine: &MachineName) -> impl FnOnce(Self) -> MachineError {
        move |trouble| MachineError {
            operation,
            machine: machine.to_string(),
            reason: trouble.reason,
            retryable: trouble.retryable,
        }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::caused(&error)
    }
}

impl From<ExecError> for Trouble {
    fn from(error: ExecError) -> Self {
        Self::caused(&error)
    }
}
