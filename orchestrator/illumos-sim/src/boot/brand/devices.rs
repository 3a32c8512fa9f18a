//! Devices: attributes with a number, and the PCI slot and function that each gets.

use std::{collections::BTreeMap, fmt};

use super::{
    Log, Release,
    options::{Options, boolean, disk_interface, truth},
};
use crate::{host::Host, zonecfg::Config};

pub(super) const HOSTBRIDGE: u8 = 0;
pub(super) const LPC: u8 = 1;
pub(super) const CD: u8 = 3;
pub(super) const BOOT_DISK: u8 = 4;
pub(super) const DISK: u8 = 5;
pub(super) const NET: u8 = 6;
/// Of CDs that are to come after the disk.
pub(super) const LATE_CD: u8 = 7;
const MORE_DISKS: u8 = 8;
pub(super) const PASSTHROUGH: u8 = 9;
/// Of the random device.
pub const RNG: Slot = Slot::of(10, 0);
pub(super) const SHARE: u8 = 11;
const MORE_NETS: u8 = 12;
pub(super) const SEED: u8 = 29;
pub(super) const DISPLAY: u8 = 30;
/// Of a machine for Windows.
pub(super) const LATE_LPC: u8 = 31;

/// How many functions a slot has.
const FUNCTIONS: u8 = 8;

/// A PCI slot and a function of it. A system that finds no function 0 in a slot does not look for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot {
    pub device: u8,
    pub function: u8,
}

impl Slot {
    pub(super) const fn of(device: u8, function: u8) -> Self {
        Self { device, function }
    }

    /// The place of the device with this number, in the second slot where the first is full.
    fn in_either(first: u8, second: u8, number: u8) -> Self {
        match number.checked_sub(FUNCTIONS) {
            None => Self::of(first, number),
            Some(rest) => Self::of(second, rest),
        }
    }

    /// As a boot option names it.
    pub(super) fn dotted(self) -> String {
        format!("{}.{}", self.device, self.function)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.device, self.function)
    }
}

/// One disk or CD of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Where it is plugged in.
    pub slot: Slot,
    /// `virtio-blk`, `ahci-hd`, `nvme`, `ahci-cd`.
    pub interface: String,
    /// The path inside the zone.
    pub path: String,
    /// What followed the path: `ro`, `sectorsize=512`.
    pub options: Vec<String>,
}

impl Disk {
    pub(super) fn new(slot: Slot, interface: String, text: &str) -> Self {
        let mut parts = text.split(',').map(str::to_owned);
        Self {
            slot,
            interface,
            path: parts.next().unwrap_or_default(),
            options: parts.collect(),
        }
    }
}

/// One network card of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// Where it is plugged in.
    pub slot: Slot,
    /// `virtio-net-viona`, `virtio-net`, `e1000`.
    pub interface: String,
    pub vnic: String,
    /// What the link's own properties add: `feature_mask=0`.
    pub options: Vec<String>,
}

/// The values of `kind0`, `kind1` … below `most`; where `plain` is set, those of `kind` fill the gaps.
pub(super) fn numbered(
    config: &Config,
    kind: &str,
    most: u8,
    plain: bool,
    log: &mut Log,
) -> Result<BTreeMap<u8, String>, String> {
    let mut found = BTreeMap::new();
    for attr in config.of("attr") {
        let digits = attr.get("name").strip_prefix(kind).unwrap_or_default();
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        // Leading zeroes make no other number.
        let plainly = digits.trim_start_matches('0');
        let shown = if plainly.is_empty() { "0" } else { plainly };
        let number: Option<u8> = shown.parse().ok().filter(|number| *number < most);
        let number = number.ok_or_else(|| format!("{kind}{shown} slot out of range"))?;
        if found.insert(number, attr.get("value").trim().to_owned()).is_some() {
            return Err(format!("{kind}{number} appears more than once in configuration"));
        }
    }
    let free: Vec<u8> = (0..most).filter(|number| !found.contains_key(number)).collect();
    let mut free = free.into_iter();
    for attr in config.of("attr").filter(|attr| plain && attr.get("name") == kind) {
        let number = free.next().ok_or_else(|| format!("{kind}: no more available slots"))?;
        found.insert(number, attr.get("value").trim().to_owned());
    }
    log.list(kind, &found);
    Ok(found)
}

/// A disk is a file of the zone, or a volume by its name.
fn disk_path(text: &str) -> String {
    if text.starts_with('/') {
        text.to_owned()
    } else {
        format!("/dev/zvol/rdsk/{text}")
    }
}

/// The disk to boot from.
pub(super) fn boot_disk(release: Release, config: &Config, options: &Options) -> Option<Disk> {
    let text = config.attr("bootdisk")?;
    let own = config.attr("bootdiskif").filter(|_| release == Release::Master);
    let interface = own.map_or_else(|| options.get("diskif").to_owned(), |own| disk_interface(own.trim()));
    Some(Disk::new(Slot::of(BOOT_DISK, 0), interface, &disk_path(text.trim())))
}

