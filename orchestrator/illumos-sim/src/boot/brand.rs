//! The boot hook of the bhyve brand: attributes in, one virtual machine out. An attribute it does not
//! know is ignored without a word, as the real one does.

use crate::zonecfg::Config;

/// One disk or CD of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The PCI slot: `4:0`.
    pub slot: String,
    /// `virtio-blk`, `ahci-hd`, `nvme`, `ahci-cd`.
    pub interface: String,
    /// The path inside the zone.
    pub path: String,
    /// What followed the path: `ro`, `sectorsize=512`.
    pub options: Vec<String>,
}

/// One network card of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// The PCI slot: `6:0`.
    pub slot: String,
    /// `virtio-net-viona`, `virtio-net`, `e1000`.
    pub interface: String,
    /// The VNIC.
    pub vnic: String,
}

/// One virtual machine, as the hook would hand it to bhyve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// The zone's name, and the machine's.
    pub name: String,
    /// As written: `4` or `cpus=4,cores=4`.
    pub vcpus: String,
    /// As written: `2G`.
    pub ram: String,
    /// The firmware's file.
    pub bootrom: String,
    /// Whether the firmware keeps its variables in `/etc/uefivars`.
    pub uefivars: bool,
    /// Disks and CDs.
    pub disks: Vec<Disk>,
    /// Network cards.
    pub nics: Vec<Nic>,
    /// Whether there is a random device.
    pub rng: bool,
    /// What the first serial port is connected to.
    pub console: String,
    /// The SMBIOS UUID, where an attribute sets it.
    pub uuid: Option<String>,
}

/// Firmware that a host has.
pub const FIRMWARE: &[&str] = &[
    "BHYVE_RELEASE",
    "BHYVE_RELEASE_CSM",
    "BHYVE_DEBUG",
    "BHYVE_DEBUG_CSM",
    "BHYVE",
    "BHYVE_CSM",
];

/// What a host's brand says of itself, as far as anybody looks.
pub const CONFIG: &str = "<?xml version=\"1.0\"?>\n<brand name=\"bhyve\">\n  <initname>/usr/lib/brand/bhyve/init</initname>\n  <boot>/usr/lib/brand/bhyve/boot %z %R</boot>\n  <restartinit>true</restartinit>\n  <restartinit0>true</restartinit0>\n  <restartinitreboot>false</restartinitreboot>\n</brand>\n";

fn boolean(config: &Config, name: &str, default: bool) -> Result<bool, String> {
    match config.attr(name) {
        None => Ok(default),
        Some("true" | "yes" | "on" | "1") => Ok(true),
        Some("false" | "no" | "off" | "0") => Ok(false),
        Some(other) => Err(format!("Invalid value {other} for boolean variable {name}")),
    }
}

fn disk_interface(text: &str) -> String {
    match text {
        "virtio" => "virtio-blk",
        "ahci" => "ahci-hd",
        other => other,
    }
    .to_owned()
}

fn disk(slot: String, interface: &str, text: &str) -> Disk {
    let mut parts = text.split(',').map(str::to_owned);
    let path = parts.next().unwrap_or_default();
    let path = if path.starts_with('/') {
        path
    } else {
        format!("/dev/zvol/rdsk/{path}")
    };
    Disk {
        slot,
        interface: disk_interface(interface),
        path,
        options: parts.collect(),
    }
}

