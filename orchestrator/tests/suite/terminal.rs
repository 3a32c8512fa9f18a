//! A terminal for the programs of one test.

use std::{fs::File, os::fd::OwnedFd};

/// The end that a person has, and the one that programs have. Both are closed on exec from the first moment on: a daemon
/// that a test beside this one has just forked would keep the terminal open.
#[cfg(target_os = "linux")]
pub fn open() -> (File, OwnedFd) {
    use std::os::unix::fs::OpenOptionsExt;

    use nix::{
        fcntl::OFlag,
        pty::{grantpt, posix_openpt, ptsname_r, unlockpt},
    };

    let person = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).expect("a terminal");
    grantpt(&person).expect("a terminal");
    unlockpt(&person).expect("a terminal");
    let programs = File::options()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_NOCTTY.bits())
        .open(ptsname_r(&person).expect("its name"));
    (
        File::from(OwnedFd::from(person)),
        OwnedFd::from(programs.expect("its other end")),
    )
}

/// As above, but for that: no safe call names the other end.
#[cfg(not(target_os = "linux"))]
pub fn open() -> (File, OwnedFd) {
    let pair = nix::pty::openpty(None, None).expect("a terminal");
    (File::from(pair.master), pair.slave)
}
