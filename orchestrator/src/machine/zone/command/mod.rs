//! The host's commands, one module each: what is typed goes in, a [`Cmd`](crate::exec::Cmd) comes out; what it printed goes in,
//! what is typed comes out. Nothing here runs anything, so all of it is tested anywhere.

pub mod bhyvectl;
pub mod brand;
pub mod dispadmin;
pub mod dladm;
mod fields;
pub mod ipadm;
pub mod ipf;
pub mod smf;
pub mod zfs;
pub mod zoneadm;
pub mod zonecfg;

use crate::exec::Output;

pub use self::fields::{FieldError, fields};

/// What a command's failure means. The tools have exit codes for success, failure and misuse only; the rest
/// is said in words, which are those of the C locale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// What was named does not exist (any more).
    Absent,
    /// What was to be made exists.
    Exists,
    /// Somebody still uses it: worth another try.
    Busy,
    /// The pool or a quota is full.
    Full,
    /// Text without a known meaning: never guessed at, always shown.
    Unknown,
}

/// A command that failed.
#[derive(Debug, thiserror::Error)]
#[error("`{command}` ended with {code}: {said}")]
pub struct CommandError {
    /// The whole command.
    pub command: String,
    /// `exit code 1`, or that a signal ended it.
    pub code: String,
    /// Its standard error, at most 2000 characters.
    pub said: String,
    /// The meaning of that text.
    pub failure: Failure,
}

impl CommandError {
    /// What was named does not exist: for a removal that is a success.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.failure == Failure::Absent
    }

    /// Somebody still uses it.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.failure == Failure::Busy
    }

    /// Another try, maybe elsewhere, may succeed: unless what was named is not there, or is there already. Of words that
    /// nobody has told us nothing is known, so they are no reason to give up.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        !matches!(self.failure, Failure::Absent | Failure::Exists)
    }
}

/// The text of a finished command, or what its failure means by the words in `table`.
pub(super) fn judge(output: &Output, table: &[(&str, Failure)]) -> Result<String, CommandError> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.code == Some(0) {
        return Ok(text(&output.stdout));
    }
    let said = text(&output.stderr);
    let failure = table
        .iter()
        .find(|(words, _)| said.contains(words))
        .map_or(Failure::Unknown, |(_, failure)| *failure);
    Err(CommandError {
        command: output.command.clone(),
        code: output
            .code
            .map_or_else(|| "a signal".to_owned(), |code| format!("exit code {code}")),
        said: said.trim().chars().take(2000).collect(),
        failure,
    })
}

#[cfg(test)]
pub(super) fn failed(said: &str) -> Output {
    Output {
        command: "tool".to_owned(),
        code: Some(1),
        stdout: Vec::new(),
        stderr: said.as_bytes().to_vec(),
        elapsed: std::time::Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_or_there_already_is_no_reason_to_try_again() {
        let table = [
            ("does not exist", Failure::Absent),
            ("already exists", Failure::Exists),
            ("is busy", Failure::Busy),
            ("out of space", Failure::Full),
        ];
        let retried = |said: &str| judge(&failed(said), &table).unwrap_err().is_retryable();
        assert!(!retried("p/x does not exist") && !retried("p/x already exists"));
        assert!(retried("p/x is busy") && retried("out of space") && retried("the moon is full"));
    }
}
