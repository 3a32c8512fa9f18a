//! One lane: the reports of one connection and forge context, delivered one after the other, as fast as the forge allows.
//!
//! Each is claimed right before it is sent, so that it is the newest state, and a final one goes first: while the throttle
//! has only tokens for those, only those are claimed. A lane closes when its forge asks for a pause, does not answer, does
//! not accept who we are, or fails at its cheapest call, too; it opens when the pause is over, or when the forge answers
//! that call again. What waits meanwhile stays due in the outbox, so all of it goes when the lane opens. Every other
//! failure is the report's own: it is put off, and the next one is sent. The first success afterwards makes what was put
//! off due at once, as the failures may have been the forge's all the same.

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
    store::ReportStates,
};

/// A lane without reports ends; its throttle has forgotten everything by then.
const IDLE: Duration = Duration::from_secs(120);
/// One delivery with everything it needs. With [`ANSWER_WITHIN`] it ends before the lease.
const DELIVERY: Duration = Duration::from_secs(40);
/// What a delivery that is under way at a stop still gets; without an answer by then it is sent again
/// after its lease.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// Reports at once.
const BURST: u32 = 20;
/// What states that are not final leave in the bucket for those that are.
const RESERVE: f64 = 0.25;
/// The back-off of one report after its first failure and at most. It grows fourfold, so that a report that cannot be
/// delivered is tried eight times in half an hour.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));
/// Tries of a report that fails although its forge is there: some forges store it all the same, and each try leaves another
/// copy. Then it counts as refused.
const TRIES: u32 = 8;
/// What failed so often or more is not made due by the success of another report.
const RETRIES: u32 = 24;
/// What failed is made due by another's success this often at most.
const RETRY_INTERVAL: Duration = Duration::from_secs(300);
/// How long a forge may take to say that it is there.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// How often a forge that does not answer is asked whether it is there: what waits goes out within seconds of its return.
const ASK_AWAY: Duration = Duration::from_secs(1);
/// How often one that does not accept us is asked whether it does: only a person mends that.
const ASK_UNAUTHORIZED: Duration = Duration::from_secs(15);

/// A closed lane.
struct Closed {
    until: Instant,
    /// Whether the forge is asked before anything is sent.
    ask: bool,
}

