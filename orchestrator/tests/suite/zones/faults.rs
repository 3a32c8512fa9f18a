//! Every call that goes wrong, one after the other, until a life passes untouched.

use std::{collections::BTreeMap, sync::Arc};

use helios_ci::machine::{MachineSpec, Machines, Observed, zone::TimeoutScale};
use illumos_sim::{
    faults::{Action, Fault, Quirks},
    state::ZoneState,
};

use super::{
    budget, expected_state, foreign_objects,
    simulated_host::{self, host, left, machines, spec},
};

/// What time limits are divided by: what of its own accord never ends is given up after 300 ms to 600 ms instead of
/// 30 s to 60 s.
const SCALED: u32 = 100;
pub const USUAL: u32 = 10;

/// One fault at a time, in a life of its own each: `action` at the nth call of these words, for all that a life
/// without faults calls; with `only_acts`, where a look that goes wrong is the same as one that fails. Up to that call each life is such a life, so no call is left out.
async fn every_call(only_acts: bool, divisor: u32, action: &Action) {
    simulated_host::prepare();
    foreign_objects::settle();
    let before = simulated_host::picture();
    let from = host().trace().unwrap().len();
    life(1, "without faults").await;
    let mut calls: BTreeMap<(String, Option<String>), u32> = BTreeMap::new();
    for line in host()
        .trace()
        .unwrap()
        .iter()
        .skip(from)
        .filter(|line| !only_acts || budget::acts(line))
    {
        let verb = Some(budget::verb(line).to_owned()).filter(|verb| only_acts && !verb.is_empty());
        *calls.entry((line.argv[0].clone(), verb)).or_default() += 1;
    }
    // The loop is worth something only if it meets what a life consists of.
    assert!(calls.len() >= if only_acts { 18 } else { 8 }, "{calls:?}");
    for ((program, verb), count) in calls {
        for nth in 1..=count {
            let what = format!("{program} {verb:?} call {nth}");
            let words: Vec<&str> = verb.iter().map(String::as_str).collect();
            met(
                &before,
                divisor,
                &what,
                simulated_host::fault(&program, &words, nth, action.clone()),
            )
            .await;
        }
    }
}

/// A life that meets this fault and leaves everything as it was before.
pub async fn met(before: &BTreeMap<String, String>, divisor: u32, what: &str, fault: Fault) {
    // On a busy computer a life in a hurry may end before it comes to that call: each has more time than the one before.
    for tries in 0..8 {
        simulated_host::faults(vec![fault.clone()]);
        life(divisor >> tries, what).await;
        // What zoneadmd does by itself is over, too.
        while !host().state().unwrap().pending.is_empty() {
            simulated_host::run("zoneadm", &["list"]);
        }
        assert_eq!(simulated_host::changed(before), Vec::<String>::new(), "{what}");
        if host().faults().unwrap().calls[0].seen >= fault.nth {
            return;
        }
    }
    panic!("{what} did not come");
}

/// One machine's life, whatever happens in it; at its end the machine is gone. Each call says what is so: a success is
/// a whole one, and a failure is one to be tried again that says where it comes from.
pub async fn life(divisor: u32, what: &str) {
    let (machines, spec) = (simulated_host::scaled_machines(TimeoutScale::one_in(divisor)), spec());
    match machines.prepare(&spec).await {
        Ok(endpoints) => {
            expected_state::prepared(&spec, &endpoints, what);
            match machines.start(&spec.name).await {
                // An exit of 0 is not a life: whoever looks is told.
                Ok(()) if boot_was_not_done() => {
                    let seen = machines.observe(&spec.name).await.expect(what);
                    assert!(matches!(seen, Observed::Stopped(_)), "{what}: {seen:?}");
                }
                Ok(()) => expected_state::runs(&spec, &endpoints, what),
                // The driver's affair: it destroys the machine in any case.
                Err(error) => expected_state::refused(&spec, &error, what),
            }
        }
        Err(error) => expected_state::refused(&spec, &error, what),
    }
    removed(machines, &spec, divisor, what).await;
}

