//! `helios-ci serve`: the daemon. Everything is wired here.

mod ready;

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use clap::Args;
use miette::miette;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::ready::{Door, Ready};
use super::{data_dir, parts, signals};
use crate::{
    cli::{Common, Exit, Outcome, report},
    config::Config,
    failpoint::{self, Point},
    forge::{
        Forge, ForgeError,
        intake::{Delivery, DeliverySink, Intake, NotStored, Receipt, Recorded},
    },
    janitor,
    model::{
        ids::InstanceId,
        names::{CommitSha, ConnectionId, RefName, RepoPath},
    },
    node,
    planner::{self, CatchUp, Caught, Planner},
    queue::{Hint, Hints, InProcess},
    reporter::Reporter,
    scheduler,
    store::{self, AuditEntry, NewDelivery, Store},
    telemetry::{self, LogFormat, Metrics},
    web::{self, AppState, Changed, Parts, Placed, Repositories, http::serve},
};

/// How long running parts may take to stop.
const STOP_WITHIN: Duration = Duration::from_secs(20);
/// How long attempts may take to be handed over to a new configuration; the longest is a machine's removal.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(600);

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  svcadm enable helios-ci            on illumos, as a service
  helios-ci serve                    elsewhere, in the foreground
  HELIOS_CI_LOG_JSON=1 helios-ci serve")]
pub(in crate::cli) struct ServeArgs {
    /// Log one JSON object per line.
    #[arg(long, env = "HELIOS_CI_LOG_JSON")]
    log_json: bool,
    /// Accept the back end `process`, which isolates nothing. For tests and benchmarks.
    #[arg(long, hide = true)]
    allow_unisolated: bool,
}

pub(in crate::cli) async fn run(common: &Common, args: ServeArgs) -> Outcome {
    let format = if args.log_json {
        LogFormat::Json
    } else {
        LogFormat::Text
    };
    telemetry::log_to_stderr(format, common.verbose).map_err(report)?;
    let config = crate::cli::commands::config::load_and_warn(common)?;
    parts::usable_git().await?;
    parts::private_files();
    data_dir::make(&config.data_dir)?;
    let lock = node::DataLock::take(&config.data_dir).map_err(report)?;
    let store = Store::open(&config.database).await.map_err(report)?;
    let end = CancellationToken::new();
    let reload = signals::watch(&end)?;
    let again = async |before: &Ready| {
        reload.notified().await;
        Ready::new(
            crate::cli::commands::config::load_and_warn(common)?,
            Some(before),
            args.allow_unisolated,
        )
        .await
    };
    let mut ready = Ready::new(config, None, args.allow_unisolated).await?;
    while let Some(next) = serve_with(&ready, &store, &lock, end.child_token(), again).await? {
        ready = next;
        let audited = store.audit(AuditEntry {
            who: "whoever may signal the daemon".to_owned(),
            action: "configuration.reload".to_owned(),
            subject: common.config.display().to_string(),
            evidence: "SIGHUP".to_owned(),
            request_id: String::new(),
        });
        if let Err(error) = audited.await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "cannot write to the audit log"
            );
        }
    }
    store.close().await;
    drop(lock);
    Ok(Exit::Success)
}

