//! Scheduling: what waits, what this node already runs, and the atomic claim of a job.

use std::time::Duration;

use crate::{
    model::{
        ids::{AttemptId, InstanceId, JobId, RunId},
        names::{Label, MachineName, NodeName},
        size::Size,
        state::{AttemptState, JobState, MachineState},
    },
    store::{
        Store, StoreError,
        engine::{
            transitions::{live, states_sql},
            tx::{Row, Tx, args, list},
        },
        ms,
        run::{jobs, runs},
    },
};

/// A class with jobs in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedClass {
    /// The class.
    pub class: String,
    /// The image all its jobs ask for.
    pub label: Label,
    /// What their machines get.
    pub size: Size,
    /// How many are queued.
    pub queued: u32,
    /// Since when the oldest of them is queued, in milliseconds since 1970.
    pub oldest_ms: i64,
}

/// A machine that takes up room on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineUse {
    /// Its name.
    pub name: MachineName,
    /// Its image.
    pub label: Label,
    /// What it has.
    pub size: Size,
    /// Where it stands; never gone.
    pub state: MachineState,
}

/// A job that is now this node's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedJob {
    /// The new attempt.
    pub attempt: AttemptId,
    /// Its fencing epoch, to be shown with everything that is written about it.
    pub epoch: i64,
    /// The job.
    pub job: JobId,
    /// Its run.
    pub run: RunId,
    /// The run attempt it belongs to.
    pub run_attempt: u32,
    /// The attempt's number within the job, from 1.
    pub number: u32,
    /// The image to clone.
    pub label: Label,
    /// What the machine gets.
    pub size: Size,
}

/// The critical section (a Postgres advisory lock) in which turns are read and taken.
const CLAIM_SECTION: i64 = 0x6865_6c69_6f73_0002;
/// How often a claim is repeated when its job was cancelled meanwhile.
const CLAIM_TRIES: u32 = 16;

impl Store {
    /// The classes that have queued jobs.
    pub async fn queued_classes(&self) -> Result<Vec<QueuedClass>, StoreError> {
        let mut tx = self.read_single("list queued jobs").await?;
        let rows = tx
            .rows(
                "SELECT class, MIN(label) AS label, MIN(cpus) AS cpus, MIN(memory_mib) AS memory_mib,
                     MIN(disk_gib) AS disk_gib, COUNT(*) AS queued, MIN(queued_ms) AS oldest_ms
                 FROM jobs WHERE state = 'queued' GROUP BY class ORDER BY MIN(seq)",
                &[],
            )
            .await?;
        rows.iter()
            .map(|row| {
                Ok(QueuedClass {
                    class: row.text("class")?,
                    label: row.parse("label")?,
                    size: jobs::size(row)?,
                    queued: row.num("queued")?,
                    oldest_ms: row.int("oldest_ms")?,
                })
            })
            .collect()
    }

    /// The machines of this node that are not gone.
    pub async fn node_usage(&self, node: &NodeName) -> Result<Vec<MachineUse>, StoreError> {
        let machines = self.machines_of(node).await?;
        Ok(machines
            .into_iter()
            .map(|m| MachineUse {
                name: m.name,
                label: m.label,
                size: m.size,
                state: m.state,
            })
            .collect())
    }

    /// Claims one job of these classes: of the pair of class and repository whose turn is oldest, its
    /// oldest job. The attempt and its machine's row are there before anything is done. `None` when
    /// nothing waits, or when another instance runs under this node's name.
    pub async fn claim_job(
        &self,
        node: &NodeName,
        instance: InstanceId,
        classes: &[String],
    ) -> Result<Option<ClaimedJob>, StoreError> {
        if classes.is_empty() {
            return Ok(None);
        }
        in_tx!(
            self,
            "claim a job",
            [node = node.clone(), classes = classes.to_vec()],
            |tx| { claim(tx, node, instance, classes) }
        )
    }

    /// Ends jobs that have been queued for longer than `older_than`, as `timed_out`.
    pub async fn expire_queued(&self, older_than: Duration) -> Result<Vec<JobId>, StoreError> {
        in_tx!(self, "expire queued jobs", [], |tx| expire(tx, older_than))
    }
}

async fn claim(
    tx: &mut Tx,
    node: &NodeName,
    instance: InstanceId,
    classes: &[String],
) -> Result<Option<ClaimedJob>, StoreError> {
    tx.exclusive(CLAIM_SECTION).await?;
    let registered = tx
        .row(
            "SELECT name FROM nodes WHERE name = $1 AND instance = $2",
            args![node, instance],
        )
        .await?;
    if registered.is_none() {
        return Ok(None);
    }
    for _ in 0..CLAIM_TRIES {
        let Some(turn) = oldest_turn(tx, classes).await? else {
            return Ok(None);
        };
        if let Some(claimed) = take(tx, node, instance, &turn).await? {
            return Ok(Some(claimed));
        }
        // The job went another way between two statements; the count is made afresh.
        tx.execute(
            "UPDATE turn SET queued = (SELECT COUNT(*) FROM jobs j WHERE j.state = 'queued' AND j.class = turn.class
                 AND j.connection = turn.connection AND j.repository_id = turn.repository_id)
             WHERE class = $1 AND connection = $2 AND repository_id = $3",
            args![
                turn.text("class")?,
                turn.text("connection")?,
                turn.text("repository_id")?
            ],
        )
        .await?;
    }
    Ok(None)
}

