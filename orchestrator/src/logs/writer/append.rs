//! Text becomes records, and records go to the file: what each says besides its data, and which line ends are ours.

use std::os::unix::fs::FileExt;

use super::{CHANNELS, LogWriter, index};
use crate::{
    clock,
    logs::{
        MAX_PIECE,
        command::TokenDigest,
        error::LogError,
        record::{CAPPED, HELD, LONG, MASKS, PARTIAL, RecordHeader, ResumePoint, STATE_ONLY},
        types::Channel,
    },
};

/// What a record says besides its data.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    pub(super) cursor: u64,
    pub(super) resume: [ResumePoint; 2],
    pub(super) stopped: Option<TokenDigest>,
    pub(super) left_out: u64,
}

/// Where text comes from, and when.
#[derive(Clone, Copy)]
pub(super) struct Origin {
    pub(super) step: u32,
    pub(super) channel: Channel,
    pub(super) guest_ms: i64,
    pub(super) node_ms: i64,
}

impl Origin {
    /// helios-ci itself, now.
    pub(super) fn system(step: u32) -> Self {
        let node_ms = clock::now_ms();
        Self {
            step,
            channel: Channel::System,
            guest_ms: node_ms,
            node_ms,
        }
    }
}

impl LogWriter {
    pub(super) fn state(&self) -> State {
        State {
            cursor: self.cursor,
            resume: CHANNELS.map(|channel| self.pipelines[index(channel)].resume(self.cursor)),
            stopped: self.gate.stopped,
            left_out: self.left_out,
        }
    }

    /// Appends text as records. Text of two origins never stands in one line: where the last line is
    /// another's and unfinished, a newline of ours ends it first. The bytes of a channel stay what they were.
    pub(super) fn append(&mut self, origin: Origin, text: &[u8], flags: u8) -> Result<(), LogError> {
        let unfinished = self.live.index(|index| index.foreign_line(origin.step, origin.channel));
        let Some(owner) = unfinished else {
            return self.write(origin, text, flags);
        };
        if origin.channel == Channel::System {
            return self.write(origin, &[b"\n", text].concat(), flags);
        }
        let ours = Origin {
            step: owner,
            channel: Channel::System,
            guest_ms: origin.node_ms,
            ..origin
        };
        self.write(ours, b"\n", flags | PARTIAL)?;
        self.write(origin, text, flags)
    }

    /// Writes text as records, one write for all of them.
    fn write(&mut self, origin: Origin, text: &[u8], flags: u8) -> Result<(), LogError> {
        let state = self.state();
        let flags = flags | self.flags(&state);
        let mut records = std::mem::take(&mut self.records);
        records.clear();
        let pieces = text.chunks(MAX_PIECE);
        let last = pieces.len() - 1;
        let mut headers = Vec::with_capacity(1);
        for (i, piece) in pieces.enumerate() {
            // Only the last record of an event says that the event is done.
            let flags = if i == last { flags } else { flags | PARTIAL };
            let header = self.header(origin, &state, flags, piece.len());
            let begin = records.len();
            records.resize(begin + RecordHeader::size(flags), 0);
            records.extend_from_slice(piece);
            header.encode(&mut records[begin..]);
            headers.push((begin, header));
        }
        let written = self.file.write_all_at(&records, self.end);
        if let Err(error) = written {
            // Whatever part of it got there is no record; recovery would cut it off as well.
            let _ = self.file.set_len(self.end);
            self.records = records;
            return Err(self.fail("write", error));
        }
        let ends = headers
            .iter()
            .map(|(begin, header)| (begin, begin + RecordHeader::size(header.flags) + header.len as usize));
        self.live
            .extend(headers.iter().zip(ends).map(|((_, header), (begin, end))| {
                let data = &records[end - header.len as usize..end];
                (self.end + *begin as u64, self.end + end as u64, *header, data)
            }));
        self.end += records.len() as u64;
        self.state_record = None;
        self.written = state;
        self.durability.wrote();
        self.records = records;
        Ok(())
    }

    /// Writes the state down where no data carries it; it takes the place of an earlier such record.
    pub(super) fn write_state(&mut self, flags: u8) -> Result<(), LogError> {
        let state = self.state();
        let origin = Origin {
            guest_ms: state.left_out.cast_signed(),
            ..Origin::system(0)
        };
        // Always of the same size, so that it can be replaced.
        let header = self.header(origin, &state, flags | STATE_ONLY | HELD | self.flags(&state), 0);
        let mut record = [0; LONG];
        header.encode(&mut record);
        let at = self.state_record.unwrap_or(self.end);
        self.file
            .write_all_at(&record, at)
            .map_err(|error| self.fail("write", error))?;
        self.state_record = Some(at);
        self.end = at + LONG as u64;
        self.written = state;
        self.durability.wrote();
        Ok(())
    }

    fn flags(&self, state: &State) -> u8 {
        let is_clean = |r: &ResumePoint| (r.sequence, r.offset, r.covered, r.parsed) == (state.cursor + 1, 0, 0, 0);
        let clean = state.stopped.is_none() && state.resume.iter().all(is_clean);
        (if clean { 0 } else { HELD }) | (if self.capped { CAPPED } else { 0 })
    }

    fn header(&self, origin: Origin, state: &State, flags: u8, len: usize) -> RecordHeader {
        RecordHeader {
            len: len as u32,
            step: origin.step,
            channel: origin.channel,
            flags,
            sequence: state.cursor,
            guest_ms: origin.guest_ms,
            node_ms: origin.node_ms,
            masks: u16::try_from(self.masks.len()).unwrap_or(MASKS),
            resume: state.resume,
            stopped: state.stopped,
        }
    }
}
