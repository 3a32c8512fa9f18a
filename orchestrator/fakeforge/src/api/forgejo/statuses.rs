//! Commit statuses, which the real one stores as they come: any word is a state, and what fails after a status was
//! stored is answered 500 although it counts.

use std::{cmp::Reverse, collections::HashMap, sync::Arc};

use axum::{
    Extension, Json,
    extract::{Path, Query, State},
    http::StatusCode,
    response::IntoResponse,
};
use bytes::Bytes;
use serde_json::{Value, json};

use super::{Answer, Found, not_found};
use crate::{
    access::Access,
    api::{Refusal, record},
    git,
    hooks::blocking,
    shapes,
    state::{Kind, Received, Repository, Shared},
    time::{now_ms, rfc3339},
};

/// The states that every server ranks, worst first.
const RANKED: [&str; 5] = ["error", "failure", "warning", "pending", "success"];
/// On a page, unless the caller says.
const PAGE: usize = 30;
/// And at most.
const MAX_PAGE: usize = 50;

pub(super) async fn create(
    State(shared): State<Arc<Shared>>,
    Path((_, _, sha)): Path<(String, String, String)>,
    Extension(found): Extension<Found>,
    body: Bytes,
) -> Answer {
    let creator = found.require(Access::Write)?.to_owned();
    let body: Value = serde_json::from_slice(&body).map_err(|e| Refusal::new(422, format!("[]: {e}")))?;
    let mut texts = Vec::new();
    for key in ["state", "context", "description", "target_url"] {
        match &body[key] {
            Value::Null => texts.push(String::new()),
            Value::String(text) => texts.push(text.trim().to_owned()),
            other => return Err(Refusal::new(422, format!("[]: {key} is no text: {other}"))),
        }
    }
    let [state, context, description, target_url] = <[String; 4]>::try_from(texts).unwrap_or_default();
    // What the description forbids is known already, where there is one; `skipped` only newer servers rank.
    if !RANKED.contains(&state.as_str()) && (shared.schemas.is_none() || state == "skipped") {
        let problem = format!("/state: `{state}` is not one of {RANKED:?}");
        record(&shared, "POST /api/v1/repos/{owner}/{repo}/statuses/{sha}", &problem);
    }
    let (dir, default) = (
        found.repository.dir.clone(),
        format!("refs/heads/{}", found.repository.default_branch),
    );
    let (commit, has_default) =
        blocking(move || Ok((git::commit(&dir, &sha), git::commit(&dir, &default).is_some()))).await?;
    // Those who do not administer the site are not told why.
    let failed = || Refusal::new(500, "");
    let received = Received {
        at_ms: now_ms(),
        repository: found.repository.id,
        creator,
        sha: commit.ok_or_else(failed)?,
        context,
        id: 0,
        state,
        conclusion: None,
        description,
        target_url: Some(target_url).filter(|url| !url.is_empty()),
        external_id: None,
    };
    let stored = shared.change(|state| {
        let id = state.number();
        let received = Received { id, ..received };
        state.history.push(received.clone());
        received
    });
    // Seen of a repository that was only pushed a tag: the status counts, and the answer is 500.
    if !has_default {
        return Err(failed());
    }
    Ok((StatusCode::CREATED, Json(shape(&shared, &found.repository, &stored))).into_response())
}

fn shape(shared: &Shared, repository: &Repository, received: &Received) -> Value {
    let at = rfc3339(received.at_ms);
    json!({
        "id": received.id, "status": received.state, "context": received.context, "description": received.description,
        "target_url": received.target_url.as_deref().unwrap_or_default(), "created_at": at, "updated_at": at,
        "url": format!("{}/api/v1/repos/{}/statuses/{}", shared.url, repository.path, received.sha),
        "creator": shapes::user(&mut shared.state(), Kind::Forgejo, &shared.url, &received.creator),
    })
}

/// A positive number of the query.
fn number(query: &HashMap<String, String>, key: &str) -> Option<usize> {
    query.get(key).and_then(|v| v.parse().ok()).filter(|n| *n > 0)
}

fn limit(query: &HashMap<String, String>) -> usize {
    number(query, "limit").unwrap_or(PAGE).min(MAX_PAGE)
}

/// All statuses of a commit, which need not exist.
pub(super) async fn of_commit(
    State(shared): State<Arc<Shared>>,
    Path((_, _, sha)): Path<(String, String, String)>,
    Query(query): Query<HashMap<String, String>>,
    Extension(found): Extension<Found>,
) -> Answer {
    list(&shared, &found.repository, &sha, &query).await
}

