//! Failures and outages, of one call and of all.

use std::time::Duration;

use crate::{
    common::{call, forge, git, status_of},
    deadline,
};
use helios_fakeforge::{Fault, ForgeState, Kind};
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
    forge.fail_next(
        "/statuses/",
        Fault::Postponed {
            status: 500,
            retry_after_s: 9,
        },
    );
    forge.fail_next("/statuses/", Fault::Hang(Duration::from_millis(1)));
    forge.fail_next("/statuses/", Fault::AcceptThenCut);
    forge.fail_next("/statuses/", Fault::AcceptThenStatus(500));
    assert_eq!(send().await.unwrap().status(), 502);
    let limited = send().await.unwrap();
    assert_eq!(
        (limited.status().as_u16(), &limited.headers()["retry-after"]),
        (429, &"7".parse().unwrap())
    );
    let postponed = send().await.unwrap();
    assert_eq!(
        (postponed.status().as_u16(), &postponed.headers()["retry-after"]),
        (500, &"9".parse().unwrap())
    );
    assert!(send().await.is_err(), "silence, then the end");
    assert_eq!(forge.history(&sha), [], "nothing was done so far");
    assert!(send().await.is_err(), "cut");
    assert_eq!(forge.state().words(&sha, "c"), ["success"], "but it was done");
    assert_eq!(send().await.unwrap().status(), 500);
    assert_eq!(forge.state().words(&sha, "c").len(), 2, "this, too");
    assert_eq!(send().await.unwrap().status(), 201);
    assert_eq!(forge.state().count("POST", "/statuses/"), 7);
    let statuses: Vec<Option<u16>> = forge.requests().iter().map(|r| r.status).collect();
    assert_eq!(
        statuses,
        [Some(502), Some(429), Some(500), None, None, Some(500), Some(201)]
    );
    for _ in 0..3 {
        forge.fail_next("/statuses/", Fault::Status(502));
    }
    forge.fail_next("/other/", Fault::Status(502));
    forge.drop_faults("/statuses/");
    assert_eq!(send().await.unwrap().status(), 201, "nothing is ordered any more");
    assert_eq!(
        client
            .get(format!("{}/other/", forge.url()))
            .send()
            .await
            .unwrap()
            .status(),
        502
    );
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
    forge.stop().await;
    assert!(get().await.is_err());
    assert!(!listed());
    let address = forge.url().trim_start_matches("http://").to_owned();
    let refused = std::net::TcpStream::connect(&address).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    forge.restart().await;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_forge_does_later_what_it_was_sent_also_for_callers_who_gave_up() {
    let forge = forge().await;
    let repository = forge.create_repository(Kind::Forgejo, "acme/app", false).await.unwrap();
    let sha = forge.push(repository, "main", &[("a", "1", 0o644)], "1").await.unwrap();
    let token = format!("token {}", forge.create_token("bot", true));
    let url = format!("{}/api/v1/repos/acme/app/statuses/{sha}", forge.url());
    forge.set_suspended(true);
    let send = |context: &'static str| {
        let (url, token) = (url.clone(), token.clone());
        tokio::spawn(async move { call("POST", &url, Some(&token), status_of("success", context)).await.0 })
    };
    let (impatient, patient) = (send("given up"), send("waited for"));
    let both = |state: &ForgeState| (state.count("POST", "/statuses/") == 2).then_some(());
    forge.wait_for("both requests", deadline::PROMPT, both).await.unwrap();
    impatient.abort();
    assert!(impatient.await.is_err(), "its connection is closed");
    assert_eq!(forge.history(&sha), []);
    forge.set_suspended(false);
    assert_eq!(patient.await.unwrap(), 201);
    forge
        .wait_for_word(&sha, "given up", "success", deadline::PROMPT)
        .await
        .unwrap();
}
