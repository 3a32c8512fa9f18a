//! `helios-ci serve`: the daemon. Everything is wired here.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use clap::Args;
use miette::miette;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Common, Exit, Outcome, backend, parts, report};
use crate::{
    config::Config,
    failpoint::{self, Point},
    forge::{
        self, Forge, ForgeError,
        intake::{Delivery, DeliverySink, Intake, NotStored, Recorded},
    },
    janitor,
    model::{
        ids::InstanceId,
        names::{ConnectionId, RepoPath},
    },
    node,
    planner::Planner,
    queue::{Hint, Hints, InProcess},
    reporter::Reporter,
    scheduler,
    store::{self, NewDelivery, Store},
    telemetry::{self, LogFormat, Metrics},
    web::{self, AppState, Changed, Parts, Placed, Repositories, serve},
};

/// How long running parts may take to stop.
const STOP_WITHIN: Duration = Duration::from_secs(20);

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Log one JSON object per line.
    #[arg(long, env = "HELIOS_CI_LOG_JSON")]
    log_json: bool,
    /// Accept the back end `process`, which isolates nothing. For tests and benchmarks.
    #[arg(long, hide = true)]
    allow_unisolated: bool,
}

pub(super) async fn run(common: &Common, args: ServeArgs) -> Outcome {
    let format = if args.log_json {
        LogFormat::Json
    } else {
        LogFormat::Text
    };
    telemetry::log_to_stderr(format).map_err(report)?;
    let config = Arc::new(super::config::load(common)?);
    parts::private_files();
    parts::make_data_dir(&config.data_dir)?;
    let lock = node::DataLock::take(&config.data_dir).map_err(report)?;
    let store = Store::open(&config.database).await.map_err(report)?;
    let hints: Arc<dyn Hints> = Arc::new(InProcess::new());
    let forges = connect_forges(&config)?;
    let intake = Intake::new(
        &config.connections,
        Arc::new(StoredDeliveries {
            store: store.clone(),
            hints: Arc::clone(&hints),
        }),
    );
    let reporter = Reporter::new(store.clone(), forges.clone(), Arc::clone(&config), Arc::clone(&hints));
    let metrics = Metrics::with(|registry| {
        intake.register(registry);
        reporter.register(registry);
    });
    let machines = backend::machines(&config, args.allow_unisolated).await?;
    let deps = parts::deps(parts::Outside {
        config: Arc::clone(&config),
        store: store.clone(),
        hints: Arc::clone(&hints),
        forges: forges.clone(),
        metrics: metrics.clone(),
        machines,
    })?;
    let source = deps.source.clone();
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|e| miette!("cannot listen on {}: {e}", config.listen))?;
    let metrics_listener = match config.metrics_listen {
        Some(at) => Some(
            TcpListener::bind(at)
                .await
                .map_err(|e| miette!("cannot listen on {at}: {e}"))?,
        ),
        None => None,
    };
    let tls = config.tls.as_ref().map(serve::tls_config).transpose().map_err(report)?;

    // From here on the node's name is ours.
    let instance = InstanceId::new();
    node::register(&deps, &lock, instance).await.map_err(report)?;
    let stop = CancellationToken::new();
    let (attempts, tasks) = (TaskTracker::new(), TaskTracker::new());
    node::recover(&deps, instance, &attempts, &stop).await.map_err(report)?;

    let state = AppState::new(Parts {
        store: store.clone(),
        logs: deps.logs.clone(),
        config: Arc::clone(&config),
        machines: Arc::clone(&deps.machines),
        repositories: Arc::new(ForgeRepositories(forges.clone())),
        on_change: on_change(Arc::clone(&hints)),
        metrics: metrics.clone(),
        draining: stop.clone(),
    });
    let router = web::router(state, intake.router());
    tasks.spawn(serve::serve(
        listener,
        tls,
        router,
        web::proxies::Proxies::new(&config.trusted_proxies),
        stop.clone(),
    ));
    if let Some(listener) = metrics_listener {
        tasks.spawn(web::metrics::serve_metrics(
            listener,
            metrics,
            store.clone(),
            stop.clone(),
        ));
    }
    let planner = Planner::new(
        store.clone(),
        forges.clone(),
        source,
        Arc::clone(&config),
        Arc::clone(&hints),
    );
    tasks.spawn(planner.run(stop.clone()));
    tasks.spawn(reporter.run(stop.clone()));
    tasks.spawn(scheduler::run(deps.clone(), instance, attempts.clone(), stop.clone()));
    tasks.spawn(node::run(deps.clone(), instance, stop.clone()));
    tasks.spawn(janitor::run(deps.clone(), stop.clone()));
    tracing::info!(node = %config.node, listen = %config.listen, url = %config.public_url, "helios-ci is ready");

    wait_for_the_end(&stop).await?;
    tracing::info!("stopping; machines that run go on and are taken up at the next start");
    stop.cancel();
    tasks.close();
    attempts.close();
    let stopped = async {
        attempts.wait().await;
        tasks.wait().await;
    };
    if tokio::time::timeout(STOP_WITHIN, stopped).await.is_err() {
        tracing::warn!("some parts did not stop in time");
    }
    if let Err(error) = store.leave(&config.node, instance).await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "cannot sign this node off; its next start may have to wait"
        );
    }
    store.close().await;
    drop(lock);
    Ok(Exit::Success)
}