/// What the hook makes of a configuration.
///
/// # Errors
/// The sentence it fails with.
pub fn machine(config: &Config) -> Result<Machine, String> {
    for name in ["acpi", "memreserve", "xhci"] {
        boolean(config, name, false)?;
    }
    let bootrom = config.attr("bootrom").unwrap_or("BHYVE_RELEASE_CSM");
    let bootrom = if bootrom.starts_with('/') {
        bootrom.to_owned()
    } else if FIRMWARE.contains(&bootrom.trim_end_matches(".fd")) {
        format!("/usr/share/bhyve/firmware/{}.fd", bootrom.trim_end_matches(".fd"))
    } else {
        return Err(format!("bootrom {bootrom} not found."));
    };
    let diskif = config.attr("diskif").unwrap_or("virtio-blk");
    let mut disks = Vec::new();
    if let Some(text) = config.attr("bootdisk") {
        disks.push(disk("4:0".into(), config.attr("bootdiskif").unwrap_or(diskif), text));
    }
    let mut plain = config.attr("disk");
    for n in 0..16 {
        let text = config.attr(&format!("disk{n}")).or_else(|| plain.take());
        if let Some(text) = text {
            let slot = if n < 8 {
                format!("5:{n}")
            } else {
                format!("8:{}", n - 8)
            };
            disks.push(disk(slot, config.attr(&format!("diskif{n}")).unwrap_or(diskif), text));
        }
    }
    let mut plain = config.attr("cdrom");
    for n in 0..8 {
        if let Some(text) = config.attr(&format!("cdrom{n}")).or_else(|| plain.take()) {
            let mut cd = disk(format!("3:{n}"), "ahci-cd", text);
            cd.options = vec!["ro".into()];
            disks.push(cd);
        }
    }
    let netif = config.attr("netif").unwrap_or("virtio-net-viona");
    let nics = config.of("net").enumerate().map(|(n, net)| {
        let own = net.complex("property").iter().find_map(|parts| {
            let get = |name: &str| parts.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
            get("value").filter(|_| get("name") == Some("netif"))
        });
        let interface = match own.unwrap_or(netif) {
            "virtio" => "virtio-net-viona",
            other => other,
        };
        let slot = if n < 8 {
            format!("6:{n}")
        } else {
            format!("12:{}", n - 8)
        };
        Nic {
            slot,
            interface: interface.into(),
            vnic: net.get("physical").into(),
        }
    });
    Ok(Machine {
        name: config.name.clone(),
        vcpus: config.attr("vcpus").unwrap_or("1").into(),
        ram: config.attr("ram").unwrap_or("1G").into(),
        uefivars: boolean(config, "uefivars", true)? && !bootrom.contains("_CSM"),
        bootrom,
        nics: nics.collect(),
        disks,
        rng: boolean(config, "rng", false)?,
        console: config.attr("console").unwrap_or("/dev/zconsole").into(),
        uuid: config.attr("uuid").map(str::to_owned),
    })
}

impl Machine {
    /// The number of virtual processors, where the text is one that bhyve takes.
    ///
    /// # Errors
    /// What bhyve says.
    pub fn cpus(&self) -> Result<u32, String> {
        let wrong = || format!("invalid cpu topology '{}'", self.vcpus);
        let (mut cpus, mut product) = (None, 1u32);
        for part in self.vcpus.split(',') {
            let (name, number) = part.split_once('=').unwrap_or(("cpus", part));
            let number: u32 = number.parse().map_err(|_| wrong())?;
            match name {
                "cpus" => cpus = Some(number),
                "sockets" | "cores" | "threads" => product = product.saturating_mul(number),
                _ => return Err(wrong()),
            }
        }
        let whole = cpus.unwrap_or(product);
        let fits = (1..=32).contains(&whole) && (!self.vcpus.contains("s=") || product == 1 || product == whole);
        if fits { Ok(whole) } else { Err(wrong()) }
    }

    /// Bytes of memory: a bare number below 2^20 counts megabytes.
    ///
    /// # Errors
    /// What bhyve says.
    pub fn memory(&self) -> Result<u64, String> {
        let wrong = || format!("invalid memsize '{}'", self.ram);
        let bytes = crate::program::zfs::parse_number(&self.ram)
            .filter(|bytes| *bytes > 0)
            .ok_or_else(wrong)?;
        let bare = self.ram.bytes().all(|b| b.is_ascii_digit());
        Ok(if bare && bytes < 1 << 20 { bytes << 20 } else { bytes })
    }

