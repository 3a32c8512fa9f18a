//! The contents of volumes: sparse files under `/dev/zvol/rdsk`, and copies of them for snapshots.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    unistd::{Whence, lseek},
};

use crate::{files, host::Host};

/// The raw node of a volume.
#[must_use]
pub fn node(host: &Host, dataset: &str) -> PathBuf {
    host.path("/dev/zvol/rdsk").join(dataset)
}

/// Where the contents of a snapshot lie, by its guid.
#[must_use]
pub fn frozen(host: &Host, guid: u64) -> PathBuf {
    host.dir.join("snapshots").join(guid.to_string())
}

/// Makes an empty volume, with its link in `/dev/zvol/dsk`.
///
/// # Errors
/// The file cannot be made.
pub fn create(host: &Host, dataset: &str, size: u64) -> io::Result<()> {
    let node = node(host, dataset);
    fs::create_dir_all(node.parent().unwrap_or(&node))?;
    File::create(&node)?.set_len(size)?;
    link(host, dataset)
}

/// The block node leads to the raw one.
fn link(host: &Host, dataset: &str) -> io::Result<()> {
    let block = host.path("/dev/zvol/dsk").join(dataset);
    fs::create_dir_all(block.parent().unwrap_or(&block))?;
    files::remove(&block)?;
    let up = "../".repeat(dataset.split('/').count());
    std::os::unix::fs::symlink(format!("{up}rdsk/{dataset}"), block)
}

/// Cuts or grows a volume.
///
/// # Errors
/// The file cannot be changed.
pub fn resize(host: &Host, dataset: &str, size: u64) -> io::Result<()> {
    OpenOptions::new().write(true).open(node(host, dataset))?.set_len(size)
}

/// Keeps a volume's contents for a snapshot.
///
/// # Errors
/// The copy fails.
pub fn freeze(host: &Host, dataset: &str, guid: u64) -> io::Result<()> {
    copy(&node(host, dataset), &frozen(host, guid))
}

/// Makes a volume with a snapshot's contents.
///
/// # Errors
/// The copy fails.
pub fn thaw(host: &Host, guid: u64, dataset: &str) -> io::Result<()> {
    copy(&frozen(host, guid), &node(host, dataset))?;
    link(host, dataset)
}

/// Gives a volume another name; the old one goes when the model has it no more.
///
/// # Errors
/// The file cannot be linked.
pub fn rename(host: &Host, from: &str, to: &str) -> io::Result<()> {
    let target = node(host, to);
    fs::create_dir_all(target.parent().unwrap_or(&target))?;
    fs::hard_link(node(host, from), target)?;
    link(host, to)
}

/// Removes the nodes of a volume that the model of the host with this root has no more.
///
/// # Errors
/// A file cannot be removed.
pub fn remove(root: &Path, dataset: &str) -> io::Result<()> {
    files::remove(&root.join("dev/zvol/rdsk").join(dataset))?;
    files::remove(&root.join("dev/zvol/dsk").join(dataset))
}

/// Bytes that a file really takes.
#[must_use]
pub fn allocated(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |meta| meta.blocks() * 512)
}

/// Whether some process of this machine has the volume open.
#[must_use]
pub fn open_elsewhere(path: &Path) -> bool {
    let Ok(wanted) = fs::metadata(path).map(|meta| (meta.dev(), meta.ino())) else {
        return false;
    };
    let Ok(processes) = fs::read_dir("/proc") else {
        return false;
    };
    processes
        .flatten()
        .filter(|process| {
            process
                .file_name()
                .to_string_lossy()
                .bytes()
                .all(|b| b.is_ascii_digit())
        })
        .filter_map(|process| fs::read_dir(process.path().join("fd")).ok())
        .flat_map(|fds| fds.flatten())
        .filter_map(|fd| fs::metadata(fd.path()).ok())
        .any(|meta| (meta.dev(), meta.ino()) == wanted)
}

/// Copies a file and leaves its holes.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to.parent().unwrap_or(to))?;
    let mut source = File::open(from)?;
    let mut target = File::create(to)?;
    target.set_len(source.metadata()?.len())?;
    let mut at = 0;
    loop {
        let start = match lseek(&source, at, Whence::SeekData) {
            Ok(start) => start,
            Err(Errno::ENXIO) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
        let end = lseek(&source, start, Whence::SeekHole)?;
        let place = u64::try_from(start).unwrap_or(0);
        source.seek(SeekFrom::Start(place))?;
        target.seek(SeekFrom::Start(place))?;
        io::copy(
            &mut (&source).take(u64::try_from(end - start).unwrap_or(0)),
            &mut target,
        )?;
        at = end;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn a_copy_keeps_bytes_and_holes() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        let file = File::create(&a).unwrap();
        file.set_len(8 << 20).unwrap();
        file.write_all_at(b"middle", 4 << 20).unwrap();
        drop(file);
        copy(&a, &b).unwrap();
        assert_eq!(fs::read(&a).unwrap(), fs::read(&b).unwrap());
        assert!(
            allocated(&b) <= allocated(&a) + 65536,
            "{} {}",
            allocated(&a),
            allocated(&b)
        );
    }

    #[test]
    fn an_open_file_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("volume");
        let file = File::create(&path).unwrap();
        assert!(open_elsewhere(&path));
        drop(file);
        assert!(!open_elsewhere(&path));
    }
}
