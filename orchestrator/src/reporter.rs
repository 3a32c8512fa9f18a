//! Delivers the outbox: each check's newest state, at least once, never giving up. Reports go by one lane for each
//! connection and forge context, so that a forge that hangs delays only its own; and what is wrong with one report delays
//! that report alone.

mod lane;
mod stored;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, error::Error, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use self::{lane::LaneTask, stored::StoredOutbox};
use crate::{
    config::Config,
    forge::Forge,
    model::{
        ids::ReportId,
        names::ConnectionId,
        report::{Lane, Report},
    },
    queue::{Hint, Hints},
    store::{ReportStates, Store},
};

/// After a crash a claimed report waits at most this long. A delivery is given up well before.
const LEASE: Duration = Duration::from_secs(60);
/// Without any hint the outbox is read this often; `node` repeats lost hints much sooner.
const SWEEP: Duration = Duration::from_secs(300);
/// What is due and not under way waits for its forge, or is being claimed by another node just now.
const OVERDUE: Duration = Duration::from_secs(1);
/// The store failed: a moment.
const STORE_PAUSE: Duration = Duration::from_secs(3);
/// A report that was refused is tried again this often: whoever mends the cause need do nothing else.
const REFUSED_AGAIN: Duration = Duration::from_secs(3600);
/// How long the deliveries of all lanes may take to end at a stop.
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
    /// Failed tries of this state, for which it alone was to blame.
    pub tries: u32,
    /// What to say.
    pub report: Report,
    /// What the forge answered for the same generation before.
    pub remote: Option<String>,
}

/// Where reports are owed.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// The lanes with something to say, each with the time until its earliest report is due.
    async fn lanes(&self) -> Result<Vec<(Lane, Duration)>, OutboxError>;
    /// Claims what a lane says next of these states: final ones first, each check's newest.
    async fn claim(&self, lane: &Lane, states: ReportStates, lease: Duration) -> Result<Option<Owed>, OutboxError>;
    /// The forge has taken this state.
    async fn delivered(&self, owed: &Owed, remote: Option<&str>) -> Result<(), OutboxError>;
    /// Its lane is closed: due again after this time, whatever there is to say then.
    async fn held(&self, owed: &Owed, after: Duration, reason: &str) -> Result<(), OutboxError>;
    /// It failed, and is due again after this time, or when there is something new to say.
    async fn failed(&self, owed: &Owed, after: Duration, reason: &str) -> Result<(), OutboxError>;
    /// As `failed`, where the forge said no.
    async fn refused(&self, owed: &Owed, after: Duration, reason: &str) -> Result<(), OutboxError>;
    /// What is due of a lane waits for its forge, `after` long where the forge asked for that.
    async fn hold(&self, lane: &Lane, after: Duration, reason: &str) -> Result<(), OutboxError>;
    /// Nobody can report what is due of a lane: all of it is refused, and due again after this time. How many there were.
    async fn refuse_all(&self, lane: &Lane, after: Duration, reason: &str) -> Result<u64, OutboxError>;
    /// What failed of a lane is due at once, unless it failed `most` times or more. How many there were.
    async fn retry_failed(&self, lane: &Lane, most: u32) -> Result<u64, OutboxError>;
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

/// What all lanes share.
struct Shared {
    outbox: Arc<dyn Outbox>,
    public_url: String,
    outcomes: Family<OutcomeLabel, Counter>,
    /// Notified when a lane has delivered all it could: something may be due earlier than the loop thinks.
    wake: Arc<Notify>,
}

impl Shared {
    fn count(&self, outcome: &'static str, reports: u64) {
        self.outcomes.get_or_create(&OutcomeLabel { outcome }).inc_by(reports);
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
}

/// When the store fails, the lease runs out and the report is due again anyway: it is delivered at least once.
fn noted(owed: &Owed, result: Result<(), OutboxError>) {
    if let Err(error) = result {
        tracing::warn!(report = %owed.id, error = &*error as &dyn Error, "cannot note what became of a report");
    }
}

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

    /// Delivers until stopped.
    pub async fn work(self, stop: CancellationToken) {
        let mut lanes: HashMap<Lane, mpsc::Sender<()>> = HashMap::new();
        let mut tasks = JoinSet::new();
        while !stop.is_cancelled() {
            let pause = match self.shared.outbox.lanes().await {
                Ok(waiting) => {
                    let mut pause = SWEEP;
                    for (lane, due) in waiting {
                        if due.is_zero() {
                            self.call(lane, &mut lanes, &mut tasks, &stop).await;
                        }
                        pause = pause.min(if due.is_zero() { OVERDUE } else { due });
                    }
                    pause
                }
                Err(error) => {
                    tracing::error!(error = &*error as &dyn Error, "cannot read the outbox");
                    STORE_PAUSE
                }
            };
            while tasks.try_join_next().is_some() {}
            lanes.retain(|_, lane| !lane.is_closed());
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        drop(lanes);
        let ended = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_WITHIN, ended).await.is_err() {
            tracing::warn!("a forge did not answer before the stop; its reports are due again at the next start");
        }
    }

    /// Calls a lane to its work. One that works already looks once more before it rests.
    async fn call(
        &self,
        lane: Lane,
        lanes: &mut HashMap<Lane, mpsc::Sender<()>>,
        tasks: &mut JoinSet<()>,
        stop: &CancellationToken,
    ) {
        let Some(forge) = self.forges.get(&lane.connection) else {
            self.refuse_all(&lane).await;
            return;
        };
        let mut open = || {
            let (sender, receiver) = mpsc::channel(1);
            let task = LaneTask::new(lane.clone(), Arc::clone(&self.shared), Arc::clone(forge));
            tasks.spawn(task.run(receiver, stop.clone()));
            sender
        };
        let calls = lanes.entry(lane.clone()).or_insert_with(&mut open);
        if let Err(mpsc::error::TrySendError::Closed(())) = calls.try_send(()) {
            // It ended while idle; a fresh one takes a call.
            *calls = open();
            let _taken = calls.try_send(());
        }
    }

    /// Nobody can be sent what a connection owes that is not configured. Once it is there again and works, all of it is due.
    async fn refuse_all(&self, lane: &Lane) {
        let reason = format!(
            "no connection `{}` is configured: add it again, or let its runs expire",
            lane.connection
        );
        match self.shared.outbox.refuse_all(lane, REFUSED_AGAIN, &reason).await {
            Ok(0) => {}
            Ok(reports) => {
                self.shared.count("refused", reports);
                tracing::warn!(reports, reason, "reports cannot be delivered");
            }
            Err(error) => tracing::error!(error = &*error as &dyn Error, "cannot refuse reports"),
        }
    }
}
