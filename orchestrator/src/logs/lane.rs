//! One channel of the agent on its way through parser and masker, and where it would have to be
//! read again from after a crash.

use std::collections::VecDeque;

use super::{
    command::{Parser, Piece, unescape},
    mask::{Hold, Patterns},
    record::Resume,
    rest::Rest,
};

/// A stretch of an event's bytes that is not released in full.
struct Pending {
    sequence: u64,
    offset: u32,
    len: u64,
}

/// What a lane meets on its way.
pub(super) enum Found<'a> {
    /// An `::add-mask::` with this value, still escaped. What the callback returns is searched for
    /// from here on.
    Value(&'a [u8]),
    /// One that is too long.
    TooLong,
    /// The line behind one is evidently the rest of its value, and is shown.
    Rest,
}

/// See the module.
pub(super) struct Lane {
    parser: Parser,
    hold: Hold,
    /// Events with bytes that are held back, oldest first.
    pending: VecDeque<Pending>,
    /// The first event, and the place in it, that has not been taken.
    expect: (u64, u32),
    /// Behind an `::add-mask::` whose value may be a first line only.
    rest: Option<Rest>,
    /// The step of what is held.
    pub(super) step: u32,
}

impl Lane {
    /// As it was when `resume` was written.
    pub(super) fn new(resume: Resume) -> Self {
        Self {
            parser: Parser::new(resume.at_start, resume.swallow),
            hold: Hold::resumed(resume.covered as usize, resume.joined, resume.at_start),
            pending: VecDeque::new(),
            expect: (resume.sequence, resume.offset),
            rest: None,
            step: 0,
        }
    }

    /// Whether anything is held back.
    pub(super) fn holds(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Where to read again from, when events up to `cursor` have been seen.
    pub(super) fn resume(&self, cursor: u64) -> Resume {
        let (sequence, offset) = match self.pending.front() {
            Some(first) => (first.sequence, first.offset),
            None => self.expect.max((cursor + 1, 0)),
        };
        Resume {
            sequence,
            offset,
            covered: u32::try_from(self.hold.covered()).unwrap_or(u32::MAX),
            joined: self.hold.joined(),
            at_start: if self.hold.len() > 0 {
                self.hold.at_start()
            } else {
                self.parser.at_start()
            },
            swallow: self.parser.swallows(),
        }
    }

    /// Takes an event's bytes; what may be shown goes to `out`. An event taken before is ignored.
    pub(super) fn feed(
        &mut self,
        sequence: u64,
        data: &[u8],
        patterns: &mut Option<Patterns>,
        out: &mut Vec<u8>,
        mut found: impl FnMut(Found<'_>, &mut Option<Patterns>),
    ) {
        if sequence < self.expect.0 {
            return;
        }
        let skip = if sequence == self.expect.0 { self.expect.1 } else { 0 };
        let data = data.get(skip as usize..).unwrap_or_default();
        self.expect = (sequence + 1, 0);
        if !data.is_empty() {
            self.pending.push_back(Pending {
                sequence,
                offset: skip,
                len: data.len() as u64,
            });
        }
        let (hold, rest) = (&mut self.hold, &mut self.rest);
        self.parser
            .feed(data, |piece| show(piece, hold, rest, patterns, out, &mut found));
        self.settle();
    }

    /// The step has ended: everything held is shown, masked where it must be.
    pub(super) fn end(
        &mut self,
        patterns: &mut Option<Patterns>,
        out: &mut Vec<u8>,
        mut found: impl FnMut(Found<'_>, &mut Option<Patterns>),
    ) {
        let (hold, rest) = (&mut self.hold, &mut self.rest);
        self.parser
            .end(|piece| show(piece, hold, rest, patterns, out, &mut found));
        self.hold.flush(out);
        if self.rest.take().is_some_and(|rest| rest.goes_on()) {
            found(Found::Rest, patterns);
        }
        self.settle();
    }

    /// Forgets the events whose bytes have all been released.
    fn settle(&mut self) {
        let held = (self.hold.len() + self.parser.held()) as u64;
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

fn show(
    piece: Piece<'_>,
    hold: &mut Hold,
    rest: &mut Option<Rest>,
    patterns: &mut Option<Patterns>,
    out: &mut Vec<u8>,
    found: &mut impl FnMut(Found<'_>, &mut Option<Patterns>),
) {
    match piece {
        Piece::Text(text) => {
            hold.feed(patterns.as_ref(), text, out);
            if let Some(goes_on) = rest.as_mut().and_then(|rest| rest.feed(text)) {
                *rest = None;
                if goes_on {
                    found(Found::Rest, patterns);
                }
            }
        }
        Piece::Mask { head, value } => {
            // No secret goes on across a command: its line is replaced here.
            hold.flush(out);
            out.extend_from_slice(head);
            out.extend_from_slice(super::forms::MASK);
            *rest = Rest::behind(&String::from_utf8_lossy(&unescape(value)));
            found(Found::Value(value), patterns);
        }
        Piece::TooLong => {
            hold.flush(out);
            out.extend_from_slice(b"::add-mask::***");
            found(Found::TooLong, patterns);
        }
    }
}
