//! GitHub's API, below `/api/v3`: the App, its installations' tokens, repositories and refs.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use bytes::Bytes;
use serde_json::{Value, json};

use super::{Refusal, admit, checks};
use crate::{
    auth::{Credential, Grant, Token, new_secret},
    git,
    hooks::blocking,
    shapes,
    state::{Kind, Repository, Shared},
    time::{now_ms, rfc3339},
};

type Answer = Result<Response, Refusal>;

pub(super) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/app", get(app))
        .route("/app/installations/{id}/access_tokens", post(access_token))
        .route("/installation/token", delete(revoke))
        .route("/repositories/{id}", get(repository_by_id))
        .route("/repos/{owner}/{repo}", get(repository))
        .route("/repos/{owner}/{repo}/installation", get(installation))
        .route("/repos/{owner}/{repo}/git/ref/{*name}", get(reference))
        .route("/repos/{owner}/{repo}/check-runs", post(checks::create))
        .route(
            "/repos/{owner}/{repo}/check-runs/{id}",
            get(checks::read).patch(checks::update),
        )
        .route("/repos/{owner}/{repo}/commits/{sha}/check-runs", get(checks::list))
        .fallback(|| async { Refusal::new(404, "Not Found") })
}

/// The caller must be the App itself.
fn as_app(shared: &Shared, headers: &HeaderMap) -> Result<(), Refusal> {
    match Credential::of(headers) {
        Credential::Jwt(jwt) => shared.app.verify(&jwt, now_ms()).map_err(|why| Refusal::new(401, why)),
        Credential::None => Err(Refusal::new(401, "Requires authentication")),
        _ => Err(Refusal::new(401, "A JSON web token could not be decoded")),
    }
}

/// The App as every answer shows it.
pub(super) fn app_shape(shared: &Shared) -> Value {
    let owner = shapes::user(&mut shared.state(), Kind::Github, &shared.url, "helios-ci-owner");
    let permissions = shared.state().permissions.clone();
    json!({
        "id": shared.app.id, "slug": "helios-ci-fake", "node_id": format!("A_{}", shared.app.id), "owner": owner,
        "name": "helios-ci", "description": null, "external_url": shared.url, "html_url": format!("{}/apps/helios-ci", shared.url),
        "created_at": rfc3339(0), "updated_at": rfc3339(0), "permissions": permissions,
        "events": ["push", "pull_request", "check_run"],
    })
}

async fn app(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Answer {
    as_app(&shared, &headers)?;
    Ok(Json(app_shape(&shared)).into_response())
}

async fn installation(
    State(shared): State<Arc<Shared>>,
    Path((owner, repo)): Path<(String, String)>,
    headers: HeaderMap,
) -> Answer {
    as_app(&shared, &headers)?;
    let found = shared.state().repository(&format!("{owner}/{repo}")).cloned();
    let id = found.filter(|r| r.kind == Kind::Github).and_then(|r| r.installation);
    let id = id.ok_or_else(|| Refusal::new(404, "Not Found"))?;
    let account = shapes::user(&mut shared.state(), Kind::Github, &shared.url, &owner);
    let permissions = shared.state().permissions.clone();
    let api = format!("{}/api/v3", shared.url);
    Ok(Json(json!({
        "id": id, "app_id": shared.app.id, "app_slug": "helios-ci-fake", "target_id": account["id"], "target_type": "User",
        "account": account, "single_file_name": null, "repository_selection": "all", "permissions": permissions,
        "access_tokens_url": format!("{api}/app/installations/{id}/access_tokens"),
        "repositories_url": format!("{api}/installation/repositories"), "events": ["push", "pull_request", "check_run"],
        "html_url": format!("{}/settings/installations/{id}", shared.url), "created_at": rfc3339(0),
        "updated_at": rfc3339(0), "suspended_by": null, "suspended_at": null,
    }))
    .into_response())
}

async fn access_token(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<i64>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    as_app(&shared, &headers)?;
    let body: Value = if body.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&body).map_err(|_| Refusal::new(400, "Problems parsing JSON"))?
    };
    let covered: Vec<Repository> = {
        let state = shared.state();
        if !state.installations.values().any(|i| *i == id) {
            return Err(Refusal::new(404, "Not Found"));
        }
        state
            .repositories
            .values()
            .filter(|r| r.installation == Some(id))
            .cloned()
            .collect()
    };
    let asked = asked_repositories(&body, &covered)?;
    let permissions = asked_permissions(&body, &shared.state().permissions)?;
    let secret = new_secret("ghs_");
    let repositories = asked.as_ref().map(|all| all.iter().map(|r| r.id).collect());
    let expires_ms = shared.change(|state| {
        let lifetime = state.token_lifetime.unwrap_or(Duration::from_secs(3600));
        let expires_ms = now_ms() + i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX / 2);
        let grant = Grant::Installation {
            id,
            permissions: permissions.clone(),
            expires_ms,
        };
        state.tokens.push(Token {
            secret: secret.clone(),
            grant,
            repositories,
        });
        expires_ms
    });
    let mut answer = json!({
        "token": secret, "expires_at": rfc3339(expires_ms), "permissions": permissions,
        "repository_selection": if asked.is_some() { "selected" } else { "all" },
    });
    if let Some(asked) = asked {
        let mut state = shared.state();
        answer["repositories"] = asked
            .iter()
            .map(|r| shapes::repository(&mut state, &shared.url, r))
            .collect();
    }
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

