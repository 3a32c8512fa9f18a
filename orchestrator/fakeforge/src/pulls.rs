//! Pull requests: enough of them for a CI that must tell forks from branches, and both from what anybody who may read
//! can push to Forgejo (AGit), which names no branch and looks as if it came from the base itself.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    Error, FakeForge, git, hooks,
    hooks::blocking,
    shapes,
    state::{Kind, Repository, Shared},
    time::{now_ms, rfc3339},
};

/// A pull request.
#[derive(Debug, Clone)]
pub(crate) struct Pull {
    pub(crate) number: i64,
    pub(crate) base: i64,
    pub(crate) base_branch: String,
    pub(crate) head: Head,
    pub(crate) author: String,
}

/// Where the commits of a pull request come from.
#[derive(Debug, Clone)]
pub(crate) enum Head {
    Branch {
        /// The base itself or a fork, which may be gone by now.
        repository: i64,
        name: String,
    },
    /// Pushed to the base, to no branch.
    Agit,
}

impl Pull {
    /// The ref of the base that holds the head commit.
    pub(crate) fn head_ref(&self) -> String {
        format!("refs/pull/{}/head", self.number)
    }
}

impl FakeForge {
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
        let head = Head::Branch {
            repository: head,
            name: head_branch.to_owned(),
        };
        let pull = self.new_pull(base, base_branch, head, author);
        let sha = announce(&self.shared, &pull, "opened").await?;
        Ok((pull.number, sha))
    }

    /// Opens the pull request of somebody who pushed this commit ([`FakeForge::commit`]) to `refs/for/<branch>` of a
    /// Forgejo repository, and tells its hooks. Its number.
    ///
    /// # Errors
    /// When the repository, the branch or the commit does not exist.
    pub async fn open_agit_pull_request(
        &self,
        (base, base_branch): (i64, &str),
        commit: &str,
        author: &str,
    ) -> Result<i64, Error> {
        let pull = self.new_pull(base, base_branch, Head::Agit, author);
        let (dir, name, sha) = (self.shared.repository(base)?.dir, pull.head_ref(), commit.to_owned());
        blocking(move || git::update_ref(&dir, &name, Some(&sha))).await?;
        announce(&self.shared, &pull, "opened").await?;
        Ok(pull.number)
    }

    fn new_pull(&self, base: i64, base_branch: &str, head: Head, author: &str) -> Pull {
        self.shared.change(|state| {
            let number = i64::try_from(state.pulls.len()).unwrap_or(i64::MAX - 1) + 1;
            let pull = Pull {
                number,
                base,
                base_branch: base_branch.to_owned(),
                head,
                author: author.to_owned(),
            };
            state.pulls.insert(number, pull.clone());
            pull
        })
    }

    fn pull(&self, number: i64) -> Result<Pull, Error> {
        let pull = self.shared.state().pulls.get(&number).cloned();
        pull.ok_or_else(|| Error::Unknown {
            what: "pull request",
            id: number.to_string(),
        })
    }

    /// Tells the base's hooks that the head of a pull request moved (after a push to its branch). The
    /// new head commit.
    ///
    /// # Errors
    /// When the pull request or its branches do not exist.
    pub async fn synchronize_pull_request(&self, number: i64) -> Result<String, Error> {
        let pull = self.pull(number)?;
        let action = match self.shared.repository(pull.base)?.kind {
            Kind::Forgejo => "synchronized",
            Kind::Github => "synchronize",
        };
        announce(&self.shared, &pull, action).await
    }

    /// Tells the base's hooks that a pull request was closed; its fork may be gone. The head commit.
    ///
    /// # Errors
    /// When the pull request or its base does not exist.
    pub async fn close_pull_request(&self, number: i64) -> Result<String, Error> {
        let pull = self.pull(number)?;
        announce(&self.shared, &pull, "closed").await
    }
}

