//! How the daemon is: `/status` for people, `/api/v1/status` for monitoring. Anyone learns whether it works; which
//! forge refuses us and why, and how much waits, is for administrators. Neither names a secret or a path of the host.

use askama::Template;
use axum::{Json, extract::State, response::Html};
use serde_json::{Value, json};

use super::view::{self, Badge, rfc3339};
use crate::{
    forge::ConnectionState,
    model::{names::ConnectionId, state::JobState},
    store::Counts,
    web::{
        AppState,
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
}

/// What waits and what runs.
struct Work {
    queued: u64,
    active: u64,
    undelivered: u64,
    refused: u64,
}

impl Work {
    fn of(counts: &Counts) -> Self {
        let jobs = |state| counts.jobs.get(&state).copied().unwrap_or(0);
        Self {
            queued: jobs(JobState::Queued),
            active: jobs(JobState::Active),
            undelivered: counts.reports_undelivered,
            refused: counts.reports_refused,
        }
    }
}

/// What only administrators see.
struct Details {
    connections: Vec<Connection>,
    /// None while the store does not answer.
    work: Option<Work>,
}

impl Details {
    async fn look(state: &AppState) -> Self {
        let config = state.config();
        let connections = state.connections().states().into_iter().filter_map(|(name, found)| {
            let since = match &found {
                ConnectionState::Refused { since_ms, .. } | ConnectionState::Unreachable { since_ms, .. } => {
                    Some(rfc3339(*since_ms))
                }
                ConnectionState::Unknown | ConnectionState::Working { .. } => None,
            };
            Some(Connection {
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
            work: state.store().counts().await.ok().as_ref().map(Work::of),
        }
    }

    fn json(&self) -> Value {
        let connections: Vec<Value> = self
            .connections
            .iter()
            .map(|c| {
                json!({"name": c.name, "url": c.url, "webhook": c.hook, "state": c.state.as_str(),
                       "detail": c.state.to_string(), "since": c.since, "fix": c.state.fix()})
            })
            .collect();
        let work = self.work.as_ref().map(|work| {
            json!({"queued": work.queued, "active": work.active,
                   "reports_undelivered": work.undelivered, "reports_refused": work.refused})
        });
        json!({"connections": connections, "work": work})
    }
}

/// One word for the whole.
fn word(readiness: Readiness) -> &'static str {
    match readiness {
        Readiness::Ready => "ready",
        Readiness::Degraded { .. } => "degraded",
        Readiness::NoStore => "not ready",
        Readiness::Stopping => "stopping",
    }
}

/// `GET /api/v1/status`
pub async fn api(State(state): State<AppState>, caller: Caller) -> Json<Value> {
    let readiness = health::look(&state).await;
    let all = state.connections().states();
    let broken = all.values().filter(|state| state.is_broken()).count();
    let mut answer = json!({"state": word(readiness), "connections": {"all": all.len(), "broken": broken}});
    if caller.is_admin() {
        answer["node"] = json!(state.config().node);
        answer["details"] = Details::look(&state).await.json();
    }
    Json(answer)
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
    let readiness = health::look(&state).await;
    let mut frame = Frame::new(&state, &caller, "/status".to_owned());
    frame.refresh_s = Some(30);
    html(&StatusPage {
        frame,
        badge: view::readiness(readiness),
        readiness,
        all: state.connections().states().len(),
        details: match caller.is_admin() {
            true => Some(Details::look(&state).await),
            false => None,
        },
    })
}
