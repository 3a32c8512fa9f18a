//! What forges delivered and what came of it, and what was missed: for those who administer the server. Bodies are
//! never shown.

use std::{sync::Arc, time::Duration};

use askama::Template;
use axum::{
    Json,
    extract::{Query, State},
    response::Html,
};
use serde::Deserialize;
use url::form_urlencoded;

use super::view::{self, Badge, rfc3339};
use crate::{
    clock::now_ms,
    intake::outcome_text,
    model::{ids::DeliveryId, state::IntakeState},
    store::{Comparison, DeliveryFilter, DeliveryRow, Missed},
    web::{
        AppState, CatchUpResult,
        api::types::{self, CatchUp, CaughtUp, Compared, Delivery, DeliveryList, MissedList, MissedRef},
        authorize::Action,
        http::problem::Problem,
        identity::Caller,
        lookup::{parse, store_failed},
        pages::runs::{Frame, html},
    },
};

/// Deliveries on one page.
const PAGE: u32 = 30;
/// How long a comparison that a person asked for is waited for; it goes on meanwhile.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(20);

/// Where the delivery as a whole stands: as its newest trigger does.
fn standing(row: &DeliveryRow) -> IntakeState {
    row.builds.last().map_or(row.state, |build| build.state)
}

fn delivery_of(row: &DeliveryRow) -> Delivery {
    let builds = row.builds.iter().map(|build| types::DeliveryBuild {
        id: build.id,
        state: build.state,
        reason: build.reason.clone(),
        tries: build.tries,
        next: (build.state == IntakeState::Received).then(|| rfc3339(build.due_ms)),
        runs: build.runs,
    });
    Delivery {
        id: row.id,
        connection: row.connection.clone(),
        event: row.event.clone(),
        key: row.key.clone(),
        number: row.number,
        repository: row.repository.clone(),
        ref_name: row.ref_name.clone(),
        commit: row.commit.clone(),
        state: standing(row),
        outcome: outcome_text(row),
        retryable: row.retryable,
        received: rfc3339(row.received_ms),
        builds: builds.collect(),
    }
}

/// `?…` of the lists.
#[derive(Debug, Deserialize)]
pub struct DeliveriesQuery {
    connection: Option<String>,
    repository: Option<String>,
    state: Option<String>,
    before: Option<String>,
    limit: Option<u32>,
}

impl DeliveriesQuery {
    /// The page behind `last`, with the same filter.
    fn older(&self, last: DeliveryId) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, value) in [
            ("connection", &self.connection),
            ("repository", &self.repository),
            ("state", &self.state),
        ] {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        format!(
            "/deliveries?{}",
            query.append_pair("before", &last.to_string()).finish()
        )
    }

    fn filter(&self) -> Result<DeliveryFilter, Problem> {
        Ok(DeliveryFilter {
            connection: self.connection.as_deref().map(parse).transpose()?,
            repository: self.repository.as_deref().map(parse).transpose()?,
            state: self.state.as_deref().map(parse).transpose()?,
            before: self.before.as_deref().map(parse).transpose()?,
            limit: self.limit.unwrap_or(PAGE).clamp(1, 100),
        })
    }
}

/// `GET /api/v1/deliveries`: newest first; `next` is the `before` of the following page.
pub async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Query(query): Query<DeliveriesQuery>,
) -> Result<Json<DeliveryList>, Problem> {
    caller.may(&state, Action::Deliveries, None)?;
    let filter = query.filter()?;
    let rows = state.store().deliveries(&filter).await.map_err(store_failed)?;
    let next = rows
        .last()
        .filter(|_| rows.len() == filter.limit as usize)
        .map(|r| r.id);
    Ok(Json(DeliveryList {
        deliveries: rows.iter().map(delivery_of).collect(),
        next,
    }))
}

/// What was missed, of connections that are configured.
async fn missed_rows(state: &AppState) -> Result<(Vec<Missed>, Vec<Comparison>), Problem> {
    let store = state.store();
    let mut missed = store.missed().await.map_err(store_failed)?;
    let mut comparisons = store.comparisons().await.map_err(store_failed)?;
    let connections = &state.config().connections;
    missed.retain(|row| connections.contains_key(&row.repository.connection));
    comparisons.retain(|row| connections.contains_key(&row.repository.connection));
    Ok((missed, comparisons))
}

async fn missed_list(state: &AppState) -> Result<MissedList, Problem> {
    let (missed, comparisons) = missed_rows(state).await?;
    let missed = missed.into_iter().map(|row| MissedRef {
        connection: row.repository.connection,
        repository: row.repository.path,
        ref_name: row.ref_name,
        commit: row.commit,
        seen: rfc3339(row.seen_ms),
    });
    let compared = comparisons.into_iter().map(|row| Compared {
        connection: row.repository.connection,
        repository: row.repository.path,
        at: row.at_ms.map(rfc3339),
        tried: rfc3339(row.tried_ms),
        reason: row.reason,
    });
    Ok(MissedList {
        missed: missed.collect(),
        compared: compared.collect(),
    })
}

