//! zonecfg(8).

use std::{path::Path, time::Duration};

use super::{CommandError, Failure, judge};
use crate::{
    exec::{Cmd, Output},
    machine::zone::owned::Owned,
    model::names::MachineName,
};

const DEADLINE: Duration = Duration::from_secs(30);

const WORDS: &[(&str, Failure)] = &[
    ("No such zone configured", Failure::Absent),
    ("Zone exists", Failure::Exists),
    ("already installed", Failure::Exists),
    ("Zone state is invalid for the requested operation", Failure::Busy),
];

/// `zonecfg -z NAME -f FILE`: quoting survives, and nothing stands in `ps`. Whatever it says, part of the file may be
/// committed when it fails: the zone is read again.
#[must_use]
pub fn configure(name: &MachineName, file: &Path) -> Cmd {
    Cmd::new("/usr/sbin/zonecfg")
        .arg("-z")
        .arg(name.as_str())
        .arg("-f")
        .arg(file)
        .deadline(DEADLINE)
}

/// `zonecfg -z NAME delete -F`, by the `zone` crate: only in state configured; of an installed zone it orphans the
/// dataset.
#[must_use]
pub fn delete(zone: &Owned<MachineName>) -> Cmd {
    let command = zone::Config::new(zone.as_str()).delete(true).as_command();
    Cmd::new(command.get_program())
        .args(command.get_args())
        .deadline(DEADLINE)
}

/// `zonecfg -z NAME export`: what the host has.
#[must_use]
pub fn export(name: &MachineName) -> Cmd {
    Cmd::new("/usr/sbin/zonecfg")
        .arg("-z")
        .arg(name.as_str())
        .arg("export")
        .deadline(DEADLINE)
}

/// What [`export`] printed. `None` when there is no such zone.
///
/// # Errors
/// When it failed otherwise.
pub fn exported(output: &Output) -> Result<Option<String>, CommandError> {
    match judge(output, WORDS) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.is_absent() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Judges a command that prints nothing.
///
/// # Errors
/// What its words mean.
pub fn done(output: &Output) -> Result<(), CommandError> {
    judge(output, WORDS).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::zone::command::failed;

    #[test]
    fn the_commands_are_what_the_manual_says() {
        let name: MachineName = "hci-01k9zk6x0f5t3b8w2q7m4d1c0e".parse().unwrap();
        let shown = |cmd: Cmd| cmd.to_string().replace(name.as_str(), "Z");
        assert_eq!(shown(configure(&name, Path::new("/f"))), "/usr/sbin/zonecfg -z Z -f /f");
        assert_eq!(shown(export(&name)), "/usr/sbin/zonecfg -z Z export");
        assert_eq!(
            shown(delete(&Owned::assumed(name.clone()))),
            "/usr/bin/pfexec /usr/sbin/zonecfg -z Z delete -F"
        );
    }

    #[test]
    fn words_become_meanings() {
        for (said, failure) in [
            ("x: No such zone configured", Failure::Absent),
            (
                "Zone exists, input not from terminal and -F not specified:\ncreate command ignored, exiting.",
                Failure::Exists,
            ),
            ("x: Zone state is invalid for the requested operation", Failure::Busy),
            ("syntax error at 'x'", Failure::Unknown),
        ] {
            assert_eq!(done(&failed(said)).unwrap_err().failure, failure, "{said}");
        }
    }
}
