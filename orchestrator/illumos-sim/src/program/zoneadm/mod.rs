//! zoneadm(8): the command line, and what the subcommands share.

mod install;
mod list;
mod run;
#[cfg(test)]
mod tests;

use std::io;

use crate::{
    boot::life,
    files,
    host::Host,
    out::{Out, Ran, options},
    state::{Pending, ZoneState},
    zonecfg::{self, Config, index, index::Entry},
};

const USAGE: &str = "usage:\tzoneadm [-z <zone>] [-u <uuid-match>] <subcommand> [args]";

/// One zone that a subcommand is about.
struct Zone {
    entry: Entry,
    config: Config,
    state: ZoneState,
}

/// Runs zoneadm.
///
/// # Errors
/// Usage, and what the subcommand refuses.
pub fn run(host: &mut Host, args: &[String]) -> Ran {
    let usage = |text: &str| Out::usage(format!("zoneadm: {text}\n{USAGE}"));
    let options = options(args, "z:u:R:").map_err(|text| usage(&text))?;
    if options.has('R') || options.has('u') {
        return Err(usage("-R and -u are not simulated"));
    }
    let Some((verb, rest)) = options.rest.split_first() else {
        return Err(usage("a subcommand is needed"));
    };
    let rest: Vec<String> = rest.iter().map(|word| (*word).to_owned()).collect();
    if *verb == "list" {
        let said = list::list(host, options.value('z'), &rest);
        life::settle(host).map_err(broken)?;
        return said;
    }
    let Some(name) = options.value('z') else {
        return Err(usage(&format!("{verb} needs a zone")));
    };
    if name == "global" {
        return Err(no(name, &format!("{verb} operation is invalid for the global zone.")));
    }
    if locks(verb) && locked(host, name) {
        host.waiting = true;
        return Ok(Out::silent());
    }
    let busy = |act: &Pending| asks(&act.args).is_some_and(|(zone, _)| zone == name);
    if asks(args).is_some() && host.state.pending.iter().any(busy) {
        host.waiting = true;
        return Ok(Out::silent());
    }
    let zone = find(host, name)?;
    match *verb {
        "install" => install::install(host, &zone, &rest),
        "uninstall" => install::uninstall(host, &zone, &rest),
        "mark" => install::mark(host, &zone, &rest),
        "verify" => install::verify(host, &zone).map(|()| Out::silent()),
        "boot" => run::boot(host, &zone, &rest),
        "halt" => run::halt(host, &zone, &rest),
        "reboot" => run::reboot(host, &zone, &rest),
        "shutdown" => run::shutdown(host, &zone, &rest),
        other => Err(usage(&format!("unknown subcommand '{other}'"))),
    }
}

/// Whether a subcommand holds the zone's lock while it runs.
fn locks(verb: &str) -> bool {
    matches!(verb, "install" | "uninstall" | "mark" | "boot")
}

/// The zone whose lock these arguments take.
#[must_use]
pub fn lock_of(args: &[String]) -> Option<&str> {
    match args {
        [z, name, verb, ..] if z == "-z" && locks(verb) => Some(name),
        _ => None,
    }
}

/// The zone and verb of what zoneadm only asks zoneadmd to do.
fn asks(args: &[String]) -> Option<(&str, &str)> {
    match args {
        [z, name, verb, ..] if z == "-z" && ["boot", "halt", "reboot", "shutdown"].contains(&verb.as_str()) => {
            Some((name, verb))
        }
        _ => None,
    }
}

/// Whether zoneadmd does this act, and goes on with it without its client.
#[must_use]
pub fn is_daemons(program: &str, args: &[String]) -> bool {
    program == "zoneadm" && asks(args).is_some()
}

/// zoneadmd goes on with what killed clients have asked for.
pub fn go_on(host: &mut Host) {
    for mut act in std::mem::take(&mut host.state.pending) {
        if act.after > 0 {
            act.after -= 1;
            host.state.pending.push(act);
            continue;
        }
        let left = std::mem::take(&mut host.state.pending);
        // Nobody hears how it ended.
        let _said = run(host, &act.args);
        host.state.pending = left;
        if std::mem::take(&mut host.waiting) {
            host.state.pending.push(act);
        }
    }
}

