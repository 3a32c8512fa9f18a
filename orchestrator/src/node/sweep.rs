//! The sweep: machines that exist are compared with those that should, and what only a person can mend is reported.

use std::collections::HashSet;

use tokio_util::sync::CancellationToken;

use super::SWEEP;
use crate::{
    daemon::Deps,
    driver,
    model::{
        ids::AttemptId,
        state::{AttemptState, MachineState},
    },
    store::StoreError,
};

/// Destroys what carries our owner tag and belongs to no living attempt, one machine after another.
///
/// # Errors
/// When the database cannot be used.
pub async fn sweep(deps: &Deps) -> Result<(), StoreError> {
    let mut wanted = HashSet::new();
    for row in deps.store.machines_of(&deps.config.node).await? {
        // Unless it is kept, what has ended is removed; also when it came to its end since the rows were read.
        if row.state == MachineState::Kept || lives(deps, row.attempt).await? || !deps.store.drain(&row.name).await? {
            wanted.insert(row.name);
        } else {
            driver::destroy_once(deps, &row.name).await;
        }
    }
    let found = match deps.machines.list().await {
        Ok(found) => found,
        Err(error) => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "cannot list this node's machines"
            );
            return Ok(());
        }
    };
    for machine in found {
        if !wanted.contains(&machine.name) && !lives(deps, machine.name.attempt()).await? {
            tracing::warn!(machine = %machine.name, "destroying a machine that belongs to no living attempt");
            driver::destroy_once(deps, &machine.name).await;
        }
    }
    Ok(())
}

async fn lives(deps: &Deps, attempt: AttemptId) -> Result<bool, StoreError> {
    let row = deps.store.attempt(attempt).await?;
    Ok(row.is_some_and(|row| row.state != AttemptState::Ended))
}

/// Logs each finding of the back end once, and counts them. `known` holds those of the poll before.
async fn report_findings(deps: &Deps, known: &mut Vec<String>) {
    match deps.machines.findings().await {
        Ok(findings) => {
            for finding in findings.iter().filter(|finding| !known.contains(finding)) {
                tracing::error!(finding, "a person must look at this");
            }
            deps.metrics.machine_findings(findings.len());
            *known = findings;
        }
        Err(error) => tracing::error!(
            error = &error as &dyn std::error::Error,
            "cannot ask what is wrong with machines"
        ),
    }
}

/// Sweeps at once and then on a timer, until `stop`.
pub(super) async fn sweeps(deps: &Deps, stop: &CancellationToken) {
    let mut timer = tokio::time::interval(SWEEP);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut findings = Vec::new();
    while stop.run_until_cancelled(timer.tick()).await.is_some() {
        stop.run_until_cancelled(report_findings(deps, &mut findings)).await;
        match stop.run_until_cancelled(sweep(deps)).await {
            None | Some(Ok(())) => {}
            Some(Err(error)) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "cannot compare machines with attempts"
                );
            }
        }
    }
}
