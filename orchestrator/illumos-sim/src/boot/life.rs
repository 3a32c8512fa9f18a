//! The life of a zone around its guest: network and devices at boot, what bhyve's end means, and what a
//! halt takes away.

use std::{
    fs, io,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    Machine, Start,
    brand::{self, Disk},
    guest::guest,
};
use crate::{
    console, files,
    host::Host,
    state::{KernelZone, ZoneState},
    zonecfg::{Config, index::Entry},
};

/// The threads that bhyve needs beside one for each virtual processor.
const THREADS: u64 = 20;

/// How bhyve came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With this exit code: 0 reboot, 1 power-off, 2 halt, 3 triple fault, 4 error.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// Boots an installed zone. Lines for standard error, and whether it runs.
///
/// # Errors
/// The lines that zoneadmd says when it fails.
pub fn boot(host: &mut Host, entry: &Entry, config: &Config) -> Result<String, String> {
    let name = &config.name;
    if let Some(text) = host.faults.quirks(name).boot_error {
        return Err(text);
    }
    let zone_log = host.path(&entry.zonepath).join("log/zone.log");
    let machine = brand::machine(host, config).and_then(|machine| {
        machine.check()?;
        brand::furnish(host, config, &machine)?;
        Ok(machine)
    });
    let machine = machine.map_err(|text| {
        // The hook writes its last word there too.
        match files::replace(&zone_log, format!("ERROR:root:{text}\n").as_bytes()) {
            Ok(()) => text,
            Err(error) => broken(error),
        }
    })?;
    for (vnic, all) in &machine.promiscuous {
        if let Some(link) = host.state.links.get_mut(vnic) {
            let filtered = if *all { "off" } else { "on" };
            link.props.insert("promisc-filtered".into(), vec![filtered.into()]);
        }
    }
    let (taken, said) = attach_links(host, config)?;
    console::notice(host, name, "Zone booting up").map_err(broken)?;
    let id = host.state.take_number();
    let volumes = machine
        .drives()
        .filter_map(|disk| disk.path.strip_prefix("/dev/zvol/rdsk/"));
    let zone = KernelZone {
        id,
        state: ZoneState::Running,
        guest: true,
        starts: 1,
        volumes: volumes.map(str::to_owned).collect(),
        halting_since: None,
        lingers: 0,
        status: 0,
    };
    host.state.zones.insert(name.clone(), zone);
    let root = host.path(&entry.zonepath).join("root");
    let settings = brand::settings(&machine);
    let written = files::replace(&root.join("tmp/init.log"), b"")
        .and_then(|()| files::replace(&root.join("etc/bhyve.cfg"), settings.as_bytes()))
        .and_then(|()| files::replace(&zone_log, machine.log.text().as_bytes()));
    written.map_err(broken)?;
    let end = match refusal(host, entry, config, &machine, &taken) {
        Some(text) => {
            let log = files::replace(&root.join("tmp/init.log"), format!("{text}\n").as_bytes());
            log.map_err(broken)?;
            Some(4)
        }
        None => {
            host.state.vms.push(name.clone());
            host.state.vms.dedup();
            let node = files::replace(&host.path("/dev/vmm").join(name), b"");
            node.map_err(broken)?;
            match guest(host).start(host, &machine) {
                Start::Running => None,
                Start::Exited(code) => Some(code),
            }
        }
    };
    if let Some(code) = end {
        dies(host, name, i64::from(code) * 256).map_err(broken)?;
    }
    Ok(said)
}

fn broken(error: io::Error) -> String {
    format!("I/O error of the simulator: {error}")
}

