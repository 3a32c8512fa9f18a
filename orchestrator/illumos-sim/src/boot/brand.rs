//! The boot hook of the bhyve brand: attributes in, one virtual machine out. An attribute it does not
//! know is ignored without a word, as the real one does.

use std::fs;

use crate::{host::Host, zonecfg::Config};

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
    /// The SMBIOS UUID: an attribute's, else that of the zone, which its install wrote down.
    pub uuid: Option<String>,
    /// The SMBIOS serial number.
    pub serial: String,
    /// What `cloud-init` asks for.
    pub seed: Seed,
}

/// Where a guest finds its first configuration, if the brand is to give it one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seed {
    /// Nowhere: the default.
    None,
    /// On a CD that the hook makes; with a file's content as its user data, where one is named.
    Made(Option<String>),
    /// Behind this URL.
    Url(String),
}

/// Models of a host bridge that bhyve knows.
const HOSTBRIDGES: &[&str] = &["i440fx", "amd", "netapp", "q35", "none"];

/// Where named firmware lies.
const FIRMWARE_DIR: &str = "/usr/share/bhyve/firmware";

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

/// The firmware's file, which must be there.
fn firmware(host: &Host, config: &Config) -> Result<String, String> {
    let named = config.attr("bootrom").unwrap_or("BHYVE_RELEASE_CSM");
    let path = if named.starts_with('/') {
        named.to_owned()
    } else {
        format!("{FIRMWARE_DIR}/{}.fd", named.trim_end_matches(".fd"))
    };
    if host.path(&path).is_file() {
        Ok(path)
    } else {
        Err(format!("bootrom {named} not found."))
    }
}

/// What `cloud-init` says.
fn seed(config: &Config) -> Seed {
    match config.attr("cloud-init") {
        None | Some("false" | "no" | "off" | "0") => Seed::None,
        Some(url) if url.starts_with("http://") || url.starts_with("https://") => Seed::Url(url.to_owned()),
        Some(text) => Seed::Made(text.starts_with('/').then(|| text.to_owned())),
    }
}

/// Whether the firmware without variables is to look at the disk first, as far as it can be told to.
fn disk_first(config: &Config) -> Result<bool, String> {
    let order = match config.attr("bootorder") {
        None | Some("cd") => "path0,bootdisk,cdrom0",
        Some("dc") => "cdrom0,path0,bootdisk",
        Some(order) => order,
    };
    for option in order.split(',').filter(|option| option.starts_with("net")) {
        if let Some((card, protocol)) = option.split_once('=').filter(|(_, p)| !["pxe", "http"].contains(p)) {
            return Err(format!("Invalid protocol '{protocol}' for '{card}'"));
        }
    }
    Ok(order.starts_with("bootdisk"))
}

/// What the hook makes of a configuration.
///
/// # Errors
/// The sentence it fails with.
pub fn machine(host: &Host, config: &Config) -> Result<Machine, String> {
    for name in ["acpi", "memreserve", "xhci"] {
        boolean(config, name, false)?;
    }
    let bridge = config.attr("hostbridge").unwrap_or("i440fx");
    if !HOSTBRIDGES.contains(&bridge) {
        return Err(format!("Could not parse configuration: hostbridge {bridge}"));
    }
    let bootrom = firmware(host, config)?;
    let uefivars = boolean(config, "uefivars", true)? && !bootrom.contains("_CSM");
    let cdrom_slot = if disk_first(config)? && !uefivars { 7 } else { 3 };
    let etc = host.path(&config.zonepath).join("root/etc");
    // What the real hook does where there is neither is not among the facts; here there is none then.
    let uuid = config.attr("uuid").map(str::to_owned).or_else(|| {
        let text = fs::read_to_string(etc.join("uuid")).ok()?;
        Some(text.trim().to_owned()).filter(|uuid| !uuid.is_empty())
    });
    let known = uuid.clone().unwrap_or_default();
    let seed = seed(config);
    let serial = match &seed {
        Seed::None => String::new(),
        Seed::Made(_) => format!("ds=nocloud;i={known}"),
        Seed::Url(url) => format!("ds=nocloud-net;s={url};i={known}"),
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
            let mut cd = disk(format!("{cdrom_slot}:{n}"), "ahci-cd", text);
            cd.options = vec!["ro".into()];
            disks.push(cd);
        }
    }
    if let Seed::Made(_) = seed {
        disks.push(disk("29:0".into(), "ahci-cd", "/cloud-init.iso,ro,ser=CLOUD-INIT-0"));
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
        uefivars,
        bootrom,
        nics: nics.collect(),
        disks,
        rng: boolean(config, "rng", false)?,
        console: config.attr("console").unwrap_or("/dev/zconsole").into(),
        uuid,
        serial,
        seed,
    })
}

