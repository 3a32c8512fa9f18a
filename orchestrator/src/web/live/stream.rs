//! Live logs as server-sent events. Every viewer reads the file at its own pace: a slow one delays
//! nobody, holds a few events at most, and is sent away with `resync` when it stops reading.
//!
//! | event | of | data |
//! |---|---|---|
//! | `lines` | page | lines of one step as HTML; a line that was shown before replaces it |
//! | `skip` | page | lines that came too fast to be shown |
//! | `step`, `state` | page | a step or the job changed |
//! | `log` | API | one record |
//! | `resync` | both | what is shown no longer holds, or the log cannot be read here: ask again, and be told |
//! | `end` | both | nothing follows |
//!
//! The id of an event says where to read on; a client that comes back with it (`Last-Event-ID`, or
//! `?from=`) misses nothing and gets nothing twice.

use std::{collections::HashMap, convert::Infallible, str::FromStr, time::Duration};

use axum::{
    extract::{Path, Query, State},
    http::HeaderMap,
    response::{
        Sse,
        sse::{Event, KeepAlive},
    },
};
use base64::Engine as _;
use futures::StreamExt as _;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    log_text::{LogPlace, attempt_of, log_of, log_place},
    log_view::{Renderer, lead},
    utf8::Decoder,
};
use crate::{
    clock::now_ms,
    logs::{Channel, LogError, LogRecord, LogStore, Position},
    model::{
        ids::{AttemptId, JobId},
        state::JobState,
    },
    store::{AttemptRow, JobDetail, JobVersion},
    web::{
        AppState,
        api::{job_for, parse},
        authorize::Action,
        http::{limits::Viewer, problem::Problem},
        identity::Caller,
        pages::{job, runs::waiting, view},
    },
};

/// Events held for a viewer that does not read.
const BUFFER: usize = 4;
/// A viewer that takes nothing for so long is sent away.
const SLOW: Duration = Duration::from_secs(20);
/// How often the job's state is read while its log is silent, and at most while it is not.
const POLL: Duration = Duration::from_secs(1);
/// A stream ends after this long and the client comes back: rights are looked at again.
const MAX_AGE: Duration = Duration::from_secs(600);
/// Lines in one event.
const BATCH: usize = 100;
/// A page that is so many lines behind the end skips to it.
const TOO_FAR_BEHIND: u64 = 3000;
/// How long a client waits before it comes back, in milliseconds.
const RETRY: Duration = Duration::from_millis(1500);

/// `?…` of the streams.
#[derive(Debug, Deserialize, Default)]
pub struct StreamQuery {
    from: Option<String>,
    #[serde(rename = "try")]
    number: Option<u32>,
}

/// The viewer is gone, or was sent away.
struct Gone;

/// Where events go.
struct Sink {
    tx: mpsc::Sender<Event>,
    /// One place is kept back, so that a slow viewer can still be told to start again.
    spare: Option<mpsc::OwnedPermit<Event>>,
    _viewer: Viewer,
}

impl Sink {
    async fn send(&mut self, event: Event) -> Result<(), Gone> {
        match tokio::time::timeout(SLOW, self.tx.send(event)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Gone),
            Err(_) => {
                if let Some(spare) = self.spare.take() {
                    spare.send(Event::default().event("resync").data("{}"));
                }
                Err(Gone)
            }
        }
    }

    async fn json(&mut self, name: &str, id: Option<String>, data: &Value) -> Result<(), Gone> {
        let event = Event::default().event(name).data(data.to_string());
        self.send(match id {
            Some(id) => event.id(id),
            None => event,
        })
        .await
    }
}

type Events = Sse<
    axum::response::sse::KeepAliveStream<
        futures::stream::Map<ReceiverStream<Event>, fn(Event) -> Result<Event, Infallible>>,
    >,
>;

