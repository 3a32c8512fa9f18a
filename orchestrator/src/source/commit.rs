//! What a commit contains: its message, its files.

use super::{
    Source, SourceError,
    git::{Protocol, git, run_ok},
};
use crate::model::{names::CommitSha, trigger::Repository};

/// Bytes of a commit's own text that are read.
const MAX_MESSAGE: usize = 64 << 10;
/// Bytes of a listing that are read.
const MAX_LISTING: usize = 1 << 20;

/// A regular file of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its path in the repository.
    pub path: String,
    /// Whether its mode lets it be executed.
    pub executable: bool,
}

impl Source {
    /// The regular files right at these places of a commit: a place that ends in `/` is a folder,
    /// listed without its subfolders. Symbolic links and submodules are left out; names that are
    /// not UTF-8 too.
    ///
    /// # Errors
    /// When git fails, or the listing is longer than a MiB.
    pub async fn list_tree(
        &self,
        repository: &Repository,
        commit: &CommitSha,
        places: &[&str],
    ) -> Result<Vec<Entry>, SourceError> {
        let mirror = self.mirror(repository);
        let cmd = git(&mirror, Protocol::None, "ls-tree")
            .args(["-z", "--full-tree", "--end-of-options", commit.as_str(), "--"])
            .args(places)
            .cap(MAX_LISTING);
        let output = run_ok(&mirror, cmd).await?;
        if output.stdout.len() >= MAX_LISTING {
            return Err(SourceError::ListTooLong {
                repository: repository.path.clone(),
            });
        }
        let entries = output.stdout.split(|byte| *byte == 0).filter_map(|line| {
            let (meta, path) = std::str::from_utf8(line).ok()?.split_once('\t')?;
            let mode = meta.split(' ').next()?;
            matches!(mode, "100644" | "100755").then(|| Entry {
                path: path.to_owned(),
                executable: mode == "100755",
            })
        });
        Ok(entries.collect())
    }

    /// The bytes of a file of a commit.
    ///
    /// # Errors
    /// [`SourceError::FileTooLong`] beyond `max` bytes; when there is no such file.
    pub async fn read_file(
        &self,
        repository: &Repository,
        commit: &CommitSha,
        path: &str,
        max: usize,
    ) -> Result<Vec<u8>, SourceError> {
        let mirror = self.mirror(repository);
        let cmd = git(&mirror, Protocol::None, "cat-file")
            .args(["blob", "--end-of-options", &format!("{commit}:{path}")])
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

    /// Whether a commit has submodules, which are never fetched.
    ///
    /// # Errors
    /// When git fails.
    pub async fn has_submodules(&self, repository: &Repository, commit: &CommitSha) -> Result<bool, SourceError> {
        let entries = self.list_tree(repository, commit, &[".gitmodules"]).await?;
        Ok(!entries.is_empty())
    }
}

/// The title of a commit message.
pub(crate) fn title(message: &str) -> String {
    one_line(message.trim_start().lines().next().unwrap_or(""), 200)
}

/// Foreign text as one line of at most `max` characters.
pub(super) fn one_line(text: &str, max: usize) -> String {
    let line: String = text
        .trim()
        .chars()
        .take(max)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    line.trim_end().to_owned()
}
