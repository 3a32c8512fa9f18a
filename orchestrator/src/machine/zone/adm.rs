//! zoneadm(8) and zonecfg(8) as the `zone` crate writes them, run by our own [`Cmd`]: the crate's own
//! runners have no deadline. Its emitter is not used for configuration (it splits every value at blanks),
//! nor its listing (one unknown state fails the whole list).

use std::{process::Command, time::Duration};

use crate::{exec::Cmd, model::names::MachineName};

/// Installing, booting and uninstalling: well under a second, unless something hangs.
const LONG: Duration = Duration::from_secs(60);
/// Halting a zone whose bhyve is gone already.
const HALT: Duration = Duration::from_secs(30);

/// Program and arguments; the environment is ours.
fn cmd(command: &Command, deadline: Duration) -> Cmd {
    Cmd::new(command.get_program())
        .args(command.get_args())
        .deadline(deadline)
}

/// `zoneadm -z NAME install`.
#[must_use]
pub fn install(name: &MachineName) -> Cmd {
    cmd(&zone::Adm::new(name).install_command(&[]), LONG)
}

/// `zoneadm -z NAME boot`. Exit 0 means that bhyve was started, not that it lives.
#[must_use]
pub fn boot(name: &MachineName) -> Cmd {
    cmd(&zone::Adm::new(name).boot_command(), LONG)
}

/// `zoneadm -z NAME halt`: only after bhyve was made to end, because it waits half an hour for a guest.
#[must_use]
pub fn halt(name: &MachineName) -> Cmd {
    cmd(&zone::Adm::new(name).halt_command(), HALT)
}

/// `zoneadm -z NAME uninstall -F`.
#[must_use]
pub fn uninstall(name: &MachineName) -> Cmd {
    cmd(&zone::Adm::new(name).uninstall_command(true), LONG)
}

/// `zonecfg -z NAME delete -F`: only in state configured; of an installed zone it orphans the dataset.
#[must_use]
pub fn delete(name: &MachineName) -> Cmd {
    cmd(&zone::Config::new(name).delete(true).as_command(), HALT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_what_the_manual_says() {
        let name: MachineName = "hci-01k9zk6x0f5t3b8w2q7m4d1c0e".parse().unwrap();
        let shown = |cmd: Cmd| cmd.to_string().replace(name.as_str(), "Z");
        assert_eq!(shown(install(&name)), "/usr/bin/pfexec /usr/sbin/zoneadm -z Z install");
        assert_eq!(shown(boot(&name)), "/usr/bin/pfexec /usr/sbin/zoneadm -z Z boot");
        assert_eq!(shown(halt(&name)), "/usr/bin/pfexec /usr/sbin/zoneadm -z Z halt");
        assert_eq!(
            shown(uninstall(&name)),
            "/usr/bin/pfexec /usr/sbin/zoneadm -z Z uninstall -F"
        );
        assert_eq!(shown(delete(&name)), "/usr/bin/pfexec /usr/sbin/zonecfg -z Z delete -F");
    }
}
