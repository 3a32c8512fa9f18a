//! Processes that outlive the daemon and are found again: a process is its id and its start time,
//! so that a reused id is never taken for ours, and everything that belongs to a machine carries
//! the machine's marker in its environment.

use std::io;

use serde::{Deserialize, Serialize};

/// The variable whose value is the machine's directory.
pub const MARKER: &str = "HELIOS_CI_MACHINE";

/// One process, for ever: ids are reused, pairs of id and start time are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Process {
    /// Process id.
    pub pid: i32,
    /// Start time in clock ticks since the host's boot.
    pub start: u64,
}

#[cfg(target_os = "linux")]
pub use linux::{kill_in_cgroup, kill_marked, leader};

#[cfg(target_os = "linux")]
mod linux {
    use std::{
        collections::BTreeSet,
        io,
        os::fd::OwnedFd,
        path::Path,
        time::{Duration, Instant},
    };

    use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
    use tokio::io::{Interest, unix::AsyncFd};

    use super::{super::cgroup::Cgroup, MARKER, Process};

    /// What we need of `/proc/<pid>/stat`.
    struct Stat {
        parent: i32,
        group: i32,
        start: u64,
    }

    /// Parses `/proc/<pid>/stat`; `None` for a zombie, which holds nothing but its exit status. The
    /// name in parentheses is chosen by the process and may contain anything.
    fn parse_stat(text: &str) -> Option<Stat> {
        let rest = text.rsplit_once(')')?.1;
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?;
        let parent = fields.next()?.parse().ok()?;
        let group = fields.next()?.parse().ok()?;
        // Field 22 of the line; three of the fields after the name are taken.
        let start = fields.nth(16)?.parse().ok()?;
        (!matches!(state, "Z" | "X" | "x")).then_some(Stat { parent, group, start })
    }

    fn stat(pid: i32) -> Option<Stat> {
        parse_stat(&String::from_utf8_lossy(
            &std::fs::read(format!("/proc/{pid}/stat")).ok()?,
        ))
    }

    /// The handle of a process, if it is still that process.
    fn open(process: Process) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = Pid::from_raw(process.pid) else {
            return Ok(None);
        };
        let handle = match pidfd_open(pid, PidfdFlags::NONBLOCK) {
            Ok(handle) => handle,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // The handle keeps its process; what is seen now decides whether it is ours.
        Ok(process.is_alive().then_some(handle))
    }

    impl Process {
        /// The process that has this id now.
        #[must_use]
        pub fn of(pid: u32) -> Option<Self> {
            let pid = i32::try_from(pid).ok()?;
            stat(pid).map(|stat| Self { pid, start: stat.start })
        }

        /// Whether it still runs; a zombie does not.
        #[must_use]
        pub fn is_alive(self) -> bool {
            stat(self.pid).is_some_and(|stat| stat.start == self.start)
        }

        /// Ends it as politely as a signal can, together with its process group.
        ///
        /// # Errors
        /// When it may not be signalled. One that is gone is a success.
        pub fn terminate_group(self) -> io::Result<()> {
            let ours = stat(self.pid).is_some_and(|stat| stat.start == self.start && stat.group == self.pid);
            if let Some(pid) = Pid::from_raw(self.pid)
                && ours
            {
                match rustix::process::kill_process_group(pid, Signal::TERM) {
                    Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(())
        }

        /// Kills it.
        ///
        /// # Errors
        /// When it may not be signalled. One that is gone is a success.
        pub fn kill(self) -> io::Result<()> {
            let Some(handle) = open(self)? else { return Ok(()) };
            match pidfd_send_signal(&handle, Signal::KILL) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
                Err(error) => Err(error.into()),
            }
        }

        /// Resolves when it no longer runs.
        ///
        /// # Errors
        /// When the kernel gives no handle on it.
        pub async fn gone(self) -> io::Result<()> {
            let Some(handle) = open(self)? else { return Ok(()) };
            // SAFETY: an `OwnedFd` is a valid descriptor that only its drop closes; the `AsyncFd`
            // owns it, and `as_raw_fd` always names that one.
            let handle = unsafe { AsyncFd::register_with_interest(handle, Interest::READABLE) }?;
            let _ended = handle.readable().await?;
            Ok(())
        }
    }

    fn everybody() -> io::Result<Vec<i32>> {
        let mut pids = Vec::new();
        for entry in std::fs::read_dir("/proc")? {
            if let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) {
                pids.push(pid);
            }
        }
        Ok(pids)
    }