/// Ends at SIGTERM, SIGINT, or when something of ours asked for the end.
async fn wait_for_the_end(stop: &CancellationToken) -> miette::Result<()> {
    let failed = |e: std::io::Error| miette!("cannot wait for signals: {e}");
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate()).map_err(failed)?,
        signal(SignalKind::interrupt()).map_err(failed)?,
    );
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = stop.cancelled() => {}
    }
    Ok(())
}

fn connect_forges(config: &Config) -> miette::Result<HashMap<ConnectionId, Arc<dyn Forge>>> {
    let mut forges = HashMap::new();
    for (id, connection) in &config.connections {
        forges.insert(id.clone(), forge::connect(id, connection).map_err(report)?);
    }
    Ok(forges)
}

fn on_change(hints: Arc<dyn Hints>) -> web::OnChange {
    Arc::new(move |changed| match changed {
        Changed::Trigger => hints.notify(Hint::Trigger),
        Changed::Queue => {
            hints.notify(Hint::Job);
            hints.notify(Hint::Report);
        }
        Changed::Kept => hints.notify(Hint::Kept),
        Changed::Cancel(attempts) => {
            for attempt in attempts {
                hints.notify(Hint::Cancel(attempt));
            }
            hints.notify(Hint::Report);
        }
    })
}

struct StoredDeliveries {
    store: Store,
    hints: Arc<dyn Hints>,
}

#[async_trait]
impl DeliverySink for StoredDeliveries {
    async fn record(&self, delivery: Delivery) -> Result<Recorded, NotStored> {
        let Delivery {
            connection,
            key,
            event,
            body,
            digest,
        } = delivery;
        let recorded = self
            .store
            .record_delivery(NewDelivery {
                connection,
                key,
                event,
                body,
                digest,
            })
            .await;
        match recorded.map_err(|e| NotStored(e.into()))? {
            store::Recorded::New(id) => {
                failpoint::hit(Point::DeliveryStored);
                self.hints.notify(Hint::Delivery);
                Ok(Recorded::New(id))
            }
            store::Recorded::Duplicate(id) => Ok(Recorded::Duplicate(id)),
        }
    }
}

struct ForgeRepositories(HashMap<ConnectionId, Arc<dyn Forge>>);

#[async_trait]
impl Repositories for ForgeRepositories {
    async fn find(&self, connection: &ConnectionId, path: &RepoPath) -> Result<Option<Placed>, ForgeError> {
        let Some(forge) = self.0.get(connection) else {
            return Ok(None);
        };
        let Some(repository) = forge.find_repository(path, None).await? else {
            return Ok(None);
        };
        let installation = forge.installation(&repository.path).await?;
        Ok(Some((repository, installation)))
    }
}
