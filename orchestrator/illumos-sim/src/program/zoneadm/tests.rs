use crate::{
    Ended,
    faults::{Action, Fault, Listed, Quirks},
    program::testing::TestHost,
    state::ZoneState,
};

const PROTECT: &str = "dladm set-linkprop -t -p protection=mac-nospoof,ip-nospoof -p allowed-ips=10.77.0.30/32 hciv7";

/// A host with one configured zone `z1`, its disk and its links.
fn fixture() -> TestHost {
    let fixture = TestHost::new();
    for command in [
        "zfs create -o mountpoint=/zones/hci rpool/zones",
        "zfs create rpool/machines",
        "zfs create -s -V 1m rpool/machines/z1",
        "zfs create -o quota=256m rpool/zones/z1",
        "dladm create-etherstub -t hcis7",
        "dladm create-vnic -t -l hcis7 hciv7",
        PROTECT,
    ] {
        fixture.ok(command);
    }
    let file = fixture.file(
        "z1",
        "create -b\nset brand=bhyve\nset zonepath=/zones/hci/z1\nset ip-type=exclusive\nset max-lwps=100\nadd net\nset physical=hciv7\nend\nadd device\nset match=/dev/zvol/rdsk/rpool/machines/z1\nend\nadd attr\nset name=bootdisk\nset type=string\nset value=rpool/machines/z1\nend\nadd attr\nset name=disk1\nset type=string\nset value=\"/seed.img,ro\"\nend\nadd attr\nset name=vcpus\nset type=string\nset value=2\nend\n",
    );
    fixture.ok(&format!("zonecfg -z z1 -f {file}"));
    fixture
}

fn installed() -> TestHost {
    let fixture = fixture();
    fixture.ok("zoneadm -z z1 install");
    std::fs::write(fixture.sim.root().join("zones/hci/z1/root/seed.img"), "seed").unwrap();
    fixture
}

fn state(fixture: &TestHost) -> String {
    let line = fixture.ok("zoneadm -z z1 list -p");
    line.split(':').nth(2).unwrap_or_default().to_owned()
}

/// A boot that succeeded, of a bhyve that did not: some listings later it shows.
fn dies(fixture: &TestHost) {
    assert_eq!(
        [state(fixture), state(fixture), state(fixture)],
        ["running", "running", "installed"]
    );
}

fn quirk(fixture: &TestHost, quirks: Quirks) {
    fixture
        .sim
        .mutate(|host| host.faults.zones.insert("z1".into(), quirks))
        .unwrap();
}

fn fault(fixture: &TestHost, program: &str, args: &[&str], action: Action) {
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    let fault = Fault {
        program: program.into(),
        args,
        nth: 1,
        times: 1,
        action,
        seen: 0,
    };
    fixture.sim.mutate(|host| host.faults.calls.push(fault)).unwrap();
}

fn last_exited(fixture: &TestHost) -> String {
    let text = std::fs::read_to_string(fixture.sim.root().join("zones/hci/z1/lastexited")).unwrap();
    text.trim().split(' ').nth(1).unwrap().to_owned()
}