/// The other disks by their number.
pub(super) fn disks(config: &Config, options: &Options, log: &mut Log) -> Result<Vec<(u8, Disk)>, String> {
    let found = numbered(config, "disk", 2 * FUNCTIONS, true, log)?.into_iter();
    let disks = found.map(|(number, text)| {
        let own = config.attr(&format!("diskif{number}"));
        let interface = own.map_or_else(|| options.get("diskif").to_owned(), disk_interface);
        let slot = Slot::in_either(DISK, MORE_DISKS, number);
        (number, Disk::new(slot, interface, &disk_path(&text)))
    });
    Ok(disks.collect())
}

/// CDs, read-only all of them.
pub(super) fn cds(config: &Config, slot: u8, log: &mut Log) -> Result<Vec<Disk>, String> {
    let found = numbered(config, "cdrom", FUNCTIONS, true, log)?.into_iter();
    let cds = found.map(|(number, text)| {
        // What is no path is left as it is.
        Disk::new(Slot::of(slot, number), "ahci-cd".into(), &format!("{text},ro"))
    });
    Ok(cds.collect())
}

/// Network cards, and for each link whether it is to see what is not for it, where that is said.
pub(super) fn nics(
    host: &Host,
    config: &Config,
    options: &Options,
    log: &mut Log,
) -> Result<(Vec<Nic>, BTreeMap<String, bool>), String> {
    let (mut nics, mut promiscuous) = (Vec::new(), BTreeMap::new());
    for (net, number) in config.of("net").zip(0..) {
        let vnic = net.get("physical").trim().to_owned();
        let mut interface = options.get("netif").to_owned();
        let mut more = Vec::new();
        for parts in net.complex("property") {
            let part = |wanted: &str| parts.iter().find(|(name, _)| name == wanted).map_or("", |(_, v)| v);
            let (name, value) = (part("name"), part("value"));
            match name {
                // Here `virtio` is no other name of anything.
                "netif" => {
                    value.clone_into(&mut interface);
                    continue;
                }
                "promiscphys" => _ = promiscuous.insert(vnic.clone(), boolean(value, name)?),
                "promiscrxonly" | "promiscsap" | "promiscmulti" => _ = boolean(value, name)?,
                _ => {}
            }
            more.push(format!("{name}={value}"));
        }
        nics.push(Nic {
            slot: Slot::in_either(NET, MORE_NETS, number),
            interface,
            vnic,
            options: more,
        });
    }
    for (vnic, all) in &promiscuous {
        let filtered = if *all { "off" } else { "on" };
        log.debug(format!("Setting promisc-filtered for {vnic} to {filtered}"));
        if !host.state.links.contains_key(vnic) {
            let said = format!("dladm: link {vnic} is not valid: object not found\n");
            return Err(format!("Could set promisc-filtered for {vnic}: {said}"));
        }
    }
    Ok((nics, promiscuous))
}

/// Devices of the host by the function they get: those with `slotN` there, those that are on in the gaps.
pub(super) fn passthrough(config: &Config, log: &mut Log) -> Result<BTreeMap<u32, String>, String> {
    let list = numbered(config, "ppt", FUNCTIONS, false, log)?;
    let mut taken = BTreeMap::new();
    for (number, text) in &list {
        let digits = text.strip_prefix("slot").unwrap_or_default();
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        let slot: u32 = digits.parse().unwrap_or(u32::MAX);
        if taken.contains_key(&slot) {
            return Err(format!("ppt slot {slot} appears more than once"));
        }
        if slot >= u32::from(FUNCTIONS) {
            return Err(format!("ppt slot {slot} out of range (0-7)"));
        }
        taken.insert(slot, format!("ppt{number}"));
    }
    // The last function is given only to who asks for it.
    let free: Vec<u32> = (0..u32::from(FUNCTIONS) - 1)
        .filter(|slot| !taken.contains_key(slot))
        .collect();
    let mut free = free.into_iter();
    for (number, _) in list.iter().filter(|(_, text)| truth(text) == Some(true)) {
        let slot = free.next().ok_or("ppt: no more available slots")?;
        taken.insert(slot, format!("ppt{number}"));
    }
    Ok(taken)
}

/// Shared folders, as bhyve is told of them.
pub(super) fn shares(config: &Config, log: &mut Log) -> Result<Vec<(u8, String)>, String> {
    let list = numbered(config, "virtfs", FUNCTIONS, true, log)?.into_iter();
    let shares = list.map(|(number, text)| match text.split(',').collect::<Vec<_>>()[..] {
        [name, path] => Ok((number, format!("{name}={path}"))),
        [name, path, "ro"] => Ok((number, format!("{name}={path},ro"))),
        [_, _, other] => Err(format!("Unknown virtfs attribute {other}")),
        _ => Err(format!("Bad virtfs specification: {text}")),
    });
    shares.collect()
}
