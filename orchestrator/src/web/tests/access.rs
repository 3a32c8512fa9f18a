//! Who gets what: the table of routes against every kind of caller, forms, and login.

use axum::http::{Method, StatusCode, header};

use super::fixture::{FORM, Made, ORIGIN, Site, between, set_cookie};
use crate::web::{authorize::Action, routes::table};

fn filled(path: &str, made: &Made) -> String {
    let id = if path.contains("/jobs/") || path.contains("/machines/") {
        made.jobs[0].to_string()
    } else if path.contains("/builds/") {
        made.trigger.to_string()
    } else {
        made.run.to_string()
    };
    path.replace("{id}", &id).replace("{file}", "nothing")
}

/// The table, written a second time: whoever adds a route says here what it is for.
const KNOWN: &[(&str, &str, Action)] = &[
    ("GET", "/", Action::List),
    ("GET", "/runs/{id}", Action::See),
    ("POST", "/runs/{id}/cancel", Action::Cancel),
    ("POST", "/runs/{id}/rerun", Action::Rerun),
    ("GET", "/jobs/{id}", Action::See),
    ("POST", "/jobs/{id}/cancel", Action::Cancel),
    ("POST", "/jobs/{id}/keep", Action::Keep),
    ("POST", "/jobs/{id}/release", Action::Keep),
    ("GET", "/jobs/{id}/log", Action::See),
    ("GET", "/jobs/{id}/log.txt", Action::See),
    ("GET", "/jobs/{id}/log/stream", Action::See),
    ("GET", "/deliveries", Action::Deliveries),
    ("GET", "/login", Action::Open),
    ("POST", "/login", Action::Open),
    ("POST", "/logout", Action::Open),
    ("GET", "/static/{file}", Action::Open),
    ("GET", "/healthz", Action::Open),
    ("GET", "/readyz", Action::Open),
    ("GET", "/status", Action::Open),
    ("GET", "/api/v1/status", Action::Open),
    ("POST", "/api/v1/builds", Action::Dispatch),
    ("GET", "/api/v1/builds/{id}", Action::SeeTrigger),
    ("POST", "/api/v1/builds/{id}/cancel", Action::Cancel),
    ("POST", "/api/v1/builds/{id}/rerun", Action::Rerun),
    ("GET", "/api/v1/runs", Action::List),
    ("GET", "/api/v1/runs/{id}", Action::See),
    ("POST", "/api/v1/runs/{id}/cancel", Action::Cancel),
    ("POST", "/api/v1/runs/{id}/rerun", Action::Rerun),
    ("GET", "/api/v1/jobs/{id}", Action::See),
    ("POST", "/api/v1/jobs/{id}/cancel", Action::Cancel),
    ("GET", "/api/v1/jobs/{id}/why", Action::See),
    ("GET", "/api/v1/jobs/{id}/logs", Action::See),
    ("GET", "/api/v1/jobs/{id}/logs/stream", Action::See),
    ("GET", "/api/v1/deliveries", Action::Deliveries),
    ("GET", "/api/v1/missed", Action::Deliveries),
    ("POST", "/api/v1/catch-up", Action::Deliveries),
    ("GET", "/api/v1/machines", Action::Machines),
    ("GET", "/api/v1/machines/{id}", Action::Watch),
    ("POST", "/api/v1/machines/{id}/keep", Action::Keep),
    ("POST", "/api/v1/machines/{id}/release", Action::Keep),
    ("POST", "/api/v1/machines/{id}/destroy", Action::Keep),
    ("GET", "/api/v1/machines/{id}/console", Action::Watch),
    ("POST", "/api/v1/machines/{id}/console", Action::Type),
    ("POST", "/api/v1/machines/{id}/console/release", Action::Type),
];

#[test]
fn the_table_of_routes_is_the_known_one() {
    let routes: Vec<_> = table()
        .iter()
        .map(|r| (r.method.to_string(), r.path, r.action))
        .collect();
    let known: Vec<_> = KNOWN.iter().map(|(m, p, a)| ((*m).to_owned(), *p, *a)).collect();
    assert_eq!(routes, known);
}

