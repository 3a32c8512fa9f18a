//! `/api/v1`, and what the forms of the pages ask for.

pub mod actions;
pub mod builds;
pub mod machines;
pub mod types;

use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
};
use serde::Deserialize;

use self::types::{
    Build, BuildRuns, Cancel, Cancelled, CancelledRun, Keep, MachineSize, Rerun, RerunBody, StartedRun, Which,
};
use super::{AppState, authorize::Action, identity::Caller};
use crate::{
    clock::now_ms,
    model::{
        ids::{JobId, RunId},
        names::{ConnectionId, MachineName, RepoPath},
        state::{JobState, RunState},
    },
    scheduler,
    store::{CancelRequest, JobDetail, JobRow, RunFilter, RunSummary},
    web::{
        http::problem::Problem,
        lookup::{self, parse, store_failed},
        pages::view::{person, rfc3339},
    },
};

/// What the caller may see of the list.
pub(super) fn visible(state: &AppState, caller: &Caller) -> Option<Vec<(ConnectionId, RepoPath)>> {
    if caller.is_admin() {
        return None;
    }
    let connections = &state.config().connections;
    Some(
        connections
            .iter()
            .flat_map(|(id, c)| c.public.iter().map(|path| (id.clone(), path.clone())))
            .collect(),
    )
}

