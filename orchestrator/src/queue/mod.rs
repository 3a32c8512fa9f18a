//! Hints: they wake whoever should look at the database again, and carry no truth. Losing one costs
//! latency only, because everybody also looks at the database on a slow timer.

use std::fmt;

use tokio::sync::broadcast;

use crate::model::ids::{AttemptId, JobId, RunId};

/// What may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hint {
    /// A delivery was stored.
    Delivery,
    /// A trigger was stored.
    Trigger,
    /// A job was queued.
    Job,
    /// This node claimed this job: its newest attempt is another one.
    Claimed(JobId),
    /// The outbox has something new.
    Report,
    /// Somebody asked for the end of this attempt.
    Cancel(AttemptId),
    /// Something about a kept machine changed.
    Kept,
    /// Something about this run changed.
    Run(RunId),
    /// A machine is gone or a limit changed: there may be room for a job.
    Capacity,
}

/// What a subscriber is woken by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// This may have changed.
    Hint(Hint),
    /// Hints were lost: anything may have changed.
    Everything,
}

/// The way hints travel: within this process, or between nodes.
pub trait Hints: Send + Sync + fmt::Debug {
    /// Tells everybody; never waits and never fails.
    fn notify(&self, hint: Hint);

    /// Hears every hint from now on. Look at the database after subscribing, not before.
    fn subscribe(&self) -> Receiver;
}

/// Hints of one subscriber.
#[derive(Debug)]
pub struct Receiver(broadcast::Receiver<Hint>);

impl Receiver {
    /// Waits for the next hint. `None`: the sender is gone and there will be no more.
    pub async fn next(&mut self) -> Option<Wake> {
        match self.0.recv().await {
            Ok(hint) => Some(Wake::Hint(hint)),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(Wake::Everything),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }

    /// Waits until there may be news of this kind: a hint that is `wanted`, or hints were lost. False: there will be no
    /// more. Giving it up loses nothing but what was not wanted.
    pub async fn wait_for(&mut self, wanted: impl Fn(Hint) -> bool) -> bool {
        loop {
            match self.next().await {
                Some(Wake::Hint(hint)) if !wanted(hint) => {}
                wake => return wake.is_some(),
            }
        }
    }

    /// As [`Receiver::wait_for`], for whoever then looks at all there is: the hints that are here with the first are taken
    /// together with it, as one look answers them all.
    pub async fn wait_for_news(&mut self, wanted: impl Fn(Hint) -> bool) -> bool {
        let more = self.wait_for(wanted).await;
        // Only those that are here now: senders may be faster.
        for _ in 0..self.0.len() {
            let _ = self.0.try_recv();
        }
        more
    }
}

/// Hints each subscriber may be behind with before it is told to look at everything.
const BEHIND: usize = 1024;

/// Hints within one process. Clones share the subscribers.
#[derive(Debug, Clone)]
pub struct InProcess(broadcast::Sender<Hint>);

impl InProcess {
    /// No subscribers yet.
    #[must_use]
    pub fn new() -> Self {
        Self(broadcast::channel(BEHIND).0)
    }
}

impl Default for InProcess {
    fn default() -> Self {
        Self::new()
    }
}

impl Hints for InProcess {
    fn notify(&self, hint: Hint) {
        // An error only says that nobody listens now.
        let _ = self.0.send(hint);
    }

    fn subscribe(&self) -> Receiver {
        Receiver(self.0.subscribe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_subscriber_hears_every_hint() {
        let hints = InProcess::new();
        hints.notify(Hint::Job);
        let (mut a, mut b) = (hints.subscribe(), hints.subscribe());
        let run = RunId::new();
        hints.notify(Hint::Run(run));
        for receiver in [&mut a, &mut b] {
            assert_eq!(receiver.next().await, Some(Wake::Hint(Hint::Run(run))));
        }
    }

    #[tokio::test]
    async fn only_what_is_wanted_or_lost_ends_the_wait() {
        let hints = InProcess::new();
        let (mut quick, mut slow) = (hints.subscribe(), hints.subscribe());
        hints.notify(Hint::Job);
        hints.notify(Hint::Kept);
        assert!(quick.wait_for(|hint| hint == Hint::Kept).await);
        hints.notify(Hint::Job);
        for _ in 0..=BEHIND {
            hints.notify(Hint::Report);
        }
        assert!(
            slow.wait_for(|hint| hint == Hint::Kept).await,
            "it may have been among them"
        );
        drop(hints);
        while quick.next().await.is_some() {}
        assert!(!quick.wait_for(|_| true).await, "nobody is there");
    }

    #[tokio::test]
    async fn hints_that_came_together_are_answered_by_one_look() {
        let hints = InProcess::new();
        let mut receiver = hints.subscribe();
        for _ in 0..9 {
            hints.notify(Hint::Job);
            hints.notify(Hint::Report);
        }
        assert!(receiver.wait_for_news(|hint| hint == Hint::Job).await);
        hints.notify(Hint::Capacity);
        assert_eq!(receiver.next().await, Some(Wake::Hint(Hint::Capacity)));
    }

    #[tokio::test]
    async fn whoever_falls_behind_is_told_to_look_at_everything() {
        let hints = InProcess::new();
        let mut slow = hints.subscribe();
        for _ in 0..=BEHIND {
            hints.notify(Hint::Capacity);
        }
        assert_eq!(slow.next().await, Some(Wake::Everything));
        assert_eq!(slow.next().await, Some(Wake::Hint(Hint::Capacity)));
    }

    #[tokio::test]
    async fn the_end_of_the_sender_ends_the_wait() {
        let hints = InProcess::new();
        let mut receiver = hints.subscribe();
        drop(hints);
        assert_eq!(receiver.next().await, None);
    }
}
