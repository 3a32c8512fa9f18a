//! Forges on a bad day: what is one report's own, and what is everybody's.

use proptest::prelude::*;

use super::*;

/// What waits is out this soon after the forge's return.
const RETURN: Duration = Duration::from_secs(5);

fn failed(said: Vec<(Instant, Said)>) -> Vec<Duration> {
    let failed = said.into_iter().filter_map(|(_, said)| match said {
        Said::Failed(after, _) => Some(after),
        _ => None,
    });
    failed.collect()
}

#[tokio::test(start_paused = true)]
async fn a_report_that_only_gets_errors_is_put_off_longer_each_time_and_given_up() {
    let rig = rig(&[("hub", &[])]);
    let bad = named("bad", "hub", ReportState::Failure);
    let id = bad.id;
    rig.forge("hub")
        .of
        .lock()
        .unwrap()
        .insert("bad".to_owned(), Answer::Later);
    let begun = Instant::now();
    rig.owe(bad);
    let given_up = |memory: &Memory| {
        let said = memory.said(id);
        said.iter().any(|(_, said)| matches!(said, Said::Refused(..)))
    };
    rig.outbox.wait_for(given_up).await;
    let took = begun.elapsed();
    assert!(
        (Duration::from_secs(12 * 60)..Duration::from_secs(31 * 60)).contains(&took),
        "{took:?}"
    );
    let waited = failed(rig.outbox.said(id));
    assert_eq!(rig.reports("hub").len(), waited.len() + 1);
    for (after, seconds) in waited.iter().zip([1, 4, 16, 64, 256, 600, 600]) {
        assert!(
            (0.5..=1.0).contains(&(after.as_secs_f64() / f64::from(seconds))),
            "{waited:?}"
        );
    }
    let Some((_, Said::Refused(after, reason))) = rig.outbox.said(id).pop() else {
        panic!("it was not given up")
    };
    assert_eq!(after, REFUSED_AGAIN);
    assert!(reason.contains("500") && reason.contains("try 8"), "{reason}");
    // From then on once an hour, until it is taken.
    tokio::time::sleep(REFUSED_AGAIN * 3 + Duration::from_secs(60)).await;
    assert_eq!(rig.reports("hub").len(), waited.len() + 1 + 3);
    rig.forge("hub").of.lock().unwrap().clear();
    rig.delivered(id).await;
    assert_eq!(
        rig.forge("hub").asked.lock().unwrap().len(),
        rig.reports("hub").len() - 1,
        "at each error it is asked whether it is there"
    );
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_noted_and_tried_again_hourly() {
    let rig = rig(&[("hub", &[Answer::Refused])]);
    let id = rig.owe(owed("hub", ReportState::Failure));
    assert!(matches!(rig.said(id).await, Said::Refused(REFUSED_AGAIN, reason) if reason.contains("422")));
    rig.delivered(id).await;
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_forge_asks_for_holds_for_its_whole_lane_and_no_longer() {
    const ASKED: Duration = Duration::from_secs(90);
    let rig = rig(&[("hub", &[Answer::Away(Some(ASKED))])]);
    let begun = Instant::now();
    let first = rig.owe(owed("hub", ReportState::Success));
    let Said::Failed(after, _) = rig.said(first).await else {
        panic!("it was not put off")
    };
    assert!((ASKED..=ASKED + Duration::from_secs(1)).contains(&after), "{after:?}");
    let mut other = owed("hub", ReportState::Success);
    other.report.repository.context = 10.into();
    let other = rig.owe(other);
    assert_eq!(rig.delivered(other).await, begun, "another context has its own limits");
    let second = rig.owe(owed("hub", ReportState::Success));
    for id in [first, second] {
        let after = rig.delivered(id).await - begun;
        assert!((ASKED..ASKED + RETURN).contains(&after), "{after:?}");
    }
    assert_eq!(rig.reports("hub").len(), 4, "nothing was tried meanwhile");
    assert!(rig.forge("hub").asked.lock().unwrap().is_empty(), "nor asked");
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_forge_that_hangs_delays_nobody_else() {
    let rig = rig(&[("hang", &[]), ("hub", &[])]);
    rig.answer_all("hang", Some(Answer::Hang));
    for _ in 0..40 {
        rig.owe(owed("hang", ReportState::Success));
    }
    for _ in 0..10 {
        let before = Instant::now();
        let id = rig.owe(owed("hub", ReportState::Success));
        assert_eq!(rig.delivered(id).await, before);
        tokio::time::sleep(Duration::from_secs(20)).await;
    }
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_all_that_waits_goes_within_seconds() {
    for (outage, minutes) in [
        (Answer::Away(None), 0),
        (Answer::Away(None), 1),
        (Answer::Away(None), 200),
        (Answer::Hang, 1),
        (Answer::Hang, 60),
        // What Forgejo answers without its database, and a proxy's page for maintenance.
        (Answer::Later, 1),
        (Answer::Refused, 60),
    ] {
        let rig = rig(&[("hub", &[])]);
        rig.answer_all("hub", Some(outage.clone()));
        let mut waiting = Vec::new();
        for _ in 0..15 {
            waiting.push(rig.owe(owed("hub", ReportState::Success)));
            tokio::time::sleep(Duration::from_secs(4 * minutes)).await;
        }
        // A delivery that hangs is given up before the forge is asked.
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(
            rig.reports("hub").len(),
            1,
            "{outage:?}: it was told once and then only asked"
        );
        let asked = rig.forge("hub").asked.lock().unwrap().clone();
        assert!(
            asked.windows(2).all(|two| two[1] - two[0] <= RETURN),
            "{outage:?}: {asked:?}"
        );
        let back = Instant::now();
        rig.answer_all("hub", None);
        for id in &waiting {
            let after = rig.delivered(*id).await - back;
            assert!(after <= RETURN, "{outage:?}: {after:?}");
        }
        assert_eq!(rig.reports("hub").len(), waiting.len() + 1);
        let held = rig.outbox.held.lock().unwrap().clone();
        assert!(
            held.iter().all(|(_, reason)| !reason.contains("secret/repo")),
            "a report's place is not for the others' pages: {held:?}"
        );
        rig.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_report_that_gets_no_answer_from_a_forge_that_is_there_waits_alone() {
    for answer in [Answer::Away(None), Answer::Unauthorized] {
        let rig = rig(&[("hub", &[])]);
        let alone = HashMap::from([("bad".to_owned(), answer)]);
        rig.forge("hub").of.lock().unwrap().extend(alone);
        let bad = rig.owe(named("bad", "hub", ReportState::Success));
        for _ in 0..60 * 24 {
            let before = Instant::now();
            let id = rig.owe(owed("hub", ReportState::Success));
            assert_eq!(rig.delivered(id).await, before);
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        // It may be stored each time: from its eighth try on hourly, and for some time whenever others are taken.
        let tries = rig.sent("hub", "bad");
        assert!((24..24 + 30).contains(&tries), "{tries}");
        let refused = rig
            .outbox
            .said(bad)
            .into_iter()
            .find(|(_, said)| matches!(said, Said::Refused(..)));
        assert!(matches!(refused, Some((_, Said::Refused(REFUSED_AGAIN, reason))) if reason.contains("try 8")));
        assert!(rig.outbox.held.lock().unwrap().is_empty());
        rig.forge("hub").of.lock().unwrap().clear();
        rig.delivered(bad).await;
        rig.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_refused_credential_kept_is_told_once_it_is_mended() {
    let rig = rig(&[("hub", &[])]);
    rig.answer_all("hub", Some(Answer::Unauthorized));
    let waiting: Vec<ReportId> = (0..15).map(|_| rig.owe(owed("hub", ReportState::Success))).collect();
    tokio::time::sleep(Duration::from_secs(7200)).await;
    assert_eq!(rig.reports("hub").len(), 1);
    let asked = rig.forge("hub").asked.lock().unwrap().len();
    assert!(asked < 1000, "only a person mends it: {asked}");
    let back = Instant::now();
    rig.answer_all("hub", None);
    for id in waiting {
        let after = rig.delivered(id).await - back;
        assert!(after <= Duration::from_secs(20), "{after:?}");
        let refused = rig.outbox.said(id);
        assert!(
            refused.iter().all(|(_, said)| !matches!(said, Said::Refused(..))),
            "{refused:?}"
        );
    }
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_right_may_come_at_any_time_and_then_the_report_goes() {
    for (hours, within) in [(0, Duration::from_secs(600)), (24, REFUSED_AGAIN)] {
        let rig = rig(&[("hub", &[])]);
        rig.answer_of("hub", "closed", Answer::Forbidden);
        let id = rig.owe(named("closed", "hub", ReportState::Success));
        tokio::time::sleep(Duration::from_secs(10 * 60 + hours * 3600)).await;
        let said = rig.outbox.said(id);
        let limit = |nth| {
            if nth + 1 < 8 {
                Duration::from_secs(600)
            } else {
                REFUSED_AGAIN
            }
        };
        assert!(
            said.iter()
                .enumerate()
                .all(|(nth, (_, said))| matches!(said, Said::Refused(after, reason)
                if *after <= limit(nth) && reason.contains("403"))),
            "{said:?}"
        );
        let most = 8 + usize::try_from(hours).unwrap();
        assert!(
            said.len() <= most,
            "whose repository is gone is asked about {} times",
            said.len()
        );
        let back = Instant::now();
        rig.forge("hub").of.lock().unwrap().clear();
        let after = rig.delivered(id).await - back;
        assert!(after <= within, "{after:?}");
        rig.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_of_no_time_is_no_hurry() {
    let rig = rig(&[("hub", &[])]);
    *rig.forge("hub").reporting.lock().unwrap() = Some(Answer::Away(Some(Duration::ZERO)));
    for _ in 0..100 {
        rig.owe(owed("hub", ReportState::Success));
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    let sent = rig.reports("hub").len();
    assert!(sent <= 61, "{sent} in a minute");
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_report_that_is_always_limited_does_not_keep_the_others_waiting() {
    const ASKED: Duration = Duration::from_secs(60);
    let rig = rig(&[("hub", &[])]);
    rig.answer_of("hub", "bad", Answer::Away(Some(ASKED)));
    rig.owe(named("bad", "hub", ReportState::Success));
    tokio::time::sleep(Duration::from_secs(1)).await;
    for _ in 0..60 {
        let before = Instant::now();
        let ids: Vec<ReportId> = [ReportState::Running, ReportState::Success]
            .map(|state| rig.owe(owed("hub", state)))
            .into();
        for id in ids {
            let after = rig.delivered(id).await - before;
            assert!(after <= ASKED * 2 + RETURN, "{after:?}");
        }
        tokio::time::sleep(Duration::from_secs(20)).await;
    }
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_first_success_makes_due_what_failed_before_and_so_it_does_not_go_on_for_ever() {
    for minutes in [1, 20, 600] {
        let rig = rig(&[("hub", &[])]);
        *rig.forge("hub").reporting.lock().unwrap() = Some(Answer::Later);
        let failed: Vec<ReportId> = (0..10).map(|_| rig.owe(owed("hub", ReportState::Success))).collect();
        tokio::time::sleep(Duration::from_secs(60 * minutes)).await;
        *rig.forge("hub").reporting.lock().unwrap() = None;
        let back = Instant::now();
        let next = rig.owe(owed("hub", ReportState::Success));
        assert_eq!(rig.delivered(next).await, back);
        for id in failed {
            let after = rig.delivered(id).await - back;
            assert!(after <= RETURN, "after {minutes} minutes: {after:?}");
        }
        rig.end().await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn errors_of_some_reports_delay_no_other(
        reports in proptest::collection::vec((0usize..4, any::<bool>(), 0u64..3000), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let rig = rig(&[("hub", &[])]);
            let answers = [Answer::Later, Answer::Forbidden, Answer::Refused, Answer::Away(None)];
            let bad = answers.into_iter().enumerate().map(|(nth, answer)| (format!("bad {nth}"), answer));
            rig.forge("hub").of.lock().unwrap().extend(bad);
            for (nth, good, pause_ms) in reports {
                let before = Instant::now();
                if good {
                    let id = rig.owe(named("good", "hub", ReportState::Success));
                    prop_assert_eq!(rig.delivered(id).await, before);
                } else {
                    rig.owe(named(&format!("bad {nth}"), "hub", ReportState::Success));
                }
                // So that the throttle has something for each.
                tokio::time::sleep(Duration::from_millis(1000 + pause_ms)).await;
            }
            rig.end().await;
            Ok(())
        })?;
    }
}
