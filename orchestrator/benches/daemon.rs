//! The whole way, measured on a real daemon with real agents: how soon the first line is there, how fast
//! a flood becomes durable, what an idle daemon costs, how fast webhooks are answered. Each figure stands
//! beside what it must be; floors are measured in the same run. It never fails for being slow.
//!
//! `cargo bench -p helios-ci --bench daemon [-- latency|flood|idle|webhooks|branches|reports|outage|guest]`

#![allow(
    clippy::disallowed_methods,
    reason = "a benchmark waits and starts programs as a person would"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    collections::HashMap,
    ffi::OsString,
    fs,
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use helios_fakeforge::Fault;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;
use support::{Machines, World};

/// Lines of the flood, 57 bytes each.
const LINES: usize = 1_000_000;
const IDLE: Duration = Duration::from_secs(60);
/// Whatever a daemon does in so short a time is one wake-up.
const WINDOW: Duration = Duration::from_millis(20);

struct Row {
    what: &'static str,
    figure: String,
    target: String,
    verdict: &'static str,
}

fn row(what: &'static str, figure: f64, unit: &str, target: f64, at_most: bool) -> Row {
    let good = if at_most { figure <= target } else { figure >= target };
    let sign = if at_most { "≤" } else { "≥" };
    Row {
        what,
        figure: format!("{figure:.2} {unit}"),
        target: format!("{sign} {target} {unit}"),
        verdict: if good { "ok" } else { "MISSED" },
    }
}

fn note(what: &'static str, figure: String) -> Row {
    Row {
        what,
        figure,
        target: String::new(),
        verdict: "",
    }
}

fn id(value: &Value) -> &str {
    value["id"].as_str().expect("an id")
}

/// Milliseconds since 1970 of a time as the API writes it.
fn ms(value: &Value) -> i64 {
    let text = value.as_str().expect("a time");
    chrono::DateTime::parse_from_rfc3339(text)
        .expect("a time")
        .timestamp_millis()
}

fn percentile(values: &mut [i64], part: f64) -> i64 {
    values.sort_unstable();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
    let index = ((values.len() - 1) as f64 * part).round() as usize;
    values[index]
}

fn status(pid: i32, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(field)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Of each thread of a process, how often it waited.
fn waits(pid: i32) -> HashMap<OsString, u64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    tasks
        .map(|task| {
            let text = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with("voluntary_ctxt_switches"));
            let count = line
                .and_then(|l| l.split_whitespace().nth(1)?.parse().ok())
                .unwrap_or(0);
            (task.file_name(), count)
        })
        .collect()
}

/// The first line that a step wrote: when the node had it durably enough to show it.
async fn first_line(world: &World, job: &str) -> i64 {
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let url = format!("{}/api/v1/jobs/{job}/logs/stream", world.url());
    let text = client
        .get(url)
        .bearer_auth(world.token())
        .send()
        .await
        .expect("an answer");
    let text = text.text().await.expect("a stream");
    let events = text
        .split("\n\n")
        .filter_map(|event| event.lines().find_map(|l| l.strip_prefix("data:")));
    events
        .filter_map(|data| serde_json::from_str::<Value>(data.trim()).ok())
        .find(|record| record["channel"] == "stdout")
        .map(|record| ms(&record["time"]))
        .expect("a line")
}

