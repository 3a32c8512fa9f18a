//! Why a job is where it is: from the rows the scheduler itself reads.

use crate::{
    model::{ids::JobId, state::JobState},
    store::{
        Store, StoreError,
        engine::tx::{Row, Tx, args},
    },
};

/// What is known about a job's waiting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// Its state.
    pub state: JobState,
    /// The stored reason.
    pub reason: Option<String>,
    /// Its position in its class in the order of turns, from 1; 0 when it is not queued.
    pub position: u32,
    /// How many jobs of its class run now, on all nodes.
    pub class_running: u32,
    /// Keys of the jobs it needs that have not ended.
    pub waiting_for: Vec<String>,
}

impl Store {
    /// Why a job is where it is.
    pub async fn why(&self, job: JobId) -> Result<Option<Why>, StoreError> {
        let mut tx = self.read("say why a job waits").await?;
        let row = tx
            .row(
                "SELECT seq, run_id, run_attempt, class, connection, repository_id, state, reason, needs,
                     (SELECT COUNT(*) FROM jobs o WHERE o.class = jobs.class AND o.state = 'active'
                         AND o.state IN ('waiting', 'queued', 'active')) AS running
                 FROM jobs WHERE id = $1",
                args![job],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        let state: JobState = row.parse("state")?;
        Ok(Some(Why {
            state,
            reason: row.opt_text("reason")?,
            position: if state == JobState::Queued {
                position(&mut tx, &row).await?
            } else {
                0
            },
            class_running: row.num("running")?,
            waiting_for: if state == JobState::Waiting {
                unmet(&mut tx, &row).await?
            } else {
                Vec::new()
            },
        }))
    }
}

async fn unmet(tx: &mut Tx, job: &Row) -> Result<Vec<String>, StoreError> {
    let mut needs: Vec<String> = job.json("needs")?;
    let rows = tx
        .rows(
            "SELECT job_key, state FROM jobs WHERE run_id = $1 AND run_attempt = $2",
            args![job.text("run_id")?, job.int("run_attempt")?],
        )
        .await?;
    for row in rows {
        if row.parse::<JobState>("state")?.is_terminal() {
            let key = row.text("job_key")?;
            needs.retain(|need| *need != key);
        }
    }
    Ok(needs)
}

/// Turns go round: before this job come, of its own repository, the older ones, and of every other as
/// many as there are rounds until then, and one more where the other's turn is older.
async fn position(tx: &mut Tx, job: &Row) -> Result<u32, StoreError> {
    let (class, connection) = (job.text("class")?, job.text("connection")?);
    let repository = job.text("repository_id")?;
    let older = tx
        .row(
            "SELECT COUNT(*) AS jobs FROM jobs
             WHERE state = 'queued' AND class = $1 AND connection = $2 AND repository_id = $3 AND seq < $4",
            args![&class, &connection, &repository, job.int("seq")?],
        )
        .await?
        .map_or(Ok(0), |row| row.num("jobs"))?;
    let turns = tx
        .rows(
            "SELECT connection, repository_id, queued FROM turn WHERE queued > 0 AND class = $1
             ORDER BY last_served, since_ms, connection, repository_id",
            args![&class],
        )
        .await?;
    let mut before_mine = true;
    let mut position = older + 1;
    for turn in turns {
        if turn.text("connection")? == connection && turn.text("repository_id")? == repository {
            before_mine = false;
        } else {
            position += turn.num("queued")?.min(older + u32::from(before_mine));
        }
    }
    Ok(position)
}
