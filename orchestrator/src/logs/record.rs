//! How a record lies in the file. Little-endian, a checksum first, so that a torn tail is found:
//!
//! | bytes | what |
//! |---|---|
//! | 0..4 | CRC-32 of everything behind it, data included |
//! | 4..8 | length of the data |
//! | 8..12 | step |
//! | 12 | channel |
//! | 13 | flags |
//! | 14 | state of the command parsers, three bits a channel; above them two bits of what follows |
//! | 15 | how many secrets were masked when this was written, ten bits together |
//! | 16..24 | the last agent event of which nothing remains to be seen, or that is held back in part |
//! | 24..32 | guest time; in a mark: bytes left out so far because of the limit |
//! | 32..40 | node time |
//! | 40..72 | with [`HELD`]: per channel, where the agent's bytes must be read again from |

use super::{MAX_PIECE, types::Channel};

/// Carries state and no data; readers do not see it and it has no record number.
pub(super) const MARK: u8 = 1;
/// Not a cut: the rest of its event follows. The file never ends here after recovery.
pub(super) const PART: u8 = 2;
/// The 32 bytes of held-back state are present.
pub(super) const HELD: u8 = 4;
/// The limit has been crossed.
pub(super) const CAPPED: u8 = 8;
/// Belongs to the tail that is appended at the end of a capped log; not a cut either.
pub(super) const TAIL: u8 = 16;
/// The mark behind the last record: only sealing remains.
pub(super) const FINAL: u8 = 32;

/// A header without held-back state.
pub(super) const SHORT: usize = 40;
/// A header with it.
pub(super) const LONG: usize = 72;
/// What ten bits hold; more secrets than this end a log anyway.
pub(super) const MASKS: u16 = 1023;
/// The largest record.
pub(super) const MAX_RECORD: usize = LONG + MAX_PIECE;

/// Where reading a channel's raw bytes goes on after a restart, so that masker and parser come to
/// the very state they had: nothing before this place can matter to them any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Resume {
    /// Events of this channel before this one are done.
    pub(super) sequence: u64,
    /// Bytes of that event which are done.
    pub(super) offset: u32,
    /// Bytes from there on that are already shown as part of a mask.
    pub(super) covered: u32,
    /// The byte before this place is shown as part of a mask.
    pub(super) joined: bool,
    /// Only blanks stand before this place in its line.
    pub(super) at_start: bool,
    /// The rest of the line is not shown: it belongs to an overlong `::add-mask::`.
    pub(super) swallow: bool,
}

impl Resume {
    /// The state behind event `last` when nothing is held back.
    pub(super) fn clean(last: u64) -> Self {
        Self {
            sequence: last + 1,
            offset: 0,
            covered: 0,
            joined: false,
            at_start: true,
            swallow: false,
        }
    }

    fn bits(&self) -> u8 {
        u8::from(self.at_start) | u8::from(self.swallow) << 1 | u8::from(self.joined) << 2
    }
}

/// A record without its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) len: u32,
    pub(super) step: u32,
    pub(super) channel: Channel,
    pub(super) flags: u8,
    pub(super) sequence: u64,
    pub(super) guest_ms: i64,
    pub(super) node_ms: i64,
    /// How many secrets were masked when this was written, at most [`MASKS`]. A daemon that takes over
    /// with fewer must read again what comes from here on: one of the agent's events named a secret
    /// that only its predecessor knew.
    pub(super) masks: u16,
    /// Of stdout and stderr.
    pub(super) resume: [Resume; 2],
}

/// What lies at a place.
pub(super) enum Decoded {
    /// A whole, sound record: its header, and where data and record end, counted from its start.
    Record(Header, std::ops::Range<usize>),
    /// More bytes are needed to tell.
    Short,
    /// No record: torn, or never written.
    Bad,
}

impl Header {
    /// Whether a crash may leave the file ending with this record.
    pub(super) fn is_cut(&self) -> bool {
        self.flags & (PART | TAIL) == 0
    }

    /// Whether readers see it.
    pub(super) fn is_data(&self) -> bool {
        self.flags & MARK == 0
    }

    /// Size of the header alone.
    pub(super) fn size(flags: u8) -> usize {
        if flags & HELD == 0 { SHORT } else { LONG }
    }

