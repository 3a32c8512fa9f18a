//! Deliveries and triggers on their way to runs.

use super::*;
use crate::model::{diagnostic::Diagnostic, state::IntakeState};

contract!(
    a_delivery_is_stored_once,
    a_body_is_stored_once_under_any_key,
    racing_deliveries_are_stored_once,
    a_lost_lease_stores_nothing,
    deliveries_are_claimed_in_order_and_each_by_one,
    a_planned_delivery_leaves_its_triggers,
    a_trigger_that_is_put_off_waits,
    a_trigger_that_is_put_off_is_not_held,
    what_waits_for_a_right_has_waited_since_it_was_refused,
    of_racing_nodes_one_plans_for_a_repository,
    one_repository_is_planned_for_one_trigger_at_a_time,
    what_is_due_of_one_repository_is_claimed_together,
    a_claim_is_renewed_and_given_back,
    a_finished_trigger_leaves_runs_jobs_and_reports,
    a_lost_trigger_lease_creates_nothing,
    an_unusable_workflow_is_a_run_in_error,
    a_trigger_that_fails_tells_the_commit,
    an_unreadable_trigger_fails_alone,
    an_unreadable_delivery_fails_alone,
    requirements_must_match_the_plan,
    a_run_is_called_what_its_commit_is,
    foreign_text_with_nul_is_stored,
    what_waits_is_found_at_a_glance,
);

fn delivery(key: &str, body: &str) -> NewDelivery {
    let mut digest = [0; 32];
    digest[..body.len().min(32)].copy_from_slice(&body.as_bytes()[..body.len().min(32)]);
    NewDelivery {
        connection: "forge".parse().unwrap(),
        key: key.into(),
        event: "push".into(),
        body: body.into(),
        digest,
        subject: Subject::default(),
    }
}

async fn record(lab: &Lab, key: &str, body: &str) -> RecordOutcome {
    lab.store.record_delivery(delivery(key, body)).await.unwrap()
}

async fn newest(lab: &Lab, limit: u32) -> Vec<DeliveryRow> {
    let filter = DeliveryFilter {
        limit,
        ..DeliveryFilter::default()
    };
    lab.store.deliveries(&filter).await.unwrap()
}

async fn a_delivery_is_stored_once(lab: Lab) {
    let RecordOutcome::New(id) = record(&lab, "1", "a").await else {
        panic!("the first is new");
    };
    assert_eq!(record(&lab, "1", "a").await, RecordOutcome::Duplicate(id));
    let mut other = delivery("1", "a");
    other.connection = "elsewhere".parse().unwrap();
    let recorded = lab.store.record_delivery(other).await.unwrap();
    assert!(matches!(recorded, RecordOutcome::New(_)), "keys belong to a connection");
    assert_eq!(newest(&lab, 10).await.len(), 2);
    assert!(lab.store.record_delivery(delivery("", "b")).await.is_err());
    assert!(
        lab.store
            .record_delivery(delivery(&"x".repeat(129), "b"))
            .await
            .is_err()
    );
}

async fn a_body_is_stored_once_under_any_key(lab: Lab) {
    let RecordOutcome::New(id) = record(&lab, "1", "a").await else {
        panic!("the first is new");
    };
    assert_eq!(record(&lab, "2", "a").await, RecordOutcome::Duplicate(id));
    lab.sql("UPDATE deliveries SET received_ms = received_ms - 4 * 24 * 3600 * 1000")
        .await;
    assert!(
        matches!(record(&lab, "3", "a").await, RecordOutcome::New(_)),
        "after three days it may be meant again"
    );
}

async fn racing_deliveries_are_stored_once(lab: Lab) {
    let tries = (0..20).map(|_| {
        let lab = lab.clone();
        tokio::spawn(async move { record(&lab, "same", "same").await })
    });
    let mut new = 0;
    for task in tries.collect::<Vec<_>>() {
        new += usize::from(matches!(task.await.unwrap(), RecordOutcome::New(_)));
    }
    assert_eq!(new, 1);
}

