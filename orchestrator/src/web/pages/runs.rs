//! The list of runs and the page of one run. Both are whole without a script: while something runs,
//! the page asks the browser to load it again.

use askama::Template;
use axum::{
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderValue},
    response::Html,
};
use serde::Deserialize;

use super::{
    assets::Assets,
    view::{self, Badge},
};
use crate::{
    clock::now_ms,
    model::{
        diagnostic::Diagnostic,
        ids::RunId,
        state::{JobState, RunState},
    },
    store::{CancelRequest, JobRow, RunAttemptRow, RunFilter, RunSummary, Why},
    web::{
        AppState,
        api::visible,
        authorize::Action,
        http::problem::Problem,
        identity::Caller,
        lookup::{self, parse, store_failed},
    },
};

/// Runs on one page of the list.
const PAGE: u32 = 30;
/// Jobs whose waiting reason is looked up for one page; the others show their state alone.
const WHY_LIMIT: usize = 50;

/// What the header of every page shows.
pub(in crate::web) struct Frame<'a> {
    pub assets: &'a Assets,
    pub user: Option<&'a str>,
    pub csrf: &'a str,
    /// Where the login link comes back to.
    pub here: String,
    /// Reload after so many seconds, for browsers without scripts (and pages that need none).
    pub refresh_s: Option<u32>,
}

impl<'a> Frame<'a> {
    pub(in crate::web) fn new(state: &'a AppState, caller: &'a Caller, here: String) -> Self {
        Self {
            assets: state.assets(),
            user: caller.name(),
            csrf: caller.csrf(),
            here,
            refresh_s: None,
        }
    }
}

/// A run as a line of the list and as the head of its page.
pub(in crate::web) struct RunView<'a> {
    pub run: &'a RunSummary,
    pub badge: Badge,
    pub title: &'a str,
    pub actor: String,
    pub created: String,
    pub created_at: String,
    pub ago: String,
    pub took: String,
}

impl<'a> RunView<'a> {
    pub(in crate::web) fn of(run: &'a RunSummary, now: i64) -> Self {
        Self {
            run,
            badge: view::run(run.state),
            title: if run.title.is_empty() {
                &run.workflow
            } else {
                &run.title
            },
            actor: view::person(&run.actor),
            created: view::rfc3339(run.created_ms),
            created_at: view::moment(run.created_ms),
            ago: view::ago(run.created_ms, now),
            took: view::duration(run.ended_ms.unwrap_or(now) - run.created_ms),
        }
    }
}

#[derive(Template)]
#[template(path = "runs.html")]
struct RunsPage<'a> {
    frame: Frame<'a>,
    runs: Vec<RunView<'a>>,
    repository: Option<String>,
    next: Option<String>,
    first: bool,
}

/// `?…` of the list.
#[derive(Debug, Deserialize)]
pub struct ListQuery {
    before: Option<String>,
    repository: Option<String>,
}

/// `GET /`
pub async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Html<String>, Problem> {
    let before: Option<RunId> = query.before.as_deref().map(parse).transpose()?;
    let filter = RunFilter {
        repository: None,
        path: query.repository.as_deref().map(parse).transpose()?,
        state: None,
        public_only: visible(&state, &caller),
        before,
        limit: PAGE,
    };
    let rows = state.store().runs(&filter).await.map_err(store_failed)?;
    let now = now_ms();
    let suffix = filter
        .path
        .as_ref()
        .map(|p| format!("&repository={p}"))
        .unwrap_or_default();
    let next = rows
        .last()
        .filter(|_| rows.len() == PAGE as usize)
        .map(|run| format!("/?before={}{suffix}", run.id));
    let mut frame = Frame::new(&state, &caller, "/".to_owned());
    frame.refresh_s = (before.is_none() && rows.iter().any(|r| r.state == RunState::Active)).then_some(15);
    let runs = rows.iter().map(|run| RunView::of(run, now)).collect();
    let page = RunsPage {
        frame,
        runs,
        repository: filter.path.map(|p| p.to_string()),
        next,
        first: before.is_none(),
    };
    html(&page)
}

