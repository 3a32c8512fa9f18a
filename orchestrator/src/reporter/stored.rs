//! The outbox of the real store, as one node sees it.

use std::time::Duration;

use async_trait::async_trait;

use super::{Outbox, OutboxError, Owed};
use crate::{
    model::{names::NodeName, report::Lane},
    store::{PutOff, ReportStates, Store},
};

pub(super) struct StoredOutbox {
    pub(super) store: Store,
    pub(super) node: NodeName,
}

impl StoredOutbox {
    async fn put_off(&self, owed: &Owed, after: Duration, reason: &str, why: PutOff) -> Result<(), OutboxError> {
        Ok(self
            .store
            .put_off_report(owed.id, owed.version, after, reason, why)
            .await?)
    }
}

#[async_trait]
impl Outbox for StoredOutbox {
    async fn lanes(&self) -> Result<Vec<(Lane, Duration)>, OutboxError> {
        Ok(self.store.report_lanes().await?)
    }

    async fn claim(&self, lane: &Lane, states: ReportStates, lease: Duration) -> Result<Option<Owed>, OutboxError> {
        let claimed = self.store.claim_reports(&self.node, lane, states, 1, lease).await?;
        Ok(claimed.into_iter().next().map(|c| Owed {
            id: c.id,
            version: c.version,
            tries: c.tries,
            report: c.report,
            remote: c.remote,
        }))
    }

    async fn delivered(&self, owed: &Owed, remote: Option<&str>) -> Result<(), OutboxError> {
        Ok(self.store.report_delivered(owed.id, owed.version, remote).await?)
    }

    async fn held(&self, owed: &Owed, after: Duration, reason: &str) -> Result<(), OutboxError> {
        self.put_off(owed, after, reason, PutOff::Held).await
    }

    async fn failed(&self, owed: &Owed, after: Duration, reason: &str) -> Result<(), OutboxError> {
        self.put_off(owed, after, reason, PutOff::Failed).await
    }

    async fn refused(&self, owed: &Owed, after: Duration, reason: &str) -> Result<(), OutboxError> {
        self.put_off(owed, after, reason, PutOff::Refused).await
    }

    async fn hold(&self, lane: &Lane, after: Duration, reason: &str) -> Result<(), OutboxError> {
        Ok(self.store.hold_reports(lane, after, reason).await?)
    }

    async fn refuse_all(&self, lane: &Lane, after: Duration, reason: &str) -> Result<u64, OutboxError> {
        Ok(self.store.refuse_reports(lane, after, reason).await?)
    }

    async fn retry_failed(&self, lane: &Lane, most: u32) -> Result<u64, OutboxError> {
        Ok(self.store.retry_failed_reports(lane, most).await?)
    }
}
