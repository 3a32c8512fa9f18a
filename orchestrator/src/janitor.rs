//! Retention: one place that computes what has expired. Files go before rows, so that a crash in
//! between leaves a row that is found again.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::{driver::Deps, store::StoreError};

/// How often it looks; things are kept for days.
const EVERY: Duration = Duration::from_secs(3600);

/// Removes what has expired, now and every hour until `stop`.
pub async fn run(deps: Deps, stop: CancellationToken) {
    let mut turns = tokio::time::interval(EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = turns.tick() => {}
        }
        if let Err(error) = turn(&deps).await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "cannot remove what has expired"
            );
        }
    }
}

async fn turn(deps: &Deps) -> Result<(), StoreError> {
    let expired = deps.store.expired(&deps.config.retention).await?;
    for attempt in expired.logs {
        match deps.logs.remove(attempt).await {
            Ok(()) => deps.store.logs_removed(attempt).await?,
            Err(error) => {
                tracing::error!(%attempt, error = &error as &dyn std::error::Error, "cannot remove an expired log");
            }
        }
    }
    for run in expired.runs {
        tracing::info!(%run, "forgetting a run that has expired");
        deps.store.forget_run(run).await?;
    }
    Ok(())
}
