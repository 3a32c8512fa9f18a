//! Conversations with the Forgejo side.

use std::{process::Command, time::Duration};

use crate::{
    common::{call, delivered, forge, receiver, signed},
    deadline,
};
use helios_fakeforge::{Fault, Kind};
use serde_json::{Value, json};

#[tokio::test]
async fn statuses_append_and_the_newest_of_each_context_counts() {
    let forge = forge().await;
    let repository = forge.create_repository(Kind::Forgejo, "acme/app", false).await.unwrap();
    let sha = forge
        .push(repository, "main", &[("a", "1", 0o644)], "first")
        .await
        .unwrap();
    let token = format!("token {}", forge.create_token("bot", true));
    let url = format!("{}/api/v1/repos/acme/app/statuses/{sha}", forge.url());
    for (state, context) in [("pending", "helios-ci"), ("success", "helios-ci"), ("failure", "other")] {
        let body = json!({"state": state, "context": context, "description": " d ", "target_url": "https://ci/x"});
        let (status, answer) = call("POST", &url, Some(&token), Some(body)).await;
        assert_eq!((status, &answer["status"]), (201, &json!(state)));
    }
    assert_eq!(forge.state().words(&sha, "helios-ci"), ["pending", "success"]);
    assert_eq!(forge.state().contexts(&sha), ["helios-ci", "other"]);
    assert_eq!(forge.history(&sha)[0].description, "d");

    let commits = format!("{}/api/v1/repos/acme/app/commits/{sha}", forge.url());
    let (_, all) = call("GET", &format!("{commits}/statuses"), None, None).await;
    assert_eq!(all.as_array().unwrap().len(), 3);
    assert_eq!(all[0]["context"], "other", "newest first");
    let (_, page) = call("GET", &format!("{commits}/statuses?limit=1&page=2"), None, None).await;
    assert_eq!(
        (page.as_array().unwrap().len(), &page[0]["status"]),
        (1, &json!("success"))
    );
    let (_, combined) = call("GET", &format!("{commits}/status"), None, None).await;
    assert_eq!(
        (&combined["state"], &combined["total_count"]),
        (&json!("failure"), &json!(2))
    );
    assert_eq!(forge.violations(), []);
}

#[tokio::test]
async fn wrong_statuses_are_refused() {
    let forge = forge().await;
    let repository = forge.create_repository(Kind::Forgejo, "acme/app", true).await.unwrap();
    let sha = forge
        .push(repository, "main", &[("a", "1", 0o644)], "first")
        .await
        .unwrap();
    let write = format!("token {}", forge.create_token("bot", true));
    let read = format!("token {}", forge.create_token("reader", false));
    let url = |sha: &str| format!("{}/api/v1/repos/acme/app/statuses/{sha}", forge.url());
    let body = |state: &str| Some(json!({"state": state, "context": "c"}));
    let missing = "0123456789012345678901234567890123456789";
    for (expected, authorization, sha, state) in [
        (401, None, sha.as_str(), "success"),
        (401, Some("token wrong"), &sha, "success"),
        (403, Some(read.as_str()), &sha, "success"),
        (404, Some(&write), missing, "success"),
        (422, Some(&write), &sha, "neutral"),
        (422, Some(&write), &sha, ""),
    ] {
        let (status, _) = call("POST", &url(sha), authorization, body(state)).await;
        assert_eq!(status, expected, "{authorization:?} {sha} {state}");
    }
    assert_eq!(forge.history(&sha), []);
    let elsewhere = format!("{}/api/v1/repos/acme/nothing/statuses/{sha}", forge.url());
    assert_eq!(call("POST", &elsewhere, Some(&write), body("success")).await.0, 404);
    assert_eq!(
        call("GET", &format!("{}/api/v1/repos/acme/app", forge.url()), None, None)
            .await
            .0,
        404
    );
}

