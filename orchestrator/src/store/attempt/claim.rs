//! Scheduling: what waits, what this node already runs, and the atomic claim of a job.

use std::{sync::Arc, time::Duration};

use super::attempts::{self, AttemptRow};
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
            tx::{Row, Tx, args},
        },
        ms,
        report::{aggregate, outbox},
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

impl MachineUse {
    /// The machine that an attempt takes up from its claim on.
    #[must_use]
    pub fn of(attempt: &AttemptRow) -> Self {
        Self {
            name: MachineName::of(attempt.id),
            label: attempt.label.clone(),
            size: attempt.size,
            state: MachineState::Preparing,
        }
    }
}

/// The critical section (a Postgres advisory lock) in which turns are read and taken.
const CLAIM_SECTION: i64 = 0x6865_6c69_6f73_0002;
/// How often a claim is repeated when its job was cancelled meanwhile.
const CLAIM_TRIES: u32 = 16;
/// Jobs that are claimed in one transaction at most, so that none is long.
const CLAIMS: usize = 16;
/// As [`CLAIMS`], for jobs that end because they waited for too long.
const EXPIRED: u32 = 100;

/// The classes with queued jobs, each with one of these: a step from class to class in `jobs_queued`, however many wait.
pub(in crate::store) const QUEUED_CLASSES: &str = "WITH RECURSIVE classes (class) AS (
         SELECT MIN(class) FROM jobs WHERE state = 'queued'
         UNION ALL
         SELECT (SELECT MIN(j.class) FROM jobs j WHERE j.state = 'queued' AND j.class > classes.class)
         FROM classes WHERE class IS NOT NULL)
     SELECT j.class, j.label, j.cpus, j.memory_mib, j.disk_gib, j.id, j.run_id, j.run_attempt
     FROM classes JOIN jobs j ON j.seq = (
         SELECT f.seq FROM jobs f WHERE f.state = 'queued' AND f.class = classes.class
         ORDER BY f.connection, f.repository_id, f.seq LIMIT 1)";

/// The turn that is served next: the oldest of the first of each class.
pub(in crate::store) const OLDEST_TURN: &str = "WITH wanted (class) AS (VALUES {list})
     SELECT t.class, t.connection, t.repository_id FROM wanted JOIN turn t
         ON t.class = wanted.class AND (t.connection, t.repository_id) = (
             SELECT f.connection, f.repository_id FROM turn f WHERE f.queued > 0 AND f.class = wanted.class
             ORDER BY f.last_served, f.since_ms, f.connection, f.repository_id LIMIT 1)
     ORDER BY t.last_served, t.since_ms, t.connection, t.repository_id LIMIT 1";

/// The oldest job of a turn.
pub(in crate::store) const OLDEST_JOB: &str = "SELECT id, run_id, run_attempt FROM jobs
     WHERE state = 'queued' AND class = $1 AND connection = $2 AND repository_id = $3
     ORDER BY seq LIMIT 1";

/// What has been queued for longest, and for too long.
pub(in crate::store) const OVERDUE: &str = "SELECT id, run_id, run_attempt, seq FROM jobs
     WHERE state = 'queued' AND queued_ms < $1 ORDER BY queued_ms LIMIT $2";

