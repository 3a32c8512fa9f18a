//! What is told, in which order, and how fast.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_report_is_delivered_with_its_link_and_what_is_known() {
    let rig = rig(&[("hub", &[])]);
    let mine = owed("hub", ReportState::Success);
    let (job, name) = (mine.report.job.unwrap(), mine.report.name.clone());
    let id = rig.owe(mine);
    assert_eq!(rig.said(id).await, Said::Delivered(Some("7".to_owned())));
    assert_eq!(
        rig.reports("hub"),
        [(name, format!("https://ci.example/jobs/{job}"), Some("5".to_owned()))]
    );

    let mut aggregate = owed("hub", ReportState::Queued);
    aggregate.report.job = None;
    let run = aggregate.report.run.unwrap();
    let id = rig.owe(aggregate);
    rig.said(id).await;
    assert_eq!(rig.reports("hub")[1].1, format!("https://ci.example/runs/{run}"));
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn bursts_are_throttled_to_the_forges_rate() {
    let rig = rig(&[("hub", &[])]);
    let before = Instant::now();
    for _ in 0..80 {
        let id = rig.owe(owed("hub", ReportState::Running));
        assert!(matches!(rig.said(id).await, Said::Delivered(_)));
    }
    // 600 a minute are ten a second; three quarters of the burst of 20 are for states that are not final.
    let took = before.elapsed();
    assert!(
        (Duration::from_secs(6)..Duration::from_secs(8)).contains(&took),
        "{took:?}"
    );
    let before = Instant::now();
    for _ in 0..4 {
        let id = rig.owe(owed("hub", ReportState::Success));
        assert!(matches!(rig.said(id).await, Said::Delivered(_)));
    }
    assert!(
        before.elapsed() < Duration::from_millis(50),
        "the rest is for final ones: {:?}",
        before.elapsed()
    );
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_final_state_goes_before_what_waits_for_its_turn() {
    let rig = rig(&[("hub", &[])]);
    let waiting: Vec<ReportId> = (0..60).map(|_| rig.owe(owed("hub", ReportState::Queued))).collect();
    tokio::time::sleep(Duration::from_millis(1)).await;
    let before = Instant::now();
    let id = rig.owe(owed("hub", ReportState::Failure));
    let took = rig.delivered(id).await - before;
    assert!(took <= Duration::from_millis(200), "{took:?}");
    for id in waiting {
        rig.delivered(id).await;
    }
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_its_turn_becomes_final_and_goes_at_once_and_once() {
    let rig = rig(&[("hub", &[])]);
    // All that states that are not final may take at once, and two more, which wait for the throttle.
    let waiting: Vec<ReportId> = (0..17)
        .map(|nth| rig.owe(named(&format!("check {nth}"), "hub", ReportState::Running)))
        .collect();
    rig.delivered(waiting[14]).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    let ended = Instant::now();
    for id in &waiting[15..] {
        rig.outbox.renew(*id, ReportState::Success);
    }
    rig.wake.notify_one();
    for (nth, id) in waiting.into_iter().enumerate().skip(15) {
        let took = rig.delivered(id).await - ended;
        assert!(took <= Duration::from_millis(1), "{took:?}");
        let states = rig.forge("hub").states.lock().unwrap().clone();
        let of_it = states.iter().filter(|(name, _)| *name == format!("check {nth}"));
        let of_it: Vec<ReportState> = of_it.map(|(_, state)| *state).collect();
        assert_eq!(of_it, [ReportState::Success], "nobody needs what it was before");
    }
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_report_of_a_connection_that_is_gone_is_refused_in_words() {
    let rig = rig(&[]);
    let id = rig.owe(owed("gone", ReportState::Success));
    assert!(matches!(rig.said(id).await, Said::Refused(_, reason) if reason.contains("`gone`")));
    assert!(
        !rig.outbox.rows.lock().unwrap()[0].claimed,
        "nobody claims them one by one"
    );
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_for_a_while_loses_nothing() {
    for failures in 1..5 {
        let rig = rig_with(&[("hub", &[])], |memory| *memory.broken.lock().unwrap() = failures);
        let id = rig.owe(owed("hub", ReportState::Success));
        rig.delivered(id).await;
        rig.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_the_one_under_way_and_begins_no_other() {
    let rig = rig_with(&[("hang", &[Answer::Hang])], |memory| {
        let reports = (0..4).map(|_| due(owed("hang", ReportState::Success)));
        memory.rows.lock().unwrap().extend(reports);
    });
    while rig.reports("hang").is_empty() {
        tokio::task::yield_now().await;
    }
    let (outbox, before) = (rig.outbox.clone(), Instant::now());
    rig.end().await;
    assert!(before.elapsed() <= STOP_WITHIN, "{:?}", before.elapsed());
    let rows = outbox.rows.lock().unwrap();
    let claimed = rows.iter().filter(|row| row.claimed).count();
    assert_eq!(claimed, 1, "the one under way is left to its lease");
    assert!(outbox.said.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_was_idle_for_long_tells_again() {
    let rig = rig(&[("hub", &[])]);
    for minutes in [0, 1, 2, 3, 60] {
        tokio::time::sleep(Duration::from_secs(60 * minutes)).await;
        let before = Instant::now();
        let id = rig.owe(owed("hub", ReportState::Success));
        assert_eq!(rig.delivered(id).await, before);
    }
    rig.end().await;
}
