//! This node among others: the lock on its data directory, its registration and heartbeat, the attempts that it takes up
//! again at start, the sweep that compares what exists with what should, and the watch over other nodes.

mod lock;
mod register;
mod sweep;
mod watch;

use std::{io, path::PathBuf, time::Duration};

use tokio_util::sync::CancellationToken;

pub use self::{
    lock::DataLock,
    register::{recover, register},
    sweep::sweep,
};
use crate::{
    daemon::Deps,
    driver,
    model::ids::InstanceId,
    queue::Hint,
    store::{StoreError, Waiting},
};

/// The shortest interval of heartbeats and of the watch over other nodes, however short the grace is.
const SHORTEST: Duration = Duration::from_secs(1);
/// Interval of the poll that makes lost hints good.
const POLL: Duration = Duration::from_secs(10);
/// Interval of the sweep, and the longest of the watch over other nodes.
const SWEEP: Duration = Duration::from_secs(60);

/// The node cannot be this one.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Another daemon uses the name.
    #[error(
        "another helios-ci with the node name `{node}` was alive {seconds} s ago: stop it, or give this one another `node:` in its configuration"
    )]
    Busy {
        /// The name that both have.
        node: String,
        /// Age of the other's heartbeat.
        seconds: i64,
    },
    /// Another daemon uses the data directory.
    #[error("another helios-ci uses the data directory {0}: stop it, or give this one another `data_dir:`")]
    Locked(PathBuf),
    /// The data directory cannot be used.
    #[error("cannot use {path}: check the owner and mode of the data directory")]
    File {
        /// The file that cannot be used.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Writes this node's heartbeat, makes lost hints good, gives up the attempts of silent nodes, and sweeps at once and then
/// on a timer, until `stop`. When another daemon took the name over, this one stops everything: it
/// must not act any more.
pub async fn run(deps: Deps, instance: InstanceId, stop: CancellationToken) {
    // Side by side: removing a machine may take minutes, and a node must not seem dead meanwhile.
    tokio::join!(
        register::heartbeats(&deps, instance, &stop),
        poll_waiting(&deps, &stop),
        watch::watch(&deps, &stop),
        sweep::sweeps(&deps, &stop),
        attend_kept(&deps, &stop)
    );
}

/// Hints may be lost, here and on their way from another node: whatever waits in the database is hinted at again,
/// so that a loss costs 10 s. One poll serves every part of the daemon.
async fn poll_waiting(deps: &Deps, stop: &CancellationToken) {
    let mut timer = tokio::time::interval(POLL);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(timer.tick()).await.is_some() {
        match deps.store.waiting().await {
            Ok(waiting) => {
                for waiting in waiting {
                    deps.hints.notify(match waiting {
                        Waiting::Delivery => Hint::Delivery,
                        Waiting::Trigger => Hint::Trigger,
                        Waiting::Job => Hint::Job,
                        Waiting::Report => Hint::Report,
                        Waiting::Kept => Hint::Kept,
                    });
                }
            }
            Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "cannot poll for waiting work"),
        }
    }
}

/// Attends to kept machines: at once when something about them changed, and with each poll of what waits, as the time of
/// one may be over.
async fn attend_kept(deps: &Deps, stop: &CancellationToken) {
    let mut hints = deps.hints.subscribe();
    loop {
        if let Some(Err(error)) = stop.run_until_cancelled(driver::check_kept_machines(deps)).await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "cannot attend to kept machines"
            );
        }
        let kept = hints.wait_for(|hint| hint == Hint::Kept);
        if stop.run_until_cancelled(kept).await != Some(true) {
            return;
        }
    }
}