/// Destroys a machine. What fails time and again is tried with more and more time, by a back end that knows nothing yet.
async fn removed(mut machines: Arc<dyn Machines>, spec: &MachineSpec, divisor: u32, what: &str) {
    let mut tries = 0;
    while let Err(error) = machines.destroy(&spec.name).await {
        expected_state::refused(spec, &error, what);
        tries += 1;
        assert!(tries < 20, "{what}: {error}");
        if tries > 5 {
            machines = simulated_host::scaled_machines(TimeoutScale::one_in(divisor >> (tries - 5)));
        }
    }
}

/// Whether a boot was said to be done and was not.
fn boot_was_not_done() -> bool {
    let faults = host().faults().expect("the faults").calls;
    faults.iter().any(|fault| {
        fault.seen >= fault.nth && fault.args == ["boot"] && matches!(fault.action, Action::Fail { code: 0, .. })
    })
}

#[tokio::test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn a_command_that_fails_leaves_nothing() {
    every_call(
        false,
        USUAL,
        &Action::Fail {
            code: 1,
            stderr: "the moon is full\n".to_owned(),
        },
    )
    .await;
}

#[tokio::test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn a_command_that_did_it_and_says_it_failed_leaves_nothing() {
    every_call(
        true,
        USUAL,
        &Action::FailAfter {
            code: 1,
            stderr: "I/O error\n".to_owned(),
        },
    )
    .await;
}

#[tokio::test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn a_command_that_is_killed_before_it_acts_leaves_nothing() {
    every_call(true, USUAL, &Action::Kill).await;
}

#[tokio::test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn a_command_that_is_killed_leaves_nothing() {
    every_call(true, USUAL, &Action::KillAfter).await;
}

#[tokio::test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn an_install_a_removal_or_a_halt_killed_midway_leaves_nothing() {
    simulated_host::prepare();
    foreign_objects::settle();
    let before = simulated_host::picture();
    for verb in ["install", "uninstall", "halt"] {
        let lingers = if verb == "halt" { 1000 } else { 0 };
        quirk(Quirks {
            lingers,
            ..Quirks::default()
        });
        met(
            &before,
            SCALED,
            verb,
            simulated_host::fault("zoneadm", &[verb], 1, Action::KillMidway),
        )
        .await;
    }
}

#[tokio::test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn a_command_that_hangs_leaves_nothing() {
    every_call(false, SCALED, &Action::Hang).await;
}

#[tokio::test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn a_command_that_hangs_after_it_acted_leaves_nothing() {
    every_call(true, SCALED, &Action::HangAfter).await;
}

#[tokio::test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn zoneadmd_goes_on_without_its_client_and_leaves_nothing() {
    simulated_host::prepare();
    foreign_objects::settle();
    let before = simulated_host::picture();
    for after in [0, 1, 2, 3, 4, 6, 8, 11, 15, 25] {
        for (verb, quirks) in [
            ("boot", Quirks::default()),
            // bhyve is gone and the zone is not: so the halt is said, and dies.
            (
                "halt",
                Quirks {
                    lingers: 1000,
                    ..Quirks::default()
                },
            ),
        ] {
            quirk(quirks);
            let what = format!("{verb}, done {after} calls later");
            met(
                &before,
                SCALED,
                &what,
                simulated_host::fault("zoneadm", &[verb], 1, Action::KillClient { after }),
            )
            .await;
        }
    }
}

#[tokio::test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn a_guest_that_bhyvectl_cannot_end_is_killed() {
    simulated_host::prepare();
    let before = simulated_host::picture();
    let (machines, spec) = (simulated_host::scaled_machines(TimeoutScale::one_in(USUAL)), spec());
    machines.prepare(&spec).await.unwrap();
    machines.start(&spec.name).await.unwrap();
    simulated_host::faults(vec![Fault {
        times: 1000,
        ..simulated_host::fault("bhyvectl", &[], 1, Action::Hang)
    }]);
    machines.destroy(&spec.name).await.unwrap();
    let killed = format!("pkill -9 -z {} bhyve", spec.name);
    assert!(host().trace().unwrap().iter().any(|line| line.command() == killed));
    assert_eq!(simulated_host::changed(&before), Vec::<String>::new());
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
    simulated_host::prepare();
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

