//! How packets are taken out of a pipe: one at a time, as a read returns no more, without waking the pipe's writer for each.
//!
//! Who writes more than a pipe holds waits, and is woken by each read: it writes a page, and waits again. Where both share a
//! processor that is two switches between processes for each page. So when a write turns out to be a long one, what the
//! pipe has is moved at once to a pipe of our own (splice(2), which copies nothing and keeps packets apart), and read there.

use std::{
    io,
    ops::Range,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

use nix::libc;

use super::{CAPACITY, set};
use crate::block::Block;

/// Packets on their way from the pipes into blocks.
pub(super) struct Packets {
    /// What was read and did not fit into a block, from a pipe that is not kept apart. It has room for all that a pipe
    /// holds; its pages are the system's until something is written to them.
    excess: Vec<u8>,
    /// What of it is to be taken next.
    left: Range<usize>,
    /// From which pipe it came.
    excess_of: usize,
    /// Our own pipe, its end to read from and the other.
    aside: [OwnedFd; 2],
    /// How many bytes are in it, and from which pipe they came.
    moved: (usize, usize),
}

impl Packets {
    pub(super) fn new() -> io::Result<Self> {
        let mut ends = [0; 2];
        // SAFETY: pipe2(2) fills the array with two descriptors that are nobody's yet.
        let aside = unsafe {
            if libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) < 0 {
                return Err(io::Error::last_os_error());
            }
            ends.map(|end| OwnedFd::from_raw_fd(end))
        };
        // Where the system refuses, less is moved at once.
        let _ = set(
            ends[0],
            libc::F_SETPIPE_SZ,
            i32::try_from(CAPACITY).map_err(io::Error::other)?,
        );
        Ok(Self {
            excess: vec![0; CAPACITY],
            left: 0..0,
            excess_of: 0,
            aside,
            moved: (0, 0),
        })
    }

    /// Whether something was read that did not fit.
    pub(super) fn has_excess(&self) -> bool {
        !self.left.is_empty()
    }

    /// Whether packets of this pipe are in ours.
    pub(super) fn is_aside(&self, index: usize) -> bool {
        self.moved.0 > 0 && self.moved.1 == index
    }

    /// Takes the next packet of a pipe into the block, and what does not fit to where [`Packets::take_excess`] finds it: what
    /// is not kept apart comes with the packet behind it, and of a packet what nobody has room for is lost. `is_long` says
    /// that it is the rest of a long write.
    pub(super) fn take(&mut self, index: usize, end: &OwnedFd, is_long: bool, block: &mut Block) -> io::Result<usize> {
        if is_long && self.moved.0 == 0 {
            self.moved = (splice(end, &self.aside[1]), index);
        }
        if !self.is_aside(index) {
            return self.read(end.as_raw_fd(), index, block);
        }
        let read = self.read(self.aside[0].as_raw_fd(), index, block)?;
        self.moved.0 = self.moved.0.saturating_sub(read);
        Ok(read)
    }

    /// Moves what did not fit into the block, as far as it fits now; from which pipe that was.
    pub(super) fn take_excess(&mut self, block: &mut Block) -> Option<usize> {
        if self.left.is_empty() {
            return None;
        }
        let end = self.left.end.min(self.left.start + block.room());
        block.bytes_mut().extend_from_slice(&self.excess[self.left.start..end]);
        self.left.start = end;
        Some(self.excess_of)
    }

    fn read(&mut self, from: RawFd, index: usize, block: &mut Block) -> io::Result<usize> {
        let fits = block.room();
        let bytes = block.bytes_mut();
        let parts = [
            libc::iovec {
                iov_base: bytes.spare_capacity_mut()[..fits].as_mut_ptr().cast(),
                iov_len: fits,
            },
            libc::iovec {
                iov_base: self.excess.as_mut_ptr().cast(),
                iov_len: self.excess.len(),
            },
        ];
        // SAFETY: the spare capacity and our own bytes may be written to, and the kernel writes no more than their lengths.
        let read = unsafe { libc::readv(from, parts.as_ptr(), 2) };
        let Ok(read) = usize::try_from(read) else {
            return Err(io::Error::last_os_error());
        };
        // SAFETY: the kernel has just written so many bytes behind the old end.
        unsafe { bytes.set_len(bytes.len() + read.min(fits)) };
        (self.left, self.excess_of) = (0..read.saturating_sub(fits), index);
        Ok(read)
    }
}

/// Moves whole packets from one pipe into another that is empty, as many as there are; how many bytes that was. Where the
/// system refuses, or nothing is there, a read of the first says why.
fn splice(from: &OwnedFd, to: &OwnedFd) -> usize {
    let (from, to) = (from.as_raw_fd(), to.as_raw_fd());
    let null = std::ptr::null_mut();
    // Never less than all of a packet: a part of one would be another write.
    let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
    // SAFETY: two descriptors, no pointers to anything.
    let moved = unsafe { libc::splice(from, null, to, null, 4 * CAPACITY, flags) };
    usize::try_from(moved).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write as _};

    use super::*;
    use crate::block::Pool;

    /// Packets stay what they were, and are counted out again to the last byte.
    #[test]
    fn what_was_moved_aside_comes_back_packet_by_packet() {
        let mut ends = [0; 2];
        // SAFETY: as in `Packets::new`.
        let [reader, writer] = unsafe {
            assert_eq!(libc::pipe2(ends.as_mut_ptr(), libc::O_DIRECT | libc::O_NONBLOCK), 0);
            ends.map(|end| OwnedFd::from_raw_fd(end))
        };
        let mut writer = File::from(writer);
        for len in [4096, 4096, 10, 4096, 1] {
            writer.write_all(&vec![b'x'; len]).unwrap();
        }
        let mut packets = Packets::new().unwrap();
        let mut block = Pool::new(1).take();
        let mut take = |packets: &mut Packets, is_long| packets.take(1, &reader, is_long, &mut block).unwrap();
        assert_eq!(take(&mut packets, false), 4096);
        assert!(!packets.is_aside(1));
        let rest: Vec<usize> = (0..3).map(|_| take(&mut packets, true)).collect();
        assert_eq!(rest, [4096, 10, 4096]);
        // Who asks for the next write finds it in our pipe, and behind it what came later.
        assert!(packets.is_aside(1) && !packets.is_aside(0));
        writer.write_all(b"later").unwrap();
        assert_eq!([take(&mut packets, false), take(&mut packets, false)], [1, 5]);
        assert!(!packets.is_aside(1) && !packets.has_excess());
        drop(writer);
        assert_eq!(take(&mut packets, true), 0);
    }
}
