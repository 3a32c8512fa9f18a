//! `zone`: where machines lie on an illumos host, and `images.*.kind` and `attributes`: what they are there.

use std::{collections::BTreeMap, path::Path};

use super::{
    GuestKind, Image, Zone, attributes,
    read::{Map, Reader, shown},
};
use crate::{
    model::{
        ids::AttemptId,
        illumos::{
            names::{AttrName, AttrValue, Bandwidth, DatasetName, PlainPath, Unfit},
            network::Range,
        },
        names::{Label, MachineName},
    },
    yaml::{Node, Span, Value, nearest},
};

/// VM_MAXCPU of most builds of illumos.
const MAX_VCPUS: u32 = 32;
/// No build is known to take more.
const MOST_VCPUS: u32 = 254;
/// Directories of the system, with everything below.
const SYSTEM: &[&str] = &[
    "/bin",
    "/boot",
    "/dev",
    "/devices",
    "/etc",
    "/kernel",
    "/lib",
    "/net",
    "/platform",
    "/proc",
    "/rpool/boot",
    "/sbin",
    "/system",
    "/usr",
    "/var/adm",
    "/var/db",
    "/var/pkg",
    "/var/run",
    "/var/sadm",
    "/var/spool",
    "/var/svc",
];
/// Memory file systems.
const FLEETING: &[&str] = &["/tmp", "/run"];
/// Directories that hold what others put there.
const SHARED: &[&str] = &[
    "/export",
    "/export/home",
    "/home",
    "/mnt",
    "/opt",
    "/root",
    "/rpool",
    "/var",
    "/zones",
];

/// The section, with its defaults, and what it says of processors whatever else is wrong with it. `None` only together
/// with a problem.
pub(super) fn read(reader: &mut Reader, top: &Map<'_>) -> (Option<Zone>, u32) {
    let node = top.get("zone");
    let known = [
        "dataset",
        "path",
        "network",
        "port",
        "bandwidth",
        "quota_gib",
        "max_vcpus",
    ];
    let map = node.map(|node| reader.map(node, "zone", &known));
    let get = |key: &str| map.as_ref().and_then(|map| map.get(key));
    let network: Option<Range> = match get("network") {
        None => Some(Range::default()),
        Some(node) => reader.parsed(Some(node), "zone.network"),
    };
    let dataset: Option<DatasetName> = or(reader, get("dataset"), "zone.dataset", "rpool/hci");
    let path: Option<PlainPath> = or(reader, get("path"), "zone.path", "/zones/hci");
    let bandwidth: Option<Bandwidth> = or(reader, get("bandwidth"), "zone.bandwidth", "1G");
    let port = reader
        .number(get("port"), "zone.port", 1024..=65_534_u16)
        .unwrap_or(9417);
    let quota_gib = reader.number(get("quota_gib"), "zone.quota_gib", 1..=1 << 20);
    let max_vcpus = reader.number(get("max_vcpus"), "zone.max_vcpus", 1..=MOST_VCPUS);
    let max_vcpus = max_vcpus.unwrap_or(MAX_VCPUS);
    if let (Some(node), Some(path)) = (get("path"), &path)
        && let Some(why) = unfit_path(&path.to_string())
    {
        let help = "choose a directory of its own, such as /zones/hci".to_owned();
        reader.problem(node.span, format!("zone.path `{path}` {why}"), help);
    }
    let zone = || {
        Some(Zone {
            dataset: dataset?,
            path: path?,
            network: network?,
            port,
            bandwidth: bandwidth?,
            quota_gib,
            max_vcpus,
        })
    };
    (zone(), max_vcpus)
}

/// Where a key of the section stands; where the section does when it is left out.
fn span_of(top: &Map<'_>, key: &str) -> Span {
    let Some(node) = top.get("zone") else {
        return top.span;
    };
    node.get(key).map_or(node.span, |value| value.span)
}

/// Every name that a machine of some image may need below this dataset and path is one that illumos's tools take, so
/// that no plan is refused later.
pub(super) fn check_names(reader: &mut Reader, top: &Map<'_>, zone: &Zone, labels: &[&Label]) {
    let machine = MachineName::of(AttemptId::new());
    let below = |kind: &str| zone.dataset.child(kind)?.child(machine.as_str());
    let images = labels.iter().map(|label| {
        let image = zone.dataset.child("images")?.child(label.as_str())?;
        // What is withdrawn has the longest name.
        let version = image.child(&format!(".withdrawn-v{}", u32::MAX))?;
        version.device()?;
        version.snapshot("gold").map(drop)
    });
    let machines = || below("machines")?.device().map(drop);
    let named: Result<(), Unfit> = machines().and_then(|()| below("zones").map(drop));
    if let Some(error) = named.err().or_else(|| images.filter_map(Result::err).next()) {
        let help = "a shorter name without `:`: those of images and machines are added to it".to_owned();
        reader.problem(
            span_of(top, "dataset"),
            format!("zone.dataset is of no use: {error}"),
            help,
        );
    }
    if let Err(error) = format!("{}/{machine}", zone.path).parse::<PlainPath>() {
        let help = "a shorter path: machines' names are added to it".to_owned();
        reader.problem(span_of(top, "path"), format!("zone.path is of no use: {error}"), help);
    }
}

