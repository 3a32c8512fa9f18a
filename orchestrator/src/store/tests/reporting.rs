//! The outbox as the reporter sees it.

use super::*;
use crate::model::report::ReportState;

contract!(
    the_newest_state_is_told,
    a_report_is_in_flight_once,
    final_reports_go_first,
    a_pause_is_kept_and_a_refusal_is_shown,
    an_answer_for_an_earlier_generation_lends_no_id,
    an_old_answer_does_not_hide_a_new_state,
    an_expired_lease_is_claimed_again,
);

async fn claim_all(lab: &Lab) -> Vec<ClaimedReport> {
    lab.store.claim_reports(&lab.node, 100, MINUTE).await.unwrap()
}

async fn deliver(lab: &Lab, report: &ClaimedReport) {
    let told = lab.store.report_delivered(report.id, report.version, Some("remote"));
    told.await.unwrap();
}

/// The report of the only job.
fn of_job(reports: Vec<ClaimedReport>) -> ClaimedReport {
    let mut of_job = reports.into_iter().filter(|r| r.report.job.is_some());
    let report = of_job.next().unwrap();
    assert!(of_job.next().is_none());
    report
}

async fn the_newest_state_is_told(lab: Lab) {
    assert_eq!(lab.store.next_report_due().await.unwrap(), None);
    let run = lab.run(&ci(ONE)).await;
    lab.play(JobResult::Failure).await;
    assert!(lab.store.next_report_due().await.unwrap().is_some());
    let reports = claim_all(&lab).await;
    assert_eq!(reports.len(), 2, "one per check, whatever happened in between");
    for claimed in &reports {
        let report = &claimed.report;
        assert_eq!((report.state, report.run), (ReportState::Failure, Some(run)));
        assert_eq!((&report.commit, report.installation), (&sha(0xab), Some(7)));
        assert!(report.completed_ms >= report.started_ms && report.started_ms.is_some());
        deliver(&lab, claimed).await;
    }
    assert_eq!(lab.store.next_report_due().await.unwrap(), None);
    assert!(claim_all(&lab).await.is_empty());
}

async fn a_report_is_in_flight_once(lab: Lab) {
    lab.run(&ci(ONE)).await;
    let first = of_job(claim_all(&lab).await);
    lab.play(JobResult::Success).await;
    assert!(
        claim_all(&lab).await.is_empty(),
        "the forge must not hear two states at once"
    );
    deliver(&lab, &first).await;
    let second = of_job(claim_all(&lab).await);
    assert!(second.version > first.version);
    assert_eq!(
        (second.report.state, second.remote.as_deref()),
        (ReportState::Success, Some("remote"))
    );
}

async fn final_reports_go_first(lab: Lab) {
    lab.run(&Workflow { commit: 1, ..ci(ONE) }).await;
    lab.play(JobResult::Success).await;
    lab.run(&Workflow { commit: 2, ..ci(ONE) }).await;
    lab.sql("UPDATE reports SET due_ms = CASE WHEN completed_ms IS NULL THEN 1 ELSE 2 END")
        .await;
    let first = lab.store.claim_reports(&lab.node, 2, MINUTE).await.unwrap();
    assert!(first.len() == 2 && first.iter().all(|r| r.report.state.is_final()));
    let all = claim_all(&lab).await;
    assert!(all.len() == 2 && all.iter().all(|r| !r.report.state.is_final()));
}

async fn a_pause_is_kept_and_a_refusal_is_shown(lab: Lab) {
    let run = lab.run(&ci(ONE)).await;
    for claimed in claim_all(&lab).await {
        let (id, version) = (claimed.id, claimed.version);
        if claimed.report.job.is_some() {
            lab.store
                .report_refused(id, version, "the forge answered 403")
                .await
                .unwrap();
        } else {
            lab.store
                .report_later(id, version, MINUTE, "the forge answered 429")
                .await
                .unwrap();
        }
    }
    assert!(claim_all(&lab).await.is_empty());
    let shown = lab.store.run(run).await.unwrap().unwrap().undelivered;
    let expected = [
        "helios-ci: the forge answered 429",
        "helios-ci / ci / build: the forge answered 403",
    ];
    assert_eq!(shown, expected);
    let counts = lab.store.counts().await.unwrap();
    assert_eq!((counts.reports_undelivered, counts.reports_refused), (2, 1));
    lab.play(JobResult::Success).await;
    let again = of_job(claim_all(&lab).await);
    assert_eq!(
        again.tries, 1,
        "the refused check has something new to say, the paused one still waits"
    );
    deliver(&lab, &again).await;
    lab.sql("UPDATE reports SET due_ms = 0").await;
    for claimed in claim_all(&lab).await {
        deliver(&lab, &claimed).await;
    }
    assert!(lab.store.run(run).await.unwrap().unwrap().undelivered.is_empty());
}

async fn an_answer_for_an_earlier_generation_lends_no_id(lab: Lab) {
    let run = lab.run(&ci(ONE)).await;
    lab.play(JobResult::Failure).await;
    let old = claim_all(&lab).await;
    lab.store.rerun(run, Rerun::All, "bob").await.unwrap();
    for claimed in &old {
        deliver(&lab, claimed).await;
    }
    let new = claim_all(&lab).await;
    assert_eq!(new.len(), 2);
    for claimed in new {
        assert_eq!(
            (claimed.report.generation, claimed.remote),
            (2, None),
            "{}",
            claimed.report.name
        );
    }
}

async fn an_old_answer_does_not_hide_a_new_state(lab: Lab) {
    lab.run(&ci(ONE)).await;
    let slow = of_job(lab.store.claim_reports(&lab.node, 100, Duration::ZERO).await.unwrap());
    lab.play(JobResult::Success).await;
    let fast = of_job(claim_all(&lab).await);
    deliver(&lab, &fast).await;
    deliver(&lab, &slow).await;
    let late = lab.store.report_refused(slow.id, slow.version, "no").await;
    late.unwrap();
    let newest = lab
        .number("SELECT COUNT(*) AS n FROM reports WHERE delivered = version")
        .await;
    assert_eq!(newest, 1, "the job's check is told; only the aggregate is owed");
}

async fn an_expired_lease_is_claimed_again(lab: Lab) {
    lab.run(&ci(ONE)).await;
    let lost = lab.store.claim_reports(&lab.node, 100, Duration::ZERO).await.unwrap();
    assert_eq!(claim_all(&lab).await.len(), lost.len());
}
