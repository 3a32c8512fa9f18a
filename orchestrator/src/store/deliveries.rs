//! Deliveries: webhooks, stored before they are answered and claimed like jobs afterwards.

use std::time::Duration;

use super::{
    Store, StoreError,
    law::{before, guarded},
    ms, triggers,
    tx::{Row, Tx, args, clip},
};
use crate::model::{
    ids::DeliveryId,
    names::{ConnectionId, NodeName},
    state::IntakeState,
    trigger::Trigger,
};

/// A webhook that passed verification.
#[derive(Debug, Clone)]
pub struct NewDelivery {
    /// Through which connection it came.
    pub connection: ConnectionId,
    /// The forge's own id of the delivery (`X-GitHub-Delivery` and the like), at most 128 bytes.
    pub key: String,
    /// The forge's word for the event.
    pub event: String,
    /// The body, without what must not be stored.
    pub body: Vec<u8>,
    /// SHA-256 of the body as it was received.
    pub digest: [u8; 32],
}

/// Whether a delivery is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// Stored now.
    New(DeliveryId),
    /// It was stored before, as this one: the same key, or the same body within three days.
    Duplicate(DeliveryId),
}

/// A delivery to be read.
#[derive(Debug, Clone)]
pub struct ClaimedDelivery {
    /// Which.
    pub id: DeliveryId,
    /// To be shown when finishing.
    pub epoch: i64,
    /// How often it was claimed, this time included.
    pub tries: u32,
    /// Through which connection it came.
    pub connection: ConnectionId,
    /// The forge's word for the event.
    pub event: String,
    /// The stored body.
    pub body: Vec<u8>,
}

/// What became of a delivery.
#[derive(Debug, Clone)]
pub enum DeliveryOutcome {
    /// These triggers.
    Planned(Vec<Trigger>),
    /// Nothing to do, and why.
    Ignored(String),
    /// It cannot be used, and why.
    Failed(String),
}

/// A delivery, for people.
#[derive(Debug, Clone)]
pub struct DeliveryRow {
    /// Which.
    pub id: DeliveryId,
    /// Through which connection it came.
    pub connection: ConnectionId,
    /// The forge's word for the event.
    pub event: String,
    /// The forge's own id.
    pub key: String,
    /// Where it stands.
    pub state: IntakeState,
    /// Why it was ignored or failed.
    pub reason: Option<String>,
    /// Milliseconds since 1970.
    pub received_ms: i64,
}

const SAME_BODY: Duration = Duration::from_secs(3 * 24 * 3600);

impl Store {
    /// Stores a webhook once: a second delivery with its key, or with its body within three days
    /// (a replay under a new key), is a duplicate.
    pub async fn record_delivery(&self, delivery: NewDelivery) -> Result<Recorded, StoreError> {
        in_tx!(self, "store a delivery", [delivery = delivery], |tx| record(
            tx, delivery
        ))
    }

    /// The oldest delivery that nobody works on.
    pub async fn claim_delivery(
        &self,
        node: &NodeName,
        lease: Duration,
    ) -> Result<Option<ClaimedDelivery>, StoreError> {
        in_tx!(self, "claim a delivery", [node = node.clone()], |tx| claim(
            tx, node, lease
        ))
    }

    /// Ends a delivery; `false` when the lease was lost and nothing was stored.
    pub async fn finish_delivery(
        &self,
        id: DeliveryId,
        epoch: i64,
        outcome: DeliveryOutcome,
    ) -> Result<bool, StoreError> {
        in_tx!(self, "finish a delivery", [outcome = outcome], |tx| finish(
            tx, id, epoch, outcome
        ))
    }

    /// The newest deliveries first.
    pub async fn recent_deliveries(&self, limit: u32) -> Result<Vec<DeliveryRow>, StoreError> {
        let mut tx = self.glance("list deliveries").await?;
        let rows = tx
            .rows(
                "SELECT id, connection, event, delivery_key, state, reason, received_ms
                 FROM deliveries ORDER BY seq DESC LIMIT $1",
                args![limit],
            )
            .await?;
        rows.iter().map(delivery_row).collect()
    }
}

