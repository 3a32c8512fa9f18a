//! Finding and hashing files below a directory. Links are never followed.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use helios_proto::v1::{Files, files};
use nix::libc;
use ring::digest;

use super::{FileError, absolute};

/// Deeper trees are refused.
const MAX_DEPTH: usize = 128;

/// Larger trees are refused, matching or not.
const MAX_ENTRIES: usize = 2_000_000;

/// An answer has to fit into one message; longer ones are cut and say so.
const MAX_ANSWER: usize = 3 << 20;

/// What one file costs in the answer beside its path.
const ENTRY: usize = 56;

/// Files below `root` that match, in the order of their paths' bytes.
pub fn walk(root: String, patterns: &[String], max_files: u32) -> Result<Files, FileError> {
    let root = absolute(root)?;
    let patterns = Patterns::new(patterns)?;
    let mut walker = Walker {
        root: &root,
        patterns,
        max_files,
        entries: 0,
        answer: 0,
        found: Files::default(),
    };
    walker.directory(&root, &mut Vec::new(), 0)?;
    Ok(walker.found)
}

/// The same with the SHA-256 of each file.
pub fn hash(root: String, patterns: &[String], max_files: u32) -> Result<Files, FileError> {
    let directory = PathBuf::from(&root);
    let mut found = walk(root, patterns, max_files)?;
    let mut buffer = vec![0; 64 * 1024];
    for file in &mut found.files {
        let path = directory.join(std::ffi::OsStr::from_bytes(&file.path));
        (file.size, file.sha256) = hash_file(&path, &mut buffer)?;
    }
    Ok(found)
}

/// Opens a regular file and nothing else: no link, and no waiting for a pipe or device.
pub(super) fn open_regular(path: &Path) -> Result<File, FileError> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Err(FileError::NotRegular(path.to_owned())),
        opened => opened.map_err(FileError::system("open", path))?,
    };
    match file.metadata().map_err(FileError::system("look at", path))?.is_file() {
        true => Ok(file),
        false => Err(FileError::NotRegular(path.to_owned())),
    }
}

fn hash_file(path: &Path, buffer: &mut [u8]) -> Result<(u64, Vec<u8>), FileError> {
    let mut file = open_regular(path)?;
    let mut context = digest::Context::new(&digest::SHA256);
    let mut size = 0;
    loop {
        let read = file.read(buffer).map_err(FileError::system("read", path))?;
        if read == 0 {
            return Ok((size, context.finish().as_ref().to_vec()));
        }
        size += read as u64;
        context.update(&buffer[..read]);
    }
}

/// Patterns in their order: the last one that matches decides, `!` takes away.
struct Patterns {
    set: GlobSet,
    adds: Vec<bool>,
}

impl Patterns {
    fn new(patterns: &[String]) -> Result<Self, FileError> {
        let (mut set, mut adds) = (GlobSetBuilder::new(), Vec::new());
        for pattern in patterns {
            let (add, glob) = pattern
                .strip_prefix('!')
                .map_or((true, pattern.as_str()), |glob| (false, glob));
            let invalid = |source| FileError::Pattern {
                pattern: pattern.clone(),
                source,
            };
            set.add(
                GlobBuilder::new(glob)
                    .literal_separator(true)
                    .build()
                    .map_err(invalid)?,
            );
            adds.push(add);
        }
        if !adds.contains(&true) {
            return Err(FileError::Invalid("no pattern says which files are meant".to_owned()));
        }
        let set = set.build().map_err(|source| FileError::Pattern {
            pattern: patterns.join(" "),
            source,
        })?;
        Ok(Self { set, adds })
    }

    fn matches(&self, path: &[u8]) -> bool {
        let matches = self.set.matches(Path::new(std::ffi::OsStr::from_bytes(path)));
        matches.into_iter().max().is_some_and(|last| self.adds[last])
    }
}

struct Walker<'a> {
    root: &'a Path,
    patterns: Patterns,
    max_files: u32,
    entries: usize,
    answer: usize,
    found: Files,
}

