//! Deliveries: webhooks, stored before they are answered and claimed like jobs afterwards.

use std::time::Duration;

use super::{
    set_aside::{Claimed, UNREADABLE_AT_ONCE, set_aside},
    triggers,
};
use crate::{
    foreign_text::clip,
    model::{
        ids::DeliveryId,
        names::{CommitSha, ConnectionId, NodeName},
        state::IntakeState,
        trigger::{Retry, Subject, Trigger},
    },
    store::{
        Store, StoreError,
        engine::{
            transitions::{predecessors, transition_sql},
            tx::{Row, Tx, args},
        },
        ms,
    },
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
    /// What it is about.
    pub subject: Subject,
}

/// Whether a delivery is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordOutcome {
    /// Stored now.
    New(DeliveryId),
    /// This one, with the same key or (within three days) the same body, led to runs, is on its way, or asks
    /// for nothing.
    Duplicate(DeliveryId),
    /// As [`RecordOutcome::Duplicate`]: this one waited for a credential or a right, and is due now. Whoever delivers
    /// again has mended that, or believes so.
    Woken(DeliveryId),
}

/// A delivery to be read.
#[derive(Debug, Clone)]
pub struct ClaimedDelivery {
    /// Its id.
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
    /// Nothing to do.
    Ignored {
        /// The reason, for people to read.
        reason: String,
        /// Whether it may come again.
        retry: Retry,
    },
    /// It cannot be used.
    Failed {
        /// The reason, for people to read.
        reason: String,
        /// Whether it may come again.
        retry: Retry,
    },
}

const SAME_BODY: Duration = Duration::from_secs(3 * 24 * 3600);
/// How many rows of one key the daemon makes by itself. Whoever delivers again may do so as often as the forge lets them.
pub(in crate::store) const AUTOMATIC_ROWS: u32 = 5;

impl Store {
    /// Stores a webhook, unless the same one, by its key or by its body within three days (a replay under a new key),
    /// is done or on its way. One that led to nothing may come again, and so may one whose ref was deleted or moved
    /// since.
    pub async fn record_delivery(&self, delivery: NewDelivery) -> Result<RecordOutcome, StoreError> {
        in_tx!(self, "store a delivery", [delivery = delivery], |tx| record(
            tx, delivery
        ))
    }

    /// Stores a delivery that led to nothing once more, as its forge would by delivering it again. `None` when that
    /// is not for us to do: something newer is known of its ref, it may not come again, its body is gone, or it was
    /// tried often enough.
    pub async fn deliver_again(&self, id: DeliveryId) -> Result<Option<DeliveryId>, StoreError> {
        in_tx!(self, "deliver again", [], |tx| again(tx, id))
    }

    /// The oldest delivery that nobody works on. One that cannot be read is passed over, and ends as failed.
    pub async fn claim_delivery(
        &self,
        node: &NodeName,
        lease: Duration,
    ) -> Result<Option<ClaimedDelivery>, StoreError> {
        let found = in_tx!(self, "claim a delivery", [node = node.clone()], |tx| claim(
            tx, node, lease
        ))?;
        self.note_unreadable(&found.unreadable);
        Ok(found.claimed)
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
}

/// An earlier row of the same key or body.
struct Earlier {
    id: DeliveryId,
    seq: i64,
    /// It led to nothing, and may come again.
    open: bool,
}

/// The SQL of "this delivery led to nothing and may come again", by us if `retries` is `'automatic'`.
macro_rules! open {
    ($retries:literal) => {
        concat!(
            "(d.state IN ('ignored', 'failed') AND d.retry IN (",
            $retries,
            ") OR d.state = 'planned'
                 AND EXISTS (SELECT 1 FROM triggers t WHERE t.delivery_id = d.id AND t.retry IN (",
            $retries,
            ")
                     AND t.state IN ('ignored', 'failed'))
                 AND NOT EXISTS (SELECT 1 FROM triggers t WHERE t.delivery_id = d.id
                     AND t.state IN ('received', 'planned')))"
        )
    };
}
pub(in crate::store) use open;

fn earlier(row: Option<Row>) -> Result<Option<Earlier>, StoreError> {
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Earlier {
        id: row.parse("id")?,
        seq: row.int("seq")?,
        open: row.flag("open")?,
    }))
}

