//! Terminals: zlogin wants one at the console, and tests give it one.

use std::{io, os::fd::AsFd};

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

/// A new terminal: the end that a person types at, and the one that a program has as its standard input. What is
/// typed and not read yet is lost when the person's end is closed.
///
/// # Errors
/// The system has none left.
#[cfg(target_os = "linux")]
pub fn open() -> io::Result<(std::fs::File, std::fs::File)> {
    use std::os::unix::fs::OpenOptionsExt;

    use nix::{
        fcntl::OFlag,
        pty::{grantpt, posix_openpt, ptsname_r, unlockpt},
    };

    // No process that is started meanwhile may inherit the person's end: it would never be closed.
    let person = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)?;
    grantpt(&person)?;
    unlockpt(&person)?;
    let keyboard = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_NOCTTY.bits())
        .open(ptsname_r(&person)?)?;
    Ok((std::os::fd::OwnedFd::from(person).into(), keyboard))
}

/// Standard input as a terminal that passes every byte on at once, until this is dropped.
#[derive(Debug)]
pub struct Raw(Termios);

impl Raw {
    /// Begins.
    ///
    /// # Errors
    /// The sentences of zlogin where standard input is no terminal.
    pub fn begin() -> Result<Self, String> {
        let stdin = io::stdin();
        let said = |errno: nix::Error| {
            let why = errno.desc();
            format!("failed to get user terminal settings: {why}\nzlogin: failed to set stdin pty to raw mode: {why}")
        };
        let before = tcgetattr(stdin.as_fd()).map_err(said)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(stdin.as_fd(), SetArg::TCSADRAIN, &raw).map_err(said)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Whoever hung up has nothing to be restored.
        tcsetattr(io::stdin().as_fd(), SetArg::TCSADRAIN, &self.0).ok();
    }
}
