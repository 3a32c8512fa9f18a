//! The reports of one lane together, beside many that are delivered.

use super::*;
use crate::{model::report::Lane, store::report::reports};

contract!(
    final_states_can_be_claimed_alone,
    what_nobody_can_report_is_refused_at_once_and_without_a_try,
    what_failed_is_due_at_once_but_not_for_ever,
);

/// The only lane.
async fn lane(lab: &Lab) -> Lane {
    let mut lanes = lab.store.report_lanes().await.unwrap();
    assert_eq!(lanes.len(), 1);
    lanes.remove(0).0
}

async fn final_states_can_be_claimed_alone(lab: Lab) {
    lab.run(&Workflow { commit: 1, ..ci(ONE) }).await;
    let lane = lane(&lab).await;
    let claim = async |states| {
        let claimed = lab.store.claim_reports(&lab.node, &lane, states, 9, MINUTE);
        claimed.await.unwrap()
    };
    assert!(claim(ReportStates::Final).await.is_empty());
    lab.play(JobResult::Success).await;
    lab.run(&Workflow { commit: 2, ..ci(ONE) }).await;
    let ended = claim(ReportStates::Final).await;
    assert!(ended.len() == 2 && ended.iter().all(|owed| owed.report.state.is_final()));
    assert_eq!(claim(ReportStates::All).await.len(), 2);
}

async fn what_nobody_can_report_is_refused_at_once_and_without_a_try(lab: Lab) {
    let run = lab.run(&ci(ONE)).await;
    let lane = lane(&lab).await;
    let refuse = || lab.store.refuse_reports(&lane, MINUTE, "no such connection");
    assert_eq!(refuse().await.unwrap(), 2);
    assert_eq!(refuse().await.unwrap(), 0, "they wait");
    assert!(lab.claim_reports(9, MINUTE).await.is_empty());
    let shown = lab.store.run(run).await.unwrap().unwrap().undelivered;
    assert_eq!(shown[0], "helios-ci: no such connection");
    assert_eq!(lab.store.counts().await.unwrap().reports_refused, 2);
    // The connection is there again, and works.
    lab.store.connection_works(&lane.connection).await.unwrap();
    let owed = lab.claim_reports(9, MINUTE).await;
    assert_eq!(owed.len(), 2);
    assert!(owed.iter().all(|owed| owed.tries == 0), "nothing was tried");
}

async fn what_failed_is_due_at_once_but_not_for_ever(lab: Lab) {
    lab.run(&ci(ONE)).await;
    let lane = lane(&lab).await;
    let retry = || lab.store.retry_failed_reports(&lane, 3);
    let never_tried = {
        let claimed = lab.claim_reports(1, Duration::ZERO).await.remove(0);
        let held = lab.store.put_off_report(
            claimed.id,
            claimed.version,
            MINUTE,
            "the forge answered 429",
            PutOff::Held,
        );
        held.await.unwrap();
        claimed.id
    };
    for tries in 1..5 {
        let claimed = lab.claim_reports(9, MINUTE).await.remove(0);
        assert_ne!(claimed.id, never_tried, "a pause is no failure");
        let failed = lab.store.put_off_report(
            claimed.id,
            claimed.version,
            MINUTE,
            "the forge answered 500",
            PutOff::Failed,
        );
        failed.await.unwrap();
        assert!(lab.claim_reports(9, MINUTE).await.is_empty());
        let expected = u64::from(tries < 3);
        assert_eq!(retry().await.unwrap(), expected, "after {tries} tries");
        if expected == 0 {
            lab.sql("UPDATE reports SET due_ms = 0 WHERE tries > 0").await;
        }
    }
}

/// SQLite chooses an index by what a statement says, and there is no other way to see which.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_statement_about_a_lane_reads_what_is_delivered() {
    let lab = Lab::sqlite().await;
    for sql in [reports::CLAIM, reports::HOLD, reports::REFUSE, reports::RETRY_FAILED] {
        let mut tx = lab.store.read("explain a statement").await.unwrap();
        let rows = tx.rows(format!("EXPLAIN QUERY PLAN {sql}"), &[]).await.unwrap();
        let steps: Vec<String> = rows.iter().map(|row| row.text("detail").unwrap()).collect();
        let (by_lane, others): (Vec<_>, Vec<_>) = steps
            .iter()
            .filter(|step| step.starts_with("SCAN") || step.starts_with("SEARCH"))
            .partition(|step| step.contains("reports_lane"));
        assert_eq!(by_lane.len(), 1, "{sql}: {steps:?}");
        assert!(others.iter().all(|step| step.contains("(id=?)")), "{sql}: {steps:?}");
    }
}
