//! The plain values of this module.

use std::{fmt, str::FromStr};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::error::BadPosition;
use crate::secret::Secret;

/// Where a record comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    /// The step's standard output.
    Stdout,
    /// The step's standard error.
    Stderr,
    /// helios-ci's own lines.
    System,
}

impl Channel {
    /// The word that the API and the pages use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::System => "system",
        }
    }

    pub(super) fn code(self) -> u8 {
        match self {
            Self::Stdout => 0,
            Self::Stderr => 1,
            Self::System => 2,
        }
    }

    pub(super) fn from_code(code: u8) -> Option<Self> {
        [Self::Stdout, Self::Stderr, Self::System]
            .into_iter()
            .find(|c| c.code() == code)
    }
}

/// What a reader reads next: a record of one generation of the file. A generation changes when a
/// reader may have seen records that no longer exist (the host lost power); it must then start again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Position {
    /// The file's generation, from 1; 0 in [`Position::START`] alone.
    pub generation: u32,
    /// Records before it.
    pub record: u64,
}

impl Position {
    /// The beginning, whatever the generation.
    pub const START: Self = Self {
        generation: 0,
        record: 0,
    };
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.generation, self.record)
    }
}

impl FromStr for Position {
    type Err = BadPosition;
    fn from_str(text: &str) -> Result<Self, BadPosition> {
        let bad = || BadPosition {
            text: text.chars().take(40).collect(),
        };
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let (generation, record) = text.split_once(':').ok_or_else(bad)?;
        if !digits(generation) || !digits(record) {
            return Err(bad());
        }
        Ok(Self {
            generation: generation.parse().map_err(|_| bad())?,
            record: record.parse().map_err(|_| bad())?,
        })
    }
}

impl TryFrom<String> for Position {
    type Error = BadPosition;
    fn try_from(text: String) -> Result<Self, BadPosition> {
        text.parse()
    }
}

impl From<Position> for String {
    fn from(position: Position) -> String {
        position.to_string()
    }
}

/// One record: masked bytes of one channel, received together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Its own position; a reader goes on at `record + 1`.
    pub position: Position,
    /// The step's number in the job, as the driver counts.
    pub step: u32,
    /// Where it comes from.
    pub channel: Channel,
    /// Milliseconds since 1970 by the guest's clock.
    pub guest_ms: i64,
    /// Milliseconds since 1970 by the node's clock.
    pub node_ms: i64,
    /// At most [`super::MAX_PIECE`] bytes, byte-exact apart from masks.
    pub data: Bytes,
}

/// Some records in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The records from the position asked for; empty when there is nothing new.
    pub records: Vec<LogRecord>,
    /// Where to read on.
    pub next: Position,
    /// The log is sealed and nothing is left behind `next`.
    pub ended: bool,
    /// The position asked for belongs to another generation: drop what is shown, start at `next`.
    pub resync: bool,
}

/// What a reader has not seen of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// The position behind the last record so far.
    pub next: Position,
    /// The log is sealed: nothing follows `next`.
    pub ended: bool,
    /// The reader's position belongs to another generation: drop what is shown, start at `next`.
    pub resync: bool,
}

/// One line: bytes of one step and channel up to a newline. A change of step or channel ends a line
/// too, and so does [`super::MAX_PIECE`]; what follows on the same channel is then `continued`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Counted from 1 in the attempt.
    pub number: u64,
    /// The step it belongs to.
    pub step: u32,
    /// Counted from 1 in the step.
    pub line_in_step: u64,
    /// Where it comes from.
    pub channel: Channel,
    /// When its first byte was received, milliseconds since 1970 by the node's clock.
    pub node_ms: i64,
    /// Without the newline; a carriage return is kept. At most [`super::MAX_PIECE`] bytes.
    pub bytes: Vec<u8>,
    /// It goes on with an earlier line that ended without a newline.
    pub continued: bool,
}

/// Some lines in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinePage {
    /// The lines from the number asked for.
    pub lines: Vec<Line>,
    /// How many lines the log has; known once it is sealed.
    pub total: Option<u64>,
    /// The log is sealed and no line follows.
    pub ended: bool,
}

/// What output caused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effect {
    /// Masks found by `::add-mask::`. They work already; the caller stores them before it
    /// acknowledges the event, so that they also work after a restart.
    pub new_masks: Vec<Secret>,
    /// The log's limit was crossed just now: the agent should send less. Said once.
    pub cap_reached: bool,
}

/// What a driver's checkpoint remembers of a log: in case the disk forgets more than it should, and what the agent no
/// longer remembers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogState {
    /// The last event acknowledged to the agent, which it may have forgotten since.
    pub acknowledged: u64,
    /// Bytes left out so far because of the limit.
    pub left_out: u64,
    /// Bytes of acknowledged events that are not shown yet, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<HeldBytes>,
}

/// Bytes of one event that are not shown yet: they may be the beginning of a secret. To be stored encrypted only; `Debug`
/// leaves them out.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldBytes {
    /// The event.
    pub sequence: u64,
    /// Where in the event's output they begin, in bytes.
    pub offset: u32,
    /// The event's step.
    pub step: u32,
    /// The event's channel.
    pub channel: Channel,
    /// All that follows in the event.
    pub data: Vec<u8>,
}

impl fmt::Debug for HeldBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeldBytes")
            .field("sequence", &self.sequence)
            .field("channel", &self.channel)
            .finish_non_exhaustive()
    }
}

/// A sealed log in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSummary {
    /// The file's generation.
    pub generation: u32,
    /// Records.
    pub records: u64,
    /// Lines.
    pub lines: u64,
    /// Bytes of text.
    pub text_bytes: u64,
    /// Bytes of text that the limit left out.
    pub left_out: u64,
    /// Size of the compressed file in bytes.
    pub stored_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_round_trip_and_foreign_text_is_refused() {
        let position = Position {
            generation: 2,
            record: 17,
        };
        assert_eq!(position.to_string(), "2:17");
        assert_eq!("2:17".parse::<Position>().unwrap(), position);
        for bad in [
            "",
            ":",
            "1",
            "1:",
            ":1",
            "+1:2",
            "1:2:3",
            "1: 2",
            "4294967296:0",
            "-1:0",
            "a:b",
        ] {
            assert!(bad.parse::<Position>().is_err(), "{bad}");
        }
    }
}
