//! Login with a token or with the code of a login link, and logout. The session's id is made new at every login.
//!
//! A login link carries its code behind `#`, which browsers send to nobody: no log and no proxy sees it, and opening the
//! link changes nothing. The page's script puts it into the form; without a script the person does.

use std::time::Instant;

use askama::Template;
use axum::{
    extract::{Form, Query, State},
    http::{HeaderMap, HeaderValue, header},
    response::{Html, IntoResponse, Redirect, Response},
};
use serde::Deserialize;
use subtle::ConstantTimeEq;

use super::{
    AppState,
    authorize::Identity,
    identity::{Caller, check_origin, cookie, identity_of, random_hex, redeem, token_hash},
};
use crate::{
    digest::{sha256, sha256_hex},
    store::{StoreError, TokenRow},
    web::{
        http::problem::{self, Problem},
        pages::assets::Assets,
    },
};

/// The longest life of a session's cookie, in seconds; the store ends sessions by itself as well.
const COOKIE_AGE_S: u32 = 7 * 24 * 3600;

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage<'a> {
    assets: &'a Assets,
    user: Option<&'a str>,
    csrf: String,
    return_to: &'a str,
    refused: bool,
}

/// `?return_to=` of the login page.
#[derive(Debug, Deserialize)]
pub struct LoginQuery {
    return_to: Option<String>,
}

/// The login form.
#[derive(Deserialize)]
pub struct LoginForm {
    token: String,
    csrf: String,
    return_to: Option<String>,
}

/// The form behind the logout button.
#[derive(Debug, Deserialize)]
pub struct LogoutForm {
    csrf: String,
}

/// A path on this site, or `/`: never another host, scheme or a header.
#[must_use]
pub fn local_path(wanted: Option<&str>) -> &str {
    match wanted {
        Some(path)
            if path.starts_with('/')
                && !path.starts_with("//")
                && path.len() <= 512
                && path.bytes().all(|b| (0x21..0x7f).contains(&b) && b != b'\\') =>
        {
            path
        }
        _ => "/",
    }
}

fn set_cookie(state: &AppState, name: &str, value: &str, age_s: u32) -> Option<HeaderValue> {
    let secure = if state.secure() { "; Secure" } else { "" };
    HeaderValue::from_str(&format!(
        "{name}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={age_s}{secure}"
    ))
    .ok()
}

/// What the login form carries: derived from a cookie that only this browser has.
fn login_csrf(cookie: &str) -> String {
    sha256_hex(format!("helios-ci login form {cookie}"))
}

fn login_page(state: &AppState, caller: &Caller, return_to: &str, refused: bool) -> Result<Response, Problem> {
    if !state.secure() && !state.loopback() {
        return Err(Problem::forbidden(
            "Logging in needs HTTPS, or a listener on a loopback address. Configure `tls`, or a `public_url` that begins with https://.",
        ));
    }
    let seed = random_hex();
    let page = LoginPage {
        assets: state.assets(),
        user: caller.name(),
        csrf: login_csrf(&seed),
        return_to,
        refused,
    };
    let text = page
        .render()
        .map_err(|e| Problem::internal("writing the login page", e))?;
    let status = if refused {
        http::StatusCode::UNAUTHORIZED
    } else {
        http::StatusCode::OK
    };
    let mut response = (status, Html(text)).into_response();
    let headers = response.headers_mut();
    if let Some(value) = set_cookie(state, state.login_cookie(), &seed, 3600) {
        headers.append(header::SET_COOKIE, value);
    }
    if refused {
        headers.insert(header::WWW_AUTHENTICATE, problem::CHALLENGE);
    }
    Ok(response)
}

/// `GET /login`
pub async fn form(
    State(state): State<AppState>,
    caller: Caller,
    Query(query): Query<LoginQuery>,
) -> Result<Response, Problem> {
    login_page(&state, &caller, local_path(query.return_to.as_deref()), false)
}

