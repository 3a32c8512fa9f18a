//! What a driver has learnt of its attempt since it stored something last: what must be durable together, in one
//! transaction.

use super::{
    attempts, machines,
    steps::{self, StepUpdate},
};
use crate::{
    foreign_text::clip,
    model::{ids::AttemptId, names::MachineName, state::MachineState},
    store::{Store, StoreError, engine::tx::Tx},
};

/// News of an attempt. Repeating them is harmless.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttemptNews {
    /// The agent has said hello, with what it says of its machine as JSON: `preparing → running`.
    pub running: Option<String>,
    /// Where steps stand.
    pub steps: Vec<StepUpdate>,
    /// What the driver resumes from, sealed.
    pub checkpoint: Option<Vec<u8>>,
    /// The steps are over: `→ finishing`.
    pub finishing: bool,
}

impl Store {
    /// Stores news of an attempt, all of them or none. `false`: fenced.
    pub async fn attempt_news(&self, id: AttemptId, epoch: i64, news: AttemptNews) -> Result<bool, StoreError> {
        in_tx!(self, "store an attempt's progress", [news = news], |tx| store(
            tx, id, epoch, news
        ))
    }

    /// The machine of an attempt was told to start, and who takes over resumes from this checkpoint. On this host alone,
    /// and as long as the host has power, so it is not synced by itself. `false`: fenced.
    pub async fn machine_started(&self, id: AttemptId, epoch: i64, sealed: &[u8]) -> Result<bool, StoreError> {
        in_tx!(
            self,
            "store that a machine was started",
            WithNext,
            [sealed = sealed.to_vec()],
            |tx| started(tx, id, epoch, sealed)
        )
    }
}

async fn store(tx: &mut Tx, id: AttemptId, epoch: i64, news: &AttemptNews) -> Result<bool, StoreError> {
    // First, as it locks the run, which whoever ends the attempt locks before the attempt, too.
    if let Some(facts) = &news.running
        && !attempts::running(tx, id, epoch, clip(facts, 64 << 10)).await?
    {
        return Ok(false);
    }
    for step in &news.steps {
        if !steps::update(tx, id, epoch, step).await? {
            return Ok(false);
        }
    }
    if let Some(sealed) = &news.checkpoint
        && !steps::checkpoint(tx, id, epoch, sealed).await?
    {
        return Ok(false);
    }
    Ok(!news.finishing || attempts::finishing(tx, id, epoch).await?)
}

async fn started(tx: &mut Tx, id: AttemptId, epoch: i64, sealed: &[u8]) -> Result<bool, StoreError> {
    if !steps::checkpoint(tx, id, epoch, sealed).await? {
        return Ok(false);
    }
    machines::set_state(tx, &MachineName::of(id), MachineState::Running)
        .await
        .map(|_| true)
}
