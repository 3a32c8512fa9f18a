//! A real guest: an emulator with the disks, links and processors that the zone's configuration gives, each device in
//! the PCI slot and function that the brand gives it: a guest that finds no function 0 in a slot sees none of the
//! others, here as under bhyve. The commands only leave an order; zoneadmd's part that outlives them, the [`super::keeper`], carries it out.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    Machine,
    brand::{Disk, RNG, Slot},
    guest::{Guest, Start},
};
use crate::{console, files, host::Host, zonecfg::index};

/// A process that was killed is gone after this long.
const DIES: Duration = Duration::from_secs(10);

/// An emulator for each zone.
#[derive(Debug, Clone, Copy)]
pub struct Emulated;

fn file(dir: &Path, zone: &str, kind: &str) -> PathBuf {
    dir.join("guests").join(format!("{zone}.{kind}"))
}

/// The emulator's command line, a JSON list of words: there from the boot to the halt, as `bhyve.cfg` is.
pub(super) fn order(dir: &Path, zone: &str) -> PathBuf {
    file(dir, zone, "json")
}

pub(super) fn process(dir: &Path, zone: &str) -> PathBuf {
    file(dir, zone, "pid")
}

/// How often the power button was pressed, a byte each.
pub(super) fn buttons(dir: &Path, zone: &str) -> PathBuf {
    file(dir, zone, "button")
}

/// How the emulator calls itself; part of its command line.
pub(super) fn called(zone: &str) -> String {
    format!("guest={zone}")
}

/// Where a disk of the machine lies.
fn place(host: &Host, zonepath: &str, disk: &Disk) -> PathBuf {
    if disk.path.starts_with("/dev/") {
        host.path(&disk.path)
    } else {
        host.path(zonepath).join("root").join(disk.path.trim_start_matches('/'))
    }
}

/// Where a device goes. Any number of functions may share its slot, whether there is a first one or not.
fn plugged(slot: Slot) -> String {
    // The emulator reads both in hexadecimal.
    format!("addr={:x}.{:x},multifunction=on", slot.device, slot.function)
}

/// The options of a disk. A comma ends an option's value, so it is doubled in the file's name.
fn drive(host: &Host, zonepath: &str, disk: &Disk, number: usize) -> Result<[String; 4], String> {
    if disk.interface != "virtio-blk" {
        return Err(format!("{} is not emulated", disk.interface));
    }
    let is_readonly = disk.options.iter().any(|option| option == "ro");
    let readonly = if is_readonly { ",readonly=on" } else { "" };
    let path = place(host, zonepath, disk).display().to_string().replace(',', ",,");
    Ok([
        "-drive".into(),
        // A full pool is the guest's to hear of, as from bhyve; the emulator would stop it and wait for room.
        format!("if=none,id=disk{number},file={path},format=raw,cache=unsafe,werror=report,rerror=report{readonly}"),
        "-device".into(),
        format!("virtio-blk-pci,drive=disk{number},{}", plugged(disk.slot)),
    ])
}

/// The command line of a machine, but for what only its keeper knows: how it is spoken to. The chipset has its own
/// devices in slots 0 and 31 alone.
///
/// # Errors
/// What there is no emulation of, in words.
pub fn command(host: &Host, machine: &Machine) -> Result<Vec<String>, String> {
    let real = host.state.real.as_ref().ok_or("no kernel is known")?;
    let entry = index::find(host, &machine.name).map_err(|error| error.to_string())?;
    let zonepath = entry.ok_or("no such zone")?.zonepath;
    let mut argv: Vec<String> = [
        "-name",
        &called(&machine.name),
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        "-display",
        "none",
        "-machine",
        "q35,accel=tcg,usb=off,vmport=off",
        "-cpu",
        "max",
        "-rtc",
        "base=utc",
        "-smp",
        &machine.cpus()?.to_string(),
        "-m",
        &format!("{}M", machine.memory()? >> 20),
        "-kernel",
        &real.kernel.display().to_string(),
        "-initrd",
        &real.initrd.display().to_string(),
        "-append",
        &real.cmdline,
    ]
    .map(str::to_owned)
    .to_vec();
    for (number, disk) in machine.drives().enumerate() {
        argv.extend(drive(host, &zonepath, disk, number)?);
    }
    for (number, nic) in machine.nics.iter().enumerate() {
        let device = match nic.interface.as_str() {
            "virtio-net-viona" | "virtio-net" => "virtio-net-pci",
            other => return Err(format!("{other} is not emulated")),
        };
        let link = host.state.links.get(&nic.vnic).ok_or("no such link")?;
        argv.extend([
            "-netdev".into(),
            format!("tap,id=net{number},ifname={},script=no,downscript=no", nic.vnic),
            "-device".into(),
            format!(
                "{device},netdev=net{number},mac={},host_mtu={},romfile=,{}",
                link.mac,
                host.state.mtu(&nic.vnic),
                plugged(nic.slot)
            ),
        ]);
    }
    if machine.rng {
        argv.extend(["-device".into(), format!("virtio-rng-pci,{}", plugged(RNG))]);
    }
    Ok(argv)
}