/// Starts a stream: `produce` runs until it is done, the viewer is gone, the daemon stops or the
/// stream is old.
async fn start<F>(state: &AppState, caller: &Caller, produce: F) -> Result<Events, Problem>
where
    F: AsyncProducer,
{
    let viewer = state
        .viewers()
        .enter(caller.address)
        .ok_or_else(|| Problem::too_many("Too many live logs are open from your address. Close one.", 10))?;
    let (tx, rx) = mpsc::channel(BUFFER);
    let spare = tx.clone().reserve_owned().await.ok();
    let mut sink = Sink {
        tx,
        spare,
        _viewer: viewer,
    };
    let state = state.clone();
    tokio::spawn(async move {
        let closed = sink.tx.clone();
        let hello = sink.send(Event::default().retry(RETRY)).await;
        if hello.is_err() {
            return;
        }
        tokio::select! {
            _ = produce.run(&state, &mut sink) => {}
            () = closed.closed() => {}
            () = state.draining().cancelled() => {}
            () = tokio::time::sleep(MAX_AGE) => {}
        }
    });
    let ok: fn(Event) -> Result<Event, Infallible> = Ok;
    Ok(Sse::new(ReceiverStream::new(rx).map(ok))
        .keep_alive(KeepAlive::new().interval(Duration::from_secs(15)).text("still here")))
}

/// What a stream sends.
trait AsyncProducer: Send + 'static {
    fn run(self, state: &AppState, sink: &mut Sink) -> impl Future<Output = Result<(), Gone>> + Send;
}

fn last_event_id(headers: &HeaderMap) -> Option<&str> {
    headers
        .get("last-event-id")
        .and_then(|v| v.to_str().ok())
        .filter(|v| !v.is_empty())
}