#[test]
fn a_zone_lives_and_goes() {
    let fixture = installed();
    assert!(fixture.sim.root().join("zones/hci/z1/root/etc/uuid").exists());
    fixture.ok("zoneadmd -z z1");
    fixture.ok("zoneadm -z z1 boot");
    let out = fixture.ok("zoneadm list -cip");
    assert!(out.starts_with("0:global:running:/::ipkg:shared:0\n"), "{out}");
    assert!(
        out.contains(":z1:running:/zones/hci/z1:00000000-0000-4000-8000-"),
        "{out}"
    );
    assert!(out.contains(":bhyve:excl:"), "{out}");
    assert!(fixture.no("dladm delete-vnic hciv7", 1).contains("link busy"));
    assert!(
        fixture
            .no("zfs destroy rpool/machines/z1", 1)
            .contains("dataset is busy")
    );
    assert!(
        fixture
            .said("zoneadm -z z1 boot")
            .stderr
            .contains("zone is already booted")
    );
    assert!(
        fixture
            .no("zoneadm -z z1 uninstall -F", 1)
            .contains("invalid for running zones")
    );
    assert!(
        fixture
            .no("zonecfg -z z1 delete -F", 1)
            .contains("Zone state is invalid for the requested operation")
    );
    assert!(fixture.sim.root().join("dev/vmm/z1").exists());
    fixture.ok("bhyvectl --vm=z1 --force-poweroff");
    assert_eq!(
        (state(&fixture), last_exited(&fixture)),
        ("installed".into(), "256".into())
    );
    assert!(!fixture.sim.root().join("dev/vmm/z1").exists());
    assert!(
        fixture
            .said("zoneadm -z z1 halt")
            .stderr
            .contains("zone is already halted")
    );
    assert_eq!(
        fixture.ok("dladm show-linkprop -c -o value -p protection,allowed-ips hciv7"),
        "--\n--\n"
    );
    fixture.ok("zoneadm -z z1 uninstall -F");
    assert_eq!(
        fixture.no("zfs list rpool/zones/z1", 1),
        "cannot open 'rpool/zones/z1': dataset does not exist\n"
    );
    assert!(
        fixture
            .no("zoneadm -z z1 uninstall -F", 1)
            .contains("is already in state 'configured'.")
    );
    fixture.ok("zonecfg -z z1 delete -F");
    assert_eq!(
        fixture.no("zoneadm -z z1 list -p", 1),
        "zoneadm: z1: No such zone configured\n"
    );
    fixture.ok("dladm delete-vnic hciv7");
    fixture.ok("zfs destroy rpool/machines/z1");
}

#[test]
fn halt_waits_for_a_guest_that_does_not_listen() {
    let fixture = installed();
    fixture.ok("zoneadm -z z1 boot");
    assert_eq!(fixture.ended("zoneadm -z z1 halt"), Ended::Waiting);
    assert_eq!(state(&fixture), "running");
    fixture.ok("pkill -9 -z z1 bhyve");
    assert_eq!(
        (state(&fixture), last_exited(&fixture)),
        ("installed".into(), "9".into())
    );
    fixture.ok("zoneadm -z z1 halt");
    fixture.ok(PROTECT);
    quirk(
        &fixture,
        Quirks {
            obeys_power_button: true,
            ..Quirks::default()
        },
    );
    fixture.ok("zoneadm -z z1 boot");
    fixture.ok("zoneadm -z z1 halt");
    assert_eq!(
        (state(&fixture), last_exited(&fixture)),
        ("installed".into(), "-1".into())
    );
    assert!(
        fixture
            .no("bhyvectl --vm=z1 --force-poweroff", 1)
            .contains("vm_open: z1 could not be opened: ")
    );
}

#[test]
fn a_boot_that_succeeds_may_be_dead() {
    let fixture = installed();
    quirk(
        &fixture,
        Quirks {
            bhyve_exits: Some(4),
            ..Quirks::default()
        },
    );
    fixture.ok("zoneadm -z z1 boot");
    assert!(fixture.no("bhyvectl --vm=z1 --force-poweroff", 0).is_empty());
    dies(&fixture);
    assert_eq!(last_exited(&fixture), "1024");
    quirk(&fixture, Quirks::default());
    // A device that matches nothing, and an attribute that nobody knows.
    fixture.ok("zonecfg -z z1 remove device match=/dev/zvol/rdsk/rpool/machines/z1 ; add attr ; set name=vcpu ; set type=string ; set value=99 ; end");
    fixture.ok("zoneadm -z z1 boot");
    dies(&fixture);
    let log = std::fs::read_to_string(fixture.sim.root().join("zones/hci/z1/root/tmp/init.log")).unwrap();
    assert!(
        log.starts_with("Could not open backing file: /dev/zvol/rdsk/rpool/machines/z1"),
        "{log}"
    );
    fixture.ok("zonecfg -z z1 add device ; set match=/dev/zvol/rdsk/rpool/machines/* ; end");
    fixture.ok("zoneadm -z z1 boot");
    assert_eq!(state(&fixture), "running");
    fixture.ok("bhyvectl --vm=z1 --force-reset");
    assert_eq!(fixture.sim.state().unwrap().zones["z1"].starts, 2);
}

