//! What the host must look like once helios-ci has said how a call ended. Everything is read from the model and the
//! host's files, without running a program: looking counts as no call, and meets no fault.

use std::{collections::BTreeMap, io::Read, net::Ipv4Addr, os::unix::fs::PermissionsExt, path::Path, sync::OnceLock};

use helios_ci::{
    machine::{
        Endpoints, ListenAt, MachineError, MachineSpec,
        zone::life::plan::{MachinePlan, Wanted},
    },
    model::illumos::network::Slot,
};
use illumos_sim::{
    Sim, program,
    state::{Dataset, Kind, LinkClass, ZoneState},
    zonecfg::{self, Config, index, session},
};

use super::simulated_host::{self, host};

/// The machines' network of these tests begins here.
const BASE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 0);

/// The plan of the machine that was given these addresses.
fn plan(spec: &MachineSpec, endpoints: &Endpoints) -> (u32, MachinePlan) {
    let ListenAt::Slot { address, guest } = endpoints.agent else {
        panic!("{endpoints:?}")
    };
    let std::net::IpAddr::V4(at) = address.ip() else {
        panic!("{address}")
    };
    let slot = (u32::from(at) - u32::from(BASE)) / 4;
    assert_eq!(u32::from(at), u32::from(BASE) + 4 * slot + 1);
    assert_eq!(guest, Ipv4Addr::from(u32::from(at) + 1));
    let plan = MachinePlan::new(Wanted {
        spec,
        image: &simulated_host::image(),
        version: 1,
        slot: Slot::new(slot).expect("a slot"),
        zone: &simulated_host::zone(),
    });
    (slot, plan.expect("a plan"))
}

/// What the simulated zonecfg makes of the planned file on a host where nothing else is.
fn as_planned(plan: &MachinePlan) -> Config {
    static APART: OnceLock<Sim> = OnceLock::new();
    let name = plan.config.name.as_str();
    let apart = APART.get_or_init(|| Sim::create(Path::new("/run/apart")).expect("a host"));
    let read = apart.mutate(|host| {
        let file = session::Source::File("the plan".to_owned());
        let said = session::run(host, name, &plan.config.to_file(), &file);
        assert!(said.as_ref().is_ok_and(|out| out.code == 0), "{said:?}");
        zonecfg::load(host, name)
    });
    read.expect("a host").expect("a file").expect("a configuration")
}

fn is_marked(dataset: &Dataset, spec: &MachineSpec, others: &[(&str, &str)], what: &str) {
    let attempt = spec.name.attempt().to_string();
    for (property, value) in [("helios-ci:node", "n1"), ("helios-ci:attempt", attempt.as_str())]
        .iter()
        .chain(others)
    {
        let is = dataset.local.get(*property).map(String::as_str);
        assert_eq!(is, Some(*value), "{what}: {property} of {dataset:?}");
    }
}

/// The files of a seed disk.
pub fn seed_files(image: &Path) -> BTreeMap<String, Vec<u8>> {
    let mode = std::fs::symlink_metadata(image).expect("a seed").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "only root reads a seed");
    let disk = std::io::Cursor::new(std::fs::read(image).expect("a seed"));
    let volume = fatfs::FileSystem::new(disk, fatfs::FsOptions::new()).expect("a FAT volume");
    assert_eq!(volume.volume_label(), "cidata");
    let mut files = BTreeMap::new();
    for entry in volume.root_dir().iter() {
        let entry = entry.expect("an entry");
        let mut bytes = Vec::new();
        entry.to_file().read_to_end(&mut bytes).expect("a file");
        files.insert(entry.file_name(), bytes);
    }
    files
}

/// What `prepare` promised is there, whatever happened on the way: the disk, the zone, the seed, the network.
pub fn prepared(spec: &MachineSpec, endpoints: &Endpoints, what: &str) {
    let (slot, plan) = plan(spec, endpoints);
    let state = host().state().expect("a state");
    let name = spec.name.as_str();
    let disk = state.datasets.get(&format!("rpool/hci/machines/{name}"));
    let disk = disk.unwrap_or_else(|| panic!("{what}: no disk"));
    assert_eq!(
        (disk.kind, disk.origin.as_deref(), disk.volsize),
        (Kind::Volume, Some("rpool/hci/images/debian/v1@gold"), 1 << 30),
        "{what}"
    );
    is_marked(disk, spec, &[("sync", "disabled")], what);
    let zonepath = state.datasets.get(&format!("rpool/hci/zones/{name}"));
    let zonepath = zonepath.unwrap_or_else(|| panic!("{what}: no zone's filesystem"));
    assert!(
        zonepath.mounted && zonepath.kind == Kind::Filesystem,
        "{what}: {zonepath:?}"
    );
    let off = [("sharenfs", "off"), ("sharesmb", "off"), ("quota", "256m")];
    is_marked(zonepath, spec, &off, what);

    let (entry, config) = host()
        .mutate(|host| (index::find(host, name), zonecfg::load(host, name)))
        .expect("a host");
    let entry = entry.expect("an index").unwrap_or_else(|| panic!("{what}: no zone"));
    let path = format!("/mnt/hci/{name}");
    assert_eq!((entry.state, &entry.zonepath), (ZoneState::Installed, &path), "{what}");
    let config = config.expect("a file");
    assert_eq!(config.as_ref(), Some(&as_planned(&plan)), "{what}");
    assert!(!plan.config_file.exists(), "{what}: zonecfg's file stays");
    let root = Path::new(&path).join("root");
    let zone_env = std::fs::read_to_string(root.join("etc/bhyve.env")).ok();
    assert_eq!(zone_env.as_deref(), Some("TZ=UTC\n"), "{what}");
    let seed = root.join("seed.img");
    assert!(seed.exists(), "{what}: no seed");
    let planned = plan.seed.iter().map(|(name, text)| (*name, text.as_str()));
    seed_as_planned(seed_files(&seed), planned, spec.seed.token.expose(), what);
    network_is_there(slot, &plan, what);
}

