//! Finding secrets in a stream. Every occurrence of any form of any secret is masked;
//! overlapping and adjoining ones become one `***`. What is held back at the end of a piece is
//! exactly the longest suffix that is a proper prefix of some form, so a prompt without a newline
//! appears at once unless it looks like the beginning of a secret.
//!
//! A stream is read in several ways at once (`alphabet`), each with an automaton of its own
//! (`automaton`), because an encoding may be wrapped anywhere.
//!
//! Speed: a bitmap of the forms' first four bytes is asked at every byte (`filter`); only where it
//! says yes do the Aho-Corasick automatons run, and they stop as soon as nothing in progress is longer
//! than three symbols. Every run of theirs covers at least eight bytes and moves on by at least three,
//! so the time is linear whatever guest and forms look like.

mod alphabet;
mod automaton;
mod filter;

use std::sync::atomic::{AtomicU64, Ordering};

use self::{
    alphabet::Alphabet,
    automaton::{Automaton, State},
    filter::Filter,
};
use super::{
    error::LogError,
    forms::{self, Forms},
};
use crate::secret::Secret;

static NEXT: AtomicU64 = AtomicU64::new(1);

/// How many bytes the automatons read at least: more than what of a form's beginning may be in
/// progress without being a place for the filter (three symbols and two separators), and some more.
const RUN: usize = 8;

/// All forms of a set of secrets, ready to be searched for.
pub(super) struct Patterns {
    /// Tells these patterns from earlier ones: a state belongs to one automaton alone.
    id: u64,
    automatons: Vec<Automaton>,
    filter: Filter,
}

impl Patterns {
    /// Of every form of `secrets`; none when there is nothing to search for.
    pub(super) fn new(secrets: &[Secret]) -> Result<Option<Self>, LogError> {
        let text: usize = secrets.iter().map(|secret| secret.expose().len()).sum();
        if text > forms::MAX_TEXT || secrets.len() > forms::MAX_MASKS {
            return Err(LogError::TooManyMasks {
                masks: secrets.len(),
                bytes: text,
            });
        }
        let forms = Forms::of(secrets);
        let bytes = forms.size();
        let too_many = || LogError::TooManyMasks {
            masks: secrets.len(),
            bytes,
        };
        if bytes == 0 {
            return Ok(None);
        }
        if bytes > forms::LIMIT {
            return Err(too_many());
        }
        let mut patterns = Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            automatons: Vec::new(),
            filter: Filter::new(),
        };
        for (alphabet, set) in [
            (Alphabet::Plain, &forms.plain),
            (Alphabet::Base64, &forms.base64),
            (Alphabet::Hex, &forms.hex),
        ] {
            for first in set.iter().filter_map(|form| form.first_chunk()) {
                for opening in alphabet.openings(*first) {
                    patterns.filter.add(opening);
                }
            }
            if !set.is_empty() {
                patterns
                    .automatons
                    .push(Automaton::new(alphabet, set).map_err(|_| too_many())?);
            }
        }
        Ok(Some(patterns))
    }

    /// Nothing has begun before byte `at`.
    fn begin(&self, at: u64) -> Vec<State> {
        self.automatons.iter().map(|automaton| automaton.begin(at)).collect()
    }

    /// Forgets what has begun and goes on at byte `at`.
    fn restart(&self, states: &mut [State], at: u64) {
        for (automaton, state) in self.automatons.iter().zip(states) {
            automaton.restart(state, at);
        }
    }

    /// Where what has begun first begins; how far they have read when nothing has.
    fn start(&self, states: &[State]) -> Option<u64> {
        self.automatons
            .iter()
            .zip(states)
            .map(|(automaton, state)| automaton.start(state))
            .min()
    }

    /// Whether nothing has begun that the filter would not see again.
    fn is_shallow(&self, states: &[State]) -> bool {
        self.automatons
            .iter()
            .zip(states)
            .all(|(automaton, state)| automaton.depth(state) < 4)
    }
}

/// The search in one channel: what is found, and what is held back until it is certain.
#[derive(Default)]
pub(super) struct Masker {
    /// Bytes seen and not released.
    held: Vec<u8>,
    /// How many of them belong to a mask that is already shown.
    covered: usize,
    /// The byte before `held` belongs to a mask, so that a mask beginning here shows nothing new.
    joined: bool,
    /// How the automatons stand behind `held`, and the patterns they belong to.
    states: Option<(u64, Vec<State>)>,
    /// How many bytes of the channel came before `held`.
    base: u64,
    /// Forms found in `held`, not yet shown because a longer one may begin before them.
    found: Vec<(usize, usize)>,
}

