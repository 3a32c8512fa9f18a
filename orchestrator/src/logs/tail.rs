//! What a log keeps of the bytes beyond its limit: the last of them, in memory.

use std::collections::VecDeque;

use bytes::{Buf as _, Bytes};

use super::types::Channel;

/// How much is kept, in bytes, each piece counted with a little for itself.
pub(super) const KEPT: usize = 1 << 20;
const OVERHEAD: usize = 64;

/// One kept piece.
pub(super) struct Kept {
    pub(super) step: u32,
    pub(super) channel: Channel,
    pub(super) guest_ms: i64,
    pub(super) node_ms: i64,
    pub(super) data: Bytes,
}

/// The last pieces of masked text, oldest first.
#[derive(Default)]
pub(super) struct Tail {
    pieces: VecDeque<Kept>,
    size: usize,
    dropped: u64,
}

impl Tail {
    /// Adds a piece; the oldest bytes go when there is no room. Returns how many went.
    pub(super) fn push(&mut self, piece: Kept) -> u64 {
        self.size += piece.data.len() + OVERHEAD;
        self.pieces.push_back(piece);
        let mut gone = 0;
        while self.size > KEPT
            && let Some(oldest) = self.pieces.front_mut()
        {
            let (excess, len) = (self.size - KEPT, oldest.data.len());
            if excess < len {
                // Not all of it: a piece may be an eighth of what is to be kept.
                oldest.data.advance(excess);
                self.size -= excess;
                gone += excess as u64;
            } else {
                self.size -= len + OVERHEAD;
                gone += len as u64;
                self.pieces.pop_front();
            }
        }
        self.dropped += gone;
        gone
    }

    /// The pieces from the first whole line on, and how many further bytes that left out.
    pub(super) fn finish(mut self) -> (Vec<Kept>, u64) {
        let mut cut = 0;
        if self.dropped > 0 {
            while let Some(first) = self.pieces.front_mut() {
                if let Some(end) = memchr::memchr(b'\n', &first.data) {
                    first.data.advance(end + 1);
                    cut += end as u64 + 1;
                    break;
                }
                // Text without any newline is kept as it is: half a line is better than nothing.
                if self.pieces.len() == 1 {
                    break;
                }
                cut += self.pieces.pop_front().map_or(0, |piece| piece.data.len() as u64);
            }
        }
        (
            self.pieces.into_iter().filter(|piece| !piece.data.is_empty()).collect(),
            cut,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(data: &str) -> Kept {
        Kept {
            step: 1,
            channel: Channel::Stdout,
            guest_ms: 0,
            node_ms: 0,
            data: Bytes::copy_from_slice(data.as_bytes()),
        }
    }

    #[test]
    fn memory_is_bounded_and_the_rest_begins_with_a_whole_line() {
        let mut tail = Tail::default();
        let (mut put, mut gone) = (0, 0);
        for i in 0..200_000 {
            let text = format!("half {i}\nwhole {i}\n");
            put += text.len() as u64;
            gone += tail.push(piece(&text));
        }
        assert!(tail.size <= KEPT && gone > 0);
        let (pieces, cut) = tail.finish();
        let kept: Vec<u8> = pieces.into_iter().flat_map(|p| p.data).collect();
        assert_eq!(gone + cut + kept.len() as u64, put);
        assert!((kept.starts_with(b"half ") || kept.starts_with(b"whole ")) && kept.ends_with(b"whole 199999\n"));
    }

    #[test]
    fn as_much_is_kept_of_large_pieces() {
        let mut tail = Tail::default();
        let text: String = (0..400_000).map(|i| format!("line {i}\n")).collect();
        let pieces = text.as_bytes().chunks(helios_proto::MAX_OUTPUT);
        let gone: u64 = pieces
            .map(|data| tail.push(piece(std::str::from_utf8(data).unwrap())))
            .sum();
        assert_eq!(tail.size, KEPT);
        let (pieces, cut) = tail.finish();
        let kept: Vec<u8> = pieces.iter().flat_map(|p| p.data.iter().copied()).collect();
        assert_eq!(gone + cut, (text.len() - kept.len()) as u64);
        assert!(kept.len() + pieces.len() * OVERHEAD + "line 300000\n".len() >= KEPT);
        assert!(kept.starts_with(b"line ") && text.as_bytes().ends_with(&kept));
    }

    #[test]
    fn nothing_is_cut_when_all_of_it_fits() {
        let mut tail = Tail::default();
        assert_eq!(tail.push(piece("a\nb")), 0);
        let (pieces, cut) = tail.finish();
        assert_eq!((&pieces[0].data[..], cut), (&b"a\nb"[..], 0));
    }
}
