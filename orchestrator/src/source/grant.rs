//! Grants: what one attempt may read, as a repository of its own.

use std::{fs, path::PathBuf};

use super::{
    Source, SourceError,
    git::{Protocol, git, run, run_ok},
    mirror::{create, remove},
};
use crate::model::{ids::AttemptId, names::CommitSha, trigger::Repository};

/// The ref of a grant that points at the granted commit.
pub const COMMIT_REF: &str = "refs/helios/commit";
/// The branch of a grant, for a plain `git clone`.
const BRANCH: &str = "refs/heads/helios-ci";
/// A file of a grant that says how deep it is.
const DEPTH: &str = "helios-depth";

/// A repository made for one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Where it lies.
    pub path: PathBuf,
    /// The granted commit: `refs/helios/commit`, and the only branch.
    pub commit: CommitSha,
    /// How many commits of history; 0 means all.
    pub depth: u32,
}

impl Source {
    /// Makes the repository an attempt may read: the closure of one commit, or `depth` commits of
    /// it, and nothing else. A machine fetches a grant of limited depth with `--depth=<depth>`: git
    /// refuses, without an error, to take new shallow ends from a server otherwise. Made anew when it exists with another commit or depth; a crash leaves
    /// either the whole of it or nothing.
    ///
    /// # Errors
    /// [`SourceError::NoCommit`] when the commit is not in the mirror; when git or the disk fail.
    pub async fn grant(
        &self,
        repository: &Repository,
        attempt: AttemptId,
        commit: &CommitSha,
        depth: u32,
    ) -> Result<Grant, SourceError> {
        let path = self.grant_path(attempt);
        let grant = Grant {
            path: path.clone(),
            commit: commit.clone(),
            depth,
        };
        if is_made(&grant).await? {
            return Ok(grant);
        }
        if !self.has_commit(repository, commit).await? {
            return Err(SourceError::NoCommit {
                repository: repository.path.clone(),
                commit: commit.clone(),
            });
        }
        let draft = path.with_file_name("grant");
        remove(&draft)?;
        create(&draft, commit).await?;
        let mut fetch = git(&draft, Protocol::File, "fetch").args([
            "--quiet",
            "--no-tags",
            "--no-write-fetch-head",
            "--no-auto-maintenance",
        ]);
        if depth > 0 {
            fetch = fetch.arg(format!("--depth={depth}"));
        }
        // A `file:` URL, so that the objects travel as a pack: a plain path might be linked.
        // git decodes such a URL, and a folder may be called anything.
        let mirror = self.mirror(repository).display().to_string().replace('%', "%25");
        let mirror = format!("file://{mirror}");
        let fetch = fetch.args(["--end-of-options", &mirror, &format!("+{commit}:{COMMIT_REF}")]);
        run_ok(&draft, fetch.deadline(std::time::Duration::from_secs(1800))).await?;
        let branch = git(&draft, Protocol::None, "update-ref").args(["--end-of-options", BRANCH, commit.as_str()]);
        run_ok(&draft, branch).await?;
        fs::write(draft.join(DEPTH), depth.to_string())
            .map_err(|source| SourceError::io("write the depth in", &draft, source))?;
        remove(&path)?;
        fs::rename(&draft, &path).map_err(|source| SourceError::io("put the grant at", &path, source))?;
        Ok(grant)
    }

    /// Takes a grant away. Nothing happens when there is none.
    ///
    /// # Errors
    /// When the disk refuses.
    pub async fn drop_grant(&self, attempt: AttemptId) -> Result<(), SourceError> {
        let folder = self.0.grants.join(attempt.to_string());
        let gone = folder.clone();
        // A large repository takes a while to remove.
        tokio::task::spawn_blocking(move || remove(&gone))
            .await
            .map_err(|error| SourceError::io("remove the folder", &folder, std::io::Error::other(error)))?
    }

    /// The attempts that have a grant on this disk, for whoever clears up after a crash.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn grants(&self) -> Result<Vec<AttemptId>, SourceError> {
        let listing = match fs::read_dir(&self.0.grants) {
            Ok(listing) => listing,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(SourceError::io("list the folder", &self.0.grants, source)),
        };
        Ok(listing
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect())
    }

    pub(super) fn grant_path(&self, attempt: AttemptId) -> PathBuf {
        self.0.grants.join(attempt.to_string()).join("repo.git")
    }
}

async fn is_made(grant: &Grant) -> Result<bool, SourceError> {
    let depth = fs::read_to_string(grant.path.join(DEPTH)).ok();
    if depth.and_then(|text| text.parse().ok()) != Some(grant.depth) {
        return Ok(false);
    }
    let cmd =
        git(&grant.path, Protocol::None, "rev-parse").args(["--verify", "--quiet", "--end-of-options", COMMIT_REF]);
    let output = run(&grant.path, cmd).await?;
    Ok(output.text().trim() == grant.commit.as_str())
}
