//! The boot hook of the bhyve brand: attributes in, one virtual machine out. An attribute it does not
//! know is ignored without a word, as the real one does.

mod argv;
mod devices;
mod furnish;
mod log;
mod options;
#[cfg(test)]
mod tests;
mod words;

use std::{collections::BTreeMap, fs};

pub use argv::{configuration, settings};
pub use devices::{Disk, Nic, RNG, Slot};
pub use furnish::furnish;
pub use log::Log;
pub use options::Options;

use crate::{host::Host, zonecfg::Config};

/// Which brand a host has. What each release knows was seen in its own branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// r151054, and the stable releases up to r151058.
    R151054,
    /// The development branch of August 2026, and what is made of it later: `bootdiskif`, and `com2` and `com3`.
    Master,
}

impl Release {
    /// The brand of a host whose `uname -v` says this.
    #[must_use]
    pub fn of(version: &str) -> Self {
        let name = version.strip_prefix("omnios-").unwrap_or(version);
        let name = name.split('-').next().unwrap_or_default();
        let number = name.strip_prefix('r').and_then(|number| number.parse::<u32>().ok());
        if name == "master" || number.is_some_and(|number| number >= 151_059) {
            Self::Master
        } else {
            Self::R151054
        }
    }
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
    pub bootrom: String,
    /// Whether the firmware keeps its variables in `/etc/uefivars`.
    pub uefivars: bool,
    /// Whether processor registers that bhyve does not know are ignored.
    pub ignores_registers: bool,
    /// What the host bridge is told: `model=i440fx`; none without one.
    pub hostbridge: Option<String>,
    /// The slot of the bridge to the serial ports and the firmware.
    pub lpc: u8,
    /// What the first serial port is connected to.
    pub console: String,
    /// Other serial ports by their number.
    pub serials: Vec<(u8, String)>,
    /// The CD that the hook makes itself.
    pub seed_cd: Option<Disk>,
    pub cds: Vec<Disk>,
    /// Whether their slot comes after the disks': firmware without an order is to look at those first.
    pub late_cds: bool,
    /// Disks, the one to boot from first.
    pub disks: Vec<Disk>,
    pub nics: Vec<Nic>,
    /// Links by whether they are to see all that goes by.
    pub promiscuous: BTreeMap<String, bool>,
    pub display: Option<String>,
    /// Whether the display has a tablet.
    pub tablet: bool,
    /// What a client of the display has to know.
    pub password: Option<String>,
    /// Devices of the host by their function.
    pub passthrough: BTreeMap<u32, String>,
    /// Shared folders: `name=path`, by their function.
    pub shares: Vec<(u8, String)>,
    /// Whether there is a random device.
    pub rng: bool,
    /// Settings of bhyve that options switch on.
    pub settings: Vec<&'static str>,
    /// More words for bhyve.
    pub extra: Vec<String>,
    /// The SMBIOS UUID: an attribute's, else that of the zone, which its install wrote down, else a new one.
    pub uuid: Option<String>,
    /// The SMBIOS serial number.
    pub serial: String,
    /// What `cloud-init` asks for.
    pub seed: Seed,
    /// What the firmware may boot from, by its name in `bootorder`: kind and place.
    pub boot_options: Vec<(String, (&'static str, String))>,
    /// The options all of this was made of.
    pub options: Options,
    /// What the hook said on the way.
    pub log: Log,
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
const HOSTBRIDGES: &[&str] = &["i440fx", "amd", "netapp", "q35"];

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

/// The firmware's file. Only one that is named without its folder is looked for.
fn firmware(host: &Host, named: &str) -> Result<String, String> {
    if named.starts_with('/') {
        return Ok(named.to_owned());
    }
    let suffix = if named.ends_with(".fd") { "" } else { ".fd" };
    let path = format!("{FIRMWARE_DIR}/{named}{suffix}");
    if host.path(&path).is_file() {
        Ok(path)
    } else {
        Err(format!("bootrom {named} not found."))
    }
}

/// The zone's UUID: what its install wrote down, else one that is new at each boot.
fn identity(host: &Host, config: &Config, log: &mut Log) -> Result<String, String> {
    let unreadable = |error: std::io::Error| format!("Could not read zone UUID file: {error}");
    let file = host.path(&config.zonepath).join("root/etc/uuid");
    match fs::read_to_string(file) {
        Ok(text) => {
            log.info(format!("Read zone UUID: {}", text.trim()));
            Ok(text.trim().to_owned())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let fresh = fs::read_to_string("/proc/sys/kernel/random/uuid").map_err(unreadable)?;
            log.info(format!("Generated UUID: {}", fresh.trim()));
            Ok(fresh.trim().to_owned())
        }
        Err(error) => Err(unreadable(error)),
    }
}

/// What `cloud-init` says: the seed, its CD, and the SMBIOS serial number that tells the guest of it.
fn seed(options: &Options, uuid: &str) -> (Seed, Option<Disk>, String) {
    let text = options.get("cloud-init");
    if options::truth(text) == Some(false) {
        (Seed::None, None, uuid.to_owned())
    } else if text.starts_with("http://") || text.starts_with("https://") {
        let serial = format!("ds=nocloud-net;s={text};i={uuid}");
        (Seed::Url(text.to_owned()), None, serial)
    } else {
        let place = Slot::of(devices::SEED, 0);
        let cd = Disk::new(place, "ahci-cd".into(), "/cloud-init.iso,ro,ser=CLOUD-INIT-0");
        let made = Seed::Made(text.starts_with('/').then(|| text.to_owned()));
        (made, Some(cd), format!("ds=nocloud;i={uuid}"))
    }
}

/// Settings of bhyve that have a boolean of their own.
fn switches(options: &Options) -> Result<Vec<&'static str>, String> {
    let mut settings = Vec::new();
    for (option, setting) in [
        ("priv.debug", "privileges.debug=true"),
        ("debug.persist", "debug.persist=true"),
        ("memreserve", "memory.use_reservoir=true"),
    ] {
        settings.extend(options.boolean(option)?.then_some(setting));
    }
    Ok(settings)
}

fn hostbridge(options: &Options) -> Option<String> {
    match options.get("hostbridge") {
        "" | "none" => None,
        text if text.contains('=') => Some(text.to_owned()),
        model => Some(format!("model={model}")),
    }
}

/// Everything that a boot order can name.
fn boot_options(
    cds: &[Disk],
    boot: Option<&Disk>,
    disks: &[(u8, Disk)],
    nics: &[Nic],
) -> Vec<(String, (&'static str, String))> {
    let mut list = vec![("shell".to_owned(), ("app", furnish::SHELL.to_owned()))];
    let mut add = |kind: &str, number: Option<usize>, slot: Slot| {
        let place = ("pci", slot.dotted());
        let name = number.map_or_else(|| kind.to_owned(), |number| format!("{kind}{number}"));
        list.push((name, place.clone()));
        if number == Some(0) {
            list.push((kind.to_owned(), place));
        }
    };
    cds.iter()
        .for_each(|cd| add("cdrom", Some(cd.slot.function.into()), cd.slot));
    boot.into_iter().for_each(|disk| add("bootdisk", None, disk.slot));
    disks
        .iter()
        .for_each(|(number, disk)| add("disk", Some((*number).into()), disk.slot));
    nics.iter()
        .enumerate()
        .for_each(|(number, nic)| add("net", Some(number), nic.slot));
    list
}

/// What the hook makes of a configuration, in its own order: the first thing it refuses is what it says. Next it has
/// bhyve read the command line: [`Machine::check`].
///
/// # Errors
/// The sentence it fails with.
pub fn machine(host: &Host, config: &Config) -> Result<Machine, String> {
    let mut log = Log::new();
    let release = Release::of(&host.state.version);
    log.info(format!("Zone name: {}", config.name));
    let mut options = Options::read(config, &mut log);
    if options.boolean("memreserve")? {
        // The host's reservoir is not simulated.
        options::reservable(options.get("ram"))?;
    }
    let windows = options.get("type") == "windows";
    if windows {
        log.info("Adjusting LPC PCI slot for windows");
    }
    let bootrom = firmware(host, options.get("bootrom"))?;
    log.debug(format!("Final bootrom: {bootrom}"));
    let uefivars = options.boolean("uefivars")? && !bootrom.contains("_CSM");
    // Firmware that keeps no order looks at the slots one after the other.
    let late_cds = !uefivars && options.get("bootorder").starts_with("bootdisk") && !windows;
    let uuid = match options.get("uuid") {
        "" => identity(host, config, &mut log)?,
        given => given.to_owned(),
    };
    log.debug(format!("Final uuid: {uuid}"));
    let (seed, seed_cd, serial) = seed(&options, &uuid);
    if seed_cd.is_some() {
        log.info("Generating cloud-init data");
    }
    let openbsd = options.get("type") == "openbsd";
    if openbsd {
        log.info("Ignoring unknown MSRs for OpenBSD");
    }
    let serials = serials(release, config, &mut log)?;
    let cd_slot = if late_cds { devices::LATE_CD } else { devices::CD };
    let cds = devices::cds(config, cd_slot, &mut log)?;
    let boot_disk = devices::boot_disk(release, config, &options);
    let disks = devices::disks(config, &options, &mut log)?;
    let (nics, promiscuous) = devices::nics(host, config, &options, &mut log)?;
    let boot_options = boot_options(&cds, boot_disk.as_ref(), &disks, &nics);
    let disks = disks.into_iter().map(|(_, disk)| disk);
    let disks: Vec<Disk> = boot_disk.into_iter().chain(disks).collect();
    let display = options.display();
    let tablet = display.is_some() && options.boolean("xhci")?;
    let (display, password) = display.unzip();
    let passthrough = devices::passthrough(config, &mut log)?;
    let shares = devices::shares(config, &mut log)?;
    let rng = options.boolean("rng")?;
    let settings = switches(&options)?;
    let extra = extra(config, &mut log)?;
    let mut machine = Machine {
        name: config.name.clone(),
        vcpus: options.get("vcpus").into(),
        ram: options.get("ram").into(),
        bootrom,
        uefivars,
        ignores_registers: openbsd,
        hostbridge: hostbridge(&options),
        lpc: if windows { devices::LATE_LPC } else { devices::LPC },
        console: options.get("console").into(),
        serials,
        seed_cd,
        cds,
        late_cds,
        disks,
        nics,
        promiscuous,
        display: display.map(|display| format!("vga={},{display}", options.get("vga"))),
        tablet,
        password: password.flatten(),
        passthrough,
        shares,
        rng,
        settings,
        extra,
        uuid: Some(uuid).filter(|uuid| !uuid.is_empty()),
        serial,
        seed,
        boot_options,
        options,
        log,
    };
    machine.log_end();
    Ok(machine)
}

/// The serial ports beside the console's, by number.
fn serials(release: Release, config: &Config, log: &mut Log) -> Result<Vec<(u8, String)>, String> {
    if release != Release::Master {
        return Ok(Vec::new());
    }
    let found = devices::numbered(config, "com", 4, true, log)?;
    // The first is the console's, and there is none before it.
    Ok(found.into_iter().filter(|(number, _)| *number > 1).collect())
}

/// The words of bhyve's command line that the attributes `extra` add.
fn extra(config: &Config, log: &mut Log) -> Result<Vec<String>, String> {
    let mut extra = Vec::new();
    for text in devices::numbered(config, "extra", 16, true, log)?.values() {
        extra.extend(words::split(text)?);
    }
    Ok(extra)
}

impl Machine {
    /// Every disk and CD.
    pub fn drives(&self) -> impl Iterator<Item = &Disk> {
        self.seed_cd.iter().chain(&self.cds).chain(&self.disks)
    }

    /// The slot of each kind of device.
    #[must_use]
    pub fn slots(&self) -> BTreeMap<&'static str, u8> {
        let cd = if self.late_cds { devices::LATE_CD } else { devices::CD };
        BTreeMap::from([
            ("hostbridge", devices::HOSTBRIDGE),
            ("lpc", self.lpc),
            ("cdrom", cd),
            ("bootdisk", devices::BOOT_DISK),
            ("disk", devices::DISK),
            ("net", devices::NET),
            ("ppt", devices::PASSTHROUGH),
            ("rng", RNG.device),
            ("virtfs", devices::SHARE),
            ("cloudinit", devices::SEED),
            ("vnc", devices::DISPLAY),
        ])
    }

    /// The model of host bridge that bhyve will not know.
    ///
    /// # Errors
    /// What bhyve says at its start.
    pub fn bridge_known(&self) -> Result<(), String> {
        let model = self.hostbridge.iter().flat_map(|text| text.split(','));
        let mut model = model.filter_map(|part| part.strip_prefix("model="));
        match model.find(|model| !HOSTBRIDGES.contains(model)) {
            None => Ok(()),
            Some(model) => Err(format!("bhyve: pci_hostbridge: invalid model '{model}'")),
        }
    }

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
}