impl Store {
    /// The classes that have queued jobs. A job that should show its class and cannot be read ends in `error`.
    pub async fn queued_classes(&self) -> Result<Vec<QueuedClass>, StoreError> {
        loop {
            let rows = {
                let mut tx = self.read_single("list queued classes").await?;
                tx.rows(QUEUED_CLASSES, &[]).await?
            };
            let (mut classes, mut unreadable) = (Vec::with_capacity(rows.len()), Vec::new());
            for row in &rows {
                match class(row) {
                    Ok(class) => classes.push(class),
                    Err(error @ StoreError::Unreadable { .. }) => unreadable.push((Job::of(row)?, error)),
                    Err(error) => return Err(error),
                }
            }
            if unreadable.is_empty() {
                return Ok(classes);
            }
            // Another of its class may be behind it.
            for (job, error) in unreadable {
                let ended = in_tx!(self, "end an unreadable job", [reason = error.to_string()], |tx| {
                    end_queued(tx, job, JobState::Error, reason)
                })?;
                if ended {
                    self.note_unreadable(&[error]);
                }
            }
        }
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

    /// Claims jobs for machines beside those that are `used`: each of the classes that `fitting` names for them and for
    /// what was claimed before it, until it names none, nothing of them waits, or the transaction would be long. Each is
    /// the oldest job of the pair of class and repository whose turn is oldest. Attempts and their machines' rows are
    /// there before anything is done. None is claimed when another instance runs under this node's name. A job that cannot
    /// be read ends in `error`, so that it keeps nobody from those behind it.
    pub async fn claim_jobs<F>(
        &self,
        node: &NodeName,
        instance: InstanceId,
        used: Vec<MachineUse>,
        fitting: F,
    ) -> Result<Vec<AttemptRow>, StoreError>
    where
        F: Fn(&[MachineUse]) -> Vec<String> + Send + Sync + 'static,
    {
        let (used, fitting) = (Arc::new(used), Arc::new(fitting));
        loop {
            let (used, fitting) = (Arc::clone(&used), Arc::clone(&fitting));
            let looked = in_tx!(
                self,
                "claim jobs",
                [node = node.clone(), used = used, fitting = fitting],
                |tx| { claim_all(tx, node, instance, used, &**fitting) }
            )?;
            self.note_unreadable(&looked.unreadable);
            if !looked.claimed.is_empty() || looked.unreadable.is_empty() {
                return Ok(looked.claimed);
            }
        }
    }

    /// Ends jobs that have been queued for longer than `older_than`, as `timed_out`: the oldest, at most 100 at once.
    pub async fn expire_queued(&self, older_than: Duration) -> Result<Vec<JobId>, StoreError> {
        in_tx!(self, "expire queued jobs", [], |tx| expire(tx, older_than))
    }
}

/// A queued job, as whatever ends or claims it must know it.
#[derive(Debug, Clone, Copy)]
struct Job {
    id: JobId,
    run: RunId,
    run_attempt: u32,
}

impl Job {
    fn of(row: &Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.parse("id")?,
            run: row.parse("run_id")?,
            run_attempt: row.num("run_attempt")?,
        })
    }
}

/// What a look at the queue came to.
#[derive(Default)]
struct Looked {
    claimed: Vec<AttemptRow>,
    /// What is wrong with the jobs that it ended.
    unreadable: Vec<StoreError>,
}

/// What became of one turn.
enum Taken {
    Claimed(Box<AttemptRow>),
    /// Its job has ended.
    Unreadable(StoreError),
}

fn class(row: &Row) -> Result<QueuedClass, StoreError> {
    Ok(QueuedClass {
        class: row.text("class")?,
        label: row.parse("label")?,
        size: jobs::size(row)?,
    })
}

async fn claim_all(
    tx: &mut Tx,
    node: &NodeName,
    instance: InstanceId,
    used: &[MachineUse],
    fitting: &(impl Fn(&[MachineUse]) -> Vec<String> + Sync),
) -> Result<Looked, StoreError> {
    tx.exclusive(CLAIM_SECTION).await?;
    let registered = tx
        .row(
            "SELECT name FROM nodes WHERE name = $1 AND instance = $2",
            args![node, instance],
        )
        .await?;
    let mut looked = Looked::default();
    if registered.is_none() {
        return Ok(looked);
    }
    // On Postgres one that holds a turn and waits for another run could wait for whoever holds that run and waits for the
    // turn, so there each claim is a transaction of its own.
    let most = if tx.is_only_writer() { CLAIMS } else { 1 };
    let mut used = used.to_vec();
    while looked.claimed.len() + looked.unreadable.len() < most {
        let classes = fitting(&used);
        if classes.is_empty() {
            break;
        }
        match claim(tx, node, instance, &classes).await? {
            Some(Taken::Claimed(attempt)) => {
                used.push(MachineUse::of(&attempt));
                looked.claimed.push(*attempt);
            }
            Some(Taken::Unreadable(error)) => looked.unreadable.push(error),
            None => break,
        }
    }
    Ok(looked)
}

