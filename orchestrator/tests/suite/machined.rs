//! The daemon without machines of its own: they are kept by `helios-ci machined`, behind its socket,
//! and either process may die while a job runs.

#![allow(clippy::disallowed_methods, reason = "machined is started as a person would")]

use std::{
    fs,
    process::{Child, Stdio},
};

use crate::support::{self, Machines, World, deadline, pause};

/// Counts in three parts; files in the folder let it go on, so that a test decides what dies when.
fn gated(gate: &std::path::Path) -> String {
    format!(
        "name: ci\non: push\njobs:\n  count:\n    steps:\n      - run: |\n          for i in $(seq 1 20); do echo \"line $i of 40\"; done\n          \
         until [ -e {gate} ]; do sleep 0.1; done\n          for i in $(seq 21 40); do echo \"line $i of 40\"; done\n",
        gate = gate.display()
    )
}

/// A daemon, a machined, and what each wrote.
struct Split {
    world: World,
    machined: Option<Child>,
}

impl Split {
    async fn start(machines: Machines) -> Self {
        let mut split = Self {
            world: World::stopped(machines, "machined: {}\n").await,
            machined: None,
        };
        split.keeper_up();
        split.world.up();
        split
    }

    /// Starts machined and waits until it is ready. With guests it tries the host's virtualisation first, and it may wait
    /// for commands of its predecessor: on a busy machine either takes longer than a daemon waits.
    fn keeper_up(&mut self) {
        let ready = |split: &Self| split.keeper_log().matches("machined is ready").count();
        let before = ready(self);
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.world.dir.path().join("machined.log"))
            .unwrap();
        let mut command = self.world.command(&["machined", "--allow-unisolated"]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        self.machined = Some(child.unwrap());
        self.world
            .until("machined is ready", || (ready(self) > before).then_some(()));
    }

