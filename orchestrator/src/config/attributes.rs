//! Attributes of the bhyve brand (bhyve(7), OmniOS) that an image may set. The brand ignores what it does
//! not know, so a misspelt one would do nothing in silence: here it is an error with the nearest name.

use super::read::nearest;

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
    ("cdrom", Rule::Never("a machine has its disk and its seed only")),
    (
        "cloud-init",
        Rule::Never("the seed is a disk of our own: Debian's cloud kernels cannot read the brand's"),
    ),
    ("com", Rule::Never("a machine has one console, which helios-ci reads")),
    ("console", Rule::Ours),
    ("debug.persist", Rule::Never("a zone must be gone when its machine is")),
    ("disk", Rule::Ours),
    (
        "diskif",
        Rule::Never("it would also change the seed's disk; set `bootdiskif`"),
    ),
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
    ("xhci", Rule::Boolean),
];

const DISK_INTERFACES: &[&str] = &["ahci", "ahci-hd", "nvme", "virtio", "virtio-blk"];
const FIRMWARE: &[&str] = &[
    "BHYVE",
    "BHYVE_CSM",
    "BHYVE_DEBUG",
    "BHYVE_DEBUG_CSM",
    "BHYVE_RELEASE",
    "BHYVE_RELEASE_CSM",
];
/// What `bootorder` names; a number may follow each but the first three.
const BOOT: &[&str] = &["shell", "bootdisk", "cd", "dc", "path", "boot", "disk", "cdrom", "net"];

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

/// Checks one attribute of an image.
pub(super) fn check(name: &str, value: &str) -> Result<(), Refusal> {
    let refusal = |message: String, help: Option<String>| Err(Refusal { message, help });
    // `disk3` is `disk`'s, `diskif3` is `diskif`'s; `bootdisk` has no number.
    let base = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let numbered = base != name;
    let found = KNOWN.iter().find(|(known, _)| *known == base);
    let takes_number = ["cdrom", "com", "disk", "diskif", "extra", "ppt", "virtfs"].contains(&base);
    let Some((_, rule)) = found.filter(|_| !numbered || takes_number) else {
        let near = nearest(name, KNOWN.iter().map(|(known, _)| *known));
        return refusal(
            format!("the bhyve brand has no attribute `{name}`, and would ignore it"),
            near.map(|near| format!("did you mean `{near}`?")),
        );
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
        Rule::BootOrder => match value.split(',').all(is_boot_device) {
            true => Ok(()),
            false => refusal(
                format!("attribute bootorder: `{value}` is not possible"),
                Some("names such as `bootdisk`, `disk1`, `cdrom0`, `net0=http`, with commas between them".to_owned()),
            ),
        },
    }
}

fn is_boot_device(text: &str) -> bool {
    let device = text
        .strip_suffix("=pxe")
        .or(text.strip_suffix("=http"))
        .filter(|device| device.starts_with("net"))
        .unwrap_or(text);
    let base = device.trim_end_matches(|c: char| c.is_ascii_digit());
    BOOT.contains(&base)
        && (base == device || !BOOT[..4].contains(&base))
        && (base != "boot" || base != device)
        && device.len() - base.len() <= 2
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
            ("netif", "e1000"),
            ("bootorder", "path0,bootdisk,cdrom0,net1=pxe"),
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
            "disk1,,net",
            "disk111",
        ] {
            assert!(why("bootorder", order).contains("is not possible"), "{order}");
        }
    }
}
