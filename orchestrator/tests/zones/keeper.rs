//! machined killed, or told to stop, while a command of its runs: the next one waits for that command, and the
//! daemon's calls, which it repeats, come to their end as if nothing had been.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use helios_ci::machine::{Machines, Observed};
use illumos_sim::faults::Action;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    admin::{Keeper, configure, connected},
    bed::{self, host, spec},
    strangers,
};

/// Every act of a life.
const ACTS: &[(&str, &[&str])] = &[
    ("zfs", &["clone"]),
    ("zfs", &["set"]),
    ("zfs", &["create"]),
    ("zonecfg", &["-f"]),
    ("zoneadm", &["install"]),
    ("dladm", &["create-etherstub"]),
    ("dladm", &["create-vnic"]),
    ("dladm", &["set-linkprop"]),
    ("ipadm", &["create-addr"]),
    ("ipadm", &["set-ifprop"]),
    ("zoneadmd", &[]),
    ("zoneadm", &["boot"]),
    ("bhyvectl", &["--force-poweroff"]),
    ("zoneadm", &["uninstall"]),
    ("zonecfg", &["delete"]),
    ("ipadm", &["delete-addr"]),
    ("dladm", &["delete-vnic"]),
    ("zfs", &["destroy"]),
];
/// So long does the command take during which machined ends.
const SLOW_MS: u64 = 400;
/// Ends a hang, nothing else.
const PATIENCE: Duration = Duration::from_secs(100);

/// A whole life, as the daemon asks for it.
async fn life(machines: Arc<dyn Machines>, what: String) {
    let spec = spec();
    machines.prepare(&spec).await.expect(&what);
    machines.start(&spec.name).await.expect(&what);
    assert_eq!(
        machines.observe(&spec.name).await.expect(&what),
        Observed::Running,
        "{what}"
    );
    machines.destroy(&spec.name).await.expect(&what);
}

/// Waits until the slow command runs.
async fn until_it_runs(what: &str) {
    let until = Instant::now() + PATIENCE;
    while host().faults().unwrap().calls[0].seen == 0 {
        assert!(Instant::now() < until, "{what} never ran");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn signal(keeper: &Keeper, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(keeper.0.id()).unwrap()), signal).unwrap();
}

async fn at_every_act(acts: &[(&str, &[&str])], how: Signal) {
    configure();
    bed::prepare();
    strangers::settle();
    let before = bed::picture();
    let mut keeper = Keeper::start();
    for (program, words) in acts {
        let what = format!("{how} during {program} {words:?}");
        bed::faults(vec![bed::fault(program, words, 1, Action::Slow { ms: SLOW_MS })]);
        let living = tokio::spawn(life(connected().await, what.clone()));
        until_it_runs(&what).await;
        signal(&keeper, how);
        let ended = keeper.0.wait().unwrap();
        assert_eq!(ended.success(), how == Signal::SIGTERM, "{what}: {ended}");
        keeper = Keeper::start();
        tokio::time::timeout(PATIENCE, living)
            .await
            .unwrap_or_else(|_| panic!("{what}: no end"))
            .unwrap();
        assert_eq!(bed::changed(&before), Vec::<String>::new(), "{what}");
        // Nothing was done beside the command of the dead one, which was left to its end.
        let trace = host().trace().unwrap();
        let slow = trace
            .iter()
            .find(|line| line.ended - line.begun >= SLOW_MS * 1000 && line.argv[0] == *program)
            .unwrap_or_else(|| panic!("{what}: it did not end"));
        assert_eq!(slow.exit, Some(0), "{what}: {}", slow.stderr);
        let early = trace
            .iter()
            .find(|line| line.parent == keeper.0.id() && line.begun < slow.ended);
        assert_eq!(early, None, "{what}");
        std::fs::remove_file(host().dir().join("trace.jsonl")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn machined_may_be_killed_during_any_command() {
    at_every_act(ACTS, Signal::SIGKILL).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn machined_told_to_stop_ends_what_has_begun() {
    let acts: Vec<_> = ACTS.iter().copied().step_by(3).collect();
    at_every_act(&acts, Signal::SIGTERM).await;
}
