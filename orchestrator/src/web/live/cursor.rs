//! Where a reader of a log goes on: what the `id` of a stream's events says. A cursor names its attempt, and with that
//! the node that has the log: a job that was tried again has another log, in which the same numbers mean other lines.

use std::{fmt, str::FromStr};

use crate::{logs::Position, model::ids::AttemptId};

/// Where a reader of records goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::web) struct LogCursor {
    /// Whose log it is.
    pub attempt: AttemptId,
    /// Everything before it was read.
    pub position: Position,
}

impl fmt::Display for LogCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.attempt, self.position)
    }
}

/// Text that is no cursor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a place in a log's stream is an event's id: the attempt, the log's generation and a record (`01m8…:1:20`), for a page \
     also a line and its length"
)]
pub(in crate::web) struct BadCursor;

impl FromStr for LogCursor {
    type Err = BadCursor;
    fn from_str(text: &str) -> Result<Self, BadCursor> {
        let (attempt, position) = text.split_once(':').ok_or(BadCursor)?;
        Ok(Self {
            attempt: attempt.parse().map_err(|_| BadCursor)?,
            position: position.parse().map_err(|_| BadCursor)?,
        })
    }
}

/// Where a page goes on. The position in the file says when there is more; the last line that was shown,
/// and how long it was then, say what: that line may have grown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::web) struct PageCursor {
    /// Up to where it was read.
    pub log: LogCursor,
    /// The last line shown, by its number in the attempt; 0 for none.
    pub line: u64,
    /// Its length in bytes when it was shown.
    pub len: usize,
}

impl PageCursor {
    /// Before everything.
    pub fn start(attempt: AttemptId) -> Self {
        Self {
            log: LogCursor {
                attempt,
                position: Position::START,
            },
            line: 0,
            len: 0,
        }
    }
}

impl fmt::Display for PageCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.log, self.line, self.len)
    }
}

impl FromStr for PageCursor {
    type Err = BadCursor;
    fn from_str(text: &str) -> Result<Self, BadCursor> {
        let (rest, len) = text.rsplit_once(':').ok_or(BadCursor)?;
        let (log, line) = rest.rsplit_once(':').ok_or(BadCursor)?;
        Ok(Self {
            log: log.parse()?,
            line: line.parse().map_err(|_| BadCursor)?,
            len: len.parse().map_err(|_| BadCursor)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ATTEMPT: &str = "01m8m6wqbmzd3psxj1np99rvb8";

    #[test]
    fn a_cursor_round_trips_and_foreign_text_is_refused() {
        let log = LogCursor {
            attempt: ATTEMPT.parse().unwrap(),
            position: "2:17".parse().unwrap(),
        };
        let page = PageCursor { log, line: 9, len: 80 };
        assert_eq!(log.to_string(), format!("{ATTEMPT}:2:17"));
        assert_eq!(log.to_string().parse(), Ok(log));
        assert_eq!(page.to_string(), format!("{ATTEMPT}:2:17:9:80"));
        assert_eq!(page.to_string().parse(), Ok(page));
        for bad in ["", "1", "1:2", "1:2:3:4", "x:2:17", ":2:17"] {
            assert_eq!(bad.parse::<LogCursor>(), Err(BadCursor), "{bad}");
            assert_eq!(bad.parse::<PageCursor>(), Err(BadCursor), "{bad}");
        }
        for bad in [
            "1",
            "1:2:3",
            "1:x",
            "1:2:3:4",
            "1:2:3:",
            "1:2:x:1",
            "a:b:1:1",
            "1:2:3:4:5",
        ] {
            assert_eq!(
                format!("{ATTEMPT}:{bad}").parse::<PageCursor>().is_ok(),
                bad == "1:2:3:4",
                "{bad}"
            );
        }
    }

    proptest! {
        #[test]
        fn cursors_never_panic(text in "(01m8m6wqbmzd3psxj1np99rvb8:)?[0-9:x]{0,40}") {
            let _ = (text.parse::<LogCursor>(), text.parse::<PageCursor>());
        }
    }
}
