//! A new configuration is taken up by a daemon that runs: SIGHUP, which is what `svcadm refresh` sends.

use std::fs;

use nix::sys::signal::Signal;

use crate::support::{Machines, World};

/// Runs until a file lets it go on.
fn gated(gate: &std::path::Path) -> String {
    format!(
        "name: ci\non: push\njobs:\n  wait:\n    steps:\n      - run: |\n          echo first line\n          until [ -e {} ]; do sleep 0.1; done\n          echo last line\n",
        gate.display()
    )
}

fn rewrite(world: &World, from: &str, to: &str) {
    let text = fs::read_to_string(world.config()).unwrap();
    assert!(text.contains(from), "{text}");
    // Whole or not at all: the daemon may look at any time.
    let next = world.dir.path().join("next.yaml");
    fs::write(&next, text.replace(from, to)).unwrap();
    fs::rename(next, world.config()).unwrap();
}

fn said(world: &World, what: &str, times: usize) {
    world.until(what, || {
        (world.daemon_log().matches(what).count() >= times).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_takes_up_a_new_configuration_and_ends_no_job() {
    let mut world = World::with(Machines::Process, "capacity: {machines: 1}\n").await;
    let gate = world.dir.path().join("gate");
    let first = world.push(&gated(&gate)).await;
    let job = world.wait_job(&first, "wait", "active");
    world.until("its first line", || {
        world.log_now(job["id"].as_str()?).contains("first line").then_some(())
    });
    // A place more, and another name for the image.
    rewrite(&world, "machines: 1", "machines: 2");
    rewrite(&world, "ubuntu-latest: tiny", "ubuntu-latest: tiny\n  other: tiny");
    world.signal(Signal::SIGHUP);
    said(&world, "helios-ci is ready", 2);
    let second = world
        .push("name: ci\non: push\njobs:\n  quick:\n    runs-on: other\n    steps:\n      - run: echo quick\n")
        .await;
    world.wait_job(&second, "quick", "success");
    fs::write(&gate, "").unwrap();
    world.wait(&first, "success").await;
    let job = world.wait_job(&first, "wait", "success");
    let id = job["id"].as_str().unwrap();
    let log = world.log(id);
    let lines: Vec<&str> = log.lines().filter(|line| line.ends_with(" line")).collect();
    assert_eq!(lines, ["first line", "last line"], "{log}");
    let detail = world.get(&format!("/api/v1/jobs/{id}"));
    assert_eq!(detail["attempts"].as_array().unwrap().len(), 1, "{detail}");
    world.wait(&second, "success").await;
    world.wait_clean();
    assert_eq!(world.down(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_cannot_be_used_is_refused_and_the_one_before_goes_on() {
    let world = World::start(Machines::Process).await;
    let good = fs::read_to_string(world.config()).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let listen = good.lines().find(|line| line.starts_with("listen:")).unwrap();
    let bad = [
        ("node: test-node", "node: another".to_owned(), "`node` cannot change"),
        ("backend: process", "backend: prozess".to_owned(), "prozess"),
        (listen, format!("listen: 127.0.0.1:{port}"), "cannot listen on"),
        ("hook]", "no-such-file]".to_owned(), "no-such-file"),
    ];
    for (times, (from, to, says)) in bad.iter().enumerate() {
        rewrite(&world, from, to);
        world.signal(Signal::SIGHUP);
        said(&world, "the new configuration is refused", times + 1);
        assert!(world.daemon_log().contains(says), "{says}: {}", world.daemon_log());
        fs::write(world.config(), &good).unwrap();
    }
    let sha = world
        .push("name: ci\non: push\njobs:\n  quick:\n    steps:\n      - run: echo quick\n")
        .await;
    world.wait(&sha, "success").await;
    assert_eq!(world.daemon_log().matches("helios-ci is ready").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_delivery_is_lost_while_configurations_change() {
    let world = World::start(Machines::Process).await;
    let mut pushed = Vec::new();
    for turn in 0..6 {
        world.signal(Signal::SIGHUP);
        // The hook comes at whatever moment of the change; the forge does not send it twice.
        let workflow = format!("name: ci\non: push\njobs:\n  quick:\n    steps:\n      - run: echo {turn}\n");
        pushed.push(world.push(&workflow).await);
    }
    for sha in pushed {
        world.wait(&sha, "success").await;
    }
    world.wait_clean();
}
