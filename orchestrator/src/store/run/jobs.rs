//! Jobs: their rows, their transitions, and the turns that these keep in step.

use crate::{
    foreign_text::clip,
    model::{
        ids::{AttemptId, JobId, RunId},
        names::Label,
        size::Size,
        state::JobState,
    },
    store::{
        StoreError,
        engine::{
            transitions::transition_sql,
            tx::{Row, Tx, args, to_json},
        },
        report::outbox::CheckTarget,
        run::cancel_request::{self, CancelRequest},
    },
};

/// What a job requires of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRequirement {
    /// The image's own label, aliases resolved.
    pub label: Label,
    /// What the machine gets.
    pub size: Size,
    /// Digest of label and size: jobs of one class are interchangeable for the scheduler.
    pub class: String,
}

/// A job of a run attempt.
#[derive(Debug, Clone)]
pub struct JobRow {
    /// Its id.
    pub id: JobId,
    /// Its key in the plan.
    pub key: String,
    /// What people call it.
    pub name: String,
    /// The image's label.
    pub label: Label,
    /// What its machine gets.
    pub size: Size,
    /// Its state.
    pub state: JobState,
    /// Why it waits, was skipped, failed, or ended as it did.
    pub reason: Option<String>,
    /// Keys of the jobs it needs.
    pub needs: Vec<String>,
    /// The job of an earlier run attempt whose result this one carries on.
    pub carried_from: Option<JobId>,
    /// How many of its attempts ended because we failed.
    pub tries: u32,
    /// Milliseconds since 1970, like the others.
    pub created_ms: i64,
    /// When it last entered the queue.
    pub queued_ms: Option<i64>,
    /// When its present or last attempt began to run steps.
    pub started_ms: Option<i64>,
    /// When it ended.
    pub ended_ms: Option<i64>,
    /// Its newest attempt; of a carried-over job, that of the job it was carried from.
    pub attempt: Option<AttemptId>,
    /// Somebody asked for the end of this job.
    pub cancel: Option<CancelRequest>,
}

/// The columns `job_row` reads, from `jobs j`.
pub(in crate::store) const COLUMNS: &str =
    "j.id, j.job_key, j.name, j.label, j.cpus, j.memory_mib, j.disk_gib, j.state,
    j.reason, j.needs, j.carried_from, j.tries, j.created_ms, j.queued_ms, j.started_ms, j.ended_ms, j.cancel_ms,
    j.cancel_by, j.cancel_reason, j.cancel_force,
    (SELECT a.id FROM attempts a WHERE a.job_id = COALESCE(j.carried_from, j.id)
     ORDER BY a.number DESC LIMIT 1) AS newest_attempt";

pub(in crate::store) fn job_row(row: &Row) -> Result<JobRow, StoreError> {
    Ok(JobRow {
        id: row.parse("id")?,
        key: row.text("job_key")?,
        name: row.text("name")?,
        label: row.parse("label")?,
        size: size(row)?,
        state: row.parse("state")?,
        reason: row.opt_text("reason")?,
        needs: row.json("needs")?,
        carried_from: row.opt_parse("carried_from")?,
        tries: row.num("tries")?,
        created_ms: row.int("created_ms")?,
        queued_ms: row.opt_int("queued_ms")?,
        started_ms: row.opt_int("started_ms")?,
        ended_ms: row.opt_int("ended_ms")?,
        attempt: row.opt_parse("newest_attempt")?,
        cancel: cancel_request::request(row)?,
    })
}

/// `cpus`, `memory_mib` and `disk_gib` of a row.
pub(in crate::store) fn size(row: &Row) -> Result<Size, StoreError> {
    let disk_gib = row.opt_int("disk_gib")?.map(u64::try_from).transpose();
    Ok(Size {
        cpus: row.num("cpus")?,
        memory_mib: u64::try_from(row.int("memory_mib")?).map_err(|e| row.unreadable("memory_mib", e))?,
        disk_gib: disk_gib.map_err(|e| row.unreadable("disk_gib", e))?,
    })
}

