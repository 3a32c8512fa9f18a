//! Where logs live, who writes them, and how readers find them: open in this process, left behind by
//! another, or sealed, all through the same calls.

use std::{
    collections::{HashMap, VecDeque},
    fs::{self, File},
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use futures::Stream;
use tokio::sync::watch;

use super::{
    boot,
    error::LogError,
    index::{Index, StepSpan},
    read::{Source, View},
    record::Header,
    recover, seal,
    types::{Change, Line, LinePage, LogSummary, Page, Position},
    writer::LogWriter,
};
use crate::model::ids::AttemptId;

/// How many indexes of logs that are not open here stay in memory.
const CACHED: usize = 16;

/// All logs of a node. Cheap to clone.
#[derive(Clone)]
pub struct LogStore(Arc<Inner>);

struct Inner {
    root: PathBuf,
    boot: Option<String>,
    /// Logs with a writer in this process. A std mutex: nothing is awaited while it is held.
    live: Mutex<HashMap<AttemptId, Slot>>,
    /// Readable logs without a writer, most recently used last; the length tells a stale one.
    cache: Mutex<VecDeque<(AttemptId, u64, View)>>,
    /// Counts openings, ends and removals, so that readers of a log without a writer wake.
    changes: watch::Sender<u64>,
}

enum Slot {
    /// A writer is about to exist.
    Claimed,
    Open(Arc<Live>),
}

/// What a writer shares with its readers.
pub(super) struct Live {
    pub(super) file: Arc<File>,
    pub(super) path: PathBuf,
    pub(super) generation: u32,
    /// Locked for the time of a look-up or of noting one event's records.
    index: Mutex<Index>,
    /// The number of records; closed when the writer is gone.
    records: watch::Sender<u64>,
}

impl Live {
    /// Runs `look` on the index.
    pub(super) fn index<T>(&self, look: impl FnOnce(&Index) -> T) -> T {
        look(&lock(&self.index))
    }

    /// Lets readers see records that are written.
    pub(super) fn extend<'a>(&self, records: impl Iterator<Item = (u64, u64, Header, &'a [u8])>) {
        let mut index = lock(&self.index);
        for (offset, end, header, data) in records {
            index.push(offset, end, &header, data);
        }
        let count = index.records;
        drop(index);
        self.records.send_replace(count);
    }
}

/// The right to become the writer; given back when dropped unused.
pub(super) struct Claim {
    store: LogStore,
    attempt: AttemptId,
    used: bool,
}

impl Claim {
    pub(super) fn publish(mut self, file: Arc<File>, path: PathBuf, generation: u32, index: Index) -> Arc<Live> {
        let (records, _) = watch::channel(index.records);
        let live = Arc::new(Live {
            file,
            path,
            generation,
            index: Mutex::new(index),
            records,
        });
        self.used = true;
        lock(&self.store.0.live).insert(self.attempt, Slot::Open(Arc::clone(&live)));
        self.store.notify();
        live
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.used {
            self.store.release(self.attempt);
        }
    }
}

