//! Attributes of the bhyve brand (bhyve(7), OmniOS) that an image may set. The brand ignores what it does
//! not know, so a misspelt one would do nothing in silence: here it is an error with the nearest name.

use std::collections::BTreeMap;

use super::GuestKind;
use crate::{
    model::illumos::{
        names::{AttrName, AttrValue},
        release::Release,
    },
    yaml::nearest,
};

/// What the brand knows, and what of it is whose.
const KNOWN: &[(&str, Rule)] = &[
    ("bootdisk", Rule::Ours),
    ("bootdiskif", Rule::OneOf(DISK_INTERFACES)),
    (
        "bootnext",
        Rule::Never("the brand removes it from the zone after one boot"),
    ),
    ("bootorder", Rule::BootOrder),
    ("bootrom", Rule::OneOf(FIRMWARE)),
    ("cdrom", Rule::Never(TWO_DISKS)),
    (
        "cloud-init",
        Rule::Never("the seed is a disk of our own: Debian's cloud kernels cannot read the brand's"),
    ),
    ("com", Rule::Never("a machine has one console, which helios-ci reads")),
    ("console", Rule::Ours),
    ("debug.persist", Rule::Never("a zone must be gone when its machine is")),
    ("disk", Rule::Ours),
    ("diskif", Rule::OneOf(DISK_INTERFACES)),
    ("dns-domain", Rule::Never("it belongs to the brand's own cloud-init")),
    ("extra", Rule::Never("it is put into bhyve's command line unchecked")),
    ("hostbridge", Rule::OneOf(&["amd", "i440fx", "netapp", "none", "q35"])),
    ("memreserve", Rule::Never("its memory is not given back")),
    (
        "netif",
        Rule::OneOf(&["e1000", "virtio", "virtio-net", "virtio-net-viona"]),
    ),
    ("password", Rule::Never("it belongs to the brand's own cloud-init")),
    (
        "ppt",
        Rule::Never("a device of the host is no part of a machine that may be hostile"),
    ),
    ("priv.debug", Rule::Never("it prints what a zone is given")),
    ("ram", Rule::Ours),
    ("resolvers", Rule::Never("it belongs to the brand's own cloud-init")),
    ("rng", Rule::Boolean),
    ("sshkey", Rule::Never("it belongs to the brand's own cloud-init")),
    ("type", Rule::OneOf(&["generic", "openbsd", "windows"])),
    ("uefivars", Rule::Boolean),
    ("uuid", Rule::Never("each machine has its own")),
    ("vcpus", Rule::Ours),
    ("vga", Rule::Never("a machine has no screen")),
    (
        "virtfs",
        Rule::Never("a directory of the host is no part of a machine that may be hostile"),
    ),
    ("vnc", Rule::Never("a machine has no screen")),
    (
        "xhci",
        Rule::Never("it has an effect beside a screen only, and a machine has none"),
    ),
];

/// Attributes with a number, and the numbers that the brand takes. With another it does not boot (`disk16 slot out of
/// range`), or ignores it.
const NUMBERED: &[(&str, std::ops::RangeInclusive<u32>)] = &[
    ("cdrom", 0..=7),
    ("com", 2..=4),
    ("disk", 0..=15),
    ("diskif", 0..=15),
    ("extra", 0..=15),
    ("ppt", 0..=7),
    ("virtfs", 0..=7),
];

/// Attributes that not every supported release knows, with the first that does. The others ignore them.
const SINCE: &[(&str, Release)] = &[("bootdiskif", Release::AFTER_R151058)];

const TWO_DISKS: &str = "a machine has its disk and its seed only";
const DISK_INTERFACES: &[&str] = &["ahci", "ahci-hd", "nvme", "virtio", "virtio-blk"];
const FIRMWARE: &[&str] = &[
    "BHYVE",
    "BHYVE_CSM",
    "BHYVE_DEBUG",
    "BHYVE_DEBUG_CSM",
    "BHYVE_RELEASE",
    "BHYVE_RELEASE_CSM",
];
/// Short for whole orders.
const ORDERS: &[&str] = &["cd", "dc"];

enum Rule {
    /// helios-ci sets it itself.
    Ours,
    /// No image may, and why.
    Never(&'static str),
    OneOf(&'static [&'static str]),
    Boolean,
    BootOrder,
}

/// Why an attribute cannot be set, and what to do.
pub(super) struct Refusal {
    pub(super) message: String,
    pub(super) help: Option<String>,
}

