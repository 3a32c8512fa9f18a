//! Triggers: normalised events on their way to runs.

use std::time::Duration;

use super::set_aside::{Claimed, UNREADABLE_AT_ONCE, set_aside};
use crate::{
    foreign_text::clip,
    model::{
        ids::{DeliveryId, RunId, TriggerId},
        names::{CommitSha, NodeName},
        state::IntakeState,
        trigger::{Retry, Trigger},
    },
    store::{
        Store, StoreError,
        engine::{
            transitions::{predecessors, transition_sql},
            tx::{Row, Tx, args, to_json},
        },
        ms,
        report::{aggregate, held, outbox::CheckTarget},
        run::create::{self, NewRun},
    },
};

/// A trigger to be planned.
#[derive(Debug, Clone)]
pub struct ClaimedTrigger {
    /// Its id.
    pub id: TriggerId,
    /// To be shown when finishing.
    pub epoch: i64,
    /// How often it was claimed, this time included.
    pub tries: u32,
    /// What asks for runs.
    pub trigger: Trigger,
    /// How often the forge did not accept our credentials; these were no tries of the trigger's own.
    pub refusals: u32,
    /// Its delivery repeats an older one that led to runs, so it is a new push only if the ref points at its commit now.
    pub tip_only: bool,
    /// How long it has waited for a credential or a right; none unless that is what it was put off for.
    pub waited: Option<Duration>,
}

/// What became of a trigger.
#[derive(Debug, Clone)]
pub enum TriggerOutcome {
    /// These runs, at the commit the planner found.
    Planned {
        /// The commit.
        commit: CommitSha,
        /// The title of the commit itself, which runs are shown with: a delivery says nothing of it, or
        /// what its sender likes.
        title: String,
        /// One for each workflow file.
        runs: Vec<NewRun>,
    },
    /// Nothing to do.
    Ignored {
        /// The reason, for people to read.
        reason: String,
        /// The commit that was read, when it came to that.
        commit: Option<CommitSha>,
        /// Whether its delivery may come again.
        retry: Retry,
    },
    /// It cannot be planned.
    Failed {
        /// The reason, for people to read.
        reason: String,
        /// Where the failed aggregate check is shown, when the commit is known.
        commit: Option<CommitSha>,
        /// Whether its delivery may come again.
        retry: Retry,
    },
}

/// A trigger, for people.
#[derive(Debug, Clone)]
pub struct TriggerRow {
    /// Its id.
    pub id: TriggerId,
    /// What asked for runs.
    pub trigger: Trigger,
    /// Its state.
    pub state: IntakeState,
    /// Why it was ignored, failed, or waits for another try.
    pub reason: Option<String>,
    /// Milliseconds since 1970.
    pub created_ms: i64,
    /// How often it was claimed.
    pub tries: u32,
}

impl Store {
    /// Stores a person's request for runs. `by` names that person, for the record.
    pub async fn create_trigger(&self, trigger: &Trigger, by: &str) -> Result<TriggerId, StoreError> {
        in_tx!(
            self,
            "create a trigger",
            [trigger = trigger.clone(), by = by.to_owned()],
            |tx| { insert(tx, trigger, None, by) }
        )
    }

    /// The oldest trigger that is due and whose repository nobody plans for at the moment: pushes to one
    /// repository become runs in their order.
    /// One that cannot be read is passed over, and ends as failed.
    pub async fn claim_trigger(&self, node: &NodeName, lease: Duration) -> Result<Option<ClaimedTrigger>, StoreError> {
        let found = in_tx!(self, "claim a trigger", [node = node.clone()], |tx| async move {
            tx.exclusive(PLAN_SECTION).await?;
            claim(tx, node, lease).await
        })?;
        self.note_unreadable(&found.unreadable);
        Ok(found.claimed)
    }

    /// As [`Store::claim_trigger`], together with those of the same repository that are due as well: at most `limit`, in
    /// the order they came. Those that were tried three times without success are claimed alone, so that one that cannot
    /// be planned, or kills the daemon, takes no other along for ever. Empty when nothing is due.
    pub async fn claim_triggers(
        &self,
        node: &NodeName,
        lease: Duration,
        limit: u32,
    ) -> Result<Vec<ClaimedTrigger>, StoreError> {
        let found = in_tx!(
            self,
            "claim the triggers of a repository",
            [node = node.clone()],
            |tx| { claim_together(tx, node, lease, limit) }
        )?;
        self.note_unreadable(&found.unreadable);
        Ok(found.claimed)
    }

