//! The node's name in the database: claimed at start, with the attempts that it owned before, and held by heartbeats.

use std::{fs, io, time::Duration};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{DataLock, NodeError, SHORTEST};
use crate::{
    daemon::Deps,
    driver::{self, Start},
    files::{remove_unfinished, write_private},
    model::ids::InstanceId,
    store::{Registered, StoreError},
};

/// The longest interval of heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(20);
/// A node whose last heartbeat is younger than this is taken for alive, so its name is refused.
const ALIVE: Duration = Duration::from_secs(60);

/// Claims the node's name. A daemon that held this data directory before and was killed need not be
/// waited for: the lock shows that it is dead.
///
/// # Errors
/// When another living daemon has the name.
pub async fn register(deps: &Deps, lock: &DataLock, instance: InstanceId) -> Result<(), NodeError> {
    let file = |source| NodeError::File {
        path: lock.previous.clone(),
        source,
    };
    let data_dir = &deps.config.data_dir;
    remove_unfinished(data_dir).map_err(|source| NodeError::File {
        path: data_dir.clone(),
        source,
    })?;
    match fs::read_to_string(&lock.previous) {
        Ok(text) => {
            if let Ok(previous) = text.trim().parse::<InstanceId>() {
                deps.store.leave(&deps.config.node, previous).await?;
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(file(error)),
    }
    write_private(&lock.previous, instance.to_string().as_bytes()).map_err(file)?;
    match deps.store.register_node(&deps.config.node, instance, ALIVE).await? {
        Registered::Ok => Ok(()),
        Registered::Busy { since_ms } => Err(NodeError::Busy {
            node: deps.config.node.to_string(),
            seconds: (crate::clock::now_ms() - since_ms).max(0) / 1000,
        }),
    }
}

/// Takes up the attempts that this node owned before it restarted: those whose machine runs go on,
/// the others end as an infrastructure failure and get a fresh machine.
///
/// # Errors
/// When the database cannot be used.
pub async fn recover(
    deps: &Deps,
    instance: InstanceId,
    attempts: &TaskTracker,
    stop: &CancellationToken,
) -> Result<(), StoreError> {
    for attempt in deps.store.reclaim(&deps.config.node, instance).await? {
        tracing::info!(attempt = %attempt.id, job = %attempt.job, state = %attempt.state, "taking up an attempt again");
        attempts.spawn(driver::drive(deps.clone(), attempt, Start::Adopted, stop.clone()));
    }
    Ok(())
}

/// Writes heartbeats until `stop`, and stops the daemon when another took its name over.
pub(super) async fn heartbeats(deps: &Deps, instance: InstanceId, stop: &CancellationToken) {
    let grace = Duration::from_secs(deps.config.limits.node_grace_s);
    // Several within the grace, so that one that is late means nothing.
    let mut heartbeat = tokio::time::interval((grace / 12).clamp(SHORTEST, HEARTBEAT));
    while stop.run_until_cancelled(heartbeat.tick()).await.is_some() {
        match deps.store.heartbeat(&deps.config.node, instance).await {
            Ok(true) => {}
            Ok(false) => {
                tracing::error!(node = %deps.config.node, "another daemon took this node's name over; stopping");
                stop.cancel();
            }
            Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "cannot write a heartbeat"),
        }
    }
}
