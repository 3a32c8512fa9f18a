use crate::{
    Ended,
    faults::{Action, Fault, Listed, Quirks},
    program::testing::Bed,
    state::ZoneState,
};

const PROTECT: &str = "dladm set-linkprop -t -p protection=mac-nospoof,ip-nospoof -p allowed-ips=10.77.0.30/32 hciv7";

/// A host with one configured zone `z1`, its disk and its links.
fn bed() -> Bed {
    let bed = Bed::new();
    for command in [
        "zfs create -o mountpoint=/zones/hci rpool/zones",
        "zfs create rpool/machines",
        "zfs create -s -V 1m rpool/machines/z1",
        "zfs create -o quota=256m rpool/zones/z1",
        "dladm create-etherstub -t hcis7",
        "dladm create-vnic -t -l hcis7 hciv7",
        PROTECT,
    ] {
        bed.ok(command);
    }
    let file = bed.file(
        "z1",
        "create -b\nset brand=bhyve\nset zonepath=/zones/hci/z1\nset ip-type=exclusive\nset max-lwps=100\nadd net\nset physical=hciv7\nend\nadd device\nset match=/dev/zvol/rdsk/rpool/machines/z1\nend\nadd attr\nset name=bootdisk\nset type=string\nset value=rpool/machines/z1\nend\nadd attr\nset name=disk1\nset type=string\nset value=\"/seed.img,ro\"\nend\nadd attr\nset name=vcpus\nset type=string\nset value=2\nend\n",
    );
    bed.ok(&format!("zonecfg -z z1 -f {file}"));
    bed
}

fn installed() -> Bed {
    let bed = bed();
    bed.ok("zoneadm -z z1 install");
    std::fs::write(bed.sim.root().join("zones/hci/z1/root/seed.img"), "seed").unwrap();
    bed
}

fn state(bed: &Bed) -> String {
    let line = bed.ok("zoneadm -z z1 list -p");
    line.split(':').nth(2).unwrap_or_default().to_owned()
}

/// A boot that succeeded, of a bhyve that did not: some listings later it shows.
fn dies(bed: &Bed) {
    assert_eq!(
        [state(bed), state(bed), state(bed)],
        ["running", "running", "installed"]
    );
}

fn quirk(bed: &Bed, quirks: Quirks) {
    bed.sim
        .mutate(|host| host.faults.zones.insert("z1".into(), quirks))
        .unwrap();
}

fn fault(bed: &Bed, program: &str, args: &[&str], action: Action) {
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    let fault = Fault {
        program: program.into(),
        args,
        nth: 1,
        times: 1,
        action,
        seen: 0,
    };
    bed.sim.mutate(|host| host.faults.calls.push(fault)).unwrap();
}

fn last_exited(bed: &Bed) -> String {
    let text = std::fs::read_to_string(bed.sim.root().join("zones/hci/z1/lastexited")).unwrap();
    text.trim().split(' ').nth(1).unwrap().to_owned()
}

#[test]
fn a_zone_lives_and_goes() {
    let bed = installed();
    assert!(bed.sim.root().join("zones/hci/z1/root/etc/uuid").exists());
    bed.ok("zoneadmd -z z1");
    bed.ok("zoneadm -z z1 boot");
    let out = bed.ok("zoneadm list -cip");
    assert!(out.starts_with("0:global:running:/::ipkg:shared:0\n"), "{out}");
    assert!(
        out.contains(":z1:running:/zones/hci/z1:00000000-0000-4000-8000-"),
        "{out}"
    );
    assert!(out.contains(":bhyve:excl:"), "{out}");
    assert!(bed.no("dladm delete-vnic hciv7", 1).contains("link busy"));
    assert!(bed.no("zfs destroy rpool/machines/z1", 1).contains("dataset is busy"));
    assert!(bed.said("zoneadm -z z1 boot").stderr.contains("zone is already booted"));
    assert!(
        bed.no("zoneadm -z z1 uninstall -F", 1)
            .contains("invalid for running zones")
    );
    assert!(
        bed.no("zonecfg -z z1 delete -F", 1)
            .contains("Zone state is invalid for the requested operation")
    );
    assert!(bed.sim.root().join("dev/vmm/z1").exists());
    bed.ok("bhyvectl --vm=z1 --force-poweroff");
    assert_eq!((state(&bed), last_exited(&bed)), ("installed".into(), "256".into()));
    assert!(!bed.sim.root().join("dev/vmm/z1").exists());
    assert!(bed.said("zoneadm -z z1 halt").stderr.contains("zone is already halted"));
    assert_eq!(
        bed.ok("dladm show-linkprop -c -o value -p protection,allowed-ips hciv7"),
        "--\n--\n"
    );
    bed.ok("zoneadm -z z1 uninstall -F");
    assert_eq!(
        bed.no("zfs list rpool/zones/z1", 1),
        "cannot open 'rpool/zones/z1': dataset does not exist\n"
    );
    assert!(
        bed.no("zoneadm -z z1 uninstall -F", 1)
            .contains("is already in state 'configured'.")
    );
    bed.ok("zonecfg -z z1 delete -F");
    assert_eq!(
        bed.no("zoneadm -z z1 list -p", 1),
        "zoneadm: z1: No such zone configured\n"
    );
    bed.ok("dladm delete-vnic hciv7");
    bed.ok("zfs destroy rpool/machines/z1");
}

