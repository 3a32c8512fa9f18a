use super::{Machine, Release, machine};
use crate::{
    program::testing::TestHost,
    zonecfg::{Config, Resource, Value},
};

fn config(attrs: &[(&str, &str)]) -> Config {
    let mut config = Config::template("z", "bhyve").unwrap();
    for (name, value) in attrs {
        let mut attr = Resource::new("attr");
        for (property, text) in [("name", *name), ("type", "string"), ("value", *value)] {
            attr.set(property, Value::Simple(text.into()), false).unwrap();
        }
        config.add(attr).unwrap();
    }
    config
}

fn made_on(version: &str, attrs: &[(&str, &str)]) -> Result<Machine, String> {
    let fixture = TestHost::new();
    let made = fixture.sim.mutate(|host| {
        host.state.version = version.into();
        machine(host, &config(attrs))
    });
    made.unwrap()
}

fn made(attrs: &[(&str, &str)]) -> Result<Machine, String> {
    made_on("omnios-r151054-sim", attrs)
}

/// The command line after the memory's size, without what it always ends in.
fn devices(attrs: &[(&str, &str)]) -> String {
    let argv = made(attrs).unwrap().argv();
    let from = argv.iter().position(|word| word == "-m").unwrap() + 2;
    argv[from..argv.len() - 3].join(" ")
}

/// The part of a command line that these attributes bring, before or behind the boot disk.
fn brings(attrs: &[(&str, &str)]) -> String {
    let disk = ("bootdisk", "p/z");
    let usual = "-l bootrom,/usr/share/bhyve/firmware/BHYVE_RELEASE_CSM.fd -s 0,hostbridge,model=i440fx -s 1,lpc \
                 -l com1,/dev/zconsole";
    let all = devices(&[attrs, &[disk]].concat());
    let rest = all.strip_prefix(usual).unwrap_or_else(|| panic!("{all}"));
    rest.replacen(" -s 4:0,virtio-blk,/dev/zvol/rdsk/p/z", "", 1)
        .trim()
        .to_owned()
}

#[test]
fn attributes_become_slots() {
    let made = made(&[
        ("bootrom", "BHYVE_RELEASE"),
        ("bootdisk", "rpool/z,nocache"),
        ("disk1", "/seed.img,ro"),
        ("cdrom", "/x.iso"),
        ("vcpu", "8"),
        ("rng", "on"),
        ("ram", "2048"),
        ("uuid", "u"),
    ])
    .unwrap();
    assert_eq!(
        made.argv().join(" "),
        "/usr/sbin/bhyve -U u -H -B 1,manufacturer=OmniOS,product=OmniOS HVM,version=1.0,serial=u,sku=001,\
         family=Virtual Machine -c 1 -m 2048 -l bootrom,/usr/share/bhyve/firmware/BHYVE_RELEASE.fd,/etc/uefivars \
         -s 0,hostbridge,model=i440fx -s 1,lpc -l com1,/dev/zconsole -s 3:0,ahci-cd,/x.iso,ro \
         -s 4:0,virtio-blk,/dev/zvol/rdsk/rpool/z,nocache -s 5:1,virtio-blk,/seed.img,ro -s 10:0,virtio-rnd \
         -o config.dump=1 z"
    );
    assert_eq!(made.memory(), Ok(2 << 30));
    assert_eq!(made.cpus(), Ok(1));
}

