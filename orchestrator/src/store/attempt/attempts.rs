//! Attempts: what their driver writes. Every write shows the attempt's epoch; after another instance
//! took the attempt over, the old epoch changes nothing.

use crate::{
    model::{
        ids::{AttemptId, JobId, RunId},
        names::{CommitSha, Label, MachineName, NodeName, RefName},
        size::Size,
        state::{AttemptState, JobResult, MachineState},
        trigger::Repository,
    },
    store::{
        Store, StoreError,
        engine::{
            transitions::{live, predecessors, states_sql, transition_sql},
            tx::{Row, Tx, args},
        },
        report::{aggregate, outbox},
        run::{jobs, runs},
    },
};

/// An attempt, with what its driver must know of its job and run.
#[derive(Debug, Clone)]
pub struct AttemptRow {
    /// Its id.
    pub id: AttemptId,
    /// Its job.
    pub job: JobId,
    /// Its run.
    pub run: RunId,
    /// The run attempt its job belongs to.
    pub run_attempt: u32,
    /// Its number within the job, from 1.
    pub number: u32,
    /// Its state.
    pub state: AttemptState,
    /// The fencing epoch that counts now.
    pub epoch: i64,
    /// Whose it is.
    pub node: NodeName,
    /// The image's label.
    pub label: Label,
    /// What its machine gets.
    pub size: Size,
    /// An agent has joined.
    pub joined: bool,
    /// Milliseconds since 1970, like the others.
    pub created_ms: i64,
    /// When its steps began.
    pub running_ms: Option<i64>,
    /// When it ended.
    pub ended_ms: Option<i64>,
    /// How its job ended; none while it lives and when we failed.
    pub result: Option<JobResult>,
    /// Why we failed.
    pub cause: Option<String>,
    /// Retention has taken its log.
    pub log_removed: bool,
    /// The job's key in the plan.
    pub job_key: String,
    /// Whose code it runs.
    pub repository: Repository,
    /// The commit it runs.
    pub commit: CommitSha,
    /// The ref that was pushed or asked for.
    pub ref_name: RefName,
    /// The event's name in workflow files.
    pub event: String,
    /// Who, for people to read.
    pub actor: String,
}

/// What became of an agent's wish to join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    /// It has joined.
    Joined,
    /// It had joined with this very key.
    Again,
    /// The token is right and was used with another key: whoever joined then lives no more, as after a reboot of its
    /// machine. It has not joined.
    AgentRestarted,
    /// Wrong token, or the attempt is over.
    Refused,
}

/// What an attempt takes over from its job and run.
macro_rules! of_job {
    () => {
        "j.run_id, j.run_attempt, j.job_key, j.label, j.cpus, j.memory_mib, j.disk_gib, r.connection, r.repository_id,
    r.repository_path, r.forge_context, r.commit_sha, r.ref_name, r.event, r.actor"
    };
}

const COLUMNS: &str = concat!(
    "SELECT ",
    of_job!(),
    ", a.id, a.job_id, a.number, a.state, a.epoch, a.node,
    CASE WHEN a.key_hash IS NULL THEN CAST(0 AS BIGINT) ELSE CAST(1 AS BIGINT) END AS joined, a.created_ms,
    a.running_ms, a.ended_ms, a.result, a.cause, a.log_removed
    FROM attempts a JOIN jobs j ON j.id = a.job_id JOIN runs r ON r.id = j.run_id"
);

fn attempt_row(row: &Row) -> Result<AttemptRow, StoreError> {
    let begun = begun(row, row.parse("id")?, row.parse("node")?, row.int("created_ms")?)?;
    Ok(AttemptRow {
        state: row.parse("state")?,
        epoch: row.int("epoch")?,
        joined: row.flag("joined")?,
        running_ms: row.opt_int("running_ms")?,
        ended_ms: row.opt_int("ended_ms")?,
        result: match row.opt_text("result")? {
            Some(_) => Some(row.json("result")?),
            None => None,
        },
        cause: row.opt_text("cause")?,
        log_removed: row.flag("log_removed")?,
        ..begun
    })
}

