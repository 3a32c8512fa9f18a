//! All processes of one step: what the leader started, however it detached them.
//!
//! | system | a tree is | what escapes |
//! |---|---|---|
//! | Linux, cgroup v2 writable | a cgroup, ended with `cgroup.kill` | root that moves itself to another cgroup |
//! | Linux otherwise | the leader's session and group, and whoever carries its marker in the environment | who leaves the session with a cleared environment |
//! | illumos | a process contract | who activates a contract template of its own: what it forks next begins another contract |
//!
//! Nothing of this is a border of security: that is the machine itself.

#[cfg(not(any(target_os = "linux", target_os = "illumos")))]
compile_error!("helios-agent runs on Linux and illumos: it must know how to find all processes of a step");

#[cfg(target_os = "linux")]
mod cgroup;
#[cfg(target_os = "illumos")]
mod contract;
#[cfg(target_os = "linux")]
mod marked;

use std::{ffi::OsString, io, time::Duration};

use nix::{sys::signal::Signal, unistd::Pid};
use tokio::time::{Instant, sleep};

/// How long a killed tree may take to be gone before the agent says that it cannot end it.
const GONE: Duration = Duration::from_secs(10);

/// How this machine finds the processes of a step.
#[derive(Debug)]
pub enum Trees {
    /// One cgroup per step.
    #[cfg(target_os = "linux")]
    Cgroup(cgroup::Parent),
    /// Sessions, groups and a marker in the environment; the key is this agent's.
    #[cfg(target_os = "linux")]
    Marked(String),
    /// Process contracts.
    #[cfg(target_os = "illumos")]
    Contract,
}

impl Trees {
    /// The best this machine offers. `key` tells this agent's steps from another's; in a real
    /// machine the cgroup file system is mounted when it is not.
    pub fn detect(real_machine: bool, key: &str) -> Self {
        #[cfg(target_os = "linux")]
        return match cgroup::Parent::make(real_machine, key) {
            Ok(parent) => Self::Cgroup(parent),
            Err(why) => {
                eprintln!("helios-agent: steps are found by a marker, as cgroup v2 cannot be used: {why}");
                Self::Marked(key.to_owned())
            }
        };
        #[cfg(target_os = "illumos")]
        {
            // Contracts need neither.
            let _ = (real_machine, key);
            Self::Contract
        }
    }

    /// Its name among the features of hello.
    pub fn feature(&self) -> &'static str {
        match self {
            #[cfg(target_os = "linux")]
            Self::Cgroup(_) => "tree-cgroup",
            #[cfg(target_os = "linux")]
            Self::Marked(_) => "tree-marker",
            #[cfg(target_os = "illumos")]
            Self::Contract => "tree-contract",
        }
    }

    /// An empty tree for one exec.
    pub fn plant(&self, exec_id: u64) -> io::Result<Tree> {
        Ok(match self {
            #[cfg(target_os = "linux")]
            Self::Cgroup(parent) => Tree::Cgroup(parent.child(exec_id)?),
            #[cfg(target_os = "linux")]
            Self::Marked(key) => Tree::Marked(marked::Marked::new(key, exec_id)),
            #[cfg(target_os = "illumos")]
            Self::Contract => {
                // A contract has a number of its own.
                let _ = exec_id;
                Tree::Contract(contract::Contract::template()?)
            }
        })
    }
}

/// The processes of one exec.
#[derive(Debug)]
pub enum Tree {
    /// See [`Trees::Cgroup`].
    #[cfg(target_os = "linux")]
    Cgroup(cgroup::Cgroup),
    /// See [`Trees::Marked`].
    #[cfg(target_os = "linux")]
    Marked(marked::Marked),
    /// See [`Trees::Contract`].
    #[cfg(target_os = "illumos")]
    Contract(contract::Contract),
}

