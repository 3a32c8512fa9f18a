//! Writing to the outbox, in the transaction of whatever happened. One row per check holds the newest
//! wanted state; each change raises its version, and the reporter delivers what it is behind with.

use sha2::{Digest as _, Sha256};

use super::{
    StoreError,
    tx::{Tx, args},
    wording::{self, JobCounts, JobFacts, RunFacts, Words},
};
use crate::model::{
    diagnostic::Diagnostic,
    ids::{JobId, ReportId, RunId},
    names::CommitSha,
    report::AGGREGATE,
    state::{AttemptState, JobState},
    trigger::{Repository, Trigger},
};

/// A commit of a repository: where checks are shown.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) repository: Repository,
    pub(super) installation: Option<i64>,
    pub(super) commit: CommitSha,
}

impl Place {
    /// Where the checks of a trigger's runs are shown.
    pub(super) fn of(trigger: &Trigger, commit: &CommitSha) -> Self {
        Self {
            repository: trigger.repository.clone(),
            installation: trigger.installation,
            commit: commit.clone(),
        }
    }

    /// Two transactions that end runs of one commit at once must not both miss the other's end in
    /// the aggregate.
    pub(super) async fn lock(&self, tx: &mut Tx) -> Result<(), StoreError> {
        let Repository { connection, id, .. } = &self.repository;
        let hash = Sha256::digest(format!("{connection}/{id}/{}", self.commit));
        let section = hash.iter().take(8).fold(0_i64, |n, byte| (n << 8) | i64::from(*byte));
        tx.exclusive(section).await
    }
}

/// What a check is to say, and what it is about.
struct Wanted {
    words: Words,
    run: Option<RunId>,
    job: Option<JobId>,
    started_ms: Option<i64>,
    completed_ms: Option<i64>,
}

/// The number for a check that is told from the beginning.
pub(super) async fn next_generation(tx: &mut Tx, place: &Place, name: &str) -> Result<u32, StoreError> {
    let row = current(tx, place, name).await?;
    Ok(row.map_or(1, |row| row.generation + 1))
}

struct Current {
    generation: u32,
    state: String,
    title: String,
    summary: String,
    completed_ms: Option<i64>,
}

async fn current(tx: &mut Tx, place: &Place, name: &str) -> Result<Option<Current>, StoreError> {
    let row = tx
        .row(
            "SELECT generation, state, title, summary, completed_ms FROM reports
             WHERE connection = $1 AND repository_id = $2 AND commit_sha = $3 AND name = $4",
            args![&place.repository.connection, place.repository.id, &place.commit, name],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Current {
        generation: row.num("generation")?,
        state: row.text("state")?,
        title: row.text("title")?,
        summary: row.text("summary")?,
        completed_ms: row.opt_int("completed_ms")?,
    }))
}

/// Wants a check to say something, in a generation. A later generation has the last word.
async fn put(tx: &mut Tx, place: &Place, name: &str, generation: u32, wanted: &Wanted) -> Result<(), StoreError> {
    let words = &wanted.words;
    let state = super::reports::word(words.state);
    if let Some(row) = current(tx, place, name).await? {
        let same = (row.state.as_str(), &row.title, &row.summary) == (state, &words.title, &words.summary);
        if row.generation > generation || (row.generation == generation && same) {
            return Ok(());
        }
    }
    // A refusal may have been mended since, so a new state is tried at once; a pause that the forge
    // asked for is kept.
    tx.execute(
        "INSERT INTO reports (id, connection, repository_id, repository_path, installation, commit_sha, name,
             generation, state, title, summary, run_id, job_id, started_ms, completed_ms, version, since_version,
             due_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, 1, 1, $16)
         ON CONFLICT (connection, repository_id, commit_sha, name) DO UPDATE SET
             repository_path = excluded.repository_path, installation = excluded.installation,
             state = excluded.state, title = excluded.title, summary = excluded.summary,
             run_id = excluded.run_id, job_id = excluded.job_id,
             started_ms = excluded.started_ms, completed_ms = excluded.completed_ms,
             version = reports.version + 1,
             since_version = CASE WHEN excluded.generation > reports.generation
                 THEN reports.version + 1 ELSE reports.since_version END,
             remote = CASE WHEN excluded.generation > reports.generation THEN NULL ELSE reports.remote END,
             generation = excluded.generation,
             due_ms = CASE WHEN reports.refused = 1 OR reports.delivered = reports.version
                 THEN excluded.due_ms ELSE reports.due_ms END,
             refused = 0",
        args![
            ReportId::new(),
            &place.repository.connection,
            place.repository.id,
            &place.repository.path,
            place.installation,
            &place.commit,
            name,
            generation,
            state,
            &words.title,
            &words.summary,
            wanted.run,
            wanted.job,
            wanted.started_ms,
            wanted.completed_ms,
            tx.now,
        ],
    )
    .await
    .map(drop)
}

