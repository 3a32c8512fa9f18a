//! Finding secrets in a stream. Every place where any form of any secret occurs is masked;
//! overlapping and adjoining places become one `***`. What is held back at the end of a piece is
//! exactly the longest suffix that is a proper prefix of some form, so a prompt without a newline
//! appears at once unless it looks like the beginning of a secret.
//!
//! Speed: a bitmap of the forms' first four bytes is asked at every byte; only where it says yes
//! does the Aho-Corasick automaton run, and it stops as soon as nothing in progress is longer than
//! three bytes. Every run of it covers at least four bytes and moves on by at least one, so the time
//! is linear whatever guest and forms look like.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicU64, Ordering},
};

use aho_corasick::{
    Anchored, MatchKind,
    automaton::{Automaton, StateID},
    nfa::noncontiguous::NFA,
};

use super::{command, error::LogError, forms};
use crate::secret::Secret;

static NEXT: AtomicU64 = AtomicU64::new(1);

/// What the automaton knows in one of its states.
#[derive(Clone, Copy, Default)]
struct Node {
    /// Length of the longest suffix of the text that begins some form.
    depth: u32,
    /// The same, of the suffixes that a longer form could still continue.
    open: u32,
    /// Length of the longest form that ends here; 0 for none.
    found: u32,
}

/// All forms of a set of secrets, ready to be searched for.
pub(super) struct Patterns {
    /// Tells these patterns from earlier ones: a state belongs to one automaton alone.
    id: u64,
    nfa: NFA,
    start: StateID,
    nodes: Vec<Node>,
    /// One bit per hash of a form's first four bytes.
    filter: Box<[u64; 1024]>,
}

impl Patterns {
    /// Of every form of `secrets`; none when there is nothing to search for.
    pub(super) fn new(secrets: &[Secret]) -> Result<Option<Self>, LogError> {
        let mut set = BTreeSet::new();
        for secret in secrets {
            forms::add(secret, &mut set);
        }
        let bytes = set.iter().map(Vec::len).sum();
        let too_many = || LogError::TooManyMasks {
            masks: secrets.len(),
            bytes,
        };
        if set.is_empty() {
            return Ok(None);
        }
        if bytes > forms::LIMIT || secrets.len() > forms::MAX_MASKS {
            return Err(too_many());
        }
        let nfa = NFA::builder()
            .match_kind(MatchKind::Standard)
            .prefilter(false)
            .build(&set)
            .map_err(|_| too_many())?;
        let start = nfa.start_state(Anchored::No).map_err(|_| too_many())?;
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut patterns = Self {
            id,
            nfa,
            start,
            nodes: Vec::new(),
            filter: Box::new([0; 1024]),
        };
        patterns.learn(&set);
        Ok(Some(patterns))
    }

    /// Fills `nodes` and `filter` by walking every form.
    fn learn(&mut self, set: &BTreeSet<Vec<u8>>) {
        // Shorter forms first: what a form's own suffixes contain is then already known.
        let mut forms: Vec<&Vec<u8>> = set.iter().collect();
        forms.sort_by_key(|form| form.len());
        for form in &forms {
            let slot = filter_slot(form);
            self.filter[slot / 64] |= 1 << (slot % 64);
            let mut state = self.start;
            for (i, &byte) in form.iter().enumerate() {
                state = self.nfa.next_state(Anchored::No, state, byte);
                let last = i + 1 == form.len();
                let found = self.longest_match(state);
                let node = self.node_mut(state);
                node.depth = i as u32 + 1;
                node.found = found;
                if !last {
                    node.open = node.depth;
                }
            }
        }
        // A form that no other continues holds nothing of itself; its longest open suffix counts.
        for form in &forms {
            let end = self.run(form);
            if self.nodes[end.as_usize()].open == 0 {
                let shorter = self.run(&form[1..]);
                let open = self.nodes.get(shorter.as_usize()).map_or(0, |node| node.open);
                self.node_mut(end).open = open;
            }
        }
    }

