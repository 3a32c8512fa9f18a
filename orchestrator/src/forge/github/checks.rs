//! Check runs, with our own structs: octocrab's cannot say `started_at` on creation.

use chrono::{DateTime, SecondsFormat};
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use super::{
    api::{Api, Ask},
    token::Scope,
};
use crate::{
    clock,
    forge::{
        ForgeError,
        text::{markdown, with_word},
    },
    model::report::{Report, ReportState},
};

/// What is sent to create or update a check run.
#[derive(Debug, Serialize)]
pub struct CheckRun<'a> {
    name: &'a str,
    /// On creation only.
    #[serde(skip_serializing_if = "Option::is_none")]
    head_sha: Option<&'a str>,
    external_id: String,
    details_url: &'a str,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    conclusion: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_at: Option<String>,
    output: Output,
}

#[derive(Debug, Serialize)]
struct Output {
    title: String,
    summary: String,
}

/// GitHub's names for a state: status, conclusion, and what a title begins with because the
/// conclusion alone would not say it, unless it does so itself.
fn names(state: ReportState) -> (&'static str, Option<&'static str>, &'static str) {
    match state {
        ReportState::Queued => ("queued", None, ""),
        ReportState::Running => ("in_progress", None, ""),
        ReportState::Success => ("completed", Some("success"), ""),
        ReportState::Failure => ("completed", Some("failure"), ""),
        ReportState::Cancelled => ("completed", Some("cancelled"), ""),
        ReportState::TimedOut => ("completed", Some("timed_out"), ""),
        // What it needs did not succeed. `skipped` would satisfy a required check; the title says the word.
        ReportState::Skipped => ("completed", Some("cancelled"), ""),
        // There is no conclusion for our own failures, and `neutral` would satisfy a required check.
        ReportState::Error => ("completed", Some("failure"), "Error"),
    }
}

/// The id that distinguishes our check runs of one name and commit. Not the job: which job a check speaks of may
/// change between a lost answer and the next try.
fn external_id(report: &Report) -> String {
    format!("check:{}", report.generation)
}

fn time(ms: i64) -> Option<String> {
    Some(DateTime::from_timestamp_millis(ms)?.to_rfc3339_opts(SecondsFormat::Secs, true))
}

impl<'a> CheckRun<'a> {
    /// A report as GitHub takes it; for an update without the commit.
    pub fn new(report: &'a Report, details: &'a str, create: bool) -> Self {
        let (status, conclusion, word) = names(report.state);
        let title = match with_word(word, &report.title, 240) {
            title if title.is_empty() => conclusion.unwrap_or(status).to_owned(),
            title => title,
        };
        let summary = if report.summary.trim().is_empty() {
            title.clone()
        } else {
            markdown(&report.summary)
        };
        let completed_ms = report
            .state
            .is_final()
            .then(|| report.completed_ms.unwrap_or_else(clock::now_ms));
        Self {
            name: &report.name,
            head_sha: create.then(|| report.commit.as_str()),
            external_id: external_id(report),
            details_url: details,
            status,
            conclusion,
            started_at: report.started_ms.and_then(time),
            completed_at: completed_ms.and_then(time),
            output: Output { title, summary },
        }
    }
}

#[derive(Deserialize)]
struct Created {
    id: u64,
}

#[derive(Deserialize)]
struct Listed {
    check_runs: Vec<ListedRun>,
}

#[derive(Deserialize)]
struct ListedRun {
    id: u64,
    #[serde(default)]
    external_id: Option<String>,
}

/// Brings GitHub's check run to this state and returns its id. `scope` is the report's repository, with the purpose to
/// write checks.
///
/// # Errors
/// When GitHub did not take it.
pub async fn deliver(
    api: &Api,
    scope: Scope,
    report: &Report,
    details: &str,
    known: Option<&str>,
) -> Result<u64, ForgeError> {
    // The id came from the store; anything but a number cannot be one.
    if let Some(id) = known.and_then(|k| k.parse().ok())
        && update(api, scope, report, details, id).await?
    {
        return Ok(id);
    }
    // An earlier try may have created it without our hearing the answer, before a crash or a cut;
    // creating it again would leave a check run that nobody ever completes.
    if let Some(id) = find(api, scope, report).await?
        && update(api, scope, report, details, id).await?
    {
        return Ok(id);
    }
    let route = format!("/repos/{}/check-runs", report.repository.path);
    let body = CheckRun::new(report, details, true);
    let ask = Ask {
        method: Method::POST,
        route: &route,
        body: Some(&body),
        accept: None,
    };
    let help = "the repository is gone, or the App is not installed on it or lacks `checks: write`";
    Ok(api.as_installation(scope, ask).await?.needed::<Created>(help)?.id)
}

/// Whether the check run still existed.
async fn update(api: &Api, scope: Scope, report: &Report, details: &str, id: u64) -> Result<bool, ForgeError> {
    let route = format!("/repos/{}/check-runs/{id}", report.repository.path);
    let body = CheckRun::new(report, details, false);
    let ask = Ask {
        method: Method::PATCH,
        route: &route,
        body: Some(&body),
        accept: None,
    };
    Ok(!api.as_installation(scope, ask).await?.is_absent())
}

async fn find(api: &Api, scope: Scope, report: &Report) -> Result<Option<u64>, ForgeError> {
    let route = format!(
        "/repos/{}/commits/{}/check-runs?check_name={}&app_id={}&filter=all&per_page=100",
        report.repository.path,
        report.commit,
        utf8_percent_encode(&report.name, NON_ALPHANUMERIC),
        api.app_id()
    );
    let listed: Option<Listed> = api.as_installation(scope, Ask::get(&route)).await?.json()?;
    let wanted = external_id(report);
    let runs = listed.map(|l| l.check_runs).unwrap_or_default();
    Ok(runs
        .into_iter()
        .find(|run| run.external_id.as_deref() == Some(&wanted))
        .map(|run| run.id))
}
