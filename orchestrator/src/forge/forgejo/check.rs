//! Whether the connection works, and what its token may do with each repository.
//!
//! Facts, seen on a Forgejo: an invalid token makes every call 401, `/version` too; `GET /user` takes the scope
//! `read:user`, which a token for statuses needs not have; a repository is 403 where a scope is missing or where the token
//! is limited to public ones, and 404 where its user may not see it; its `permissions` are those of the user.

use futures::{StreamExt as _, stream};
use serde::Deserialize;

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
            Err(ForgeError::Forbidden { reason, .. }) => return Ok(forbidden(path, &reason)),
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
            _ => CheckedRepository {
                path: path.clone(),
                access: Access::Granted {
                    actions: rights.has_actions == Some(true),
                },
            },
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
fn forbidden(path: &RepoPath, said: &str) -> CheckedRepository {
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
            "the token has not the scope to read it",
            "make a token with `write:repository`",
        )
    } else {
        (
            "the forge refuses to tell of it",
            "do what it asks for; the token needs `write:repository`, and its user write access to the repository",
        )
    };
    CheckedRepository::missing(path, format!("{reason}: {said}"), fix)
}
