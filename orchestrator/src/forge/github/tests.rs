use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicU32, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};

use super::{checks::CheckRun, *};
use crate::{
    clock, deadline,
    forge::testing::{DETAILS, Description, Listener, Reply, SHA, STATES, Seen, report, repository},
    model::report::ReportState,
};

/// As much of GitHub as the adapter uses, with faults that are switched on.
#[derive(Default)]
struct Hub {
    runs: Mutex<Vec<Value>>,
    minted: AtomicU32,
    /// Life of the tokens it gives, in seconds; 0 means an hour.
    life_s: AtomicI64,
    /// What the next request to this path is answered with instead.
    fault: Mutex<Option<(&'static str, Fault)>>,
}

#[derive(Clone, Copy)]
enum Fault {
    Status(u16),
    Limited(u64),
    Hang,
    /// Done, but the answer is lost.
    Lost,
}

impl Hub {
    fn answer(&self, seen: &Seen) -> Reply {
        let fault = {
            let mut fault = self.fault.lock().unwrap();
            if fault.is_some_and(|(line, _)| seen.line().starts_with(line)) {
                fault.take().map(|f| f.1)
            } else {
                None
            }
        };
        match fault {
            Some(Fault::Status(status)) => return Reply::Json(status, json!({"message": "fault"})),
            Some(Fault::Limited(seconds)) => return Reply::Limited(429, seconds),
            Some(Fault::Hang) => return Reply::Hang,
            Some(Fault::Lost) | None => {}
        }
        let reply = self.act(seen);
        if fault.is_some() { Reply::Cut } else { reply }
    }

    fn act(&self, seen: &Seen) -> Reply {
        let runs = || self.runs.lock().unwrap();
        let line = seen.line();
        if let Some(id) = line.strip_prefix("PATCH /repos/acme/tool/check-runs/") {
            let mut runs = runs();
            let Some(run) = runs.iter_mut().find(|r| r["id"].as_u64() == id.parse().ok()) else {
                return Reply::Json(404, json!({"message": "Not Found"}));
            };
            run.as_object_mut()
                .unwrap()
                .extend(seen.body.as_object().unwrap().clone());
            return Reply::Json(200, run.clone());
        }
        match line.as_str() {
            "POST /app/installations/9/access_tokens" => {
                let n = self.minted.fetch_add(1, Ordering::SeqCst);
                let life = Some(self.life_s.load(Ordering::SeqCst))
                    .filter(|s| *s > 0)
                    .unwrap_or(3600);
                let ends = chrono::DateTime::from_timestamp_millis(clock::now_ms() + life * 1000).unwrap();
                Reply::Json(
                    201,
                    json!({"token": format!("ghs_{n}"), "expires_at": ends.to_rfc3339()}),
                )
            }
            "POST /repos/acme/tool/check-runs" => {
                let mut run = seen.body.clone();
                let mut runs = runs();
                run["id"] = json!(100 + runs.len());
                runs.push(run.clone());
                Reply::Json(201, run)
            }
            "GET /repos/acme/tool/commits/1111111111111111111111111111111111111111/check-runs" => {
                Reply::Json(200, json!({"total_count": runs().len(), "check_runs": *runs()}))
            }
            "GET /repos/acme/tool/installation" => Reply::Json(200, json!({"id": 9})),
            "GET /repos/acme/tool" => Reply::Json(200, json!({"id": 42, "full_name": "Acme/Tool"})),
            "GET /repositories/42" => Reply::Json(200, json!({"id": 42, "full_name": "Acme/Moved"})),
            "GET /repositories/43" => Reply::Json(200, json!({"id": 44, "full_name": "acme/other"})),
            "GET /repos/acme/tool/git/ref/heads/main" | "GET /repos/acme/tool/git/ref/heads/a%23b/c" => {
                let name = seen.path.split("/git/ref/").nth(1).unwrap().replace("%23", "#");
                Reply::Json(
                    200,
                    json!({"ref": format!("refs/{name}"), "object": {"type": "commit", "sha": SHA}}),
                )
            }
            "GET /repos/acme/tool/git/ref/tags/v1" => Reply::Json(
                200,
                json!({"ref": "refs/tags/v1", "object": {"type": "tag", "sha": "2".repeat(40)}}),
            ),
            "GET /repos/acme/tool/commits/tags/v1" => Reply::Text(SHA),
            "GET /repos/acme/tool/git/ref/heads/ma" => Reply::Json(
                200,
                json!({"ref": "refs/heads/main", "object": {"type": "commit", "sha": SHA}}),
            ),
            "GET /app" => Reply::Json(
                200,
                json!({"slug": "helios", "permissions": {"checks": "write", "contents": "read"}, "events": ["push"]}),
            ),
            _ => Reply::Json(404, json!({"message": "Not Found"})),
        }
    }