/// Gives a zone its links. Returns their names, and zoneadmd's warnings of links that others have.
fn attach_links(host: &mut Host, config: &Config) -> Result<(Vec<String>, String), String> {
    let name = &config.name;
    let mut said = String::new();
    let mut taken = Vec::new();
    for net in config.of("net") {
        let physical = net.get("physical").to_owned();
        let plumbed = host.state.interfaces.contains_key(&physical);
        let allowed = net.get("allowed-address").to_owned();
        let Some(link) = host.state.links.get_mut(&physical) else {
            return Err("failed to add network device".into());
        };
        if plumbed {
            said += &format!("WARNING: skipping network interface '{physical}' which is used in the global zone\n");
            continue;
        }
        if let Some(other) = link.zone.as_ref().filter(|other| *other != name) {
            said += &format!("WARNING: skipping network interface '{physical}' which is used in the zone {other}\n");
            continue;
        }
        if !allowed.is_empty() {
            for (property, text) in [
                ("protection", "Protection is already set"),
                ("allowed-ips", "allowed-ips is already set"),
            ] {
                if !link.prop(property).is_empty() {
                    return Err(format!("{text}\nfailed to add address"));
                }
            }
            let addresses = allowed
                .split(',')
                .map(|a| format!("{}/32", a.split('/').next().unwrap_or(a)));
            link.props.insert("protection".into(), vec!["ip-nospoof".into()]);
            link.props.insert("allowed-ips".into(), addresses.collect());
        }
        taken.push(physical);
    }
    for physical in &taken {
        if let Some(link) = host.state.links.get_mut(physical) {
            link.zone = Some(name.clone());
        }
    }
    Ok((taken, said))
}

/// Why bhyve ends at its start, with code 4.
fn refusal(host: &Host, entry: &Entry, config: &Config, machine: &Machine, links: &[String]) -> Option<String> {
    let cpus = match (machine.cpus(), machine.memory()) {
        (Ok(cpus), Ok(_)) => cpus,
        (Err(text), _) | (_, Err(text)) => return Some(text),
    };
    // Firmware that is named with its folder is not looked for before.
    if !host.path(&machine.bootrom).is_file() {
        return Some(format!(
            "Error opening bootrom \"{}\": No such file or directory",
            machine.bootrom
        ));
    }
    if let Err(text) = machine.bridge_known() {
        return Some(text);
    }
    if config
        .limit("zone.max-lwps")
        .is_some_and(|limit| limit < u64::from(cpus) + THREADS)
    {
        return Some("pthread_create: Resource temporarily unavailable".into());
    }
    for disk in machine.drives() {
        if let Some(text) = unreadable(host, entry, config, disk) {
            return Some(text);
        }
    }
    machine
        .nics
        .iter()
        .find(|nic| !links.contains(&nic.vnic))
        .map(|nic| format!("could not open link {}: No such file or directory", nic.vnic))
}

fn unreadable(host: &Host, entry: &Entry, config: &Config, disk: &Disk) -> Option<String> {
    const KNOWN: &[&str] = &["nocache", "ro", "direct", "nodelete"];
    let knows = |option: &String| {
        KNOWN.contains(&option.as_str())
            || ["ser=", "serial=", "sectorsize="]
                .iter()
                .any(|start| option.starts_with(start))
    };
    if let Some(option) = disk.options.iter().find(|option| !knows(option)) {
        return Some(format!("Invalid device emulation option {option}"));
    }
    let there = if disk.path.starts_with("/dev/") {
        config
            .of("device")
            .any(|device| matches_glob(device.get("match"), &disk.path))
            && host.path(&disk.path).exists()
    } else {
        let path = host
            .path(&entry.zonepath)
            .join("root")
            .join(disk.path.trim_start_matches('/'));
        fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file())
    };
    (!there).then(|| format!("Could not open backing file: {}: No such file or directory", disk.path))
}

/// Shell-like matching with `*` and `?`.
fn matches_glob(pattern: &str, text: &str) -> bool {
    match (pattern.chars().next(), text.chars().next()) {
        (None, None) => true,
        (Some('*'), _) => {
            matches_glob(&pattern[1..], text)
                || text
                    .chars()
                    .next()
                    .is_some_and(|c| matches_glob(pattern, &text[c.len_utf8()..]))
        }
        (Some('?'), Some(c)) => matches_glob(&pattern[1..], &text[c.len_utf8()..]),
        (Some(p), Some(c)) if p == c => matches_glob(&pattern[p.len_utf8()..], &text[c.len_utf8()..]),
        _ => false,
    }
}

