//! One way of reading a stream in search of forms, and its state in a channel. Bytes are counted
//! from the channel's first.

use std::{
    collections::{BTreeSet, VecDeque},
    ops::Range,
};

use aho_corasick::{
    Anchored, BuildError, MatchKind,
    automaton::{Automaton as _, StateID},
    nfa::noncontiguous::NFA,
};

use super::alphabet::{Alphabet, BEFORE_GAP, Class, MAX_GAP};

/// What is known of one of the automaton's states.
#[derive(Clone, Copy)]
struct Node {
    /// Symbols of the beginning of a form that the state stands for; 0 at the root.
    depth: u32,
    /// The state of the longest shorter one that the text then ends with as well.
    shorter: StateID,
    /// A form goes on from here.
    open: bool,
}

/// Forms of one alphabet, ready to be searched for.
pub(super) struct Automaton {
    alphabet: Alphabet,
    nfa: NFA,
    root: StateID,
    nodes: Vec<Node>,
}

/// Bytes that are passed over within what may become a form.
#[derive(Debug)]
struct Gap {
    /// Symbols before it.
    symbols: u64,
    bytes: Range<u64>,
    /// Symbols of a form that must stand before it.
    least: u8,
}

/// How an automaton stands in a channel: the longest beginning of a form that the text ends with.
#[derive(Debug)]
pub(super) struct State {
    id: StateID,
    /// Symbols so far.
    symbols: u64,
    /// The byte behind the text so far.
    at: u64,
    /// The gaps within that beginning, in order.
    gaps: VecDeque<Gap>,
}

impl Automaton {
    pub(super) fn new(alphabet: Alphabet, forms: &BTreeSet<Vec<u8>>) -> Result<Self, BuildError> {
        let nfa = NFA::builder()
            .match_kind(MatchKind::Standard)
            .prefilter(false)
            .build(forms)?;
        // The builder makes both kinds of start, so that this cannot fail.
        let root = nfa.start_state(Anchored::No).unwrap_or(StateID::ZERO);
        let mut automaton = Self {
            alphabet,
            nfa,
            root,
            nodes: Vec::new(),
        };
        for form in forms {
            automaton.learn(form);
        }
        Ok(automaton)
    }

    /// Fills `nodes` by walking a form, and, one symbol behind, the longest shorter ones.
    fn learn(&mut self, form: &[u8]) {
        let (mut state, mut shorter) = (self.root, self.root);
        for (i, &symbol) in form.iter().enumerate() {
            state = self.nfa.next_state(Anchored::No, state, symbol);
            if i > 0 {
                shorter = self.nfa.next_state(Anchored::No, shorter, symbol);
            }
            let (root, index) = (self.root, state.as_usize());
            if self.nodes.len() <= index {
                let none = Node {
                    depth: 0,
                    shorter: root,
                    open: false,
                };
                self.nodes.resize(index + 1, none);
            }
            let node = &mut self.nodes[index];
            node.depth = i as u32 + 1;
            node.shorter = shorter;
            node.open |= i + 1 < form.len();
        }
    }

    fn node(&self, state: StateID) -> Node {
        self.nodes.get(state.as_usize()).copied().unwrap_or(Node {
            depth: 0,
            shorter: self.root,
            open: false,
        })
    }

    /// The state before a channel's byte `at`, where nothing has begun.
    pub(super) fn begin(&self, at: u64) -> State {
        State {
            id: self.root,
            symbols: 0,
            at,
            gaps: VecDeque::new(),
        }
    }

    /// Goes to such a state.
    pub(super) fn restart(&self, state: &mut State, at: u64) {
        state.id = self.root;
        state.at = at;
        state.gaps.clear();
    }

    /// Symbols of the beginning that a state stands for.
    pub(super) fn depth(&self, state: &State) -> usize {
        self.node(state.id).depth as usize
    }

    /// Where the beginning that a state stands for begins; behind the text when there is none.
    pub(super) fn start(&self, state: &State) -> u64 {
        match self.node(state.id).depth {
            0 => state.at,
            depth => state.byte_of(state.symbols - u64::from(depth)),
        }
    }

    /// Reads one byte. Returns where a form begins that ends with it: of several, the longest.
    pub(super) fn step(&self, state: &mut State, byte: u8) -> Option<u64> {
        state.at += 1;
        let least = match self.alphabet.class(byte) {
            Class::Symbol(symbol) => {
                state.symbols += 1;
                state.id = self.nfa.next_state(Anchored::No, state.id, symbol);
                let found = self.found(state);
                self.settle(state);
                return found;
            }
            // Nothing has begun, so nothing is interrupted.
            _ if state.id == self.root => return None,
            Class::Gap(least) => Some(least),
            Class::Indent => state.open_gap().map(|gap| gap.least),
            Class::Other => None,
        };
        if least.is_some_and(|least| state.widen(least)) {
            self.settle(state);
        } else {
            state.id = self.root;
            state.gaps.clear();
        }
        None
    }

    /// Where the longest form begins that ends here.
    fn found(&self, state: &State) -> Option<u64> {
        if !self.nfa.is_match(state.id) {
            return None;
        }
        // A state lists its own form first, then those of its ever shorter ones.
        (0..self.nfa.match_len(state.id)).find_map(|i| {
            let length = self.nfa.pattern_len(self.nfa.match_pattern(state.id, i));
            let first = state.symbols - length as u64;
            state.is_whole_from(first).then(|| state.byte_of(first))
        })
    }

    /// Goes to the longest beginning of a form that can go on and is not interrupted too early.
    fn settle(&self, state: &mut State) {
        loop {
            let node = self.node(state.id);
            let first = state.symbols - u64::from(node.depth);
            if node.depth == 0 {
                state.gaps.clear();
                return;
            }
            if node.open && state.is_whole_from(first) {
                while state.gaps.front().is_some_and(|gap| gap.symbols <= first) {
                    state.gaps.pop_front();
                }
                return;
            }
            state.id = node.shorter;
        }
    }
}

impl State {
    /// The gaps behind symbol `first`.
    fn gaps_behind(&self, first: u64) -> impl Iterator<Item = &Gap> {
        self.gaps.range(self.gaps.partition_point(|gap| gap.symbols <= first)..)
    }

    /// Whether enough symbols stand between symbol `first` and each gap behind it.
    fn is_whole_from(&self, first: u64) -> bool {
        self.gaps_behind(first)
            .map(|gap| (gap.symbols - first, u64::from(gap.least)))
            .take_while(|(symbols, _)| *symbols < u64::from(BEFORE_GAP))
            .all(|(symbols, least)| symbols >= least)
    }

    /// Where a symbol lies.
    fn byte_of(&self, symbol: u64) -> u64 {
        match self.gaps_behind(symbol).next() {
            Some(gap) => gap.bytes.start - (gap.symbols - symbol),
            None => self.at - (self.symbols - symbol),
        }
    }

    /// The gap that the text ends with.
    fn open_gap(&mut self) -> Option<&mut Gap> {
        self.gaps.back_mut().filter(|gap| gap.symbols == self.symbols)
    }

    /// The byte just read is part of a gap; whether the gap is short enough.
    fn widen(&mut self, least: u8) -> bool {
        let (at, symbols) = (self.at, self.symbols);
        match self.open_gap() {
            Some(gap) => {
                gap.bytes.end = at;
                gap.least = BEFORE_GAP;
                gap.bytes.end - gap.bytes.start <= MAX_GAP as u64
            }
            None => {
                self.gaps.push_back(Gap {
                    symbols,
                    bytes: at - 1..at,
                    least,
                });
                true
            }
        }
    }
}
