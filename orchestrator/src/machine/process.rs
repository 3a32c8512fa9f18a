//! Machines that are no machines: the real agent as a plain process of this host, for tests and
//! benchmarks. Nothing is isolated; a server accepts them only with `--allow-unisolated`.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;

use super::{
    Endpoints, ListenAt, MachineSpec, Machines,
    cgroup::{self, Cgroup},
    local::{self, CONSOLE, Kind, Local, MachineDirs, MachineRecord, OpenError},
    proc::{self, Process},
    seed::{self, Addresses},
    step_error::StepError,
};
use crate::{
    exec::Cmd,
    files,
    model::names::{MachineName, NodeName},
};

/// What process machines need.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whose machines they are.
    pub node: NodeName,
    /// Machines lie in its `machines` directory.
    pub data_dir: PathBuf,
    /// The agent's binary for this host.
    pub agent: PathBuf,
}

/// The process back end.
///
/// # Errors
/// Not on Linux, or when sockets below the data directory would have too long paths.
pub fn open(options: Options) -> Result<Arc<dyn Machines>, OpenError> {
    proc::supported().map_err(OpenError::Unsupported)?;
    local::check_data_dir(&options.data_dir)?;
    let dirs = MachineDirs::new(&options.data_dir, options.node, Plain::BACKEND);
    Ok(Arc::new(Local::new(Plain { agent: options.agent }, dirs)))
}

/// Why a process is not kept.
pub const NOTHING_TO_KEEP: &str =
    "with the back end `process` there is no machine that could stay and no console to type on; use `qemu` or `zone`";

#[derive(Debug)]
struct Plain {
    agent: PathBuf,
}

fn seed_dir(dir: &Path) -> PathBuf {
    dir.join("seed")
}

#[async_trait]
impl Kind for Plain {
    const BACKEND: &'static str = "process";
    /// Where its cgroup is to be, if it can have one.
    type Plan = Option<PathBuf>;

    async fn plan(
        &self,
        dir: &Path,
        spec: &MachineSpec,
        before: Option<&MachineRecord<Self::Plan>>,
    ) -> Result<(Endpoints, Self::Plan), StepError> {
        if let Some(record) = before {
            return Ok((record.endpoints.clone(), record.plan.clone()));
        }
        // The kernel names a free port; the daemon listens on it a moment later.
        let free = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?.local_addr()?;
        let endpoints = Endpoints {
            agent: ListenAt::Unix(dir.join("agent.sock")),
            git: ListenAt::Tcp(free),
            git_authority: free.to_string(),
            home: dir.join("home").display().to_string(),
        };
        Ok((endpoints, Cgroup::path_for(&spec.name)))
    }

    async fn make(&self, dir: &Path, spec: &MachineSpec, record: &MachineRecord<Self::Plan>) -> Result<(), StepError> {
        if let Some(cgroup) = self.cgroup(record)
            && let Err(error) = cgroup.make()
        {
            tracing::debug!(machine = %spec.name, %error, "no cgroup for a machine; its processes are found by their marker");
        }
        let state = dir.join("state");
        files::remove_tree(&state)?;
        files::private_dir(&state)?;
        let addresses = Addresses {
            agent: format!("unix:{}", dir.join("agent.sock").display()),
            git: record.endpoints.git_authority.clone(),
            state_dir: state.display().to_string(),
            power_off: false,
            network: None,
        };
        Ok(seed::write_directory(&seed_dir(dir), spec, &addresses)?)
    }

    fn command(&self, dir: &Path, record: &MachineRecord<Self::Plan>) -> Result<Cmd, StepError> {
        let cmd = Cmd::new(&self.agent).arg("--seed").arg(seed_dir(dir));
        Ok(match &record.plan {
            Some(cgroup) if cgroup.is_dir() => cmd.env(cgroup::VARIABLE, cgroup),
            _ => cmd,
        })
    }

    fn cgroup(&self, record: &MachineRecord<Self::Plan>) -> Option<Cgroup> {
        record.plan.as_deref().map(Cgroup::at)
    }

    fn word(&self, dir: &Path, _name: &MachineName) -> String {
        seed_dir(dir).display().to_string()
    }

    /// The agent's own few lines are the console; what steps say goes over gRPC.
    fn log(&self, dir: &Path) -> Result<PathBuf, StepError> {
        let console = dir.join(CONSOLE);
        files::private_dir(&console)?;
        Ok(super::console::first(&console))
    }

    async fn settle(&self, _dir: &Path, _name: &MachineName, _main: Process) -> Result<(), StepError> {
        Ok(())
    }

    fn record_console(&self, _dir: &Path) -> Result<(), StepError> {
        Ok(())
    }

    fn cut_off(&self, _dir: &Path) -> Result<(), StepError> {
        Err(StepError::permanent(NOTHING_TO_KEEP))
    }

    async fn write_console(&self, _dir: &Path, _bytes: &[u8]) -> Result<(), StepError> {
        Err(StepError::permanent(NOTHING_TO_KEEP))
    }

    async fn ask_to_stop(&self, _dir: &Path, _name: &MachineName, main: Process) -> Result<(), StepError> {
        Ok(main.terminate_group()?)
    }
}