/// bhyve ended: a reboot starts it again in place, anything else halts the zone.
///
/// # Errors
/// The simulator's files.
pub fn ended(host: &mut Host, name: &str, end: End) -> io::Result<()> {
    match end {
        End::Code(0) => {
            if let Some(zone) = host.state.zones.get_mut(name) {
                zone.starts += 1;
            }
            guest(host).reset(host, name);
            Ok(())
        }
        End::Code(code) => goes_down(host, name, i64::from(code) * 256),
        End::Signal(signal) => goes_down(host, name, i64::from(signal)),
    }
}

/// bhyve could not start, and its zone is still shown as running for a while.
fn dies(host: &mut Host, name: &str, status: i64) -> io::Result<()> {
    let late = host.faults.quirks(name).deathbed();
    if late == 0 {
        return goes_down(host, name, status);
    }
    if let Some(zone) = host.state.zones.get_mut(name) {
        (zone.guest, zone.lingers, zone.status) = (false, late, status);
    }
    Ok(())
}

/// The kernel halts the zone: at once, or while some listings still show it on its way.
fn goes_down(host: &mut Host, name: &str, status: i64) -> io::Result<()> {
    let lingers = host.faults.quirks(name).lingers;
    if lingers == 0 {
        return teardown(host, name, status);
    }
    guest(host).kill(host, name);
    if let Some(zone) = host.state.zones.get_mut(name) {
        zone.state = ZoneState::ShuttingDown;
        zone.lingers = lingers;
        zone.status = status;
    }
    Ok(())
}

/// One listing has gone by.
///
/// # Errors
/// The simulator's files.
pub fn settle(host: &mut Host) -> io::Result<()> {
    let mut down = Vec::new();
    for (name, zone) in host.state.zones.iter_mut().filter(|(_, zone)| zone.lingers > 0) {
        zone.lingers -= 1;
        if zone.lingers == 0 {
            down.push((name.clone(), zone.status, zone.state));
        }
    }
    down.into_iter().try_for_each(|(name, status, state)| match state {
        ZoneState::Running => goes_down(host, &name, status),
        _ => teardown(host, &name, status),
    })
}

/// Takes a zone down to installed: its links come back without protection and allowed addresses, its
/// volumes are closed, `lastexited` says how it ended (−1: by zoneadm).
///
/// # Errors
/// The simulator's files.
pub fn teardown(host: &mut Host, name: &str, status: i64) -> io::Result<()> {
    guest(host).kill(host, name);
    if host.state.zones.contains_key(name) {
        console::notice(host, name, "Zone halted")?;
    }
    let Some(zone) = host.state.zones.remove(name) else {
        return Ok(());
    };
    for link in host
        .state
        .links
        .values_mut()
        .filter(|link| link.zone.as_deref() == Some(name))
    {
        link.zone = None;
        link.props.remove("protection");
        link.props.remove("allowed-ips");
    }
    for volume in &zone.volumes {
        if let Some(dataset) = host.state.datasets.get_mut(volume) {
            dataset.busy = host.faults.busy_after_close;
        }
    }
    if !host.faults.quirks(name).leaves_vm {
        forget_vm(host, name)?;
    }
    let Some(entry) = crate::zonecfg::index::find(host, name)? else {
        return Ok(());
    };
    let path = host.path(&entry.zonepath);
    if path.is_dir() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // The microseconds are not padded: so it is written by zoneadmd.
        let line = format!("{}.{} {status}\n", now.as_secs(), now.subsec_micros());
        files::replace(&path.join("lastexited"), line.as_bytes())?;
    }
    Ok(())
}

/// Removes a virtual machine from vmm.
///
/// # Errors
/// The simulator's files.
pub fn forget_vm(host: &mut Host, name: &str) -> io::Result<()> {
    host.state.vms.retain(|vm| vm != name);
    files::remove(&host.path("/dev/vmm").join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_like_the_shell() {
        assert!(matches_glob("/dev/zvol/rdsk/rpool/z", "/dev/zvol/rdsk/rpool/z"));
        assert!(matches_glob("/dev/zvol/rdsk/*", "/dev/zvol/rdsk/rpool/z"));
        assert!(matches_glob("/dev/z?ol*", "/dev/zvol"));
        assert!(!matches_glob("/dev/zvol/dsk/*", "/dev/zvol/rdsk/rpool/z"));
        assert!(!matches_glob("/dev/zvol/rdsk/rpool/z1", "/dev/zvol/rdsk/rpool/z"));
    }
}
