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
    /// `killed` or `hung` when a fault ended or stopped the run.
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

/// The longest chain of these runs in which each began after the one before had ended: what went side by side counts
/// once, whatever waited for what.
#[must_use]
pub fn in_sequence<'a>(lines: &[&'a Line]) -> Vec<&'a Line> {
    // Always the one that ends first: whatever comes after another one comes after it, too.
    let mut lines = lines.to_vec();
    lines.sort_by_key(|line| line.ended);
    let mut chain: Vec<&Line> = Vec::new();
    for line in lines {
        if chain.last().is_none_or(|last| last.ended <= line.begun) {
            chain.push(line);
        }
    }
    chain
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs named by their begin and end.
    fn runs(times: &[(u64, u64)]) -> Vec<Line> {
        let line = |(begun, ended): &(u64, u64)| Line {
            argv: vec![format!("{begun}-{ended}")],
            exit: Some(0),
            fault: None,
            stdout: String::new(),
            stderr: String::new(),
            ms: 0,
            pid: 1,
            parent: 1,
            begun: *begun,
            ended: *ended,
        };
        times.iter().map(line).collect()
    }

    #[test]
    fn what_goes_side_by_side_counts_once() {
        for (times, wanted) in [
            (&[][..], &[][..]),
            (&[(0, 5), (0, 5), (1, 6)], &["0-5"]),
            // Two chains side by side, the longer one of three, and a run that spans all.
            (
                &[(0, 9), (0, 4), (5, 9), (0, 3), (3, 6), (6, 9)],
                &["0-3", "3-6", "6-9"],
            ),
            // One link of either chain.
            (&[(4, 8), (0, 2), (0, 9), (2, 3)], &["0-2", "2-3", "4-8"]),
        ] {
            let lines = runs(times);
            let chain: Vec<String> = in_sequence(&lines.iter().collect::<Vec<_>>())
                .into_iter()
                .map(Line::command)
                .collect();
            assert_eq!(chain, wanted, "{times:?}");
        }
    }
}
