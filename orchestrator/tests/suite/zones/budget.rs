//! What a life costs its host, counted in what the host saw.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use helios_ci::machine::Observed;
use illumos_sim::{
    faults::{Action, Fault},
    trace::Line,
};

use super::{
    deadline,
    simulated_host::{self, host, machines, spec},
};

/// Whether a command changes the host; looks are not counted, and never left out for their cost.
pub fn acts(line: &Line) -> bool {
    let words: Vec<&str> = line.argv.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["zfs", verb, ..] => ["clone", "create", "set", "destroy"].contains(verb),
        ["zonecfg", .., last] => *last != "export",
        ["zoneadm", ..] => !words.contains(&"list"),
        ["dladm" | "ipadm", verb, ..] => !verb.starts_with("show"),
        ["zoneadmd" | "bhyvectl" | "pkill", ..] => true,
        _ => false,
    }
}

/// What it is told to do: the first word that is no option of the program and no zone's name.
pub fn verb(line: &Line) -> &str {
    let mut words = line.argv.iter().skip(1).map(String::as_str);
    loop {
        match words.next() {
            Some("-z") => {
                words.next();
            }
            Some(word) if word.starts_with("--vm=") => {}
            word => return word.unwrap_or_default(),
        }
    }
}

/// How many acts of a machine's making go side by side, each time when all have begun that wait for no other: two of
/// the disk, three of the zone, and of the network five, two of which are pairs; then zoneadmd and the boot.
const AT_ONCE: [usize; 7] = [3, 4, 3, 1, 1, 1, 1];
/// So long it is counted how often the host is asked about its machines.
const WATCHED: Duration = Duration::from_secs(3);

/// What a part of the trace changed.
fn acting(trace: &[Line]) -> Vec<&Line> {
    trace.iter().filter(|line| acts(line)).collect()
}

fn shown(lines: &[&Line]) -> Vec<String> {
    lines.iter().map(|line| line.command()).collect()
}

#[tokio::test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn a_life_costs_what_was_budgeted() {
    simulated_host::prepare();
    let machines = machines();
    // Once to see what acts.
    let (first, from) = (spec(), host().trace().unwrap().len());
    machines.prepare(&first).await.unwrap();
    machines.start(&first.name).await.unwrap();
    let trace = host().trace().unwrap();
    let verbs = acting(&trace[from..]).into_iter();
    let verbs: BTreeSet<(String, String)> = verbs
        .map(|line| (line.argv[0].clone(), verb(line).to_owned()))
        .collect();
    machines.destroy(&first.name).await.unwrap();
    // And once with each of these held until all that go beside it have begun.
    let held = verbs.iter().map(|(program, verb)| {
        let words: Vec<&str> = Some(verb.as_str())
            .filter(|verb| !verb.is_empty())
            .into_iter()
            .collect();
        Fault {
            times: 1000,
            ..simulated_host::fault(program, &words, 1, Action::Held)
        }
    });
    simulated_host::faults(held.collect());
    let (spec, from) = (spec(), host().trace().unwrap().len());
    let made = tokio::spawn({
        let (machines, spec) = (machines.clone(), spec.clone());
        async move {
            machines.prepare(&spec).await.unwrap();
            machines.start(&spec.name).await.unwrap();
        }
    });
    let mut last = Vec::new();
    for (round, at_once) in AT_ONCE.into_iter().enumerate() {
        let until = Instant::now() + deadline::GUEST;
        loop {
            let held = host().held().unwrap();
            if held.len() >= at_once {
                assert_eq!(held.len(), at_once, "round {round}: {held:#?}");
                last = held;
                break;
            }
            // A command that waits for others in vain is given up.
            assert!(
                Instant::now() < until && !made.is_finished(),
                "round {round}: {held:#?} after {last:#?}"
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        host().release().unwrap();
    }
    assert!(last[0].ends_with(" boot"), "{last:?}");
    let made = tokio::time::timeout(deadline::GUEST, made).await;
    made.expect("nothing else is to be done").unwrap();
    let created = host().trace().unwrap().len();
    simulated_host::faults(Vec::new());
    machines.destroy(&spec.name).await.unwrap();
    let trace = host().trace().unwrap();
    let (making, removing) = (acting(&trace[from..created]), acting(&trace[created..]));
    assert_eq!(making.len(), AT_ONCE.iter().sum::<usize>(), "{:#?}", shown(&making));
    assert!(removing.len() <= 14, "{:#?}", shown(&removing));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn twenty_that_wait_cost_one_look_a_second() {
    simulated_host::prepare();
    let machines = machines();
    let mut names = Vec::new();
    let lives = (0..20).map(|_| {
        let machines = machines.clone();
        tokio::spawn(async move {
            let spec = spec();
            machines.prepare(&spec).await.unwrap();
            machines.start(&spec.name).await.unwrap();
            spec.name
        })
    });
    for life in lives.collect::<Vec<_>>() {
        names.push(life.await.unwrap());
    }
    let before = host().trace().unwrap().len();
    let begun = Instant::now();
    let waiting: Vec<_> = names
        .iter()
        .map(|name| {
            let (machines, name) = (machines.clone(), name.clone());
            tokio::spawn(async move { machines.wait_stopped(&name).await.unwrap() })
        })
        .collect();
    // Somebody else asks for each of them all the time.
    while begun.elapsed() < WATCHED {
        for name in &names {
            assert_eq!(machines.observe(name).await.unwrap(), Observed::Running);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let looks = host().trace().unwrap().len() - before;
    let most = 4 * usize::try_from(begun.elapsed().as_secs() + 1).unwrap();
    assert!(
        looks >= 2 && looks <= most,
        "{looks} processes in {:?}",
        begun.elapsed()
    );
    for name in &names {
        host()
            .guest_ends(name.as_str(), illumos_sim::boot::life::End::Code(1))
            .unwrap();
    }
    for (waited, name) in waiting.into_iter().zip(&names) {
        let ended = waited.await.unwrap();
        assert_eq!(
            ended,
            Observed::Stopped("the guest powered itself off".into()),
            "{name}"
        );
    }
    let ends = names.into_iter().map(|name| {
        let machines = machines.clone();
        tokio::spawn(async move { machines.destroy(&name).await.unwrap() })
    });
    for end in ends.collect::<Vec<_>>() {
        end.await.unwrap();
    }
    assert_eq!(simulated_host::left(), Vec::<String>::new());
}