#[test]
fn the_boot_hook_furnishes_the_root() {
    let fixture = installed();
    let root = fixture.sim.root().join("zones/hci/z1/root");
    let uuid = std::fs::read_to_string(root.join("etc/uuid")).unwrap();
    assert!(fixture.ok("boot -t z1").contains(&format!("-U {} -H", uuid.trim())));
    fixture.ok("zonecfg -z z1 add attr ; set name=bootrom ; set type=string ; set value=BHYVE_RELEASE ; end ; add attr ; set name=cloud-init ; set type=string ; set value=on ; end");
    assert!(!root.join("etc/uefivars").exists());
    fixture.ok("zoneadm -z z1 boot");
    assert_eq!(state(&fixture), "running");
    let meta = std::fs::read_to_string(root.join("cloud-init/meta-data")).unwrap();
    assert_eq!(meta, format!("instance-id: {uuid}local-hostname: z1\n"));
    fixture.ok("bhyvectl --vm=z1 --force-poweroff");
    // What the guest has stored there is kept.
    std::fs::write(root.join("etc/uefivars"), "mine").unwrap();
    fixture.ok(PROTECT);
    fixture.ok("zoneadm -z z1 boot");
    assert_eq!(std::fs::read_to_string(root.join("etc/uefivars")).unwrap(), "mine");
    fixture.ok("bhyvectl --vm=z1 --force-poweroff");
    std::fs::remove_file(root.join("etc/uuid")).unwrap();
    let fresh = fixture.ok("boot -t z1");
    assert!(fresh.contains("INFO:root:Generated UUID: ") && !fresh.contains(uuid.trim()));
}

#[test]
fn a_boot_order_is_for_firmware_that_keeps_it() {
    let fixture = installed();
    let attr =
        |name: &str, value: &str| format!("add attr ; set name={name} ; set type=string ; set value=\"{value}\" ; end");
    let order = attr("bootorder", "disk,net1=ftp");
    fixture.ok(&format!("zonecfg -z z1 {order} ; {}", attr("bootnext", "net0=http")));
    fixture.ok("zoneadm -z z1 boot");
    fixture.ok("bhyvectl --vm=z1 --force-poweroff");
    fixture.ok(PROTECT);
    fixture.ok(&format!("zonecfg -z z1 {}", attr("bootrom", "BHYVE_RELEASE")));
    // A dry run tells the firmware nothing.
    fixture.ok("boot -t z1");
    let said = "Invalid protocol 'ftp' for 'net1'";
    assert!(fixture.no("zoneadm -z z1 boot", 1).contains(said));
    let log = std::fs::read_to_string(fixture.sim.root().join("zones/hci/z1/log/zone.log")).unwrap();
    assert_eq!(log, format!("ERROR:root:{said}\n"));
    assert!(fixture.ok("zonecfg -z z1 export").contains("bootnext"));
    fixture.ok("zonecfg -z z1 remove attr name=bootorder");
    fixture.ok("zoneadm -z z1 boot");
    // Once is enough.
    assert!(!fixture.ok("zonecfg -z z1 export").contains("bootnext"));
}

