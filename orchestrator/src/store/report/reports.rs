//! Reading from the outbox: what the reporter claims, and what became of it.

use std::time::Duration;

use crate::{
    foreign_text::clip,
    model::{
        ids::ReportId,
        names::NodeName,
        report::{Lane, Report, ReportState},
    },
    store::{
        Store, StoreError,
        engine::tx::{Row, Tx, args},
        ms,
        run::runs,
    },
};

/// A report to be delivered.
#[derive(Debug, Clone)]
pub struct ClaimedReport {
    /// Its id.
    pub id: ReportId,
    /// To be shown when telling what became of it: meanwhile a newer state may be wanted.
    pub version: i64,
    /// Failed tries of this version, for which it alone was to blame.
    pub tries: u32,
    /// What to say.
    pub report: Report,
    /// The forge's id of the check run of this generation, once there is one.
    pub remote: Option<String>,
}

/// One that cannot be read is tried again this often: a later version of the program may read it.
const UNREADABLE_AGAIN: Duration = Duration::from_secs(3600);

/// The stored word of a report's state.
pub(in crate::store) fn word(state: ReportState) -> &'static str {
    match state {
        ReportState::Queued => "queued",
        ReportState::Running => "running",
        ReportState::Success => "success",
        ReportState::Failure => "failure",
        ReportState::Cancelled => "cancelled",
        ReportState::TimedOut => "timed_out",
        ReportState::Skipped => "skipped",
        ReportState::Error => "error",
    }
}

fn state(row: &Row) -> Result<ReportState, StoreError> {
    const ALL: [ReportState; 8] = [
        ReportState::Queued,
        ReportState::Running,
        ReportState::Success,
        ReportState::Failure,
        ReportState::Cancelled,
        ReportState::TimedOut,
        ReportState::Skipped,
        ReportState::Error,
    ];
    let text = row.text("state")?;
    ALL.into_iter()
        .find(|state| word(*state) == text)
        .ok_or_else(|| row.unreadable("state", format!("`{text}` is no state of a report")))
}

/// Which reports of a lane are claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportStates {
    /// Only final states.
    Final,
    /// All of them.
    All,
}

/// What became of a report that was not delivered.
#[derive(Debug, Clone, Copy)]
pub enum PutOff {
    /// It was not its fault: its lane is closed or busy.
    Held,
    /// Its own failure, which counts as a try.
    Failed,
    /// The forge said no, which counts as a try and is shown as such.
    Refused,
}

impl Store {
    /// The lanes with something to say, each with the time until its earliest report is due: none when it is due now. A
    /// report that is being sent is due when its lease ends.
    pub async fn report_lanes(&self) -> Result<Vec<(Lane, Duration)>, StoreError> {
        let mut tx = self.read_single("look for reports").await?;
        let now = tx.now;
        let rows = tx.rows(LANES, args![now]).await?;
        let (mut lanes, mut unreadable) = (Vec::with_capacity(rows.len()), Vec::new());
        for row in &rows {
            let due = [
                row.opt_int("final_due")?,
                row.opt_int("other_due")?,
                row.opt_int("leased")?,
            ];
            let due = due.into_iter().flatten().min().unwrap_or(now);
            match lane(row) {
                Ok(lane) => {
                    let wait = u64::try_from(due.saturating_sub(now)).unwrap_or(0);
                    lanes.push((lane, Duration::from_millis(wait)));
                }
                Err(error) => unreadable.push(error),
            }
        }
        self.note_unreadable(&unreadable);
        Ok(lanes)
    }

    /// Claims reports of a lane that are due and of these states, final ones first, each check's newest state. One that
    /// cannot be read is not among them: it counts as refused, and is tried again hourly. A claim is this process's alone, so
    /// it is not synced by itself: a power failure ends both.
    pub async fn claim_reports(
        &self,
        node: &NodeName,
        lane: &Lane,
        states: ReportStates,
        limit: u32,
        lease: Duration,
    ) -> Result<Vec<ClaimedReport>, StoreError> {
        let (claimed, unreadable) = in_tx!(
            self,
            "claim reports",
            WithNext,
            [node = node.clone(), lane = lane.clone()],
            |tx| claim(tx, node, lane, states, limit, lease)
        )?;
        self.note_unreadable(&unreadable);
        Ok(claimed)
    }