impl Masker {
    /// After a restart: see [`Masker::covered`] and [`Masker::joined`].
    pub(super) fn resumed(covered: usize, joined: bool) -> Self {
        Self {
            covered,
            joined,
            ..Self::default()
        }
    }

    /// The bytes held back.
    pub(super) fn held(&self) -> &[u8] {
        &self.held
    }

    /// How many bytes from the first held one on are shown already.
    pub(super) fn covered(&self) -> usize {
        self.covered
    }

    /// Whether the last released byte belongs to a mask.
    pub(super) fn joined(&self) -> bool {
        self.joined
    }

    /// Searches `data`, appends what is certain to `out`. Returns how many bytes of the channel were
    /// released, held ones first.
    pub(super) fn feed(&mut self, patterns: Option<&Patterns>, data: &[u8], out: &mut Vec<u8>) -> usize {
        let Some(patterns) = patterns else {
            self.emit(data, data.len(), out);
            return data.len();
        };
        if self.held.is_empty() {
            let released = self.search(patterns, data, 0, out);
            self.held.extend_from_slice(&data[released..]);
            return released;
        }
        let mut text = std::mem::take(&mut self.held);
        let seen = text.len();
        text.extend_from_slice(data);
        let released = self.search(patterns, &text, seen, out);
        text.drain(..released);
        self.held = text;
        released
    }

    /// The end of a step: nothing can continue what is held. Returns how much was released.
    pub(super) fn flush(&mut self, out: &mut Vec<u8>) -> usize {
        let text = std::mem::take(&mut self.held);
        self.emit(&text, text.len(), out);
        *self = Self::default();
        text.len()
    }

    /// Searches `text`, of which the first `seen` bytes have been searched before; returns how many
    /// bytes were released.
    fn search(&mut self, patterns: &Patterns, text: &[u8], seen: usize, out: &mut Vec<u8>) -> usize {
        let base = self.base;
        let (mut states, mut at) = match self.states.take() {
            Some((id, states)) if id == patterns.id => (states, seen),
            // With other patterns, what is held is searched again.
            _ => {
                self.found.clear();
                (patterns.begin(base), 0)
            }
        };
        let offset = |byte: u64| (byte - base) as usize;
        let mut begun = 0; // Where the automatons last started from their roots.
        while at < text.len() {
            let from = patterns.start(&states).map_or(at, offset);
            // Never from the same byte again, whatever is in progress: that would not end.
            if from == at || (at >= begun + RUN && from > begun && patterns.is_shallow(&states)) {
                // The last three bytes are too few for the filter and always go to the automatons.
                at = patterns
                    .filter
                    .find(text, from)
                    .unwrap_or_else(|| from.max(text.len().saturating_sub(3)));
                begun = at;
                patterns.restart(&mut states, base + at as u64);
                if at >= text.len() {
                    break;
                }
            }
            let mut start = None;
            for (automaton, state) in patterns.automatons.iter().zip(&mut states) {
                let found = automaton.step(state, text[at]);
                start = start.into_iter().chain(found).min();
            }
            at += 1;
            if let Some(start) = start {
                self.note(offset(start), at);
            }
        }
        let released = patterns.start(&states).map_or(text.len(), offset);
        self.states = Some((patterns.id, states));
        self.base += released as u64;
        self.emit(text, released, out);
        released
    }

    /// Remembers that `start..end` is to be masked.
    fn note(&mut self, mut start: usize, end: usize) {
        while let Some(&(before, until)) = self.found.last() {
            if until < start {
                break;
            }
            start = start.min(before);
            self.found.pop();
        }
        self.found.push((start, end));
    }

    /// Shows everything before `until`; the forms found are counted from there from then on.
    fn emit(&mut self, text: &[u8], until: usize, out: &mut Vec<u8>) {
        let mut covered = self.covered;
        let mut joined = self.joined || covered > 0;
        let mut at = covered.min(until);
        let mut shown = 0;
        for &(start, end) in &self.found {
            if start > covered || !joined {
                if start >= until {
                    break;
                }
                out.extend_from_slice(&text[at..start]);
                out.extend_from_slice(forms::MASK);
            }
            shown += 1;
            joined = true;
            covered = covered.max(end);
            at = covered.min(until);
        }
        out.extend_from_slice(&text[at..until]);
        self.found.drain(..shown);
        for (start, end) in &mut self.found {
            *start -= until;
            *end -= until;
        }
        if until > 0 {
            self.joined = joined && covered >= until;
        }
        self.covered = covered.saturating_sub(until);
    }
}

#[cfg(test)]
mod tests;
