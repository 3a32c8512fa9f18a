//! Finds commands in a channel's bytes as they come. Everything else passes through untouched and at once: only what may
//! become a command that the `gate` obeys is held until its line has ended or it turned out to be something else.

use memchr::memmem;

use super::{Action, BRACKETS, CommandGate, MAX_COMMAND, Opening, is_blank};

/// One channel's state between its bytes.
#[derive(Debug)]
pub(in crate::logs) struct Scanner {
    /// Only blanks stand in the line before what is held, or before the next byte.
    at_start: bool,
    mode: Mode,
    /// What is held: from the first byte of what may be a command on.
    line: Vec<u8>,
    /// So many bytes of it were given away as text.
    released: usize,
    /// The line does not go on.
    is_whole: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Text,
    Held,
    /// The rest of an overlong command, up to the line's end.
    Swallow,
}

/// What the bytes consist of.
pub(in crate::logs) enum Piece<'a> {
    /// Text to show.
    Text(&'a [u8]),
    /// A command: the line up to the value, the value as it was written, and what is to be done. The line's end is text.
    Command {
        head: &'a [u8],
        value: &'a [u8],
        action: Action,
    },
    /// An `::add-mask::` whose line is longer than [`MAX_COMMAND`]; the rest of the line is dropped.
    TooLong,
}

/// What a held line is.
enum Verdict {
    /// More of the line is needed.
    Unfinished,
    /// Text, up to this byte; from there on it may be a command.
    Text(usize),
    /// A command whose value begins here.
    Command(usize, Action),
    TooLong,
}

impl Scanner {
    /// See [`Scanner::at_start`] and [`Scanner::swallows`].
    pub(in crate::logs) fn new(at_start: bool, swallows: bool) -> Self {
        Self {
            at_start,
            mode: if swallows { Mode::Swallow } else { Mode::Text },
            line: Vec::new(),
            released: 0,
            is_whole: false,
        }
    }

    /// The bytes held back.
    pub(in crate::logs) fn held(&self) -> &[u8] {
        match self.mode {
            Mode::Held => &self.line[self.released..],
            Mode::Text | Mode::Swallow => &[],
        }
    }

    /// Whether only blanks stand in the line before what is held, or before the next byte.
    pub(in crate::logs) fn at_start(&self) -> bool {
        self.at_start
    }

    /// Whether the rest of the line is dropped: it belongs to an overlong command.
    pub(in crate::logs) fn swallows(&self) -> bool {
        self.mode == Mode::Swallow
    }

