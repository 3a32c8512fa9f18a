//! How much may arrive: deliveries per connection and per address, bytes of bodies that are not stored yet, and how many
//! of these.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{forge::throttle::Bucket, model::names::ConnectionId};

/// Deliveries per second, per connection and per address.
const PER_SECOND: f64 = 100.0;
/// Deliveries at once.
const BURST: u32 = 500;
/// Addresses that are remembered; those that have been quiet are forgotten first.
const ADDRESSES: usize = 10_000;
/// Every body may be this large without asking: real deliveries are smaller, so that a flood of
/// large unverified ones cannot keep them out.
const FREE: usize = 64 * 1024;
/// All larger bodies that are not stored yet together, in KiB.
const BUDGET_KIB: usize = 256 * 1024;
/// Deliveries that have arrived whole and are not stored yet: nobody else counts those whose senders went away, and a
/// database that answers late must not gather them.
const KEPT: usize = 256;

/// The limits of one listener.
#[derive(Debug)]
pub struct Limits {
    connections: Mutex<HashMap<ConnectionId, Bucket>>,
    addresses: Mutex<HashMap<IpAddr, Bucket>>,
    budget: Arc<Semaphore>,
    kept: Arc<Semaphore>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: Mutex::default(),
            addresses: Mutex::default(),
            budget: Arc::new(Semaphore::new(BUDGET_KIB)),
            kept: Arc::new(Semaphore::new(KEPT)),
        }
    }
}

impl Limits {
    /// Counts one request of an address.
    ///
    /// # Errors
    /// How long to wait.
    pub fn for_address(&self, address: IpAddr) -> Result<(), Duration> {
        take(&self.addresses, network(address))
    }

    /// Counts one request for a connection, which must exist: only configured names are remembered.
    ///
    /// # Errors
    /// How long to wait.
    pub fn for_connection(&self, connection: &ConnectionId) -> Result<(), Duration> {
        take(&self.connections, connection.clone())
    }

    /// A place for one delivery that is to be stored; none when too many are.
    pub fn keep(&self) -> Option<OwnedSemaphorePermit> {
        self.kept.clone().try_acquire_owned().ok()
    }

    /// Room for one body that grows.
    pub fn body(&self) -> BodyRoom {
        BodyRoom {
            budget: self.budget.clone(),
            held: None,
            room: FREE,
        }
    }
}

/// The room one body takes; given back when dropped.
#[derive(Debug)]
pub struct BodyRoom {
    budget: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
    room: usize,
}

impl BodyRoom {
    /// Whether there is room for a body of this many bytes.
    pub fn grow(&mut self, bytes: usize) -> bool {
        let missing = bytes.saturating_sub(self.room).div_ceil(1024);
        if missing == 0 {
            return true;
        }
        let Ok(permits) = u32::try_from(missing) else {
            return false;
        };
        let Ok(more) = self.budget.clone().try_acquire_many_owned(permits) else {
            return false;
        };
        match &mut self.held {
            Some(held) => held.merge(more),
            None => self.held = Some(more),
        }
        self.room += missing * 1024;
        true
    }
}

/// An IPv6 customer has a /64, so that is what is counted.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6) >> 64 << 64)),
        v4 => v4,
    }
}

fn take<K: Hash + Eq>(buckets: &Mutex<HashMap<K, Bucket>>, key: K) -> Result<(), Duration> {
    let now = Instant::now();
    let mut buckets = buckets.lock().unwrap_or_else(PoisonError::into_inner);
    if buckets.len() >= ADDRESSES && !buckets.contains_key(&key) {
        buckets.retain(|_, bucket| !bucket.is_full(now));
        if buckets.len() >= ADDRESSES {
            // Ten thousand addresses are busy at once: an attack from many places.
            return Err(Duration::from_secs(1));
        }
    }
    buckets
        .entry(key)
        .or_insert_with(|| Bucket::new(PER_SECOND, BURST, now))
        .take(0.0, now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_use_up_another_ones_share() {
        let limits = Limits::default();
        let (a, b) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let refused = (0..10_000).find_map(|_| limits.for_address(a).err());
        assert!(refused.is_some_and(|wait| wait <= Duration::from_millis(10)));
        assert!(limits.for_address(b).is_ok());
    }

    #[test]
    fn addresses_of_one_customer_count_together() {
        assert_eq!(
            network("2001:db8::1".parse().unwrap()),
            network("2001:db8::ffff:1".parse().unwrap())
        );
        assert_ne!(
            network("2001:db8::1".parse().unwrap()),
            network("2001:db8:0:1::1".parse().unwrap())
        );
        assert_eq!(
            network("::ffff:192.0.2.1".parse().unwrap()),
            "192.0.2.1".parse::<IpAddr>().unwrap()
        );
    }

    #[test]
    fn large_bodies_share_a_budget_and_small_ones_need_none() {
        let limits = Limits::default();
        let mut held = Vec::new();
        loop {
            let mut room = limits.body();
            if !room.grow(25 * 1024 * 1024) {
                break;
            }
            held.push(room);
        }
        assert_eq!(held.len(), 10);
        assert!(limits.body().grow(FREE));
        held.pop();
        let mut room = limits.body();
        assert!(room.grow(FREE + 1) && room.grow(1024 * 1024) && room.grow(10));
    }
}