/// Kills the emulator of a zone, and sees it dead: after this it has no file open.
fn end(dir: &Path, zone: &str) -> io::Result<()> {
    let Some(pid) = files::text(&process(dir, zone))?.and_then(|text| text.trim().parse::<i32>().ok()) else {
        return Ok(());
    };
    let cmdline = || fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    // Empty of a dead process that nobody has waited for yet; another process is another's.
    let lives = || String::from_utf8_lossy(&cmdline()).contains(&called(zone));
    let started = Instant::now();
    while lives() {
        if started.elapsed() > DIES {
            return Err(io::Error::other(format!(
                "the emulator of {zone}, process {pid}, does not die"
            )));
        }
        kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

impl Guest for Emulated {
    fn start(&self, host: &mut Host, machine: &Machine) -> Start {
        let written = command(host, machine).and_then(|argv| {
            let text = serde_json::to_vec(&argv).map_err(|error| error.to_string())?;
            let fresh = files::remove(&buttons(&host.dir, &machine.name));
            fresh
                .and_then(|()| files::replace(&order(&host.dir, &machine.name), &text))
                .map_err(|error| error.to_string())
        });
        match written {
            Ok(()) => Start::Running,
            Err(text) => {
                console::print(&host.dir, &machine.name, format!("{text}\r\n").as_bytes()).ok();
                Start::Exited(4)
            }
        }
    }

    /// Presses it; a guest that heeds it goes down some time later.
    fn power_button(&self, host: &Host, zone: &str) -> bool {
        let path = buttons(&host.dir, zone);
        let pressed = files::text(&path).ok().flatten().unwrap_or_default() + "!";
        files::replace(&path, pressed.as_bytes()).ok();
        false
    }

    fn reset(&self, host: &Host, zone: &str) {
        self.end(host, zone);
    }

    fn kill(&self, host: &mut Host, zone: &str) {
        files::remove(&order(&host.dir, zone)).ok();
        self.end(host, zone);
        files::remove(&process(&host.dir, zone)).ok();
        if let Some(zone) = host.state.zones.get_mut(zone) {
            zone.guest = false;
        }
    }
}

impl Emulated {
    #[allow(clippy::unused_self, reason = "beside the trait's methods, which have it")]
    fn end(self, host: &Host, zone: &str) {
        if let Err(error) = end(&host.dir, zone) {
            console::print(&host.dir, zone, format!("{error}\r\n").as_bytes()).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::brand, command};
    use crate::{program::testing::TestHost, state::Real, zonecfg};

    #[test]
    fn devices_are_plugged_in_where_the_brand_puts_them() {
        let fixture = TestHost::new();
        fixture.ok("dladm create-etherstub -t s0");
        fixture.ok("dladm create-vnic -t -l s0 -m 2:8:20:0:0:1 v0");
        let attr = |name: &str, value: &str| {
            format!("add attr\nset name={name}\nset type=string\nset value=\"{value}\"\nend\n")
        };
        let script = format!(
            "create -b\nset brand=bhyve\nset zonepath=/z\nset ip-type=exclusive\nadd net\nset physical=v0\nend\n{}",
            [("bootdisk", "p/z"), ("disk1", "/a,b"), ("disk9", "/c"), ("rng", "on")]
                .map(|(n, v)| attr(n, v))
                .concat()
        );
        let file = fixture.file("z", &script);
        fixture.ok(&format!("zonecfg -z z -f {file}"));
        let argv = |host: &mut crate::host::Host| {
            // For this question only: the kernel's network is not to follow.
            host.state.real = Some(Real {
                kernel: "k".into(),
                initrd: "i".into(),
                cmdline: "quiet".into(),
            });
            let config = zonecfg::load(host, "z").unwrap().unwrap();
            let argv = command(host, &brand::machine(host, &config).unwrap());
            host.state.real = None;
            argv.unwrap()
        };
        let argv = fixture.sim.mutate(argv).unwrap();
        let devices: Vec<&str> = argv
            .windows(2)
            .filter(|pair| pair[0] == "-device")
            .map(|pair| pair[1].as_str())
            .collect();
        assert_eq!(
            devices,
            [
                "virtio-blk-pci,drive=disk0,addr=4.0,multifunction=on",
                "virtio-blk-pci,drive=disk1,addr=5.1,multifunction=on",
                "virtio-blk-pci,drive=disk2,addr=8.1,multifunction=on",
                "virtio-net-pci,netdev=net0,mac=02:08:20:00:00:01,host_mtu=9000,romfile=,addr=6.0,multifunction=on",
                "virtio-rng-pci,addr=a.0,multifunction=on",
            ]
        );
    }
}