    /// Goes on holding claimed triggers, by id and epoch; how many of them are still held.
    pub async fn renew_triggers(&self, claims: &[(TriggerId, i64)], lease: Duration) -> Result<usize, StoreError> {
        in_tx!(
            self,
            "go on holding triggers",
            [claims = claims.to_vec()],
            |tx| async move {
                let mut held = 0;
                for (id, epoch) in claims {
                    held += usize::from(hold(tx, *id, *epoch, lease).await?);
                }
                Ok(held)
            }
        )
    }

    /// Gives triggers back as they were before they were claimed: a daemon that stops has not tried them. How many of
    /// them were still held.
    pub async fn release_triggers(&self, claims: &[(TriggerId, i64)]) -> Result<usize, StoreError> {
        in_tx!(
            self,
            "give triggers back",
            [claims = claims.to_vec()],
            |tx| async move {
                let mut held = 0;
                for (id, epoch) in claims {
                    held += usize::from(release(tx, *id, *epoch).await?);
                }
                Ok(held)
            }
        )
    }

    /// Gives a trigger back, to be claimed again later. `for_connection`: it waits for its connection to work again, or
    /// for a right to its repository, so that this was no try of its own; the commit of a branch says so at the forge.
    /// `false` when the lease was lost.
    pub async fn retry_trigger(
        &self,
        id: TriggerId,
        epoch: i64,
        after: Duration,
        reason: &str,
        for_connection: bool,
    ) -> Result<bool, StoreError> {
        in_tx!(
            self,
            "put off a trigger",
            [reason = clip(reason, 2000).to_owned()],
            |tx| { retry(tx, id, epoch, after, reason, for_connection) }
        )
    }

    /// Ends a trigger and creates its runs with their first attempt, jobs and reports. `None` when
    /// the lease was lost and nothing was stored.
    pub async fn finish_trigger(
        &self,
        id: TriggerId,
        epoch: i64,
        outcome: TriggerOutcome,
    ) -> Result<Option<Vec<RunId>>, StoreError> {
        in_tx!(self, "finish a trigger", [outcome = outcome], |tx| finish(
            tx, id, epoch, outcome
        ))
    }

    /// One trigger.
    pub async fn trigger(&self, id: TriggerId) -> Result<Option<TriggerRow>, StoreError> {
        let mut tx = self.read_single("read a trigger").await?;
        let row = tx
            .row(
                "SELECT id, body, state, reason, created_ms, tries FROM triggers WHERE id = $1",
                args![id],
            )
            .await?;
        row.as_ref().map(trigger_row).transpose()
    }

    /// The runs a trigger led to, in the order they were planned.
    pub async fn runs_of_trigger(&self, id: TriggerId) -> Result<Vec<RunId>, StoreError> {
        let mut tx = self.read_single("list a trigger's runs").await?;
        let rows = tx
            .rows("SELECT id FROM runs WHERE trigger_id = $1 ORDER BY path, id", args![id])
            .await?;
        rows.iter().map(|row| row.parse("id")).collect()
    }
}

fn trigger_row(row: &Row) -> Result<TriggerRow, StoreError> {
    Ok(TriggerRow {
        id: row.parse("id")?,
        trigger: row.json("body")?,
        state: row.parse("state")?,
        reason: row.opt_text("reason")?,
        created_ms: row.int("created_ms")?,
        tries: row.num("tries")?,
    })
}

/// Stores a trigger; also used by the delivery that led to it, which says whether the commit must be the ref's tip.
pub(in crate::store) async fn insert(
    tx: &mut Tx,
    trigger: &Trigger,
    delivery: Option<(DeliveryId, bool)>,
    by: &str,
) -> Result<TriggerId, StoreError> {
    let id = TriggerId::new();
    tx.execute(
        "INSERT INTO triggers (id, delivery_id, connection, repository_id, body, by_whom, state, created_ms, due_ms,
             ref_name, claimed_sha, tip_only)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8, $9, $10, $11)",
        args![
            id,
            delivery.map(|(id, _)| id),
            &trigger.repository.connection,
            &trigger.repository.id,
            to_json(tx.what, trigger)?,
            clip(by, 200),
            IntakeState::Received,
            tx.now,
            trigger.event.ref_name(),
            trigger.event.commit().cloned(),
            delivery.is_some_and(|(_, tip_only)| tip_only),
        ],
    )
    .await?;
    Ok(id)
}

/// See [`set_aside`].
const SET_ASIDE: &str = "UPDATE triggers SET state = $2, reason = $3, retry = $4, lease_until = 0, lease_owner = NULL
    WHERE seq = $1 AND state IN ({from})";

