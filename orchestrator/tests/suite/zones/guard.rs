//! What a person must look at, and machines that are no longer held to their network.

use helios_ci::machine::Observed;

use super::simulated_host::{self, host, left, machines, spec};

#[tokio::test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn a_running_machine_without_protection_loses_its_power() {
    simulated_host::prepare();
    let (machines, bare, protected, unknown) = (machines(), spec(), spec(), spec());
    for spec in [&bare, &protected, &unknown] {
        machines.prepare(spec).await.unwrap();
        machines.start(&spec.name).await.unwrap();
    }
    assert_eq!(machines.list().await.unwrap().len(), 3);
    for spec in [&bare, &protected, &unknown] {
        assert_eq!(machines.observe(&spec.name).await.unwrap(), Observed::Running);
    }
    // As zoneadmd does at a halt that somebody else answers with a boot.
    host()
        .mutate(|host| {
            let link = host.state.links.get_mut("hciv0").unwrap();
            link.props.remove("protection");
        })
        .unwrap();
    // Somebody tidied up in /var/run: nothing says which link is its own.
    std::fs::remove_file(format!("/run/helios-ci/machines/{}.json", unknown.name)).unwrap();
    machines.list().await.unwrap();
    let Observed::Stopped(how) = machines.wait_stopped(&bare.name).await.unwrap() else {
        panic!("it is not seen as stopped");
    };
    assert!(
        how.starts_with("its power was taken: its link was not protected any more"),
        "{how}"
    );
    assert_ne!(machines.wait_stopped(&unknown.name).await.unwrap(), Observed::Running);
    assert_eq!(machines.observe(&protected.name).await.unwrap(), Observed::Running);
    for spec in [&bare, &protected] {
        machines.destroy(&spec.name).await.unwrap();
    }
    machines.destroy(&unknown.name).await.unwrap();
    // Its links are found by their addresses; they were nobody's at the look before, too.
    machines.list().await.unwrap();
    assert_eq!(left(), Vec::<String>::new());
}

#[tokio::test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn what_only_a_person_can_mend_is_named() {
    simulated_host::prepare();
    let (machines, ours, other) = (machines(), spec(), spec());
    assert_eq!(machines.findings().await.unwrap(), Vec::<String>::new());
    machines.prepare(&ours).await.unwrap();
    machines.start(&ours.name).await.unwrap();
    assert_eq!(machines.findings().await.unwrap(), Vec::<String>::new());
    let disk = format!("rpool/hci/machines/{}", other.name);
    host().run("zfs", &["create", "-s", "-V", "1g", &disk]).unwrap();
    let given_up = "rpool/hci/machines/old";
    for args in [
        &["create", "-s", "-V", "1g", "-o", "helios-ci:node=n1", given_up][..],
        &["set", "helios-ci:state=quarantined", given_up],
    ] {
        host().run("zfs", args).unwrap();
    }
    for args in [
        &["create-etherstub", "-t", "hcis8"][..],
        &["create-vnic", "-t", "-l", "hcis8", "hciv9"],
        // Of no slot that this node has.
        &["create-etherstub", "-t", "hcis16384"],
    ] {
        simulated_host::run("dladm", args);
    }
    host()
        .mutate(|host| {
            let zone = host.state.zones.get_mut(ours.name.as_str()).unwrap();
            (zone.state, zone.guest) = (illumos_sim::state::ZoneState::Down, false);
        })
        .unwrap();
    let findings = machines.findings().await.unwrap();
    let named = |words: [&str; 2]| findings.iter().any(|t| words.iter().all(|word| t.contains(word)));
    assert_eq!(findings.len(), 5, "{findings:#?}");
    assert!(named(["stub hcis8", "slot 8"]), "{findings:#?}");
    assert!(named(["VNIC hciv9 is over hcis8", "slot 9"]), "{findings:#?}");
    assert!(named([&disk, "left alone"]), "{findings:#?}");
    assert!(named([given_up, "quarantined"]), "{findings:#?}");
    assert!(named([ours.name.as_str(), "reboot"]), "{findings:#?}");
}
