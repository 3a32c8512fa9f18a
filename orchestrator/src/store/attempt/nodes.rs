//! Nodes: one heartbeat each. An attempt belongs to its node until the node has been silent for the
//! grace; a restarted node takes its own attempts up again, under a new epoch.

use std::time::Duration;

use super::{
    attempts::{self, AttemptRow},
    claim::live_attempts,
    ending::{self, AttemptEnd, EndOutcome},
};
use crate::{
    model::{
        ids::{AttemptId, InstanceId},
        names::NodeName,
        state::AttemptState,
    },
    store::{
        Store, StoreError,
        engine::{
            transitions::{live, states_sql},
            tx::{Tx, args},
        },
        ms,
    },
};

/// Whether an instance now runs under a node's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registered {
    /// It does.
    Ok,
    /// Another does, and its heartbeat is recent.
    Busy {
        /// That one's last heartbeat, in milliseconds since 1970.
        since_ms: i64,
    },
}

impl Store {
    /// Makes this instance the one that runs under the node's name, unless another was heard of
    /// within `alive_within` and has not left.
    pub async fn register_node(
        &self,
        node: &NodeName,
        instance: InstanceId,
        alive_within: Duration,
    ) -> Result<Registered, StoreError> {
        in_tx!(self, "register this node", [node = node.clone()], |tx| {
            register(tx, node, instance, alive_within)
        })
    }

    /// Says that the instance lives. `false`: another has taken over, and this one must stop.
    pub async fn heartbeat(&self, node: &NodeName, instance: InstanceId) -> Result<bool, StoreError> {
        in_tx!(self, "store a heartbeat", SyncedSingle, [node = node.clone()], |tx| {
            heartbeat(tx, node, instance)
        })
    }

    /// An orderly stop: the next start need not wait. Attempts stay with the node.
    pub async fn leave(&self, node: &NodeName, instance: InstanceId) -> Result<(), StoreError> {
        in_tx!(self, "sign this node off", [node = node.clone()], |tx| leave(
            tx, node, instance
        ))
    }

    /// Takes up the node's live attempts: each gets a new epoch, and whoever drove it before writes no
    /// more. Nothing, when another instance runs under this name.
    pub async fn reclaim(&self, node: &NodeName, instance: InstanceId) -> Result<Vec<AttemptRow>, StoreError> {
        in_tx!(self, "take attempts up again", [node = node.clone()], |tx| reclaim(
            tx, node, instance
        ))
    }

    /// The newest heartbeat of every other node that has living attempts, in milliseconds since 1970 by
    /// whatever clock wrote it: good for seeing whether it moves.
    pub async fn heartbeats(&self, except: &NodeName) -> Result<Vec<(NodeName, i64)>, StoreError> {
        let mut tx = self.read_single("look for silent nodes").await?;
        let sql = states_sql(
            "SELECT name, heartbeat_ms FROM nodes WHERE name <> $1
                 AND EXISTS (SELECT 1 FROM attempts a WHERE a.node = nodes.name AND a.state IN ({from}) AND a.state <> 'ended')
             ORDER BY name",
            live::<AttemptState>(),
        );
        let rows = tx.rows(sql, args![except]).await?;
        rows.iter()
            .map(|row| Ok((row.parse("name")?, row.int("heartbeat_ms")?)))
            .collect()
    }

    /// Gives up the attempts of a node that has been `silent` since this heartbeat; nothing when it has
    /// been heard meanwhile. Their jobs are queued again, or end in `error` after `infra_tries` of their
    /// attempts ended so.
    pub async fn give_up_node(
        &self,
        node: &NodeName,
        heartbeat_ms: i64,
        silent: Duration,
        infra_tries: u32,
    ) -> Result<Vec<AttemptId>, StoreError> {
        in_tx!(self, "give up a silent node", [node = node.clone()], |tx| give_up(
            tx,
            node,
            heartbeat_ms,
            silent,
            infra_tries
        ))
    }
}

