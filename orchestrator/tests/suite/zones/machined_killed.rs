//! machined killed, or told to stop, while a command of its runs: the next one waits for that command, and the
//! daemon's calls, which it repeats, come to their end as if nothing had been.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use helios_ci::machine::{Machines, Observed};
use illumos_sim::faults::{Action, Quirks};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    admin::{Keeper, configure, connected},
    budget, deadline, expected_state, foreign_objects,
    simulated_host::{self, host, left, spec},
};

/// So long does the command take during which machined ends.
const SLOW_MS: u64 = 400;

/// A whole life, as the daemon asks for it.
async fn life(machines: Arc<dyn Machines>, what: String) {
    let spec = spec();
    let endpoints = machines.prepare(&spec).await.expect(&what);
    expected_state::prepared(&spec, &endpoints, &what);
    machines.start(&spec.name).await.expect(&what);
    expected_state::runs(&spec, &endpoints, &what);
    assert_eq!(
        machines.observe(&spec.name).await.expect(&what),
        Observed::Running,
        "{what}"
    );
    machines.destroy(&spec.name).await.expect(&what);
}

/// One act of a life: the program, its verb, and which of the calls of these it is.
type Act = (String, Vec<String>, u32);

/// Every act of a life, in its order, as the host saw it.
async fn every_act() -> Vec<Act> {
    let from = host().trace().unwrap().len();
    life(connected().await, "without faults".to_owned()).await;
    let trace = host().trace().unwrap();
    let mut counts: BTreeMap<_, u32> = BTreeMap::new();
    let acts = trace[from..].iter().filter(|line| budget::acts(line)).map(|line| {
        let verb = Some(budget::verb(line).to_owned()).filter(|verb| !verb.is_empty());
        let (program, words) = (line.argv[0].clone(), Vec::from_iter(verb));
        let count = counts.entry((program.clone(), words.clone())).or_default();
        *count += 1;
        (program, words, *count)
    });
    let acts: Vec<Act> = acts.collect();
    // As many as plan and budget have: one that is not met proves nothing.
    let verbs: BTreeSet<String> = acts.iter().flat_map(|(_, words, _)| words.clone()).collect();
    for verb in [
        "delete-if",
        "delete-etherstub",
        "halt",
        "--destroy",
        "destroy",
        "delete",
    ] {
        assert!(verbs.contains(verb), "{acts:?}");
    }
    assert!(acts.len() >= 25, "{acts:?}");
    acts
}

/// Waits until the slow command runs.
async fn until_it_runs(what: &str, nth: u32) {
    let until = Instant::now() + deadline::GUEST;
    while host().faults().unwrap().calls[0].seen < nth {
        assert!(Instant::now() < until, "{what} never ran");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn signal(keeper: &Keeper, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(keeper.0.id()).unwrap()), signal).unwrap();
}

/// A life for every act of `part`, of all that a life has; machined ends during that act.
async fn at_every_act(part: fn(usize) -> bool, how: Signal) {
    configure();
    simulated_host::prepare();
    foreign_objects::settle();
    // bhyve's end is not the zone's, nor that of its virtual machine: each takes an act of its own.
    let slow_to_go = Quirks {
        lingers: 1000,
        leaves_vm: true,
        ..Quirks::default()
    };
    host()
        .mutate(|host| host.faults.zones.insert("*".to_owned(), slow_to_go))
        .unwrap();
    let before = simulated_host::picture();
    let mut keeper = Keeper::start();
    let acts = every_act().await;
    let acts = acts.iter().enumerate().filter(|(n, _)| part(*n));
    for (_, (program, words, nth)) in acts {
        let what = format!("{how} during {program} {words:?}, call {nth}");
        std::fs::remove_file(host().dir().join("trace.jsonl")).unwrap();
        let verbs: Vec<&str> = words.iter().map(String::as_str).collect();
        simulated_host::faults(vec![simulated_host::fault(
            program,
            &verbs,
            *nth,
            Action::Slow { ms: SLOW_MS },
        )]);
        let living = tokio::spawn(life(connected().await, what.clone()));
        until_it_runs(&what, *nth).await;
        signal(&keeper, how);
        let ended = keeper.0.wait().unwrap();
        assert_eq!(ended.success(), how == Signal::SIGTERM, "{what}: {ended}");
        keeper = Keeper::start();
        tokio::time::timeout(deadline::GUEST, living)
            .await
            .unwrap_or_else(|_| panic!("{what}: no end"))
            .unwrap();
        assert_eq!(simulated_host::changed(&before), Vec::<String>::new(), "{what}");
        // Nothing was done beside the command of the dead one, which was left to its end.
        let trace = host().trace().unwrap();
        let slow = trace
            .iter()
            .find(|line| line.fault.as_deref() == Some("slow"))
            .unwrap_or_else(|| panic!("{what}: it did not end"));
        assert_eq!(slow.exit, Some(0), "{what}: {}", slow.stderr);
        let early = trace
            .iter()
            .find(|line| line.parent == keeper.0.id() && line.begun < slow.ended);
        assert_eq!(early, None, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn machined_may_be_killed_during_any_command() {
    at_every_act(|n| n % 2 == 0, Signal::SIGKILL).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn machined_may_be_killed_during_any_other_command() {
    at_every_act(|n| n % 2 == 1, Signal::SIGKILL).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn machined_told_to_stop_ends_what_has_begun() {
    at_every_act(|n| n % 4 == 0, Signal::SIGTERM).await;
}

/// As many attempts as a large node has at one time, as its daemon asks for them: all over one socket.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn twenty_attempts_at_once_over_the_socket() {
    configure();
    simulated_host::prepare();
    let _keeper = Keeper::start();
    let machines = connected().await;
    let lives = (0..20).map(|_| {
        let machines = machines.clone();
        tokio::spawn(async move {
            let spec = spec();
            let endpoints = machines.prepare(&spec).await.unwrap();
            expected_state::prepared(&spec, &endpoints, "one of twenty");
            machines.start(&spec.name).await.unwrap();
            (spec, endpoints)
        })
    });
    let mut made = Vec::new();
    for life in lives.collect::<Vec<_>>() {
        made.push(life.await.unwrap());
    }
    let addresses: BTreeSet<_> = made.iter().map(|(_, at)| format!("{:?}", at.agent)).collect();
    assert_eq!(addresses.len(), 20, "each has an address of its own");
    for (spec, endpoints) in &made {
        expected_state::runs(spec, endpoints, "one of twenty");
    }
    let running = machines.list().await.unwrap();
    let running = running.iter().filter(|machine| machine.observed == Observed::Running);
    assert_eq!((running.count(), host().state().unwrap().zones.len()), (20, 20));
    let ends = made.into_iter().map(|(spec, _)| {
        let machines = machines.clone();
        tokio::spawn(async move { machines.destroy(&spec.name).await.unwrap() })
    });
    for end in ends.collect::<Vec<_>>() {
        end.await.unwrap();
    }
    assert!(machines.list().await.unwrap().is_empty());
    assert_eq!(left(), Vec::<String>::new());
}
