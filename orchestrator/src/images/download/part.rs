//! The file that a download goes into, and the directory it lies in.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{fcntl::OFlag, unistd::geteuid};
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use super::{
    DownloadError,
    answer::{Kept, Validator},
};
use crate::files;

/// The directory for downloads: in the data directory if that is the caller's own, otherwise one of the caller's in
/// `/var/tmp`. It is made if it is missing; nobody else may have any right to it.
///
/// # Errors
/// When it cannot be made, or is another's, a link, or open to others.
pub fn directory(data_dir: &Path) -> Result<PathBuf, DownloadError> {
    let dir = chosen(data_dir);
    private(&dir)?;
    Ok(dir)
}

fn chosen(data_dir: &Path) -> PathBuf {
    let me = geteuid().as_raw();
    match fs::metadata(data_dir) {
        Ok(there) if there.uid() == me => data_dir.join("downloads"),
        _ => PathBuf::from(format!("/var/tmp/helios-ci-{me}")),
    }
}

/// Makes sure of a directory that is the caller's alone.
fn private(dir: &Path) -> Result<(), DownloadError> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(io_error("make", dir)(error)),
        _ => {}
    }
    let there = fs::symlink_metadata(dir).map_err(io_error("inspect", dir))?;
    let wrong = if !there.is_dir() {
        "it is no directory"
    } else if there.uid() != geteuid().as_raw() {
        "it is another user's"
    } else if there.mode() & 0o077 != 0 {
        "others have rights to it (chmod 700)"
    } else {
        return Ok(());
    };
    Err(DownloadError::Directory {
        dir: dir.to_owned(),
        wrong,
    })
}

pub(super) fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DownloadError {
    let path = path.to_owned();
    move |source| DownloadError::Io { doing, path, source }
}

/// What is remembered beside the bytes.
#[derive(Serialize, Deserialize)]
struct Note {
    /// Of this format: 1.
    version: u32,
    /// What the server called the file.
    validator: String,
}

/// A download's file, locked as long as this lives.
#[derive(Debug)]
pub struct Part {
    path: PathBuf,
    note: PathBuf,
    file: File,
}

impl Part {
    /// Opens or makes it. `None` when another process has it.
    pub(super) fn open(dir: &Path, name: &str) -> Result<Option<Self>, DownloadError> {
        let path = dir.join(name);
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(OFlag::O_NOFOLLOW.bits())
                .open(&path)
                .map_err(io_error("open", &path))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(errno) => return Err(io_error("lock", &path)(errno.into())),
            }
            // Whoever had it before may have removed it: then it is another one that has the name now.
            let mine = file.metadata().map_err(io_error("inspect", &path))?;
            if fs::symlink_metadata(&path).is_ok_and(|now| (now.dev(), now.ino()) == (mine.dev(), mine.ino())) {
                let note = dir.join(format!("{name}.json"));
                return Ok(Some(Self { path, note, file }));
            }
        }
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its length now, in bytes.
    ///
    /// # Errors
    /// The system's word.
    pub fn bytes(&self) -> Result<u64, DownloadError> {
        let meta = self.file.metadata().map_err(io_error("inspect", &self.path))?;
        Ok(meta.len())
    }

    /// What can be continued.
    pub(super) fn kept(&self) -> Result<Option<Kept>, DownloadError> {
        let note = fs::read(&self.note).ok();
        let note = note.and_then(|text| serde_json::from_slice::<Note>(&text).ok());
        let validator = note.filter(|note| note.version == 1);
        let validator = validator.and_then(|note| Validator::new(note.validator.as_bytes()));
        let bytes = self.bytes()?;
        Ok(validator
            .filter(|_| bytes > 0)
            .map(|validator| Kept { bytes, validator }))
    }

    /// Forgets everything, and remembers what comes now. What is remembered never stands beside other bytes.
    pub(super) fn begin(&mut self, validator: Option<&Validator>) -> Result<(), DownloadError> {
        self.file
            .set_len(0)
            .and_then(|()| self.file.sync_all())
            .and_then(|()| self.file.rewind())
            .map_err(io_error("empty", &self.path))?;
        let validator = validator.and_then(|validator| validator.header().to_str().ok());
        match validator {
            Some(validator) => {
                let validator = validator.to_owned();
                serde_json::to_vec(&Note { version: 1, validator })
                    .map_err(io::Error::from)
                    .and_then(|text| files::write_private(&self.note, &text))
                    .map_err(io_error("write", &self.note))
            }
            None => remove(&self.note),
        }
    }

    /// Goes to where more is to be written.
    pub(super) fn go_on(&mut self, from: u64) -> Result<(), DownloadError> {
        let gone = self.file.seek(SeekFrom::Start(from));
        gone.map(drop).map_err(io_error("continue", &self.path))
    }

    /// More bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), DownloadError> {
        self.file.write_all(bytes).map_err(io_error("write", &self.path))
    }

    /// Removes it, and what was remembered.
    ///
    /// # Errors
    /// The system's word.
    pub fn discard(self) -> Result<(), DownloadError> {
        // The file last: until then both names are ours alone.
        remove(&self.note)?;
        remove(&self.path)
    }
}

