//! `/api/v1`. Ids are parsed before anything is looked up: malformed is 400, unknown is 404, and so
//! is whatever the caller may not see.

use std::str::FromStr;

use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    AppState,
    actions::{self, Which},
    authorize::Action,
    identity::Caller,
    machines,
    problem::Problem,
    view::{person, rfc3339},
};
use crate::{
    clock::now_ms,
    model::{
        ids::{JobId, RunId, TriggerId},
        names::{CommitSha, ConnectionId, MachineName, RefName, RepoPath},
        state::{JobState, RunState},
    },
    scheduler,
    store::{CancelRequest, JobDetail, JobRow, RunDetail, RunFilter, RunSummary},
};

/// Parses a path parameter.
pub(super) fn parse<T: FromStr>(text: &str) -> Result<T, Problem>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|e: T::Err| Problem::bad_request(e.to_string()))
}

pub(super) fn store_failed(error: crate::store::StoreError) -> Problem {
    Problem::internal("asking the store", error)
}

/// A run that the caller may see, else the answer of an absent one.
pub(super) async fn run_for(state: &AppState, caller: &Caller, action: Action, id: &str) -> Result<RunDetail, Problem> {
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

/// A job that the caller may see, else the answer of an absent one.
pub(super) async fn job_for(state: &AppState, caller: &Caller, action: Action, id: &str) -> Result<JobDetail, Problem> {
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

async fn trigger_for(
    state: &AppState,
    caller: &Caller,
    action: Action,
    id: &str,
) -> Result<crate::store::TriggerRow, Problem> {
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

/// `GET /api/v1/builds/{id}`: what became of a trigger.
pub async fn build(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    let row = trigger_for(&state, &caller, Action::SeeTrigger, &id).await?;
    let mut runs = Vec::new();
    for run in state.store().runs_of_trigger(row.id).await.map_err(store_failed)? {
        if let Some(run) = state.store().run(run).await.map_err(store_failed)? {
            runs.push(RunJson::of(&run.summary));
        }
    }
    Ok(Json(json!({
        "id": row.id,
        "state": row.state,
        "reason": row.reason,
        "created": rfc3339(row.created_ms),
        "tries": row.tries,
        "connection": row.trigger.repository.connection,
        "repository": row.trigger.repository.path,
        "event": row.trigger.event.name(),
        "ref": row.trigger.event.ref_name(),
        "runs": runs,
    })))
}

/// `POST /api/v1/builds/{id}/cancel`: cancels every run of the trigger. Asking again changes nothing
/// that has ended.
pub async fn cancel_build(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    let row = trigger_for(&state, &caller, Action::Cancel, &id).await?;
    let runs = state.store().runs_of_trigger(row.id).await.map_err(store_failed)?;
    if runs.is_empty() {
        return Err(Problem::conflict(
            "no_runs",
            "This build has no runs (yet) that could be cancelled.",
        ));
    }
    let mut outcomes = Vec::new();
    for run in runs {
        outcomes.push(json!({"run": run, "outcome": actions::cancel_one_run(&state, &caller, run).await?}));
    }
    Ok(Json(json!({"id": row.id, "runs": outcomes})))
}

/// `{"which": "all" | "failed"}`; `all` when there is no body.
#[derive(Debug, Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct RerunBody {
    which: Option<Which>,
}

fn which(body: &axum::body::Bytes) -> Result<Which, Problem> {
    if body.is_empty() {
        return Ok(Which::All);
    }
    let body: RerunBody =
        serde_json::from_slice(body).map_err(|e| Problem::bad_request(format!("the body is not understood: {e}")))?;
    Ok(body.which.unwrap_or(Which::All))
}

/// `POST /api/v1/builds/{id}/rerun`
pub async fn rerun_build(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    body: axum::body::Bytes,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let row = trigger_for(&state, &caller, Action::Rerun, &id).await?;
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
        match actions::rerun_one(&state, &caller, run, which).await {
            Ok(attempt) => started.push(json!({"run": run, "attempt": attempt})),
            Err(problem) => refused = Some(problem),
        }
    }
    match refused {
        Some(problem) if started.is_empty() => Err(problem),
        _ => Ok((StatusCode::CREATED, Json(json!({"id": row.id, "runs": started})))),
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
) -> Result<Json<Value>, Problem> {
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
    Ok(Json(
        json!({"runs": rows.iter().map(RunJson::of).collect::<Vec<_>>(), "next": next}),
    ))
}

/// `GET /api/v1/runs/{id}`
pub async fn run(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    let run = run_for(&state, &caller, Action::See, &id).await?;
    let attempts: Vec<Value> = run
        .attempts
        .iter()
        .map(|a| {
            json!({
                "number": a.number, "state": a.state, "by": person(&a.by),
                "created": rfc3339(a.created_ms), "ended": a.ended_ms.map(rfc3339),
                "cancel": a.cancel.as_ref().map(cancel_json),
                "jobs": a.jobs.iter().map(job_json).collect::<Vec<_>>(),
            })
        })
        .collect();
    Ok(Json(json!({
        "run": RunJson::of(&run.summary),
        "diagnostics": run.diagnostics,
        "attempts": attempts,
        "undelivered": run.undelivered,
    })))
}

/// `POST /api/v1/runs/{id}/cancel`
pub async fn cancel_run(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    let run = run_for(&state, &caller, Action::Cancel, &id).await?;
    let outcome = actions::cancel_one_run(&state, &caller, run.summary.id).await?;
    Ok(Json(json!({"id": run.summary.id, "outcome": outcome})))
}

/// `POST /api/v1/runs/{id}/rerun`
pub async fn rerun_run(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    body: axum::body::Bytes,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let run = run_for(&state, &caller, Action::Rerun, &id).await?;
    let attempt = actions::rerun_one(&state, &caller, run.summary.id, which(&body)?).await?;
    Ok((
        StatusCode::CREATED,
        Json(json!({"id": run.summary.id, "attempt": attempt})),
    ))
}

/// `GET /api/v1/jobs/{id}`
pub async fn job(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    let job = job_for(&state, &caller, Action::See, &id).await?;
    let tries: Vec<Value> = job
        .attempts
        .iter()
        .map(|a| {
            json!({
                "id": a.id, "number": a.number, "state": a.state, "result": a.result, "cause": a.cause,
                "node": a.node, "created": rfc3339(a.created_ms), "running": a.running_ms.map(rfc3339),
                "ended": a.ended_ms.map(rfc3339), "log_removed": a.log_removed,
            })
        })
        .collect();
    let steps: Vec<Value> = job
        .steps
        .iter()
        .map(|s| {
            json!({
                "index": s.index, "name": s.name, "state": s.state, "exit_code": s.exit_code, "message": s.message,
                "started": s.started_ms.map(rfc3339), "ended": s.ended_ms.map(rfc3339), "allowed_failure": s.allowed_failure,
            })
        })
        .collect();
    let mut value = job_json(&job.job);
    value["run"] = json!(job.run.id);
    value["run_attempt"] = json!(job.run_attempt);
    value["attempts"] = json!(tries);
    value["steps"] = json!(steps);
    value["keep"] = keep_of(&state, &caller, &job).await?;
    Ok(Json(value))
}

/// How the machine of a job's newest try is kept, or is to be.
async fn keep_of(state: &AppState, caller: &Caller, job: &JobDetail) -> Result<Value, Problem> {
    let Some(newest) = job.attempts.iter().max_by_key(|attempt| attempt.number) else {
        return Ok(Value::Null);
    };
    let row = state
        .store()
        .machine(&MachineName::of(newest.id))
        .await
        .map_err(store_failed)?;
    let mut keep = row.map_or(Value::Null, |row| machines::keep_json(&row, now_ms()));
    if keep.is_object() {
        keep["machine"] = json!(MachineName::of(newest.id));
        // The way to a console is for those who may watch it.
        if caller.may(state, Action::Watch, Some(&job.run.repository)).is_err() {
            for private in ["attach", "console_by", "console_free"] {
                keep[private] = Value::Null;
            }
        }
    }
    Ok(keep)
}

/// `POST /api/v1/jobs/{id}/cancel`
pub async fn cancel_job(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    let job = job_for(&state, &caller, Action::Cancel, &id).await?;
    let outcome = actions::cancel_one_job(&state, &caller, job.job.id).await?;
    Ok(Json(json!({"id": job.job.id, "outcome": outcome})))
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
) -> Result<Json<Value>, Problem> {
    let job = job_for(&state, &caller, Action::See, &id).await?;
    let why = state
        .store()
        .why(job.job.id)
        .await
        .map_err(store_failed)?
        .ok_or_else(Problem::not_found)?;
    let refused = refused_here(&state, &job).await?;
    Ok(Json(json!({
        "keep": keep_of(&state, &caller, &job).await?,
        "node": state.config().node, "refused_here": refused,
        "state": why.state, "reason": why.reason, "position": why.position,
        "class_running": why.class_running, "waiting_for": why.waiting_for,
    })))
}

#[derive(Serialize)]
struct RunJson {
    id: RunId,
    build: TriggerId,
    connection: ConnectionId,
    repository: RepoPath,
    #[serde(rename = "ref")]
    ref_name: RefName,
    commit: CommitSha,
    title: String,
    actor: String,
    event: String,
    workflow: String,
    path: String,
    attempt: u32,
    state: RunState,
    created: String,
    ended: Option<String>,
    jobs_ended: u32,
    jobs: u32,
}

impl RunJson {
    fn of(run: &RunSummary) -> Self {
        Self {
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
}

fn cancel_json(cancel: &CancelRequest) -> Value {
    json!({"at": rfc3339(cancel.at_ms), "by": person(&cancel.by), "reason": cancel.reason, "force": cancel.force})
}

fn job_json(job: &JobRow) -> Value {
    json!({
        "id": job.id, "key": job.key, "name": job.name, "label": job.label, "state": job.state, "reason": job.reason,
        "needs": job.needs, "carried_from": job.carried_from, "tries": job.tries,
        "size": {"cpus": job.size.cpus, "memory_mib": job.size.memory_mib, "disk_gib": job.size.disk_gib},
        "created": rfc3339(job.created_ms), "queued": job.queued_ms.map(rfc3339),
        "started": job.started_ms.map(rfc3339), "ended": job.ended_ms.map(rfc3339),
        "attempt": job.attempt, "cancel": job.cancel.as_ref().map(cancel_json),
    })
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
