//! The sealed file: the records that have data, without checksums, in independent zstd frames of about
//! 256 KiB each (whole records only), then a skippable frame with block table and index, so that
//! `zstd -d` alone still reads it. The last 32 bytes say how to read the skippable frame, and in which format the records
//! are (`record`).

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use zstd::zstd_safe::CParameter;

use super::{
    error::LogError,
    index::Index,
    log_dir::{self, META, RECORDS, SEALED},
    record::{self, FORMAT, Format, MAX_RECORD, RecordHeader, ResumePoint, SHORT, u32_at, u64_at},
    recover::RecordScanner,
    types::LogSummary,
};

const BLOCK: usize = 256 << 10;
const LEVEL: i32 = 3;
const SKIPPABLE: u32 = 0x184D_2A50;
const FOOTER: usize = 32;
/// A damaged length must not ask for all of memory.
const LARGEST_INDEX: u32 = 256 << 20;

/// Compresses the plain file into `sealed`. The plain file stays: a second call does the same again.
pub(super) fn write(
    dir: &Path,
    plain: &File,
    path: &Path,
    generation: u32,
    left_out: u64,
) -> Result<LogSummary, LogError> {
    let mut failed = None;
    let mut index = Index::default();
    let result = log_dir::replace(dir, SEALED, |file| {
        let mut out = Blocks::new(file)?;
        let mut records = RecordScanner::new(plain, path);
        loop {
            match records.next() {
                Ok(None) => break,
                Ok(Some((_, _, header, data))) if header.is_data() => out.push(&header, data, &mut index)?,
                Ok(Some(_)) => {}
                Err(error) => {
                    failed = Some(error);
                    return Err(io::Error::other("the plain log cannot be read"));
                }
            }
        }
        out.finish(&index, generation, left_out)
    });
    if let Some(error) = failed {
        return Err(error);
    }
    result?;
    let path = dir.join(SEALED);
    let file = File::open(&path).map_err(|error| LogError::io("open", &path, error))?;
    Ok(Sealed::open(file, path)?.summary)
}

/// Removes what the sealed file replaces.
pub(super) fn remove_plain(dir: &Path) -> Result<(), LogError> {
    for name in [RECORDS, META] {
        let path = dir.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(LogError::io("remove", &path, error)),
            _ => {}
        }
    }
    Ok(())
}

/// Writes blocks one after another.
struct Blocks<'a> {
    out: BufWriter<&'a mut File>,
    compressor: zstd::bulk::Compressor<'static>,
    block: Vec<u8>,
    /// Where each block begins, plain and compressed.
    table: Vec<(u64, u64)>,
    plain: u64,
    written: u64,
}

impl<'a> Blocks<'a> {
    fn new(file: &'a mut File) -> io::Result<Self> {
        let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
        compressor.set_parameter(CParameter::ChecksumFlag(true))?;
        Ok(Self {
            out: BufWriter::new(file),
            compressor,
            block: Vec::with_capacity(BLOCK + MAX_RECORD),
            table: Vec::new(),
            plain: 0,
            written: 0,
        })
    }