#[tokio::test]
async fn reads_have_the_published_shapes() {
    let forge = forge().await;
    let repository = forge.create_repository(Kind::Forgejo, "acme/app", true).await.unwrap();
    let sha = forge
        .push(repository, "main", &[("a", "1", 0o644)], "first")
        .await
        .unwrap();
    forge
        .push(repository, "main-2", &[("b", "1", 0o644)], "second")
        .await
        .unwrap();
    let token = format!("token {}", forge.create_token("bot", true));
    let get = async |path: &str| call("GET", &format!("{}/api/v1{path}", forge.url()), Some(&token), None).await;
    let (status, shape) = get("/repos/ACME/App").await;
    assert_eq!(
        (status, &shape["id"], &shape["private"]),
        (200, &json!(repository), &json!(true))
    );
    assert_eq!(
        get(&format!("/repositories/{repository}")).await.1["full_name"],
        "acme/app"
    );
    assert_eq!(get("/user").await.1["login"], "bot");
    assert!(get("/version").await.1["version"].is_string());
    assert_eq!(get("/repos/acme/app/branches/main").await.1["commit"]["id"], json!(sha));
    assert_eq!(get("/repos/acme/app/branches/none").await.0, 404);
    // Every ref that begins with the name, in a list also when there is one.
    for (name, count) in [("main", 2), ("main-2", 1)] {
        let refs = get(&format!("/repos/acme/app/git/refs/heads/{name}")).await.1;
        assert_eq!(refs.as_array().map(Vec::len), Some(count), "{refs}");
        assert_eq!(refs[0]["ref"], json!(format!("refs/heads/{name}")));
    }
    assert_eq!(forge.violations(), []);
    assert_eq!(get("/repos/acme/app/git/refs/heads/x").await.0, 404);
}

fn git(dir: &std::path::Path, args: &[&str]) -> std::process::Output {
    Command::new("git")
        .args(["-c", "user.name=alice", "-c", "user.email=alice@example.org"])
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env_remove("GIT_ASKPASS")
        .env("no_proxy", "127.0.0.1")
        .output()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_clones_and_pushes_with_git_and_the_hook_is_signed() {
    let forge = forge().await;
    let (url, inbox) = receiver().await;
    let repository = forge.create_repository(Kind::Forgejo, "acme/app", true).await.unwrap();
    let first = forge
        .push(repository, "main", &[("run.sh", "echo 1\n", 0o755)], "first")
        .await
        .unwrap();
    forge.add_hook(repository, &url, "hush");
    let token = forge.create_token("carol", true);
    let reader = forge.create_token("dave", false);
    let clone = forge.clone_url(repository).unwrap();
    let header = |token: &str| format!("http.extraHeader=Authorization: token {token}");

    let dir = tempfile::tempdir().unwrap();
    assert!(!git(dir.path(), &["clone", "-q", &clone, "none"]).status.success());
    let mine = header(&token);
    let cloned = git(dir.path(), &["-c", &mine, "clone", "-q", &clone, "work"]);
    assert!(cloned.status.success(), "{}", String::from_utf8_lossy(&cloned.stderr));
    let work = dir.path().join("work");
    std::fs::write(work.join("new.txt"), "x".repeat(200_000)).unwrap();
    assert!(git(&work, &["add", "."]).status.success());
    assert!(git(&work, &["commit", "-q", "-m", "second\n\nbody"]).status.success());
    let theirs = header(&reader);
    let refused = git(&work, &["-c", &theirs, "push", "-q", "origin", "main"]);
    assert!(!refused.status.success());
    let pushed = git(&work, &["-c", &mine, "push", "-q", "origin", "main:main", "main:topic"]);
    assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));

    // Two branches moved; one of them is new and is also told as `create`.
    let got = delivered(&forge, &inbox, 3).await;
    let (headers, push) = &got[0];
    assert_eq!(push["ref"], "refs/heads/main");
    assert_eq!(
        (&push["before"], &push["sender"]["login"]),
        (&json!(first), &json!("carol"))
    );
    assert_eq!(push["commits"][0]["added"], json!(["new.txt"]));
    assert_eq!(push["head_commit"]["message"], "second\n\nbody");
    assert_eq!(push["repository"]["id"], json!(repository));
    for name in ["x-forgejo-event", "x-gitea-event", "x-gogs-event", "x-github-event"] {
        assert_eq!(headers[name], "push");
    }
    assert_eq!(headers["x-forgejo-delivery"], headers["x-github-delivery"]);
    assert_eq!(got[1].1["ref"], "refs/heads/topic");
    assert_eq!(got[1].1["before"], "0".repeat(40));
    assert_eq!(got[2].1["ref_type"], "branch");
    let raw = inbox.lock().unwrap().clone();
    assert!(raw.iter().all(|(headers, body)| signed(headers, body, "hush")));
    assert!(raw.iter().all(|(headers, body)| !signed(headers, body, "other")));
}