    /// Everything that carries a machine's marker, and who is known to be the machine's without, and all that descends from
    /// those. What was started before `since`, on the clock of [`Process::start`], is not looked at.
    fn marked(dir: &Path, since: u64, known: &BTreeSet<Process>) -> io::Result<Vec<(Process, Stat)>> {
        let mut marker = format!("{MARKER}=").into_bytes();
        marker.extend_from_slice(dir.as_os_str().as_encoded_bytes());
        let mut found: Vec<(Process, Stat)> = Vec::new();
        let mut others = Vec::new();
        for pid in everybody()? {
            let Some(stat) = stat(pid).filter(|stat| stat.start >= since) else {
                continue;
            };
            // Another user's process cannot be read, cannot be ours, and may vanish meanwhile.
            let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let process = Process { pid, start: stat.start };
            if known.contains(&process) || environ.split(|&byte| byte == 0).any(|entry| entry == marker) {
                found.push((process, stat));
            } else {
                others.push((process, stat));
            }
        }
        let mut tree: BTreeSet<i32> = found.iter().map(|(process, _)| process.pid).collect();
        loop {
            let (children, rest): (Vec<_>, Vec<_>) =
                others.into_iter().partition(|(_, stat)| tree.contains(&stat.parent));
            if children.is_empty() {
                return Ok(found);
            }
            tree.extend(children.iter().map(|(process, _)| process.pid));
            found.extend(children);
            others = rest;
        }
    }

