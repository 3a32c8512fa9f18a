//! Space: what datasets use, and what is left for them.

use super::{name, parse_number};
use crate::{
    host::Host,
    state::{Dataset, Kind},
    volume,
};

/// What an empty file system takes.
const EMPTY: u64 = 24 << 10;

fn set(dataset: &Dataset, property: &str) -> u64 {
    dataset
        .local
        .get(property)
        .and_then(|value| parse_number(value))
        .unwrap_or(0)
}

/// Bytes that a dataset refers to.
#[must_use]
pub fn refer(host: &Host, name: &str) -> u64 {
    match host.state.datasets.get(name) {
        Some(dataset) if dataset.kind == Kind::Volume => volume::allocated(&volume::node(host, name)),
        Some(dataset) if dataset.kind == Kind::Snapshot && dataset.volsize > 0 => {
            volume::allocated(&volume::frozen(host, dataset.guid))
        }
        Some(_) => EMPTY,
        None => 0,
    }
}

/// Bytes that a dataset alone takes: a clone shares its origin's. What is written over those counts only where the
/// origin has nothing, so a guest seems to take less here than it does on a real host, never more.
fn own(host: &Host, name: &str, dataset: &Dataset) -> u64 {
    let origin = dataset
        .origin
        .as_ref()
        .and_then(|origin| host.state.datasets.get(origin));
    let shared = origin.map_or(0, |origin| volume::allocated(&volume::frozen(host, origin.guid)));
    refer(host, name).saturating_sub(if dataset.kind == Kind::Volume { shared } else { 0 })
}

/// Bytes that a dataset uses with everything below it.
#[must_use]
pub fn used(host: &Host, top: &str) -> u64 {
    let Some(dataset) = host.state.datasets.get(top) else {
        return 0;
    };
    if dataset.kind == Kind::Snapshot {
        return 0;
    }
    let own = own(host, top, dataset).max(set(dataset, "refreservation"));
    let below: u64 = host
        .state
        .datasets
        .keys()
        .filter(|other| !other.contains('@') && name::parent(other) == Some(top))
        .map(|other| used(host, other))
        .sum();
    (own + below).max(set(dataset, "reservation"))
}

/// Bytes left for a dataset: by its pool, and by every quota above it.
#[must_use]
pub fn available(host: &Host, name: &str) -> u64 {
    let pool = name.split(['/', '@']).next().unwrap_or_default();
    let size = host.state.pools.get(pool).map_or(0, |pool| pool.size);
    let mut left = size.saturating_sub(used(host, pool));
    let mut at = Some(name);
    while let Some(here) = at {
        if let Some(dataset) = host.state.datasets.get(here) {
            let quota = set(dataset, "quota");
            if quota > 0 {
                left = left.min(quota.saturating_sub(used(host, here)));
            }
        }
        at = name::parent(here);
    }
    left
}
