//! The machine back end of the configuration: in this process, or behind machined.

use std::{fs, path::PathBuf, sync::Arc};

use miette::miette;

use crate::{
    cli::report,
    config::{Backend, Config},
    error_chain::chain,
    machine::{
        Machines, machined, process, qemu,
        zone::{
            self,
            host::{memory::Memory, privileges},
        },
    },
};

/// Without it there are no zones.
const ZONEADM: &str = "/usr/sbin/zoneadm";

/// What the daemon works with.
pub(in crate::cli) async fn machines(config: &Config, allow_unisolated: bool) -> miette::Result<Arc<dyn Machines>> {
    match &config.machined {
        Some(machined) => machined::connect(&machined.socket, &config.node).await.map_err(report),
        None => local(config, allow_unisolated).await,
    }
}

/// For reading only, as fast as can be: nothing is started, so it does not matter how a guest would run.
pub(in crate::cli) async fn read_only(config: &Config) -> miette::Result<Arc<dyn Machines>> {
    match (&config.machined, config.backend) {
        (None, Backend::Qemu) => open_qemu(config, qemu::Accel::Tcg),
        (None, Backend::Process) => local(config, true).await,
        _ => machines(config, false).await,
    }
}

fn open_qemu(config: &Config, accel: qemu::Accel) -> miette::Result<Arc<dyn Machines>> {
    let helios_ci = std::env::current_exe().map_err(|e| miette!("cannot find this program's own file: {e}"))?;
    qemu::open(qemu::Options {
        node: config.node.clone(),
        data_dir: config.data_dir.clone(),
        images: config.images.clone(),
        agent: config.agent.clone(),
        helios_ci,
        accel,
    })
    .map_err(report)
}

/// What all machines of a zone host may have is counted there, unless it is configured: a guest's memory is wired.
pub(in crate::cli) fn admit(config: &mut Config) -> miette::Result<()> {
    if config.backend == Backend::Zone {
        config.capacity.memory_mib = Some(memory_mib(config)?);
    }
    Ok(())
}

fn memory_mib(config: &Config) -> miette::Result<u64> {
    match config.capacity.memory_mib {
        Some(configured) => Ok(configured),
        None => Ok(Memory::of_this_host()
            .map_err(|e| miette!("cannot ask for this host's memory: {e}"))?
            .for_machines_mib()),
    }
}

/// The back end itself, in this process.
pub(in crate::cli) async fn local(config: &Config, allow_unisolated: bool) -> miette::Result<Arc<dyn Machines>> {
    let (node, data_dir, agent): (_, PathBuf, _) = (config.node.clone(), config.data_dir.clone(), config.agent.clone());
    match config.backend {
        Backend::Qemu => {
            // KVM is believed only when a guest of ours really booted under it.
            let verdict = qemu::accel::decide(&data_dir, config.images.values(), qemu::accel::Remember::Yes)
                .await
                .map_err(report)?;
            match verdict.fix() {
                None => tracing::info!("{verdict}"),
                Some(fix) => tracing::warn!(fix, "{verdict}"),
            }
            open_qemu(config, verdict.accel())
        }
        Backend::Process if allow_unisolated => {
            process::open(process::Options { node, data_dir, agent }).map_err(report)
        }
        Backend::Process => Err(miette!(
            help = "use `backend: qemu`",
            "the back end `process` isolates nothing and is only for tests; it needs --allow-unisolated"
        )),
        Backend::Zone if fs::symlink_metadata(ZONEADM).is_ok() => {
            privileges::check().map_err(|lacking| {
                miette!(
                    help = "let the service helios-ci/machined keep them: it runs as root, with neither `privileges` nor \
                            `limit_privileges` in its method context",
                    "{}",
                    chain(&lacking)
                )
            })?;
            Ok(zone::open(zone::Options {
                // Also where machined is asked by a daemon that counts itself: it need not be believed.
                memory_mib: Some(memory_mib(config)?),
                ..zone::Options::new(node, config.zone.clone(), config.images.clone(), agent)
            }))
        }
        Backend::Zone => Err(miette!(
            help = "on Linux use `backend: qemu`",
            "the back end `zone` needs an illumos host: there is no {ZONEADM}"
        )),
    }
}
