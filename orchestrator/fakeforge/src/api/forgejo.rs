//! Forgejo's API, below `/api/v1`.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use serde_json::{Value, json};

use super::{Refusal, admit};
use crate::{
    auth::Credential,
    git,
    hooks::blocking,
    shapes,
    state::{Kind, Received, Repository, Shared},
    time::{now_ms, rfc3339},
};

type Answer = Result<Response, Refusal>;

/// The states a status may have; `skipped` only in newer servers.
const STATES: [&str; 6] = ["pending", "success", "error", "failure", "warning", "skipped"];

pub(super) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/version", get(version))
        .route("/user", get(user))
        .route("/repositories/{id}", get(repository_by_id))
        .route("/repos/{owner}/{repo}", get(repository))
        .route("/repos/{owner}/{repo}/branches/{*branch}", get(branch))
        .route("/repos/{owner}/{repo}/git/refs/{*name}", get(refs))
        .route(
            "/repos/{owner}/{repo}/statuses/{sha}",
            post(create_status).get(statuses),
        )
        .route("/repos/{owner}/{repo}/commits/{sha}/statuses", get(statuses))
        .route("/repos/{owner}/{repo}/commits/{sha}/status", get(combined))
        .fallback(|| async { Refusal::new(404, "The target couldn't be found.") })
}

async fn version() -> Json<Value> {
    Json(json!({"version": "11.0.0+gitea-1.22.0"}))
}

