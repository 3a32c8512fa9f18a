//! The reports of one connection and forge context, sent one after the other, as fast as the forge allows.

use std::{error::Error, sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Owed, Shared};
use crate::failpoint::{self, Point};
use crate::forge::{Forge, ForgeError, throttle::Bucket};

/// A queue without reports ends; its throttle has forgotten everything by then.
const IDLE: Duration = Duration::from_secs(120);
/// A report that waited longer than this may be outdated, and its lease too short for a delivery.
const FRESH: Duration = Duration::from_secs(15);
/// One delivery with everything it needs. With [`FRESH`] it ends before the lease.
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
/// The back-off of one report: doubles from the first to the last.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));
/// The longest pause of a queue whose forge does not answer.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

const TURN: &str = "waiting for its turn";

/// A claimed report and when it was claimed.
pub(super) struct Queued {
    pub(super) owed: Owed,
    pub(super) since: Instant,
}

pub(super) struct SendQueue {
    shared: Arc<Shared>,
    forge: Arc<dyn Forge>,
    bucket: Bucket,
    /// Until then the forge is left alone: it asked for it, or does not answer.
    paused: Option<(Instant, String)>,
    /// Deliveries in a row that got no answer.
    silent: u32,
}

impl SendQueue {
    pub(super) fn new(shared: Arc<Shared>, forge: Arc<dyn Forge>) -> Self {
        let per_second = f64::from(forge.reports_per_minute()) / 60.0;
        let bucket = Bucket::new(per_second, BURST, Instant::now().into_std());
        Self {
            shared,
            forge,
            bucket,
            paused: None,
            silent: 0,
        }
    }

    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Queued>, stop: CancellationToken) {
        loop {
            let next = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                next = timeout(IDLE, queue.recv()) => next,
            };
            let Ok(Some(queued)) = next else { break };
            let given_up = async {
                stop.cancelled().await;
                tokio::time::sleep(STOP_GRACE).await;
            };
            tokio::select! {
                () = self.take(queued) => {}
                () = given_up => break,
            }
        }
        // What a closing queue still holds is due again at once, not after its lease.
        queue.close();
        while let Some(queued) = queue.recv().await {
            self.shared.later(&queued.owed, Duration::ZERO, TURN).await;
        }
    }

    async fn take(&mut self, queued: Queued) {
        let owed = queued.owed;
        if queued.since.elapsed() > FRESH {
            return self.shared.later(&owed, Duration::ZERO, TURN).await;
        }
        if let Some((until, reason)) = &self.paused {
            let left = until.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                return self
                    .shared
                    .later(&owed, left + jitter(Duration::from_secs(2)), reason)
                    .await;
            }
            self.paused = None;
        }
        let reserve = if owed.report.state.is_final() { 0.0 } else { RESERVE };
        while let Err(wait) = self.bucket.take(reserve, Instant::now().into_std()) {
            if wait > SHORT_WAIT {
                return self.shared.later(&owed, wait, TURN).await;
            }
            tokio::time::sleep(wait).await;
        }
        self.deliver(&owed).await;
    }

    async fn deliver(&mut self, owed: &Owed) {
        let details = self.shared.details(&owed.report);
        let report = self.forge.report(&owed.report, &details, owed.remote.as_deref());
        match timeout(DELIVERY, report).await {
            Ok(Ok(remote)) => {
                failpoint::hit(Point::ReportSent);
                self.silent = 0;
                self.shared.count("delivered");
                self.shared.succeeded(owed.id);
                if let Err(error) = self.shared.outbox.delivered(owed, remote.as_deref()).await {
                    // It is sent once more after the lease: a report is delivered at least once.
                    tracing::warn!(report = %owed.id, error = &*error as &dyn Error, "cannot note a delivered report");
                }
                self.shared.wake.notify_one();
            }
            Ok(Err(
                error @ (ForgeError::Refused { .. } | ForgeError::Forbidden { .. } | ForgeError::Unauthorized { .. }),
            )) => {
                self.silent = 0;
                self.shared.refused(owed, &error.to_string()).await;
            }
            Ok(Err(error @ (ForgeError::Later { .. } | ForgeError::Away { .. }))) => {
                self.put_off(owed, error.retry_after(), &error.to_string()).await;
            }
            Err(_) => {
                let reason = format!("no complete answer within {} s", DELIVERY.as_secs());
                self.put_off(owed, None, &reason).await;
            }
        }
    }

    async fn put_off(&mut self, owed: &Owed, asked: Option<Duration>, reason: &str) {
        self.shared.count("put_off");
        let after = back_off(self.shared.failed(owed.id)).max(asked.unwrap_or_default());
        // What the forge asks for holds for everything we would send it; and one that does not answer
        // is not asked for every report in turn.
        let pause = match asked {
            Some(asked) => asked,
            None => doubled(BACK_OFF.0, self.silent).min(LONGEST_PAUSE),
        };
        self.silent = self.silent.saturating_add(1);
        self.paused = Some((Instant::now() + pause, reason.to_owned()));
        tracing::info!(report = %owed.id, check = %owed.report.name, after_s = after.as_secs(), reason, "a report is put off");
        self.shared.later(owed, after, reason).await;
    }
}

/// How long after this many failures: doubling, bounded, and never the same for all.
fn back_off(failures: u32) -> Duration {
    jitter(doubled(BACK_OFF.0, failures).min(BACK_OFF.1))
}

fn doubled(first: Duration, times: u32) -> Duration {
    first.saturating_mul(2_u32.saturating_pow(times.min(20)))
}

/// Between half of it and all of it.
pub(super) fn jitter(time: Duration) -> Duration {
    time.mul_f64(rand::random_range(0.5..=1.0))
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn the_back_off_grows_and_stops_growing() {
        for (failures, seconds) in [(0, 1), (1, 2), (5, 32), (10, 600), (1000, 600), (u32::MAX, 600)] {
            let (least, most) = (Duration::from_millis(seconds * 500), Duration::from_secs(seconds));
            for _ in 0..50 {
                let wait = back_off(failures);
                assert!((least..=most).contains(&wait), "{failures}: {wait:?}");
            }
        }
    }
}
