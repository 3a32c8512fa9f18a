//! `helios-ci doctor --rehearse`: a whole life under scratch names, beside a machined that keeps others.

#![allow(
    clippy::disallowed_methods,
    reason = "it is started and killed as only a process can be"
)]

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use helios_ci::machine::zone::setup::rehearsal::STEPS;
use illumos_sim::faults::{Action, Quirks};
use serde_json::Value;

use super::{
    admin::{Keeper, command, configure, connected, run},
    deadline,
    simulated_host::{self, host, left, spec},
};

/// A host with one image, on which any address can be listened on: there are no real links here. Each of these tests has
/// a network namespace of its own.
fn prepared() {
    std::fs::write("/proc/sys/net/ipv4/ip_nonlocal_bind", "1").unwrap();
    configure();
    simulated_host::prepare();
}

/// The lines of the rehearsal: step, status, detail.
fn rehearsed() -> Vec<(String, String, String)> {
    steps(&run(&["doctor", "--rehearse", "--json"]))
}

fn steps(output: &std::process::Output) -> Vec<(String, String, String)> {
    let lines: Vec<Value> =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let text = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
    let steps = lines.iter().filter_map(|line| {
        let name = text(line, "name");
        let step = name.strip_prefix("rehearsal")?.trim_start_matches(": ").to_owned();
        Some((step, text(line, "status"), text(line, "detail")))
    });
    steps.collect()
}

/// What a process has started and not yet heard of.
fn children(process: u32) -> Vec<nix::unistd::Pid> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap().flatten();
    let texts = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let pids = texts.collect::<String>();
    let pids = pids.split_whitespace().map(|pid| pid.parse().unwrap());
    pids.map(nix::unistd::Pid::from_raw).collect()
}

