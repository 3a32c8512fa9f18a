//! A machine that stays after its job for a person to look into: its node cuts it off, and removes it when its
//! time is over. Every part may be repeated by a daemon that takes over.

use std::error::Error;

use crate::{
    daemon::Deps,
    driver::destroy::destroy_once,
    error_chain::chain,
    model::{names::MachineName, state::MachineState},
    store::{MachineRow, StoreError},
};

/// One look at the kept machines of this node: cuts off those that are not, lets go of consoles that were asked
/// for, and removes what has had its time.
///
/// # Errors
/// When the database cannot be used.
pub async fn check_kept_machines(deps: &Deps) -> Result<(), StoreError> {
    let over = deps.store.end_keeps(&deps.config.node).await?;
    let kept = deps.store.kept_machines(&deps.config.node).await?;
    // Side by side: removing one may take minutes. What fails is draining, and the sweep tries again.
    let removed = over.iter().map(async |name| {
        tracing::info!(machine = %name, "a kept machine has had its time");
        destroy_once(deps, name).await;
    });
    let looked_after = async {
        for row in &kept {
            check_kept_machine(deps, row).await?;
        }
        Ok(())
    };
    futures::join!(futures::future::join_all(removed), looked_after).1
}

/// Whether a machine is kept. One that its job has just left is cut off at once.
pub(super) async fn is_kept(deps: &Deps, name: &MachineName) -> Result<bool, StoreError> {
    match deps.store.machine(name).await? {
        Some(row) if row.state == MachineState::Kept => check_kept_machine(deps, &row).await.map(|()| true),
        _ => Ok(false),
    }
}

async fn check_kept_machine(deps: &Deps, row: &MachineRow) -> Result<(), StoreError> {
    let (name, Some(keep)) = (&row.name, &row.keep) else {
        return Ok(());
    };
    if keep.backend.is_none() {
        return cut_off(deps, name).await;
    }
    if keep.console_release {
        match deps.machines.release_console(name).await {
            Ok(()) => deps.store.console_free(name).await?,
            Err(error) => failed(name, &error),
        }
    }
    Ok(())
}

async fn cut_off(deps: &Deps, name: &MachineName) -> Result<(), StoreError> {
    if let Err(error) = deps.source.drop_grant(name.attempt()).await {
        failed(name, &error);
        return Ok(());
    }
    match deps.machines.keep(name).await {
        Ok(()) => {
            tracing::info!(machine = %name, "a machine is kept and cut off");
            deps.store.machine_cut_off(name, deps.machines.backend()).await
        }
        Err(error) if error.retryable => {
            failed(name, &error);
            Ok(())
        }
        // What cannot be cut off must not stay.
        Err(error) => {
            failed(name, &error);
            deps.store.release_machine(name).await.map(drop)
        }
    }
}

fn failed(name: &MachineName, error: &dyn Error) {
    tracing::error!(machine = %name, error = chain(error), "a kept machine could not be looked after");
}
