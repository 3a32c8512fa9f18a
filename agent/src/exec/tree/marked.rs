//! Step trees without cgroups: whoever is in the leader's session or group, or carries the step's
//! marker in its environment, found in `/proc`.

use std::{
    ffi::OsString,
    fs, io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use nix::{libc, sys::signal::Signal, unistd::Pid};

/// The marker's name. Children inherit it; nobody has to know it.
const VARIABLE: &str = "HELIOS_EXEC";

/// One step.
#[derive(Debug)]
pub struct Marked {
    value: String,
    leader: Option<Pid>,
}

impl Marked {
    pub(super) fn new(key: &str, exec_id: u64) -> Self {
        Self {
            value: format!("{key}:{exec_id}"),
            leader: None,
        }
    }

    pub(super) fn variable(&self) -> (OsString, OsString) {
        (VARIABLE.into(), OsString::from(&self.value))
    }

    #[allow(clippy::unnecessary_wraps)] // One of the kinds of tree.
    pub(super) fn rooted(&mut self, leader: Pid) -> io::Result<()> {
        self.leader = Some(leader);
        Ok(())
    }

    /// From now on only the marker tells: the number of the leader, and so of its group and session, may come to
    /// another process.
    pub(super) fn unroot(&mut self) {
        self.leader = None;
    }

    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        self.each(|process| process.signal(signal))?;
        Ok(())
    }

    /// Process ids; zombies are not among them.
    pub(super) fn members(&self) -> io::Result<Vec<i32>> {
        self.each(|_| Ok(()))
    }

    /// Calls `act` for each living member and returns their process ids.
    fn each(&self, act: impl Fn(&Process) -> io::Result<()>) -> io::Result<Vec<i32>> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // Held before it is looked at, so that the one that is signalled is the one that was
            // looked at, even when its number is given to another meanwhile.
            let Some(process) = Process::open(pid) else { continue };
            if self.is_member(pid) {
                act(&process)?;
                found.push(pid);
            }
        }
        Ok(found)
    }

    fn is_member(&self, pid: i32) -> bool {
        let Some(stat) = fs::read_to_string(format!("/proc/{pid}/stat"))
            .ok()
            .and_then(|text| Stat::parse(&text))
        else {
            return false;
        };
        if matches!(stat.state, 'Z' | 'X') {
            return false;
        }
        let leader = self.leader.map(Pid::as_raw);
        if Some(stat.group) == leader || Some(stat.session) == leader {
            return true;
        }
        let marker = format!("{VARIABLE}={}", self.value);
        // Unreadable: it is another user's, which only a set-user-id program of the step could be,
        // and then the session tells.
        fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environment| {
            environment
                .split(|byte| *byte == 0)
                .any(|entry| entry == marker.as_bytes())
        })
    }
}

/// A process that stays the same one however long it is held.
struct Process(OwnedFd);

impl Process {
    fn open(pid: i32) -> Option<Self> {
        // SAFETY: pidfd_open takes two integers and touches no memory of ours.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
        // SAFETY: the call has just made this descriptor and nobody else knows it.
        Some(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        let no_info = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: the descriptor is open, and a null siginfo is allowed.
        let result = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.0.as_raw_fd(),
                signal as i32,
                no_info,
                0,
            )
        };
        match io::Error::last_os_error() {
            _ if result == 0 => Ok(()),
            error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            error => Err(error),
        }
    }
}

/// What of `/proc/PID/stat` is of interest.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    state: char,
    group: i32,
    session: i32,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The second field is the program's name in parentheses, which may hold anything.
        let (_, rest) = text.rsplit_once(") ")?;
        let mut fields = rest.split(' ');
        let state = fields.next()?.chars().next()?;
        let _parent = fields.next()?;
        Some(Self {
            state,
            group: fields.next()?.parse().ok()?,
            session: fields.next()?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_survives_names_made_to_confuse() {
        let wanted = Stat {
            state: 'S',
            group: 12,
            session: 11,
        };
        assert_eq!(Stat::parse("14 (sh) S 1 12 11 0 -1 4194304"), Some(wanted));
        let wanted = Stat {
            state: 'R',
            group: 5,
            session: 6,
        };
        assert_eq!(Stat::parse("14 (a) Z 1 2 3 (b) R 4 5 6 0"), Some(wanted));
        assert_eq!(Stat::parse(""), None);
        assert_eq!(Stat::parse("14 (sh) S"), None);
    }
}