/// A machine is refused for want of room, and nothing of it stays.
async fn refused(what: &str) {
    let (machines, spec, before) = (machines(), spec(), left());
    let error = machines.prepare(&spec).await.unwrap_err();
    assert!(
        error.reason.contains("the pool, or a quota above, is full") && error.retryable,
        "{what}: {error:?}"
    );
    machines.destroy(&spec.name).await.unwrap();
    assert_eq!(left(), before, "{what}");
}

#[tokio::test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn a_full_pool_is_said_and_costs_nothing() {
    simulated_host::prepare();
    // What is set to nothing is set all the same.
    simulated_host::run("zfs", &["set", "quota=none", "rpool/hci/machines"]);
    let before = simulated_host::picture();
    let (machines, spec) = (machines(), spec());
    // What all machines may take together; the golden disk that they share is none of it.
    simulated_host::run("zfs", &["set", "quota=1030m", "rpool/hci/machines"]);
    machines.prepare(&spec).await.unwrap();
    machines.start(&spec.name).await.unwrap();
    let disk = format!("/dev/zvol/rdsk/rpool/hci/machines/{}", spec.name);
    let disk = std::fs::OpenOptions::new().write(true).open(disk).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&disk, &[1; 16 << 20], 1 << 20).unwrap();
    // How much a file takes is known when it was written down.
    disk.sync_all().unwrap();
    drop(disk);
    refused("a quota").await;
    machines.destroy(&spec.name).await.unwrap();
    // Its room is free again.
    let next = simulated_host::spec();
    machines.prepare(&next).await.unwrap();
    machines.destroy(&next.name).await.unwrap();
    simulated_host::run("zfs", &["set", "quota=none", "rpool/hci/machines"]);
    assert_eq!(simulated_host::changed(&before), Vec::<String>::new());
    let size = |bytes: u64| host().mutate(|host| host.state.pools.get_mut("rpool").unwrap().size = bytes);
    size(1 << 30).unwrap();
    refused("a pool").await;
    assert_eq!(simulated_host::changed(&before), Vec::<String>::new());
}

#[tokio::test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn a_pool_that_fills_meanwhile_is_said_and_costs_nothing() {
    simulated_host::prepare();
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
    simulated_host::prepare();
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
    let (machines, spec) = (simulated_host::scaled_machines(TimeoutScale::one_in(USUAL)), spec());
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
    simulated_host::prepare();
    let before = simulated_host::picture();
    for stuck in [ZoneState::Down, ZoneState::ShuttingDown] {
        let (machines, spec) = (simulated_host::scaled_machines(TimeoutScale::one_in(USUAL)), spec());
        machines.prepare(&spec).await.unwrap();
        machines.start(&spec.name).await.unwrap();
        quirk(Quirks {
            halt_leaves: Some(stuck.as_str().to_owned()),
            ..Quirks::default()
        });
        host()
            .mutate(|host| {
                let zone = host.state.zones.get_mut(spec.name.as_str()).unwrap();
                (zone.state, zone.guest) = (stuck, false);
            })
            .unwrap();
        let error = machines.destroy(&spec.name).await.unwrap_err();
        assert!(
            error.reason.contains("hangs in") && error.retryable,
            "{stuck:?}: {error:?}"
        );
        // Nothing below it was touched: its disk may be open, its links are in use.
        let links = host().state().unwrap().links.len();
        assert!(links >= 4 && !left().is_empty(), "{stuck:?}: {:?}", left());
        quirk(Quirks::default());
        machines.destroy(&spec.name).await.unwrap();
        assert_eq!(simulated_host::changed(&before), Vec::<String>::new(), "{stuck:?}");
    }
}
