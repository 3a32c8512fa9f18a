//! The watch over other nodes. Their silence is measured with this daemon's own monotonic clock.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::{SHORTEST, SWEEP};
use crate::{daemon::Deps, model::names::NodeName, queue::Hint, store::StoreError};

/// The last heartbeat of another node. Its time only says whether it moves: for how long it has
/// not is measured here, so that no clock that is set, here or there, makes a node look dead or alive.
#[derive(Debug)]
struct LastHeartbeat {
    heartbeat_ms: i64,
    polled: Instant,
    silent: Duration,
}

/// Notes newest heartbeats, and returns the nodes that have been silent for `grace`. Between two polls
/// at most `longest` counts: a daemon that was itself stopped has not seen that others were not.
fn silent_nodes(
    nodes: &mut HashMap<NodeName, LastHeartbeat>,
    newest: Vec<(NodeName, i64)>,
    now: Instant,
    longest: Duration,
    grace: Duration,
) -> Vec<(NodeName, i64, Duration)> {
    let mut before = std::mem::take(nodes);
    let mut silent = Vec::new();
    for (name, heartbeat_ms) in newest {
        let known = before.remove(&name).filter(|last| last.heartbeat_ms == heartbeat_ms);
        let so_far = known.map_or(Duration::ZERO, |last| {
            last.silent + now.saturating_duration_since(last.polled).min(longest)
        });
        if so_far >= grace {
            silent.push((name.clone(), heartbeat_ms, so_far));
        }
        let last = LastHeartbeat {
            heartbeat_ms,
            polled: now,
            silent: so_far,
        };
        nodes.insert(name, last);
    }
    silent
}

/// Gives up the attempts of nodes that fell silent, until `stop`.
pub(super) async fn watch(deps: &Deps, stop: &CancellationToken) {
    let grace = Duration::from_secs(deps.config.limits.node_grace_s);
    let every = (grace / 10).clamp(SHORTEST, SWEEP);
    let mut timer = tokio::time::interval(every);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut nodes = HashMap::new();
    while stop.run_until_cancelled(timer.tick()).await.is_some() {
        let polled = async {
            let newest = deps.store.heartbeats(&deps.config.node).await?;
            for (node, heartbeat_ms, silent) in silent_nodes(&mut nodes, newest, Instant::now(), every * 2, grace) {
                let tries = deps.config.limits.infra_tries;
                let given_up = deps.store.give_up_node(&node, heartbeat_ms, silent, tries).await?;
                tracing::warn!(%node, attempts = given_up.len(), "gave up the attempts of a silent node");
                deps.hints.notify(Hint::Job);
                deps.hints.notify(Hint::Report);
            }
            Ok::<_, StoreError>(())
        };
        if let Err(error) = polled.await {
            tracing::error!(error = &error as &dyn std::error::Error, "cannot poll for silent nodes");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_what_was_watched_and_not_what_clocks_say() {
        let (mut nodes, start) = (HashMap::new(), Instant::now());
        let (longest, grace) = (Duration::from_secs(20), Duration::from_secs(60));
        let mut poll = |at: u64, heartbeat_ms: i64| {
            let newest = vec![("other".parse().unwrap(), heartbeat_ms)];
            let silent = silent_nodes(&mut nodes, newest, start + Duration::from_secs(at), longest, grace);
            silent.into_iter().map(|(_, _, silent)| silent.as_secs()).next()
        };
        assert_eq!(poll(0, 0), None, "an old heartbeat alone says nothing");
        assert_eq!(poll(20, 5), None);
        assert_eq!(poll(5000, 5), None, "who was stopped has not watched");
        assert_eq!(poll(5020, -3_600_000), None, "it moves, if backwards");
        assert_eq!((poll(5040, -3_600_000), poll(5060, -3_600_000)), (None, None));
        assert_eq!(poll(5080, -3_600_000), Some(60));
        assert_eq!(poll(5081, 1), None);
    }
}