/// Brings the head commit into the base repository as `refs/pull/N/head` and tells of the action, in
/// the words of the base's forge. Answers with the head commit.
async fn announce(shared: &Arc<Shared>, pull: &Pull, action: &str) -> Result<String, Error> {
    let base = shared.repository(pull.base)?;
    let from = match &pull.head {
        Head::Branch { repository, name } => shared.repository(*repository).ok().map(|found| (found, name.clone())),
        Head::Agit => None,
    };
    let (base_dir, base_ref, head_ref) = (
        base.dir.clone(),
        format!("refs/heads/{}", pull.base_branch),
        pull.head_ref(),
    );
    let branch = from
        .as_ref()
        .map(|(found, name)| (found.dir.clone(), format!("refs/heads/{name}")));
    let (base_sha, head_sha) = blocking(move || {
        let of = |dir: &std::path::Path, name: &str| {
            git::commit(dir, name).ok_or_else(|| Error::UnknownRef(name.to_owned()))
        };
        if let Some((dir, name)) = branch {
            git::fetch(&dir, &base_dir, &of(&dir, &name)?, &head_ref)?;
        }
        Ok((of(&base_dir, &base_ref)?, of(&base_dir, &head_ref)?))
    })
    .await?;
    let mut body = hooks::common(shared, &base, &pull.author);
    body["action"] = action.into();
    body["number"] = pull.number.into();
    let sides = ((&base, base_sha.as_str()), (from.as_ref(), head_sha.as_str()));
    body["pull_request"] = shape(shared, pull, sides);
    if action == "closed" {
        body["pull_request"]["state"] = "closed".into();
    }
    if base.kind == Kind::Forgejo {
        body["commit_id"] = "".into();
    }
    let event_type = match action {
        "synchronized" => "pull_request_sync",
        _ => "pull_request",
    };
    hooks::send(shared, &base, "pull_request", event_type, &body);
    Ok(head_sha)
}

type Sides<'p> = ((&'p Repository, &'p str), (Option<&'p (Repository, String)>, &'p str));

fn shape(shared: &Shared, pull: &Pull, ((base, base_sha), (head, head_sha)): Sides<'_>) -> Value {
    let mut state = shared.state();
    let html = format!("{}/{}/pulls/{}", shared.url, base.path, pull.number);
    let kind = base.kind;
    let mut side = |repository: &Repository, sha: &str, branch: &str| {
        let (owner, _) = repository.split();
        let mut side = json!({
            "label": branch, "ref": branch, "sha": sha, "repo_id": repository.id,
            "repo": shapes::repository(&mut state, &shared.url, repository),
        });
        if kind == Kind::Github {
            side["label"] = format!("{owner}:{branch}").into();
            side["user"] = shapes::user(&mut state, kind, &shared.url, owner);
            side.as_object_mut().map(|s| s.remove("repo_id"));
        }
        side
    };
    let base_side = side(base, base_sha, &pull.base_branch);
    let (head_side, title) = match (head, &pull.head) {
        (Some((repository, branch)), _) => (side(repository, head_sha, branch), format!("Merge {branch}")),
        // The same words for both: no branch to name. A repository that is gone has no number either.
        (None, Head::Agit) => {
            let mut side = side(base, head_sha, &pull.head_ref());
            side["label"] = "".into();
            (side, "Merge what was pushed".to_owned())
        }
        (None, Head::Branch { name, .. }) => {
            let mut side = side(base, head_sha, &pull.head_ref());
            side["label"] = name.clone().into();
            side["repo"] = Value::Null;
            side["repo_id"] = (-1).into();
            (side, format!("Merge {name}"))
        }
    };
    let at = rfc3339(now_ms());
    json!({
        "id": pull.number, "number": pull.number, "state": "open", "title": title,
        "body": "", "draft": false, "merged": false, "mergeable": true, "html_url": html, "url": html,
        "user": shapes::user(&mut state, kind, &shared.url, &pull.author), "labels": [],
        "author_association": "NONE", "merge_base": base_sha, "base": base_side, "head": head_side,
        "created_at": at, "updated_at": at,
    })
}
