//! The page of one job: its steps, and a window of its log. The window is the tail unless the address
//! names another place, so the first answer is small however long the log is.

use askama::Template;
use axum::{
    extract::{Path, Query, State},
    http::{HeaderMap, header},
    response::{Html, IntoResponse, Response},
};
use serde::Deserialize;

use super::view::{self, Badge};
use crate::{
    clock::now_ms,
    logs::{Line, LogError, StepSpan},
    model::{
        ids::AttemptId,
        names::MachineName,
        state::{AttemptState, JobState, StepState},
    },
    store::{AttemptRow, JobDetail, StepRow},
    web::{
        AppState,
        api::{
            machines::{self, KeepView},
            refused_here,
        },
        authorize::Action,
        http::problem::Problem,
        identity::Caller,
        live::{
            cursor::{LogCursor, PageCursor},
            log_text::{self, LogLocation, attempt_of, log_location, log_of},
            log_view::{Group, LineRange, Renderer, WINDOW, lead},
        },
        lookup::{self, store_failed},
        pages::runs::{Frame, RunView, cancel_text, html, waiting},
    },
};

/// `?…` of the job page and of its log fragments.
#[derive(Debug, Deserialize, Default)]
pub struct LogQuery {
    /// `s2-L10-L20`.
    lines: Option<String>,
    /// The window's first line, by its number in the attempt.
    from: Option<u64>,
    /// Lines in the window, at most [`WINDOW`].
    n: Option<usize>,
    /// An earlier try of the job.
    #[serde(rename = "try")]
    number: Option<u32>,
}

fn log_failed(error: LogError) -> Problem {
    Problem::internal("reading a log", error)
}

/// A window of a log.
struct Window {
    groups: Vec<Group>,
    /// The first and last line shown, by their numbers in the attempt; 0 when there are none.
    first: u64,
    last: u64,
    /// More lines follow the window (or may follow, while the log is written).
    more: bool,
    /// The lines of every step.
    spans: Vec<StepSpan>,
    /// Where a live view of this window goes on.
    cursor: PageCursor,
}

/// The number in the attempt of the line that a place names. The lines of a step nearly always follow
/// each other; where they do not, this is a little before it.
fn line_of(spans: &[StepSpan], mark: LineRange) -> Option<u64> {
    let span = spans.iter().find(|span| span.step == mark.step)?;
    Some((span.first + mark.first - 1).min(span.last))
}

async fn window(
    state: &AppState,
    attempt: AttemptId,
    query: &LogQuery,
    renderer: &mut Renderer,
    mark: Option<LineRange>,
) -> Result<Window, Problem> {
    let n = query.n.unwrap_or(WINDOW).clamp(1, WINDOW);
    // Read before the lines: whoever goes on from here may see something twice, but misses nothing.
    let position = state.logs().end(attempt).await.map_err(log_failed)?;
    let spans = state.logs().steps(attempt).await.map_err(log_failed)?;
    let place = match mark {
        Some(mark) => line_of(&spans, mark).map(|line| line.saturating_sub(20).max(1)),
        None => query.from.map(|from| from.max(1)),
    };
    let (lines, tail): (Vec<Line>, bool) = match place {
        Some(from) => (
            state.logs().lines(attempt, from, n).await.map_err(log_failed)?.lines,
            false,
        ),
        None => (state.logs().tail(attempt, None, n).await.map_err(log_failed)?, true),
    };
    if let Some(line) = lines.first() {
        renderer.pass(&lead(state.logs(), attempt, line.number).await.map_err(log_failed)?);
    }
    let groups = renderer.groups(&lines, tail);
    let first = groups.first().map_or(0, |g| g.first);
    let last = groups.last().map_or(0, |g| g.last);
    let more = !tail && (lines.len() == n || lines.last().is_some_and(|line| line.number > last));
    let len = lines
        .iter()
        .find(|line| line.number == last)
        .map_or(0, |line| line.bytes.len());
    Ok(Window {
        groups,
        first,
        last,
        more,
        spans,
        cursor: PageCursor {
            log: LogCursor { attempt, position },
            line: last,
            len,
        },
    })
}