/// An attempt as it begins, of a row with what it takes over and its number.
fn begun(row: &Row, id: AttemptId, node: NodeName, created_ms: i64) -> Result<AttemptRow, StoreError> {
    let target = runs::check_target(row)?;
    Ok(AttemptRow {
        id,
        job: row.parse("job_id")?,
        run: row.parse("run_id")?,
        run_attempt: row.num("run_attempt")?,
        number: row.num("number")?,
        state: AttemptState::Preparing,
        epoch: 1,
        node,
        label: row.parse("label")?,
        size: jobs::size(row)?,
        joined: false,
        created_ms,
        running_ms: None,
        ended_ms: None,
        result: None,
        cause: None,
        log_removed: false,
        job_key: row.text("job_key")?,
        repository: target.repository,
        commit: target.commit,
        ref_name: row.parse("ref_name")?,
        event: row.text("event")?,
        actor: row.text("actor")?,
    })
}

/// The next attempt of a job, which is not stored yet; none when there is no such job any more.
pub(in crate::store) async fn next_of(
    tx: &mut Tx,
    job: JobId,
    node: &NodeName,
) -> Result<Option<AttemptRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        of_job!(),
        ", j.id AS job_id, (SELECT COUNT(*) + 1 FROM attempts a WHERE a.job_id = j.id) AS number
         FROM jobs j JOIN runs r ON r.id = j.run_id WHERE j.id = $1"
    );
    let row = tx.row(sql, args![job]).await?;
    row.map(|row| begun(&row, AttemptId::new(), node.clone(), tx.now))
        .transpose()
}

/// One attempt.
pub(in crate::store) async fn load(tx: &mut Tx, id: AttemptId) -> Result<Option<AttemptRow>, StoreError> {
    let row = tx.row(format!("{COLUMNS} WHERE a.id = $1"), args![id]).await?;
    row.as_ref().map(attempt_row).transpose()
}

/// All attempts of a job, the first first.
pub(in crate::store) async fn of_job(tx: &mut Tx, job: JobId) -> Result<Vec<AttemptRow>, StoreError> {
    let sql = format!("{COLUMNS} WHERE a.job_id = $1 ORDER BY a.number");
    tx.rows(sql, args![job]).await?.iter().map(attempt_row).collect()
}

/// Whether `epoch` still counts for an attempt that has not ended.
pub(in crate::store) async fn holds(tx: &mut Tx, id: AttemptId, epoch: i64) -> Result<bool, StoreError> {
    let sql = states_sql(
        "SELECT id FROM attempts WHERE id = $1 AND epoch = $2 AND state IN ({from}) /*pg FOR UPDATE*/",
        live::<AttemptState>(),
    );
    Ok(tx.row(sql, args![id, epoch]).await?.is_some())
}

impl Store {
    /// One attempt.
    pub async fn attempt(&self, id: AttemptId) -> Result<Option<AttemptRow>, StoreError> {
        load(&mut self.read_single("read an attempt").await?, id).await
    }

    /// Stores the hash of the token with which the attempt's agent may join, once. `false`: fenced, or
    /// an agent has joined already. It lets in the agent of a machine on this host, which loses its power with the daemon.
    pub async fn set_join_token(&self, id: AttemptId, epoch: i64, token_hash: &[u8; 32]) -> Result<bool, StoreError> {
        in_tx!(self, "store a join token", WithNext, [hash = *token_hash], |tx| {
            set_token(tx, id, epoch, hash)
        })
    }

    /// Binds the join token to the agent's key: once, and again for the same key only. The key lives in the memory of a
    /// machine on this host, and what the node does next is synced.
    pub async fn join(&self, id: AttemptId, token_hash: &[u8; 32], key_hash: &[u8; 32]) -> Result<Join, StoreError> {
        in_tx!(
            self,
            "let an agent join",
            WithNext,
            [token = *token_hash, key = *key_hash],
            |tx| join(tx, id, token, key)
        )
    }

    /// Whether the attempt lives and its agent joined with this key.
    pub async fn session(&self, id: AttemptId, key_hash: &[u8; 32]) -> Result<bool, StoreError> {
        let mut tx = self.read_single("check an agent's session").await?;
        let sql = states_sql(
            "SELECT id FROM attempts WHERE id = $1 AND key_hash = $2 AND state IN ({from})",
            live::<AttemptState>(),
        );
        Ok(tx.row(sql, args![id, key_hash]).await?.is_some())
    }

