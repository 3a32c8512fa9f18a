//! The parts that every daemon is made of, `serve` and the short one inside `run` alike.

use std::{collections::HashMap, sync::Arc};

use miette::miette;

use crate::{
    agent_api::{AgentApi, identity::Identity},
    cli::report,
    config::Config,
    daemon::Deps,
    error_chain::chain,
    forge::Forge,
    logs::LogStore,
    machine::Machines,
    model::names::ConnectionId,
    queue::Hints,
    seal::SealKey,
    source::{GIT_FIX, Source, git_version},
    store::Store,
    telemetry::Metrics,
};

/// What differs between them.
pub(in crate::cli) struct Outside {
    pub config: Arc<Config>,
    pub store: Store,
    pub hints: Arc<dyn Hints>,
    pub forges: HashMap<ConnectionId, Arc<dyn Forge>>,
    pub metrics: Metrics,
    pub machines: Arc<dyn Machines>,
}

/// What the driver and everything above it works with.
pub(in crate::cli) fn deps(outside: Outside) -> miette::Result<Deps> {
    let (config, store) = (outside.config, outside.store);
    Ok(Deps {
        logs: LogStore::new(&config.data_dir),
        machines: outside.machines,
        agents: AgentApi::new(Identity::open(&config.data_dir).map_err(report)?, store.clone()),
        seal: Arc::new(SealKey::open(&config.data_dir).map_err(report)?),
        source: Source::new(&config),
        forges: Arc::new(outside.forges),
        hints: outside.hints,
        metrics: outside.metrics,
        store,
        config,
    })
}

/// Whatever this process or its children make is for its user alone; the emulator and its tools would
/// otherwise make disks and sockets that others can read.
pub(in crate::cli) fn private_files() {
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
}

/// Without a git that can be used no job runs: this is said at the start, and not by the first push.
pub(in crate::cli) async fn usable_git() -> miette::Result<()> {
    match git_version().await {
        Ok(_) => Ok(()),
        Err(error) => Err(miette!(help = GIT_FIX, "{}", chain(&error))),
    }
}
