//! Machines that are QEMU guests, for Linux nodes. A guest is one QEMU process with a copy-on-write
//! overlay over the read-only golden disk, a seed disk, and a network on which only two addresses
//! answer: the agent's and git's forwards, each of which is a `helios-ci relay` to a socket in the
//! machine's own directory. The process outlives the daemon and is found again.

pub mod accel;
mod command;
pub mod firmware;
mod qmp;
pub mod relay;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

pub use accel::Accel;
use async_trait::async_trait;
use command::{Kernel, Plan};
use qmp::Qmp;

use super::{
    Endpoints, ListenAt, MachineSpec, Machines,
    cgroup::Cgroup,
    local::{self, CONSOLE, Kind, Local, MachineDirs, MachineRecord, OpenError},
    proc::{self, Process},
    seed::{self, Addresses, GUEST_HOME, GUEST_STATE},
    step_error::StepError,
};
use crate::{
    config::Image,
    exec::Cmd,
    images::qcow2,
    model::names::{Label, MachineName, NodeName},
};

/// How long QEMU may take until its monitor answers, on a busy host.
const SETTLE: Duration = Duration::from_secs(30);
/// How long one answer of the monitor may take.
const ANSWER: Duration = Duration::from_secs(5);

/// What QEMU machines need.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whose machines they are.
    pub node: NodeName,
    /// Machines lie in its `machines` directory.
    pub data_dir: PathBuf,
    /// The golden images by label.
    pub images: BTreeMap<Label, Image>,
    /// The agent's static binary for the guests; it travels on the seed disk.
    pub agent: PathBuf,
    /// This program's own binary, which QEMU starts as `helios-ci relay`.
    pub helios_ci: PathBuf,
    /// What [`accel::decide`] found.
    pub accel: Accel,
}

/// The QEMU back end.
///
/// # Errors
/// Not on Linux, or when the paths of the data directory or of this program cannot stand in a QEMU
/// option or make too long socket paths.
pub fn open(options: Options) -> Result<Arc<dyn Machines>, OpenError> {
    proc::supported().map_err(OpenError::Unsupported)?;
    local::check_data_dir(&options.data_dir)?;
    for (what, path) in [("data directory", &options.data_dir), ("program", &options.helios_ci)] {
        if !command::is_plain(path) {
            let path = path.clone();
            return Err(OpenError::Unsafe { what, path });
        }
    }
    let dirs = MachineDirs::new(&options.data_dir, options.node.clone(), Qemu::BACKEND);
    Ok(Arc::new(Local::new(Qemu { options }, dirs)))
}

#[derive(Debug)]
struct Qemu {
    options: Options,
}

impl Qemu {
    fn image(&self, label: &Label) -> Result<&Image, StepError> {
        self.options
            .images
            .get(label)
            .ok_or_else(|| StepError::permanent(format!("no image is configured for label {label}")))
    }
}

#[async_trait]
impl Kind for Qemu {
    const BACKEND: &'static str = "qemu";
    type Plan = Plan;

    async fn plan(
        &self,
        dir: &Path,
        spec: &MachineSpec,
        _before: Option<&MachineRecord<Plan>>,
    ) -> Result<(Endpoints, Plan), StepError> {
        let image = self.image(&spec.image)?;
        let endpoints = Endpoints {
            agent: ListenAt::Unix(dir.join(command::AGENT_SOCKET)),
            git: ListenAt::Unix(dir.join(command::GIT_SOCKET)),
            git_authority: command::GIT_AUTHORITY.into(),
            home: GUEST_HOME.into(),
        };
        let kernel = image.kernel.clone().map(|kernel| Kernel {
            image: kernel,
            initrd: image.initrd.clone(),
            cmdline: image.cmdline.clone(),
        });
        let firmware = match firmware::is_needed(image) {
            true => Some(firmware::find().map_err(StepError::permanent)?),
            false => None,
        };
        let plan = Plan {
            cpus: spec.cpus,
            memory_mib: spec.memory_mib,
            kernel,
            firmware,
        };
        Ok((endpoints, plan))
    }