#[tokio::test]
async fn without_login_the_private_is_absent_and_the_public_can_only_be_read() {
    let site = Site::new().await;
    for route in table() {
        let form = [("origin", ORIGIN), ("content-type", FORM)];
        let send = async |path: &str| {
            let body = if route.path.starts_with("/api/") {
                ""
            } else {
                "csrf=x&which=all"
            };
            site.send(route.method.clone(), path, &form, body).await
        };
        match route.action {
            Action::Open | Action::List => {}
            Action::Dispatch | Action::Machines => assert_eq!(
                send(route.path).await.status,
                StatusCode::UNAUTHORIZED,
                "{}",
                route.path
            ),
            Action::Deliveries => {
                let absent = if route.path.starts_with("/api/") {
                    "/api/v1/no"
                } else {
                    "/no"
                };
                let (hidden, absent) = (send(route.path).await, send(absent).await);
                assert_eq!(hidden.status, StatusCode::NOT_FOUND, "{}", route.path);
                assert_eq!(hidden.body, absent.body, "{}", route.path);
            }
            Action::See
            | Action::SeeTrigger
            | Action::Cancel
            | Action::Rerun
            | Action::Keep
            | Action::Watch
            | Action::Type => {
                let private = send(&filled(route.path, &site.private)).await;
                let absent = send(&filled(route.path, &absent())).await;
                assert_eq!(private.status, StatusCode::NOT_FOUND, "{} {}", route.method, route.path);
                assert_eq!(
                    private.body, absent.body,
                    "{}: hidden and absent must look the same",
                    route.path
                );
                assert_eq!(
                    send(&route.path.replace("{id}", "nonsense")).await.status,
                    StatusCode::BAD_REQUEST,
                    "{}",
                    route.path
                );
                if route.path.ends_with("/stream") {
                    continue; // A public stream goes on; `logs` tests it.
                }
                let public = send(&filled(route.path, &site.public)).await;
                let want = match route.action {
                    Action::See => StatusCode::OK,
                    Action::SeeTrigger => StatusCode::NOT_FOUND,
                    _ => StatusCode::UNAUTHORIZED,
                };
                assert_eq!(public.status, want, "{} {}: {}", route.method, route.path, public.body);
            }
        }
    }
    let list = site.get("/").await.body;
    assert!(list.contains("helios/demo") && !list.contains("helios/secret") && !list.contains("a secret plan"));
    let list = site.get("/api/v1/runs").await.body;
    assert!(list.contains("helios/demo") && !list.contains("helios/secret"));
}

fn absent() -> Made {
    use crate::model::ids::{JobId, RunId, TriggerId};
    Made {
        trigger: TriggerId::new(),
        run: RunId::new(),
        jobs: vec![JobId::new()],
    }
}

#[tokio::test]
async fn a_site_admin_reads_everything_with_a_token() {
    let site = Site::new().await;
    for route in table() {
        let reads = matches!(route.action, Action::See | Action::SeeTrigger | Action::List);
        if route.method == Method::GET && reads && !route.path.ends_with("/stream") {
            let answer = site.as_admin(Method::GET, &filled(route.path, &site.private), "").await;
            assert_eq!(answer.status, StatusCode::OK, "{}: {}", route.path, answer.body);
        }
    }
    assert!(site.as_admin(Method::GET, "/", "").await.body.contains("a secret plan"));
}

#[tokio::test]
async fn a_bad_token_is_refused_whatever_it_asks_for() {
    let site = Site::new().await;
    let other = crate::web::identity::new_token();
    for value in [
        "Bearer x",
        "Basic abc",
        "Bearer hci_",
        &format!("Bearer {}", other.expose()),
    ] {
        let answer = site
            .send(Method::GET, "/api/v1/runs", &[("authorization", value)], "")
            .await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{value}");
        assert!(answer.headers.contains_key(header::WWW_AUTHENTICATE));
        assert!(answer.body.contains("\"code\":\"unauthorized\""), "{}", answer.body);
    }
}

