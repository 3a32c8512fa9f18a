//! The page's stream: new lines as HTML, steps and the job's state, as they change.

use std::collections::BTreeMap;

use axum::{
    extract::{Path, Query, State},
    http::HeaderMap,
};
use serde::Serialize;

use super::{
    cursor::PageCursor,
    job_watch::JobWatch,
    log_text::{LogLocation, attempt_of, log_location},
    log_view::{Renderer, lead},
    stream::{Events, Gone, Producer, Sink, StreamQuery, last_event_id, never_comes, start},
};
use crate::{
    clock::now_ms,
    model::{ids::AttemptId, state::JobState},
    store::{AttemptRow, JobDetail, StepRow},
    web::{
        AppState,
        authorize::Action,
        http::problem::Problem,
        identity::Caller,
        lookup::{self, parse},
        pages::{
            job,
            runs::waiting,
            view::{self, Badge},
        },
    },
};

/// Lines in one event.
const BATCH: usize = 100;
/// A page that is so many lines behind the end skips to it.
const TOO_FAR_BEHIND: u64 = 3000;

// What follows is between this program and its own script (`static/app.js`), which come together; so it is no part of
// the API and its schema.

/// `lines`: lines of one step.
#[derive(Debug, Serialize)]
struct LinesEvent {
    step: u32,
    first: u64,
    last: u64,
    html: String,
}

/// `skip`: lines that came faster than they could be shown.
#[derive(Debug, Serialize)]
struct SkipEvent {
    from: u64,
    to: u64,
}

/// `step`: how a step looks now.
#[derive(Debug, PartialEq, Serialize)]
struct StepEvent {
    index: u32,
    name: String,
    #[serde(flatten)]
    badge: Badge,
    took: Option<String>,
    message: Option<String>,
}

/// `state`: how the job looks now.
#[derive(Debug, PartialEq, Serialize)]
struct StateEvent {
    #[serde(flatten)]
    badge: Badge,
    status: String,
    note: Option<String>,
}

/// `end`, which says no more.
#[derive(Debug, Serialize)]
struct EndEvent {}

struct Lines {
    job: JobWatch,
    /// The job when the stream was asked for.
    found: JobDetail,
    shown: Option<AttemptId>,
    /// Where the reader said it was.
    from: Option<PageCursor>,
}

/// What a page has been shown of one attempt's log.
struct Shown {
    cursor: PageCursor,
    /// A page's path.
    link: String,
}

/// What was sent last, so that only changes are sent.
#[derive(Default)]
struct LastSent {
    state: Option<StateEvent>,
    steps: BTreeMap<u32, StepEvent>,
}

impl LastSent {
    async fn send_changes(&mut self, state: &AppState, sink: &mut Sink, job: &JobDetail) -> Result<(), Gone> {
        let now = now_ms();
        for row in &job.steps {
            let step = step_event(row, now);
            if self.steps.get(&row.index) != Some(&step) {
                sink.event("step", None, &step).await?;
                self.steps.insert(row.index, step);
            }
        }
        let note = match job.job.state {
            JobState::Waiting | JobState::Queued => {
                state.store().why(job.job.id).await.ok().flatten().as_ref().map(waiting)
            }
            _ => job::ending(job),
        };
        let now = StateEvent {
            badge: view::job(job.job.state),
            status: job::status(job, now),
            note,
        };
        if self.state.as_ref() != Some(&now) {
            sink.event("state", None, &now).await?;
            self.state = Some(now);
        }
        Ok(())
    }
}

fn step_event(row: &StepRow, now: i64) -> StepEvent {
    let took = row
        .ended_ms
        .and_then(|_| view::elapsed(row.started_ms, row.ended_ms, now));
    StepEvent {
        index: row.index,
        name: row.name.clone(),
        badge: view::step(row.state, row.allowed_failure),
        took,
        message: row.message.clone(),
    }
}