/// One step with the lines of it that the window holds.
struct StepView {
    index: u32,
    name: String,
    badge: Badge,
    took: Option<String>,
    message: Option<String>,
    line: Option<u32>,
    open: bool,
    groups: Vec<Group>,
    /// Lines of this step before the window.
    hidden: Option<u64>,
    /// Where its lines begin, and how many they are, when the window holds none.
    elsewhere: Option<(u64, u64)>,
}

struct TryView<'a> {
    attempt: &'a AttemptRow,
    word: &'static str,
    took: Option<String>,
    shown: bool,
}

#[derive(Template)]
#[template(path = "job.html")]
struct JobPage<'a> {
    frame: Frame<'a>,
    head: RunView<'a>,
    job: &'a JobDetail,
    badge: Badge,
    status: String,
    note: Option<String>,
    cancel: Option<String>,
    tries: Vec<TryView<'a>>,
    show_tries: bool,
    node: Option<&'a str>,
    started: Option<(String, String)>,
    steps: Vec<StepView>,
    window_first: u64,
    window_last: u64,
    earlier: Option<u64>,
    later: Option<u64>,
    base: String,
    raw: String,
    stream: Option<String>,
    /// Why no log is shown although there is or was one.
    absent: Option<String>,
    no_log: bool,
    may_cancel: bool,
    keep: Option<KeepView>,
}

/// `queued for 3 s, ran for 5 s`, in the words that fit the state.
pub(in crate::web) fn status(job: &JobDetail, now: i64) -> String {
    let row = &job.job;
    let ended = row.ended_ms;
    let queued = view::elapsed(row.queued_ms, row.started_ms.or(ended), now);
    let ran = view::elapsed(row.started_ms, ended, now);
    let preparing = job
        .attempts
        .iter()
        .max_by_key(|a| a.number)
        .is_some_and(|a| a.state == AttemptState::Preparing);
    let mut parts = Vec::new();
    if let Some(queued) = queued {
        parts.push(format!("queued for {queued}"));
    }
    match (row.state, ran) {
        (JobState::Active, _) if preparing => parts.push("preparing a machine".to_owned()),
        (JobState::Active, Some(ran)) => parts.push(format!("running for {ran}")),
        (_, Some(ran)) if row.state.is_terminal() => parts.push(format!("ran for {ran}")),
        _ => {}
    }
    parts.join(", ")
}

/// What ended the job, in different words for different limits: the queue's, the steps', ours.
pub(in crate::web) fn ending(job: &JobDetail) -> Option<String> {
    let row = &job.job;
    match row.state {
        JobState::TimedOut if row.started_ms.is_none() => Some(
            row.reason
                .clone()
                .unwrap_or_else(|| "no machine was free before the queue's time limit".to_owned()),
        ),
        JobState::TimedOut => Some(row.reason.clone().unwrap_or_else(|| {
            match job.plan.timeout_minutes.value(|| "`timeout-minutes`".to_owned()) {
                Ok(minutes) => format!("the steps took longer than the job's limit of {minutes} min"),
                Err(_) => "the steps took longer than the job's limit".to_owned(),
            }
        })),
        JobState::Error => Some(format!(
            "helios-ci failed, not your code: {}",
            row.reason.as_deref().unwrap_or("no cause was recorded")
        )),
        _ => row.reason.clone(),
    }
}

fn step_view(index: u32, name: &str, badge: Badge) -> StepView {
    StepView {
        index,
        name: name.to_owned(),
        badge,
        took: None,
        message: None,
        line: None,
        open: false,
        groups: Vec::new(),
        hidden: None,
        elsewhere: None,
    }
}