    fn next(&self, line: &'static str, fault: Fault) {
        *self.fault.lock().unwrap() = Some((line, fault));
    }
}

struct Rig {
    hub: Arc<Hub>,
    listener: Listener,
    github: Github,
}

/// What a forge that hangs is given.
const SHORT: Duration = Duration::from_secs(2);

async fn rig() -> Rig {
    rig_within(deadline::PROMPT).await
}

async fn rig_within(deadline: Duration) -> Rig {
    let hub = Arc::new(Hub::default());
    let answering = hub.clone();
    let listener = Listener::new(move |seen| answering.answer(seen)).await;
    let http = Outgoing::new(&listener.base, true).unwrap().with_deadline(deadline);
    let served = crate::forge::push::tests::served(&[]);
    let key = Secret::new(jwt::tests::PKCS1);
    let github = Github::new(served, "https://github.example/", http, 17, &key).unwrap();
    Rig { hub, listener, github }
}

impl Rig {
    fn run(&self) -> Value {
        let runs = self.hub.runs.lock().unwrap();
        assert_eq!(runs.len(), 1, "{runs:?}");
        runs[0].clone()
    }

    fn count(&self, line: &str) -> usize {
        self.listener.lines().iter().filter(|l| l.starts_with(line)).count()
    }
}

#[tokio::test]
async fn a_check_run_is_created_once_and_then_updated() {
    let rig = rig().await;
    let mut wanted = report(ReportState::Queued);
    let id = rig.github.report(&wanted, DETAILS, None).await.unwrap();
    assert_eq!(id.as_deref(), Some("100"));
    assert_eq!(rig.run()["status"], "queued");
    for state in [ReportState::Running, ReportState::Success] {
        wanted = Report {
            job: wanted.job,
            ..report(state)
        };
        assert_eq!(rig.github.report(&wanted, DETAILS, id.as_deref()).await.unwrap(), id);
    }
    let run = rig.run();
    assert_eq!(
        (&run["status"], &run["conclusion"]),
        (&json!("completed"), &json!("success"))
    );
    assert_eq!(
        (&run["started_at"], &run["completed_at"]),
        (&json!("2016-07-11T22:14:10Z"), &json!("2016-07-11T22:14:20Z"))
    );
    assert_eq!(rig.count("POST /repos"), 1);

    let seen = rig.listener.seen();
    assert!(
        seen[0].authorization().starts_with("Bearer eyJ"),
        "the App asks for the token"
    );
    assert_eq!(
        seen[0].body,
        json!({"repository_ids": [42], "permissions": {"metadata": "read", "checks": "write"}})
    );
    assert!(
        seen[1..].iter().all(|s| s.authorization() == "Bearer ghs_0"),
        "one token for all"
    );
    assert!(
        seen.iter()
            .all(|s| s.headers["user-agent"].to_str().unwrap().starts_with("helios-ci/"))
    );
    assert_eq!(
        seen[1].query,
        "check_name=helios%2Dci%20%2F%20ci%20%2F%20build%20%28x86%2C%201%29&app_id=17&filter=all&per_page=100"
    );
    if let Some(description) = Description::read("github.json", "") {
        seen.iter().for_each(|s| description.check(s));
        let mut wrong = seen[2].clone();
        assert_eq!(wrong.line(), "POST /repos/acme/tool/check-runs");
        wrong.body["status"] = json!("running");
        assert!(!description.errors(&wrong).is_empty(), "the description can tell");
    }
}

#[tokio::test]
async fn a_lost_answer_leaves_no_second_check_run() {
    let rig = rig().await;
    let wanted = report(ReportState::Queued);
    rig.hub.next("POST /repos/acme/tool/check-runs", Fault::Lost);
    let error = rig.github.report(&wanted, DETAILS, None).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert_eq!(
        rig.github.report(&wanted, DETAILS, None).await.unwrap().as_deref(),
        Some("100")
    );
    rig.run();
    // A re-run of the same check is another check run.
    let again = Report {
        generation: 2,
        ..wanted
    };
    assert_eq!(
        rig.github.report(&again, DETAILS, None).await.unwrap().as_deref(),
        Some("101")
    );
}

#[tokio::test]
async fn a_check_run_that_is_gone_is_created_anew() {
    let rig = rig().await;
    let id = rig
        .github
        .report(&report(ReportState::Running), DETAILS, Some("77"))
        .await
        .unwrap();
    assert_eq!(id.as_deref(), Some("100"));
    assert_eq!(rig.count("PATCH"), 1);
}

#[tokio::test]
async fn a_refused_token_is_replaced_once() {
    let rig = rig().await;
    let wanted = report(ReportState::Queued);
    rig.hub.next("POST /repos/acme/tool/check-runs", Fault::Status(401));
    rig.github.report(&wanted, DETAILS, None).await.unwrap();
    assert_eq!(rig.hub.minted.load(Ordering::SeqCst), 2);
    rig.hub
        .next("POST /app/installations/9/access_tokens", Fault::Status(404));
    let other = Report {
        repository: Repository {
            id: 43.into(),
            ..repository()
        },
        ..wanted
    };
    let error = rig.github.report(&other, DETAILS, None).await.unwrap_err();
    assert!(
        !error.is_retryable() && error.to_string().contains("not installed"),
        "{error}"
    );
}

#[tokio::test]
async fn a_token_near_its_end_is_not_used_again() {
    let rig = rig().await;
    rig.hub.life_s.store(200, Ordering::SeqCst);
    rig.github
        .report(&report(ReportState::Queued), DETAILS, None)
        .await
        .unwrap();
    assert!(
        rig.hub.minted.load(Ordering::SeqCst) > 1,
        "200 s are less than the reserve"
    );
}

#[tokio::test]
async fn faults_say_whether_and_when_to_come_again() {
    let wanted = report(ReportState::Queued);
    let line = "POST /repos/acme/tool/check-runs";
    for (fault, expected) in [
        (Fault::Status(500), Some(None)),
        (Fault::Limited(7), Some(Some(Duration::from_secs(7)))),
        (Fault::Hang, Some(None)),
        (Fault::Status(422), None),
        (Fault::Status(403), None),
    ] {
        let rig = match fault {
            Fault::Hang => rig_within(SHORT).await,
            _ => rig().await,
        };
        rig.hub.next(line, fault);
        let error = rig.github.report(&wanted, DETAILS, None).await.unwrap_err();
        let later = match &error {
            ForgeError::Later { retry_after, .. } | ForgeError::Away { retry_after, .. } => Some(*retry_after),
            _ => None,
        };
        assert_eq!(later, expected, "{error}");
        assert!(!error.to_string().contains("ghs_"));
        assert!(rig.hub.runs.lock().unwrap().is_empty());
        assert_eq!(rig.count(line), 1, "nothing is repeated without being asked");
    }
}

#[tokio::test]
async fn refs_are_read_exactly_and_tags_peeled() {
    let rig = rig().await;
    let read = async |name: &str| {
        let found = rig
            .github
            .read_ref(&repository(), &name.parse().unwrap())
            .await
            .unwrap();
        found.map(|sha| sha.to_string())
    };
    assert_eq!(read("refs/heads/main").await.as_deref(), Some(SHA));
    assert_eq!(read("refs/heads/a#b/c").await.as_deref(), Some(SHA));
    assert_eq!(read("refs/tags/v1").await.as_deref(), Some(SHA));
    assert_eq!(read("refs/heads/gone").await, None);
    assert_eq!(read("refs/heads/ma").await, None, "a longer name is another branch");
    if let Some(description) = Description::read("github.json", "") {
        rig.listener.seen().iter().for_each(|s| description.check(s));
    }
}

#[tokio::test]
async fn a_repository_is_located_by_its_number_wherever_it_is() {
    let rig = rig().await;
    let locate = async |id: u64| {
        let known = Repository {
            id: id.into(),
            context: 9.into(),
            ..repository()
        };
        rig.github.locate(&known).await
    };
    let now = locate(42).await.unwrap();
    assert_eq!(
        (now.id.as_str(), now.path.as_str(), now.context.as_str()),
        ("42", "Acme/Moved", "9")
    );
    assert!(
        matches!(locate(43).await, Err(ForgeError::Later { .. })),
        "another repository"
    );
    assert!(matches!(locate(7).await, Err(ForgeError::Forbidden { .. })), "none");
}

#[tokio::test]
async fn repositories_are_found_and_fetched_with_a_token_of_their_own() {
    let rig = rig().await;
    let found = rig
        .github
        .find_repository(&repository().path, &ForgeContext::default())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (found.id.as_str(), found.context.as_str(), found.path.as_str()),
        ("42", "9", "Acme/Tool")
    );
    assert_eq!(
        rig.github
            .find_repository(&"acme/none".parse().unwrap(), &ForgeContext::default())
            .await
            .unwrap(),
        None
    );
    let access = rig
        .github
        .fetch_access(&Repository {
            context: ForgeContext::default(),
            ..repository()
        })
        .await
        .unwrap();
    assert_eq!(access.url, "https://github.example/acme/tool.git");
    let basic = access
        .authorization
        .as_ref()
        .unwrap()
        .expose()
        .strip_prefix("Basic ")
        .unwrap()
        .to_owned();
    let token = String::from_utf8(STANDARD.decode(basic).unwrap()).unwrap();
    assert!(token.starts_with("x-access-token:ghs_"));
    assert!(!format!("{access:?} {:?}", rig.github).contains("ghs_"));
    let tokens: Vec<Value> = rig
        .listener
        .seen()
        .iter()
        .filter(|s| s.path.ends_with("access_tokens"))
        .map(|s| s.body.clone())
        .collect();
    assert_eq!(
        tokens,
        [
            json!({"permissions": {"metadata": "read"}}),
            json!({"repository_ids": [42], "permissions": {"metadata": "read", "contents": "read"}}),
        ]
    );
    if let Some(description) = Description::read("github.json", "") {
        rig.listener.seen().iter().for_each(|s| description.check(s));
    }
}

