//! From an id in an address to the thing that it names. Ids are parsed before anything is asked of the store: malformed
//! is 400, unknown is 404, and so is whatever the caller may not see, in the same words.

use std::str::FromStr;

use super::{AppState, authorize::Action, http::problem::Problem, identity::Caller};
use crate::{
    model::{
        ids::{JobId, RunId, TriggerId},
        names::MachineName,
    },
    store::{JobDetail, MachineRow, RunDetail, StoreError, TriggerRow},
};

/// Parses a path parameter.
pub(super) fn parse<T: FromStr>(text: &str) -> Result<T, Problem>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|e: T::Err| Problem::bad_request(e.to_string()))
}

pub(super) fn store_failed(error: StoreError) -> Problem {
    Problem::internal("asking the store", error)
}

/// A run to which the caller may do this, else the answer of an absent one.
pub(super) async fn run(state: &AppState, caller: &Caller, action: Action, id: &str) -> Result<RunDetail, Problem> {
    let id: RunId = parse(id)?;
    let run = state
        .store()
        .run(id)
        .await
        .map_err(store_failed)?
        .ok_or_else(|| caller.absent(|| format!("There is no run {id}.")))?;
    caller.may(state, action, Some(&run.summary.repository))?;
    Ok(run)
}

/// A job to which the caller may do this, else the answer of an absent one.
pub(super) async fn job(state: &AppState, caller: &Caller, action: Action, id: &str) -> Result<JobDetail, Problem> {
    let id: JobId = parse(id)?;
    let job = state
        .store()
        .job(id)
        .await
        .map_err(store_failed)?
        .ok_or_else(|| caller.absent(|| format!("There is no job {id}.")))?;
    caller.may(state, action, Some(&job.run.repository))?;
    Ok(job)
}

/// A build (a trigger) to which the caller may do this, else the answer of an absent one.
pub(super) async fn build(state: &AppState, caller: &Caller, action: Action, id: &str) -> Result<TriggerRow, Problem> {
    let id: TriggerId = parse(id)?;
    let row = state
        .store()
        .trigger(id)
        .await
        .map_err(store_failed)?
        .ok_or_else(|| caller.absent(|| format!("There is no build {id}.")))?;
    caller.may(state, action, Some(&row.trigger.repository))?;
    Ok(row)
}

/// A machine, and the job it was made for.
pub(super) struct JobMachine {
    pub row: MachineRow,
    pub job: JobId,
}

/// A machine to which the caller may do this, else the answer of an absent one. It is named by its own name, or by its
/// job's id, which means the machine of the job's newest try.
pub(super) async fn machine(
    state: &AppState,
    caller: &Caller,
    action: Action,
    id: &str,
) -> Result<JobMachine, Problem> {
    let (name, job) = if id.starts_with("hci-") {
        let name: MachineName = parse(id)?;
        let attempt = state.store().attempt(name.attempt()).await.map_err(store_failed)?;
        let attempt = attempt.ok_or_else(Problem::not_found)?;
        caller.may(state, action, Some(&attempt.repository))?;
        (name, attempt.job)
    } else {
        let job = job(state, caller, action, id).await?;
        let newest = job.attempts.iter().max_by_key(|attempt| attempt.number);
        let newest = newest.ok_or_else(|| Problem::conflict("no_machine", "The job has no machine yet."))?;
        (MachineName::of(newest.id), job.job.id)
    };
    let row = state.store().machine(&name).await.map_err(store_failed)?;
    Ok(JobMachine {
        row: row.ok_or_else(Problem::not_found)?,
        job,
    })
}
