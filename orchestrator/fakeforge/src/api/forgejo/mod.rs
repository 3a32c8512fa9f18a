//! Forgejo's API, below `/api/v1`: who calls, and whether that is allowed, is decided before any route is asked, in the
//! order of the real one: the token, its scopes, the way to a repository that moved, the user's right, `public-only`.

mod collaborators;
mod hooks;
mod merging;
mod refs;
mod statuses;

use std::sync::Arc;

use axum::{
    Extension, Json, Router,
    extract::{OriginalUri, Path, Request, State},
    http::{HeaderValue, Method, StatusCode, Uri, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};

use super::Refusal;
use crate::{
    access::Access,
    auth::{Credential, Token},
    shapes,
    state::{Kind, Repository, Shared},
    time::now_ms,
};

type Answer = Result<Response, Refusal>;

pub(super) fn router(shared: Arc<Shared>) -> Router<Arc<Shared>> {
    Router::new()
        .route("/version", get(version))
        .route("/user", get(user))
        .route("/repositories/{id}", get(repository_by_id))
        .route("/repos/{owner}/{repo}", get(repository))
        .route("/repos/{owner}/{repo}/branches/{*branch}", get(refs::branch))
        .route("/repos/{owner}/{repo}/git/refs/{*name}", get(refs::list))
        .route("/repos/{owner}/{repo}/git/commits/{sha}", get(refs::commit))
        .route(
            "/repos/{owner}/{repo}/statuses/{sha}",
            post(statuses::create).get(statuses::of_commit),
        )
        .route("/repos/{owner}/{repo}/commits/{sha}/statuses", get(statuses::of_name))
        .route("/repos/{owner}/{repo}/commits/{sha}/status", get(statuses::combined))
        .route("/repos/{owner}/{repo}/hooks", post(hooks::create).get(hooks::list))
        .route(
            "/repos/{owner}/{repo}/hooks/{id}",
            get(hooks::read).delete(hooks::remove),
        )
        .route("/repos/{owner}/{repo}/hooks/{id}/tests", post(hooks::test))
        .route(
            "/repos/{owner}/{repo}/collaborators/{user}/permission",
            get(collaborators::permission),
        )
        .route("/repos/{owner}/{repo}/branch_protections", post(merging::protect))
        .route("/repos/{owner}/{repo}/pulls/{number}/merge", post(merging::merge))
        .fallback(|| async { not_found() })
        .layer(middleware::from_fn_with_state(shared, gate))
}

fn not_found() -> Refusal {
    Refusal::new(404, "The target couldn't be found.")
}

/// Who calls: the login behind the token, if there is one.
#[derive(Clone)]
struct Caller(Option<Token>);

impl Caller {
    fn login(&self) -> Option<String> {
        self.0.as_ref().map(Token::login)
    }
}

/// The repository a route is about, and what the caller may there.
#[derive(Clone)]
struct Found {
    repository: Repository,
    access: Access,
    /// Whoever calls; `None` without a token.
    login: Option<String>,
}

impl Found {
    /// Refuses those who may less than this; those without a token are asked for one.
    fn require(&self, least: Access) -> Result<&str, Refusal> {
        let login = self.login.as_deref().ok_or_else(token_required)?;
        match least {
            least if self.access >= least => Ok(login),
            Access::Admin => Err(Refusal::new(
                403,
                "user should be an owner or a collaborator with admin write of a repository",
            )),
            _ => Err(Refusal::new(403, "user should have a permission to write to a repo")),
        }
    }
}

fn token_required() -> Refusal {
    Refusal::new(401, "token is required")
}

async fn gate(
    State(shared): State<Arc<Shared>>,
    OriginalUri(uri): OriginalUri,
    mut request: Request,
    next: Next,
) -> Response {
    let passed = {
        let credential = Credential::of(request.headers());
        pass(&shared, &credential, request.method(), &uri)
    };
    match passed {
        Err(answer) => *answer,
        Ok((caller, found)) => {
            request.extensions_mut().insert(caller);
            if let Some(found) = found {
                request.extensions_mut().insert(found);
            }
            next.run(request).await
        }
    }
}

/// Who calls, and the repository of the path, if it is about one.
fn pass(
    shared: &Shared,
    credential: &Credential,
    method: &Method,
    uri: &Uri,
) -> Result<(Caller, Option<Found>), Box<Response>> {
    let refuse = |refusal: Refusal| Box::new(refusal.into_response());
    let state = shared.state();
    let token = credential.token(&state, Kind::Forgejo, now_ms());
    if token.is_none() && *credential != Credential::None {
        // On every route, also on those that need no token.
        return Err(refuse(Refusal::new(401, "user does not exist [uid: 0, name: ]")));
    }
    let path = uri.path().strip_prefix("/api/v1/").unwrap_or_default();
    let mut parts = path.split('/');
    let (group, owner, name) = (parts.next(), parts.next(), parts.next());
    let category = match group {
        Some("user") => Some("user"),
        Some("repos" | "repositories") => Some("repository"),
        _ => None,
    };
    let scopes = token.as_ref().and_then(Token::scopes).zip(category);
    if let Some((scopes, category)) = scopes {
        let write = !matches!(*method, Method::GET | Method::HEAD);
        if !scopes.have(category, write) {
            let level = if write { "write" } else { "read" };
            return Err(refuse(Refusal::new(
                403,
                format!("token does not have at least one of required scope(s): [{level}:{category}]"),
            )));
        }
    }
    let caller = Caller(token.clone());
    let (Some("repos"), Some(owner), Some(name)) = (group, owner, name) else {
        return Ok((caller, None));
    };
    let asked = format!("{owner}/{name}");
    if let Some(moved) = state.moved(&asked) {
        return Err(Box::new(redirect(uri, &asked, &moved.path)));
    }
    let repository = state.repository(&asked).filter(|r| r.kind == Kind::Forgejo).cloned();
    let login = caller.login();
    let access = repository.as_ref().and_then(|r| state.access(r, login.as_deref()));
    let (Some(repository), Some(access)) = (repository, access) else {
        return Err(refuse(not_found()));
    };
    if repository.private && scopes.is_some_and(|(scopes, _)| scopes.public_only()) {
        return Err(refuse(Refusal::new(403, "token scope is limited to public repos")));
    }
    let found = Found {
        repository,
        access,
        login,
    };
    Ok((caller, Some(found)))
}

/// Sends a caller from where a repository has been to where it is, whatever the method.
pub(crate) fn redirect(uri: &Uri, old: &str, new: &str) -> Response {
    let mut location = uri.path().replacen(old, new, 1);
    if let Some(query) = uri.query() {
        location = format!("{location}?{query}");
    }
    let mut response = StatusCode::TEMPORARY_REDIRECT.into_response();
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

async fn version() -> Json<Value> {
    Json(json!({"version": "10.0.0-dev+gitea-1.22.0"}))
}

async fn user(State(shared): State<Arc<Shared>>, Extension(caller): Extension<Caller>) -> Answer {
    let login = caller.login().ok_or_else(token_required)?;
    Ok(Json(shapes::user(&mut shared.state(), Kind::Forgejo, &shared.url, &login)).into_response())
}

async fn repository(State(shared): State<Arc<Shared>>, Extension(found): Extension<Found>) -> Answer {
    let (repository, access) = (&found.repository, Some(found.access));
    let shape = shapes::repository_for(&mut shared.state(), &shared.url, repository, access);
    Ok(Json(shape).into_response())
}

/// By its number; `public-only` is not looked at here.
async fn repository_by_id(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<i64>,
    Extension(caller): Extension<Caller>,
) -> Answer {
    let mut state = shared.state();
    let found = state.repositories.get(&id).filter(|r| r.kind == Kind::Forgejo).cloned();
    let found = found.ok_or_else(not_found)?;
    let access = state.access(&found, caller.login().as_deref());
    let access = access.ok_or_else(not_found)?;
    Ok(Json(shapes::repository_for(&mut state, &shared.url, &found, Some(access))).into_response())
}