async fn record(tx: &mut Tx, new: &NewDelivery) -> Result<RecordOutcome, StoreError> {
    if new.key.is_empty() || new.key.len() > 128 {
        return Err(StoreError::Internal {
            what: tx.what,
            reason: format!("its key has {} bytes, and 1 to 128 are allowed", new.key.len()),
        });
    }
    one_at_a_time(tx, &new.connection).await?;
    // The key is not signed: another repository's body under it is another delivery.
    let by_key = tx
        .row(
            concat!(
                "SELECT d.id, d.seq, CAST(CASE WHEN ",
                open!("'on_request', 'automatic'"),
                " THEN 1 ELSE 0 END AS BIGINT) AS open
                 FROM deliveries d WHERE d.connection = $1 AND d.delivery_key = $2
                     AND (d.digest = $3 OR d.repository_id = $4) ORDER BY d.seq DESC LIMIT 1"
            ),
            args![&new.connection, &new.key, &new.digest, &new.subject.repository_id],
        )
        .await?;
    if let Some(same) = earlier(by_key)?.filter(|same| !same.open) {
        return known(tx, same.id).await;
    }
    let by_body = tx
        .row(
            concat!(
                "SELECT d.id, d.seq, CAST(CASE WHEN ",
                open!("'on_request', 'automatic'"),
                " THEN 1 ELSE 0 END AS BIGINT) AS open
                 FROM deliveries d WHERE d.connection = $1 AND d.event = $2 AND d.digest = $3 AND d.received_ms > $4
                 ORDER BY d.seq DESC LIMIT 1"
            ),
            args![&new.connection, &new.event, &new.digest, tx.now - ms(SAME_BODY)],
        )
        .await?;
    let mut repeats = None;
    if let Some(same) = earlier(by_body)?.filter(|same| !same.open) {
        if !moved_since(tx, new, same.seq).await? {
            return known(tx, same.id).await;
        }
        repeats = Some(same.id);
    }
    insert(tx, new, repeats).await.map(RecordOutcome::New)
}

/// A delivery that is here already; what of it waits for a credential or a right becomes due. What waits for another
/// reason goes on waiting: each try of it counts, and the forge may have asked for the pause.
async fn known(tx: &mut Tx, id: DeliveryId) -> Result<RecordOutcome, StoreError> {
    let due = tx
        .execute(
            "UPDATE triggers SET due_ms = $2 WHERE delivery_id = $1 AND state = 'received' AND due_ms > $2
                 AND refused_ms IS NOT NULL",
            args![id, tx.now],
        )
        .await?;
    Ok(match due {
        0 => RecordOutcome::Duplicate(id),
        _ => RecordOutcome::Woken(id),
    })
}

/// Two deliveries of one body must not both find that they are the first.
async fn one_at_a_time(tx: &mut Tx, connection: &ConnectionId) -> Result<(), StoreError> {
    let hash = crate::digest::sha256(format!("deliveries of {connection}"));
    let section = hash.iter().take(8).fold(0_i64, |n, byte| (n << 8) | i64::from(*byte));
    tx.exclusive(section).await
}

/// Whether the ref of a push was deleted or pushed to another commit after an earlier delivery of the same body. What
/// only repeats an older body, and led to nothing, says nothing of the ref.
async fn moved_since(tx: &mut Tx, new: &NewDelivery, seq: i64) -> Result<bool, StoreError> {
    let (Some(repository), Some(ref_name)) = (&new.subject.repository_id, &new.subject.ref_name) else {
        return Ok(false);
    };
    let row = tx
        .row(
            "SELECT d.id FROM deliveries d WHERE d.connection = $1 AND d.repository_id = $2 AND d.ref_name = $3
                 AND d.seq > $4 AND d.digest <> $5 AND (d.commit_sha IS NULL OR d.commit_sha <> $6)
                 AND (d.repeats IS NULL OR d.deletion = 1
                     OR EXISTS (SELECT 1 FROM triggers t WHERE t.delivery_id = d.id AND t.state = 'planned'))
             LIMIT 1",
            args![
                &new.connection,
                repository,
                ref_name,
                seq,
                &new.digest,
                new.subject.commit.as_ref().map_or("", CommitSha::as_str),
            ],
        )
        .await?;
    Ok(row.is_some())
}

async fn insert(tx: &mut Tx, new: &NewDelivery, repeats: Option<DeliveryId>) -> Result<DeliveryId, StoreError> {
    let id = DeliveryId::new();
    tx.execute(
        "INSERT INTO deliveries (id, connection, delivery_key, number, event, body, digest, repository_id,
             repository_path, ref_name, commit_sha, deletion, repeats, state, received_ms)
         VALUES ($1, $2, $3, (SELECT COALESCE(MAX(number), 0) + 1 FROM deliveries WHERE connection = $2
             AND delivery_key = $3), $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
        args![
            id,
            &new.connection,
            &new.key,
            clip(&new.event, 100),
            &new.body,
            &new.digest,
            &new.subject.repository_id,
            &new.subject.repository,
            &new.subject.ref_name,
            &new.subject.commit,
            new.subject.is_deletion(),
            repeats,
            IntakeState::Received,
            tx.now
        ],
    )
    .await?;
    Ok(id)
}

