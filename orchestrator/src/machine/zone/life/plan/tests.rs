use proptest::prelude::*;

use super::*;
use crate::model::illumos::network::Range;

fn zone() -> Zone {
    Zone {
        dataset: "rpool/hci".parse().unwrap(),
        path: "/zones/hci".parse().unwrap(),
        network: Range::default(),
        port: 9417,
        bandwidth: "1G".parse().unwrap(),
        quota_gib: None,
        max_vcpus: 32,
    }
}

fn image(kind: GuestKind, attributes: &[(&str, &str)]) -> Image {
    Image {
        kind,
        attributes: attributes
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect(),
        ..Image::default()
    }
}

fn spec(disk_gib: Option<u64>) -> MachineSpec {
    let size = Size {
        cpus: 4,
        memory_mib: 4096,
        disk_gib,
    };
    example(
        &"n1".parse().unwrap(),
        &"debian-12".parse().unwrap(),
        "hci-01k9zk6x0f5t3b8w2q7m4d1c0e".parse().unwrap(),
        size,
    )
}

fn planned(image: &Image, disk_gib: Option<u64>) -> MachinePlan {
    MachinePlan::new(Wanted {
        spec: &spec(disk_gib),
        image,
        version: 3,
        slot: Slot::new(7).unwrap(),
        zone: &zone(),
    })
    .unwrap()
}

/// Z stands for the zone, whose name makes the lines long.
fn shown<'a>(commands: impl Iterator<Item = &'a Cmd>) -> String {
    let lines: Vec<String> = commands
        .map(|command| {
            command
                .to_string()
                .replace("hci-01k9zk6x0f5t3b8w2q7m4d1c0e", "Z")
                .replace("01k9zk6x0f5t3b8w2q7m4d1c0e", "ULID")
        })
        .collect();
    lines.join("\n")
}

#[test]
fn the_commands_of_one_attempt() {
    let plan = planned(&image(GuestKind::LinuxUefi, &[]), Some(40));
    insta::assert_snapshot!(shown(plan.create().iter().map(|step| &step.command)));
    insta::assert_snapshot!(shown(plan.destroy().iter()));
}

#[test]
fn the_budget_of_processes_holds() {
    let plan = planned(&image(GuestKind::LinuxUefi, &[]), Some(40));
    let acting = |chain: Chain| {
        let steps = plan.create().iter().filter(move |step| step.chain == chain);
        steps
            .filter(|step| !step.command.to_string().contains(" show-"))
            .count()
    };
    // The two VNICs, and their two properties, are set side by side.
    let longest = acting(Chain::Disk)
        .max(acting(Chain::Zone))
        .max(acting(Chain::Network) - 2);
    assert!(
        longest + acting(Chain::Join) <= 7,
        "{longest} and {}",
        acting(Chain::Join)
    );
    let all = [Chain::Disk, Chain::Zone, Chain::Network, Chain::Join]
        .map(acting)
        .iter()
        .sum::<usize>();
    assert!(
        all <= 16 && plan.destroy().len() <= 14,
        "{all} and {}",
        plan.destroy().len()
    );
}

#[test]
fn a_disk_is_grown_only_when_it_is_asked_for() {
    let image = image(GuestKind::LinuxUefi, &[]);
    let volsize = |plan: &MachinePlan| shown(plan.create().iter().map(|step| &step.command)).contains("volsize=");
    assert!(volsize(&planned(&image, Some(40))) && !volsize(&planned(&image, None)));
}

#[test]
fn zones_of_every_kind_of_image() {
    for (name, kind) in [
        ("linux_uefi", GuestKind::LinuxUefi),
        ("linux_bios", GuestKind::LinuxBios),
        ("illumos", GuestKind::Illumos),
    ] {
        let plan = planned(&image(kind, &[]), None);
        let text = format!(
            "{}\n{}",
            plan.config.to_file(),
            plan.devices(Release::OLDEST).join("\n")
        );
        insta::assert_snapshot!(name, text.replace("hci-01k9zk6x0f5t3b8w2q7m4d1c0e", "Z"));
    }
}

#[test]
fn an_images_attributes_replace_ours() {
    let plan = planned(
        &image(
            GuestKind::LinuxUefi,
            &[("rng", "off"), ("netif", "e1000"), ("diskif", "nvme")],
        ),
        None,
    );
    let devices = plan.devices(Release::OLDEST).join("\n");
    assert!(
        devices.contains("-s 4:0,nvme,") && devices.contains("-s 6:0,e1000,hciv7"),
        "{devices}"
    );
    // The seed stays what every kernel reads.
    assert!(devices.contains("-s 5:0,virtio-blk,/seed.img,ro"), "{devices}");
    assert!(!devices.contains("virtio-rnd"), "{devices}");
    let file = plan.config.to_file();
    assert_eq!(file.matches("set name=rng\n").count(), 1, "{file}");
}

