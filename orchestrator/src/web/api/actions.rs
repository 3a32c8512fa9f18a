//! Cancel, re-run and keep: intents written into the store, each with a row in the audit log. The forms of
//! the pages and the calls of the API end here.

use axum::{
    extract::{Form, Path, State},
    http::HeaderMap,
    response::Redirect,
};
use serde::Deserialize;

use super::machines;
use crate::{
    model::ids::{JobId, RunId},
    store::{self, Rerun, RerunOutcome},
    web::{
        AppState, Changed,
        api::{
            job_for, run_for, store_failed,
            types::{CancelOutcome, Which},
        },
        authorize::Action,
        http::problem::Problem,
        identity::{Caller, check_origin},
    },
};

/// A form with one button.
#[derive(Debug, Deserialize)]
pub struct ButtonForm {
    csrf: String,
    which: Option<Which>,
}

fn cancelled(state: &AppState, outcome: store::CancelOutcome) -> Result<CancelOutcome, Problem> {
    match outcome {
        store::CancelOutcome::Requested { forced, running, .. } => {
            state.changed(Changed::Cancel(running));
            Ok(if forced {
                CancelOutcome::Forced
            } else {
                CancelOutcome::Requested
            })
        }
        // Idempotent: asking for the end of what has ended is answered with the fact.
        store::CancelOutcome::AlreadyEnded => Ok(CancelOutcome::AlreadyEnded),
        store::CancelOutcome::Unknown => Err(Problem::not_found()),
    }
}

/// Asks for the end of a run. The caller was authorized.
pub(in crate::web) async fn cancel_one_run(
    state: &AppState,
    caller: &Caller,
    run: RunId,
) -> Result<CancelOutcome, Problem> {
    caller.audit(state, "cancel run", &run.to_string()).await?;
    let outcome = state
        .store()
        .cancel_run(run, &caller.identity.who(), "asked for")
        .await
        .map_err(store_failed)?;
    cancelled(state, outcome)
}

/// Asks for the end of a job. The caller was authorized.
pub(in crate::web) async fn cancel_one_job(
    state: &AppState,
    caller: &Caller,
    job: JobId,
) -> Result<CancelOutcome, Problem> {
    caller.audit(state, "cancel job", &job.to_string()).await?;
    let outcome = state
        .store()
        .cancel_job(job, &caller.identity.who(), "asked for")
        .await
        .map_err(store_failed)?;
    cancelled(state, outcome)
}

/// Runs again; returns the number of the new run attempt. The caller was authorized.
pub(in crate::web) async fn rerun_one(
    state: &AppState,
    caller: &Caller,
    run: RunId,
    which: Which,
) -> Result<u32, Problem> {
    let (word, which) = match which {
        Which::All => ("re-run", Rerun::All),
        Which::Failed => ("re-run failed jobs", Rerun::Failed),
    };
    caller.audit(state, word, &run.to_string()).await?;
    match state
        .store()
        .rerun(run, which, &caller.identity.who())
        .await
        .map_err(store_failed)?
    {
        RerunOutcome::Started { run_attempt } => {
            state.changed(Changed::Queue);
            Ok(run_attempt)
        }
        RerunOutcome::StillActive => Err(Problem::conflict(
            "still_active",
            "The run has not ended. Wait for it, or cancel it first.",
        )),
        RerunOutcome::NothingFailed => Err(Problem::conflict(
            "nothing_failed",
            "No job of this run failed, so there is nothing to run again.",
        )),
        RerunOutcome::NoPlan => Err(Problem::conflict(
            "no_plan",
            "The workflow file of this run could not be planned. Mend the file and push again.",
        )),
        RerunOutcome::Unknown => Err(Problem::not_found()),
    }
}

/// `POST /runs/{id}/cancel`
pub async fn cancel_run(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    Form(form): Form<ButtonForm>,
) -> Result<Redirect, Problem> {
    check_origin(&state, &headers)?;
    let run = run_for(&state, &caller, Action::Cancel, &id).await?;
    caller.check_csrf(&form.csrf)?;
    cancel_one_run(&state, &caller, run.summary.id).await?;
    Ok(Redirect::to(&format!("/runs/{}", run.summary.id)))
}

/// `POST /runs/{id}/rerun`
pub async fn rerun(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    Form(form): Form<ButtonForm>,
) -> Result<Redirect, Problem> {
    check_origin(&state, &headers)?;
    let run = run_for(&state, &caller, Action::Rerun, &id).await?;
    caller.check_csrf(&form.csrf)?;
    rerun_one(&state, &caller, run.summary.id, form.which.unwrap_or_default()).await?;
    Ok(Redirect::to(&format!("/runs/{}", run.summary.id)))
}

/// `POST /jobs/{id}/cancel`
pub async fn cancel_job(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    Form(form): Form<ButtonForm>,
) -> Result<Redirect, Problem> {
    check_origin(&state, &headers)?;
    let job = job_for(&state, &caller, Action::Cancel, &id).await?;
    caller.check_csrf(&form.csrf)?;
    cancel_one_job(&state, &caller, job.job.id).await?;
    Ok(Redirect::to(&format!("/jobs/{}", job.job.id)))
}

/// `POST /jobs/{id}/keep`
pub async fn keep(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    Form(form): Form<ButtonForm>,
) -> Result<Redirect, Problem> {
    check_origin(&state, &headers)?;
    let job = job_for(&state, &caller, Action::Keep, &id).await?;
    caller.check_csrf(&form.csrf)?;
    machines::keep_of_job(&state, &caller, &job.job.id.to_string()).await?;
    Ok(Redirect::to(&format!("/jobs/{}", job.job.id)))
}

/// `POST /jobs/{id}/release`
pub async fn release(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    Form(form): Form<ButtonForm>,
) -> Result<Redirect, Problem> {
    check_origin(&state, &headers)?;
    let job = job_for(&state, &caller, Action::Keep, &id).await?;
    caller.check_csrf(&form.csrf)?;
    machines::release_of_job(&state, &caller, &job.job.id.to_string()).await?;
    Ok(Redirect::to(&format!("/jobs/{}", job.job.id)))
}
