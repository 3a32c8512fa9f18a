//! The command line, and what bhyve makes of it before it starts anything.

use std::collections::{BTreeMap, BTreeSet};

use super::{Disk, Machine, devices, log};

/// Devices that bhyve emulates.
const EMULATIONS: &[&str] = &[
    "ahci",
    "ahci-cd",
    "ahci-hd",
    "amd_hostbridge",
    "e1000",
    "fbuf",
    "hda",
    "hostbridge",
    "lpc",
    "nvme",
    "passthru",
    "uart",
    "virtio-9p",
    "virtio-blk",
    "virtio-console",
    "virtio-input",
    "virtio-net",
    "virtio-net-viona",
    "virtio-rnd",
    "virtio-scsi",
    "xhci",
];

fn drive(disk: &Disk) -> String {
    let options: String = disk.options.iter().map(|option| format!(",{option}")).collect();
    format!("{},{},{}{options}", disk.slot, disk.interface, disk.path)
}

/// A command line in the making.
struct Line(Vec<String>);

impl Line {
    fn flag(&mut self, flag: &str, is_set: bool) {
        self.0.extend(is_set.then(|| flag.to_owned()));
    }

    fn option(&mut self, option: &str, value: impl Into<String>) {
        self.0.extend([option.to_owned(), value.into()]);
    }

    fn device(&mut self, devices: impl IntoIterator<Item = String>) {
        devices.into_iter().for_each(|device| self.option("-s", device));
    }
}

impl Machine {
    /// The command line with which the hook has bhyve check its options and print its configuration.
    #[must_use]
    pub fn argv(&self) -> Vec<String> {
        let mut line = Line(vec!["/usr/sbin/bhyve".to_owned()]);
        line.device(self.seed_cd.iter().map(drive));
        line.flag("-w", self.ignores_registers);
        self.uuid.iter().for_each(|uuid| line.option("-U", uuid.as_str()));
        line.flag("-H", true);
        let system = format!(
            "1,manufacturer=OmniOS,product=OmniOS HVM,version=1.0,serial={},sku=001,family=Virtual Machine",
            self.serial
        );
        line.option("-B", system);
        line.option("-c", self.vcpus.as_str());
        line.option("-m", self.ram.as_str());
        let vars = if self.uefivars { ",/etc/uefivars" } else { "" };
        line.option("-l", format!("bootrom,{}{vars}", self.bootrom));
        let bridge = self.hostbridge.iter();
        line.device(bridge.map(|bridge| format!("{},hostbridge,{bridge}", devices::HOSTBRIDGE)));
        line.device([format!("{},lpc", self.lpc)]);
        for (number, text) in &self.serials {
            line.option("-l", format!("com{number},{text}"));
        }
        line.option("-l", format!("com1,{}", self.console));
        line.device(self.cds.iter().chain(&self.disks).map(drive));
        line.device(self.nics.iter().map(|nic| {
            let options: String = nic.options.iter().map(|option| format!(",{option}")).collect();
            format!("{},{},{}{options}", nic.slot, nic.interface, nic.vnic)
        }));
        let display = self.display.iter();
        line.device(display.map(|display| format!("{}:0,fbuf,{display}", devices::DISPLAY)));
        line.device(self.tablet.then(|| format!("{}:1,xhci,tablet", devices::DISPLAY)));
        // A device of the host reaches the guest's memory, which must stay where it is.
        line.flag("-S", !self.passthrough.is_empty());
        let passed = self.passthrough.iter();
        line.device(passed.map(|(function, name)| format!("{}:{function},passthru,/dev/{name}", devices::PASSTHROUGH)));
        let shares = self.shares.iter();
        line.device(shares.map(|(number, share)| format!("{}:{number},virtio-9p,{share}", devices::SHARE)));
        line.device(self.rng.then(|| format!("{},virtio-rnd", devices::RNG)));
        self.settings.iter().for_each(|setting| line.option("-o", *setting));
        line.0.extend(self.extra.iter().cloned());
        line.option("-o", "config.dump=1");
        line.0.push(self.name.clone());
        line.0
    }

    /// What bhyve refuses of the command line when it only reads it.
    ///
    /// # Errors
    /// The hook's sentence with bhyve's.
    pub fn check(&self) -> Result<(), String> {
        let no = |said: String| Err(format!("Could not parse configuration: {said}\n"));
        let argv = self.argv();
        let mut taken = BTreeSet::new();
        for text in given(&argv, "-s") {
            let Some(([bus, slot, function], kind, _)) = device(text) else {
                return no(format!("Invalid PCI slot info field \"{text}\""));
            };
            if !EMULATIONS.contains(&kind) {
                return no(format!("pci slot {bus}:{slot}:{function}: unknown device \"{kind}\""));
            }
            if !taken.insert([bus, slot, function]) {
                return no(format!("pci slot {bus}:{slot}:{function} already occupied!"));
            }
        }
        Ok(())
    }

