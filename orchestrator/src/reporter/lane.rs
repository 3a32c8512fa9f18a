//! One lane: the reports of one connection and forge context, told one after the other, as fast as the forge allows.
//!
//! Each is claimed right before it is told, so that it is the newest state, and a final one goes first. A lane closes when
//! its forge asks for a pause, does not answer, or does not accept who we are; it opens when the pause is over, or when the
//! forge answers again, which is asked with its cheapest call. What waits meanwhile stays due in the outbox, so all of it
//! goes when the lane opens. Every other failure is the report's own: it is put off, and the next one is told.

use std::{error::Error, sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{LEASE, Owed, REFUSED_AGAIN, STORE_PAUSE, Shared, noted};
use crate::{
    failpoint::{self, Point},
    forge::{Forge, ForgeError, throttle::Bucket},
    model::report::Lane,
};

/// A lane without reports ends; its throttle has forgotten everything by then.
const IDLE: Duration = Duration::from_secs(120);
/// One delivery with everything it needs. With [`SHORT_WAIT`] and [`ANSWER_WITHIN`] it ends before the lease.
const DELIVERY: Duration = Duration::from_secs(40);
/// What a delivery that is under way at a stop still gets; without an answer by then it is said again
/// after its lease.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// Shorter waits for the throttle are waited here; a report that waits longer is put off.
const SHORT_WAIT: Duration = Duration::from_secs(2);
/// Reports at once.
const BURST: u32 = 20;
/// What states that are not final leave in the bucket for those that are.
const RESERVE: f64 = 0.25;
/// The back-off of one report after its first failure and at most. It grows fourfold, so that a report that cannot be told
/// is asked about eight times in half an hour.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));
/// Tries of a report to which the forge answers with an error of its own: some forges store it all the same, and each try
/// leaves another copy. Then it counts as refused.
const TRIES: u32 = 8;
/// How long a forge may take to say that it is there.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// How often a forge that does not answer is asked whether it is there: what waits goes out within seconds of its return.
const ASK_AWAY: Duration = Duration::from_secs(1);
/// How often one that does not accept us is asked whether it does: only a person mends that.
const ASK_UNAUTHORIZED: Duration = Duration::from_secs(15);

const TURN: &str = "waiting for its turn";

/// A closed lane.
struct Closed {
    until: Instant,
    /// Whether the forge is asked before anything is told.
    ask: bool,
}

pub(super) struct LaneTask {
    lane: Lane,
    shared: Arc<Shared>,
    forge: Arc<dyn Forge>,
    bucket: Bucket,
    closed: Option<Closed>,
}

impl LaneTask {
    pub(super) fn new(lane: Lane, shared: Arc<Shared>, forge: Arc<dyn Forge>) -> Self {
        let per_second = f64::from(forge.reports_per_minute()) / 60.0;
        let bucket = Bucket::new(per_second, BURST, Instant::now().into_std());
        Self {
            lane,
            shared,
            forge,
            bucket,
            closed: None,
        }
    }

    /// Tells what is due whenever it is called, until stopped or idle for long.
    pub(super) async fn run(mut self, mut calls: mpsc::Receiver<()>, stop: CancellationToken) {
        loop {
            let call = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                call = timeout(IDLE, calls.recv()) => call,
            };
            match call {
                Ok(Some(())) => {}
                Ok(None) => return,
                Err(_) => {
                    // A call may have come at this moment.
                    calls.close();
                    if calls.try_recv().is_err() {
                        return;
                    }
                }
            }
            self.tell_all(&stop).await;
        }
    }

    /// Tells all that is due.
    async fn tell_all(&mut self, stop: &CancellationToken) {
        let mut any = false;
        while let Some(owed) = self.next(stop).await {
            any = true;
            let given_up = async {
                stop.cancelled().await;
                tokio::time::sleep(STOP_GRACE).await;
            };
            tokio::select! {
                () = self.take(&owed) => {}
                () = given_up => return,
            }
        }
        if any {
            self.shared.wake.notify_one();
        }
    }

    /// The next report to tell, once the lane is open; none when nothing is due, or at the stop. A claim is not broken off:
    /// its report would wait for the end of its lease.
    async fn next(&mut self, stop: &CancellationToken) -> Option<Owed> {
        loop {
            stop.run_until_cancelled(self.until_open()).await?;
            match self.shared.outbox.claim(&self.lane, LEASE).await {
                Ok(next) => return next,
                Err(error) => {
                    tracing::error!(error = &*error as &dyn Error, "cannot claim a report");
                    stop.run_until_cancelled(tokio::time::sleep(STORE_PAUSE)).await?;
                }
            }
        }
    }

    async fn until_open(&mut self) {
        while let Some(closed) = &self.closed {
            tokio::time::sleep_until(closed.until).await;
            if closed.ask
                && let Err(trouble) = self.ask().await
            {
                self.close(&trouble).await;
                continue;
            }
            tracing::info!(connection = %self.lane.connection, "the forge is told again what waits");
            self.closed = None;
        }
    }

    async fn take(&mut self, owed: &Owed) {
        let reserve = if owed.report.state.is_final() { 0.0 } else { RESERVE };
        while let Err(wait) = self.bucket.take(reserve, Instant::now().into_std()) {
            if wait > SHORT_WAIT {
                return noted(owed, self.shared.outbox.held(owed, wait, TURN).await);
            }
            tokio::time::sleep(wait).await;
        }
        let details = self.shared.details(&owed.report);
        let report = self.forge.report(&owed.report, &details, owed.remote.as_deref());
        match timeout(DELIVERY, report).await {
            Ok(Ok(remote)) => {
                failpoint::hit(Point::ReportSent);
                self.shared.count("delivered");
                noted(owed, self.shared.outbox.delivered(owed, remote.as_deref()).await);
            }
            Ok(Err(error)) => self.not_told(owed, &error).await,
            Err(_) => {
                let reason = format!("no complete answer within {} s", DELIVERY.as_secs());
                self.unanswered(owed, reason).await;
            }
        }
    }

    /// Decides whether a failure is the report's own or the whole lane's.
    async fn not_told(&mut self, owed: &Owed, error: &ForgeError) {
        let reason = error.to_string();
        let after = back_off(owed.tries).max(error.retry_after().unwrap_or_default());
        match error {
            ForgeError::Away {
                retry_after: Some(_), ..
            } => self.hold(owed, Trouble::of(error)).await,
            ForgeError::Away { .. } | ForgeError::Unauthorized { .. } => self.unanswered(owed, reason).await,
            ForgeError::Later { .. } if owed.tries + 1 >= TRIES => {
                let reason = format!(
                    "{reason}; that was try {}, and it is tried hourly from now on",
                    owed.tries + 1
                );
                self.shared.refused(owed, REFUSED_AGAIN, &reason).await;
            }
            ForgeError::Later { .. } => self.failed(owed, after, &reason).await,
            // Somebody may give us the right at any time.
            ForgeError::Forbidden { .. } => self.shared.refused(owed, after, &reason).await,
            ForgeError::Refused { .. } => self.shared.refused(owed, REFUSED_AGAIN, &reason).await,
        }
    }

    /// A delivery got no answer, or was answered that we are unknown: when the forge says the same to its cheapest call, the
    /// lane closes; otherwise it was about this report, and the next one is told.
    async fn unanswered(&mut self, owed: &Owed, reason: String) {
        match self.ask().await {
            Ok(()) => self.failed(owed, back_off(owed.tries), &reason).await,
            Err(trouble) => {
                tracing::info!(report = %owed.id, reason, "a report got no answer");
                self.hold(owed, trouble).await;
            }
        }
    }

    async fn failed(&self, owed: &Owed, after: Duration, reason: &str) {
        self.shared.count("put_off");
        tracing::info!(
            report = %owed.id, check = %owed.report.name, after_s = after.as_secs(), reason, "a report is put off"
        );
        noted(owed, self.shared.outbox.failed(owed, after, reason).await);
    }

    /// The lane's trouble is not this report's.
    async fn hold(&mut self, owed: &Owed, trouble: Trouble) {
        self.shared.count("put_off");
        tracing::info!(
            connection = %self.lane.connection, report = %owed.id, check = %owed.report.name, reason = trouble.reason,
            "the reports of a forge wait"
        );
        let after = trouble.asked.unwrap_or_default();
        noted(owed, self.shared.outbox.held(owed, after, &trouble.reason).await);
        self.close(&trouble).await;
    }

    async fn close(&mut self, trouble: &Trouble) {
        // Never at the same moment for all lanes; and never before the forge wants it.
        let pause = match trouble.asked {
            Some(asked) => asked + ASK_AWAY - jitter(ASK_AWAY),
            None => jitter(trouble.ask_every),
        };
        self.closed = Some(Closed {
            until: Instant::now() + pause,
            ask: trouble.asked.is_none(),
        });
        let after = trouble.asked.unwrap_or_default();
        if let Err(error) = self.shared.outbox.hold(&self.lane, after, &trouble.reason).await {
            tracing::warn!(error = &*error as &dyn Error, "cannot note why reports wait");
        }
    }

    /// Whether the forge is there and knows us.
    async fn ask(&self) -> Result<(), Trouble> {
        match timeout(ANSWER_WITHIN, self.forge.answers()).await {
            Ok(Err(error @ (ForgeError::Away { .. } | ForgeError::Unauthorized { .. }))) => Err(Trouble::of(&error)),
            Ok(_) => Ok(()),
            Err(_) => Err(Trouble {
                reason: format!("no complete answer within {} s", ANSWER_WITHIN.as_secs()),
                asked: None,
                ask_every: ASK_AWAY,
            }),
        }
    }
}

