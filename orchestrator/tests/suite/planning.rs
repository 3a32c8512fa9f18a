//! Planning under bad conditions: forges that hang, triggers that kill the daemon.

#![allow(
    clippy::disallowed_methods,
    reason = "a test prunes the forge's repository as its admin would"
)]

use std::time::{Duration, Instant};

use helios_fakeforge::{Fault, Kind};

use super::deliveries::runs_of;
use crate::support::{self, Machines, World};

const SMALL: &str = "name: ci\non: push\njobs:\n  job:\n    steps:\n      - run: echo hello\n";

/// Longer than anything here takes: only the stop of the daemon ends it.
const HANG: Duration = Duration::from_secs(600);

/// A second repository at the Forgejo of this world, with the same hook.
async fn second_repository(world: &World, path: &str) -> i64 {
    let id = world
        .forge
        .create_repository(Kind::Forgejo, path, false)
        .await
        .expect("a repository");
    let secret = std::fs::read_to_string(world.dir.path().join("hook")).expect("the secret");
    world
        .forge
        .add_hook(id, &format!("{}/hooks/local", world.url()), &secret);
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_hangs_delays_its_own_repository_alone() {
    let mut world = World::start(Machines::Process).await;
    let slow = second_repository(&world, "ada/slow").await;
    world.forge.fail_all("/ada/slow.git/", Fault::Hang(HANG));
    let waiting = world.push_to(slow, ".forgejo/workflows/ci.yml", SMALL).await;
    world.until("the fetch that hangs", || {
        (world.forge.state().count("GET", "/ada/slow.git/") > 0).then_some(())
    });
    let quick = world.push(SMALL).await;
    world.wait(&quick, "success").await;
    // A second push to the slow one waits for the first.
    let next = world.push_to(slow, ".forgejo/workflows/ci.yml", SMALL).await;
    let of_the_slow = format!("triggers WHERE repository_id = {slow}");
    world.until("the trigger of the second push", || {
        (world.rows(&of_the_slow) == 2).then_some(())
    });
    let quick = world.push(SMALL).await;
    world.wait(&quick, "success").await;
    let fetches = world.forge.state().count("GET", "/ada/slow.git/");
    for waits in [&waiting, &next] {
        assert_eq!(runs_of(&world, waits), 0);
        assert_eq!(world.words(waits, "helios-ci"), Vec::<String>::new());
    }
    // What git gives up after a minute is tried again, and hangs again: a try that failed left its reason.
    if world.rows(&format!("{of_the_slow} AND reason IS NOT NULL")) == 0 {
        assert_eq!(fetches, 1);
    }
    // A stop does not wait for the forge.
    let stopping = Instant::now();
    assert_eq!(world.down(), Some(0));
    assert!(
        stopping.elapsed() < support::deadline::PROMPT,
        "{:?}",
        stopping.elapsed()
    );
    assert!(
        !world.daemon_log().contains("did not stop in time"),
        "{}",
        world.daemon_log()
    );
    world.forge.end_hangs();
    // What was under way is planned by the next daemon, at once and in order.
    world.up();
    world.wait(&waiting, "success").await;
    world.wait(&next, "success").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_of_a_repository_that_was_renamed_before_it_was_planned_runs() {
    let world = World::start(Machines::Process).await;
    let asked = "GET /api/v1/repos/ada/engine";
    world.forge.fail_all(asked, Fault::Hang(HANG));
    let sha = world.push(SMALL).await;
    world.until("the look-up that hangs", || {
        (world.forge.state().count("GET", "/api/v1/repos/ada/engine") > 0).then_some(())
    });
    let renamed = world.forge.rename_repository(world.repository, "ada/motor");
    renamed.expect("another name");
    world.forge.end_hangs();
    world.wait(&sha, "success").await;
    assert!(!world.words(&sha, "helios-ci").contains(&"error".to_owned()));
    // What was lost is compared at its new place, too.
    let caught = world.cli(&["catch-up", "--json"]);
    let said: serde_json::Value = serde_json::from_slice(&caught.stdout).expect("JSON");
    let mut connections = said["connections"].as_array().into_iter().flatten();
    let local = connections
        .find(|caught| caught["connection"] == "local")
        .expect("the connection");
    assert_eq!(
        (&local["repositories"], &local["broken"]),
        (&1.into(), &serde_json::Value::Null),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_is_too_large_fails_alone() {
    let world = World::with(Machines::Process, "limits: {repository_bytes: 1MiB}\n").await;
    let first = world.push(SMALL).await;
    world.wait(&first, "success").await;
    // While one of them is fetched, the others come, and are planned together.
    let fetch = "GET /ada/engine.git/info/refs";
    let asked = || world.forge.state().count("GET", "/ada/engine.git/info/refs");
    let before = asked();
    world.forge.fail_all(fetch, Fault::Hang(HANG));
    let branch = async |name: &str| {
        let set = world.forge.update_ref(world.repository, name, Some(&first));
        set.await.expect("the ref is set");
    };
    branch("refs/heads/slow").await;
    world.until("the fetch that hangs", || (asked() > before).then_some(()));
    branch("refs/heads/before").await;
    let noise: Vec<u8> = std::iter::repeat_with(rand::random).take(3 << 20).collect();
    let large = [
        (".forgejo/workflows/ci.yml", SMALL.as_bytes().to_vec(), 0o644),
        ("noise", noise, 0o644),
    ];
    let large = world.forge.push(world.repository, "large", &large, "Add noise").await;
    let large = large.expect("a push");
    branch("refs/heads/after").await;
    world.until("all deliveries are read", || {
        let all = world.get("/api/v1/deliveries?limit=100");
        let waits = |row: &&serde_json::Value| row["outcome"].as_str().is_some_and(|said| said.starts_with("waiting"));
        (all["deliveries"].as_array()?.iter().filter(waits).count() >= 4).then_some(())
    });
    world.forge.end_hangs();
    world.wait(&large, "error").await;
    world.until("a run for each of the others", || {
        (runs_of(&world, &first) == 4).then_some(())
    });
    let next = world.push(SMALL).await;
    world.wait(&next, "success").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_that_kills_the_daemon_each_time_ends_in_words_on_the_forge() {
    let mut world = World::stopped(Machines::Process, "").await;
    world.launch(&[("HELIOS_CI_FAILPOINT", "TriggerClaimed")]);
    world.ready();
    let sha = world.push(SMALL).await;
    world.died();
    let started = Instant::now();
    while world.forge.state().latest(&sha, "helios-ci").is_none() {
        assert!(
            started.elapsed() < support::deadline::GUEST,
            "it dies for ever:\n{}",
            world.daemon_log()
        );
        if !world.is_up() {
            world.launch(&[("HELIOS_CI_FAILPOINT", "TriggerClaimed")]);
        }
        support::pause();
    }
    world.wait(&sha, "error").await;
    let said = world.forge.state().latest(&sha, "helios-ci").map(|r| format!("{r:?}"));
    assert!(
        said.as_ref().is_some_and(|said| said.contains("given up after")),
        "{said:?}"
    );
    assert!(world.is_up(), "the daemon lives on");
}

const CHECKOUT: &str = "\
name: ci
on: push
jobs:
  job:
    steps:
      - uses: actions/checkout@v4
      - run: cat README
";

/// The same workflow, which a person may start as well.
fn on_demand(workflow: &str) -> String {
    workflow.replace("on: push", "on: [push, workflow_dispatch]")
}

/// The run of a commit.
fn run_of(world: &World, sha: &str) -> String {
    let runs = world.get("/api/v1/runs?limit=100");
    let mut all = runs["runs"].as_array().into_iter().flatten();
    let run = all.find(|run| run["commit"] == *sha).expect("a run");
    run["id"].as_str().expect("an id").to_owned()
}

fn lose_the_mirrors(world: &World) {
    std::fs::remove_dir_all(world.data().join("mirrors")).expect("the mirrors are removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rerun_fetches_a_commit_that_the_node_has_lost() {
    let world = World::start(Machines::Process).await;
    let sha = world.push(CHECKOUT).await;
    world.wait(&sha, "success").await;
    let run = run_of(&world, &sha);
    lose_the_mirrors(&world);
    let rerun = world.cli(&["rerun", &run]);
    assert!(rerun.status.success(), "{}", String::from_utf8_lossy(&rerun.stderr));
    let job = world.until("the second attempt's success", || {
        let detail = world.get(&format!("/api/v1/runs/{run}"));
        let attempts = detail["attempts"].as_array()?.clone();
        let newest = attempts.into_iter().find(|attempt| attempt["number"] == 2)?;
        let job = newest["jobs"][0].clone();
        assert!(
            !matches!(job["state"].as_str(), Some("failure" | "error")),
            "{job}\n{}",
            world.daemon_log()
        );
        (job["state"] == "success").then_some(job)
    });
    let log = world.log(job["id"].as_str().expect("an id"));
    assert!(log.contains("fetching it from the forge"), "{log}");
    world.wait_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rerun_of_a_commit_that_is_gone_everywhere_ends_at_once_in_words() {
    let world = World::start(Machines::Process).await;
    let sha = world.push(CHECKOUT).await;
    world.wait(&sha, "success").await;
    let run = run_of(&world, &sha);
    // The branch is removed at the forge, and what no ref reaches is removed as well.
    world
        .forge
        .update_ref(world.repository, "refs/heads/main", None)
        .await
        .expect("no branch");
    let dir = world.forge.repository_dir(world.repository).expect("the repository");
    for args in [
        &["reflog", "expire", "--expire=now", "--all"][..],
        &["gc", "--quiet", "--prune=now"][..],
    ] {
        let git = std::process::Command::new("git")
            .arg("-C")
            .arg(&dir)
            .args(args)
            .output();
        assert!(git.as_ref().is_ok_and(|git| git.status.success()), "{git:?}");
    }
    lose_the_mirrors(&world);
    let rerun = world.cli(&["rerun", &run]);
    assert!(rerun.status.success(), "{}", String::from_utf8_lossy(&rerun.stderr));
    let job = world.until("the second attempt's error", || {
        let detail = world.get(&format!("/api/v1/runs/{run}"));
        let attempts = detail["attempts"].as_array()?.clone();
        let newest = attempts.into_iter().find(|attempt| attempt["number"] == 2)?;
        let job = newest["jobs"][0].clone();
        (job["state"] == "error").then_some(job)
    });
    let detail = world.get(&format!("/api/v1/jobs/{}", job["id"].as_str().expect("an id")));
    assert_eq!(
        detail["attempts"].as_array().map(Vec::len),
        Some(1),
        "no second try: {detail}"
    );
    let log = world.log(job["id"].as_str().expect("an id"));
    assert!(log.contains("neither on this node nor at its forge any more"), "{log}");
    world.wait_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_commit_that_skips_checks_is_ignored_with_the_reason() {
    let world = World::start(Machines::Process).await;
    let commit = async |message: &str, readme: &str| {
        let files = [
            (".forgejo/workflows/ci.yml", on_demand(SMALL).into_bytes(), 0o644),
            ("README", readme.as_bytes().to_vec(), 0o644),
        ];
        let push = world.forge.push(world.repository, "main", &files, message);
        push.await.expect("a push")
    };
    let skipped = commit("Fix a typo\n\n\nskip-checks: true", "one").await;
    world.until("the reason", || {
        world
            .daemon_log()
            .contains("the commit message says skip-checks: true")
            .then_some(())
    });
    assert_eq!(world.words(&skipped, "helios-ci"), Vec::<String>::new());
    // Asked for by a person it runs; and a commit below the head of a push does not count.
    let ran = world.cli(&["trigger", "local", "ada/engine", "main", "--wait"]);
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    world.wait(&skipped, "success").await;
    // Nobody said what it is called: the commit does.
    let runs = world.get("/api/v1/runs?limit=100");
    let titles: Vec<&str> = runs["runs"]
        .as_array()
        .expect("runs")
        .iter()
        .filter_map(|run| run["title"].as_str())
        .collect();
    assert_eq!(titles, ["Fix a typo"]);
    let next = commit("Change the engine", "two").await;
    world.wait(&next, "success").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_asked_for_at_github_keeps_its_installation() {
    let mut world = World::start(Machines::Process).await;
    let sha = world
        .push_to(world.github, ".github/workflows/ci.yml", &on_demand(CHECKOUT))
        .await;
    world.wait(&sha, "success").await;
    let made = world.cli(&["trigger", "octo", "octo/engine", "main", "--wait", "--json"]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let asked = |world: &World| world.forge.state().count("GET", "/repos/octo/engine/installation");
    let before = asked(&world);
    assert!(before > 0, "the installation was looked up");
    let build: serde_json::Value = serde_json::from_slice(&made.stdout).expect("JSON");
    let run = build["runs"][0]["id"]
        .as_str()
        .unwrap_or_else(|| panic!("no run: {build}"))
        .to_owned();
    // Another daemon remembers nothing; it mints its tokens from what was stored with the run.
    assert_eq!(world.down(), Some(0));
    lose_the_mirrors(&world);
    world.up();
    let rerun = world.cli(&["rerun", &run]);
    assert!(rerun.status.success(), "{}", String::from_utf8_lossy(&rerun.stderr));
    world.until("the second attempt's success", || {
        let detail = world.get(&format!("/api/v1/runs/{run}"));
        let newest = detail["attempts"]
            .as_array()?
            .iter()
            .find(|a| a["number"] == 2)?
            .clone();
        (newest["jobs"][0]["state"] == "success").then_some(())
    });
    world.wait(&sha, "success").await;
    assert_eq!(asked(&world), before, "nothing had to be looked up again");
}

/// Puts another plan in place of every stored one, as a daemon of another version would have stored it.
async fn replace_plans(world: &World, change: impl Fn(&str) -> String) {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(world.data().join("helios-ci.db"));
    let mut database = sqlx::ConnectOptions::connect(&options).await.expect("the database");
    let (plan,): (String,) = sqlx::query_as("SELECT plan FROM runs")
        .fetch_one(&mut database)
        .await
        .expect("one plan");
    let changed = change(&plan);
    // The run's one job has its part beside it, which is the whole.
    for table in ["UPDATE runs SET plan = $1", "UPDATE job_plans SET plan = $1"] {
        let update = sqlx::query(table).bind(&changed).execute(&mut database).await;
        assert_eq!(update.expect("another plan").rows_affected(), 1, "{table}");
    }
    sqlx::Connection::close(database).await.expect("an end");
}

/// Stored plans outlive the daemon that made them: what only a later one can evaluate is never run as it is written, and
/// what an earlier one has stored runs.
#[tokio::test(flavor = "multi_thread")]
async fn a_stored_expression_ends_its_job_in_words_and_a_plan_of_version_1_runs() {
    let mut world = World::start(Machines::Process).await;
    let sha = world.push(SMALL).await;
    let first = world.wait_job(&sha, "job", "success");
    let run = run_of(&world, &sha);
    let rerun = |world: &World| {
        let again = world.cli(&["rerun", &run]);
        assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    };

    assert_eq!(world.down(), Some(0));
    replace_plans(&world, |plan| {
        let script = "\"script\":{\"literal\":{\"value\":\"echo hello\",\"span\":[6,14,";
        let (before, rest) = plan.split_once(script).unwrap_or_else(|| panic!("{plan}"));
        let (_, after) = rest.split_once("]}}").expect("the end of the script");
        let expression = r#""script":{"expression":{"text":"echo ${{ github.actor }}","span":[6,14,66,90]}}"#;
        format!("{before}{expression}{after}")
    })
    .await;
    world.up();
    rerun(&world);
    let job = world.wait_job(&sha, "job", "error");
    assert_ne!(job["id"], first["id"]);
    let log = world.log(job["id"].as_str().unwrap());
    let words = "`run` of step 1 (line 6) is an expression (line 6, column 14)";
    assert!(log.contains(words) && !log.contains("github.actor"), "{log}");
    assert!(
        job["reason"].as_str().is_some_and(|reason| reason.contains(words)),
        "{job}"
    );

    assert_eq!(world.down(), Some(0));
    replace_plans(&world, |_| {
        let job = r#"{"id":"job","name":"job","runs_on":null,"needs":[],"env":[],"timeout_minutes":5,"steps":[
            {"name":"old","action":{"kind":"run","script":"echo of old","shell":"default","working_directory":null},
             "env":[],"timeout_minutes":null,"continue_on_error":false,"line":6}]}"#;
        format!(r#"{{"version":1,"path":".forgejo/workflows/ci.yml","name":"ci","env":[],"jobs":[{job}]}}"#)
    })
    .await;
    world.up();
    rerun(&world);
    let job = world.wait_job(&sha, "job", "success");
    let log = world.log(job["id"].as_str().unwrap());
    assert!(log.lines().any(|line| line == "of old"), "{log}");
    world.wait_clean();
}
