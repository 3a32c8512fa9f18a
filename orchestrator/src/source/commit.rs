//! What a commit contains: its message, its files.

use super::{
    Source, SourceError,
    git::{Protocol, git, run_ok},
};
use crate::{
    foreign_text::{one_line, title},
    model::{names::CommitSha, trigger::Repository},
};

/// Bytes of a commit's own text that are read.
const MAX_MESSAGE: usize = 64 << 10;
/// Bytes of a listing that are read.
const MAX_LISTING: usize = 1 << 20;

/// A file of a commit, or a symbolic link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its path in the repository.
    pub path: String,
    /// Whether its mode lets it be executed.
    pub executable: bool,
}

impl Source {
    /// The files right at these paths of a commit: one that ends in `/` is a folder, listed without
    /// its subfolders. Symbolic links on the way to a path are followed inside the commit; one at a file's
    /// path is a file here, and whether it leads to one is what [`Source::read_file`] says. Submodules are
    /// left out; names that are not UTF-8 too.
    ///
    /// # Errors
    /// When git fails, or the listing is longer than a MiB.
    pub async fn list_tree(
        &self,
        repository: &Repository,
        commit: &CommitSha,
        paths: &[&str],
    ) -> Result<Vec<Entry>, SourceError> {
        let mut asked: Vec<&str> = paths.to_vec();
        asked.extend(paths.iter().flat_map(|path| ways(path)));
        let listed = self.ls_tree(repository, commit.as_str(), &asked).await?;
        let is_link = |way: &str| listed.iter().any(|found| found.path == way && found.mode == SYMLINK);
        let mut entries = Vec::new();
        for asked in paths {
            let (path, folder) = (asked.trim_end_matches('/'), asked.ends_with('/'));
            if !ways(asked).any(is_link) {
                let here = |found: &&Listed| match found.path.rsplit_once('/') {
                    Some((parent, _)) if folder => parent == path,
                    _ => !folder && found.path == path,
                };
                entries.extend(listed.iter().filter(here).filter_map(|found| found.entry(&found.path)));
                continue;
            }
            match self.locate(repository, commit, path).await {
                Ok(target) if folder && target.kind == "tree" => {
                    let inside = self.ls_tree(repository, &target.id, &[]).await?;
                    let entry = |found: &Listed| found.entry(&format!("{asked}{}", found.path));
                    entries.extend(inside.iter().filter_map(entry));
                }
                Ok(target) if !folder && target.kind == "blob" => entries.push(Entry {
                    path: path.to_owned(),
                    executable: false,
                }),
                // There is nothing of the commit.
                Ok(_) | Err(SourceError::Unreadable { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(entries)
    }

    async fn ls_tree(&self, repository: &Repository, tree: &str, paths: &[&str]) -> Result<Vec<Listed>, SourceError> {
        let mirror = self.mirror(repository);
        let cmd = git(&mirror, Protocol::None, "ls-tree")
            .args(["-z", "--full-tree", "--end-of-options", tree])
            .args(paths)
            .cap(MAX_LISTING);
        let output = run_ok(&mirror, cmd).await?;
        if output.stdout.len() >= MAX_LISTING {
            return Err(SourceError::ListTooLong {
                repository: repository.path.clone(),
            });
        }
        let lines = output.stdout.split(|byte| *byte == 0);
        Ok(lines.filter_map(Listed::parse).collect())
    }

    /// The bytes of a file of a commit. Symbolic links are followed inside the commit.
    ///
    /// # Errors
    /// [`SourceError::FileTooLong`] beyond `max` bytes; [`SourceError::Unreadable`] when there is no such
    /// file, or a symbolic link leads elsewhere; others when git fails.
    pub async fn read_file(
        &self,
        repository: &Repository,
        commit: &CommitSha,
        path: &str,
        max: usize,
    ) -> Result<Vec<u8>, SourceError> {
        let mirror = self.mirror(repository);
        let found = self.locate(repository, commit, path).await?;
        if found.kind != "blob" {
            return Err(unreadable(path, "it is no file"));
        }
        let cmd = git(&mirror, Protocol::None, "cat-file")
            .args(["blob", "--end-of-options", &found.id])
            .cap(max + 1);
        let output = run_ok(&mirror, cmd).await?;
        if output.stdout.len() > max {
            return Err(SourceError::FileTooLong {
                path: path.to_owned(),
                max,
            });
        }
        Ok(output.stdout)
    }

    /// What lies at a path of a commit, behind all symbolic links.
    async fn locate(&self, repository: &Repository, commit: &CommitSha, path: &str) -> Result<Object, SourceError> {
        // git is asked line by line.
        if path.contains('\n') {
            return Err(unreadable(path, "its name has a line break"));
        }
        let mirror = self.mirror(repository);
        let cmd = git(&mirror, Protocol::None, "cat-file")
            .args(["--batch-check", "--follow-symlinks"])
            .stdin(format!("{commit}:{path}\n"));
        let output = run_ok(&mirror, cmd).await?;
        let text = output.text();
        let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
        let why = match first.split(' ').collect::<Vec<_>>().as_slice() {
            [.., "missing"] => "there is no such file in the commit".to_owned(),
            ["symlink", _] => {
                let to = one_line(rest, 200);
                format!("it is a symbolic link that leads out of the repository, to `{to}`")
            }
            ["dangling", _] => "it is a symbolic link to something that is not in the commit".to_owned(),
            ["loop", _] => "it is a symbolic link that leads in a circle".to_owned(),
            ["notdir", _] => "it is a symbolic link through something that is no folder".to_owned(),
            [id, kind, _] => {
                return Ok(Object {
                    id: (*id).to_owned(),
                    kind: (*kind).to_owned(),
                });
            }
            _ => {
                return Err(SourceError::Answer {
                    what: "cat-file --batch-check",
                    answer: one_line(first, 80),
                });
            }
        };
        Err(unreadable(path, &why))
    }

    /// A commit's message, at most 64 KiB of it.
    ///
    /// # Errors
    /// When git fails.
    pub async fn commit_message(&self, repository: &Repository, commit: &CommitSha) -> Result<String, SourceError> {
        let mirror = self.mirror(repository);
        let cmd = git(&mirror, Protocol::None, "cat-file")
            .args(["commit", "--end-of-options", commit.as_str()])
            .cap(MAX_MESSAGE);
        let text = run_ok(&mirror, cmd).await?.text();
        // Headers end at the first empty line.
        Ok(text.split_once("\n\n").map_or("", |(_, message)| message).to_owned())
    }

    /// The first line of a commit's message, at most 200 characters.
    ///
    /// # Errors
    /// When git fails.
    pub async fn commit_title(&self, repository: &Repository, commit: &CommitSha) -> Result<String, SourceError> {
        let message = self.commit_message(repository, commit).await?;
        Ok(title(&message))
    }
}

/// The mode of a symbolic link.
const SYMLINK: &str = "120000";

/// One line of `ls-tree -z`.
struct Listed {
    mode: String,
    path: String,
}

impl Listed {
    fn parse(line: &[u8]) -> Option<Self> {
        let (meta, path) = std::str::from_utf8(line).ok()?.split_once('\t')?;
        Some(Self {
            mode: meta.split(' ').next()?.to_owned(),
            path: path.to_owned(),
        })
    }

    fn entry(&self, path: &str) -> Option<Entry> {
        matches!(self.mode.as_str(), "100644" | "100755" | SYMLINK).then(|| Entry {
            executable: self.mode == "100755",
            path: path.to_owned(),
        })
    }
}

/// The folders on the way to a path, with the path itself when it is one.
fn ways(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(end, _)| &path[..end])
}

/// An object of git's.
struct Object {
    id: String,
    /// `blob`, `tree`, …
    kind: String,
}

fn unreadable(path: &str, why: &str) -> SourceError {
    SourceError::Unreadable {
        path: one_line(path, 200),
        why: why.to_owned(),
    }
}
