//! `helios-ci serve`: the daemon. Everything is wired here.

mod ready;

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use clap::Args;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::ready::{ListeningSocket, Ready};
use super::{data_dir, parts, signals};
use crate::{
    cli::{Common, Exit, Outcome, report},
    daemon::Deps,
    forge::{Forge, ForgeError},
    intake::Intake,
    janitor,
    model::{
        ids::InstanceId,
        names::{CommitSha, ConnectionId, ForgeContext, RefName, RepoPath},
        trigger::Repository,
    },
    node,
    planner::{CatchUp, Caught, Planner},
    queue::{Hints, InProcess},
    reporter::Reporter,
    scheduler,
    store::{self, AuditEntry, Store},
    telemetry::{self, LogFormat, Metrics},
    web::{self, AppState, Parts, Repositories, http::serve},
};

/// How long running parts may take to stop.
const STOP_WITHIN: Duration = Duration::from_secs(20);
/// How long attempts may take to be handed over to a new configuration; the longest is a machine's removal.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(600);

/// A new configuration was to be taken up, and what runs with the one before did not let go.
#[derive(Debug, thiserror::Error)]
#[error(
    "some attempts could not be handed over to the new configuration; the service manager starts the daemon again, with it"
)]
pub(in crate::cli) struct HandOverLate;

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
    telemetry::log_to_stderr(LogFormat::of_option(args.log_json), common.verbose).map_err(report)?;
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
    let config = &ready.config;
    let hints: Arc<dyn Hints> = Arc::new(InProcess::new());
    let (forges, connections) = (|| ready.forges.clone(), || ready.connections.clone());
    let intake = Intake::new(Arc::clone(config), forges(), store.clone(), Arc::clone(&hints));
    let reporter = Reporter::new(store.clone(), forges(), Arc::clone(config), Arc::clone(&hints));
    let metrics = Metrics::with(|registry| {
        intake.register(registry);
        reporter.register(registry);
        ready.connections.register(registry);
    });
    let deps = parts::deps(parts::Outside {
        config: Arc::clone(config),
        store: store.clone(),
        hints: Arc::clone(&hints),
        forges: forges(),
        metrics,
        machines: Arc::clone(&ready.machines),
    })?;
    let listeners = Listeners {
        web: ready.web.listener()?,
        metrics: ready.metrics.as_ref().map(ListeningSocket::listener).transpose()?,
    };

    // From here on the node's name is ours.
    let instance = InstanceId::new();
    node::register(&deps, lock, instance).await.map_err(report)?;
    let running = Running::new(stop);
    node::recover(&deps, instance, &running.attempts, &running.driving)
        .await
        .map_err(report)?;

    running.listen(ready, &deps, intake, listeners);
    let planner = Planner::new(&deps, connections());
    let stop = || running.stop.clone();
    let (relay, hints, until) = (store.clone(), Arc::clone(&hints), stop());
    running
        .tasks
        .spawn(async move { relay.relay_hints(hints, until).await });
    running.tasks.spawn(connections().run(forges(), stop()));
    running.tasks.spawn(planner.run(stop()));
    running
        .tasks
        .spawn(CatchUp::new(deps.clone(), connections()).run(stop()));
    running.tasks.spawn(reporter.run(stop()));
    running.tasks.spawn(scheduler::run(
        deps.clone(),
        instance,
        running.attempts.clone(),
        running.driving.clone(),
    ));
    running.tasks.spawn(node::run(deps.clone(), instance, stop()));
    running.tasks.spawn(janitor::run(deps.clone(), stop()));
    tracing::info!(node = %config.node, listen = %config.listen, url = %config.public_url, "helios-ci is ready");

    let next = running.until_stop_or_next(ready, again).await;
    running.end(next.is_some()).await?;
    if let Err(error) = store.leave(&config.node, instance).await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "cannot sign this node off; its next start may have to wait"
        );
    }
    Ok(next)
}

struct Listeners {
    web: TcpListener,
    metrics: Option<TcpListener>,
}

