//! Where lines begin. One rule cuts records into lines, for the index, for readers and for sealing;
//! the index keeps an entry every 256 lines or 128 KiB of file, never two within 4 KiB, so that its
//! memory stays below a thousandth of the log whatever a guest prints.

use super::{
    MAX_PIECE,
    record::{RecordHeader, u32_at, u64_at},
    types::Channel,
};

const LINES: u64 = 256;
const LEAST: u64 = 4 << 10;
const MOST: u64 = 128 << 10;

/// The lines of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepSpan {
    /// The step.
    pub step: u32,
    /// Number of its first line in the attempt.
    pub first: u64,
    /// Number of its last line so far.
    pub last: u64,
    /// How many lines it has.
    pub lines: u64,
}

/// A part of a line within one record.
pub(super) struct Segment {
    /// Its bytes in the record's data, without the newline.
    pub(super) bytes: std::ops::Range<usize>,
    /// The line begins here.
    pub(super) starts: bool,
    /// It goes on with an earlier line of its channel.
    pub(super) continued: bool,
}

/// Cuts records into lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Splitter {
    /// The line that has begun and not ended: its step, channel and length.
    open: Option<(u32, Channel, usize)>,
    /// Per channel: the step (plus one) in which its text does not end with a newline.
    unfinished: [u32; 3],
}

impl Splitter {
    /// Before the first byte of a line.
    fn at_line_start(unfinished: [u32; 3]) -> Self {
        Self { open: None, unfinished }
    }

    /// Whether `header`'s data would go on with the open line, which otherwise ends before it.
    pub(super) fn continues(&self, header: &RecordHeader) -> bool {
        matches!(self.open, Some((step, channel, _)) if (step, channel) == (header.step, header.channel))
    }

    /// Cuts one record's data from `at` on.
    pub(super) fn split(
        &mut self,
        header: &RecordHeader,
        data: &[u8],
        mut at: usize,
        mut each: impl FnMut(Segment, &Self),
    ) {
        let channel = usize::from(header.channel.code());
        if !self.continues(header) {
            // A newline of ours that only ends another's line is no line of its own.
            if self.open.is_some() && header.channel == Channel::System && at == 0 && data.first() == Some(&b'\n') {
                at = 1;
            }
            self.open = None;
        }
        while at < data.len() {
            let continued = self.unfinished[channel] == header.step + 1;
            let (starts, length) = match self.open {
                Some((_, _, length)) => (false, length),
                None => (true, 0),
            };
            let before = Self { open: None, ..*self };
            let room = MAX_PIECE - length;
            // A newline right behind the last byte there is room for still ends this line.
            let window = &data[at..data.len().min(at + room + 1)];
            let (end, next, ends) = match memchr::memchr(b'\n', window) {
                Some(i) => (at + i, at + i + 1, true),
                None if window.len() <= room => (data.len(), data.len(), false),
                None => (at + room, at + room, true),
            };
            let newline = next > end;
            self.unfinished[channel] = if newline { 0 } else { header.step + 1 };
            self.open = (!ends).then_some((header.step, header.channel, length + end - at));
            each(
                Segment {
                    bytes: at..end,
                    starts,
                    continued: starts && continued,
                },
                &before,
            );
            at = next;
        }
    }
}

/// Where a line begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// Number of the line.
    pub(super) line: u64,
    /// Number of the record it begins in.
    pub(super) record: u64,
    /// Where that record lies in the plain file.
    pub(super) offset: u64,
    /// Where the line begins in the record's data.
    pub(super) within: u32,
    /// Bytes of text before the record.
    pub(super) text: u64,
    /// The line's step.
    pub(super) step: u32,
    /// Its number in the step.
    pub(super) line_in_step: u64,
    unfinished: [u32; 3],
}

impl Entry {
    /// A splitter that goes on from here.
    pub(super) fn splitter(&self) -> Splitter {
        Splitter::at_line_start(self.unfinished)
    }
}

const ENTRY: usize = 60;
const SPAN: usize = 28;

/// Where everything is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Index {
    pub(super) entries: Vec<Entry>,
    pub(super) steps: Vec<StepSpan>,
    /// Records so far.
    pub(super) records: u64,
    /// Lines begun so far.
    pub(super) lines: u64,
    /// Bytes of text so far.
    pub(super) text: u64,
    /// Where the last record ends.
    pub(super) end: u64,
    splitter: Splitter,
}