/// A seed has the agent and what was planned. What is shown has no token; all else is the same.
pub fn seed_as_planned<'p>(
    mut files: BTreeMap<String, Vec<u8>>,
    planned: impl IntoIterator<Item = (&'p str, &'p str)>,
    token: &str,
    what: &str,
) {
    assert_eq!(files.remove("agent").as_deref(), Some(&b"agent"[..]), "{what}");
    let planned: BTreeMap<&str, &str> = planned.into_iter().collect();
    assert!(files.keys().eq(planned.keys()), "{what}: {files:?} {planned:?}");
    for (name, bytes) in files {
        let (text, shown) = (String::from_utf8(bytes).expect("text"), planned[name.as_str()]);
        assert!(!shown.contains(token), "{what}: {shown}");
        if name == "helios.json" {
            let mut real: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            assert_eq!(real["token"], token, "{what}");
            real["token"] = "[secret]".into();
            let shown: serde_json::Value = serde_json::from_str(shown).expect("JSON");
            assert_eq!(real, shown, "{what}");
        } else {
            assert_eq!(text, shown, "{what}: {name}");
        }
    }
}

fn network_is_there(slot: u32, plan: &MachinePlan, what: &str) {
    let state = host().state().expect("a state");
    let [stub, host, guest] = ["hcis", "hcih", "hciv"].map(|kind| format!("{kind}{slot}"));
    let link = |name: &str| state.links.get(name).unwrap_or_else(|| panic!("{what}: no {name}"));
    assert_eq!(link(&stub).class, LinkClass::Etherstub, "{what}");
    for (name, mac) in [(&host, plan.network.host_mac), (&guest, plan.network.guest_mac)] {
        let vnic = link(name);
        assert_eq!(
            (vnic.class, vnic.over.as_deref(), &vnic.mac),
            (LinkClass::Vnic, Some(stub.as_str()), &mac.to_string()),
            "{what}"
        );
        assert_eq!(vnic.prop("mtu"), ["1500"], "{what}: {name}");
    }
    for name in [&stub, &host, &guest] {
        assert!(link(name).temporary, "{what}: {name} outlives the boot");
    }
    is_protected(slot, what);
    let at = Ipv4Addr::from(u32::from(BASE) + 4 * slot + 1);
    let interface = state.interfaces.get(&host);
    let interface = interface.unwrap_or_else(|| panic!("{what}: no interface {host}"));
    let address = interface.addresses.get(&format!("{host}/v4"));
    let address = address.unwrap_or_else(|| panic!("{what}: no address on {host}"));
    assert_eq!(
        (address.addr.as_str(), address.state.as_str(), address.temporary),
        (format!("{at}/30").as_str(), "ok", true),
        "{what}"
    );
    assert!(!interface.forwarding, "{what}: {host} forwards");
}

/// The guest's link is held to its own address, and the packet filter holds all guests back.
fn is_protected(slot: u32, what: &str) {
    let state = host().state().expect("a state");
    let link = &state.links[&format!("hciv{slot}")];
    let mut protection = link.prop("protection").to_vec();
    protection.sort();
    assert_eq!(
        protection,
        ["dhcp-nospoof", "ip-nospoof", "mac-nospoof", "restricted"],
        "{what}"
    );
    let guest = Ipv4Addr::from(u32::from(BASE) + 4 * slot + 2);
    assert_eq!(link.prop("allowed-ips"), [format!("{guest}/32")], "{what}");
    assert_eq!(link.prop("maxbw").len(), 1, "{what}");
    let rules: Vec<&str> = state.filter.rules.iter().map(String::as_str).collect();
    let pass = |port: u16| {
        format!("pass in quick proto tcp from 10.77.0.0/16 to 10.77.0.0/16 port = {port} flags S/FSRPAU keep state")
    };
    assert!(!state.filter.disabled, "{what}: the filter is off");
    assert_eq!(
        rules,
        [&pass(9417), &pass(9418), "block in quick from 10.77.0.0/16 to any"],
        "{what}"
    );
}

/// What `start` promised: the zone runs, with its own disk and its own link, which is still held.
pub fn runs(spec: &MachineSpec, endpoints: &Endpoints, what: &str) {
    let (slot, _) = plan(spec, endpoints);
    let state = host().state().expect("a state");
    let name = spec.name.as_str();
    let zone = state
        .zones
        .get(name)
        .unwrap_or_else(|| panic!("{what}: it does not run"));
    assert_eq!((zone.state, zone.guest), (ZoneState::Running, true), "{what}");
    assert_eq!(zone.volumes, [format!("rpool/hci/machines/{name}")], "{what}");
    assert!(state.vms.iter().any(|vm| vm == name), "{what}: no virtual machine");
    let link = &state.links[&format!("hciv{slot}")];
    assert_eq!(link.zone.as_deref(), Some(name), "{what}");
    is_protected(slot, what);
}

/// What an error must be, after something of the host went wrong: another try may help, and a person is told which
/// command it was, or which thing.
pub fn refused(spec: &MachineSpec, error: &MachineError, what: &str) {
    assert!(error.retryable, "{what}: {error}");
    assert_eq!(error.machine, spec.name.as_str(), "{what}: {error}");
    let things = [spec.name.as_str(), "hcis", "hcih", "hciv"];
    let commands = program::NAMES.iter().map(|name| format!("/{name} "));
    let named = things.map(str::to_owned).into_iter().chain(commands);
    assert!(
        named.into_iter().any(|word| error.reason.contains(&word)),
        "{what}: {error}"
    );
}
