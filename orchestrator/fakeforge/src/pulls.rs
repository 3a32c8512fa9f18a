//! Pull requests: enough of them for a CI that must tell forks from branches.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    Error, git, hooks,
    hooks::blocking,
    shapes,
    state::{Kind, Pull, Repository, Shared},
    time::{now_ms, rfc3339},
};

/// Brings the head commit into the base repository as `refs/pull/N/head` and tells of the action, in
/// the words of the base's forge. Answers with the head commit.
pub(crate) async fn announce(shared: &Arc<Shared>, pull: &Pull, action: &str) -> Result<String, Error> {
    let (base, head) = (shared.repository(pull.base)?, shared.repository(pull.head)?);
    let (base_dir, head_dir) = (base.dir.clone(), head.dir.clone());
    let (base_ref, head_ref) = (
        format!("refs/heads/{}", pull.base_branch),
        format!("refs/heads/{}", pull.head_branch),
    );
    let number = pull.number;
    let (base_sha, head_sha) = blocking(move || {
        let of = |dir: &std::path::Path, name: &str| {
            git::commit(dir, name).ok_or_else(|| Error::UnknownRef(name.to_owned()))
        };
        let (base_sha, head_sha) = (of(&base_dir, &base_ref)?, of(&head_dir, &head_ref)?);
        git::fetch(&head_dir, &base_dir, &head_sha, &format!("refs/pull/{number}/head"))?;
        Ok((base_sha, head_sha))
    })
    .await?;
    let mut body = hooks::common(shared, &base, &pull.author);
    body["action"] = action.into();
    body["number"] = number.into();
    body["pull_request"] = shape(shared, pull, (&base, &base_sha), (&head, &head_sha));
    if base.kind == Kind::Forgejo {
        body["commit_id"] = head_sha.clone().into();
    }
    let event_type = match action {
        "synchronized" => "pull_request_sync",
        _ => "pull_request",
    };
    hooks::send(shared, &base, "pull_request", event_type, body);
    Ok(head_sha)
}

fn shape(shared: &Shared, pull: &Pull, base: (&Repository, &str), head: (&Repository, &str)) -> Value {
    let mut state = shared.state();
    let html = format!("{}/{}/pulls/{}", shared.url, base.0.path, pull.number);
    let kind = base.0.kind;
    let mut side = |(repository, sha): (&Repository, &str), branch: &str| {
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
    let (base_side, head_side) = (side(base, &pull.base_branch), side(head, &pull.head_branch));
    let at = rfc3339(now_ms());
    json!({
        "id": pull.number, "number": pull.number, "state": "open", "title": format!("Merge {}", pull.head_branch),
        "body": "", "draft": false, "merged": false, "mergeable": true, "html_url": html, "url": html,
        "user": shapes::user(&mut state, kind, &shared.url, &pull.author), "labels": [],
        "author_association": "NONE", "merge_base": base.1, "base": base_side, "head": head_side,
        "created_at": at, "updated_at": at,
    })
}
