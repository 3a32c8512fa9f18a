//! The trace: one line of JSON for every run of a program.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

/// One run of a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The program's name and its arguments.
    pub argv: Vec<String>,
    /// Exit code; none for a run that a fault killed or hung.
    pub exit: Option<i32>,
    /// `killed`, `hung` or `slow` when a fault ended, stopped or delayed the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    pub stdout: String,
    pub stderr: String,
    /// How long the last pass over the model took, in milliseconds.
    pub ms: u64,
    pub pid: u32,
    /// The process that started it.
    #[serde(default)]
    pub parent: u32,
    /// When it began, in microseconds since the epoch; a slow one, before it is slow.
    #[serde(default)]
    pub begun: u64,
    #[serde(default)]
    pub ended: u64,
}

impl Line {
    /// The command as one text with blanks between the words.
    #[must_use]
    pub fn command(&self) -> String {
        self.argv.join(" ")
    }
}

/// Microseconds since the epoch.
#[must_use]
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Appends one line in one write, so that lines of programs running side by side do not mix.
///
/// # Errors
/// The file could not be written.
pub fn append(file: &Path, line: &Line) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(file)?
        .write_all(&text)
}

/// All lines so far; none when nothing ran.
///
/// # Errors
/// The file could not be read or holds something else.
pub fn read(file: &Path) -> io::Result<Vec<Line>> {
    let file = match File::open(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    BufReader::new(file)
        .lines()
        .map(|line| Ok(serde_json::from_str(&line?)?))
        .collect()
}