/// Every planned step, with what the store and the window know of it; lines of no planned step stand
/// before or behind them.
fn step_views(job: &JobDetail, rows: &[StepRow], window: Option<Window>, now: i64) -> Vec<StepView> {
    let pending = view::step(StepState::Pending, false);
    let mut steps: Vec<StepView> = job
        .plan
        .steps
        .iter()
        .zip(0u32..)
        .map(|(step, index)| StepView {
            line: Some(step.span.line),
            ..step_view(index, step.name.shown(), pending)
        })
        .collect();
    let at = |steps: &mut Vec<StepView>, index: u32| match steps.binary_search_by_key(&index, |s| s.index) {
        Ok(at) => at,
        Err(at) => {
            let badge = Badge {
                word: "log",
                shape: "·",
                class: "idle",
            };
            steps.insert(at, step_view(index, "After the steps", badge));
            at
        }
    };
    for row in rows {
        let at = at(&mut steps, row.index);
        let step = &mut steps[at];
        step.name.clone_from(&row.name);
        step.badge = view::step(row.state, row.allowed_failure);
        step.took = view::elapsed(row.started_ms, row.ended_ms, now);
        step.message = row
            .message
            .clone()
            .or_else(|| row.exit_code.filter(|c| *c != 0).map(|c| format!("exit code {c}")));
        step.open = matches!(
            row.state,
            StepState::Failure | StepState::Running | StepState::TimedOut | StepState::Cancelled
        );
    }
    let Some(window) = window else { return steps };
    for group in window.groups {
        let at = at(&mut steps, group.step);
        if steps[at].groups.is_empty() && group.first_in_step > 1 {
            steps[at].hidden = Some(group.first_in_step - 1);
        }
        steps[at].groups.push(group);
    }
    for span in window.spans {
        let at = at(&mut steps, span.step);
        if steps[at].groups.is_empty() {
            steps[at].elsewhere = Some((span.first, span.lines));
        }
    }
    // With nothing failed or running, the last step with output is the one to look at.
    if steps.iter().all(|s| !s.open)
        && let Some(step) = steps.iter_mut().rev().find(|s| !s.groups.is_empty())
    {
        step.open = true;
    }
    steps
}

/// `GET /jobs/{id}`
pub async fn job(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Query<LogQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let job = lookup::job(&state, &caller, Action::See, &id).await?;
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    if accept.starts_with("text/plain") {
        return log_text::respond(&state, &caller, &job, query.number, &headers).await;
    }
    let page = build(&state, &caller, &job, &query).await?;
    Ok(page.into_response())
}

/// What the job waits for, or what ended it.
async fn note(state: &AppState, job: &JobDetail) -> Result<Option<String>, Problem> {
    if !matches!(job.job.state, JobState::Waiting | JobState::Queued) {
        return Ok(ending(job));
    }
    let refused = refused_here(state, job).await?;
    let why = state.store().why(job.job.id).await.map_err(store_failed)?;
    Ok(why.as_ref().map(|why| match &refused {
        Some(refused) => format!("{}; node {}: {refused}", waiting(why), state.config().node),
        None => waiting(why),
    }))
}

