//! A machine that is a process of this host, whatever that process is: the life cycle shared by the
//! `qemu` and `process` back ends. A back end says what to make, what to start and how to ask it to
//! stop; everything about names, proof of ownership, crashes and removal is here.
//!
//! ```text
//!            prepare            start              ends by itself
//!  Absent ───────────▶ Prepared ──────▶ Running ───────────────▶ Stopped
//!     ▲                   │               │                        │
//!     └───────────────────┴── destroy ────┴────────────────────────┘
//! ```
//!
//! A machine's state is never stored. Each call inspects it: `spec.json` proves that the machine is
//! ours, `run.json` that it was started, and the process itself that it runs.

mod machine_dir;

use std::{
    collections::HashSet,
    fmt, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
pub(crate) use machine_dir::{DirState, MachineDirs, MachineRecord, RunRecord};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Console, Endpoints, MachineError, MachineSpec, Machines, Observed, Operation, OwnedMachine,
    cgroup::Cgroup,
    console,
    ending::{self, Ending},
    locks::Locks,
    proc::{self, Process},
    step_error::StepError,
};
use crate::{exec::Cmd, files, model::names::MachineName};

/// Where a machine's console is gathered.
pub(crate) const CONSOLE: &str = "console";
/// How long a killed process may take to vanish.
const KILL_DEADLINE: Duration = Duration::from_secs(20);

/// A back end that cannot work as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Not on this system.
    #[error("{0}")]
    Unsupported(io::Error),
    /// The machines' sockets would have names that the system cannot hold.
    #[error(
        "data directory {dir} is too long: a machine's sockets would have paths of {bytes} bytes, the system allows {SOCKET_PATH}; choose a shorter data_dir"
    )]
    TooLong {
        /// The data directory.
        dir: PathBuf,
        /// How long the longest socket path would be.
        bytes: usize,
    },
    /// A path that cannot be part of a QEMU option.
    #[error("{what} {path} cannot be used with QEMU: its path must be absolute, of letters, digits and `/._-+@` only")]
    Unsafe {
        /// What the path is for.
        what: &'static str,
        /// The path that cannot be used.
        path: PathBuf,
    },
}

/// Who is still starting may miss a request to stop: it is repeated this often.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// The longest path that a UNIX socket may have, without its final NUL.
const SOCKET_PATH: usize = 107;

/// Checks that a data directory leaves room for the machines' sockets.
pub(crate) fn check_data_dir(dir: &Path) -> Result<(), OpenError> {
    let bytes = dir.as_os_str().len() + "/machines/hci-01k9zk6x0f5t3b8w2q7m4d1c0e/console.sock".len();
    if bytes > SOCKET_PATH {
        return Err(OpenError::TooLong {
            dir: dir.to_owned(),
            bytes,
        });
    }
    Ok(())
}

/// What makes one back end different from another.
#[async_trait]
pub(crate) trait Kind: Send + Sync + fmt::Debug + 'static {
    /// Its name in the configuration.
    const BACKEND: &'static str;
    /// What must be remembered of a specification to start the machine.
    type Plan: Serialize + DeserializeOwned + Send + Sync;

    /// Decides addresses and plan; `before` is what an earlier prepare decided.
    async fn plan(
        &self,
        dir: &Path,
        spec: &MachineSpec,
        before: Option<&MachineRecord<Self::Plan>>,
    ) -> Result<(Endpoints, Self::Plan), StepError>;

    /// Makes the machine's files, and replaces earlier ones.
    async fn make(&self, dir: &Path, spec: &MachineSpec, record: &MachineRecord<Self::Plan>) -> Result<(), StepError>;

    /// The main process.
    fn command(&self, dir: &Path, record: &MachineRecord<Self::Plan>) -> Result<Cmd, StepError>;

    /// Where the main process puts all others, if it does: they are born in that cgroup, and may leave it.
    fn cgroup(&self, record: &MachineRecord<Self::Plan>) -> Option<Cgroup>;

    /// An argument of the main process that none of its children has.
    fn word(&self, dir: &Path, name: &MachineName) -> String;

    /// Where the main process's own output goes; its directory exists when this returns.
    fn log(&self, dir: &Path) -> Result<PathBuf, StepError>;

    /// Sees that a running machine's companions run and that it answers; called on every start.
    async fn settle(&self, dir: &Path, name: &MachineName, main: Process) -> Result<(), StepError>;

    /// Sees that the console of a running machine is recorded.
    fn record_console(&self, dir: &Path) -> Result<(), StepError>;

    /// Takes away what the guest's side reaches on this node.
    fn cut_off(&self, dir: &Path) -> Result<(), StepError>;

    /// Types on the console of a kept machine.
    async fn write_console(&self, dir: &Path, bytes: &[u8]) -> Result<(), StepError>;

    /// Asks the running machine to stop.
    async fn ask_to_stop(&self, dir: &Path, name: &MachineName, main: Process) -> Result<(), StepError>;
}

