//! Cancel, re-run and keep: intents written into the store, each with a row in the audit log. The buttons of the pages
//! and the calls of the API end here.

use axum::{
    extract::{Form, Path, State},
    http::HeaderMap,
    response::Redirect,
    routing::{MethodRouter, post},
};
use serde::Deserialize;

use super::{
    machines,
    types::{CancelOutcome, Which},
};
use crate::{
    model::ids::RunId,
    queue::Hint,
    store::{self, JobDetail, Rerun, RerunOutcome},
    web::{
        AppState,
        authorize::Action,
        http::problem::Problem,
        identity::{Caller, check_origin},
        lookup::{self, store_failed},
    },
};

fn cancelled(state: &AppState, run: RunId, outcome: store::CancelOutcome) -> Result<CancelOutcome, Problem> {
    match outcome {
        store::CancelOutcome::Requested { forced, running, .. } => {
            state.notify(running.into_iter().map(Hint::Cancel));
            state.notify([Hint::Report, Hint::Run(run)]);
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
pub(in crate::web) async fn cancel_run(
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
    cancelled(state, run, outcome)
}

/// Asks for the end of a job. The caller was authorized.
pub(in crate::web) async fn cancel_job(
    state: &AppState,
    caller: &Caller,
    job: &JobDetail,
) -> Result<CancelOutcome, Problem> {
    caller.audit(state, "cancel job", &job.job.id.to_string()).await?;
    let outcome = state
        .store()
        .cancel_job(job.job.id, &caller.identity.who(), "asked for")
        .await
        .map_err(store_failed)?;
    cancelled(state, job.run.id, outcome)
}

/// Runs again; returns the number of the new run attempt. The caller was authorized.
pub(in crate::web) async fn rerun_run(
    state: &AppState,
    caller: &Caller,
    run: RunId,
    which: Which,
) -> Result<u32, Problem> {
    let (word, which) = match which {
        Which::All => ("re-run", Rerun::All),
        Which::Failed => ("re-run failed jobs", Rerun::Failed),
    };
    let act = caller.act(word, &run.to_string());
    match state.store().run_again(run, which, act).await.map_err(store_failed)? {
        RerunOutcome::Started { run_attempt } => {
            state.notify([Hint::Job, Hint::Report, Hint::Run(run)]);
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

/// A button of a page: a form that changes one thing and leads back to that thing's page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::web) enum Button {
    /// `POST /runs/{id}/cancel`
    CancelRun,
    /// `POST /runs/{id}/rerun`
    RerunRun,
    /// `POST /jobs/{id}/cancel`
    CancelJob,
    /// `POST /jobs/{id}/keep`
    KeepMachine,
    /// `POST /jobs/{id}/release`
    ReleaseMachine,
}

/// The form around a button.
#[derive(Debug, Deserialize)]
struct ButtonForm {
    csrf: String,
    which: Option<Which>,
}

impl Button {
    /// What the caller must be allowed to do.
    pub fn action(self) -> Action {
        match self {
            Self::CancelRun | Self::CancelJob => Action::Cancel,
            Self::RerunRun => Action::Rerun,
            Self::KeepMachine | Self::ReleaseMachine => Action::Keep,
        }
    }

    /// What answers when it is pressed.
    pub fn handler(self) -> MethodRouter<AppState> {
        post(
            async move |State(state): State<AppState>,
                        caller: Caller,
                        Path(id): Path<String>,
                        headers: HeaderMap,
                        Form(form): Form<ButtonForm>| {
                self.press(&state, &caller, &id, &headers, &form).await
            },
        )
    }

    /// The page's origin is checked first; then the thing is found and the caller authorized for it; then the form must
    /// be one of this session's.
    async fn press(
        self,
        state: &AppState,
        caller: &Caller,
        id: &str,
        headers: &HeaderMap,
        form: &ButtonForm,
    ) -> Result<Redirect, Problem> {
        check_origin(state, headers)?;
        let page = match self {
            Self::CancelRun | Self::RerunRun => {
                let run = lookup::run(state, caller, self.action(), id).await?.summary.id;
                caller.check_csrf(&form.csrf)?;
                match self {
                    Self::RerunRun => drop(rerun_run(state, caller, run, form.which.unwrap_or_default()).await?),
                    _ => drop(cancel_run(state, caller, run).await?),
                }
                format!("/runs/{run}")
            }
            Self::CancelJob | Self::KeepMachine | Self::ReleaseMachine => {
                let job = lookup::job(state, caller, self.action(), id).await?;
                caller.check_csrf(&form.csrf)?;
                let id = job.job.id;
                match self {
                    Self::KeepMachine => machines::keep_of_job(state, caller, &id.to_string()).await?,
                    Self::ReleaseMachine => machines::release_of_job(state, caller, &id.to_string()).await?,
                    _ => drop(cancel_job(state, caller, &job).await?),
                }
                format!("/jobs/{id}")
            }
        };
        Ok(Redirect::to(&page))
    }
}
