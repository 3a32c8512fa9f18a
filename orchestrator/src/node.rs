//! This node among others: its registration and heartbeat, what it takes up again at start, and the
//! sweep that compares what exists with what should.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    driver::{self, Deps, Start},
    files::write_private,
    model::{
        ids::{AttemptId, InstanceId},
        names::NodeName,
        state::{AttemptState, MachineState},
    },
    queue::Hint,
    store::{Registered, StoreError, Waiting},
};

/// How often a node says that it lives.
const HEARTBEAT: Duration = Duration::from_secs(20);
/// However short the grace is.
const SHORTEST: Duration = Duration::from_secs(1);
/// A node whose last heartbeat is younger than this is taken for alive, so its name is refused.
const ALIVE: Duration = Duration::from_secs(60);
/// How often lost hints are made good.
const LOOK: Duration = Duration::from_secs(10);
/// How often what exists is compared with what should.
const SWEEP: Duration = Duration::from_secs(60);

/// Holds the data directory for this process; the kernel lets go of it when the process dies, however
/// it dies.
#[derive(Debug)]
pub struct DataLock {
    _file: nix::fcntl::Flock<fs::File>,
    previous: PathBuf,
}

/// The node cannot be this one.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Another daemon uses the name.
    #[error(
        "another helios-ci with the node name `{node}` was alive {seconds} s ago: stop it, or give this one another `node:` in its configuration"
    )]
    Busy {
        /// The name.
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
        /// Which file.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl DataLock {
    /// Whether a living process holds the data directory. Makes nothing.
    ///
    /// # Errors
    /// As [`DataLock::take`].
    pub fn is_held(data_dir: &Path) -> Result<bool, NodeError> {
        if !data_dir.join("daemon.lock").exists() {
            return Ok(false);
        }
        match Self::take(data_dir) {
            Ok(_) => Ok(false),
            Err(NodeError::Locked(_)) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Takes the data directory.
    ///
    /// # Errors
    /// When another process has it, or it cannot be written.
    pub fn take(data_dir: &Path) -> Result<Self, NodeError> {
        let path = data_dir.join("daemon.lock");
        let file = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path);
        let file = file.map_err(|source| NodeError::File {
            path: path.clone(),
            source,
        })?;
        match nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Self {
                _file: file,
                previous: data_dir.join("instance"),
            }),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(NodeError::Locked(data_dir.to_owned())),
            Err((_, errno)) => Err(NodeError::File {
                path,
                source: errno.into(),
            }),
        }
    }
}

/// Claims the node's name. A daemon that held this data directory before and was killed need not be
/// waited for: who has the lock knows that it is dead.
///
/// # Errors
/// When another living daemon has the name.
pub async fn register(deps: &Deps, lock: &DataLock, instance: InstanceId) -> Result<(), NodeError> {
    let file = |source| NodeError::File {
        path: lock.previous.clone(),
        source,
    };
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
/// the others end as our failure and get a fresh machine.
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

/// Destroys what carries our mark and belongs to no living attempt, one machine after another.
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

/// Says that the node lives, makes lost hints good, gives up the attempts of nodes that do not, and sweeps at once and then
/// on a timer, until `stop`. When another daemon took the name over, this one stops everything: it
/// must not act any more.
pub async fn run(deps: Deps, instance: InstanceId, stop: CancellationToken) {
    // Side by side: removing a machine may take minutes, and a node must not seem dead meanwhile.
    tokio::join!(
        heartbeats(&deps, instance, &stop),
        looks(&deps, &stop),
        watch(&deps, &stop),
        sweeps(&deps, &stop),
        keeps(&deps, &stop)
    );
}

async fn heartbeats(deps: &Deps, instance: InstanceId, stop: &CancellationToken) {
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

/// Hints may be lost, here and on their way from another node: whatever waits in the database is hinted at
/// again, so that a loss costs 10 s. One look serves every part of the daemon.
async fn looks(deps: &Deps, stop: &CancellationToken) {
    let mut timer = tokio::time::interval(LOOK);
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
            Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "cannot look for waiting work"),
        }
    }
}

/// What one daemon has seen of another node. Its heartbeat only says whether it moves: how long it has
/// not is measured here, so that no clock that is set, here or there, makes a node look dead or alive.
#[derive(Debug)]
struct Seen {
    heartbeat_ms: i64,
    looked: Instant,
    silent: Duration,
}