/// A panic elsewhere does not make the data worse: every change under these locks is complete.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LogStore {
    /// The logs under `<data>/logs`.
    #[must_use]
    pub fn new(data: &Path) -> Self {
        Self::with_boot(data, boot::boot_id())
    }

    pub(super) fn with_boot(data: &Path, boot: Option<String>) -> Self {
        Self(Arc::new(Inner {
            root: data.join("logs"),
            boot,
            live: Mutex::default(),
            cache: Mutex::default(),
            changes: watch::channel(0).0,
        }))
    }

    /// Records from a place on: at most `max`, and at most a mebibyte beyond the first. An empty page
    /// of a log that has not ended means that nothing is there yet.
    pub async fn read(&self, attempt: AttemptId, from: Position, max: usize) -> Result<Page, LogError> {
        self.with(attempt, move |view| view.page(from, max)).await
    }

    /// Records from a place on, for as long as the log grows; the last page says `ended`. Waits for a
    /// log that does not exist yet. A slow reader costs the writer nothing: it reads from the file.
    pub fn follow(
        &self,
        attempt: AttemptId,
        from: Position,
    ) -> impl Stream<Item = Result<Page, LogError>> + Send + use<> {
        let store = self.clone();
        futures::stream::unfold(Some(from), move |from| {
            let store = store.clone();
            async move {
                let page = store.next_page(attempt, from?).await;
                let next = match &page {
                    Ok(page) if !page.ended => Some(page.next),
                    _ => None,
                };
                Some((page, next))
            }
        })
    }

    async fn next_page(&self, attempt: AttemptId, from: Position) -> Result<Page, LogError> {
        self.wait_for(attempt, from, move |view| {
            let page = view.page(from, 4096)?;
            let something = page.ended || page.resync || !page.records.is_empty();
            Ok(something.then_some(page))
        })
        .await
    }

    /// Waits until there is more of a log than a reader at `since` has seen: records, its end, or another generation.
    /// Waits for a log that does not exist yet. Reads no record. May be dropped and called again.
    pub async fn changed(&self, attempt: AttemptId, since: Position) -> Result<Change, LogError> {
        self.wait_for(attempt, since, move |view| Ok(view.change(since))).await
    }

    /// Looks at a log, whenever it changed, until `look` finds something.
    async fn wait_for<T: Send + 'static>(
        &self,
        attempt: AttemptId,
        since: Position,
        look: impl Fn(&View) -> Result<Option<T>, LogError> + Clone + Send + 'static,
    ) -> Result<T, LogError> {
        let mut existed = since.generation > 0;
        loop {
            // Subscribed before the look, so that no change falls between look and wait.
            let mut changes = self.0.changes.subscribe();
            let live = self.live(attempt).map(|live| live.records.subscribe());
            match self.with(attempt, look.clone()).await {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => existed = true,
                Err(LogError::NotFound { .. }) if !existed => {}
                Err(error) => return Err(error),
            }
            match live {
                // An error means that the writer is gone: the next look says how it ended.
                Some(mut records) => drop(records.changed().await),
                None => drop(changes.changed().await),
            }
        }
    }

    /// Lines from a number (from 1) on: at most `max`, and at most four mebibytes beyond the first.
    /// The last line of a log that is still written may grow.
    pub async fn lines(&self, attempt: AttemptId, from_line: u64, max: usize) -> Result<LinePage, LogError> {
        self.with(attempt, move |view| view.lines(from_line, max)).await
    }

    /// The place behind the last record so far: where a reader goes on that has seen everything.
    pub async fn end(&self, attempt: AttemptId) -> Result<Position, LogError> {
        self.with(attempt, |view| Ok(view.end())).await
    }

    /// The lines of each step so far, in the order in which the steps first printed.
    pub async fn steps(&self, attempt: AttemptId) -> Result<Vec<StepSpan>, LogError> {
        self.with(attempt, |view| Ok(view.index(|index| index.steps.clone())))
            .await
    }

    /// Bytes of plain text so far: all channels in order.
    pub async fn text_len(&self, attempt: AttemptId) -> Result<u64, LogError> {
        self.with(attempt, |view| Ok(view.index(|index| index.text))).await
    }

    /// Plain text, for HTTP ranges: at most four mebibytes at once; fewer bytes than asked for mean
    /// that the caller asks again from there, none that the text ends.
    pub async fn text_range(&self, attempt: AttemptId, range: Range<u64>) -> Result<Bytes, LogError> {
        self.with(attempt, move |view| view.text(range)).await
    }

    /// The last lines, of one step or of all; at most 10 000.
    pub async fn tail(&self, attempt: AttemptId, step: Option<u32>, lines: usize) -> Result<Vec<Line>, LogError> {
        self.with(attempt, move |view| view.tail(step, lines.min(10_000))).await
    }

    /// A sealed log in numbers; none while it is not sealed.
    pub async fn summary(&self, attempt: AttemptId) -> Result<Option<LogSummary>, LogError> {
        self.with(attempt, |view| Ok(view.summary())).await
    }

    /// Whether there is a log of this attempt on this node.
    pub async fn exists(&self, attempt: AttemptId) -> bool {
        let dir = self.dir(attempt);
        let found = tokio::task::spawn_blocking(move || {
            dir.join(recover::SEALED).exists() || dir.join(recover::RECORDS).exists()
        });
        found.await.unwrap_or(false)
    }

    /// Seals the log of an attempt that has ended, which its writer left open. Succeeds when it is sealed already, or
    /// when there is none; does not while it has a writer.
    pub async fn seal_left(&self, attempt: AttemptId) -> Result<(), LogError> {
        if !self.exists(attempt).await {
            return Ok(());
        }
        let store = self.clone();
        let opened = tokio::task::spawn_blocking(move || LogWriter::open_left(store, attempt));
        match opened.await.map_err(|_| LogError::Stopping { attempt })? {
            Ok(writer) => writer.seal().await.map(drop),
            Err(LogError::Sealed { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes the log. Removing what is not there succeeds; removing under a writer does not.
    pub async fn remove(&self, attempt: AttemptId) -> Result<(), LogError> {
        let store = self.clone();
        let removed = tokio::task::spawn_blocking(move || {
            let _claim = store.claim(attempt)?;
            lock(&store.0.cache).retain(|(id, ..)| *id != attempt);
            let dir = store.dir(attempt);
            match fs::remove_dir_all(&dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(LogError::io("remove", &dir, error)),
                _ => Ok(()),
            }
        });
        removed.await.map_err(|_| LogError::Stopping { attempt })?
    }

    pub(super) fn dir(&self, attempt: AttemptId) -> PathBuf {
        self.0.root.join(attempt.to_string())
    }

    pub(super) fn boot(&self) -> Option<String> {
        self.0.boot.clone()
    }

    /// Makes the caller the only one who may write or remove the log.
    pub(super) fn claim(&self, attempt: AttemptId) -> Result<Claim, LogError> {
        let mut live = lock(&self.0.live);
        if live.contains_key(&attempt) {
            return Err(LogError::Busy { attempt });
        }
        live.insert(attempt, Slot::Claimed);
        Ok(Claim {
            store: self.clone(),
            attempt,
            used: false,
        })
    }

    /// The writer is gone.
    pub(super) fn release(&self, attempt: AttemptId) {
        lock(&self.0.live).remove(&attempt);
        self.notify();
    }

    /// Compresses a finished log and removes the plain one.
    pub(super) fn seal(&self, attempt: AttemptId, live: &Live, left_out: u64) -> Result<LogSummary, LogError> {
        let dir = self.dir(attempt);
        let summary = seal::write(&dir, &live.file, &live.path, live.generation, left_out)?;
        seal::remove_plain(&dir)?;
        Ok(summary)
    }

    /// Wakes the readers of logs without a writer.
    fn notify(&self) {
        self.0.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn live(&self, attempt: AttemptId) -> Option<Arc<Live>> {
        match lock(&self.0.live).get(&attempt) {
            Some(Slot::Open(live)) => Some(Arc::clone(live)),
            _ => None,
        }
    }

    /// Runs `look` on the log, on a thread that may block.
    async fn with<T: Send + 'static>(
        &self,
        attempt: AttemptId,
        look: impl FnOnce(&View) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let store = self.clone();
        let looked = tokio::task::spawn_blocking(move || look(&store.view(attempt)?));
        looked.await.map_err(|_| LogError::Stopping { attempt })?
    }

    fn view(&self, attempt: AttemptId) -> Result<View, LogError> {
        if let Some(live) = self.live(attempt) {
            return Ok(View::live(live));
        }
        let dir = self.dir(attempt);
        // The sealed file first: once it is there, the plain one is a leftover.
        for name in [recover::SEALED, recover::RECORDS] {
            let path = dir.join(name);
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(LogError::io("open", &path, error)),
            };
            let length = file
                .metadata()
                .map_err(|error| LogError::io("look at", &path, error))?
                .len();
            if let Some(view) = self.cached(attempt, length) {
                return Ok(view);
            }
            let view = if name == recover::SEALED {
                View::sealed(seal::Sealed::open(file, path)?)
            } else {
                let scan = recover::scan(&file, &path, None)?;
                let generation = recover::read_meta(&dir)?.map_or(1, |meta| meta.generation);
                View::left(Source::Plain(Arc::new(file), path), generation, Arc::new(scan.index))
            };
            let mut cache = lock(&self.0.cache);
            cache.retain(|(id, ..)| *id != attempt);
            cache.push_back((attempt, length, view.clone()));
            if cache.len() > CACHED {
                cache.pop_front();
            }
            return Ok(view);
        }
        Err(LogError::NotFound { attempt })
    }

    fn cached(&self, attempt: AttemptId, length: u64) -> Option<View> {
        let mut cache = lock(&self.0.cache);
        let at = cache
            .iter()
            .position(|(id, known, _)| *id == attempt && *known == length)?;
        let entry = cache.remove(at)?;
        let view = entry.2.clone();
        cache.push_back(entry);
        Some(view)
    }
}

#[cfg(test)]
mod tests;
