//! The limit of a log: what comes beyond it is kept in a ring, whose content is appended when the log ends.

use bytes::Bytes;

use super::{LogWriter, append::Origin};
use crate::logs::{
    MAX_PIECE,
    error::LogError,
    record::{LONG, TAIL},
    tail::{self, Kept},
};

/// Our own lines may exceed the limit by this much, in bytes, so that a capped log still tells live
/// readers what goes on.
pub(super) const OWN: u64 = 1 << 20;

impl LogWriter {
    /// Appends masked text of the agent, or keeps it for the tail.
    pub(super) fn append_or_keep(&mut self, origin: Origin, text: &[u8]) -> Result<(), LogError> {
        if text.is_empty() {
            return Ok(());
        }
        let size = text.len() + text.len().div_ceil(MAX_PIECE) * LONG;
        if !self.capped && self.end + size as u64 > self.cap {
            self.capped = true;
            let line = format!(
                "The log has reached its limit of {} MiB: from here on only its last {} MiB is kept, shown when the job has ended.",
                self.cap >> 20,
                tail::KEPT >> 20
            );
            self.keep(origin, text);
            return self.system(origin.step, &line);
        }
        if self.capped {
            self.keep(origin, text);
            return Ok(());
        }
        self.append(origin, text, 0)
    }

    /// Appends a whole line of our own, or keeps it when there are too many.
    pub(super) fn append_notice(&mut self, step: u32, line: &[u8]) -> Result<(), LogError> {
        let origin = Origin::system(step);
        if self.capped && self.end + line.len() as u64 > self.cap + OWN {
            self.keep(origin, line);
            return Ok(());
        }
        self.append(origin, line, 0)
    }

    fn keep(&mut self, origin: Origin, text: &[u8]) {
        let Origin {
            step,
            channel,
            guest_ms,
            node_ms,
        } = origin;
        self.left_out += self.tail.push(Kept {
            step,
            channel,
            guest_ms,
            node_ms,
            data: Bytes::copy_from_slice(text),
        });
    }

    /// Appends what was kept, behind a line that says what is missing.
    pub(super) fn append_tail(&mut self) -> Result<(), LogError> {
        if !self.capped {
            return Ok(());
        }
        let (kept, cut) = std::mem::take(&mut self.tail).finish();
        self.left_out += cut;
        let step = kept.first().map_or(0, |piece| piece.step);
        let lost = if self.tail_lost {
            ", and more was lost when helios-ci was restarted"
        } else {
            ""
        };
        if self.left_out > 0 || self.tail_lost {
            let line = format!(
                "{} bytes are left out here{lost}; the end of the log follows.\n",
                self.left_out
            );
            self.append(Origin::system(step), line.as_bytes(), TAIL)?;
        }
        for piece in kept {
            let Kept {
                step,
                channel,
                guest_ms,
                node_ms,
                data,
            } = piece;
            let origin = Origin {
                step,
                channel,
                guest_ms,
                node_ms,
            };
            self.append(origin, &data, TAIL)?;
        }
        Ok(())
    }
}