/// The zones' file system hides what it is mounted over, and the daemon's user may write to what is below the data
/// directory, where zoneadm lets no zone be.
pub(super) fn check_apart(reader: &mut Reader, top: &Map<'_>, zone: &Zone, data_dir: &Path) {
    let path = zone.path.to_string();
    if data_dir.starts_with(&path) || Path::new(&path).starts_with(data_dir) {
        let message = format!(
            "zone.path `{path}` and data_dir `{}` lie within each other",
            data_dir.display()
        );
        let help = "choose a directory of its own, such as /zones/hci".to_owned();
        reader.problem(span_of(top, "path"), message, help);
    }
}

/// Why machines cannot be kept below a directory: it is the system's, or does not outlive a boot.
fn unfit_path(path: &str) -> Option<&'static str> {
    let is_in = |dir: &&str| path == *dir || path.starts_with(&format!("{dir}/"));
    if SYSTEM.iter().any(is_in) {
        return Some("is the system's own");
    }
    if FLEETING.iter().any(is_in) {
        return Some("does not outlive a reboot");
    }
    SHARED
        .contains(&path)
        .then_some("holds other things: a dataset that is mounted there would hide them")
}

fn or<T: std::str::FromStr<Err: std::fmt::Display>>(
    reader: &mut Reader,
    node: Option<&Node>,
    path: &str,
    default: &str,
) -> Option<T> {
    match node {
        Some(node) => reader.parsed(Some(node), path),
        None => default.parse().ok(),
    }
}

/// `kind` of an image.
pub(super) fn kind(reader: &mut Reader, map: &Map<'_>) -> GuestKind {
    let Some(node) = map.get("kind") else {
        return GuestKind::LinuxUefi;
    };
    let Some(text) = reader.text(node, &map.path("kind")) else {
        return GuestKind::LinuxUefi;
    };
    match GuestKind::ALL.into_iter().find(|kind| kind.as_str() == text) {
        Some(kind) => kind,
        None => {
            let near =
                nearest(text, GuestKind::ALL.map(GuestKind::as_str)).map(|near| format!("did you mean `{near}`?"));
            let help = near.unwrap_or_else(|| "possible: linux-uefi, linux-bios, illumos".to_owned());
            reader.problem(node.span, format!("there is no kind of guest `{}`", shown(text)), help);
            GuestKind::LinuxUefi
        }
    }
}

/// `attributes` of an image.
pub(super) fn attributes(reader: &mut Reader, map: &Map<'_>) -> BTreeMap<AttrName, AttrValue> {
    let mut found = BTreeMap::new();
    let path = map.path("attributes");
    let entries = map
        .get("attributes")
        .map(|node| reader.entries(node, &path))
        .unwrap_or_default();
    for (key, node) in entries {
        let Some(value) = reader.text(node, &format!("{path}.{}", shown(&key.text))) else {
            continue;
        };
        if let Err(refusal) = attributes::check(&shown(&key.text), value) {
            reader.problem(key.span, refusal.message, refusal.help);
            continue;
        }
        let name = reader.key::<AttrName>(key);
        let value = reader.parsed::<AttrValue>(Some(node), &path);
        if let Some(since) = attributes::brand_since(&key.text) {
            let message = format!("attribute {} has no effect before release {since}", key.text);
            reader.warning(key.span, message);
        }
        found.extend(name.zip(value));
    }
    found
}

/// Attributes of an image that mean nothing without others, or beside its kind.
pub(super) fn check_attributes(reader: &mut Reader, map: &Map<'_>, image: &Image) {
    let Err((name, refusal)) = attributes::check_together(&image.attributes, image.kind) else {
        return;
    };
    let entries = match map.get("attributes").map(|node| &node.value) {
        Some(Value::Mapping(entries)) => entries.as_slice(),
        _ => &[],
    };
    let key = entries.iter().find(|(key, _)| key.text == name.to_string());
    reader.problem(key.map_or(map.span, |(key, _)| key.span), refusal.message, refusal.help);
}

#[cfg(test)]
mod tests;
