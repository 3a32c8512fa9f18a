//! Events that the node has not acknowledged, in order: first in memory, then in a file, so that a
//! cut connection costs neither output nor much memory.
//!
//! Three parts hold consecutive sequences: `head` (memory), `file`, `tail` (memory again, used only
//! when the file is full or cannot be written, so that nothing is ever lost). Who produces output
//! asks [`Spool::room`] first; other events are few and always taken.

mod ring;

use std::{collections::VecDeque, io, path::PathBuf};

use bytes::Bytes;
use helios_proto::v1::Event;
use prost::Message;

use ring::RingFile;

/// What an event costs beside its bytes. It also bounds how many small ones are kept.
const OVERHEAD: usize = 256;

/// What an event of output has beside its bytes at most: tags, numbers and lengths.
const ENVELOPE: usize = 64;

/// How much may be kept.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes in memory; while the node is connected, producers wait for room in it.
    pub memory: usize,
    /// Bytes in the file; while the node is away, producers wait from here on.
    pub file: usize,
}

impl Default for Limits {
    /// Small in memory, as the agent shares its machine with the step; yet more than a fast step
    /// writes in the 20 ms after which the node has synced and acknowledges.
    fn default() -> Self {
        Self {
            memory: 3 << 19,
            file: 64 << 20,
        }
    }
}

/// The unacknowledged events.
#[derive(Debug)]
pub struct Spool {
    limits: Limits,
    dir: PathBuf,
    /// Sequence of the oldest event kept, or of the next one when none is.
    first: u64,
    head: VecDeque<Event>,
    file: Option<RingFile>,
    tail: VecDeque<Event>,
    /// Of `head` and `tail`.
    memory_cost: usize,
    /// The file could not be used; it is not tried again before the spool was empty.
    broken: bool,
}

fn cost(event: &Event) -> usize {
    event.encoded_len() + OVERHEAD
}

/// What so many bytes of output cost at most, in so many events.
pub fn output_cost(bytes: usize, events: usize) -> usize {
    bytes + events * (ENVELOPE + OVERHEAD)
}

impl Spool {
    /// An empty spool whose file, once needed, lies in `dir`, unlinked.
    pub fn new(dir: PathBuf, limits: Limits) -> Self {
        let (head, tail) = (VecDeque::new(), VecDeque::new());
        Self {
            limits,
            dir,
            first: 1,
            head,
            file: None,
            tail,
            memory_cost: 0,
            broken: false,
        }
    }

    /// Sequence of the newest event; 0 before the first.
    pub fn last(&self) -> u64 {
        self.first + (self.head.len() + self.filed() + self.tail.len()) as u64 - 1
    }

    /// Sequence of the oldest event that is kept, or of the next one.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Nothing is kept: the node has everything.
    pub fn is_empty(&self) -> bool {
        self.last() < self.first
    }

    /// Whether output of that cost may be made now.
    pub fn room(&self, connected: bool, cost: usize) -> bool {
        if connected || self.broken {
            // A node that is there but slow slows the step down; the disk is for absence. What it still holds goes out
            // first: whatever came behind it would go through the disk too, for as long as there is always more.
            return self.is_empty() || self.filed() == 0 && self.memory_cost + cost <= self.limits.memory;
        }
        let filed = self
            .file
            .as_ref()
            .map_or(0, |file| file.len() * OVERHEAD + file.bytes());
        filed < self.limits.file && self.tail.is_empty()
    }

    /// Keeps an event under the next sequence, which it returns.
    pub fn push(&mut self, mut event: Event) -> u64 {
        event.sequence = self.last() + 1;
        let sequence = event.sequence;
        let cost = cost(&event);
        if self.tail.is_empty() && self.filed() == 0 && self.memory_cost + cost <= self.limits.memory {
            self.memory_cost += cost;
            self.head.push_back(event);
        } else if !self.tail.is_empty() || self.broken || !self.append(&event) {
            self.memory_cost += cost;
            self.tail.push_back(event);
        }
        sequence
    }

    /// Whether the file took it.
    fn append(&mut self, event: &Event) -> bool {
        let appended = match &mut self.file {
            Some(file) => file.append(&event.encode_to_vec()),
            None => RingFile::create(&self.dir, self.limits.file).and_then(|mut file| {
                let appended = file.append(&event.encode_to_vec());
                self.file = Some(file);
                appended
            }),
        };
        appended.unwrap_or_else(|error| {
            eprintln!(
                "helios-agent: output stays in memory, its file in {} fails: {error}",
                self.dir.display()
            );
            self.broken = true;
            false
        })
    }

    /// The event with that sequence; `None` when it was acknowledged or is not made yet.
    pub fn get(&mut self, sequence: u64) -> io::Result<Option<Event>> {
        let Some(index) = sequence
            .checked_sub(self.first)
            .and_then(|index| usize::try_from(index).ok())
        else {
            return Ok(None);
        };
        if let Some(event) = self.head.get(index) {
            return Ok(Some(event.clone()));
        }
        let index = index - self.head.len();
        if let Some(file) = self.file.as_ref().filter(|file| index < file.len()) {
            let event = Event::decode(Bytes::from(file.read(index)?)).map_err(io::Error::other)?;
            return Ok(Some(event));
        }
        Ok(self.tail.get(index - self.filed()).cloned())
    }

    /// Forgets every event up to and including `sequence`. Sequences that were never made or were
    /// acknowledged before change nothing.
    pub fn acknowledge(&mut self, sequence: u64) {
        while self.first <= sequence.min(self.last()) && !self.is_empty() {
            if let Some(event) = self.head.pop_front() {
                self.memory_cost -= cost(&event);
            } else if self.filed() > 0 {
                self.file.as_mut().map(RingFile::pop);
            } else if let Some(event) = self.tail.pop_front() {
                self.memory_cost -= cost(&event);
            }
            self.first += 1;
        }
        if self.head.is_empty() && self.filed() == 0 {
            // The rest is in memory in any case; the file gives its space back.
            std::mem::swap(&mut self.head, &mut self.tail);
            self.file = None;
            self.broken = false;
        }
    }

    fn filed(&self) -> usize {
        self.file.as_ref().map_or(0, RingFile::len)
    }

    #[cfg(test)]
    pub(crate) fn uses_file(&self) -> bool {
        self.file.is_some()
    }
}

#[cfg(test)]
mod tests;
