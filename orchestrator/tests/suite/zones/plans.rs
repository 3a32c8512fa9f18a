//! What `machine plan` says bhyve will get, beside what the brand makes of the same configuration: the simulated one,
//! which is held to the real one's command lines (illumos-sim/tests/suite/brand_conformance.rs).

use std::path::Path;

use helios_ci::{
    config::{Config, LoadOptions},
    machine::zone::life::plan::{MachinePlan, Wanted, example},
    model::{
        ids::AttemptId,
        illumos::{network::Slot, release::Release},
        names::MachineName,
    },
};
use illumos_sim::{Ended, Sim, boot::brand, zonecfg};
use proptest::prelude::*;

/// Lines of `attributes` that `config check` may let pass, alone or beside others.
const ATTRIBUTES: &[&str] = &[
    "bootdiskif: nvme",
    "bootorder: \"bootdisk,net0=pxe,shell\"",
    "bootrom: BHYVE_RELEASE",
    "bootrom: BHYVE_CSM",
    "diskif: ahci",
    "diskif: nvme",
    "hostbridge: none",
    "hostbridge: q35",
    "netif: e1000",
    "netif: virtio",
    "rng: \"no\"",
    "type: openbsd",
    "type: windows",
    "uefivars: \"on\"",
    "uefivars: \"0\"",
];

/// An image that was checked, with these attributes; none where they do not go together.
fn configured(kind: &str, attributes: &[&str], cpus: u32) -> Option<Config> {
    let text = format!(
        "node: n1\nbackend: zone\nimages: {{debian: {{kind: {kind}, size: {{cpus: {cpus}, memory_mib: 1024}}, attributes: {{{}}}}}}}\n",
        attributes.join(", ")
    );
    let loaded = Config::parse(Path::new("config.yaml"), &text, LoadOptions { dev_env_secrets: false });
    Some(loaded.ok()?.config)
}

/// bhyve's options with their values, each as `machine plan` writes it.
fn options(argv: &[String]) -> Vec<String> {
    let mut options = Vec::new();
    let mut words = argv.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "-s" | "-l" | "-c" | "-m" => options.push(format!("{word} {}", words.next().expect("a value"))),
            "-w" => options.push(word.clone()),
            _ => {}
        }
    }
    options
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn the_brand_makes_what_was_planned(
        kind in prop::sample::select(&["linux-uefi", "linux-bios", "illumos"][..]),
        attributes in prop::sample::subsequence(ATTRIBUTES, 0..4),
        release in prop::sample::select(&["r151054", "r151058", "r151060", "master"][..]),
        cpus in 1u32..=32,
        slot in 0u32..16384,
    ) {
        let Some(config) = configured(kind, &attributes, cpus) else { return Ok(()) };
        let (label, image) = config.images.first_key_value().unwrap();
        let name = MachineName::of(AttemptId::new());
        let spec = example(&config.node, label, name.clone(), image.size);
        let slot = Slot::new(slot).unwrap();
        let plan = MachinePlan::new(Wanted { spec: &spec, image, version: 1, slot, zone: &config.zone }).unwrap();

        let dir = tempfile::tempdir().unwrap();
        let sim = Sim::create(&dir.path().join("host")).unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, plan.config.to_file()).unwrap();
        let out = sim.run("zonecfg", &["-z", name.as_str(), "-f", file.to_str().unwrap()]).unwrap();
        prop_assert!(matches!(&out, Ended::Exit(out) if out.code == 0), "{:?}\n{}", out, plan.config.to_file());
        let made = sim.mutate(|host| {
            host.state.version = format!("omnios-{release}-0123456789");
            let config = zonecfg::load(host, name.as_str()).unwrap().unwrap();
            brand::machine(host, &config).map(|machine| machine.argv())
        });
        let made = options(&made.unwrap().unwrap());
        prop_assert_eq!(plan.devices(release.parse::<Release>().unwrap()), made);
    }
}

/// Attributes that go together are many of those that are tried above.
#[test]
fn attributes_pass_the_check_alone() {
    let passes = |attribute: &&&str| configured("linux-uefi", &[attribute], 1).is_some();
    let refused: Vec<_> = ATTRIBUTES.iter().filter(|attribute| !passes(attribute)).collect();
    assert_eq!(
        refused,
        [&"bootorder: \"bootdisk,net0=pxe,shell\""],
        "it needs variables"
    );
}