/// The machines of one kind on this host.
#[derive(Debug)]
pub(crate) struct Local<K: Kind> {
    kind: K,
    dirs: MachineDirs,
    locks: Locks,
    /// Machines that this process prepared and has not started: nothing of them can run, so no
    /// call searches all processes of the host.
    quiet: Mutex<HashSet<MachineName>>,
}

impl<K: Kind> Local<K> {
    pub(crate) fn new(kind: K, dirs: MachineDirs) -> Self {
        Self {
            kind,
            dirs,
            locks: Locks::default(),
            quiet: Mutex::default(),
        }
    }

    fn quiet(&self) -> MutexGuard<'_, HashSet<MachineName>> {
        self.quiet.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The machine's record, when it is ours.
    fn ours(&self, name: &MachineName) -> Result<Option<Box<MachineRecord<K::Plan>>>, StepError> {
        match self.dirs.inspect(name)? {
            DirState::Ours(record) => Ok(Some(record)),
            DirState::Absent | DirState::Leftover => Ok(None),
            DirState::Foreign(why) => Err(self.foreign(name, &why)),
        }
    }

    fn foreign(&self, name: &MachineName, why: &str) -> StepError {
        let dir = self.dirs.dir(name);
        StepError::permanent(format!("{} is not ours ({why}) and is left alone", dir.display()))
    }

    /// The machine's main process while it lives. One that was started just before a crash, and so
    /// never written down, is found by its marker and written down now.
    fn main(&self, name: &MachineName) -> Result<Option<Process>, StepError> {
        if let Some(run) = self.dirs.run(name)? {
            return Ok(run.main.is_alive().then_some(run.main));
        }
        if self.quiet().contains(name) {
            return Ok(None);
        }
        let dir = self.dirs.dir(name);
        let found = proc::leader(&dir, &self.kind.word(&dir, name))?;
        if let Some(main) = found {
            self.dirs.set_run(name, RunRecord::of(main))?;
        }
        Ok(found)
    }

    fn see(&self, name: &MachineName) -> Result<Observed, StepError> {
        match self.dirs.inspect::<K::Plan>(name)? {
            DirState::Absent => Ok(Observed::Absent),
            DirState::Leftover => Ok(Observed::Prepared),
            DirState::Foreign(why) => {
                tracing::warn!(machine = %name, why, "a directory with a machine's name is not ours; left alone");
                Ok(Observed::Absent)
            }
            DirState::Ours(_) if self.main(name)?.is_some() => Ok(Observed::Running),
            DirState::Ours(_) => Ok(match self.dirs.run(name)? {
                None => Observed::Prepared,
                Some(run) => Observed::Stopped(self.ending(name, run)),
            }),
        }
    }

    fn ending(&self, name: &MachineName, run: RunRecord) -> String {
        let dir = self.dirs.dir(name);
        let ending = Ending {
            how: if run.stop_asked {
                "it was told to stop"
            } else {
                "its main process ended by itself or was killed"
            },
            is_reason: run.stop_asked,
            console: &ending::end_of_console(&dir.join(CONSOLE)),
            program: &self.kind.log(&dir).map(|log| ending::end_of(&log)).unwrap_or_default(),
        };
        ending.explain()
    }

    async fn do_prepare(&self, spec: &MachineSpec) -> Result<Endpoints, StepError> {
        let new = matches!(self.dirs.inspect::<K::Plan>(&spec.name)?, DirState::Absent);
        let before = self.ours(&spec.name)?;
        if before.is_some() && self.main(&spec.name)?.is_some() {
            return Err(StepError::permanent("it runs already; destroy it first"));
        }
        let dir = self.dirs.dir(&spec.name);
        let (endpoints, plan) = self.kind.plan(&dir, spec, before.as_deref()).await?;
        let record = self.dirs.record(&spec.name, endpoints, plan);
        self.dirs.create(&record)?;
        if !new {
            // What is left of an earlier life must not be taken for this one's.
            proc::kill_marked(&dir, None, KILL_DEADLINE).await?;
        }
        self.dirs.clear_run(&spec.name)?;
        files::remove_tree(&dir.join(CONSOLE))?;
        self.kind.make(&dir, spec, &record).await?;
        self.quiet().insert(spec.name.clone());
        Ok(record.endpoints)
    }

