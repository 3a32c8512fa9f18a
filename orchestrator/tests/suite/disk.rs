//! The node's disk is full: new jobs wait with a reason, what runs goes on or ends in words, the
//! database stays whole, and all goes on once there is room.

#![allow(clippy::disallowed_methods, reason = "tests start programs as a person would")]

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::support::{
    Machines, World,
    hold::{assert_counted, counting},
    prerequisites,
};

const INNER: &str = "HELIOS_CI_TEST_IN_NAMESPACE";
const NAME: &str = "disk::a_full_disk_is_survived";

fn id(value: &Value) -> &str {
    value["id"].as_str().expect("an id")
}

fn succeeds(program: &str, args: &[&str]) -> bool {
    let status = Command::new(program).args(args).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// A small file system below a world's data directory, in this process's own mount namespace.
fn shrink(data: &Path) {
    let small = data.with_file_name("small");
    fs::create_dir(&small).expect("a mount point");
    let (data, small) = (data.display().to_string(), small.display().to_string());
    assert!(succeeds(
        "mount",
        &["-t", "tmpfs", "-o", "size=64m,mode=700", "tmpfs", &small]
    ));
    assert!(succeeds("cp", &["-a", &format!("{data}/."), &small]));
    assert!(succeeds("mount", &["--bind", &small, &data]));
}

/// Fills a file system until this much is free; with 0, until nothing more can be written.
fn fill(ballast: &Path, leave: u64) {
    let mut file = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(ballast)
        .expect("the ballast");
    let free = || helios_ci::files::free_bytes(ballast).expect("the free space");
    while free() > leave {
        let some = vec![0; usize::try_from((free() - leave).clamp(1, 1 << 20)).expect("a size")];
        if file.write_all(&some).is_err() {
            return;
        }
    }
}

#[test]
fn a_full_disk_is_survived() {
    if std::env::var_os(INNER).is_some() {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        return runtime.block_on(full_disk());
    }
    if !succeeds("unshare", &["--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]) {
        prerequisites::skip("mounting a small file system needs root");
        return;
    }
    let inner = Command::new("unshare")
        .arg("--mount")
        .arg(std::env::current_exe().expect("this program's file"))
        .args(["--exact", NAME, "--nocapture"])
        .env(INNER, "1")
        .status();
    assert!(inner.expect("unshare runs").success(), "see above");
}

async fn full_disk() {
    const LINES: usize = 400;
    let mut world = World::stopped(Machines::Process, "limits: {min_free_bytes: 16MiB}\n").await;
    shrink(&world.data());
    world.up();
    let ballast = world.data().join("ballast");
    let running = world.push(&counting(LINES, "0.05")).await;
    let job = world.wait_job(&running, "count", "active");
    world.wait_counted(id(&job), 20);

    // Nearly full: nothing new begins, and whoever asks hears why.
    fill(&ballast, 8 << 20);
    let waits = world
        .push_to(
            world.github,
            ".github/workflows/ci.yml",
            "name: ci\non: push\njobs:\n  later:\n    steps:\n      - run: echo at last\n",
        )
        .await;
    let later = world.wait_job(&waits, "later", "queued");
    let why = world.cli(&["why", id(&later)]);
    let why = String::from_utf8_lossy(&why.stdout).into_owned();
    assert!(why.contains("the node's disk is nearly full"), "{why}");
    assert!(world.shown(id(&later))[1].contains("disk is nearly full"));

    // Full.
    let (so_far, log) = (world.daemon_log().len(), |world: &World| world.daemon_log());
    fill(&ballast, 0);
    world.until("the daemon meets the full disk", || {
        let new = log(&world).get(so_far..).unwrap_or_default().to_lowercase();
        (new.contains("no space left") || new.contains("the database is full")).then_some(())
    });
    assert!(world.is_up(), "{}", world.daemon_log());

    // Room again.
    fs::remove_file(&ballast).expect("the ballast goes");
    world.wait(&running, "success").await;
    world.wait(&waits, "success").await;
    assert_counted(&world.log(id(&job)), LINES, "after a full disk");
    let detail = world.detail(id(&job));
    for attempt in detail["attempts"].as_array().expect("attempts") {
        let well = attempt["cause"].is_null() || attempt["cause"].as_str().is_some_and(|cause| cause.len() > 10);
        assert!(well, "an end without words: {detail:#}");
    }
    assert_eq!(world.text("PRAGMA integrity_check"), "ok");
    world.nothing_left();
}
