//! Planning under bad conditions: forges that hang, triggers that kill the daemon.

mod support;

use std::time::{Duration, Instant};

use helios_fakeforge::{Fault, Kind};
use support::{Machines, World};

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
    world.forge.fail_next("/ada/slow.git/", Fault::Hang(HANG));
    let waiting = world.push_to(slow, ".forgejo/workflows/ci.yml", SMALL).await;
    world.until("the fetch that hangs", || {
        (world.forge.state().count("GET", "/ada/slow.git/") > 0).then_some(())
    });
    let quick = world.push(SMALL).await;
    world.wait(&quick, "success").await;
    // A second push to the slow one waits for the first.
    let next = world.push_to(slow, ".forgejo/workflows/ci.yml", SMALL).await;
    let quick = world.push(SMALL).await;
    world.wait(&quick, "success").await;
    assert_eq!(world.forge.state().count("GET", "/ada/slow.git/"), 1);
    assert_eq!(world.words(&waiting, "helios-ci"), Vec::<String>::new());
    // A stop does not wait for the forge.
    let stopping = Instant::now();
    assert_eq!(world.down(), Some(0));
    assert!(stopping.elapsed() < Duration::from_secs(15), "{:?}", stopping.elapsed());
    assert!(
        !world.daemon_log().contains("did not stop in time"),
        "{}",
        world.daemon_log()
    );
    // What was under way is planned by the next daemon, at once and in order.
    world.up();
    world.wait(&waiting, "success").await;
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
            started.elapsed() < support::DEADLINE,
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
