//! A token bucket: so much at once, so much per second. The clock is given, so it is pure.

use std::time::{Duration, Instant};

/// A token bucket that starts full.
#[derive(Debug, Clone)]
pub struct Bucket {
    tokens: f64,
    burst: f64,
    per_second: f64,
    filled: Instant,
}

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub fn new(per_second: f64, burst: u32, now: Instant) -> Self {
        Self {
            tokens: f64::from(burst),
            burst: f64::from(burst),
            per_second,
            filled: now,
        }
    }

    /// Takes one token, leaving at least `reserve` (0.0 to 1.0 of the burst) for more important
    /// takers; otherwise says how long until it could.
    ///
    /// # Errors
    /// The time to wait.
    pub fn take(&mut self, reserve: f64, now: Instant) -> Result<(), Duration> {
        match self.wait(reserve, now) {
            Duration::ZERO => {
                self.tokens -= 1.0;
                Ok(())
            }
            wait => Err(wait),
        }
    }

    /// How long until [`Bucket::take`] would succeed; zero when it would now.
    pub fn wait(&mut self, reserve: f64, now: Instant) -> Duration {
        self.fill(now);
        let missing = 1.0 + self.burst * reserve - self.tokens;
        if missing <= 0.0 {
            return Duration::ZERO;
        }
        // Never so short that it reads as none.
        Duration::from_secs_f64(missing / self.per_second).max(Duration::from_nanos(1))
    }

    /// Whether nothing was taken for long enough that forgetting the bucket changes nothing.
    pub fn is_full(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.tokens >= self.burst
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + passed * self.per_second).min(self.burst);
        self.filled = self.filled.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(2.0, 3, start);
        assert!((0..3).all(|_| bucket.take(0.0, start).is_ok()));
        assert_eq!(bucket.take(0.0, start), Err(Duration::from_millis(500)));
        assert!(bucket.take(0.0, start + Duration::from_millis(500)).is_ok());
        assert!(bucket.take(0.0, start + Duration::from_millis(600)).is_err());
        assert!(bucket.is_full(start + Duration::from_secs(10)));
    }

    #[test]
    fn a_reserve_is_kept_for_what_matters_more() {
        let start = Instant::now();
        let mut bucket = Bucket::new(1.0, 4, start);
        let lesser = (0..4).filter(|_| bucket.take(0.25, start).is_ok()).count();
        assert_eq!(lesser, 3);
        assert!(bucket.take(0.25, start).is_err());
        assert!(bucket.take(0.0, start).is_ok());
    }

    #[test]
    fn a_clock_that_steps_back_gives_nothing_away() {
        let start = Instant::now() + Duration::from_secs(10);
        let mut bucket = Bucket::new(1.0, 1, start);
        bucket.take(0.0, start).unwrap();
        assert!(bucket.take(0.0, start - Duration::from_secs(5)).is_err());
        assert!(bucket.take(0.0, start).is_err());
    }
}
