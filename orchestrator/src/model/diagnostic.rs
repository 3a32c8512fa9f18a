//! A precise complaint about a file of a repository.
//!
//! Two layers are told apart: what no server would take ([`Severity::Error`]), and what is a valid workflow that this
//! version does not run ([`Severity::Unsupported`]). Both keep a file from running; advice never does.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a complaint means for its file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It is not a valid workflow.
    #[default]
    Error,
    /// It is valid, and this version of helios-ci does not run it.
    Unsupported,
    /// It runs, and probably not as it was meant.
    Warning,
}

impl Severity {
    /// Whether the file cannot run.
    #[must_use]
    pub fn refuses(self) -> bool {
        self != Self::Warning
    }
}

/// What is wrong, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Diagnostic {
    /// What it means for the file.
    #[serde(default)]
    pub severity: Severity,
    /// Its stable name, as `helios-ci explain` knows it: `unknown-key`. Empty in what an older version stored, and for
    /// what depends on the server's configuration.
    #[serde(default)]
    pub code: String,
    /// The file's path in the repository.
    pub file: String,
    /// Counted from 1.
    pub line: u32,
    /// Counted from 1, in characters.
    pub column: u32,
    /// How many bytes from there on it is about; 0 where only the place is known.
    #[serde(default)]
    pub length: u32,
    /// What is wrong. May quote foreign text.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}
