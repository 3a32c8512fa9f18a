//! The model of one host: everything that is not a file. Zone configurations are files below the fake
//! root, as on the real thing.

mod net;
mod real;
mod storage;
mod zones;

use std::collections::BTreeMap;

pub use net::{Address, Filter, Interface, Link, LinkClass};
pub use real::Real;
pub use storage::{Dataset, Kind, Pool, now};
pub use zones::{KernelZone, Pending, ZoneState};

use serde::{Deserialize, Serialize};

/// The packet filter's service.
pub const FIREWALL: &str = "svc:/network/ipfilter:default";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// What `uname -v` says.
    pub version: String,
    /// What `uname -n` says.
    pub hostname: String,
    /// Storage pools by name.
    pub pools: BTreeMap<String, Pool>,
    /// Datasets and snapshots by full name.
    pub datasets: BTreeMap<String, Dataset>,
    /// The last number given to anything: guids, zone ids, debug ids.
    pub serial: u64,
    pub links: BTreeMap<String, Link>,
    /// IP interfaces by name.
    pub interfaces: BTreeMap<String, Interface>,
    /// `forwarding` of IPv4 for the whole host.
    pub forwarding: bool,
    /// Zones that the kernel knows, by name.
    pub zones: BTreeMap<String, KernelZone>,
    /// Debug ids by zone name: given at install.
    pub debug_ids: BTreeMap<String, u64>,
    /// Processes that hang while they hold a zone's lock.
    #[serde(default)]
    pub locks: BTreeMap<String, u32>,
    /// What zoneadmd does by itself, its client being gone.
    #[serde(default)]
    pub pending: Vec<Pending>,
    /// Virtual machines that vmm holds: `/dev/vmm/NAME`.
    pub vms: Vec<String>,
    pub filter: Filter,
    /// States of services by FMRI.
    pub services: BTreeMap<String, String>,
    /// Properties of services: FMRI, then `group/name`.
    pub service_props: BTreeMap<String, BTreeMap<String, String>>,
    /// What svccfg has set and no refresh has made effective.
    #[serde(default)]
    pub service_edits: BTreeMap<String, BTreeMap<String, String>>,
    /// Guests and their network are real, not modelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub real: Option<Real>,
}

impl State {
    /// A host as it is after installation: one pool, one network card, loopback.
    #[must_use]
    pub fn fresh() -> Self {
        let mut state = Self {
            version: "omnios-r151054-sim".into(),
            hostname: "simhost".into(),
            pools: BTreeMap::new(),
            datasets: BTreeMap::new(),
            serial: 0,
            links: BTreeMap::new(),
            interfaces: BTreeMap::new(),
            forwarding: false,
            zones: BTreeMap::new(),
            debug_ids: BTreeMap::new(),
            locks: BTreeMap::new(),
            pending: Vec::new(),
            vms: Vec::new(),
            filter: Filter::default(),
            services: BTreeMap::new(),
            service_props: BTreeMap::new(),
            service_edits: BTreeMap::new(),
            real: None,
        };
        state.pools.insert(
            "rpool".into(),
            Pool {
                size: 200 << 30,
                health: "ONLINE".into(),
            },
        );
        let guid = state.take_number();
        state.datasets.insert(
            "rpool".into(),
            Dataset {
                mounted: true,
                ..Dataset::new(Kind::Filesystem, guid)
            },
        );
        state.plug();
        for (fmri, is) in [
            ("svc:/system/zones:default", "online"),
            (FIREWALL, "online"),
            ("svc:/milestone/network:default", "online"),
            ("svc:/system/filesystem/local:default", "online"),
            ("svc:/system/manifest-import:default", "online"),
            ("svc:/system/rbac:default", "online"),
            ("svc:/system/logadm-upgrade:default", "online"),
        ] {
            state.services.insert(fmri.into(), is.into());
        }
        // As an administrator sets them who keeps rules in that file.
        for (name, value) in [("policy", "custom"), ("custom_policy_file", "/etc/ipf/ipf.conf")] {
            let props = state.service_props.entry(FIREWALL.into()).or_default();
            props.insert(format!("firewall_config_default/{name}"), value.into());
        }
        state
    }

    pub fn take_number(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// The MTU of a link: its own value, else that of its class.
    #[must_use]
    pub fn mtu(&self, name: &str) -> u32 {
        let Some(link) = self.links.get(name) else {
            return 0;
        };
        if let Some(mtu) = link.prop("mtu").first().and_then(|value| value.parse().ok()) {
            return mtu;
        }
        match (link.class, &link.over) {
            (LinkClass::Etherstub, _) => 9000,
            (LinkClass::Vnic, Some(over)) => self.mtu(over),
            _ => 1500,
        }
    }

    /// What the hardware has at power-on: one network card, loopback.
    fn plug(&mut self) {
        self.links
            .insert("ixgbe0".into(), Link::new(LinkClass::Phys, "90:e2:ba:11:22:33"));
        let mut loopback = Interface::default();
        loopback
            .addresses
            .insert("lo0/v4".into(), Address::fixed("127.0.0.1/8"));
        self.interfaces.insert("lo0".into(), loopback);
    }

    /// What a power cycle leaves: persistent links and addresses, datasets, services. Everything that
    /// the kernel or `/var/run` held is gone.
    pub fn power_cycle(&mut self) {
        self.zones.clear();
        self.vms.clear();
        self.locks.clear();
        self.pending.clear();
        self.links
            .retain(|_, link| !link.temporary && link.class != LinkClass::Phys);
        for link in self.links.values_mut() {
            link.zone = None;
            link.props = link.stored.clone();
        }
        for interface in self.interfaces.values_mut() {
            interface.addresses.retain(|_, address| !address.temporary);
            interface.forwarding = false;
        }
        let links: Vec<String> = self.links.keys().cloned().collect();
        self.interfaces
            .retain(|name, interface| !interface.temporary && links.contains(name));
        for dataset in self.datasets.values_mut() {
            dataset.busy = 0;
        }
        self.forwarding = false;
        self.filter = Filter::default();
        self.plug();
    }
}
