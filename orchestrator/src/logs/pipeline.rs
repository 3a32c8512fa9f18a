//! One channel of the agent on its way through scanner and masker, and from where it would have to be read again after a
//! crash.

use std::collections::VecDeque;

use super::{
    command::{Action, CommandGate, Piece, Scanner},
    forms,
    mask::{Masker, Patterns},
    partial_mask::PartialMask,
    record::ResumePoint,
    types::{Channel, HeldBytes},
};

/// A stretch of an event's bytes that is not released in full.
struct PendingEvent {
    sequence: u64,
    offset: u32,
    len: u64,
    /// What the agent had sent before it, see [`ChannelPipeline::held_since`].
    sent_before: u64,
}

/// Bytes to pass through a pipeline.
pub(super) struct Input<'a> {
    bytes: &'a [u8],
    /// The step ends behind them: everything held is shown, masked where it must be.
    ends: bool,
}

impl Input<'_> {
    /// The end of a step.
    pub(super) fn end() -> Self {
        Self { bytes: &[], ends: true }
    }
}

/// What a pipeline finds on its way. Whoever runs it must act before it goes on: the bytes behind a command are searched
/// for the secret that it named.
pub(super) enum Finding {
    /// An `::add-mask::` with this value, unescaped.
    Mask(Vec<u8>),
    /// One that is too long.
    MaskTooLong,
    /// The line behind one is evidently the rest of its value, and is shown.
    PartialMask,
    /// A `::stop-commands::` with this token. Its own line is shown next.
    StopCommands(String),
    /// The token of the last one.
    ResumeCommands,
}

/// See the module.
pub(super) struct ChannelPipeline {
    scanner: Scanner,
    masker: Masker,
    /// Events with bytes that are held back, oldest first.
    pending: VecDeque<PendingEvent>,
    /// The first event, and the offset in it, that has not been taken.
    expect: (u64, u32),
    /// Bytes of what comes next that were known to be text before a restart.
    parsed: usize,
    /// Text of a command that was found, to be shown next.
    deferred: Vec<u8>,
    /// Behind an `::add-mask::` whose value may be a first line only.
    partial_mask: Option<PartialMask>,
    /// The step of what is held.
    pub(super) step: u32,
}

impl ChannelPipeline {
    /// As it was when `resume` was written.
    pub(super) fn new(resume: ResumePoint) -> Self {
        Self {
            scanner: Scanner::new(resume.at_start, resume.swallow),
            masker: Masker::resumed(resume.covered as usize, resume.joined),
            pending: VecDeque::new(),
            expect: (resume.sequence, resume.offset),
            parsed: resume.parsed as usize,
            deferred: Vec::new(),
            partial_mask: None,
            step: 0,
        }
    }

    /// Whether anything is held back.
    pub(super) fn holds(&self) -> bool {
        !self.pending.is_empty()
    }

    /// How much the agent had sent before the oldest event that is held back in part.
    pub(super) fn held_since(&self) -> Option<u64> {
        self.pending.front().map(|event| event.sent_before)
    }

    /// Where to read again from, when events up to `cursor` have been seen.
    pub(super) fn resume(&self, cursor: u64) -> ResumePoint {
        let (sequence, offset) = match self.pending.front() {
            Some(first) => (first.sequence, first.offset),
            None => self.expect.max((cursor + 1, 0)),
        };
        let number = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        ResumePoint {
            sequence,
            offset,
            covered: number(self.masker.covered()),
            parsed: number(self.masker.held().len() + self.parsed),
            joined: self.masker.joined(),
            at_start: self.scanner.at_start(),
            swallow: self.scanner.swallows(),
        }
    }

    /// What is held back, event by event.
    pub(super) fn held(&self, channel: Channel) -> Vec<HeldBytes> {
        let held = [self.masker.held(), self.scanner.held()].concat();
        let mut rest = held.as_slice();
        let pieces = self.pending.iter().map(|event| {
            let (data, behind) = rest.split_at(rest.len().min(event.len as usize));
            rest = behind;
            HeldBytes {
                sequence: event.sequence,
                offset: event.offset,
                step: self.step,
                channel,
                data: data.to_vec(),
            }
        });
        pieces.collect()
    }