    /// The command line that the hook writes to its log.
    #[must_use]
    pub fn argv(&self, uuid: &str) -> Vec<String> {
        let vars = if self.uefivars { ",/etc/uefivars" } else { "" };
        let mut argv: Vec<String> = [
            "/usr/sbin/bhyve",
            "-U",
            self.uuid.as_deref().unwrap_or(uuid),
            "-H",
            "-B",
            "1,manufacturer=OmniOS,product=OmniOS HVM,version=1.0,serial=,sku=001,family=Virtual Machine",
            "-c",
        ]
        .map(str::to_owned)
        .to_vec();
        argv.extend([self.vcpus.clone(), "-m".into(), self.ram.clone()]);
        argv.extend([
            "-l".into(),
            format!("bootrom,{}{vars}", self.bootrom),
            "-s".into(),
            "1,lpc".into(),
        ]);
        argv.extend(["-l".into(), format!("com1,{}", self.console)]);
        for disk in &self.disks {
            let options: String = disk.options.iter().map(|option| format!(",{option}")).collect();
            argv.extend([
                "-s".into(),
                format!("{},{},{}{options}", disk.slot, disk.interface, disk.path),
            ]);
        }
        for nic in &self.nics {
            argv.extend(["-s".into(), format!("{},{},{}", nic.slot, nic.interface, nic.vnic)]);
        }
        if self.rng {
            argv.extend(["-s".into(), "10:0,virtio-rnd".into()]);
        }
        argv.push(self.name.clone());
        argv
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zonecfg::{Resource, Value};

    fn config(attrs: &[(&str, &str)]) -> Config {
        let mut config = Config::template("z", "bhyve").unwrap();
        for (name, value) in attrs {
            let mut attr = Resource::new("attr");
            for (property, text) in [("name", *name), ("type", "string"), ("value", *value)] {
                attr.set(property, Value::Simple(text.into()), false).unwrap();
            }
            config.add(attr).unwrap();
        }
        config
    }

    #[test]
    fn attributes_become_slots() {
        let made = machine(&config(&[
            ("bootrom", "BHYVE_RELEASE"),
            ("bootdisk", "rpool/z,nocache"),
            ("disk1", "/seed.img,ro"),
            ("cdrom", "/x.iso"),
            ("vcpu", "8"),
            ("rng", "on"),
            ("ram", "2048"),
        ]))
        .unwrap();
        let argv = made.argv("u").join(" ");
        for part in [
            "-c 1 -m 2048",
            "bootrom,/usr/share/bhyve/firmware/BHYVE_RELEASE.fd,/etc/uefivars",
            "-s 4:0,virtio-blk,/dev/zvol/rdsk/rpool/z,nocache",
            "-s 5:1,virtio-blk,/seed.img,ro",
            "-s 3:0,ahci-cd,/x.iso,ro",
            "-s 10:0,virtio-rnd z",
        ] {
            assert!(argv.contains(part), "{part}: {argv}");
        }
        assert_eq!(made.memory(), Ok(2 << 30));
        assert_eq!(made.cpus(), Ok(1));
    }

    #[test]
    fn the_hook_refuses_what_it_checks() {
        let said = |attrs: &[(&str, &str)]| machine(&config(attrs)).unwrap_err();
        assert_eq!(said(&[("bootrom", "NONE")]), "bootrom NONE not found.");
        assert_eq!(
            said(&[("rng", "maybe")]),
            "Invalid value maybe for boolean variable rng"
        );
        let vcpus = |text: &str| machine(&config(&[("vcpus", text)])).unwrap().cpus();
        assert_eq!(vcpus("cpus=4,sockets=1,cores=4,threads=1"), Ok(4));
        assert!(vcpus("cpus=4,sockets=1,cores=3").is_err());
        assert!(vcpus("33").is_err() && vcpus("two").is_err());
    }
}