#[test]
fn an_attribute_works_from_its_release_on() {
    let plan = planned(
        &image(GuestKind::LinuxUefi, &[("diskif", "ahci"), ("bootdiskif", "nvme")]),
        None,
    );
    let devices = |release| plan.devices(release).join("\n");
    assert!(devices(Release::OLDEST).contains("-s 4:0,ahci-hd,"));
    assert!(devices(Release::MASTER).contains("-s 4:0,nvme,"));
    assert_eq!(
        plan.ignored(Release::OLDEST),
        [("bootdiskif".to_owned(), Release::AFTER_R151058)]
    );
    assert_eq!(plan.ignored(Release::MASTER), []);
}

#[test]
fn guests_of_other_kinds_get_what_the_brand_gives_them() {
    let devices = |kind, attributes: &[(&str, &str)]| {
        let plan = planned(&image(kind, attributes), None);
        plan.devices(Release::OLDEST).join("\n")
    };
    let windows = devices(GuestKind::LinuxUefi, &[("type", "windows")]);
    assert!(
        windows.contains("-s 31,lpc") && !windows.contains("-s 1,lpc"),
        "{windows}"
    );
    assert!(devices(GuestKind::LinuxUefi, &[("type", "openbsd")]).starts_with("-w\n"));
    let bridge = devices(GuestKind::LinuxUefi, &[("hostbridge", "none")]);
    assert!(!bridge.contains("hostbridge"), "{bridge}");
    // A firmware that keeps variables, whatever the image's kind says.
    let firmware = [("bootrom", "BHYVE_RELEASE")];
    assert!(!devices(GuestKind::LinuxBios, &firmware).contains("uefivars"));
    let kept = devices(GuestKind::LinuxBios, &[firmware[0], ("uefivars", "on")]);
    assert!(kept.contains("BHYVE_RELEASE.fd,/etc/uefivars"), "{kept}");
}

#[test]
fn zonecfg_and_bhyve_take_the_numbers() {
    let lwps = |cpus: u32| {
        let (mut spec, mut zone) = (spec(None), zone());
        (spec.cpus, zone.max_vcpus) = (cpus, 64);
        let image = image(GuestKind::LinuxUefi, &[]);
        let wanted = Wanted {
            spec: &spec,
            image: &image,
            version: 1,
            slot: Slot::new(0).unwrap(),
            zone: &zone,
        };
        MachinePlan::new(wanted).map(|plan| plan.config.max_lwps)
    };
    assert_eq!([1, 36, 37, 64].map(|cpus| lwps(cpus).unwrap()), [100, 100, 101, 128]);
    assert!(lwps(65).unwrap_err().to_string().contains("zone.max_vcpus"));
}

#[test]
fn a_network_that_is_too_small_is_named() {
    let mut zone = zone();
    zone.network = "10.77.0.0/30".parse().unwrap();
    let error = MachinePlan::new(Wanted {
        spec: &spec(None),
        image: &image(GuestKind::LinuxUefi, &[]),
        version: 1,
        slot: Slot::new(1).unwrap(),
        zone: &zone,
    });
    assert!(error.unwrap_err().to_string().contains("zone.network"));
}

#[test]
fn the_seed_says_where_and_hides_the_token() {
    let plan = planned(&image(GuestKind::LinuxUefi, &[]), None);
    let text = |name: &str| plan.seed.iter().find(|(known, _)| *known == name).unwrap().1.clone();
    let helios: serde_json::Value = serde_json::from_str(&text("helios.json")).unwrap();
    assert_eq!(helios["agent"], "tcp:10.77.0.29:9417");
    assert_eq!(helios["git"], "10.77.0.29:9418");
    assert_eq!(helios["token"], "[secret]");
    assert!(text("network-config").contains("10.77.0.30/30"));
}

proptest! {
    /// Whatever is configured, a plan has the same words in the same places.
    #[test]
    fn no_value_adds_a_word(
        slot in 0u32..16384,
        node in "[a-z][a-z0-9-]{0,20}[a-z0-9]",
        cpus in 1u32..=32,
        memory in 64u64..1_000_000,
        value in "[ -~]{1,40}",
    ) {
        let mut image = image(GuestKind::Illumos, &[]);
        if let Ok(value) = value.parse() {
            image.attributes.insert("type".parse().unwrap(), value);
        }
        let mut spec = spec(None);
        (spec.cpus, spec.memory_mib, spec.node) = (cpus, memory, node.parse().unwrap());
        let zone = zone();
        let wanted = Wanted { spec: &spec, image: &image, version: 1, slot: Slot::new(slot).unwrap(), zone: &zone };
        let plan = MachinePlan::new(wanted).unwrap();
        prop_assert_eq!(plan.create().len(), 14);
        for step in plan.create() {
            prop_assert!(!step.command.to_string().contains('\''), "a word needs quotes: {}", step.command);
        }
        prop_assert_eq!(plan.config.to_file().lines().filter(|line| line.starts_with("add ")).count(), 2 + plan.config.attrs.len());
    }
}