async fn a_lost_lease_stores_nothing(lab: Lab) {
    record(&lab, "1", "a").await;
    let first = lab
        .store
        .claim_delivery(&lab.node, Duration::ZERO)
        .await
        .unwrap()
        .unwrap();
    let second = lab.store.claim_delivery(&lab.node, MINUTE).await.unwrap().unwrap();
    assert_eq!((first.id, first.tries, second.tries), (second.id, 1, 2));
    assert!(lab.store.claim_delivery(&lab.node, MINUTE).await.unwrap().is_none());
    let planned = || DeliveryOutcome::Planned(vec![push(1, &sha(1))]);
    assert!(
        !lab.store
            .finish_delivery(first.id, first.epoch, planned())
            .await
            .unwrap()
    );
    assert_eq!(lab.number("SELECT COUNT(*) AS n FROM triggers").await, 0);
    assert!(
        lab.store
            .finish_delivery(second.id, second.epoch, planned())
            .await
            .unwrap()
    );
    assert!(
        !lab.store
            .finish_delivery(second.id, second.epoch, planned())
            .await
            .unwrap(),
        "what has ended does not change"
    );
    assert_eq!(lab.number("SELECT COUNT(*) AS n FROM triggers").await, 1);
}

async fn deliveries_are_claimed_in_order_and_each_by_one(lab: Lab) {
    for n in 0..20 {
        record(&lab, &n.to_string(), &n.to_string()).await;
    }
    let first = lab.store.claim_delivery(&lab.node, MINUTE).await.unwrap().unwrap();
    assert_eq!(first.body, b"0");
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let lab = lab.clone();
        tasks.push(tokio::spawn(async move {
            let mut seen = Vec::new();
            while let Some(claimed) = lab.store.claim_delivery(&lab.node, MINUTE).await.unwrap() {
                seen.push(claimed.id);
            }
            seen
        }));
    }
    let mut seen = vec![first.id];
    for task in tasks {
        seen.extend(task.await.unwrap());
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 20);
}

async fn a_planned_delivery_leaves_its_triggers(lab: Lab) {
    record(&lab, "1", "a").await;
    let claimed = lab.store.claim_delivery(&lab.node, MINUTE).await.unwrap().unwrap();
    let outcome = DeliveryOutcome::Planned(vec![push(1, &sha(1)), push(2, &sha(2))]);
    assert!(
        lab.store
            .finish_delivery(claimed.id, claimed.epoch, outcome)
            .await
            .unwrap()
    );
    for repository in [1, 2] {
        let claimed = lab.store.claim_trigger(&lab.node, MINUTE).await.unwrap().unwrap();
        assert_eq!(
            claimed.trigger,
            push(repository, &sha(u8::try_from(repository).unwrap()))
        );
    }
    record(&lab, "2", "b").await;
    let claimed = lab.store.claim_delivery(&lab.node, MINUTE).await.unwrap().unwrap();
    let outcome = DeliveryOutcome::Ignored {
        reason: "a ping".into(),
        retry: Retry::Never,
    };
    assert!(
        lab.store
            .finish_delivery(claimed.id, claimed.epoch, outcome)
            .await
            .unwrap()
    );
    let newest = newest(&lab, 1).await.remove(0);
    assert_eq!(
        (newest.state, newest.reason.as_deref(), newest.key.as_str()),
        (IntakeState::Ignored, Some("a ping"), "2")
    );
}