    async fn do_start(&self, name: &MachineName) -> Result<(), StepError> {
        let Some(record) = self.ours(name)? else {
            return Err(StepError::permanent("it does not exist; prepare it first"));
        };
        let dir = self.dirs.dir(name);
        let main = match self.main(name)? {
            Some(main) => main,
            None if self.dirs.run(name)?.is_some() => {
                return Err(StepError::retryable("it has run and ended; a machine runs once"));
            }
            None => {
                let cmd = self.kind.command(&dir, &record)?.env(proc::MARKER, &dir).cwd(&dir);
                let log = self.kind.log(&dir)?;
                self.quiet().remove(name);
                let pid = cmd.detach(&log)?;
                let main = Process::of(pid).ok_or_else(|| ended_at_once("its main process", &log))?;
                self.dirs.set_run(name, RunRecord::of(main))?;
                main
            }
        };
        self.kind.settle(&dir, name, main).await
    }

    async fn do_stop(&self, name: &MachineName, grace: Duration) -> Result<(), StepError> {
        if self.ours(name)?.is_none() {
            return Ok(());
        }
        let Some(main) = self.main(name)? else { return Ok(()) };
        let dir = self.dirs.dir(name);
        let run = self.dirs.run(name)?.unwrap_or(RunRecord::of(main));
        self.dirs.set_run(
            name,
            RunRecord {
                stop_asked: true,
                ..run
            },
        )?;
        if !grace.is_zero() {
            let until = tokio::time::Instant::now() + grace;
            loop {
                if let Err(error) = self.kind.ask_to_stop(&dir, name, main).await {
                    tracing::warn!(machine = %name, why = error.reason, "cannot ask the machine to stop; taking its power away");
                    break;
                }
                let next = until.min(tokio::time::Instant::now() + ASK_AGAIN);
                if let Ok(gone) = tokio::time::timeout_at(next, main.gone()).await {
                    gone?;
                    break;
                }
                if next == until {
                    break;
                }
            }
        }
        Ok(proc::kill_marked(&dir, Some(main), KILL_DEADLINE).await?)
    }

    fn do_keep(&self, name: &MachineName) -> Result<(), StepError> {
        if self.ours(name)?.is_none() {
            return Err(StepError::permanent("it does not exist"));
        }
        self.main(name)?;
        let Some(run) = self.dirs.run(name)? else {
            return Err(StepError::permanent("it was never started"));
        };
        self.kind.cut_off(&self.dirs.dir(name))?;
        Ok(self.dirs.set_run(name, RunRecord { kept: true, ..run })?)
    }

    /// Only a kept machine's console is anybody's.
    fn kept(&self, name: &MachineName) -> Result<(), StepError> {
        let ours = self.ours(name)?.is_some();
        match self.dirs.run(name)? {
            Some(run) if ours && run.kept => Ok(()),
            _ => Err(StepError::permanent("it is not kept")),
        }
    }

    async fn do_write(&self, name: &MachineName, bytes: &[u8]) -> Result<(), StepError> {
        console::check_input(bytes)?;
        self.kept(name)?;
        if self.main(name)?.is_none() {
            return Err(StepError::permanent("it no longer runs"));
        }
        let dir = self.dirs.dir(name);
        self.kind.record_console(&dir)?;
        self.kind.write_console(&dir, bytes).await
    }

    /// Ends all processes of a machine, and takes its cgroup away.
    async fn kill_all(&self, name: &MachineName, record: &MachineRecord<K::Plan>) -> Result<(), StepError> {
        let main = self.dirs.run(name)?.map(|run| run.main);
        let (dir, cgroup) = (self.dirs.dir(name), self.kind.cgroup(record));
        match (&cgroup, main) {
            // Without the main process nobody knows whether it had put everything there.
            (Some(cgroup), Some(main)) if cgroup.is_used()? => {
                proc::kill_in_cgroup(cgroup, &dir, main, KILL_DEADLINE).await?;
            }
            _ => proc::kill_marked(&dir, main, KILL_DEADLINE).await?,
        }
        if let Some(cgroup) = cgroup {
            cgroup.remove(KILL_DEADLINE).await?;
        }
        Ok(())
    }