/// From the job in the queue to its first line, and where the time goes.
async fn latency(machines: Machines, tries: usize, rows: &mut Vec<Row>) {
    let world = World::start(machines).await;
    let sha = world
        .push("name: ci\non: push\njobs:\n  job:\n    steps:\n      - run: echo first\n")
        .await;
    world.wait(&sha, "success").await;
    let job = world.wait_job(&sha, "job", "success");
    let run = world.get(&format!("/api/v1/jobs/{}", id(&job)))["run"]
        .as_str()
        .expect("a run")
        .to_owned();
    let (mut whole, mut claim, mut hello, mut exec, mut ours) = (vec![], vec![], vec![], vec![], vec![]);
    let mut last = id(&job).to_owned();
    for _ in 0..tries {
        world.wait_clean();
        assert!(world.cli(&["rerun", &run]).status.success());
        // Whoever looks takes the processor from what is measured: a process machine is long done by then.
        let started = if machines == Machines::Process {
            std::thread::sleep(Duration::from_millis(300));
            0
        } else {
            // Written by the machine when it is started.
            world.until("its machine", || {
                let machine = fs::read_dir(world.data().join("machines")).ok()?.flatten().next()?;
                let time = machine.path().join("run.json").metadata().ok()?.modified().ok()?;
                i64::try_from(time.duration_since(std::time::UNIX_EPOCH).ok()?.as_millis()).ok()
            })
        };
        let job = world.until("another run of it", || {
            world.jobs(&sha).pop().filter(|job| id(job) != last)
        });
        id(&job).clone_into(&mut last);
        world.wait_job(&sha, "job", "success");
        let detail = world.get(&format!("/api/v1/jobs/{last}"));
        let attempt = &detail["attempts"][0];
        let (queued, created, running) = (ms(&detail["queued"]), ms(&attempt["created"]), ms(&attempt["running"]));
        let line = first_line(&world, &last).await;
        whole.push(line - queued);
        claim.push(created - queued);
        hello.push(running - created);
        exec.push(line - running);
        ours.push((started - queued, line - running));
    }
    let stages = |part: f64, all: [&mut Vec<i64>; 3]| {
        let [claim, hello, exec] = all.map(|values| percentile(values, part));
        format!("claim {claim} ms, machine and agent {hello} ms, step {exec} ms")
    };
    let (p50, p95) = (percentile(&mut whole, 0.5), percentile(&mut whole, 0.95));
    if machines == Machines::Process {
        rows.push(row(
            "queue → first line, process machine, p50",
            p50 as f64,
            "ms",
            25.0,
            true,
        ));
        rows.push(note("the same, p95", format!("{p95} ms")));
        rows.push(note(
            "its stages, p50",
            stages(0.5, [&mut claim, &mut hello, &mut exec]),
        ));
    } else {
        let (mut before, mut after): (Vec<i64>, Vec<i64>) = ours.into_iter().unzip();
        let (before, after) = (percentile(&mut before, 0.5), percentile(&mut after, 0.5));
        rows.push(row("queue → its QEMU runs, p50", before as f64, "ms", 50.0, true));
        rows.push(note(
            "its agent is there → first line (the guest's shell, emulated), p50",
            format!("{after} ms"),
        ));
        rows.push(note("queue → first line, emulated guest, p50", format!("{p50} ms")));
    }
}

/// A million lines through agent, TLS, masks, file and acknowledgement.
async fn flood(rows: &mut Vec<Row>) {
    let world = World::with(Machines::Process, "limits: {log_bytes: 1GiB}\n").await;
    let warm = world
        .push("name: ci\non: push\njobs:\n  job:\n    steps:\n      - run: echo warm\n")
        .await;
    world.wait(&warm, "success").await;
    let file = world.dir.path().join("lines");
    let mut text = Vec::with_capacity(LINES * 57);
    for number in 0..LINES {
        writeln!(
            text,
            "{number:>8} Compiling crate-{:x} of many, and some more words",
            number * 2_654_435_761 % 0xfff_ffff
        )
        .expect("memory");
    }
    fs::write(&file, &text).expect("the lines");
    let masks: String = (0..40)
        .map(|n| format!("          echo '::add-mask::tok{n:02}-{:032x}'\n", n * 7_919))
        .collect();
    let workflow = format!(
        "name: flood\non: push\njobs:\n  job:\n    steps:\n      - run: |\n{masks}      - run: cat {}\n",
        file.display()
    );
    let (pid, before) = (world.pid(), status(world.pid(), "VmHWM"));
    let sha = world.push(&workflow).await;
    let mut agent = 0;
    let job = world.until("the end of the flood", || {
        for pid in support::hold::processes(&["helios-agent", &world.dir.path().display().to_string()]) {
            agent = agent.max(status(pid, "VmHWM"));
        }
        world.jobs(&sha).into_iter().find(|job| job["state"] == "success")
    });
    let detail = world.get(&format!("/api/v1/jobs/{}", id(&job)));
    let step = &detail["steps"][1];
    let took = (ms(&step["ended"]) - ms(&step["started"])) as f64 / 1000.0;
    let grown = status(pid, "VmHWM").saturating_sub(before) as f64 / 1024.0;
    let floor = floor(&world.dir.path().join("floor"), &text);
    let rate = LINES as f64 / took / 1e6;
    rows.push(row(
        "1 M lines, agent → masked, durable log",
        rate,
        "M lines/s",
        2.5,
        false,
    ));
    rows.push(note(
        "floor: plain write + fdatasync each 20 ms",
        format!("{:.2} M lines/s", LINES as f64 / floor / 1e6),
    ));
    rows.push(row("daemon's growth under it", grown, "MiB", 16.0, true));
    rows.push(row("agent, peak resident", agent as f64 / 1024.0, "MiB", 6.0, true));
    let size = fs::metadata(support::agent()).map_or(0, |m| m.len());
    rows.push(row("agent, size", size as f64 / 1e6, "MB", 3.0, true));
}

