//! Commit statuses as Forgejo and Gitea take them.

use serde::Serialize;

use crate::{
    forge::text::with_word,
    model::report::{Report, ReportState},
};

/// One line in a list of checks.
const MAX_DESCRIPTION: usize = 140;

/// The body that sets a status.
#[derive(Debug, Serialize)]
pub struct Status<'a> {
    state: &'static str,
    context: &'a str,
    description: String,
    target_url: &'a str,
}

/// The state, and the word that says what the state alone does not. Old servers take any text as
/// state and rank unknown ones nowhere, so only the five that all of them know are used: `skipped`
/// is not among them, and a job that did not run because another failed is no `success`.
fn names(state: ReportState) -> (&'static str, &'static str) {
    match state {
        ReportState::Queued => ("pending", "Queued"),
        ReportState::Running => ("pending", "Running"),
        ReportState::Success => ("success", ""),
        ReportState::Failure => ("failure", ""),
        ReportState::TimedOut => ("failure", "Timed out"),
        ReportState::Cancelled => ("error", "Cancelled"),
        ReportState::Skipped => ("failure", "Skipped"),
        ReportState::Error => ("error", "Error"),
    }
}

impl<'a> Status<'a> {
    /// A report as Forgejo takes it.
    pub fn new(report: &'a Report, details: &'a str) -> Self {
        let (state, word) = names(report.state);
        let mut description = with_word(word, &report.title, MAX_DESCRIPTION);
        if description.is_empty() {
            state.clone_into(&mut description);
        }
        Self {
            state,
            context: &report.name,
            description,
            target_url: details,
        }
    }
}
