//! Delivers the outbox: each check's newest state, at least once, never giving up. Reports go through
//! one queue per connection and forge context, so that a forge that hangs delays only its own.

mod send_queue;
mod stored;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    error::Error,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use self::{
    send_queue::{Queued, SendQueue},
    stored::StoredOutbox,
};
use crate::{
    clock,
    config::Config,
    forge::Forge,
    model::{
        ids::ReportId,
        names::{ConnectionId, ForgeContext},
        report::Report,
    },
    queue::{Hint, Hints},
    store::Store,
};

/// Reports claimed at once.
const BATCH: u32 = 32;
/// After a crash a claimed report waits at most this long. A delivery is given up well before.
const LEASE: Duration = Duration::from_secs(60);
/// Without any hint the outbox is read this often; `node` repeats lost hints much sooner.
const SWEEP: Duration = Duration::from_secs(300);
/// The store failed: a moment.
const STORE_PAUSE: Duration = Duration::from_secs(3);
/// Reports waiting in one queue; more are put off, because a short queue carries fresh states.
const QUEUE_LENGTH: usize = 8;
/// How long the deliveries of a queue may take to end at a stop.
const STOP_WITHIN: Duration = Duration::from_secs(15);

/// Something went wrong in the store.
pub type OutboxError = Box<dyn Error + Send + Sync>;

/// A report to be delivered.
#[derive(Debug, Clone)]
pub struct Owed {
    /// Which.
    pub id: ReportId,
    /// Which state of it.
    pub version: i64,
    /// What to say.
    pub report: Report,
    /// What the forge answered for the same generation before.
    pub remote: Option<String>,
}

/// Where reports are owed.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// Claims what is due, final states first.
    async fn claim(&self, limit: u32, lease: Duration) -> Result<Vec<Owed>, OutboxError>;
    /// The forge has taken this state.
    async fn delivered(&self, owed: &Owed, remote: Option<&str>) -> Result<(), OutboxError>;
    /// Due again after this time.
    async fn later(&self, owed: &Owed, after: Duration, reason: &str) -> Result<(), OutboxError>;
    /// The forge said no.
    async fn refused(&self, owed: &Owed, reason: &str) -> Result<(), OutboxError>;
    /// When something is due next, in milliseconds since 1970.
    async fn next_due(&self) -> Result<Option<i64>, OutboxError>;
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

/// What all queues share.
struct Shared {
    outbox: Arc<dyn Outbox>,
    public_url: String,
    outcomes: Family<OutcomeLabel, Counter>,
    /// Failed tries in a row, for the back-off. A report that only waited for its turn has none. Lost
    /// at a restart, which is a good moment to try everything again.
    failures: Mutex<HashMap<ReportId, u32>>,
    /// Notified after every delivery and pause: a newer state may be due, or something may be due earlier
    /// than the loop thinks.
    wake: Arc<Notify>,
}

impl Shared {
    fn count(&self, outcome: &'static str) {
        self.outcomes.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// Counts one more failure and returns how many there were before.
    fn failed(&self, id: ReportId) -> u32 {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(id).or_default();
        let before = *count;
        *count = count.saturating_add(1);
        before
    }

    fn succeeded(&self, id: ReportId) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// The page a report leads to.
    fn details(&self, report: &Report) -> String {
        let base = &self.public_url;
        match (report.job, report.run) {
            (Some(job), _) => format!("{base}/jobs/{job}"),
            (None, Some(run)) => format!("{base}/runs/{run}"),
            (None, None) => format!("{base}/"),
        }
    }

    /// Puts a report off. When the store fails, the lease runs out and it is due again anyway.
    async fn later(&self, owed: &Owed, after: Duration, reason: &str) {
        if let Err(error) = self.outbox.later(owed, after, reason).await {
            tracing::warn!(report = %owed.id, error = &*error as &dyn Error, "cannot put a report off");
        }
        self.wake.notify_one();
    }

    async fn refused(&self, owed: &Owed, reason: &str) {
        self.count("refused");
        self.succeeded(owed.id);
        tracing::warn!(report = %owed.id, check = %owed.report.name, reason, "the forge refused a report");
        if let Err(error) = self.outbox.refused(owed, reason).await {
            tracing::warn!(report = %owed.id, error = &*error as &dyn Error, "cannot note a refused report");
        }
        self.wake.notify_one();
    }
}

type QueueKey = (ConnectionId, ForgeContext);

/// The reporter.
pub struct Reporter {
    shared: Arc<Shared>,
    forges: HashMap<ConnectionId, Arc<dyn Forge>>,
    wake: Arc<Notify>,
    hints: Option<Arc<dyn Hints>>,
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reporter")
            .field("forges", &self.forges)
            .finish_non_exhaustive()
    }
}

impl Reporter {
    /// The reporter of this node, woken by hints.
    #[must_use]
    pub fn new(
        store: Store,
        forges: HashMap<ConnectionId, Arc<dyn Forge>>,
        config: Arc<Config>,
        hints: Arc<dyn Hints>,
    ) -> Self {
        let outbox = StoredOutbox {
            store,
            node: config.node.clone(),
        };
        let reporter = Self::with_outbox(Arc::new(outbox), forges, &config.public_url, Arc::default());
        Self {
            hints: Some(hints),
            ..reporter
        }
    }

