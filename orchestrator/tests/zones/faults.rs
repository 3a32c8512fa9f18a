//! Every call that goes wrong, one after the other, until a life passes untouched.

use std::collections::BTreeMap;

use helios_ci::machine::Observed;
use illumos_sim::faults::{Action, Fault, Quirks};

use super::bed::{self, host, left, machines, spec};

const PROGRAMS: [&str; 7] = ["zfs", "zonecfg", "zoneadm", "zoneadmd", "dladm", "ipadm", "bhyvectl"];

/// Calls of a program that the trace has.
fn calls(program: &str) -> usize {
    host()
        .trace()
        .unwrap()
        .iter()
        .filter(|line| line.argv[0].ends_with(&format!("/{program}")) || line.argv[0] == program)
        .count()
}

async fn every_call(action: &Action) {
    bed::prepare();
    let mut met = BTreeMap::new();
    for program in PROGRAMS {
        for nth in 1.. {
            assert!(nth < 60, "{program} is called without end");
            host()
                .mutate(|host| {
                    host.faults.calls = vec![Fault {
                        program: program.to_owned(),
                        args: Vec::new(),
                        nth,
                        times: 1,
                        action: action.clone(),
                        seen: 0,
                    }];
                })
                .unwrap();
            let (machines, spec) = (machines(), spec());
            if machines.prepare(&spec).await.is_ok() {
                // A boot that fails is the driver's affair: it destroys the machine in any case.
                let _ends_in_any_case = machines.start(&spec.name).await;
            }
            let mut tries = 0;
            while let Err(error) = machines.destroy(&spec.name).await {
                tries += 1;
                assert!(tries < 5, "{program} call {nth}: {error}");
            }
            assert_eq!(left(), Vec::<String>::new(), "{program} call {nth}");
            let untouched = host().faults().unwrap().calls[0].seen < nth;
            if untouched {
                met.insert(program, nth - 1);
                break;
            }
        }
    }
    // The loop is worth something only if it met what a life consists of.
    assert!(
        met["zfs"] >= 6 && met["dladm"] >= 7 && met["zoneadm"] >= 5 && met["zonecfg"] >= 2,
        "{met:?}"
    );
    assert!(calls("zfs") > 0);
}

#[tokio::test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn a_command_that_fails_leaves_nothing() {
    every_call(&Action::Fail {
        code: 1,
        stderr: "the moon is full\n".to_owned(),
    })
    .await;
}

#[tokio::test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn a_command_that_did_it_and_says_it_failed_leaves_nothing() {
    every_call(&Action::FailAfter {
        code: 1,
        stderr: "I/O error\n".to_owned(),
    })
    .await;
}

#[tokio::test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn a_command_that_is_killed_leaves_nothing() {
    every_call(&Action::KillAfter).await;
}

/// What is odd about every zone of this host from now on.
fn quirk(quirks: Quirks) {
    host()
        .mutate(|host| host.faults.zones.insert("*".to_owned(), quirks))
        .unwrap();
}

#[tokio::test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn a_guest_that_dies_at_once_is_seen_with_its_last_words() {
    bed::prepare();
    quirk(Quirks {
        bhyve_exits: Some(4),
        ..Quirks::default()
    });
    let (machines, spec) = (machines(), spec());
    machines.prepare(&spec).await.unwrap();
    // Its boot succeeds all the same.
    machines.start(&spec.name).await.unwrap();
    let Observed::Stopped(how) = machines.wait_stopped(&spec.name).await.unwrap() else {
        panic!("it is not seen as stopped");
    };
    assert!(how.contains("exit code 4"), "{how}");
    machines.destroy(&spec.name).await.unwrap();
    assert_eq!(left(), Vec::<String>::new());
}

#[tokio::test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn a_full_pool_is_said_and_costs_nothing() {
    bed::prepare();
    host()
        .mutate(|host| {
            host.faults.calls = vec![Fault {
                program: "zfs".into(),
                args: vec!["clone".into()],
                nth: 1,
                times: 1,
                action: Action::Fail {
                    code: 1,
                    stderr: "cannot create 'rpool/hci/machines/x': out of space\n".into(),
                },
                seen: 0,
            }];
        })
        .unwrap();
    let (machines, spec) = (machines(), spec());
    let error = machines.prepare(&spec).await.unwrap_err();
    assert!(error.reason.contains("out of space") && error.retryable, "{error:?}");
    machines.destroy(&spec.name).await.unwrap();
    assert_eq!(left(), Vec::<String>::new());
}

#[tokio::test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn a_disk_that_stays_busy_is_quarantined() {
    bed::prepare();
    host()
        .mutate(|host| {
            host.faults.calls = vec![Fault {
                program: "zfs".into(),
                args: vec!["destroy".into(), "rpool/hci/machines/*".into()],
                nth: 1,
                times: 1000,
                action: Action::Fail {
                    code: 1,
                    stderr: "cannot destroy 'rpool/hci/machines/x': dataset is busy\n".into(),
                },
                seen: 0,
            }];
        })
        .unwrap();
    let (machines, spec) = (machines(), spec());
    machines.prepare(&spec).await.unwrap();
    machines.start(&spec.name).await.unwrap();
    machines.destroy(&spec.name).await.unwrap();
    // Nobody tries for ever; the machine is gone, and its disk waits for a person.
    assert!(machines.list().await.unwrap().is_empty());
    let disk = format!("rpool/hci/machines/{}", spec.name);
    assert_eq!(left(), std::slice::from_ref(&disk));
    let state = host().state().unwrap();
    assert_eq!(
        state.datasets[&disk].local.get("helios-ci:state").map(String::as_str),
        Some("quarantined")
    );
}

#[tokio::test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn a_zone_that_hangs_is_said_and_goes_when_it_can() {
    bed::prepare();
    let (machines, spec) = (machines(), spec());
    machines.prepare(&spec).await.unwrap();
    machines.start(&spec.name).await.unwrap();
    quirk(Quirks {
        halt_leaves: Some("down".to_owned()),
        ..Quirks::default()
    });
    host()
        .mutate(|host| {
            let zone = host.state.zones.get_mut(spec.name.as_str()).unwrap();
            (zone.state, zone.guest) = (illumos_sim::state::ZoneState::Down, false);
        })
        .unwrap();
    let error = machines.destroy(&spec.name).await.unwrap_err();
    assert!(error.reason.contains("hangs in") && error.retryable, "{error:?}");
    // Nothing below it was touched: its disk may be open, its links are in use.
    let links = host().state().unwrap().links.len();
    assert!(links >= 4 && !left().is_empty(), "{:?}", left());
    quirk(Quirks::default());
    machines.destroy(&spec.name).await.unwrap();
    assert_eq!(left(), Vec::<String>::new());
}
