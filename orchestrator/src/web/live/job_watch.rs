//! Waits until a job may have changed, and reads it again when it has. A hint about its run wakes at once; what other
//! nodes do gives no hint, so a timer polls as well. Either way three numbers are read first, and the job, with its plan,
//! only when they differ.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::stream::Gone;
use crate::{
    model::ids::{JobId, RunId},
    queue::{Hint, Receiver},
    store::{JobDetail, JobVersion},
    web::AppState,
};

/// The longest that a change without a hint goes unseen.
const POLL: Duration = Duration::from_secs(2);
/// The least time between two reads: a busy run gives many hints.
const MIN_INTERVAL: Duration = Duration::from_millis(250);

/// One viewer's watch over one job.
pub(super) struct JobWatch {
    pub id: JobId,
    run: RunId,
    hints: Receiver,
    /// A hint came since the job was read.
    hinted: bool,
    read: Instant,
    /// As it was when the job was last read whole.
    version: Option<JobVersion>,
}

impl JobWatch {
    /// Hears of every change from now on. What `job` says is read again at first, because it may be older.
    pub fn new(state: &AppState, job: &JobDetail) -> Self {
        Self {
            id: job.job.id,
            run: job.run.id,
            hints: state.hints().subscribe(),
            hinted: false,
            read: Instant::now(),
            version: None,
        }
    }

    /// Waits until the job should be read again. Given up, it loses nothing.
    pub async fn changed(&mut self) {
        if !self.hinted {
            let run = self.run;
            tokio::select! {
                more = self.hints.wait_for(|hint| hint == Hint::Run(run)) => {
                    // Without hints, at the daemon's end, the timer is all there is.
                    self.hinted = more;
                }
                () = sleep_until(self.read + POLL) => {}
            }
        }
        sleep_until(self.read + if self.hinted { MIN_INTERVAL } else { POLL }).await;
    }

    /// Whether the timer's time has come, for those who had something else to do than to wait for it.
    pub fn is_due(&self) -> bool {
        self.read.elapsed() >= POLL
    }

    /// Where the job stands, and nothing else of it.
    pub async fn version(&mut self, state: &AppState) -> Result<JobVersion, Gone> {
        (self.hinted, self.read) = (false, Instant::now());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{Hints as _, InProcess};

    #[tokio::test(start_paused = true)]
    async fn a_hint_about_the_run_wakes_soon_and_the_timer_without_one() {
        let (hints, run) = (InProcess::new(), RunId::new());
        let mut watch = JobWatch {
            id: JobId::new(),
            run,
            hints: hints.subscribe(),
            hinted: false,
            read: Instant::now(),
            version: None,
        };
        hints.notify(Hint::Run(RunId::new()));
        watch.changed().await;
        assert!(watch.read.elapsed() >= POLL, "another run is no matter");
        (watch.hinted, watch.read) = (false, Instant::now());
        hints.notify(Hint::Run(run));
        let half = tokio::time::timeout(MIN_INTERVAL / 2, watch.changed()).await;
        assert!(half.is_err(), "a busy run does not wake at each hint");
        // Given up in between, it has not forgotten the hint.
        watch.changed().await;
        assert!(watch.read.elapsed() >= MIN_INTERVAL && watch.read.elapsed() < POLL);
    }
}