#[test]
fn each_kind_of_device_has_its_slots() {
    for (attrs, brought) in [
        // Sixteen disks in two slots, in the order of their numbers; one without a number fills the first gap.
        (
            &[("disk10", "/b"), ("disk0", "/a,ro"), ("disk", "/c"), ("disk07", "q/d")][..],
            "-s 5:0,virtio-blk,/a,ro -s 5:1,virtio-blk,/c -s 5:7,virtio-blk,/dev/zvol/rdsk/q/d -s 8:2,virtio-blk,/b",
        ),
        (
            &[
                ("diskif", "nvme"),
                ("diskif2", "ahci"),
                ("disk1", "/a"),
                ("disk2", "/b"),
                ("bootdisk2", "/c"),
            ],
            "-s 4:0,nvme,/dev/zvol/rdsk/p/z -s 5:1,nvme,/a -s 5:2,ahci-hd,/b",
        ),
        (
            &[("cdrom7", "/b.iso"), ("cdrom", "a.iso,x")],
            "-s 3:0,ahci-cd,a.iso,x,ro -s 3:7,ahci-cd,/b.iso,ro",
        ),
        // There is no tablet without a display.
        (&[("xhci", "maybe")], ""),
        (
            &[("vnc", "yes")],
            "-s 30:0,fbuf,vga=off,unix=/tmp/vm.vnc -s 30:1,xhci,tablet",
        ),
        (
            &[
                ("vnc", "wait,w=1280,password=secret,unix=/x"),
                ("vga", "io"),
                ("xhci", "no"),
            ],
            "-s 30:0,fbuf,vga=io,unix=/x,wait,w=1280",
        ),
        (
            &[("vnc", "tcp=0.0.0.0:5900")],
            "-s 30:0,fbuf,vga=off,tcp=0.0.0.0:5900 -s 30:1,xhci,tablet",
        ),
        (
            &[("ppt0", "on"), ("ppt3", "slot0"), ("ppt5", "off"), ("ppt6", "slot7")],
            "-S -s 9:0,passthru,/dev/ppt3 -s 9:1,passthru,/dev/ppt0 -s 9:7,passthru,/dev/ppt6",
        ),
        (
            &[("virtfs1", "a,/a,ro"), ("virtfs", "b,/b")],
            "-s 11:0,virtio-9p,b=/b -s 11:1,virtio-9p,a=/a,ro",
        ),
        (
            &[
                ("extra1", "-W"),
                ("extra", "-o 'a.b=c d'"),
                ("priv.debug", "1"),
                ("debug.persist", "on"),
            ],
            "-o privileges.debug=true -o debug.persist=true -o a.b=c d -W",
        ),
        (&[("memreserve", "true"), ("ram", "2g")], "-o memory.use_reservoir=true"),
        // Whatever it says, nothing comes of it.
        (&[("acpi", "perhaps"), ("com2", "/dev/x"), ("bootdiskif", "nvme")], ""),
    ] {
        assert_eq!(brings(attrs), brought, "{attrs:?}");
    }
}

#[test]
fn bridges_go_where_they_are_told_to() {
    let lpc = "-s 1,lpc";
    for (name, value, part) in [
        (
            "hostbridge",
            "intel",
            "-s 0,hostbridge,model=netapp -s 1,lpc".to_owned(),
        ),
        (
            "hostbridge",
            "vendor=1,devid=2",
            "-s 0,hostbridge,vendor=1,devid=2 -s 1,lpc".to_owned(),
        ),
        ("hostbridge", "none", format!("BHYVE_RELEASE_CSM.fd {lpc}")),
        ("type", "windows", "-s 31,lpc".to_owned()),
        ("type", "openbsd", lpc.to_owned()),
    ] {
        let argv = made(&[(name, value), ("uuid", "u")]).unwrap().argv().join(" ");
        assert!(argv.contains(&part), "{part}: {argv}");
        assert_eq!(
            argv.starts_with("/usr/sbin/bhyve -w -U u"),
            value == "openbsd",
            "{argv}"
        );
    }
    let unknown = made(&[("hostbridge", "i440")]).unwrap();
    assert!(unknown.bridge_known().unwrap_err().contains("invalid model 'i440'"));
    made(&[]).unwrap().bridge_known().unwrap();
}

#[test]
fn releases_differ() {
    for version in ["omnios-master-0123456789", "omnios-r151060-0123456789"] {
        let attrs = [
            ("com2", "/dev/x"),
            ("com1", "/dev/y"),
            ("bootdisk", "/z"),
            ("bootdiskif", "ahci"),
        ];
        let argv = made_on(version, &attrs).unwrap().argv().join(" ");
        assert!(
            argv.contains("-l com2,/dev/x -l com1,/dev/zconsole -s 4:0,ahci-hd,/z "),
            "{argv}"
        );
        assert_eq!(
            made_on(version, &[("com4", "/x")]).unwrap_err(),
            "com4 slot out of range"
        );
    }
    for version in [
        "omnios-r151054-0123456789",
        "omnios-r151058-0123456789",
        "joyent_20251002T000459Z",
    ] {
        assert_eq!(Release::of(version), Release::R151054);
    }
}

