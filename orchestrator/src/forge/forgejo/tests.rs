mod reporting;

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::{
    deadline,
    forge::Access,
    forge::testing::{DETAILS, Description, Listener, Reply, SHA, STATES, Seen, report, repository},
    model::report::ReportState,
};

/// What the server does with the repository's path.
#[derive(Clone, Copy, PartialEq)]
enum World {
    AsIs,
    Renamed,
    Recreated,
    Gone,
}

fn answer(world: World, seen: &Seen) -> Reply {
    let gone = || Reply::Json(404, json!({"message": "The target couldn't be found.", "errors": []}));
    let at = |name: &str| Reply::Json(200, json!({"id": 42, "full_name": name, "unknown": null}));
    let tag = json!({"ref": "refs/tags/v1", "url": "x", "object": {"type": "tag", "sha": "2".repeat(40), "url": "x"}});
    let longer = json!({"ref": "refs/tags/v1.1", "object": {"type": "commit", "sha": "3".repeat(40)}});
    match (seen.line().as_str(), world) {
        ("GET /api/v1/repos/acme/tool", World::AsIs) => at("acme/tool"),
        ("GET /api/v1/repos/acme/tool", World::Renamed) => Reply::Json(307, json!({})),
        ("GET /api/v1/repos/acme/tool", World::Recreated) => {
            Reply::Json(200, json!({"id": 43, "full_name": "acme/tool"}))
        }
        ("GET /api/v1/repositories/42", World::AsIs) => at("acme/tool"),
        ("GET /api/v1/repositories/42", World::Renamed | World::Recreated) => at("acme/new"),
        ("POST /api/v1/repos/acme/tool/statuses/1111111111111111111111111111111111111111", World::AsIs)
        | ("POST /api/v1/repos/acme/new/statuses/1111111111111111111111111111111111111111", _) => {
            Reply::Json(201, json!({"id": 1, "status": seen.body["state"]}))
        }
        ("GET /api/v1/repos/acme/tool/git/refs/heads/a%23b/c", _) => Reply::Json(
            200,
            json!([{"ref": "refs/heads/a#b/cd", "object": {"type": "commit", "sha": "3".repeat(40)}},
                   {"ref": "refs/heads/a#b/c", "object": {"type": "commit", "sha": SHA}}]),
        ),
        // More branches begin like this than an answer of ours may hold.
        ("GET /api/v1/repos/acme/tool/git/refs/heads/r", _) => {
            Reply::Json(200, json!("x".repeat(crate::forge::http::MAX_BODY)))
        }
        ("GET /api/v1/repos/acme/tool/branches/r", _) => {
            Reply::Json(200, json!({"name": "r", "commit": {"id": SHA, "message": "x"}}))
        }
        ("GET /api/v1/repos/acme/tool/git/refs/tags/t", _) => {
            Reply::Json(200, json!("x".repeat(crate::forge::http::MAX_BODY)))
        }
        ("GET /api/v1/repos/acme/tool/tags/t", _) => Reply::Json(
            200,
            json!({"name": "t", "id": "4".repeat(40), "commit": {"sha": SHA, "url": "x"}}),
        ),
        ("GET /api/v1/repos/acme/tool/git/refs/heads/odd", _) => Reply::Json(422, json!({"message": "no"})),
        // A commit whose message is too long.
        ("GET /api/v1/repos/acme/tool/branches/a%23b/c", _) => Reply::Json(
            200,
            json!({"name": "a#b/c", "commit": {"id": SHA, "message": "x".repeat(crate::forge::http::MAX_BODY)}}),
        ),
        ("GET /api/v1/repos/acme/tool/git/refs/tags/v1", _) => Reply::Json(200, json!([longer, tag])),
        ("GET /api/v1/repos/acme/tool/git/refs/tags/v1.1", _) => Reply::Json(200, longer),
        ("GET /api/v1/repos/acme/tool/git/refs/tags/v", _) => Reply::Json(200, json!([longer, tag])),
        ("GET /api/v1/repos/acme/tool/git/commits/2222222222222222222222222222222222222222", _) => {
            Reply::Json(200, json!({"sha": SHA, "commit": {}}))
        }
        ("GET /api/v1/version", _) => Reply::Json(200, json!({"version": "9.0.0+gitea-1.22"})),
        ("GET /api/v1/user", _) => Reply::Json(200, json!({"id": 1, "login": "bot"})),
        _ => gone(),
    }
}