/// What runs with one configuration.
struct Running {
    stop: CancellationToken,
    /// What drives attempts ends first at a reload, while everybody else is still served.
    driving: CancellationToken,
    attempts: TaskTracker,
    tasks: TaskTracker,
}

impl Running {
    fn new(stop: CancellationToken) -> Self {
        Self {
            driving: stop.child_token(),
            stop,
            attempts: TaskTracker::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// Serves pages, API, webhooks and metrics.
    fn listen(&self, ready: &Ready, deps: &Deps, intake: Intake, listeners: Listeners) {
        let state = AppState::new(Parts {
            store: deps.store.clone(),
            logs: deps.logs.clone(),
            config: Arc::clone(&ready.config),
            machines: Arc::clone(&deps.machines),
            repositories: Arc::new(ForgeRepositories {
                forges: ready.forges.clone(),
                catch_up: CatchUp::new(deps.clone(), ready.connections.clone()),
            }),
            connections: ready.connections.clone(),
            hints: Arc::clone(&deps.hints),
            stream_poll: web::live::poll(),
            metrics: deps.metrics.clone(),
            draining: self.stop.clone(),
        });
        let keeping = intake.keeping();
        let served = serve::serve(
            listeners.web,
            ready.tls.clone(),
            web::router(state, intake.router()),
            web::http::proxies::Proxies::new(&ready.config.trusted_proxies),
            self.stop.clone(),
        );
        self.tasks.spawn(async move {
            served.await;
            keeping.close();
            keeping.wait().await;
        });
        if let Some(listener) = listeners.metrics {
            self.tasks.spawn(web::metrics::serve_metrics(
                listener,
                deps.metrics.clone(),
                deps.store.clone(),
                self.stop.clone(),
            ));
        }
    }

    /// The next configuration; none at the stop.
    async fn until_stop_or_next(
        &self,
        ready: &Ready,
        again: impl AsyncFn(&Ready) -> miette::Result<Ready>,
    ) -> Option<Ready> {
        loop {
            match self.stop.run_until_cancelled(again(ready)).await? {
                Ok(next) => return Some(next),
                Err(error) => tracing::error!(
                    reason = format!("{error:?}"),
                    "the new configuration is refused; going on with the one before"
                ),
            }
        }
    }

    /// Ends everything, after attempts were handed over where another configuration follows.
    async fn end(self, another_follows: bool) -> miette::Result<()> {
        self.attempts.close();
        self.tasks.close();
        if another_follows {
            tracing::info!("taking up a new configuration; machines that run go on");
            self.driving.cancel();
            // A machine that is being made is finished first, so that nobody has to make it again.
            if tokio::time::timeout(HAND_OVER_WITHIN, self.attempts.wait())
                .await
                .is_err()
            {
                return Err(report(HandOverLate));
            }
        } else {
            tracing::info!("stopping; machines that run go on and are taken up at the next start");
        }
        self.stop.cancel();
        let stopped = async {
            self.attempts.wait().await;
            self.tasks.wait().await;
        };
        if tokio::time::timeout(STOP_WITHIN, stopped).await.is_err() {
            tracing::warn!("some parts did not stop in time");
        }
        Ok(())
    }
}

struct ForgeRepositories {
    forges: HashMap<ConnectionId, Arc<dyn Forge>>,
    catch_up: CatchUp,
}

#[async_trait]
impl Repositories for ForgeRepositories {
    async fn find(&self, connection: &ConnectionId, path: &RepoPath) -> Result<Option<Repository>, ForgeError> {
        match self.forges.get(connection) {
            Some(forge) => forge.find_repository(path, &ForgeContext::default()).await,
            None => Ok(None),
        }
    }

    async fn read_ref(&self, repository: &Repository, name: &RefName) -> Result<Option<CommitSha>, ForgeError> {
        match self.forges.get(&repository.connection) {
            Some(forge) => forge.read_ref(repository, name).await,
            None => Ok(None),
        }
    }

    async fn catch_up(&self) -> Result<Vec<Caught>, store::StoreError> {
        self.catch_up.now().await
    }
}