#[test]
fn a_seed_is_a_cd_or_an_address() {
    let argv = |value: &str| {
        let made = made(&[("cloud-init", value), ("uuid", "u")]).unwrap();
        made.argv().join(" ")
    };
    for value in ["on", "/root/user-data"] {
        let argv = argv(value);
        // Before everything else.
        let start = "/usr/sbin/bhyve -s 29:0,ahci-cd,/cloud-init.iso,ro,ser=CLOUD-INIT-0 -U u ";
        assert!(argv.starts_with(start), "{argv}");
        assert!(argv.contains("serial=ds=nocloud;i=u,"), "{argv}");
    }
    let url = argv("http://10.0.0.1/x/");
    assert!(
        url.contains("serial=ds=nocloud-net;s=http://10.0.0.1/x/;i=u,") && !url.contains("29:0"),
        "{url}"
    );
    assert!(argv("off").contains("serial=u,"));
}

#[test]
fn a_disk_goes_before_the_cd_where_the_firmware_keeps_no_order() {
    let slot = |bootrom: &str, order: &str, kind: &str| {
        let attrs = [
            ("bootrom", bootrom),
            ("bootorder", order),
            ("cdrom", "/x.iso"),
            ("type", kind),
        ];
        let made = made(&attrs).unwrap();
        assert_eq!(made.slots()["cdrom"], made.cds[0].slot.device);
        made.cds[0].slot.to_string()
    };
    assert_eq!(slot("BHYVE_RELEASE_CSM", "bootdisk,cdrom0", "generic"), "7:0");
    assert_eq!(slot("BHYVE_RELEASE_CSM", "bootdisk,cdrom0", "windows"), "3:0");
    assert_eq!(slot("BHYVE_RELEASE", "bootdisk,cdrom0", "generic"), "3:0");
    assert_eq!(slot("BHYVE_RELEASE_CSM", "dc", "generic"), "3:0");
    assert_eq!(slot("BHYVE_RELEASE_CSM", "cd", "generic"), "3:0");
}

#[test]
fn the_hook_refuses_what_it_checks() {
    let refused = |attrs: &[(&str, &str)]| made(attrs).unwrap_err();
    for (name, value, text) in [
        ("bootrom", "NONE", "bootrom NONE not found."),
        ("rng", "maybe", "Invalid value maybe for boolean variable rng"),
        ("uefivars", "ON", "Invalid value ON for boolean variable uefivars"),
        ("disk16", "/x", "disk16 slot out of range"),
        ("cdrom9", "/x", "cdrom9 slot out of range"),
        ("ppt8", "on", "ppt8 slot out of range"),
        ("ppt1", "slot8", "ppt slot 8 out of range (0-7)"),
        ("virtfs0", "a", "Bad virtfs specification: a"),
        ("virtfs0", "a,/a,rw", "Unknown virtfs attribute rw"),
        ("extra", "'a", "ValueError: No closing quotation"),
    ] {
        assert_eq!(refused(&[(name, value)]), text);
    }
    assert_eq!(
        refused(&[("disk1", "/a"), ("disk01", "/b")]),
        "disk1 appears more than once in configuration"
    );
    assert_eq!(
        refused(&[("ppt0", "slot1"), ("ppt1", "slot1")]),
        "ppt slot 1 appears more than once"
    );
    assert_eq!(
        refused(&[("vnc", "on"), ("xhci", "maybe")]),
        "Invalid value maybe for boolean variable xhci"
    );
    for (ram, text) in [
        ("2GB", "Could not parse ram value \"2GB\""),
        ("2x", "Unknown RAM suffix, x"),
        ("2048", "NameError: name 'MiB' is not defined"),
    ] {
        assert_eq!(refused(&[("memreserve", "on"), ("ram", ram)]), text);
        made(&[("ram", ram)]).unwrap();
    }
    // What bhyve makes of it.
    for (attrs, text) in [
        (
            &[("diskif", "floppy"), ("bootdisk", "/a")][..],
            "pci slot 0:4:0: unknown device \"floppy\"",
        ),
        (
            &[("extra", "-s 10:0,virtio-rnd"), ("rng", "on")],
            "pci slot 0:10:0 already occupied!",
        ),
    ] {
        let said = made(attrs).unwrap().check().unwrap_err();
        assert_eq!(said, format!("Could not parse configuration: {text}\n"));
    }
    // Firmware that is named with its folder is bhyve's to find.
    made(&[("bootrom", "/tmp/none.fd")]).unwrap();
}

#[test]
fn processors_are_counted_in_several_ways() {
    let vcpus = |text: &str| made(&[("vcpus", text)]).unwrap().cpus();
    assert_eq!(vcpus("cpus=4,sockets=1,cores=4,threads=1"), Ok(4));
    assert!(vcpus("cpus=4,sockets=1,cores=3").is_err());
    assert!(vcpus("33").is_err() && vcpus("two").is_err());
}
