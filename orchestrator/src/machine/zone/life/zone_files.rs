//! Files inside a zone. Whoever breaks out of bhyve is root there, so every step of a path is opened by
//! itself, without following links, and only regular files are read, a bounded part of them.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    os::fd::OwnedFd,
    path::Path,
};

use nix::{
    fcntl::{OFlag, openat},
    sys::stat::Mode,
};

use crate::foreign_text::tail_as_line;

/// The directory `parts` below `root`, whose own path is trusted.
fn directory(root: &Path, parts: &[&str]) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut open: OwnedFd = File::open(root)?.into();
    for part in parts {
        open = openat(&open, *part, flags, Mode::empty())?;
    }
    Ok(open)
}

/// Writes a new file that only root can read: an existing one, whatever it is, is an error.
pub(in crate::machine::zone) fn create(root: &Path, parts: &[&str], name: &str, bytes: &[u8]) -> io::Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let directory = directory(root, parts)?;
    let mut file = File::from(openat(&directory, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
    file.write_all(bytes)?;
    file.sync_all()
}

/// The last `limit` bytes of a regular file; none when it cannot be read.
pub(in crate::machine::zone) fn end(root: &Path, parts: &[&str], name: &str, limit: u64) -> Option<Vec<u8>> {
    // Without waiting: a FIFO has no writer and is no regular file.
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::from(openat(&directory(root, parts)?, name, flags, Mode::empty())?);
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        file.seek(SeekFrom::Start(metadata.len().saturating_sub(limit)))?;
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().ok()
}

/// As [`end`], in one line of text; none when there is none.
pub(in crate::machine::zone) fn tail(root: &Path, parts: &[&str], name: &str, limit: u64) -> Option<String> {
    let bytes = end(root, parts, name, limit)?;
    let text = tail_as_line(&bytes, bytes.len());
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn nothing_is_followed_and_nothing_is_replaced() {
        let zone = tempfile::tempdir().unwrap();
        let root = zone.path();
        std::fs::create_dir_all(root.join("root/etc")).unwrap();
        create(root, &["root"], "seed.img", b"x").unwrap();
        let mode = std::fs::metadata(root.join("root/seed.img"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        create(root, &["root"], "seed.img", b"y").unwrap_err();
        symlink("/etc", root.join("root/evil")).unwrap();
        create(root, &["root", "evil"], "passwd2", b"x").unwrap_err();
        symlink(root.join("root/seed.img"), root.join("root/etc/link")).unwrap();
        assert_eq!(tail(root, &["root", "etc"], "link", 10), None);
        nix::unistd::mkfifo(&root.join("root/fifo"), Mode::S_IRWXU).unwrap();
        assert_eq!(tail(root, &["root"], "fifo", 10), None);
        std::fs::write(root.join("root/log"), "one\ntwo\u{7}three").unwrap();
        assert_eq!(tail(root, &["root"], "log", 100).unwrap(), "one two three");
        assert_eq!(tail(root, &["root"], "log", 5).unwrap(), "three");
    }
}