    async fn do_destroy(&self, name: &MachineName) -> Result<(), StepError> {
        self.quiet().remove(name);
        match self.dirs.inspect::<K::Plan>(name)? {
            DirState::Absent => return Ok(()),
            DirState::Foreign(why) => return Err(self.foreign(name, &why)),
            DirState::Ours(record) => self.kill_all(name, &record).await?,
            // It was renamed only after everything in it was dead.
            DirState::Leftover => {}
        }
        let (dirs, name) = (self.dirs.clone(), name.clone());
        let removed = tokio::task::spawn_blocking(move || dirs.remove(&name)).await;
        Ok(removed.map_err(io::Error::other)??)
    }
}

/// Of a program that ended before it had begun. All that it said is in our own log.
pub(crate) fn ended_at_once(what: &str, log: &Path) -> StepError {
    let said = ending::end_of(log);
    tracing::warn!(log = %log.display(), said = %ending::lines(&said).join("; "), "{what} ended at once");
    let ending = Ending {
        how: &format!("{what} ended at once"),
        is_reason: false,
        console: &[],
        program: &said,
    };
    StepError::retryable(ending.explain())
}

#[async_trait]
impl<K: Kind> Machines for Local<K> {
    fn backend(&self) -> &'static str {
        K::BACKEND
    }

    async fn prepare(&self, spec: &MachineSpec) -> Result<Endpoints, MachineError> {
        let _lock = self.locks.lock(&spec.name).await;
        self.do_prepare(spec)
            .await
            .map_err(StepError::of(Operation::Prepare, &spec.name))
    }

    async fn endpoints(&self, name: &MachineName) -> Result<Option<Endpoints>, MachineError> {
        let record = self.ours(name).map_err(StepError::of(Operation::Observe, name))?;
        Ok(record.map(|record| record.endpoints))
    }

    async fn start(&self, name: &MachineName) -> Result<(), MachineError> {
        let _lock = self.locks.lock(name).await;
        self.do_start(name).await.map_err(StepError::of(Operation::Start, name))
    }

    async fn console(&self, name: &MachineName, from: u64) -> Result<Console, MachineError> {
        let read = || -> Result<Console, StepError> {
            if self.ours(name)?.is_none() {
                return Err(StepError::permanent("it does not exist"));
            }
            let dir = self.dirs.dir(name);
            if self.main(name)?.is_some() {
                self.kind.record_console(&dir)?;
            }
            Ok(console::read(&dir.join(CONSOLE), from)?)
        };
        read().map_err(StepError::of(Operation::Console, name))
    }

    async fn stop(&self, name: &MachineName, grace: Duration) -> Result<(), MachineError> {
        let _lock = self.locks.lock(name).await;
        self.do_stop(name, grace)
            .await
            .map_err(StepError::of(Operation::Stop, name))
    }

    async fn keep(&self, name: &MachineName) -> Result<(), MachineError> {
        let _lock = self.locks.lock(name).await;
        self.do_keep(name).map_err(StepError::of(Operation::Keep, name))
    }

    async fn write_console(&self, name: &MachineName, bytes: &[u8]) -> Result<(), MachineError> {
        self.do_write(name, bytes)
            .await
            .map_err(StepError::of(Operation::Write, name))
    }

    /// Everybody may read and type side by side here, so nobody holds anything.
    async fn release_console(&self, name: &MachineName) -> Result<(), MachineError> {
        self.kept(name).map_err(StepError::of(Operation::Release, name))
    }

    async fn destroy(&self, name: &MachineName) -> Result<(), MachineError> {
        let _lock = self.locks.lock(name).await;
        self.do_destroy(name)
            .await
            .map_err(StepError::of(Operation::Destroy, name))
    }

    async fn observe(&self, name: &MachineName) -> Result<Observed, MachineError> {
        self.see(name).map_err(StepError::of(Operation::Observe, name))
    }

    async fn list(&self) -> Result<Vec<OwnedMachine>, MachineError> {
        let names = self.dirs.names().map_err(|error| MachineError {
            operation: Operation::Observe,
            machine: "(all)".into(),
            reason: error.to_string(),
            retryable: true,
        })?;
        let mut owned = Vec::new();
        for name in names {
            let observed = self.observe(&name).await?;
            if observed != Observed::Absent {
                owned.push(OwnedMachine { name, observed });
            }
        }
        Ok(owned)
    }

    async fn wait_stopped(&self, name: &MachineName) -> Result<Observed, MachineError> {
        let fail = |error| StepError::of(Operation::Observe, name)(error);
        loop {
            let observed = self.see(name).map_err(fail)?;
            if observed != Observed::Running {
                return Ok(observed);
            }
            if let Some(main) = self.main(name).map_err(fail)? {
                main.gone().await.map_err(|error| fail(error.into()))?;
            }
        }
    }
}
