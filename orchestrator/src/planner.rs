//! From deliveries to runs: claims what intake stored, reads the ref and the workflow files again at
//! their source, and stores plans. A delivery is only a hint; nothing of it is believed that the
//! forge or the mirror can say.

mod batch;
mod catch_up;
mod claims;
mod commits;
mod decide;
mod error;

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use self::{
    catch_up::{CatchUp, Caught},
    decide::{WorkflowFile, decide},
};
use crate::{
    config::Config,
    daemon::Deps,
    failpoint::{self, Point},
    forge::{ConnectionHealth, Forge},
    intake::{verdict, verdict_text},
    model::names::ConnectionId,
    queue::{Hint, Hints},
    source::Source,
    store::{ClaimedDelivery, Store, StoreError},
};

/// How long a claim lasts unless it is renewed; a daemon that died meanwhile leaves it to the next.
const LEASE: Duration = Duration::from_secs(60);
/// Repositories planned for at one time: one that is slow to fetch delays its own triggers alone.
const AT_ONCE: usize = 4;
/// Triggers of one repository that are planned together, with one fetch.
const TOGETHER: u32 = 100;

/// Plans deliveries and triggers.
#[derive(Clone)]
pub struct Planner {
    store: Store,
    forges: Arc<HashMap<ConnectionId, Arc<dyn Forge>>>,
    source: Source,
    connections: ConnectionHealth,
    config: Arc<Config>,
    hints: Arc<dyn Hints>,
}

impl Planner {
    /// A planner over these parts. It reports to `connections` which repositories it may not read.
    #[must_use]
    pub fn new(deps: &Deps, connections: ConnectionHealth) -> Self {
        Self {
            store: deps.store.clone(),
            forges: Arc::clone(&deps.forges),
            source: deps.source.clone(),
            connections,
            config: Arc::clone(&deps.config),
            hints: Arc::clone(&deps.hints),
        }
    }

    /// Plans until `stop`; what is under way then is given back.
    pub async fn run(self, stop: CancellationToken) {
        let mut hints = self.hints.subscribe();
        let mut planning = JoinSet::new();
        loop {
            if let Err(error) = self.claim_due(&mut planning, &stop).await {
                tracing::error!(error = &error as &dyn std::error::Error, "cannot plan now");
            }
            let more = tokio::select! {
                () = stop.cancelled() => false,
                Some(ended) = planning.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "planning a trigger broke down; it is tried again when its lease ends");
                    }
                    true
                }
                more = hints.wait_for_news(|hint| matches!(hint, Hint::Delivery | Hint::Trigger)) => more,
            };
            if !more {
                // Each task sees the stop by itself.
                while planning.join_next().await.is_some() {}
                return;
            }
        }
    }

    /// Takes everything that is due and that there is room for.
    async fn claim_due(&self, planning: &mut JoinSet<()>, stop: &CancellationToken) -> Result<(), StoreError> {
        while !stop.is_cancelled() {
            let Some(delivery) = self.store.claim_delivery(&self.config.node, LEASE).await? else {
                break;
            };
            self.delivery(delivery).await?;
        }
        while !stop.is_cancelled() && planning.len() < AT_ONCE {
            let batch = self.store.claim_triggers(&self.config.node, LEASE, TOGETHER).await?;
            if batch.is_empty() {
                break;
            }
            let (planner, stop) = (self.clone(), stop.clone());
            planning.spawn(async move { planner.batch(batch, &stop).await });
        }
        Ok(())
    }

    async fn delivery(&self, claimed: ClaimedDelivery) -> Result<(), StoreError> {
        let forge = self.forges.get(&claimed.connection).cloned();
        let config = Arc::clone(&self.config);
        // A body may have 25 MB, and reading it would hold up leases and heartbeats.
        let read = tokio::task::spawn_blocking(move || {
            let outcome = verdict(
                forge.as_deref(),
                &config,
                &claimed.connection,
                &claimed.event,
                &claimed.body,
            );
            (outcome, claimed)
        });
        let (outcome, claimed) = match read.await {
            Ok(read) => read,
            Err(error) => {
                tracing::error!(%error, "reading a delivery broke down; it is read again when its lease ends");
                return Ok(());
            }
        };
        let (id, connection, event) = (claimed.id, &claimed.connection, &claimed.event);
        tracing::info!(delivery = %id, %connection, event, outcome = verdict_text(&outcome), "read a delivery");
        self.store.finish_delivery(claimed.id, claimed.epoch, outcome).await?;
        failpoint::hit(Point::DeliveryRead);
        self.hints.notify(Hint::Trigger);
        Ok(())
    }
}
