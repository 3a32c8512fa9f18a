//! One guest from its boot to its end.

use helios_ci::{
    agent_api::{AgentApi, identity::Identity},
    machine::Observed,
    store::Store,
};

use super::{
    real_guests::{self, console_says, left, machines, run, spec, stopped},
    simulated_host::host,
    support,
};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run inside a simulated host by zones_with_real_guests"]
async fn a_guest_boots_its_agent_says_hello_and_nothing_of_it_stays() {
    real_guests::begin();
    let agent = std::fs::read(support::agent()).unwrap();
    let machines = machines(&agent);
    let dir = tempfile::tempdir().unwrap();
    let api = AgentApi::new(
        Identity::open(dir.path()).unwrap(),
        Store::open_temporary().await.unwrap(),
    );
    let spec = spec(api.fingerprint());
    let name = &spec.name;
    let endpoints = machines.prepare(&spec).await.unwrap();
    // The address is there, as the daemon needs it before the boot.
    let _link = api.listen(name.attempt(), &endpoints.agent).await.unwrap();
    machines.start(name).await.unwrap();
    assert_eq!(machines.observe(name).await.unwrap(), Observed::Running);
    console_says(&machines, name, "helios-ci: starting the agent").await;
    // The node knows of no such attempt: the real agent said hello and was refused, which is its end.
    let said = console_says(&machines, name, "the node refuses this agent").await;
    let Observed::Stopped(words) = stopped(&machines, name).await else {
        panic!("{said}")
    };
    assert!(words.contains("the guest powered itself off"), "{words}");
    console_says(&machines, name, "[NOTICE: Zone halted]").await;
    machines.destroy(name).await.unwrap();
    assert_eq!(left(), Vec::<String>::new());
}

/// Reboots once: the disk remembers.
const TURNS: &str = "#!/bin/sh\nif [ -e /turned ]; then echo second life; sleep 100000; fi\n\
    touch /turned; sync; echo first life; reboot -f\n";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run inside a simulated host by zones_with_real_guests"]
async fn a_guest_that_reboots_is_started_again_in_place() {
    real_guests::begin();
    let machines = machines(TURNS.as_bytes());
    let spec = spec(&"ab".repeat(32));
    let name = &spec.name;
    machines.prepare(&spec).await.unwrap();
    machines.start(name).await.unwrap();
    let id = host().state().unwrap().zones[name.as_str()].id;
    console_says(&machines, name, "second life").await;
    let zone = host().state().unwrap().zones[name.as_str()].clone();
    assert_eq!((zone.id, zone.starts), (id, 2), "the zone stayed, its bhyve is another");
    // Its link is still its own, and still held: a reboot of the guest clears nothing.
    let kept = run("dladm show-linkprop -c -o value -p protection,allowed-ips hciv0");
    assert_eq!(kept, "mac-nospoof,restricted,ip-nospoof,dhcp-nospoof\n10.77.0.2/32\n");
    assert_eq!(machines.observe(name).await.unwrap(), Observed::Running);
    let second = real_guests::emulators();
    run(&format!("bhyvectl --vm={name} --force-reset"));
    real_guests::until("another emulator", || {
        real_guests::emulators().len() == 1 && real_guests::emulators() != second
    })
    .await;
    real_guests::until("a third life", || {
        third(&host().dir().join("console").join(format!("{name}.out")))
    })
    .await;
    let zone = host().state().unwrap().zones[name.as_str()].clone();
    assert_eq!((zone.id, zone.starts), (id, 3));
    machines.destroy(name).await.unwrap();
    assert_eq!(left(), Vec::<String>::new());
}

/// Whether the guest came up a third time.
fn third(console: &std::path::Path) -> bool {
    let said = std::fs::read_to_string(console).unwrap_or_default();
    said.matches("second life").count() == 2
}

/// Heeds the power button by itself, as the tiny guest does, and never ends.
const STAYS: &str = "#!/bin/sh\necho here to stay\nsleep 100000\n";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run inside a simulated host by zones_with_real_guests"]
async fn a_halt_presses_the_power_button_and_waits() {
    real_guests::begin();
    let machines = machines(STAYS.as_bytes());
    let (halted, killed) = (spec(&"ab".repeat(32)), spec(&"ab".repeat(32)));
    for spec in [&halted, &killed] {
        machines.prepare(spec).await.unwrap();
        machines.start(&spec.name).await.unwrap();
        console_says(&machines, &spec.name, "here to stay").await;
    }
    run(&format!("zoneadm -z {} halt", halted.name));
    console_says(&machines, &halted.name, "Power down").await;
    assert_eq!(
        machines.wait_stopped(&halted.name).await.unwrap(),
        Observed::Stopped("its zone was halted".into())
    );
    run(&format!("pkill -9 -z {} bhyve", killed.name));
    let Observed::Stopped(words) = machines.wait_stopped(&killed.name).await.unwrap() else {
        panic!("{} runs", killed.name)
    };
    assert!(words.starts_with("its bhyve was ended by signal 9"), "{words}");
    assert_eq!(real_guests::emulators(), Vec::<i32>::new());
    for spec in [halted, killed] {
        machines.destroy(&spec.name).await.unwrap();
    }
    assert_eq!(left(), Vec::<String>::new());
}