fn asked_repositories(body: &Value, covered: &[Repository]) -> Result<Option<Vec<Repository>>, Refusal> {
    let (by_id, by_name) = (body["repository_ids"].as_array(), body["repositories"].as_array());
    if by_id.is_none() && by_name.is_none() {
        return Ok(None);
    }
    let missing = || {
        Refusal::new(
            422,
            "There is at least one repository that does not exist or is not accessible to the parent installation.",
        )
    };
    let mut asked = Vec::new();
    for id in by_id.into_iter().flatten() {
        let found = covered.iter().find(|r| id.as_i64() == Some(r.id));
        asked.push(found.ok_or_else(missing)?.clone());
    }
    for name in by_name.into_iter().flatten() {
        let found = covered.iter().find(|r| name.as_str() == Some(r.split().1));
        asked.push(found.ok_or_else(missing)?.clone());
    }
    Ok(Some(asked))
}

/// A token may have less than the installation, never more.
fn asked_permissions(body: &Value, granted: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Refusal> {
    let Some(asked) = body["permissions"].as_object() else {
        return Ok(granted.clone());
    };
    let rank = |level: &str| ["read", "write", "admin"].iter().position(|l| *l == level);
    let mut permissions = BTreeMap::from([("metadata".to_owned(), "read".to_owned())]);
    for (name, level) in asked {
        let level = level.as_str().unwrap_or_default();
        let has = granted.get(name).and_then(|l| rank(l));
        if rank(level).is_none() || rank(level) > has {
            return Err(Refusal::new(
                422,
                "The permissions requested are not granted to this installation.",
            ));
        }
        permissions.insert(name.clone(), level.to_owned());
    }
    Ok(permissions)
}

async fn revoke(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Answer {
    let token = Credential::of(&headers).token(&shared.state(), Kind::Github, now_ms());
    let token = token.ok_or_else(|| Refusal::new(401, "Bad credentials"))?;
    shared.change(|state| state.tokens.retain(|t| t.secret != token.secret));
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn repository(
    State(shared): State<Arc<Shared>>,
    Path((owner, repo)): Path<(String, String)>,
    headers: HeaderMap,
) -> Answer {
    let (found, _) = admit(&shared, &headers, &format!("{owner}/{repo}"), "metadata", false)?;
    Ok(Json(shapes::repository(&mut shared.state(), &shared.url, &found)).into_response())
}

async fn repository_by_id(State(shared): State<Arc<Shared>>, Path(id): Path<i64>, headers: HeaderMap) -> Answer {
    let path = shared.state().repositories.get(&id).map(|r| r.path.clone());
    let path = path.ok_or_else(|| Refusal::new(404, "Not Found"))?;
    let (found, _) = admit(&shared, &headers, &path, "metadata", false)?;
    Ok(Json(shapes::repository(&mut shared.state(), &shared.url, &found)).into_response())
}

async fn reference(
    State(shared): State<Arc<Shared>>,
    Path((owner, repo, name)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Answer {
    let (found, _) = admit(&shared, &headers, &format!("{owner}/{repo}"), "contents", false)?;
    let dir = found.dir.clone();
    let all = blocking(move || git::refs(&dir)).await?;
    let name = format!("refs/{name}");
    let sha = all.get(&name).ok_or_else(|| Refusal::new(404, "Not Found"))?;
    let api = format!("{}/api/v3/repos/{}/git", shared.url, found.path);
    Ok(Json(json!({
        "ref": name, "node_id": format!("REF_{}", found.id), "url": format!("{api}/{name}"),
        "object": {"sha": sha, "type": "commit", "url": format!("{api}/commits/{sha}")},
    }))
    .into_response())
}
