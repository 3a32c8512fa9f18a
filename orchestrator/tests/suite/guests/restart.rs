//! Either process of a node dies and comes back while a real guest is in the middle of a step: the guest and its job do
//! not notice.

use std::{fs, io::Write};

use serde_json::Value;

use super::{
    push::{Keeper, nothing_left, world},
    real_guests::boots,
    simulated_host::host,
    support::World,
};

/// Counts in three parts. What lets it go on is typed on the guest's serial port, which needs neither daemon nor
/// machined; a guest that was built without a shell there gets one from here.
const COUNTS: &str = "\
name: ci
on: push
jobs:
  count:
    steps:
      - run: |
          if ! grep -q ttyS0 /etc/inittab; then sh </dev/console >/dev/console 2>&1 & fi
          for i in $(seq 1 20); do echo \"line $i of 60\"; done
          until [ -e /tmp/first ]; do sleep 0.1; done
          for i in $(seq 21 40); do echo \"line $i of 60\"; done
          until [ -e /tmp/second ]; do sleep 0.1; done
          for i in $(seq 41 60); do echo \"line $i of 60\"; done
";

/// Types on the serial port of the guest, as nobody but the hardware does.
fn type_in(zone: &str, line: &str) {
    let typed = host().dir().join("console").join(format!("{zone}.in"));
    let mut typed = fs::OpenOptions::new().append(true).open(typed).expect("a console");
    typed.write_all(format!("\r{line}\r").as_bytes()).expect("room");
}

/// What the guest's screen would show, past both processes.
fn screen(zone: &str) -> String {
    let said = fs::read(host().dir().join("console").join(format!("{zone}.out")));
    String::from_utf8_lossy(&said.unwrap_or_default()).into_owned()
}

/// The job's log so far has so many lines.
fn counted(world: &World, sha: &str, lines: u32) -> Value {
    world.until(&format!("line {lines}"), || {
        let job = world.jobs(sha).pop().filter(|job| job["state"] != "queued")?;
        let output = world.cli(&["logs", job["id"].as_str()?]);
        let log = String::from_utf8_lossy(&output.stdout);
        log.contains(&format!("line {lines} of 60")).then_some(job)
    })
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run inside a simulated host by zones_with_real_guests"]
async fn machined_and_the_daemon_die_one_after_the_other_while_a_guest_is_in_a_step() {
    let (mut world, keeper) = world("").await;
    let sha = world.push(COUNTS).await;
    counted(&world, &sha, 20);
    let zones = || host().state().expect("a state").zones;
    let mut names = zones().into_keys();
    let name = names.next().expect("a zone");
    assert_eq!(names.next(), None, "one job, one machine");
    let running = zones()[&name].clone();

    // Nobody keeps machines, and the guest's next lines come all the same.
    keeper.killed();
    type_in(&name, "touch /tmp/first; echo one-$((6 * 7))");
    counted(&world, &sha, 40);
    let keeper = Keeper::start(world.command(&["machined"]));
    // Its successor reads the console again.
    world.until("the console is read", || {
        let said = world.command(&["console", "--direct", "--once", &name]).output().ok()?;
        type_in(&name, "echo two-$((6 * 7))");
        String::from_utf8_lossy(&said.stdout).contains("two-42").then_some(())
    });

    // Nobody listens, and the guest ends its step; the next daemon hears all of it.
    world.kill();
    type_in(&name, "touch /tmp/second; echo three-$((6 * 7))");
    world.until("the step ended", || screen(&name).contains("three-42").then_some(()));
    assert_eq!(zones()[&name], running, "the zone and its bhyve are the same");
    world.up();

    let job = world.wait_job(&sha, "count", "success");
    world.wait(&sha, "success").await;
    let id = job["id"].as_str().expect("an id");
    let log = world.log(id);
    let counted: Vec<&str> = log.lines().filter(|line| line.starts_with("line ")).collect();
    let wanted: Vec<String> = (1..=60).map(|i| format!("line {i} of 60")).collect();
    assert_eq!(counted, wanted, "{log}");
    let detail = world.detail(id);
    assert_eq!(detail["attempts"].as_array().map(Vec::len), Some(1), "{detail:#}");
    assert_eq!(boots(), 1, "it is the same machine to the end");
    nothing_left(&world, keeper);
}
