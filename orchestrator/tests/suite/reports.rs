//! Reports to a forge that fails, is away, or does not accept us: all of them arrive, and delay no others.

use std::fs;

use helios_fakeforge::{Fault, ForgeState, Kind};
use serde_json::Value;

use super::deliveries::{outcome, runs_of};
use crate::support::{self, Machines, World};

const SMALL: &str = "name: ci\non: push\njobs:\n  job:\n    steps:\n      - run: echo hello\n";

/// A job that ends once this file exists.
fn until(gate: &std::path::Path) -> String {
    let wait = format!("until [ -e {} ]; do sleep 0.02; done", gate.display());
    format!("name: ci\non: push\njobs:\n  job:\n    steps:\n      - run: {wait}\n")
}

/// How many successes of a check of a commit arrived.
fn successes(world: &World, sha: &str, check: &str) -> usize {
    let history = world.forge.history(sha);
    history
        .iter()
        .filter(|r| r.context == check && r.word() == "success")
        .count()
}

/// Waits until nothing of a job that is held at its gate is on its way to the forge any more.
fn all_is_told_but_the_end(world: &World, sha: &str) {
    let running = |forge: &ForgeState| {
        let newest = forge.latest(sha, "helios-ci / ci / job")?;
        (newest.word() == "pending" && newest.description == "Running on test-node").then_some(())
    };
    world.until("it is reported to run", || running(&world.forge.state()));
    world.until("all is told", || undelivered(world, sha).is_empty().then_some(()));
}