/// Wants a job's check to say where the job stands. A carried-over job says nothing new.
pub(super) async fn job(tx: &mut Tx, place: &Place, id: JobId) -> Result<(), StoreError> {
    let row = tx
        .row(
            "SELECT j.run_id, j.check_name, j.generation, j.state, j.reason, j.needs, j.tries, j.started_ms, j.ended_ms,
                 j.carried_from, a.node, a.state AS attempt_state
             FROM jobs j LEFT JOIN attempts a ON a.job_id = j.id
                 AND a.number = (SELECT MAX(b.number) FROM attempts b WHERE b.job_id = j.id)
             WHERE j.id = $1",
            args![id],
        )
        .await?;
    let Some(row) = row else { return Ok(()) };
    if row.opt_text("carried_from")?.is_some() {
        return Ok(());
    }
    let state: JobState = row.parse("state")?;
    let reason = row.opt_text("reason")?;
    let needs: Vec<String> = row.json("needs")?;
    let node = row.opt_text("node")?;
    let begun = row
        .opt_parse::<AttemptState>("attempt_state")?
        .is_some_and(|state| state != AttemptState::Preparing);
    let words = wording::job(&JobFacts {
        state,
        reason: reason.as_deref(),
        needs: &needs,
        running_on: node.as_deref().filter(|_| begun),
        tries: row.num("tries")?,
    });
    let wanted = Wanted {
        words,
        run: Some(row.parse("run_id")?),
        job: Some(id),
        started_ms: row.opt_int("started_ms")?,
        completed_ms: row.opt_int("ended_ms")?,
    };
    put(tx, place, &row.text("check_name")?, row.num("generation")?, &wanted).await
}

/// Wants a failed check for a workflow file that cannot be planned.
pub(super) async fn unusable(
    tx: &mut Tx,
    place: &Place,
    run: RunId,
    name: &str,
    path: &str,
    complaints: &[Diagnostic],
) -> Result<(), StoreError> {
    let check = format!("{AGGREGATE} / {name}");
    let generation = next_generation(tx, place, &check).await?;
    let wanted = Wanted {
        words: wording::unusable(path, complaints),
        run: Some(run),
        job: None,
        started_ms: Some(tx.now),
        completed_ms: Some(tx.now),
    };
    put(tx, place, &check, generation, &wanted).await
}

/// Wants the aggregate to say that a trigger could not be planned at all.
pub(super) async fn unplanned(tx: &mut Tx, place: &Place, reason: &str) -> Result<(), StoreError> {
    place.lock(tx).await?;
    let generation = next_generation(tx, place, AGGREGATE).await?;
    let wanted = Wanted {
        words: Words::new(
            crate::model::report::ReportState::Error,
            reason,
            wording::escape(reason),
        ),
        run: None,
        job: None,
        started_ms: Some(tx.now),
        completed_ms: Some(tx.now),
    };
    put(tx, place, AGGREGATE, generation, &wanted).await
}

/// Wants the aggregate to say where the commit's current runs (the newest attempt of each) stand. An
/// aggregate that was final and no longer is begins a new generation, because forges keep what is final.
pub(super) async fn aggregate(tx: &mut Tx, place: &Place) -> Result<(), StoreError> {
    let at = args![&place.repository.connection, place.repository.id, &place.commit];
    let runs = tx
        .rows(
            "SELECT r.id, r.name, a.state, a.created_ms, a.ended_ms
             FROM runs r JOIN run_attempts a ON a.run_id = r.id AND a.number = r.attempt
             WHERE r.connection = $1 AND r.repository_id = $2 AND r.commit_sha = $3 ORDER BY r.id",
            at,
        )
        .await?;
    let counts = tx
        .rows(
            "SELECT j.state, COUNT(*) AS jobs, COUNT(CASE WHEN j.carried_from IS NULL THEN j.started_ms END) AS begun,
                 COUNT(j.carried_from) AS carried
             FROM runs r JOIN jobs j ON j.run_id = r.id AND j.run_attempt = r.attempt
             WHERE r.connection = $1 AND r.repository_id = $2 AND r.commit_sha = $3 GROUP BY j.state",
            at,
        )
        .await?;
    let mut jobs = JobCounts::default();
    for row in &counts {
        let count = u64::from(row.num("jobs")?);
        jobs.all += count;
        let state: JobState = row.parse("state")?;
        match state {
            JobState::Success => jobs.succeeded += count,
            JobState::Failure | JobState::TimedOut | JobState::Error => jobs.failed += count,
            JobState::Skipped => jobs.skipped += count,
            JobState::Waiting | JobState::Queued | JobState::Active | JobState::Cancelled => {}
        }
        let ended_here = state.is_terminal() && count > u64::from(row.num("carried")?);
        jobs.begun |= ended_here || row.num("begun")? > 0;
    }
    let mut facts = Vec::with_capacity(runs.len());
    let (mut newest, mut started, mut completed) = (None, None, None);
    for row in &runs {
        facts.push(RunFacts {
            name: row.text("name")?,
            state: row.parse("state")?,
        });
        newest = Some(row.parse("id")?);
        let created = row.int("created_ms")?;
        started = Some(started.map_or(created, |ms: i64| ms.min(created)));
        completed = completed.max(row.opt_int("ended_ms")?);
    }
    let words = wording::aggregate(&facts, &jobs);
    let generation = match current(tx, place, AGGREGATE).await? {
        None => 1,
        Some(row) if row.completed_ms.is_some() && !words.state.is_final() => row.generation + 1,
        Some(row) => row.generation,
    };
    let wanted = Wanted {
        completed_ms: completed.filter(|_| words.state.is_final()),
        words,
        run: newest,
        job: None,
        started_ms: started,
    };
    put(tx, place, AGGREGATE, generation, &wanted).await
}
