//! Reading by record, by line and by byte, from a plain or a sealed file alike.

use std::{fs::File, io, ops::Range, os::unix::fs::FileExt, path::PathBuf, sync::Arc};

use bytes::{Bytes, BytesMut};

use super::{
    error::LogError,
    index::{Entry, Index},
    live::LiveLog,
    record::{Decoded, MAX_RECORD, RecordHeader},
    seal::Sealed,
    types::{Change, Line, LinePage, LogRecord, LogSummary, Page, Position},
};

/// What one page of records may hold beyond its first record, in bytes.
const PAGE: usize = 1 << 20;
/// The same for lines and for text.
const TEXT: usize = 4 << 20;
/// How much of a plain file is read at once.
const FETCH: u64 = 2 * MAX_RECORD as u64;

/// Where records are read from.
#[derive(Clone)]
pub(super) enum Source {
    Plain(Arc<File>, PathBuf),
    Sealed(Arc<Sealed>),
}

impl Source {
    /// Bytes from `offset` on, at least one whole record of those before `end`.
    fn fetch(&self, offset: u64, end: u64) -> Result<Bytes, LogError> {
        match self {
            Self::Sealed(sealed) => sealed.fetch(offset),
            Self::Plain(file, path) => {
                let size = (end - offset).min(FETCH) as usize;
                let mut bytes = BytesMut::zeroed(size);
                match file.read_exact_at(&mut bytes, offset) {
                    Ok(()) => Ok(bytes.freeze()),
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(LogError::Corrupt {
                        path: path.clone(),
                        detail: "shorter than it was",
                    }),
                    Err(error) => Err(LogError::io("read", path, error)),
                }
            }
        }
    }

    fn path(&self) -> PathBuf {
        match self {
            Self::Plain(_, path) => path.clone(),
            Self::Sealed(sealed) => sealed.path.clone(),
        }
    }
}

/// A log as one reader sees it for the time of one call.
#[derive(Clone)]
pub(super) struct View {
    source: Source,
    generation: u32,
    index: IndexSource,
    /// Whether this is all, decided before the index is queried: what comes before the end is in the index then.
    ended: bool,
}

#[derive(Clone)]
enum IndexSource {
    Live(Arc<LiveLog>),
    Fixed(Arc<Index>),
}

/// Reads records that are known to be there, one after another.
struct RecordReader<'a> {
    source: &'a Source,
    /// Where `buffer` begins, and where to stop.
    offset: u64,
    end: u64,
    buffer: Bytes,
}

impl RecordReader<'_> {
    fn next(&mut self) -> Result<Option<(RecordHeader, Bytes)>, LogError> {
        let sealed = matches!(self.source, Source::Sealed(_));
        let mut fetched = false;
        while self.offset < self.end {
            match RecordHeader::decode(&self.buffer, sealed) {
                Decoded::Record(header, range) => {
                    let data = self.buffer.slice(range.clone());
                    self.offset += range.end as u64;
                    self.buffer = self.buffer.slice(range.end..);
                    fetched = false;
                    if header.is_data() {
                        return Ok(Some((header, data)));
                    }
                }
                Decoded::Short if !fetched => {
                    self.buffer = self.source.fetch(self.offset, self.end)?;
                    fetched = true;
                }
                _ => {
                    return Err(LogError::Corrupt {
                        path: self.source.path(),
                        detail: "a record's checksum is wrong",
                    });
                }
            }
        }
        Ok(None)
    }
}

impl View {
    pub(super) fn live(live: Arc<LiveLog>) -> Self {
        Self {
            source: Source::Plain(Arc::clone(&live.file), live.path.clone()),
            generation: live.generation,
            ended: live.has_ended(),
            index: IndexSource::Live(live),
        }
    }

    /// Of a log whose writer is gone.
    pub(super) fn left(source: Source, generation: u32, index: Arc<Index>) -> Self {
        Self {
            source,
            generation,
            index: IndexSource::Fixed(index),
            ended: false,
        }
    }

