//! What one trivial job costs the disk: how often the daemon waits for it before the first line is written and in all, and
//! how many files it opens.
//!
//! Syncs of the database, and of files and directories, follow from what is done, so their bounds are exact. The log is
//! synced by a clock beside the writing, so that a slow machine syncs it more often: its bound is generous. What happens
//! now and then beside a job (a heartbeat, a checkpoint of the database) is in some runs only: each figure is the least of
//! several.
//!
//! Counted are system calls, by `strace`: half of the syncs are SQLite's own, which no counter in our code would see, and a
//! counter that the kernel keeps (`/proc/PID/io`) has no syncs. It starts the daemon, so that it may trace it whoever runs
//! the tests. The forge is away meanwhile: what its reports cost is on no job's path and depends on how many are sent together.

#![allow(clippy::disallowed_methods, reason = "tests start the daemon as a person would")]

use std::{fs, path::PathBuf, process::Command, time::Instant};

use serde_json::Value;

use crate::support::{Machines, World, deadline, helios_ci, prerequisites};

/// The line as only the step's shell has it: our own lines show its script.
const WORKFLOW: &str = "name: ci\non: push\njobs:\n  job:\n    steps:\n      - run: echo the-first\"-line\"\n";
const LINE: &str = "the-first-line";

/// At most so many, from a person's request until the first line is written.
const DATABASE_BEFORE: usize = 3;
const FILES_BEFORE: usize = 2;
/// At most so many, until nothing is left to do.
const DATABASE: usize = 5;
const FILES: usize = 7;
const LOG: usize = 20;
/// At most so many files are opened; what the kernel says of processes and cgroups is none.
const OPENS: usize = 40;

fn id(value: &Value) -> &str {
    value["id"].as_str().expect("an id")
}

fn strace() -> Command {
    let mut strace = Command::new("strace");
    strace
        .args(["-f", "--seccomp-bpf", "-qq", "--decode-pids=comm"])
        .args(["-y", "-s", "1024", "-e", "signal=none"])
        .args([
            "-e",
            "trace=fsync,fdatasync,sync,syncfs,sync_file_range,msync,open,openat,openat2,pwrite64",
        ]);
    strace
}

/// Whether there is an strace that may trace; without it the caller's test is skipped.
fn needs_strace() -> bool {
    if !prerequisites::needs_program("strace") {
        return false;
    }
    let tried = strace().args(["-o", "/dev/null", "true"]).output();
    let tried = tried.expect("strace starts");
    if !tried.status.success() {
        println!("{}", String::from_utf8_lossy(&tried.stderr));
        prerequisites::skip("strace may not trace here, or is too old");
    }
    tried.status.success()
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
        let mut strace = strace();
        // The tracer is the child of nobody, and what is started becomes the daemon.
        strace.args(["-D", "-o"]).arg(&trace).arg(helios_ci());
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

/// What was counted, and how many of it there may be.
struct Figure {
    what: &'static str,
    most: usize,
    calls: Vec<String>,
}

impl Figure {
    fn of(what: &'static str, most: usize, calls: &[String], is_one: impl Fn(&str) -> bool) -> Self {
        let calls = calls.iter().filter(|call| is_one(call)).cloned().collect();
        Self { what, most, calls }
    }

    fn is_kept(&self) -> bool {
        self.calls.len() <= self.most
    }
}

/// All that is counted of one run.
fn figures(calls: &[String]) -> [Figure; 6] {
    let line = calls
        .iter()
        .position(|call| call.starts_with("pwrite64(") && call.contains(LINE));
    let before = &calls[..line.expect("the first line")];
    let of_database = |call: &str| is_sync(call) && call.contains("/helios-ci.db");
    let of_log = |call: &str| is_sync(call) && call.contains("/records>");
    let of_files = |call: &str| is_sync(call) && !of_database(call) && !of_log(call);
    let of_kernel = |call: &str| {
        ["\"/proc/", "</proc/", "\"/sys/", "</sys/"]
            .iter()
            .any(|path| call.contains(path))
    };
    let opens = |call: &str| call.starts_with("open") && !of_kernel(call);
    [
        Figure::of("the database, before the line", DATABASE_BEFORE, before, of_database),
        Figure::of("files and directories, before the line", FILES_BEFORE, before, of_files),
        Figure::of("the database", DATABASE, calls, of_database),
        Figure::of("files and directories", FILES, calls, of_files),
        Figure::of("the log's records", LOG, calls, of_log),
        Figure::of("opened files", OPENS, calls, opens),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trivial_job_waits_for_the_disk_a_counted_number_of_times() {
    if !needs_strace() {
        return;
    }
    let traced = Traced::start().await;
    let sha = traced.world.push(WORKFLOW).await;
    traced.world.wait(&sha, "success").await;
    traced.world.forge.stop().await;
    // The daemon learns that the forge is away.
    traced.run(&sha);
    let started = Instant::now();
    let mut least = figures(&traced.run(&sha));
    while !least.iter().all(Figure::is_kept) && started.elapsed() < deadline::GUEST {
        for (least, next) in least.iter_mut().zip(figures(&traced.run(&sha))) {
            if next.calls.len() < least.calls.len() {
                *least = next;
            }
        }
    }
    for figure in &least {
        println!("{}: {} of {}", figure.what, figure.calls.len(), figure.most);
    }
    for Figure { what, most, calls } in &least {
        assert!(calls.len() <= *most, "{what}: at most {most}: {calls:#?}");
    }
}