    /// Writes the header into the space before `data` in `record`, checksum included. `record` is
    /// the header's size plus `self.len` long, its data in place.
    pub(super) fn seal(&self, record: &mut [u8]) {
        record[4..8].copy_from_slice(&self.len.to_le_bytes());
        record[8..12].copy_from_slice(&self.step.to_le_bytes());
        record[12] = self.channel.code();
        record[13] = self.flags;
        let [low, high] = self.masks.min(MASKS).to_le_bytes();
        record[14] = self.resume[0].bits() | self.resume[1].bits() << 3 | high << 6;
        record[15] = low;
        record[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        record[24..32].copy_from_slice(&self.guest_ms.to_le_bytes());
        record[32..40].copy_from_slice(&self.node_ms.to_le_bytes());
        if self.flags & HELD != 0 {
            for (i, resume) in self.resume.iter().enumerate() {
                let at = SHORT + 16 * i;
                record[at..at + 8].copy_from_slice(&resume.sequence.to_le_bytes());
                record[at + 8..at + 12].copy_from_slice(&resume.offset.to_le_bytes());
                record[at + 12..at + 16].copy_from_slice(&resume.covered.to_le_bytes());
            }
        }
        let crc = crc32fast::hash(&record[4..]);
        record[..4].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads the record at the start of `bytes`. In a sealed file the compressed blocks have
    /// checksums and the records have none.
    pub(super) fn decode(bytes: &[u8], sealed: bool) -> Decoded {
        let (Some(crc), Some(len), Some(&flags)) = (u32_at(bytes, 0), u32_at(bytes, 4), bytes.get(13)) else {
            return Decoded::Short;
        };
        let size = Self::size(flags);
        if len as usize > MAX_PIECE {
            return Decoded::Bad;
        }
        let end = size + len as usize;
        if bytes.len() < end {
            return Decoded::Short;
        }
        let bytes = &bytes[..end];
        if !sealed && crc32fast::hash(&bytes[4..]) != crc {
            return Decoded::Bad;
        }
        match Self::fields(bytes, len, flags) {
            Some(header) => Decoded::Record(header, size..end),
            None => Decoded::Bad,
        }
    }

    fn fields(bytes: &[u8], len: u32, flags: u8) -> Option<Self> {
        let sequence = u64_at(bytes, 16)?;
        let state = *bytes.get(14)?;
        let resume = |i: usize| {
            let bits = state >> (3 * i);
            let mut resume = Resume {
                at_start: bits & 1 != 0,
                swallow: bits & 2 != 0,
                joined: bits & 4 != 0,
                ..Resume::clean(sequence)
            };
            if flags & HELD != 0 {
                let at = SHORT + 16 * i;
                resume.sequence = u64_at(bytes, at)?;
                resume.offset = u32_at(bytes, at + 8)?;
                resume.covered = u32_at(bytes, at + 12)?;
            }
            Some(resume)
        };
        Some(Self {
            len,
            step: u32_at(bytes, 8)?,
            channel: Channel::from_code(*bytes.get(12)?)?,
            flags,
            sequence,
            guest_ms: u64_at(bytes, 24)?.cast_signed(),
            node_ms: u64_at(bytes, 32)?.cast_signed(),
            masks: u16::from_le_bytes([*bytes.get(15)?, state >> 6]),
            resume: [resume(0)?, resume(1)?],
        })
    }
}

/// Four bytes at `at`, little-endian.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Eight bytes at `at`, little-endian.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(header: &Header, data: &[u8]) -> Vec<u8> {
        let mut record = vec![0; Header::size(header.flags)];
        record.extend_from_slice(data);
        header.seal(&mut record);
        record
    }

    proptest! {
        #[test]
        fn records_round_trip_and_every_flipped_bit_is_found(
            data in proptest::collection::vec(any::<u8>(), 0..200),
            step in any::<u32>(), code in 0u8..3, flags in 0u8..64, sequence in 0u64..1 << 60,
            times in any::<(i64, i64)>(), held in any::<[(u64, u32, u32, bool, bool, bool); 2]>(), flip in any::<prop::sample::Index>(),
        ) {
            let resume = held.map(|(s, offset, covered, joined, at_start, swallow)| {
                if flags & HELD == 0 { Resume { joined, at_start, swallow, ..Resume::clean(sequence) } }
                else { Resume { sequence: s, offset, covered, joined, at_start, swallow } }
            });
            let header = Header {
                len: data.len() as u32, step, channel: Channel::from_code(code).unwrap(), flags, sequence,
                guest_ms: times.0, node_ms: times.1, masks: 700,
                resume,
            };
            let mut bytes = encode(&header, &data);
            match Header::decode(&bytes, false) {
                Decoded::Record(decoded, range) => {
                    prop_assert_eq!(decoded, header);
                    prop_assert_eq!(&bytes[range], &data[..]);
                }
                _ => prop_assert!(false, "a sound record was refused"),
            }
            prop_assert!(matches!(Header::decode(&bytes[..bytes.len() - 1], false), Decoded::Short | Decoded::Bad));
            let bit = flip.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!matches!(Header::decode(&bytes, false), Decoded::Record(..)));
        }
    }
}
