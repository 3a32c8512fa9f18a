//! bhyvectl(8), and pkill(1) where it does not help. A machine is never asked to halt first: zoneadm waits half
//! an hour for a guest that does not listen, and killing zoneadm cancels nothing.

use std::time::Duration;

use super::{CommandError, judge};
use crate::{
    exec::{Cmd, Output},
    machine::zone::owned::Owned,
    model::names::MachineName,
};

/// Ends the virtual machine at once.
#[must_use]
pub fn power_off(zone: &Owned<MachineName>) -> Cmd {
    bhyvectl(zone, "--force-poweroff")
}

/// Frees a virtual machine that outlived its bhyve, and with it its memory.
#[must_use]
pub fn destroy(zone: &Owned<MachineName>) -> Cmd {
    bhyvectl(zone, "--destroy")
}

fn bhyvectl(name: &MachineName, act: &str) -> Cmd {
    Cmd::new("/usr/sbin/bhyvectl")
        .arg(format!("--vm={name}"))
        .arg(act)
        .deadline(Duration::from_secs(30))
}

/// Judges a command that prints nothing.
///
/// # Errors
/// When it failed, which may only mean that there was no such machine: the caller inspects it.
pub fn done(output: &Output) -> Result<(), CommandError> {
    judge(output, &[]).map(drop)
}

/// Kills bhyve inside its zone.
#[must_use]
pub fn kill(zone: &Owned<MachineName>) -> Cmd {
    Cmd::new("/usr/bin/pkill")
        .args(["-9", "-z"])
        .arg(zone.as_str())
        .arg("bhyve")
        .deadline(Duration::from_secs(30))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_what_the_manual_says() {
        let name: MachineName = "hci-01k9zk6x0f5t3b8w2q7m4d1c0e".parse().unwrap();
        let zone = Owned::assumed(name.clone());
        let shown = |cmd: Cmd| cmd.to_string().replace(name.as_str(), "Z");
        assert_eq!(shown(power_off(&zone)), "/usr/sbin/bhyvectl --vm=Z --force-poweroff");
        assert_eq!(shown(destroy(&zone)), "/usr/sbin/bhyvectl --vm=Z --destroy");
        assert_eq!(shown(kill(&zone)), "/usr/bin/pkill -9 -z Z bhyve");
    }
}