struct Rig {
    listener: Listener,
    forgejo: Forgejo,
}

/// What a forge that hangs is given.
const SHORT: Duration = Duration::from_secs(2);

async fn rig_with(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Rig {
    rig_within(deadline::PROMPT, answer).await
}

async fn rig_within(deadline: Duration, answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Rig {
    let listener = Listener::new(answer).await;
    let http = Outgoing::new(&listener.base, true).unwrap().with_deadline(deadline);
    let served = crate::forge::push::tests::served(&[]);
    let url = format!("{}/", listener.base);
    let forgejo = Forgejo::new(served, &url, http, &Secret::new("t0ken")).unwrap();
    Rig { listener, forgejo }
}

async fn rig(world: World) -> Rig {
    rig_with(move |seen| answer(world, seen)).await
}

impl Rig {
    fn statuses(&self) -> Vec<Seen> {
        self.listener
            .seen()
            .into_iter()
            .filter(|s| s.method == "POST")
            .collect()
    }

    fn described(&self) {
        if let Some(description) = Description::read("forgejo.json", "") {
            let seen = self.listener.seen();
            // One that is no status is no description's.
            let described = seen.iter().filter(|seen| !seen.path.contains("/statuses/0000"));
            described.for_each(|s| description.check(s));
        }
    }
}

#[tokio::test]
async fn every_state_becomes_one_that_all_servers_know() {
    let rig = rig(World::AsIs).await;
    for state in STATES {
        assert_eq!(rig.forgejo.report(&report(state), DETAILS, None).await.unwrap(), None);
    }
    let sent: Vec<(Value, Value)> = rig
        .statuses()
        .iter()
        .map(|s| (s.body["state"].clone(), s.body["description"].clone()))
        .collect();
    let title = "2 of 3 jobs failed";
    let expected = [
        ("pending", format!("Queued: {title}")),
        ("pending", format!("Running: {title}")),
        ("success", title.to_owned()),
        ("failure", title.to_owned()),
        ("error", format!("Cancelled: {title}")),
        ("failure", format!("Timed out: {title}")),
        ("failure", format!("Skipped: {title}")),
        ("error", format!("Error: {title}")),
    ];
    assert_eq!(sent, expected.map(|(state, words)| (json!(state), json!(words))));
    let first = &rig.statuses()[0];
    assert_eq!(first.authorization(), "token t0ken");
    assert_eq!(first.body["context"], "helios-ci / ci / build (x86, 1)");
    assert_eq!(first.body["target_url"], DETAILS);
    let compared = rig
        .listener
        .lines()
        .iter()
        .filter(|l| *l == "GET /api/v1/repos/acme/tool")
        .count();
    assert_eq!(
        compared,
        STATES.len(),
        "a status was set without asking whose path it is"
    );
    rig.described();
}

#[test]
fn a_description_is_one_short_line() {
    let described = |state, title: &str| {
        let wanted = Report {
            title: title.to_owned(),
            ..report(state)
        };
        serde_json::to_value(Status::new(&wanted, DETAILS)).unwrap()["description"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(described(ReportState::Queued, "Queued"), "Queued");
    assert_eq!(described(ReportState::Queued, "2 jobs queued"), "2 jobs queued");
    assert_eq!(
        described(ReportState::Running, "running on node-1"),
        "running on node-1"
    );
    assert_eq!(described(ReportState::Success, ""), "success");
    assert_eq!(described(ReportState::Skipped, ""), "Skipped");
    let long = described(ReportState::Error, &format!("a\nb {}", "é".repeat(300)));
    assert!(
        long.chars().count() == 140 && long.starts_with("Error: a b ") && !long.contains('\n'),
        "{long}"
    );
}

#[tokio::test]
async fn a_renamed_repository_is_followed_and_its_successor_told_nothing() {
    for world in [World::Renamed, World::Recreated] {
        let rig = rig(world).await;
        rig.forgejo
            .report(&report(ReportState::Success), DETAILS, None)
            .await
            .unwrap();
        assert_eq!(rig.statuses()[0].path, format!("/api/v1/repos/acme/new/statuses/{SHA}"));
        assert!(
            rig.forgejo
                .fetch_access(&repository())
                .await
                .unwrap()
                .url
                .ends_with("/acme/new.git")
        );
        rig.described();
    }
    let rig = rig(World::Gone).await;
    let error = rig
        .forgejo
        .report(&report(ReportState::Success), DETAILS, None)
        .await
        .unwrap_err();
    assert!(
        !error.is_retryable() && error.to_string().contains("write:repository"),
        "{error}"
    );
    assert!(rig.statuses().is_empty());
}

#[tokio::test]
async fn refs_are_read_exactly_and_tags_peeled() {
    let rig = rig(World::AsIs).await;
    let read = async |name: &str| {
        let found = rig
            .forgejo
            .read_ref(&repository(), &name.parse().unwrap())
            .await
            .unwrap();
        found.map(|sha| sha.to_string())
    };
    assert_eq!(read("refs/heads/a#b/c").await.as_deref(), Some(SHA));
    assert_eq!(read("refs/heads/r").await.as_deref(), Some(SHA));
    let odd = rig
        .forgejo
        .read_ref(&repository(), &"refs/heads/odd".parse().unwrap())
        .await;
    assert!(matches!(odd, Err(ForgeError::Refused { .. })), "{odd:?}");
    let lines = rig.listener.lines();
    assert!(!lines.iter().any(|line| line.ends_with("/branches/odd")), "{lines:?}");
    assert_eq!(read("refs/heads/gone").await, None);
    assert_eq!(read("refs/tags/v1").await.as_deref(), Some(SHA));
    assert_eq!(read("refs/tags/v1.1").await, Some("3".repeat(40)));
    assert_eq!(read("refs/tags/v").await, None);
    rig.described();
    // The description that is kept holds only some addresses, and not that of one tag.
    assert_eq!(read("refs/tags/t").await.as_deref(), Some(SHA));
}

#[tokio::test]
async fn repositories_access_and_health() {
    let rig = rig(World::AsIs).await;
    let found = rig
        .forgejo
        .find_repository(&repository().path, &ForgeContext::default())
        .await
        .unwrap()
        .unwrap();
    assert_eq!((found.id.as_str(), found.path.as_str()), ("42", "acme/tool"));
    assert_eq!(
        rig.forgejo
            .find_repository(&"acme/none".parse().unwrap(), &ForgeContext::default())
            .await
            .unwrap(),
        None
    );
    let access = rig.forgejo.fetch_access(&repository()).await.unwrap();
    assert_eq!(access.url, format!("{}/acme/tool.git", rig.listener.base));
    let basic = STANDARD.encode("helios-ci:t0ken");
    assert_eq!(
        access.authorization.as_ref().unwrap().expose(),
        format!("Basic {basic}")
    );
    assert_eq!(
        rig.forgejo.check(&[]).await.unwrap().answer,
        "Forgejo or Gitea 9.0.0+gitea-1.22 as bot"
    );
    let shown = format!("{:?} {access:?}", rig.forgejo);
    assert!(!shown.contains("t0ken") && !shown.contains(&basic), "{shown}");
    rig.described();
}

#[tokio::test]
async fn faults_say_whether_and_when_to_come_again() {
    type Fault = fn() -> Reply;
    let faults: [(Fault, Option<Option<u64>>); 6] = [
        (|| Reply::Json(500, json!({"message": "x"})), Some(None)),
        (|| Reply::Limited(429, 9), Some(Some(9))),
        (|| Reply::Hang, Some(None)),
        (|| Reply::Cut, Some(None)),
        (
            || Reply::Json(403, json!({"message": "token does not have the required scope"})),
            None,
        ),
        (|| Reply::Json(401, json!({"message": "user does not exist"})), None),
    ];
    for (fault, expected) in faults {
        let within = match fault() {
            Reply::Hang => SHORT,
            _ => deadline::PROMPT,
        };
        let rig = rig_within(within, move |seen| {
            if seen.method == "POST" {
                fault()
            } else {
                answer(World::AsIs, seen)
            }
        })
        .await;
        let error = rig
            .forgejo
            .report(&report(ReportState::Failure), DETAILS, None)
            .await
            .unwrap_err();
        let later = match &error {
            ForgeError::Later { retry_after, .. } | ForgeError::Away { retry_after, .. } => {
                Some(retry_after.map(|d| d.as_secs()))
            }
            _ => None,
        };
        assert_eq!(later, expected, "{error}");
        assert_eq!(rig.statuses().len(), 1, "nothing is repeated without being asked");
        assert!(!error.to_string().contains("t0ken"));
    }
}

#[tokio::test]
async fn a_repository_is_located_by_its_number_where_its_path_leads_elsewhere() {
    for (world, path) in [
        (World::AsIs, Some("acme/tool")),
        (World::Renamed, Some("acme/new")),
        (World::Recreated, Some("acme/new")),
        (World::Gone, None),
    ] {
        let rig = rig(world).await;
        let now = rig.forgejo.locate(&repository()).await;
        match path {
            Some(path) => {
                let now = now.unwrap();
                assert_eq!((now.path.as_str(), &now.id), (path, &repository().id));
            }
            None => assert!(matches!(now, Err(ForgeError::Forbidden { .. })), "{now:?}"),
        }
    }
}

#[tokio::test]
async fn tokens_that_no_header_can_carry_are_refused() {
    let http = Outgoing::new("https://forge.example", false);
    let Ok(http) = http else {
        crate::prerequisites::skip("this host has no certification authorities");
        return;
    };
    let http = Arc::new(http);
    for token in ["", "a\nb", "a b", "tök", "x\u{7f}"] {
        let served = crate::forge::push::tests::served(&[]);
        let made = Forgejo::new(served, "https://forge.example", (*http).clone(), &Secret::new(token));
        assert!(matches!(made, Err(ConnectError::Token { .. })), "{token:?}");
    }
}

#[test]
fn an_answer_is_read_whatever_its_other_fields_hold() {
    let read = |object: serde_json::Value| serde_json::from_value::<super::Repo>(object).map(|repo| repo.id);
    let odd = json!({
        "id": 7, "full_name": "ada/engine", "owner": null, "object_format_name": "sha3", "topics": null, "permissions": 4,
        "mirror_updated": "never", "internal_tracker": null, "licenses": null,
    });
    assert_eq!(read(odd).unwrap(), 7.into());
    assert_eq!(read(json!({"id": 7, "full_name": "ada/engine"})).unwrap(), 7.into());
    for wanting in [
        json!({"full_name": "ada/engine"}),
        json!({"id": 7, "full_name": null}),
        json!([]),
        json!(null),
    ] {
        assert!(read(wanting.clone()).is_err(), "{wanting}");
    }
}

/// Answers about `acme/tool` with this, and knows no user.
async fn rights(answer: impl Fn() -> Reply + Send + Sync + 'static) -> Access {
    let undecodable = || Reply::Json(422, json!({"message": "[]: json: cannot unmarshal number"}));
    rights_with(answer, undecodable).await
}

/// As [`rights`], and a status that cannot be decoded with that.
async fn rights_with(
    answer: impl Fn() -> Reply + Send + Sync + 'static,
    writing: impl Fn() -> Reply + Send + Sync + 'static,
) -> Access {
    let rig = rig_with(move |seen| match seen.line().as_str() {
        "GET /api/v1/version" => Reply::Json(200, json!({"version": "10.0.0"})),
        "GET /api/v1/user" => Reply::Json(
            403,
            json!({"message": "token does not have at least one of required scope(s): [read:user]"}),
        ),
        "GET /api/v1/repos/acme/tool" => answer(),
        "POST /api/v1/repos/acme/tool/statuses/0000000000000000000000000000000000000000" => {
            assert!(!seen.body["state"].is_string(), "nothing is stored: {}", seen.body);
            writing()
        }
        _ => Reply::Json(404, json!({"message": "The target couldn't be found."})),
    })
    .await;
    let checked = rig.forgejo.check(&[repository().path]).await.unwrap();
    assert_eq!(checked.answer, "Forgejo or Gitea 10.0.0");
    rig.described();
    checked.repositories.into_iter().next().unwrap().access
}

#[tokio::test]
async fn the_right_that_is_missing_is_named_with_its_cure() {
    let said = |message: &'static str| move || Reply::Json(403, json!({"message": message}));
    let with = |push: bool, pull: bool| {
        move || {
            let permissions = json!({"admin": false, "push": push, "pull": pull});
            Reply::Json(
                200,
                json!({"id": 42, "full_name": "acme/tool", "permissions": permissions}),
            )
        }
    };
    let collaborator = "add the token's user as a collaborator with write access to acme/tool";
    let cases: [(Access, [&str; 2]); 6] = [
        (
            rights(said(
                "token does not have at least one of required scope(s): [read:repository]",
            ))
            .await,
            ["has not the scope", "make a token with `write:repository`"],
        ),
        (
            rights(said("token scope is limited to public repos")).await,
            ["limited to public", "that is not limited to public repositories"],
        ),
        (
            rights(said("You must change your password")).await,
            ["You must change your password", "do what it asks for"],
        ),
        (
            rights(|| Reply::Json(404, json!({"message": "Not Found"}))).await,
            ["may not see it", collaborator],
        ),
        (
            rights(with(false, true)).await,
            ["may read it and not write to it", collaborator],
        ),
        (
            rights(with(false, false)).await,
            ["neither read nor write", collaborator],
        ),
    ];
    for (access, [reason, fix]) in cases {
        let Access::Missing { reason: why, fix: cure } = &access else {
            panic!("{access:?}, and not: {reason}");
        };
        assert!(why.contains(reason) && cure.contains(fix), "{access:?}");
    }
    assert_eq!(rights(with(true, true)).await, Access::Granted { actions: false });
    let on = || {
        Reply::Json(
            200,
            json!({"id": 42, "permissions": {"push": true, "pull": true}, "has_actions": true}),
        )
    };
    assert_eq!(rights(on).await, Access::Granted { actions: true });
    // Older servers, and what is broken for a moment.
    assert_eq!(
        rights(|| Reply::Json(200, json!({"id": 42}))).await,
        Access::Granted { actions: false }
    );
    for odd in [
        || Reply::Json(500, json!({"message": "x"})),
        || Reply::Json(502, json!({})),
        || Reply::Limited(503, 9),
        || Reply::Text("<html>"),
        || Reply::Cut,
    ] {
        let unknown = rights(odd).await;
        assert!(matches!(unknown, Access::Unknown { .. }), "{unknown:?}");
    }
    let moved = rights(|| Reply::Json(307, json!({}))).await;
    assert!(
        matches!(&moved, Access::Missing { fix, .. } if fix.contains("has it moved?")),
        "{moved:?}"
    );
}

#[tokio::test]
async fn a_token_that_may_not_write_lacks_a_right_although_its_user_may() {
    let own = || Reply::Json(200, json!({"id": 42, "permissions": {"push": true, "pull": true}}));
    let scope = "token does not have at least one of required scope(s): [write:repository]";
    let refused = move || Reply::Json(403, json!({"message": scope}));
    let access = rights_with(own, refused).await;
    let Access::Missing { reason, fix } = &access else {
        panic!("{access:?}");
    };
    assert!(reason.contains("has not the scope to set statuses there"), "{reason}");
    assert_eq!(fix, "make a token with `write:repository`");
    let later = rights_with(own, || Reply::Json(500, json!({"message": "x"}))).await;
    assert!(matches!(later, Access::Unknown { .. }), "{later:?}");
}

#[tokio::test]
async fn a_token_that_nobody_knows_is_no_missing_right_to_a_repository() {
    let rig = rig_with(|_| Reply::Json(401, json!({"message": "invalid username, password or token"}))).await;
    let error = rig.forgejo.check(&[repository().path]).await.unwrap_err();
    assert!(matches!(error, ForgeError::Unauthorized { .. }), "{error}");
}
