//! How Forgejo delivers, again and in other forms, and how its webhooks are made.

use std::time::Duration;

use crate::common::{call, delivered, forge, receiver, signed};
use crate::deadline;
use helios_fakeforge::{Access, Content, FakeForge, HookType, Kind, NewHook};
use ring::hmac;
use serde_json::{Value, json};

/// A forge with a repository that was pushed to once, quietly.
async fn scene() -> (FakeForge, i64) {
    let forge = forge().await;
    let repository = forge.create_repository(Kind::Forgejo, "acme/app", false).await.unwrap();
    forge.push(repository, "main", &[("a", "0", 0o644)], "0").await.unwrap();
    (forge, repository)
}

async fn push(forge: &FakeForge, repository: i64, text: &str) -> String {
    let files = [("a", text, 0o644)];
    forge.push(repository, "main", &files, text).await.unwrap()
}

#[tokio::test]
async fn held_deliveries_come_late_and_in_any_order() {
    let (forge, repository) = scene().await;
    let (url, inbox) = receiver().await;
    forge.add_hook(repository, &url, "hush");
    forge.hold_deliveries(true);
    for text in ["1", "2", "3"] {
        push(&forge, repository, text).await;
    }
    let ids: Vec<String> = forge.state().deliveries().iter().map(|d| d.id.clone()).collect();
    assert_eq!(ids.len(), 3);
    for id in [&ids[2], &ids[0]] {
        let tried = forge.release(id).await.unwrap();
        assert_eq!((&tried.delivery, &tried.outcome), (id, &Ok(200)));
    }
    let seen = inbox.lock().unwrap().clone();
    let seen: Vec<&str> = seen
        .iter()
        .map(|(h, _)| h["x-forgejo-delivery"].to_str().unwrap())
        .collect();
    assert_eq!(seen, [&ids[2], &ids[0]], "the second is lost");
    let first = forge.state().deliveries()[0].clone();
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
async fn forgejo_delivers_again_under_a_new_id_and_github_under_the_same() {
    for (kind, header) in [
        (Kind::Forgejo, "x-forgejo-delivery"),
        (Kind::Github, "x-github-delivery"),
    ] {
        let forge = forge().await;
        let (url, inbox) = receiver().await;
        let repository = forge.create_repository(kind, "acme/app", false).await.unwrap();
        push(&forge, repository, "0").await;
        let hook = forge.add_hook(repository, &url, "wrong");
        push(&forge, repository, "1").await;
        delivered(&forge, &inbox, 1).await;
        let id = forge.state().deliveries()[0].id.clone();
        // The secret was corrected meanwhile.
        forge.replace_hook(hook, NewHook::new(&url, "hush")).unwrap();
        let tried = forge.redeliver(&id).await.unwrap();
        assert_eq!(tried.outcome, Ok(200));
        assert_eq!(tried.delivery == id, kind == Kind::Github);
        let seen = inbox.lock().unwrap().clone();
        assert_eq!(seen.len(), 2);
        assert_eq!(seen[0].1, seen[1].1, "the same body");
        assert_eq!(seen[1].0[header], tried.delivery.as_str());
        let tries: Vec<usize> = forge.state().deliveries().iter().map(|d| d.tries.len()).collect();
        match kind {
            Kind::Forgejo => {
                assert_eq!(tries, [1, 1]);
                assert!(signed(&seen[1].0, &seen[1].1, "hush"));
            }
            Kind::Github => assert_eq!(tries, [2]),
        }
        assert!(forge.redeliver("none").await.is_err());
    }
}

#[tokio::test]
async fn a_receiver_that_takes_too_long_has_failed_and_is_not_asked_again() {
    let (forge, repository) = scene().await;
    // It accepts connections, and never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    forge.set_delivery_timeout(Duration::from_millis(50));
    forge.add_hook(repository, &format!("http://{}/", silent.local_addr().unwrap()), "hush");
    push(&forge, repository, "1").await;
    push(&forge, repository, "2").await;
    let tried = |state: &helios_fakeforge::ForgeState| {
        let tries: Vec<_> = state.deliveries().iter().flat_map(|d| d.tries.clone()).collect();
        (tries.len() == 2).then_some(tries)
    };
    let tries = forge.wait_for("two tries", deadline::PROMPT, tried).await.unwrap();
    for tried in &tries {
        assert!(
            tried.outcome.as_ref().is_err_and(|why| why.contains("timeout")),
            "{tried:?}"
        );
    }
    assert!(
        forge
            .state()
            .deliveries()
            .iter()
            .all(|delivery| delivery.tries.len() == 1)
    );
}

#[tokio::test]
async fn a_hook_speaks_as_it_is_configured() {
    let (forge, repository) = scene().await;
    let (url, inbox) = receiver().await;
    let hook = |change: fn(&mut NewHook)| {
        let mut new = NewHook::new(&url, "hush");
        change(&mut new);
        forge.add_hook_with(repository, new);
    };
    hook(|new| new.content = Content::Form);
    hook(|new| new.kind = HookType::Slack);
    hook(|new| new.kind = HookType::MsTeams);
    hook(|new| new.active = false);
    hook(|new| new.events = vec!["create".to_owned()]);
    let sha = push(&forge, repository, "1 + 2").await;
    forge.update_ref(repository, "refs/tags/v1", Some(&sha)).await.unwrap();
    forge
        .wait_for("deliveries", deadline::PROMPT, |state| {
            let all = state.deliveries();
            (all.len() == 10 && all.iter().all(|d| !d.tries.is_empty())).then_some(())
        })
        .await
        .unwrap();
    let seen = inbox.lock().unwrap().clone();
    let (headers, form) = &seen[0];
    assert_eq!(headers["content-type"], "application/x-www-form-urlencoded");
    let form = std::str::from_utf8(form).unwrap();
    let payload = decoded(form.strip_prefix("payload=").unwrap());
    let body: Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!(
        (&body["after"], &body["head_commit"]["message"]),
        (&json!(sha), &json!("1 + 2"))
    );
    // Signed is what the form carries, and not the form.
    assert!(signed(headers, &payload, "hush") && !signed(headers, form.as_bytes(), "hush"));
    for (headers, message) in &seen[1..3] {
        assert_eq!(
            (&headers["x-forgejo-event"], &headers["content-type"]),
            (&"push".parse().unwrap(), &"application/json".parse().unwrap())
        );
        assert!(signed(headers, message, "hush"));
        let message: Value = serde_json::from_slice(message).unwrap();
        assert!(
            message["after"].is_null() && message["repository"].is_null(),
            "{message}"
        );
        let text = message["text"].as_str().or(message["title"].as_str()).unwrap();
        assert!(text.contains("acme/app"), "{message}");
    }
    // The hook for `create` was sent the tag alone, the inactive one nothing.
    let events: Vec<_> = seen
        .iter()
        .map(|(headers, _)| headers["x-forgejo-event"].to_str().unwrap())
        .collect();
    assert_eq!(events.iter().filter(|event| **event == "create").count(), 4);
    assert_eq!(events.iter().filter(|event| **event == "push").count(), 6);
}

/// The bytes behind the percent signs.
fn decoded(text: &str) -> Vec<u8> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::new();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let two = [bytes.next().unwrap(), bytes.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&two).unwrap(), 16).unwrap()
            }
            b'+' => b' ',
            byte => byte,
        });
    }
    decoded
}

