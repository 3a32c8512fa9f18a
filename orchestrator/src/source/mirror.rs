//! Mirrors: fetched from the forge, read by us alone. Refs are kept under a digest of their name,
//! so that no foreign name ever becomes a file, and `a` and `a/b` can follow each other.

use std::{
    collections::HashSet,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::{
    Source, SourceError,
    git::{Watched, authorised, git, protocol_of, run, run_ok, watched},
    make_private, object_format,
};
use crate::{
    digest::sha256_hex,
    exec::Output,
    foreign_text::one_line,
    forge::FetchAccess,
    model::{
        names::{CommitSha, RefName},
        trigger::Repository,
    },
};

/// The longest fetch.
const FETCH_DEADLINE: Duration = Duration::from_secs(1800);
/// Asking a forge what its refs point at.
const LIST_DEADLINE: Duration = Duration::from_secs(60);
/// A lock file is held for moments; one this old was left by a process that died.
const STALE_LOCK: Duration = Duration::from_secs(10);
/// As [`STALE_LOCK`], for packs half received: they grow while somebody writes them.
const STALE_PACK: Duration = Duration::from_secs(600);
/// With more packs than this a mirror is repacked after a fetch.
const MAX_PACKS: usize = 50;

impl Source {
    /// Fetches a ref, with its whole history, and returns the commit it points at now. Tags are
    /// peeled.
    ///
    /// # Errors
    /// [`SourceError::NoRef`] when the forge has no such ref; as [`Source::fetch_heads`].
    pub async fn fetch(
        &self,
        repository: &Repository,
        access: &FetchAccess,
        ref_name: &RefName,
    ) -> Result<CommitSha, SourceError> {
        let mut heads = self.fetch_heads(repository, access, [ref_name]).await?;
        heads.remove(ref_name).ok_or_else(|| SourceError::NoRef {
            repository: repository.path.clone(),
            ref_name: ref_name.clone(),
        })
    }

    /// Makes sure that a commit is here, which may be none that a branch or tag points at any
    /// more: a re-run needs it after a force-push, or on a node that never saw it. Whoever calls
    /// has decided before that the commit may be used.
    ///
    /// # Errors
    /// As [`Source::fetch`]; [`SourceError::NoCommit`] when the forge does not have it either.
    pub async fn fetch_commit(
        &self,
        repository: &Repository,
        access: &FetchAccess,
        commit: &CommitSha,
    ) -> Result<(), SourceError> {
        if self.has_commit(repository, commit).await? {
            return Ok(());
        }
        let _lock = self.lock(repository).await;
        let mirror = self.mirror(repository);
        if !mirror.join("HEAD").exists() {
            create(&mirror, commit).await?;
        }
        let spec = format!("+{commit}:refs/helios/commits/{commit}");
        if self.transfer(repository, access, commit.as_str(), &[spec]).await? {
            return Ok(());
        }
        Err(SourceError::NoCommit {
            repository: repository.path.clone(),
            commit: commit.clone(),
        })
    }

    /// Whether a commit is in the mirror.
    ///
    /// # Errors
    /// When git fails.
    pub async fn has_commit(&self, repository: &Repository, commit: &CommitSha) -> Result<bool, SourceError> {
        Ok(self.resolve(repository, commit).await?.as_ref() == Some(commit))
    }

    /// Whether the mirror holds a ref, as fetched last.
    ///
    /// # Errors
    /// When git fails.
    pub async fn has_ref(&self, repository: &Repository, ref_name: &RefName) -> Result<bool, SourceError> {
        let mirror = self.mirror(repository);
        Ok(mirror.join("HEAD").exists() && peel(&mirror, &own_ref(ref_name)).await?.is_some())
    }

    /// The commit behind an id that may be an annotated tag's; `None` when it is not here.
    ///
    /// # Errors
    /// When git fails.
    pub async fn resolve(&self, repository: &Repository, id: &CommitSha) -> Result<Option<CommitSha>, SourceError> {
        let mirror = self.mirror(repository);
        if !mirror.join("HEAD").exists() {
            return Ok(None);
        }
        peel(&mirror, id.as_str()).await
    }

    /// Whether the ref, as fetched last, reaches the commit.
    ///
    /// # Errors
    /// When git fails.
    pub async fn reachable(
        &self,
        repository: &Repository,
        commit: &CommitSha,
        ref_name: &RefName,
    ) -> Result<bool, SourceError> {
        if !self.has_commit(repository, commit).await? {
            return Ok(false);
        }
        let mirror = self.mirror(repository);
        let Some(tip) = peel(&mirror, &own_ref(ref_name)).await? else {
            return Ok(false);
        };
        let cmd = git(&mirror, super::git::Protocol::None, "merge-base").args([
            "--is-ancestor",
            "--end-of-options",
            commit.as_str(),
            tip.as_str(),
        ]);
        let output = run(&mirror, cmd).await?;
        match output.code {
            Some(0) => Ok(true),
            Some(1) => Ok(false),
            _ => output
                .ok()
                .map(|_| false)
                .map_err(|source| SourceError::Git { path: mirror, source }),
        }
    }

    /// Asks a forge what refs it has, those that match `patterns` or all. At most `cap` bytes of the answer are read;
    /// `what` is for messages.
    pub(super) async fn ls_remote(
        &self,
        repository: &Repository,
        access: &FetchAccess,
        what: &str,
        options: &[&str],
        patterns: &[&str],
        cap: usize,
    ) -> Result<Output, SourceError> {
        let _permit = self.0.fetches.acquire().await;
        // No repository is needed to ask, and there may be none yet.
        let nowhere = Path::new("/dev/null");
        let cmd = git(nowhere, protocol_of(&access.url)?, "ls-remote")
            .arg("--quiet")
            .args(options)
            .args(["--end-of-options", &access.url])
            .args(patterns)
            .cap(cap)
            .deadline(LIST_DEADLINE);
        let (cmd, _credential) = authorised(cmd, access, &self.0.mirrors)?;
        let output = run(nowhere, cmd).await?;
        if output.code != Some(0) {
            return Err(fetch_error(repository, what, &output.stderr_tail()));
        }
        Ok(output)
    }

    /// One `git fetch` of these refspecs into the mirror, watched for its size; `what` is for messages. `false`
    /// when the forge does not have one of them. The caller holds the mirror's lock.
    pub(super) async fn transfer(
        &self,
        repository: &Repository,
        access: &FetchAccess,
        what: &str,
        specs: &[String],
    ) -> Result<bool, SourceError> {
        let mirror = self.mirror(repository);
        let limit = self.0.repository_bytes;
        let packs = mirror.join("objects/pack");
        let too_large = || SourceError::TooLarge {
            repository: repository.path.clone(),
            limit,
        };
        sweep(&mirror, STALE_LOCK, STALE_PACK);
        let before = names_in(&packs);
        let _permit = self.0.fetches.acquire().await;
        let cmd = git(&mirror, protocol_of(&access.url)?, "fetch").args([
            "--quiet",
            "--no-tags",
            "--no-write-fetch-head",
            "--no-auto-maintenance",
            "--force",
            "--stdin",
            "--end-of-options",
            &access.url,
        ]);
        let asked = specs.join("\n") + "\n";
        let size = || folder_size(&packs) > limit;
        let (cmd, _credential) = authorised(cmd, access, &self.0.mirrors)?;
        match watched(&mirror, cmd, asked.into_bytes(), FETCH_DEADLINE, size).await? {
            Watched::Ended(status, _) if status.success() => {
                if !size() {
                    return Ok(true);
                }
                take_back(&mirror, specs, &before).await?;
                Err(too_large())
            }
            Watched::Ended(_, said) if is_gone(&said) => Ok(false),
            Watched::Ended(_, said) => Err(fetch_error(repository, what, &said)),
            Watched::Stopped => {
                sweep(&mirror, Duration::ZERO, Duration::ZERO);
                // git may have been at its end.
                take_back(&mirror, specs, &before).await?;
                Err(too_large())
            }
            Watched::Late => {
                sweep(&mirror, Duration::ZERO, Duration::ZERO);
                let reason = format!("it took longer than {} s", FETCH_DEADLINE.as_secs());
                Err(fetch_error(repository, what, &reason))
            }
        }
    }
}

/// What git says of a ref or commit that the other side does not have.
fn is_gone(said: &str) -> bool {
    said.contains("couldn't find remote ref") || said.contains("not our ref") || said.contains("unadvertised object")
}

/// What git says where the forge answered 401, 403 or 404: it does not know us, does not let us, or shows us nothing.
fn is_denied(said: &str) -> bool {
    let refused = ["401", "403", "404"].map(|status| format!("The requested URL returned error: {status}"));
    refused.iter().any(|words| said.contains(words))
        || said.contains("terminal prompts disabled")
        || said.contains("Authentication failed for '")
        || said.contains("fatal: repository '") && said.contains("' not found")
}

/// As what a fetch failed, by what git said.
pub(super) fn fetch_error(repository: &Repository, what: &str, said: &str) -> SourceError {
    let denied = is_denied(said);
    // What git says when it wanted to ask a person for a password.
    let said = if said.contains("terminal prompts disabled") {
        "the forge wants other credentials than it was given"
    } else {
        said
    };
    let (repository, what, reason) = (repository.path.clone(), what.to_owned(), one_line(said, 500));
    match denied {
        true => SourceError::Denied {
            repository,
            what,
            reason,
        },
        false => SourceError::Fetch {
            repository,
            what,
            reason,
        },
    }
}

/// Where the mirror keeps a ref.
pub(super) fn own_ref(name: &RefName) -> String {
    let digest = sha256_hex(name.as_str());
    format!("refs/helios/refs/{digest}")
}

/// Makes an empty repository at `path`, whole or not at all.
pub(super) async fn create(path: &Path, like: &CommitSha) -> Result<(), SourceError> {
    let parent = path.parent().unwrap_or(path);
    make_private(parent)?;
    let draft = draft_of(path);
    remove(&draft)?;
    let cmd = git(&draft, super::git::Protocol::None, "init").args([
        "--quiet",
        "--bare",
        "--template=",
        "--initial-branch=helios-ci",
        &format!("--object-format={}", object_format(like)),
    ]);
    run_ok(&draft, cmd).await?;
    // What an earlier start left in this place has no HEAD and is therefore not in use.
    remove(path)?;
    fs::rename(&draft, path).map_err(|source| SourceError::io("put the repository at", path, source))
}

/// Where a repository is made before it gets its name.
pub(super) fn draft_of(path: &Path) -> PathBuf {
    path.with_extension("draft")
}

/// Removes a folder that may not exist.
pub(super) fn remove(path: &Path) -> Result<(), SourceError> {
    match fs::remove_dir_all(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(SourceError::io("remove the folder", path, source))
        }
        _ => Ok(()),
    }
}

