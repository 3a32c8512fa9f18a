//! What the commits of a repository contain, read once for all triggers that are planned together: many dispatches of one
//! commit, or a branch and its tag.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{Mutex as AsyncMutex, OnceCell};

use super::{WorkflowFile, error::PlanError};
use crate::{
    model::{
        names::CommitSha,
        trigger::{Repository, Retry},
    },
    source::{Objects, Source, SourceError},
    workflow,
};

/// Commits that are remembered: a repository decides how large its files are, and whoever waits for one commit stands
/// close to the others.
const REMEMBERED: usize = 4;
/// Workflow files of one commit.
const FILES: usize = 100;

/// The commits of one repository.
pub(super) struct Commits<'a> {
    source: &'a Source,
    repository: &'a Repository,
    /// Where its forge looks for workflow files.
    folders: &'a [&'static str],
    /// The newest last. Nothing awaits while holding it.
    remembered: Mutex<VecDeque<(CommitSha, Arc<Commit>)>>,
}

/// A commit, as far as somebody asked.
struct Commit {
    objects: AsyncMutex<Objects>,
    message: OnceCell<String>,
    files: OnceCell<Arc<[WorkflowFile]>>,
}

impl<'a> Commits<'a> {
    pub(super) fn new(source: &'a Source, repository: &'a Repository, folders: &'a [&'static str]) -> Self {
        Self {
            source,
            repository,
            folders,
            remembered: Mutex::default(),
        }
    }

    fn commit(&self, sha: &CommitSha) -> Arc<Commit> {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, commit)) = remembered.iter().find(|(known, _)| known == sha) {
            return Arc::clone(commit);
        }
        if remembered.len() == REMEMBERED {
            remembered.pop_front();
        }
        let commit = Arc::new(Commit {
            objects: AsyncMutex::new(self.source.objects(self.repository)),
            message: OnceCell::new(),
            files: OnceCell::new(),
        });
        remembered.push_back((sha.clone(), Arc::clone(&commit)));
        commit
    }

    /// Its message.
    pub(super) async fn message(&self, sha: &CommitSha) -> Result<String, PlanError> {
        let commit = self.commit(sha);
        let read = || async { Ok::<_, PlanError>(commit.objects.lock().await.message(sha).await?) };
        commit.message.get_or_try_init(read).await.cloned()
    }

    /// Its workflow files.
    pub(super) async fn files(&self, sha: &CommitSha) -> Result<Arc<[WorkflowFile]>, PlanError> {
        let commit = self.commit(sha);
        let read = || async { self.read_files(&mut *commit.objects.lock().await, sha).await };
        commit.files.get_or_try_init(read).await.cloned()
    }

    async fn read_files(&self, objects: &mut Objects, sha: &CommitSha) -> Result<Arc<[WorkflowFile]>, PlanError> {
        let paths = workflow::listed(self.folders);
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        let files = objects.list(sha, &paths).await?;
        let Some(pick) = workflow::pick(self.folders, files.iter().map(String::as_str)) else {
            return Ok(Arc::default());
        };
        if pick.files.len() > FILES {
            return Err(PlanError::Never {
                reason: format!(
                    "the commit has {} workflow files; {FILES} are the most",
                    pick.files.len()
                ),
                retry: Retry::OnRequest,
            });
        }
        let mut files = Vec::new();
        for path in pick.files {
            let text = match objects.read(sha, &path, workflow::MAX_FILE).await {
                Ok(bytes) => Ok(bytes),
                Err(SourceError::FileTooLong { max, .. }) => Err(format!("the file is longer than {max} bytes")),
                Err(SourceError::Unreadable { why, .. }) => Err(format!("the file cannot be read: {why}")),
                Err(error) => return Err(error.into()),
            };
            files.push(WorkflowFile { path, text });
        }
        Ok(files.into())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        config::{Config, LoadOptions},
        exec::Cmd,
        model::names::ForgeContext,
    };

    fn git(cwd: &Path, args: &[&str]) -> String {
        let mut cmd = Cmd::new("git").cwd(cwd).args(args);
        for name in ["AUTHOR_NAME", "AUTHOR_EMAIL", "COMMITTER_NAME", "COMMITTER_EMAIL"] {
            cmd = cmd.env(format!("GIT_{name}"), "a@b");
        }
        let cmd = cmd
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null");
        cmd.run_blocking().unwrap().ok().unwrap().text().trim().to_owned()
    }

    #[tokio::test]
    async fn a_commit_is_read_once_however_many_triggers_name_it() {
        let folder = tempfile::tempdir().unwrap();
        let (work, data) = (folder.path().join("work"), folder.path().join("data"));
        let workflows = work.join(".helios/workflows");
        std::fs::create_dir_all(&workflows).unwrap();
        std::fs::write(workflows.join("ci.yml"), "on: push\n").unwrap();
        git(&work, &["init", "--quiet", "."]);
        git(&work, &["add", "--all"]);
        git(&work, &["commit", "--quiet", "--message", "Mend it"]);
        let commit = |name: &str| git(&work, &["rev-parse", name]).parse::<CommitSha>().unwrap();
        let first = commit("HEAD");
        git(&work, &["commit", "--quiet", "--allow-empty", "--message", "Another"]);
        let mirror = data.join("mirrors/forge/7.git");
        std::fs::create_dir_all(mirror.parent().unwrap()).unwrap();
        let to = mirror.display().to_string();
        git(&work, &["clone", "--quiet", "--bare", ".", &to]);

        let text = format!("node: n\ndata_dir: {}\n", data.display());
        let config = Config::parse(Path::new("config.yaml"), &text, LoadOptions::default()).unwrap();
        let source = Source::new(&config.config);
        let repository = Repository {
            connection: "forge".parse().unwrap(),
            id: 7.into(),
            path: "o/r".parse().unwrap(),
            context: ForgeContext::default(),
        };
        let commits = Commits::new(&source, &repository, &[]);
        let read = async || (commits.message(&first).await, commits.files(&first).await);
        let (message, files) = read().await;
        assert_eq!(message.unwrap(), "Mend it\n");
        assert_eq!(files.unwrap()[0].path, ".helios/workflows/ci.yml");
        std::fs::remove_dir_all(&mirror).unwrap();
        let (message, files) = read().await;
        assert_eq!((message.unwrap().as_str(), files.unwrap().len()), ("Mend it\n", 1));
        // What could not be read is read again.
        let second = commit("HEAD");
        assert!(commits.message(&second).await.is_err());
        git(&work, &["clone", "--quiet", "--bare", ".", &to]);
        assert_eq!(commits.message(&second).await.unwrap(), "Another\n");
        for n in 0..REMEMBERED {
            let unknown: CommitSha = hex::encode([u8::try_from(n).unwrap(); 20]).parse().unwrap();
            commits.message(&unknown).await.unwrap_err();
        }
        assert_eq!(commits.remembered.lock().unwrap().len(), REMEMBERED);
    }
}
