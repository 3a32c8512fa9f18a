//! A host that is not as it was left: boot environments that bring back half of what was, datasets that are not
//! mounted, zones that cannot be seen for a while.

use std::{
    fs,
    time::{Duration, Instant},
};

use helios_ci::machine::{MachineSpec, Observed, zone::TimeoutScale};
use illumos_sim::{
    boot::life::End,
    faults::{Action, Listed, Quirks},
};

use super::{
    deadline, foreign_objects,
    simulated_host::{self, host, machines, spec},
};

const INDEX: &str = "/etc/zones/index";

fn xml(spec: &MachineSpec) -> String {
    format!("/etc/zones/{}.xml", spec.name)
}

/// Replaces the index without the line of a machine; that line.
fn unlisted(spec: &MachineSpec) -> String {
    let text = fs::read_to_string(INDEX).unwrap();
    let (ours, others): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with(spec.name.as_str()));
    fs::write(INDEX, others.join("\n") + "\n").unwrap();
    ours.concat()
}

fn listed(line: &str) {
    let text = fs::read_to_string(INDEX).unwrap();
    fs::write(INDEX, format!("{text}{line}\n")).unwrap();
}

/// What a reboot takes from a machine in slot 0: its record, and the links that this names.
fn rebooted(spec: &MachineSpec) {
    fs::remove_file(format!("/run/helios-ci/machines/{}.json", spec.name)).unwrap();
    simulated_host::run("ipadm", &["delete-if", "hcih0"]);
    for args in [
        ["delete-vnic", "-t", "hciv0"],
        ["delete-vnic", "-t", "hcih0"],
        ["delete-etherstub", "-t", "hcis0"],
    ] {
        simulated_host::run("dladm", &args);
    }
}

async fn made() -> MachineSpec {
    let spec = spec();
    machines().prepare(&spec).await.unwrap();
    spec
}

/// The next machined finds it and removes it; nothing stays.
async fn goes(spec: &MachineSpec, before: &std::collections::BTreeMap<String, String>, what: &str) {
    let machines = machines();
    let found = machines.list().await.unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(
        found.iter().any(|machine| machine.name == spec.name),
        "{what}: {found:?}"
    );
    machines
        .destroy(&spec.name)
        .await
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(simulated_host::changed(before), Vec::<String>::new(), "{what}");
}

#[tokio::test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn what_a_boot_environment_brings_back_goes() {
    simulated_host::prepare();
    foreign_objects::settle();
    let before = simulated_host::picture();

    let revived = made().await;
    let (config, line) = (fs::read(xml(&revived)).unwrap(), unlisted(&revived));
    listed(&line);
    machines().destroy(&revived.name).await.unwrap();
    fs::write(xml(&revived), &config).unwrap();
    listed(&line);
    goes(&revived, &before, "a zone without its zonepath").await;

    let bare = made().await;
    unlisted(&bare);
    fs::remove_file(xml(&bare)).unwrap();
    rebooted(&bare);
    goes(&bare, &before, "clone and zonepath without a zone").await;

    let nameless = made().await;
    fs::remove_file(xml(&nameless)).unwrap();
    goes(&nameless, &before, "a line of the index without a configuration").await;

    let forgotten = made().await;
    fs::remove_file(xml(&forgotten)).unwrap();
    rebooted(&forgotten);
    goes(&forgotten, &before, "such a line after a reboot").await;

    let unknown = made().await;
    unlisted(&unknown);
    goes(&unknown, &before, "a configuration without a line of the index").await;

    let half = made().await;
    simulated_host::faults(vec![simulated_host::fault(
        "zoneadm",
        &["uninstall"],
        1,
        Action::KillMidway,
    )]);
    assert!(machines().destroy(&half.name).await.is_err());
    simulated_host::faults(Vec::new());
    goes(&half, &before, "a zone that is incomplete").await;

    // A line alone proves nothing.
    let other = spec();
    listed(&format!("{}:configured:/mnt/hci/{}:", other.name, other.name));
    let error = machines().destroy(&other.name).await.unwrap_err();
    assert!(error.reason.contains("left alone"), "{error}");
    assert_eq!(unlisted(&other).matches(other.name.as_str()).count(), 2);
    assert_eq!(simulated_host::changed(&before), Vec::<String>::new());
}

#[tokio::test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn a_damaged_configuration_is_said_and_hides_no_other_machine() {
    simulated_host::prepare();
    foreign_objects::settle();
    let before = simulated_host::picture();
    let (damaged, whole) = (made().await, made().await);
    let text = fs::read_to_string(xml(&damaged)).unwrap();
    fs::write(xml(&damaged), &text[..text.len() / 2]).unwrap();
    let machines = machines();
    let found = machines.list().await.unwrap();
    assert_eq!(found.len(), 2, "{found:?}");
    let error = machines.destroy(&damaged.name).await.unwrap_err();
    assert!(
        error
            .reason
            .contains(&format!("`zonecfg -z {} delete -F`", damaged.name)),
        "{error}"
    );
    machines.destroy(&whole.name).await.unwrap();
    // It complains of the damage, and removes the zone all the same.
    let said = simulated_host::no("zonecfg", &["-z", damaged.name.as_str(), "delete", "-F"]);
    assert!(said.contains("Invalid document"), "{said}");
    goes(&damaged, &before, "what zonecfg left").await;
}