    fn keeper_killed(&mut self) {
        let mut child = self.machined.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGHUP, until it has said something so often.
    fn keeper_refreshed(&self, what: &str, times: usize) {
        let pid = i32::try_from(self.machined.as_ref().unwrap().id()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGHUP).unwrap();
        self.world.until(what, || {
            (self.keeper_log().matches(what).count() >= times).then_some(())
        });
    }

    fn keeper_log(&self) -> String {
        fs::read_to_string(self.world.dir.path().join("machined.log")).unwrap_or_default()
    }

    /// One success on one attempt, every line once, nothing left.
    async fn all_is_well(&self, sha: &str) {
        self.world.wait(sha, "success").await;
        let job = self.world.wait_job(sha, "count", "success");
        let id = job["id"].as_str().unwrap();
        let log = self.world.log(id);
        let counted: Vec<&str> = log.lines().filter(|line| line.starts_with("line ")).collect();
        let wanted: Vec<String> = (1..=40).map(|i| format!("line {i} of 40")).collect();
        assert_eq!(counted, wanted, "{log}\n{}", self.keeper_log());
        let detail = self.world.get(&format!("/api/v1/jobs/{id}"));
        assert_eq!(detail["attempts"].as_array().unwrap().len(), 1, "{detail}");
        self.world.wait_clean();
    }

    fn counted(&self, sha: &str, lines: u32) {
        let world = &self.world;
        world.until("its lines", || {
            let job = world.jobs(sha).pop().filter(|j| j["state"] != "queued")?;
            let output = world.cli(&["logs", job["id"].as_str()?]);
            let log = String::from_utf8_lossy(&output.stdout);
            log.contains(&format!("line {lines} of 40")).then_some(())
        });
    }
}

impl Drop for Split {
    fn drop(&mut self) {
        if let Some(mut child) = self.machined.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn machined_or_the_daemon_may_die_while_a_job_runs() {
    let mut split = Split::start(Machines::Process).await;
    let gate = split.world.dir.path().join("gate");
    fs::create_dir(&gate).unwrap();
    let sha = split.world.push(&gated(&gate)).await;
    split.counted(&sha, 20);
    split.keeper_killed();
    split.world.kill();
    split.keeper_up();
    split.world.up();
    fs::write(gate.join("1"), "").unwrap();
    split.counted(&sha, 30);
    // The job ends while nobody keeps machines; the removal waits for machined's return.
    split.keeper_killed();
    fs::write(gate.join("2"), "").unwrap();
    split.counted(&sha, 40);
    split.keeper_up();
    split.all_is_well(&sha).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn machined_reads_its_configuration_again_while_a_job_runs() {
    let split = Split::start(Machines::Process).await;
    let gate = split.world.dir.path().join("gate");
    fs::create_dir(&gate).unwrap();
    let sha = split.world.push(&gated(&gate)).await;
    split.counted(&sha, 20);
    let good = fs::read_to_string(split.world.config()).unwrap();
    fs::write(split.world.config(), good.replace("node: test-node", "node: another")).unwrap();
    split.keeper_refreshed("cannot change while it runs", 1);
    fs::write(split.world.config(), &good).unwrap();
    split.keeper_refreshed("machined is ready", 2);
    fs::write(gate.join("1"), "").unwrap();
    fs::write(gate.join("2"), "").unwrap();
    split.all_is_well(&sha).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_is_kept_by_machined() {
    if support::needs_guest().is_none() {
        return;
    }
    let split = Split::start(Machines::Qemu).await;
    // Processes 1 and 2 always are, so nothing waits.
    let gate = std::path::Path::new("/proc");
    let sha = split.world.push(&gated(gate)).await;
    split.all_is_well(&sha).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_without_its_machined_says_so() {
    let mut world = World::stopped(Machines::Process, "machined: {}\n").await;
    let started = std::time::Instant::now();
    world.launch(&[]);
    while world.is_up() {
        assert!(started.elapsed() < deadline::GUEST);
        pause();
    }
    let log = world.daemon_log();
    let words: String = log.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        words.contains("machined does not answer on") && words.contains("machined.sock"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn machined_without_a_section_says_what_to_write() {
    let world = World::stopped(Machines::Process, "").await;
    let output = world.cli(&["machined"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("machined:"), "{text}");
    // As a service it goes to maintenance instead of starting again and again.
    let output = world.command(&["machined"]).env("SMF_FMRI", "svc:/x").output().unwrap();
    assert_eq!(output.status.code(), Some(96));
}

/// A file that nobody can read sends the service to maintenance, with the reason in its log; a person who types the
/// command gets it as a misuse.
#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_configuration_is_said_and_not_tried_again() {
    let world = World::stopped(Machines::Process, "machined: {}\n").await;
    let good = fs::read_to_string(world.config()).unwrap();
    for (bad, reason) in [
        ("node: [n1\n".to_owned(), "config.yaml"),
        (format!("{good}bakend: zone\n"), "bakend"),
        (good.replace("backend: process", "backend: jail"), "jail"),
        (good.replace("node: test-node", "node: a node"), "a node"),
        (format!("{good}zone: {{network: 8.8.8.0/24}}\n"), "8.8.8.0/24"),
    ] {
        fs::write(world.config(), &bad).unwrap();
        for service in ["serve", "machined"] {
            for (fmri, code) in [(Some("svc:/application/helios-ci:default"), 96), (None, 2)] {
                let (ended, text) = ended(&world, service, fmri);
                let words: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
                assert_eq!(ended, Some(code), "{service} under {fmri:?}: {text}");
                assert!(words.contains(reason), "{service} does not say {reason}: {text}");
            }
        }
    }
    fs::remove_file(world.config()).unwrap();
    for service in ["serve", "machined"] {
        let (ended, text) = ended(&world, service, Some("svc:/application/helios-ci:default"));
        assert_eq!(ended, Some(96), "{text}");
        assert!(text.contains("config.yaml"), "{text}");
    }
}

/// How a service that should not even start ended, and what it said.
fn ended(world: &World, service: &str, fmri: Option<&str>) -> (Option<i32>, String) {
    let mut command = world.command(&[service, "--allow-unisolated"]);
    command.env_remove("SMF_FMRI").envs(fmri.map(|fmri| ("SMF_FMRI", fmri)));
    let log = world.dir.path().join("ended.log");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = command.stderr(fs::File::create(&log).unwrap()).spawn().unwrap();
    let started = std::time::Instant::now();
    let code = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        if started.elapsed() > deadline::GUEST {
            child.kill().unwrap();
            panic!("{service} did not end: {}", fs::read_to_string(&log).unwrap());
        }
        pause();
    };
    (code, fs::read_to_string(&log).unwrap())
}
