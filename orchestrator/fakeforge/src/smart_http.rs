//! git over HTTP: who may, then `git http-backend`, then webhooks for whatever moved.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::Response,
};
use bytes::Bytes;

use crate::{
    access::Access,
    api::forgejo::redirect,
    auth::{Credential, Token},
    git, pushes,
    state::{ForgeState, Kind, Repository, Shared},
    time::now_ms,
};

/// `/{owner}/{name}.git/…`.
pub(crate) async fn serve(
    State(shared): State<Arc<Shared>>,
    Path((owner, name, rest)): Path<(String, String, String)>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let query = uri.query().unwrap_or_default();
    let push = rest == "git-receive-pack" || query.contains("service=git-receive-pack");
    let path = format!("{owner}/{}", name.strip_suffix(".git").unwrap_or(&name));
    if let Some(moved) = shared.state().moved(&path) {
        return redirect(&uri, &format!("{owner}/{name}"), &moved.path);
    }
    let credential = Credential::of(&headers);
    let (repository, token) = match admit(&shared, &path, &credential, push) {
        Ok(admitted) => admitted,
        Err(response) => return response,
    };
    // Held until the refs were compared, so that each push is told with its own moves.
    let may_move = rest == "git-receive-pack";
    let _turn = if may_move {
        Some(shared.pushing.lock().await)
    } else {
        None
    };
    let header = |name: &str| {
        headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    };
    let actor = token.map_or_else(|| "anonymous".to_owned(), |t| t.login());
    let env = vec![
        ("GIT_PROJECT_ROOT", repository.dir.display().to_string()),
        ("GIT_HTTP_EXPORT_ALL", "1".to_owned()),
        ("PATH_INFO", format!("/{rest}")),
        ("REQUEST_METHOD", method.as_str().to_owned()),
        ("QUERY_STRING", query.to_owned()),
        ("CONTENT_TYPE", header("content-type")),
        ("CONTENT_LENGTH", body.len().to_string()),
        ("HTTP_CONTENT_ENCODING", header("content-encoding")),
        ("GIT_PROTOCOL", header("git-protocol")),
        ("REMOTE_USER", actor.clone()),
        ("REMOTE_ADDR", "127.0.0.1".to_owned()),
    ];
    let dir = repository.dir.clone();
    let exchange = tokio::task::spawn_blocking(move || {
        let refs = || match may_move {
            true => git::refs(&dir),
            false => Ok(BTreeMap::new()),
        };
        let before = refs()?;
        let output = git::http_backend(&env, &body)?;
        Ok::<_, crate::Error>((git::moved(&before, &refs()?), output))
    });
    match exchange.await {
        Ok(Ok((moved, output))) => {
            if let Err(error) = pushes::notify(&shared, repository.id, &moved, &actor).await {
                return plain(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string());
            }
            cgi(&output)
        }
        Ok(Err(error)) => plain(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

type Admitted = (Repository, Option<Token>);

/// Both forges hide a private repository from those who may not read it, but first ask a nameless
/// caller for a name.
#[expect(clippy::result_large_err, reason = "the error is the answer itself")]
fn admit(shared: &Shared, path: &str, credential: &Credential, push: bool) -> Result<Admitted, Response> {
    let state = shared.state();
    let found = state.repository(path).cloned();
    match found {
        Some(found) if found.kind == Kind::Github => admit_to_github(&state, found, credential, push),
        found => admit_to_forgejo(&state, found, credential, push),
    }
}

#[expect(clippy::result_large_err, reason = "the error is the answer itself")]
fn admit_to_github(
    state: &ForgeState,
    found: Repository,
    credential: &Credential,
    push: bool,
) -> Result<Admitted, Response> {
    let Some(token) = credential.token(state, Kind::Github, now_ms()) else {
        return match credential {
            Credential::None if !push && !found.private => Ok((found, None)),
            _ => Err(ask()),
        };
    };
    if found.private && !(token.covers(&found) && token.may("contents", false)) {
        return Err(not_found());
    }
    if push && !(token.covers(&found) && token.may("contents", true)) {
        return Err(forbidden());
    }
    Ok((found, Some(token)))
}

/// Scopes are asked before it is said whether there is such a repository. Who may only read
/// is refused before anything is sent.
#[expect(clippy::result_large_err, reason = "the error is the answer itself")]
fn admit_to_forgejo(
    state: &ForgeState,
    found: Option<Repository>,
    credential: &Credential,
    push: bool,
) -> Result<Admitted, Response> {
    let token = credential.token(state, Kind::Forgejo, now_ms());
    if token.is_none() && *credential != Credential::None {
        return Err(ask());
    }
    if push && found.as_ref().is_some_and(|r| r.archived) {
        return Err(forbidden());
    }
    if let Some(found) = found.as_ref().filter(|r| !r.private && !push) {
        return Ok((found.clone(), token));
    }
    let token = token.ok_or_else(ask)?;
    let private = found.as_ref().is_some_and(|r| r.private);
    let scoped = token
        .scopes()
        .is_none_or(|scopes| scopes.have("repository", push) && !(private && scopes.public_only()));
    if !scoped {
        return Err(forbidden());
    }
    let found = found.ok_or_else(not_found)?;
    match state.access(&found, Some(&token.login())) {
        None => Err(not_found()),
        Some(Access::Read) if push => Err(forbidden()),
        Some(_) => Ok((found, Some(token))),
    }
}

fn not_found() -> Response {
    plain(StatusCode::NOT_FOUND, "Repository not found")
}

fn forbidden() -> Response {
    plain(StatusCode::FORBIDDEN, "Forbidden")
}

fn ask() -> Response {
    let mut response = plain(StatusCode::UNAUTHORIZED, "Authentication required");
    let challenge = header::HeaderValue::from_static("Basic realm=\"fakeforge\"");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response
}

fn plain(status: StatusCode, text: &str) -> Response {
    let mut response = Response::new(Body::from(format!("{text}\n")));
    *response.status_mut() = status;
    response
}

/// Turns a CGI program's output into a response: header lines, an empty line, the body.
fn cgi(output: &[u8]) -> Response {
    let mut response = Response::new(Body::empty());
    let mut rest = output;
    while let Some(end) = rest.iter().position(|b| *b == b'\n') {
        let line = String::from_utf8_lossy(&rest[..end]).trim_end().to_owned();
        rest = &rest[end + 1..];
        if line.is_empty() {
            break;
        }
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        let value = value.trim();
        if name.eq_ignore_ascii_case("status") {
            let code = value.split(' ').next().and_then(|code| code.parse().ok());
            *response.status_mut() = code.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        } else if let (Ok(name), Ok(value)) = (
            header::HeaderName::from_bytes(name.as_bytes()),
            header::HeaderValue::from_str(value),
        ) {
            response.headers_mut().append(name, value);
        }
    }
    *response.body_mut() = Body::from(rest.to_vec());
    response
}
