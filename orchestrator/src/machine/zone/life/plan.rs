//! Everything that one attempt does to an illumos host, as data: the commands in their order, the zone's
//! configuration, the devices that bhyve will have, what the seed says, and the teardown.

mod devices;

use std::path::PathBuf;

use crate::{
    config::{GuestKind, Image, Zone, brand_since},
    exec::Cmd,
    machine::{
        MachineSpec,
        seed::{self, Addresses, GUEST_STATE, StaticNetwork},
        zone::{
            command::{bhyvectl, dladm, ipadm, zfs, zoneadm, zonecfg},
            config::ZoneConfig,
            owned::Owned,
        },
    },
    model::{
        illumos::{
            names::{AttrName, AttrValue, Bandwidth, DatasetName, SnapshotName, Unfit, VolumeSize},
            network::{Slot, SlotNetwork},
            release::Release,
        },
        names::{Label, MachineName, NodeName},
        size::Size,
    },
};

/// Each virtual processor's part of the host's.
const SHARES_PER_CPU: u32 = 100;
/// What bhyve needs beside one light-weight process for each virtual processor.
const LWPS: u32 = 64;
/// zonecfg refuses less: `max-lwps property is out of range.` (the alias's range in libzonecfg).
const LEAST_LWPS: u32 = 100;
/// What the seed's disk is by default, and stays where an image sets `diskif` for its own.
const SEED_INTERFACE: &str = "virtio-blk";
/// The seed inside the zone, and its attribute.
const SEED: &str = "/seed.img,ro";
/// Where machined keeps what must not outlive a boot of the host; only root enters.
pub const RUN: &str = "/var/run/helios-ci";

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Something cannot stand in a command.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// The node's network is too small.
    #[error("slot {slot} has no addresses in {network}: enlarge `zone.network`, or lower `capacity.machines`")]
    NoAddress {
        /// The slot's number.
        slot: u32,
        /// The configured network.
        network: String,
    },
    /// bhyve would not start.
    #[error(
        "a machine of {cpus} virtual processors is more than `zone.max_vcpus`, which is {most}: ask for a smaller size, or \
         raise it where this host's bhyve takes more"
    )]
    TooManyProcessors {
        /// What is asked for.
        cpus: u32,
        /// The host's ceiling.
        most: u32,
    },
    /// The seed's texts.
    #[error("cannot write the seed's texts")]
    Seed(#[from] std::io::Error),
}

/// Which of the sequences that run side by side a command belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chain {
    /// The disk.
    Disk,
    /// The zone.
    Zone,
    /// The network.
    Network,
    /// After all of them.
    Join,
}

/// A command of the creation.
#[derive(Debug, Clone)]
pub struct Step {
    /// The chain that the step belongs to.
    pub chain: Chain,
    /// The command of the step.
    pub command: Cmd,
}

/// A machine on an illumos host.
#[derive(Debug, Clone)]
pub struct MachinePlan {
    /// The golden snapshot.
    pub origin: SnapshotName,
    /// The machine's disk.
    pub disk: DatasetName,
    /// The parent of all zones' filesystems.
    pub zones: DatasetName,
    /// The zone's own filesystem.
    pub zonepath: DatasetName,
    /// The zone.
    pub config: ZoneConfig,
    /// Where the zone's configuration lies while zonecfg reads it.
    pub config_file: PathBuf,
    /// Its slot's network.
    pub network: SlotNetwork,
    /// Names and texts of the seed's files; the agent's program is not among them.
    pub seed: Vec<(&'static str, String)>,
    /// What the seed says of the way to the node.
    pub addresses: Addresses,
    create: Vec<Step>,
    destroy: Vec<Cmd>,
}

/// What a plan is made of.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The machine.
    pub spec: &'a MachineSpec,
    /// Its image.
    pub image: &'a Image,
    /// The image's version on this host.
    pub version: u32,
    /// The slot that machined gave it: the number in its links and addresses.
    pub slot: Slot,
    /// The host.
    pub zone: &'a Zone,
}

