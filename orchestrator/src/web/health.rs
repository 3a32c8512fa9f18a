//! Liveness and readiness, for whoever starts and balances the daemon. Neither gives details: [`crate::web::pages::status`] does.

use std::time::Duration;

use axum::{extract::State, http::StatusCode};

use super::AppState;

/// How long the store may take to answer.
const STORE_WITHIN: Duration = Duration::from_secs(2);

/// `GET /healthz`: the process answers.
pub async fn alive() -> &'static str {
    "ok\n"
}

/// What the daemon can do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Readiness {
    /// Everything, as far as is known.
    Ready,
    /// It takes deliveries and answers, but some forge refuses us or does not answer.
    Degraded {
        /// Connections that are known not to work.
        broken: usize,
        /// Connections that are configured.
        all: usize,
    },
    /// The store does not answer.
    NoStore,
    /// It is about to end.
    Stopping,
}

/// Checks now.
pub(super) async fn check(state: &AppState) -> Readiness {
    if state.draining().is_cancelled() {
        return Readiness::Stopping;
    }
    match tokio::time::timeout(STORE_WITHIN, state.store().ping()).await {
        Ok(Ok(())) => {
            let states = state.connections().states();
            match states.values().filter(|state| state.is_broken()).count() {
                0 => Readiness::Ready,
                broken => Readiness::Degraded {
                    broken,
                    all: states.len(),
                },
            }
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "not ready: the store does not answer");
            Readiness::NoStore
        }
        Err(_) => {
            tracing::warn!("not ready: the store took longer than two seconds");
            Readiness::NoStore
        }
    }
}

/// `GET /readyz`: the store answers within two seconds and the daemon is not stopping. A forge that refuses us is a
/// warning and no reason to send nobody here: deliveries are stored all the same, and the pages answer.
pub async fn ready(State(state): State<AppState>) -> (StatusCode, String) {
    match check(&state).await {
        Readiness::Ready => (StatusCode::OK, "ready\n".to_owned()),
        Readiness::Degraded { broken, all } => (
            StatusCode::OK,
            format!("ready\nwarning: {broken} of {all} connections to forges do not work; /status says more\n"),
        ),
        Readiness::NoStore => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n".to_owned()),
        Readiness::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n".to_owned()),
    }
}
