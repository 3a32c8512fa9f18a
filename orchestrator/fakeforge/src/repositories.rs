//! Repositories, commits and refs, as a test makes them.

use std::path::PathBuf;

use crate::{
    Error, FakeForge,
    auth::Grant,
    git,
    git::Moved,
    hooks::blocking,
    pushes,
    state::{Kind, Repository},
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
        self.change_repository(id, |fork| {
            fork.empty = parent.empty;
            fork.default_branch = parent.default_branch;
        })?;
        Ok(id)
    }

    async fn new_repository(&self, kind: Kind, path: &str, private: bool, fork_of: Option<i64>) -> Result<i64, Error> {
        self.free(path)?;
        let owner = path.split('/').next().unwrap_or_default().to_owned();
        // Another one that has been here may have moved away, and its files stay where they are.
        let mut dir = self.shared.root.join(format!("{path}.git"));
        while dir.exists() {
            dir.set_extension(format!("{}.git", now_ms()));
        }
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
                empty: true,
                archived: false,
                has_actions: kind == Kind::Forgejo,
                installation,
                fork_of,
                dir,
                created_ms: now_ms(),
            };
            state.redirects.remove(&path.to_ascii_lowercase());
            state.repositories.insert(id, repository);
            id
        }))
    }

    /// Whether a repository may come to this path.
    fn free(&self, path: &str) -> Result<(), Error> {
        let part = |part: &str| {
            !part.is_empty()
                && !part.starts_with(['.', '-'])
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        let named = path
            .split_once('/')
            .is_some_and(|(owner, name)| part(owner) && part(name));
        match named && self.shared.state().repository(path).is_none() {
            true => Ok(()),
            false => Err(Error::BadPath(path.to_owned())),
        }
    }

    /// Changes what a person changes on the repository's pages.
    fn change_repository(&self, id: i64, change: impl FnOnce(&mut Repository)) -> Result<(), Error> {
        self.shared.change(|state| {
            let repository = state.repositories.get_mut(&id).ok_or(Error::UnknownRepository(id))?;
            change(repository);
            Ok(())
        })
    }

    /// Renames a repository or hands it to another owner: its number stays, its path changes. Forgejo sends those who
    /// ask at the old path to the new one, until another repository comes there.
    ///
    /// # Errors
    /// When the repository does not exist or the path is taken.
    pub fn rename_repository(&self, repository: i64, path: &str) -> Result<(), Error> {
        let old = self.shared.repository(repository)?.path;
        self.free(path)?;
        self.shared.change(|state| {
            state.redirects.remove(&path.to_ascii_lowercase());
            state.redirects.insert(old.to_ascii_lowercase(), repository);
        });
        self.change_repository(repository, |found| path.clone_into(&mut found.path))
    }

    /// Renames an owner, and with it the path of each of its repositories; its tokens and its rights stay its own.
    ///
    /// # Errors
    /// When one of the new paths is taken.
    pub fn rename_owner(&self, old: &str, new: &str) -> Result<(), Error> {
        let of_owner = |r: &&Repository| r.split().0.eq_ignore_ascii_case(old);
        let owned: Vec<Repository> = self.shared.state().repositories().filter(of_owner).cloned().collect();
        self.shared.change(|state| {
            for user in state.users.iter_mut().filter(|user| user.eq_ignore_ascii_case(old)) {
                new.clone_into(user);
            }
            for token in &mut state.tokens {
                if let Grant::Person { login, .. } = &mut token.grant
                    && login.eq_ignore_ascii_case(old)
                {
                    new.clone_into(login);
                }
            }
            let rights = std::mem::take(&mut state.collaborators).into_iter();
            state.collaborators = rights
                .map(|((repository, login), right)| match login.eq_ignore_ascii_case(old) {
                    true => ((repository, new.to_owned()), right),
                    false => ((repository, login), right),
                })
                .collect();
            if let Some(right) = state.everywhere.remove(old) {
                state.everywhere.insert(new.to_owned(), right);
            }
        });
        for repository in owned {
            self.rename_repository(repository.id, &format!("{new}/{}", repository.split().1))?;
        }
        Ok(())
    }

    /// Removes a repository with its webhooks and its files. Another one may come to its path, under another number.
    ///
    /// # Errors
    /// When it does not exist, or its files cannot be removed.
    pub async fn delete_repository(&self, repository: i64) -> Result<(), Error> {
        let found = self.shared.repository(repository)?;
        self.shared.change(|state| {
            state.repositories.remove(&repository);
            state.redirects.retain(|_, to| *to != repository);
            state.hooks.retain(|_, hook| hook.repository != repository);
            state.collaborators.retain(|(of, _), _| *of != repository);
            state.protections.retain(|(of, _), _| *of != repository);
        });
        blocking(move || {
            std::fs::remove_dir_all(&found.dir).map_err(|source| Error::Io {
                path: found.dir,
                source,
            })
        })
        .await
    }

    /// Archives a Forgejo repository (`true`): it takes no more pushes, but statuses.
    ///
    /// # Errors
    /// When it does not exist.
    pub fn set_archived(&self, repository: i64, archived: bool) -> Result<(), Error> {
        self.change_repository(repository, |found| found.archived = archived)
    }

    /// Turns the forge's own Actions on, as they are in a new repository, or off.
    ///
    /// # Errors
    /// When the repository does not exist.
    pub fn set_has_actions(&self, repository: i64, has_actions: bool) -> Result<(), Error> {
        self.change_repository(repository, |found| found.has_actions = has_actions)
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
        let sha = self.commit(repository, branch, files, message).await?;
        self.update_ref(repository, &format!("refs/heads/{branch}"), Some(&sha))
            .await?;
        Ok(sha)
    }

    /// The commit that [`FakeForge::push`] pushes, without the push: no branch holds it, and nobody is told. For what a
    /// tag alone holds, and for pushes of several commits.
    ///
    /// # Errors
    /// As [`FakeForge::push`].
    pub async fn commit<C: AsRef<[u8]>>(
        &self,
        repository: i64,
        on: &str,
        files: &[(&str, C, u32)],
        message: &str,
    ) -> Result<String, Error> {
        let found = self.shared.repository(repository)?;
        let files: Vec<_> = files
            .iter()
            .map(|(path, content, mode)| ((*path).to_owned(), content.as_ref().to_vec(), *mode))
            .collect();
        let (on, message) = (on.to_owned(), message.to_owned());
        blocking(move || git::write_commit(&found.dir, &on, &files, &message, "alice")).await
    }

    /// Pushes an annotated tag of a commit. The id of the tag's own object.
    ///
    /// # Errors
    /// When the repository or the commit does not exist or git fails.
    pub async fn push_annotated_tag(&self, repository: i64, name: &str, commit: &str) -> Result<String, Error> {
        let dir = self.shared.repository(repository)?.dir;
        let (tag, commit) = (name.to_owned(), commit.to_owned());
        let object = blocking(move || git::write_tag(&dir, &tag, &commit, "A tag")).await?;
        self.update_ref(repository, &format!("refs/tags/{name}"), Some(&object))
            .await?;
        Ok(object)
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
        pushes::notify(&self.shared, repository, &moved, "alice").await
    }
}