async fn register(
    tx: &mut Tx,
    node: &NodeName,
    instance: InstanceId,
    alive_within: Duration,
) -> Result<Registered, StoreError> {
    let changed = tx
        .execute(
            "INSERT INTO nodes (name, instance, started_ms, heartbeat_ms) VALUES ($1, $2, $3, $3)
             ON CONFLICT (name) DO UPDATE SET instance = excluded.instance, started_ms = excluded.started_ms,
                 heartbeat_ms = excluded.heartbeat_ms, left_ms = NULL
             WHERE nodes.instance = excluded.instance OR nodes.left_ms IS NOT NULL OR nodes.heartbeat_ms <= $4",
            args![node, instance, tx.now, tx.now - ms(alive_within)],
        )
        .await?;
    if changed == 1 {
        release(tx, node).await?;
        return Ok(Registered::Ok);
    }
    let row = tx
        .row("SELECT heartbeat_ms FROM nodes WHERE name = $1", args![node])
        .await?;
    Ok(Registered::Busy {
        since_ms: row.map_or(Ok(tx.now), |row| row.int("heartbeat_ms"))?,
    })
}

async fn heartbeat(tx: &mut Tx, node: &NodeName, instance: InstanceId) -> Result<bool, StoreError> {
    let changed = tx
        .execute(
            "UPDATE nodes SET heartbeat_ms = $3 WHERE name = $1 AND instance = $2 AND left_ms IS NULL",
            args![node, instance, tx.now],
        )
        .await?;
    Ok(changed == 1)
}

async fn leave(tx: &mut Tx, node: &NodeName, instance: InstanceId) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE nodes SET left_ms = $3, heartbeat_ms = $3 WHERE name = $1 AND instance = $2",
        args![node, instance, tx.now],
    )
    .await
    .map(drop)
}

/// What an earlier instance under this name had claimed and not finished is due again at once.
async fn release(tx: &mut Tx, node: &NodeName) -> Result<(), StoreError> {
    for sql in [
        "UPDATE deliveries SET lease_until = 0, lease_owner = NULL WHERE lease_owner = $1 AND state = 'received'",
        "UPDATE triggers SET lease_until = 0, lease_owner = NULL WHERE lease_owner = $1 AND state = 'received'",
        "UPDATE reports SET lease_until = 0, lease_owner = NULL WHERE lease_owner = $1",
    ] {
        tx.execute(sql, args![node]).await?;
    }
    Ok(())
}

async fn reclaim(tx: &mut Tx, node: &NodeName, instance: InstanceId) -> Result<Vec<AttemptRow>, StoreError> {
    let sql = states_sql(
        "UPDATE attempts SET epoch = epoch + 1, instance = $2
         WHERE node = $1 AND state IN ({from}) AND state <> 'ended'
             AND EXISTS (SELECT 1 FROM nodes WHERE name = $1 AND instance = $2) RETURNING id",
        live::<AttemptState>(),
    );
    let rows = tx.rows(sql, args![node, instance]).await?;
    let mut ids: Vec<AttemptId> = rows.iter().map(|row| row.parse("id")).collect::<Result<_, _>>()?;
    ids.sort();
    let mut taken = Vec::with_capacity(ids.len());
    for id in ids {
        taken.extend(attempts::load(tx, id).await?);
    }
    Ok(taken)
}

async fn give_up(
    tx: &mut Tx,
    node: &NodeName,
    heartbeat_ms: i64,
    silent: Duration,
    infra_tries: u32,
) -> Result<Vec<AttemptId>, StoreError> {
    let unchanged = tx
        .row(
            "SELECT name FROM nodes WHERE name = $1 AND heartbeat_ms = $2 /*pg FOR UPDATE*/",
            args![node, heartbeat_ms],
        )
        .await?;
    let mut given_up = Vec::new();
    if unchanged.is_none() {
        return Ok(given_up);
    }
    for id in live_attempts(tx, node).await? {
        let Some(attempt) = attempts::load(tx, id).await? else {
            continue;
        };
        let end = AttemptEnd::Infra {
            cause: format!("node {node} has been silent for {} s", silent.as_secs()),
        };
        let outcome = ending::end_attempt(tx, id, attempt.epoch, &end, infra_tries).await?;
        if outcome != EndOutcome::Fenced {
            given_up.push(id);
        }
    }
    Ok(given_up)
}