pub(in crate::web) fn html(page: &impl Template) -> Result<Html<String>, Problem> {
    page.render()
        .map(Html)
        .map_err(|e| Problem::internal("writing a page", e))
}

/// One job on the page of its run.
struct JobLine<'a> {
    job: &'a JobRow,
    badge: Badge,
    took: Option<String>,
    note: Option<String>,
}

struct AttemptView<'a> {
    attempt: &'a RunAttemptRow,
    by: String,
    badge: Badge,
    created: String,
    created_at: String,
    took: String,
    cancel: Option<String>,
    jobs: Vec<JobLine<'a>>,
}

#[derive(Template)]
#[template(path = "run.html")]
struct RunPage<'a> {
    frame: Frame<'a>,
    head: RunView<'a>,
    diagnostics: Vec<DiagnosticView<'a>>,
    undelivered: &'a [String],
    newest: Option<AttemptView<'a>>,
    earlier: Vec<AttemptView<'a>>,
    may_cancel: bool,
    cancelling: bool,
    may_rerun: bool,
    some_failed: bool,
}

struct DiagnosticView<'a> {
    diagnostic: &'a Diagnostic,
    /// The lines around the place: number, text, whether it is the one.
    excerpt: Vec<(u32, &'a str, bool)>,
}

/// The line a diagnostic names, with two before and one after.
fn excerpt(source: &str, line: u32) -> Vec<(u32, &str, bool)> {
    let first = line.saturating_sub(2).max(1);
    source
        .lines()
        .zip(1u32..)
        .skip(first as usize - 1)
        .take_while(|(_, n)| *n <= line.saturating_add(1))
        .map(|(text, n)| (n, text.get(..text.floor_char_boundary(300)).unwrap_or(text), n == line))
        .collect()
}

/// Why a job has not begun, for people.
pub(in crate::web) fn waiting(why: &Why) -> String {
    match why.state {
        JobState::Waiting if !why.waiting_for.is_empty() => format!("waits for {}", why.waiting_for.join(", ")),
        JobState::Waiting => why.reason.clone().unwrap_or_else(|| "waits".to_owned()),
        _ => {
            let ahead = match why.position {
                0 | 1 => "next of its kind".to_owned(),
                n => format!("number {n} of its kind"),
            };
            let running = match why.class_running {
                0 => "no machine of its kind runs".to_owned(),
                1 => "1 machine of its kind runs".to_owned(),
                n => format!("{n} machines of its kind run"),
            };
            match &why.reason {
                Some(reason) => format!("{ahead}, {running}; queued again because {reason}"),
                None => format!("{ahead}, {running}"),
            }
        }
    }
}

/// `end asked for by ada at …: asked for`, in the words of the page.
pub(in crate::web) fn cancel_text(cancel: &CancelRequest) -> String {
    let force = if cancel.force { ", by force" } else { "" };
    format!(
        "end asked for by {} at {}{force}: {}",
        view::person(&cancel.by),
        view::moment(cancel.at_ms),
        cancel.reason
    )
}

async fn job_line<'a>(state: &AppState, job: &'a JobRow, ask: bool, now: i64) -> Result<JobLine<'a>, Problem> {
    let note = match job.state {
        JobState::Waiting | JobState::Queued if ask => state
            .store()
            .why(job.id)
            .await
            .map_err(store_failed)?
            .as_ref()
            .map(waiting),
        _ if job.carried_from.is_some() => Some("carried over from an earlier attempt".to_owned()),
        _ => job.reason.clone(),
    };
    let took = match job.started_ms {
        Some(_) => view::elapsed(job.started_ms, job.ended_ms, now),
        None if job.state == JobState::Queued => {
            view::elapsed(job.queued_ms, None, now).map(|t| format!("queued for {t}"))
        }
        None => None,
    };
    Ok(JobLine {
        job,
        badge: view::job(job.state),
        took,
        note,
    })
}