    /// The next piece, of which `data` loses the bytes; none when all of it is given away or held. `ends` says that nothing
    /// follows `data`, which ends the line.
    pub(in crate::logs) fn next<'a, 'd: 'a>(
        &'a mut self,
        data: &mut &'d [u8],
        ends: bool,
        gate: &CommandGate,
    ) -> Option<Piece<'a>> {
        loop {
            match self.mode {
                Mode::Text if data.is_empty() => return None,
                Mode::Text => {
                    let candidate = self.candidate(data);
                    let (text, rest) = data.split_at(candidate.unwrap_or(data.len()));
                    *data = rest;
                    self.at_start = is_start(text, self.at_start);
                    if candidate.is_some() {
                        self.mode = Mode::Held;
                        self.line.clear();
                        (self.released, self.is_whole) = (0, false);
                    }
                    if !text.is_empty() {
                        return Some(Piece::Text(text));
                    }
                }
                Mode::Swallow => match memchr::memchr2(b'\n', b'\r', data) {
                    Some(end) => {
                        self.mode = Mode::Text;
                        self.at_start = false;
                        *data = &data[end..];
                    }
                    None => {
                        *data = &[];
                        return None;
                    }
                },
                Mode::Held => {
                    self.collect(data, ends);
                    let verdict = self.verdict(gate);
                    self.at_start &= matches!(verdict, Verdict::Unfinished);
                    match verdict {
                        Verdict::Unfinished => return None,
                        Verdict::Text(until) => {
                            if until == self.line.len() {
                                self.mode = Mode::Text;
                            }
                            self.released = until;
                            return Some(Piece::Text(&self.line[..until]));
                        }
                        Verdict::Command(value, action) => {
                            self.mode = Mode::Text;
                            let (head, value) = self.line.split_at(value);
                            return Some(Piece::Command { head, value, action });
                        }
                        Verdict::TooLong => {
                            self.mode = Mode::Swallow;
                            return Some(Piece::TooLong);
                        }
                    }
                }
            }
        }
    }

    /// Adds to the held line what `data` has of it.
    fn collect(&mut self, data: &mut &[u8], ends: bool) {
        self.line.drain(..std::mem::take(&mut self.released));
        if self.is_whole {
            return;
        }
        let end = memchr::memchr2(b'\n', b'\r', data);
        // A little more than the limit is enough to know that it is crossed.
        let take = end
            .unwrap_or(data.len())
            .min((MAX_COMMAND + 1).saturating_sub(self.line.len()));
        self.line.extend_from_slice(&data[..take]);
        *data = &data[take..];
        self.is_whole = end == Some(take) || (ends && data.is_empty());
    }

    fn verdict(&self, gate: &CommandGate) -> Verdict {
        let line = self.line.as_slice();
        let Some(opening) = Opening::of(line).filter(|opening| gate.may_obey(opening)) else {
            return self.text(gate);
        };
        if line.len() > MAX_COMMAND {
            return if gate.is_mask(&opening) {
                Verdict::TooLong
            } else {
                self.text(gate)
            };
        }
        if !self.is_whole {
            return Verdict::Unfinished;
        }
        let parts = opening.is_whole.then(|| opening.close(line)).flatten();
        match parts {
            Some(parts) => match gate.action(&parts, self.at_start) {
                Some(action) => Verdict::Command(parts.head.len(), action),
                None => self.text(gate),
            },
            // Without the bracket that closes it nothing behind it is closed either.
            None if opening.spelling == &BRACKETS => Verdict::Text(line.len()),
            None => self.text(gate),
        }
    }

    /// The held line is text at least up to the next command of the spelling that may stand anywhere.
    fn text(&self, gate: &CommandGate) -> Verdict {
        let line = self.line.as_slice();
        let may_obey = |at: &usize| Opening::of(&line[*at..]).is_some_and(|opening| gate.may_obey(&opening));
        let behind = line.get(1..).unwrap_or_default();
        let next = memmem::find_iter(behind, BRACKETS.opening)
            .map(|at| at + 1)
            .find(may_obey);
        let next = next.or_else(|| Some(1 + half_opening(behind)?).filter(|_| !self.is_whole));
        Verdict::Text(next.unwrap_or(line.len()))
    }

    /// Where in `data` what may be a command begins.
    fn candidate(&self, data: &[u8]) -> Option<usize> {
        let colons = self.colons(data);
        // Looked for before that only, so that many lines that begin with colons are not searched again and again.
        let before = &data[..colons.unwrap_or(data.len())];
        let brackets = memmem::find(before, BRACKETS.opening);
        brackets.or(colons).or_else(|| half_opening(data))
    }

    /// Where a line begins with two colons, or with what may become them.
    fn colons(&self, data: &[u8]) -> Option<usize> {
        if self.at_start && data.iter().find(|b| !is_blank(**b)) == Some(&b':') {
            return data.iter().position(|b| *b == b':');
        }
        let begins_line = |at: usize| is_start(&data[..at], self.at_start);
        if let Some(at) = memmem::find_iter(data, b"::").find(|at| begins_line(*at)) {
            return Some(at);
        }
        // A colon may be the first half of the two.
        let last = data.len().checked_sub(1)?;
        (data[last] == b':' && begins_line(last)).then_some(last)
    }
}

/// Where `data` ends with the beginning of `##[`.
fn half_opening(data: &[u8]) -> Option<usize> {
    let count = data.iter().rev().take(2).take_while(|byte| **byte == b'#').count();
    (count > 0).then(|| data.len() - count)
}

/// Whether only blanks stand behind the last line end in `text`; `before` answers for text without one.
fn is_start(text: &[u8], before: bool) -> bool {
    match text.iter().rev().find(|b| !is_blank(**b)) {
        Some(byte) => matches!(byte, b'\n' | b'\r'),
        None => before,
    }
}