/// Whether another zoneadm, one that hangs, holds the zone's lock: whoever comes waits without limit.
fn locked(host: &mut Host, name: &str) -> bool {
    let Some(pid) = host.state.locks.get(name) else {
        return false;
    };
    let alive = *pid != std::process::id()
        && std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    if !alive {
        host.state.locks.remove(name);
    }
    alive
}

/// zoneadmd, started by hand: it makes its door and stays in the background.
///
/// # Errors
/// Usage, or a zone that has no daemon.
pub fn daemon(host: &mut Host, args: &[String]) -> Ran {
    let usage = || Out::usage("Usage: zoneadmd -z zonename");
    let options = options(args, "z:R:").map_err(|_| usage())?;
    let name = options
        .value('z')
        .filter(|_| options.rest.is_empty())
        .ok_or_else(usage)?;
    let known = index::find(host, name).map_err(broken)?;
    let Some(entry) = known else {
        return Err(Out::error(format!("zoneadmd: zone '{name}': unknown zone")));
    };
    if entry.state < ZoneState::Installed {
        return Err(Out::error(format!(
            "zoneadmd: zone '{name}': cannot manage a zone which is in state '{}'",
            entry.state.as_str()
        )));
    }
    let door = host.path("/var/run/zones").join(format!("{name}.zoneadmd_door"));
    files::replace(&door, b"").map_err(broken)?;
    Ok(Out::silent())
}

/// `zlogin -C ZONE`: the checks; the connection itself is the binary's matter. Other logins need a shell in
/// the zone, which a bhyve zone has not.
///
/// # Errors
/// Usage, or a zone without a console.
pub fn login(host: &Host, args: &[String]) -> Ran {
    let usage = || Out::usage("usage: zlogin [-dinCEINQS] [-e cmd] [-l user] zone [cmd [args]]");
    let options = options(args, "dinCEINQSe:l:").map_err(|_| usage())?;
    let Some((name, command)) = options.rest.split_first() else {
        return Err(usage());
    };
    if options.has('C') && !command.is_empty() {
        return Err(usage());
    }
    let unknown = || Out::error(format!("zlogin: zone '{name}' unknown"));
    let entry = index::find(host, name).map_err(broken)?.ok_or_else(unknown)?;
    let state = host.state.zones.get(*name).map_or(entry.state, |zone| zone.state);
    if !options.has('C') {
        let text = if state == ZoneState::Running {
            "a shell in a bhyve zone is not simulated".to_owned()
        } else {
            format!("login allowed only to running zones ({name} is '{}').", state.as_str())
        };
        return Err(Out::error(format!("zlogin: {text}")));
    }
    if state < ZoneState::Installed {
        return Err(Out::error(format!(
            "zlogin: cannot login to a zone which is '{}'",
            state.as_str()
        )));
    }
    Ok(Out::silent())
}

fn find(host: &Host, name: &str) -> Result<Zone, Out> {
    let missing = || Out::error(format!("zoneadm: {name}: No such zone configured"));
    let entry = index::find(host, name).map_err(broken)?.ok_or_else(missing)?;
    let config =
        zonecfg::load(host, name).map_err(|_| Out::error(format!("zoneadm: {name}: Bad document property")))?;
    let config = config.ok_or_else(missing)?;
    let state = host.state.zones.get(name).map_or(entry.state, |zone| zone.state);
    Ok(Zone { entry, config, state })
}

fn no(name: &str, text: &str) -> Out {
    Out::error(format!("zoneadm: zone '{name}': {text}"))
}

fn broken(error: io::Error) -> Out {
    Out::error(format!("I/O error of the simulator: {error}"))
}

/// Stores a zone's state.
fn store(host: &Host, zone: &Zone, state: ZoneState, uuid: &str) -> Result<(), Out> {
    index::put(
        host,
        Entry {
            state,
            uuid: uuid.into(),
            ..zone.entry.clone()
        },
    )
    .map_err(broken)
}

/// No operands and no options are expected.
fn nothing(verb: &str, args: &[String]) -> Result<(), Out> {
    if args.is_empty() {
        Ok(())
    } else {
        Err(Out::usage(format!("zoneadm: usage: {verb}")))
    }
}