    /// The forge accepted this version; `remote` is its id of the check run. Where a newer version was delivered meanwhile,
    /// that one is due once more: the forge may have got the two in the wrong order.
    pub async fn report_delivered(&self, id: ReportId, version: i64, remote: Option<&str>) -> Result<(), StoreError> {
        in_tx!(
            self,
            "note a delivered report",
            [remote = remote.map(str::to_owned)],
            |tx| { delivered(tx, id, version, remote.as_deref()) }
        )
    }

    /// A report was not delivered, for this cause and reason; it is due again after `after`. So is a newer version of it
    /// where it was [`PutOff::Held`]; otherwise that one is due at once.
    pub async fn put_off_report(
        &self,
        id: ReportId,
        version: i64,
        after: Duration,
        reason: &str,
        why: PutOff,
    ) -> Result<(), StoreError> {
        in_tx!(
            self,
            "put off a report",
            [id = id.to_string(), reason = reason.to_owned()],
            |tx| put_off(tx, id, version, after, reason, why)
        )
    }

    /// What is due of a lane waits for its forge, for this reason, and for `after` where the forge asked for that: a
    /// daemon that starts meanwhile, or another one, leaves it alone, too.
    pub async fn hold_reports(&self, lane: &Lane, after: Duration, reason: &str) -> Result<(), StoreError> {
        in_tx!(
            self,
            "hold the reports of a forge",
            [lane = lane.clone(), reason = clip(reason, REASON).to_owned()],
            |tx| hold(tx, lane, after, reason)
        )
    }

    /// Nobody can report what is due of a lane: all of it counts as refused, without a try, and is due again after `after`.
    /// How many there were.
    pub async fn refuse_reports(&self, lane: &Lane, after: Duration, reason: &str) -> Result<u64, StoreError> {
        in_tx!(
            self,
            "refuse the reports of a connection",
            [lane = lane.clone(), reason = clip(reason, REASON).to_owned()],
            |tx| refuse(tx, lane, after, reason)
        )
    }

    /// The forge of a lane takes reports again: what failed there is due at once, unless it failed `most` times or more.
    /// How many there were.
    pub async fn retry_failed_reports(&self, lane: &Lane, most: u32) -> Result<u64, StoreError> {
        in_tx!(self, "retry the reports of a forge", [lane = lane.clone()], |tx| {
            retry_failed(tx, lane, most)
        })
    }
}

/// Longest reason that is kept, in bytes.
const REASON: usize = 1000;

fn lane(row: &Row) -> Result<Lane, StoreError> {
    Ok(Lane {
        connection: row.parse("connection")?,
        context: row.parse("forge_context")?,
    })
}

// The conditions of what follows are those of the index `reports_lane`: delivered reports outnumber the others by far.

/// The lanes, by steps from one to the next, and when their earliest reports are due: of those that nobody sends, final and
/// not, and of those that are being sent, which are due when their lease ends.
pub(in crate::store) const LANES: &str = "WITH RECURSIVE
     connections (connection) AS (
         SELECT MIN(connection) FROM reports WHERE delivered < version
         UNION ALL
         SELECT (SELECT MIN(r.connection) FROM reports r
             WHERE r.delivered < r.version AND r.connection > connections.connection)
         FROM connections WHERE connection IS NOT NULL),
     lanes (connection, forge_context) AS (
         SELECT connection, (SELECT MIN(r.forge_context) FROM reports r
             WHERE r.delivered < r.version AND r.connection = connections.connection)
         FROM connections WHERE connection IS NOT NULL
         UNION ALL
         SELECT connection, (SELECT MIN(r.forge_context) FROM reports r WHERE r.delivered < r.version
             AND r.connection = lanes.connection AND r.forge_context > lanes.forge_context)
         FROM lanes WHERE forge_context IS NOT NULL)
     SELECT connection, forge_context,
         (SELECT r.due_ms FROM reports r WHERE r.delivered < r.version AND r.connection = lanes.connection
              AND r.forge_context = lanes.forge_context AND CASE WHEN r.completed_ms IS NULL THEN 1 ELSE 0 END = 0
              AND r.lease_until <= $1 ORDER BY r.due_ms LIMIT 1) AS final_due,
         (SELECT r.due_ms FROM reports r WHERE r.delivered < r.version AND r.connection = lanes.connection
              AND r.forge_context = lanes.forge_context AND CASE WHEN r.completed_ms IS NULL THEN 1 ELSE 0 END = 1
              AND r.lease_until <= $1 ORDER BY r.due_ms LIMIT 1) AS other_due,
         (SELECT MIN(r.lease_until) FROM reports r WHERE r.delivered < r.version AND r.connection = lanes.connection
              AND r.forge_context = lanes.forge_context AND r.lease_until > 0 AND r.lease_until > $1) AS leased
     FROM lanes WHERE forge_context IS NOT NULL";