impl Index {
    /// Takes note of the record at `offset`, which ends at `end`.
    pub(super) fn push(&mut self, offset: u64, end: u64, header: &RecordHeader, data: &[u8]) {
        let Self {
            entries,
            steps,
            lines,
            splitter,
            ..
        } = self;
        let (record, text) = (self.records, self.text);
        splitter.split(header, data, 0, |segment, before| {
            if !segment.starts {
                return;
            }
            *lines += 1;
            let line = *lines;
            let span = match steps.iter().rposition(|span| span.step == header.step) {
                Some(i) => &mut steps[i],
                None => {
                    steps.push(StepSpan {
                        step: header.step,
                        first: line,
                        last: line,
                        lines: 0,
                    });
                    let last = steps.len() - 1;
                    &mut steps[last]
                }
            };
            let switch = span.lines == 0 || span.last + 1 < line;
            span.lines += 1;
            span.last = line;
            let due = entries.last().is_none_or(|last| {
                let bytes = offset + segment.bytes.start as u64 - (last.offset + u64::from(last.within));
                // Within a step, lines are counted on from an entry; another step needs its own.
                switch || bytes >= MOST || (bytes >= LEAST && line - last.line >= LINES)
            });
            if due {
                entries.push(Entry {
                    line,
                    record,
                    offset,
                    within: segment.bytes.start as u32,
                    text,
                    step: header.step,
                    line_in_step: span.lines,
                    unfinished: before.unfinished,
                });
            }
        });
        self.records += 1;
        self.text += data.len() as u64;
        self.end = end;
    }

    /// The step of an unfinished last line when text of this step and channel would run on in it although it
    /// comes from somebody else: another step, or helios-ci itself. What one step writes to its two channels
    /// is mixed as the step mixes it.
    pub(super) fn foreign_line(&self, step: u32, channel: Channel) -> Option<u32> {
        let (owner, ..) = self.splitter.open?;
        (owner != step || channel == Channel::System).then_some(owner)
    }

    /// The last entry at or before a line (`key` = `line`), record or text offset.
    pub(super) fn find(&self, wanted: u64, key: impl Fn(&Entry) -> u64) -> Option<usize> {
        self.entries
            .partition_point(|entry| key(entry) <= wanted)
            .checked_sub(1)
    }

    /// As bytes, for the sealed file.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(48 + self.entries.len() * ENTRY + self.steps.len() * SPAN);
        for number in [
            self.records,
            self.lines,
            self.text,
            self.end,
            self.entries.len() as u64,
            self.steps.len() as u64,
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for entry in &self.entries {
            for number in [entry.line, entry.record, entry.offset, entry.text, entry.line_in_step] {
                out.extend_from_slice(&number.to_le_bytes());
            }
            for number in [entry.within, entry.step].into_iter().chain(entry.unfinished) {
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
        for span in &self.steps {
            out.extend_from_slice(&span.step.to_le_bytes());
            for number in [span.first, span.last, span.lines] {
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
        out
    }

    /// What [`Index::encode`] wrote.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let number = |i: usize| u64_at(bytes, 8 * i);
        let (entries, steps) = (usize::try_from(number(4)?).ok()?, usize::try_from(number(5)?).ok()?);
        let size = entries
            .checked_mul(ENTRY)?
            .checked_add(steps.checked_mul(SPAN)?)?
            .checked_add(48)?;
        if bytes.len() != size {
            return None;
        }
        let mut index = Self {
            records: number(0)?,
            lines: number(1)?,
            text: number(2)?,
            end: number(3)?,
            ..Self::default()
        };
        let (list, spans) = bytes[48..].split_at(entries * ENTRY);
        for at in list.chunks_exact(ENTRY) {
            index.entries.push(Entry {
                line: u64_at(at, 0)?,
                record: u64_at(at, 8)?,
                offset: u64_at(at, 16)?,
                text: u64_at(at, 24)?,
                line_in_step: u64_at(at, 32)?,
                within: u32_at(at, 40)?,
                step: u32_at(at, 44)?,
                unfinished: [u32_at(at, 48)?, u32_at(at, 52)?, u32_at(at, 56)?],
            });
        }
        for at in spans.chunks_exact(SPAN) {
            index.steps.push(StepSpan {
                step: u32_at(at, 0)?,
                first: u64_at(at, 4)?,
                last: u64_at(at, 12)?,
                lines: u64_at(at, 20)?,
            });
        }
        Some(index)
    }
}
