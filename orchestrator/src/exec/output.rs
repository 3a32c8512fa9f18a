//! What a command that was run left, and how running it can fail.

use std::{io, time::Duration};

use crate::foreign_text::tail_as_line;

/// What a finished command left.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command as a person could type it.
    pub command: String,
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// At most the command's cap; what came beyond is read and dropped.
    pub stdout: Vec<u8>,
    /// As `stdout`.
    pub stderr: Vec<u8>,
    /// Wall time.
    pub elapsed: Duration,
}

/// A command that could not be run or did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The program could not be started.
    #[error("cannot start `{command}`: is {program} installed?")]
    Start {
        /// The whole command.
        command: String,
        /// Its program.
        program: String,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// It ran past its deadline and was killed.
    #[error("`{command}` did not end within {seconds} s and was killed")]
    Deadline {
        /// The whole command.
        command: String,
        /// The deadline.
        seconds: u64,
    },
    /// It ended with another exit code than 0.
    #[error("`{command}` failed with {how}: {stderr}")]
    Failed {
        /// The whole command.
        command: String,
        /// `exit code 2` or `a signal`.
        how: String,
        /// The last lines of its standard error.
        stderr: String,
    },
    /// Its pipes could not be read.
    #[error("lost the output of `{command}`")]
    Io {
        /// The whole command.
        command: String,
        /// The system's word.
        #[source]
        source: io::Error,
    },
}

impl Output {
    /// The output, when the exit code is 0.
    ///
    /// # Errors
    /// [`ExecError::Failed`] with the end of its standard error.
    pub fn ok(self) -> Result<Self, ExecError> {
        if self.code == Some(0) {
            return Ok(self);
        }
        let how = self
            .code
            .map_or_else(|| "a signal".to_owned(), |code| format!("exit code {code}"));
        Err(ExecError::Failed {
            command: self.command.clone(),
            how,
            stderr: self.stderr_tail(),
        })
    }

    /// Standard output as text; bytes that are not UTF-8 are replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The last 2000 bytes of standard error, in one line.
    #[must_use]
    pub fn stderr_tail(&self) -> String {
        tail_as_line(&self.stderr, 2000)
    }
}