#[tokio::test]
async fn tags_deletions_and_forced_pushes_are_told() {
    let forge = forge().await;
    let (url, inbox) = receiver().await;
    let repository = forge.create_repository(Kind::Forgejo, "acme/app", false).await.unwrap();
    let one = forge.push(repository, "main", &[("a", "1", 0o644)], "1").await.unwrap();
    let two = forge.push(repository, "main", &[("a", "2", 0o644)], "2").await.unwrap();
    forge.add_hook(repository, &url, "hush");
    forge.update_ref(repository, "refs/tags/v1", Some(&two)).await.unwrap();
    forge
        .update_ref(repository, "refs/heads/main", Some(&one))
        .await
        .unwrap();
    forge.update_ref(repository, "refs/tags/v1", None).await.unwrap();
    let got = delivered(&forge, &inbox, 5).await;
    let told: Vec<(&str, &str)> = got
        .iter()
        .map(|(headers, body)| {
            (
                headers["x-forgejo-event"].to_str().unwrap(),
                body["ref"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("push", "refs/tags/v1"),
            ("create", "v1"),
            ("push", "refs/heads/main"),
            ("push", "refs/tags/v1"),
            ("delete", "v1")
        ]
    );
    assert_eq!(got[3].1["after"], "0".repeat(40));
    assert_eq!(got[3].1["head_commit"], Value::Null);
}

#[tokio::test]
async fn held_deliveries_can_be_lost_reordered_and_repeated() {
    let forge = forge().await;
    let (url, inbox) = receiver().await;
    let repository = forge.create_repository(Kind::Forgejo, "acme/app", false).await.unwrap();
    forge.add_hook(repository, &url, "hush");
    forge.hold_deliveries(true);
    forge.push(repository, "main", &[("a", "1", 0o644)], "1").await.unwrap();
    forge.push(repository, "main", &[("a", "2", 0o644)], "2").await.unwrap();
    let ids: Vec<String> = forge.state().deliveries().iter().map(|d| d.id.clone()).collect();
    assert_eq!(ids.len(), 3, "push, create, push");
    for id in [&ids[2], &ids[0], &ids[0]] {
        assert_eq!(forge.redeliver(id).await.unwrap().outcome, Ok(200));
    }
    let seen = inbox.lock().unwrap().clone();
    let seen: Vec<&str> = seen
        .iter()
        .map(|(h, _)| h["x-forgejo-delivery"].to_str().unwrap())
        .collect();
    assert_eq!(seen, [&ids[2], &ids[0], &ids[0]]);
    let first = forge.state().deliveries()[0].clone();
    assert_eq!(first.tries.len(), 2);
    // What an attacker sends: the same bytes, another signature.
    let headers: Vec<(String, String)> = first
        .headers
        .into_iter()
        .filter(|(name, _)| !name.contains("Signature"))
        .collect();
    assert_eq!(forge.deliver_raw(&url, &headers, first.body).await, Ok(200));
    assert!(forge.deliver_raw("http://127.0.0.1:1/", &[], "x").await.is_err());
}

#[tokio::test]
async fn pull_requests_from_forks_carry_both_numbers() {
    let forge = forge().await;
    let (url, inbox) = receiver().await;
    let base = forge.create_repository(Kind::Forgejo, "acme/app", false).await.unwrap();
    forge.push(base, "main", &[("a", "1", 0o644)], "1").await.unwrap();
    let fork = forge.fork(base, "eve/app").await.unwrap();
    forge.push(fork, "evil", &[("a", "2", 0o644)], "2").await.unwrap();
    forge.add_hook(base, &url, "hush");
    let (number, sha) = forge
        .open_pull_request((base, "main"), (fork, "evil"), "eve")
        .await
        .unwrap();
    let newer = forge.push(fork, "evil", &[("a", "3", 0o644)], "3").await.unwrap();
    assert_eq!(forge.synchronize_pull_request(number).await.unwrap(), newer);
    let got = delivered(&forge, &inbox, 2).await;
    let pull = &got[0].1["pull_request"];
    assert_eq!(
        (&got[0].1["action"], &pull["head"]["sha"]),
        (&json!("opened"), &json!(sha))
    );
    assert_eq!(
        (&pull["head"]["repo_id"], &pull["base"]["repo_id"]),
        (&json!(fork), &json!(base))
    );
    assert_eq!(got[1].1["action"], "synchronized");
    assert_eq!(got[1].0["x-forgejo-event-type"], "pull_request_sync");
    let listed = git(
        &forge.repository_dir(base).unwrap(),
        &["rev-parse", &format!("refs/pull/{number}/head")],
    );
    assert_eq!(String::from_utf8_lossy(&listed.stdout).trim(), newer);
}

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
    assert_eq!(send().await.unwrap().status(), 201);
    assert_eq!(forge.state().count("POST", "/statuses/"), 5);
    let statuses: Vec<Option<u16>> = forge.requests().iter().map(|r| r.status).collect();
    assert_eq!(statuses, [Some(502), Some(429), None, None, Some(201)]);
    let log = format!("{:?}", forge.requests());
    assert!(
        !log.contains(token.strip_prefix("token ").unwrap()),
        "no credential in the log"
    );
}

#[tokio::test]
async fn waiting_sees_what_comes_and_says_what_came_instead() {
    let forge = forge().await;
    let repository = forge.create_repository(Kind::Forgejo, "acme/app", false).await.unwrap();
    let sha = forge.push(repository, "main", &[("a", "1", 0o644)], "1").await.unwrap();
    let token = format!("token {}", forge.create_token("bot", true));
    let url = format!("{}/api/v1/repos/acme/app/statuses/{sha}", forge.url());
    let report = async {
        for state in ["pending", "success"] {
            call(
                "POST",
                &url,
                Some(&token),
                Some(json!({"state": state, "context": "c"})),
            )
            .await;
        }
    };
    let (waited, ()) = tokio::join!(forge.wait_for_word(&sha, "c", "success", deadline::PROMPT), report);
    assert_eq!(waited.unwrap().state, "success");
    let error = forge
        .wait_for_word(&sha, "c", "failure", Duration::from_millis(1))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("c=success"), "{error}");
}

#[tokio::test]
async fn the_page_escapes_what_it_shows() {
    let forge = forge().await;
    let repository = forge.create_repository(Kind::Forgejo, "acme/app", false).await.unwrap();
    let sha = forge.push(repository, "main", &[("a", "1", 0o644)], "1").await.unwrap();
    let token = format!("token {}", forge.create_token("bot", true));
    let url = format!("{}/api/v1/repos/acme/app/statuses/{sha}", forge.url());
    let body = json!({"state": "success", "context": "<img onerror=x>", "target_url": "javascript:alert(1)"});
    assert_eq!(call("POST", &url, Some(&token), Some(body)).await.0, 201);
    let page = reqwest::Client::builder()
        .no_proxy()
        .build()
        .unwrap()
        .get(forge.url())
        .send()
        .await
        .unwrap();
    let page = page.text().await.unwrap();
    assert!(page.contains("&lt;img onerror=x&gt;") && !page.contains("<img") && !page.contains("javascript:"));
}
