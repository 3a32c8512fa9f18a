//! Twenty machines at once while everything goes wrong at random. A run is repeated with the seed that it prints:
//! `HELIOS_CI_SEED=N`.

use std::time::{Duration, Instant};

use helios_ci::machine::zone::TimeoutScale;
use illumos_sim::faults::{Action, Fault};

use super::{
    deadline, faults, foreign_objects,
    simulated_host::{self, host, spec},
};

/// SplitMix64: the same numbers for the same seed, for ever.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

fn fault(random: &mut Random) -> Fault {
    // Each program about as often as a life calls it.
    const CALLS: [(&str, u64); 7] = [
        ("zfs", 220),
        ("zonecfg", 100),
        ("zoneadm", 300),
        ("zoneadmd", 20),
        ("dladm", 220),
        ("ipadm", 100),
        ("bhyvectl", 20),
    ];
    let (program, calls) = CALLS[usize::try_from(random.below(7)).unwrap()];
    let action = match random.below(9) {
        0 => Action::Fail {
            code: 1,
            stderr: "the moon is full\n".into(),
        },
        1 => Action::FailAfter {
            code: 1,
            stderr: "I/O error\n".into(),
        },
        2 => Action::Hang,
        3 => Action::HangAfter,
        4 => Action::Kill,
        5 => Action::KillAfter,
        6 => Action::KillMidway,
        7 => Action::KillClient {
            after: u32::try_from(random.below(30)).unwrap(),
        },
        _ => Action::Slow { ms: random.below(300) },
    };
    let nth = u32::try_from(1 + random.below(calls)).unwrap();
    simulated_host::fault(program, &[], nth, action)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn twenty_machines_in_a_storm_leave_nothing() {
    let given = std::env::var("HELIOS_CI_SEED").ok().map(|seed| seed.parse().unwrap());
    let seed = given.unwrap_or_else(illumos_sim::trace::now);
    println!("HELIOS_CI_SEED={seed}");
    let mut random = Random(seed);
    simulated_host::prepare();
    foreign_objects::settle();
    let before = simulated_host::picture();
    simulated_host::faults((0..60).map(|_| fault(&mut random)).collect());
    let first = simulated_host::scaled_machines(TimeoutScale::one_in(60));
    let lives = (0..20).map(|_| {
        let (machines, spec) = (first.clone(), spec());
        // Some are dropped in the middle, with their commands, as by a kill.
        let patience = match random.below(3) {
            0 => Duration::from_millis(random.below(3000)),
            _ => Duration::from_secs(600),
        };
        tokio::spawn(async move {
            let life = async {
                if machines.prepare(&spec).await.is_ok() && machines.start(&spec.name).await.is_ok() {
                    let _may_fail = machines.observe(&spec.name).await;
                }
                let _the_next_does_it = machines.destroy(&spec.name).await;
            };
            let _cut_short = tokio::time::timeout(patience, life).await;
            spec.name
        })
    });
    let mut names = Vec::new();
    for life in lives.collect::<Vec<_>>() {
        names.push(life.await.unwrap());
    }
    drop(first);
    // The next machined, in the same weather, with time enough for what is slow and not at fault.
    let next = simulated_host::scaled_machines(TimeoutScale::one_in(faults::USUAL));
    let patient = simulated_host::machines();
    let ends = names.into_iter().map(|name| {
        let (mut machines, patient) = (next.clone(), patient.clone());
        tokio::spawn(async move {
            let until = Instant::now() + deadline::GUEST;
            let mut tries = 0;
            while let Err(error) = machines.destroy(&name).await {
                tries += 1;
                assert!(Instant::now() < until, "{name}: {error}");
                // Twenty at once may all be late, and again when all are tried again.
                if tries == 5 {
                    machines = patient.clone();
                }
            }
        })
    });
    for end in ends.collect::<Vec<_>>() {
        end.await.unwrap();
    }
    simulated_host::faults(Vec::new());
    while !host().state().unwrap().pending.is_empty() {
        simulated_host::run("zoneadm", &["list"]);
    }
    let left = next.list().await.unwrap();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(simulated_host::changed(&before), Vec::<String>::new());
}
