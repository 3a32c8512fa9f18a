//! Commit statuses as Forgejo and Gitea take them.

use serde::{Deserialize, Serialize};

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

    /// Whether the newest status of this context, among those that a forge has stored, is this one. Forges trim texts.
    pub fn is_newest_of(&self, stored: Vec<serde_json::Value>) -> bool {
        let stored = stored
            .into_iter()
            .filter_map(|status| serde_json::from_value::<Stored>(status).ok());
        let ours = stored.filter(|status| status.context.trim() == self.context.trim());
        ours.max_by_key(|status| status.id).is_some_and(|newest| {
            let (description, url) = (
                newest.description.unwrap_or_default(),
                newest.target_url.unwrap_or_default(),
            );
            newest.status == self.state
                && description.trim() == self.description.trim()
                && url.trim() == self.target_url.trim()
        })
    }
}

/// A status as it is listed.
#[derive(Deserialize)]
struct Stored {
    id: u64,
    status: String,
    context: String,
    description: Option<String>,
    target_url: Option<String>,
}
