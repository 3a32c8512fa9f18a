//! What one trivial job costs the disk: how often the daemon waits for it before the first line is written and in all, and
//! how many files it opens.
//!
//! Counted are system calls, by `strace`: half of the syncs are SQLite's own, which no counter in our code would see, and a
//! counter that the kernel keeps (`/proc/PID/io`) has no syncs. It starts the daemon, so that it may trace it whoever runs
//! the tests. The forge is away meanwhile: what its reports cost is on no job's path and depends on how many are sent together.

#![allow(clippy::disallowed_methods, reason = "tests start the daemon as a person would")]

use std::{fs, path::PathBuf, process::Command};

use serde_json::Value;

use crate::support::{Machines, World, helios_ci, prerequisites};

/// The line as only the step's shell has it: our own lines show its script.
const WORKFLOW: &str = "name: ci\non: push\njobs:\n  job:\n    steps:\n      - run: echo the-first\"-line\"\n";
const LINE: &str = "the-first-line";

/// At most so many syncs from a person's request until the first line is written.
const SYNCS_BEFORE: usize = 8;
/// And until nothing is left to do.
const SYNCS: usize = 14;
/// At most so many files are opened.
const OPENS: usize = 80;

fn id(value: &Value) -> &str {
    value["id"].as_str().expect("an id")
}

/// A daemon whose system calls are written down.
struct Traced {
    world: World,
    trace: PathBuf,
}

impl Traced {
    async fn start() -> Self {
        let mut world = World::stopped(Machines::Process, "").await;
        let trace = world.dir.path().join("trace");
        let mut strace = Command::new("strace");
        strace
            // The tracer is the child of nobody, and what is started becomes the daemon.
            .args(["-D", "-f", "--seccomp-bpf", "-qq", "--decode-pids=comm"])
            .args(["-y", "-s", "1024", "-e", "signal=none"])
            .args([
                "-e",
                "trace=fsync,fdatasync,sync,syncfs,sync_file_range,msync,open,openat,openat2,pwrite64",
            ])
            .arg("-o")
            .arg(&trace)
            .arg(helios_ci());
        world.launch_as(strace, &[]);
        world.ready();
        Self { world, trace }
    }

    /// What the daemon has called so far, each call where it began.
    fn calls(&self) -> Vec<String> {
        let trace = fs::read(&self.trace).expect("a trace");
        String::from_utf8_lossy(&trace)
            .lines()
            .filter_map(|line| {
                let (process, call) = line.split_once("> ")?;
                let (_, name) = process.split_once('<')?;
                // Its threads; the programs that it starts have names of their own.
                let is_daemon = ["helios-ci", "tokio-", "sqlx-"]
                    .iter()
                    .any(|ours| name.starts_with(ours));
                (is_daemon && !call.starts_with("<...")).then(|| call.to_owned())
            })
            .collect()
    }

    /// Runs the workflow once more, to its very end; what the daemon has called for it.
    fn run(&self, sha: &str) -> Vec<String> {
        let world = &self.world;
        let (before, last) = (self.calls().len(), world.wait_job(sha, "job", "success"));
        let run = world.get(&format!("/api/v1/jobs/{}", id(&last)))["run"]
            .as_str()
            .expect("a run")
            .to_owned();
        assert!(world.cli(&["rerun", &run]).status.success());
        let job = world.until("the job of another attempt", || {
            world
                .jobs(sha)
                .pop()
                .filter(|job| id(job) != id(&last) && job["state"] == "success")
        });
        world.wait_clean();
        let attempt = world.get(&format!("/api/v1/jobs/{}", id(&job)))["attempts"][0].clone();
        let log = world.data().join("logs").join(id(&attempt));
        world.until("a sealed log", || {
            (log.join("sealed").exists() && !log.join("records").exists()).then_some(())
        });
        self.calls().split_off(before)
    }
}

fn is_sync(call: &str) -> bool {
    ["fsync(", "fdatasync(", "sync(", "syncfs(", "sync_file_range(", "msync("]
        .iter()
        .any(|name| call.starts_with(name))
}

fn syncs(calls: &[String]) -> Vec<&String> {
    calls.iter().filter(|call| is_sync(call)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trivial_job_waits_for_the_disk_a_counted_number_of_times() {
    if !prerequisites::needs_program("strace") {
        return;
    }
    let traced = Traced::start().await;
    let sha = traced.world.push(WORKFLOW).await;
    traced.world.wait(&sha, "success").await;
    traced.world.forge.stop().await;
    // The daemon learns that the forge is away.
    traced.run(&sha);
    // A heartbeat, or a checkpoint of the database, may fall into one of them.
    let runs: Vec<_> = (0..3).map(|_| traced.run(&sha)).collect();
    let least = runs.iter().min_by_key(|calls| syncs(calls).len()).expect("a run");
    let line = least
        .iter()
        .position(|call| call.starts_with("pwrite64(") && call.contains(LINE));
    let before = syncs(&least[..line.expect("the first line")]);
    let all = syncs(least);
    let opens: Vec<_> = least.iter().filter(|call| call.starts_with("open")).collect();
    println!(
        "{} syncs before the line, {} in all, {} opens",
        before.len(),
        all.len(),
        opens.len()
    );
    assert!(before.len() <= SYNCS_BEFORE, "before the first line: {before:#?}");
    assert!(all.len() <= SYNCS, "in all: {all:#?}");
    assert!(opens.len() <= OPENS, "opened: {opens:#?}");
}