    /// The steps are over: `→ finishing`. Repeating it is harmless. `false`: fenced.
    pub async fn attempt_finishing(&self, id: AttemptId, epoch: i64) -> Result<bool, StoreError> {
        in_tx!(self, "finish an attempt's steps", [], |tx| finishing(tx, id, epoch))
    }
}

async fn set_token(tx: &mut Tx, id: AttemptId, epoch: i64, hash: &[u8; 32]) -> Result<bool, StoreError> {
    let changed = tx
        .execute(
            "UPDATE attempts SET token_hash = $3
             WHERE id = $1 AND epoch = $2 AND state = 'preparing' AND key_hash IS NULL",
            args![id, epoch, hash],
        )
        .await?;
    Ok(changed == 1)
}

async fn join(tx: &mut Tx, id: AttemptId, token: &[u8; 32], key: &[u8; 32]) -> Result<Join, StoreError> {
    let bound = tx
        .execute(
            "UPDATE attempts SET key_hash = $3
             WHERE id = $1 AND token_hash = $2 AND key_hash IS NULL AND state = 'preparing'",
            args![id, token, key],
        )
        .await?;
    if bound == 1 {
        return Ok(Join::Joined);
    }
    let sql = states_sql(
        "SELECT CASE WHEN key_hash = $3 THEN CAST(1 AS BIGINT) ELSE CAST(0 AS BIGINT) END AS same FROM attempts
         WHERE id = $1 AND token_hash = $2 AND key_hash IS NOT NULL AND state IN ({from})",
        live::<AttemptState>(),
    );
    Ok(match tx.row(sql, args![id, token, key]).await? {
        Some(row) if row.int("same")? == 1 => Join::Again,
        Some(_) => Join::AgentRestarted,
        None => Join::Refused,
    })
}

/// Whether the attempt is in `state` under this epoch: the transition was made before.
async fn already(tx: &mut Tx, id: AttemptId, epoch: i64, state: AttemptState) -> Result<bool, StoreError> {
    let row = tx
        .row(
            "SELECT id FROM attempts WHERE id = $1 AND epoch = $2 AND state = $3",
            args![id, epoch, state],
        )
        .await?;
    Ok(row.is_some())
}

/// The agent has said hello: `preparing → running`. Repeating it is harmless. `false`: fenced.
pub(super) async fn running(tx: &mut Tx, id: AttemptId, epoch: i64, facts: &str) -> Result<bool, StoreError> {
    let Some((locked, job)) = lock_run_of(tx, id).await? else {
        return Ok(false);
    };
    let to = AttemptState::Running;
    let sql = transition_sql(
        "UPDATE attempts SET state = $3, facts = $4, running_ms = $5
         WHERE id = $1 AND epoch = $2 AND state IN ({from})",
        &predecessors(to),
        to,
    );
    if tx.execute(sql, args![id, epoch, to, facts, tx.now]).await? == 0 {
        return already(tx, id, epoch, to).await;
    }
    tx.execute("UPDATE jobs SET started_ms = $2 WHERE id = $1", args![job, tx.now])
        .await?;
    super::machines::set_state(tx, &MachineName::of(id), MachineState::Running).await?;
    outbox::job(tx, &locked.target, job).await?;
    aggregate::update(tx, &locked.target).await?;
    Ok(true)
}

/// See [`Store::attempt_finishing`].
pub(super) async fn finishing(tx: &mut Tx, id: AttemptId, epoch: i64) -> Result<bool, StoreError> {
    let to = AttemptState::Finishing;
    let sql = transition_sql(
        "UPDATE attempts SET state = $3 WHERE id = $1 AND epoch = $2 AND state IN ({from})",
        &predecessors(to),
        to,
    );
    if tx.execute(sql, args![id, epoch, to]).await? == 0 {
        return already(tx, id, epoch, to).await;
    }
    Ok(true)
}

/// Locks the run of an attempt, whose job comes with it.
pub(in crate::store) async fn lock_run_of(
    tx: &mut Tx,
    id: AttemptId,
) -> Result<Option<(runs::Locked, JobId)>, StoreError> {
    let row = tx
        .row(
            "SELECT j.id, j.run_id FROM attempts a JOIN jobs j ON j.id = a.job_id WHERE a.id = $1",
            args![id],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let locked = runs::lock(tx, row.parse("run_id")?).await?;
    Ok(match locked {
        Some(locked) => Some((locked, row.parse("id")?)),
        None => None,
    })
}
