//! The logs that are being written in this process: who may write, and what a writer shares with its readers.

use std::{
    collections::HashMap,
    fs::File,
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::{Semaphore, watch};

use super::{error::LogError, index::Index, record::RecordHeader};
use crate::{files, model::ids::AttemptId};

/// So many logs are compressed at once.
pub(super) const SEALS: usize = 2;

/// All logs of a node, and which of them are being written.
pub(super) struct LiveLogs {
    root: PathBuf,
    boot: Option<String>,
    /// Logs with a writer in this process. A std mutex: nothing is awaited while it is held.
    slots: Mutex<HashMap<AttemptId, Slot>>,
    /// Counts openings, ends and removals, so that readers of a log without a writer wake.
    changes: watch::Sender<u64>,
    /// Whose turn it is to be compressed.
    pub(super) seals: Arc<Semaphore>,
    /// The name of `root` is durable.
    root_is_durable: AtomicBool,
}

enum Slot {
    /// A writer is about to exist.
    Claimed,
    Open(Arc<LiveLog>),
}

/// What a writer shares with its readers.
pub(super) struct LiveLog {
    pub(super) file: Arc<File>,
    pub(super) path: PathBuf,
    pub(super) generation: u32,
    /// Locked for the time of a query or of noting one event's records.
    index: Mutex<Index>,
    /// The number of records; closed when the writer is gone.
    records: watch::Sender<u64>,
    /// Nothing comes any more, and all of it is durable.
    ended: AtomicBool,
}

impl LiveLog {
    /// Runs `query` on the index.
    pub(super) fn index<T>(&self, query: impl FnOnce(&Index) -> T) -> T {
        query(&lock(&self.index))
    }

    /// Lets readers see records that are written.
    pub(super) fn extend<'a>(&self, records: impl Iterator<Item = (u64, u64, RecordHeader, &'a [u8])>) {
        let mut index = lock(&self.index);
        for (offset, end, header, data) in records {
            index.push(offset, end, &header, data);
        }
        let count = index.records;
        drop(index);
        self.records.send_replace(count);
    }

    /// Lets readers see that this is all.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.records.send_modify(|_| {});
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// The number of records as it grows.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.records.subscribe()
    }
}

/// The right to become the writer; given back when dropped unused.
pub(super) struct Claim {
    logs: Arc<LiveLogs>,
    attempt: AttemptId,
    used: bool,
}

impl Claim {
    /// Becomes the writer of this file.
    pub(super) fn publish(mut self, file: Arc<File>, path: PathBuf, generation: u32, index: Index) -> Arc<LiveLog> {
        let (records, _) = watch::channel(index.records);
        let live = Arc::new(LiveLog {
            file,
            path,
            generation,
            index: Mutex::new(index),
            records,
            ended: AtomicBool::new(false),
        });
        self.used = true;
        lock(&self.logs.slots).insert(self.attempt, Slot::Open(Arc::clone(&live)));
        self.logs.notify();
        live
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.used {
            self.logs.release(self.attempt);
        }
    }
}

impl LiveLogs {
    /// None yet, of the logs under `root`. `boot` tells this boot of the host from others.
    pub(super) fn new(root: PathBuf, boot: Option<String>) -> Self {
        Self {
            root,
            boot,
            slots: Mutex::default(),
            changes: watch::channel(0).0,
            seals: Arc::new(Semaphore::new(SEALS)),
            root_is_durable: AtomicBool::new(false),
        }
    }

    /// Makes durable that a log's directory holds its files, and that the directory is there. Blocks.
    pub(super) fn sync_names(&self, attempt: AttemptId) -> io::Result<()> {
        files::sync_dir(&self.dir(attempt))?;
        files::sync_dir(&self.root)?;
        if let Some(above) = self.root.parent()
            && !self.root_is_durable.load(Ordering::Relaxed)
        {
            files::sync_dir(above)?;
            self.root_is_durable.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The directory of a log.
    pub(super) fn dir(&self, attempt: AttemptId) -> PathBuf {
        self.root.join(attempt.to_string())
    }

    /// Which boot of the host this is.
    pub(super) fn boot(&self) -> Option<String> {
        self.boot.clone()
    }

    /// The log as its writer shares it, when it has one.
    pub(super) fn get(&self, attempt: AttemptId) -> Option<Arc<LiveLog>> {
        match lock(&self.slots).get(&attempt) {
            Some(Slot::Open(live)) => Some(Arc::clone(live)),
            _ => None,
        }
    }

    /// Makes the caller the only one who may write or remove the log.
    pub(super) fn claim(self: &Arc<Self>, attempt: AttemptId) -> Result<Claim, LogError> {
        let mut slots = lock(&self.slots);
        if slots.contains_key(&attempt) {
            return Err(LogError::Busy { attempt });
        }
        slots.insert(attempt, Slot::Claimed);
        Ok(Claim {
            logs: Arc::clone(self),
            attempt,
            used: false,
        })
    }

    /// The writer is gone.
    pub(super) fn release(&self, attempt: AttemptId) {
        lock(&self.slots).remove(&attempt);
        self.notify();
    }

    /// Changes whenever a log gets a writer, loses it or is removed.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn notify(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }
}

/// A panic elsewhere does not make the data worse: every change under these locks is complete.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
