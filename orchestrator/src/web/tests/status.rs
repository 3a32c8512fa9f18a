//! How the daemon is: what anybody learns, what administrators do, and that a refusal ends.

use axum::http::{Method, StatusCode};
use serde_json::Value;

use super::fixture::{Answer, EVIL, Site};
use crate::forge::ConnectionState;

fn refused() -> ConnectionState {
    ConnectionState::Refused {
        reason: format!("https://forge.example refused `GET /api/v1/user`: 401: {EVIL}"),
        since_ms: 1_468_275_250_000,
    }
}

fn found(site: &Site, state: ConnectionState) {
    site.state.connections().set(&"berg".parse().unwrap(), state);
}

async fn page_of_admin(site: &Site) -> Answer {
    let cookie = site.login().await;
    site.send(Method::GET, "/status", &[("cookie", &cookie)], "").await
}

#[tokio::test]
async fn a_refused_connection_is_a_warning_everywhere_until_it_works() {
    let site = Site::new().await;
    let working = ConnectionState::Working {
        answer: "Forgejo as bot".to_owned(),
    };
    // Nothing is known, it works, it is refused, and it works again.
    for (state, degraded) in [
        (None, false),
        (Some(working.clone()), false),
        (Some(refused()), true),
        (Some(working), false),
    ] {
        if let Some(state) = state {
            found(&site, state);
        }
        let ready = site.get("/readyz").await;
        assert_eq!(ready.status, StatusCode::OK, "deliveries are stored all the same");
        let warning = "warning: 1 of 1 connections to forges do not work";
        assert!(ready.body.starts_with("ready\n"), "{}", ready.body);
        assert_eq!(ready.body.contains(warning), degraded, "{}", ready.body);
        let word = if degraded { "degraded" } else { "ready" };
        let status: Value = serde_json::from_str(&site.get("/api/v1/status").await.body).unwrap();
        assert_eq!(status["state"], word, "{status}");
        assert!(site.get("/status").await.body.contains(&format!("{word}: status")));
    }
}

#[tokio::test]
async fn which_forge_refuses_us_and_why_is_for_administrators() {
    let site = Site::new().await;
    found(&site, refused());
    for path in ["/status", "/api/v1/status", "/readyz"] {
        let seen = site.get(path).await.body;
        for hidden in ["berg", "forge.example", "401", "fern", "queued"] {
            assert!(!seen.contains(hidden), "{path} tells {hidden}: {seen}");
        }
    }
    let page = page_of_admin(&site).await.body;
    for shown in [
        "berg",
        "https://forge.example",
        "refused `GET /api/v1/user`: 401",
        "/hooks/berg",
        "2016-07-11",
    ] {
        assert!(page.contains(shown), "{shown} is missing: {page}");
    }
    assert!(!page.contains("<img src=x"), "a forge's words are text");
    let answer = site.as_admin(Method::GET, "/api/v1/status", "").await.body;
    let status: Value = serde_json::from_str(&answer).unwrap();
    let berg = &status["details"]["connections"][0];
    assert_eq!((&berg["name"], &berg["state"]), (&"berg".into(), &"refused".into()));
    assert!(
        berg["fix"].as_str().is_some_and(|fix| fix.contains("token")),
        "{status}"
    );
    assert_eq!(status["details"]["work"]["queued"], 3, "{status}");
    for text in [&page, &answer] {
        let folder = site.state.config().data_dir.display().to_string();
        assert!(
            !text.contains(&folder) && !text.contains("/nonexistent"),
            "no path of the host"
        );
    }
}

#[tokio::test]
async fn a_repository_that_may_not_be_read_is_named_to_administrators_until_it_may() {
    let site = Site::new().await;
    let (berg, path) = ("berg".parse().unwrap(), "ada/engine".parse().unwrap());
    let connections = site.state.connections();
    connections.repository_refused(&berg, &path, &format!("403: {EVIL}"), "add the bot as a collaborator");
    for public in ["/status", "/api/v1/status"] {
        let seen = site.get(public).await.body;
        assert!(
            !seen.contains("ada/engine") && !seen.contains("403"),
            "{public}: {seen}"
        );
    }
    let page = page_of_admin(&site).await.body;
    assert!(
        page.contains("ada/engine") && page.contains("→ add the bot as a collaborator"),
        "{page}"
    );
    assert!(!page.contains("<img src=x"), "a forge's words are text");
    let missing = async || {
        let answer = site.as_admin(Method::GET, "/api/v1/status", "").await.body;
        let status: Value = serde_json::from_str(&answer).unwrap();
        status["details"]["connections"][0]["repositories"].clone()
    };
    let found = missing().await;
    assert_eq!(
        (&found[0]["path"], &found[1]),
        (&"ada/engine".into(), &Value::Null),
        "{found}"
    );
    connections.repository_works(&berg, &path);
    assert_eq!(missing().await, serde_json::json!([]));
}

#[tokio::test]
async fn a_daemon_that_stops_says_so() {
    let site = Site::new().await;
    site.state.draining().cancel();
    let ready = site.get("/readyz").await;
    assert_eq!(
        (ready.status, ready.body.as_str()),
        (StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
    );
    assert!(site.get("/status").await.body.contains("stopping: status"));
}
