//! Repositories that move, go, and are followed by others.

use crate::common::{call, forge, git, status_of};
use helios_fakeforge::{FakeForge, Kind};
use serde_json::{Value, json};

/// One call that follows nothing: status, `Location`, answer.
async fn straight(forge: &FakeForge, method: &str, path: &str, token: &str) -> (u16, String, Value) {
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let mut request = client
        .request(method.parse().unwrap(), format!("{}{path}", forge.url()))
        .header("authorization", format!("token {token}"));
    if method == "POST" {
        request = request.json(&status_of("success", "c"));
    }
    let answer = request.send().await.unwrap();
    let location = answer.headers().get("location").map(|l| l.to_str().unwrap().to_owned());
    let status = answer.status().as_u16();
    let body = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or(Value::Null);
    (status, location.unwrap_or_default(), body)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_path_leads_to_the_new_one_for_every_method() {
    let forge = forge().await;
    let repository = forge.create_repository(Kind::Forgejo, "acme/app", false).await.unwrap();
    let sha = forge.push(repository, "main", &[("a", "1", 0o644)], "1").await.unwrap();
    let old_clone = forge.clone_url(repository).unwrap();
    let token = forge.create_token("bot", true);
    let of_the_owner = forge.create_token_with("other", &["write:repository"]);
    forge.rename_repository(repository, "acme/renamed").unwrap();
    forge.rename_repository(repository, "other/moved").unwrap();
    forge.rename_owner("other", "another").unwrap();
    for old in ["acme/app", "ACME/App", "acme/renamed", "other/moved"] {
        for (method, rest) in [
            ("GET", String::new()),
            ("GET", format!("/commits/{sha}/statuses?limit=50&page=1")),
            ("POST", format!("/statuses/{sha}")),
        ] {
            let (status, location, _) = straight(&forge, method, &format!("/api/v1/repos/{old}{rest}"), &token).await;
            assert_eq!(status, 307, "{method} {old}{rest}");
            assert_eq!(location, format!("/api/v1/repos/another/moved{rest}"));
        }
    }
    assert_eq!(forge.history(&sha), [], "a redirect stores nothing");
    let (status, _, shape) = straight(&forge, "GET", &format!("/api/v1/repositories/{repository}"), &token).await;
    assert_eq!((status, &shape["full_name"]), (200, &json!("another/moved")));
    // Its owner has another name, and the same token.
    for token in [&token, &of_the_owner] {
        let path = format!("/api/v1/repos/another/moved/statuses/{sha}");
        let (status, ..) = straight(&forge, "POST", &path, token).await;
        assert_eq!(status, 201);
    }
    // git follows, too.
    let dir = tempfile::tempdir().unwrap();
    assert!(git(dir.path(), &["ls-remote", &old_clone]).status.success());
    let strict = ["-c", "http.followRedirects=false", "ls-remote", &old_clone];
    assert!(!git(dir.path(), &strict).status.success());
}

#[tokio::test]
async fn another_repository_may_come_to_the_path_of_one_that_is_gone() {
    let forge = forge().await;
    let token = forge.create_token("bot", true);
    let first = forge.create_repository(Kind::Forgejo, "acme/app", false).await.unwrap();
    let sha = forge.push(first, "main", &[("a", "1", 0o644)], "1").await.unwrap();
    forge.add_hook(first, "http://127.0.0.1:1/", "hush");
    forge.delete_repository(first).await.unwrap();
    let get = async |path: &str| straight(&forge, "GET", path, &token).await;
    assert_eq!(get("/api/v1/repos/acme/app").await.0, 404);
    assert_eq!(get(&format!("/api/v1/repositories/{first}")).await.0, 404);

    let second = forge.create_repository(Kind::Forgejo, "acme/app", false).await.unwrap();
    assert_ne!(first, second);
    assert_eq!(get("/api/v1/repos/acme/app").await.2["id"], json!(second));
    forge.push(second, "main", &[("a", "2", 0o644)], "2").await.unwrap();
    assert_eq!(forge.state().deliveries().len(), 0, "its hook went with the first");
    let (status, ..) = straight(
        &forge,
        "POST",
        &format!("/api/v1/repos/acme/app/statuses/{sha}"),
        &token,
    )
    .await;
    assert_eq!(status, 500, "the first one's commit");

    // One that comes to where another has been ends the way to that one, and each keeps its files.
    forge.rename_repository(second, "acme/moved").unwrap();
    let third = forge.create_repository(Kind::Forgejo, "acme/app", false).await.unwrap();
    assert_eq!(get("/api/v1/repos/acme/app").await.2["id"], json!(third));
    assert_eq!(get("/api/v1/repos/acme/app/branches/main").await.0, 404, "empty");
    assert_eq!(get("/api/v1/repos/acme/moved/branches/main").await.0, 200);
    let (status, _) = call("GET", &format!("{}/api/v1/repos/acme/app", forge.url()), None, None).await;
    assert_eq!(status, 200);
}
