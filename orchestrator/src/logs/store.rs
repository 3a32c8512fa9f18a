//! Where logs live, who writes them, and how readers find them: open in this process, left behind by
//! another, or sealed, all through the same calls.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures::Stream;

use super::{
    boot,
    error::LogError,
    index::StepSpan,
    live::{LiveLogs, lock},
    log_dir,
    read::{Source, View},
    recover, seal,
    types::{Change, Line, LinePage, LogState, LogSummary, Page, Position},
    writer::LogWriter,
};
use crate::{model::ids::AttemptId, secret::Secret};

/// How many indexes of logs that are not open here stay in memory.
const CACHED: usize = 16;

/// All logs of a node. Cheap to clone.
#[derive(Clone)]
pub struct LogStore {
    logs: Arc<LiveLogs>,
    cache: Arc<Mutex<Cache>>,
}

/// Readable logs without a writer, most recently used last; the length tells a stale one.
type Cache = VecDeque<(AttemptId, u64, View)>;

impl LogStore {
    /// The logs under `<data>/logs`.
    #[must_use]
    pub fn new(data: &Path) -> Self {
        Self::with_boot(data, boot::boot_id())
    }

    pub(super) fn with_boot(data: &Path, boot: Option<String>) -> Self {
        Self {
            logs: Arc::new(LiveLogs::new(data.join("logs"), boot)),
            cache: Arc::default(),
        }
    }

    /// Opens an attempt's log for writing, new or left behind by another daemon, whose half-written end is cut
    /// off. `cap` is in bytes of the plain file; `resume` is what the driver's checkpoint remembers.
    pub async fn open_writer(
        &self,
        attempt: AttemptId,
        masks: Vec<Secret>,
        cap: u64,
        resume: Option<LogState>,
    ) -> Result<LogWriter, LogError> {
        let logs = Arc::clone(&self.logs);
        let opened = tokio::task::spawn_blocking(move || LogWriter::open(logs, attempt, masks, cap, resume));
        opened.await.map_err(|_| LogError::Stopping { attempt })?
    }

    /// Records from a position on: at most `max`, and at most a mebibyte beyond the first. An empty page
    /// of a log that has not ended means that nothing is there yet.
    pub async fn read(&self, attempt: AttemptId, from: Position, max: usize) -> Result<Page, LogError> {
        self.with(attempt, move |view| view.page(from, max)).await
    }

    /// Records from a position on, for as long as the log grows; the last page says `ended`. Waits for a
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

    /// Queries a log, whenever it changed, until `query` finds something.
    async fn wait_for<T: Send + 'static>(
        &self,
        attempt: AttemptId,
        since: Position,
        query: impl Fn(&View) -> Result<Option<T>, LogError> + Clone + Send + 'static,
    ) -> Result<T, LogError> {
        let mut existed = since.generation > 0;
        loop {
            // Subscribed before the query, so that no change falls between query and wait.
            let mut changes = self.logs.subscribe();
            let live = self.logs.get(attempt).map(|live| live.subscribe());
            match self.with(attempt, query.clone()).await {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => existed = true,
                Err(LogError::NotFound { .. }) if !existed => {}
                Err(error) => return Err(error),
            }
            match live {
                // An error means that the writer is gone: the next query says how it ended.
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

    /// The position behind the last record so far: where a reader goes on that has seen everything.
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
            dir.join(log_dir::SEALED).exists() || dir.join(log_dir::RECORDS).exists()
        });
        found.await.unwrap_or(false)
    }

    /// Seals the log of an attempt that has ended, which its writer left open. Succeeds when it is sealed already, or
    /// when there is none; does not while it has a writer.
    pub async fn seal_left(&self, attempt: AttemptId) -> Result<(), LogError> {
        if !self.exists(attempt).await {
            return Ok(());
        }
        let logs = Arc::clone(&self.logs);
        let opened = tokio::task::spawn_blocking(move || LogWriter::open_left(logs, attempt));
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
            let _claim = store.logs.claim(attempt)?;
            lock(&store.cache).retain(|(id, ..)| *id != attempt);
            let dir = store.dir(attempt);
            match fs::remove_dir_all(&dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(LogError::io("remove", &dir, error)),
                _ => Ok(()),
            }
        });
        removed.await.map_err(|_| LogError::Stopping { attempt })?
    }

    pub(super) fn dir(&self, attempt: AttemptId) -> PathBuf {
        self.logs.dir(attempt)
    }

    /// Runs `query` on the log, on a thread that may block.
    async fn with<T: Send + 'static>(
        &self,
        attempt: AttemptId,
        query: impl FnOnce(&View) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let store = self.clone();
        let answer = tokio::task::spawn_blocking(move || query(&store.view(attempt)?));
        answer.await.map_err(|_| LogError::Stopping { attempt })?
    }

    fn view(&self, attempt: AttemptId) -> Result<View, LogError> {
        if let Some(live) = self.logs.get(attempt) {
            return Ok(View::live(live));
        }
        let dir = self.dir(attempt);
        // The sealed file first: once it is there, the plain one is a leftover.
        for name in [log_dir::SEALED, log_dir::RECORDS] {
            let path = dir.join(name);
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(LogError::io("open", &path, error)),
            };
            let length = file
                .metadata()
                .map_err(|error| LogError::io("inspect", &path, error))?
                .len();
            if let Some(view) = self.cached(attempt, length) {
                return Ok(view);
            }
            let view = if name == log_dir::SEALED {
                View::sealed(seal::Sealed::open(file, path)?)
            } else {
                // The format first: records of another one would be taken for damage.
                let generation = log_dir::read_meta(&dir)?.map_or(1, |meta| meta.generation);
                let recovered = recover::recover(&file, &path, None)?;
                View::left(
                    Source::Plain(Arc::new(file), path),
                    generation,
                    Arc::new(recovered.index),
                )
            };
            let mut cache = lock(&self.cache);
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
        let mut cache = lock(&self.cache);
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