pub(in crate::store) const CLAIM: &str = "UPDATE reports SET lease_owner = $1, lease_until = $2 WHERE id IN (
         SELECT id FROM reports WHERE delivered < version AND due_ms <= $3 AND lease_until <= $3
             AND connection = $5 AND forge_context = $6 AND CASE WHEN completed_ms IS NULL THEN 1 ELSE 0 END <= $7
         ORDER BY CASE WHEN completed_ms IS NULL THEN 1 ELSE 0 END, due_ms, id
         LIMIT $4 /*pg FOR UPDATE SKIP LOCKED*/)
     RETURNING id, version, tries, connection, repository_id, repository_path, forge_context, commit_sha,
         name, generation, state, title, summary, run_id, job_id, started_ms, completed_ms, remote";

/// Rows that say so already are left as they are, so that a forge may be away for long.
pub(in crate::store) const HOLD: &str =
    "UPDATE reports SET reason = $4, due_ms = CASE WHEN due_ms < $5 THEN $5 ELSE due_ms END
     WHERE delivered < version AND due_ms <= $3 AND lease_until <= $3 AND connection = $1 AND forge_context = $2
         AND refused = 0 AND (reason IS NULL OR reason <> $4 OR $6 = 1)";

pub(in crate::store) const REFUSE: &str = "UPDATE reports SET refused = 1, reason = $4, due_ms = $5
     WHERE delivered < version AND due_ms <= $3 AND lease_until <= $3 AND connection = $1 AND forge_context = $2";

pub(in crate::store) const RETRY_FAILED: &str = "UPDATE reports SET due_ms = $3
     WHERE delivered < version AND due_ms > $3 AND lease_until <= $3 AND connection = $1 AND forge_context = $2
         AND tries BETWEEN 1 AND $4";

async fn claim(
    tx: &mut Tx,
    node: &NodeName,
    lane: &Lane,
    states: ReportStates,
    limit: u32,
    lease: Duration,
) -> Result<(Vec<ClaimedReport>, Vec<StoreError>), StoreError> {
    let (mut readable, mut unreadable) = (Vec::new(), Vec::new());
    loop {
        let rows = tx
            .rows(
                CLAIM,
                args![
                    node,
                    tx.now + ms(lease),
                    tx.now,
                    limit,
                    &lane.connection,
                    &lane.context,
                    states == ReportStates::All
                ],
            )
            .await?;
        for row in &rows {
            match claimed(row) {
                Ok(report) => readable.push(report),
                Err(error @ StoreError::Unreadable { .. }) => {
                    let (id, version, reason) = (row.text("id")?, row.int("version")?, error.to_string());
                    put_off(tx, &id, version, UNREADABLE_AGAIN, &reason, PutOff::Refused).await?;
                    unreadable.push(error);
                }
                Err(error) => return Err(error),
            }
        }
        // Those that cannot be read are not due any more; others may be behind them.
        if !readable.is_empty() || rows.is_empty() {
            break;
        }
    }
    // RETURNING guarantees no order.
    readable.sort_by_key(|c| (!c.report.state.is_final(), c.id));
    Ok((readable, unreadable))
}