#[test]
fn what_a_dry_run_prints_is_what_a_boot_leaves() {
    let fixture = installed();
    let said = fixture.ok("boot -t z1");
    for line in [
        "INFO:root:Zone name: z1",
        "DEBUG:root:Found custom vcpus attribute - \"2\"",
        "{1: '/seed.img,ro'}",
        " 'disk1': ('pci', '5.1'),",
        "['/usr/sbin/bhyve',",
        " '1,manufacturer=OmniOS,product=OmniOS '",
        " '5:1,virtio-blk,/seed.img,ro',",
        "# Generated from zone configuration",
        "pci.0.5.1.path=/seed.img",
        "pci.0.5.1.ro=true",
    ] {
        assert!(said.lines().any(|said| said == line), "{line}: {said}");
    }
    let (log, settings) = said
        .split_once("#\n#")
        .map(|(log, _)| (log, &said[log.len()..]))
        .unwrap();
    fixture.ok("zoneadm -z z1 boot");
    let zone = fixture.sim.root().join("zones/hci/z1");
    let text = |path: &str| std::fs::read_to_string(zone.join(path)).unwrap();
    assert_eq!(text("root/etc/bhyve.cfg"), settings);
    assert_eq!(text("log/zone.log"), log);
    let json: serde_json::Value = serde_json::from_str(&fixture.ok("boot -j z1")).unwrap();
    assert_eq!(json["slots"]["disk"], 5);
    assert_eq!(json["opts"]["vcpus"], "2");
    assert_eq!(json["bootoptions"]["disk1"], serde_json::json!(["pci", "5.1"]));
    assert_eq!(json["config"]["pci"]["0"]["5"]["1"]["device"], "virtio-blk");
    let copy = fixture.file(
        "z2",
        &std::fs::read_to_string(fixture.sim.root().join("etc/zones/z1.xml")).unwrap(),
    );
    assert_eq!(fixture.ok(&format!("boot -t -x {copy} -z z1")), said);
    for (command, code, text) in [
        (
            "boot -t z2".to_owned(),
            1,
            "Cannot find zone XML file at /etc/zones/z2.xml",
        ),
        (
            format!("boot -t -x {copy} z2"),
            1,
            "Zone name z2 does not match XML file z1",
        ),
    ] {
        assert_eq!(fixture.no(&command, code), format!("{text}\n"));
    }
    let usage = fixture.said("boot -t z1 z2");
    assert!(
        usage.code == 2 && usage.stdout.ends_with("Unexpected arguments\n"),
        "{usage:?}"
    );
}

#[test]
fn boot_is_refused_by_network_and_attributes() {
    let fixture = installed();
    fixture.ok("zonecfg -z z1 select net physical=hciv7 ; set allowed-address=10.77.0.30/30 ; end");
    let said = fixture.no("zoneadm -z z1 boot", 1);
    for text in [
        "Protection is already set",
        "failed to add address",
        "zoneadm: zone 'z1': call to zoneadmd failed",
    ] {
        assert!(said.contains(text), "{said}");
    }
    assert_eq!(state(&fixture), "installed");
    fixture.ok("dladm reset-linkprop -t -p protection,allowed-ips hciv7");
    fixture.ok("zoneadm -z z1 boot");
    assert_eq!(
        fixture.ok("dladm show-linkprop -c -o value -p protection hciv7"),
        "ip-nospoof\n"
    );
    fixture.ok("bhyvectl --vm=z1 --force-poweroff");
    fixture.ok("ipadm create-if -t hciv7");
    assert!(
        fixture
            .said("zoneadm -z z1 boot")
            .stderr
            .contains("which is used in the global zone")
    );
    dies(&fixture);
    fixture.ok("ipadm delete-if hciv7");
    fixture.ok("dladm delete-vnic hciv7");
    assert!(
        fixture
            .no("zoneadm -z z1 boot", 1)
            .contains("failed to add network device")
    );
    quirk(
        &fixture,
        Quirks {
            boot_error: Some("bootrom X not found.".into()),
            ..Quirks::default()
        },
    );
    assert!(fixture.no("zoneadm -z z1 boot", 1).contains("bootrom X not found."));
}

#[test]
fn zoneadmd_goes_on_when_its_client_is_killed() {
    let fixture = installed();
    fault(&fixture, "zoneadm", &["boot"], Action::KillClient { after: 2 });
    assert_eq!(fixture.ended("zoneadm -z z1 boot"), Ended::Killed);
    assert_eq!(state(&fixture), "installed");
    // Who asks zoneadmd waits for what it does; who asks the kernel sees it when it is done.
    assert_eq!(fixture.ended("zoneadm -z z1 halt"), Ended::Waiting);
    assert_eq!(state(&fixture), "running");
    fault(&fixture, "zoneadm", &["halt"], Action::KillClient { after: 0 });
    fixture.sim.mutate(|host| host.faults.calls.remove(0)).unwrap();
    assert_eq!(fixture.ended("zoneadm -z z1 halt"), Ended::Killed);
    // It waits for the guest as any halt does.
    assert_eq!(state(&fixture), "running");
    fixture.ok("bhyvectl --vm=z1 --force-poweroff");
    fixture.ok("zoneadm list");
    assert_eq!(state(&fixture), "installed");
    assert!(fixture.sim.state().unwrap().pending.is_empty());
}

