//! One lock per machine: a janitor's destroy and a driver's start never interleave.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::OwnedMutexGuard;

use crate::model::names::MachineName;

/// The locks of one back end; entries go with their machines.
#[derive(Debug, Default)]
pub(crate) struct Locks(Mutex<HashMap<MachineName, Arc<tokio::sync::Mutex<()>>>>);

impl Locks {
    /// Waits for a machine's lock, and holds it until the guard is dropped.
    pub(crate) async fn lock(&self, name: &MachineName) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Whoever holds or awaits a lock has a clone of it; nobody else needs the entry.
            locks.retain(|other, lock| other == name || Arc::strong_count(lock) > 1);
            locks.entry(name.clone()).or_default().clone()
        };
        lock.lock_owned().await
    }
}
