//! Every call that goes wrong, one after the other, until a life passes untouched.

use std::collections::BTreeMap;

use illumos_sim::faults::{Action, Fault};

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
