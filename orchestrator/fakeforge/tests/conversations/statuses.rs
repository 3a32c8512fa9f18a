//! Commit statuses of the Forgejo side, also where the real one does not do what its description promises.

use crate::common::{call, forge, status_of};
use helios_fakeforge::Kind;
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
    assert!(all[0]["creator"]["login"] == "bot", "{all}");
    let (_, page) = call("GET", &format!("{commits}/statuses?limit=1&page=2"), None, None).await;
    assert_eq!(page.as_array().unwrap().len(), 1);
    let (_, combined) = call("GET", &format!("{commits}/status"), None, None).await;
    assert_eq!(
        (&combined["state"], &combined["total_count"]),
        (&json!("failure"), &json!(2))
    );
    assert_eq!(forge.violations(), []);
}

/// A repository with one commit, and what a bot needs to set statuses in it.
async fn scene() -> (helios_fakeforge::FakeForge, i64, String, String) {
    let forge = forge().await;
    let repository = forge.create_repository(Kind::Forgejo, "acme/app", false).await.unwrap();
    let files = [("a", "1", 0o644)];
    let sha = forge.push(repository, "main", &files, "first").await.unwrap();
    let token = format!("token {}", forge.create_token("bot", true));
    (forge, repository, sha, token)
}

#[tokio::test]
async fn any_word_is_stored_as_a_state_and_written_down_as_wrong() {
    let (forge, _, sha, token) = scene().await;
    let url = format!("{}/api/v1/repos/acme/app/statuses/{sha}", forge.url());
    for state in [" success ", "skipped", "neutral", ""] {
        let (status, answer) = call("POST", &url, Some(&token), status_of(state, "c")).await;
        assert_eq!((status, &answer["status"]), (201, &json!(state.trim())), "{state}");
    }
    assert_eq!(forge.state().words(&sha, "c"), ["success", "skipped", "neutral", ""]);
    let wrong = forge.violations();
    assert!(wrong.len() >= 3, "{wrong:?}");
    assert!(
        wrong
            .iter()
            .all(|wrong| wrong.operation == "POST /api/v1/repos/{owner}/{repo}/statuses/{sha}"),
        "{wrong:?}"
    );
    let (status, _) = call("POST", &url, Some(&token), Some(json!({"state": 3, "context": "c"}))).await;
    assert_eq!(status, 422, "no text");
}

#[tokio::test]
async fn what_fails_beside_a_status_is_answered_500_whether_it_was_stored_or_not() {
    let (forge, _, sha, token) = scene().await;
    let url = |path: &str, sha: &str| format!("{}/api/v1/repos/{path}/statuses/{sha}", forge.url());
    // A commit that the repository does not have.
    let missing = "0123456789012345678901234567890123456789";
    let (status, answer) = call(
        "POST",
        &url("acme/app", missing),
        Some(&token),
        status_of("success", "c"),
    )
    .await;
    assert_eq!((status, &answer["message"]), (500, &json!("")));
    assert_eq!(forge.history(missing), []);
    // Only a tag was pushed, so there is no default branch.
    let tagged = forge
        .create_repository(Kind::Forgejo, "acme/tagged", false)
        .await
        .unwrap();
    let commit = forge.commit(tagged, "main", &[("a", "1", 0o644)], "1").await.unwrap();
    forge.update_ref(tagged, "refs/tags/v1", Some(&commit)).await.unwrap();
    for state in ["pending", "success"] {
        let (status, _) = call(
            "POST",
            &url("acme/tagged", &commit),
            Some(&token),
            status_of(state, "c"),
        )
        .await;
        assert_eq!(status, 500);
    }
    assert_eq!(forge.state().words(&commit, "c"), ["pending", "success"], "stored");
    assert_eq!(forge.history(&sha), []);
}

#[tokio::test]
async fn a_list_is_in_the_order_of_seconds_and_whole_unless_a_page_is_named() {
    let (forge, _, sha, token) = scene().await;
    let url = format!("{}/api/v1/repos/acme/app/statuses/{sha}", forge.url());
    for number in 0..60 {
        let context = format!("c{number}");
        let (status, _) = call("POST", &url, Some(&token), status_of("success", &context)).await;
        assert_eq!(status, 201);
    }
    let get = async |query: &str| {
        let (_, all) = call("GET", &format!("{url}{query}"), None, None).await;
        all.as_array().unwrap().clone()
    };
    let all = get("").await;
    assert_eq!(all.len(), 60);
    let time = |status: &Value| status["created_at"].as_str().unwrap().to_owned();
    let id = |status: &Value| status["id"].as_i64().unwrap();
    for two in all.windows(2) {
        let newer_first = time(&two[0]) > time(&two[1]);
        assert!(newer_first || time(&two[0]) == time(&two[1]) && id(&two[0]) < id(&two[1]));
    }
    for (query, count) in [
        ("?page=1", 30),
        ("?page=2&limit=50", 10),
        ("?page=1&limit=100", 50),
        ("?page=4", 0),
    ] {
        assert_eq!(get(query).await.len(), count, "{query}");
    }
    assert_eq!(get(&format!("?page=1&limit={}", 1)).await.len(), 1);
    // A commit that is not there has none.
    let missing = url.replace(&sha, &"a".repeat(40));
    assert_eq!(call("GET", &missing, None, None).await, (200, json!([])));
}

#[tokio::test]
async fn the_combined_state_is_that_of_one_page() {
    let (forge, _, sha, token) = scene().await;
    let url = format!("{}/api/v1/repos/acme/app/statuses/{sha}", forge.url());
    let combined = async |query: &str| {
        let url = format!("{}/api/v1/repos/acme/app/commits/main/status{query}", forge.url());
        call("GET", &url, None, None).await.1["state"].clone()
    };
    assert_eq!(combined("").await, "", "none yet");
    let nowhere = format!("{}/api/v1/repos/acme/app/commits/nowhere/status", forge.url());
    let (status, answer) = call("GET", &nowhere, None, None).await;
    assert_eq!(
        (status, &answer["state"], &answer["statuses"]),
        (200, &json!(""), &Value::Null)
    );
    let set = async |state: &str, context: &str| {
        assert_eq!(call("POST", &url, Some(&token), status_of(state, context)).await.0, 201);
    };
    // From the best to the worst.
    for state in ["success", "pending", "warning", "failure", "error"] {
        set(state, state).await;
        assert_eq!(combined("").await, state);
    }
    // Thirty later contexts hide the red ones.
    for number in 0..30 {
        set("success", &format!("c{number}")).await;
    }
    assert_eq!(combined("").await, "success");
    assert_eq!(combined("?page=2").await, "error");
    assert_eq!(combined("?limit=50").await, "error");
}