#[test]
fn either_half_of_a_zone_can_be_deleted() {
    let fixture = fixture();
    let (xml, index) = (
        fixture.sim.root().join("etc/zones/z1.xml"),
        fixture.sim.root().join("etc/zones/index"),
    );
    let (config, lines) = (std::fs::read(&xml).unwrap(), std::fs::read(&index).unwrap());
    std::fs::remove_file(&xml).unwrap();
    assert!(!fixture.ok("zoneadm list -cp").contains("z1"));
    assert!(
        fixture
            .no("zonecfg -z z1 export", 1)
            .contains("z1: No such zone configured")
    );
    // It complains of what was missing, and removes what was there.
    fixture.no("zonecfg -z z1 delete -F", 1);
    assert!(!std::fs::read_to_string(&index).unwrap().contains("z1"));
    std::fs::write(&xml, &config).unwrap();
    assert!(fixture.ok("zonecfg -z z1 export").contains("set brand=bhyve"));
    fixture.ok("zonecfg -z z1 delete -F");
    assert!(!xml.exists());
    // One that is damaged can only be deleted.
    std::fs::write(&xml, &config[..config.len() / 2]).unwrap();
    std::fs::write(&index, &lines).unwrap();
    assert!(fixture.no("zonecfg -z z1 export", 1).contains("z1: Invalid document"));
    assert!(
        fixture
            .no("zonecfg -z z1 delete -F", 1)
            .contains("z1: Invalid document")
    );
    assert!(!xml.exists());
    assert!(
        fixture
            .no("zonecfg -z z1 delete -F", 1)
            .contains("No such zone configured")
    );
}

#[test]
fn an_install_that_was_killed_is_incomplete() {
    let fixture = fixture();
    fault(&fixture, "zoneadm", &["install"], Action::KillMidway);
    assert_eq!(fixture.ended("zoneadm -z z1 install"), Ended::Killed);
    assert_eq!(state(&fixture), "incomplete");
    assert!(
        fixture
            .no("zoneadm -z z1 install", 1)
            .contains("zone is incomplete; uninstall required.")
    );
    assert!(
        fixture
            .no("zoneadm -z z1 boot", 1)
            .contains("must be installed before boot.")
    );
    assert!(
        fixture
            .no("zoneadm -z z1 halt", 1)
            .contains("halt operation is invalid for zones in state 'incomplete'")
    );
    fixture.ok("zoneadm -z z1 uninstall -F");
    assert_eq!(state(&fixture), "configured");
    for (code, left) in [(254, "configured"), (255, "incomplete")] {
        quirk(
            &fixture,
            Quirks {
                install_hook: Some(code),
                ..Quirks::default()
            },
        );
        fixture.no("zoneadm -z z1 install", 1);
        assert_eq!(state(&fixture), left);
    }
}

#[test]
fn install_needs_a_parent_dataset_and_uninstall_a_folder() {
    let fixture = fixture();
    fixture.ok("zfs unmount rpool/zones");
    let said = fixture.no("zoneadm -z z1 install", 1);
    assert!(
        said.contains("Could not find parent dataset for /zones/hci/z1\nMake sure that /zones/hci is a ZFS dataset")
    );
    assert_eq!(state(&fixture), "incomplete");
    assert!(
        fixture
            .no("zoneadm -z z1 uninstall -F", 1)
            .contains("/zones/hci/z1 is not a directory")
    );
    fixture.ok("zoneadm -z z1 mark -F configured");
    fixture.ok("zfs mount -a");
    fixture.ok("zfs destroy rpool/zones/z1");
    assert!(
        fixture
            .ok("zoneadm -z z1 install")
            .contains("A ZFS file system has been created for this zone.")
    );
    assert_eq!(
        fixture.ok("zfs get -H -o value sharenfs,mounted rpool/zones/z1"),
        "off\nyes\n"
    );
    fixture.no("zoneadm -z z1 uninstall", 1);
    fixture.ok("zfs snapshot rpool/zones/z1@a");
    fixture.ok("zfs clone rpool/zones/z1@a rpool/copy");
    assert!(
        fixture
            .no("zoneadm -z z1 uninstall -F", 1)
            .contains("has dependent clones")
    );
    assert_eq!(state(&fixture), "incomplete");
    fixture.ok("zfs destroy rpool/copy");
    fixture.ok("zoneadm -z z1 uninstall -F");
}

