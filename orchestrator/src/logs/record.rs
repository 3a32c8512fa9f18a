//! The format of a log's plain file: a head of eight bytes, then records. All numbers are little-endian.
//!
//! | bytes of the file | what |
//! |---|---|
//! | 0..7 | `HCILOG` and a zero |
//! | 7 | the number of the format, [`FORMAT`]; the last eight bytes of a sealed file are the same |
//! | 8.. | records |
//!
//! A record begins with its checksum, so that a torn end of the file is found:
//!
//! | bytes of a record | what |
//! |---|---|
//! | 0..4 | CRC-32 of everything behind it, data included; 0 in a sealed file, whose blocks have checksums |
//! | 4..8 | length of the data, at most [`MAX_PIECE`] |
//! | 8..12 | step |
//! | 12 | channel: 0 stdout, 1 stderr, 2 helios-ci itself |
//! | 13 | flags |
//! | 14..16 | how many secrets were masked when this was written, at most [`MASKS`] |
//! | 16, 17 | state of stdout and of stderr: 1 at the start of a line, 2 the line is swallowed, 4 joined to a mask |
//! | 18..24 | zero; room for what comes |
//! | 24..32 | the last agent event of which nothing remains to be seen, or that is held back in part |
//! | 32..40 | guest time, milliseconds since 1970; without data: bytes left out so far because of the limit |
//! | 40..48 | node time, milliseconds since 1970 |
//! | 48..72 | with [`HELD`]: where stdout must be read again from: event, offset (4 bytes), covered (4), parsed (4), zero (4) |
//! | 72..96 | with [`HELD`]: the same of stderr |
//! | 96..112 | with [`HELD`]: digest of the token that ends `::stop-commands::`; zero without one |
//! | then | the data |

use super::{MAX_PIECE, command::TokenDigest, types::Channel};

/// The number of this format. Format 1 had no head, and no room for the state of commands.
pub(super) const FORMAT: u8 = 2;
/// Size of a file's head in bytes.
pub(super) const HEAD: usize = 8;
/// How the head begins, and the end of a sealed file.
const MAGIC: [u8; HEAD] = *b"HCILOG\0\0";

/// Carries state and no data; readers do not see it and it has no record number.
pub(super) const STATE_ONLY: u8 = 1;
/// The rest of its event follows. The file never ends here after recovery.
pub(super) const PARTIAL: u8 = 2;
/// The state of what is held back is present.
pub(super) const HELD: u8 = 4;
/// The limit has been crossed.
pub(super) const CAPPED: u8 = 8;
/// Belongs to the tail that is appended at the end of a capped log; the file never ends here after recovery either.
pub(super) const TAIL: u8 = 16;
/// The state behind the last record: only sealing remains.
pub(super) const FINAL: u8 = 32;

/// Size of a header without the state of what is held back, in bytes.
pub(super) const SHORT: usize = 48;
/// Size of a header with it, in bytes.
pub(super) const LONG: usize = 112;
/// Size of one channel's part of that state, in bytes.
const CHANNEL_STATE: usize = 24;
/// What the field holds; more secrets than this end a log anyway.
pub(super) const MASKS: u16 = u16::MAX;
/// The largest record in bytes.
pub(super) const MAX_RECORD: usize = LONG + MAX_PIECE;

/// What the head of a file, or the end of a sealed one, says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Known,
    /// A log, of another format.
    Other(u8),
    /// No log's.
    None,
}

/// The head of a file, and the end of a sealed one.
pub(super) fn head() -> [u8; HEAD] {
    let mut head = MAGIC;
    head[HEAD - 1] = FORMAT;
    head
}

/// Reads what [`head`] made.
pub(super) fn format_of(head: &[u8]) -> Format {
    match head.split_last() {
        Some((format, magic)) if *magic == MAGIC[..HEAD - 1] => match *format {
            FORMAT => Format::Known,
            other => Format::Other(other),
        },
        _ => Format::None,
    }
}

/// Where reading a channel's raw bytes goes on after a restart, so that masker and parser come to
/// the very state they had: nothing before this point can matter to them any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ResumePoint {
    /// Events of this channel before this one are done.
    pub(super) sequence: u64,
    /// Bytes of that event which are done.
    pub(super) offset: u32,
    /// Bytes from there on that are already shown as part of a mask.
    pub(super) covered: u32,
    /// Bytes from there on that are known to be text: no command is looked for in them again.
    pub(super) parsed: u32,
    /// The byte before this point is shown as part of a mask.
    pub(super) joined: bool,
    /// Only blanks stand in their line before the bytes that are not parsed.
    pub(super) at_start: bool,
    /// The rest of the line is not shown: it belongs to an overlong `::add-mask::`.
    pub(super) swallow: bool,
}