#[test]
fn halt_waits_for_a_guest_that_does_not_listen() {
    let bed = installed();
    bed.ok("zoneadm -z z1 boot");
    assert_eq!(bed.ended("zoneadm -z z1 halt"), Ended::Waiting);
    assert_eq!(state(&bed), "running");
    bed.ok("pkill -9 -z z1 bhyve");
    assert_eq!((state(&bed), last_exited(&bed)), ("installed".into(), "9".into()));
    bed.ok("zoneadm -z z1 halt");
    bed.ok(PROTECT);
    quirk(
        &bed,
        Quirks {
            obeys_power_button: true,
            ..Quirks::default()
        },
    );
    bed.ok("zoneadm -z z1 boot");
    bed.ok("zoneadm -z z1 halt");
    assert_eq!((state(&bed), last_exited(&bed)), ("installed".into(), "-1".into()));
    assert!(
        bed.no("bhyvectl --vm=z1 --force-poweroff", 1)
            .contains("vm_open: z1 could not be opened: ")
    );
}

#[test]
fn a_boot_that_succeeds_may_be_dead() {
    let bed = installed();
    quirk(
        &bed,
        Quirks {
            bhyve_exits: Some(4),
            ..Quirks::default()
        },
    );
    bed.ok("zoneadm -z z1 boot");
    assert!(bed.no("bhyvectl --vm=z1 --force-poweroff", 0).is_empty());
    dies(&bed);
    assert_eq!(last_exited(&bed), "1024");
    quirk(&bed, Quirks::default());
    // A device that matches nothing, and an attribute that nobody knows.
    bed.ok("zonecfg -z z1 remove device match=/dev/zvol/rdsk/rpool/machines/z1 ; add attr ; set name=vcpu ; set type=string ; set value=99 ; end");
    bed.ok("zoneadm -z z1 boot");
    dies(&bed);
    let log = std::fs::read_to_string(bed.sim.root().join("zones/hci/z1/root/tmp/init.log")).unwrap();
    assert!(
        log.starts_with("Could not open backing file: /dev/zvol/rdsk/rpool/machines/z1"),
        "{log}"
    );
    bed.ok("zonecfg -z z1 add device ; set match=/dev/zvol/rdsk/rpool/machines/* ; end");
    bed.ok("zoneadm -z z1 boot");
    assert_eq!(state(&bed), "running");
    bed.ok("bhyvectl --vm=z1 --force-reset");
    assert_eq!(bed.sim.state().unwrap().zones["z1"].starts, 2);
}

#[test]
fn the_boot_hook_furnishes_the_root() {
    let bed = installed();
    let root = bed.sim.root().join("zones/hci/z1/root");
    let uuid = std::fs::read_to_string(root.join("etc/uuid")).unwrap();
    assert!(bed.ok("boot -t z1").contains(&format!("-U {} -H", uuid.trim())));
    bed.ok("zonecfg -z z1 add attr ; set name=bootrom ; set type=string ; set value=BHYVE_RELEASE ; end ; add attr ; set name=cloud-init ; set type=string ; set value=on ; end");
    assert!(!root.join("etc/uefivars").exists());
    bed.ok("zoneadm -z z1 boot");
    assert_eq!(state(&bed), "running");
    let meta = std::fs::read_to_string(root.join("cloud-init/meta-data")).unwrap();
    assert_eq!(meta, format!("instance-id: {uuid}local-hostname: z1\n"));
    bed.ok("bhyvectl --vm=z1 --force-poweroff");
    // What the guest has stored there is kept.
    std::fs::write(root.join("etc/uefivars"), "mine").unwrap();
    bed.ok(PROTECT);
    bed.ok("zoneadm -z z1 boot");
    assert_eq!(std::fs::read_to_string(root.join("etc/uefivars")).unwrap(), "mine");
    bed.ok("bhyvectl --vm=z1 --force-poweroff");
    std::fs::remove_file(root.join("etc/uuid")).unwrap();
    let fresh = bed.ok("boot -t z1");
    assert!(fresh.contains("INFO:root:Generated UUID: ") && !fresh.contains(uuid.trim()));
}

