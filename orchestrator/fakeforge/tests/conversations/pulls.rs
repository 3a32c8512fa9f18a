//! Pull requests of the Forgejo side.

use crate::common::{delivered, forge, git, receiver};
use helios_fakeforge::{Kind, NewHook};
use serde_json::{Value, json};

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
async fn what_anybody_may_push_looks_as_if_it_came_from_the_base() {
    let forge = forge().await;
    let (url, inbox) = receiver().await;
    let base = forge.create_repository(Kind::Forgejo, "acme/app", false).await.unwrap();
    forge.push(base, "main", &[("a", "1", 0o644)], "1").await.unwrap();
    let fork = forge.fork(base, "eve/app").await.unwrap();
    forge.push(fork, "evil", &[("a", "2", 0o644)], "2").await.unwrap();
    let commit = forge.commit(base, "main", &[("a", "3", 0o644)], "3").await.unwrap();
    forge.add_hook(base, &url, "hush");
    let agit = forge
        .open_agit_pull_request((base, "main"), &commit, "eve")
        .await
        .unwrap();
    let (forked, sha) = forge
        .open_pull_request((base, "main"), (fork, "evil"), "eve")
        .await
        .unwrap();
    forge.delete_repository(fork).await.unwrap();
    assert_eq!(forge.close_pull_request(forked).await.unwrap(), sha);
    let got = delivered(&forge, &inbox, 3).await;
    let head = &got[0].1["pull_request"]["head"];
    assert_eq!(
        (&head["repo_id"], &head["label"], &head["ref"], &head["sha"]),
        (
            &json!(base),
            &json!(""),
            &json!(format!("refs/pull/{agit}/head")),
            &json!(commit)
        )
    );
    assert_eq!(head["repo"]["full_name"], "acme/app");
    assert_eq!(got[0].1["commit_id"], "");
    // A fork that is gone.
    let (closed, head) = (&got[2].1, &got[2].1["pull_request"]["head"]);
    assert_eq!(
        (&closed["action"], &closed["pull_request"]["state"]),
        (&json!("closed"), &json!("closed"))
    );
    assert_eq!(
        (&head["repo_id"], &head["repo"], &head["ref"], &head["sha"]),
        (
            &json!(-1),
            &Value::Null,
            &json!(format!("refs/pull/{forked}/head")),
            &json!(sha)
        )
    );
}

#[tokio::test]
async fn a_hook_for_one_kind_of_pull_request_event_is_sent_that_kind_alone() {
    let forge = forge().await;
    let base = forge.create_repository(Kind::Forgejo, "acme/app", false).await.unwrap();
    forge.push(base, "main", &[("a", "1", 0o644)], "1").await.unwrap();
    forge.push(base, "topic", &[("a", "2", 0o644)], "2").await.unwrap();
    forge.hold_deliveries(true);
    let hooks = ["pull_request", "pull_request_only", "pull_request_sync", "push"].map(|event| {
        let mut hook = NewHook::new("http://127.0.0.1:9/", "hush");
        hook.events = vec![event.to_owned()];
        forge.add_hook_with(base, hook)
    });
    let pull = forge.open_pull_request((base, "main"), (base, "topic"), "carol").await;
    let (number, _) = pull.unwrap();
    forge.synchronize_pull_request(number).await.unwrap();
    forge.close_pull_request(number).await.unwrap();
    let sent = hooks.map(|hook| {
        let state = forge.state();
        let of_hook = state.deliveries().iter().filter(|delivery| delivery.hook == hook);
        let bodies = of_hook.map(|delivery| serde_json::from_slice::<Value>(&delivery.body).unwrap());
        bodies
            .map(|body| body["action"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
            .join(" ")
    });
    assert_eq!(
        sent,
        ["opened synchronized closed", "opened closed", "synchronized", ""]
    );
}