pub(super) async fn peel(mirror: &Path, what: &str) -> Result<Option<CommitSha>, SourceError> {
    let cmd = git(mirror, super::git::Protocol::None, "rev-parse").args([
        "--verify",
        "--quiet",
        "--end-of-options",
        &format!("{what}^{{commit}}"),
    ]);
    let output = run(mirror, cmd).await?;
    if output.code != Some(0) {
        return Ok(None);
    }
    let text = output.text();
    let answer = text.trim();
    let bad = |_| SourceError::Answer {
        what: "rev-parse",
        answer: one_line(answer, 80),
    };
    answer.parse().map(Some).map_err(bad)
}

/// Rolls small packs into larger ones; nothing is ever dropped.
pub(super) async fn repack(mirror: &Path) -> Result<(), SourceError> {
    let packs = fs::read_dir(mirror.join("objects/pack")).map_or(0, |entries| {
        entries
            .flatten()
            .filter(|e| e.path().extension().is_some_and(|e| e == "pack"))
            .count()
    });
    if packs > MAX_PACKS {
        let cmd = git(mirror, super::git::Protocol::None, "repack")
            .args(["-d", "--geometric=2", "--quiet"])
            .deadline(FETCH_DEADLINE);
        run_ok(mirror, cmd).await?;
    }
    Ok(())
}

