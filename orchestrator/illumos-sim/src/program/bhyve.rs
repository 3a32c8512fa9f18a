//! bhyvectl(8) and `pkill -9 -z ZONE bhyve`: the two ways to end a guest at once.

use crate::{
    boot::{
        guest::guest,
        life::{End, ended, forget_vm},
    },
    host::Host,
    out::{Out, Ran, options},
};

fn alive(host: &Host, name: &str) -> bool {
    host.state.zones.get(name).is_some_and(|zone| zone.guest)
}

fn broken(error: std::io::Error) -> Out {
    Out::error(format!("I/O error of the simulator: {error}"))
}

/// `bhyvectl --vm=NAME --force-poweroff | --force-reset | --destroy`.
///
/// # Errors
/// Usage, or no such machine.
pub fn bhyvectl(host: &mut Host, args: &[String]) -> Ran {
    let usage = |text: &str| Out::error(format!("bhyvectl: {text}\nUsage: bhyvectl --vm=<vmname>"));
    let (mut vm, mut acts) = (None, Vec::new());
    let mut words = args.iter().map(String::as_str);
    while let Some(word) = words.next() {
        match word {
            "--vm" => vm = words.next(),
            "--force-poweroff" | "--force-reset" | "--destroy" | "--inject-nmi" => acts.push(word),
            word => match word.strip_prefix("--vm=") {
                Some(name) => vm = Some(name),
                None => return Err(usage(&format!("unrecognized option '{word}'"))),
            },
        }
    }
    let Some(vm) = vm.filter(|vm| !vm.is_empty()) else {
        return Err(usage("a virtual machine must be named"));
    };
    if !host.state.vms.iter().any(|known| known == vm) {
        return Err(Out::error(format!(
            "vm_open: {vm} could not be opened: No such file or directory"
        )));
    }
    for act in acts {
        let lives = alive(host, vm);
        match act {
            "--force-poweroff" if lives => ended(host, vm, End::Code(1)).map_err(broken)?,
            "--force-reset" if lives => ended(host, vm, End::Code(0)).map_err(broken)?,
            "--destroy" => {
                if lives {
                    ended(host, vm, End::Code(4)).map_err(broken)?;
                }
                forget_vm(host, vm).map_err(broken)?;
            }
            _ => {}
        }
    }
    Ok(Out::silent())
}

/// `pkill -SIGNAL -z ZONE bhyve`.
///
/// # Errors
/// Usage; exit 1 without a word when nothing matches.
pub fn pkill(host: &mut Host, args: &[String]) -> Ran {
    let usage = |text: &str| Out::usage(format!("pkill: {text}\nUsage: pkill [-signal] [-fvnoux] ... [pattern]"));
    let (signal, rest) = match args.first().and_then(|word| word.strip_prefix('-')) {
        Some("9" | "KILL" | "SIGKILL") => (9, &args[1..]),
        Some("15" | "TERM" | "SIGTERM") => (15, &args[1..]),
        _ => (15, args),
    };
    let options = options(rest, "xfz:").map_err(|text| usage(&text))?;
    let Some(zones) = options.value('z') else {
        return Err(usage("only zones' processes are simulated"));
    };
    let [pattern] = options.rest.as_slice() else {
        return Err(usage("one pattern wanted"));
    };
    let mut found = false;
    for zone in zones.split(',') {
        if !host.state.zones.contains_key(zone) {
            return Err(usage(&format!("invalid zone name: {zone}")));
        }
        if !alive(host, zone)
            || !(if options.has('x') {
                "bhyve" == *pattern
            } else {
                "bhyve".contains(*pattern)
            })
        {
            continue;
        }
        found = true;
        // The gentle signal is the power button, which this guest may not heed.
        if signal == 9 {
            ended(host, zone, End::Signal(9)).map_err(broken)?;
        } else if guest(host).power_button(host, zone) {
            ended(host, zone, End::Code(1)).map_err(broken)?;
        }
    }
    if found {
        Ok(Out::silent())
    } else {
        Err(Out::silent().code(1))
    }
}