/// The critical section of claiming: two nodes must not both find that nobody plans for a repository.
const PLAN_SECTION: i64 = 0x6865_6c69_6f73_0003;

/// Unsuccessful tries after which a trigger is claimed without others.
const TRIES_TOGETHER: u32 = 3;

async fn claim_together(
    tx: &mut Tx,
    node: &NodeName,
    lease: Duration,
    limit: u32,
) -> Result<Claimed<Vec<ClaimedTrigger>>, StoreError> {
    tx.exclusive(PLAN_SECTION).await?;
    let first = claim(tx, node, lease).await?;
    let mut found = Claimed {
        claimed: Vec::from_iter(first.claimed),
        unreadable: first.unreadable,
    };
    let Some(first) = found.claimed.first().filter(|first| first.tries <= TRIES_TOGETHER) else {
        return Ok(found);
    };
    let repository = &first.trigger.repository;
    let rows = tx
        .rows(
            // Materialised, or Postgres takes the selection anew for each row, and with it the limit.
            "WITH picked AS MATERIALIZED (
                 SELECT seq FROM triggers WHERE state = 'received' AND lease_until <= $3 AND due_ms <= $3
                     AND connection = $4 AND repository_id = $5 AND tries < $6
                 ORDER BY seq LIMIT $7 /*pg FOR UPDATE SKIP LOCKED*/)
             UPDATE triggers SET epoch = epoch + 1, tries = tries + 1, lease_owner = $1, lease_until = $2
             WHERE state = 'received' AND seq IN (SELECT seq FROM picked)
             RETURNING seq, id, epoch, tries, refusals, body, tip_only, refused_ms",
            args![
                node,
                tx.now + ms(lease),
                tx.now,
                &repository.connection,
                &repository.id,
                TRIES_TOGETHER,
                limit.saturating_sub(1),
            ],
        )
        .await?;
    let mut others = Vec::with_capacity(rows.len());
    for row in &rows {
        let seq = row.int("seq")?;
        match claimed_trigger(row, tx.now) {
            Ok(trigger) => others.push((seq, trigger)),
            Err(error @ StoreError::Unreadable { .. }) => {
                set_aside(tx, SET_ASIDE, seq, &error).await?;
                found.unreadable.push(error);
            }
            Err(error) => return Err(error),
        }
    }
    // RETURNING guarantees no order.
    others.sort_by_key(|(seq, _)| *seq);
    found.claimed.extend(others.into_iter().map(|(_, trigger)| trigger));
    Ok(found)
}