/// Runs everything with one configuration until `stop` (`None`) or until `again` has the next one. Whatever runs in
/// machines goes on in either case, as at a restart.
async fn serve_with(
    ready: &Ready,
    store: &Store,
    lock: &node::DataLock,
    stop: CancellationToken,
    again: impl AsyncFn(&Ready) -> miette::Result<Ready>,
) -> miette::Result<Option<Ready>> {
    let config = Arc::clone(&ready.config);
    let hints: Arc<dyn Hints> = Arc::new(InProcess::new());
    let intake = Intake::new(
        &config.connections,
        Arc::new(StoredDeliveries {
            store: store.clone(),
            hints: Arc::clone(&hints),
            forges: ready.forges.clone(),
            config: Arc::clone(&config),
        }),
    );
    let reporter = Reporter::new(
        store.clone(),
        ready.forges.clone(),
        Arc::clone(&config),
        Arc::clone(&hints),
    );
    let metrics = Metrics::with(|registry| {
        intake.register(registry);
        reporter.register(registry);
        ready.connections.register(registry);
    });
    let deps = parts::deps(parts::Outside {
        config: Arc::clone(&config),
        store: store.clone(),
        hints: Arc::clone(&hints),
        forges: ready.forges.clone(),
        metrics: metrics.clone(),
        machines: Arc::clone(&ready.machines),
    })?;
    let listener = ready.web.listener()?;
    let metrics_listener = ready.metrics.as_ref().map(Door::listener).transpose()?;

    // From here on the node's name is ours.
    let instance = InstanceId::new();
    node::register(&deps, lock, instance).await.map_err(report)?;
    // What drives attempts ends first at a reload, while everybody else is still served.
    let driving = stop.child_token();
    let (attempts, tasks) = (TaskTracker::new(), TaskTracker::new());
    node::recover(&deps, instance, &attempts, &driving)
        .await
        .map_err(report)?;

    let state = AppState::new(Parts {
        store: store.clone(),
        logs: deps.logs.clone(),
        config: Arc::clone(&config),
        machines: Arc::clone(&deps.machines),
        repositories: Arc::new(ForgeRepositories {
            forges: ready.forges.clone(),
            catch_up: CatchUp::new(deps.clone()),
        }),
        connections: ready.connections.clone(),
        on_change: on_change(Arc::clone(&hints)),
        metrics: metrics.clone(),
        draining: stop.clone(),
    });
    let router = web::router(state, intake.router());
    tasks.spawn(serve::serve(
        listener,
        ready.tls.clone(),
        router,
        web::http::proxies::Proxies::new(&config.trusted_proxies),
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
        ready.forges.clone(),
        deps.source.clone(),
        Arc::clone(&config),
        Arc::clone(&hints),
    );
    let relay = store.clone();
    let (relayed, until) = (Arc::clone(&hints), stop.clone());
    tasks.spawn(async move { relay.relay_hints(relayed, until).await });
    tasks.spawn(ready.connections.clone().run(ready.forges.clone(), stop.clone()));
    tasks.spawn(planner.run(stop.clone()));
    tasks.spawn(CatchUp::new(deps.clone()).run(stop.clone()));
    tasks.spawn(reporter.run(stop.clone()));
    tasks.spawn(scheduler::run(
        deps.clone(),
        instance,
        attempts.clone(),
        driving.clone(),
    ));
    tasks.spawn(node::run(deps.clone(), instance, stop.clone()));
    tasks.spawn(janitor::run(deps.clone(), stop.clone()));
    tracing::info!(node = %config.node, listen = %config.listen, url = %config.public_url, "helios-ci is ready");

    let next = loop {
        match stop.run_until_cancelled(again(ready)).await {
            None => break None,
            Some(Ok(next)) => break Some(next),
            Some(Err(error)) => tracing::error!(
                reason = format!("{error:?}"),
                "the new configuration is refused; going on with the one before"
            ),
        }
    };
    attempts.close();
    tasks.close();
    if next.is_some() {
        tracing::info!("taking up a new configuration; machines that run go on");
        driving.cancel();
        // A machine that is being made is finished first, so that nobody has to make it again.
        if tokio::time::timeout(HAND_OVER_WITHIN, attempts.wait()).await.is_err() {
            return Err(miette!(
                help = "the service manager starts it again, with the new configuration",
                "some attempts could not be handed over to the new configuration"
            ));
        }
    } else {
        tracing::info!("stopping; machines that run go on and are taken up at the next start");
    }
    stop.cancel();
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
    Ok(next)
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
    forges: HashMap<ConnectionId, Arc<dyn Forge>>,
    config: Arc<Config>,
}

/// What a body above this size means is said by the page of deliveries alone: reading it twice would hold up others.
const READ_AT_ONCE: usize = 1 << 20;

#[async_trait]
impl DeliverySink for StoredDeliveries {
    async fn record(&self, delivery: Delivery) -> Result<Receipt, NotStored> {
        let Delivery {
            connection,
            key,
            event,
            body,
            digest,
            subject,
        } = delivery;
        // Pure, so nothing happens before the delivery is durable.
        let forge = self.forges.get(&connection).map(AsRef::as_ref);
        let message = (body.len() <= READ_AT_ONCE)
            .then(|| planner::words(&planner::verdict(forge, &self.config, &connection, &event, &body)));
        let recorded = self
            .store
            .record_delivery(NewDelivery {
                connection,
                key,
                event,
                body,
                digest,
                subject,
            })
            .await;
        match recorded.map_err(|e| NotStored(e.into()))? {
            store::RecordOutcome::New(id) => {
                failpoint::hit(Point::DeliveryStored);
                self.hints.notify(Hint::Delivery);
                Ok(Receipt {
                    recorded: Recorded::New(id),
                    message: message.unwrap_or_else(|| "stored; it is read next".to_owned()),
                })
            }
            store::RecordOutcome::Duplicate(id) => {
                let row = self.store.delivery(id).await.map_err(|e| NotStored(e.into()))?;
                Ok(Receipt {
                    recorded: Recorded::Duplicate(id),
                    message: format!(
                        "delivered before; {}",
                        row.map_or_else(
                            || "it was forgotten since".to_owned(),
                            |row| web::pages::deliveries::outcome(&row)
                        )
                    ),
                })
            }
        }
    }
}

struct ForgeRepositories {
    forges: HashMap<ConnectionId, Arc<dyn Forge>>,
    catch_up: CatchUp,
}

#[async_trait]
impl Repositories for ForgeRepositories {
    async fn find(&self, connection: &ConnectionId, path: &RepoPath) -> Result<Option<Placed>, ForgeError> {
        let Some(forge) = self.forges.get(connection) else {
            return Ok(None);
        };
        let Some(repository) = forge.find_repository(path, None).await? else {
            return Ok(None);
        };
        let installation = forge.installation(&repository.path).await?;
        Ok(Some((repository, installation)))
    }

    async fn read_ref(
        &self,
        (repository, installation): &Placed,
        name: &RefName,
    ) -> Result<Option<CommitSha>, ForgeError> {
        match self.forges.get(&repository.connection) {
            Some(forge) => forge.read_ref(repository, *installation, name).await,
            None => Ok(None),
        }
    }

    async fn catch_up(&self) -> Result<Vec<Caught>, store::StoreError> {
        self.catch_up.now().await
    }
}
