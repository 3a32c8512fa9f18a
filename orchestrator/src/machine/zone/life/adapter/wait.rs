//! Waiting for machines to end, by the list that all waiting calls share.

use super::Zones;
use crate::{
    machine::{
        MachineError, Machines, Observed,
        step_error::StepError,
        zone::{command::zoneadm::State, life::zone_list},
    },
    model::names::MachineName,
};

/// A machine counts as gone after it was missing in this many lists in a row.
const MISSES: u32 = 3;

impl Zones {
    /// Whether a machine runs, by the shared list. `None` when its zone is missing there: a list may leave out a zone
    /// that changes. In a state that we do not know it may run.
    async fn runs_by_list(&self, name: &MachineName) -> Result<Option<bool>, StepError> {
        Ok(match self.zone_list.state(&self.host, name).await? {
            Some(State::Running | State::Ready | State::Other(_)) => Some(true),
            None => None,
            Some(_) => Some(false),
        })
    }

    /// Whether this is a machine of ours that was booted here and runs, by the shared list.
    pub(super) async fn boots(&self, name: &MachineName) -> Result<bool, StepError> {
        let started = self.records.read(name)?.is_some_and(|record| record.started);
        Ok(started && self.runs_by_list(name).await? == Some(true))
    }

    /// See [`Machines::wait_stopped`].
    pub(super) async fn until_stopped(&self, name: &MachineName) -> Result<Observed, MachineError> {
        let mut missed = 0;
        loop {
            // While nothing can be learnt of it, a machine may well run: its job's own clocks decide.
            match self.runs_by_list(name).await {
                Ok(Some(true)) => missed = 0,
                Ok(None) if missed < MISSES => missed += 1,
                Ok(_) => match self.observe(name).await {
                    Ok(Observed::Running) => missed = 0,
                    Err(error) if error.retryable => tracing::warn!(%error, "a machine cannot be seen"),
                    other => return other,
                },
                Err(error) => tracing::warn!(machine = %name, reason = error.reason, "no zone can be seen"),
            }
            tokio::time::sleep(zone_list::MAX_AGE).await;
        }
    }
}