#[tokio::test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn nothing_is_made_below_a_dataset_that_is_not_mounted() {
    simulated_host::prepare();
    let before = simulated_host::picture();
    let early = made().await;
    simulated_host::run("zfs", &["unmount", "rpool/hci/zones"]);
    let (machines, late) = (machines(), spec());
    let error = machines.prepare(&late).await.unwrap_err();
    assert!(error.reason.contains("`zfs mount rpool/hci/zones`"), "{error}");
    machines.destroy(&late.name).await.unwrap();
    // What was made before goes, and nothing is written where it would be hidden.
    machines.destroy(&early.name).await.unwrap();
    assert_eq!(fs::read_dir("/mnt/hci").unwrap().count(), 0);
    simulated_host::run("zfs", &["mount", "rpool/hci/zones"]);
    assert_eq!(simulated_host::changed(&before), Vec::<String>::new());
    machines.prepare(&late).await.unwrap();
    machines.destroy(&late.name).await.unwrap();
    assert_eq!(simulated_host::changed(&before), Vec::<String>::new());
}

/// Waits until something is so.
async fn until(what: &str, so: impl Fn() -> bool) {
    let end = Instant::now() + deadline::PROMPT;
    while !so() {
        assert!(Instant::now() < end, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn listings() -> usize {
    let trace = host().trace().unwrap();
    trace
        .iter()
        .filter(|line| line.command().starts_with("zoneadm list"))
        .count()
}

#[tokio::test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn a_machine_that_cannot_be_seen_for_a_while_is_not_lost() {
    simulated_host::prepare();
    let (machines, spec) = (machines(), spec());
    machines.prepare(&spec).await.unwrap();
    machines.start(&spec.name).await.unwrap();
    let waiting = tokio::spawn({
        let (machines, name) = (machines.clone(), spec.name.clone());
        async move { machines.wait_stopped(&name).await.unwrap() }
    });
    // Its lists fail; then they leave it out, then call its state what nobody knows.
    let fails = Action::Fail {
        code: 1,
        stderr: "zoneadm: Out of memory\n".into(),
    };
    simulated_host::faults(vec![illumos_sim::faults::Fault {
        times: 2,
        ..simulated_host::fault("zoneadm", &["list"], 1, fails)
    }]);
    until("the third list", || host().faults().unwrap().calls[0].seen > 2).await;
    for odd in [Listed::Skipped, Listed::As("sleeping".into())] {
        let seen = listings();
        let quirks = Quirks {
            listed: Some(odd),
            ..Quirks::default()
        };
        host()
            .mutate(|host| host.faults.zones.insert("*".into(), quirks))
            .unwrap();
        until("an odd list", || listings() > seen).await;
        host().mutate(|host| host.faults.zones.clear()).unwrap();
        let seen = listings();
        until("a good list", || listings() > seen).await;
        assert!(!waiting.is_finished());
    }
    host().guest_prints(spec.name.as_str(), b"hello").unwrap();
    // Whatever it says just before its end is kept.
    until("its last words", || {
        let read = fs::read(format!("/run/helios-ci/console/{}/0", spec.name));
        read.is_ok() || fs::read_dir(format!("/run/helios-ci/console/{}", spec.name)).is_ok_and(|dir| dir.count() > 0)
    })
    .await;
    host().guest_ends(spec.name.as_str(), End::Signal(9)).unwrap();
    assert_eq!(
        waiting.await.unwrap(),
        Observed::Stopped("its bhyve was ended by signal 9".into())
    );
    let said = machines.console(&spec.name, 0).await.unwrap();
    assert!(String::from_utf8_lossy(&said.bytes).contains("hello"), "{said:?}");
    machines.destroy(&spec.name).await.unwrap();
    assert_eq!(simulated_host::left(), Vec::<String>::new());
}

#[tokio::test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn a_halt_during_boot_is_seen_as_one() {
    simulated_host::prepare();
    let before = simulated_host::picture();
    let (machines, spec) = (simulated_host::scaled_machines(TimeoutScale::one_in(20)), spec());
    machines.prepare(&spec).await.unwrap();
    simulated_host::faults(vec![simulated_host::fault("zoneadm", &["boot"], 1, Action::HangAfter)]);
    let booting = tokio::spawn({
        let (machines, name) = (machines.clone(), spec.name.clone());
        async move { machines.start(&name).await }
    });
    until("the boot", || !host().state().unwrap().zones.is_empty()).await;
    host()
        .mutate(|host| illumos_sim::boot::life::teardown(host, spec.name.as_str(), -1))
        .unwrap()
        .unwrap();
    let error = booting.await.unwrap().unwrap_err();
    assert!(error.retryable && error.reason.contains("boot"), "{error}");
    assert_eq!(
        machines.observe(&spec.name).await.unwrap(),
        Observed::Stopped("its zone was halted".into())
    );
    // It is not booted a second time.
    assert!(machines.start(&spec.name).await.is_err());
    machines.destroy(&spec.name).await.unwrap();
    assert_eq!(simulated_host::changed(&before), Vec::<String>::new());
}
