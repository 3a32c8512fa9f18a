//! Files that must exist whole or not at all, bounded reads, and directories. A file is gathered beside its final path under
//! a name of its own (`.NAME.….part`), so that renaming it is atomic; a process that dies in between
//! leaves that file behind, until `remove_with_unfinished` or `remove_unfinished`.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, DirEntry, File, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::Path,
};

use tempfile::NamedTempFile;

/// Writes a file of mode 0600. After a crash it has its old content or all of the new one.
///
/// # Errors
/// As the file system's; the old content is then still there.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_whole(path, bytes, 0o600)
}

/// Writes a file of mode 0600 that whoever reads it finds whole, for as long as the host has power; after a power failure
/// it may be empty. For what is of no use then.
///
/// # Errors
/// As [`write_private`].
pub(crate) fn write_volatile(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut part = part_of(path, 0o600)?;
    part.write_all(bytes)?;
    part.persist(path).map(drop).map_err(|error| error.error)
}

/// As [`write_private`], with another mode, of which the umask takes its part.
///
/// # Errors
/// As [`write_private`].
pub(crate) fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut part = part_of(path, mode)?;
    part.write_all(bytes)?;
    part.as_file().sync_all()?;
    part.persist(path).map_err(|error| error.error)?;
    sync_dir(dir_of(path))
}

/// The unfinished file that is to become `path`.
fn part_of(path: &Path, mode: u32) -> io::Result<NamedTempFile> {
    tempfile::Builder::new()
        .prefix(&part_prefix(path))
        .suffix(PART)
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(dir_of(path))
}

