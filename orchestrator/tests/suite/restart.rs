//! Whatever dies when: no accepted push is lost, no job has two results, nothing is left behind,
//! and a log has neither gap nor repetition nor a leaked secret.

use std::sync::atomic::{AtomicUsize, Ordering};

use helios_ci::failpoint::Point;

use crate::support::{self, Machines, World};

/// Prints numbered lines slowly enough to be interrupted, adds a mask in the middle, and shows the
/// secret afterwards.
const COUNTING: &str = "\
name: ci
on: push
jobs:
  count:
    steps:
      - uses: actions/checkout@v4
      - name: Count
        run: |
          for i in $(seq 1 40); do echo \"line $i of 80\"; sleep 0.01; done
          echo '::add-mask::hunter2-hunter2'
          echo 'the password is hunter2-hunter2 indeed'
          for i in $(seq 41 80); do echo \"line $i of 80\"; sleep 0.01; done
      - name: Finish
        run: echo done
";

/// What must be so whatever happened before: one success, the whole log once, no secret, no trace.
async fn all_is_well(world: &World, sha: &str, point: &str) {
    world.wait(sha, "success").await;
    let job = world.wait_job(sha, "count", "success");
    let log = world.log(job["id"].as_str().unwrap());
    let counted: Vec<&str> = log.lines().filter(|line| line.starts_with("line ")).collect();
    let wanted: Vec<String> = (1..=80).map(|i| format!("line {i} of 80")).collect();
    assert_eq!(counted, wanted, "{point}: gaps or repetitions in\n{log}");
    assert!(!log.contains("hunter2"), "{point}: a secret leaked:\n{log}");
    assert!(log.contains("the password is *** indeed"), "{point}:\n{log}");
    let runs = world.get("/api/v1/runs?limit=100");
    assert_eq!(
        runs["runs"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|r| r["commit"] == *sha)
            .count(),
        1,
        "{point}: one run"
    );
    world.wait_clean();
}

/// A daemon that dies at this point, and the next one.
async fn dies_at(point: Point, machines: Machines) {
    let name = format!("{point:?}");
    let mut world = World::stopped(machines, "").await;
    world.launch(&[("HELIOS_CI_FAILPOINT", &name)]);
    world.ready();
    let sha = world.push(COUNTING).await;
    world.died();
    world.up();
    if point == Point::DeliveryStored {
        // The forge heard no answer; a person presses "redeliver", and the same body comes under another id.
        let pushed = {
            let state = world.forge.state();
            let pushed = state.deliveries().iter().find(|delivery| delivery.event == "push");
            pushed.expect("the delivery of the push").id.clone()
        };
        world.forge.redeliver(&pushed).await.expect("a redelivery");
    }
    all_is_well(&world, &sha, &name).await;
}

/// So many at once: each mostly waits for its daemon.
const AT_ONCE: usize = 4;

#[test]
fn the_daemon_may_die_at_every_fail_point() {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(point) = Point::ALL.get(next.fetch_add(1, Ordering::SeqCst)) {
                    // One each, as a wait for a daemon blocks its thread, and what a blocked worker of a runtime has
                    // woken last waits with it.
                    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
                    runtime.block_on(dies_at(*point, Machines::Process));
                }
            });
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_restart_ends_no_job() {
    let mut world = World::start(Machines::Process).await;
    let sha = world.push(COUNTING).await;
    // Its steps run; a machine that is only being made is made again after a restart.
    let job = world.wait_job(&sha, "count", "active");
    world.until("its first line", || {
        world
            .log_now(job["id"].as_str()?)
            .contains("line 1 of 80")
            .then_some(())
    });
    assert_eq!(world.down(), Some(0));
    world.up();
    all_is_well(&world, &sha, "SIGTERM").await;
    let job = world.wait_job(&sha, "count", "success");
    let detail = world.get(&format!("/api/v1/jobs/{}", job["id"].as_str().unwrap()));
    assert_eq!(
        detail["attempts"].as_array().unwrap().len(),
        1,
        "the same attempt went on: {detail}"
    );
}

/// A daemon cannot take the machine up again, ends the log in words, and dies; to the next one the machine is there.
#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_does_not_go_on_behind_the_end_of_its_log() {
    let mut world = World::start(Machines::Process).await;
    let sha = world.push(COUNTING).await;
    let job = world.wait_job(&sha, "count", "active");
    let job = job["id"].as_str().unwrap();
    world.until("its first line", || {
        world.log_now(job).contains("line 1 of 80").then_some(())
    });
    world.kill();
    let spec = std::fs::read(world.machine().join("spec.json")).expect("the machine's record");
    let spec: serde_json::Value = serde_json::from_slice(&spec).expect("JSON");
    let port = spec["endpoints"]["git_authority"].as_str().expect("an address");
    let taken = std::net::TcpListener::bind(port).expect("the port is free now");
    world.launch(&[("HELIOS_CI_FAILPOINT", "BeforeResult")]);
    world.died();
    drop(taken);
    world.up();
    all_is_well(&world, &sha, "another end").await;
    let detail = world.detail(job);
    let attempts = detail["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 2, "the job has got a fresh machine: {detail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_survives_the_daemon() {
    if support::needs_guest().is_none() {
        return;
    }
    for point in [Point::MachineStarted, Point::AfterCommand, Point::OutputWritten] {
        dies_at(point, Machines::Qemu).await;
    }
}
