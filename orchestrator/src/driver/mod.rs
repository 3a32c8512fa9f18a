//! One attempt, from a claimed job to the final result: a pure state machine (`progress`) and one
//! task that performs its effects (`task`). The task owns the attempt's log and its agent's link, so
//! nobody else decides anything about it.

mod agent_end;
mod checkpoint;
mod fetch;
mod finish;
pub mod job;
mod keep;
mod prepare;
pub mod progress;
pub mod seal;
mod task;

use std::{collections::HashMap, sync::Arc};

use self::seal::SealKey;
use crate::{
    agent_api::AgentApi, config::Config, forge::Forge, logs::LogStore, machine::Machines, model::names::ConnectionId,
    queue::Hints, source::Source, store::Store, telemetry::Metrics,
};

pub use self::{
    finish::destroy_once,
    keep::look_after_kept,
    task::{Start, chain, drive},
};

/// What driving an attempt takes.
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