async fn a_trigger_that_is_put_off_waits(lab: Lab) {
    let claimed = lab.trigger(1, &sha(1)).await;
    let late = lab
        .store
        .retry_trigger(claimed.id, claimed.epoch, MINUTE, "the forge is down", false);
    assert!(late.await.unwrap());
    assert!(lab.store.claim_trigger(&lab.node, MINUTE).await.unwrap().is_none());
    let row = lab.store.trigger(claimed.id).await.unwrap().unwrap();
    assert_eq!(
        (row.state, row.reason.as_deref(), row.tries),
        (IntakeState::Received, Some("the forge is down"), 1)
    );
    lab.sql("UPDATE triggers SET due_ms = 0").await;
    let again = lab.store.claim_trigger(&lab.node, MINUTE).await.unwrap().unwrap();
    assert_eq!((again.id, again.tries), (claimed.id, 2));
    let stale = lab
        .store
        .retry_trigger(claimed.id, claimed.epoch, MINUTE, "", false)
        .await;
    assert!(!stale.unwrap(), "the first claim's epoch is over");
}

async fn a_trigger_that_is_put_off_is_not_held(lab: Lab) {
    for commit in [1, 2] {
        lab.store.create_trigger(&push(1, &sha(commit)), "ann").await.unwrap();
    }
    let claimed = lab.store.claim_triggers(&lab.node, MINUTE, 9).await.unwrap();
    let claims: Vec<_> = claimed.iter().map(|one| (one.id, one.epoch)).collect();
    let late = lab
        .store
        .retry_trigger(claims[0].0, claims[0].1, Duration::ZERO, "no right", true);
    assert!(late.await.unwrap());
    assert_eq!(lab.store.renew_triggers(&claims, MINUTE).await.unwrap(), 1);
    assert_eq!(lab.store.release_triggers(&claims).await.unwrap(), 1);
    let again = lab.store.claim_triggers(&lab.node, MINUTE, 9).await.unwrap();
    let tries: Vec<_> = again.iter().map(|one| (one.id, one.tries)).collect();
    assert_eq!(tries, [(claims[0].0, 1), (claims[1].0, 1)]);
}

async fn what_waits_for_a_right_has_waited_since_it_was_refused(lab: Lab) {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    lab.trigger(1, &sha(1)).await;
    lab.sql("UPDATE triggers SET created_ms = created_ms - 2 * 86400000, lease_until = 0")
        .await;
    let claim = async || lab.store.claim_trigger(&lab.node, MINUTE).await.unwrap().unwrap();
    let put_off = async |claimed: ClaimedTrigger, for_connection| {
        let late = lab
            .store
            .retry_trigger(claimed.id, claimed.epoch, Duration::ZERO, "no", for_connection);
        assert!(late.await.unwrap());
    };
    let claimed = claim().await;
    assert_eq!(claimed.waited, None, "it was never refused");
    put_off(claimed, true).await;
    let claimed = claim().await;
    assert!(claimed.waited.unwrap() < DAY);
    put_off(claimed, true).await;
    lab.sql("UPDATE triggers SET refused_ms = refused_ms - 2 * 86400000")
        .await;
    let claimed = claim().await;
    assert!(claimed.waited.unwrap() > DAY);
    put_off(claimed, true).await;
    let claimed = claim().await;
    assert!(claimed.waited.unwrap() > DAY, "since the first refusal");
    put_off(claimed, false).await;
    assert_eq!(claim().await.waited, None, "it waits for something else now");
}

async fn of_racing_nodes_one_plans_for_a_repository(lab: Lab) {
    for repository in 1..=20 {
        for commit in 1..=4 {
            let new = push(repository, &sha(commit));
            lab.store.create_trigger(&new, "ann").await.unwrap();
        }
        let claims = (0..8).map(|_| {
            let lab = lab.clone();
            tokio::spawn(async move { lab.store.claim_trigger(&lab.node, MINUTE).await.unwrap() })
        });
        let mut claimed = 0;
        for claim in claims.collect::<Vec<_>>() {
            claimed += usize::from(claim.await.unwrap().is_some());
        }
        assert_eq!(claimed, 1, "repository {repository}");
    }
}