async fn build(state: &AppState, caller: &Caller, job: &JobDetail, query: &LogQuery) -> Result<Html<String>, Problem> {
    let now = now_ms();
    let mark: Option<LineRange> = query
        .lines
        .as_deref()
        .map(|t| {
            t.parse()
                .map_err(|e: crate::web::live::log_view::BadLineRange| Problem::bad_request(e.to_string()))
        })
        .transpose()?;
    let attempt = attempt_of(job, query.number)?;
    let newest = job.attempts.iter().max_by_key(|a| a.number);
    let is_newest = attempt.map(|a| a.id) == newest.map(|a| a.id);
    let rows = match attempt {
        Some(attempt) if !is_newest => state.store().steps(attempt.id).await.map_err(store_failed)?,
        _ => job.steps.clone(),
    };
    let path = format!("/jobs/{}", job.job.id);
    let base = match query.number {
        Some(number) => format!("{path}?try={number}&"),
        None => format!("{path}?"),
    };
    let mut renderer = Renderer::new(base.clone(), mark);
    let (mut shown, mut absent) = (None, None);
    if let Some(attempt) = attempt {
        match log_location(state, attempt).await {
            LogLocation::Here => shown = Some(window(state, attempt.id, query, &mut renderer, mark).await?),
            LogLocation::None => {}
            LogLocation::Elsewhere => absent = Some(log_text::elsewhere(state, caller, attempt)),
            LogLocation::Removed => absent = Some("The log was removed: its retention time is over.".to_owned()),
        }
    }
    let (first, last) = shown.as_ref().map_or((0, 0), |w| (w.first, w.last));
    let more = shown.as_ref().is_some_and(|w| w.more);
    let from = shown
        .as_ref()
        .map(|w| format!("?from={}", w.cursor))
        .unwrap_or_default();
    let no_log = shown.as_ref().is_none_or(|w| w.groups.is_empty());
    let live = !job.job.state.is_terminal() && is_newest;
    // A window that is not the tail stands still: the reader looks at a place.
    let follows = live && mark.is_none() && query.from.is_none();
    let note = note(state, job).await?;
    let mut frame = Frame::new(state, caller, path.clone());
    frame.refresh_s = follows.then_some(5);
    let marked_step = mark.map(|m| m.step);
    let mut steps = step_views(job, &rows, shown, now);
    for step in &mut steps {
        step.open |= marked_step == Some(step.index) || ((query.from.is_some()) && !step.groups.is_empty());
    }
    let keep = match newest.filter(|_| is_newest) {
        Some(newest) => machines::keep_view(state, caller, &job.run.repository, &MachineName::of(newest.id)).await?,
        None => None,
    };
    let page = JobPage {
        keep,
        head: RunView::of(&job.run, now),
        badge: view::job(job.job.state),
        status: status(job, now),
        note,
        cancel: job.job.cancel.as_ref().map(cancel_text),
        tries: tries(job, attempt, now),
        show_tries: job.attempts.len() > 1 || job.attempts.iter().any(|a| a.cause.is_some()),
        node: attempt.map(|a| a.node.as_str()),
        started: job.job.started_ms.map(|ms| (view::rfc3339(ms), view::moment(ms))),
        steps,
        window_first: first,
        window_last: last,
        earlier: (first > 1).then(|| first.saturating_sub(WINDOW as u64).max(1)),
        later: more.then_some(last + 1),
        raw: match query.number {
            Some(number) => format!("{path}/log.txt?try={number}"),
            None => format!("{path}/log.txt"),
        },
        stream: follows.then(|| format!("{path}/log/stream{from}")),
        base,
        absent,
        no_log,
        may_cancel: live && caller.sees_button(state, Action::Cancel, &job.run.repository),
        job,
        frame,
    };
    html(&page)
}

fn tries<'a>(job: &'a JobDetail, shown: Option<&AttemptRow>, now: i64) -> Vec<TryView<'a>> {
    let mut tries: Vec<TryView<'a>> = job
        .attempts
        .iter()
        .map(|attempt| TryView {
            attempt,
            word: match (attempt.state, attempt.result) {
                (AttemptState::Ended, Some(result)) => view::job(result.state()).word,
                (AttemptState::Ended, None) => "machine failed",
                (AttemptState::Preparing, _) => "preparing a machine",
                _ => "running",
            },
            took: view::elapsed(Some(attempt.created_ms), attempt.ended_ms, now),
            shown: shown.is_some_and(|s| s.id == attempt.id),
        })
        .collect();
    tries.sort_by_key(|t| t.attempt.number);
    tries
}

#[derive(Template)]
#[template(path = "log.html")]
struct Fragment {
    groups: Vec<Group>,
    first: u64,
    last: u64,
    more: bool,
}

/// `GET /jobs/{id}/log?from=N&n=500`: a window of lines alone, for the script.
pub async fn log(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Query<LogQuery>,
) -> Result<Html<String>, Problem> {
    let job = lookup::job(&state, &caller, Action::See, &id).await?;
    let attempt = log_of(&state, &caller, &job, query.number).await?;
    let base = match query.number {
        Some(number) => format!("/jobs/{}?try={number}&", job.job.id),
        None => format!("/jobs/{}?", job.job.id),
    };
    let fragment = match attempt {
        Some(attempt) => {
            let w = window(&state, attempt.id, &query, &mut Renderer::new(base, None), None).await?;
            Fragment {
                groups: w.groups,
                first: w.first,
                last: w.last,
                more: w.more,
            }
        }
        None => Fragment {
            groups: Vec::new(),
            first: 0,
            last: 0,
            more: false,
        },
    };
    html(&fragment)
}