/// All statuses of what a branch, a tag or a commit's id names.
pub(super) async fn of_name(
    State(shared): State<Arc<Shared>>,
    Path((_, _, name)): Path<(String, String, String)>,
    Query(query): Query<HashMap<String, String>>,
    Extension(found): Extension<Found>,
) -> Answer {
    list(&shared, &found.repository, &name, &query).await
}

/// Those of the newest second first; within one second in no order that a caller may rely on, here the oldest first. By
/// pages only for those who name one, otherwise all of them.
async fn list(shared: &Shared, repository: &Repository, name: &str, query: &HashMap<String, String>) -> Answer {
    let mut all = received_for(shared, repository, name).await?;
    all.sort_by_key(|r| Reverse(r.at_ms.div_euclid(1000)));
    let total = all.len();
    let (skip, take) = match number(query, "page") {
        Some(page) => ((page - 1) * limit(query), limit(query)),
        None => (0, total),
    };
    let page: Vec<Value> = all
        .iter()
        .skip(skip)
        .take(take)
        .map(|r| shape(shared, repository, r))
        .collect();
    Ok(([("x-total-count", total.to_string())], Json(page)).into_response())
}

/// The worst of the newest statuses of each context, as far as one page of them goes.
pub(super) async fn combined(
    State(shared): State<Arc<Shared>>,
    Path((_, _, name)): Path<(String, String, String)>,
    Query(query): Query<HashMap<String, String>>,
    Extension(found): Extension<Found>,
) -> Answer {
    let found = &found.repository;
    let Ok(all) = received_for(&shared, found, &name).await else {
        return Ok(Json(nothing()).into_response());
    };
    let newest = newest_of_each_context(all);
    let total = newest.len();
    let skip = (number(&query, "page").unwrap_or(1) - 1) * limit(&query);
    let mut page: Vec<&Received> = newest.iter().skip(skip).take(limit(&query)).collect();
    page.sort_by_key(|received| received.id);
    let Some(first) = page.first() else {
        return Ok(Json(nothing()).into_response());
    };
    let rank = |state: &str| RANKED.iter().position(|s| *s == state);
    // A word that has no rank is neither worse nor better: it stays where it is first, and is passed over elsewhere.
    let worst = page.iter().map(|r| r.state.as_str()).reduce(|worst, state| {
        match rank(state)
            .zip(rank(worst))
            .is_some_and(|(state, worst)| state <= worst)
        {
            true => state,
            false => worst,
        }
    });
    let statuses: Vec<Value> = page.iter().map(|r| shape(&shared, found, r)).collect();
    let repository = shapes::repository(&mut shared.state(), &shared.url, found);
    let api = format!("{}/api/v1/repos/{}/commits/{name}", shared.url, found.path);
    let shape = json!({
        "state": worst.unwrap_or_default(), "sha": first.sha, "total_count": statuses.len(),
        "statuses": statuses, "repository": repository, "commit_url": api, "url": format!("{api}/status"),
    });
    Ok(([("x-total-count", total.to_string())], Json(shape)).into_response())
}

/// The newest status of each context, newest first, of those that came in this order.
pub(super) fn newest_of_each_context(all: Vec<Received>) -> Vec<Received> {
    let mut newest: Vec<Received> = Vec::new();
    for received in all.into_iter().rev() {
        if newest.iter().all(|n| n.context != received.context) {
            newest.push(received);
        }
    }
    newest
}

/// The combined state of what has no status, or is not there.
fn nothing() -> Value {
    json!({
        "state": "", "sha": "", "total_count": 0, "statuses": null, "repository": null, "commit_url": "", "url": "",
    })
}

/// What was received for a commit or ref, oldest first. A whole commit's id needs no commit.
async fn received_for(shared: &Shared, repository: &Repository, name: &str) -> Result<Vec<Received>, Refusal> {
    let full = match name.len() == 40 && name.bytes().all(|b| b.is_ascii_hexdigit()) {
        true => name.to_owned(),
        false => {
            let (dir, asked) = (repository.dir.clone(), name.to_owned());
            blocking(move || Ok(git::commit(&dir, &asked)))
                .await?
                .ok_or_else(not_found)?
        }
    };
    let state = shared.state();
    let wanted = |r: &&Received| r.repository == repository.id && r.sha == full;
    Ok(state.history.iter().filter(wanted).cloned().collect())
}