/// A size's numbers as the database holds them.
pub(in crate::store) fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A job to be stored.
#[derive(Debug, Clone)]
pub(in crate::store) struct NewJob {
    pub(in crate::store) id: JobId,
    pub(in crate::store) run: RunId,
    pub(in crate::store) run_attempt: u32,
    /// Its position in the plan.
    pub(in crate::store) place: u32,
    pub(in crate::store) key: String,
    pub(in crate::store) name: String,
    pub(in crate::store) check_name: String,
    pub(in crate::store) needs: Vec<String>,
    pub(in crate::store) requirement: JobRequirement,
    /// `waiting`, or `success` when it is carried over.
    pub(in crate::store) state: JobState,
    pub(in crate::store) carried_from: Option<JobId>,
}

/// Stores a new job.
pub(in crate::store) async fn insert(tx: &mut Tx, target: &CheckTarget, new: &NewJob) -> Result<(), StoreError> {
    let size = new.requirement.size;
    tx.execute(
        "INSERT INTO jobs (id, run_id, run_attempt, place, job_key, name, check_name, needs, label, cpus,
             memory_mib, disk_gib, class, connection, repository_id, state, carried_from, created_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)",
        args![
            new.id,
            new.run,
            new.run_attempt,
            new.place,
            &new.key,
            clip(&new.name, 1000),
            clip(&new.check_name, 2000),
            to_json(tx.what, &new.needs)?,
            &new.requirement.label,
            size.cpus,
            stored(size.memory_mib),
            size.disk_gib.map(stored),
            &new.requirement.class,
            &target.repository.connection,
            &target.repository.id,
            new.state,
            new.carried_from,
            tx.now,
        ],
    )
    .await
    .map(drop)
}

/// Sets a job's state, when it is `from` and that transition is legal. The caller holds the run's lock, so that
/// `from` is what it just read.
pub(in crate::store) async fn set_state(
    tx: &mut Tx,
    id: JobId,
    from: JobState,
    to: JobState,
    reason: Option<&str>,
) -> Result<bool, StoreError> {
    let sql = transition_sql(
        "UPDATE jobs SET state = $2, reason = $3,
             queued_ms = CASE WHEN $4 = 1 THEN $6 ELSE queued_ms END,
             started_ms = CASE WHEN $4 = 1 THEN NULL ELSE started_ms END,
             ended_ms = CASE WHEN $5 = 1 THEN $6 ELSE ended_ms END
         WHERE id = $1 AND state IN ({from}) RETURNING class, connection, repository_id",
        &[from],
        to,
    );
    let reason = reason.map(|r| clip(r, 4000));
    let queued = to == JobState::Queued;
    let row = tx
        .row(sql, args![id, to, reason, queued, to.is_terminal(), tx.now])
        .await?;
    let Some(row) = row else { return Ok(false) };
    let turn = Turn {
        class: row.text("class")?,
        connection: row.text("connection")?,
        repository: row.text("repository_id")?,
    };
    if queued {
        turn.joined(tx).await?;
    }
    if from == JobState::Queued {
        turn.left(tx).await?;
    }
    Ok(true)
}

/// The pair of a class and a repository between which fairness decides, as its row has them: a job that cannot be read
/// must be able to end.
struct Turn {
    class: String,
    connection: String,
    repository: String,
}

impl Turn {
    async fn joined(&self, tx: &mut Tx) -> Result<(), StoreError> {
        tx.execute(
            "INSERT INTO turn (class, connection, repository_id, since_ms, queued) VALUES ($1, $2, $3, $4, 1)
             ON CONFLICT (class, connection, repository_id) DO UPDATE SET
                 since_ms = CASE WHEN turn.queued = 0 THEN excluded.since_ms ELSE turn.since_ms END,
                 queued = turn.queued + 1",
            args![&self.class, &self.connection, &self.repository, tx.now],
        )
        .await
        .map(drop)
    }

    async fn left(&self, tx: &mut Tx) -> Result<(), StoreError> {
        tx.execute(
            "UPDATE turn SET queued = queued - 1 WHERE class = $1 AND connection = $2 AND repository_id = $3",
            args![&self.class, &self.connection, &self.repository],
        )
        .await
        .map(drop)
    }
}
