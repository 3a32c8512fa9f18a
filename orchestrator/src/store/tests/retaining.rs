//! What goes, and what must stay until its machine and its files are gone.

use super::*;
use crate::{
    config::Retention,
    model::{names::MachineName, state::MachineState},
};

contract!(
    old_logs_then_old_runs_go,
    a_run_with_a_machine_stays,
    an_active_run_is_not_forgotten,
    old_deliveries_lose_their_bodies_and_then_go,
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

const AGE_RUNS: &str = "UPDATE run_attempts SET ended_ms = ended_ms - 400 * CAST(86400000 AS BIGINT)";
const AGE_ATTEMPTS: &str = "UPDATE attempts SET ended_ms = ended_ms - 100 * CAST(86400000 AS BIGINT)";

async fn old_logs_then_old_runs_go(lab: Lab) {
    let run = lab.run(&ci(ONE)).await;
    let (claimed, _) = lab.play(JobResult::Success).await;
    let machine = MachineName::of(claimed.attempt);
    assert!(lab.store.machine_state(&machine, MachineState::Gone).await.unwrap());
    assert_eq!(lab.store.expired(&KEEP).await.unwrap(), Expired::default());
    lab.sql(AGE_ATTEMPTS).await;
    let due = lab.store.expired(&KEEP).await.unwrap();
    assert_eq!((due.logs, due.runs), (vec![claimed.attempt], vec![]));
    lab.store.logs_removed(claimed.attempt).await.unwrap();
    assert!(lab.store.attempt(claimed.attempt).await.unwrap().unwrap().log_removed);
    assert_eq!(lab.store.expired(&KEEP).await.unwrap(), Expired::default());
    lab.sql(AGE_RUNS).await;
    assert_eq!(lab.store.expired(&KEEP).await.unwrap().runs, [run]);
    assert_eq!(lab.store.expired(&FOR_EVER).await.unwrap(), Expired::default());
    lab.store.forget_run(run).await.unwrap();
    lab.store.forget_run(run).await.unwrap();
    assert!(lab.store.run(run).await.unwrap().is_none());
    for table in [
        "SELECT COUNT(*) AS n FROM jobs",
        "SELECT COUNT(*) AS n FROM attempts",
        "SELECT COUNT(*) AS n FROM machines",
        "SELECT COUNT(*) AS n FROM reports",
        "SELECT COUNT(*) AS n FROM triggers",
    ] {
        assert_eq!(lab.number(table).await, 0, "{table}");
    }
}

async fn a_run_with_a_machine_stays(lab: Lab) {
    let run = lab.run(&ci(ONE)).await;
    let (claimed, _) = lab.play(JobResult::Success).await;
    lab.sql(AGE_RUNS).await;
    assert!(lab.store.expired(&KEEP).await.unwrap().runs.is_empty());
    let machine = MachineName::of(claimed.attempt);
    assert!(lab.store.machine_state(&machine, MachineState::Gone).await.unwrap());
    assert_eq!(lab.store.expired(&KEEP).await.unwrap().runs, [run]);
}

async fn an_active_run_is_not_forgotten(lab: Lab) {
    let run = lab.run(&ci(ONE)).await;
    let refused = lab.store.forget_run(run).await;
    assert!(matches!(refused, Err(StoreError::Invalid { .. })));
    assert_eq!(lab.run_state(run).await, RunState::Active);
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
        lab.store.expired(&KEEP).await.unwrap();
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