/// Waits until the job has an attempt whose log may be followed, or never will have.
async fn attempt_or_end(state: &AppState, job: JobId, number: Option<u32>) -> Result<Option<AttemptRow>, Gone> {
    loop {
        let version = state.store().job_version(job).await.ok().flatten().ok_or(Gone)?;
        if version.attempt.is_some() {
            let detail = state.store().job(job).await.ok().flatten().ok_or(Gone)?;
            return attempt_of(&detail, number).map(|a| a.cloned()).map_err(|_| Gone);
        }
        if version.state.is_terminal() {
            return Ok(None);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Whether a log will never come: its attempt has ended, and there is none.
async fn never_comes(state: &AppState, attempt: AttemptId) -> bool {
    let row = state.store().attempt(attempt).await.ok().flatten();
    row.is_none_or(|row| row.state.is_terminal()) && !state.logs().exists(attempt).await
}

// --- the API: records ---

struct Records {
    job: JobId,
    number: Option<u32>,
    from: Position,
}

/// Makes text of records. A character may be cut between two records of a channel: it belongs to the
/// one that ends it.
#[derive(Default)]
struct Texts(HashMap<(u32, Channel), Decoder>);

/// For a reader that comes back: so many records before its place are looked through for the beginning
/// of a character. Behind more of another channel's a cut one is broken for it, though not in `base64`.
const LEAD: u64 = 16;

impl Texts {
    async fn before(logs: &LogStore, attempt: AttemptId, from: Position) -> Self {
        let mut texts = Self::default();
        let count = from.record.min(LEAD);
        let lead = Position {
            record: from.record - count,
            ..from
        };
        // Whoever follows hears of a log that cannot be read, or of another generation.
        if let Ok(page) = logs.read(attempt, lead, count as usize).await {
            texts.seed(&page.records);
        }
        texts
    }

    fn seed(&mut self, records: &[LogRecord]) {
        for record in records {
            self.of(record);
        }
    }

    fn of(&mut self, record: &LogRecord) -> String {
        let mut text = String::with_capacity(record.data.len());
        let decoder = self.0.entry((record.step, record.channel)).or_default();
        decoder.feed(&record.data, &mut text);
        text
    }
}

fn record_json(record: &LogRecord, text: &str) -> Value {
    let mut value = json!({
        "position": record.position.to_string(),
        "step": record.step,
        "channel": record.channel.as_str(),
        "time": view::rfc3339(record.node_ms),
        "text": text,
    });
    // The text is the record's bytes only when no character is cut and all are characters.
    if text.as_bytes() != &record.data[..] {
        value["base64"] = json!(base64::engine::general_purpose::STANDARD.encode(&record.data));
    }
    value
}

/// The place behind a record.
fn behind(record: &LogRecord) -> Position {
    Position {
        generation: record.position.generation,
        record: record.position.record + 1,
    }
}

impl Records {
    /// Sends records until the log's end.
    async fn follow(&self, state: &AppState, sink: &mut Sink, attempt: AttemptId) -> Result<(), Gone> {
        let mut texts = Texts::before(state.logs(), attempt, self.from).await;
        let pages = state.logs().follow(attempt, self.from);
        tokio::pin!(pages);
        let mut begun = false;
        loop {
            let page = tokio::select! {
                page = pages.next() => page,
                () = tokio::time::sleep(POLL), if !begun => {
                    if never_comes(state, attempt).await {
                        return Ok(());
                    }
                    continue;
                }
            };
            let Some(page) = page else { return Ok(()) };
            begun = true;
            let page = match page {
                Ok(page) => page,
                Err(error) => return failed(sink, &error).await.and(Err(Gone)),
            };
            if page.resync {
                texts = Texts::default();
                let from = page.next.to_string();
                sink.json("resync", Some(from.clone()), &json!({ "from": from }))
                    .await?;
            }
            for record in &page.records {
                let value = record_json(record, &texts.of(record));
                sink.json("log", Some(behind(record).to_string()), &value).await?;
            }
            if page.ended {
                return Ok(());
            }
        }
    }
}

impl AsyncProducer for Records {
    async fn run(self, state: &AppState, sink: &mut Sink) -> Result<(), Gone> {
        let attempt = attempt_or_end(state, self.job, self.number).await?;
        if let Some(attempt) = &attempt {
            // It began after the request was answered: who asks again is told.
            if matches!(log_place(state, attempt).await, LogPlace::Elsewhere | LogPlace::Removed) {
                return sink.json("resync", None, &json!({})).await;
            }
            self.follow(state, sink, attempt.id).await?;
        }
        let attempt = attempt.map(|attempt| attempt.id);
        let job = state.store().job_version(self.job).await.ok().flatten();
        let words = job.map(|job| job.state.as_str());
        sink.json("end", None, &json!({"attempt": attempt, "state": words}))
            .await
    }
}

/// A log that cannot be read: our log says why, the viewer starts again later.
async fn failed(sink: &mut Sink, error: &LogError) -> Result<(), Gone> {
    tracing::warn!(%error, "following a log failed");
    sink.json("resync", None, &json!({})).await
}

/// `GET /api/v1/jobs/{id}/logs/stream`
pub async fn api(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Query<StreamQuery>,
    headers: HeaderMap,
) -> Result<Events, Problem> {
    let job = job_for(&state, &caller, Action::See, &id).await?;
    log_of(&state, &caller, &job, query.number).await?;
    let from = match last_event_id(&headers).or(query.from.as_deref()) {
        Some(text) => parse(text)?,
        None => Position::START,
    };
    start(
        &state,
        &caller,
        Records {
            job: job.job.id,
            number: query.number,
            from,
        },
    )
    .await
}

// --- the page: lines, steps and the job's state ---

/// Where a page reads on. The place in the file says when there is more; the last line that was shown,
/// and how long it was then, say what: that line may have grown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::web) struct Cursor {
    /// Everything before it was looked at.
    pub position: Position,
    /// The last line shown, by its number in the attempt; 0 for none.
    pub line: u64,
    /// Its length in bytes when it was shown.
    pub len: usize,
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.position, self.line, self.len)
    }
}

/// Text that is no place of a page's stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a place in a page's stream is written like 1:20:7:80 (generation, record, line, its length)")]
pub(in crate::web) struct BadCursor;