/// The first release whose brand knows an attribute; none where every supported one does.
#[must_use]
pub fn brand_since(name: &str) -> Option<Release> {
    SINCE.iter().find(|(known, _)| *known == name).map(|(_, since)| *since)
}

/// Checks one attribute of an image.
pub(super) fn check(name: &str, value: &str) -> Result<(), Refusal> {
    let refusal = |message: String, help: Option<String>| Err(Refusal { message, help });
    // `disk3` is `disk`'s, `diskif3` is `diskif`'s; `bootdisk` has no number.
    let base = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let number = &name[base.len()..];
    let found = KNOWN.iter().find(|(known, _)| *known == base);
    let range = NUMBERED.iter().find(|(known, _)| *known == base);
    if let Some((_, range)) = range.filter(|_| !number.is_empty()) {
        let plain = number.len() == 1 || !number.starts_with('0');
        if !plain || !number.parse().is_ok_and(|number| range.contains(&number)) {
            let (least, most) = (range.start(), range.end());
            return refusal(
                format!("the bhyve brand has no attribute `{name}`: {base}'s number is {least} to {most}"),
                None,
            );
        }
    }
    let Some((_, rule)) = found.filter(|_| number.is_empty() || range.is_some()) else {
        let near = nearest(
            name,
            KNOWN.iter().map(|(known, _)| *known).filter(|known| *known != name),
        );
        return refusal(
            format!("the bhyve brand has no attribute `{name}`, and would ignore it"),
            near.map(|near| format!("did you mean `{near}`?")),
        );
    };
    // The interface of a disk that there is not, or of the seed.
    let rule = match (base, number) {
        ("diskif", "0") => &Rule::Ours,
        ("diskif", "") => rule,
        ("diskif", _) => &Rule::Never(TWO_DISKS),
        _ => rule,
    };
    let one_of = |possible: &[&str]| match possible.contains(&value) {
        true => Ok(()),
        false => refusal(
            format!("attribute {name}: `{value}` is not possible"),
            Some(format!("possible: {}", possible.join(", "))),
        ),
    };
    match rule {
        Rule::Ours => refusal(
            format!("attribute {name} is set by helios-ci itself"),
            Some("remove it; sizes say how many processors and how much memory a machine has".to_owned()),
        ),
        Rule::Never(why) => refusal(
            format!("attribute {name} cannot be set: {why}"),
            Some("remove it".to_owned()),
        ),
        Rule::OneOf(possible) => one_of(possible),
        Rule::Boolean => one_of(&["true", "yes", "on", "1", "false", "no", "off", "0"]),
        Rule::BootOrder => match ORDERS.contains(&value) || value.split(',').all(is_boot_device) {
            true => Ok(()),
            false => refusal(
                format!("attribute bootorder: `{value}` is not possible"),
                Some(
                    "what a machine can boot from: `bootdisk`, `disk0`, `net0`, `net0=pxe`, `net0=http`, `path0`, \
                     `boot0`, `shell`, with commas between them"
                        .to_owned(),
                ),
            ),
        },
    }
}

/// What the brand finds in a machine of ours; it skips what is not there.
fn is_boot_device(text: &str) -> bool {
    let counted = |base: &str| {
        let number = text.strip_prefix(base)?;
        Some((1..=2).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit()))
    };
    let devices = [
        "shell",
        "bootdisk",
        "disk",
        "disk0",
        "net",
        "net0",
        "net=pxe",
        "net0=pxe",
        "net=http",
        "net0=http",
        "path",
    ];
    devices.contains(&text) || counted("path").or_else(|| counted("boot")).unwrap_or(false)
}

