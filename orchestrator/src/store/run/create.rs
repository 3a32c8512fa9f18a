//! Making runs from what the planner found.

use super::{jobs, runs};
use crate::{
    digest::sha256_hex,
    foreign_text::clip,
    model::{
        diagnostic::Diagnostic,
        ids::{JobId, RunId, TriggerId},
        names::CommitSha,
        plan::Plan,
        state::{JobState, RunState},
        trigger::Trigger,
    },
    store::run::jobs::JobRequirement,
    store::{
        StoreError,
        engine::tx::{Tx, args, to_json},
        report::outbox::{self, CheckTarget},
    },
};

/// One workflow file, as the planner leaves it.
#[derive(Debug, Clone)]
pub struct NewRun {
    /// The workflow file's path in the repository.
    pub path: String,
    /// The part of check names that stands for the workflow.
    pub name: String,
    /// The file's text.
    pub source: String,
    /// What to run; or why it cannot be planned: then the run has ended in `error`, is shown with
    /// these complaints, and is reported as failed.
    pub plan: Result<PlannedRun, Vec<Diagnostic>>,
}

/// A plan, and what its jobs require of a machine.
#[derive(Debug, Clone)]
pub struct PlannedRun {
    /// The plan.
    pub plan: Plan,
    /// One for each job of the plan, in its order.
    pub jobs: Vec<JobRequirement>,
}

/// Creates one run with its first attempt, its jobs and their reports. The caller writes the aggregate.
pub(in crate::store) async fn run(
    tx: &mut Tx,
    trigger_id: TriggerId,
    trigger: &Trigger,
    by: &str,
    commit: &CommitSha,
    new: &NewRun,
) -> Result<RunId, StoreError> {
    let target = CheckTarget::of(trigger, commit);
    target.lock(tx).await?;
    let id = RunId::new();
    let plan = match &new.plan {
        Ok(planned) if planned.jobs.len() != planned.plan.jobs.len() => {
            return Err(StoreError::Internal {
                what: tx.what,
                reason: format!("{} has as many requirements as jobs only when both agree", new.path),
            });
        }
        Ok(planned) => Some(to_json(tx.what, &planned.plan)?),
        Err(_) => None,
    };
    let no_complaints = Vec::new();
    let diagnostics = new.plan.as_ref().err().unwrap_or(&no_complaints);
    tx.execute(
        "INSERT INTO runs (id, trigger_id, connection, repository_id, repository_path, forge_context, ref_name,
             commit_sha, title, actor, event, path, name, source, plan, plan_version, plan_digest, diagnostics,
             created_ms, attempt)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, 1)",
        args![
            id,
            trigger_id,
            &trigger.repository.connection,
            &trigger.repository.id,
            &trigger.repository.path,
            &trigger.repository.context,
            trigger.event.ref_name(),
            commit,
            clip(&trigger.title, 1000),
            clip(&trigger.actor, 200),
            trigger.event.name(),
            clip(&new.path, 1000),
            clip(&new.name, 1000),
            &new.source,
            plan.as_deref(),
            new.plan.as_ref().ok().map(|p| p.plan.version),
            plan.as_deref().map(sha256_hex),
            to_json(tx.what, diagnostics)?,
            tx.now,
        ],
    )
    .await?;
    supersede(tx, &target, trigger, new).await?;
    match &new.plan {
        Ok(planned) => {
            insert_job_plans(tx, id, &planned.plan).await?;
            runs::insert_attempt(tx, id, 1, by, RunState::Active).await?;
            let ids = insert_jobs(tx, id, &target, planned).await?;
            runs::settle(tx, id, 1).await?;
            // The first report leaves before any machine is prepared, for waiting jobs as well.
            for job in ids {
                outbox::job(tx, &target, job).await?;
            }
        }
        Err(complaints) => {
            runs::insert_attempt(tx, id, 1, by, RunState::Error).await?;
            outbox::unusable(tx, &target, id, &new.name, &new.path, complaints).await?;
        }
    }
    Ok(id)
}

/// Of the runs that measure the same thing only the newest counts: this one, unless the clock was set back. The caller
/// holds the commit's lock.
async fn supersede(tx: &mut Tx, target: &CheckTarget, trigger: &Trigger, new: &NewRun) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE runs SET superseded = 1 WHERE connection = $1 AND repository_id = $2 AND commit_sha = $3 AND path = $4
             AND event = $5 AND ref_name = $6 AND superseded = 0 AND id < (SELECT MAX(n.id) FROM runs n
                 WHERE n.connection = $1 AND n.repository_id = $2 AND n.commit_sha = $3 AND n.path = $4
                     AND n.event = $5 AND n.ref_name = $6 AND n.superseded = 0)",
        args![
            &target.repository.connection,
            &target.repository.id,
            &target.commit,
            clip(&new.path, 1000),
            trigger.event.name(),
            trigger.event.ref_name(),
        ],
    )
    .await
    .map(drop)
}

/// Stores each job's part of the plan: what reads one job must not parse them all. A part is itself a plan, of that job
/// alone, so that whatever version it has is known and read in one place ([`Plan::read`]).
async fn insert_job_plans(tx: &mut Tx, run: RunId, plan: &Plan) -> Result<(), StoreError> {
    for job in &plan.jobs {
        let part = Plan {
            jobs: vec![job.clone()],
            version: plan.version,
            path: plan.path.clone(),
            name: plan.name.clone(),
            env: plan.env.clone(),
        };
        tx.execute(
            "INSERT INTO job_plans (run_id, job_key, plan) VALUES ($1, $2, $3)",
            args![run, &job.id, to_json(tx.what, &part)?],
        )
        .await?;
    }
    Ok(())
}

async fn insert_jobs(
    tx: &mut Tx,
    run: RunId,
    target: &CheckTarget,
    planned: &PlannedRun,
) -> Result<Vec<JobId>, StoreError> {
    let mut ids = Vec::with_capacity(planned.jobs.len());
    for (index, (job, requirement)) in planned.plan.jobs.iter().zip(&planned.jobs).enumerate() {
        let new = jobs::NewJob {
            id: JobId::new(),
            run,
            run_attempt: 1,
            place: u32::try_from(index).unwrap_or(u32::MAX),
            key: job.id.clone(),
            name: job.name.shown().to_owned(),
            check_name: planned.plan.check_name(job),
            needs: job.needs.clone(),
            requirement: requirement.clone(),
            state: JobState::Waiting,
            carried_from: None,
        };
        jobs::insert(tx, target, &new).await?;
        ids.push(new.id);
    }
    Ok(ids)
}
