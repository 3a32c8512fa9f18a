//! `zone`: where machines lie on an illumos host, and `images.*.kind` and `attributes`: what they are there.

use std::collections::BTreeMap;

use ipnet::Ipv4Net;

use super::{
    GuestKind, Zone, attributes,
    read::{Map, Reader, nearest, shown},
};
use crate::model::illumos::{
    names::{AttrName, AttrValue, Bandwidth, DatasetName, PlainPath},
    network::Range,
};

/// The section, with its defaults. `None` only together with a problem.
pub(super) fn read(reader: &mut Reader, top: &Map<'_>) -> Option<Zone> {
    let node = top.get("zone");
    let map = node.map(|node| {
        reader.map(
            node,
            "zone",
            &["dataset", "path", "network", "port", "bandwidth", "quota_gib"],
        )
    });
    let get = |key: &str| map.as_ref().and_then(|map| map.get(key));
    let network = match get("network") {
        None => Some(Range::default()),
        Some(node) => reader
            .parsed::<Ipv4Net>(Some(node), "zone.network")
            .and_then(|network| {
                Range::new(network)
                    .map_err(|error| reader.problem(node.place, error.to_string(), "write 10.77.0.0/16".to_owned()))
                    .ok()
            }),
    };
    let dataset: Option<DatasetName> = or(reader, get("dataset"), "zone.dataset", "rpool/hci");
    let path: Option<PlainPath> = or(reader, get("path"), "zone.path", "/zones/hci");
    let bandwidth: Option<Bandwidth> = or(reader, get("bandwidth"), "zone.bandwidth", "1G");
    let port = reader.small(get("port"), "zone.port", 1024..=65534).unwrap_or(9417);
    let quota_gib = reader.number(get("quota_gib"), "zone.quota_gib", 1..=1 << 20);
    Some(Zone {
        dataset: dataset?,
        path: path?,
        network: network?,
        port: u16::try_from(port).unwrap_or(u16::MAX),
        bandwidth: bandwidth?,
        quota_gib,
    })
}

fn or<T: std::str::FromStr<Err: std::fmt::Display>>(
    reader: &mut Reader,
    node: Option<&super::tree::Node>,
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
    const KINDS: [(&str, GuestKind); 3] = [
        ("linux-uefi", GuestKind::LinuxUefi),
        ("linux-bios", GuestKind::LinuxBios),
        ("illumos", GuestKind::Illumos),
    ];
    let Some(node) = map.get("kind") else {
        return GuestKind::LinuxUefi;
    };
    let Some(text) = reader.text(node, &map.path("kind")) else {
        return GuestKind::LinuxUefi;
    };
    match KINDS.iter().find(|(name, _)| *name == text) {
        Some((_, kind)) => *kind,
        None => {
            let near = nearest(text, KINDS.map(|(name, _)| name)).map(|near| format!("did you mean `{near}`?"));
            let help = near.unwrap_or_else(|| "possible: linux-uefi, linux-bios, illumos".to_owned());
            reader.problem(node.place, format!("there is no kind of guest `{}`", shown(text)), help);
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
            reader.problem(key.place, refusal.message, refusal.help);
            continue;
        }
        let name = reader.key::<AttrName>(key);
        let value = reader.parsed::<AttrValue>(Some(node), &path);
        found.extend(name.zip(value));
    }
    found
}