    /// Takes an event's bytes from `offset` on, or those of them that were not taken before. `sent_before` is what the
    /// agent had sent before it.
    pub(super) fn accept<'a>(&mut self, sequence: u64, offset: u32, data: &'a [u8], sent_before: u64) -> Input<'a> {
        let from = if sequence == self.expect.0 {
            self.expect.1.max(offset)
        } else {
            offset
        };
        let is_new = sequence >= self.expect.0;
        let bytes = data
            .get((from - offset) as usize..)
            .filter(|_| is_new)
            .unwrap_or_default();
        if is_new {
            self.expect = (sequence + 1, 0);
        }
        if !bytes.is_empty() {
            self.pending.push_back(PendingEvent {
                sequence,
                offset: from,
                len: bytes.len() as u64,
                sent_before,
            });
        }
        Input { bytes, ends: false }
    }

    /// Passes bytes on until something is found, or all are taken; what may be shown goes to `out`.
    pub(super) fn advance(
        &mut self,
        input: &mut Input<'_>,
        gate: &CommandGate,
        patterns: Option<&Patterns>,
        out: &mut Vec<u8>,
    ) -> Option<Finding> {
        if !self.deferred.is_empty() {
            self.masker.feed(patterns, &self.deferred, out);
            self.deferred.clear();
        }
        if self.parsed > 0 {
            let (parsed, bytes) = input.bytes.split_at(self.parsed.min(input.bytes.len()));
            self.masker.feed(patterns, parsed, out);
            self.parsed -= parsed.len();
            input.bytes = bytes;
        }
        while let Some(piece) = self.scanner.next(&mut input.bytes, input.ends, gate) {
            match piece {
                Piece::Text(text) => {
                    self.masker.feed(patterns, text, out);
                    let goes_on = self.partial_mask.as_mut().and_then(|partial| partial.feed(text));
                    if goes_on.is_some() {
                        self.partial_mask = None;
                    }
                    if goes_on == Some(true) {
                        return Some(Finding::PartialMask);
                    }
                }
                Piece::Command { head, value, action } => match action {
                    Action::Mask(value) => {
                        // No secret goes on across a command: its line is replaced here.
                        self.masker.flush(out);
                        out.extend_from_slice(head);
                        out.extend_from_slice(forms::MASK);
                        self.partial_mask = PartialMask::behind(&String::from_utf8_lossy(&value));
                        return Some(Finding::Mask(value));
                    }
                    Action::Stop(token) => {
                        self.deferred.extend_from_slice(head);
                        self.deferred.extend_from_slice(value);
                        return Some(Finding::StopCommands(token));
                    }
                    Action::Resume => {
                        self.deferred.extend_from_slice(head);
                        self.deferred.extend_from_slice(value);
                        return Some(Finding::ResumeCommands);
                    }
                },
                Piece::TooLong => {
                    self.masker.flush(out);
                    out.extend_from_slice(b"::add-mask::***");
                    return Some(Finding::MaskTooLong);
                }
            }
        }
        if input.ends {
            return self.end(out);
        }
        self.settle();
        None
    }

    /// Releases what is left at the end of a step. The next one begins with a line of its own.
    fn end(&mut self, out: &mut Vec<u8>) -> Option<Finding> {
        self.scanner = Scanner::new(true, false);
        self.masker.flush(out);
        self.parsed = 0;
        self.settle();
        let partial = self.partial_mask.take()?;
        partial.goes_on().then_some(Finding::PartialMask)
    }

    /// Forgets the events whose bytes have all been released.
    fn settle(&mut self) {
        let held = (self.masker.held().len() + self.scanner.held().len()) as u64;
        let total: u64 = self.pending.iter().map(|event| event.len).sum();
        let mut released = total.saturating_sub(held);
        while let Some(first) = self.pending.front_mut() {
            if released < first.len {
                first.len -= released;
                first.offset += released as u32;
                break;
            }
            released -= first.len;
            self.pending.pop_front();
        }
    }
}