    /// The last things that the hook says: words and command line.
    pub(super) fn log_end(&mut self) {
        let argv = self.argv();
        self.log
            .debug(format!("Final bootoptions:\n{}", log::places(&self.boot_options)));
        self.log.debug(format!("Final arguments:\n{}", log::words(&argv)));
        let quoted = |word: &String| match word.contains(' ') {
            true => format!("\"{word}\""),
            false => word.clone(),
        };
        self.log.info(argv.iter().map(quoted).collect::<Vec<_>>().join(" "));
    }
}

/// The values of an option.
fn given<'a>(argv: &'a [String], option: &'a str) -> impl Iterator<Item = &'a str> {
    let pairs = argv.windows(2).filter(move |pair| pair[0] == option);
    pairs.map(|pair| pair[1].as_str())
}

/// Bus, slot and function of a device, its kind, and the rest.
fn device(text: &str) -> Option<([u32; 3], &str, &str)> {
    let (place, rest) = text.split_once(',')?;
    let (kind, rest) = rest.split_once(',').unwrap_or((rest, ""));
    let numbers: Option<Vec<u32>> = place.split(':').map(|number| number.parse().ok()).collect();
    let place = match numbers?[..] {
        [slot] => [0, slot, 0],
        [slot, function] => [0, slot, function],
        [bus, slot, function] => [bus, slot, function],
        _ => return None,
    };
    (place[0] < 256 && place[1] < 32 && place[2] < 8).then_some((place, kind, rest))
}

/// The text of a zone's `bhyve.cfg`, which a dry run prints.
#[must_use]
pub fn settings(machine: &Machine) -> String {
    let settings = configuration(&machine.argv()).into_iter();
    let lines: String = settings.map(|(name, value)| format!("{name}={value}\n")).collect();
    let password = machine.password.iter();
    let password: String = password
        .map(|password| format!("pci.0.{}.0.password={password}\n", devices::DISPLAY))
        .collect();
    format!("#\n# Generated from zone configuration\n#\n{lines}{password}")
}

/// The settings that a command line becomes, as far as their names are known: what a zone's `bhyve.cfg` holds.
#[must_use]
pub fn configuration(argv: &[String]) -> BTreeMap<String, String> {
    let mut settings = BTreeMap::new();
    let mut put = |name: String, value: &str| _ = settings.insert(name, value.to_owned());
    for (option, name) in [("-U", "uuid"), ("-c", "cpus"), ("-m", "memory.size")] {
        given(argv, option).for_each(|value| put(name.into(), value));
    }
    for (option, name, value) in [
        ("-H", "x86.vmexit_on_hlt", "true"),
        ("-S", "memory.wired", "true"),
        ("-w", "x86.strictmsr", "false"),
    ] {
        if argv.iter().any(|word| word == option) {
            put(name.into(), value);
        }
    }
    for text in given(argv, "-l") {
        match text.split(',').collect::<Vec<_>>()[..] {
            ["bootrom", file, ref vars @ ..] => {
                put("lpc.bootrom".into(), file);
                vars.iter().for_each(|vars| put("lpc.bootvars".into(), vars));
            }
            [port, ref path @ ..] => put(format!("lpc.{port}.path"), &path.join(",")),
            [] => {}
        }
    }
    for ([bus, slot, function], kind, rest) in given(argv, "-s").filter_map(device) {
        let node = format!("pci.{bus}.{slot}.{function}");
        put(format!("{node}.device"), kind);
        let first = match kind {
            "virtio-net-viona" => "vnic",
            "passthru" => "pptdev",
            _ => "path",
        };
        for (part, at) in rest.split(',').filter(|part| !part.is_empty()).zip(0..) {
            match part.split_once('=') {
                Some((name, value)) => put(format!("{node}.{name}"), value),
                None if at == 0 && part != "tablet" => put(format!("{node}.{first}"), part),
                None => put(format!("{node}.{part}"), "true"),
            }
        }
    }
    for (name, value) in given(argv, "-o").filter_map(|text| text.split_once('=')) {
        // It is what had bhyve print all this.
        if name != "config.dump" {
            put(name.into(), value);
        }
    }
    if let Some(name) = argv.last() {
        put("name".into(), name);
    }
    settings
}