/// What one attribute means only together with others: of all that an image sets, and its kind.
pub(super) fn check_together(
    attributes: &BTreeMap<AttrName, AttrValue>,
    kind: GuestKind,
) -> Result<(), (AttrName, Refusal)> {
    let get = |wanted: &str| {
        let mut all = attributes.iter();
        all.find(|(name, _)| name.to_string() == wanted)
    };
    let firmware = get("bootrom").map(|(_, value)| value.to_string());
    let has_variables = match firmware {
        Some(firmware) => !firmware.contains("_CSM"),
        None => kind != GuestKind::LinuxBios,
    };
    let is_on = |value: &AttrValue| ["true", "yes", "on", "1"].contains(&value.to_string().as_str());
    let variables = get("uefivars").filter(|(_, value)| is_on(value));
    if let Some((name, _)) = get("bootorder").filter(|_| variables.is_none() || !has_variables) {
        let refusal = Refusal {
            message: "attribute bootorder has no effect: the order is kept in UEFI's variables, and this image's \
                      machines have none"
                .to_owned(),
            help: Some(match has_variables {
                true => "add `uefivars: \"on\"`, or remove it".to_owned(),
                false => "remove it: firmware of the CSM kind keeps no variables".to_owned(),
            }),
        };
        return Err((name.clone(), refusal));
    }
    if let Some((name, _)) = variables.filter(|_| !has_variables) {
        let refusal = Refusal {
            message: "attribute uefivars has no effect: firmware of the CSM kind keeps no variables".to_owned(),
            help: Some("remove it".to_owned()),
        };
        return Err((name.clone(), refusal));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(name: &str, value: &str) -> String {
        match check(name, value) {
            Ok(()) => String::new(),
            Err(refusal) => format!("{}; {}", refusal.message, refusal.help.unwrap_or_default()),
        }
    }

    #[test]
    fn the_table_is_sorted_and_has_each_once() {
        assert!(KNOWN.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn what_an_image_may_set() {
        for (name, value) in [
            ("rng", "on"),
            ("bootrom", "BHYVE_RELEASE_CSM"),
            ("bootdiskif", "nvme"),
            ("diskif", "nvme"),
            ("netif", "e1000"),
            ("bootorder", "path0,bootdisk,disk0,net0=pxe,boot12,shell"),
            ("bootorder", "cd"),
            ("type", "openbsd"),
        ] {
            assert_eq!(why(name, value), "");
        }
    }

    #[test]
    fn what_it_may_not_is_said_with_the_nearest_name() {
        assert!(why("vcpu", "2").contains("did you mean `vcpus`?"));
        assert!(why("rngg", "on").contains("did you mean `rng`?"));
        assert!(why("rng7", "on").contains("no attribute `rng7`"));
        assert!(why("vcpus", "2").contains("set by helios-ci itself"));
        assert!(why("disk3", "x").contains("set by helios-ci itself"));
        assert!(why("diskif0", "nvme").contains("set by helios-ci itself"));
        assert!(why("diskif1", "nvme").contains("its disk and its seed only"));
        assert!(why("xhci", "on").contains("beside a screen only"));
        for ignored in ["disk16", "cdrom9", "com1", "com5", "extra16", "disk00", "diskif16"] {
            let why = why(ignored, "x");
            assert!(why.contains(&format!("no attribute `{ignored}`")), "{why}");
        }
        assert!(why("extra1", "-x").contains("unchecked"));
        assert!(why("rng", "maybe").contains("possible: true"));
        assert!(why("bootrom", "/tmp/x.fd").contains("possible: BHYVE"));
        for order in [
            "",
            "bootdisk1",
            "boot",
            "floppy",
            "net0=tftp",
            "disk=pxe",
            "disk0,,net",
            "disk1",
            "cdrom0",
            "net1",
            "path111",
            "bootdisk,cd",
        ] {
            assert!(why("bootorder", order).contains("is not possible"), "{order}");
        }
    }

    #[test]
    fn an_order_needs_variables_to_be_kept_in() {
        let together = |kind: GuestKind, attributes: &[(&str, &str)]| {
            let parsed = attributes.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap()));
            match check_together(&parsed.collect(), kind) {
                Ok(()) => String::new(),
                Err((name, refusal)) => format!("{name}: {}", refusal.message),
            }
        };
        let order = ("bootorder", "bootdisk");
        assert_eq!(together(GuestKind::LinuxUefi, &[order, ("uefivars", "on")]), "");
        assert_eq!(
            together(GuestKind::LinuxBios, &[order, ("uefivars", "on"), ("bootrom", "BHYVE")]),
            ""
        );
        for (kind, attributes) in [
            (GuestKind::LinuxUefi, vec![order]),
            (GuestKind::LinuxUefi, vec![order, ("uefivars", "off")]),
            (GuestKind::LinuxBios, vec![order, ("uefivars", "yes")]),
            (
                GuestKind::Illumos,
                vec![order, ("uefivars", "on"), ("bootrom", "BHYVE_CSM")],
            ),
        ] {
            assert!(together(kind, &attributes).starts_with("bootorder: "), "{attributes:?}");
        }
        assert!(together(GuestKind::LinuxBios, &[("uefivars", "on")]).starts_with("uefivars: "));
        assert_eq!(together(GuestKind::LinuxBios, &[("uefivars", "off")]), "");
    }
}
