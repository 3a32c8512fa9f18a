//! What a checkout of a commit leaves out: submodules, and files that git LFS keeps elsewhere.

use super::{
    Source, SourceError,
    git::{Protocol, git, run_ok},
};
use crate::{
    foreign_text::one_line,
    model::{names::CommitSha, trigger::Repository},
};

/// Bytes of a listing of all files of a commit that are read.
const MAX_LISTING: usize = 64 << 20;
/// `.gitattributes` files, and files that may be LFS pointers, that are read.
const MAX_FILES: usize = 20_000;
/// Bytes of `.gitattributes` files that are read.
const MAX_ATTRIBUTES: usize = 4 << 20;
/// An LFS pointer has less than 1024 bytes, by its specification; and no sound one has less than a hundred.
const POINTER: std::ops::RangeInclusive<u64> = 100..=1023;
/// How an LFS pointer begins.
const POINTER_START: &[u8] = b"version https://git-lfs.github.com/spec/";
/// Names in one sentence.
const NAMED: usize = 5;

/// What a checkout leaves out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Paths of the submodules.
    pub submodules: Vec<String>,
    /// Paths of the files that are LFS pointers.
    pub pointers: Vec<String>,
}

/// A file or submodule of a commit.
struct Item<'l> {
    mode: &'l str,
    id: &'l str,
    size: Option<u64>,
    path: String,
}

impl Source {
    /// Finds what a checkout of a commit leaves out.
    ///
    /// # Errors
    /// When git fails; [`SourceError::ListTooLong`] when the commit has too many files.
    pub async fn left_out(&self, repository: &Repository, commit: &CommitSha) -> Result<LeftOut, SourceError> {
        let listing = self.all_files(repository, commit, &[]).await?;
        let items: Vec<Item<'_>> = listing.split(|byte| *byte == 0).filter_map(item).collect();
        let submodules = items.iter().filter(|item| item.mode == "160000");
        let submodules = submodules.map(|item| item.path.clone()).collect();
        let attributes: Vec<&str> = items
            .iter()
            .filter(|item| item.path == ".gitattributes" || item.path.ends_with("/.gitattributes"))
            .map(|item| item.id)
            .take(MAX_FILES)
            .collect();
        let text = self.contents(repository, &attributes, MAX_ATTRIBUTES).await?;
        let pointers = match memchr::memmem::find(&text, b"filter=lfs") {
            Some(_) => self.pointers(repository, commit).await?,
            None => Vec::new(),
        };
        Ok(LeftOut { submodules, pointers })
    }

    async fn all_files(
        &self,
        repository: &Repository,
        commit: &CommitSha,
        options: &[&str],
    ) -> Result<Vec<u8>, SourceError> {
        let mirror = self.mirror(repository);
        let cmd = git(&mirror, Protocol::None, "ls-tree")
            .args(["-r", "-z", "--full-tree"])
            .args(options)
            .args(["--end-of-options", commit.as_str()])
            .cap(MAX_LISTING);
        let listing = run_ok(&mirror, cmd).await?.stdout;
        if listing.len() >= MAX_LISTING {
            return Err(SourceError::ListTooLong {
                repository: repository.path.clone(),
            });
        }
        Ok(listing)
    }

    /// Objects as `git cat-file --batch` writes them: a line with id, kind and size, the content, a newline.
    async fn contents(&self, repository: &Repository, ids: &[&str], cap: usize) -> Result<Vec<u8>, SourceError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mirror = self.mirror(repository);
        let cmd = git(&mirror, Protocol::None, "cat-file")
            .arg("--batch")
            .stdin(ids.join("\n") + "\n")
            .cap(cap);
        Ok(run_ok(&mirror, cmd).await?.stdout)
    }

    /// The files that are LFS pointers, known by what they contain: attributes say what git would do with a
    /// file, and not whether it was done.
    async fn pointers(&self, repository: &Repository, commit: &CommitSha) -> Result<Vec<String>, SourceError> {
        let listing = self.all_files(repository, commit, &["-l"]).await?;
        let small: Vec<Item<'_>> = listing
            .split(|byte| *byte == 0)
            .filter_map(item)
            .filter(|item| item.size.is_some_and(|size| POINTER.contains(&size)))
            .take(MAX_FILES)
            .collect();
        let ids: Vec<&str> = small.iter().map(|item| item.id).collect();
        let text = self.contents(repository, &ids, MAX_LISTING).await?;
        let mut rest = text.as_slice();
        let mut pointers = Vec::new();
        for item in small {
            let size = item.size.unwrap_or(0);
            let header = format!("{} blob {size}\n", item.id);
            // The end of what was read, or an object that is not here.
            let Some(content) = rest.strip_prefix(header.as_bytes()) else {
                break;
            };
            if content.starts_with(POINTER_START) {
                pointers.push(item.path);
            }
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            rest = content.get(size.saturating_add(1)..).unwrap_or_default();
        }
        Ok(pointers)
    }
}

/// One line of `ls-tree -z`, with sizes or without. Paths are only shown.
fn item(line: &[u8]) -> Option<Item<'_>> {
    let tab = memchr::memchr(b'\t', line)?;
    let (meta, path) = line.split_at(tab);
    let mut words = std::str::from_utf8(meta).ok()?.split_whitespace();
    let (mode, _kind, id) = (words.next()?, words.next()?, words.next()?);
    Some(Item {
        mode,
        id,
        size: words.next().and_then(|size| size.parse().ok()),
        path: String::from_utf8_lossy(&path[1..]).into_owned(),
    })
}

impl LeftOut {
    /// The sentences that say so; none when nothing is left out.
    #[must_use]
    pub fn sentences(&self) -> Vec<String> {
        let mut said = Vec::new();
        match self.submodules.len() {
            0 => {}
            1 => said.push(format!(
                "This commit has 1 submodule ({}); it is not fetched.",
                names(&self.submodules)
            )),
            n => said.push(format!(
                "This commit has {n} submodules ({}); they are not fetched.",
                names(&self.submodules)
            )),
        }
        match self.pointers.len() {
            0 => {}
            1 => said.push(format!(
                "1 file is an LFS pointer ({}); LFS is not fetched.",
                names(&self.pointers)
            )),
            n => said.push(format!(
                "{n} files are LFS pointers ({}); LFS is not fetched.",
                names(&self.pointers)
            )),
        }
        said
    }
}

fn names(paths: &[String]) -> String {
    let shown: Vec<String> = paths.iter().take(NAMED).map(|path| one_line(path, 100)).collect();
    let more = if paths.len() > NAMED { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}
