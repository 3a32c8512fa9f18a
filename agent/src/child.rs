//! The agent's only place that starts processes.

mod fork;

use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use nix::{
    libc,
    sys::{
        resource::{UsageWho, getrusage},
        signal::{Signal, killpg},
        time::TimeValLike,
        wait::{WaitStatus, waitpid},
    },
    unistd::Pid,
};
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};

/// What is to run. Nothing of the agent's own environment or descriptors is passed on.
#[derive(Debug)]
pub struct Launch<'a> {
    /// A path; see [`find`].
    pub program: &'a Path,
    /// Without the program.
    pub arguments: &'a [String],
    /// All of the environment.
    pub environment: &'a [(OsString, OsString)],
    /// Where it starts; exists.
    pub directory: &'a Path,
    /// The cgroup it is born into.
    pub cgroup: Option<Cgroup>,
}

/// A cgroup of version 2.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    directory: File,
}

impl Cgroup {
    /// The cgroup with this directory, which exists.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            directory: File::open(path)?,
        })
    }

    /// What a process writes `0` to in order to enter.
    fn procs(&self) -> io::Result<OwnedFd> {
        Ok(OpenOptions::new()
            .write(true)
            .open(self.path.join("cgroup.procs"))?
            .into())
    }
}

/// How a leader ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code, or the number of the signal that killed it.
    pub how: Result<i32, i32>,
    /// Processor time of it and of the children it waited for, in milliseconds.
    pub user_ms: u64,
    /// The same in the kernel.
    pub system_ms: u64,
}

/// The first process of a step: leader of its own session and process group.
///
/// It stays a zombie until [`Leader::reap`], so that its process id, which is also the id of its
/// group and session, belongs to nobody else while the rest of the tree is hunted.
#[derive(Debug)]
pub struct Leader {
    pid: Pid,
    deaths: SignalStream,
}

/// Starts a process with standard input from `/dev/null`, which writes to `output`: standard output, then standard
/// error. Returns once it has become the program.
pub fn spawn(launch: Launch<'_>, output: [OwnedFd; 2]) -> io::Result<Leader> {
    // Before the start, so that not even the quickest death is missed.
    let deaths = signal(SignalKind::child())?;
    let [stdout, stderr] = output;
    let pid = fork::start(&launch, stdout, stderr)?;
    Ok(Leader { pid, deaths })
}

impl Leader {
    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Waits until it has ended. May be called again and leaves the zombie alone.
    pub async fn ended(&mut self) -> io::Result<()> {
        while !self.is_zombie()? {
            self.deaths.recv().await;
        }
        Ok(())
    }

    fn is_zombie(&self) -> io::Result<bool> {
        // SAFETY: siginfo_t is plain data for which zeroes are valid.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let id = libc::id_t::try_from(self.pid.as_raw()).map_err(io::Error::other)?;
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        // SAFETY: `info` outlives the call and is written by it.
        let result = unsafe { libc::waitid(libc::P_PID, id, &raw mut info, options) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(info.si_signo == libc::SIGCHLD)
    }

    /// Ends a leader, and its group, that cannot be looked after.
    pub fn kill(self) {
        // It exists, as a zombie at least, so the number is still its own.
        let _ = killpg(self.pid, Signal::SIGKILL);
        let _ = waitpid(self.pid, None);
    }

    /// Takes the zombie away. Call it after [`Leader::ended`]; otherwise it blocks.
    pub fn reap(self) -> io::Result<Ended> {
        // The difference is exactly this child: nothing else is waited for in between, as the agent
        // waits here only and has one thread that does.
        let before = getrusage(UsageWho::RUSAGE_CHILDREN)?;
        let status = waitpid(self.pid, None)?;
        let after = getrusage(UsageWho::RUSAGE_CHILDREN)?;
        let how = match status {
            WaitStatus::Exited(_, code) => Ok(code),
            WaitStatus::Signaled(_, signal, _) => Err(signal as i32),
            other => return Err(io::Error::other(format!("the process ended as {other:?}"))),
        };
        let elapsed = |later: i64, earlier: i64| u64::try_from(later - earlier).unwrap_or(0);
        Ok(Ended {
            how,
            user_ms: elapsed(
                after.user_time().num_milliseconds(),
                before.user_time().num_milliseconds(),
            ),
            system_ms: elapsed(
                after.system_time().num_milliseconds(),
                before.system_time().num_milliseconds(),
            ),
        })
    }
}

/// Where a program lies: a name with a slash is taken as it is, another is looked for in the
/// absolute directories of `path`.
pub fn find(program: &str, path: Option<&OsString>) -> io::Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let missing = |why: String| io::Error::new(io::ErrorKind::NotFound, why);
    if program.is_empty() {
        return Err(missing("no program is named".to_owned()));
    }
    if program.contains('/') {
        return Ok(PathBuf::from(program));
    }
    let path = path.ok_or_else(|| missing(format!("cannot look for `{program}`: the environment has no PATH")))?;
    let executable = |file: &PathBuf| {
        file.metadata()
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(path)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(program))
        .find(executable)
        .ok_or_else(|| {
            missing(format!(
                "there is no program `{program}` in PATH ({})",
                path.to_string_lossy()
            ))
        })
}
