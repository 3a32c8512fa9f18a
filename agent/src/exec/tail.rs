//! What a step wrote after the log was full: only counted, but for the last bytes.

use std::collections::VecDeque;

use bytes::Bytes;
use helios_proto::{MAX_OUTPUT, v1::output::Stream};

/// The most that is kept, whatever the node asks for.
const MAX_TAIL: usize = 1 << 20;

/// What a change of stream costs, so that alternating single bytes cannot cost more than the bytes.
const RUN_COST: usize = 16;

/// The last bytes of both streams in the order they were read.
#[derive(Debug, Default)]
pub struct Tail {
    bytes: VecDeque<u8>,
    /// Which stream the next so many bytes belong to.
    runs: VecDeque<(Stream, usize)>,
    counted: u64,
}

impl Tail {
    /// Counts `data` and keeps its end; `limit` bytes are kept in all.
    pub fn push(&mut self, stream: Stream, data: &[u8], limit: u64) {
        let limit = usize::try_from(limit).unwrap_or(MAX_TAIL).min(MAX_TAIL);
        self.counted += data.len() as u64;
        let data = &data[data.len().saturating_sub(limit)..];
        if data.is_empty() {
            return;
        }
        if self.bytes.capacity() < limit {
            // Once, instead of growing by doubling past the limit.
            self.bytes.reserve_exact(limit.saturating_sub(self.bytes.len()));
        }
        self.drop_oldest((self.bytes.len() + data.len()).saturating_sub(limit));
        self.bytes.extend(data);
        match self.runs.back_mut() {
            Some((last, len)) if *last == stream => *len += data.len(),
            _ => self.runs.push_back((stream, data.len())),
        }
        while self.runs.len() > 1 && self.runs.len() * RUN_COST > limit {
            let oldest = self.runs.front().map_or(0, |run| run.1);
            self.drop_oldest(oldest);
        }
    }

    fn drop_oldest(&mut self, bytes: usize) {
        self.bytes.drain(..bytes);
        let mut left = bytes;
        while let Some((_, len)) = self.runs.front_mut() {
            if *len > left {
                *len -= left;
                break;
            }
            left -= *len;
            self.runs.pop_front();
            if left == 0 {
                break;
            }
        }
    }

    /// How many bytes are left out, and the pieces that are not.
    pub fn take(&mut self) -> (u64, Vec<(Stream, Bytes)>) {
        let skipped = self.counted - self.bytes.len() as u64;
        let mut pieces = Vec::new();
        for (stream, mut len) in self.runs.drain(..) {
            while len > 0 {
                let piece: Bytes = self.bytes.drain(..len.min(MAX_OUTPUT)).collect();
                len -= piece.len();
                pieces.push((stream, piece));
            }
        }
        *self = Self::default();
        (skipped, pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a list of (stream, byte): what is kept is a suffix, within the limit, and the
        /// count is right.
        #[test]
        fn it_keeps_a_suffix(
            writes in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..90)), 0..60),
            limit in 0_u64..600,
        ) {
            let mut tail = Tail::default();
            let mut all = Vec::new();
            for (stderr, data) in &writes {
                let stream = if *stderr { Stream::Stderr } else { Stream::Stdout };
                tail.push(stream, data, limit);
                all.extend(data.iter().map(|byte| (stream, *byte)));
            }
            let (skipped, pieces) = tail.take();
            let kept: Vec<_> =
                pieces.iter().flat_map(|(stream, data)| data.iter().map(move |byte| (*stream, *byte))).collect();
            prop_assert!(kept.len() as u64 <= limit);
            prop_assert_eq!(skipped as usize + kept.len(), all.len());
            prop_assert_eq!(&all[all.len() - kept.len()..], &kept[..]);
            prop_assert!(pieces.len() * RUN_COST <= (limit as usize).max(RUN_COST));
            prop_assert_eq!(tail.take(), (0, vec![]));
        }
    }

    #[test]
    fn one_stream_fills_the_limit_exactly() {
        let mut tail = Tail::default();
        for round in 0..100_u8 {
            tail.push(Stream::Stdout, &[round; 2000], 140_000);
        }
        let (skipped, pieces) = tail.take();
        assert_eq!(skipped, 60_000);
        assert_eq!(
            pieces.iter().map(|piece| piece.1.len()).collect::<Vec<_>>(),
            [MAX_OUTPUT, 140_000 - MAX_OUTPUT]
        );
        assert_eq!(pieces[0].1[0], 30);
    }
}
