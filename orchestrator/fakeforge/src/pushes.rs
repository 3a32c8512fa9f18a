//! The events that moved refs lead to, which the two forges do differently.
//!
//! Forgejo sends `push` and `create` for a new branch and for any tag that was set, and promises no order of the two;
//! for a deleted branch only `delete`; for a deleted tag `push` and `delete`. The names in all of them are whole.
//! A push holds the newest commits first and at most five, and none for a tag; a tag that moved has no `before`.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    Error,
    git::{self, Moved, ZERO},
    hooks::{blocking, common, send},
    state::{Kind, Repository, Shared},
};

/// The most commits in a push of Forgejo's.
const FORGEJO_COMMITS: usize = 5;
/// What is the most that `total_commits` was seen to be for a new branch.
const FORGEJO_NEW_BRANCH: usize = 10;

/// Queues the events of moved refs for every hook of the repository.
pub(crate) async fn notify(shared: &Arc<Shared>, repository: i64, moved: &[Moved], actor: &str) -> Result<(), Error> {
    for one in moved {
        // Refs of pull requests are the forge's own; it tells of them with `pull_request`.
        if one.name.starts_with("refs/pull/") {
            continue;
        }
        let repository = settled(shared, repository, one).await?;
        match repository.kind {
            Kind::Forgejo => forgejo(shared, &repository, one, actor).await?,
            Kind::Github => github(shared, &repository, one, actor).await?,
        }
    }
    Ok(())
}

/// The repository, whose default branch is the first one that was pushed to it.
async fn settled(shared: &Shared, id: i64, moved: &Moved) -> Result<Repository, Error> {
    let repository = shared.repository(id)?;
    let Some(branch) = moved.branch().filter(|_| repository.empty && moved.after != ZERO) else {
        return Ok(repository);
    };
    let branch = branch.to_owned();
    if repository.kind == Kind::Forgejo && branch != repository.default_branch {
        let (dir, head) = (repository.dir.clone(), branch.clone());
        blocking(move || git::set_head(&dir, &head)).await?;
    }
    shared.change(|state| {
        if let Some(repository) = state.repositories.get_mut(&id) {
            repository.empty = false;
            if repository.kind == Kind::Forgejo {
                repository.default_branch = branch;
            }
        }
    });
    shared.repository(id)
}

async fn forgejo(shared: &Arc<Shared>, repository: &Repository, moved: &Moved, actor: &str) -> Result<(), Error> {
    let (made, gone, tag) = (moved.before == ZERO, moved.after == ZERO, moved.branch().is_none());
    if tag || !gone {
        let (dir, html, one) = (repository.dir.clone(), html(shared, repository), moved.clone());
        let work = move || {
            let newest = match tag {
                true => Vec::new(),
                false => git::newest_of(&dir, &one, FORGEJO_NEW_BRANCH)?,
            };
            let shown = newest.iter().take(FORGEJO_COMMITS);
            let commits: Vec<Value> = shown
                .map(|sha| git::describe(&dir, sha, &html))
                .collect::<Result<_, _>>()?;
            Ok((newest.len(), commits, head(&dir, &one, &html)?))
        };
        let (total, commits, head) = blocking(work).await?;
        let told = Moved {
            before: match tag && !gone {
                true => ZERO.to_owned(),
                false => moved.before.clone(),
            },
            ..moved.clone()
        };
        let push = forgejo_push(shared, repository, &told, actor, (total, &commits, &head));
        send(shared, repository, "push", "push", &push);
    }
    let mut body = common(shared, repository, actor);
    body["ref"] = moved.name.clone().into();
    body["ref_type"] = if tag { "tag" } else { "branch" }.into();
    if gone {
        body["pusher_type"] = "user".into();
        send(shared, repository, "delete", "delete", &body);
    } else if made || tag {
        body["sha"] = moved.after.clone().into();
        send(shared, repository, "create", "create", &body);
    }
    Ok(())
}