impl MachinePlan {
    /// The plan of one attempt.
    ///
    /// # Errors
    /// When the network is too small for the slot, or a name is too long for illumos's tools.
    pub fn new(wanted: Wanted<'_>) -> Result<Self, PlanError> {
        let Wanted {
            spec,
            image,
            version,
            slot,
            zone,
        } = wanted;
        let name = &spec.name;
        if spec.cpus > zone.max_vcpus {
            return Err(PlanError::TooManyProcessors {
                cpus: spec.cpus,
                most: zone.max_vcpus,
            });
        }
        let network = SlotNetwork::of(&spec.node, zone.network, slot)?.ok_or_else(|| PlanError::NoAddress {
            slot: slot.number(),
            network: zone.network.to_string(),
        })?;
        let origin = golden(&zone.dataset, &spec.image, version)?;
        let disk = zone.dataset.child("machines")?.child(name.as_str())?;
        let zones = zone.dataset.child("zones")?;
        let zonepath = zones.child(name.as_str())?;
        let attributes = attributes(spec, image, &disk)?;
        let config = ZoneConfig {
            name: name.clone(),
            zonepath: format!("{}/{name}", zone.path).parse()?,
            vnic: network.guest.clone(),
            devices: vec![disk.device()?],
            cpu_shares: SHARES_PER_CPU.saturating_mul(spec.cpus),
            max_lwps: spec.cpus.saturating_add(LWPS).max(LEAST_LWPS),
            attrs: attributes,
        };
        let config_file = PathBuf::from(RUN).join(format!("{name}.zonecfg"));
        let addresses = addresses(&network, zone);
        let mut plan = Self {
            seed: seed::texts(spec, &addresses)?,
            addresses,
            origin,
            disk,
            zones,
            zonepath,
            config,
            config_file,
            network,
            create: Vec::new(),
            destroy: Vec::new(),
        };
        plan.create = plan.creation(spec, &zone.bandwidth);
        plan.destroy = plan.removal(name);
        Ok(plan)
    }

    fn creation(&self, spec: &MachineSpec, bandwidth: &Bandwidth) -> Vec<Step> {
        let (name, network) = (&spec.name, &self.network);
        let attempt = name.attempt();
        let step = |chain, command| Step { chain, command };
        let mut create = vec![step(
            Chain::Disk,
            zfs::clone(&self.origin, &self.disk, &spec.node, attempt),
        )];
        if let Some(gib) = spec.disk_gib {
            let size = VolumeSize::at_least(gib.saturating_mul(1 << 30));
            create.push(step(Chain::Disk, zfs::grow(&self.disk, size)));
        }
        create.extend([
            step(Chain::Zone, zfs::create_zonepath(&self.zonepath, &spec.node, attempt)),
            step(Chain::Zone, zonecfg::configure(name, &self.config_file)),
            step(Chain::Zone, zoneadm::install(name)),
            step(Chain::Network, dladm::create_stub(&network.stub)),
            step(
                Chain::Network,
                dladm::create_vnic(&network.stub, network.host_mac, &network.host),
            ),
            step(
                Chain::Network,
                dladm::create_vnic(&network.stub, network.guest_mac, &network.guest),
            ),
            step(Chain::Network, dladm::set_host(network)),
            step(Chain::Network, dladm::protect(network, bandwidth)),
            step(Chain::Network, ipadm::create_address(network)),
            step(Chain::Network, ipadm::forward_nothing(&network.host)),
            step(Chain::Join, dladm::show_protection(&network.guest)),
            step(Chain::Join, zoneadm::daemon(name)),
            step(Chain::Join, zoneadm::boot(name)),
        ]);
        create
    }

    fn removal(&self, name: &MachineName) -> Vec<Cmd> {
        let network = &self.network;
        // Only to be shown: a removal inspects first.
        let ours = Owned::assumed(name.clone());
        let [host, guest, stub] =
            [&network.host, &network.guest, &network.stub].map(|link| Owned::assumed(link.clone()));
        vec![
            bhyvectl::power_off(&ours),
            zoneadm::halt(&ours),
            zoneadm::uninstall(&ours),
            zonecfg::delete(&ours),
            ipadm::delete_address(&host),
            ipadm::delete_interface(&host),
            dladm::delete_vnic(&guest),
            dladm::delete_vnic(&host),
            dladm::delete_stub(&stub),
            zfs::destroy(&Owned::assumed(self.disk.clone())),
        ]
    }

    /// The creation, in an order that works one after the other; chains may run side by side.
    #[must_use]
    pub fn create(&self) -> &[Step] {
        &self.create
    }