#[test]
fn a_boot_order_is_for_firmware_that_keeps_it() {
    let bed = installed();
    let attr =
        |name: &str, value: &str| format!("add attr ; set name={name} ; set type=string ; set value=\"{value}\" ; end");
    let order = attr("bootorder", "disk,net1=ftp");
    bed.ok(&format!("zonecfg -z z1 {order} ; {}", attr("bootnext", "net0=http")));
    bed.ok("zoneadm -z z1 boot");
    bed.ok("bhyvectl --vm=z1 --force-poweroff");
    bed.ok(PROTECT);
    bed.ok(&format!("zonecfg -z z1 {}", attr("bootrom", "BHYVE_RELEASE")));
    // A dry run tells the firmware nothing.
    bed.ok("boot -t z1");
    let said = "Invalid protocol 'ftp' for 'net1'";
    assert!(bed.no("zoneadm -z z1 boot", 1).contains(said));
    let log = std::fs::read_to_string(bed.sim.root().join("zones/hci/z1/log/zone.log")).unwrap();
    assert_eq!(log, format!("ERROR:root:{said}\n"));
    assert!(bed.ok("zonecfg -z z1 export").contains("bootnext"));
    bed.ok("zonecfg -z z1 remove attr name=bootorder");
    bed.ok("zoneadm -z z1 boot");
    // Once is enough.
    assert!(!bed.ok("zonecfg -z z1 export").contains("bootnext"));
}

#[test]
fn what_a_dry_run_prints_is_what_a_boot_leaves() {
    let bed = installed();
    let said = bed.ok("boot -t z1");
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
    bed.ok("zoneadm -z z1 boot");
    let zone = bed.sim.root().join("zones/hci/z1");
    let text = |path: &str| std::fs::read_to_string(zone.join(path)).unwrap();
    assert_eq!(text("root/etc/bhyve.cfg"), settings);
    assert_eq!(text("log/zone.log"), log);
    let json: serde_json::Value = serde_json::from_str(&bed.ok("boot -j z1")).unwrap();
    assert_eq!(json["slots"]["disk"], 5);
    assert_eq!(json["opts"]["vcpus"], "2");
    assert_eq!(json["bootoptions"]["disk1"], serde_json::json!(["pci", "5.1"]));
    assert_eq!(json["config"]["pci"]["0"]["5"]["1"]["device"], "virtio-blk");
    let copy = bed.file(
        "z2",
        &std::fs::read_to_string(bed.sim.root().join("etc/zones/z1.xml")).unwrap(),
    );
    assert_eq!(bed.ok(&format!("boot -t -x {copy} -z z1")), said);
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
        assert_eq!(bed.no(&command, code), format!("{text}\n"));
    }
    let usage = bed.said("boot -t z1 z2");
    assert!(
        usage.code == 2 && usage.stdout.ends_with("Unexpected arguments\n"),
        "{usage:?}"
    );
}

#[test]
fn boot_is_refused_by_network_and_attributes() {
    let bed = installed();
    bed.ok("zonecfg -z z1 select net physical=hciv7 ; set allowed-address=10.77.0.30/30 ; end");
    let said = bed.no("zoneadm -z z1 boot", 1);
    for text in [
        "Protection is already set",
        "failed to add address",
        "zoneadm: zone 'z1': call to zoneadmd failed",
    ] {
        assert!(said.contains(text), "{said}");
    }
    assert_eq!(state(&bed), "installed");
    bed.ok("dladm reset-linkprop -t -p protection,allowed-ips hciv7");
    bed.ok("zoneadm -z z1 boot");
    assert_eq!(
        bed.ok("dladm show-linkprop -c -o value -p protection hciv7"),
        "ip-nospoof\n"
    );
    bed.ok("bhyvectl --vm=z1 --force-poweroff");
    bed.ok("ipadm create-if -t hciv7");
    assert!(
        bed.said("zoneadm -z z1 boot")
            .stderr
            .contains("which is used in the global zone")
    );
    dies(&bed);
    bed.ok("ipadm delete-if hciv7");
    bed.ok("dladm delete-vnic hciv7");
    assert!(bed.no("zoneadm -z z1 boot", 1).contains("failed to add network device"));
    quirk(
        &bed,
        Quirks {
            boot_error: Some("bootrom X not found.".into()),
            ..Quirks::default()
        },
    );
    assert!(bed.no("zoneadm -z z1 boot", 1).contains("bootrom X not found."));
}

