//! A queue of records in one unlinked file of bounded size, written in a ring.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

/// Where one record lies.
#[derive(Debug, Clone, Copy)]
struct Place {
    offset: u32,
    len: u32,
}

/// The queue. Reads and writes are synchronous: they meet the page cache of a local disk.
#[derive(Debug)]
pub(super) struct RingFile {
    file: File,
    capacity: u32,
    places: VecDeque<Place>,
    /// Where the next record goes if it fits there.
    end: u32,
    bytes: usize,
}

impl RingFile {
    /// A new, empty, nameless file in `dir` of at most `capacity` bytes.
    pub(super) fn create(dir: &Path, capacity: usize) -> io::Result<Self> {
        let path = dir.join(format!("spool-{}", crate::random::hex::<8>()?));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        fs::remove_file(&path)?;
        let capacity = u32::try_from(capacity).map_err(io::Error::other)?;
        Ok(Self {
            file,
            capacity,
            places: VecDeque::new(),
            end: 0,
            bytes: 0,
        })
    }

    /// How many records it holds.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// How many bytes they have.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a record; false when there is no space for it.
    pub(super) fn append(&mut self, record: &[u8]) -> io::Result<bool> {
        let Some(place) = u32::try_from(record.len()).ok().and_then(|len| self.place(len)) else {
            return Ok(false);
        };
        self.file.write_all_at(record, u64::from(place.offset))?;
        self.end = place.offset + place.len;
        self.bytes += record.len();
        self.places.push_back(place);
        Ok(true)
    }

    /// A record is never split: one that does not fit before the end goes to the beginning.
    fn place(&self, len: u32) -> Option<Place> {
        let fits_before_end = self.end.checked_add(len).is_some_and(|end| end <= self.capacity);
        let offset = match self.places.front() {
            None if len <= self.capacity => 0,
            None => return None,
            // Not wrapped: free space is behind `end` and before the oldest.
            Some(oldest) if self.end > oldest.offset => match fits_before_end {
                true => self.end,
                false if len < oldest.offset => 0,
                false => return None,
            },
            // Wrapped: free space is between `end` and the oldest, and the two never meet.
            Some(oldest) if self.end + len < oldest.offset => self.end,
            Some(_) => return None,
        };
        Some(Place { offset, len })
    }

    /// Reads a record, counted from the oldest.
    pub(super) fn read(&self, index: usize) -> io::Result<Vec<u8>> {
        let place = self.places.get(index).ok_or(io::ErrorKind::NotFound)?;
        let mut record = vec![0; place.len as usize];
        self.file.read_exact_at(&mut record, u64::from(place.offset))?;
        Ok(record)
    }

    /// Drops the oldest record.
    pub(super) fn pop(&mut self) {
        if let Some(place) = self.places.pop_front() {
            self.bytes -= place.len as usize;
        }
    }
}