    /// The removal, in its order.
    #[must_use]
    pub fn destroy(&self) -> &[Cmd] {
        &self.destroy
    }

    /// What the brand of a release makes of the configuration: bhyve's options for processors, memory, firmware,
    /// console and devices.
    #[must_use]
    pub fn devices(&self, release: Release) -> Vec<String> {
        devices::of(&self.config, release)
    }

    /// Attributes that the brand of a release ignores, with the first release that knows them.
    #[must_use]
    pub fn ignored(&self, release: Release) -> Vec<(String, Release)> {
        let names = self.config.attrs.iter().map(|(name, _)| name.to_string());
        names
            .filter_map(|name| Some((brand_since(&name)?, name)))
            .filter(|(since, _)| *since > release)
            .map(|(since, name)| (name, since))
            .collect()
    }
}

/// What the guest must know to find its node.
fn addresses(network: &SlotNetwork, zone: &Zone) -> Addresses {
    Addresses {
        agent: format!("tcp:{}:{}", network.host_address, zone.port),
        git: format!("{}:{}", network.host_address, zone.port.saturating_add(1)),
        state_dir: GUEST_STATE.into(),
        power_off: true,
        network: Some(StaticNetwork {
            mac: network.guest_mac,
            address: network.guest_address,
        }),
    }
}

/// The golden snapshot of an image's version.
///
/// # Errors
/// When the name is too long.
pub fn golden(root: &DatasetName, label: &Label, version: u32) -> Result<SnapshotName, Unfit> {
    root.child("images")?
        .child(label.as_str())?
        .child(&format!("v{version}"))?
        .snapshot("gold")
}

/// The zone's attributes: what an image sets replaces our defaults, everything else is ours.
fn attributes(spec: &MachineSpec, image: &Image, disk: &DatasetName) -> Result<Vec<(AttrName, AttrValue)>, Unfit> {
    let own = |name: &str| {
        let found = image.attributes.iter().find(|(known, _)| known.to_string() == name);
        found.map(|(_, value)| value.to_string())
    };
    let default = match image.kind {
        GuestKind::LinuxUefi | GuestKind::Illumos => "BHYVE_RELEASE",
        GuestKind::LinuxBios => "BHYVE_RELEASE_CSM",
    };
    let firmware = own("bootrom").unwrap_or_else(|| default.to_owned());
    let mut attributes: Vec<(AttrName, AttrValue)> = Vec::new();
    let mut set = |name: &str, value: &str| -> Result<(), Unfit> {
        attributes.push((name.parse()?, value.parse()?));
        Ok(())
    };
    set("hci-node", spec.node.as_str())?;
    set("hci-attempt", &spec.name.attempt().to_string())?;
    set("vcpus", &spec.cpus.to_string())?;
    set("ram", &format!("{}M", spec.memory_mib))?;
    set("bootdisk", &disk.to_string())?;
    // The first disk is function 0 of its PCI slot; firmware and kernels skip a slot that has no function 0, whatever
    // else is in it. As a virtio disk: Debian's cloud kernels have no driver for the brand's own AHCI seed.
    set("disk0", SEED)?;
    if own("diskif").is_some() {
        set("diskif0", SEED_INTERFACE)?;
    }
    // Each machine boots from the fallback path: its variables would be thrown away with it. The older firmware has none.
    let variables = (!firmware.contains("_CSM")).then_some(("uefivars", "off"));
    let defaults = [("bootrom", default), ("rng", "on")];
    for (name, value) in defaults.into_iter().chain(variables) {
        if own(name).is_none() {
            set(name, value)?;
        }
    }
    attributes.extend(
        image
            .attributes
            .iter()
            .map(|(name, value)| (name.clone(), value.clone())),
    );
    Ok(attributes)
}

/// The specification of a machine that nobody asked for: for a plan without an attempt.
#[must_use]
pub fn example(node: &NodeName, label: &Label, name: crate::model::names::MachineName, size: Size) -> MachineSpec {
    MachineSpec {
        name,
        node: node.clone(),
        image: label.clone(),
        cpus: size.cpus,
        memory_mib: size.memory_mib,
        disk_gib: size.disk_gib,
        seed: crate::machine::Seed {
            fingerprint: "0".repeat(64),
            token: crate::secret::Secret::new("made-for-each-attempt"),
            time_ms: 0,
        },
    }
}

#[cfg(test)]
mod tests;
