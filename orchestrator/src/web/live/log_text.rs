//! The raw log as plain text, whole or in parts (`Range`), read from the file as it is sent.

use axum::{
    body::Body,
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::stream;
use serde::Deserialize;

use crate::{
    model::ids::AttemptId,
    store::{AttemptRow, JobDetail},
    web::{
        AppState,
        authorize::Action,
        http::{
            problem::Problem,
            range::{self, Asked},
        },
        identity::Caller,
        lookup,
    },
};

/// Bytes read and sent at once: what one download holds in memory.
const PIECE: u64 = 256 * 1024;

/// `?try=2`: the log of an earlier try of the job.
#[derive(Debug, Deserialize, Default)]
pub struct TryQuery {
    #[serde(rename = "try")]
    pub(in crate::web) number: Option<u32>,
}

/// The try that is meant: the newest, unless one is named; none when the job has not been tried. Whether its log can be
/// read here is another question: see [`log_of`].
///
/// # Errors
/// When the named try does not exist.
pub(in crate::web) fn attempt_of(job: &JobDetail, number: Option<u32>) -> Result<Option<&AttemptRow>, Problem> {
    let attempt = match number {
        Some(number) => Some(
            job.attempts
                .iter()
                .find(|a| a.number == number)
                .ok_or_else(Problem::not_found)?,
        ),
        None => job.attempts.iter().max_by_key(|a| a.number),
    };
    Ok(attempt)
}

/// Where the log of a try can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::web) enum LogLocation {
    /// On this node.
    Here,
    /// Nowhere: it was never begun, or will be on this node.
    None,
    /// On the node that ran the try, which is another.
    Elsewhere,
    /// Nowhere any more.
    Removed,
}

pub(in crate::web) async fn log_location(state: &AppState, attempt: &AttemptRow) -> LogLocation {
    if attempt.log_removed {
        LogLocation::Removed
    } else if state.logs().exists(attempt.id).await {
        // Also under another name that this node had then.
        LogLocation::Here
    } else if attempt.node == state.config().node {
        LogLocation::None
    } else {
        LogLocation::Elsewhere
    }
}

/// Where a caller may read a log that lies on another node. The node's name is for those who may see machines.
pub(in crate::web) fn elsewhere(state: &AppState, caller: &Caller, attempt: &AttemptRow) -> String {
    match caller.may(state, Action::Machines, None) {
        Ok(()) => format!(
            "This log lies on node {node}, which ran the job: read it at that node's own address.",
            node = attempt.node
        ),
        Err(_) => {
            "This log lies on another node than the one that answers: read it at that node's own address.".to_owned()
        }
    }
}

/// The try that is meant when its log can be read here; none while there is no log.
///
/// # Errors
/// When the named try does not exist (404), its log was removed (410) or lies on another node (409).
pub(in crate::web) async fn log_of<'a>(
    state: &AppState,
    caller: &Caller,
    job: &'a JobDetail,
    number: Option<u32>,
) -> Result<Option<&'a AttemptRow>, Problem> {
    let Some(attempt) = attempt_of(job, number)? else {
        return Ok(None);
    };
    match log_location(state, attempt).await {
        LogLocation::Here => Ok(Some(attempt)),
        LogLocation::None => Ok(None),
        LogLocation::Elsewhere => Err(Problem::conflict("log_elsewhere", elsewhere(state, caller, attempt))),
        LogLocation::Removed => Err(Problem::gone("This log was removed: its retention time is over.")),
    }
}

/// `GET /jobs/{id}/log.txt`
pub async fn page(
    State(state): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Query<TryQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let job = lookup::job(&state, &caller, Action::See, &id).await?;
    respond(&state, &caller, &job, query.number, &headers).await
}

/// `GET /api/v1/jobs/{id}/logs`
pub async fn api(
    state: State<AppState>,
    caller: Caller,
    id: Path<String>,
    query: Query<TryQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    page(state, caller, id, query, headers).await
}

/// The log of a job that the caller may see.
pub(in crate::web) async fn respond(
    state: &AppState,
    caller: &Caller,
    job: &JobDetail,
    number: Option<u32>,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let failed = |e| Problem::internal("reading a log", e);
    let attempt = log_of(state, caller, job, number).await?.map(|attempt| attempt.id);
    let len = match attempt {
        Some(id) => state.logs().text_len(id).await.map_err(failed)?,
        None => 0,
    };
    // We give no validator, so whoever sends `If-Range` cannot be sure of theirs: the whole, then.
    let asked = headers
        .get(header::RANGE)
        .filter(|_| !headers.contains_key(header::IF_RANGE));
    let (status, range) = match range::parse(asked.and_then(|v| v.to_str().ok()), len) {
        Asked::Whole => (StatusCode::OK, 0..len),
        Asked::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Asked::Unsatisfiable => {
            return Ok((
                StatusCode::RANGE_NOT_SATISFIABLE,
                [(header::CONTENT_RANGE, format!("bytes */{len}"))],
            )
                .into_response());
        }
    };
    let mut response = (status, body(state, attempt, range.clone())).into_response();
    let set = response.headers_mut();
    set.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    set.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    set.insert(header::CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
    if status == StatusCode::PARTIAL_CONTENT
        && let Ok(value) = HeaderValue::from_str(&format!("bytes {}-{}/{len}", range.start, range.end - 1))
    {
        set.insert(header::CONTENT_RANGE, value);
    }
    Ok(response)
}

fn body(state: &AppState, attempt: Option<AttemptId>, range: std::ops::Range<u64>) -> Body {
    let Some(attempt) = attempt else { return Body::empty() };
    let logs = state.logs().clone();
    Body::from_stream(stream::try_unfold(range, move |range| {
        let logs = logs.clone();
        async move {
            if range.is_empty() {
                return Ok::<Option<(Bytes, _)>, std::io::Error>(None);
            }
            let end = range.end.min(range.start + PIECE);
            let piece = logs
                .text_range(attempt, range.start..end)
                .await
                .map_err(std::io::Error::other)?;
            if piece.is_empty() {
                // A body shorter than its announced length must end as an error, not as the end.
                return Err(std::io::Error::other("the log became shorter while it was read"));
            }
            let next = range.start + piece.len() as u64;
            Ok(Some((piece, next..range.end)))
        }
    }))
}