#[test]
fn deleting_an_installed_zone_orphans_its_dataset() {
    let fixture = installed();
    assert!(
        fixture
            .no("zonecfg -z z1 delete", 1)
            .contains("Input not from terminal and -F not specified:\ndelete command ignored, exiting.")
    );
    fixture.ok("zonecfg -z z1 delete -F");
    fixture.no("zoneadm -z z1 list -p", 1);
    fixture.ok("zfs list rpool/zones/z1");
}

#[test]
fn a_zone_may_be_stuck_on_its_way_down() {
    let fixture = installed();
    fixture.ok("zoneadm -z z1 boot");
    quirk(
        &fixture,
        Quirks {
            halt_leaves: Some("down".into()),
            obeys_power_button: true,
            ..Quirks::default()
        },
    );
    assert!(fixture.no("zoneadm -z z1 halt", 1).contains("unable to destroy zone"));
    assert_eq!(state(&fixture), "down");
    assert!(fixture.no("zoneadm -z z1 uninstall -F", 1).contains("running zones"));
    quirk(&fixture, Quirks::default());
    fixture.ok("zoneadm -z z1 halt");
    assert_eq!(state(&fixture), "installed");
}

#[test]
fn listings_have_their_oddities() {
    let fixture = installed();
    fixture.ok("zoneadm -z z1 boot");
    let listed = |listed| {
        quirk(
            &fixture,
            Quirks {
                listed: Some(listed),
                ..Quirks::default()
            },
        )
    };
    listed(Listed::Skipped);
    let said = fixture.said("zoneadm list -cip");
    assert!(!said.stdout.contains("z1") && said.stderr.contains("z1") && said.code == 0);
    listed(Listed::WithoutId);
    assert!(fixture.ok("zoneadm list -cip").contains("\n-:z1:running:"));
    listed(Listed::As("hibernating".into()));
    assert!(fixture.ok("zoneadm list -cip").contains(":z1:hibernating:"));
    quirk(&fixture, Quirks::default());
    fixture.sim.mutate(|host| host.faults.seven_list_fields = true).unwrap();
    assert!(fixture.ok("zoneadm list -cip").ends_with(":bhyve:excl\n"));
    assert_eq!(fixture.ok("zoneadm list"), "global\nz1\n");
    fixture.ok("zonecfg -z c1 create -b ; set brand=bhyve ; set zonepath=/zones/hci/a:b");
    assert!(
        fixture
            .ok("zoneadm list -cnp")
            .contains("-:c1:configured:/zones/hci/a\\:b::bhyve:excl\n")
    );
    fixture.no("zoneadm list -x", 2);
    fixture.no("zoneadm frobnicate", 2);
}

#[test]
fn a_power_cycle_forgets_what_was_in_memory() {
    let fixture = installed();
    fixture.ok("zoneadm -z z1 boot");
    fixture.ok("ipadm create-addr -t -T static -a 10.1.1.1/24 ixgbe0/v4");
    let zones = || std::fs::metadata(fixture.sim.root().join("var/run/zones")).unwrap();
    let place = std::os::unix::fs::MetadataExt::ino(&zones());
    fixture.sim.host_reboot().unwrap();
    let now = std::os::unix::fs::MetadataExt::ino(&zones());
    assert_eq!(place, now, "who has mounted it elsewhere keeps it");
    assert_eq!(state(&fixture), "installed");
    assert_eq!(fixture.ok("dladm show-link -p -o link"), "ixgbe0\n");
    assert_eq!(fixture.ok("ipadm show-addr -p -o addrobj"), "lo0/v4\n");
    assert!(fixture.sim.root().join("zones/hci/z1/root/etc/uuid").exists());
    assert_eq!(
        std::fs::read_dir(fixture.sim.root().join("var/run/zones"))
            .unwrap()
            .count(),
        0
    );
    fixture.ok("zfs list rpool/machines/z1");
}