async fn one_repository_is_planned_for_one_trigger_at_a_time(lab: Lab) {
    let claim = async || lab.store.claim_trigger(&lab.node, MINUTE).await.unwrap();
    for (repository, commit) in [(1, 1), (1, 2), (2, 3)] {
        lab.store
            .create_trigger(&push(repository, &sha(commit)), "ann")
            .await
            .unwrap();
    }
    let (first, other) = (claim().await.unwrap(), claim().await.unwrap());
    assert_eq!(first.trigger, push(1, &sha(1)));
    assert_eq!(
        other.trigger,
        push(2, &sha(3)),
        "the second of repository 1 waits for the first"
    );
    assert!(claim().await.is_none());
    let ignored = TriggerOutcome::Ignored {
        reason: "done".into(),
        commit: None,
        retry: Retry::Never,
    };
    lab.store.finish_trigger(first.id, first.epoch, ignored).await.unwrap();
    assert_eq!(claim().await.unwrap().trigger, push(1, &sha(2)));
    // A lease that has ended keeps nobody out.
    lab.sql("UPDATE triggers SET lease_until = 0").await;
    assert_eq!(claim().await.unwrap().trigger, push(1, &sha(2)));
}

async fn what_is_due_of_one_repository_is_claimed_together(lab: Lab) {
    let claim = async |limit| lab.store.claim_triggers(&lab.node, MINUTE, limit).await.unwrap();
    let give_back = async |claimed: &[ClaimedTrigger], tried: bool| {
        for one in claimed {
            let later = lab
                .store
                .retry_trigger(one.id, one.epoch, Duration::ZERO, "away", !tried);
            assert!(later.await.unwrap());
        }
    };
    for (repository, commit) in [(1, 1), (2, 2), (1, 3), (1, 4), (2, 5), (1, 6)] {
        lab.store
            .create_trigger(&push(repository, &sha(commit)), "ann")
            .await
            .unwrap();
    }
    let commits = |claimed: &[ClaimedTrigger]| -> Vec<CommitSha> {
        let commit = |one: &ClaimedTrigger| one.trigger.event.commit().unwrap().clone();
        claimed.iter().map(commit).collect()
    };
    let (first, second) = (claim(3).await, claim(3).await);
    assert_eq!(commits(&first), [sha(1), sha(3), sha(4)], "the oldest, in their order");
    assert_eq!(commits(&second), [sha(2), sha(5)], "the rest of repository 1 waits");
    assert!(claim(3).await.is_empty());
    // What waits for a right comes back together however often, as it was not tried.
    give_back(&second, true).await;
    for _ in 0..9 {
        let again = claim(9).await;
        assert_eq!(commits(&again), [sha(2), sha(5)]);
        give_back(&again, false).await;
    }
    // Those that were tried three times go alone, and take no other along.
    lab.sql("UPDATE triggers SET tries = 3 WHERE repository_id = '2'").await;
    for commit in [2, 5] {
        let alone = claim(9).await;
        assert_eq!((commits(&alone), alone[0].tries), (vec![sha(commit)], 4));
        assert!(claim(9).await.is_empty(), "the other waits for it");
        let (id, epoch) = (alone[0].id, alone[0].epoch);
        let ignored = TriggerOutcome::Ignored {
            reason: "done".into(),
            commit: None,
            retry: Retry::Never,
        };
        lab.store.finish_trigger(id, epoch, ignored).await.unwrap();
    }
}

async fn a_claim_is_renewed_and_given_back(lab: Lab) {
    lab.store.create_trigger(&push(1, &sha(1)), "ann").await.unwrap();
    let claim = async |lease| lab.store.claim_trigger(&lab.node, lease).await.unwrap();
    let stale = claim(Duration::ZERO).await.unwrap();
    let held = claim(Duration::ZERO).await.unwrap();
    let (lost, kept) = ((stale.id, stale.epoch), (held.id, held.epoch));
    assert_eq!(lab.store.renew_triggers(&[lost], MINUTE).await.unwrap(), 0);
    assert_eq!(lab.store.release_triggers(&[lost]).await.unwrap(), 0);
    assert_eq!(lab.store.renew_triggers(&[lost, kept], MINUTE).await.unwrap(), 1);
    assert!(claim(MINUTE).await.is_none(), "the renewed lease holds");
    assert_eq!(lab.store.release_triggers(&[lost, kept]).await.unwrap(), 1);
    assert_eq!(
        lab.store.renew_triggers(&[kept], MINUTE).await.unwrap(),
        0,
        "what was given back is not held any more"
    );
    let again = claim(MINUTE).await.unwrap();
    assert_eq!((again.id, again.tries), (held.id, held.tries), "a stop is no try");
}

