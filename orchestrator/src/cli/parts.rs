//! The parts that every daemon is made of, `serve` and the short one inside `run` alike.

use std::{fs, os::unix::fs::DirBuilderExt, path::Path, sync::Arc};

use miette::miette;

use super::report;
use crate::{
    agent_api::{AgentApi, identity::Identity},
    config::Config,
    driver::{Deps, seal::SealKey},
    logs::LogStore,
    machine::Machines,
    queue::{Hints, InProcess},
    source::Source,
    store::Store,
};

/// What the driver and everything above it works with.
pub(super) fn deps(config: Arc<Config>, store: Store, machines: Arc<dyn Machines>) -> miette::Result<Deps> {
    let hints: Arc<dyn Hints> = Arc::new(InProcess::new());
    Ok(Deps {
        logs: LogStore::new(&config.data_dir),
        machines,
        agents: AgentApi::new(Identity::open(&config.data_dir).map_err(report)?, store.clone()),
        seal: Arc::new(SealKey::open(&config.data_dir).map_err(report)?),
        source: Source::new(&config),
        hints,
        store,
        config,
    })
}

/// The data directory, for its user alone.
pub(super) fn make_data_dir(path: &Path) -> miette::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| miette!("cannot make the data directory {}: {e}", path.display()))
}
