//! A credential or a right that is missing is a state, and no verdict on what was pushed: it waits, is named, and runs.

use std::time::Duration;

use helios_fakeforge::{Access, Fault, Kind};
use serde_json::Value;

use super::deliveries::{again, outcome, runs_of};
use crate::support::{self, Machines, World};

const SMALL: &str = "name: ci\non: push\njobs:\n  job:\n    steps:\n      - run: echo hello\n";
/// What fetches ask first.
const FETCH: &str = "GET /ada/engine.git/info/refs";
const WAITS: &str = "helios-ci may not read this repository";

/// The repositories that the status names at the Forgejo of this world.
fn missing(world: &World) -> Vec<Value> {
    let status = world.get("/api/v1/status");
    let all = status["details"]["connections"].as_array().expect("the connections");
    let local = all.iter().find(|c| c["name"] == "local").expect("the connection");
    local["repositories"].as_array().expect("a list").clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_git_may_not_fetch_is_named_and_its_push_runs_when_it_may() {
    let world = World::start(Machines::Process).await;
    world.forge.fail_all(FETCH, Fault::Status(403));
    let sha = world.push(SMALL).await;
    let right = world.until("the repository is named", || missing(&world).pop());
    assert_eq!(right["path"], "ada/engine");
    let detail = right["detail"].as_str().expect("words");
    assert!(
        detail.starts_with("the token or App may not read ada/engine: "),
        "{detail}"
    );
    assert!(
        right["fix"]
            .as_str()
            .is_some_and(|fix| fix.contains("helios-ci doctor")),
        "{right}"
    );
    world.wait(&sha, "pending").await;
    let told = world.until("the commit says why", || {
        let told = world.forge.state().latest(&sha, "helios-ci")?.description.clone();
        told.contains(WAITS).then_some(told)
    });
    assert!(!told.contains("127.0.0.1") && !told.contains("http"), "{told}");
    assert!(outcome(&world, &sha).is_some_and(|said| said.starts_with("waiting: ")));
    world.forge.drop_faults(FETCH);
    world.wait(&sha, "success").await;
    assert_eq!(runs_of(&world, &sha), 1);
    assert_eq!(missing(&world), Vec::<Value>::new());
    assert!(world.daemon_log().contains("may not read a repository"));
}

/// Has the only trigger that waits be due in a day, between two of its tries.
async fn postpone(world: &World) {
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(world.data().join("helios-ci.db"))
        .busy_timeout(support::deadline::PROMPT);
    let mut database = sqlx::ConnectOptions::connect(&options).await.expect("the database");
    let postponed = async {
        let update = "UPDATE triggers SET due_ms = due_ms + 24 * 3600000 WHERE state = 'received' AND lease_until = 0";
        loop {
            let update = sqlx::query(update).execute(&mut database).await;
            if update.expect("another time").rows_affected() == 1 {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    let postponed = tokio::time::timeout(support::deadline::PROMPT, postponed).await;
    postponed.expect("the end of a try");
    sqlx::Connection::close(database).await.expect("an end");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_right_is_tried_at_once_when_it_is_delivered_again() {
    let world = World::start(Machines::Process).await;
    for same_id in [true, false] {
        world.forge.fail_all(FETCH, Fault::Status(403));
        let sha = world.push(SMALL).await;
        world.until("it waits", || {
            outcome(&world, &sha).filter(|said| said.contains(WAITS)).map(drop)
        });
        // By itself it would not be tried while this test runs.
        postpone(&world).await;
        world.forge.drop_faults(FETCH);
        let (status, said) = again(&world, &sha, same_id).await;
        assert_eq!(status, 202, "{said}");
        assert!(said.contains("tried again now") && said.contains(WAITS), "{said}");
        world.wait(&sha, "success").await;
        let (status, said) = again(&world, &sha, same_id).await;
        assert_eq!((status, said.as_str()), (200, "delivered before; planned: 1 run"));
        assert_eq!(runs_of(&world, &sha), 1);
    }
}

/// What is wrong with a credential or with its rights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    /// The token was deleted.
    Token,
    /// It was made for something else.
    Scope,
    /// It is limited to public repositories.
    PublicOnly,
    /// Its user is no collaborator.
    Membership,
}

impl Wrong {
    /// The line of doctor that fails, and its cure.
    fn cure(self) -> (&'static str, &'static str) {
        let repository = "repository ada/secret of local";
        match self {
            Self::Token => ("connection local", "check the connection's token"),
            Self::Scope => (repository, "make a token with `write:repository`"),
            Self::PublicOnly => (repository, "that is not limited to public repositories"),
            Self::Membership => (repository, "as a collaborator with write access to ada/secret"),
        }
    }

    fn begin(self, world: &World, repository: i64, token: &str) {
        match self {
            Self::Token => world.forge.revoke_token(token),
            Self::Scope => world.forge.add_token_with("helios-ci", &["read:user"], token),
            Self::PublicOnly => {
                let scopes = ["write:repository", "public-only"];
                world.forge.add_token_with("helios-ci", &scopes, token);
            }
            Self::Membership => world.forge.remove_collaborator(repository, "helios-ci"),
        }
    }
}

/// What fails with this name in doctor's words: its cure.
fn failure(world: &World, name: &str) -> Option<String> {
    let said = world.cli(&["doctor", "--json"]);
    let lines: Vec<Value> = serde_json::from_slice(&said.stdout).expect("lines");
    let failed = lines
        .iter()
        .find(|line| line["name"] == name && line["status"] == "failure")?;
    failed["fix"].as_str().map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_right_is_missing_the_push_waits_and_the_cure_that_doctor_names_plans_it() {
    let mut world = World::stopped(Machines::Process, "").await;
    let secret = world.forge.create_repository(Kind::Forgejo, "ada/secret", true).await;
    let secret = secret.expect("a repository");
    let hook = std::fs::read_to_string(world.dir.path().join("hook")).expect("the secret");
    world
        .forge
        .add_hook(secret, &format!("{}/hooks/local", world.url()), &hook);
    let text = std::fs::read_to_string(world.config()).expect("the configuration");
    let (all, listed) = ("    public: [ada/engine]\n", "    repositories: [ada/secret]\n");
    std::fs::write(world.config(), text.replacen(all, listed, 1)).expect("the configuration");
    world.up();
    let token = std::fs::read_to_string(world.dir.path().join("forgejo-token")).expect("the token");
    let token = token.trim().to_owned();
    for wrong in [Wrong::Token, Wrong::Scope, Wrong::PublicOnly, Wrong::Membership] {
        let what = format!("{wrong:?}");
        wrong.begin(&world, secret, &token);
        let sha = world.push_to(secret, ".forgejo/workflows/ci.yml", SMALL).await;
        let waits = match wrong {
            Wrong::Token => "does not accept helios-ci's credentials",
            _ => WAITS,
        };
        world.until(&format!("{what}: it waits"), || {
            outcome(&world, &sha).filter(|said| said.contains(waits)).map(drop)
        });
        let (line, cure) = wrong.cure();
        let found = failure(&world, line);
        assert!(
            found.as_ref().is_some_and(|fix| fix.contains(cure)),
            "{what}: {found:?}"
        );
        if wrong != Wrong::Token {
            let right = world.until(&format!("{what}: it is named"), || missing(&world).pop());
            assert_eq!(right["path"], "ada/secret", "{what}");
        }
        assert_eq!(runs_of(&world, &sha), 0, "{what}");
        // The least that is asked for, and nobody delivers anything again.
        world.forge.add_token_with("helios-ci", &["write:repository"], &token);
        world.forge.add_collaborator(secret, "helios-ci", Access::Write);
        world.wait(&sha, "success").await;
        assert_eq!(runs_of(&world, &sha), 1, "{what}");
        world.until(&format!("{what}: nothing is missing any more"), || {
            missing(&world).is_empty().then_some(())
        });
        assert_eq!(failure(&world, line), None, "{what}");
    }
    // Who may read and not write is told so before anything is refused.
    world.forge.add_collaborator(secret, "helios-ci", Access::Read);
    let fix = failure(&world, "repository ada/secret of local");
    assert!(
        fix.as_ref()
            .is_some_and(|fix| fix == "add the token's user as a collaborator with write access to ada/secret"),
        "{fix:?}"
    );
}

/// Makes every trigger wait a day and a half longer.
async fn age(world: &World) {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(world.data().join("helios-ci.db"));
    let mut database = sqlx::ConnectOptions::connect(&options).await.expect("the database");
    let update = sqlx::query("UPDATE triggers SET refused_ms = refused_ms - 36 * 3600000, due_ms = 0")
        .execute(&mut database)
        .await;
    assert_eq!(update.expect("another time").rows_affected(), 1);
    sqlx::Connection::close(database).await.expect("an end");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waited_for_a_right_too_long_is_red_and_runs_when_the_right_is_there() {
    let mut world = World::start(Machines::Process).await;
    // Whoever asks is refused: a daemon that starts compares the repository, too.
    world.forge.fail_all(FETCH, Fault::Status(403));
    let sha = world.push(SMALL).await;
    world.until("it waits", || {
        outcome(&world, &sha).filter(|said| said.contains(WAITS)).map(drop)
    });
    assert_eq!(world.down(), Some(0));
    age(&world).await;
    world.up();
    world.until("the end of its time", || {
        outcome(&world, &sha)
            .filter(|said| said.starts_with("failed: "))
            .map(drop)
    });
    world.forge.drop_faults(FETCH);
    // Delivered again by ourselves, as its branch still points there.
    assert!(world.cli(&["catch-up"]).status.success());
    world.wait(&sha, "success").await;
    assert_eq!(runs_of(&world, &sha), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_that_come_together_share_a_fetch_and_none_fails_another() {
    let world = World::start(Machines::Process).await;
    let first = world.push(SMALL).await;
    world.wait(&first, "success").await;
    // While the first of them is fetched, the others come.
    world.forge.fail_all(FETCH, Fault::Hang(Duration::from_secs(600)));
    let before = world.forge.state().count("GET", "/ada/engine.git/info/refs");
    let set = async |name: &str, sha: Option<&str>| {
        let set = world.forge.update_ref(world.repository, name, sha);
        set.await.expect("the ref is set");
    };
    set("refs/heads/slow", Some(&first)).await;
    world.until("the fetch that hangs", || {
        (world.forge.state().count("GET", "/ada/engine.git/info/refs") > before).then_some(())
    });
    for number in 0..20 {
        set(&format!("refs/heads/b{number}"), Some(&first)).await;
    }
    set("refs/heads/gone", Some(&first)).await;
    set("refs/heads/gone", None).await;
    set("refs/tags/v1", Some(&first)).await;
    world.until("all deliveries are read", || {
        let all = world.get("/api/v1/deliveries?limit=100");
        let all = all["deliveries"].as_array()?.clone();
        let waits = |row: &&Value| row["outcome"].as_str().is_some_and(|said| said.starts_with("waiting"));
        (all.iter().filter(waits).count() >= 23).then_some(())
    });
    let before = world.forge.state().count("GET", "/ada/engine.git/info/refs");
    world.forge.end_hangs();
    // The one that was cut, twenty branches and a tag.
    world.until("a run for each", || (runs_of(&world, &first) == 1 + 22).then_some(()));
    let fetches = world.forge.state().count("GET", "/ada/engine.git/info/refs") - before;
    // Two for the first, one for all others, and again for those of a try that git gave up meanwhile.
    assert!(fetches <= 10, "{fetches} fetches for 23 pushes");
    world.until("the branch that is gone is ignored", || {
        world.daemon_log().contains("refs/heads/gone is gone").then_some(())
    });
}