async fn a_finished_trigger_leaves_runs_jobs_and_reports(lab: Lab) {
    let run = lab.run(&ci(&[("build", &[]), ("test", &["build"])])).await;
    assert_eq!(lab.job_states(run).await, [JobState::Queued, JobState::Waiting]);
    assert_eq!(lab.run_state(run).await, RunState::Active);
    let says = async |check| lab.says(0xab, check).await.unwrap();
    assert_eq!(says("helios-ci").await, "queued: 2 jobs queued");
    assert_eq!(says("helios-ci / ci / build").await, "queued: Queued");
    assert_eq!(says("helios-ci / ci / test").await, "queued: Waiting for build");
    let detail = lab.store.run(run).await.unwrap().unwrap();
    assert_eq!(lab.store.runs_of_trigger(detail.summary.trigger).await.unwrap(), [run]);
    let trigger = lab.store.trigger(detail.summary.trigger).await.unwrap().unwrap();
    assert_eq!(trigger.state, IntakeState::Planned);
}

async fn a_lost_trigger_lease_creates_nothing(lab: Lab) {
    lab.store.create_trigger(&push(1, &sha(1)), "ann").await.unwrap();
    let stale = lab
        .store
        .claim_trigger(&lab.node, Duration::ZERO)
        .await
        .unwrap()
        .unwrap();
    let valid = lab.store.claim_trigger(&lab.node, MINUTE).await.unwrap().unwrap();
    let outcome = || TriggerOutcome::Planned {
        commit: sha(1),
        title: "Mend the thing".into(),
        runs: vec![planned(&ci(ONE))],
    };
    let lost = lab
        .store
        .finish_trigger(stale.id, stale.epoch, outcome())
        .await
        .unwrap();
    assert_eq!(lost, None);
    assert_eq!(lab.number("SELECT COUNT(*) AS n FROM runs").await, 0);
    let created = lab
        .store
        .finish_trigger(valid.id, valid.epoch, outcome())
        .await
        .unwrap();
    assert_eq!(created.unwrap().len(), 1);
    let again = lab
        .store
        .finish_trigger(valid.id, valid.epoch, outcome())
        .await
        .unwrap();
    assert_eq!(again, None, "a trigger is planned once");
}

async fn an_unusable_workflow_is_a_run_in_error(lab: Lab) {
    let claimed = lab.trigger(1, &sha(1)).await;
    let complaint = Diagnostic {
        file: "ci.yml".into(),
        line: 3,
        column: 5,
        message: "unknown key `<b>`".into(),
        help: None,
        ..Diagnostic::default()
    };
    let bad = NewRun {
        plan: Err(vec![complaint.clone()]),
        ..planned(&ci(ONE))
    };
    let good = planned(&Workflow {
        name: "good",
        ..ci(ONE)
    });
    let outcome = TriggerOutcome::Planned {
        commit: sha(1),
        title: "Mend the thing".into(),
        runs: vec![bad, good],
    };
    let created = lab.store.finish_trigger(claimed.id, claimed.epoch, outcome).await;
    let created = created.unwrap().unwrap();
    let detail = lab.store.run(created[0]).await.unwrap().unwrap();
    assert_eq!(detail.summary.state, RunState::Error);
    assert_eq!(detail.diagnostics, [complaint]);
    assert!(detail.summary.ended_ms.is_some());
    assert_eq!(
        lab.says(1, "helios-ci / ci").await.unwrap(),
        "error: ci.yml:3:5: unknown key `<b>`"
    );
    assert!(lab.says(1, "helios-ci").await.unwrap().starts_with("running: "));
    lab.play(JobResult::Success).await;
    assert_eq!(
        lab.says(1, "helios-ci").await.unwrap(),
        "error: 1 run ended in an error",
        "a good run does not hide a bad one"
    );
    let none = lab.store.rerun(created[0], Rerun::All, "ann").await.unwrap();
    assert_eq!(none, RerunOutcome::NoPlan);
}

