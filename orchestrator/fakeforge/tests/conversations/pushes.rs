//! What Forgejo tells of pushes.

use crate::common::{delivered, events, forge, receiver};
use helios_fakeforge::Kind;
use serde_json::{Value, json};

#[tokio::test]
async fn tags_deletions_and_forced_pushes_are_sent() {
    let forge = forge().await;
    let (url, inbox) = receiver().await;
    let repository = forge.create_repository(Kind::Forgejo, "acme/app", false).await.unwrap();
    let one = forge.push(repository, "main", &[("a", "1", 0o644)], "1").await.unwrap();
    let two = forge.push(repository, "main", &[("a", "2", 0o644)], "2").await.unwrap();
    forge.add_hook(repository, &url, "hush");
    let set = async |name: &str, sha: Option<&str>| forge.update_ref(repository, name, sha).await.unwrap();
    set("refs/tags/v1", Some(&two)).await;
    set("refs/tags/v1", Some(&one)).await;
    set("refs/heads/main", Some(&one)).await;
    set("refs/heads/topic", Some(&one)).await;
    set("refs/heads/topic", None).await;
    set("refs/tags/v1", None).await;
    let object = forge.push_annotated_tag(repository, "v2", &one).await.unwrap();
    let got = delivered(&forge, &inbox, 12).await;
    let mut rest = events(&got);
    let mut next = |wanted: &[(&str, &str)]| {
        // A push and what comes with it may come in any order.
        let mut some: Vec<_> = rest.drain(..wanted.len()).collect();
        some.sort_unstable();
        assert_eq!(some, wanted);
    };
    next(&[("create", "refs/tags/v1"), ("push", "refs/tags/v1")]);
    next(&[("create", "refs/tags/v1"), ("push", "refs/tags/v1")]);
    next(&[("push", "refs/heads/main")]);
    next(&[("create", "refs/heads/topic"), ("push", "refs/heads/topic")]);
    next(&[("delete", "refs/heads/topic")]);
    next(&[("delete", "refs/tags/v1"), ("push", "refs/tags/v1")]);
    next(&[("create", "refs/tags/v2"), ("push", "refs/tags/v2")]);
    assert!(rest.is_empty(), "{rest:?}");

    let zero = "0".repeat(40);
    let bodies = |event: &str, name: &str| -> Vec<&Value> {
        let wanted = |(headers, body): &&(_, Value)| -> bool {
            let headers: &axum::http::HeaderMap = headers;
            headers["x-forgejo-event"] == event && body["ref"] == name
        };
        got.iter().filter(wanted).map(|(_, body)| body).collect()
    };
    let tag = bodies("push", "refs/tags/v1");
    let moves: Vec<_> = tag.iter().map(|body| (&body["before"], &body["after"])).collect();
    let (zero, one_json, two_json) = (json!(zero), json!(one), json!(two));
    assert_eq!(
        moves,
        [(&zero, &two_json), (&zero, &one_json), (&one_json, &zero)],
        "a tag that moved has no `before`"
    );
    for body in &tag {
        assert_eq!((&body["commits"], &body["total_commits"]), (&json!([]), &json!(0)));
    }
    assert_eq!(
        (&tag[0]["head_commit"]["id"], &tag[2]["head_commit"]),
        (&two_json, &Value::Null)
    );
    assert_eq!(bodies("push", "refs/heads/main")[0]["before"], two_json);
    let created = bodies("create", "refs/heads/topic")[0];
    assert_eq!((&created["ref_type"], &created["sha"]), (&json!("branch"), &one_json));
    let deleted = bodies("delete", "refs/heads/topic")[0];
    assert_eq!(
        (&deleted["ref_type"], &deleted["pusher_type"]),
        (&json!("branch"), &json!("user"))
    );
    // An annotated tag is its own object; its commit is beside it.
    let annotated = bodies("push", "refs/tags/v2")[0];
    assert_eq!(
        (&annotated["after"], &annotated["head_commit"]["id"]),
        (&json!(object), &one_json)
    );
    assert_eq!(bodies("create", "refs/tags/v2")[0]["sha"], json!(object));
}

#[tokio::test]
async fn a_push_shows_its_five_newest_commits_and_counts_all() {
    let forge = forge().await;
    let (url, inbox) = receiver().await;
    let repository = forge.create_repository(Kind::Forgejo, "acme/app", false).await.unwrap();
    forge.push(repository, "main", &[("a", "0", 0o644)], "0").await.unwrap();
    // Twelve commits on a branch that no hook is sent, and then one push of all.
    for number in 1..=12 {
        let message = number.to_string();
        let files = [("a", message.as_str(), 0o644)];
        forge.push(repository, "side", &files, &message).await.unwrap();
    }
    forge.add_hook(repository, &url, "hush");
    let tip = git_tip(&forge, repository, "side");
    forge
        .update_ref(repository, "refs/heads/main", Some(&tip))
        .await
        .unwrap();
    forge
        .update_ref(repository, "refs/heads/new", Some(&tip))
        .await
        .unwrap();
    let got = delivered(&forge, &inbox, 3).await;
    for ((_, body), total) in got.iter().zip([12, 10]) {
        let shown = body["commits"].as_array().unwrap();
        let shown: Vec<&str> = shown.iter().map(|commit| commit["message"].as_str().unwrap()).collect();
        assert_eq!(shown, ["12", "11", "10", "9", "8"]);
        assert_eq!(body["total_commits"], json!(total));
        assert_eq!(body["head_commit"]["id"], json!(tip));
    }
}

fn git_tip(forge: &helios_fakeforge::FakeForge, repository: i64, branch: &str) -> String {
    let dir = forge.repository_dir(repository).unwrap();
    let found = crate::common::git(&dir, &["rev-parse", &format!("refs/heads/{branch}")]);
    String::from_utf8_lossy(&found.stdout).trim().to_owned()
}