fn floor(path: &Path, text: &[u8]) -> f64 {
    let started = Instant::now();
    let mut file = fs::File::create(path).expect("a file");
    let mut synced = Instant::now();
    for piece in text.chunks(64 << 10) {
        file.write_all(piece).expect("a write");
        if synced.elapsed() > Duration::from_millis(20) {
            file.sync_data().expect("a sync");
            synced = Instant::now();
        }
    }
    file.sync_data().expect("a sync");
    started.elapsed().as_secs_f64()
}

/// A daemon with two connections and nothing to do.
async fn idle(rows: &mut Vec<Row>) {
    let world = World::start(Machines::Process).await;
    let sha = world
        .push("name: ci\non: push\njobs:\n  job:\n    steps:\n      - run: echo warm\n")
        .await;
    world.wait(&sha, "success").await;
    world.wait_clean();
    std::thread::sleep(Duration::from_secs(5));
    let (begun, windows) = (Instant::now(), IDLE.as_millis() / WINDOW.as_millis());
    let (mut before, mut awake, mut hand_overs) = (waits(world.pid()), 0_u32, 0);
    for window in 1..=u32::try_from(windows).expect("a few") {
        std::thread::sleep((WINDOW * window).saturating_sub(begun.elapsed()));
        let now = waits(world.pid());
        // Threads that had nothing to do for a while end; they count for nothing then.
        let rose = now
            .iter()
            .map(|(thread, count)| count - before.get(thread).unwrap_or(&0))
            .sum::<u64>();
        awake += u32::from(rose > 0);
        hand_overs += rose;
        before = now;
    }
    let rate = f64::from(awake) / IDLE.as_secs_f64();
    rows.push(row(
        "idle daemon, resident",
        status(world.pid(), "VmRSS") as f64 / 1024.0,
        "MiB",
        40.0,
        true,
    ));
    rows.push(row("idle daemon, wake-ups", rate, "a second", 1.0, true));
    rows.push(note(
        "hand-overs between its threads in them",
        format!("{:.2} a second", hand_overs as f64 / IDLE.as_secs_f64()),
    ));
}

/// Signed deliveries of 1 to 100 kB, eight at a time.
async fn webhooks(rows: &mut Vec<Row>) {
    let world = World::start(Machines::Process).await;
    let secret = fs::read(world.dir.path().join("hook")).expect("the secret");
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let url = format!("{}/hooks/local", world.url());
    let mut took: Vec<i64> = Vec::new();
    for round in 0..40 {
        let posts = (0..8).map(|number| {
            let size = 1000 << ((round + number) % 7);
            let body = json!({
                "ref": "refs/heads/gone", "before": "0".repeat(40), "after": "0".repeat(40), "pad": "x".repeat(size),
                "number": round * 8 + number, "repository": {"id": world.repository, "full_name": "ada/engine"},
            })
            .to_string();
            let mut mac = Hmac::<Sha256>::new_from_slice(&secret).expect("any length");
            mac.update(body.as_bytes());
            let signature = hex::encode(mac.finalize().into_bytes());
            let request = client
                .post(&url)
                .header("x-forgejo-event", "push")
                .header("x-forgejo-signature", signature)
                .header("x-forgejo-delivery", format!("d-{round}-{number}"))
                .body(body);
            async move {
                let started = Instant::now();
                let answer = request.send().await.expect("an answer");
                assert!(answer.status().is_success(), "{}", answer.status());
                i64::try_from(started.elapsed().as_micros()).unwrap_or(i64::MAX)
            }
        });
        took.extend(futures::future::join_all(posts).await);
    }
    let p99 = percentile(&mut took, 0.99) as f64 / 1000.0;
    rows.push(row("webhook answered, eight at a time, p99", p99, "ms", 20.0, true));
    rows.push(note(
        "the same, p50",
        format!("{:.2} ms", percentile(&mut took, 0.5) as f64 / 1000.0),
    ));
}