async fn a_trigger_that_fails_tells_the_commit(lab: Lab) {
    let claimed = lab.trigger(1, &sha(1)).await;
    let outcome = TriggerOutcome::Failed {
        reason: "the repository is larger than 4 GiB".into(),
        commit: Some(sha(1)),
        retry: Retry::OnRequest,
    };
    let created = lab
        .store
        .finish_trigger(claimed.id, claimed.epoch, outcome)
        .await
        .unwrap();
    assert_eq!(created, Some(vec![]));
    assert_eq!(
        lab.says(1, "helios-ci").await.unwrap(),
        "error: the repository is larger than 4 GiB"
    );
    let claimed = lab.trigger(1, &sha(2)).await;
    let outcome = TriggerOutcome::Failed {
        reason: "no such ref".into(),
        commit: None,
        retry: Retry::OnRequest,
    };
    lab.store
        .finish_trigger(claimed.id, claimed.epoch, outcome)
        .await
        .unwrap();
    assert_eq!(lab.says(2, "helios-ci").await, None);
}

async fn an_unreadable_trigger_fails_alone(lab: Lab) {
    let broken = lab.store.create_trigger(&push(1, &sha(1)), "ann").await.unwrap();
    lab.sql("UPDATE triggers SET body = '{}'").await;
    let good = lab.store.create_trigger(&push(1, &sha(2)), "ann").await.unwrap();
    let claimed = lab.store.claim_trigger(&lab.node, MINUTE).await.unwrap().unwrap();
    assert_eq!((claimed.id, claimed.tries), (good, 1), "nobody waits behind it");
    let mut tx = lab.store.read("look at a trigger").await.unwrap();
    let sql = "SELECT state, reason, lease_until FROM triggers WHERE id = $1";
    let row = tx.row(sql, engine::tx::args![broken]).await.unwrap().unwrap();
    assert_eq!(
        (row.text("state").unwrap().as_str(), row.int("lease_until").unwrap()),
        ("failed", 0)
    );
    let reason = row.text("reason").unwrap();
    assert!(
        reason.starts_with("cannot claim a trigger: a row of the database has a value in `body`"),
        "{reason}"
    );
    drop(tx);
    assert_eq!(lab.store.counts().await.unwrap().rows_unreadable, 1);
    assert!(lab.store.claim_trigger(&lab.node, MINUTE).await.unwrap().is_none());
    assert_eq!(lab.store.counts().await.unwrap().rows_unreadable, 1, "it has ended");
}

async fn an_unreadable_delivery_fails_alone(lab: Lab) {
    lab.store
        .record_delivery(super::deliveries::pushed("1", "one", 1))
        .await
        .unwrap();
    lab.sql("UPDATE deliveries SET connection = 'no connection'").await;
    lab.store
        .record_delivery(super::deliveries::pushed("2", "two", 2))
        .await
        .unwrap();
    let claimed = lab.store.claim_delivery(&lab.node, MINUTE).await.unwrap().unwrap();
    assert_eq!(
        (claimed.tries, claimed.connection.as_str()),
        (1, "forge"),
        "nobody waits behind it"
    );
    let failed = "SELECT COUNT(*) AS n FROM deliveries WHERE state = 'failed' AND lease_until = 0";
    assert_eq!(lab.number(failed).await, 1);
    assert!(lab.store.claim_delivery(&lab.node, MINUTE).await.unwrap().is_none());
    assert_eq!(lab.store.counts().await.unwrap().rows_unreadable, 1);
}