/// Removes what was begun and then left alone for so long, but not the file of this name, which is wanted now.
pub(super) fn forget_abandoned(dir: &Path, wanted: &str, age: Duration) -> Result<(), DownloadError> {
    for entry in fs::read_dir(dir).map_err(io_error("list", dir))? {
        let entry = entry.map_err(io_error("list", dir))?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        if name == wanted || !name.ends_with(".part") {
            continue;
        }
        // One that another process removes just now is no matter.
        let Ok(meta) = entry.metadata() else {
            continue;
        };
        let passed = meta.modified().ok().and_then(|written| written.elapsed().ok());
        if meta.is_file()
            && passed.is_some_and(|passed| passed >= age)
            && let Some(part) = Part::open(dir, &name)?
        {
            part.discard()?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), DownloadError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::{PermissionsExt, symlink},
        time::SystemTime,
    };

    use super::*;

    #[test]
    fn the_directory_is_the_callers_alone() {
        let dir = tempfile::tempdir().unwrap();
        let place = directory(dir.path()).unwrap();
        assert_eq!(place, dir.path().join("downloads"));
        assert_eq!(fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o700);
        private(&place).unwrap();
        let refused = |path: &Path| private(path).unwrap_err().to_string();
        fs::set_permissions(&place, fs::Permissions::from_mode(0o750)).unwrap();
        assert!(refused(&place).contains("chmod 700"), "{}", refused(&place));
        fs::set_permissions(&place, fs::Permissions::from_mode(0o700)).unwrap();
        let link = dir.path().join("link");
        symlink(&place, &link).unwrap();
        assert!(refused(&link).contains("no directory"));
        if geteuid().is_root() {
            std::os::unix::fs::chown(&place, Some(12345), None).unwrap();
            assert!(refused(&place).contains("another user's"));
            // Another's data directory is not written into.
            std::os::unix::fs::chown(dir.path(), Some(12345), None).unwrap();
            assert_eq!(chosen(dir.path()), Path::new("/var/tmp/helios-ci-0"));
        }
        assert!(chosen(Path::new("/nonexistent")).starts_with("/var/tmp"));
    }

    #[test]
    fn one_at_a_time_and_what_is_remembered_goes_with_the_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Part::open(dir.path(), "a.part").unwrap();
        let mut part = open().unwrap();
        assert!(open().is_none());
        assert_eq!(fs::metadata(part.path()).unwrap().permissions().mode() & 0o777, 0o600);
        let validator = Validator::new(b"\"a\"").unwrap();
        part.begin(Some(&validator)).unwrap();
        assert_eq!(part.kept().unwrap(), None, "nothing is nothing");
        part.write(b"12345").unwrap();
        drop(part);
        let mut part = open().unwrap();
        assert_eq!(part.kept().unwrap(), Some(Kept { bytes: 5, validator }));
        part.go_on(5).unwrap();
        part.write(b"6").unwrap();
        assert_eq!(fs::read(part.path()).unwrap(), b"123456");
        fs::write(
            dir.path().join("a.part.json"),
            "{\"version\":1,\"validator\":\"a\\nb\"}",
        )
        .unwrap();
        assert_eq!(part.kept().unwrap(), None, "a damaged note is none");
        part.begin(None).unwrap();
        part.write(b"9").unwrap();
        assert_eq!((part.bytes().unwrap(), part.kept().unwrap()), (1, None));
        part.discard().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_nobody_came_back_for_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let made = |name: &str, days: u64| {
            let mut part = Part::open(dir.path(), name).unwrap().unwrap();
            part.begin(Validator::new(b"\"a\"").as_ref()).unwrap();
            part.write(b"12345").unwrap();
            let then = SystemTime::now() - Duration::from_secs(days * 24 * 3600);
            part.file.set_modified(then).unwrap();
            part
        };
        for (name, days) in [("wanted.part", 9), ("young.part", 6), ("old.part", 8)] {
            drop(made(name, days));
        }
        let _locked = made("busy.part", 9);
        fs::write(dir.path().join("a-persons"), "").unwrap();
        symlink("a-persons", dir.path().join("link.part")).unwrap();
        forget_abandoned(dir.path(), "wanted.part", Duration::from_secs(7 * 24 * 3600)).unwrap();
        let left = fs::read_dir(dir.path()).unwrap();
        let mut left: Vec<_> = left.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        let parts = ["busy", "wanted", "young"].map(|name| [format!("{name}.part"), format!("{name}.part.json")]);
        let mut expected = parts.concat();
        expected.extend(["a-persons", "link.part"].map(str::to_owned));
        expected.sort();
        assert_eq!(left, expected);
    }

    #[test]
    fn a_link_in_its_place_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("precious"), "data").unwrap();
        symlink("precious", dir.path().join("a.part")).unwrap();
        assert!(Part::open(dir.path(), "a.part").is_err());
        assert_eq!(fs::read(dir.path().join("precious")).unwrap(), b"data");
    }
}
