//! Guests that power themselves off about the time of their agent's hello, as the daemon sees them.

use std::{fs, os::unix::fs::PermissionsExt};

use illumos_sim::faults::Action;
use serde_json::Value;

use super::{
    push::{nothing_left, world_with},
    real_guests::boots,
    simulated_host::{self, host},
    support::{self, World},
};

/// Where the agent lies that machines get; a file of this test's own.
const AGENT: &str = "/run/agent-of-the-day";
/// What a guest's end is called.
const WORDS: &str = "the machine stopped: the guest powered itself off";
/// Waits for ever on a machine whose agent is to be its end.
const WORKFLOW: &str = "name: ci\non: push\njobs:\n  only:\n    steps:\n      - run: |\n          \
    [ ! -e /run/doomed ] || { touch /run/begun; sleep 100000; }\n          echo it ran\n";

/// The real agent, with a shell around it that does this beside it.
fn around(script: &str) -> Vec<u8> {
    let script = |from: usize| {
        format!(
            "#!/bin/sh\ntouch /run/doomed\ntail -c +{from:06} \"$0\" >/run/real\nchmod 0755 /run/real\n{script}\npoweroff -f\nexit\n"
        )
    };
    let mut file = script(script(0).len() + 1).into_bytes();
    file.extend(real_agent());
    file
}

fn real_agent() -> Vec<u8> {
    fs::read(support::agent()).unwrap()
}

/// The next machine gets this agent.
fn give(agent: &[u8]) {
    let fresh = format!("{AGENT}.new");
    fs::write(&fresh, agent).unwrap();
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(fresh, AGENT).unwrap();
}

/// The tries of the job of a commit, once it is in this state.
fn tries(world: &World, sha: &str, state: &str) -> Vec<Value> {
    let job = world.wait_job(sha, "only", state);
    let detail = world.detail(job["id"].as_str().unwrap());
    detail["attempts"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run inside a simulated host by zones_with_real_guests"]
async fn a_guest_that_halts_around_its_hello_costs_a_try_and_no_job() {
    let (world, keeper) = world_with("limits: {infra_tries: 2}\n", |text| {
        text.replace(&support::agent().display().to_string(), AGENT)
    })
    .await;
    let begins = "/run/real \"$@\" &\n";
    for (when, script, heard) in [
        // 9417, connected: the hello and the halt are under way at the same time.
        (
            "with its hello",
            format!("{begins}until grep -q ':24C9 01 ' /proc/net/tcp; do usleep 1000; done"),
            false,
        ),
        (
            "in its first step",
            format!("{begins}until [ -e /run/begun ]; do usleep 1000; done"),
            true,
        ),
    ] {
        give(&around(&script));
        simulated_host::faults(vec![simulated_host::fault("zoneadm", &["boot"], 1, Action::Held)]);
        let sha = world.push(WORKFLOW).await;
        // The first machine has its agent when it is to boot; the second one's is there before the first has begun.
        world.until("a boot", || (host().held().unwrap().len() == 1).then_some(()));
        give(&real_agent());
        host().release().unwrap();
        let tries = tries(&world, &sha, "success");
        assert_eq!(tries.len(), 2, "{when}: {tries:#?}");
        // The agent's own word may follow.
        let cause = tries[0]["cause"].as_str().unwrap_or_default();
        assert!(cause.starts_with(WORDS), "{when}: {tries:#?}");
        assert_eq!(tries[0]["result"], Value::Null, "{when}: {tries:#?}");
        assert_eq!(tries[1]["result"], "success", "{when}: {tries:#?}");
        if heard {
            assert!(tries[0]["running"].is_string(), "{when}: {tries:#?}");
        }
        world.wait(&sha, "success").await;
    }

    // Before its hello, and however often it is tried: so often, and then the job is in error.
    give(&around(""));
    let before = boots();
    let sha = world.push(WORKFLOW).await;
    let tries = tries(&world, &sha, "error");
    assert_eq!(boots() - before, 2);
    for attempt in &tries {
        assert!(
            attempt["cause"].as_str().unwrap_or_default().starts_with(WORDS),
            "{attempt}"
        );
        assert_eq!(attempt["result"], Value::Null);
        assert!(!attempt["running"].is_string(), "{attempt}");
    }
    assert_eq!(tries.len(), 2, "{tries:#?}");
    nothing_left(&world, keeper);
}
