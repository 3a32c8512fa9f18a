//! What the hook reads first: plain options with their defaults and other names, and the values that they may have.

use std::collections::BTreeMap;

use super::Log;
use crate::zonecfg::Config;

/// Options in the hook's order, with what they are where the zone does not say.
const DEFAULTS: &[(&str, Option<&str>)] = &[
    ("acpi", Some("on")),
    ("bootorder", Some("path0,bootdisk,cdrom0")),
    ("bootnext", None),
    ("bootrom", Some("BHYVE_RELEASE_CSM")),
    ("cloud-init", Some("off")),
    ("console", Some("/dev/zconsole")),
    ("debug.persist", Some("off")),
    ("diskif", Some("virtio-blk")),
    ("hostbridge", Some("i440fx")),
    ("memreserve", Some("off")),
    ("netif", Some("virtio-net-viona")),
    ("priv.debug", Some("off")),
    ("ram", Some("1G")),
    ("rng", Some("off")),
    ("type", Some("generic")),
    ("uefivars", Some("on")),
    ("uuid", None),
    ("vcpus", Some("1")),
    ("vga", Some("off")),
    ("vnc", Some("off")),
    ("xhci", Some("on")),
];

/// Values by another name: option, the name, what it stands for.
const ALIASES: &[(&str, &str, &str)] = &[
    ("bootorder", "cd", "path0,bootdisk,cdrom0"),
    ("bootorder", "dc", "cdrom0,path0,bootdisk"),
    ("diskif", "virtio", "virtio-blk"),
    ("diskif", "ahci", "ahci-hd"),
    ("netif", "virtio", "virtio-net-viona"),
    ("hostbridge", "intel", "netapp"),
    ("vnc", "on", "unix=/tmp/vm.vnc"),
    ("vnc", "wait", "unix=/tmp/vm.vnc,wait"),
    ("bootrom", "BHYVE_DEBUG-2.70", "BHYVE_DEBUG"),
    ("bootrom", "BHYVE_DEBUG_CSM-2.40", "BHYVE_DEBUG_CSM"),
    ("bootrom", "BHYVE_RELEASE-2.70", "BHYVE_RELEASE"),
    ("bootrom", "BHYVE_RELEASE_CSM-2.40", "BHYVE_RELEASE_CSM"),
];

fn alias(option: &str, value: &str) -> Option<&'static str> {
    let found = ALIASES.iter().find(|(of, name, _)| *of == option && *name == value);
    found.map(|(.., meaning)| *meaning)
}

/// The interface that a disk's attribute names.
pub(super) fn disk_interface(text: &str) -> String {
    alias("diskif", text).unwrap_or(text).to_owned()
}

/// What a boolean says; none when it is not one.
pub(super) fn truth(text: &str) -> Option<bool> {
    match text {
        "true" | "yes" | "on" | "1" => Some(true),
        "false" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

/// A boolean, or the hook's refusal of what is none.
pub(super) fn boolean(text: &str, name: &str) -> Result<bool, String> {
    truth(text).ok_or_else(|| format!("Invalid value {text} for boolean variable {name}"))
}

/// The options of one zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options(BTreeMap<&'static str, Option<String>>);

impl Options {
    pub(super) fn read(config: &Config, log: &mut Log) -> Self {
        let mut options: BTreeMap<_, _> = DEFAULTS.iter().map(|(n, v)| (*n, v.map(str::to_owned))).collect();
        for (name, _) in DEFAULTS {
            let Some(given) = config.attr(name).map(str::trim) else {
                continue;
            };
            log.debug(format!("Found custom {name} attribute - \"{given}\""));
            let plain = match truth(given) {
                Some(true) => "on",
                Some(false) => "off",
                None => given,
            };
            let meaning = alias(name, plain);
            if let Some(meaning) = meaning {
                log.debug(format!("  Alias expanded to {meaning}"));
            }
            options.insert(name, Some(meaning.unwrap_or(given).to_owned()));
        }
        Self(options)
    }

    /// The value of an option; empty where it has none.
    #[must_use]
    pub fn get(&self, name: &str) -> &str {
        self.0.get(name).and_then(Option::as_deref).unwrap_or_default()
    }

    pub(super) fn boolean(&self, name: &str) -> Result<bool, String> {
        boolean(self.get(name), name)
    }

    /// Every option with its value.
    #[must_use]
    pub fn all(&self) -> &BTreeMap<&'static str, Option<String>> {
        &self.0
    }

    /// The display's own options, and its password, which is kept out of the command line; none without a display.
    pub(super) fn display(&mut self) -> Option<(String, Option<String>)> {
        let text = self.get("vnc").to_owned();
        if truth(&text) == Some(false) {
            return None;
        }
        let mut parts = split(&text);
        let mut password = None;
        for (name, value) in parts.clone() {
            match alias("vnc", &name).filter(|_| value.is_empty()) {
                Some(meaning) => {
                    parts.retain(|(other, _)| *other != name);
                    let mut whole = split(meaning);
                    parts.drain(..).for_each(|part| put(&mut whole, part));
                    parts = whole;
                }
                None if name == "password" && !value.is_empty() => {
                    parts.retain(|(other, _)| *other != name);
                    password = Some(value);
                }
                None => {}
            }
        }
        let joined: Vec<String> = parts
            .iter()
            .map(|(name, value)| format!("{name}={value}").trim_end_matches('=').to_owned())
            .collect();
        let joined = joined.join(",");
        self.0.insert("vnc", Some(joined.clone()));
        Some((joined, password))
    }
}

/// `on,w=1234` as names and values; of a name that comes twice the last value counts.
fn split(text: &str) -> Vec<(String, String)> {
    let mut parts = Vec::new();
    for part in text.split(',') {
        let mut sides = part.split('=');
        let name = sides.next().unwrap_or_default();
        put(
            &mut parts,
            (name.to_owned(), sides.next().unwrap_or_default().to_owned()),
        );
    }
    parts
}

fn put(parts: &mut Vec<(String, String)>, (name, value): (String, String)) {
    match parts.iter_mut().find(|(other, _)| *other == name) {
        Some(old) => old.1 = value,
        None => parts.push((name, value)),
    }
}

/// Whether the hook can tell how much memory it has to reserve.
pub(super) fn reservable(text: &str) -> Result<(), String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let suffix = &text[digits.len()..];
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) || suffix.chars().count() > 1 {
        return Err(format!("Could not parse ram value \"{text}\""));
    }
    match suffix.to_lowercase().as_str() {
        // It stumbles over a name of its own (seen on r151054 and master).
        "" => Err("NameError: name 'MiB' is not defined".into()),
        "b" | "k" | "m" | "g" | "t" | "p" | "e" => Ok(()),
        _ => Err(format!("Unknown RAM suffix, {suffix}")),
    }
}