/// `GET /api/v1/missed`: refs whose tips no run was planned for, as of the last comparison with the forges.
pub async fn missed(State(state): State<AppState>, caller: Caller) -> Result<Json<MissedList>, Problem> {
    caller.may(&state, Action::Deliveries, None)?;
    missed_list(&state).await.map(Json)
}

/// Compares with the forges, in a task of its own: whoever asked may leave, and a slow forge may take longer than an
/// answer may.
async fn compare(state: AppState) -> CatchUpResult {
    match tokio::spawn(async move { state.repositories().catch_up().await }).await {
        Ok(Ok(caught)) => Ok(Arc::new(caught)),
        Ok(Err(error)) => Err(Arc::new(error)),
        Err(error) => Err(Arc::new(error)),
    }
}

/// `POST /api/v1/catch-up`: compares with the forges now. Who asks while a comparison goes on gets the result of that.
pub async fn catch_up(State(state): State<AppState>, caller: Caller) -> Result<Json<CatchUp>, Problem> {
    caller.may(&state, Action::Deliveries, None)?;
    caller.audit(&state, "catch up", "all connections").await?;
    let work = state.catch_up().join(|| compare(state.clone()));
    let Ok(done) = tokio::time::timeout(CATCH_UP_WITHIN, work).await else {
        return Err(Problem::unavailable(
            "The forges are still being compared; what was missed is listed when that is done.",
        ));
    };
    let caught = done.map_err(|e| Problem::internal("catching up", e))?;
    let connections = caught.iter().cloned().map(|caught| CaughtUp {
        connection: caught.connection,
        repositories: caught.repositories,
        delivered_again: caught.delivered_again,
        broken: caught.broken,
    });
    Ok(Json(CatchUp {
        connections: connections.collect(),
        missed: missed_list(&state).await?,
    }))
}

struct Line {
    badge: Badge,
    what: String,
    repository: String,
    reference: String,
    commit: String,
    outcome: String,
    received: String,
    received_at: String,
    ago: String,
}

struct MissedLine {
    repository: String,
    reference: String,
    commit: String,
    command: String,
    ago: String,
}

#[derive(Template)]
#[template(path = "deliveries.html")]
struct DeliveriesPage<'a> {
    frame: Frame<'a>,
    lines: Vec<Line>,
    missed: Vec<MissedLine>,
    broken: Vec<String>,
    next: Option<String>,
    first: bool,
}

fn line(row: &DeliveryRow, now: i64) -> Line {
    let again = if row.number > 1 { ", again" } else { "" };
    Line {
        badge: view::intake(standing(row)),
        what: format!("{} from {}{again}", row.event, row.connection),
        repository: row.repository.as_ref().map(ToString::to_string).unwrap_or_default(),
        reference: row.ref_name.as_ref().map(|r| r.short().to_owned()).unwrap_or_default(),
        commit: row.commit.as_ref().map(|c| c.short().to_owned()).unwrap_or_default(),
        outcome: outcome_text(row),
        received: rfc3339(row.received_ms),
        received_at: view::moment(row.received_ms),
        ago: view::ago(row.received_ms, now),
    }
}

/// `GET /deliveries`
pub async fn page(
    State(state): State<AppState>,
    caller: Caller,
    Query(query): Query<DeliveriesQuery>,
) -> Result<Html<String>, Problem> {
    caller.may(&state, Action::Deliveries, None)?;
    let filter = DeliveryFilter {
        limit: PAGE,
        ..query.filter()?
    };
    let rows = state.store().deliveries(&filter).await.map_err(store_failed)?;
    let (missed, comparisons) = missed_rows(&state).await?;
    let now = now_ms();
    let next = rows.last().filter(|_| rows.len() == PAGE as usize);
    let page = DeliveriesPage {
        frame: Frame::new(&state, &caller, "/deliveries".to_owned()),
        lines: rows.iter().map(|row| line(row, now)).collect(),
        missed: missed
            .iter()
            .map(|row| MissedLine {
                repository: row.repository.path.to_string(),
                reference: row.ref_name.short().to_owned(),
                commit: row.commit.short().to_owned(),
                command: format!(
                    "helios-ci trigger {} {} {}",
                    row.repository.connection, row.repository.path, row.ref_name
                ),
                ago: view::ago(row.seen_ms, now),
            })
            .collect(),
        broken: comparisons
            .iter()
            .filter_map(|c| Some(format!("{}: {}", c.repository.path, c.reason.as_ref()?)))
            .collect(),
        next: next.map(|row| query.older(row.id)),
        first: filter.before.is_none(),
    };
    html(&page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_deliveries_are_those_of_the_same_filter() {
        let (last, before) = (DeliveryId::new(), Some(DeliveryId::new().to_string()));
        let query = DeliveriesQuery {
            connection: Some("berg".into()),
            repository: Some("ada/a&b".into()),
            state: None,
            before,
            limit: None,
        };
        assert_eq!(
            query.older(last),
            format!("/deliveries?connection=berg&repository=ada%2Fa%26b&before={last}")
        );
    }
}