fn delivery_row(row: &Row) -> Result<DeliveryRow, StoreError> {
    Ok(DeliveryRow {
        id: row.parse("id")?,
        connection: row.parse("connection")?,
        event: row.text("event")?,
        key: row.text("delivery_key")?,
        state: row.parse("state")?,
        reason: row.opt_text("reason")?,
        received_ms: row.int("received_ms")?,
    })
}

async fn record(tx: &mut Tx, new: &NewDelivery) -> Result<Recorded, StoreError> {
    if new.key.is_empty() || new.key.len() > 128 {
        return Err(StoreError::Internal {
            what: tx.what,
            reason: format!("its key has {} bytes, and 1 to 128 are allowed", new.key.len()),
        });
    }
    let same_body = tx
        .row(
            "SELECT id FROM deliveries
             WHERE connection = $1 AND event = $2 AND digest = $3 AND received_ms > $4 ORDER BY seq LIMIT 1",
            args![&new.connection, &new.event, &new.digest, tx.now - ms(SAME_BODY)],
        )
        .await?;
    if let Some(row) = same_body {
        return Ok(Recorded::Duplicate(row.parse("id")?));
    }
    let id = DeliveryId::new();
    let inserted = tx
        .execute(
            "INSERT INTO deliveries (id, connection, delivery_key, event, body, digest, state, received_ms)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
             ON CONFLICT (connection, delivery_key) DO NOTHING",
            args![
                id,
                &new.connection,
                &new.key,
                clip(&new.event, 100),
                &new.body,
                &new.digest,
                IntakeState::Received,
                tx.now
            ],
        )
        .await?;
    if inserted == 1 {
        return Ok(Recorded::New(id));
    }
    let row = tx
        .row(
            "SELECT id FROM deliveries WHERE connection = $1 AND delivery_key = $2",
            args![&new.connection, &new.key],
        )
        .await?;
    match row {
        Some(row) => Ok(Recorded::Duplicate(row.parse("id")?)),
        None => Err(StoreError::Internal {
            what: tx.what,
            reason: "a delivery with the same key was just removed; send it again".to_owned(),
        }),
    }
}

async fn claim(tx: &mut Tx, node: &NodeName, lease: Duration) -> Result<Option<ClaimedDelivery>, StoreError> {
    let row = tx
        .row(
            "UPDATE deliveries SET epoch = epoch + 1, tries = tries + 1, lease_owner = $1, lease_until = $2
             WHERE state = 'received' AND seq = (
                 SELECT seq FROM deliveries WHERE state = 'received' AND lease_until <= $3
                 ORDER BY seq LIMIT 1 /*pg FOR UPDATE SKIP LOCKED*/)
             RETURNING id, epoch, tries, connection, event, body",
            args![node, tx.now + ms(lease), tx.now],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(ClaimedDelivery {
        id: row.parse("id")?,
        epoch: row.int("epoch")?,
        tries: row.num("tries")?,
        connection: row.parse("connection")?,
        event: row.text("event")?,
        body: row.opt_blob("body")?.unwrap_or_default(),
    }))
}

async fn finish(tx: &mut Tx, id: DeliveryId, epoch: i64, outcome: &DeliveryOutcome) -> Result<bool, StoreError> {
    let (to, reason) = match outcome {
        DeliveryOutcome::Planned(_) => (IntakeState::Planned, None),
        DeliveryOutcome::Ignored(reason) => (IntakeState::Ignored, Some(clip(reason, 2000))),
        DeliveryOutcome::Failed(reason) => (IntakeState::Failed, Some(clip(reason, 2000))),
    };
    let sql = guarded(
        "UPDATE deliveries SET state = $3, reason = $4 WHERE id = $1 AND epoch = $2 AND state IN ({from})",
        &before(to),
        to,
    );
    if tx.execute(sql, args![id, epoch, to, reason]).await? == 0 {
        return Ok(false);
    }
    if let DeliveryOutcome::Planned(new) = outcome {
        for trigger in new {
            triggers::insert(tx, trigger, Some(id), &trigger.actor).await?;
        }
    }
    Ok(true)
}