#[test]
fn zoneadmd_goes_on_when_its_client_is_killed() {
    let bed = installed();
    fault(&bed, "zoneadm", &["boot"], Action::KillClient { after: 2 });
    assert_eq!(bed.ended("zoneadm -z z1 boot"), Ended::Killed);
    assert_eq!(state(&bed), "installed");
    // Who asks zoneadmd waits for what it does; who asks the kernel sees it when it is done.
    assert_eq!(bed.ended("zoneadm -z z1 halt"), Ended::Waiting);
    assert_eq!(state(&bed), "running");
    fault(&bed, "zoneadm", &["halt"], Action::KillClient { after: 0 });
    bed.sim.mutate(|host| host.faults.calls.remove(0)).unwrap();
    assert_eq!(bed.ended("zoneadm -z z1 halt"), Ended::Killed);
    // It waits for the guest as any halt does.
    assert_eq!(state(&bed), "running");
    bed.ok("bhyvectl --vm=z1 --force-poweroff");
    bed.ok("zoneadm list");
    assert_eq!(state(&bed), "installed");
    assert!(bed.sim.state().unwrap().pending.is_empty());
}

#[test]
fn either_half_of_a_zone_can_be_deleted() {
    let bed = bed();
    let (xml, index) = (
        bed.sim.root().join("etc/zones/z1.xml"),
        bed.sim.root().join("etc/zones/index"),
    );
    let (config, lines) = (std::fs::read(&xml).unwrap(), std::fs::read(&index).unwrap());
    std::fs::remove_file(&xml).unwrap();
    assert!(!bed.ok("zoneadm list -cp").contains("z1"));
    assert!(
        bed.no("zonecfg -z z1 export", 1)
            .contains("z1: No such zone configured")
    );
    // It complains of what was missing, and removes what was there.
    bed.no("zonecfg -z z1 delete -F", 1);
    assert!(!std::fs::read_to_string(&index).unwrap().contains("z1"));
    std::fs::write(&xml, &config).unwrap();
    assert!(bed.ok("zonecfg -z z1 export").contains("set brand=bhyve"));
    bed.ok("zonecfg -z z1 delete -F");
    assert!(!xml.exists());
    // One that is damaged can only be deleted.
    std::fs::write(&xml, &config[..config.len() / 2]).unwrap();
    std::fs::write(&index, &lines).unwrap();
    assert!(bed.no("zonecfg -z z1 export", 1).contains("z1: Invalid document"));
    assert!(bed.no("zonecfg -z z1 delete -F", 1).contains("z1: Invalid document"));
    assert!(!xml.exists());
    assert!(bed.no("zonecfg -z z1 delete -F", 1).contains("No such zone configured"));
}

#[test]
fn an_install_that_was_killed_is_incomplete() {
    let bed = bed();
    fault(&bed, "zoneadm", &["install"], Action::KillMidway);
    assert_eq!(bed.ended("zoneadm -z z1 install"), Ended::Killed);
    assert_eq!(state(&bed), "incomplete");
    assert!(
        bed.no("zoneadm -z z1 install", 1)
            .contains("zone is incomplete; uninstall required.")
    );
    assert!(
        bed.no("zoneadm -z z1 boot", 1)
            .contains("must be installed before boot.")
    );
    assert!(
        bed.no("zoneadm -z z1 halt", 1)
            .contains("halt operation is invalid for zones in state 'incomplete'")
    );
    bed.ok("zoneadm -z z1 uninstall -F");
    assert_eq!(state(&bed), "configured");
    for (code, left) in [(254, "configured"), (255, "incomplete")] {
        quirk(
            &bed,
            Quirks {
                install_hook: Some(code),
                ..Quirks::default()
            },
        );
        bed.no("zoneadm -z z1 install", 1);
        assert_eq!(state(&bed), left);
    }
}

