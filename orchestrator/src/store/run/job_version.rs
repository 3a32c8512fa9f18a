//! Whether anything about a job changed: what viewers of one ask at each hint.

use crate::{
    model::{
        ids::{AttemptId, JobId},
        state::JobState,
    },
    store::{Store, StoreError, engine::tx::args},
};

/// Where a job stands, in one short row. While it is the same, so is everything that [`Store::job`] would say, but for
/// the position of a queued job in its queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobVersion {
    /// The job's state.
    pub state: JobState,
    /// Its newest attempt; of a carried-over job, that of the job it was carried from.
    pub attempt: Option<AttemptId>,
    /// That attempt has ended: nothing more is written to its log but its end.
    pub attempt_ended: bool,
    /// Changes with every transition of the run, its jobs and their attempts.
    run: i64,
    /// How many steps have rows, and the sum of the times of their last transitions.
    steps: (i64, i64),
}

impl Store {
    /// See [`JobVersion`]; `None` when there is no such job.
    pub async fn job_version(&self, id: JobId) -> Result<Option<JobVersion>, StoreError> {
        let mut tx = self.read_single("look for changes of a job").await?;
        let row = tx
            .row(
                "SELECT j.state, r.version, a.id AS newest_attempt, a.ended_ms,
                     (SELECT COUNT(*) FROM steps s WHERE s.attempt_id = a.id) AS steps,
                     (SELECT CAST(COALESCE(SUM(COALESCE(s.ended_ms, s.started_ms)), 0) AS BIGINT) FROM steps s
                      WHERE s.attempt_id = a.id) AS moved
                 FROM jobs j JOIN runs r ON r.id = j.run_id
                 LEFT JOIN attempts a ON a.id = (SELECT b.id FROM attempts b
                     WHERE b.job_id = COALESCE(j.carried_from, j.id) ORDER BY b.number DESC LIMIT 1)
                 WHERE j.id = $1",
                args![id],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(JobVersion {
            state: row.parse("state")?,
            attempt: row.opt_parse("newest_attempt")?,
            attempt_ended: row.opt_int("ended_ms")?.is_some(),
            run: row.int("version")?,
            steps: (row.int("steps")?, row.int("moved")?),
        }))
    }
}