/// Whom a token or a code proves, and what the audit log calls the login. A code is used up by this.
async fn proved(
    state: &AppState,
    shown: Option<[u8; 32]>,
) -> Result<Option<(TokenRow, Identity, &'static str)>, StoreError> {
    let Some(hash) = shown else { return Ok(None) };
    let Some(token) = state.store().find_token(&hash).await? else {
        return Ok(None);
    };
    if let Some(identity) = identity_of(&token) {
        return Ok(Some((token, identity, "login")));
    }
    let token = redeem(state, hash).await?;
    Ok(token.and_then(|token| identity_of(&token).map(|identity| (token, identity, "login.link"))))
}

/// `POST /login`
pub async fn login(
    State(state): State<AppState>,
    mut caller: Caller,
    headers: HeaderMap,
    Form(form): Form<LoginForm>,
) -> Result<Response, Problem> {
    check_origin(&state, &headers)?;
    let ours = cookie(&headers, state.login_cookie())
        .is_some_and(|seed| bool::from(login_csrf(seed).as_bytes().ct_eq(form.csrf.as_bytes())));
    if !ours {
        return Err(Problem::forbidden(
            "The login form is stale. Open it again; cookies must be allowed for this site.",
        ));
    }
    state.logins().count(caller.address, Instant::now()).map_err(|wait| {
        Problem::too_many(
            "Too many attempts to log in from your address. Wait before the next one.",
            wait.as_secs() + 1,
        )
    })?;
    let return_to = local_path(form.return_to.as_deref());
    let failed = |e| Problem::internal("logging in", e);
    let shown = token_hash(form.token.trim());
    let Some((token, identity, action)) = proved(&state, shown).await.map_err(failed)? else {
        tracing::warn!(address = %caller.address, request = caller.request_id, "a login was refused");
        return login_page(&state, &caller, return_to, true);
    };
    let old = caller.session.take();
    caller.identity = identity;
    caller.audit(&state, action, &token.id.to_string()).await?;
    if let Some(old) = old {
        state.store().end_session(&old.hash).await.map_err(failed)?;
    }
    let id = random_hex();
    state
        .store()
        .create_session(&sha256(id.as_bytes()), token.id, &random_hex())
        .await
        .map_err(failed)?;
    state.logins().forget(caller.address);
    let mut response = Redirect::to(return_to).into_response();
    let cookies = [
        (state.session_cookie(), id.as_str(), COOKIE_AGE_S),
        (state.login_cookie(), "", 0),
    ];
    for (name, value, age) in cookies {
        if let Some(value) = set_cookie(&state, name, value, age) {
            response.headers_mut().append(header::SET_COOKIE, value);
        }
    }
    Ok(response)
}

/// `POST /logout`
pub async fn logout(
    State(state): State<AppState>,
    caller: Caller,
    headers: HeaderMap,
    Form(form): Form<LogoutForm>,
) -> Result<Response, Problem> {
    check_origin(&state, &headers)?;
    if let Some(session) = &caller.session {
        caller.check_csrf(&form.csrf)?;
        caller.audit(&state, "logout", "session").await?;
        state
            .store()
            .end_session(&session.hash)
            .await
            .map_err(|e| Problem::internal("logging out", e))?;
    }
    let mut response = Redirect::to("/").into_response();
    if let Some(value) = set_cookie(&state, state.session_cookie(), "", 0) {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_local_paths_are_returned_to() {
        assert_eq!(local_path(Some("/runs/1?x=y#z")), "/runs/1?x=y#z");
        for evil in [
            "//evil.example",
            "/\\evil.example",
            "https://evil.example",
            "javascript:alert(1)",
            "",
            "runs",
            "/a\r\nSet-Cookie: x",
            "/\t/evil.example",
        ] {
            assert_eq!(local_path(Some(evil)), "/", "{evil:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_wanted_stays_here(wanted in "\\PC{0,80}") {
            let path = local_path(Some(&wanted));
            prop_assert!(path.starts_with('/') && !path.starts_with("//") && !path.contains('\\'));
        }
    }
}
