//! Who may what on the Forgejo side: scopes, collaborators, and what is answered to those who may not.

use crate::common::{call, forge, git, status_of, with_token};
use helios_fakeforge::{Access, FakeForge, Kind};
use serde_json::json;

/// One call; status and what it says.
async fn ask(forge: &FakeForge, token: Option<&str>, path: &str) -> (u16, String) {
    let token = token.map(|token| format!("token {token}"));
    let (status, answer) = call("GET", &format!("{}/api/v1{path}", forge.url()), token.as_deref(), None).await;
    (status, answer["message"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_wrong_token_is_refused_on_every_route() {
    let forge = forge().await;
    assert_eq!(ask(&forge, None, "/version").await.0, 200);
    for path in ["/version", "/user", "/repos/acme/app", "/nothing"] {
        assert_eq!(ask(&forge, Some("wrong"), path).await.0, 401, "{path}");
    }
    assert_eq!(ask(&forge, None, "/user").await, (401, "token is required".to_owned()));
}

#[tokio::test]
async fn each_call_needs_its_scope() {
    let forge = forge().await;
    let repository = forge.create_repository(Kind::Forgejo, "acme/app", false).await.unwrap();
    let sha = forge.push(repository, "main", &[("a", "1", 0o644)], "1").await.unwrap();
    forge.add_collaborator(repository, "bot", Access::Write);
    let lacks = |scope: &str| format!("token does not have at least one of required scope(s): [{scope}]");
    let only = |scopes: &[&str]| forge.create_token_with("bot", scopes);

    let writes = only(&["write:repository"]);
    assert_eq!(ask(&forge, Some(&writes), "/user").await, (403, lacks("read:user")));
    assert_eq!(
        ask(&forge, Some(&writes), "/repos/acme/app").await.0,
        200,
        "to write is to read"
    );
    assert_eq!(ask(&forge, Some(&writes), "/version").await.0, 200);

    let reads = only(&["read:user", "read:repository"]);
    assert_eq!(ask(&forge, Some(&reads), "/user").await.0, 200);
    let post = async |token: &str| {
        let url = format!("{}/api/v1/repos/acme/app/statuses/{sha}", forge.url());
        let token = format!("token {token}");
        let (status, answer) = call("POST", &url, Some(&token), status_of("success", "c")).await;
        (status, answer["message"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(post(&reads).await, (403, lacks("write:repository")));
    assert_eq!(post(&writes).await.0, 201);

    let nothing = only(&["read:user"]);
    assert_eq!(
        ask(&forge, Some(&nothing), "/repos/acme/app").await,
        (403, lacks("read:repository"))
    );
    // The scope is asked before it is said whether there is such a repository.
    assert_eq!(
        ask(&forge, Some(&nothing), "/repos/acme/no").await,
        (403, lacks("read:repository"))
    );
    // The same token, mended.
    forge.add_token_with("bot", &["read:user", "write:repository"], &nothing);
    assert_eq!(post(&nothing).await.0, 201);
}

#[tokio::test]
async fn a_repository_is_what_its_user_may_see_and_do() {
    let forge = forge().await;
    let private = forge
        .create_repository(Kind::Forgejo, "acme/secret", true)
        .await
        .unwrap();
    let public = forge.create_repository(Kind::Forgejo, "acme/app", false).await.unwrap();
    let mut commits = Vec::new();
    for repository in [private, public] {
        commits.push(forge.push(repository, "main", &[("a", "1", 0o644)], "1").await.unwrap());
    }
    let token = forge.create_token_with("bot", &["write:repository"]);
    let header = format!("token {token}");
    let shown = async |path: &str| call("GET", &format!("{}/api/v1{path}", forge.url()), Some(&header), None).await;
    let post = async |path: &str, sha: &str| {
        let url = format!("{}/api/v1/repos/{path}/statuses/{sha}", forge.url());
        call("POST", &url, Some(&header), status_of("success", "c")).await.0
    };
    let by_number = format!("/repositories/{private}");

    // A stranger: the private one does not exist, of the public one statuses cannot be set.
    assert_eq!(shown("/repos/acme/secret").await.0, 404);
    assert_eq!(shown(&by_number).await.0, 404);
    assert_eq!(post("acme/secret", &commits[0]).await, 404);
    assert_eq!(post("acme/app", &commits[1]).await, 403);
    let may = async |path: &str| shown(path).await.1["permissions"].clone();
    assert_eq!(
        may("/repos/acme/app").await,
        json!({"admin": false, "push": false, "pull": true})
    );

    for (access, push, admin) in [
        (Access::Read, false, false),
        (Access::Write, true, false),
        (Access::Admin, true, true),
    ] {
        forge.add_collaborator(private, "bot", access);
        let wanted = json!({"admin": admin, "push": push, "pull": true});
        assert_eq!(may("/repos/acme/secret").await, wanted);
        assert_eq!(may(&by_number).await, wanted);
        assert_eq!(post("acme/secret", &commits[0]).await, if push { 201 } else { 403 });
        assert_eq!(shown("/repos/acme/secret/hooks").await.0, if admin { 200 } else { 403 });
        let right = "/repos/acme/secret/collaborators/bot/permission";
        assert_eq!(
            shown(right).await.0,
            if admin { 200 } else { 403 },
            "a bot is not told of itself"
        );
    }
    let (_, right) = shown("/repos/acme/secret/collaborators/acme/permission").await;
    assert_eq!(right["permission"], "owner");
    forge.remove_collaborator(private, "bot");
    assert_eq!(shown("/repos/acme/secret").await.0, 404);

    // Whoever was given everything loses this one alone.
    let everywhere = forge.create_token("ci", true);
    assert_eq!(ask(&forge, Some(&everywhere), "/repos/acme/secret").await.0, 200);
    forge.remove_collaborator(private, "ci");
    assert_eq!(ask(&forge, Some(&everywhere), "/repos/acme/secret").await.0, 404);
    assert_eq!(ask(&forge, Some(&everywhere), "/repos/acme/app").await.0, 200);
}

#[tokio::test]
async fn a_token_for_public_repositories_is_refused_at_a_private_one() {
    let forge = forge().await;
    let private = forge
        .create_repository(Kind::Forgejo, "acme/secret", true)
        .await
        .unwrap();
    forge.create_repository(Kind::Forgejo, "acme/app", false).await.unwrap();
    forge.add_collaborator(private, "bot", Access::Write);
    let token = forge.create_token_with("bot", &["write:repository", "public-only"]);
    assert_eq!(ask(&forge, Some(&token), "/repos/acme/app").await.0, 200);
    assert_eq!(
        ask(&forge, Some(&token), "/repos/acme/secret").await,
        (403, "token scope is limited to public repos".to_owned())
    );
    forge.remove_collaborator(private, "bot");
    assert_eq!(
        ask(&forge, Some(&token), "/repos/acme/secret").await.0,
        404,
        "out of sight"
    );
}

#[tokio::test]
async fn a_repository_says_what_is_on_and_whether_it_is_empty() {
    let forge = forge().await;
    let repository = forge.create_repository(Kind::Forgejo, "acme/app", true).await.unwrap();
    let token = format!("token {}", forge.create_token("bot", true));
    let shown = async || {
        call(
            "GET",
            &format!("{}/api/v1/repos/acme/app", forge.url()),
            Some(&token),
            None,
        )
        .await
        .1
    };
    let before = shown().await;
    assert_eq!(
        (&before["empty"], &before["has_actions"], &before["archived"]),
        (&json!(true), &json!(true), &json!(false))
    );
    // The first branch that is pushed is the default one.
    forge
        .push(repository, "trunk", &[("a", "1", 0o644)], "1")
        .await
        .unwrap();
    forge.set_has_actions(repository, false).unwrap();
    forge.set_archived(repository, true).unwrap();
    let after = shown().await;
    assert_eq!(
        (&after["empty"], &after["has_actions"], &after["archived"]),
        (&json!(false), &json!(false), &json!(true))
    );
    assert_eq!(
        (&after["default_branch"], &after["private"]),
        (&json!("trunk"), &json!(true))
    );
    assert_eq!(forge.violations(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn git_follows_the_same_rights() {
    let forge = forge().await;
    let repository = forge.create_repository(Kind::Forgejo, "acme/app", true).await.unwrap();
    forge.push(repository, "main", &[("a", "1", 0o644)], "1").await.unwrap();
    forge.add_collaborator(repository, "bot", Access::Read);
    let dir = tempfile::tempdir().unwrap();
    let clone = forge.clone_url(repository).unwrap();
    let list = |setting: &str, url: &str| {
        let listed = git(dir.path(), &["-c", setting, "ls-remote", url]);
        match listed.status.success() {
            true => "listed".to_owned(),
            false => String::from_utf8_lossy(&listed.stderr).into_owned(),
        }
    };
    let refused = |said: &str, code: &str| assert!(said.contains(code), "{code}: {said}");
    let good = forge.create_token_with("bot", &["read:repository"]);
    assert_eq!(list(&with_token(&good), &clone), "listed");
    let header = format!("http.extraHeader=Authorization: token {good}");
    assert_eq!(list(&header, &clone), "listed");
    refused(&list(&with_token("wrong"), &clone), "could not read Username");
    for scopes in [&["read:user"][..], &["read:repository", "public-only"]] {
        refused(
            &list(&with_token(&forge.create_token_with("bot", scopes)), &clone),
            "403",
        );
    }
    refused(&list(&with_token(&good), &clone.replace("app", "none")), "not found");
    let work = dir.path().join("work");
    let setting = with_token(&forge.create_token_with("bot", &["write:repository"]));
    assert!(
        git(dir.path(), &["-c", &setting, "clone", "-q", &clone, "work"])
            .status
            .success()
    );
    let push = || {
        git(&work, &["-c", &setting, "push", "-q", "origin", "HEAD:refs/heads/x"])
            .status
            .success()
    };
    assert!(!push(), "may only read");
    forge.add_collaborator(repository, "bot", Access::Write);
    assert!(push());
    forge.remove_collaborator(repository, "bot");
    refused(&list(&setting, &clone), "not found");
}
