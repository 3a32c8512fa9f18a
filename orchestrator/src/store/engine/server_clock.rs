//! The database server's time without asking for it: what it was when it was last read, and what has passed since by
//! this host's monotonic clock, so that no clock that is set here matters.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Instant,
};

/// See the module. Every transaction that writes sets it, so it is wrong by no more than a round trip and the drift of
/// some seconds: good for reads that compare times, while leases are given and checked with the server's own time.
#[derive(Debug)]
pub(in crate::store) struct ServerClock {
    began: Instant,
    /// The server's time, in milliseconds since 1970, at `began`.
    at_beginning_ms: AtomicI64,
}

impl ServerClock {
    /// A clock that shows `now_ms`.
    pub(in crate::store) fn new(now_ms: i64) -> Self {
        Self {
            began: Instant::now(),
            at_beginning_ms: AtomicI64::new(now_ms),
        }
    }

    fn passed_ms(&self) -> i64 {
        i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX / 2)
    }

    /// The server's clock shows `now_ms`.
    pub(in crate::store) fn set(&self, now_ms: i64) {
        self.at_beginning_ms.store(now_ms - self.passed_ms(), Ordering::Relaxed);
    }

    /// What the server's clock shows, in milliseconds since 1970.
    pub(in crate::store) fn now_ms(&self) -> i64 {
        self.at_beginning_ms.load(Ordering::Relaxed) + self.passed_ms()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_the_server_and_never_this_hosts_clock() {
        let clock = ServerClock::new(1000);
        let first = clock.now_ms();
        assert!((1000..60_000).contains(&first), "{first}");
        assert!(clock.now_ms() >= first);
        clock.set(-5_000_000);
        let back = clock.now_ms();
        assert!((-5_000_000..-4_900_000).contains(&back), "{back}");
    }
}
