//! bhyvectl(8), and pkill(1) where it does not help. A machine is never asked to halt first: zoneadm waits half
//! an hour for a guest that does not listen, and killing zoneadm cancels nothing.

use std::time::Duration;

use crate::{exec::Cmd, model::names::MachineName};

/// Ends the virtual machine at once.
#[must_use]
pub fn power_off(name: &MachineName) -> Cmd {
    bhyvectl(name, "--force-poweroff")
}

/// Frees a virtual machine that outlived its bhyve, and with it its memory.
#[must_use]
pub fn destroy(name: &MachineName) -> Cmd {
    bhyvectl(name, "--destroy")
}

fn bhyvectl(name: &MachineName, act: &str) -> Cmd {
    Cmd::new("/usr/sbin/bhyvectl")
        .arg(format!("--vm={name}"))
        .arg(act)
        .deadline(Duration::from_secs(10))
}

/// Kills bhyve inside its zone.
#[must_use]
pub fn kill(name: &MachineName) -> Cmd {
    Cmd::new("/usr/bin/pkill")
        .args(["-9", "-z"])
        .arg(name.as_str())
        .arg("bhyve")
        .deadline(Duration::from_secs(10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_what_the_manual_says() {
        let name: MachineName = "hci-01k9zk6x0f5t3b8w2q7m4d1c0e".parse().unwrap();
        let shown = |cmd: Cmd| cmd.to_string().replace(name.as_str(), "Z");
        assert_eq!(shown(power_off(&name)), "/usr/sbin/bhyvectl --vm=Z --force-poweroff");
        assert_eq!(shown(destroy(&name)), "/usr/sbin/bhyvectl --vm=Z --destroy");
        assert_eq!(shown(kill(&name)), "/usr/bin/pkill -9 -z Z bhyve");
    }
}