fn status_of<'l>(lines: &'l [(String, String, String)], step: &str) -> &'l str {
    let found = lines.iter().find(|(name, ..)| name == step);
    found.map_or("", |(_, status, _)| status)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn every_step_is_seen_and_nothing_is_left_or_touched() {
    prepared();
    let _keeper = Keeper::start();
    let machines = connected().await;
    // A machine that works meanwhile.
    let spec = spec();
    machines.prepare(&spec).await.unwrap();
    machines.start(&spec.name).await.unwrap();
    let before = left();
    let lines = rehearsed();
    let ids: Vec<&str> = lines.iter().map(|(step, ..)| step.as_str()).collect();
    let wanted: Vec<&str> = STEPS.iter().map(|step| step.id).collect();
    assert_eq!(ids, wanted, "{lines:#?}");
    for (step, status, detail) in &lines {
        assert!(
            status == "ok" && detail.starts_with("seen: "),
            "{step}: {status}: {detail}"
        );
    }
    assert_eq!(left(), before);
    assert!(
        !host()
            .state()
            .unwrap()
            .datasets
            .contains_key("rpool/hci/images/rehearsal")
    );
    assert_eq!(
        machines.observe(&spec.name).await.unwrap(),
        helios_ci::machine::Observed::Running
    );
    machines.destroy(&spec.name).await.unwrap();
    assert_eq!(left(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn what_a_host_does_otherwise_is_said_and_cleaned_up() {
    prepared();
    let _keeper = Keeper::start();
    connected().await;
    // bhyve that cannot run.
    let quirks = Quirks {
        bhyve_exits: Some(4),
        ..Quirks::default()
    };
    host()
        .mutate(|host| host.faults.zones.insert("*".to_owned(), quirks))
        .unwrap();
    let lines = rehearsed();
    assert_eq!(status_of(&lines, "console"), "ok", "{lines:#?}");
    assert_eq!(status_of(&lines, "boot"), "failure", "{lines:#?}");
    assert_eq!(status_of(&lines, "power-off"), "warning", "{lines:#?}");
    assert_eq!(status_of(&lines, "removal"), "ok", "{lines:#?}");
    assert_eq!(left(), Vec::<String>::new());
    host().mutate(|host| host.faults.zones.clear()).unwrap();
    // A property that is taken in silence and is not there. The first try is doctor's own.
    let stderr = String::new();
    simulated_host::faults(vec![simulated_host::fault(
        "dladm",
        &["set-linkprop", "maxbw*"],
        2,
        Action::Fail { code: 0, stderr },
    )]);
    let lines = rehearsed();
    assert_eq!(status_of(&lines, "network"), "ok", "{lines:#?}");
    assert_eq!(status_of(&lines, "protection"), "failure", "{lines:#?}");
    assert_eq!(status_of(&lines, "boot"), "warning", "{lines:#?}");
    assert_eq!(status_of(&lines, "removal"), "ok", "{lines:#?}");
    assert_eq!(left(), Vec::<String>::new());
    // Links of the slot that are another's: left alone, and said.
    simulated_host::run("dladm", &["create-etherstub", "-t", "hcis16383"]);
    let lines = rehearsed();
    let network = lines.iter().find(|(step, ..)| step == "network").unwrap();
    assert!(network.2.contains("hcis16383 is there already"), "{lines:#?}");
    assert_eq!(status_of(&lines, "removal"), "ok", "{lines:#?}");
    assert_eq!(left(), ["link hcis16383"]);
}

/// One thing that the host does otherwise, by the step that must say so. Calls are counted with doctor's own before the
/// rehearsal; a line is the command, its words, and which of the calls fails.
const OTHERWISE: &[(&str, &str, &[&str], u32)] = &[
    ("configuration", "boot", &["-t"], 2),
    ("image", "zfs", &["snapshot", "rpool/hci/images/rehearsal/*"], 1),
    ("disk", "zfs", &["clone"], 1),
    ("zone", "zoneadm", &["install"], 1),
    ("filter", "ipfstat", &["-ioR"], 2),
    ("console", "zoneadmd", &["-z"], 1),
    ("running-link", "dladm", &["show-linkprop", "protection*"], 3),
    // pkill does it then, and bhyve ends by a signal.
    ("power-off", "bhyvectl", &["--force-poweroff"], 1),
    ("halt-clears", "dladm", &["show-linkprop", "protection*"], 4),
    ("removal", "zonecfg", &["delete"], 3),
];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn each_step_says_when_the_host_does_otherwise() {
    prepared();
    let _keeper = Keeper::start();
    connected().await;
    let mut tried: Vec<&str> = OTHERWISE.iter().map(|(step, ..)| *step).collect();
    for (step, program, words, nth) in OTHERWISE {
        let stderr = "not on this host\n".to_owned();
        simulated_host::faults(vec![simulated_host::fault(
            program,
            words,
            *nth,
            Action::Fail { code: 1, stderr },
        )]);
        let lines = rehearsed();
        assert_eq!(status_of(&lines, step), "failure", "{step}: {lines:#?}");
        simulated_host::faults(Vec::new());
        if *step == "removal" {
            // What it left goes with the next.
            let lines = rehearsed();
            assert!(lines.iter().all(|(_, status, _)| status == "ok"), "{lines:#?}");
        }
        assert_eq!(left(), Vec::<String>::new(), "{step}");
    }
    // Somebody else listens there, and volumes have an end.
    let _listener = std::net::TcpListener::bind("10.77.255.253:9417").unwrap();
    let output = command(&["doctor", "--rehearse", "--json"])
        .env_remove("LD_PRELOAD")
        .output()
        .unwrap();
    let lines = steps(&output);
    for step in ["listen", "volume-end"] {
        assert_eq!(status_of(&lines, step), "failure", "{lines:#?}");
        tried.push(step);
    }
    // These are in the test above.
    tried.extend(["boot", "network", "protection"]);
    tried.sort_unstable();
    let mut all: Vec<&str> = STEPS.iter().map(|step| step.id).collect();
    all.sort_unstable();
    assert_eq!(tried, all);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn what_a_killed_one_left_goes_with_the_next() {
    prepared();
    let _keeper = Keeper::start();
    connected().await;
    // The first zone and the first link that are tried are doctor's own.
    for (program, words, nth) in [
        ("zonecfg", &["-f"][..], 2),
        ("zfs", &["snapshot", "rpool/hci/images/rehearsal/*"], 1),
        ("zonecfg", &["-f"], 3),
        ("zoneadm", &["install"], 1),
        ("dladm", &["create-vnic"], 2),
        ("bhyvectl", &["--force-poweroff"], 1),
    ] {
        simulated_host::faults(vec![simulated_host::fault(program, words, nth, Action::HangAfter)]);
        let mut killed = command(&["doctor", "--rehearse"]);
        let mut killed = killed.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let until = Instant::now() + deadline::PROMPT;
        while host().faults().unwrap().calls[0].seen < nth {
            assert!(Instant::now() < until, "it never comes to {program} {words:?}");
            assert!(
                killed.try_wait().unwrap().is_none(),
                "it ended before {program} {words:?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // What is made side by side with it ends by itself.
        let commands = loop {
            let commands = children(killed.id());
            if commands.len() == 1 {
                break commands;
            }
            assert!(Instant::now() < until, "{program} {words:?}: {commands:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        killed.kill().unwrap();
        killed.wait().unwrap();
        // What it ran has done its work, and ends without it.
        nix::sys::signal::kill(commands[0], nix::sys::signal::Signal::SIGKILL).unwrap();
        simulated_host::faults(Vec::new());
        let lines = rehearsed();
        assert_eq!(lines.len(), STEPS.len(), "{program} {words:?}: {lines:#?}");
        assert!(
            lines.iter().all(|(_, status, _)| status == "ok"),
            "{program} {words:?}: {lines:#?}"
        );
        assert_eq!(left(), Vec::<String>::new(), "{program} {words:?}");
    }
}