#[tokio::test]
async fn an_app_that_lacks_a_right_is_named() {
    let rig = rig().await;
    assert_eq!(rig.github.check(&[]).await.unwrap().answer, "GitHub App helios");
    let asked = ["acme/tool", "acme/none"].map(|path| path.parse().unwrap());
    let found = rig.github.check(&asked).await.unwrap().repositories;
    assert_eq!(found[0].access, Access::Granted { actions: false });
    let Access::Missing { reason, fix } = &found[1].access else {
        panic!("{found:?}");
    };
    assert!(
        reason.contains("not installed on it") && fix == "install the App helios on acme/none",
        "{found:?}"
    );
    let listener =
        Listener::new(|_| Reply::Json(200, json!({"slug": "helios", "permissions": {"checks": "read"}}))).await;
    let http = Outgoing::new(&listener.base, true).unwrap();
    let served = crate::forge::push::tests::served(&[]);
    let lesser = Github::new(served, "https://x", http, 17, &Secret::new(jwt::tests::PKCS1)).unwrap();
    let error = lesser.check(&[]).await.unwrap_err().to_string();
    assert!(
        error.contains("checks: write, permission contents: read, event push"),
        "{error}"
    );
}

#[tokio::test]
async fn what_is_odd_about_one_repository_is_not_the_connections() {
    for (status, missing) in [(403, true), (451, false), (500, false), (502, false)] {
        let rig = rig().await;
        *rig.hub.fault.lock().unwrap() = Some(("GET /repos/acme/none/installation", Fault::Status(status)));
        let asked = ["acme/none", "acme/tool"].map(|path| path.parse().unwrap());
        let found = rig.github.check(&asked).await.unwrap().repositories;
        let access = &found[0].access;
        let as_expected = match access {
            Access::Missing { .. } => missing,
            Access::Unknown { .. } => !missing,
            Access::Granted { .. } => false,
        };
        assert!(as_expected, "{status}: {access:?}");
        assert_eq!(found[1].access, Access::Granted { actions: false });
    }
}

