//! A working tree of this machine as the source of a run: for `helios-ci run`, which has no forge.

use std::path::Path;

use super::{
    Source, SourceError,
    git::{Protocol, git, run_ok},
    mirror,
};
use crate::model::{names::CommitSha, trigger::Repository};

impl Source {
    /// Takes a commit, with its history, from a repository on this machine into the mirror. The
    /// repository is only read.
    ///
    /// # Errors
    /// When git fails, on either side.
    pub async fn adopt(&self, repository: &Repository, from: &Path, commit: &CommitSha) -> Result<(), SourceError> {
        let _lock = self.lock(repository).await;
        let mirror = self.mirror(repository);
        if !mirror.join("HEAD").exists() {
            mirror::create(&mirror, commit).await?;
        }
        let cmd = git(&mirror, Protocol::File, "fetch")
            .args(["--quiet", "--no-tags", "--no-write-fetch-head", "--end-of-options"])
            .arg(from)
            .arg(format!("{commit}:refs/helios/commits/{commit}"));
        run_ok(&mirror, cmd).await?;
        Ok(())
    }

    /// Makes a commit of a working tree as it is, untracked files included and ignored ones not, on top
    /// of an adopted commit. It exists in the mirror alone: index, objects and refs of the person's own
    /// repository stay as they are.
    ///
    /// # Errors
    /// When git fails or a file cannot be read.
    pub async fn snapshot(
        &self,
        repository: &Repository,
        tree: &Path,
        parent: &CommitSha,
    ) -> Result<CommitSha, SourceError> {
        let _lock = self.lock(repository).await;
        let mirror = self.mirror(repository);
        let in_tree = |subcommand: &str| {
            git(&mirror, Protocol::None, subcommand)
                .env("GIT_WORK_TREE", tree)
                .env("GIT_INDEX_FILE", mirror.join("snapshot-index"))
                .cwd(tree)
        };
        run_ok(&mirror, in_tree("read-tree").arg(parent.as_str())).await?;
        run_ok(&mirror, in_tree("add").args(["--all", "--", "."])).await?;
        let written = run_ok(&mirror, in_tree("write-tree")).await?;
        let mut cmd = git(&mirror, Protocol::None, "commit-tree").args([
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
        let made = run_ok(&mirror, cmd).await?.text();
        let commit: CommitSha = made.trim().parse().map_err(|_| SourceError::Answer {
            what: "commit-tree",
            answer: super::commit::one_line(&made, 80),
        })?;
        let name = format!("refs/helios/commits/{commit}");
        run_ok(
            &mirror,
            git(&mirror, Protocol::None, "update-ref").args([name.as_str(), commit.as_str()]),
        )
        .await?;
        Ok(commit)
    }
}
