//! Webhooks through the API, for those who administer the repository.

use std::{collections::HashMap, sync::Arc};

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
    api::Refusal,
    delivery::{Content, Hook, HookType, NewHook},
    hooks, pushes,
    state::Shared,
    time::rfc3339,
};

pub(super) async fn create(
    State(shared): State<Arc<Shared>>,
    Extension(found): Extension<Found>,
    body: Bytes,
) -> Answer {
    found.require(Access::Admin)?;
    let body: Value = serde_json::from_slice(&body).map_err(|e| Refusal::new(422, format!("[]: {e}")))?;
    let new = asked(&body).map_err(|why| Refusal::new(422, why))?;
    let hook = shared.change(|state| {
        let hook = Hook::new(state.number(), found.repository.id, new);
        state.hooks.insert(hook.id, hook.clone());
        hook
    });
    Ok((StatusCode::CREATED, Json(shape(&hook))).into_response())
}

/// What a body asks for: not active unless it says so, and sent pushes alone unless it names more.
fn asked(body: &Value) -> Result<NewHook, String> {
    let name = body["type"].as_str().unwrap_or_default();
    let kind = HookType::ALL.into_iter().find(|kind| kind.name() == name);
    let kind = kind.ok_or_else(|| format!("Invalid hook type: {name}"))?;
    let config = |key: &str| body["config"][key].as_str();
    let needed = |key: &str| config(key).ok_or_else(|| format!("Missing config option: {key}"));
    let url = needed("url")?.to_owned();
    let content = match needed("content_type")? {
        "json" => Content::Json,
        "form" => Content::Form,
        _ => return Err("Invalid content type".to_owned()),
    };
    if kind == HookType::Slack {
        needed("channel")?;
    }
    let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
    // One that were taken and not kept to would send what the real one does not.
    if !matches!(text("branch_filter").as_str(), "" | "*") {
        return Err("this local forge knows no branch filter but `*`".to_owned());
    }
    let events = body["events"].as_array().into_iter().flatten();
    let mut events: Vec<String> = events.filter_map(|e| e.as_str().map(str::to_owned)).collect();
    if events.is_empty() {
        events.push("push".to_owned());
    }
    Ok(NewHook {
        url,
        secret: config("secret").unwrap_or_default().to_owned(),
        kind,
        content,
        active: body["active"].as_bool().unwrap_or(false),
        events,
        authorization_header: text("authorization_header"),
    })
}

/// As answers show it: without its secret.
fn shape(hook: &Hook) -> Value {
    json!({
        "id": hook.id, "type": hook.kind.name(), "url": hook.url, "content_type": hook.content.name(),
        "config": {"url": hook.url, "content_type": hook.content.name()}, "events": hook.events,
        "active": hook.active, "branch_filter": "", "authorization_header": hook.authorization_header, "metadata": null,
        "created_at": rfc3339(0), "updated_at": rfc3339(0),
    })
}

pub(super) async fn list(State(shared): State<Arc<Shared>>, Extension(found): Extension<Found>) -> Answer {
    found.require(Access::Admin)?;
    let state = shared.state();
    let of_repository = |hook: &&Hook| hook.repository == found.repository.id;
    let all: Vec<Value> = state.hooks.values().filter(of_repository).map(shape).collect();
    Ok(Json(all).into_response())
}

fn find(shared: &Shared, found: &Found, id: i64) -> Result<Hook, Refusal> {
    found.require(Access::Admin)?;
    let hook = shared.state().hooks.get(&id).cloned();
    hook.filter(|hook| hook.repository == found.repository.id)
        .ok_or_else(not_found)
}

pub(super) async fn read(
    State(shared): State<Arc<Shared>>,
    Path((_, _, id)): Path<(String, String, i64)>,
    Extension(found): Extension<Found>,
) -> Answer {
    Ok(Json(shape(&find(&shared, &found, id)?)).into_response())
}

pub(super) async fn remove(
    State(shared): State<Arc<Shared>>,
    Path((_, _, id)): Path<(String, String, i64)>,
    Extension(found): Extension<Found>,
) -> Answer {
    let hook = find(&shared, &found, id)?;
    shared.change(|state| state.hooks.remove(&hook.id));
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Sends a push of the default branch that moves nothing; the query's `ref` is sent as it is written there.
pub(super) async fn test(
    State(shared): State<Arc<Shared>>,
    Path((_, _, id)): Path<(String, String, i64)>,
    Query(query): Query<HashMap<String, String>>,
    Extension(found): Extension<Found>,
) -> Answer {
    let hook = find(&shared, &found, id)?;
    let actor = found.require(Access::Admin)?;
    let name = query.get("ref").map(|name| name.trim()).filter(|name| !name.is_empty());
    let body = pushes::test_push(&shared, &found.repository, name, actor).await;
    let body = body.map_err(|_| Refusal::new(500, ""))?;
    if hook.active {
        hooks::send_to(&shared, &found.repository, &hook, ("push", "push"), &body);
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}
