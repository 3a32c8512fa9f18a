//! How the daemon is: `/status` for people, `/api/v1/status` for monitoring. Anyone learns whether it works; which
//! forge refuses us and why, and how much waits, is for administrators. Neither names a secret or a path of the host.

use askama::Template;
use axum::{Json, extract::State, response::Html};

use super::view::{self, Badge, rfc3339};
use crate::{
    forge::ConnectionState,
    model::{names::ConnectionId, state::JobState},
    store::Counts,
    web::{
        AppState,
        api::types::{
            ConnectionCount, ConnectionStatus, DaemonState, RepositoryStatus, Status, StatusDetails, WorkStatus,
        },
        health::{self, Readiness},
        http::problem::Problem,
        identity::Caller,
        pages::runs::{Frame, html},
    },
};

/// One forge, as an administrator sees it.
struct Connection {
    name: ConnectionId,
    /// The forge's address.
    url: String,
    /// Where its webhooks must go.
    hook: String,
    state: ConnectionState,
    badge: Badge,
    /// Since when it does not work.
    since: Option<String>,
    /// The repositories that it may not use.
    repositories: Vec<RepositoryStatus>,
}

fn work(counts: &Counts) -> WorkStatus {
    let jobs = |state| counts.jobs.get(&state).copied().unwrap_or(0);
    WorkStatus {
        queued: jobs(JobState::Queued),
        active: jobs(JobState::Active),
        reports_undelivered: counts.reports_undelivered,
        reports_refused: counts.reports_refused,
    }
}

/// What only administrators see.
struct Details {
    connections: Vec<Connection>,
    /// None while the store does not answer.
    work: Option<WorkStatus>,
}

impl Details {
    async fn read(state: &AppState) -> Self {
        let config = state.config();
        let connections = state.connections().states().into_iter().filter_map(|(name, found)| {
            let since = match &found {
                ConnectionState::Refused { since_ms, .. } | ConnectionState::Unreachable { since_ms, .. } => {
                    Some(rfc3339(*since_ms))
                }
                ConnectionState::Unknown | ConnectionState::Working { .. } => None,
            };
            let missing = state.connections().missing_rights(&name).into_iter();
            Some(Connection {
                repositories: missing
                    .map(|(path, right)| RepositoryStatus {
                        path,
                        detail: right.reason,
                        since: rfc3339(right.since_ms),
                        fix: right.fix,
                    })
                    .collect(),
                url: config.connections.get(&name)?.url.clone(),
                hook: format!("{}/hooks/{name}", config.public_url),
                badge: view::connection(&found),
                state: found,
                since,
                name,
            })
        });
        Self {
            connections: connections.collect(),
            work: state.store().counts().await.ok().as_ref().map(work),
        }
    }

    fn for_api(&self) -> StatusDetails {
        let connections = self.connections.iter().map(|connection| ConnectionStatus {
            name: connection.name.clone(),
            url: connection.url.clone(),
            webhook: connection.hook.clone(),
            state: connection.state.as_str().to_owned(),
            detail: connection.state.to_string(),
            since: connection.since.clone(),
            fix: connection.state.fix().map(str::to_owned),
            repositories: connection.repositories.clone(),
        });
        StatusDetails {
            connections: connections.collect(),
            work: self.work,
        }
    }
}

fn daemon_state(readiness: Readiness) -> DaemonState {
    match readiness {
        Readiness::Ready => DaemonState::Ready,
        Readiness::Degraded { .. } => DaemonState::Degraded,
        Readiness::NoStore => DaemonState::NotReady,
        Readiness::Stopping => DaemonState::Stopping,
    }
}

/// `GET /api/v1/status`
pub async fn api(State(state): State<AppState>, caller: Caller) -> Json<Status> {
    let readiness = health::check(&state).await;
    let all = state.connections().states();
    let broken = all.values().filter(|state| state.is_broken()).count();
    let (node, details) = match caller.is_admin() {
        true => (
            Some(state.config().node.clone()),
            Some(Details::read(&state).await.for_api()),
        ),
        false => (None, None),
    };
    Json(Status {
        state: daemon_state(readiness),
        connections: ConnectionCount { all: all.len(), broken },
        node,
        details,
    })
}

#[derive(Template)]
#[template(path = "status.html")]
struct StatusPage<'a> {
    frame: Frame<'a>,
    badge: Badge,
    readiness: Readiness,
    all: usize,
    details: Option<Details>,
}

/// `GET /status`
pub async fn page(State(state): State<AppState>, caller: Caller) -> Result<Html<String>, Problem> {
    let readiness = health::check(&state).await;
    let mut frame = Frame::new(&state, &caller, "/status".to_owned());
    frame.refresh_s = Some(30);
    html(&StatusPage {
        frame,
        badge: view::readiness(readiness),
        readiness,
        all: state.connections().states().len(),
        details: match caller.is_admin() {
            true => Some(Details::read(&state).await),
            false => None,
        },
    })
}