    /// Delivers until stopped.
    pub async fn run(self, stop: CancellationToken) {
        // Subscribed before the outbox is first read, so that nothing falls between the two.
        let (hints, wake) = (self.hints.as_ref().map(|h| h.subscribe()), self.wake.clone());
        let listening = async {
            if let Some(mut hints) = hints {
                while hints.wait_for(|hint| hint == Hint::Report).await {
                    wake.notify_one();
                }
            }
            // Without hints the timer is enough.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = self.work(stop) => {}
            () = listening => {}
        }
    }

    /// A reporter that reads the outbox when `wake` is notified, when something is due, and now and then.
    /// `public_url` is what links begin with, without a trailing slash.
    #[must_use]
    pub fn with_outbox(
        outbox: Arc<dyn Outbox>,
        forges: HashMap<ConnectionId, Arc<dyn Forge>>,
        public_url: &str,
        wake: Arc<Notify>,
    ) -> Self {
        let shared = Shared {
            outbox,
            public_url: public_url.trim_end_matches('/').to_owned(),
            outcomes: Family::default(),
            failures: Mutex::default(),
            wake: Arc::clone(&wake),
        };
        Self {
            shared: Arc::new(shared),
            forges,
            wake,
            hints: None,
        }
    }

    /// Adds the reporter's counters to a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("reports", "Reports to forges by outcome", self.shared.outcomes.clone());
    }

    /// Delivers until stopped. What was claimed and not begun is put back.
    pub async fn work(self, stop: CancellationToken) {
        let mut queues: HashMap<QueueKey, mpsc::Sender<Queued>> = HashMap::new();
        let mut tasks = JoinSet::new();
        while !stop.is_cancelled() {
            let pause = match self.shared.outbox.claim(BATCH, LEASE).await {
                Ok(claimed) if claimed.is_empty() => self.until_next().await,
                Ok(claimed) => {
                    for owed in claimed {
                        self.dispatch(owed, &mut queues, &mut tasks, &stop).await;
                    }
                    Duration::ZERO
                }
                Err(error) => {
                    tracing::error!(error = &*error as &dyn Error, "cannot read the outbox");
                    STORE_PAUSE
                }
            };
            while tasks.try_join_next().is_some() {}
            queues.retain(|_, queue| !queue.is_closed());
            if pause.is_zero() {
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        drop(queues);
        let ended = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_WITHIN, ended).await.is_err() {
            tracing::warn!("a forge did not answer before the stop; its reports are due again at the next start");
        }
    }

    async fn until_next(&self) -> Duration {
        match self.shared.outbox.next_due().await {
            Ok(None) => SWEEP,
            Ok(Some(due_ms)) => {
                let ms = u64::try_from(due_ms.saturating_sub(clock::now_ms())).unwrap_or(0);
                // What is due and was not claimed is being claimed by another node just now.
                Duration::from_millis(ms).clamp(Duration::from_millis(100), SWEEP)
            }
            Err(error) => {
                tracing::error!(error = &*error as &dyn Error, "cannot read the outbox");
                STORE_PAUSE
            }
        }
    }

    async fn dispatch(
        &self,
        owed: Owed,
        queues: &mut HashMap<QueueKey, mpsc::Sender<Queued>>,
        tasks: &mut JoinSet<()>,
        stop: &CancellationToken,
    ) {
        let key = (
            owed.report.repository.connection.clone(),
            owed.report.repository.context.clone(),
        );
        let Some(forge) = self.forges.get(&key.0) else {
            let reason = format!(
                "no connection `{}` is configured: add it again, or let its runs expire",
                key.0
            );
            self.shared.refused(&owed, &reason).await;
            return;
        };
        let queue = queues.entry(key).or_insert_with(|| self.open_queue(forge, tasks, stop));
        // A queue that ended while idle is replaced; a fresh one takes at least one report.
        if queue.is_closed() {
            *queue = self.open_queue(forge, tasks, stop);
        }
        let queued = Queued {
            owed,
            since: Instant::now(),
        };
        if let Err(error) = queue.try_send(queued) {
            let owed = match error {
                mpsc::error::TrySendError::Full(queued) | mpsc::error::TrySendError::Closed(queued) => queued.owed,
            };
            self.shared
                .later(
                    &owed,
                    send_queue::jitter(Duration::from_secs(6)),
                    "waiting for its turn",
                )
                .await;
        }
    }

    fn open_queue(
        &self,
        forge: &Arc<dyn Forge>,
        tasks: &mut JoinSet<()>,
        stop: &CancellationToken,
    ) -> mpsc::Sender<Queued> {
        let (sender, receiver) = mpsc::channel(QUEUE_LENGTH);
        let queue = SendQueue::new(self.shared.clone(), forge.clone());
        tasks.spawn(queue.run(receiver, stop.clone()));
        sender
    }
}
