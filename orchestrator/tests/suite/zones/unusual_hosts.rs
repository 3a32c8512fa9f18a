//! What a real host does now and then that no fault is: a whole life on each, and nothing of it stays.

use helios_ci::machine::{Observed, zone::TimeoutScale};
use illumos_sim::{
    boot::life::End,
    faults::{Faults, Listed, Quirks},
};

use super::{
    foreign_objects,
    simulated_host::{self, host, spec},
};

/// How far a machine comes on an odd host.
enum Comes {
    /// It runs, whatever is odd.
    Up,
    /// It is not prepared, for this reason.
    Unprepared(&'static str),
    /// It is prepared and its boot fails, for this reason.
    Unbooted(&'static str),
}

/// An oddity by its name: what it changes, and how far a machine comes.
type Oddity = (&'static str, fn(&mut Faults), Comes);

/// Something is odd about every zone.
fn zones(faults: &mut Faults, quirks: Quirks) {
    faults.zones.insert("*".to_owned(), quirks);
}

const ODDITIES: &[Oddity] = &[
    (
        "a disk is busy for a while after its last user closed it",
        |faults| faults.busy_after_close = 3,
        Comes::Up,
    ),
    (
        "the brand's install hook gives up and takes its zone back",
        |faults| {
            let install_hook = Some(254);
            zones(
                faults,
                Quirks {
                    install_hook,
                    ..Quirks::default()
                },
            );
        },
        Comes::Unprepared("brand install hook ended with 254"),
    ),
    (
        "the brand's install hook fails and leaves half a zone",
        |faults| {
            let install_hook = Some(255);
            zones(
                faults,
                Quirks {
                    install_hook,
                    ..Quirks::default()
                },
            );
        },
        Comes::Unprepared("brand install hook ended with 255"),
    ),
    (
        "the brand's boot hook refuses",
        |faults| {
            let boot_error = Some("bootrom X not found.".to_owned());
            zones(
                faults,
                Quirks {
                    boot_error,
                    ..Quirks::default()
                },
            );
        },
        Comes::Unbooted("bootrom X not found."),
    ),
    (
        "lists have seven fields",
        |faults| faults.seven_list_fields = true,
        Comes::Up,
    ),
    (
        "a running zone is listed without its number",
        |faults| {
            let listed = Some(Listed::WithoutId);
            zones(
                faults,
                Quirks {
                    listed,
                    ..Quirks::default()
                },
            );
        },
        Comes::Up,
    ),
    (
        "a link's MTU is ignored where it is made",
        |faults| faults.create_vnic_ignores_mtu = true,
        Comes::Up,
    ),
    (
        "a configuration errs midway and the first half is kept",
        |faults| faults.zonecfg_lacks = Some("max-lwps".to_owned()),
        Comes::Unprepared("syntax error on line"),
    ),
    (
        "a configuration errs midway and nothing is kept",
        |faults| {
            faults.zonecfg_lacks = Some("max-lwps".to_owned());
            faults.zonecfg_commits_nothing_on_error = true;
        },
        Comes::Unprepared("syntax error on line"),
    ),
    (
        "a property that is not set is shown as nothing",
        |faults| faults.unset_linkprop_is_empty = true,
        Comes::Up,
    ),
    (
        "an address is probed first",
        |faults| faults.tentative_looks = 3,
        Comes::Up,
    ),
    (
        "the virtual machine outlives its bhyve",
        |faults| {
            let leaves_vm = true;
            zones(
                faults,
                Quirks {
                    leaves_vm,
                    ..Quirks::default()
                },
            );
        },
        Comes::Up,
    ),
];

/// A machine's life; whether its guest powers itself off before it is destroyed.
async fn life(what: &str, comes: &Comes, powers_off: bool) {
    let (machines, spec) = (simulated_host::scaled_machines(TimeoutScale::one_in(10)), spec());
    let name = &spec.name;
    let prepared = machines.prepare(&spec).await;
    match (comes, prepared) {
        (Comes::Unprepared(why), Err(error)) => assert!(error.reason.contains(why), "{what}: {error}"),
        (Comes::Unprepared(_), Ok(_)) => panic!("{what}: it was prepared"),
        (_, Err(error)) => panic!("{what}: {error}"),
        (_, Ok(_)) => {
            let started = machines.start(name).await;
            if let Comes::Unbooted(why) = comes {
                let error = started.expect_err("a boot that fails");
                assert!(error.reason.contains(why), "{what}: {error}");
            } else {
                started.unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_eq!(machines.observe(name).await.unwrap(), Observed::Running, "{what}");
                let state = host().state().unwrap();
                assert_eq!([state.mtu("hcih0"), state.mtu("hciv0")], [1500; 2], "{what}");
            }
        }
    }
    let listed = machines.list().await.unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(listed.iter().any(|machine| machine.name == *name), "{what}: {listed:?}");
    if powers_off && matches!(comes, Comes::Up) {
        host().guest_ends(name.as_str(), End::Code(1)).unwrap();
        let stopped = machines.wait_stopped(name).await.unwrap();
        assert_eq!(
            stopped,
            Observed::Stopped("the guest powered itself off".into()),
            "{what}"
        );
    }
    machines
        .destroy(name)
        .await
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(machines.list().await.unwrap().is_empty(), "{what}");
}

#[tokio::test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn a_life_on_every_odd_host_leaves_nothing() {
    simulated_host::prepare();
    foreign_objects::settle();
    let before = simulated_host::picture();
    for (what, makes, comes) in ODDITIES {
        host().mutate(|host| makes(&mut host.faults)).unwrap();
        for powers_off in [false, true] {
            life(what, comes, powers_off).await;
            let changed = simulated_host::changed(&before);
            assert_eq!(changed, Vec::<String>::new(), "{what}, powers off: {powers_off}");
        }
        host().mutate(|host| host.faults = Faults::default()).unwrap();
    }
}
