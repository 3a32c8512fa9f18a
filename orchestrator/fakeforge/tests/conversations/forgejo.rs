//! Conversations with the Forgejo side: reading, git, and the forge's page.

use std::time::Duration;

use crate::{
    common::{call, delivered, forge, git, receiver, signed, with_token},
    deadline,
};
use helios_fakeforge::Kind;
use serde_json::json;

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
    // All refs that begin with the name; a list also where there is one.
    for (name, count) in [("main", 2), ("main-2", 1)] {
        let (_, refs) = get(&format!("/repos/acme/app/git/refs/heads/{name}")).await;
        assert_eq!(refs.as_array().map(Vec::len), Some(count), "{refs}");
        assert_eq!(refs[0]["ref"], format!("refs/heads/{name}"));
    }
    assert_eq!(get("/repos/acme/app/git/refs/heads/x").await.0, 404);
    // An annotated tag points at an object of its own, from which the commit is found.
    let tag = forge.push_annotated_tag(repository, "v1", &sha).await.unwrap();
    let (_, refs) = get("/repos/acme/app/git/refs/tags/v1").await;
    assert_eq!(refs[0]["object"]["type"], "tag");
    assert_eq!(refs[0]["object"]["sha"], json!(tag));
    assert_eq!(
        get(&format!("/repos/acme/app/git/commits/{tag}")).await.1["sha"],
        json!(sha)
    );
    assert_eq!(forge.violations(), []);
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

    let dir = tempfile::tempdir().unwrap();
    assert!(!git(dir.path(), &["clone", "-q", &clone, "none"]).status.success());
    let mine = with_token(&token);
    let cloned = git(dir.path(), &["-c", &mine, "clone", "-q", &clone, "work"]);
    assert!(cloned.status.success(), "{}", String::from_utf8_lossy(&cloned.stderr));
    let work = dir.path().join("work");
    std::fs::write(work.join("new.txt"), "x".repeat(200_000)).unwrap();
    assert!(git(&work, &["add", "."]).status.success());
    assert!(git(&work, &["commit", "-q", "-m", "second\n\nbody"]).status.success());
    let theirs = with_token(&reader);
    let refused = git(&work, &["-c", &theirs, "push", "-q", "origin", "main"]);
    assert!(!refused.status.success());
    let pushed = git(&work, &["-c", &mine, "push", "-q", "origin", "main:main", "main:topic"]);
    assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));

    // Two branches moved; one of them is new and is also sent as `create`.
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