impl FromStr for Cursor {
    type Err = BadCursor;
    fn from_str(text: &str) -> Result<Self, BadCursor> {
        let (rest, len) = text.rsplit_once(':').ok_or(BadCursor)?;
        let (position, line) = rest.rsplit_once(':').ok_or(BadCursor)?;
        Ok(Self {
            position: position.parse().map_err(|_| BadCursor)?,
            line: line.parse().map_err(|_| BadCursor)?,
            len: len.parse().map_err(|_| BadCursor)?,
        })
    }
}

struct Lines {
    job: JobId,
    shown: Option<AttemptId>,
    cursor: Cursor,
}

/// What was told last, so that only changes are told.
#[derive(Default)]
struct Told {
    state: Value,
    steps: Vec<Value>,
}

impl Told {
    async fn tell(&mut self, state: &AppState, sink: &mut Sink, job: &JobDetail) -> Result<(), Gone> {
        let now = now_ms();
        for row in &job.steps {
            let badge = view::step(row.state, row.allowed_failure);
            let took = row
                .ended_ms
                .and_then(|_| view::elapsed(row.started_ms, row.ended_ms, now));
            let step = json!({"index": row.index, "name": row.name, "word": badge.word, "shape": badge.shape,
                "class": badge.class, "took": took, "message": row.message});
            if !self.steps.contains(&step) {
                sink.json("step", None, &step).await?;
                self.steps.retain(|told| told["index"] != step["index"]);
                self.steps.push(step);
            }
        }
        let badge = view::job(job.job.state);
        let note = match job.job.state {
            JobState::Waiting | JobState::Queued => {
                state.store().why(job.job.id).await.ok().flatten().as_ref().map(waiting)
            }
            _ => job::ending(job),
        };
        let words = json!({"word": badge.word, "shape": badge.shape, "class": badge.class,
            "status": job::status(job, now), "note": note});
        if words != self.state {
            sink.json("state", None, &words).await?;
            self.state = words;
        }
        Ok(())
    }
}

impl Lines {
    /// Sends what there is from the cursor on. Without a renderer one is made, which reads first what
    /// the lines before leave to those that are sent.
    async fn send(
        &mut self,
        state: &AppState,
        sink: &mut Sink,
        attempt: AttemptId,
        known: &mut Option<Renderer>,
    ) -> Result<(), Gone> {
        loop {
            let renderer = match known {
                Some(renderer) => renderer,
                None => {
                    let before = match lead(state.logs(), attempt, self.cursor.line).await {
                        Ok(before) => before,
                        Err(error) => return failed(sink, &error).await,
                    };
                    let renderer = known.insert(Renderer::new(format!("/jobs/{}?", self.job), None));
                    renderer.pass(&before);
                    renderer
                }
            };
            // The last line shown is read again, because it may have grown.
            let mut lines = match state.logs().lines(attempt, self.cursor.line.max(1), BATCH).await {
                Ok(page) => page.lines,
                Err(error) => return failed(sink, &error).await,
            };
            let full = lines.len() == BATCH;
            if lines
                .first()
                .is_some_and(|l| l.number == self.cursor.line && l.bytes.len() == self.cursor.len)
            {
                renderer.pass(&lines[..1]);
                lines.remove(0);
            }
            for group in renderer.groups(&lines, false) {
                self.cursor.line = group.last;
                self.cursor.len = lines
                    .iter()
                    .find(|l| l.number == group.last)
                    .map_or(0, |l| l.bytes.len());
                let data = json!({"step": group.step, "first": group.first, "last": group.last, "html": group.html});
                sink.json("lines", Some(self.cursor.to_string()), &data).await?;
            }
            let behind = lines.last().is_some_and(|l| l.number > self.cursor.line);
            if !full && !behind {
                return Ok(());
            }
            let tail = state.logs().tail(attempt, None, BATCH).await.unwrap_or_default();
            if let Some(first) = tail
                .first()
                .map(|l| l.number)
                .filter(|n| *n > self.cursor.line + TOO_FAR_BEHIND)
            {
                let skipped = json!({"from": self.cursor.line + 1, "to": first - 1});
                self.cursor = Cursor {
                    line: first - 1,
                    len: usize::MAX,
                    ..self.cursor
                };
                *known = None;
                sink.json("skip", Some(self.cursor.to_string()), &skipped).await?;
            }
        }
    }
}

