//! Limits per address: login attempts, and viewers of live logs. Both live in memory: a restart
//! forgets them, which costs nothing that the token's 256 bits do not already protect.
//!
//! By hand and not with `governor`: it spreads attempts evenly over a time instead of counting them in a window, cannot
//! forget one key after a login that worked, and does not bound how many keys it holds by itself.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Addresses remembered at once; beyond it the oldest windows are dropped.
const MAX_ADDRESSES: usize = 10_000;

/// What counts as one caller: an IPv4 address, or an IPv6 network of 64 bits, because whoever has
/// one address of it has all of them.
fn caller(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let s = v6.segments();
            IpAddr::V6(Ipv6Addr::new(s[0], s[1], s[2], s[3], 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

/// So many attempts per window and address.
#[derive(Debug)]
pub struct Attempts {
    limit: u32,
    window: Duration,
    // A std mutex: nothing is awaited while it is held.
    seen: Mutex<HashMap<IpAddr, (Instant, u32)>>,
}

impl Attempts {
    /// At most `limit` attempts per `window`.
    #[must_use]
    pub fn new(limit: u32, window: Duration) -> Self {
        Self {
            limit,
            window,
            seen: Mutex::default(),
        }
    }

    /// Counts one attempt.
    ///
    /// # Errors
    /// When there were too many: how long to wait.
    pub fn count(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= MAX_ADDRESSES {
            seen.retain(|_, (since, _)| now.duration_since(*since) < self.window);
        }
        let full = seen.len() >= MAX_ADDRESSES;
        let key = caller(address);
        if full && !seen.contains_key(&key) {
            return Err(self.window);
        }
        let entry = seen.entry(key).or_insert((now, 0));
        if now.duration_since(entry.0) >= self.window {
            *entry = (now, 0);
        }
        if entry.1 >= self.limit {
            return Err(self.window.saturating_sub(now.duration_since(entry.0)));
        }
        entry.1 += 1;
        Ok(())
    }

    /// Forgets an address: it has proved itself.
    pub fn forget(&self, address: IpAddr) {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&caller(address));
    }
}

/// How many live streams there are, in all and per address.
#[derive(Debug, Clone)]
pub struct Viewers {
    per_address: usize,
    all: usize,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One open stream; dropping it frees its place.
#[derive(Debug)]
pub struct Viewer {
    viewers: Viewers,
    address: IpAddr,
}

impl Viewers {
    /// At most `per_address` of one caller and `all` together.
    #[must_use]
    pub fn new(per_address: usize, all: usize) -> Self {
        Self {
            per_address,
            all,
            open: Arc::default(),
        }
    }

    /// Takes a place, if there is one.
    #[must_use]
    pub fn enter(&self, address: IpAddr) -> Option<Viewer> {
        let address = caller(address);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.values().sum::<usize>() >= self.all {
            return None;
        }
        let mine = open.entry(address).or_default();
        if *mine >= self.per_address {
            return None;
        }
        *mine += 1;
        Some(Viewer {
            viewers: self.clone(),
            address,
        })
    }

    /// Streams open now.
    #[must_use]
    pub fn count(&self) -> usize {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        let mut open = self.viewers.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mine) = open.get_mut(&self.address) {
            *mine -= 1;
            if *mine == 0 {
                open.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    #[test]
    fn attempts_are_counted_per_window_and_network() {
        let limit = Attempts::new(2, Duration::from_secs(60));
        let start = Instant::now();
        assert!(limit.count(A, start).is_ok() && limit.count(A, start).is_ok());
        assert_eq!(
            limit.count(A, start + Duration::from_secs(20)),
            Err(Duration::from_secs(40))
        );
        assert!(limit.count(A, start + Duration::from_secs(60)).is_ok());
        let one: IpAddr = "2001:db8::1".parse().unwrap();
        let two: IpAddr = "2001:db8::2".parse().unwrap();
        assert!(limit.count(one, start).is_ok() && limit.count(two, start).is_ok());
        assert!(limit.count(one, start).is_err(), "one network, one caller");
        limit.forget(two);
        assert!(limit.count(one, start).is_ok());
    }

    #[test]
    fn a_viewer_frees_its_place() {
        let viewers = Viewers::new(1, 2);
        let first = viewers.enter(A).unwrap();
        assert!(viewers.enter(A).is_none());
        let other = viewers.enter("192.0.2.2".parse().unwrap()).unwrap();
        assert!(
            viewers.enter("192.0.2.3".parse().unwrap()).is_none(),
            "all places are taken"
        );
        drop(first);
        assert!(viewers.enter(A).is_some());
        drop(other);
        assert_eq!(viewers.count(), 0);
    }
}