#[test]
fn install_needs_a_parent_dataset_and_uninstall_a_folder() {
    let bed = bed();
    bed.ok("zfs unmount rpool/zones");
    let said = bed.no("zoneadm -z z1 install", 1);
    assert!(
        said.contains("Could not find parent dataset for /zones/hci/z1\nMake sure that /zones/hci is a ZFS dataset")
    );
    assert_eq!(state(&bed), "incomplete");
    assert!(
        bed.no("zoneadm -z z1 uninstall -F", 1)
            .contains("/zones/hci/z1 is not a directory")
    );
    bed.ok("zoneadm -z z1 mark -F configured");
    bed.ok("zfs mount -a");
    bed.ok("zfs destroy rpool/zones/z1");
    assert!(
        bed.ok("zoneadm -z z1 install")
            .contains("A ZFS file system has been created for this zone.")
    );
    assert_eq!(
        bed.ok("zfs get -H -o value sharenfs,mounted rpool/zones/z1"),
        "off\nyes\n"
    );
    bed.no("zoneadm -z z1 uninstall", 1);
    bed.ok("zfs snapshot rpool/zones/z1@a");
    bed.ok("zfs clone rpool/zones/z1@a rpool/copy");
    assert!(bed.no("zoneadm -z z1 uninstall -F", 1).contains("has dependent clones"));
    assert_eq!(state(&bed), "incomplete");
    bed.ok("zfs destroy rpool/copy");
    bed.ok("zoneadm -z z1 uninstall -F");
}

#[test]
fn deleting_an_installed_zone_orphans_its_dataset() {
    let bed = installed();
    assert!(
        bed.no("zonecfg -z z1 delete", 1)
            .contains("Input not from terminal and -F not specified:\ndelete command ignored, exiting.")
    );
    bed.ok("zonecfg -z z1 delete -F");
    bed.no("zoneadm -z z1 list -p", 1);
    bed.ok("zfs list rpool/zones/z1");
}

#[test]
fn a_zone_may_be_stuck_on_its_way_down() {
    let bed = installed();
    bed.ok("zoneadm -z z1 boot");
    quirk(
        &bed,
        Quirks {
            halt_leaves: Some("down".into()),
            obeys_power_button: true,
            ..Quirks::default()
        },
    );
    assert!(bed.no("zoneadm -z z1 halt", 1).contains("unable to destroy zone"));
    assert_eq!(state(&bed), "down");
    assert!(bed.no("zoneadm -z z1 uninstall -F", 1).contains("running zones"));
    quirk(&bed, Quirks::default());
    bed.ok("zoneadm -z z1 halt");
    assert_eq!(state(&bed), "installed");
}

#[test]
fn listings_have_their_oddities() {
    let bed = installed();
    bed.ok("zoneadm -z z1 boot");
    let listed = |listed| {
        quirk(
            &bed,
            Quirks {
                listed: Some(listed),
                ..Quirks::default()
            },
        )
    };
    listed(Listed::Skipped);
    let said = bed.said("zoneadm list -cip");
    assert!(!said.stdout.contains("z1") && said.stderr.contains("z1") && said.code == 0);
    listed(Listed::WithoutId);
    assert!(bed.ok("zoneadm list -cip").contains("\n-:z1:running:"));
    listed(Listed::As("hibernating".into()));
    assert!(bed.ok("zoneadm list -cip").contains(":z1:hibernating:"));
    quirk(&bed, Quirks::default());
    bed.sim.mutate(|host| host.faults.seven_list_fields = true).unwrap();
    assert!(bed.ok("zoneadm list -cip").ends_with(":bhyve:excl\n"));
    assert_eq!(bed.ok("zoneadm list"), "global\nz1\n");
    bed.ok("zonecfg -z c1 create -b ; set brand=bhyve ; set zonepath=/zones/hci/a:b");
    assert!(
        bed.ok("zoneadm list -cnp")
            .contains("-:c1:configured:/zones/hci/a\\:b::bhyve:excl\n")
    );
    bed.no("zoneadm list -x", 2);
    bed.no("zoneadm frobnicate", 2);
}

#[test]
fn a_power_cycle_forgets_what_was_in_memory() {
    let bed = installed();
    bed.ok("zoneadm -z z1 boot");
    bed.ok("ipadm create-addr -t -T static -a 10.1.1.1/24 ixgbe0/v4");
    let zones = || std::fs::metadata(bed.sim.root().join("var/run/zones")).unwrap();
    let place = std::os::unix::fs::MetadataExt::ino(&zones());
    bed.sim.host_reboot().unwrap();
    let now = std::os::unix::fs::MetadataExt::ino(&zones());
    assert_eq!(place, now, "who has mounted it elsewhere keeps it");
    assert_eq!(state(&bed), "installed");
    assert_eq!(bed.ok("dladm show-link -p -o link"), "ixgbe0\n");
    assert_eq!(bed.ok("ipadm show-addr -p -o addrobj"), "lo0/v4\n");
    assert!(bed.sim.root().join("zones/hci/z1/root/etc/uuid").exists());
    assert_eq!(
        std::fs::read_dir(bed.sim.root().join("var/run/zones")).unwrap().count(),
        0
    );
    bed.ok("zfs list rpool/machines/z1");
}