/// A job as it was read last; it is read again only when something about it changed.
struct Watched {
    version: JobVersion,
    job: JobDetail,
}

impl Watched {
    async fn read(state: &AppState, id: JobId) -> Result<Self, Gone> {
        // The version first: what changes between the two is read again.
        let version = state.store().job_version(id).await.ok().flatten().ok_or(Gone)?;
        let job = state.store().job(id).await.ok().flatten().ok_or(Gone)?;
        Ok(Self { version, job })
    }

    async fn look(&mut self, state: &AppState) -> Result<(), Gone> {
        let id = self.job.job.id;
        let version = state.store().job_version(id).await.ok().flatten().ok_or(Gone)?;
        if version != self.version {
            *self = Self::read(state, id).await?;
        }
        Ok(())
    }

    fn newest(&self) -> Option<&AttemptRow> {
        attempt_of(&self.job, None).ok().flatten()
    }
}

impl AsyncProducer for Lines {
    async fn run(mut self, state: &AppState, sink: &mut Sink) -> Result<(), Gone> {
        let mut told = Told::default();
        let mut watched = Watched::read(state, self.job).await?;
        // While the job waits there is no log, only its state.
        let attempt = loop {
            told.tell(state, sink, &watched.job).await?;
            if let Some(attempt) = watched.newest() {
                break attempt.clone();
            }
            if watched.job.job.state.is_terminal() {
                return sink.json("end", None, &json!({})).await;
            }
            tokio::time::sleep(POLL).await;
            watched.look(state).await?;
        };
        if self.shown.is_some_and(|shown| shown != attempt.id) {
            return sink.json("resync", None, &json!({})).await;
        }
        let mut renderer = None;
        // The page says where the log is; here follows only where the job stands.
        let place = log_place(state, &attempt).await;
        let mut log_ended = matches!(place, LogPlace::Elsewhere | LogPlace::Removed);
        let mut asked = Instant::now();
        loop {
            let change = tokio::select! {
                change = state.logs().changed(attempt.id, self.cursor.position), if !log_ended => Some(change),
                () = tokio::time::sleep_until(asked + POLL) => None,
            };
            match change {
                Some(Ok(change)) if change.resync => return sink.json("resync", None, &json!({})).await,
                Some(Ok(change)) => {
                    self.cursor.position = change.next;
                    log_ended = change.ended;
                    self.send(state, sink, attempt.id, &mut renderer).await?;
                }
                Some(Err(error)) => return failed(sink, &error).await,
                None => {}
            }
            if !log_ended && asked.elapsed() < POLL {
                continue;
            }
            asked = Instant::now();
            watched.look(state).await?;
            told.tell(state, sink, &watched.job).await?;
            if watched.newest().map(|newest| newest.id) != Some(attempt.id) {
                return sink.json("resync", None, &json!({})).await;
            }
            if watched.job.job.state.is_terminal() && (log_ended || never_comes(state, attempt.id).await) {
                return sink.json("end", Some(self.cursor.to_string()), &json!({})).await;
            }
        }
    }
}