    fn push(&mut self, header: &RecordHeader, data: &[u8], index: &mut Index) -> io::Result<()> {
        // What only recovery needs is left out, because it would not compress.
        let header = RecordHeader {
            flags: 0,
            sequence: 0,
            masks: 0,
            resume: [ResumePoint::clean(0); 2],
            stopped: None,
            ..*header
        };
        let begin = self.block.len();
        self.block.resize(begin + SHORT, 0);
        header.encode(&mut self.block[begin..]);
        self.block[begin..begin + 4].fill(0);
        self.block.extend_from_slice(data);
        let offset = self.plain + begin as u64;
        index.push(offset, self.plain + self.block.len() as u64, &header, data);
        if self.block.len() >= BLOCK {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let compressed = self.compressor.compress(&self.block)?;
        self.out.write_all(&compressed)?;
        self.table.push((self.plain, self.written));
        self.plain += self.block.len() as u64;
        self.written += compressed.len() as u64;
        self.block.clear();
        Ok(())
    }

    fn finish(mut self, index: &Index, generation: u32, left_out: u64) -> io::Result<()> {
        if !self.block.is_empty() {
            self.flush()?;
        }
        self.table.push((self.plain, self.written));
        let mut known = Vec::new();
        known.extend_from_slice(&(self.table.len() as u64).to_le_bytes());
        for (plain, compressed) in &self.table {
            known.extend_from_slice(&plain.to_le_bytes());
            known.extend_from_slice(&compressed.to_le_bytes());
        }
        known.extend_from_slice(&index.encode());
        let compressed = self.compressor.compress(&known)?;
        let size = |length: usize| u32::try_from(length).map_err(|_| io::Error::other("the index is too large"));
        self.out.write_all(&SKIPPABLE.to_le_bytes())?;
        self.out.write_all(&size(compressed.len() + FOOTER)?.to_le_bytes())?;
        self.out.write_all(&compressed)?;
        let mut footer = [0; FOOTER];
        footer[..4].copy_from_slice(&size(compressed.len())?.to_le_bytes());
        footer[4..8].copy_from_slice(&size(known.len())?.to_le_bytes());
        footer[8..12].copy_from_slice(&generation.to_le_bytes());
        footer[12..20].copy_from_slice(&left_out.to_le_bytes());
        let crc = crc32fast::hash(&footer[..20]);
        footer[20..24].copy_from_slice(&crc.to_le_bytes());
        footer[24..].copy_from_slice(&record::head());
        self.out.write_all(&footer)?;
        self.out.flush()
    }
}

/// A sealed file, open for reading.
pub(super) struct Sealed {
    file: File,
    pub(super) path: PathBuf,
    pub(super) summary: LogSummary,
    pub(super) index: Arc<Index>,
    /// Where each block begins, plain and compressed; the last entry is where the blocks end.
    table: Vec<(u64, u64)>,
    /// The block read last: readers go forward, and several pages come from one block.
    last: Mutex<Option<(u64, Bytes)>>,
}

impl Sealed {
    pub(super) fn open(file: File, path: PathBuf) -> Result<Self, LogError> {
        let corrupt = |detail| LogError::Corrupt {
            path: path.clone(),
            detail,
        };
        let length = file
            .metadata()
            .map_err(|error| LogError::io("inspect", &path, error))?
            .len();
        let begin = length.checked_sub(FOOTER as u64).ok_or_else(|| corrupt("too short"))?;
        let mut footer = [0; FOOTER];
        file.read_exact_at(&mut footer, begin)
            .map_err(|error| LogError::io("read", &path, error))?;
        if let Format::Other(found) = record::format_of(&footer[24..]) {
            return Err(LogError::OtherFormat {
                path,
                found: found.into(),
                known: FORMAT.into(),
            });
        }
        let sound = record::format_of(&footer[24..]) == Format::Known
            && u32_at(&footer, 20) == Some(crc32fast::hash(&footer[..20]));
        let fields = (
            u32_at(&footer, 0),
            u32_at(&footer, 4),
            u32_at(&footer, 8),
            u64_at(&footer, 12),
        );
        let (Some(size), Some(known), Some(generation), Some(left_out)) = fields else {
            return Err(corrupt("no end"));
        };
        if !sound || known > LARGEST_INDEX || u64::from(size) > begin {
            return Err(corrupt("its last bytes are not those of a sealed log"));
        }
        let mut compressed = vec![0; size as usize];
        let at = begin - u64::from(size);
        file.read_exact_at(&mut compressed, at)
            .map_err(|error| LogError::io("read", &path, error))?;
        let known = zstd::bulk::decompress(&compressed, known as usize).map_err(|_| corrupt("its index is damaged"))?;
        let (table, index) = decode(&known).ok_or_else(|| corrupt("its index makes no sense"))?;
        let summary = LogSummary {
            generation,
            records: index.records,
            lines: index.lines,
            text_bytes: index.text,
            left_out,
            stored_bytes: length,
        };
        Ok(Self {
            file,
            path,
            summary,
            index: Arc::new(index),
            table,
            last: Mutex::new(None),
        })
    }

    /// The rest of the block that holds the plain `offset`.
    pub(super) fn fetch(&self, offset: u64) -> Result<Bytes, LogError> {
        let corrupt = |detail| LogError::Corrupt {
            path: self.path.clone(),
            detail,
        };
        let i = self.table.partition_point(|(plain, _)| *plain <= offset);
        let (Some(block), Some(next)) = (i.checked_sub(1).and_then(|i| self.table.get(i)), self.table.get(i)) else {
            return Err(corrupt("its index points behind its end"));
        };
        let rest = |bytes: &Bytes| bytes.slice((offset - block.0) as usize..);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((plain, bytes)) = &*last
            && *plain == block.0
        {
            return Ok(rest(bytes));
        }
        let mut compressed = vec![0; (next.1 - block.1) as usize];
        self.file
            .read_exact_at(&mut compressed, block.1)
            .map_err(|error| LogError::io("read", &self.path, error))?;
        let size = (next.0 - block.0) as usize;
        let plain = zstd::bulk::decompress(&compressed, size).map_err(|_| corrupt("a block is damaged"))?;
        if plain.len() != size {
            return Err(corrupt("a block has another size than the index says"));
        }
        let plain = Bytes::from(plain);
        let bytes = rest(&plain);
        *last = Some((block.0, plain));
        Ok(bytes)
    }
}

/// The block table and the index. Blocks ascend and are of a size that fits into memory.
#[allow(clippy::type_complexity)]
fn decode(known: &[u8]) -> Option<(Vec<(u64, u64)>, Index)> {
    let count = usize::try_from(u64_at(known, 0)?).ok()?;
    let end = count.checked_mul(16)?.checked_add(8)?;
    let table = known.get(8..end)?;
    let table: Vec<_> = table
        .chunks_exact(16)
        .filter_map(|b| Some((u64_at(b, 0)?, u64_at(b, 8)?)))
        .collect();
    let most = (BLOCK + MAX_RECORD) as u64;
    let sane = |pair: &[(u64, u64)]| {
        let step = |a: u64, b: u64| b.checked_sub(a).is_some_and(|size| size <= 2 * most);
        step(pair[0].0, pair[1].0) && step(pair[0].1, pair[1].1)
    };
    let index = Index::decode(known.get(end..)?)?;
    (table.windows(2).all(sane) && table.last()?.0 == index.end).then_some((table, index))
}
