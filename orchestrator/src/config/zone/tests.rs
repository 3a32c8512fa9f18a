use proptest::prelude::*;

use crate::{
    config::tests::{parse, problems},
    machine::zone::life::plan::{MachinePlan, Wanted, example},
    model::{
        ids::AttemptId,
        illumos::network::Slot,
        names::{Label, MachineName},
    },
};

/// A zone host's configuration with these lines.
fn host(lines: &str) -> String {
    format!("node: n\nbackend: zone\n{lines}")
}

/// What is wrong with them, each at the line that it stands on.
fn wrong(lines: &str, at: &str, words: &str) {
    let found = problems(&host(lines));
    let fits = |problem: &String| problem.starts_with(at) && problem.contains(words);
    assert!(found.iter().any(fits), "{lines}: {at} {words}: {found:#?}");
}

#[test]
fn what_illumos_would_refuse_later_is_refused_at_its_place() {
    // A link of less would be unlimited.
    wrong("zone: {bandwidth: 1199K}", "3:19", "at least 1200K");
    wrong("zone: {bandwidth: 1M}", "3:19", "at least 1200K");
    wrong(
        "zone: {network: 010.77.0.0/16}",
        "3:17",
        "cannot be the machines' network",
    );
    wrong("zone: {network: 10.77.0.0}", "3:17", "cannot be the machines' network");
    wrong("zone: {max_vcpus: 0}", "3:19", "cannot be 0");
    wrong("trusted_proxies: [010.0.0.0/8]", "3:19", "trusted_proxies");
    wrong("zone: {dataset: \"rpool/a:b\"}", "3:17", "zone.dataset is of no use");
    wrong(
        &format!("zone: {{dataset: rpool/{}}}", "a".repeat(170)),
        "3:17",
        "zone.dataset is of no use",
    );
    wrong(
        &format!("zone: {{dataset: r{}}}", "/a".repeat(48)),
        "3:17",
        "zone.dataset is of no use",
    );
    wrong(
        &format!("zone: {{path: /zones/{}}}", "a".repeat(220)),
        "3:14",
        "zone.path is of no use",
    );
}

#[test]
fn machines_do_not_lie_among_what_is_the_systems() {
    for system in [
        "/etc",
        "/dev",
        "/dev/zvol",
        "/usr/local/hci",
        "/var/run/hci",
        "/proc/1",
        "/devices",
    ] {
        wrong(&format!("zone: {{path: {system}}}"), "3:14", "is the system's own");
    }
    wrong("zone: {path: /tmp/hci}", "3:14", "does not outlive a reboot");
    for shared in ["/opt", "/var", "/export/home", "/zones"] {
        wrong(&format!("zone: {{path: {shared}}}"), "3:14", "would hide them");
    }
    for (path, data) in [("/data/zones", "/data"), ("/data", "/data/ci")] {
        let lines = format!("data_dir: {data}\nzone: {{path: {path}}}");
        wrong(&lines, "4:14", "lie within each other");
    }
    for good in ["/zones/hci", "/var/hci", "/export/hci", "/devs", "/tank/hci"] {
        parse(&host(&format!("zone: {{path: {good}}}"))).unwrap();
    }
}

#[test]
fn no_machine_has_more_processors_than_bhyve_gives_it() {
    let sizes = "sizes: {huge: {cpus: 33}}";
    wrong(sizes, "3:15", "sizes.huge has 33 processors, and bhyve takes 32 here");
    wrong("images: {a: {size: {cpus: 40}}}", "3:20", "bhyve takes 32 here");
    wrong(
        "zone: {max_vcpus: 2}\nimages: {a: {size: large}}",
        "4:20",
        "bhyve takes 2 here",
    );
    // Whatever else is wrong with the section.
    wrong(
        &format!("zone: {{bandwidth: 1M}}\n{sizes}"),
        "4:15",
        "bhyve takes 32 here",
    );
    parse(&host(&format!("zone: {{max_vcpus: 64}}\n{sizes}"))).unwrap();
    parse(&format!("node: n\nbackend: qemu\n{sizes}")).unwrap();
}

#[test]
fn attributes_without_effect_are_said_at_their_place() {
    wrong(
        "images: {a: {attributes: {bootorder: bootdisk}}}",
        "3:27",
        "has no effect",
    );
    wrong(
        "images: {a: {attributes: {xhci: \"on\"}}}",
        "3:27",
        "beside a screen only",
    );
    wrong(
        "images: {a: {kind: linux-bios, attributes: {uefivars: \"on\"}}}",
        "3:45",
        "keeps no variables",
    );
    let loaded = parse(&host("images: {a: {attributes: {bootdiskif: nvme}}}")).unwrap();
    let warned = loaded.warnings.iter().map(ToString::to_string);
    let warned: Vec<String> = warned.filter(|warning| warning.contains("bootdiskif")).collect();
    assert!(warned[0].contains("no effect before release r151059"), "{warned:?}");
}

proptest! {
    /// What `config check` lets pass, no plan refuses, whatever the machine, the version and the slot.
    #[test]
    fn a_checked_configuration_has_a_plan(
        dataset in "[a-z]{1,9}(/[a-z:.]{1,40}){0,6}|r(/a){30,50}|r/[a-z]{120,190}",
        path in "/[a-z]{1,9}(/[a-z]{1,60}){1,5}|/z/[a-z]{190,250}",
        label in "[a-z]([a-z0-9-]{0,60}[a-z0-9])?",
        slot in 0u32..16384,
        version in 1u32..,
    ) {
        let text = host(&format!("zone: {{dataset: \"{dataset}\", path: \"{path}\"}}\nimages: {{{label}: {{}}}}"));
        if let Ok(loaded) = parse(&text) {
            let label: Label = label.parse().unwrap();
            let image = &loaded.config.images[&label];
            let name = MachineName::of(AttemptId::new());
            let spec = example(&loaded.config.node, &label, name, image.size);
            let slot = Slot::new(slot).unwrap();
            let plan = MachinePlan::new(Wanted { spec: &spec, image, version, slot, zone: &loaded.config.zone });
            prop_assert!(plan.is_ok(), "{:?}", plan.err());
        }
    }
}