/// Why a lane closes.
struct Trouble {
    /// Without the call that found it: it is shown with other repositories' reports.
    reason: String,
    /// The pause that the forge asked for.
    asked: Option<Duration>,
    /// Otherwise it is asked so often whether it is there.
    ask_every: Duration,
}

impl Trouble {
    fn of(error: &ForgeError) -> Self {
        let (ask_every, reason) = match error {
            ForgeError::Unauthorized { forge, reason, .. } => (
                ASK_UNAUTHORIZED,
                format!("{forge} does not accept the credentials of this connection: {reason}"),
            ),
            ForgeError::Away { forge, reason, .. }
            | ForgeError::Later { forge, reason, .. }
            | ForgeError::Forbidden { forge, reason, .. }
            | ForgeError::Refused { forge, reason, .. } => (ASK_AWAY, format!("{forge} is away: {reason}")),
        };
        Self {
            reason,
            asked: error.retry_after(),
            ask_every,
        }
    }
}

/// How long after this many failures: growing, bounded, and never the same for all.
fn back_off(failures: u32) -> Duration {
    let grown = BACK_OFF.0.saturating_mul(4_u32.saturating_pow(failures.min(10)));
    jitter(grown.min(BACK_OFF.1))
}

/// Between half of it and all of it.
fn jitter(time: Duration) -> Duration {
    time.mul_f64(rand::random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_back_off_grows_and_stops_growing() {
        for (failures, seconds) in [(0, 1), (1, 4), (4, 256), (5, 600), (1000, 600), (u32::MAX, 600)] {
            let (least, most) = (Duration::from_millis(seconds * 500), Duration::from_secs(seconds));
            for _ in 0..50 {
                let wait = back_off(failures);
                assert!((least..=most).contains(&wait), "{failures}: {wait:?}");
            }
        }
    }
}
