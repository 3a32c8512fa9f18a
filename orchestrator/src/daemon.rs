//! The parts that a daemon is made of, as its loops and the drivers of attempts get them. They are put together in
//! `cli::wiring` alone.

use std::{collections::HashMap, sync::Arc};

use crate::{
    agent_api::AgentApi, config::Config, forge::Forge, logs::LogStore, machine::Machines, model::names::ConnectionId,
    queue::Hints, seal::SealKey, source::Source, store::Store, telemetry::Metrics,
};

/// What the loops of the daemon share. A clone is cheap.
#[derive(Clone)]
pub struct Deps {
    /// The state.
    pub store: Store,
    /// The logs.
    pub logs: LogStore,
    /// The machine back end.
    pub machines: Arc<dyn Machines>,
    /// The server that agents dial.
    pub agents: AgentApi,
    /// Repositories.
    pub source: Source,
    /// Where commits are fetched from that are not here.
    pub forges: Arc<HashMap<ConnectionId, Arc<dyn Forge>>>,
    /// Wakes others.
    pub hints: Arc<dyn Hints>,
    /// Seals checkpoints.
    pub seal: Arc<SealKey>,
    /// Counts what agents send.
    pub metrics: Metrics,
    /// The configuration.
    pub config: Arc<Config>,
}
