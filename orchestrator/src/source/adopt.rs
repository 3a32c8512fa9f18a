//! A working tree of this machine as the source of a run: for `helios-ci run`, which has no forge. The person's git
//! packs what is needed, and ours takes it in.

use std::{fs, path::PathBuf, process::ExitStatus};

use tokio::io::AsyncWriteExt;

use super::{
    Source, SourceError, WorkTree,
    git::{Protocol, git, run_ok, tail},
    mirror,
};
use crate::{
    exec::Cmd,
    foreign_text::one_line,
    model::{names::CommitSha, trigger::Repository},
};

/// A commit of a working tree as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// On top of the commit that is checked out, in the mirror alone.
    pub commit: CommitSha,
    /// Untracked folders that are repositories of their own, whose files are not in it.
    pub left_out: Vec<PathBuf>,
}

impl Source {
    /// Takes a commit of a person's repository into the mirror, with as much of its history as is there. Only a partial
    /// clone changes: what it lacks of this commit it fetches, and may ask its person for that.
    ///
    /// # Errors
    /// [`SourceError::NotPacked`] when the person's git cannot read or fetch an object; when ours fails.
    pub async fn adopt(&self, repository: &Repository, tree: &WorkTree, commit: &CommitSha) -> Result<(), SourceError> {
        let _lock = self.lock(repository).await;
        let mirror = self.mirror(repository);
        if !mirror.join("HEAD").exists() {
            mirror::create(&mirror, commit).await?;
        }
        let ends: String = tree.ends(commit).await?.iter().map(|end| format!("{end}\n")).collect();
        if !ends.is_empty() {
            let shallow = mirror.join("shallow");
            fs::write(&shallow, ends).map_err(|source| SourceError::io("write", &shallow, source))?;
        }
        self.take(repository, tree, commit, None).await
    }

    /// Makes a commit of a working tree as it is, of all that its person's `git add --all` would add, on top of the
    /// adopted commit that is checked out. It exists in the mirror alone: index, objects and refs of the person's own
    /// repository stay as they are.
    ///
    /// # Errors
    /// When git fails or a file cannot be read.
    pub async fn snapshot(
        &self,
        repository: &Repository,
        tree: &WorkTree,
        parent: &CommitSha,
    ) -> Result<Snapshot, SourceError> {
        let _lock = self.lock(repository).await;
        let mirror = self.mirror(repository);
        let scratch = tempfile::Builder::new().prefix("snapshot-").tempdir_in(&mirror);
        let scratch = scratch.map_err(|source| SourceError::io("make a folder in", &mirror, source))?;
        let tree = tree.apart(scratch.path())?;
        let changes = tree.changes().await?;
        // First what is gone: a folder may have become a file.
        for (how, paths) in [
            (&["--force-remove"][..], changes.deleted),
            (&["--add", "--remove", "--replace"], changes.present),
        ] {
            let update = tree.git("update-index").args(how).args(["-z", "--stdin"]);
            if !paths.is_empty() {
                run_ok(tree.root(), update.stdin(paths)).await?;
            }
        }
        let written = run_ok(tree.root(), tree.git("write-tree")).await?;
        let mut cmd = tree.git("commit-tree").args([
            written.text().trim(),
            "-p",
            parent.as_str(),
            "-m",
            "The working tree as it is",
        ]);
        for who in ["AUTHOR", "COMMITTER"] {
            cmd = cmd
                .env(format!("GIT_{who}_NAME"), "helios-ci")
                .env(format!("GIT_{who}_EMAIL"), "helios-ci@localhost");
        }
        let made = run_ok(tree.root(), cmd).await?.text();
        let commit: CommitSha = made.trim().parse().map_err(|_| SourceError::Answer {
            what: "commit-tree",
            answer: one_line(&made, 80),
        })?;
        self.take(repository, &tree, &commit, Some(parent)).await?;
        Ok(Snapshot {
            commit,
            left_out: changes.repositories,
        })
    }

