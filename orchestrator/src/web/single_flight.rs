//! One piece of work at a time: whoever asks for it while it goes on waits for the same result.

use std::{
    future::Future,
    sync::{Mutex, PoisonError},
};

use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};

/// The work that goes on, if any.
#[derive(Debug)]
pub(crate) struct SingleFlight<T: Clone>(Mutex<Option<Shared<BoxFuture<'static, T>>>>);

impl<T: Clone> Default for SingleFlight<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone + Send + Sync + 'static> SingleFlight<T> {
    /// The result of the work that goes on, else of `work`, which begins now and goes on when nobody waits any more.
    pub fn join<F>(&self, work: impl FnOnce() -> F) -> impl Future<Output = T> + Send + 'static
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(going_on) = current.as_ref().filter(|work| work.peek().is_none()) {
            return going_on.clone();
        }
        let started = work().boxed().shared();
        *current = Some(started.clone());
        tokio::spawn(started.clone());
        started
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn what_goes_on_is_joined_and_what_has_ended_begins_again() {
        let flight = SingleFlight::default();
        let (begun, go) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
        let work = || {
            let (begun, go) = (Arc::clone(&begun), Arc::clone(&go));
            async move {
                let number = begun.fetch_add(1, Ordering::SeqCst);
                go.notified().await;
                number
            }
        };
        let (first, second) = (flight.join(work), flight.join(work));
        drop(flight.join(work));
        go.notify_one();
        assert_eq!((first.await, second.await), (0, 0));
        go.notify_one();
        assert_eq!(flight.join(work).await, 1);
    }
}