impl Walker<'_> {
    /// Goes through one directory; `prefix` is its path below the root with a `/` at the end.
    fn directory(&mut self, directory: &Path, prefix: &mut Vec<u8>, depth: usize) -> Result<(), FileError> {
        if depth > MAX_DEPTH {
            return Err(self.limit(format!("more than {MAX_DEPTH} levels of directories")));
        }
        let mut names = Vec::new();
        let entries = match fs::read_dir(directory) {
            // Gone since its parent was read.
            Err(error) if depth > 0 && error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(FileError::system("read the directory", directory))?,
        };
        for entry in entries {
            let entry = entry.map_err(FileError::system("read the directory", directory))?;
            let kind = entry.file_type().map_err(FileError::system("look at", &entry.path()))?;
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return Err(self.limit(format!("more than {MAX_ENTRIES} entries")));
            }
            let mut name = entry.file_name().as_bytes().to_vec();
            if kind.is_dir() {
                // With the slash, the order of names is the order of whole paths.
                name.push(b'/');
            } else if !kind.is_file() {
                continue;
            }
            names.push(name);
        }
        names.sort_unstable();
        for name in names {
            let above = prefix.len();
            prefix.extend_from_slice(&name);
            if name.ends_with(b"/") {
                self.directory(&directory.join(std::ffi::OsStr::from_bytes(&name)), prefix, depth + 1)?;
            } else if self.patterns.matches(prefix) {
                self.file(directory, &name, prefix)?;
            }
            prefix.truncate(above);
            if self.found.truncated {
                break;
            }
        }
        Ok(())
    }

    fn file(&mut self, directory: &Path, name: &[u8], path: &[u8]) -> Result<(), FileError> {
        let cost = path.len() + ENTRY;
        if self.found.files.len() >= self.max_files as usize || self.answer + cost > MAX_ANSWER {
            self.found.truncated = true;
            return Ok(());
        }
        let at = directory.join(std::ffi::OsStr::from_bytes(name));
        let size = match fs::symlink_metadata(&at) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found.map_err(FileError::system("look at", &at))?.size(),
        };
        self.answer += cost;
        self.found.files.push(files::File {
            path: path.to_vec(),
            size,
            sha256: Vec::new(),
        });
        Ok(())
    }

    fn limit(&self, what: String) -> FileError {
        FileError::Limit {
            root: self.root.to_owned(),
            what,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tree(paths: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for path in paths {
            let at = dir.path().join(path);
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            fs::write(at, path).unwrap();
        }
        dir
    }

    fn names(found: &Files) -> Vec<String> {
        found
            .files
            .iter()
            .map(|file| String::from_utf8(file.path.clone()).unwrap())
            .collect()
    }

    fn find(dir: &Path, patterns: &[&str], max: u32) -> Result<Files, FileError> {
        let patterns: Vec<_> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        walk(dir.display().to_string(), &patterns, max)
    }

    #[test]
    fn patterns_choose_and_take_away() {
        let dir = tree(&[
            "a.rs",
            "a/b.rs",
            "a/c.txt",
            "a/deep/d.rs",
            ".hidden/e.rs",
            "target/f.rs",
        ]);
        assert_eq!(names(&find(dir.path(), &["*.rs"], 99).unwrap()), ["a.rs"]);
        assert_eq!(names(&find(dir.path(), &["a/*"], 99).unwrap()), ["a/b.rs", "a/c.txt"]);
        let found = find(dir.path(), &["**/*.rs", "!target/**"], 99).unwrap();
        assert_eq!(names(&found), [".hidden/e.rs", "a.rs", "a/b.rs", "a/deep/d.rs"]);
        let found = find(dir.path(), &["**", "!a/**", "a/c.txt"], 99).unwrap();
        assert_eq!(names(&found), [".hidden/e.rs", "a.rs", "a/c.txt", "target/f.rs"]);
        assert!(!found.truncated);
        assert_eq!(found.files[1].size, 4);
    }

    #[test]
    fn limits_cut_and_say_so() {
        let dir = tree(&["1", "2", "3"]);
        let found = find(dir.path(), &["*"], 2).unwrap();
        assert_eq!(
            (names(&found), found.truncated),
            (vec!["1".to_owned(), "2".to_owned()], true)
        );
        assert!(!find(dir.path(), &["*"], 3).unwrap().truncated);
        let deep = tempfile::tempdir().unwrap();
        fs::create_dir_all(deep.path().join("d/".repeat(MAX_DEPTH + 1))).unwrap();
        assert!(matches!(find(deep.path(), &["**"], 9), Err(FileError::Limit { .. })));
    }

    #[test]
    fn nonsense_is_refused_in_words() {
        let dir = tree(&["1"]);
        assert!(find(dir.path(), &["a{b"], 9).unwrap_err().to_string().contains("`a{b`"));
        assert!(matches!(find(dir.path(), &[], 9), Err(FileError::Invalid(_))));
        assert!(matches!(find(dir.path(), &["!x"], 9), Err(FileError::Invalid(_))));
        assert!(matches!(
            find(Path::new("relative"), &["*"], 9),
            Err(FileError::Invalid(_))
        ));
        assert!(
            find(Path::new("/nonexistent"), &["*"], 9)
                .unwrap_err()
                .to_string()
                .contains("/nonexistent")
        );
    }

    #[test]
    fn links_and_pipes_are_left_alone() {
        let dir = tree(&["real/file"]);
        let at = |name: &str| dir.path().join(name);
        std::os::unix::fs::symlink(at("real"), at("linked")).unwrap();
        std::os::unix::fs::symlink(at("real/file"), at("link")).unwrap();
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(names(&find(dir.path(), &["**"], 9).unwrap()), ["real/file"]);
        assert!(matches!(open_regular(&at("link")), Err(FileError::NotRegular(_))));
        assert!(matches!(open_regular(&at("pipe")), Err(FileError::NotRegular(_))));
        assert!(matches!(open_regular(&at("real")), Err(FileError::NotRegular(_))));
    }

    #[test]
    fn hashes_are_sha256() {
        let dir = tree(&["abc"]);
        let found = hash(dir.path().display().to_string(), &["*".to_owned()], 9).unwrap();
        let wanted = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hex::encode(&found.files[0].sha256), wanted);
        assert_eq!(found.files[0].size, 3);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever the names are, the order is that of the whole paths' bytes.
        #[test]
        fn paths_come_in_the_order_of_their_bytes(
            paths in proptest::collection::btree_set("[a.\\-0/]{1,8}", 0..12)
        ) {
            let dir = tempfile::tempdir().unwrap();
            for path in &paths {
                let at = dir.path().join(path.trim_matches('/'));
                if !path.contains("..") && fs::create_dir_all(at.parent().unwrap()).is_ok() && !at.exists() {
                    let _ = fs::write(at, "");
                }
            }
            let found = names(&find(dir.path(), &["**"], 99).unwrap());
            let mut sorted = found.clone();
            sorted.sort();
            prop_assert_eq!(found, sorted);
        }

        #[test]
        fn any_pattern_is_understood_or_refused(pattern in ".{0,30}") {
            let dir = tempfile::tempdir().unwrap();
            let _ = find(dir.path(), &["*", &pattern], 9);
        }
    }
}