    /// How many commits the history of an adopted commit has here, if its repository had not all of it.
    ///
    /// # Errors
    /// When git fails.
    pub async fn cut_history(&self, repository: &Repository, commit: &CommitSha) -> Result<Option<u32>, SourceError> {
        let mirror = self.mirror(repository);
        if !mirror.join("shallow").exists() {
            return Ok(None);
        }
        let cmd = git(&mirror, Protocol::None, "rev-list").args(["--count", "--end-of-options", commit.as_str()]);
        let count = run_ok(&mirror, cmd).await?.text();
        let count = count.trim().parse().map_err(|_| SourceError::Answer {
            what: "rev-list",
            answer: one_line(&count, 80),
        })?;
        Ok(Some(count))
    }

    /// Moves a commit and what it needs into the mirror, which has `parent` already. The caller holds its lock.
    async fn take(
        &self,
        repository: &Repository,
        tree: &WorkTree,
        commit: &CommitSha,
        parent: Option<&CommitSha>,
    ) -> Result<(), SourceError> {
        let mirror = self.mirror(repository);
        let mut wanted = String::new();
        if tree.is_partial() {
            wanted = format!("--shallow {}\n", parent.unwrap_or(commit));
        }
        wanted.push_str(&format!("{commit}\n"));
        if let Some(parent) = parent {
            wanted.push_str(&format!("^{parent}\n"));
        }
        let pack = tree
            .git("pack-objects")
            .args(["--revs", "--stdout", "--delta-base-offset", "-q"]);
        let index = git(&mirror, Protocol::None, "index-pack").arg("--stdin");
        let not_packed = |reason| SourceError::NotPacked {
            commit: commit.clone(),
            root: tree.root().to_owned(),
            reason,
        };
        let (packed, indexed) = piped(tree, pack, wanted, index).await?;
        // By a signal it ends when the other did not take what it gave.
        if !packed.status.success() && packed.status.code().is_some() {
            return Err(not_packed(packed.said));
        }
        if !indexed.status.success() {
            let answer = one_line(&indexed.said, 500);
            return Err(SourceError::Answer {
                what: "index-pack",
                answer,
            });
        }
        let name = format!("refs/helios/commits/{commit}");
        let update = git(&mirror, Protocol::None, "update-ref").args([name.as_str(), commit.as_str()]);
        run_ok(&mirror, update).await?;
        Ok(())
    }
}

/// How a command ended, and what it said.
struct Ended {
    status: ExitStatus,
    said: String,
}

/// Gives what one command of a tree prints to another.
async fn piped(tree: &WorkTree, from: Cmd, asked: String, to: Cmd) -> Result<(Ended, Ended), SourceError> {
    let failed = |source| SourceError::Git {
        path: tree.root().to_owned(),
        source,
    };
    let lost = |source| SourceError::io("read the objects of", tree.root(), source);
    // Only a partial clone's git may have to ask its person something, and shows what it fetches.
    let attended = tree.is_partial();
    let from = if attended { from.attended() } else { from.stream() };
    let (mut from, mut to) = (from.map_err(failed)?, to.stream().map_err(failed)?);
    let pipes = (from.stdin.take(), from.stdout.take(), to.stdin.take());
    let (Some(mut question), Some(mut objects), Some(mut sink)) = pipes else {
        return Err(lost(std::io::Error::other("git has no pipes")));
    };
    let said = tokio::spawn(tail(from.stderr.take()));
    let (named, complained) = (
        tokio::spawn(tail(to.stdout.take())),
        tokio::spawn(tail(to.stderr.take())),
    );
    // Whoever does not listen any more says why.
    let _closed = question.write_all(asked.as_bytes()).await;
    drop(question);
    let _closed = tokio::io::copy(&mut objects, &mut sink).await;
    drop((objects, sink));
    let from = Ended {
        status: from.wait().await.map_err(lost)?,
        said: match said.await {
            Ok(said) if !attended => said,
            _ => "it said why above".to_owned(),
        },
    };
    let to = Ended {
        status: to.wait().await.map_err(lost)?,
        said: complained.await.unwrap_or_default(),
    };
    let _pack = named.await;
    Ok((from, to))
}