async fn oldest_turn(tx: &mut Tx, classes: &[String]) -> Result<Option<Row>, StoreError> {
    let sql = list(
        "SELECT class, connection, repository_id FROM turn WHERE queued > 0 AND class IN ({list})
         ORDER BY last_served, since_ms, connection, repository_id LIMIT 1",
        1,
        classes.len(),
    );
    let classes: Vec<_> = classes.iter().map(Into::into).collect();
    tx.row(sql, &classes).await
}

/// Claims the oldest job of a turn.
async fn take(
    tx: &mut Tx,
    node: &NodeName,
    instance: InstanceId,
    turn: &Row,
) -> Result<Option<ClaimedJob>, StoreError> {
    let (class, connection) = (turn.text("class")?, turn.text("connection")?);
    let repository = turn.text("repository_id")?;
    let row = tx
        .row(
            "SELECT id, run_id, run_attempt, label, cpus, memory_mib, disk_gib,
                 (SELECT COUNT(*) FROM attempts a WHERE a.job_id = jobs.id) AS attempts
             FROM jobs WHERE state = 'queued' AND class = $1 AND connection = $2 AND repository_id = $3
             ORDER BY seq LIMIT 1",
            args![&class, &connection, &repository],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let (job, run): (JobId, RunId) = (row.parse("id")?, row.parse("run_id")?);
    if runs::lock(tx, run).await?.is_none()
        || !jobs::set_state(tx, job, JobState::Queued, JobState::Active, None).await?
    {
        return Ok(None);
    }
    tx.execute(
        "UPDATE turn SET last_served = (SELECT MAX(t.last_served) + 1 FROM turn t)
         WHERE class = $1 AND connection = $2 AND repository_id = $3",
        args![&class, &connection, &repository],
    )
    .await?;
    let claimed = ClaimedJob {
        attempt: AttemptId::new(),
        epoch: 1,
        job,
        run,
        run_attempt: row.num("run_attempt")?,
        number: row.num("attempts")? + 1,
        label: row.parse("label")?,
        size: jobs::size(&row)?,
    };
    insert_attempt(tx, node, instance, &claimed).await?;
    Ok(Some(claimed))
}

/// The attempt and the intent to have a machine.
async fn insert_attempt(
    tx: &mut Tx,
    node: &NodeName,
    instance: InstanceId,
    claimed: &ClaimedJob,
) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO attempts (id, job_id, number, state, epoch, node, instance, created_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        args![
            claimed.attempt,
            claimed.job,
            claimed.number,
            AttemptState::Preparing,
            claimed.epoch,
            node,
            instance,
            tx.now
        ],
    )
    .await?;
    tx.execute(
        "INSERT INTO machines (name, attempt_id, node, label, cpus, memory_mib, disk_gib, state, created_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        args![
            MachineName::of(claimed.attempt),
            claimed.attempt,
            node,
            &claimed.label,
            claimed.size.cpus,
            jobs::stored(claimed.size.memory_mib),
            claimed.size.disk_gib.map(jobs::stored),
            MachineState::Preparing,
            tx.now
        ],
    )
    .await
    .map(drop)
}

async fn expire(tx: &mut Tx, older_than: Duration) -> Result<Vec<JobId>, StoreError> {
    let rows = tx
        .rows(
            "SELECT id, run_id, run_attempt FROM jobs WHERE state = 'queued' AND queued_ms < $1 ORDER BY run_id, seq",
            args![tx.now - ms(older_than)],
        )
        .await?;
    let mut expired = Vec::new();
    for row in rows {
        let (job, run): (JobId, RunId) = (row.parse("id")?, row.parse("run_id")?);
        let Some(locked) = runs::lock(tx, run).await? else {
            continue;
        };
        let minutes = older_than.as_secs() / 60;
        let reason = format!("no machine for it within {minutes} minutes");
        if jobs::set_state(tx, job, JobState::Queued, JobState::TimedOut, Some(&reason)).await? {
            runs::settle_and_report(tx, &locked, run, row.num("run_attempt")?, &[job]).await?;
            expired.push(job);
        }
    }
    Ok(expired)
}

/// The ids of a node's attempts that have not ended.
pub(in crate::store) async fn live_attempts(tx: &mut Tx, node: &NodeName) -> Result<Vec<AttemptId>, StoreError> {
    let sql = states_sql(
        "SELECT id FROM attempts WHERE node = $1 AND state IN ({from}) ORDER BY id",
        live::<AttemptState>(),
    );
    let rows = tx.rows(sql, args![node]).await?;
    rows.iter().map(|row| row.parse("id")).collect()
}