impl Shown {
    /// Sends what there is from the cursor on. Without a renderer one is made, which reads first what
    /// the lines before leave to those that are sent.
    async fn send(&mut self, state: &AppState, sink: &mut Sink, known: &mut Option<Renderer>) -> Result<(), Gone> {
        let attempt = self.cursor.log.attempt;
        loop {
            let renderer = match known {
                Some(renderer) => renderer,
                None => {
                    let before = match lead(state.logs(), attempt, self.cursor.line).await {
                        Ok(before) => before,
                        Err(error) => return sink.failed(&error).await,
                    };
                    let renderer = known.insert(Renderer::new(self.link.clone(), None));
                    renderer.pass(&before);
                    renderer
                }
            };
            // The last line shown is read again, because it may have grown.
            let mut lines = match state.logs().lines(attempt, self.cursor.line.max(1), BATCH).await {
                Ok(page) => page.lines,
                Err(error) => return sink.failed(&error).await,
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
                let data = LinesEvent {
                    step: group.step,
                    first: group.first,
                    last: group.last,
                    html: group.html,
                };
                sink.event("lines", Some(self.cursor.to_string()), &data).await?;
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
                let skipped = SkipEvent {
                    from: self.cursor.line + 1,
                    to: first - 1,
                };
                self.cursor = PageCursor {
                    line: first - 1,
                    len: usize::MAX,
                    ..self.cursor
                };
                *known = None;
                sink.event("skip", Some(self.cursor.to_string()), &skipped).await?;
            }
        }
    }
}

impl Producer for Lines {
    async fn run(mut self, state: &AppState, sink: &mut Sink) -> Result<(), Gone> {
        let mut sent = LastSent::default();
        let mut job = self.found;
        // While the job waits there is no log, only its state.
        let attempt = loop {
            sent.send_changes(state, sink, &job).await?;
            if let Some(attempt) = newest(&job) {
                break attempt.clone();
            }
            if job.job.state.is_terminal() {
                return sink.event("end", None, &EndEvent {}).await;
            }
            self.job.changed().await;
            self.job.refresh(state, &mut job).await?;
        };
        if self.shown.is_some_and(|shown| shown != attempt.id) {
            return sink.ask_again().await;
        }
        let cursor = match self.from {
            // The numbers of another try's log mean nothing in this one.
            Some(from) if from.log.attempt != attempt.id => return sink.ask_again().await,
            Some(from) => from,
            None => PageCursor::start(attempt.id),
        };
        let mut shown = Shown {
            cursor,
            link: format!("/jobs/{}?", self.job.id),
        };
        let mut renderer = None;
        // The page says where the log is; here follows only where the job stands.
        let place = log_location(state, &attempt).await;
        let mut log_ended = matches!(place, LogLocation::Elsewhere | LogLocation::Removed);
        loop {
            let log_change = tokio::select! {
                change = state.logs().changed(attempt.id, shown.cursor.log.position), if !log_ended => Some(change),
                () = self.job.changed() => None,
            };
            match log_change {
                Some(Ok(change)) if change.resync => return sink.ask_again().await,
                Some(Ok(change)) => {
                    shown.cursor.log.position = change.next;
                    log_ended = change.ended;
                    shown.send(state, sink, &mut renderer).await?;
                    // A log that ended does not wait for the next hint to say how its job stands.
                    if !log_ended && !self.job.is_due() {
                        continue;
                    }
                }
                Some(Err(error)) => return sink.failed(&error).await,
                None => {}
            }
            self.job.refresh(state, &mut job).await?;
            sent.send_changes(state, sink, &job).await?;
            if newest(&job).map(|newest| newest.id) != Some(attempt.id) {
                return sink.ask_again().await;
            }
            if job.job.state.is_terminal() && (log_ended || never_comes(state, attempt.id).await) {
                return sink.event("end", Some(shown.cursor.to_string()), &EndEvent {}).await;
            }
        }
    }
}

fn newest(job: &JobDetail) -> Option<&AttemptRow> {
    attempt_of(job, None).ok().flatten()
}

/// `GET /jobs/{id}/log/stream`
pub async fn page(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Query<StreamQuery>,
    headers: HeaderMap,
) -> Result<Events, Problem> {
    let hints = state.hints().subscribe();
    let job = lookup::job(&state, &caller, Action::See, &id).await?;
    let attempt = attempt_of(&job, None)?.map(|a| a.id);
    let from = last_event_id(&headers).or(query.from.as_deref());
    let from = from.map(parse).transpose()?;
    start(
        &state,
        &caller,
        Lines {
            job: JobWatch::new(&state, hints, &job),
            found: job,
            shown: attempt,
            from,
        },
    )
    .await
}