    /// The machine's main process where nobody wrote it down: the oldest process group leader that
    /// carries the marker and whose command line has `word` in it.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn leader(dir: &Path, word: &str) -> io::Result<Option<Process>> {
        let mut leaders: Vec<Process> = marked(dir, 0, &BTreeSet::new())?
            .into_iter()
            .filter(|(process, stat)| process.pid == stat.group)
            .map(|(process, _)| process)
            .filter(|process| {
                std::fs::read(format!("/proc/{}/cmdline", process.pid))
                    .is_ok_and(|line| line.split(|&byte| byte == 0).any(|part| part == word.as_bytes()))
            })
            .collect();
        leaders.sort_by_key(|process| (process.start, process.pid));
        Ok(leaders.first().copied())
    }

    /// Kills everything that carries a machine's marker, and `main`, the first of them where it is known, and returns when
    /// all are gone. Reads about every process of the host, twice at least.
    ///
    /// # Errors
    /// When `/proc` cannot be read, a process may not be signalled, or one does not go within the
    /// deadline (it hangs in the kernel).
    pub async fn kill_marked(dir: &Path, main: Option<Process>, deadline: Duration) -> io::Result<()> {
        let since = main.map_or(0, |main| main.start);
        kill_all(|| machines(dir, since, &BTreeSet::new()), main, deadline).await
    }

    /// The processes that [`marked`] finds.
    fn machines(dir: &Path, since: u64, known: &BTreeSet<Process>) -> io::Result<BTreeSet<Process>> {
        let found = marked(dir, since, known)?;
        Ok(found.into_iter().map(|(process, _)| process).collect())
    }

    /// Kills everything in a machine's cgroup, and `main`, who may put more there, and what has left it, and returns when
    /// all are gone.
    ///
    /// Whoever may make a cgroup may leave it, and no file says that somebody has: `systemd-run --scope`, podman, and `su`
    /// where PAM begins a session do. So about every process of the host is read once, as long as all live, since descent
    /// is not known later; and again only where somebody of those is left when the cgroup is empty. Who is born outside
    /// between that reading and the death of its parent, and carries no marker, is missed.
    ///
    /// # Errors
    /// As [`kill_marked`].
    pub async fn kill_in_cgroup(cgroup: &Cgroup, dir: &Path, main: Process, deadline: Duration) -> io::Result<()> {
        let all = machines(dir, main.start, &BTreeSet::new())?;
        kill_all(|| cgroup.kill(), Some(main), deadline).await?;
        let outside: BTreeSet<Process> = all.into_iter().filter(|process| process.is_alive()).collect();
        if outside.is_empty() {
            return Ok(());
        }
        kill_all(|| machines(dir, main.start, &outside), None, deadline).await
    }

    /// Kills what `find` finds, and `main`, until nothing is found.
    async fn kill_all(
        find: impl Fn() -> io::Result<BTreeSet<Process>>,
        main: Option<Process>,
        deadline: Duration,
    ) -> io::Result<()> {
        let until = Instant::now() + deadline;
        loop {
            let mut processes = find()?;
            processes.extend(main.filter(|process| process.is_alive()));
            if processes.is_empty() {
                return Ok(());
            }
            for process in &processes {
                process.kill()?;
            }
            for process in &processes {
                let left = until.saturating_duration_since(Instant::now());
                if tokio::time::timeout(left, process.gone()).await.is_err() {
                    return Err(io::Error::other(format!(
                        "process {} does not end though it was killed; it may hang in the kernel",
                        process.pid
                    )));
                }
            }
            // Somebody may have been born meanwhile: look again until none is left.
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use crate::{deadline, exec::Cmd};

        #[test]
        fn a_process_name_cannot_forge_its_line() {
            let rest: String = (4..=52).map(|field| format!(" {field}")).collect();
            let stat = parse_stat(&format!("7 (a) R 1 2 3 (x) S{rest}")).unwrap();
            assert_eq!((stat.parent, stat.group, stat.start), (4, 5, 22));
            assert!(parse_stat(&format!("7 (a) Z{rest}")).is_none());
            assert!(parse_stat("").is_none() && parse_stat("7 (a)").is_none());
        }

        #[tokio::test]
        async fn marked_trees_are_found_and_killed_whole_and_others_live() {
            let dir = tempfile::tempdir().unwrap();
            let other = tempfile::tempdir().unwrap();
            let start = |dir: &Path| {
                let script = "unset HELIOS_CI_MACHINE; sleep 600 & setsid sleep 600 & wait";
                let cmd = Cmd::new("/bin/sh").args(["-c", script, "word"]).env(MARKER, dir);
                Process::of(cmd.detach(&dir.join("log")).unwrap()).unwrap()
            };
            let (ours, theirs) = (start(dir.path()), start(other.path()));
            assert_eq!(leader(dir.path(), "word").unwrap(), Some(ours));
            assert_eq!(leader(dir.path(), "wor").unwrap(), None);
            kill_marked(dir.path(), Some(ours), deadline::PROMPT).await.unwrap();
            assert!(!ours.is_alive() && theirs.is_alive());
            assert!(machines(dir.path(), 0, &BTreeSet::new()).unwrap().is_empty());
            kill_marked(dir.path(), Some(ours), deadline::PROMPT).await.unwrap();
            kill_marked(other.path(), None, deadline::PROMPT).await.unwrap();
            theirs.gone().await.unwrap();
        }

        #[test]
        fn a_reused_id_is_somebody_else() {
            let me = Process::of(std::process::id()).unwrap();
            assert!(me.is_alive());
            let before = Process {
                start: me.start - 1,
                ..me
            };
            assert!(!before.is_alive());
            before.kill().unwrap();
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod elsewhere {
    use std::{path::Path, time::Duration};

    use super::{super::cgroup::Cgroup, Process, io, unsupported};

    impl Process {
        /// The process that has this id now: never known here.
        #[must_use]
        pub fn of(_pid: u32) -> Option<Self> {
            None
        }

        /// Never known here.
        #[must_use]
        pub fn is_alive(self) -> bool {
            false
        }

        /// # Errors
        /// Always: only Linux has what this needs.
        pub fn terminate_group(self) -> io::Result<()> {
            Err(unsupported())
        }

        /// # Errors
        /// Always: only Linux has what this needs.
        pub async fn gone(self) -> io::Result<()> {
            Err(unsupported())
        }
    }

    /// # Errors
    /// Always: only Linux has what this needs.
    pub fn leader(_dir: &Path, _word: &str) -> io::Result<Option<Process>> {
        Err(unsupported())
    }

    /// # Errors
    /// Always: only Linux has what this needs.
    pub async fn kill_in_cgroup(_cgroup: &Cgroup, _dir: &Path, _main: Process, _deadline: Duration) -> io::Result<()> {
        Err(unsupported())
    }

    /// # Errors
    /// Always: only Linux has what this needs.
    pub async fn kill_marked(_dir: &Path, _main: Option<Process>, _deadline: Duration) -> io::Result<()> {
        Err(unsupported())
    }
}

#[cfg(not(target_os = "linux"))]
pub use elsewhere::{kill_in_cgroup, kill_marked, leader};

/// Why QEMU and process machines do not exist here.
///
/// # Errors
/// Everywhere but on Linux.
pub fn supported() -> io::Result<()> {
    if cfg!(target_os = "linux") {
        Ok(())
    } else {
        Err(unsupported())
    }
}

fn unsupported() -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        "the qemu and process back ends need Linux; use the zone back end here",
    )
}
