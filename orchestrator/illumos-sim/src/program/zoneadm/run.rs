//! `boot`, `halt`, `reboot`, `shutdown`.

use super::{Zone, broken, find, install::verify, no, nothing};
use crate::{
    boot::{guest::guest, life},
    console, files,
    host::Host,
    out::{Out, Ran},
    state::{ZoneState, now},
};

/// How long a halt waits for the guest.
const HALT_SECONDS: u64 = 1800;
/// How long a shutdown waits for it.
const SHUTDOWN_SECONDS: u64 = 100;

fn call_failed(name: &str, text: &str) -> Out {
    let lines: String = text.lines().map(|line| format!("zone '{name}': {line}\n")).collect();
    Out {
        stderr: format!("{lines}zoneadm: zone '{name}': call to zoneadmd failed\n"),
        code: 1,
        ..Out::default()
    }
}

pub(super) fn boot(host: &mut Host, zone: &Zone, args: &[String]) -> Ran {
    let name = &zone.config.name;
    nothing("boot", args)?;
    match zone.state {
        ZoneState::Configured | ZoneState::Incomplete => return Err(no(name, "must be installed before boot.")),
        ZoneState::Installed => {}
        ZoneState::Running | ZoneState::Ready => return Ok(no(name, "zone is already booted").code(0)),
        ZoneState::ShuttingDown | ZoneState::Down => return Err(call_failed(name, "zone is shutting down")),
    }
    verify(host, zone)?;
    if !host.path(&zone.entry.zonepath).join("root").is_dir() {
        return Err(no(name, &format!("zonepath {} does not exist.", zone.entry.zonepath)));
    }
    let door = host.path("/var/run/zones").join(format!("{name}.zoneadmd_door"));
    files::replace(&door, b"").map_err(broken)?;
    match life::boot(host, &zone.entry, &zone.config) {
        Ok(said) => Ok(Out {
            stderr: said,
            ..Out::silent()
        }),
        Err(text) => {
            console::notice(host, name, "Zone boot failed").map_err(broken)?;
            life::teardown(host, name, -1).map_err(broken)?;
            Err(call_failed(name, &text))
        }
    }
}

/// Waits for the guest; true when it is gone or the time is over.
fn guest_gone(host: &mut Host, name: &str, seconds: u64) -> bool {
    let Some(zone) = host.state.zones.get(name) else {
        return true;
    };
    if !zone.guest || zone.halting_since.is_some_and(|since| now() >= since + seconds) {
        return true;
    }
    if zone.halting_since.is_none() && guest(host).power_button(host, name) {
        return true;
    }
    if let Some(zone) = host.state.zones.get_mut(name) {
        zone.halting_since.get_or_insert_with(now);
    }
    host.waiting = true;
    false
}

pub(super) fn halt(host: &mut Host, zone: &Zone, args: &[String]) -> Ran {
    let name = &zone.config.name;
    nothing("halt", args)?;
    match zone.state {
        ZoneState::Configured | ZoneState::Incomplete => {
            let state = zone.state.as_str();
            return Err(no(
                name,
                &format!("halt operation is invalid for zones in state '{state}'."),
            ));
        }
        ZoneState::Installed => return Ok(no(name, "zone is already halted").code(0)),
        _ => {}
    }
    if zone.state == ZoneState::Running && !guest_gone(host, name, HALT_SECONDS) {
        return Ok(Out::silent());
    }
    let left = host.faults.quirks(name).halt_leaves;
    let stops = host.stops_here();
    if stops || left.is_some() {
        guest(host).kill(host, name);
        let state = left
            .as_deref()
            .and_then(ZoneState::parse)
            .unwrap_or(ZoneState::ShuttingDown);
        if let Some(zone) = host.state.zones.get_mut(name) {
            zone.state = state;
        }
        return Err(call_failed(name, "unable to destroy zone"));
    }
    life::teardown(host, name, -1).map_err(broken)?;
    Ok(Out::silent())
}

pub(super) fn reboot(host: &mut Host, zone: &Zone, args: &[String]) -> Ran {
    let name = &zone.config.name;
    nothing("reboot", args)?;
    if zone.state != ZoneState::Running {
        return Err(no(name, "not running"));
    }
    if !guest_gone(host, name, HALT_SECONDS) {
        return Ok(Out::silent());
    }
    console::notice(host, name, "Zone rebooting").map_err(broken)?;
    life::teardown(host, name, -1).map_err(broken)?;
    let zone = find(host, name)?;
    boot(host, &zone, &[])
}

pub(super) fn shutdown(host: &mut Host, zone: &Zone, args: &[String]) -> Ran {
    let name = &zone.config.name;
    let again = args == ["-r"];
    nothing("shutdown [-r]", if again { &[] } else { args })?;
    if zone.state != ZoneState::Running {
        return Err(no(name, "not running"));
    }
    if !guest_gone(host, name, SHUTDOWN_SECONDS) {
        return Ok(Out::silent());
    }
    if host
        .state
        .zones
        .get(name)
        .is_some_and(|zone| zone.halting_since.is_some() && zone.guest)
    {
        return Err(no(name, "unable to shutdown zone"));
    }
    life::teardown(host, name, -1).map_err(broken)?;
    let zone = find(host, name)?;
    if again {
        boot(host, &zone, &[])
    } else {
        Ok(Out::silent())
    }
}
