//! Repositories, commits and pull requests, as a test makes them.

use std::path::PathBuf;

use crate::{
    Error, FakeForge, git,
    git::Moved,
    hooks,
    hooks::blocking,
    pulls,
    state::{Kind, Pull, Repository},
    time::now_ms,
};

impl FakeForge {
    /// Makes an empty repository and answers with its number.
    ///
    /// # Errors
    /// When the path is taken or not `owner/name`, or git fails.
    pub async fn create_repository(&self, kind: Kind, path: &str, private: bool) -> Result<i64, Error> {
        self.new_repository(kind, path, private, None).await
    }

    /// Makes a fork with all branches and answers with its number.
    ///
    /// # Errors
    /// As [`FakeForge::create_repository`].
    pub async fn fork(&self, repository: i64, path: &str) -> Result<i64, Error> {
        let parent = self.shared.repository(repository)?;
        let id = self
            .new_repository(parent.kind, path, parent.private, Some(repository))
            .await?;
        let fork = self.shared.repository(id)?;
        blocking(move || git::copy(&parent.dir, &fork.dir)).await?;
        Ok(id)
    }

    async fn new_repository(&self, kind: Kind, path: &str, private: bool, fork_of: Option<i64>) -> Result<i64, Error> {
        let part = |part: &str| {
            !part.is_empty()
                && !part.starts_with(['.', '-'])
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        let owner = match path.split_once('/') {
            Some((owner, name)) if part(owner) && part(name) => owner.to_owned(),
            _ => return Err(Error::BadPath(path.to_owned())),
        };
        if self.shared.state().repository(path).is_some() {
            return Err(Error::BadPath(path.to_owned()));
        }
        let dir = self.shared.root.join(format!("{path}.git"));
        let init = dir.clone();
        blocking(move || git::init(&init)).await?;
        Ok(self.shared.change(|state| {
            let id = state.number();
            let installation = match kind {
                Kind::Forgejo => None,
                Kind::Github => Some(match state.installations.get(&owner) {
                    Some(id) => *id,
                    None => {
                        let id = state.number();
                        state.installations.insert(owner, id);
                        id
                    }
                }),
            };
            let repository = Repository {
                id,
                kind,
                path: path.to_owned(),
                private,
                default_branch: "main".to_owned(),
                installation,
                fork_of,
                dir,
                created_ms: now_ms(),
            };
            state.repositories.insert(id, repository);
            id
        }))
    }

    /// Renames or moves a repository: its number stays, its path changes, as on the real forges.
    ///
    /// # Errors
    /// When the repository does not exist or the path is taken.
    pub fn rename_repository(&self, repository: i64, path: &str) -> Result<(), Error> {
        self.shared.repository(repository)?;
        if self.shared.state().repository(path).is_some() {
            return Err(Error::BadPath(path.to_owned()));
        }
        self.shared.change(|state| {
            if let Some(found) = state.repositories.get_mut(&repository) {
                found.path = path.to_owned();
            }
        });
        Ok(())
    }

    /// Where the repository is cloned from: `<url>/owner/name.git`.
    ///
    /// # Errors
    /// When it does not exist.
    pub fn clone_url(&self, repository: i64) -> Result<String, Error> {
        Ok(format!(
            "{}/{}.git",
            self.shared.url,
            self.shared.repository(repository)?.path
        ))
    }

    /// Where the bare repository lies.
    ///
    /// # Errors
    /// When it does not exist.
    pub fn repository_dir(&self, repository: i64) -> Result<PathBuf, Error> {
        Ok(self.shared.repository(repository)?.dir)
    }

    /// Commits files (`(path, content, mode)`, mode 0o644 or 0o755, or a whole git mode such as
    /// 0o120000) on top of the branch and pushes: every hook is told. The commit's id.
    ///
    /// # Errors
    /// When the repository does not exist or git fails.
    pub async fn push<C: AsRef<[u8]>>(
        &self,
        repository: i64,
        branch: &str,
        files: &[(&str, C, u32)],
        message: &str,
    ) -> Result<String, Error> {
        let found = self.shared.repository(repository)?;
        let files: Vec<_> = files
            .iter()
            .map(|(path, content, mode)| ((*path).to_owned(), content.as_ref().to_vec(), *mode))
            .collect();
        let (dir, branch_name, message) = (found.dir.clone(), branch.to_owned(), message.to_owned());
        let sha = blocking(move || git::write_commit(&dir, &branch_name, &files, &message, "alice")).await?;
        self.update_ref(repository, &format!("refs/heads/{branch}"), Some(&sha))
            .await?;
        Ok(sha)
    }

    /// Points a ref at a commit of the repository, or removes it, and tells every hook: for tags,
    /// deleted branches and forced pushes.
    ///
    /// # Errors
    /// When the repository does not exist or git fails.
    pub async fn update_ref(&self, repository: i64, name: &str, sha: Option<&str>) -> Result<(), Error> {
        let found = self.shared.repository(repository)?;
        let _turn = self.shared.pushing.lock().await;
        let (dir, name, sha) = (found.dir.clone(), name.to_owned(), sha.map(str::to_owned));
        let moved: Vec<Moved> = blocking(move || {
            let before = git::refs(&dir)?;
            git::update_ref(&dir, &name, sha.as_deref())?;
            Ok(git::moved(&before, &git::refs(&dir)?))
        })
        .await?;
        hooks::pushed(&self.shared, repository, &moved, "alice").await
    }

    /// Opens a pull request and tells the base's hooks. Its number and head commit; the head is
    /// `refs/pull/<number>/head` of the base.
    ///
    /// # Errors
    /// When a repository or branch does not exist.
    pub async fn open_pull_request(
        &self,
        (base, base_branch): (i64, &str),
        (head, head_branch): (i64, &str),
        author: &str,
    ) -> Result<(i64, String), Error> {
        let pull = self.shared.change(|state| {
            let number = i64::try_from(state.pulls.len()).unwrap_or(i64::MAX - 1) + 1;
            let pull = Pull {
                number,
                base,
                head,
                base_branch: base_branch.to_owned(),
                head_branch: head_branch.to_owned(),
                author: author.to_owned(),
            };
            state.pulls.insert(number, pull.clone());
            pull
        });
        let sha = pulls::announce(&self.shared, &pull, "opened").await?;
        Ok((pull.number, sha))
    }

    /// Tells the base's hooks that the head of a pull request moved (after a push to its branch). The
    /// new head commit.
    ///
    /// # Errors
    /// When the pull request or its branches do not exist.
    pub async fn synchronize_pull_request(&self, number: i64) -> Result<String, Error> {
        let pull = self.shared.state().pulls.get(&number).cloned();
        let pull = pull.ok_or_else(|| Error::Unknown {
            what: "pull request",
            id: number.to_string(),
        })?;
        let action = match self.shared.repository(pull.base)?.kind {
            Kind::Forgejo => "synchronized",
            Kind::Github => "synchronize",
        };
        pulls::announce(&self.shared, &pull, action).await
    }
}