impl ResumePoint {
    /// The state behind event `last` when nothing is held back.
    pub(super) fn clean(last: u64) -> Self {
        Self {
            sequence: last + 1,
            offset: 0,
            covered: 0,
            parsed: 0,
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
pub(super) struct RecordHeader {
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
    pub(super) resume: [ResumePoint; 2],
    /// Of the token that ends `::stop-commands::`.
    pub(super) stopped: Option<TokenDigest>,
}

/// What some bytes are.
pub(super) enum Decoded {
    /// A whole, sound record: its header, and where data and record end, counted from its start.
    Record(RecordHeader, std::ops::Range<usize>),
    /// More bytes are needed to tell.
    Short,
    /// No record: torn, or never written.
    Bad,
}

impl RecordHeader {
    /// Whether recovery may leave the file ending with this record.
    pub(super) fn may_end_file(&self) -> bool {
        self.flags & (PARTIAL | TAIL) == 0
    }

    /// Whether readers see it.
    pub(super) fn is_data(&self) -> bool {
        self.flags & STATE_ONLY == 0
    }

    /// Size of the header alone.
    pub(super) fn size(flags: u8) -> usize {
        if flags & HELD == 0 { SHORT } else { LONG }
    }

    /// Writes the header into the space before `data` in `record`, checksum included. `record` is
    /// the header's size plus `self.len` long, its data in place.
    pub(super) fn encode(&self, record: &mut [u8]) {
        record[4..8].copy_from_slice(&self.len.to_le_bytes());
        record[8..12].copy_from_slice(&self.step.to_le_bytes());
        record[12] = self.channel.code();
        record[13] = self.flags;
        record[14..16].copy_from_slice(&self.masks.to_le_bytes());
        record[16] = self.resume[0].bits();
        record[17] = self.resume[1].bits();
        record[18..24].fill(0);
        record[24..32].copy_from_slice(&self.sequence.to_le_bytes());
        record[32..40].copy_from_slice(&self.guest_ms.to_le_bytes());
        record[40..48].copy_from_slice(&self.node_ms.to_le_bytes());
        if self.flags & HELD != 0 {
            let (channels, token) = record[SHORT..LONG].split_at_mut(2 * CHANNEL_STATE);
            for (state, resume) in channels.chunks_exact_mut(CHANNEL_STATE).zip(&self.resume) {
                state[..8].copy_from_slice(&resume.sequence.to_le_bytes());
                state[8..12].copy_from_slice(&resume.offset.to_le_bytes());
                state[12..16].copy_from_slice(&resume.covered.to_le_bytes());
                state[16..20].copy_from_slice(&resume.parsed.to_le_bytes());
                state[20..].fill(0);
            }
            token.copy_from_slice(&self.stopped.unwrap_or_default());
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
        let sequence = u64_at(bytes, 24)?;
        let resume = |i: usize| {
            let bits = *bytes.get(16 + i)?;
            let mut resume = ResumePoint {
                at_start: bits & 1 != 0,
                swallow: bits & 2 != 0,
                joined: bits & 4 != 0,
                ..ResumePoint::clean(sequence)
            };
            if flags & HELD != 0 {
                let at = SHORT + CHANNEL_STATE * i;
                resume.sequence = u64_at(bytes, at)?;
                resume.offset = u32_at(bytes, at + 8)?;
                resume.covered = u32_at(bytes, at + 12)?;
                resume.parsed = u32_at(bytes, at + 16)?;
            }
            Some(resume)
        };
        let token = match flags & HELD {
            0 => TokenDigest::default(),
            _ => bytes.get(SHORT + 2 * CHANNEL_STATE..LONG)?.try_into().ok()?,
        };
        Some(Self {
            len,
            step: u32_at(bytes, 8)?,
            channel: Channel::from_code(*bytes.get(12)?)?,
            flags,
            sequence,
            guest_ms: u64_at(bytes, 32)?.cast_signed(),
            node_ms: u64_at(bytes, 40)?.cast_signed(),
            masks: u16::from_le_bytes(bytes.get(14..16)?.try_into().ok()?),
            resume: [resume(0)?, resume(1)?],
            stopped: (token != TokenDigest::default()).then_some(token),
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

    #[test]
    fn a_head_says_its_format() {
        assert_eq!(format_of(&head()), Format::Known);
        assert_eq!(format_of(b"HCILOG\0\x01"), Format::Other(1));
        for bytes in [&b"HCILOG\0"[..], b"", b"HCILOG\x01\x02", b"records "] {
            assert_eq!(format_of(bytes), Format::None, "{bytes:?}");
        }
    }

    fn encode(header: &RecordHeader, data: &[u8]) -> Vec<u8> {
        let mut record = vec![0; RecordHeader::size(header.flags)];
        record.extend_from_slice(data);
        header.encode(&mut record);
        record
    }

    proptest! {
        #[test]
        fn records_round_trip_and_every_flipped_bit_is_found(
            data in proptest::collection::vec(any::<u8>(), 0..200),
            step in any::<u32>(), code in 0u8..3, flags in 0u8..64, sequence in 0u64..1 << 60,
            times in any::<(i64, i64)>(), held in any::<[(u64, u32, u32, u32, bool, bool, bool); 2]>(), token in any::<Option<[u8; 16]>>(), flip in any::<prop::sample::Index>(),
        ) {
            let resume = held.map(|(s, offset, covered, parsed, joined, at_start, swallow)| {
                if flags & HELD == 0 { ResumePoint { joined, at_start, swallow, ..ResumePoint::clean(sequence) } }
                else { ResumePoint { sequence: s, offset, covered, parsed, joined, at_start, swallow } }
            });
            let header = RecordHeader {
                len: data.len() as u32, step, channel: Channel::from_code(code).unwrap(), flags, sequence,
                guest_ms: times.0, node_ms: times.1, masks: 700,
                resume, stopped: token.filter(|token| flags & HELD != 0 && *token != TokenDigest::default()),
            };
            let mut bytes = encode(&header, &data);
            match RecordHeader::decode(&bytes, false) {
                Decoded::Record(decoded, range) => {
                    prop_assert_eq!(decoded, header);
                    prop_assert_eq!(&bytes[range], &data[..]);
                }
                _ => prop_assert!(false, "a sound record was refused"),
            }
            prop_assert!(matches!(RecordHeader::decode(&bytes[..bytes.len() - 1], false), Decoded::Short | Decoded::Bad));
            let bit = flip.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!matches!(RecordHeader::decode(&bytes, false), Decoded::Record(..)));
        }
    }
}
