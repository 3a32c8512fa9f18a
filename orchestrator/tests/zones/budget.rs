//! What a life costs its host, counted in what the host saw.

use std::time::Duration;

use helios_ci::machine::Observed;
use illumos_sim::{faults::Action, trace::Line};

use super::bed::{self, host, machines, spec};

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

#[tokio::test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn a_life_costs_what_was_budgeted() {
    bed::prepare();
    // Long enough for everything that does not wait for it.
    bed::faults(vec![bed::fault("zfs", &["clone"], 1, Action::Slow { ms: 2000 })]);
    let (machines, spec) = (machines(), spec());
    let from = host().trace().unwrap().len();
    machines.prepare(&spec).await.unwrap();
    machines.start(&spec.name).await.unwrap();
    let created = host().trace().unwrap().len();
    machines.destroy(&spec.name).await.unwrap();
    let trace = host().trace().unwrap();
    let making: Vec<&Line> = trace[from..created].iter().filter(|line| acts(line)).collect();
    let removing: Vec<&Line> = trace[created..].iter().filter(|line| acts(line)).collect();
    let shown = |lines: &[&Line]| lines.iter().map(|line| line.command()).collect::<Vec<_>>();
    assert!(making.len() <= 16, "{:#?}", shown(&making));
    assert!(removing.len() <= 14, "{:#?}", shown(&removing));
    // The longest chain: what follows what it needs, two VNICs and their properties side by side.
    let chain = |programs: &[&str], last: &[&str]| {
        let mut verbs: Vec<&str> = making
            .iter()
            .filter(|line| programs.contains(&line.argv[0].as_str()))
            .map(|line| verb(line))
            .collect();
        verbs.dedup();
        verbs.len() + last.len()
    };
    let join = ["zoneadmd", "boot"];
    assert!(chain(&["dladm", "ipadm"], &join) <= 7, "{:#?}", shown(&making));
    assert!(chain(&["zfs"], &join) <= 7, "{:#?}", shown(&making));
    // Neither zone nor network waits for the disk.
    let found = |wanted: &str| making.iter().find(|line| verb(line) == wanted).unwrap();
    let clone = found("clone");
    for other in ["create", "create-etherstub"] {
        assert!(found(other).begun < clone.ended, "{:#?}", shown(&making));
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn twenty_that_wait_cost_one_look_a_second() {
    bed::prepare();
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
    let begun = tokio::time::Instant::now();
    let waiting: Vec<_> = names
        .iter()
        .map(|name| {
            let (machines, name) = (machines.clone(), name.clone());
            tokio::spawn(async move { machines.wait_stopped(&name).await.unwrap() })
        })
        .collect();
    // Somebody else asks for each of them all the time.
    while begun.elapsed() < Duration::from_secs(3) {
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
    assert_eq!(bed::left(), Vec::<String>::new());
}