async fn claim(
    tx: &mut Tx,
    node: &NodeName,
    instance: InstanceId,
    classes: &[String],
) -> Result<Option<Taken>, StoreError> {
    for _ in 0..CLAIM_TRIES {
        let Some(turn) = oldest_turn(tx, classes).await? else {
            return Ok(None);
        };
        if let Some(taken) = take(tx, node, instance, &turn).await? {
            return Ok(Some(taken));
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
    let rows: Vec<String> = (1..=classes.len()).map(|n| format!("(${n})")).collect();
    let sql = OLDEST_TURN.replace("{list}", &rows.join(", "));
    let classes: Vec<_> = classes.iter().map(Into::into).collect();
    tx.row(sql, &classes).await
}

/// Claims the oldest job of a turn; none when it went another way.
async fn take(tx: &mut Tx, node: &NodeName, instance: InstanceId, turn: &Row) -> Result<Option<Taken>, StoreError> {
    let (class, connection) = (turn.text("class")?, turn.text("connection")?);
    let repository = turn.text("repository_id")?;
    let row = tx.row(OLDEST_JOB, args![&class, &connection, &repository]).await?;
    let Some(row) = row else { return Ok(None) };
    let job = Job::of(&row)?;
    // All that can be wrong with a row is seen before anything is changed.
    let attempt = match attempts::next_of(tx, job.id, node).await {
        Ok(Some(attempt)) => attempt,
        Ok(None) => return Ok(None),
        Err(error @ StoreError::Unreadable { .. }) => {
            let ended = end_queued(tx, job, JobState::Error, &error.to_string()).await?;
            return Ok(ended.then_some(Taken::Unreadable(error)));
        }
        Err(error) => return Err(error),
    };
    if runs::lock(tx, job.run).await?.is_none()
        || !jobs::set_state(tx, job.id, JobState::Queued, JobState::Active, None).await?
    {
        return Ok(None);
    }
    tx.execute(
        "UPDATE turn SET last_served = (SELECT MAX(t.last_served) + 1 FROM turn t)
         WHERE class = $1 AND connection = $2 AND repository_id = $3",
        args![&class, &connection, &repository],
    )
    .await?;
    tx.execute(
        "INSERT INTO attempts (id, job_id, number, state, epoch, node, instance, created_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        args![
            attempt.id,
            attempt.job,
            attempt.number,
            attempt.state,
            attempt.epoch,
            node,
            instance,
            attempt.created_ms
        ],
    )
    .await?;
    // The intent to have a machine.
    tx.execute(
        "INSERT INTO machines (name, attempt_id, node, label, cpus, memory_mib, disk_gib, state, created_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        args![
            MachineName::of(attempt.id),
            attempt.id,
            node,
            &attempt.label,
            attempt.size.cpus,
            jobs::stored(attempt.size.memory_mib),
            attempt.size.disk_gib.map(jobs::stored),
            MachineState::Preparing,
            attempt.created_ms
        ],
    )
    .await?;
    Ok(Some(Taken::Claimed(Box::new(attempt))))
}

async fn expire(tx: &mut Tx, older_than: Duration) -> Result<Vec<JobId>, StoreError> {
    let rows = tx.rows(OVERDUE, args![tx.now - ms(older_than), EXPIRED]).await?;
    let mut overdue: Vec<(i64, Job)> = rows
        .iter()
        .map(|row| Ok((row.int("seq")?, Job::of(row)?)))
        .collect::<Result<_, StoreError>>()?;
    // Runs are locked in one order, whoever locks several.
    overdue.sort_by_key(|(seq, job)| (job.run, *seq));
    let reason = format!("no machine for it within {} minutes", older_than.as_secs() / 60);
    let mut expired = Vec::new();
    for (_, job) in overdue {
        if end_queued(tx, job, JobState::TimedOut, &reason).await? {
            expired.push(job.id);
        }
    }
    Ok(expired)
}

/// Ends a queued job, and with it whatever of its run ends by that. Whether it was still queued. Of what cannot be read
/// nobody is told, and it ends all the same.
async fn end_queued(tx: &mut Tx, job: Job, to: JobState, reason: &str) -> Result<bool, StoreError> {
    let locked = readable(runs::lock(tx, job.run).await)?;
    if matches!(locked, Some(None)) || !jobs::set_state(tx, job.id, JobState::Queued, to, Some(reason)).await? {
        return Ok(false);
    }
    let mut moved = vec![job.id];
    if let Some(settled) = readable(runs::settle(tx, job.run, job.run_attempt).await)? {
        moved.extend(settled.freed);
        moved.extend(settled.ended);
    }
    if let Some(runs::Locked { target, .. }) = locked.flatten() {
        for id in moved {
            readable(outbox::job(tx, &target, id).await)?;
        }
        readable(aggregate::update(tx, &target).await)?;
    }
    Ok(true)
}

/// None instead of what cannot be read.
fn readable<T>(result: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(StoreError::Unreadable { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The ids of a node's attempts that have not ended.
pub(in crate::store) async fn live_attempts(tx: &mut Tx, node: &NodeName) -> Result<Vec<AttemptId>, StoreError> {
    let sql = states_sql(
        "SELECT id FROM attempts WHERE node = $1 AND state IN ({from}) AND state <> 'ended' ORDER BY id",
        live::<AttemptState>(),
    );
    let rows = tx.rows(sql, args![node]).await?;
    rows.iter().map(|row| row.parse("id")).collect()
}
