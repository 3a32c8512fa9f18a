//! What goes after its time, and what is left to be ended. One place computes what has expired. Of a file, its row is
//! marked first, then its node removes the file, then the row; so a crash in between leaves a row that is found again.

use std::{collections::HashSet, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    config::Retention,
    daemon::Deps,
    logs::{LogError, LogStore},
    model::{ids::AttemptId, names::NodeName},
    store::{FileClass, Removal, Store, StoreError},
};

/// Interval between two polls for what has expired; things are kept for days.
const EXPIRE: Duration = Duration::from_secs(3600);
/// Interval between two polls for logs that are not sealed: their viewers wait for the end.
const SEAL: Duration = Duration::from_secs(60);

/// Removes what has expired, now and every hour, and seals what was left open, now and every minute, until `stop`.
pub async fn run(deps: Deps, stop: CancellationToken) {
    let mut janitor = Janitor {
        retention: deps.config.retention.clone(),
        node: deps.config.node.clone(),
        store: deps.store,
        logs: deps.logs,
        unsealable: HashSet::new(),
    };
    let (mut expire, mut seal) = (tokio::time::interval(EXPIRE), tokio::time::interval(SEAL));
    loop {
        let done = tokio::select! {
            () = stop.cancelled() => return,
            _ = seal.tick() => stop.run_until_cancelled(janitor.seal_left()).await,
            _ = expire.tick() => stop.run_until_cancelled(janitor.remove_expired()).await,
        };
        if let Some(Err(error)) = done {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "cannot clean up; it will be tried again"
            );
        }
    }
}

/// One node's janitor: of files, it touches this node's alone.
struct Janitor {
    store: Store,
    logs: LogStore,
    node: NodeName,
    retention: Retention,
    /// Logs that could not be sealed, and were complained about.
    unsealable: HashSet<AttemptId>,
}

impl Janitor {
    /// Marks what has expired, and removes the files that this node has of it, one batch after another. A file that
    /// cannot be removed stays marked, and is tried again at the next turn.
    async fn remove_expired(&self) -> Result<(), StoreError> {
        while self.store.expire(&self.node, &self.retention).await? {}
        loop {
            let expired = self.store.expired_runs(&self.retention).await?;
            if expired.is_empty() {
                break;
            }
            for run in expired {
                if self.store.forget_run(run).await? {
                    tracing::info!(%run, "forgot a run that had expired");
                }
            }
        }
        let mut last = None;
        loop {
            let marked = self.store.removals(&self.node, last).await?;
            let Some(end) = marked.last() else { return Ok(()) };
            last = Some(*end);
            for removal in marked {
                self.remove(removal).await?;
            }
        }
    }

    async fn remove(&self, removal: Removal) -> Result<(), StoreError> {
        let removed = match removal.class {
            FileClass::Log => self.logs.remove(removal.attempt).await,
        };
        match removed {
            Ok(()) => self.store.removed(&self.node, removal).await,
            Err(error) => {
                tracing::error!(attempt = %removal.attempt, error = &error as &dyn std::error::Error, "cannot remove an expired log");
                Ok(())
            }
        }
    }

    /// Seals the logs of this node whose attempts have ended without doing it: given up by another node, ended while
    /// their log or the disk failed, or interrupted between the two.
    async fn seal_left(&mut self) -> Result<(), StoreError> {
        let mut last = None;
        loop {
            let open = self.store.unsealed_logs(&self.node, last).await?;
            let Some(end) = open.last() else { return Ok(()) };
            last = Some(*end);
            let mut sealed = Vec::with_capacity(open.len());
            for attempt in open {
                match self.logs.seal_left(attempt).await {
                    Ok(()) => sealed.push(attempt),
                    // Its driver still has it, and seals it or lets go of it in a moment.
                    Err(LogError::Busy { .. }) => {}
                    Err(error) => {
                        if self.unsealable.insert(attempt) {
                            tracing::error!(%attempt, error = &error as &dyn std::error::Error, "cannot seal a log that was left open");
                        }
                    }
                }
            }
            self.store.logs_sealed(&sealed).await?;
            self.unsealable.retain(|attempt| !sealed.contains(attempt));
        }
    }
}

#[cfg(test)]
mod tests;
