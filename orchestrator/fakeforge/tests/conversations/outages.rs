//! Bad days, for one call and for all.

use std::time::Duration;

use crate::common::{call, forge, git, status_of};
use helios_fakeforge::{Fault, Kind};
use serde_json::json;

#[tokio::test]
async fn bad_days_come_on_request_and_once() {
    let forge = forge().await;
    let repository = forge.create_repository(Kind::Forgejo, "acme/app", false).await.unwrap();
    let sha = forge.push(repository, "main", &[("a", "1", 0o644)], "1").await.unwrap();
    let token = format!("token {}", forge.create_token("bot", true));
    let url = format!("{}/api/v1/repos/acme/app/statuses/{sha}", forge.url());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let send = || {
        let body = json!({"state": "success", "context": "c"});
        client.post(&url).header("authorization", &token).json(&body).send()
    };
    forge.fail_next("POST /api/v1/repos/acme/app/statuses", Fault::Status(502));
    forge.fail_next("/statuses/", Fault::RateLimited { retry_after_s: 7 });
    forge.fail_next("/statuses/", Fault::Hang(Duration::from_millis(1)));
    forge.fail_next("/statuses/", Fault::AcceptThenCut);
    forge.fail_next("/statuses/", Fault::AcceptThenStatus(500));
    assert_eq!(send().await.unwrap().status(), 502);
    let limited = send().await.unwrap();
    assert_eq!(
        (limited.status().as_u16(), &limited.headers()["retry-after"]),
        (429, &"7".parse().unwrap())
    );
    assert!(send().await.is_err(), "silence, then the end");
    assert_eq!(forge.history(&sha), [], "nothing was done so far");
    assert!(send().await.is_err(), "cut");
    assert_eq!(forge.state().words(&sha, "c"), ["success"], "but it was done");
    assert_eq!(send().await.unwrap().status(), 500);
    assert_eq!(forge.state().words(&sha, "c").len(), 2, "this, too");
    assert_eq!(send().await.unwrap().status(), 201);
    assert_eq!(forge.state().count("POST", "/statuses/"), 6);
    let statuses: Vec<Option<u16>> = forge.requests().iter().map(|r| r.status).collect();
    assert_eq!(statuses, [Some(502), Some(429), None, None, Some(500), Some(201)]);
    let log = format!("{:?}", forge.requests());
    assert!(
        !log.contains(token.strip_prefix("token ").unwrap()),
        "no credential in the log"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forge_that_is_away_answers_nobody_until_it_is_back() {
    let forge = forge().await;
    let repository = forge.create_repository(Kind::Forgejo, "acme/app", false).await.unwrap();
    let sha = forge.push(repository, "main", &[("a", "1", 0o644)], "1").await.unwrap();
    let token = format!("token {}", forge.create_token("bot", true));
    let url = format!("{}/api/v1/repos/acme/app/statuses/{sha}", forge.url());
    let clone = forge.clone_url(repository).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let listed = || git(dir.path(), &["ls-remote", &clone]).status.success();
    // Connections that are open already end as well.
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let get = || client.get(forge.url()).send();
    assert_eq!(get().await.unwrap().status(), 200);
    forge.set_away(true);
    assert!(get().await.is_err());
    assert!(!listed());
    assert_eq!(forge.requests().last().unwrap().status, None);
    forge.set_away(false);
    assert_eq!(get().await.unwrap().status(), 200);
    assert!(listed());

    forge.answer_all_with(Some(503));
    for _ in 0..3 {
        let (status, _) = call("POST", &url, Some(&token), status_of("success", "c")).await;
        assert_eq!(status, 503);
    }
    assert_eq!(get().await.unwrap().status(), 503);
    assert!(!listed());
    assert_eq!(forge.history(&sha), []);
    forge.answer_all_with(None);
    assert_eq!(call("POST", &url, Some(&token), status_of("success", "c")).await.0, 201);
    assert!(listed());
}