/// `GET /jobs/{id}/log/stream`
pub async fn page(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Query<StreamQuery>,
    headers: HeaderMap,
) -> Result<Events, Problem> {
    let job = job_for(&state, &caller, Action::See, &id).await?;
    let attempt = attempt_of(&job, None)?.map(|a| a.id);
    let cursor = match last_event_id(&headers).or(query.from.as_deref()) {
        Some(text) => parse(text)?,
        None => Cursor {
            position: Position::START,
            line: 0,
            len: 0,
        },
    };
    start(
        &state,
        &caller,
        Lines {
            job: job.job.id,
            shown: attempt,
            cursor,
        },
    )
    .await
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_cursor_round_trips_and_foreign_text_is_refused() {
        let cursor = Cursor {
            position: "2:17".parse().unwrap(),
            line: 9,
            len: 80,
        };
        assert_eq!(cursor.to_string(), "2:17:9:80");
        assert_eq!("2:17:9:80".parse(), Ok(cursor));
        for bad in ["", "1", "1:2", "1:2:3", "1:2:3:", "1:2:x:1", "a:b:1:1", "1:2:3:4:5"] {
            assert_eq!(bad.parse::<Cursor>(), Err(BadCursor), "{bad}");
        }
    }

    fn record(number: u64, step: u32, channel: Channel, data: &[u8]) -> LogRecord {
        let position = Position {
            generation: 1,
            record: number,
        };
        LogRecord {
            position,
            step,
            channel,
            guest_ms: 0,
            node_ms: 0,
            data: data.to_vec().into(),
        }
    }

    proptest! {
        /// However the bytes of two channels are cut into records, and wherever a reader comes back: the texts
        /// together are the text of the whole, and no character is broken.
        #[test]
        fn no_cut_breaks_a_character(
            stdout in "[aé€🦀\n]{0,30}", stderr in "[aé€🦀\n]{0,30}",
            sizes in proptest::collection::vec((any::<bool>(), 1usize..6), 1..8), again in any::<prop::sample::Index>(),
        ) {
            let (mut rests, mut records) = ([stdout.as_bytes(), stderr.as_bytes()], Vec::new());
            for (err, size) in sizes.iter().cycle() {
                // The other one when this one has said everything.
                let lane = if rests[usize::from(*err)].is_empty() { usize::from(!err) } else { usize::from(*err) };
                let (piece, behind) = rests[lane].split_at((*size).min(rests[lane].len()));
                if piece.is_empty() {
                    break;
                }
                let channel = [Channel::Stdout, Channel::Stderr][lane];
                records.push(record(records.len() as u64, 1, channel, piece));
                rests[lane] = behind;
            }
            let back = again.index(records.len() + 1);
            let lead = back.saturating_sub(LEAD as usize);
            let far = |channel| records[..back].iter().rposition(|record| record.channel == channel).is_some_and(|last| last < lead);
            prop_assume!(!far(Channel::Stdout) && !far(Channel::Stderr));
            let mut texts = Texts::default();
            let mut read = HashMap::<Channel, String>::new();
            for record in &records[..back] {
                read.entry(record.channel).or_default().push_str(&texts.of(record));
            }
            let mut texts = Texts::default();
            texts.seed(&records[lead..back]);
            for record in &records[back..] {
                let text = texts.of(record);
                let value = record_json(record, &text);
                prop_assert_eq!(value["base64"].is_null(), text.as_bytes() == &record.data[..]);
                read.entry(record.channel).or_default().push_str(&text);
            }
            prop_assert_eq!(read.remove(&Channel::Stdout).unwrap_or_default(), stdout);
            prop_assert_eq!(read.remove(&Channel::Stderr).unwrap_or_default(), stderr);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_viewer_that_takes_nothing_is_sent_away_and_told_so() {
        let (tx, mut rx) = mpsc::channel(2);
        let spare = tx.clone().reserve_owned().await.ok();
        let viewer = crate::web::http::limits::Viewers::new(1, 1)
            .enter([192, 0, 2, 1].into())
            .unwrap();
        let mut sink = Sink {
            tx,
            spare,
            _viewer: viewer,
        };
        assert!(sink.json("log", None, &json!({})).await.is_ok());
        let started = Instant::now();
        assert!(sink.json("log", None, &json!({})).await.is_err());
        assert!(started.elapsed() >= SLOW);
        drop(sink);
        let mut names = Vec::new();
        while let Some(event) = rx.recv().await {
            names.push(format!("{event:?}"));
        }
        assert_eq!(names.len(), 2);
        assert!(names[0].contains("log") && names[1].contains("resync"), "{names:?}");
    }

    proptest! {
        #[test]
        fn cursors_never_panic(text in "[0-9:x]{0,40}") {
            let _ = text.parse::<Cursor>();
        }
    }
}
