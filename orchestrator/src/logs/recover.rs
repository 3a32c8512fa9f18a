//! What a log's directory holds, whatever was killed when: the sound records up to the last cut.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    error::LogError,
    index::Index,
    record::{CAPPED, Decoded, FINAL, Header, MAX_RECORD, TAIL},
    types::Channel,
};

pub(super) const META: &str = "meta.json";
pub(super) const RECORDS: &str = "records";
pub(super) const SEALED: &str = "sealed";
const FORMAT: u32 = 1;

/// What is known of the plain file besides its records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Meta {
    format: u32,
    pub(super) generation: u32,
    /// The boot during which the file was last opened for writing.
    pub(super) boot: Option<String>,
}

/// The plain file up to its last cut.
#[derive(Default)]
pub(super) struct Scan {
    pub(super) index: Index,
    /// Where the last cut ends.
    pub(super) end: u64,
    /// Where the last record begins when it is a mark, which the next mark replaces.
    pub(super) mark: Option<u64>,
    /// The header of the last record or mark.
    pub(super) last: Option<Header>,
    pub(super) capped: bool,
    pub(super) finished: bool,
    /// Bytes left out because of the limit, as far as it was written down.
    pub(super) left_out: u64,
    /// Readers may have seen records behind the cut that nobody will write again.
    pub(super) lost: bool,
}

/// Reads records one after another.
pub(super) struct Records<'a> {
    file: &'a File,
    path: &'a Path,
    buffer: Vec<u8>,
    /// Where `buffer` begins in the file.
    start: u64,
    /// Where the next record begins in `buffer`.
    at: usize,
}

impl<'a> Records<'a> {
    pub(super) fn new(file: &'a File, path: &'a Path) -> Self {
        Self {
            file,
            path,
            buffer: Vec::new(),
            start: 0,
            at: 0,
        }
    }

    /// The next sound record: its place, end, header and data; none at the end or where it is torn.
    #[allow(clippy::type_complexity)]
    pub(super) fn next(&mut self) -> Result<Option<(u64, u64, Header, &[u8])>, LogError> {
        if self.buffer.len() - self.at < MAX_RECORD {
            self.fill()?;
        }
        let Decoded::Record(header, data) = Header::decode(&self.buffer[self.at..], false) else {
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

/// Finds the last cut and indexes everything before it. A writer says how many secrets it knows:
/// what was written under more of them is left out, so that the agent's events that named the others
/// come again.
pub(super) fn scan(file: &File, path: &Path, known: Option<usize>) -> Result<Scan, LogError> {
    let mut scan = Scan::default();
    // Records behind the last cut: they count once a cut follows them.
    let mut pending: Vec<(u64, u64, Header, Vec<u8>)> = Vec::new();
    let mut records = Records::new(file, path);
    while let Some((offset, end, header, data)) = records.next()? {
        if known.is_some_and(|known| usize::from(header.masks) > known) {
            break;
        }
        scan.capped |= header.flags & CAPPED != 0;
        if !header.is_cut() {
            pending.push((offset, end, header, data.to_vec()));
            continue;
        }
        for (offset, end, header, data) in pending.drain(..) {
            scan.index.push(offset, end, &header, &data);
        }
        scan.mark = None;
        if header.is_data() {
            scan.index.push(offset, end, &header, data);
        } else {
            scan.mark = Some(offset);
            // A mark has no guest: that place holds the bytes left out.
            scan.left_out = header.guest_ms.cast_unsigned();
        }
        scan.finished = header.flags & FINAL != 0;
        scan.last = Some(header);
        scan.end = end;
    }
    // The agent sends its own events again, and they become the same records again. Nothing else does.
    scan.lost = pending
        .iter()
        .any(|(_, _, header, _)| header.flags & TAIL != 0 || header.channel == Channel::System);
    Ok(scan)
}

/// Makes the directory of one log, and makes its name durable.
pub(super) fn create_dir(dir: &Path) -> Result<(), LogError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|error| LogError::io("create", dir, error))?;
    if let Some(parent) = dir.parent() {
        sync_dir(parent)?;
        if let Some(above) = parent.parent() {
            sync_dir(above)?;
        }
    }
    Ok(())
}

/// Makes the names in a directory durable.
pub(super) fn sync_dir(dir: &Path) -> Result<(), LogError> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|error| LogError::io("sync the directory", dir, error))
}

/// Opens the plain file for writing, new or old.
pub(super) fn open_records(dir: &Path) -> Result<(File, PathBuf), LogError> {
    let path = dir.join(RECORDS);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path);
    Ok((file.map_err(|error| LogError::io("open", &path, error))?, path))
}

/// The directory's `meta.json`, if it has one.
pub(super) fn read_meta(dir: &Path) -> Result<Option<Meta>, LogError> {
    let path = dir.join(META);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(LogError::io("read", &path, error)),
    };
    // The format first: of another one the rest means nothing here.
    #[derive(Deserialize)]
    struct Head {
        format: u32,
    }
    let no_json = |_| LogError::Corrupt {
        path: path.clone(),
        detail: "not the JSON it should be",
    };
    let head: Head = serde_json::from_slice(&text).map_err(no_json)?;
    if head.format != FORMAT {
        return Err(LogError::OtherFormat {
            path,
            found: head.format,
            known: FORMAT,
        });
    }
    serde_json::from_slice(&text).map(Some).map_err(no_json)
}

/// Writes `meta.json` durably.
pub(super) fn write_meta(dir: &Path, generation: u32, boot: Option<String>) -> Result<Meta, LogError> {
    let meta = Meta {
        format: FORMAT,
        generation,
        boot,
    };
    let path = dir.join(META);
    let text = serde_json::to_vec(&meta).map_err(|error| LogError::io("write", &path, error.into()))?;
    replace(dir, META, |file| file.write_all(&text))?;
    Ok(meta)
}

/// Writes a whole file: temporary name, sync, rename, sync of the directory.
pub(super) fn replace(dir: &Path, name: &str, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), LogError> {
    let temp = dir.join(format!("{name}.new"));
    let fail = |action| move |error| LogError::io(action, &dir.join(name), error);
    let open = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temp);
    let mut file = open.map_err(fail("create"))?;
    write(&mut file).and_then(|()| file.sync_all()).map_err(fail("write"))?;
    fs::rename(&temp, dir.join(name)).map_err(fail("rename"))?;
    sync_dir(dir)
}
