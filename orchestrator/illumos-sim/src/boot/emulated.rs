//! A real guest: an emulator with the disks, links and processors that the zone's configuration gives. The
//! commands only leave an order; zoneadmd's part that outlives them, the [`super::keeper`], carries it out.

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
    brand::Disk,
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

/// The emulator's process.
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

/// The command line of a machine, but for what only its keeper knows: how it is spoken to.
fn command(host: &Host, machine: &Machine) -> Result<Vec<String>, String> {
    let real = host.state.real.as_ref().ok_or("no kernel is known")?;
    let entry = index::find(host, &machine.name).map_err(|error| error.to_string())?;
    let zonepath = entry.ok_or("no such zone")?.zonepath;
    // A comma ends an option's value.
    let quoted = |path: &Path| path.display().to_string().replace(',', ",,");
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
    for (number, disk) in machine.disks.iter().enumerate() {
        if disk.interface != "virtio-blk" {
            return Err(format!("{} is not emulated", disk.interface));
        }
        let readonly = if disk.options.iter().any(|option| option == "ro") {
            ",readonly=on"
        } else {
            ""
        };
        let path = quoted(&place(host, &zonepath, disk));
        argv.extend([
            "-drive".into(),
            // A full pool is the guest's to hear of, as from bhyve; the emulator would stop it and wait for room.
            format!(
                "if=none,id=disk{number},file={path},format=raw,cache=unsafe,werror=report,rerror=report{readonly}"
            ),
            "-device".into(),
            format!("virtio-blk-pci,drive=disk{number}"),
        ]);
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
                "{device},netdev=net{number},mac={},host_mtu={},romfile=",
                link.mac,
                host.state.mtu(&nic.vnic)
            ),
        ]);
    }
    if machine.rng {
        argv.extend(["-device".into(), "virtio-rng-pci".into()]);
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