/// Notes newest heartbeats, and names the nodes that have been silent for `grace`. Between two looks
/// counts at most `longest`: a daemon that was itself stopped has not seen that others were not.
fn silent_nodes(
    seen: &mut HashMap<NodeName, Seen>,
    newest: Vec<(NodeName, i64)>,
    now: Instant,
    longest: Duration,
    grace: Duration,
) -> Vec<(NodeName, i64, Duration)> {
    let mut before = std::mem::take(seen);
    let mut silent = Vec::new();
    for (name, heartbeat_ms) in newest {
        let known = before.remove(&name).filter(|seen| seen.heartbeat_ms == heartbeat_ms);
        let so_far = known.map_or(Duration::ZERO, |seen| {
            seen.silent + now.saturating_duration_since(seen.looked).min(longest)
        });
        if so_far >= grace {
            silent.push((name.clone(), heartbeat_ms, so_far));
        }
        let note = Seen {
            heartbeat_ms,
            looked: now,
            silent: so_far,
        };
        seen.insert(name, note);
    }
    silent
}

/// Gives up the attempts of nodes that fell silent.
async fn watch(deps: &Deps, stop: &CancellationToken) {
    let grace = Duration::from_secs(deps.config.limits.node_grace_s);
    let every = (grace / 10).clamp(SHORTEST, SWEEP);
    let mut timer = tokio::time::interval(every);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut seen = HashMap::new();
    while stop.run_until_cancelled(timer.tick()).await.is_some() {
        let looked = async {
            let newest = deps.store.heartbeats(&deps.config.node).await?;
            for (node, heartbeat_ms, silent) in silent_nodes(&mut seen, newest, Instant::now(), every * 2, grace) {
                let tries = deps.config.limits.infra_tries;
                let given_up = deps.store.give_up_node(&node, heartbeat_ms, silent, tries).await?;
                tracing::warn!(%node, attempts = given_up.len(), "gave up the attempts of a silent node");
                deps.hints.notify(Hint::Job);
                deps.hints.notify(Hint::Report);
            }
            Ok::<_, StoreError>(())
        };
        if let Err(error) = looked.await {
            tracing::error!(error = &error as &dyn std::error::Error, "cannot look for silent nodes");
        }
    }
}

/// Looks after kept machines: at once when something about them changed, and with each look at what waits, as the time
/// of one may be over.
async fn keeps(deps: &Deps, stop: &CancellationToken) {
    let mut hints = deps.hints.subscribe();
    loop {
        if let Some(Err(error)) = stop.run_until_cancelled(driver::look_after_kept(deps)).await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "cannot look after kept machines"
            );
        }
        let kept = hints.heard(|hint| hint == Hint::Kept);
        if stop.run_until_cancelled(kept).await != Some(true) {
            return;
        }
    }
}

/// Says what a person must look at, once for each, and counts it.
async fn tell(deps: &Deps, known: &mut Vec<String>) {
    match deps.machines.troubles().await {
        Ok(troubles) => {
            for trouble in troubles.iter().filter(|trouble| !known.contains(trouble)) {
                tracing::error!(trouble, "a person must look at this");
            }
            deps.metrics.machine_troubles(troubles.len());
            *known = troubles;
        }
        Err(error) => tracing::error!(
            error = &error as &dyn std::error::Error,
            "cannot look for troubles of machines"
        ),
    }
}

async fn sweeps(deps: &Deps, stop: &CancellationToken) {
    let mut timer = tokio::time::interval(SWEEP);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut troubles = Vec::new();
    while stop.run_until_cancelled(timer.tick()).await.is_some() {
        stop.run_until_cancelled(tell(deps, &mut troubles)).await;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_what_was_watched_and_not_what_clocks_say() {
        let (mut seen, start) = (HashMap::new(), Instant::now());
        let (longest, grace) = (Duration::from_secs(20), Duration::from_secs(60));
        let mut look = |at: u64, heartbeat_ms: i64| {
            let newest = vec![("other".parse().unwrap(), heartbeat_ms)];
            let silent = silent_nodes(&mut seen, newest, start + Duration::from_secs(at), longest, grace);
            silent.into_iter().map(|(_, _, silent)| silent.as_secs()).next()
        };
        assert_eq!(look(0, 0), None, "an old heartbeat alone says nothing");
        assert_eq!(look(20, 5), None);
        assert_eq!(look(5000, 5), None, "who was stopped has not watched");
        assert_eq!(look(5020, -3_600_000), None, "it moves, if backwards");
        assert_eq!((look(5040, -3_600_000), look(5060, -3_600_000)), (None, None));
        assert_eq!(look(5080, -3_600_000), Some(60));
        assert_eq!(look(5081, 1), None);
    }
}