#[tokio::test]
async fn the_api_takes_no_cookie() {
    let site = Site::new().await;
    let cookie = site.login().await;
    let path = format!("/api/v1/runs/{}", site.private.run);
    assert_eq!(
        site.send(Method::GET, &path, &[("cookie", &cookie)], "").await.status,
        StatusCode::NOT_FOUND
    );
    let path = format!("/runs/{}", site.private.run);
    assert_eq!(
        site.send(Method::GET, &path, &[("cookie", &cookie)], "").await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn a_form_needs_our_origin_and_the_sessions_token() {
    let site = Site::new().await;
    let cookie = site.login().await;
    let path = format!("/runs/{}", site.private.run);
    let page = site.send(Method::GET, &path, &[("cookie", &cookie)], "").await.body;
    let csrf = between(&page, "name=\"csrf\" value=\"", "\"").to_owned();
    let cancel = format!("{path}/cancel");
    let good = format!("csrf={csrf}");
    let send = async |origin: Option<&str>, body: &str| {
        let mut headers = vec![("cookie", cookie.as_str()), ("content-type", FORM)];
        headers.extend(origin.map(|o| ("origin", o)));
        site.send(Method::POST, &cancel, &headers, body).await.status
    };
    assert_eq!(send(None, &good).await, StatusCode::FORBIDDEN);
    assert_eq!(send(Some("null"), &good).await, StatusCode::FORBIDDEN);
    assert_eq!(send(Some("http://evil.example"), &good).await, StatusCode::FORBIDDEN);
    assert_eq!(send(Some(ORIGIN), "csrf=").await, StatusCode::FORBIDDEN);
    assert_eq!(
        send(Some(ORIGIN), &format!("csrf={}", "0".repeat(64))).await,
        StatusCode::FORBIDDEN
    );
    assert_eq!(
        site.send(Method::GET, &cancel, &[("cookie", &cookie)], "").await.status,
        StatusCode::METHOD_NOT_ALLOWED
    );
    assert!(
        site.store.run(site.private.run).await.unwrap().unwrap().attempts[0]
            .cancel
            .is_none()
    );
    assert_eq!(send(Some(ORIGIN), &good).await, StatusCode::SEE_OTHER);
    let run = site.store.run(site.private.run).await.unwrap().unwrap();
    assert!(
        run.summary.state.is_terminal(),
        "a queued run ends at once when it is cancelled"
    );
}

#[tokio::test]
async fn a_login_makes_a_new_session_and_a_logout_ends_it() {
    let site = Site::new().await;
    let first = site.login().await;
    let form = site.send(Method::GET, "/login", &[("cookie", &first)], "").await;
    let both = format!("{first}; {}", set_cookie(&form, "helios-login"));
    let body = format!(
        "csrf={}&token={}&return_to=//evil.example",
        between(&form.body, "name=\"csrf\" value=\"", "\""),
        site.token.expose()
    );
    let answer = site
        .send(
            Method::POST,
            "/login",
            &[("cookie", &both), ("origin", ORIGIN), ("content-type", FORM)],
            &body,
        )
        .await;
    assert_eq!(answer.headers[header::LOCATION], "/");
    let raw = answer
        .headers
        .get_all("set-cookie")
        .iter()
        .next()
        .unwrap()
        .to_str()
        .unwrap();
    assert!(
        raw.contains("HttpOnly") && raw.contains("SameSite=Lax") && raw.contains("Path=/"),
        "{raw}"
    );
    let second = set_cookie(&answer, "helios");
    assert_ne!(first, second);
    let path = format!("/runs/{}", site.private.run);
    assert_eq!(
        site.send(Method::GET, &path, &[("cookie", &first)], "").await.status,
        StatusCode::NOT_FOUND,
        "the old session ended"
    );
    let page = site.send(Method::GET, &path, &[("cookie", &second)], "").await;
    assert_eq!(page.status, StatusCode::OK);
    let body = format!("csrf={}", between(&page.body, "name=\"csrf\" value=\"", "\""));
    let answer = site
        .send(
            Method::POST,
            "/logout",
            &[("cookie", &second), ("origin", ORIGIN), ("content-type", FORM)],
            &body,
        )
        .await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    assert_eq!(
        site.send(Method::GET, &path, &[("cookie", &second)], "").await.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn logins_are_limited_and_tied_to_their_form() {
    let site = Site::new().await;
    let form = site.get("/login").await;
    let cookie = set_cookie(&form, "helios-login");
    let csrf = between(&form.body, "name=\"csrf\" value=\"", "\"");
    let good = [("cookie", cookie.as_str()), ("origin", ORIGIN), ("content-type", FORM)];
    let stale = site
        .send(
            Method::POST,
            "/login",
            &good,
            &format!("csrf=x&token={}", site.token.expose()),
        )
        .await;
    assert_eq!(stale.status, StatusCode::FORBIDDEN);
    let foreign = [
        ("cookie", cookie.as_str()),
        ("origin", "https://evil.example"),
        ("content-type", FORM),
    ];
    assert_eq!(
        site.send(Method::POST, "/login", &foreign, &format!("csrf={csrf}&token=x"))
            .await
            .status,
        StatusCode::FORBIDDEN
    );
    for _ in 0..10 {
        let wrong = site
            .send(Method::POST, "/login", &good, &format!("csrf={csrf}&token=hci_wrong"))
            .await;
        assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
    }
    let limited = site
        .send(
            Method::POST,
            "/login",
            &good,
            &format!("csrf={csrf}&token={}", site.token.expose()),
        )
        .await;
    assert_eq!(limited.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(limited.headers.contains_key(header::RETRY_AFTER));
}

#[tokio::test]
async fn every_answer_is_sealed() {
    let site = Site::new().await;
    for path in [
        "/",
        "/nowhere",
        "/login",
        "/healthz",
        "/readyz",
        "/api/v1/runs",
        "/api/v1/nowhere",
        "/static/x",
    ] {
        let answer = site.get(path).await;
        let csp = answer.headers["content-security-policy"].to_str().unwrap();
        assert!(
            csp.starts_with("default-src 'none'") && !csp.contains("unsafe"),
            "{path}"
        );
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
        assert_eq!(answer.headers["referrer-policy"], "same-origin");
        assert_eq!(answer.headers["cache-control"], "no-store");
        assert!(answer.headers.contains_key("x-request-id"));
        assert!(
            !answer.headers.contains_key("strict-transport-security"),
            "plain HTTP on loopback"
        );
    }
    let assets = site.state.assets();
    for path in [&assets.style, &assets.script, &assets.icon] {
        let answer = site.get(path).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert!(answer.headers["cache-control"].to_str().unwrap().contains("immutable"));
    }
}

#[tokio::test]
async fn readiness_ends_when_the_daemon_stops() {
    let site = Site::new().await;
    assert_eq!(site.get("/readyz").await.status, StatusCode::OK);
    site.state.draining().cancel();
    assert_eq!(site.get("/readyz").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(site.get("/healthz").await.status, StatusCode::OK);
}

#[tokio::test]
async fn builds_are_made_seen_cancelled_and_run_again() {
    let site = Site::new().await;
    let body = r#"{"connection":"berg","repository":"helios/demo","ref":"main"}"#;
    let made = site.as_admin(Method::POST, "/api/v1/builds", body).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    let location = made.headers[header::LOCATION].to_str().unwrap().to_owned();
    let seen = site.as_admin(Method::GET, &location, "").await;
    assert!(
        seen.body.contains("\"state\":\"received\"") && seen.body.contains("refs/heads/main"),
        "{}",
        seen.body
    );
    for (body, status) in [
        ("", StatusCode::BAD_REQUEST),
        ("{", StatusCode::BAD_REQUEST),
        (
            r#"{"connection":"berg","repository":"helios/demo"}"#,
            StatusCode::BAD_REQUEST,
        ),
        (
            r#"{"connection":"berg","repository":"helios/demo","ref":"--x"}"#,
            StatusCode::BAD_REQUEST,
        ),
        (
            r#"{"connection":"berg","repository":"../x","ref":"main"}"#,
            StatusCode::BAD_REQUEST,
        ),
        (
            r#"{"connection":"berg","repository":"helios/demo","ref":"main","commit":"abc"}"#,
            StatusCode::BAD_REQUEST,
        ),
        (
            r#"{"connection":"other","repository":"helios/demo","ref":"main"}"#,
            StatusCode::NOT_FOUND,
        ),
        (
            r#"{"connection":"berg","repository":"helios/none","ref":"main"}"#,
            StatusCode::NOT_FOUND,
        ),
        (
            r#"{"connection":"berg","repository":"helios/away","ref":"main"}"#,
            StatusCode::SERVICE_UNAVAILABLE,
        ),
    ] {
        let answer = site.as_admin(Method::POST, "/api/v1/builds", body).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.body);
        assert!(answer.body.contains("\"error\":{\"code\":"), "{}", answer.body);
    }
    let build = format!("/api/v1/builds/{}", site.public.trigger);
    assert_eq!(
        site.as_admin(Method::POST, &format!("{build}/rerun"), "").await.status,
        StatusCode::CONFLICT,
        "still active"
    );
    let cancelled = site.as_admin(Method::POST, &format!("{build}/cancel"), "").await;
    assert!(
        cancelled.body.contains("\"outcome\":\"requested\""),
        "{}",
        cancelled.body
    );
    let again = site.as_admin(Method::POST, &format!("{build}/cancel"), "").await;
    assert_eq!(again.status, StatusCode::OK);
    assert!(again.body.contains("\"outcome\":\"already_ended\""), "{}", again.body);
    let rerun = site
        .as_admin(
            Method::POST,
            &format!("/api/v1/runs/{}/rerun", site.public.run),
            r#"{"which":"all"}"#,
        )
        .await;
    assert_eq!(rerun.status, StatusCode::CREATED, "{}", rerun.body);
    assert!(rerun.body.contains("\"attempt\":2"), "{}", rerun.body);
    let bad = site
        .as_admin(
            Method::POST,
            &format!("/api/v1/runs/{}/rerun", site.public.run),
            r#"{"which":"none"}"#,
        )
        .await;
    assert_eq!(bad.status, StatusCode::BAD_REQUEST);
    let why = site
        .as_admin(Method::GET, &format!("/api/v1/jobs/{}/why", site.private.jobs[0]), "")
        .await;
    assert!(why.body.contains("\"state\":\"queued\""), "{}", why.body);
}

#[tokio::test]
async fn every_answer_of_every_route_carries_the_same_headers() {
    let site = Site::new().await;
    let mut asked: Vec<(Method, String)> = table()
        .iter()
        .filter(|route| !route.path.ends_with("/stream"))
        .flat_map(|route| {
            let path = filled(route.path, &site.public);
            [(route.method.clone(), path.clone()), (Method::DELETE, path)]
        })
        .collect();
    // What a forge posts to, with and without a connection of this name, and what does not exist.
    for (method, path) in [
        (Method::POST, "/hooks/berg"),
        (Method::POST, "/hooks/nobody"),
        (Method::GET, "/hooks/berg"),
        (Method::GET, "/nothing/here"),
    ] {
        asked.push((method, path.to_owned()));
    }
    for (method, path) in asked {
        let answer = site.send(method.clone(), &path, &[], "").await;
        let header = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok());
        for (name, value) in [
            ("content-security-policy", crate::web::http::headers::CSP),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "same-origin"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(header(name), Some(value), "{method} {path}: {name}");
        }
        assert!(header("cache-control").is_some(), "{method} {path}");
        assert!(header("x-request-id").is_some(), "{method} {path}");
    }
}
