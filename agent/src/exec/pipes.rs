//! The two pipes of one exec, read in the order in which they were written to, as far as the system tells it.
//!
//! A reader of two pipes that comes late finds what was written to each and not which came first. Linux tells it
//! nevertheless; see `ordered`. Elsewhere, and where Linux refuses, the order is that of the agent's own looks: lines
//! that are further apart than it takes the agent to wake stay in order, others may not.

#[cfg(target_os = "linux")]
mod ordered;
mod plain;

use std::{io, os::fd::OwnedFd};

use plain::Plain;

use crate::block::Block;

/// How much a pipe holds; only Linux lets us say it. A larger one lets a step write on while a frame is on its way.
#[cfg(target_os = "linux")]
const CAPACITY: usize = 256 << 10;

/// What a block has room for when it is read into.
pub const ROOM: usize = 4096;

/// Standard output and standard error of one exec, in this order.
#[derive(Debug)]
pub enum Pipes {
    /// In the order of the writes.
    #[cfg(target_os = "linux")]
    Ordered(Box<ordered::Ordered>),
    /// In the order of our looks.
    Plain(Plain),
}

impl Pipes {
    /// New pipes, and the ends to write to. To be called by the thread that will read them.
    pub fn open() -> io::Result<(Self, [OwnedFd; 2])> {
        #[cfg(target_os = "linux")]
        match ordered::Ordered::open() {
            Ok((ordered, writers)) => return Ok((Self::Ordered(Box::new(ordered)), writers)),
            // A kernel or a sandbox without one of the two means: output comes all the same.
            Err(error) => eprintln!("helios-agent: the order of standard output and error is not exact here: {error}"),
        }
        Self::unordered()
    }

    /// As [`Pipes::open`], without any help of the system.
    pub fn unordered() -> io::Result<(Self, [OwnedFd; 2])> {
        let (plain, writers) = Plain::open()?;
        Ok((Self::Plain(plain), writers))
    }

    /// Waits until [`Pipes::read`] may find something, an end included. Never resolves once both have ended. Dropping
    /// the future loses nothing.
    pub async fn ready(&mut self) {
        match self {
            #[cfg(target_os = "linux")]
            Self::Ordered(ordered) => ordered.ready().await,
            Self::Plain(plain) => plain.ready().await,
        }
    }

    /// Appends what was written next to `block`, which has [`ROOM`], and says to which of the two it was; `None` when
    /// nothing is there now.
    pub fn read(&mut self, block: &mut Block) -> Option<usize> {
        match self {
            #[cfg(target_os = "linux")]
            Self::Ordered(ordered) => ordered.read(block),
            Self::Plain(plain) => plain.read(block),
        }
    }

    /// The leader has ended: what is there is read now, also what nobody has announced.
    pub fn sweep(&mut self) {
        match self {
            #[cfg(target_os = "linux")]
            Self::Ordered(ordered) => ordered.sweep(),
            Self::Plain(_) => {}
        }
    }

    /// Somebody may still write.
    pub fn is_open(&self) -> bool {
        match self {
            #[cfg(target_os = "linux")]
            Self::Ordered(ordered) => ordered.is_open(),
            Self::Plain(plain) => plain.is_open(),
        }
    }

    /// The ends to read from that are still open, for whoever does not care for the order.
    pub fn into_ends(self) -> Vec<OwnedFd> {
        match self {
            #[cfg(target_os = "linux")]
            Self::Ordered(ordered) => ordered.into_ends(),
            Self::Plain(plain) => plain.into_ends(),
        }
    }
}