/// What the hook puts into the zone's root before bhyve starts.
///
/// # Errors
/// The sentence it fails with.
pub fn furnish(host: &Host, config: &Config, machine: &Machine) -> Result<(), String> {
    let broken = |error: std::io::Error| format!("I/O error of the simulator: {error}");
    let root = host.path(&config.zonepath).join("root");
    let vars = root.join("etc/uefivars");
    // The guest's own settings: kept from boot to boot.
    if machine.uefivars && !vars.exists() {
        let template = format!("{FIRMWARE_DIR}/BHYVE_VARS.fd");
        if !host.path(&template).is_file() {
            return Err(format!("Could not find template UEFI variables file at {template}"));
        }
        fs::copy(host.path(&template), vars).map_err(broken)?;
    }
    if let Seed::Made(file) = &machine.seed {
        let user = match file {
            Some(file) => fs::read_to_string(host.given(file)).map_err(|error| format!("{file}: {error}"))?,
            None => format!("#cloud-config\ndisable_root: false\nhostname: {}\n", config.name),
        };
        let uuid = machine.uuid.as_deref().unwrap_or_default();
        let meta = format!("instance-id: {uuid}\nlocal-hostname: {}\n", config.name);
        // What is on the CD; the CD itself has no content, for no guest that has one is emulated.
        for (name, text) in [
            ("cloud-init/meta-data", meta.as_str()),
            ("cloud-init/user-data", &user),
            ("cloud-init.iso", ""),
        ] {
            crate::files::replace(&root.join(name), text.as_bytes()).map_err(broken)?;
        }
    }
    Ok(())
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
    pub fn argv(&self) -> Vec<String> {
        let vars = if self.uefivars { ",/etc/uefivars" } else { "" };
        let mut argv = vec!["/usr/sbin/bhyve".to_owned()];
        if let Some(uuid) = &self.uuid {
            argv.extend(["-U".into(), uuid.clone()]);
        }
        let system = format!(
            "1,manufacturer=OmniOS,product=OmniOS HVM,version=1.0,serial={},sku=001,family=Virtual Machine",
            self.serial
        );
        argv.extend(["-H".into(), "-B".into(), system, "-c".into()]);
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
    use crate::{
        program::testing::Bed,
        zonecfg::{Resource, Value},
    };

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

    fn made(attrs: &[(&str, &str)]) -> Result<Machine, String> {
        let bed = Bed::new();
        bed.sim.mutate(|host| machine(host, &config(attrs))).unwrap()
    }

    #[test]
    fn attributes_become_slots() {
        let made = made(&[
            ("bootrom", "BHYVE_RELEASE"),
            ("bootdisk", "rpool/z,nocache"),
            ("disk1", "/seed.img,ro"),
            ("cdrom", "/x.iso"),
            ("vcpu", "8"),
            ("rng", "on"),
            ("ram", "2048"),
        ])
        .unwrap();
        let argv = made.argv().join(" ");
        for part in [
            "/usr/sbin/bhyve -H ",
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
    fn a_seed_is_a_cd_or_an_address() {
        let argv = |value: &str| {
            let made = made(&[("cloud-init", value), ("uuid", "u")]).unwrap();
            made.argv().join(" ")
        };
        for value in ["on", "/root/user-data"] {
            let argv = argv(value);
            assert!(
                argv.contains("-s 29:0,ahci-cd,/cloud-init.iso,ro,ser=CLOUD-INIT-0"),
                "{argv}"
            );
            assert!(
                argv.contains("-U u ") && argv.contains("serial=ds=nocloud;i=u,"),
                "{argv}"
            );
        }
        let url = argv("http://10.0.0.1/x/");
        assert!(
            url.contains("serial=ds=nocloud-net;s=http://10.0.0.1/x/;i=u,") && !url.contains("29:0"),
            "{url}"
        );
        assert!(argv("off").contains("serial=,"));
    }

    #[test]
    fn a_disk_goes_before_the_cd_where_the_firmware_keeps_no_order() {
        let slot = |bootrom: &str, order: &str| {
            let attrs = [("bootrom", bootrom), ("bootorder", order), ("cdrom", "/x.iso")];
            made(&attrs).unwrap().disks[0].slot.clone()
        };
        assert_eq!(slot("BHYVE_RELEASE_CSM", "bootdisk,cdrom0"), "7:0");
        assert_eq!(slot("BHYVE_RELEASE", "bootdisk,cdrom0"), "3:0");
        assert_eq!(slot("BHYVE_RELEASE_CSM", "dc"), "3:0");
        assert_eq!(slot("BHYVE_RELEASE_CSM", "cd"), "3:0");
    }

    #[test]
    fn the_hook_refuses_what_it_checks() {
        let said = |name: &str, value: &str| made(&[(name, value)]).unwrap_err();
        assert_eq!(said("bootrom", "NONE"), "bootrom NONE not found.");
        assert_eq!(said("bootrom", "/tmp/none.fd"), "bootrom /tmp/none.fd not found.");
        made(&[("bootrom", "/usr/share/bhyve/firmware/BHYVE.fd")]).unwrap();
        assert_eq!(said("rng", "maybe"), "Invalid value maybe for boolean variable rng");
        assert!(said("hostbridge", "i440").contains("hostbridge i440"));
        assert_eq!(said("bootorder", "disk,net1=ftp"), "Invalid protocol 'ftp' for 'net1'");
        let vcpus = |text: &str| made(&[("vcpus", text)]).unwrap().cpus();
        assert_eq!(vcpus("cpus=4,sockets=1,cores=4,threads=1"), Ok(4));
        assert!(vcpus("cpus=4,sockets=1,cores=3").is_err());
        assert!(vcpus("33").is_err() && vcpus("two").is_err());
    }
}
