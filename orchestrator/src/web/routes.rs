//! The table of routes. The router is made from it and from nothing else; a test walks it with every
//! kind of caller.

use std::time::Duration;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{Method, StatusCode},
    middleware::from_fn_with_state,
    routing::{MethodRouter, get, post},
};
use tower_http::timeout::TimeoutLayer;

use super::{AppState, api, authorize::Action, health, session};
use crate::web::{
    api::{actions::Button, builds, machines},
    http::{
        headers,
        problem::{self, Problem},
    },
    live::{log_text, page_stream, record_stream},
    pages::{asset_file, deliveries, job, runs, status},
};

/// No page or call takes longer to begin its answer; streams go on as long as they like.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// The largest body of a form or a call.
const MAX_BODY: usize = 64 * 1024;

/// One route.
pub struct Route {
    /// Its method; `GET` serves `HEAD` as well.
    pub method: Method,
    /// Its path, with `{parameters}`.
    pub path: &'static str,
    /// What it asks [`super::authorize::authorize`] for.
    pub action: Action,
    handler: MethodRouter<AppState>,
}

/// Every route there is.
#[must_use]
pub fn table() -> Vec<Route> {
    use Action::{Cancel, Deliveries, Dispatch, Keep, List, Machines, Open, Rerun, See, SeeTrigger, Type, Watch};
    let read = |path, action, handler| Route {
        method: Method::GET,
        path,
        action,
        handler,
    };
    let write = |path, action, handler| Route {
        method: Method::POST,
        path,
        action,
        handler,
    };
    let button = |path, button: Button| write(path, button.action(), button.handler());
    vec![
        read("/", List, get(runs::list)),
        read("/runs/{id}", See, get(runs::run)),
        button("/runs/{id}/cancel", Button::CancelRun),
        button("/runs/{id}/rerun", Button::RerunRun),
        read("/jobs/{id}", See, get(job::job)),
        button("/jobs/{id}/cancel", Button::CancelJob),
        button("/jobs/{id}/keep", Button::KeepMachine),
        button("/jobs/{id}/release", Button::ReleaseMachine),
        read("/jobs/{id}/log", See, get(job::log)),
        read("/jobs/{id}/log.txt", See, get(log_text::page)),
        read("/jobs/{id}/log/stream", See, get(page_stream::page)),
        read("/deliveries", Deliveries, get(deliveries::page)),
        read("/login", Open, get(session::form)),
        write("/login", Open, post(session::login)),
        write("/logout", Open, post(session::logout)),
        read("/static/{file}", Open, get(asset_file::file)),
        read("/healthz", Open, get(health::alive)),
        read("/readyz", Open, get(health::ready)),
        read("/status", Open, get(status::page)),
        read("/api/v1/status", Open, get(status::api)),
        write("/api/v1/builds", Dispatch, post(builds::create)),
        read("/api/v1/builds/{id}", SeeTrigger, get(api::build)),
        write("/api/v1/builds/{id}/cancel", Cancel, post(api::cancel_build)),
        write("/api/v1/builds/{id}/rerun", Rerun, post(api::rerun_build)),
        read("/api/v1/runs", List, get(api::runs)),
        read("/api/v1/runs/{id}", See, get(api::run)),
        write("/api/v1/runs/{id}/cancel", Cancel, post(api::cancel_run)),
        write("/api/v1/runs/{id}/rerun", Rerun, post(api::rerun_run)),
        read("/api/v1/jobs/{id}", See, get(api::job)),
        write("/api/v1/jobs/{id}/cancel", Cancel, post(api::cancel_job)),
        read("/api/v1/jobs/{id}/why", See, get(api::why)),
        read("/api/v1/jobs/{id}/logs", See, get(log_text::api)),
        read("/api/v1/jobs/{id}/logs/stream", See, get(record_stream::api)),
        read("/api/v1/deliveries", Deliveries, get(deliveries::list)),
        read("/api/v1/missed", Deliveries, get(deliveries::missed)),
        write("/api/v1/catch-up", Deliveries, post(deliveries::catch_up)),
        read("/api/v1/machines", Machines, get(machines::list)),
        read("/api/v1/machines/{id}", Watch, get(machines::one)),
        write("/api/v1/machines/{id}/keep", Keep, post(machines::keep)),
        write("/api/v1/machines/{id}/release", Keep, post(machines::release)),
        write("/api/v1/machines/{id}/destroy", Keep, post(machines::destroy)),
        read("/api/v1/machines/{id}/console", Watch, get(machines::console)),
        write("/api/v1/machines/{id}/console", Type, post(machines::write)),
        write(
            "/api/v1/machines/{id}/console/release",
            Type,
            post(machines::release_console),
        ),
    ]
}

/// All pages and the API, with every layer, and `intake`, which takes webhooks and, which limits bodies, times
/// and callers by itself, because its bodies are larger and its answers are read by forges. The outermost
/// layer is around both, so that no answer leaves without the same headers.
pub fn router(state: AppState, intake: Router) -> Router {
    let mut router = Router::new();
    for route in table() {
        router = router.route(route.path, route.handler);
    }
    router
        .fallback(async || Problem::not_found())
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(TimeoutLayer::with_status_code(
            StatusCode::REQUEST_TIMEOUT,
            ANSWER_WITHIN,
        ))
        .layer(from_fn_with_state(state.clone(), problem::render))
        .merge(intake.with_state::<AppState>(()))
        .layer(from_fn_with_state(state.clone(), headers::envelope))
        .with_state(state)
}