/// The body of a push: what moved, how many commits came, those that are shown, and the newest.
fn forgejo_push(
    shared: &Shared,
    repository: &Repository,
    moved: &Moved,
    actor: &str,
    (total, commits, head): (usize, &[Value], &Value),
) -> Value {
    let mut body = moved_body(shared, repository, moved, actor);
    body["commits"] = commits.into();
    body["total_commits"] = total.into();
    body["head_commit"] = head.clone();
    body["compare_url"] = compare(shared, repository, moved).into();
    body["pusher"] = body["sender"].clone();
    body
}

/// What a test delivery of Forgejo's is: a push of the default branch that moves nothing. `name` takes the ref's place.
///
/// # Errors
/// [`Error::UnknownRef`] when the repository has no default branch.
pub(crate) async fn test_push(
    shared: &Shared,
    repository: &Repository,
    name: Option<&str>,
    actor: &str,
) -> Result<Value, Error> {
    let branch = format!("refs/heads/{}", repository.default_branch);
    let name = name.map_or_else(|| branch.clone(), str::to_owned);
    let (dir, html) = (repository.dir.clone(), html(shared, repository));
    let work = move || {
        let sha = git::commit(&dir, &branch).ok_or(Error::UnknownRef(branch))?;
        let shown = git::describe(&dir, &sha, &html)?;
        Ok((sha, shown))
    };
    let (sha, shown) = blocking(work).await?;
    let unmoved = Moved {
        name,
        before: sha.clone(),
        after: sha,
    };
    Ok(forgejo_push(
        shared,
        repository,
        &unmoved,
        actor,
        (1, std::slice::from_ref(&shown), &shown),
    ))
}

async fn github(shared: &Arc<Shared>, repository: &Repository, moved: &Moved, actor: &str) -> Result<(), Error> {
    let (dir, html, one) = (repository.dir.clone(), html(shared, repository), moved.clone());
    let work = move || {
        let commits = git::pushed(&dir, &one, &html)?;
        let forced = git::forced(&dir, &one.before, &one.after);
        Ok((commits, head(&dir, &one, &html)?, forced))
    };
    let (commits, head, forced) = blocking(work).await?;
    let (made, gone) = (moved.before == ZERO, moved.after == ZERO);
    let mut body = moved_body(shared, repository, moved, actor);
    body["commits"] = commits.into();
    body["head_commit"] = head;
    body["compare"] = compare(shared, repository, moved).into();
    body["created"] = made.into();
    body["deleted"] = gone.into();
    body["forced"] = forced.into();
    body["base_ref"] = Value::Null;
    body["pusher"] = json!({"name": actor, "email": format!("{actor}@example.org")});
    send(shared, repository, "push", "push", &body);
    let event = match (made, gone) {
        (true, _) => "create",
        (_, true) => "delete",
        _ => return Ok(()),
    };
    let mut body = common(shared, repository, actor);
    body["ref"] = moved.name.splitn(3, '/').nth(2).unwrap_or_default().into();
    body["ref_type"] = if moved.branch().is_none() { "tag" } else { "branch" }.into();
    body["pusher_type"] = "user".into();
    if made {
        body["sha"] = moved.after.clone().into();
        body["master_branch"] = repository.default_branch.clone().into();
    }
    send(shared, repository, event, event, &body);
    Ok(())
}

fn moved_body(shared: &Shared, repository: &Repository, moved: &Moved, actor: &str) -> Value {
    let mut body = common(shared, repository, actor);
    body["ref"] = moved.name.clone().into();
    body["before"] = moved.before.clone().into();
    body["after"] = moved.after.clone().into();
    body
}

/// The commit that a ref is at now, which for an annotated tag is what it names.
fn head(dir: &std::path::Path, moved: &Moved, html: &str) -> Result<Value, Error> {
    match git::commit(dir, &moved.after) {
        Some(sha) if moved.after != ZERO => git::describe(dir, &sha, html),
        _ => Ok(Value::Null),
    }
}

fn html(shared: &Shared, repository: &Repository) -> String {
    format!("{}/{}", shared.url, repository.path)
}

fn compare(shared: &Shared, repository: &Repository, moved: &Moved) -> String {
    format!(
        "{}/compare/{}...{}",
        html(shared, repository),
        moved.before,
        moved.after
    )
}