/// A hundred branches, each with a commit of its own, in one push: until the last commit is known to be taken up.
async fn branches(rows: &mut Vec<Row>) {
    const COUNT: usize = 100;
    let world = World::with(Machines::Process, "capacity: {machines: 1}\n").await;
    let first = world
        .push("name: ci\non: push\njobs:\n  job:\n    steps:\n      - run: echo one\n")
        .await;
    world.wait(&first, "success").await;
    let (work, url) = (
        world.dir.path().join("work"),
        world.forge.clone_url(world.repository).expect("its address"),
    );
    let token = world.forge.create_token("ada", true);
    let git = |args: &[&str]| -> String {
        let basic = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("ada:{token}"));
        let output = std::process::Command::new("git")
            .args(["-c", "user.name=ada", "-c", "user.email=ada@example.org", "-C"])
            .arg(&work)
            .args(args)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            // In the environment, as others may read the command line.
            .env("GIT_CONFIG_COUNT", "1")
            .env("GIT_CONFIG_KEY_0", "http.extraHeader")
            .env("GIT_CONFIG_VALUE_0", format!("Authorization: Basic {basic}"))
            .output()
            .expect("git");
        assert!(
            output.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    fs::create_dir(&work).expect("a folder");
    git(&["clone", "--quiet", &url, "."]);
    let mut commits = Vec::new();
    let mut push = vec!["push".to_owned(), "--quiet".to_owned(), "origin".to_owned()];
    for number in 0..COUNT {
        let message = format!("Number {number}");
        let commit = git(&["commit-tree", "-p", "HEAD", "-m", &message, "HEAD^{tree}"]);
        push.push(format!("{commit}:refs/heads/b{number}"));
        commits.push(commit);
    }
    let started = Instant::now();
    let push: Vec<&str> = push.iter().map(String::as_str).collect();
    git(&push);
    let pushed = started.elapsed();
    while !commits
        .iter()
        .all(|sha| world.forge.state().latest(sha, "helios-ci").is_some())
    {
        assert!(started.elapsed() < Duration::from_secs(600), "{}", world.daemon_log());
        std::thread::sleep(Duration::from_millis(20));
    }
    let took = started.elapsed();
    rows.push(row(
        "100 branches at once → last pending",
        took.as_secs_f64(),
        "s",
        10.0,
        true,
    ));
    rows.push(note(
        "of these, the push itself",
        format!("{:.2} s", pushed.as_secs_f64()),
    ));
}

const ECHO: &str = "name: ci\non: push\njobs:\n  job:\n    steps:\n      - run: echo told\n";

/// How soon a forge hears what the daemon knows.
async fn reports(rows: &mut Vec<Row>) {
    let world = World::start(Machines::Process).await;
    let warm = world.push(ECHO).await;
    world.wait(&warm, "success").await;
    let (mut whole, mut planned, mut pending, mut last) = (vec![], vec![], vec![], vec![]);
    for _ in 0..40 {
        world.wait_clean();
        let sha = world.push(ECHO).await;
        world.wait(&sha, "success").await;
        // When the forge heard this word of this check first.
        let heard = |context: &str, word: &str| {
            let history = world.forge.history(&sha);
            let found = history.iter().find(|r| r.context == context && r.word() == word);
            found.map(|received| received.at_ms)
        };
        let ended = world.until("the job's own end", || heard("helios-ci / ci / job", "success"));
        let stored = world.get("/api/v1/deliveries");
        let stored = stored["deliveries"].as_array().into_iter().flatten();
        let stored = stored.clone().find(|d| d["commit"] == *sha).expect("its delivery");
        let job = world.jobs(&sha).pop().expect("its job");
        let job = world.get(&format!("/api/v1/jobs/{}", id(&job)));
        let (stored, queued) = (ms(&stored["received"]), ms(&job["queued"]));
        let first = heard("helios-ci", "pending").expect("it was pending");
        whole.push(first - stored);
        planned.push(queued - stored);
        pending.push(first - queued);
        let aggregate = heard("helios-ci", "success").expect("its end");
        last.push(aggregate.max(ended) - ms(&job["ended"]));
    }
    let mut add = |what, values: &mut Vec<i64>| rows.push(row(what, percentile(values, 0.5) as f64, "ms", 50.0, true));
    add("delivery stored → pending is at the forge, p50", &mut whole);
    add("job's end → both final states are at the forge, p50", &mut last);
    let stages = |part: f64, planned: &mut [i64], pending: &mut [i64]| {
        let (planned, pending) = (percentile(planned, part), percentile(pending, part));
        format!("planned (fetch and read) {planned} ms, told {pending} ms")
    };
    let middle = stages(0.5, &mut planned, &mut pending);
    rows.push(note("the pending state's stages, p50", middle));
    let (whole, last) = (percentile(&mut whole, 0.95), percentile(&mut last, 0.95));
    rows.push(note("pending and final, p95", format!("{whole} ms, {last} ms")));
}

/// A forge is away while jobs end.
async fn outage(rows: &mut Vec<Row>) {
    const COMMITS: usize = 20;
    let (mut whole, mut copies) = (vec![], 0);
    for (away, stopped) in [(Duration::from_secs(5), false), (Duration::from_secs(40), true)] {
        let world = World::with(Machines::Process, "capacity: {machines: 20}\n").await;
        let gate = world.dir.path().join("gate");
        let wait = format!("until [ -e {} ]; do sleep 0.02; done", gate.display());
        let workflow = format!("name: ci\non: push\njobs:\n  job:\n    steps:\n      - run: {wait}\n");
        let mut commits = Vec::new();
        for _ in 0..COMMITS {
            let sha = world.push(&workflow).await;
            world.wait(&sha, "pending").await;
            commits.push(sha);
        }
        if stopped {
            for _ in 0..10_000 {
                let hang = Fault::Hang(support::deadline::GUEST);
                world.forge.fail_next("/api/v1/", hang);
            }
        } else {
            world.forge.stop().await;
        }
        fs::write(&gate, "").expect("the gate");
        for sha in &commits {
            world.wait_job(sha, "job", "success");
        }
        std::thread::sleep(away);
        let back = Instant::now();
        if stopped {
            world.forge.end_hangs();
        } else {
            world.forge.restart().await;
        }
        for sha in &commits {
            world.wait(sha, "success").await;
        }
        whole.push(i64::try_from(back.elapsed().as_millis()).unwrap_or(i64::MAX));
        for sha in &commits {
            let history = world.forge.history(sha);
            let told = history
                .iter()
                .filter(|r| r.context == "helios-ci" && r.word() == "success");
            copies = copies.max(told.count());
        }
    }
    let longest = percentile(&mut whole, 1.0) as f64 / 1000.0;
    rows.push(row(
        "return after an outage → all final states of 20 commits",
        longest,
        "s",
        5.0,
        true,
    ));
    rows.push(note("most copies of one of them", copies.to_string()));
}

#[tokio::main]
async fn main() {
    let mut rows = Vec::new();
    let only = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let wanted = |part: &str| only.as_deref().is_none_or(|only| only == part);
    if wanted("latency") {
        latency(Machines::Process, 40, &mut rows).await;
    }
    if wanted("flood") {
        flood(&mut rows).await;
    }
    if wanted("idle") {
        idle(&mut rows).await;
    }
    if wanted("webhooks") {
        webhooks(&mut rows).await;
    }
    if wanted("branches") {
        branches(&mut rows).await;
    }
    if wanted("reports") {
        reports(&mut rows).await;
    }
    if wanted("outage") {
        outage(&mut rows).await;
    }
    if wanted("guest") && support::guest().is_some() {
        latency(Machines::Qemu, 3, &mut rows).await;
    }
    println!("| what | measured | target | |");
    println!("|---|---|---|---|");
    for row in rows {
        println!("| {} | {} | {} | {} |", row.what, row.figure, row.target, row.verdict);
    }
}