#[test]
fn faults_act_and_the_trace_tells() {
    let bed = installed();
    fault(&bed, "zoneadm", &["boot"], Action::KillAfter);
    assert_eq!(bed.ended("zoneadm -z z1 boot"), Ended::Killed);
    assert_eq!(state(&bed), "running");
    let text = "zoneadm: zone 'z1': unable to destroy zone\n".to_owned();
    fault(
        &bed,
        "bhyvectl",
        &["--vm=*"],
        Action::FailAfter {
            code: 1,
            stderr: text.clone(),
        },
    );
    assert_eq!(bed.no("bhyvectl --vm=z1 --force-poweroff", 1), text);
    assert_eq!(state(&bed), "installed");
    fault(&bed, "zfs", &["destroy"], Action::Hang);
    assert_eq!(bed.ended("zfs destroy rpool/machines/z1"), Ended::Hung);
    bed.ok("zfs list rpool/machines/z1");
    let trace = bed.sim.trace().unwrap();
    let boot = trace
        .iter()
        .find(|line| line.command() == "zoneadm -z z1 boot")
        .unwrap();
    assert_eq!((boot.exit, boot.fault.as_deref()), (None, Some("killed")));
    assert_eq!(trace.last().unwrap().exit, Some(0));
}

#[test]
fn vm_and_volume_may_outlive_bhyve() {
    let bed = installed();
    quirk(
        &bed,
        Quirks {
            leaves_vm: true,
            ..Quirks::default()
        },
    );
    bed.sim.mutate(|host| host.faults.busy_after_close = 1).unwrap();
    bed.ok("zoneadm -z z1 boot");
    bed.ok("bhyvectl --vm=z1 --force-poweroff");
    assert!(bed.sim.root().join("dev/vmm/z1").exists());
    bed.ok("bhyvectl --vm=z1 --destroy");
    assert!(!bed.sim.root().join("dev/vmm/z1").exists());
    assert!(bed.no("zfs destroy rpool/machines/z1", 1).contains("dataset is busy"));
    bed.ok("zfs destroy rpool/machines/z1");
    assert!(
        !bed.sim
            .state()
            .unwrap()
            .zones
            .values()
            .any(|zone| zone.state == ZoneState::Running)
    );
}

#[test]
fn the_kernel_takes_its_time() {
    let bed = installed();
    quirk(
        &bed,
        Quirks {
            lingers: 2,
            ..Quirks::default()
        },
    );
    bed.ok("zoneadm -z z1 boot");
    bed.ok("bhyvectl --vm=z1 --force-poweroff");
    assert_eq!(
        [state(&bed), state(&bed), state(&bed)],
        ["shutting_down", "shutting_down", "installed"]
    );
    assert_eq!(last_exited(&bed), "256");
    bed.ok(PROTECT);
    bed.ok("zoneadm -z z1 boot");
    bed.ok("bhyvectl --vm=z1 --force-poweroff");
    bed.ok("zoneadm -z z1 halt");
    assert_eq!(state(&bed), "installed");
}

#[test]
fn a_halt_or_uninstall_that_was_killed_is_repeated() {
    let bed = installed();
    quirk(
        &bed,
        Quirks {
            obeys_power_button: true,
            ..Quirks::default()
        },
    );
    bed.ok("zoneadm -z z1 boot");
    fault(&bed, "zoneadm", &["halt"], Action::KillMidway);
    assert_eq!(bed.ended("zoneadm -z z1 halt"), Ended::Killed);
    assert_eq!(state(&bed), "shutting_down");
    bed.ok("zoneadm -z z1 halt");
    assert_eq!(state(&bed), "installed");
    fault(&bed, "zoneadm", &["uninstall"], Action::KillMidway);
    assert_eq!(bed.ended("zoneadm -z z1 uninstall -F"), Ended::Killed);
    assert_eq!(state(&bed), "incomplete");
    bed.ok("zoneadm -z z1 uninstall -F");
    assert_eq!(state(&bed), "configured");
}