/// Removes what writers of this module that died have left in a directory. Nobody else may write there meanwhile.
///
/// # Errors
/// As the file system's.
pub(crate) fn remove_unfinished(dir: &Path) -> io::Result<()> {
    for entry in entries(dir)? {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with('.') && name.ends_with(PART) && entry.file_type()?.is_file() {
            remove_file(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes a file and what writers of it that died have left beside it. Nobody else may write that file meanwhile.
///
/// # Errors
/// As the file system's.
pub(crate) fn remove_with_unfinished(path: &Path) -> io::Result<()> {
    let prefix = part_prefix(path);
    for entry in entries(dir_of(path))? {
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        let of_this = name.starts_with(prefix.as_encoded_bytes()) && name.ends_with(PART.as_bytes());
        if of_this && entry.file_type()?.is_file() {
            remove_file(&entry.path())?;
        }
    }
    remove_file(path)
}

/// How the names of unfinished files end.
const PART: &str = ".part";

/// How the names of a file's unfinished versions begin.
fn part_prefix(path: &Path) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(path.file_name().unwrap_or_default());
    prefix.push(".");
    prefix
}

/// The directory of a file. A relative name without a directory has an empty parent.
fn dir_of(path: &Path) -> &Path {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    dir.unwrap_or(Path::new("."))
}

/// Makes the names in a directory durable.
///
/// # Errors
/// As the file system's.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// A file's bytes; `None` when there is none. Never more than `limit` bytes.
///
/// # Errors
/// As the file system's, and when the file is larger.
pub(crate) fn read_bounded(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::other(format!(
            "{} is larger than {limit} bytes",
            path.display()
        )));
    }
    Ok(Some(bytes))
}

/// Removes a file. An absent one is a success.
///
/// # Errors
/// As the file system's.
pub(crate) fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes a directory, and those above it, that only its owner may enter.
///
/// # Errors
/// As the file system's.
pub(crate) fn private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Makes a directory, and those above it, that everybody may enter, whatever the umask. One that exists stays as it is.
///
/// # Errors
/// As the file system's.
pub(crate) fn public_dir(dir: &Path) -> io::Result<()> {
    for dir in dir.ancestors().collect::<Vec<_>>().into_iter().rev() {
        match fs::create_dir(dir) {
            Ok(()) => fs::set_permissions(dir, Permissions::from_mode(0o755))?,
            Err(error) if dir.is_dir() => drop(error),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The entries of a directory; none when it is absent.
///
/// # Errors
/// As the file system's.
pub(crate) fn entries(dir: &Path) -> io::Result<Vec<DirEntry>> {
    match fs::read_dir(dir) {
        Ok(entries) => entries.collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Removes a directory whose content may be hostile: no link is followed, and directories that a job made unreadable are
/// opened up first. An absent one is a success.
///
/// # Errors
/// As the file system's, after a second try.
pub(crate) fn remove_tree(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(_) => {
            open_up(dir);
            fs::remove_dir_all(dir)
        }
    }
}

fn open_up(dir: &Path) {
    // Whatever fails here fails again, with its error, in the removal that follows.
    let _not_ours = fs::set_permissions(dir, Permissions::from_mode(0o700));
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}

/// Bytes that an ordinary user may still write to the file system of `path`.
///
/// # Errors
/// As the file system's.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let stat = nix::sys::statvfs::statvfs(path)?;
    #[allow(clippy::useless_conversion, reason = "these types differ between systems")]
    Ok(u64::from(stat.blocks_available()).saturating_mul(u64::from(stat.fragment_size())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dead_writer_left_goes_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        for name in [".x1.part", "kept.part", ".kept", "f"] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        fs::create_dir(dir.path().join(".d.part")).unwrap();
        remove_unfinished(dir.path()).unwrap();
        let mut left: Vec<_> = entries(dir.path()).unwrap().iter().map(DirEntry::file_name).collect();
        left.sort();
        assert_eq!(left, [".d.part", ".kept", "f", "kept.part"]);
    }

    #[test]
    fn a_file_goes_with_what_its_dead_writers_left_and_no_other_does() {
        let dir = tempfile::tempdir().unwrap();
        let others = [
            ".a.x1.part",
            ".a.jsonx.x1.part",
            ".a.json.x1",
            "a.json.x1.part",
            "b.json",
        ];
        for name in [".a.json.x1.part", ".a.json.x2.part", "a.json"].iter().chain(&others) {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        fs::create_dir(dir.path().join(".a.json.d.part")).unwrap();
        remove_with_unfinished(&dir.path().join("a.json")).unwrap();
        remove_with_unfinished(&dir.path().join("a.json")).unwrap();
        remove_with_unfinished(&dir.path().join("absent/a.json")).unwrap();
        let mut left: Vec<_> = entries(dir.path()).unwrap().iter().map(DirEntry::file_name).collect();
        left.sort();
        let mut expected = others.to_vec();
        expected.push(".a.json.d.part");
        expected.sort_unstable();
        assert_eq!(left, expected);
    }

    #[test]
    fn the_file_is_replaced_whole_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(&path, "old and longer").unwrap();
        write_private(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn a_volatile_file_is_replaced_whole_and_private_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        for text in ["old and longer", "new"] {
            write_volatile(&path, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_content_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let occupied = dir.path().join("occupied");
        fs::create_dir_all(occupied.join("by")).unwrap();
        assert!(write_private(&occupied, b"new").is_err());
        assert!(occupied.join("by").is_dir());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(write_private(&dir.path().join("none/key"), b"new").is_err());
    }

    #[test]
    fn a_read_is_bounded_and_an_absent_file_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f.json");
        write_private(&path, b"2").unwrap();
        assert_eq!(read_bounded(&path, 1).unwrap().unwrap(), b"2");
        assert!(read_bounded(&path, 0).is_err());
        assert!(read_bounded(&dir.path().join("none"), 9).unwrap().is_none());
    }

    #[test]
    fn trees_with_locked_directories_and_links_go_and_link_targets_stay() {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join("kept");
        fs::write(&kept, b"x").unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::write(tree.join("a/b/f"), b"x").unwrap();
        std::os::unix::fs::symlink(dir.path(), tree.join("link")).unwrap();
        fs::set_permissions(tree.join("a/b"), Permissions::from_mode(0o000)).unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists() && kept.exists());
        remove_tree(&tree).unwrap();
    }
}