    pub(super) fn sealed(sealed: Sealed) -> Self {
        let sealed = Arc::new(sealed);
        Self {
            generation: sealed.summary.generation,
            index: IndexSource::Fixed(Arc::clone(&sealed.index)),
            source: Source::Sealed(sealed),
            ended: true,
        }
    }

    pub(super) fn index<T>(&self, query: impl FnOnce(&Index) -> T) -> T {
        match &self.index {
            IndexSource::Live(live) => live.index(query),
            IndexSource::Fixed(index) => query(index),
        }
    }

    pub(super) fn end(&self) -> Position {
        let record = self.index(|index| index.records);
        Position {
            generation: self.generation,
            record,
        }
    }

    pub(super) fn summary(&self) -> Option<LogSummary> {
        match &self.source {
            Source::Sealed(sealed) => Some(sealed.summary),
            Source::Plain(..) => None,
        }
    }

    fn records(&self, offset: u64, end: u64) -> RecordReader<'_> {
        RecordReader {
            source: &self.source,
            offset,
            end,
            buffer: Bytes::new(),
        }
    }

    /// Where a reader starts again whose position is none of this log, which has `total` records.
    fn restart(&self, position: Position, total: u64) -> Option<Position> {
        let other = position != Position::START && position.generation != self.generation;
        // A log that has ended does not grow: a position behind its end was in a log that was cut since.
        let cut = self.ended && position.record > total;
        (other || cut).then_some(Position {
            generation: self.generation,
            record: 0,
        })
    }

    /// See [`super::LogStore::changed`].
    pub(super) fn change(&self, since: Position) -> Option<Change> {
        let next = self.end();
        let change = |next, ended, resync| Change { next, ended, resync };
        if let Some(start) = self.restart(since, next.record) {
            return Some(change(start, false, true));
        }
        (self.ended || next.record > since.record).then(|| change(next, self.ended, false))
    }

    /// See [`super::LogStore::read`].
    pub(super) fn page(&self, from: Position, max: usize) -> Result<Page, LogError> {
        let (entry, total, end) = self.index(|index| {
            let entry = index.find(from.record, |entry| entry.record).map(|i| index.entries[i]);
            (entry, index.records, index.end)
        });
        if let Some(next) = self.restart(from, total) {
            return Ok(Page {
                records: Vec::new(),
                next,
                ended: false,
                resync: true,
            });
        }
        let (mut number, offset) = entry.map_or((0, 0), |entry| (entry.record, entry.offset));
        let mut records = Vec::new();
        let mut size = 0;
        let mut reader = self.records(offset, end);
        while number < total && records.len() < max && size < PAGE {
            let Some((header, data)) = reader.next()? else { break };
            if number >= from.record {
                size += data.len() + 64;
                records.push(LogRecord {
                    position: Position {
                        generation: self.generation,
                        record: number,
                    },
                    step: header.step,
                    channel: header.channel,
                    guest_ms: header.guest_ms,
                    node_ms: header.node_ms,
                    data,
                });
            }
            number += 1;
        }
        let record = from.record + records.len() as u64;
        let next = Position {
            generation: self.generation,
            record,
        };
        Ok(Page {
            records,
            next,
            ended: self.ended && record >= total,
            resync: false,
        })
    }

    /// See [`super::LogStore::lines`].
    pub(super) fn lines(&self, from: u64, max: usize) -> Result<LinePage, LogError> {
        let from = from.max(1);
        let last = from.saturating_add(max as u64);
        let (entries, total, end) = self.index(|index| {
            let begin = index.find(from, |entry| entry.line).unwrap_or(0);
            let behind = index.entries.partition_point(|entry| entry.line <= last);
            (
                index.entries.get(begin..behind).unwrap_or_default().to_vec(),
                index.lines,
                index.end,
            )
        });
        let lines = match entries.first() {
            Some(_) if from <= total => self.cut(&entries, from..last, end)?,
            _ => Vec::new(),
        };
        let next = from + lines.len() as u64;
        let ended = self.ended && next > total;
        Ok(LinePage {
            lines,
            total: self.ended.then_some(total),
            ended,
        })
    }

    /// The lines with these numbers, read from the first entry on.
    fn cut(&self, entries: &[Entry], wanted: Range<u64>, end: u64) -> Result<Vec<Line>, LogError> {
        let mut lines: Vec<Line> = Vec::new();
        let Some(first) = entries.first() else { return Ok(lines) };
        let mut splitter = first.splitter();
        let mut number = first.line - 1;
        let mut counted = (first.step, first.line_in_step - 1);
        let mut at = first.within as usize;
        let mut size = 0;
        let mut reader = self.records(first.offset, end);
        while let Some((header, data)) = reader.next()? {
            // A line that goes on is wanted to its end; a new one only within the bounds.
            if (number + 1 >= wanted.end || size >= TEXT) && !splitter.continues(&header) {
                break;
            }
            splitter.split(&header, &data, at, |segment, _| {
                if segment.starts {
                    number += 1;
                    counted = match counted {
                        (step, count) if step == header.step => (step, count + 1),
                        // Where the step changes there is an entry.
                        _ => entries
                            .binary_search_by_key(&number, |entry| entry.line)
                            .map_or((header.step, 1), |i| (header.step, entries[i].line_in_step)),
                    };
                    if wanted.contains(&number) && size < TEXT {
                        lines.push(Line {
                            number,
                            step: header.step,
                            line_in_step: counted.1,
                            channel: header.channel,
                            node_ms: header.node_ms,
                            bytes: Vec::new(),
                            continued: segment.continued,
                        });
                    }
                }
                if let Some(line) = lines.last_mut().filter(|line| line.number == number) {
                    size += segment.bytes.len() + 64;
                    line.bytes.extend_from_slice(&data[segment.bytes]);
                }
            });
            at = 0;
        }
        Ok(lines)
    }

    /// See [`super::LogStore::text_range`].
    pub(super) fn text(&self, range: Range<u64>) -> Result<Bytes, LogError> {
        let (entry, total, end) = self.index(|index| {
            let entry = index.find(range.start, |entry| entry.text).map(|i| index.entries[i]);
            (entry, index.text, index.end)
        });
        let stop = range.end.min(total).min(range.start.saturating_add(TEXT as u64));
        let (mut at, offset) = entry.map_or((0, 0), |entry| (entry.text, entry.offset));
        let mut text = BytesMut::new();
        let mut reader = self.records(offset, end);
        while at < stop
            && let Some((_, data)) = reader.next()?
        {
            let begin = range.start.saturating_sub(at).min(data.len() as u64) as usize;
            let until = (stop - at).min(data.len() as u64) as usize;
            text.extend_from_slice(data.get(begin..until).unwrap_or_default());
            at += data.len() as u64;
        }
        Ok(text.freeze())
    }

    /// See [`super::LogStore::tail`].
    pub(super) fn tail(&self, step: Option<u32>, count: usize) -> Result<Vec<Line>, LogError> {
        let (first, last) = self.index(|index| match step {
            None => (1, index.lines),
            Some(step) => index
                .steps
                .iter()
                .find(|span| span.step == step)
                .map_or((1, 0), |span| (span.first, span.last)),
        });
        // Steps hardly ever print at the same time; where they do, read a little further back.
        let mut reach = count as u64;
        loop {
            let from = (last + 1).saturating_sub(reach).max(first);
            let mut lines = Vec::new();
            let mut next = from;
            while next <= last {
                let page = self.lines(next, (last - next + 1) as usize)?;
                next += page.lines.len() as u64;
                if page.lines.is_empty() {
                    break;
                }
                lines.extend(
                    page.lines
                        .into_iter()
                        .filter(|line| step.is_none_or(|step| line.step == step)),
                );
                lines.drain(..lines.len().saturating_sub(count));
            }
            if lines.len() >= count || from == first {
                return Ok(lines);
            }
            reach = reach.saturating_mul(4);
        }
    }
}