async fn attempt_view<'a>(
    state: &AppState,
    attempt: &'a RunAttemptRow,
    ask: bool,
    now: i64,
) -> Result<AttemptView<'a>, Problem> {
    let mut jobs = Vec::with_capacity(attempt.jobs.len());
    for (index, job) in attempt.jobs.iter().enumerate() {
        jobs.push(job_line(state, job, ask && index < WHY_LIMIT, now).await?);
    }
    Ok(AttemptView {
        attempt,
        by: view::person(&attempt.by),
        badge: view::run(attempt.state),
        created: view::rfc3339(attempt.created_ms),
        created_at: view::moment(attempt.created_ms),
        took: view::duration(attempt.ended_ms.unwrap_or(now) - attempt.created_ms),
        cancel: attempt.cancel.as_ref().map(cancel_text),
        jobs,
    })
}

/// `GET /runs/{id}`
pub async fn run(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<(HeaderMap, Html<String>), Problem> {
    let run = lookup::run(&state, &caller, Action::See, &id).await?;
    let now = now_ms();
    let active = run.summary.state == RunState::Active;
    let mut views = Vec::new();
    let last = run.attempts.iter().map(|a| a.number).max();
    for attempt in &run.attempts {
        views.push(attempt_view(&state, attempt, Some(attempt.number) == last, now).await?);
    }
    views.sort_by_key(|v| std::cmp::Reverse(v.attempt.number));
    let mut views = views.into_iter();
    let newest = views.next();
    let some_failed = newest.as_ref().is_some_and(|v| {
        v.attempt
            .jobs
            .iter()
            .any(|j| j.state.is_terminal() && !matches!(j.state, JobState::Success | JobState::Skipped))
    });
    let repository = &run.summary.repository;
    let planned = run.diagnostics.is_empty();
    let mut frame = Frame::new(&state, &caller, format!("/runs/{}", run.summary.id));
    frame.refresh_s = active.then_some(5);
    let page = RunPage {
        frame,
        head: RunView::of(&run.summary, now),
        diagnostics: run
            .diagnostics
            .iter()
            .map(|diagnostic| DiagnosticView {
                diagnostic,
                excerpt: excerpt(&run.source, diagnostic.line),
            })
            .collect(),
        undelivered: &run.undelivered,
        cancelling: newest.as_ref().is_some_and(|v| v.attempt.cancel.is_some()),
        newest,
        earlier: views.collect(),
        may_cancel: active && caller.sees_button(&state, Action::Cancel, repository),
        may_rerun: !active && planned && caller.sees_button(&state, Action::Rerun, repository),
        some_failed,
    };
    let mut headers = HeaderMap::new();
    headers.insert("x-robots-tag", HeaderValue::from_static("noindex"));
    Ok((headers, html(&page)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_shows_the_place() {
        let source = "a\nb\nc\nd\ne\n";
        assert_eq!(
            excerpt(source, 3),
            [(1, "a", false), (2, "b", false), (3, "c", true), (4, "d", false)]
        );
        assert_eq!(excerpt(source, 1), [(1, "a", true), (2, "b", false)]);
        assert_eq!(excerpt(source, 9), []);
        assert_eq!(excerpt("", 0), []);
        assert_eq!(excerpt(source, u32::MAX), []);
    }

    #[test]
    fn waiting_is_told_in_words() {
        let mut why = Why {
            state: JobState::Waiting,
            reason: None,
            position: 0,
            class_running: 0,
            waiting_for: vec!["build".into()],
        };
        assert_eq!(waiting(&why), "waits for build");
        why.state = JobState::Queued;
        why.position = 3;
        why.class_running = 1;
        assert_eq!(waiting(&why), "number 3 of its kind, 1 machine of its kind runs");
    }
}