#[test]
fn faults_act_and_the_trace_tells() {
    let fixture = installed();
    fault(&fixture, "zoneadm", &["boot"], Action::KillAfter);
    assert_eq!(fixture.ended("zoneadm -z z1 boot"), Ended::Killed);
    assert_eq!(state(&fixture), "running");
    let text = "zoneadm: zone 'z1': unable to destroy zone\n".to_owned();
    fault(
        &fixture,
        "bhyvectl",
        &["--vm=*"],
        Action::FailAfter {
            code: 1,
            stderr: text.clone(),
        },
    );
    assert_eq!(fixture.no("bhyvectl --vm=z1 --force-poweroff", 1), text);
    assert_eq!(state(&fixture), "installed");
    fault(&fixture, "zfs", &["destroy"], Action::Hang);
    assert_eq!(fixture.ended("zfs destroy rpool/machines/z1"), Ended::Hung);
    fixture.ok("zfs list rpool/machines/z1");
    let trace = fixture.sim.trace().unwrap();
    let boot = trace
        .iter()
        .find(|line| line.command() == "zoneadm -z z1 boot")
        .unwrap();
    assert_eq!((boot.exit, boot.fault.as_deref()), (None, Some("killed")));
    assert_eq!(trace.last().unwrap().exit, Some(0));
}

#[test]
fn vm_and_volume_may_outlive_bhyve() {
    let fixture = installed();
    quirk(
        &fixture,
        Quirks {
            leaves_vm: true,
            ..Quirks::default()
        },
    );
    fixture.sim.mutate(|host| host.faults.busy_after_close = 1).unwrap();
    fixture.ok("zoneadm -z z1 boot");
    fixture.ok("bhyvectl --vm=z1 --force-poweroff");
    assert!(fixture.sim.root().join("dev/vmm/z1").exists());
    fixture.ok("bhyvectl --vm=z1 --destroy");
    assert!(!fixture.sim.root().join("dev/vmm/z1").exists());
    assert!(
        fixture
            .no("zfs destroy rpool/machines/z1", 1)
            .contains("dataset is busy")
    );
    fixture.ok("zfs destroy rpool/machines/z1");
    assert!(
        !fixture
            .sim
            .state()
            .unwrap()
            .zones
            .values()
            .any(|zone| zone.state == ZoneState::Running)
    );
}

#[test]
fn the_kernel_takes_its_time() {
    let fixture = installed();
    quirk(
        &fixture,
        Quirks {
            lingers: 2,
            ..Quirks::default()
        },
    );
    fixture.ok("zoneadm -z z1 boot");
    fixture.ok("bhyvectl --vm=z1 --force-poweroff");
    assert_eq!(
        [state(&fixture), state(&fixture), state(&fixture)],
        ["shutting_down", "shutting_down", "installed"]
    );
    assert_eq!(last_exited(&fixture), "256");
    fixture.ok(PROTECT);
    fixture.ok("zoneadm -z z1 boot");
    fixture.ok("bhyvectl --vm=z1 --force-poweroff");
    fixture.ok("zoneadm -z z1 halt");
    assert_eq!(state(&fixture), "installed");
}

#[test]
fn a_halt_or_uninstall_that_was_killed_is_repeated() {
    let fixture = installed();
    quirk(
        &fixture,
        Quirks {
            obeys_power_button: true,
            ..Quirks::default()
        },
    );
    fixture.ok("zoneadm -z z1 boot");
    fault(&fixture, "zoneadm", &["halt"], Action::KillMidway);
    assert_eq!(fixture.ended("zoneadm -z z1 halt"), Ended::Killed);
    assert_eq!(state(&fixture), "shutting_down");
    fixture.ok("zoneadm -z z1 halt");
    assert_eq!(state(&fixture), "installed");
    fault(&fixture, "zoneadm", &["uninstall"], Action::KillMidway);
    assert_eq!(fixture.ended("zoneadm -z z1 uninstall -F"), Ended::Killed);
    assert_eq!(state(&fixture), "incomplete");
    fixture.ok("zoneadm -z z1 uninstall -F");
    assert_eq!(state(&fixture), "configured");
}