async fn again(tx: &mut Tx, id: DeliveryId) -> Result<Option<DeliveryId>, StoreError> {
    let row = tx
        .row("SELECT connection FROM deliveries WHERE id = $1", args![id])
        .await?;
    let Some(row) = row else { return Ok(None) };
    one_at_a_time(tx, &row.parse("connection")?).await?;
    let next = DeliveryId::new();
    let inserted = tx
        .execute(
            concat!(
                "INSERT INTO deliveries (id, connection, delivery_key, number, event, body, digest, repository_id,
                     repository_path, ref_name, commit_sha, deletion, repeats, state, received_ms)
                 SELECT $2, d.connection, d.delivery_key, d.number + 1, d.event, d.body, d.digest, d.repository_id,
                     d.repository_path, d.ref_name, d.commit_sha, d.deletion, d.repeats, $3, $4
                 FROM deliveries d WHERE d.id = $1 AND d.body IS NOT NULL AND d.number < $5 AND ",
                open!("'automatic'"),
                " AND NOT EXISTS (SELECT 1 FROM deliveries n WHERE n.connection = d.connection AND n.seq > d.seq
                     AND (n.delivery_key = d.delivery_key AND (n.digest = d.digest OR n.repository_id = d.repository_id)
                         OR n.repository_id = d.repository_id AND n.ref_name = d.ref_name))"
            ),
            args![id, next, IntakeState::Received, tx.now, AUTOMATIC_ROWS],
        )
        .await?;
    Ok((inserted == 1).then_some(next))
}

/// See [`set_aside`].
const SET_ASIDE: &str = "UPDATE deliveries SET state = $2, reason = $3, retry = $4, lease_until = 0, lease_owner = NULL
    WHERE seq = $1 AND state IN ({from})";

async fn claim(tx: &mut Tx, node: &NodeName, lease: Duration) -> Result<Claimed<Option<ClaimedDelivery>>, StoreError> {
    let mut found = Claimed {
        claimed: None,
        unreadable: Vec::new(),
    };
    while found.unreadable.len() < UNREADABLE_AT_ONCE {
        let Some(row) = next_of_queue(tx, node, lease).await? else {
            break;
        };
        match claimed_delivery(&row) {
            Ok(delivery) => {
                found.claimed = Some(delivery);
                break;
            }
            Err(error @ StoreError::Unreadable { .. }) => {
                set_aside(tx, SET_ASIDE, row.int("seq")?, &error).await?;
                found.unreadable.push(error);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

async fn next_of_queue(tx: &mut Tx, node: &NodeName, lease: Duration) -> Result<Option<Row>, StoreError> {
    tx.row(
        "UPDATE deliveries SET epoch = epoch + 1, tries = tries + 1, lease_owner = $1, lease_until = $2
             WHERE state = 'received' AND seq = (
                 SELECT seq FROM deliveries WHERE state = 'received' AND lease_until <= $3
                 ORDER BY seq LIMIT 1 /*pg FOR UPDATE SKIP LOCKED*/)
             RETURNING seq, id, epoch, tries, connection, event, body",
        args![node, tx.now + ms(lease), tx.now],
    )
    .await
}

fn claimed_delivery(row: &Row) -> Result<ClaimedDelivery, StoreError> {
    Ok(ClaimedDelivery {
        id: row.parse("id")?,
        epoch: row.int("epoch")?,
        tries: row.num("tries")?,
        connection: row.parse("connection")?,
        event: row.text("event")?,
        body: row.opt_blob("body")?.unwrap_or_default(),
    })
}

async fn finish(tx: &mut Tx, id: DeliveryId, epoch: i64, outcome: &DeliveryOutcome) -> Result<bool, StoreError> {
    let (to, reason, retry) = match outcome {
        DeliveryOutcome::Planned(_) => (IntakeState::Planned, None, Retry::Never),
        DeliveryOutcome::Ignored { reason, retry } => (IntakeState::Ignored, Some(clip(reason, 2000)), *retry),
        DeliveryOutcome::Failed { reason, retry } => (IntakeState::Failed, Some(clip(reason, 2000)), *retry),
    };
    let sql = transition_sql(
        "UPDATE deliveries SET state = $3, reason = $4, retry = $5
         WHERE id = $1 AND epoch = $2 AND state IN ({from}) RETURNING repeats",
        &predecessors(to),
        to,
    );
    let ended = tx.row(sql, args![id, epoch, to, reason, retry.as_str()]).await?;
    let Some(row) = ended else { return Ok(false) };
    if let DeliveryOutcome::Planned(new) = outcome {
        let tip_only = row.opt_text("repeats")?.is_some();
        for trigger in new {
            triggers::insert(tx, trigger, Some((id, tip_only)), &trigger.actor).await?;
        }
    }
    Ok(true)
}