/// Takes back a fetch that made the mirror too large, so that smaller ones still fit: its refs first, then its packs.
async fn take_back(mirror: &Path, specs: &[String], before: &HashSet<OsString>) -> Result<(), SourceError> {
    let refs = specs.iter().filter_map(|spec| Some(spec.split_once(':')?.1));
    let deletions: String = refs.map(|name| format!("delete {name}\n")).collect();
    let cmd = git(mirror, super::git::Protocol::None, "update-ref")
        .arg("--stdin")
        .stdin(deletions);
    run_ok(mirror, cmd).await?;
    let packs = mirror.join("objects/pack");
    for name in names_in(&packs).difference(before) {
        let file = packs.join(name);
        fs::remove_file(&file).map_err(|source| SourceError::io("remove", &file, source))?;
    }
    Ok(())
}

/// The names of the files right in a folder.
fn names_in(folder: &Path) -> HashSet<OsString> {
    fs::read_dir(folder).map_or_else(
        |_| HashSet::new(),
        |entries| entries.flatten().map(|entry| entry.file_name()).collect(),
    )
}

/// The size of the files right in a folder, in bytes.
fn folder_size(folder: &Path) -> u64 {
    fs::read_dir(folder).map_or(0, |entries| {
        entries
            .flatten()
            .filter_map(|entry| entry.metadata().ok())
            .map(|meta| meta.len())
            .sum()
    })
}

/// Removes what a process that died left behind: lock files and half-received packs. Best effort:
/// what stays is named by the fetch that trips over it.
fn sweep(mirror: &Path, locks: Duration, packs: Duration) {
    let mut folders = vec![
        mirror.to_owned(),
        mirror.join("refs/helios/refs"),
        mirror.join("refs/helios/commits"),
    ];
    folders.push(mirror.join("objects/pack"));
    for entry in folders
        .iter()
        .filter_map(|folder| fs::read_dir(folder).ok())
        .flatten()
        .flatten()
    {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let limit = if name.ends_with(".lock") {
            locks
        } else if name.starts_with("tmp_") || name.starts_with(".tmp-") {
            packs
        } else {
            continue;
        };
        let changed = entry.metadata().and_then(|meta| meta.modified());
        let age = changed.ok().and_then(|at| SystemTime::now().duration_since(at).ok());
        if age.is_some_and(|age| age >= limit) {
            let _stays = fs::remove_file(entry.path());
        }
    }
}
