//! `/metrics`, on a listener of its own: what was counted, and what the store holds now. No repository
//! names, no ids.

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    middleware::map_response,
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::now_ms,
    store::{Store, StoreError},
    telemetry::Metrics,
    web::http::{headers, proxies::Proxies, serve::serve},
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: String,
}

fn whole(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Gauges of what the store holds, made for every scrape.
async fn counted(store: &Store) -> Result<Registry, StoreError> {
    let counts = store.counts().await?;
    let mut registry = Registry::with_prefix("helios_ci");
    let mut by_state = |name: &str, help: &str, rows: Vec<(String, u64)>| {
        let family = Family::<StateLabel, Gauge>::default();
        for (state, n) in rows {
            family.get_or_create(&StateLabel { state }).set(whole(n));
        }
        registry.register(name, help, family);
    };
    by_state(
        "jobs",
        "Jobs by state",
        counts.jobs.iter().map(|(s, n)| (s.to_string(), *n)).collect(),
    );
    by_state(
        "machines",
        "Machines by state",
        counts.machines.iter().map(|(s, n)| (s.to_string(), *n)).collect(),
    );
    let mut single = |name: &str, help: &str, value: u64| {
        let gauge: Gauge = Gauge::default();
        gauge.set(whole(value));
        registry.register(name, help, gauge);
    };
    single("attempts_live", "Attempts that have not ended", counts.attempts_live);
    single(
        "deliveries_waiting",
        "Deliveries not looked at yet",
        counts.deliveries_received,
    );
    single("triggers_waiting", "Triggers not planned yet", counts.triggers_received);
    single(
        "reports_undelivered",
        "Checks whose newest state the forge has not taken yet",
        counts.reports_undelivered,
    );
    single(
        "reports_refused",
        "Of these, the ones the forge refused",
        counts.reports_refused,
    );
    single(
        "rows_unreadable",
        "Triggers and reports that could not be read and were passed over since the start",
        counts.rows_unreadable,
    );
    single(
        "queue_age_seconds",
        "Age of the oldest queued job",
        counts
            .oldest_queued_ms
            .map_or(0, |ms| (now_ms() - ms).max(0).unsigned_abs() / 1000),
    );
    Ok(registry)
}

async fn scrape(State((metrics, store)): State<(Metrics, Store)>) -> Response {
    match counted(&store).await {
        Ok(counted) => (
            [(
                header::CONTENT_TYPE,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
            )],
            metrics.encode_with(&counted),
        )
            .into_response(),
        Err(error) => {
            tracing::warn!(%error, "metrics could not be counted");
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        }
    }
}

/// Serves `/metrics` until `shutdown`.
pub async fn serve_metrics(
    listener: tokio::net::TcpListener,
    metrics: Metrics,
    store: Store,
    shutdown: CancellationToken,
) {
    let router = Router::new()
        .route("/metrics", get(scrape))
        .layer(map_response(async |mut response: Response| {
            headers::complete(response.headers_mut());
            response
        }))
        .with_state((metrics, store));
    serve(listener, None, router, Proxies::default(), shutdown).await;
}
