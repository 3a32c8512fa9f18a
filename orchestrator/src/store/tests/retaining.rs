//! What goes, and what must stay until its machine and its files are gone.

use super::*;
use crate::config::Retention;

contract!(
    old_logs_then_old_runs_go,
    the_run_before_a_forgotten_one_counts_again,
    runs_that_an_older_node_left_current_are_superseded_by_the_next,
    a_run_with_a_machine_stays,
    an_active_run_is_not_forgotten,
    marked_files_are_listed_by_node_until_they_are_gone,
    logs_are_unsealed_until_their_node_has_seen_them_sealed,
    old_deliveries_lose_their_bodies_and_then_go,
    reports_of_no_run_go_by_their_age,
    what_has_expired_goes_in_batches,
);

const KEEP: Retention = Retention {
    logs_days: 90,
    runs_days: 365,
    deliveries_days: 14,
};

const FOR_EVER: Retention = Retention {
    logs_days: 0,
    runs_days: 0,
    deliveries_days: 0,
};

fn log(attempt: AttemptId) -> Removal {
    Removal {
        class: FileClass::Log,
        attempt,
    }
}

async fn old_logs_then_old_runs_go(lab: Lab) {
    let run = lab.run(&ci(ONE)).await;
    let (claimed, _) = lab.play(JobResult::Success).await;
    lab.gone(&claimed).await;
    let marked = async || lab.store.removals(&lab.node, None).await.unwrap();
    assert!(!lab.store.expire(&lab.node, &KEEP).await.unwrap());
    assert_eq!(marked().await, []);
    lab.sql(AGE_ATTEMPTS).await;
    for _ in 0..2 {
        assert!(!lab.store.expire(&lab.node, &KEEP).await.unwrap());
        assert_eq!(marked().await, [log(claimed.attempt)]);
    }
    assert!(lab.store.attempt(claimed.attempt).await.unwrap().unwrap().log_removed);
    lab.store.removed(&lab.node, log(claimed.attempt)).await.unwrap();
    lab.store.removed(&lab.node, log(claimed.attempt)).await.unwrap();
    assert!(!lab.store.expire(&lab.node, &KEEP).await.unwrap());
    assert_eq!(marked().await, [], "and is not marked again");
    assert_eq!(lab.store.expired_runs(&KEEP).await.unwrap(), []);
    lab.sql(AGE_RUNS).await;
    assert_eq!(lab.store.expired_runs(&KEEP).await.unwrap(), [run]);
    assert_eq!(lab.store.expired_runs(&FOR_EVER).await.unwrap(), []);
    assert!(lab.store.forget_run(run).await.unwrap());
    assert!(lab.store.forget_run(run).await.unwrap());
    assert!(lab.store.run(run).await.unwrap().is_none());
    for table in [
        "SELECT COUNT(*) AS n FROM jobs",
        "SELECT COUNT(*) AS n FROM attempts",
        "SELECT COUNT(*) AS n FROM machines",
        "SELECT COUNT(*) AS n FROM reports",
        "SELECT COUNT(*) AS n FROM triggers",
        "SELECT COUNT(*) AS n FROM removals",
    ] {
        assert_eq!(lab.number(table).await, 0, "{table}");
    }
}

async fn the_run_before_a_forgotten_one_counts_again(lab: Lab) {
    let mut runs = Vec::new();
    for result in [JobResult::Success, JobResult::Success, JobResult::Failure] {
        runs.push(lab.run(&ci(ONE)).await);
        let (claimed, _) = lab.play(result).await;
        lab.gone(&claimed).await;
        // Ids that were made in one millisecond have no order.
        let now = crate::clock::now_ms();
        while crate::clock::now_ms() == now {
            tokio::task::yield_now().await;
        }
    }
    let counted = "SELECT COUNT(*) AS n FROM runs WHERE superseded = 0";
    assert_eq!(lab.number(counted).await, 1);
    let says = async || lab.says(0xab, "helios-ci").await.unwrap();
    assert!(says().await.starts_with("failure"), "{}", says().await);
    assert!(lab.store.forget_run(runs[0]).await.unwrap());
    assert_eq!(lab.number(counted).await, 1);
    assert!(lab.store.forget_run(runs[2]).await.unwrap());
    assert_eq!(lab.number(counted).await, 1);
    lab.store.rerun(runs[1], Rerun::All, "ann").await.unwrap();
    let (claimed, _) = lab.play(JobResult::Success).await;
    assert_eq!(claimed.run, runs[1]);
    assert!(says().await.starts_with("success"), "{}", says().await);
}

