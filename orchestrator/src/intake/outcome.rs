//! What came of a delivery, for its sender and for the page of deliveries.

use crate::{
    clock::moment,
    model::{state::IntakeState, text::count},
    store::{DeliveryBuild, DeliveryRow},
};

/// What came of a delivery, in one sentence.
#[must_use]
pub fn outcome_text(row: &DeliveryRow) -> String {
    let reason = row.reason.as_deref().unwrap_or("no reason is known");
    let outcome = match row.state {
        IntakeState::Received => "it is read next".to_owned(),
        IntakeState::Ignored => format!("ignored: {reason}"),
        IntakeState::Failed => format!("failed: {reason}"),
        IntakeState::Planned if row.builds.is_empty() => "planned".to_owned(),
        IntakeState::Planned => {
            let builds: Vec<String> = row.builds.iter().map(build_text).collect();
            builds.join("; ")
        }
    };
    let remedy = if row.retryable {
        "; delivered again, it is planned again"
    } else {
        ""
    };
    format!("{outcome}{remedy}")
}

fn build_text(build: &DeliveryBuild) -> String {
    let reason = build.reason.as_deref().unwrap_or("no reason is known");
    match (build.state, &build.reason) {
        (IntakeState::Received, Some(reason)) => format!(
            "waiting: {reason}; tried {}, next at {}",
            count(build.tries as usize, "time"),
            moment(build.due_ms)
        ),
        (IntakeState::Received, None) => "waiting for its turn".to_owned(),
        (IntakeState::Planned, _) => format!("planned: {}", count(build.runs as usize, "run")),
        (IntakeState::Ignored, _) => format!("ignored: {reason}"),
        (IntakeState::Failed, _) => format!("failed: {reason}"),
    }
}
