//! Where a page that follows a log reads on: what the `id` of its events says.

use std::{fmt, str::FromStr};

use crate::logs::Position;

/// Where a page reads on. The position in the file says when there is more; the last line that was shown,
/// and how long it was then, say what: that line may have grown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::web) struct Cursor {
    /// Everything before it was read.
    pub position: Position,
    /// The last line shown, by its number in the attempt; 0 for none.
    pub line: u64,
    /// Its length in bytes when it was shown.
    pub len: usize,
}

impl Cursor {
    /// Before everything.
    pub const START: Self = Self {
        position: Position::START,
        line: 0,
        len: 0,
    };
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.position, self.line, self.len)
    }
}

/// Text that is no cursor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a place in a page's stream is written like 1:20:7:80 (generation, record, line, its length)")]
pub(in crate::web) struct BadCursor;

impl FromStr for Cursor {
    type Err = BadCursor;
    fn from_str(text: &str) -> Result<Self, BadCursor> {
        let (rest, len) = text.rsplit_once(':').ok_or(BadCursor)?;
        let (position, line) = rest.rsplit_once(':').ok_or(BadCursor)?;
        Ok(Self {
            position: position.parse().map_err(|_| BadCursor)?,
            line: line.parse().map_err(|_| BadCursor)?,
            len: len.parse().map_err(|_| BadCursor)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_cursor_round_trips_and_foreign_text_is_refused() {
        let cursor = Cursor {
            position: "2:17".parse().unwrap(),
            line: 9,
            len: 80,
        };
        assert_eq!(cursor.to_string(), "2:17:9:80");
        assert_eq!("2:17:9:80".parse(), Ok(cursor));
        for bad in ["", "1", "1:2", "1:2:3", "1:2:3:", "1:2:x:1", "a:b:1:1", "1:2:3:4:5"] {
            assert_eq!(bad.parse::<Cursor>(), Err(BadCursor), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn cursors_never_panic(text in "[0-9:x]{0,40}") {
            let _ = text.parse::<Cursor>();
        }
    }
}
