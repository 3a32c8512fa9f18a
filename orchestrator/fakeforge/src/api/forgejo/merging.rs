//! Branch protection and the merge of a pull request that it blocks: by the names of statuses, which are patterns. Of
//! those that match a pattern only the first counts, as in versions that are still run (newer ones count the worst), so
//! that a green one can hide a red one.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{Path, State},
    http::StatusCode,
    response::IntoResponse,
};
use bytes::Bytes;
use serde_json::{Value, json};

use super::{Answer, Found, not_found, statuses};
use crate::{
    access::Access,
    api::Refusal,
    git,
    hooks::blocking,
    pushes,
    state::{ForgeState, Shared},
    time::rfc3339,
};

/// Protects a branch, in place of what protected it before.
pub(super) async fn protect(
    State(shared): State<Arc<Shared>>,
    Extension(found): Extension<Found>,
    body: Bytes,
) -> Answer {
    found.require(Access::Admin)?;
    let body: Value = serde_json::from_slice(&body).map_err(|e| Refusal::new(422, format!("[]: {e}")))?;
    let named = |key: &str| body[key].as_str().filter(|name| !name.is_empty());
    let Some(branch) = named("rule_name").or(named("branch_name")) else {
        return Err(Refusal::new(422, "both rule_name and branch_name are empty"));
    };
    let checked = body["enable_status_check"].as_bool().unwrap_or(false);
    let contexts = body["status_check_contexts"].as_array().into_iter().flatten();
    let contexts: Vec<String> = contexts.filter_map(|c| c.as_str().map(str::to_owned)).collect();
    let key = (found.repository.id, branch.to_owned());
    shared.change(|state| match checked {
        true => state.protections.insert(key, contexts.clone()),
        false => state.protections.remove(&key),
    });
    Ok((
        StatusCode::CREATED,
        Json(json!({
            "rule_name": branch, "branch_name": branch, "enable_status_check": checked,
            "status_check_contexts": contexts, "created_at": rfc3339(0), "updated_at": rfc3339(0),
        })),
    )
        .into_response())
}

/// Merges, or says 405 when the statuses of the head commit do not allow it yet.
pub(super) async fn merge(
    State(shared): State<Arc<Shared>>,
    Path((_, _, number)): Path<(String, String, i64)>,
    Extension(found): Extension<Found>,
) -> Answer {
    let actor = found.require(Access::Write)?.to_owned();
    let pull = shared.state().pulls.get(&number).cloned();
    let pull = pull
        .filter(|pull| pull.base == found.repository.id)
        .ok_or_else(not_found)?;
    let dir = found.repository.dir.clone();
    let (head_ref, base_ref) = (pull.head_ref(), format!("refs/heads/{}", pull.base_branch));
    let asked = (dir.clone(), head_ref.clone());
    let head = blocking(move || Ok(git::commit(&asked.0, &asked.1))).await?;
    let head = head.ok_or_else(not_found)?;
    if !ready(&shared.state(), pull.base, &pull.base_branch, &head) {
        return Err(Refusal::new(405, "Not all required status checks successful"));
    }
    let turn = shared.pushing.lock().await;
    let moved = blocking(move || {
        let before = git::refs(&dir)?;
        git::merge(&dir, &base_ref, &head)?;
        Ok(git::moved(&before, &git::refs(&dir)?))
    })
    .await?;
    pushes::notify(&shared, found.repository.id, &moved, &actor).await?;
    drop(turn);
    Ok(StatusCode::OK.into_response())
}

/// Whether the statuses of the head let it be merged into this branch.
fn ready(state: &ForgeState, repository: i64, branch: &str, head: &str) -> bool {
    let Some(contexts) = state.protections.get(&(repository, branch.to_owned())) else {
        return true;
    };
    let of_head = state
        .history
        .iter()
        .filter(|r| r.repository == repository && r.sha == head);
    let mut newest = statuses::newest_of_each_context(of_head.cloned().collect());
    newest.sort_by_key(|received| received.id);
    contexts.iter().all(|pattern| {
        let first = newest.iter().find(|received| matches(pattern, &received.context));
        first.is_some_and(|received| received.state == "success")
    })
}

/// Whether a name has the form of a pattern, in which `*` is any text and `?` any character.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.chars().next() {
        None => name.is_empty(),
        Some('*') => name
            .char_indices()
            .map(|(at, _)| at)
            .chain([name.len()])
            .any(|at| matches(&pattern[1..], &name[at..])),
        Some(first) => name.chars().next().is_some_and(|c| {
            (first == '?' || first == c) && matches(&pattern[first.len_utf8()..], &name[c.len_utf8()..])
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, whether) in [
            ("helios-ci", "helios-ci", true),
            ("helios-ci", "helios-ci / ci / job", false),
            ("helios-ci*", "helios-ci / ci / job", true),
            ("helios-ci/*", "helios-ci / ci / job", false),
            ("*job", "helios-ci / ci / job", true),
            ("h?lios*", "hélios-ci", true),
            ("", "x", false),
        ] {
            assert_eq!(matches(pattern, name), whether, "{pattern} {name}");
        }
    }
}