/// Runs the same method of whichever tree it is.
macro_rules! each {
    ($tree:expr, $inner:ident => $call:expr) => {
        match $tree {
            #[cfg(target_os = "linux")]
            Tree::Cgroup($inner) => $call,
            #[cfg(target_os = "linux")]
            Tree::Marked($inner) => $call,
            #[cfg(target_os = "illumos")]
            Tree::Contract($inner) => $call,
        }
    };
}

impl Tree {
    /// The variable that the leader's environment needs, if any.
    pub fn marker(&self) -> Option<(OsString, OsString)> {
        match self {
            #[cfg(target_os = "linux")]
            Self::Marked(marked) => Some(marked.variable()),
            #[cfg(target_os = "linux")]
            Self::Cgroup(_) => None,
            #[cfg(target_os = "illumos")]
            Self::Contract(_) => None,
        }
    }

    /// What the leader joins before it becomes its program, if anything. To be called by the thread
    /// that starts the leader, right before.
    pub fn entrance(&mut self) -> io::Result<Option<crate::child::Cgroup>> {
        match self {
            #[cfg(target_os = "linux")]
            Self::Cgroup(cgroup) => cgroup.entrance().map(Some),
            #[cfg(target_os = "linux")]
            Self::Marked(_) => Ok(None),
            #[cfg(target_os = "illumos")]
            Self::Contract(contract) => contract.open().map(|()| None),
        }
    }

    /// Tells the tree its leader, right after the start.
    pub fn rooted(&mut self, leader: Pid) -> io::Result<()> {
        each!(self, inner => inner.rooted(leader))
    }

    /// The leader is about to be forgotten, so its number is another's some day.
    pub fn unroot(&mut self) {
        match self {
            #[cfg(target_os = "linux")]
            Self::Marked(marked) => marked.unroot(),
            #[cfg(target_os = "linux")]
            Self::Cgroup(_) => {}
            #[cfg(target_os = "illumos")]
            Self::Contract(_) => {}
        }
    }

    /// The process ids of all that live.
    pub fn members(&self) -> io::Result<Vec<i32>> {
        each!(self, inner => inner.members())
    }

    /// Nobody of the tree lives.
    pub fn is_empty(&self) -> bool {
        self.members().is_ok_and(|members| members.is_empty())
    }

    /// Nobody of the tree computes or waits for a disk: whoever is left waits for something else to happen. Where the
    /// system does not say, nobody is ever idle.
    pub fn is_idle(&self) -> bool {
        #[cfg(target_os = "linux")]
        return self.members().is_ok_and(|members| members.into_iter().all(waits));
        #[cfg(not(target_os = "linux"))]
        false
    }

    /// Sends a signal to every process of the tree.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        each!(self, inner => inner.signal(signal))
    }

    /// Kills everything that is left, once the leader is a zombie, and waits until it is gone.
    /// Returns how many processes that were.
    pub async fn clear(&mut self) -> io::Result<u32> {
        let deadline = Instant::now() + GONE;
        let mut pause = Duration::from_millis(1);
        let mut seen = std::collections::BTreeSet::new();
        loop {
            let left = self.members()?;
            if left.is_empty() {
                return Ok(u32::try_from(seen.len()).unwrap_or(u32::MAX));
            }
            if Instant::now() > deadline {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!(
                        "{} processes are still there {} s after SIGKILL",
                        left.len(),
                        GONE.as_secs()
                    ),
                ));
            }
            seen.extend(left);
            self.signal(Signal::SIGKILL)?;
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }
}

/// Whether every thread of a process waits. One that has gone does no work either.
#[cfg(target_os = "linux")]
fn waits(pid: i32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return true;
    };
    threads.flatten().all(|thread| {
        let stat = std::fs::read(thread.path().join("stat")).unwrap_or_default();
        // The second field is the program's name in parentheses, which may hold anything.
        let state = stat.rsplit(|byte| *byte == b')').next().and_then(|rest| rest.get(1));
        !matches!(state, Some(b'R' | b'D'))
    })
}