#[tokio::test]
async fn hooks_are_made_tested_and_removed_through_the_api() {
    let (forge, repository) = scene().await;
    let (url, inbox) = receiver().await;
    forge.add_collaborator(repository, "carol", Access::Admin);
    let admin = format!("token {}", forge.create_token_with("carol", &["write:repository"]));
    let bot = format!("token {}", forge.create_token("bot", true));
    let hooks = format!("{}/api/v1/repos/acme/app/hooks", forge.url());
    let body = |active: Option<bool>| {
        let mut body = json!({"type": "forgejo", "config": {"url": url, "content_type": "json", "secret": "hush"}});
        body["authorization_header"] = "Bearer sesame".into();
        if let Some(active) = active {
            body["active"] = active.into();
        }
        Some(body)
    };
    assert_eq!(
        call("POST", &hooks, Some(&bot), body(None)).await.0,
        403,
        "to write is not enough"
    );
    assert_eq!(call("POST", &hooks, None, body(None)).await.0, 401);
    for wrong in [
        json!({"type": "forgejo", "config": {"url": url}}),
        json!({"type": "forgejo", "config": {"url": url, "content_type": "xml"}}),
        json!({"type": "carrier-pigeon", "config": {"url": url, "content_type": "json"}}),
        json!({"type": "slack", "config": {"url": url, "content_type": "json"}}),
        // Not of a real one: a filter that would not be kept to.
        json!({"type": "forgejo", "config": {"url": url, "content_type": "json"}, "branch_filter": "rel-*"}),
    ] {
        assert_eq!(
            call("POST", &hooks, Some(&admin), Some(wrong.clone())).await.0,
            422,
            "{wrong}"
        );
    }
    let (status, quiet) = call("POST", &hooks, Some(&admin), body(None)).await;
    assert_eq!(
        (status, &quiet["active"]),
        (201, &json!(false)),
        "unless it is asked for"
    );
    let (status, hook) = call("POST", &hooks, Some(&admin), body(Some(true))).await;
    assert_eq!(
        (status, &hook["active"], &hook["events"]),
        (201, &json!(true), &json!(["push"]))
    );
    assert!(!hook.to_string().contains("hush"), "{hook}");
    assert_eq!(
        call("GET", &hooks, Some(&admin), None).await.1.as_array().map(Vec::len),
        Some(2)
    );

    let tests = format!("{hooks}/{}/tests", hook["id"]);
    assert_eq!(call("POST", &tests, Some(&admin), None).await.0, 204);
    assert_eq!(
        call("POST", &format!("{tests}?ref=main"), Some(&admin), None).await.0,
        204
    );
    assert_eq!(call("POST", &tests, Some(&bot), None).await.0, 403);
    let got = delivered(&forge, &inbox, 2).await;
    for ((headers, body), name) in got.iter().zip(["refs/heads/main", "main"]) {
        assert_eq!(headers["x-forgejo-event"], "push");
        assert_eq!(body["ref"], name, "as it was asked for");
        assert_eq!(headers["authorization"], "Bearer sesame");
        assert_eq!(body["before"], body["after"]);
        assert_eq!(
            (&body["total_commits"], &body["sender"]["login"]),
            (&json!(1), &json!("carol"))
        );
    }
    let (headers, bytes) = inbox.lock().unwrap()[0].clone();
    assert!(signed(&headers, &bytes, "hush"));
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"hush");
    assert_eq!(
        headers["x-forgejo-signature"],
        hex::encode(hmac::sign(&key, &bytes)).as_str()
    );

    // A repository without a commit has nothing to show.
    let empty = forge
        .create_repository(Kind::Forgejo, "carol/empty", false)
        .await
        .unwrap();
    let hook_of_empty = forge.add_hook(empty, &url, "hush");
    let tests = format!("{}/api/v1/repos/carol/empty/hooks/{hook_of_empty}/tests", forge.url());
    assert_eq!(call("POST", &tests, Some(&admin), None).await.0, 500);
    assert!(forge.test_hook(hook_of_empty).await.is_err());

    let this = format!("{hooks}/{}", hook["id"]);
    assert_eq!(call("GET", &this, Some(&admin), None).await.0, 200);
    assert_eq!(call("DELETE", &this, Some(&admin), None).await.0, 204);
    assert_eq!(call("GET", &this, Some(&admin), None).await.0, 404);
    assert_eq!(call("DELETE", &this, Some(&admin), None).await.0, 404);
    // What was sent wrong on purpose is no violation of ours.
    let wrong: Vec<_> = forge
        .violations()
        .into_iter()
        .filter(|v| !v.operation.contains("/hooks"))
        .collect();
    assert_eq!(wrong, []);
}