/// What the run's page says of reports that the forge has not accepted.
fn undelivered(world: &World, sha: &str) -> Vec<String> {
    let runs = world.get("/api/v1/runs?limit=100");
    let run = runs["runs"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|r| r["commit"] == sha);
    let run = run.expect("its run")["id"].as_str().expect("an id").to_owned();
    let detail = world.get(&format!("/api/v1/runs/{run}"));
    let undelivered = detail["undelivered"].as_array().into_iter().flatten();
    undelivered.filter_map(Value::as_str).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_runs_is_reported_with_its_node() {
    let world = World::start(Machines::Process).await;
    let gate = world.dir.path().join("gate");
    let sha = world.push(&until(&gate)).await;
    all_is_told_but_the_end(&world, &sha);
    fs::write(&gate, "").expect("the gate");
    world.wait(&sha, "success").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_statuses_fail_delays_no_other_repository() {
    let world = World::start(Machines::Process).await;
    let other = world.forge.create_repository(Kind::Forgejo, "bo/tool", false).await;
    let other = other.expect("another repository");
    let secret = fs::read_to_string(world.dir.path().join("hook")).expect("the secret");
    world
        .forge
        .add_hook(other, &format!("{}/hooks/local", world.url()), &secret);
    world.forge.hold_deliveries(true);
    let bad = world.push(SMALL).await;
    // Were it taken for the forge's own word, nobody's reports would go out while this test runs.
    let fault = Fault::Postponed {
        status: 500,
        retry_after_s: 24 * 3600,
    };
    let calls = format!("POST /api/v1/repos/ada/engine/statuses/{bad}");
    world.forge.fail_all(&calls, fault);
    world.forge.hold_deliveries(false);
    let ids: Vec<String> = world.forge.state().deliveries().iter().map(|d| d.id.clone()).collect();
    for id in &ids {
        world.forge.redeliver(id).await.expect("a delivery");
    }
    world.wait_job(&bad, "job", "success");
    world.until("the errors", || {
        let reasons = undelivered(&world, &bad);
        (!reasons.is_empty() && reasons.iter().all(|reason| reason.contains("500"))).then_some(())
    });
    for _ in 0..3 {
        let good = world.push_to(other, ".forgejo/workflows/ci.yml", SMALL).await;
        world.wait(&good, "success").await;
        world.until("the job's own check", || {
            (successes(&world, &good, "helios-ci / ci / job") == 1).then_some(())
        });
    }
    assert_eq!(successes(&world, &bad, "helios-ci"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_answers_for_a_forge_that_is_away_costs_no_final_state_and_no_push() {
    let world = World::start(Machines::Process).await;
    let gate = world.dir.path().join("gate");
    let mut commits = Vec::new();
    for _ in 0..3 {
        let sha = world.push(&until(&gate)).await;
        world.wait(&sha, "pending").await;
        commits.push(sha);
    }
    world.forge.answer_all_with(Some(503));
    fs::write(&gate, "").expect("the gate");
    for sha in &commits {
        world.wait_job(sha, "job", "success");
    }
    let pushed = world.push(SMALL).await;
    world.until("its delivery waits", || {
        outcome(&world, &pushed)
            .filter(|said| said.starts_with("waiting: "))
            .map(drop)
    });
    world.until("the reports wait", || {
        world.daemon_log().contains("the reports of a forge wait").then_some(())
    });
    world.forge.answer_all_with(None);
    commits.push(pushed);
    for sha in &commits {
        world.wait(sha, "success").await;
        assert_eq!(runs_of(&world, sha), 1);
        for check in ["helios-ci", "helios-ci / ci / job"] {
            world.until("each check, once", || {
                (successes(&world, sha, check) == 1).then_some(())
            });
        }
    }
    assert_eq!(world.forge.violations(), []);
}

/// How a forge is away.
#[derive(Debug, Clone, Copy)]
enum Outage {
    /// Nobody listens at its address.
    Down,
    /// A proxy stands in front of it.
    BadGateway,
    /// Its process stands still.
    Stopped,
}

impl Outage {
    async fn begin(self, world: &World) {
        match self {
            Self::Down => world.forge.stop().await,
            Self::BadGateway => world.forge.answer_all_with(Some(502)),
            Self::Stopped => world.forge.fail_all("/api/v1/", Fault::Hang(support::deadline::GUEST)),
        }
    }

    async fn end(self, world: &World) {
        match self {
            Self::Down => world.forge.restart().await,
            Self::BadGateway => world.forge.answer_all_with(None),
            Self::Stopped => world.forge.end_hangs(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ended_while_a_forge_was_away_is_reported_at_its_return() {
    let world = World::start(Machines::Process).await;
    for outage in [Outage::Down, Outage::BadGateway, Outage::Stopped] {
        let gate = world.dir.path().join(format!("gate-{outage:?}"));
        let mut commits = Vec::new();
        for _ in 0..4 {
            let sha = world.push(&until(&gate)).await;
            world.wait(&sha, "pending").await;
            commits.push(sha);
        }
        outage.begin(&world).await;
        let counts =
            |state: &ForgeState| [("POST", "/statuses/"), ("GET", "/version")].map(|(m, part)| state.count(m, part));
        let [told, asked] = counts(&world.forge.state());
        fs::write(&gate, "").expect("the gate");
        for sha in &commits {
            world.wait_job(sha, "job", "success");
        }
        if matches!(outage, Outage::Down) {
            // What nobody listens for is in no list of requests.
            let waiting = || world.daemon_log().contains("the reports of a forge wait").then_some(());
            world.until("the reports wait", waiting);
        } else {
            let asked = |state: &ForgeState| (counts(state)[1] >= asked + 3).then_some(());
            world
                .forge
                .wait_for("the question whether it is there", support::deadline::GUEST, asked)
                .await
                .expect("it is asked");
        }
        let told = counts(&world.forge.state())[0] - told;
        assert!(told <= 1, "{outage:?}: a forge that is away was told {told} times");
        for sha in &commits {
            assert_eq!(
                successes(&world, sha, "helios-ci"),
                0,
                "{outage:?}: the forge was not away"
            );
        }
        outage.end(&world).await;
        for sha in &commits {
            world.wait(sha, "success").await;
            for check in ["helios-ci", "helios-ci / ci / job"] {
                world.until("each check", || (successes(&world, sha, check) > 0).then_some(()));
                let times = successes(&world, sha, check);
                assert!(times <= 2, "{outage:?}: {check} was told {times} times");
            }
        }
        world.wait_clean();
    }
    assert_eq!(world.forge.violations(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_of_tags_alone_hears_each_state_once() {
    let world = World::start(Machines::Process).await;
    let files = [(".forgejo/workflows/ci.yml", SMALL, 0o644)];
    let sha = world.forge.commit(world.repository, "main", &files, "For a tag").await;
    let sha = sha.expect("a commit");
    let tag = world.forge.update_ref(world.repository, "refs/tags/v1", Some(&sha));
    tag.await.expect("a tag");
    world.wait(&sha, "success").await;
    let answers = || {
        let requests = world.forge.requests().into_iter();
        let statuses = requests.filter(|r| r.method == "POST" && r.path.contains("/statuses/"));
        statuses.map(|r| r.status).collect::<Vec<_>>()
    };
    world.until("all is told and answered", || {
        let told = successes(&world, &sha, "helios-ci / ci / job") > 0 && undelivered(&world, &sha).is_empty();
        (told && answers().iter().all(Option::is_some)).then_some(())
    });
    assert!(
        answers().iter().all(|status| *status == Some(500)),
        "the forge answered without an error"
    );
    let mut told: Vec<_> = world.forge.history(&sha);
    told.iter_mut()
        .for_each(|received| (received.id, received.at_ms) = (0, 0));
    for (nth, received) in told.iter().enumerate() {
        assert!(!told[..nth].contains(received), "told twice: {received:?}");
    }
    assert_eq!(world.jobs(&sha).len(), 1);
    // A commit behind it, in a repository where nothing is wrong, is told as ever.
    let later = world.push(SMALL).await;
    world.wait(&later, "success").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_moves_while_a_job_runs_hears_its_end() {
    let world = World::start(Machines::Process).await;
    let gate = world.dir.path().join("gate");
    let sha = world.push(&until(&gate)).await;
    world.wait(&sha, "pending").await;
    let moved = world.forge.rename_repository(world.repository, "corp/motor");
    moved.expect("a new name");
    fs::write(&gate, "").expect("the gate");
    world.wait(&sha, "success").await;
    world.until("the job's own check", || {
        (successes(&world, &sha, "helios-ci / ci / job") == 1).then_some(())
    });
    let requests = world.forge.requests();
    let old = requests
        .iter()
        .filter(|r| r.path.contains("repos/ada/engine") && r.status == Some(307));
    assert!(old.count() > 0, "nobody asked at the old place");
    let requests = world
        .forge
        .state()
        .count("GET", &format!("/repositories/{}", world.repository));
    assert!(requests > 0, "it was found otherwise than by its number");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_created_again_hears_nothing_of_the_one_before() {
    let world = World::start(Machines::Process).await;
    let gate = world.dir.path().join("gate");
    let sha = world.push(&until(&gate)).await;
    all_is_told_but_the_end(&world, &sha);
    world.forge.delete_repository(world.repository).await.expect("it goes");
    let anew = world.forge.create_repository(Kind::Forgejo, "ada/engine", false).await;
    let anew = anew.expect("another one in its place");
    fs::write(&gate, "").expect("the gate");
    world.wait_job(&sha, "job", "success");
    world.until("why it is not told", || {
        let reasons = undelivered(&world, &sha);
        let gone = |text: &String| text.contains("the repository is gone");
        (reasons.len() == 2 && reasons.iter().all(gone)).then_some(())
    });
    let history = world.forge.history(&sha);
    assert!(history.iter().all(|r| r.repository != anew), "{history:#?}");
    assert_eq!(successes(&world, &sha, "helios-ci"), 0);
    world.wait_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_that_is_mended_lets_what_waits_be_reported() {
    for (write, reason) in [(None, "401"), (Some(false), "403")] {
        let world = World::start(Machines::Process).await;
        let gate = world.dir.path().join("gate");
        let sha = world.push(&until(&gate)).await;
        world.wait(&sha, "pending").await;
        let token = fs::read_to_string(world.dir.path().join("forgejo-token")).expect("the token");
        world.forge.revoke_token(token.trim());
        if let Some(write) = write {
            world.forge.add_token("helios-ci", write, token.trim());
        }
        fs::write(&gate, "").expect("the gate");
        world.wait_job(&sha, "job", "success");
        world.until("the reason on the run's page", || {
            let reasons = undelivered(&world, &sha);
            reasons.iter().any(|text| text.contains(reason)).then_some(())
        });
        assert_eq!(successes(&world, &sha, "helios-ci"), 0);
        world.forge.revoke_token(token.trim());
        world.forge.add_token("helios-ci", true, token.trim());
        world.wait(&sha, "success").await;
        world.until("nothing is owed", || undelivered(&world, &sha).is_empty().then_some(()));
    }
}