async fn a_run_is_called_what_its_commit_is(lab: Lab) {
    for (delivered, commits, shown) in [
        ("what the hook says", "what the commit says", "what the commit says"),
        ("", "what the commit says", "what the commit says"),
        ("what the hook says", "", "what the hook says"),
    ] {
        let mut trigger = push(1, &sha(1));
        trigger.title = delivered.into();
        lab.store.create_trigger(&trigger, "ann").await.unwrap();
        let claimed = lab.store.claim_trigger(&lab.node, MINUTE).await.unwrap().unwrap();
        let outcome = TriggerOutcome::Planned {
            commit: sha(1),
            title: commits.into(),
            runs: vec![planned(&ci(ONE))],
        };
        let runs = lab.store.finish_trigger(claimed.id, claimed.epoch, outcome).await;
        let run = lab.store.run(runs.unwrap().unwrap()[0]).await.unwrap().unwrap();
        assert_eq!(run.summary.title, shown);
    }
}

async fn requirements_must_match_the_plan(lab: Lab) {
    let claimed = lab.trigger(1, &sha(1)).await;
    let mut run = planned(&ci(ONE));
    run.plan.as_mut().unwrap().jobs.clear();
    let outcome = TriggerOutcome::Planned {
        commit: sha(1),
        title: "Mend the thing".into(),
        runs: vec![run],
    };
    let refused = lab.store.finish_trigger(claimed.id, claimed.epoch, outcome).await;
    assert!(matches!(refused, Err(StoreError::Internal { .. })));
    let row = lab.store.trigger(claimed.id).await.unwrap().unwrap();
    assert_eq!(row.state, IntakeState::Received, "nothing of it was stored");
}

async fn foreign_text_with_nul_is_stored(lab: Lab) {
    let mut trigger = push(1, &sha(1));
    trigger.title = "a\0b".into();
    let id = lab.store.create_trigger(&trigger, "ann\0").await.unwrap();
    let row = lab.store.trigger(id).await.unwrap().unwrap();
    assert_eq!(row.trigger.title, "a\0b", "JSON keeps it");
    let claimed = lab.store.claim_trigger(&lab.node, MINUTE).await.unwrap().unwrap();
    let outcome = TriggerOutcome::Planned {
        commit: sha(1),
        title: "a\0b".into(),
        runs: vec![planned(&ci(ONE))],
    };
    let runs = lab.store.finish_trigger(claimed.id, claimed.epoch, outcome).await;
    let run = lab.store.run(runs.unwrap().unwrap()[0]).await.unwrap().unwrap();
    assert_eq!(run.summary.title, "a\u{fffd}b");
}

async fn what_waits_is_found_at_a_glance(lab: Lab) {
    let waiting = async || lab.store.waiting().await.unwrap();
    assert_eq!(waiting().await, []);
    record(&lab, "1", "a").await;
    assert_eq!(waiting().await, [Waiting::Delivery]);
    let claimed = lab.store.claim_delivery(&lab.node, MINUTE).await.unwrap().unwrap();
    assert_eq!(waiting().await, [], "somebody has it");
    let outcome = DeliveryOutcome::Planned(vec![push(1, &sha(1))]);
    assert!(
        lab.store
            .finish_delivery(claimed.id, claimed.epoch, outcome)
            .await
            .unwrap()
    );
    assert_eq!(waiting().await, [Waiting::Trigger]);
    lab.sql("UPDATE triggers SET due_ms = due_ms + 60000").await;
    assert_eq!(waiting().await, [], "it was put off");
    lab.run(&ci(&[("build", &[])])).await;
    assert_eq!(waiting().await, [Waiting::Job, Waiting::Report]);
}
