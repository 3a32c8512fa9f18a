//! zoneadm(8) as the `zone` crate writes it, run by our own [`Cmd`]: the crate's own runners have no
//! deadline. Its listing is not used: one unknown state fails the whole list.

use std::{process::Command, time::Duration};

use super::{CommandError, Failure, fields::split, judge};
use crate::{
    exec::{Cmd, Output},
    machine::zone::owned::Owned,
    model::names::MachineName,
};

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
pub fn halt(zone: &Owned<MachineName>) -> Cmd {
    cmd(&zone::Adm::new(zone.as_str()).halt_command(), HALT)
}

/// `zoneadm -z NAME uninstall -F`.
#[must_use]
pub fn uninstall(zone: &Owned<MachineName>) -> Cmd {
    cmd(&zone::Adm::new(zone.as_str()).uninstall_command(true), LONG)
}

/// `zoneadm -z NAME mark -F configured`: where the data of an incomplete zone is gone already.
#[must_use]
pub fn mark_configured(zone: &Owned<MachineName>) -> Cmd {
    let list = zone::Adm::list_command();
    // The crate has no `mark`; its program and wrapper are those of its `list`.
    let program: Vec<_> = list.get_args().take(1).collect();
    Cmd::new(list.get_program())
        .args(program)
        .args(["-z", zone.as_str(), "mark", "-F", "configured"])
        .deadline(LONG)
}

/// Starts the zone's daemon, and with it its console, before the guest says its first word.
#[must_use]
pub fn daemon(name: &MachineName) -> Cmd {
    Cmd::new("/usr/lib/zones/zoneadmd")
        .args(["-z", name.as_str()])
        .deadline(LONG)
}

/// `zoneadm list -cip`.
#[must_use]
pub fn list() -> Cmd {
    cmd(&zone::Adm::list_command(), HALT)
}

/// Where a zone stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It has a configuration.
    Configured,
    /// Its installation or removal was interrupted.
    Incomplete,
    /// It can boot.
    Installed,
    /// Between installed and running.
    Ready,
    /// Its bhyve was started.
    Running,
    /// It is being torn down.
    ShuttingDown,
    /// Its teardown hangs.
    Down,
    /// What this program does not know.
    Other(String),
}

/// One zone of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// Its name.
    pub name: String,
    /// Its state in the kernel, or in the index.
    pub state: State,
    /// The directory of its root and its logs.
    pub zonepath: String,
    /// Its brand.
    pub brand: String,
}

/// Reads what [`list`] printed. A line that is no zone is left out: the list is a sample in any case, and whoever acts reads
/// again.
///
/// # Errors
/// When the command failed.
pub fn zones(output: &Output) -> Result<Vec<Zone>, CommandError> {
    let text = judge(output, WORDS)?;
    Ok(text.lines().filter_map(zone).collect())
}

/// id, name, state, zonepath, uuid, brand, ip-type, and on some systems a debug id.
fn zone(line: &str) -> Option<Zone> {
    let fields = split(line);
    if !(7..=8).contains(&fields.len()) {
        return None;
    }
    let state = match fields[2].as_str() {
        "configured" => State::Configured,
        "incomplete" => State::Incomplete,
        "installed" => State::Installed,
        "ready" => State::Ready,
        "running" => State::Running,
        "shutting_down" => State::ShuttingDown,
        "down" => State::Down,
        other => State::Other(other.to_owned()),
    };
    Some(Zone {
        name: fields[1].clone(),
        state,
        zonepath: fields[3].clone(),
        brand: fields[5].clone(),
    })
}

const WORDS: &[(&str, Failure)] = &[
    ("No such zone configured", Failure::Absent),
    ("is already in state 'configured'", Failure::Absent),
    ("is already installed", Failure::Exists),
    ("another zoneadm may have an operation in progress", Failure::Busy),
    ("uninstall operation is invalid for running zones", Failure::Busy),
    ("unable to destroy zone", Failure::Busy),
    ("unable to unmount file systems in zone", Failure::Busy),
    ("datalinks remain in zone after shutdown", Failure::Busy),
];

/// Judges a command that prints nothing of interest. Exit 0 of a boot is not a guest that lives.
///
/// # Errors
/// What its words mean.
pub fn done(output: &Output) -> Result<(), CommandError> {
    judge(output, WORDS).map(drop)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::machine::zone::command::failed;

    #[test]
    fn the_commands_are_what_the_manual_says() {
        let name: MachineName = "hci-01k9zk6x0f5t3b8w2q7m4d1c0e".parse().unwrap();
        let shown = |cmd: Cmd| cmd.to_string().replace(name.as_str(), "Z");
        assert_eq!(shown(install(&name)), "/usr/bin/pfexec /usr/sbin/zoneadm -z Z install");
        assert_eq!(shown(boot(&name)), "/usr/bin/pfexec /usr/sbin/zoneadm -z Z boot");
        assert_eq!(
            shown(halt(&Owned::assumed(name.clone()))),
            "/usr/bin/pfexec /usr/sbin/zoneadm -z Z halt"
        );
        assert_eq!(
            shown(uninstall(&Owned::assumed(name.clone()))),
            "/usr/bin/pfexec /usr/sbin/zoneadm -z Z uninstall -F"
        );
        assert_eq!(
            shown(mark_configured(&Owned::assumed(name.clone()))),
            "/usr/bin/pfexec /usr/sbin/zoneadm -z Z mark -F configured"
        );
        assert_eq!(shown(daemon(&name)), "/usr/lib/zones/zoneadmd -z Z");
        assert_eq!(list().to_string(), "/usr/bin/pfexec /usr/sbin/zoneadm list -cip");
    }

    #[test]
    fn lists_of_every_distribution_are_read() {
        let mut output = failed("");
        output.code = Some(0);
        output.stdout = b"0:global:running:/::ipkg:shared\n\
            -:hci-42:installed:/zones/hci/hci-42:1b5d-uuid:bhyve:excl:17\n\
            7:hci-43:running:/zones/a\\:b:u:bhyve:excl:\n\
            -:odd:sleeping:/zones/odd::bhyve:excl:\n\
            -:half:down\n"
            .to_vec();
        let zones = zones(&output).unwrap();
        let seen: Vec<_> = zones.iter().map(|zone| (zone.name.as_str(), &zone.state)).collect();
        assert_eq!(
            seen,
            [
                ("global", &State::Running),
                ("hci-42", &State::Installed),
                ("hci-43", &State::Running),
                ("odd", &State::Other("sleeping".into())),
            ]
        );
        assert_eq!(
            (zones[2].zonepath.as_str(), zones[1].brand.as_str()),
            ("/zones/a:b", "bhyve")
        );
    }

    #[test]
    fn words_become_meanings() {
        for (said, failure) in [
            ("zoneadm: x: No such zone configured", Failure::Absent),
            (
                "zoneadm: zone 'x': datalinks remain in zone after shutdown",
                Failure::Busy,
            ),
            (
                "zoneadm: zone 'x': zone is incomplete; uninstall required.",
                Failure::Unknown,
            ),
        ] {
            assert_eq!(done(&failed(said)).unwrap_err().failure, failure, "{said}");
        }
    }

    proptest! {
        #[test]
        fn no_list_breaks_the_reader(text in "(\\PC|\n|:){0,200}") {
            let output = Output { code: Some(0), stdout: text.into_bytes(), ..failed("") };
            zones(&output).unwrap();
        }
    }
}
