//! How soon forges are answered, and how soon they are told.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use helios_fakeforge::Fault;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::json;
use sha2::Sha256;

use crate::{
    api::{self, TRIVIAL, id, ms},
    support::{self, Machines, World},
    table::{COUNT, Goal, MS, Row, Table, Unit, percentile},
};

const SECONDS: Unit = Unit("s");

/// Signed deliveries of 1 to 64 kB, eight at a time.
pub async fn webhooks(table: &mut Table) {
    let world = api::start(Machines::Process, "").await;
    let secret = fs::read(world.dir.path().join("hook")).expect("the secret");
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let url = format!("{}/hooks/local", world.url());
    let mut took = Vec::new();
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
            let request = client
                .post(&url)
                .header("x-forgejo-event", "push")
                .header("x-forgejo-signature", hex::encode(mac.finalize().into_bytes()))
                .header("x-forgejo-delivery", format!("d-{round}-{number}"))
                .body(body);
            async move {
                let started = Instant::now();
                let answer = request.send().await.expect("an answer");
                assert!(answer.status().is_success(), "{}", answer.status());
                started.elapsed().as_secs_f64() * 1000.0
            }
        });
        took.extend(futures::future::join_all(posts).await);
    }
    table.push(
        Row::new("webhook answered, eight at a time, 1 to 64 kB", MS, took).goal_of_part(0.99, Goal::AtMost(20.0)),
    );
}

/// Git in a clone of the forge's repository.
fn git(world: &World, token: &str, args: &[&str]) -> String {
    let output = std::process::Command::new("git")
        .args(["-c", "user.name=ada", "-c", "user.email=ada@example.org", "-C"])
        .arg(world.dir.path().join("work"))
        .args(args)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        // In the environment, as others may read the command line.
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "http.extraHeader")
        .env(
            "GIT_CONFIG_VALUE_0",
            format!("Authorization: Basic {}", STANDARD.encode(format!("ada:{token}"))),
        )
        .output()
        .expect("git");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {said}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A hundred branches, each with a commit of its own, in one push: until the last commit is known to be taken up.
pub async fn branches(table: &mut Table) {
    const COUNT: usize = 100;
    let world = api::start(Machines::Process, "capacity: {machines: 1}\n").await;
    let first = world.push(TRIVIAL).await;
    world.wait(&first, "success").await;
    let url = world.forge.clone_url(world.repository).expect("its address");
    let token = world.forge.create_token("ada", true);
    fs::create_dir(world.dir.path().join("work")).expect("a folder");
    git(&world, &token, &["clone", "--quiet", &url, "."]);
    let mut commits = Vec::new();
    let mut push = vec!["push".to_owned(), "--quiet".to_owned(), "origin".to_owned()];
    for number in 0..COUNT {
        let message = format!("Number {number}");
        let commit = git(
            &world,
            &token,
            &["commit-tree", "-p", "HEAD", "-m", &message, "HEAD^{tree}"],
        );
        push.push(format!("{commit}:refs/heads/b{number}"));
        commits.push(commit);
    }
    let started = Instant::now();
    let push: Vec<&str> = push.iter().map(String::as_str).collect();
    git(&world, &token, &push);
    let pushed = started.elapsed().as_secs_f64();
    let pending = |sha: &String| world.forge.state().latest(sha, "helios-ci").is_some();
    while !commits.iter().all(pending) {
        assert!(started.elapsed() < support::deadline::GUEST, "{}", world.daemon_log());
        std::thread::sleep(Duration::from_millis(20));
    }
    let took = started.elapsed().as_secs_f64();
    table.push(
        Row::new("100 branches at once → last pending", SECONDS, vec![took])
            .goal(Goal::AtMost(10.0))
            .remark(format!("of these {pushed:.2} s are the push itself")),
    );
}

/// A job that ends once this file exists.
fn until(gate: &Path) -> String {
    let wait = format!("until [ -e {} ]; do sleep 0.02; done", gate.display());
    format!("name: ci\non: push\njobs:\n  job:\n    steps:\n      - run: {wait}\n")
}

/// How soon a forge hears what the daemon knows.
pub async fn reports(table: &mut Table) {
    let world = api::start(Machines::Process, "").await;
    let warm = world.push(TRIVIAL).await;
    world.wait(&warm, "success").await;
    let (mut whole, mut planned, mut pending, mut last) = (vec![], vec![], vec![], vec![]);
    for round in 0..40 {
        world.wait_clean();
        // A job that ends at once would have its end overtake its begin.
        let gate = world.dir.path().join(format!("gate{round}"));
        let workflow = until(&gate);
        let sha = world.push(&workflow).await;
        world.wait(&sha, "pending").await;
        fs::write(&gate, "").expect("the gate");
        world.wait(&sha, "success").await;
        // When the forge heard this word of this check first.
        let heard = |context: &str, word: &str| {
            let history = world.forge.history(&sha);
            let found = history.iter().find(|r| r.context == context && r.word() == word);
            found.map(|received| received.at_ms as f64)
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
    let stages = format!(
        "fetched and planned {:.0}, told {:.0} ms",
        percentile(&planned, 0.5),
        percentile(&pending, 0.5)
    );
    table.push(
        Row::new("delivery stored → pending is at the forge", MS, whole)
            .goal(Goal::AtMost(50.0))
            .remark(stages),
    );
    table.push(Row::new("job's end → both final states are at the forge", MS, last).goal(Goal::AtMost(50.0)));
}

/// A forge is away while jobs end.
pub async fn outage(table: &mut Table) {
    const COMMITS: usize = 20;
    let (mut whole, mut copies) = (vec![], 0);
    for (away, stopped) in [(Duration::from_secs(5), false), (Duration::from_secs(40), true)] {
        let world = api::start(Machines::Process, "capacity: {machines: 20}\n").await;
        let gate = world.dir.path().join("gate");
        let workflow = until(&gate);
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
        whole.push(back.elapsed().as_secs_f64());
        for sha in &commits {
            let history = world.forge.history(sha);
            let told = history
                .iter()
                .filter(|r| r.context == "helios-ci" && r.word() == "success");
            copies = copies.max(told.count());
        }
    }
    let longest = percentile(&whole, 1.0);
    table.push(
        Row::new(
            "return after an outage → all final states of 20 commits",
            SECONDS,
            vec![longest],
        )
        .goal(Goal::AtMost(5.0))
        .remark("the longer of two outages"),
    );
    table.push(Row::new("most copies of one of them", COUNT, vec![copies as f64]));
}