fn claimed(row: &Row) -> Result<ClaimedReport, StoreError> {
    let target = runs::check_target(row)?;
    Ok(ClaimedReport {
        id: row.parse("id")?,
        version: row.int("version")?,
        tries: row.num("tries")?,
        remote: row.opt_text("remote")?,
        report: Report {
            repository: target.repository,
            commit: target.commit,
            name: row.text("name")?,
            generation: row.num("generation")?,
            state: state(row)?,
            title: row.text("title")?,
            summary: row.text("summary")?,
            run: row.opt_parse("run_id")?,
            job: row.opt_parse("job_id")?,
            started_ms: row.opt_int("started_ms")?,
            completed_ms: row.opt_int("completed_ms")?,
        },
    })
}

async fn delivered(tx: &mut Tx, id: ReportId, version: i64, remote: Option<&str>) -> Result<(), StoreError> {
    // What was delivered while a new generation began is not that generation's check run.
    let changed = tx
        .execute(
            "UPDATE reports SET lease_until = 0, lease_owner = NULL, tries = 0, reason = NULL, refused = 0,
                 due_ms = CASE WHEN due_ms > $4 THEN $4 ELSE due_ms END,
                 delivered = $2,
                 remote = CASE WHEN since_version <= $2 AND $3 IS NOT NULL THEN $3 ELSE remote END
             WHERE id = $1 AND delivered < $2 AND version >= $2",
            args![id, version, remote, tx.now],
        )
        .await?;
    if changed == 0 {
        repeat_newest(tx, &id.to_string(), version).await?;
    }
    Ok(())
}

/// A delivery of this version ended after that of a newer one, so the forge may show either: the newest is owed once more.
async fn repeat_newest(tx: &mut Tx, id: &str, version: i64) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE reports SET delivered = version - 1, due_ms = $3
         WHERE id = $1 AND delivered = version AND version > $2",
        args![id, version, tx.now],
    )
    .await
    .map(drop)
}

async fn put_off(
    tx: &mut Tx,
    id: &str,
    version: i64,
    after: Duration,
    reason: &str,
    why: PutOff,
) -> Result<(), StoreError> {
    let own = !matches!(why, PutOff::Held);
    // A failure of an old version says nothing of the new one, which is due at once; a pause holds for both.
    let changed = tx
        .execute(
            "UPDATE reports SET lease_until = 0, lease_owner = NULL, reason = $4,
             tries = CASE WHEN version = $2 AND $6 = 1 THEN tries + 1 ELSE tries END,
             refused = CASE WHEN version = $2 THEN $5 ELSE 0 END,
             due_ms = CASE WHEN version = $2 OR $6 = 0 THEN $3 ELSE due_ms END
         WHERE id = $1 AND version >= $2 AND delivered < $2",
            args![
                id,
                version,
                tx.now + ms(after),
                clip(reason, REASON),
                matches!(why, PutOff::Refused),
                own
            ],
        )
        .await?;
    // Without an answer it may have been taken all the same; a refusal was not.
    if changed == 0 && matches!(why, PutOff::Failed) {
        repeat_newest(tx, id, version).await?;
    }
    Ok(())
}

async fn hold(tx: &mut Tx, lane: &Lane, after: Duration, reason: &str) -> Result<(), StoreError> {
    tx.execute(
        HOLD,
        args![
            &lane.connection,
            &lane.context,
            tx.now,
            reason,
            if after.is_zero() { 0 } else { tx.now + ms(after) },
            !after.is_zero()
        ],
    )
    .await
    .map(drop)
}

async fn refuse(tx: &mut Tx, lane: &Lane, after: Duration, reason: &str) -> Result<u64, StoreError> {
    let until = tx.now + ms(after);
    tx.execute(REFUSE, args![&lane.connection, &lane.context, tx.now, reason, until])
        .await
}

async fn retry_failed(tx: &mut Tx, lane: &Lane, most: u32) -> Result<u64, StoreError> {
    tx.execute(
        RETRY_FAILED,
        args![&lane.connection, &lane.context, tx.now, most.saturating_sub(1)],
    )
    .await
}