async fn claim(tx: &mut Tx, node: &NodeName, lease: Duration) -> Result<Claimed<Option<ClaimedTrigger>>, StoreError> {
    let mut found = Claimed {
        claimed: None,
        unreadable: Vec::new(),
    };
    while found.unreadable.len() < UNREADABLE_AT_ONCE {
        let row = tx
            .row(
                "UPDATE triggers SET epoch = epoch + 1, tries = tries + 1, lease_owner = $1, lease_until = $2
                 WHERE state = 'received' AND seq = (
                     SELECT seq FROM triggers t WHERE state = 'received' AND lease_until <= $3 AND due_ms <= $3
                         AND NOT EXISTS (SELECT 1 FROM triggers o WHERE o.state = 'received' AND o.lease_until > $3
                             AND o.connection = t.connection AND o.repository_id = t.repository_id)
                     ORDER BY seq LIMIT 1 /*pg FOR UPDATE SKIP LOCKED*/)
                 RETURNING seq, id, epoch, tries, refusals, body, tip_only, refused_ms",
                args![node, tx.now + ms(lease), tx.now],
            )
            .await?;
        let Some(row) = row else { break };
        match claimed_trigger(&row, tx.now) {
            Ok(trigger) => {
                found.claimed = Some(trigger);
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

fn claimed_trigger(row: &Row, now_ms: i64) -> Result<ClaimedTrigger, StoreError> {
    let refused_ms = row.opt_int("refused_ms")?;
    let since = |refused_ms| Duration::from_millis(u64::try_from(now_ms.saturating_sub(refused_ms)).unwrap_or(0));
    Ok(ClaimedTrigger {
        id: row.parse("id")?,
        epoch: row.int("epoch")?,
        tries: row.num("tries")?,
        trigger: row.json("body")?,
        refusals: row.num("refusals")?,
        tip_only: row.flag("tip_only")?,
        waited: refused_ms.map(since),
    })
}

async fn hold(tx: &mut Tx, id: TriggerId, epoch: i64, lease: Duration) -> Result<bool, StoreError> {
    let changed = tx
        .execute(
            "UPDATE triggers SET lease_until = $3 WHERE id = $1 AND epoch = $2 AND state = 'received'",
            args![id, epoch, tx.now + ms(lease)],
        )
        .await?;
    Ok(changed == 1)
}

async fn release(tx: &mut Tx, id: TriggerId, epoch: i64) -> Result<bool, StoreError> {
    let changed = tx
        .execute(
            "UPDATE triggers SET lease_until = 0, lease_owner = NULL, tries = tries - 1, epoch = epoch + 1
             WHERE id = $1 AND epoch = $2 AND state = 'received'",
            args![id, epoch],
        )
        .await?;
    Ok(changed == 1)
}

async fn retry(
    tx: &mut Tx,
    id: TriggerId,
    epoch: i64,
    after: Duration,
    reason: &str,
    for_connection: bool,
) -> Result<bool, StoreError> {
    let changed = tx
        .row(
            "UPDATE triggers SET lease_until = 0, lease_owner = NULL, epoch = epoch + 1, due_ms = $3, reason = $4,
                 tries = tries - $5, refusals = refusals + $5,
                 refused_ms = CASE WHEN $5 = 1 THEN COALESCE(refused_ms, $6) END
             WHERE id = $1 AND epoch = $2 AND state = 'received' RETURNING body",
            args![id, epoch, tx.now + ms(after), reason, for_connection, tx.now],
        )
        .await?;
    let Some(row) = changed else { return Ok(false) };
    if for_connection {
        let trigger: Trigger = row.json("body")?;
        if let Some(target) = held::target(&trigger) {
            target.lock(tx).await?;
            aggregate::update(tx, &target).await?;
        }
    }
    Ok(true)
}

async fn finish(
    tx: &mut Tx,
    id: TriggerId,
    epoch: i64,
    outcome: &TriggerOutcome,
) -> Result<Option<Vec<RunId>>, StoreError> {
    let (to, reason, commit, retry) = match outcome {
        TriggerOutcome::Planned { commit, .. } => (IntakeState::Planned, None, Some(commit), Retry::Never),
        TriggerOutcome::Ignored { reason, commit, retry } => {
            (IntakeState::Ignored, Some(clip(reason, 2000)), commit.as_ref(), *retry)
        }
        TriggerOutcome::Failed { reason, commit, retry } => {
            (IntakeState::Failed, Some(clip(reason, 2000)), commit.as_ref(), *retry)
        }
    };
    let sql = transition_sql(
        "UPDATE triggers SET state = $3, reason = $4, commit_sha = $5, retry = $6
         WHERE id = $1 AND epoch = $2 AND state IN ({from}) RETURNING body, by_whom, refusals",
        &predecessors(to),
        to,
    );
    let commit_sha = commit.map(CommitSha::as_str);
    let changed = tx
        .row(sql, args![id, epoch, to, reason, commit_sha, retry.as_str()])
        .await?;
    let Some(row) = changed else { return Ok(None) };
    let mut trigger: Trigger = row.json("body")?;
    let mut created = Vec::new();
    let mut taken_up = None;
    match outcome {
        TriggerOutcome::Planned { commit, title, runs } => {
            if !title.is_empty() {
                trigger.title.clone_from(title);
            }
            let by = row.text("by_whom")?;
            for run in runs {
                created.push(create::run(tx, id, &trigger, &by, commit, run).await?);
            }
            if !created.is_empty() {
                aggregate::update(tx, &CheckTarget::of(&trigger, commit)).await?;
            }
            taken_up = Some(format!("planned at {commit}"));
        }
        TriggerOutcome::Failed {
            commit: Some(commit), ..
        } => {
            let target = CheckTarget::of(&trigger, commit);
            target.lock(tx).await?;
            aggregate::update(tx, &target).await?;
        }
        TriggerOutcome::Ignored { reason, .. } => taken_up = Some(reason.clone()),
        TriggerOutcome::Failed { commit: None, .. } => {}
    }
    if row.num("refusals")? > 0
        && let Some(target) = held::target(&trigger)
    {
        // Its commit was said to wait.
        aggregate::say_what_is_left(tx, &target, reason.or(taken_up.as_deref()).unwrap_or_default()).await?;
    }
    if let Some(reason) = taken_up {
        aggregate::take_back(tx, id, &trigger, &reason).await?;
    }
    Ok(Some(created))
}
