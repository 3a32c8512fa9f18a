//! The wall clock jumps while jobs run: no limit is reached early or late, nothing is given up, and
//! the forge still hears everything.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{self, Machines, World};

const HOUR_MS: i64 = 3_600_000;

fn id(value: &Value) -> &str {
    value["id"].as_str().expect("an id")
}

/// A daemon whose clock is what the file says.
async fn world() -> (World, PathBuf) {
    let mut world = World::stopped(Machines::Process, "limits: {node_grace_s: 15}\n").await;
    let shift = world.dir.path().join("shift");
    world.up_with(&[("HELIOS_CI_CLOCK_SHIFT", shift.to_str().expect("a plain path"))]);
    (world, shift)
}

/// Lets the clock jump, and waits until the node has said twice that it lives at the new time.
fn jump(world: &World, file: &PathBuf, shift_ms: i64) {
    fs::write(file.with_extension("new"), shift_ms.to_string()).expect("the shift");
    fs::rename(file.with_extension("new"), file).expect("the shift");
    let mut seen = Vec::new();
    world.until("two heartbeats after the jump", || {
        let now = helios_ci::clock::now_ms() + shift_ms;
        let fresh = |beat: i64| (beat - now).abs() < HOUR_MS / 2;
        let beats = |beat: &i64| world.rows(&format!("nodes WHERE heartbeat_ms = {beat}")) == 1;
        if !seen.last().is_some_and(beats) {
            let at = world.number("SELECT MAX(heartbeat_ms) FROM nodes");
            if fresh(at) {
                seen.push(at);
            }
        }
        (seen.len() >= 3).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jump_of_the_clock_ends_no_job_and_hides_no_report() {
    let (world, shift) = world().await;
    let go = world.dir.path().join("go");
    let workflow = format!(
        "name: ci\non: push\njobs:\n  job:\n    timeout-minutes: 50\n    steps:\n      - timeout-minutes: 40\n        run: |\n          echo begun\n          until test -e {}; do sleep 0.05; done\n",
        go.display()
    );
    let sha = world.push(&workflow).await;
    let job = world.wait_job(&sha, "job", "active");
    world.until("output", || world.log_now(id(&job)).contains("begun").then_some(()));
    for shift_ms in [HOUR_MS, -HOUR_MS, 0] {
        jump(&world, &shift, shift_ms);
        assert_eq!(
            world.jobs(&sha)[0]["state"],
            "active",
            "{shift_ms}: {:#}",
            world.detail(id(&job))
        );
    }
    jump(&world, &shift, -HOUR_MS);
    fs::write(&go, "").expect("the file it waits for");
    world.wait(&sha, "success").await;
    assert_eq!(world.detail(id(&job))["attempts"].as_array().unwrap().len(), 1);
    // What begins after the jump is heard and told too.
    let later = world.push(&workflow).await;
    world.wait(&later, "success").await;
    world.nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_set_back_prolongs_no_time_limit() {
    let (world, shift) = world().await;
    let workflow = "name: ci\non: push\njobs:\n  job:\n    steps:\n      - timeout-minutes: 1\n        run: |\n          echo begun\n          while true; do sleep 0.1; done\n";
    let begun = Instant::now();
    let sha = world.push(workflow).await;
    let job = world.wait_job(&sha, "job", "active");
    world.until("output", || world.log_now(id(&job)).contains("begun").then_some(()));
    jump(&world, &shift, -HOUR_MS);
    let job = world.wait_job(&sha, "job", "failure");
    let took = begun.elapsed();
    assert!(
        took > Duration::from_secs(59) && took < support::deadline::GUEST,
        "{took:?}"
    );
    assert!(
        world
            .detail(id(&job))
            .to_string()
            .contains("the step ran longer than its 1 minute"),
        "{:#}",
        world.detail(id(&job))
    );
    world.wait(&sha, "failure").await;
    world.nothing_left();
}
