//! A machine's console on disk: a directory of segments, each named by the position of its first
//! byte. Only the last two are kept, so a console never takes more than its cap, whoever reads or
//! does not read it, and a position means the same to a restarted writer.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::{Console, INPUT_LIMIT, step_error::StepError};
use crate::files;

/// The most that one read returns.
const READ_LIMIT: u64 = 64 * 1024;

/// Appends to a console and removes what falls off its end.
#[derive(Debug)]
pub struct Writer {
    dir: PathBuf,
    file: File,
    /// Bytes in the current segment.
    len: u64,
    /// Position of the current segment's first byte.
    start: u64,
    /// A segment's size: half of the cap.
    segment: u64,
}

/// Refuses more input than one call takes.
pub(super) fn check_input(bytes: &[u8]) -> Result<(), StepError> {
    if bytes.len() > INPUT_LIMIT {
        return Err(StepError::permanent(format!("more than {INPUT_LIMIT} bytes at once")));
    }
    Ok(())
}

fn name(dir: &Path, start: u64) -> PathBuf {
    dir.join(format!("{start:020}"))
}

/// The first segment's file, for a process that writes its console by itself and without a cap.
pub(crate) fn first(dir: &Path) -> PathBuf {
    name(dir, 0)
}

/// The segments' first positions, in order; none when there is no console.
fn segments(dir: &Path) -> io::Result<Vec<u64>> {
    let mut starts = Vec::new();
    for entry in files::entries(dir)? {
        if let Some(text) = entry.file_name().to_str()
            && text.len() == 20
            && let Ok(start) = text.parse()
        {
            starts.push(start);
        }
    }
    starts.sort_unstable();
    Ok(starts)
}

impl Writer {
    /// Opens a console for appending, at its end when it exists already. At most `cap` bytes are
    /// kept, and at least half of that.
    ///
    /// # Errors
    /// As the file system's.
    pub fn open(dir: &Path, cap: u64) -> io::Result<Self> {
        files::private_dir(dir)?;
        let start = segments(dir)?.last().copied().unwrap_or(0);
        let file = append(dir, start)?;
        let len = file.metadata()?.len();
        Ok(Self {
            dir: dir.to_owned(),
            file,
            len,
            start,
            segment: (cap / 2).max(1),
        })
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// As the file system's.
    pub fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.len >= self.segment {
                self.turn()?;
            }
            let room = usize::try_from(self.segment - self.len).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(bytes.len().min(room));
            self.file.write_all(now)?;
            self.len += now.len() as u64;
            bytes = later;
        }
        Ok(())
    }

    fn turn(&mut self) -> io::Result<()> {
        let start = self.start + self.len;
        // The previous segment stays, everything older goes; first, so that the cap always holds.
        for old in segments(&self.dir)? {
            if old < self.start {
                std::fs::remove_file(name(&self.dir, old))?;
            }
        }
        self.file = append(&self.dir, start)?;
        self.start = start;
        self.len = 0;
        Ok(())
    }
}

fn append(dir: &Path, start: u64) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(name(dir, start))
}

/// Reads at most 64 KiB from a position; what is no longer kept is passed over.
///
/// # Errors
/// As the file system's.
pub fn read(dir: &Path, from: u64) -> io::Result<Console> {
    let starts = segments(dir)?;
    let mut next = from.max(starts.first().copied().unwrap_or(from));
    let mut bytes = Vec::new();
    for (index, &start) in starts.iter().enumerate() {
        let wanted = READ_LIMIT - bytes.len() as u64;
        let over = starts.get(index + 1).is_some_and(|&end| next >= end);
        if wanted == 0 || over || next < start {
            continue;
        }
        let mut file = match File::open(name(dir, start)) {
            Ok(file) => file,
            // The writer has just dropped it; the answer begins later.
            Err(error) if error.kind() == io::ErrorKind::NotFound && bytes.is_empty() => {
                next = starts.get(index + 1).copied().unwrap_or(next);
                continue;
            }
            Err(error) => return Err(error),
        };
        file.seek(SeekFrom::Start(next - start))?;
        next += file.take(wanted).read_to_end(&mut bytes)? as u64;
    }
    Ok(Console { bytes, next })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(dir: &Path, mut from: u64) -> (Vec<u8>, u64) {
        let mut bytes = Vec::new();
        loop {
            let part = read(dir, from).unwrap();
            if part.bytes.is_empty() {
                return (bytes, part.next);
            }
            from = part.next;
            bytes.extend(part.bytes);
        }
    }

    #[test]
    fn no_console_reads_as_empty() {
        let dir = tempfile::tempdir().unwrap();
        let console = read(&dir.path().join("none"), 5).unwrap();
        assert_eq!((console.bytes.len(), console.next), (0, 5));
    }

    #[test]
    fn one_read_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        Writer::open(dir.path(), 1 << 20)
            .unwrap()
            .write(&[b'x'; 200_000])
            .unwrap();
        assert_eq!(read(dir.path(), 0).unwrap().bytes.len(), 64 * 1024);
        assert_eq!(all(dir.path(), 1).0.len(), 199_999);
    }

    proptest! {
        #[test]
        fn the_end_is_kept_under_the_cap_across_restarts(
            writes in prop::collection::vec((0usize..300, any::<bool>()), 0..40), cap in 2u64..500
        ) {
            let dir = tempfile::tempdir().unwrap();
            let mut writer = Writer::open(dir.path(), cap).unwrap();
            let mut model = Vec::new();
            for (size, restart) in writes {
                if restart {
                    writer = Writer::open(dir.path(), cap).unwrap();
                }
                let bytes: Vec<u8> = (0..size).map(|i| ((model.len() + i) % 251) as u8).collect();
                writer.write(&bytes).unwrap();
                model.extend(bytes);
                let used: u64 = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
                prop_assert!(used <= cap, "{used} > {cap}");
            }
            let (kept, next) = all(dir.path(), 0);
            prop_assert_eq!(next, model.len() as u64);
            prop_assert!(model.ends_with(&kept));
            prop_assert!(kept.len() as u64 >= (cap / 2).min(model.len() as u64));
        }
    }
}
