//! What the plain file holds, whatever was killed when: the sound records up to the last that may end the file.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

use super::{
    error::LogError,
    index::Index,
    record::{CAPPED, Decoded, FINAL, FORMAT, Format, HEAD, MAX_RECORD, RecordHeader, TAIL, format_of},
    types::Channel,
};

/// The plain file up to the last record that may end it.
#[derive(Default)]
pub(super) struct Recovered {
    pub(super) index: Index,
    /// The file begins as one of this format; else nothing of it counts.
    pub(super) has_head: bool,
    /// Where that record ends.
    pub(super) end: u64,
    /// Where it begins when it only carries state: the next such record replaces it.
    pub(super) state_record: Option<u64>,
    /// Its header.
    pub(super) last: Option<RecordHeader>,
    pub(super) capped: bool,
    pub(super) finished: bool,
    /// Bytes left out because of the limit, as far as it was written down.
    pub(super) left_out: u64,
    /// Readers may have seen records behind it that nobody will write again.
    pub(super) lost: bool,
}

/// Reads records one after another.
pub(super) struct RecordScanner<'a> {
    file: &'a File,
    path: &'a Path,
    buffer: Vec<u8>,
    /// Where `buffer` begins in the file.
    start: u64,
    /// Where the next record begins in `buffer`.
    at: usize,
}

impl<'a> RecordScanner<'a> {
    pub(super) fn new(file: &'a File, path: &'a Path) -> Self {
        Self {
            file,
            path,
            buffer: Vec::new(),
            start: HEAD as u64,
            at: 0,
        }
    }

    /// The next sound record: where it begins and ends, header and data; none at the end or where it is torn.
    #[allow(clippy::type_complexity)]
    pub(super) fn next(&mut self) -> Result<Option<(u64, u64, RecordHeader, &[u8])>, LogError> {
        if self.buffer.len() - self.at < MAX_RECORD {
            self.fill()?;
        }
        let Decoded::Record(header, data) = RecordHeader::decode(&self.buffer[self.at..], false) else {
            return Ok(None);
        };
        let begin = self.at;
        self.at += data.end;
        let (offset, end) = (self.start + begin as u64, self.start + self.at as u64);
        Ok(Some((
            offset,
            end,
            header,
            &self.buffer[begin + data.start..begin + data.end],
        )))
    }

    fn fill(&mut self) -> Result<(), LogError> {
        self.buffer.drain(..self.at);
        self.start += self.at as u64;
        self.at = 0;
        let mut have = self.buffer.len();
        self.buffer.resize(4 * MAX_RECORD, 0);
        while have < self.buffer.len() {
            match self.file.read_at(&mut self.buffer[have..], self.start + have as u64) {
                Ok(0) => break,
                Ok(read) => have += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(LogError::io("read", self.path, error)),
            }
        }
        self.buffer.truncate(have);
        Ok(())
    }
}

/// Finds the last record that may end the file and indexes everything up to it. A writer says how many secrets it
/// knows: what was written under more of them is left out, so that the agent's events that named the others come again.
/// Not so of a log that has its end: its agent says nothing again, and readers have seen all of it.
pub(super) fn recover(file: &File, path: &Path, known: Option<usize>) -> Result<Recovered, LogError> {
    let mut recovered = Recovered {
        has_head: has_head(file, path)?,
        end: HEAD as u64,
        ..Recovered::default()
    };
    if !recovered.has_head {
        return Ok(recovered);
    }
    // Records behind the last that may end the file: they count once another such one follows them.
    let mut pending: Vec<(u64, u64, RecordHeader, Vec<u8>)> = Vec::new();
    let mut records = RecordScanner::new(file, path);
    while let Some((offset, end, header, data)) = records.next()? {
        if known.is_some_and(|known| usize::from(header.masks) > known) {
            if header.flags & FINAL != 0 || has_end(&mut records)? {
                return recover(file, path, None);
            }
            break;
        }
        recovered.capped |= header.flags & CAPPED != 0;
        if !header.may_end_file() {
            pending.push((offset, end, header, data.to_vec()));
            continue;
        }
        for (offset, end, header, data) in pending.drain(..) {
            recovered.index.push(offset, end, &header, &data);
        }
        recovered.state_record = None;
        if header.is_data() {
            recovered.index.push(offset, end, &header, data);
        } else {
            recovered.state_record = Some(offset);
            // Without data there is no guest: that field holds the bytes left out.
            recovered.left_out = header.guest_ms.cast_unsigned();
        }
        recovered.finished = header.flags & FINAL != 0;
        recovered.last = Some(header);
        recovered.end = end;
    }
    // The agent sends its own events again, and they become the same records again. Nothing else does.
    recovered.lost = pending
        .iter()
        .any(|(_, _, header, _)| header.flags & TAIL != 0 || header.channel == Channel::System);
    Ok(recovered)
}

/// Whether the end of the log is among the records that follow.
fn has_end(records: &mut RecordScanner<'_>) -> Result<bool, LogError> {
    while let Some((_, _, header, _)) = records.next()? {
        if header.flags & FINAL != 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the file begins as one of this format. What a power failure left of a head is none; another format is an error.
fn has_head(file: &File, path: &Path) -> Result<bool, LogError> {
    let mut head = [0; HEAD];
    match file.read_exact_at(&mut head, 0) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        Err(error) => return Err(LogError::io("read", path, error)),
    }
    match format_of(&head) {
        Format::Known => Ok(true),
        Format::None => Ok(false),
        Format::Other(found) => Err(LogError::OtherFormat {
            path: path.to_owned(),
            found: found.into(),
            known: FORMAT.into(),
        }),
    }
}