    async fn make(&self, dir: &Path, spec: &MachineSpec, _record: &MachineRecord<Plan>) -> Result<(), StepError> {
        let base = self.image(&spec.image)?.disk.as_ref();
        let base = base.ok_or_else(|| StepError::permanent(format!("image {} has no `disk` file", spec.image)))?;
        let header = qcow2::read(base)
            .map_err(|error| StepError::permanent(format!("golden disk {}: {error}", base.display())))?;
        let size = spec
            .disk_gib
            .map_or(0, |gib| gib.saturating_mul(1 << 30))
            .max(header.virtual_size);
        let overlay = dir.join(command::OVERLAY);
        match std::fs::remove_file(&overlay) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        Cmd::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"])
            .arg(base)
            .arg(&overlay)
            .arg(size.to_string())
            .run()
            .await?
            .ok()?;
        let addresses = Addresses {
            agent: format!("tcp:{}", command::AGENT_AUTHORITY),
            git: command::GIT_AUTHORITY.into(),
            state_dir: GUEST_STATE.into(),
            power_off: true,
            network: None,
        };
        let (path, spec, agent) = (dir.join(command::SEED), spec.clone(), self.options.agent.clone());
        let written = tokio::task::spawn_blocking(move || seed::write_image(&path, &spec, &addresses, &agent)).await;
        written
            .map_err(StepError::retryable)?
            .map_err(|error| StepError::permanent(format!("cannot make the seed disk: {error}")))
    }

    fn command(&self, dir: &Path, record: &MachineRecord<Plan>) -> Result<Cmd, StepError> {
        Ok(command::command(
            dir,
            &record.name,
            &record.plan,
            self.options.accel,
            &self.options.helios_ci,
        ))
    }

    /// QEMU's children are few, and none of them makes others.
    fn cgroup(&self, _record: &MachineRecord<Plan>) -> Option<Cgroup> {
        None
    }

    fn word(&self, _dir: &Path, name: &MachineName) -> String {
        command::guest(name)
    }

    fn log(&self, dir: &Path) -> Result<PathBuf, StepError> {
        Ok(dir.join("qemu.log"))
    }

    async fn settle(&self, dir: &Path, name: &MachineName, main: Process) -> Result<(), StepError> {
        self.record_console(dir)?;
        let until = Instant::now() + SETTLE;
        loop {
            match monitor(dir, name).await {
                Ok(_) => return Ok(()),
                Err(_) if !main.is_alive() => return Err(local::ended_at_once("QEMU", &self.log(dir)?)),
                Err(error) if Instant::now() > until => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    fn record_console(&self, dir: &Path) -> Result<(), StepError> {
        let console = dir.join(CONSOLE);
        if relay::is_recorded(&console)? {
            return Ok(());
        }
        // A second one that is started before the first holds the lock ends at once.
        Cmd::new(&self.options.helios_ci)
            .arg("relay")
            .arg("--record")
            .arg(&console)
            .arg(dir.join(command::CONSOLE_SOCKET))
            .env(proc::MARKER, dir)
            .detach(&self.log(dir)?)?;
        Ok(())
    }

    /// The daemon's sockets go; a relay that QEMU starts from now on finds nobody.
    fn cut_off(&self, dir: &Path) -> Result<(), StepError> {
        for socket in [command::AGENT_SOCKET, command::GIT_SOCKET] {
            match std::fs::remove_file(dir.join(socket)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }

    async fn write_console(&self, dir: &Path, bytes: &[u8]) -> Result<(), StepError> {
        let (socket, bytes) = (relay::input_socket(&dir.join(CONSOLE)), bytes.to_owned());
        let typed = tokio::task::spawn_blocking(move || relay::type_into(&socket, &bytes)).await;
        Ok(typed.map_err(StepError::retryable)??)
    }

    async fn ask_to_stop(&self, dir: &Path, name: &MachineName, _main: Process) -> Result<(), StepError> {
        monitor(dir, name).await?.run("system_powerdown", ANSWER).await?;
        Ok(())
    }
}

/// The monitor of a guest, after it has said that it is that guest.
async fn monitor(dir: &Path, name: &MachineName) -> Result<Qmp, StepError> {
    let mut qmp = Qmp::connect(&dir.join(command::QMP), ANSWER).await?;
    let answer = qmp.run("query-name", ANSWER).await?;
    if answer.get("name").and_then(serde_json::Value::as_str) != Some(name.as_str()) {
        return Err(StepError::permanent("its monitor answers for another guest"));
    }
    Ok(qmp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_that_qemu_cannot_be_told_are_refused_in_words() {
        let options = |dir: &str| Options {
            node: "n".parse().unwrap(),
            data_dir: dir.into(),
            images: BTreeMap::new(),
            agent: "/a".into(),
            helios_ci: "/usr/bin/helios-ci".into(),
            accel: Accel::Tcg,
        };
        open(options("/var/lib/helios-ci")).unwrap();
        let error = open(options("/var/lib/helios ci")).unwrap_err().to_string();
        assert!(
            error.contains("/var/lib/helios ci") && error.contains("data directory"),
            "{error}"
        );
        let long = format!("/{}", "x".repeat(60));
        let error = open(options(&long)).unwrap_err().to_string();
        assert!(error.contains("107") && error.contains("shorter"), "{error}");
    }
}
