use std::{collections::BTreeSet, time::Duration};

use helios_ci::machine::{ListenAt, Observed};

use super::simulated_host::{self, host, left, machines, spec};

#[tokio::test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn a_machine_is_made_run_and_removed_without_a_trace() {
    simulated_host::prepare();
    let (machines, spec) = (machines(), spec());
    let name = &spec.name;
    assert_eq!(machines.observe(name).await.unwrap(), Observed::Absent);
    let endpoints = machines.prepare(&spec).await.unwrap();
    assert_eq!(
        endpoints.agent,
        ListenAt::Slot {
            address: "10.77.0.1:9417".parse().unwrap(),
            guest: "10.77.0.2".parse().unwrap(),
        }
    );
    assert_eq!(machines.observe(name).await.unwrap(), Observed::Prepared);
    assert_eq!(
        machines.prepare(&spec).await.unwrap(),
        endpoints,
        "made anew, in the same place"
    );
    machines.start(name).await.unwrap();
    machines.start(name).await.unwrap();
    assert_eq!(machines.observe(name).await.unwrap(), Observed::Running);
    assert!(
        machines.prepare(&spec).await.is_err(),
        "a running machine is not made anew"
    );
    // A machined that was restarted knows as much.
    let again = simulated_host::machines();
    assert_eq!(again.endpoints(name).await.unwrap(), Some(endpoints));
    let listed = again.list().await.unwrap();
    assert_eq!((listed.len(), &listed[0].observed), (1, &Observed::Running));
    again.stop(name, Duration::ZERO).await.unwrap();
    // bhyve ends as it does when a guest powers itself off; who did it is remembered.
    let Observed::Stopped(how) = again.observe(name).await.unwrap() else {
        panic!("it does not count as stopped");
    };
    assert!(how.starts_with("its power was taken: it was stopped"), "{how}");
    assert!(again.start(name).await.is_err(), "a machine runs once");
    again.destroy(name).await.unwrap();
    again.destroy(name).await.unwrap();
    assert_eq!(again.observe(name).await.unwrap(), Observed::Absent);
    assert_eq!(left(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn twenty_machines_at_once() {
    simulated_host::prepare();
    let machines = machines();
    let lives = (0..20).map(|_| {
        let machines = machines.clone();
        tokio::spawn(async move {
            let spec = spec();
            let endpoints = machines.prepare(&spec).await.unwrap();
            machines.start(&spec.name).await.unwrap();
            (spec.name, format!("{:?}", endpoints.agent))
        })
    });
    let mut made = Vec::new();
    for life in lives.collect::<Vec<_>>() {
        made.push(life.await.unwrap());
    }
    let addresses: BTreeSet<_> = made.iter().map(|(_, address)| address).collect();
    assert_eq!(addresses.len(), 20, "each has an address of its own");
    assert_eq!(host().state().unwrap().zones.len(), 20);
    let ends = made.into_iter().map(|(name, _)| {
        let machines = machines.clone();
        tokio::spawn(async move { machines.destroy(&name).await.unwrap() })
    });
    for end in ends.collect::<Vec<_>>() {
        end.await.unwrap();
    }
    assert_eq!(left(), Vec::<String>::new());
}

#[tokio::test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn a_rebooted_host_keeps_what_zfs_keeps_and_all_of_it_goes() {
    simulated_host::prepare();
    let (running, prepared) = (spec(), spec());
    let first = machines();
    first.prepare(&running).await.unwrap();
    first.start(&running.name).await.unwrap();
    first.prepare(&prepared).await.unwrap();
    let rules = host().state().unwrap().filter.rules;
    assert!(rules.len() >= 3, "{rules:?}");
    host().host_reboot().unwrap();
    std::fs::remove_dir_all("/run/helios-ci").unwrap();
    assert_eq!(
        host().state().unwrap().filter.rules,
        rules,
        "they come back with the host"
    );
    let machines = machines();
    assert_eq!(machines.list().await.unwrap().len(), 2);
    for machine in machines.list().await.unwrap() {
        assert_ne!(machine.observed, Observed::Running);
        machines.destroy(&machine.name).await.unwrap();
    }
    assert_eq!(left(), Vec::<String>::new());
    // Slots and names are free again.
    let next = spec();
    machines.prepare(&next).await.unwrap();
    machines.start(&next.name).await.unwrap();
    assert_eq!(machines.observe(&next.name).await.unwrap(), Observed::Running);
    // What the host makes at its boot is where its programs and ours look for it.
    assert!(std::path::Path::new("/dev/vmm").join(next.name.as_str()).exists());
    let socket = format!("/run/zones/{}.console_sock", next.name);
    assert!(std::path::Path::new(&socket).exists());
    machines.destroy(&next.name).await.unwrap();
    assert_eq!(left(), Vec::<String>::new());
}

#[tokio::test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn look_alikes_are_reported_and_left_alone() {
    simulated_host::prepare();
    let (machines, other) = (machines(), spec());
    let run = |program: &str, args: &[&str]| {
        let ended = host().run(program, args).unwrap();
        assert!(
            format!("{ended:?}").contains("code: 0"),
            "{program} {args:?}: {ended:?}"
        );
    };
    // A zone, a disk and links of our names that somebody else made.
    let (zone, disk) = (other.name.to_string(), format!("rpool/hci/machines/{}", other.name));
    run("zfs", &["create", "-s", "-V", "1g", &disk]);
    run(
        "zfs",
        &[
            "create",
            "-o",
            "helios-ci:node=n2",
            &format!("rpool/hci/zones/{}", other.name),
        ],
    );
    std::fs::write(
        "/run/z.cfg",
        format!("create -b\nset brand=bhyve\nset zonepath=/mnt/other/{zone}\nset ip-type=exclusive\nverify\ncommit\n"),
    )
    .unwrap();
    run("zonecfg", &["-z", &zone, "-f", "/run/z.cfg"]);
    run("dladm", &["create-etherstub", "-t", "hcis0"]);
    run(
        "dladm",
        &["create-vnic", "-t", "-l", "hcis0", "-m", "2:8:20:1:2:3", "hciv0"],
    );
    // A stub alone: ours would be taken for it, and it for ours.
    run("dladm", &["create-etherstub", "-t", "hcis1"]);
    let before = simulated_host::picture();
    assert!(machines.list().await.unwrap().is_empty());
    assert!(machines.destroy(&other.name).await.is_err());
    assert_eq!(machines.observe(&other.name).await.unwrap(), Observed::Absent);
    // Their slots are passed over.
    let ours = spec();
    machines.prepare(&ours).await.unwrap();
    machines.start(&ours.name).await.unwrap();
    assert!(host().state().unwrap().links.contains_key("hciv2"));
    machines.list().await.unwrap();
    machines.destroy(&ours.name).await.unwrap();
    assert_eq!(simulated_host::changed(&before), Vec::<String>::new());
}
