//! The outbox of the real store, as one node sees it.

use std::time::Duration;

use async_trait::async_trait;

use super::{Outbox, OutboxError, Owed};
use crate::{model::names::NodeName, store::Store};

pub(super) struct StoredOutbox {
    pub(super) store: Store,
    pub(super) node: NodeName,
}

#[async_trait]
impl Outbox for StoredOutbox {
    async fn claim(&self, limit: u32, lease: Duration) -> Result<Vec<Owed>, OutboxError> {
        let claimed = self.store.claim_reports(&self.node, limit, lease).await?;
        let owed = claimed.into_iter().map(|c| Owed {
            id: c.id,
            version: c.version,
            report: c.report,
            remote: c.remote,
        });
        Ok(owed.collect())
    }

    async fn delivered(&self, owed: &Owed, remote: Option<&str>) -> Result<(), OutboxError> {
        Ok(self.store.report_delivered(owed.id, owed.version, remote).await?)
    }

    async fn later(&self, owed: &Owed, after: Duration, reason: &str) -> Result<(), OutboxError> {
        Ok(self.store.report_later(owed.id, owed.version, after, reason).await?)
    }

    async fn refused(&self, owed: &Owed, reason: &str) -> Result<(), OutboxError> {
        Ok(self.store.report_refused(owed.id, owed.version, reason).await?)
    }

    async fn next_due(&self) -> Result<Option<i64>, OutboxError> {
        Ok(self.store.next_report_due().await?)
    }
}