/// `GET /api/v1/builds/{id}`: what became of a trigger.
pub async fn build(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Build>, Problem> {
    let row = lookup::build(&state, &caller, Action::SeeTrigger, &id).await?;
    let mut runs = Vec::new();
    for run in state.store().runs_of_trigger(row.id).await.map_err(store_failed)? {
        if let Some(run) = state.store().run(run).await.map_err(store_failed)? {
            runs.push(run_of(&run.summary));
        }
    }
    Ok(Json(Build {
        id: row.id,
        state: row.state,
        reason: row.reason,
        created: rfc3339(row.created_ms),
        tries: row.tries,
        connection: row.trigger.repository.connection.clone(),
        repository: row.trigger.repository.path.clone(),
        event: row.trigger.event.name().to_owned(),
        ref_name: row.trigger.event.ref_name().clone(),
        runs,
    }))
}

/// `POST /api/v1/builds/{id}/cancel`: cancels every run of the trigger. Asking again changes nothing
/// that has ended.
pub async fn cancel_build(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<BuildRuns<CancelledRun>>, Problem> {
    let row = lookup::build(&state, &caller, Action::Cancel, &id).await?;
    let runs = state.store().runs_of_trigger(row.id).await.map_err(store_failed)?;
    if runs.is_empty() {
        return Err(Problem::conflict(
            "no_runs",
            "This build has no runs (yet) that could be cancelled.",
        ));
    }
    let mut outcomes = Vec::new();
    for run in runs {
        let outcome = actions::cancel_run(&state, &caller, run).await?;
        outcomes.push(CancelledRun { run, outcome });
    }
    Ok(Json(BuildRuns {
        id: row.id,
        runs: outcomes,
    }))
}

/// All jobs when there is no body.
fn which(body: &axum::body::Bytes) -> Result<Which, Problem> {
    if body.is_empty() {
        return Ok(Which::All);
    }
    let body: RerunBody =
        serde_json::from_slice(body).map_err(|e| Problem::bad_request(format!("the body is not understood: {e}")))?;
    Ok(body.which.unwrap_or_default())
}

/// `POST /api/v1/builds/{id}/rerun`
pub async fn rerun_build(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    body: axum::body::Bytes,
) -> Result<(StatusCode, Json<BuildRuns<StartedRun>>), Problem> {
    let row = lookup::build(&state, &caller, Action::Rerun, &id).await?;
    let which = which(&body)?;
    let runs = state.store().runs_of_trigger(row.id).await.map_err(store_failed)?;
    if runs.is_empty() {
        return Err(Problem::conflict(
            "no_runs",
            "This build has no runs (yet) that could be run again.",
        ));
    }
    let mut started = Vec::new();
    let mut refused = None;
    for run in runs {
        match actions::rerun_run(&state, &caller, run, which).await {
            Ok(attempt) => started.push(StartedRun { run, attempt }),
            Err(problem) => refused = Some(problem),
        }
    }
    match refused {
        Some(problem) if started.is_empty() => Err(problem),
        _ => Ok((
            StatusCode::CREATED,
            Json(BuildRuns {
                id: row.id,
                runs: started,
            }),
        )),
    }
}

/// `?…` of `GET /api/v1/runs`.
#[derive(Debug, Deserialize)]
pub struct RunsQuery {
    repository: Option<String>,
    state: Option<String>,
    before: Option<String>,
    limit: Option<u32>,
}

/// `GET /api/v1/runs`: newest first; `next` is the `before` of the following page.
pub async fn runs(
    State(state): State<AppState>,
    caller: Caller,
    Query(query): Query<RunsQuery>,
) -> Result<Json<types::RunList>, Problem> {
    let limit = query.limit.unwrap_or(30).clamp(1, 100);
    let filter = RunFilter {
        repository: None,
        path: query.repository.as_deref().map(parse).transpose()?,
        state: query.state.as_deref().map(parse::<RunState>).transpose()?,
        public_only: visible(&state, &caller),
        before: query.before.as_deref().map(parse).transpose()?,
        limit,
    };
    let rows = state.store().runs(&filter).await.map_err(store_failed)?;
    let next = rows.last().filter(|_| rows.len() == limit as usize).map(|r| r.id);
    Ok(Json(types::RunList {
        runs: rows.iter().map(run_of).collect(),
        next,
    }))
}

/// `GET /api/v1/runs/{id}`
pub async fn run(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<types::RunDetail>, Problem> {
    let run = lookup::run(&state, &caller, Action::See, &id).await?;
    let attempts = run.attempts.iter().map(|attempt| types::RunAttempt {
        number: attempt.number,
        state: attempt.state,
        by: person(&attempt.by),
        created: rfc3339(attempt.created_ms),
        ended: attempt.ended_ms.map(rfc3339),
        cancel: attempt.cancel.as_ref().map(cancel_of),
        jobs: attempt.jobs.iter().map(job_of).collect(),
    });
    Ok(Json(types::RunDetail {
        run: run_of(&run.summary),
        attempts: attempts.collect(),
        diagnostics: run.diagnostics,
        undelivered: run.undelivered,
    }))
}

/// `POST /api/v1/runs/{id}/cancel`
pub async fn cancel_run(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Cancelled<RunId>>, Problem> {
    let run = lookup::run(&state, &caller, Action::Cancel, &id).await?;
    let outcome = actions::cancel_run(&state, &caller, run.summary.id).await?;
    Ok(Json(Cancelled {
        id: run.summary.id,
        outcome,
    }))
}

/// `POST /api/v1/runs/{id}/rerun`
pub async fn rerun_run(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    body: axum::body::Bytes,
) -> Result<(StatusCode, Json<Rerun>), Problem> {
    let run = lookup::run(&state, &caller, Action::Rerun, &id).await?;
    let attempt = actions::rerun_run(&state, &caller, run.summary.id, which(&body)?).await?;
    Ok((
        StatusCode::CREATED,
        Json(Rerun {
            id: run.summary.id,
            attempt,
        }),
    ))
}

/// `GET /api/v1/jobs/{id}`
pub async fn job(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<types::JobDetail>, Problem> {
    let job = lookup::job(&state, &caller, Action::See, &id).await?;
    let attempts = job.attempts.iter().map(|attempt| types::Attempt {
        id: attempt.id,
        number: attempt.number,
        state: attempt.state,
        result: attempt.result,
        cause: attempt.cause.clone(),
        node: attempt.node.clone(),
        created: rfc3339(attempt.created_ms),
        running: attempt.running_ms.map(rfc3339),
        ended: attempt.ended_ms.map(rfc3339),
        log_removed: attempt.log_removed,
    });
    let steps = job.steps.iter().map(|step| types::Step {
        index: step.index,
        name: step.name.clone(),
        state: step.state,
        exit_code: step.exit_code,
        message: step.message.clone(),
        started: step.started_ms.map(rfc3339),
        ended: step.ended_ms.map(rfc3339),
        allowed_failure: step.allowed_failure,
    });
    Ok(Json(types::JobDetail {
        job: job_of(&job.job),
        run: job.run.id,
        run_attempt: job.run_attempt,
        attempts: attempts.collect(),
        steps: steps.collect(),
        keep: keep_of(&state, &caller, &job).await?,
    }))
}

/// How the machine of a job's newest try is kept, or is to be.
async fn keep_of(state: &AppState, caller: &Caller, job: &JobDetail) -> Result<Option<Keep>, Problem> {
    let Some(newest) = job.attempts.iter().max_by_key(|attempt| attempt.number) else {
        return Ok(None);
    };
    let name = MachineName::of(newest.id);
    let row = state.store().machine(&name).await.map_err(store_failed)?;
    let mut keep = row.and_then(|row| machines::keep_of(&row, now_ms()));
    if let Some(keep) = &mut keep {
        keep.machine = Some(name);
        // The way to a console is for those who may watch it.
        if caller.may(state, Action::Watch, Some(&job.run.repository)).is_err() {
            keep.attach = None;
            keep.console_by = None;
            keep.console_free = None;
        }
    }
    Ok(keep)
}

/// `POST /api/v1/jobs/{id}/cancel`
pub async fn cancel_job(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Cancelled<JobId>>, Problem> {
    let job = lookup::job(&state, &caller, Action::Cancel, &id).await?;
    let outcome = actions::cancel_job(&state, &caller, &job).await?;
    Ok(Json(Cancelled {
        id: job.job.id,
        outcome,
    }))
}

/// Why the node that answers would not start a queued job now; none when it would, or when the job
/// is not queued.
///
/// # Errors
/// When the database cannot be read.
pub(super) async fn refused_here(state: &AppState, job: &JobDetail) -> Result<Option<String>, Problem> {
    if job.job.state != JobState::Queued {
        return Ok(None);
    }
    let refused = scheduler::refusal(state.store(), state.config(), &job.job.label, job.job.size).await;
    refused.map_err(store_failed)
}

/// `GET /api/v1/jobs/{id}/why`: why the job is not running, from the rows the scheduler reads.
pub async fn why(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<types::Why>, Problem> {
    let job = lookup::job(&state, &caller, Action::See, &id).await?;
    let why = state
        .store()
        .why(job.job.id)
        .await
        .map_err(store_failed)?
        .ok_or_else(Problem::not_found)?;
    let refused = refused_here(&state, &job).await?;
    Ok(Json(types::Why {
        state: why.state,
        reason: why.reason,
        position: why.position,
        class_running: why.class_running,
        waiting_for: why.waiting_for,
        node: state.config().node.clone(),
        refused_here: refused,
        keep: keep_of(&state, &caller, &job).await?,
    }))
}

fn run_of(run: &RunSummary) -> types::Run {
    types::Run {
        id: run.id,
        build: run.trigger,
        connection: run.repository.connection.clone(),
        repository: run.repository.path.clone(),
        ref_name: run.ref_name.clone(),
        commit: run.commit.clone(),
        title: run.title.clone(),
        actor: person(&run.actor),
        event: run.event.clone(),
        workflow: run.workflow.clone(),
        path: run.path.clone(),
        attempt: run.attempt,
        state: run.state,
        created: rfc3339(run.created_ms),
        ended: run.ended_ms.map(rfc3339),
        jobs_ended: run.jobs.0,
        jobs: run.jobs.1,
    }
}

fn cancel_of(cancel: &CancelRequest) -> Cancel {
    Cancel {
        at: rfc3339(cancel.at_ms),
        by: person(&cancel.by),
        reason: cancel.reason.clone(),
        force: cancel.force,
    }
}

fn job_of(job: &JobRow) -> types::Job {
    types::Job {
        id: job.id,
        key: job.key.clone(),
        name: job.name.clone(),
        label: job.label.clone(),
        state: job.state,
        reason: job.reason.clone(),
        needs: job.needs.clone(),
        carried_from: job.carried_from,
        tries: job.tries,
        size: MachineSize {
            cpus: job.size.cpus,
            memory_mib: job.size.memory_mib,
            disk_gib: job.size.disk_gib,
        },
        created: rfc3339(job.created_ms),
        queued: job.queued_ms.map(rfc3339),
        started: job.started_ms.map(rfc3339),
        ended: job.ended_ms.map(rfc3339),
        attempt: job.attempt,
        cancel: job.cancel.as_ref().map(cancel_of),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rerun_without_body_is_of_all() {
        assert_eq!(which(&axum::body::Bytes::new()).unwrap(), Which::All);
        assert_eq!(
            which(&axum::body::Bytes::from_static(b"{\"which\":\"failed\"}")).unwrap(),
            Which::Failed
        );
        assert!(which(&axum::body::Bytes::from_static(b"{\"which\":\"some\"}")).is_err());
    }
}