async fn user(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Answer {
    let mut state = shared.state();
    let token = Credential::of(&headers).token(&state, Kind::Forgejo, now_ms());
    let token = token.ok_or_else(|| Refusal::new(401, "token is required"))?;
    Ok(Json(shapes::user(&mut state, Kind::Forgejo, &shared.url, &token.login())).into_response())
}

fn find(shared: &Shared, headers: &HeaderMap, owner: &str, repo: &str, write: bool) -> Result<Repository, Refusal> {
    admit(
        shared,
        Kind::Forgejo,
        headers,
        &format!("{owner}/{repo}"),
        "contents",
        write,
    )
    .map(|(found, _)| found)
}

async fn repository(
    State(shared): State<Arc<Shared>>,
    Path((owner, repo)): Path<(String, String)>,
    headers: HeaderMap,
) -> Answer {
    let found = find(&shared, &headers, &owner, &repo, false)?;
    Ok(Json(shapes::repository(&mut shared.state(), &shared.url, &found)).into_response())
}

async fn repository_by_id(State(shared): State<Arc<Shared>>, Path(id): Path<i64>, headers: HeaderMap) -> Answer {
    let path = shared.state().repositories.get(&id).map(|r| r.path.clone());
    let path = path.ok_or_else(|| Refusal::new(404, "Not Found"))?;
    let (found, _) = admit(&shared, Kind::Forgejo, &headers, &path, "contents", false)?;
    Ok(Json(shapes::repository(&mut shared.state(), &shared.url, &found)).into_response())
}

async fn branch(
    State(shared): State<Arc<Shared>>,
    Path((owner, repo, name)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Answer {
    let found = find(&shared, &headers, &owner, &repo, false)?;
    let html = format!("{}/{}", shared.url, found.path);
    let reference = format!("refs/heads/{name}");
    let commit = blocking(move || match git::commit(&found.dir, &reference) {
        Some(sha) => git::describe(&found.dir, &sha, &html).map(Some),
        None => Ok(None),
    })
    .await?;
    let mut commit = commit.ok_or_else(|| Refusal::new(404, "The target couldn't be found."))?;
    for (key, value) in [
        ("verification", Value::Null),
        ("added", json!([])),
        ("removed", json!([])),
        ("modified", json!([])),
    ] {
        commit[key] = value;
    }
    commit.as_object_mut().map(|c| c.remove("verification"));
    Ok(Json(json!({
        "name": name, "commit": commit, "protected": false, "required_approvals": 0,
        "enable_status_check": false, "status_check_contexts": [], "user_can_push": true, "user_can_merge": true,
        "effective_branch_protection_name": "",
    }))
    .into_response())
}

/// Every ref that begins with the asked name, in a list also when there is one.
async fn refs(
    State(shared): State<Arc<Shared>>,
    Path((owner, repo, name)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Answer {
    let found = find(&shared, &headers, &owner, &repo, false)?;
    let dir = found.dir.clone();
    let all = blocking(move || git::refs(&dir)).await?;
    let asked = format!("refs/{name}");
    let api = format!("{}/api/v1/repos/{}/git", shared.url, found.path);
    let matching: Vec<Value> = all
        .iter()
        .filter(|(name, _)| name.starts_with(&asked))
        .map(|(name, sha)| {
            let object = json!({"sha": sha, "type": "commit", "url": format!("{api}/commits/{sha}")});
            json!({"ref": name, "url": format!("{api}/{name}"), "object": object})
        })
        .collect();
    if matching.is_empty() {
        return Err(Refusal::new(404, "The target couldn't be found."));
    }
    Ok(Json(matching).into_response())
}

async fn create_status(
    State(shared): State<Arc<Shared>>,
    Path((owner, repo, sha)): Path<(String, String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let found = find(&shared, &headers, &owner, &repo, true)?;
    let body: Value = serde_json::from_slice(&body).map_err(|e| Refusal::new(422, format!("[]: {e}")))?;
    let text = |key: &str| body[key].as_str().unwrap_or_default().trim().to_owned();
    let state = text("state");
    if !STATES.contains(&state.as_str()) {
        return Err(Refusal::new(
            422,
            format!("[State]: `{state}` is not one of {STATES:?}"),
        ));
    }
    let dir = found.dir.clone();
    let asked = sha.clone();
    let full = blocking(move || Ok(git::commit(&dir, &asked))).await?;
    let full = full.ok_or_else(|| Refusal::new(404, format!("object does not exist [id: {sha}]")))?;
    let context = text("context");
    let received = Received {
        at_ms: now_ms(),
        repository: found.id,
        sha: full,
        context: if context.is_empty() {
            "default".to_owned()
        } else {
            context
        },
        id: 0,
        state,
        conclusion: None,
        description: text("description"),
        target_url: Some(text("target_url")).filter(|u| !u.is_empty()),
        external_id: None,
    };
    let stored = shared.change(|state| {
        let id = state.number();
        let received = Received { id, ..received };
        state.history.push(received.clone());
        received
    });
    Ok((StatusCode::CREATED, Json(status(&shared, &found, &stored))).into_response())
}

fn status(shared: &Shared, repository: &Repository, received: &Received) -> Value {
    let at = rfc3339(received.at_ms);
    json!({
        "id": received.id, "status": received.state, "context": received.context, "description": received.description,
        "target_url": received.target_url.as_deref().unwrap_or_default(), "created_at": at, "updated_at": at,
        "url": format!("{}/api/v1/repos/{}/statuses/{}", shared.url, repository.path, received.sha),
    })
}

/// All statuses of a commit, newest first, by pages.
async fn statuses(
    State(shared): State<Arc<Shared>>,
    Path((owner, repo, sha)): Path<(String, String, String)>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Answer {
    let found = find(&shared, &headers, &owner, &repo, false)?;
    let of_commit = received_for(&shared, &found, &sha).await?;
    let number = |key: &str, default: usize| query.get(key).and_then(|v| v.parse().ok()).unwrap_or(default);
    let limit = number("limit", 30).clamp(1, 50);
    let total = of_commit.len();
    let page: Vec<Value> = of_commit
        .iter()
        .rev()
        .skip((number("page", 1).max(1) - 1) * limit)
        .take(limit)
        .map(|r| status(&shared, &found, r))
        .collect();
    Ok(([("x-total-count", total.to_string())], Json(page)).into_response())
}

/// What counts for a commit: the newest status of each context, and the worst of those.
async fn combined(
    State(shared): State<Arc<Shared>>,
    Path((owner, repo, sha)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Answer {
    let found = find(&shared, &headers, &owner, &repo, false)?;
    let mut newest: Vec<Received> = Vec::new();
    for received in received_for(&shared, &found, &sha).await?.into_iter().rev() {
        if newest.iter().all(|n| n.context != received.context) {
            newest.push(received);
        }
    }
    let rank = |state: &str| {
        ["success", "skipped", "warning", "pending", "failure", "error"]
            .iter()
            .position(|s| *s == state)
    };
    let worst = newest
        .iter()
        .map(|r| r.state.as_str())
        .max_by_key(|state| rank(state))
        .unwrap_or("pending");
    let statuses: Vec<Value> = newest.iter().map(|r| status(&shared, &found, r)).collect();
    let repository = shapes::repository(&mut shared.state(), &shared.url, &found);
    let api = format!("{}/api/v1/repos/{}/commits/{sha}", shared.url, found.path);
    Ok(Json(json!({
        "state": worst, "sha": sha, "total_count": statuses.len(), "statuses": statuses, "repository": repository,
        "commit_url": api, "url": format!("{api}/status"),
    }))
    .into_response())
}

/// What was received for a commit or ref, oldest first.
async fn received_for(shared: &Shared, repository: &Repository, name: &str) -> Result<Vec<Received>, Refusal> {
    let (dir, asked) = (repository.dir.clone(), name.to_owned());
    let full = blocking(move || Ok(git::commit(&dir, &asked))).await?;
    let full = full.ok_or_else(|| Refusal::new(404, "The target couldn't be found."))?;
    let state = shared.state();
    let wanted = |r: &&Received| r.repository == repository.id && r.sha == full;
    Ok(state.history.iter().filter(wanted).cloned().collect())
}