async fn runs_that_an_older_node_left_current_are_superseded_by_the_next(lab: Lab) {
    for result in [JobResult::Failure, JobResult::Failure, JobResult::Success] {
        lab.sql("UPDATE runs SET superseded = 0").await;
        lab.run(&ci(ONE)).await;
        lab.play(result).await;
        let now = crate::clock::now_ms();
        while crate::clock::now_ms() == now {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(
        lab.number("SELECT COUNT(*) AS n FROM runs WHERE superseded = 0").await,
        1
    );
    let says = lab.says(0xab, "helios-ci").await.unwrap();
    assert!(says.starts_with("success"), "{says}");
}

async fn a_run_with_a_machine_stays(lab: Lab) {
    let run = lab.run(&ci(ONE)).await;
    let (claimed, _) = lab.play(JobResult::Success).await;
    lab.sql(AGE_RUNS).await;
    assert_eq!(lab.store.expired_runs(&KEEP).await.unwrap(), []);
    lab.gone(&claimed).await;
    assert_eq!(lab.store.expired_runs(&KEEP).await.unwrap(), [run]);
}

async fn an_active_run_is_not_forgotten(lab: Lab) {
    let run = lab.run(&ci(ONE)).await;
    assert!(!lab.store.forget_run(run).await.unwrap());
    assert_eq!(lab.run_state(run).await, RunState::Active);
}

async fn marked_files_are_listed_by_node_until_they_are_gone(lab: Lab) {
    let other = lab.node("node-b").await;
    lab.run(&ci(&[("a", &[]), ("b", &[]), ("c", &[])])).await;
    let mut mine = vec![
        lab.play(JobResult::Success).await.0.attempt,
        lab.play(JobResult::Success).await.0.attempt,
    ];
    mine.sort();
    let (theirs, _) = other.play(JobResult::Success).await;
    lab.sql(AGE_ATTEMPTS).await;
    assert!(!lab.store.expire(&lab.node, &KEEP).await.unwrap());
    let mine: Vec<Removal> = mine.into_iter().map(log).collect();
    assert_eq!(lab.store.removals(&lab.node, None).await.unwrap(), mine);
    assert_eq!(
        lab.store.removals(&lab.node, Some(mine[0])).await.unwrap(),
        [mine[1]],
        "the next batch"
    );
    assert_eq!(lab.store.removals(&other.node, None).await.unwrap(), []);
    let row = lab.store.attempt(theirs.attempt).await.unwrap().unwrap();
    assert!(!row.log_removed, "its node has not marked it");
    // Only the node that a row names may say that it is done.
    lab.store.removed(&other.node, mine[0]).await.unwrap();
    assert_eq!(lab.store.removals(&lab.node, None).await.unwrap(), mine);
}

async fn logs_are_unsealed_until_their_node_has_seen_them_sealed(lab: Lab) {
    let other = lab.node("node-b").await;
    lab.run(&ci(&[("a", &[]), ("b", &[]), ("c", &[])])).await;
    let mut mine = vec![
        lab.play(JobResult::Success).await.0.attempt,
        lab.play(JobResult::Failure).await.0.attempt,
    ];
    mine.sort();
    let live = other.claim().await.unwrap();
    let unsealed = async |node, after| lab.store.unsealed_logs(node, after).await.unwrap();
    assert_eq!(unsealed(&lab.node, None).await, mine);
    assert_eq!(unsealed(&lab.node, Some(mine[0])).await, [mine[1]]);
    assert_eq!(unsealed(&other.node, None).await, [], "it lives");
    other.fail_infra(&live, "lost").await;
    assert_eq!(unsealed(&other.node, None).await, [live.attempt]);
    lab.store.logs_sealed(&mine).await.unwrap();
    lab.store.logs_sealed(&[]).await.unwrap();
    assert_eq!(unsealed(&lab.node, None).await, []);
    lab.sql(AGE_ATTEMPTS).await;
    lab.store.expire(&other.node, &KEEP).await.unwrap();
    assert_eq!(unsealed(&other.node, None).await, [], "what is to go needs no end");
}

async fn reports_of_no_run_go_by_their_age(lab: Lab) {
    let claimed = lab.trigger(1, &sha(1)).await;
    let outcome = TriggerOutcome::Failed {
        reason: "the repository is larger than 4 GiB".into(),
        commit: Some(sha(1)),
        retry: Retry::OnRequest,
    };
    let ended = lab.store.finish_trigger(claimed.id, claimed.epoch, outcome).await;
    ended.unwrap().unwrap();
    lab.run(&Workflow { commit: 2, ..ci(ONE) }).await;
    let reports = async || {
        lab.store.expire(&lab.node, &KEEP).await.unwrap();
        lab.number("SELECT COUNT(*) AS n FROM reports").await
    };
    assert_eq!(reports().await, 3);
    lab.sql("UPDATE reports SET completed_ms = 0, started_ms = 0").await;
    assert_eq!(reports().await, 2, "those of a run go with it");
    assert_eq!(lab.says(1, "helios-ci").await, None);
}

async fn what_has_expired_goes_in_batches(lab: Lab) {
    lab.sql(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200)
         INSERT INTO deliveries (id, connection, delivery_key, event, digest, state, received_ms)
         SELECT CAST(i AS TEXT), 'forge', CAST(i AS TEXT), 'push', CAST('x' AS BYTEA), 'ignored', 0 FROM n",
    )
    .await;
    let mut left = Vec::new();
    while lab.store.expire(&lab.node, &KEEP).await.unwrap() {
        left.push(lab.number("SELECT COUNT(*) AS n FROM deliveries").await);
    }
    assert_eq!(left, [700, 200]);
    assert_eq!(lab.number("SELECT COUNT(*) AS n FROM deliveries").await, 0);
}

async fn old_deliveries_lose_their_bodies_and_then_go(lab: Lab) {
    let delivery = NewDelivery {
        connection: "forge".parse().unwrap(),
        key: "1".into(),
        event: "push".into(),
        body: b"body".to_vec(),
        digest: hash(1),
        subject: Subject::default(),
    };
    lab.store.record_delivery(delivery).await.unwrap();
    let age = async || {
        lab.sql("UPDATE deliveries SET received_ms = received_ms - 200 * CAST(86400000 AS BIGINT)")
            .await;
        lab.store.expire(&lab.node, &KEEP).await.unwrap();
        let bodies = lab.number("SELECT COUNT(body) AS n FROM deliveries").await;
        (bodies, lab.number("SELECT COUNT(*) AS n FROM deliveries").await)
    };
    assert_eq!(age().await, (1, 1), "nobody has read it yet");
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
    lab.sql("UPDATE deliveries SET received_ms = received_ms + 200 * CAST(86400000 AS BIGINT)")
        .await;
    assert_eq!(age().await, (0, 1));
    assert_eq!(age().await, (0, 0));
}
