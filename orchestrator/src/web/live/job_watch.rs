//! Waits until a job may have changed, and reads it again when it has. Its claim wakes at once, other hints about its run
//! soon; what other nodes do gives no hint, so a timer polls as well. In any case a few numbers are read first, and the
//! job, with its plan, only when they differ.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::stream::Gone;
use crate::{
    model::ids::{JobId, RunId},
    queue::{Hint, Receiver, Wake},
    store::{JobDetail, JobVersion},
    web::AppState,
};

/// The longest that a change without a hint goes unseen.
const POLL: Duration = Duration::from_secs(2);
/// The least time between two reads: a busy run gives many hints.
const MIN_INTERVAL: Duration = Duration::from_millis(250);

/// How often streams look for what nobody hinted at. Never where a test says so, which shows by it that hints suffice; a
/// release build does not ask.
#[must_use]
pub fn poll() -> Option<Duration> {
    let never = cfg!(debug_assertions) && std::env::var_os("HELIOS_CI_NO_STREAM_POLL").is_some();
    (!never).then_some(POLL)
}

/// When the job should be read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// At the next poll: there was no hint.
    AtPoll,
    /// Something about its run changed.
    Soon,
    /// It has a new attempt, whose first lines somebody waits for.
    Now,
}

/// One viewer's watch over one job.
pub(super) struct JobWatch {
    pub id: JobId,
    run: RunId,
    /// None at the daemon's end, when there will be no more.
    hints: Option<Receiver>,
    poll: Option<Duration>,
    due: Due,
    read: Instant,
    /// As it was when the job was last read whole.
    version: Option<JobVersion>,
}

impl JobWatch {
    /// Watches a job that was read after `hints` were subscribed to, so that no change falls between.
    pub fn new(state: &AppState, hints: Receiver, job: &JobDetail) -> Self {
        Self {
            id: job.job.id,
            run: job.run.id,
            hints: Some(hints),
            poll: state.stream_poll(),
            due: Due::AtPoll,
            read: Instant::now(),
            version: None,
        }
    }

    /// Waits until the job should be read again. Given up, it loses nothing.
    pub async fn changed(&mut self) {
        while let Some(at) = self.when_due() {
            tokio::select! {
                wake = next(&mut self.hints) => self.note(wake),
                () = at => return,
            }
        }
    }

    /// The time at which the job should be read again; none when that is now.
    fn when_due(&self) -> Option<impl Future<Output = ()> + use<>> {
        let at = match self.due {
            Due::Now => return None,
            Due::Soon => Some(self.read + MIN_INTERVAL),
            Due::AtPoll => self.poll.map(|poll| self.read + poll),
        };
        Some(async move {
            match at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        })
    }

    fn note(&mut self, wake: Option<Wake>) {
        let due = match wake {
            Some(Wake::Hint(Hint::Claimed(job))) if job == self.id => Due::Now,
            Some(Wake::Hint(Hint::Run(run))) if run == self.run => Due::Soon,
            Some(Wake::Everything) => Due::Soon,
            Some(Wake::Hint(_)) => return,
            None => {
                self.hints = None;
                return;
            }
        };
        self.due = self.due.max(due);
    }

    /// Whether the timer's time has come, for those who had something else to do than to wait for it.
    pub fn is_due(&self) -> bool {
        self.poll.is_some_and(|poll| self.read.elapsed() >= poll)
    }

    /// Where the job stands, and nothing else of it.
    pub async fn version(&mut self, state: &AppState) -> Result<JobVersion, Gone> {
        (self.due, self.read) = (Due::AtPoll, Instant::now());
        state.store().job_version(self.id).await.ok().flatten().ok_or(Gone)
    }

    /// The whole job.
    pub async fn read(&mut self, state: &AppState) -> Result<JobDetail, Gone> {
        // The version first: what changes between the two is read again.
        self.version = Some(self.version(state).await?);
        state.store().job(self.id).await.ok().flatten().ok_or(Gone)
    }

    /// Reads the job again if anything about it changed.
    pub async fn refresh(&mut self, state: &AppState, job: &mut JobDetail) -> Result<(), Gone> {
        let version = self.version(state).await?;
        if self.version.as_ref() != Some(&version) {
            *job = self.read(state).await?;
        }
        Ok(())
    }
}

/// The next hint; `None` when the last was given, and never again after that.
async fn next(hints: &mut Option<Receiver>) -> Option<Wake> {
    match hints {
        Some(hints) => hints.next().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{Hints as _, InProcess};

    fn watch(hints: &InProcess) -> JobWatch {
        JobWatch {
            id: JobId::new(),
            run: RunId::new(),
            hints: Some(hints.subscribe()),
            poll: Some(POLL),
            due: Due::AtPoll,
            read: Instant::now(),
            version: None,
        }
    }

    fn was_read(watch: &mut JobWatch) {
        (watch.due, watch.read) = (Due::AtPoll, Instant::now());
    }

    // Of a clock that stands still but for those who sleep.
    #[tokio::test(start_paused = true)]
    async fn a_hint_about_the_run_wakes_soon_and_the_timer_without_one() {
        let hints = InProcess::new();
        let mut watch = watch(&hints);
        hints.notify(Hint::Run(RunId::new()));
        hints.notify(Hint::Claimed(JobId::new()));
        watch.changed().await;
        assert!(
            watch.read.elapsed() >= POLL,
            "another run is no matter, nor another job"
        );
        was_read(&mut watch);
        hints.notify(Hint::Run(watch.run));
        let half = tokio::time::timeout(MIN_INTERVAL / 2, watch.changed()).await;
        assert!(half.is_err(), "a busy run does not wake at each hint");
        // Given up in between, it has not forgotten the hint.
        watch.changed().await;
        assert!(watch.read.elapsed() >= MIN_INTERVAL && watch.read.elapsed() < POLL);
    }

    #[tokio::test(start_paused = true)]
    async fn a_claim_wakes_at_once_whatever_was_hinted_at_before() {
        let hints = InProcess::new();
        let mut watch = watch(&hints);
        hints.notify(Hint::Run(watch.run));
        hints.notify(Hint::Claimed(watch.id));
        hints.notify(Hint::Run(watch.run));
        watch.changed().await;
        assert_eq!(watch.read.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn without_hints_the_timer_is_all_there_is() {
        let hints = InProcess::new();
        let mut watch = watch(&hints);
        drop(hints);
        watch.changed().await;
        assert!(watch.read.elapsed() >= POLL);
        was_read(&mut watch);
        watch.changed().await;
        assert!(watch.read.elapsed() >= POLL, "again");
    }
}