pub(super) struct LaneTask {
    lane: Lane,
    shared: Arc<Shared>,
    forge: Arc<dyn Forge>,
    bucket: Bucket,
    closed: Option<Closed>,
    /// Whether any report failed since the last success, as far as is known: a lane's task ends while it is idle.
    failures: bool,
    /// When a success last made due what had failed.
    retried: Option<Instant>,
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
            failures: true,
            retried: None,
        }
    }

    /// Delivers what is due whenever it is called, until stopped or idle for long.
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
            self.deliver_all(&mut calls, &stop).await;
        }
    }

    /// Delivers all that is due.
    async fn deliver_all(&mut self, calls: &mut mpsc::Receiver<()>, stop: &CancellationToken) {
        let mut any = false;
        while let Some(owed) = self.next(calls, stop).await {
            any = true;
            let given_up = async {
                stop.cancelled().await;
                tokio::time::sleep(STOP_GRACE).await;
            };
            tokio::select! {
                () = self.deliver(&owed) => {}
                () = given_up => return,
            }
        }
        if any {
            self.shared.wake.notify_one();
        }
    }

    /// The next report to send, once the lane is open and the throttle lets it pass; none when nothing is due, or at the
    /// stop. A claim is not broken off: its report would wait for the end of its lease.
    async fn next(&mut self, calls: &mut mpsc::Receiver<()>, stop: &CancellationToken) -> Option<Owed> {
        loop {
            stop.run_until_cancelled(self.until_open()).await?;
            let now = Instant::now().into_std();
            let turn = self.bucket.wait(0.0, now);
            if !turn.is_zero() {
                stop.run_until_cancelled(tokio::time::sleep(turn)).await?;
                continue;
            }
            let turn_of_all = self.bucket.wait(RESERVE, now);
            let states = match turn_of_all {
                Duration::ZERO => ReportStates::All,
                _ => ReportStates::Final,
            };
            match self.shared.outbox.claim(&self.lane, states, LEASE).await {
                Ok(Some(owed)) => {
                    // Nobody else takes of it.
                    let _taken = self.bucket.take(0.0, now);
                    return Some(owed);
                }
                Ok(None) if states == ReportStates::All => return None,
                Ok(None) => {
                    // A final state may come meanwhile.
                    let called = timeout(turn_of_all, calls.recv());
                    if let Ok(None) = stop.run_until_cancelled(called).await? {
                        return None;
                    }
                }
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
                && let Err(pause) = self.ask().await
            {
                self.close(&pause).await;
                continue;
            }
            tracing::info!(connection = %self.lane.connection, "what waits is reported to the forge again");
            self.closed = None;
        }
    }

    async fn deliver(&mut self, owed: &Owed) {
        let details = self.shared.details(&owed.report);
        let report = self.forge.report(&owed.report, &details, owed.remote.as_deref());
        match timeout(DELIVERY, report).await {
            Ok(Ok(remote)) => self.reported(owed, remote.as_deref()).await,
            Ok(Err(error)) => self.not_reported(owed, Some(&error), error.to_string()).await,
            Err(_) => {
                let reason = format!("no complete answer within {} s", DELIVERY.as_secs());
                self.not_reported(owed, None, reason).await;
            }
        }
    }

    async fn reported(&mut self, owed: &Owed, remote: Option<&str>) {
        failpoint::hit(Point::ReportSent);
        self.shared.count("delivered", 1);
        noted(owed, self.shared.outbox.delivered(owed, remote).await);
        if !self.failures || self.retried.is_some_and(|at| at.elapsed() < RETRY_INTERVAL) {
            return;
        }
        (self.failures, self.retried) = (false, Some(Instant::now()));
        if let Err(error) = self.shared.outbox.retry_failed(&self.lane, RETRIES).await {
            tracing::warn!(error = &*error as &dyn Error, "cannot make due what failed before");
        }
    }

    /// Decides whether a failure is the report's own or the whole lane's. `error` is the forge's answer, if there was one.
    async fn not_reported(&mut self, owed: &Owed, error: Option<&ForgeError>, reason: String) {
        self.failures = true;
        let asked = error.and_then(ForgeError::retry_after);
        let pause = match (error, asked) {
            (Some(error @ ForgeError::Away { .. }), Some(asked)) => {
                // Behind the others: one that is always answered so would keep them waiting for ever.
                self.failed(owed, asked + back_off(owed.tries), &reason).await;
                return self.close(&Pause::of(error)).await;
            }
            // The forge knows us, or it would not say what we may not.
            (Some(ForgeError::Forbidden { .. }), _) => None,
            _ => self.ask().await.err(),
        };
        if let Some(pause) = pause {
            tracing::info!(report = %owed.id, reason, "a report was not taken");
            return self.hold(owed, &pause).await;
        }
        let (tried, again) = (owed.tries + 1, back_off(owed.tries));
        match error {
            Some(ForgeError::Refused { .. }) => self.refused(owed, REFUSED_AGAIN, &reason).await,
            _ if tried >= TRIES => {
                let reason = format!("{reason}; that was try {tried}, and it is tried hourly from now on");
                self.refused(owed, REFUSED_AGAIN, &reason).await;
            }
            // Somebody may give us the right at any time.
            Some(ForgeError::Forbidden { .. }) => self.refused(owed, again, &reason).await,
            _ => self.failed(owed, again.max(asked.unwrap_or_default()), &reason).await,
        }
    }

    async fn refused(&self, owed: &Owed, after: Duration, reason: &str) {
        self.shared.count("refused", 1);
        let (report, check, again_s) = (owed.id, &owed.report.name, after.as_secs());
        if owed.tries == 0 || owed.tries + 1 == TRIES {
            tracing::warn!(%report, %check, again_s, reason, "the forge refused a report");
        } else {
            tracing::debug!(%report, %check, again_s, reason, "the forge refused a report again");
        }
        noted(owed, self.shared.outbox.refused(owed, after, reason).await);
    }

    async fn failed(&self, owed: &Owed, after: Duration, reason: &str) {
        self.shared.count("put_off", 1);
        tracing::info!(
            report = %owed.id, check = %owed.report.name, after_s = after.as_secs(), reason, "a report is put off"
        );
        noted(owed, self.shared.outbox.failed(owed, after, reason).await);
    }

    /// What closes the lane is not this report's fault.
    async fn hold(&mut self, owed: &Owed, pause: &Pause) {
        self.shared.count("put_off", 1);
        tracing::info!(
            connection = %self.lane.connection, report = %owed.id, check = %owed.report.name, reason = pause.reason,
            "the reports of a forge wait"
        );
        let after = pause.asked.unwrap_or_default();
        noted(owed, self.shared.outbox.held(owed, after, &pause.reason).await);
        self.close(pause).await;
    }

    async fn close(&mut self, pause: &Pause) {
        // Never at the same moment for all lanes; and never before the forge wants it.
        let time = match pause.asked {
            Some(asked) => asked + ASK_AWAY - jitter(ASK_AWAY),
            None => jitter(pause.ask_every),
        };
        self.closed = Some(Closed {
            until: Instant::now() + time,
            ask: pause.asked.is_none(),
        });
        let after = pause.asked.unwrap_or_default();
        if let Err(error) = self.shared.outbox.hold(&self.lane, after, &pause.reason).await {
            tracing::warn!(error = &*error as &dyn Error, "cannot note why reports wait");
        }
    }

    /// Whether the forge is there and knows us.
    async fn ask(&self) -> Result<(), Pause> {
        match timeout(ANSWER_WITHIN, self.forge.answers()).await {
            Ok(Ok(()) | Err(ForgeError::Forbidden { .. })) => Ok(()),
            Ok(Err(error)) => Err(Pause::of(&error)),
            Err(_) => Err(Pause {
                reason: format!("no complete answer within {} s", ANSWER_WITHIN.as_secs()),
                asked: None,
                ask_every: ASK_AWAY,
            }),
        }
    }
}

/// Why a lane closes, and for how long.
struct Pause {
    /// Without the call that found it: it is shown with other repositories' reports.
    reason: String,
    /// What the forge asked for.
    asked: Option<Duration>,
    /// Otherwise it is asked so often whether it is there.
    ask_every: Duration,
}

impl Pause {
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
            asked: error.retry_after().map(|asked| asked.max(ASK_AWAY)),
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
