//! Whether the connection works, and what its token may do with each repository.
//!
//! Facts, seen on a Forgejo: an invalid token makes every call 401, `/version` too; `GET /user` takes the scope
//! `read:user`, which a token for statuses needs not have; a repository is 403 where a scope is missing or where the token
//! is limited to public ones, and 404 where its user may not see it; its `permissions` are those of the user, whatever the
//! token may. A status that cannot be decoded is answered 403 where the token may not set any, else 422, and is not stored.

use futures::{StreamExt as _, stream};
use http::Method;
use serde::{Deserialize, Serialize};

use super::{
    Forgejo,
    answers::{User, Version},
};
use crate::{
    foreign_text::one_line,
    forge::{Access, Checked, CheckedRepository, ForgeError},
    model::names::RepoPath,
};

/// Repositories that are asked about at one time.
const AT_ONCE: usize = 4;

/// What is read of a repository. The SDK's type takes an absent permission for one that is denied.
#[derive(Deserialize)]
struct Rights {
    permissions: Option<Permissions>,
    #[serde(default)]
    has_actions: Option<bool>,
}

#[derive(Deserialize)]
struct Permissions {
    #[serde(default)]
    push: bool,
    #[serde(default)]
    pull: bool,
}

/// No status: its state must be a text.
#[derive(Serialize)]
struct NoStatus {
    state: u8,
}

/// No commit, for a server that would take it all the same.
const NO_COMMIT: &str = "0000000000000000000000000000000000000000";

impl Forgejo {
    /// See [`crate::forge::Forge::check`].
    pub(super) async fn check_rights(&self, repositories: &[RepoPath]) -> Result<Checked, ForgeError> {
        let version: Version = self
            .get("version")
            .await?
            .needed("this is not the address of a Forgejo or Gitea")?;
        let user = self.user().await?;
        let line = match &user {
            Some(user) => format!("Forgejo or Gitea {} as {user}", version.version),
            None => format!("Forgejo or Gitea {}", version.version),
        };
        let user = user.as_deref();
        let asked = repositories.iter().map(|path| self.rights(path, user));
        // Not as a closure over a stream's items, whose borrows no spawned task could hold.
        let asked: Vec<_> = asked.collect();
        let mut answers = stream::iter(asked).buffered(AT_ONCE);
        let mut found = Vec::with_capacity(repositories.len());
        while let Some(answer) = answers.next().await {
            found.push(answer?);
        }
        Ok(Checked {
            answer: one_line(&line, 200),
            repositories: found,
        })
    }

    /// Whose token it is; none where it lacks the scope to say so, which nothing else needs.
    async fn user(&self) -> Result<Option<String>, ForgeError> {
        match self.get("user").await {
            Ok(answer) => {
                let user: Option<User> = answer.json()?;
                Ok(user
                    .map(|user| one_line(&user.login, 100))
                    .filter(|login| !login.is_empty()))
            }
            Err(ForgeError::Forbidden { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn rights(&self, path: &RepoPath, user: Option<&str>) -> Result<CheckedRepository, ForgeError> {
        let whose = user.map_or_else(|| "the token's user".to_owned(), |user| format!("`{user}`"));
        let add = || format!("add {whose} as a collaborator with write access to {path}");
        let answer = match self.get(&format!("repos/{path}")).await {
            Ok(answer) => answer,
            Err(ForgeError::Forbidden { reason, .. }) => return Ok(forbidden(path, "read it", &reason)),
            Err(ForgeError::Refused { reason, .. }) => {
                let fix = format!("correct {path} among the connection's `repositories`: has it moved?");
                return Ok(CheckedRepository::missing(
                    path,
                    format!("the forge refused to tell of it: {reason}"),
                    fix,
                ));
            }
            // The forge has answered before, so this is about this repository.
            Err(ForgeError::Later { reason, .. } | ForgeError::Away { reason, .. }) => {
                return Ok(unknown(path, reason));
            }
            Err(error @ ForgeError::Unauthorized { .. }) => return Err(error),
        };
        let rights = match answer.json::<Rights>() {
            Ok(rights) => rights,
            Err(error) => return Ok(unknown(path, error.to_string())),
        };
        let Some(rights) = rights else {
            let reason = format!("it does not exist, or {whose} may not see it");
            return Ok(CheckedRepository::missing(path, reason, add()));
        };
        Ok(match rights.permissions {
            Some(Permissions { push: false, pull }) => {
                let may = if pull {
                    "may read it and not write to it"
                } else {
                    "may neither read nor write it"
                };
                CheckedRepository::missing(path, format!("{whose} {may}, so statuses are refused"), add())
            }
            _ => {
                let actions = rights.has_actions == Some(true);
                self.may_set_statuses(path, actions).await?
            }
        })
    }

    /// Whether the token may set statuses where its user may: asked with one that is not stored.
    async fn may_set_statuses(&self, path: &RepoPath, actions: bool) -> Result<CheckedRepository, ForgeError> {
        let route = format!("repos/{path}/statuses/{NO_COMMIT}");
        let access = match self.send(Method::POST, &route, Some(&NoStatus { state: 1 })).await {
            Err(ForgeError::Forbidden { reason, .. }) => return Ok(forbidden(path, "set statuses there", &reason)),
            Ok(_) | Err(ForgeError::Refused { .. }) => Access::Granted { actions },
            Err(ForgeError::Later { reason, .. }) => Access::Unknown { reason },
            Err(error) => return Err(error),
        };
        Ok(CheckedRepository {
            path: path.clone(),
            access,
        })
    }
}

fn unknown(path: &RepoPath, reason: String) -> CheckedRepository {
    CheckedRepository {
        path: path.clone(),
        access: Access::Unknown { reason },
    }
}

/// A token that may not, whatever its user may.
fn forbidden(path: &RepoPath, what: &str, said: &str) -> CheckedRepository {
    let said = one_line(said, 200);
    if said.contains("public") {
        return CheckedRepository::missing(
            path,
            format!("the token is limited to public repositories: {said}"),
            "make a token with `write:repository` that is not limited to public repositories",
        );
    }
    let (reason, fix) = if said.contains("scope") {
        (
            format!("the token has not the scope to {what}"),
            "make a token with `write:repository`",
        )
    } else {
        (
            format!("the forge does not let the token {what}"),
            "do what it asks for; the token needs `write:repository`, and its user write access to the repository",
        )
    };
    CheckedRepository::missing(path, format!("{reason}: {said}"), fix)
}