    fn run(&self, text: &[u8]) -> StateID {
        text.iter().fold(self.start, |state, &byte| {
            self.nfa.next_state(Anchored::No, state, byte)
        })
    }

    fn longest_match(&self, state: StateID) -> u32 {
        if !self.nfa.is_match(state) {
            return 0;
        }
        // A state lists its own form first, then those of its ever shorter suffixes.
        self.nfa.pattern_len(self.nfa.match_pattern(state, 0)) as u32
    }

    fn node_mut(&mut self, state: StateID) -> &mut Node {
        let index = state.as_usize();
        if self.nodes.len() <= index {
            self.nodes.resize(index + 1, Node::default());
        }
        &mut self.nodes[index]
    }

    fn node(&self, state: StateID) -> Node {
        self.nodes.get(state.as_usize()).copied().unwrap_or_default()
    }

    /// The first place from `at` on where four bytes may begin a form, if there is one.
    fn candidate(&self, text: &[u8], at: usize) -> Option<usize> {
        text.get(at..)?
            .windows(4)
            .position(|four| {
                let slot = filter_slot(four);
                self.filter[slot / 64] >> (slot % 64) & 1 != 0
            })
            .map(|i| at + i)
    }
}

/// A hash of the first four bytes, below 65536.
fn filter_slot(four: &[u8]) -> usize {
    let word = u32::from_le_bytes([four[0], four[1], four[2], four[3]]);
    (word.wrapping_mul(0x9E37_79B1) >> 16) as usize
}

/// One channel's place in the search.
#[derive(Default)]
pub(super) struct Hold {
    /// Bytes seen and not released.
    held: Vec<u8>,
    /// How many of them belong to a mask that is already shown.
    covered: usize,
    /// The byte before `held` belongs to a mask, so that a mask beginning here shows nothing new.
    joined: bool,
    /// Only blanks stand before `held` in its line.
    at_start: bool,
    /// The automaton's state behind `held`, and the patterns it belongs to.
    state: Option<(u64, StateID)>,
    /// Forms found in `held`, not yet shown because a longer one may begin before them.
    found: Vec<(usize, usize)>,
}

impl Hold {
    /// After a restart: see [`Hold::covered`], [`Hold::joined`] and [`Hold::at_start`].
    pub(super) fn resumed(covered: usize, joined: bool, at_start: bool) -> Self {
        Self {
            covered,
            joined,
            at_start,
            ..Self::default()
        }
    }

    /// Bytes held back.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// How many bytes from the first held one on are shown already.
    pub(super) fn covered(&self) -> usize {
        self.covered
    }

    /// Whether the last released byte belongs to a mask.
    pub(super) fn joined(&self) -> bool {
        self.joined
    }

    /// Whether only blanks stand before the first held byte in its line.
    pub(super) fn at_start(&self) -> bool {
        self.at_start
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
        let (mut state, mut at) = match self.state {
            Some((id, state)) if id == patterns.id => (state, seen),
            // With other patterns, what is held is looked at again.
            _ => {
                self.found.clear();
                (patterns.start, 0)
            }
        };
        let mut begun = 0; // Where the automaton last started from its root.
        while at < text.len() {
            let depth = patterns.node(state).depth as usize;
            if depth < 4 && (at >= begun + 4 || state == patterns.start) {
                // The last three bytes are too few for the filter and always go to the automaton.
                let from = at - depth;
                at = patterns
                    .candidate(text, from)
                    .unwrap_or_else(|| from.max(text.len().saturating_sub(3)));
                begun = at;
                state = patterns.start;
                if at >= text.len() {
                    break;
                }
            }
            state = patterns.nfa.next_state(Anchored::No, state, text[at]);
            at += 1;
            let found = patterns.node(state).found as usize;
            if found > 0 {
                self.note(at - found, at);
            }
        }
        self.state = Some((patterns.id, state));
        let released = text.len() - patterns.node(state).open as usize;
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

    /// Shows everything before `until`; places are from then on counted from there.
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
        self.at_start = command::is_start(&text[..until], self.at_start);
    }
}

#[cfg(test)]
mod tests;
