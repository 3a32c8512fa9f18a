//! Login links: a code opens one session, by a form of ours, within its time, and is nothing else.

use axum::http::{Method, StatusCode};

use super::fixture::{Answer, FORM, ORIGIN, Site, between, set_cookie};
use crate::{
    clock::now_ms,
    model::ids::TokenId,
    secret::Secret,
    store::NewToken,
    web::identity::{LOGIN_SCOPE, new_token, token_hash},
};

/// A code that ends in so many milliseconds, and its row.
async fn code(site: &Site, ends_in_ms: i64) -> (Secret, TokenId) {
    let code = new_token();
    let new = NewToken {
        name: "login link".into(),
        hash: token_hash(code.expose()).unwrap(),
        owner: "ada".into(),
        expires_ms: now_ms() + ends_in_ms,
        scopes: vec![LOGIN_SCOPE.into()],
    };
    let id = site.store.create_token(new).await.unwrap();
    (code, id)
}

/// Shows the code on a fresh form.
async fn show(site: &Site, code: &Secret) -> Answer {
    let form = site.get("/login").await;
    let cookie = set_cookie(&form, "helios-login");
    let csrf = between(&form.body, "name=\"csrf\" value=\"", "\"");
    let body = format!("csrf={csrf}&token={}", code.expose());
    let headers = [("cookie", cookie.as_str()), ("origin", ORIGIN), ("content-type", FORM)];
    site.send(Method::POST, "/login", &headers, &body).await
}

async fn sees_the_private(site: &Site, cookie: &str) -> bool {
    let path = format!("/runs/{}", site.private.run);
    site.send(Method::GET, &path, &[("cookie", cookie)], "").await.status == StatusCode::OK
}

#[tokio::test]
async fn a_code_logs_in_once() {
    let site = Site::new().await;
    let (code, id) = code(&site, 600_000).await;
    let first = show(&site, &code).await;
    assert_eq!(first.status, StatusCode::SEE_OTHER, "{}", first.body);
    let cookie = set_cookie(&first, "helios");
    assert!(sees_the_private(&site, &cookie).await);
    let again = show(&site, &code).await;
    assert_eq!(again.status, StatusCode::UNAUTHORIZED, "used up");
    assert!(again.body.contains("works once"), "{}", again.body);
    // The row is the session's token now: taking it back ends the session.
    assert!(site.store.revoke_token(id).await.unwrap());
    assert!(!sees_the_private(&site, &cookie).await);
}

#[tokio::test]
async fn no_get_and_no_foreign_form_uses_a_code_up() {
    let site = Site::new().await;
    let (code, _) = code(&site, 600_000).await;
    for path in ["/login", "/login?token=", "/login?code="] {
        site.get(&format!("{path}{}", code.expose())).await;
        site.send(Method::HEAD, &format!("{path}{}", code.expose()), &[], "")
            .await;
    }
    let form = site.get("/login").await;
    let cookie = set_cookie(&form, "helios-login");
    let csrf = between(&form.body, "name=\"csrf\" value=\"", "\"");
    for (origin, csrf) in [("https://evil.example", csrf), (ORIGIN, "x")] {
        let headers = [("cookie", cookie.as_str()), ("origin", origin), ("content-type", FORM)];
        let body = format!("csrf={csrf}&token={}", code.expose());
        let answer = site.send(Method::POST, "/login", &headers, &body).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
    }
    assert_eq!(show(&site, &code).await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn a_code_is_no_token() {
    let site = Site::new().await;
    let (code, _) = code(&site, 600_000).await;
    let bearer = format!("Bearer {}", code.expose());
    for path in ["/api/v1/runs", "/", "/login"] {
        let answer = site.send(Method::GET, path, &[("authorization", &bearer)], "").await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{path}");
    }
    assert_eq!(
        show(&site, &code).await.status,
        StatusCode::SEE_OTHER,
        "nor is it used up"
    );
}

#[tokio::test]
async fn a_code_ends_with_its_time_and_when_it_is_revoked() {
    let site = Site::new().await;
    let (late, _) = code(&site, -1).await;
    assert_eq!(show(&site, &late).await.status, StatusCode::UNAUTHORIZED);
    let (revoked, id) = code(&site, 600_000).await;
    assert!(site.store.revoke_token(id).await.unwrap());
    assert_eq!(show(&site, &revoked).await.status, StatusCode::UNAUTHORIZED);
}