#[test]
fn every_state_is_sent_as_github_describes_it() {
    let description = Description::read("github.json", "");
    for state in STATES {
        let mut wanted = report(state);
        wanted.summary = format!("```\n{}", "é".repeat(70_000));
        wanted.title = String::new();
        let body = serde_json::to_value(CheckRun::new(&wanted, DETAILS, true)).unwrap();
        let completed = body["status"] == "completed";
        assert_eq!(completed, state.is_final(), "{state:?}");
        assert_eq!(
            completed,
            body["conclusion"].is_string() && body["completed_at"].is_string(),
            "{state:?}"
        );
        assert!(body["conclusion"] != "neutral" && body["conclusion"] != "action_required");
        assert!(body["output"]["summary"].as_str().unwrap().len() <= 65_535);
        assert!(!body["output"]["title"].as_str().unwrap().is_empty());
        if let Some(description) = &description {
            let post = Seen {
                method: "POST".to_owned(),
                path: "/repos/a/b/check-runs".to_owned(),
                query: String::new(),
                headers: http::HeaderMap::new(),
                body,
            };
            description.check(&post);
            let body = serde_json::to_value(CheckRun::new(&wanted, DETAILS, false)).unwrap();
            assert!(body.get("head_sha").is_none());
            description.check(&Seen {
                method: "PATCH".to_owned(),
                path: format!("{}/5", post.path),
                body,
                ..post
            });
        }
    }
}
