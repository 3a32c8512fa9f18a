//! Branches, tags and commits.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{Path, State},
    response::IntoResponse,
};
use serde_json::{Value, json};

use super::{Answer, Found, not_found};
use crate::{git, hooks::blocking, state::Shared};

pub(super) async fn branch(
    State(shared): State<Arc<Shared>>,
    Path((_, _, name)): Path<(String, String, String)>,
    Extension(found): Extension<Found>,
) -> Answer {
    let found = found.repository;
    let protection = shared.state().protections.get(&(found.id, name.clone())).cloned();
    let html = format!("{}/{}", shared.url, found.path);
    let reference = format!("refs/heads/{name}");
    let commit = blocking(move || match git::commit(&found.dir, &reference) {
        Some(sha) => git::describe(&found.dir, &sha, &html).map(Some),
        None => Ok(None),
    })
    .await?;
    let mut commit = commit.ok_or_else(not_found)?;
    for key in ["added", "removed", "modified"] {
        commit[key] = json!([]);
    }
    Ok(Json(json!({
        "name": name, "commit": commit, "protected": protection.is_some(), "required_approvals": 0,
        "enable_status_check": protection.is_some(), "status_check_contexts": protection, "user_can_push": true, "user_can_merge": true,
        "effective_branch_protection_name": "",
    }))
    .into_response())
}

/// Every ref that begins with the asked name: a list, also of one.
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Path((_, _, name)): Path<(String, String, String)>,
    Extension(found): Extension<Found>,
) -> Answer {
    let dir = found.repository.dir.clone();
    let all = blocking(move || git::refs_below(&dir, &format!("refs/{name}"))).await?;
    if all.is_empty() {
        return Err(not_found());
    }
    let api = format!("{}/api/v1/repos/{}/git", shared.url, found.repository.path);
    let shape = |[name, sha, kind]: &[String; 3]| {
        let object = json!({"sha": sha, "type": kind, "url": format!("{api}/{kind}s/{sha}")});
        json!({"ref": name, "url": format!("{api}/{name}"), "object": object})
    };
    Ok(Json(all.iter().map(shape).collect::<Value>()).into_response())
}

/// One commit; asked for a tag's own object, the commit it names.
pub(super) async fn commit(
    State(shared): State<Arc<Shared>>,
    Path((_, _, name)): Path<(String, String, String)>,
    Extension(found): Extension<Found>,
) -> Answer {
    let api = format!("{}/api/v1/repos/{}/git/commits", shared.url, found.repository.path);
    let html = format!("{}/{}", shared.url, found.repository.path);
    let dir = found.repository.dir;
    let shown = blocking(move || match git::commit(&dir, &name) {
        Some(sha) => git::describe(&dir, &sha, &html).map(Some),
        None => Ok(None),
    })
    .await?;
    let shown = shown.ok_or_else(not_found)?;
    let sha = shown["id"].as_str().unwrap_or_default();
    let person =
        |who: &str| json!({"name": shown[who]["name"], "email": shown[who]["email"], "date": shown["timestamp"]});
    Ok(Json(json!({
        "sha": sha, "url": format!("{api}/{sha}"), "html_url": shown["url"], "created": shown["timestamp"],
        "commit": {
            "url": format!("{api}/{sha}"), "message": shown["message"], "author": person("author"),
            "committer": person("committer"), "tree": {"sha": shown["tree_id"], "created": shown["timestamp"]},
        },
        "parents": [], "files": [],
    }))
    .into_response())
}
