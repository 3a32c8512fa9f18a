//! What the statements of a job's life read: never a whole table, however many jobs wait or ever were.

use std::collections::BTreeSet;

use super::*;
use crate::store::{
    attempt::claim::{OLDEST_JOB, OLDEST_TURN, OVERDUE, QUEUED_CLASSES},
    engine::{
        plans,
        tx::{Tx, Value, args},
    },
    report::reports::LANES,
};

/// What a job's life does in the store, as errors call it, and what is polled meanwhile.
const PATH: &[&str] = &[
    "create a trigger",
    "claim a trigger",
    "claim the triggers of a repository",
    "finish a trigger",
    "list queued classes",
    "list machines",
    "look for machines that hang",
    "expire queued jobs",
    "claim jobs",
    "store a join token",
    "let an agent join",
    "store an attempt's progress",
    "store that a machine was started",
    "store a checkpoint",
    "finish an attempt's steps",
    "end an attempt",
    "store a machine's state",
    "look for reports",
    "claim reports",
    "note a delivered report",
    "look for waiting work",
    "store a heartbeat",
    "take attempts up again",
    "look for silent nodes",
    "say why a job waits",
    "list kept machines",
    "forget a run",
];

/// What may be gone through: the rows of a statement's own tables, and indexes of what waits where the first that can be
/// used ends it.
const BOUNDED: &[&str] = &[
    "SCAN classes",
    "SCAN wanted",
    "SCAN connections",
    "SCAN lanes",
    "SCAN picked",
    "SCAN CONSTANT ROW",
    "SCAN nodes USING INDEX sqlite_autoindex_nodes_1",
    "SCAN t USING INDEX triggers_received",
    "SCAN triggers USING INDEX triggers_received",
    "SCAN deliveries USING INDEX deliveries_received",
    "SCAN jobs USING INDEX jobs_queued",
    "SCAN jobs USING INDEX jobs_queued_since",
    "SCAN machines USING INDEX machines_node",
];

/// Indexes that hold every row of a repository, or of a ref, there ever was.
const OF_ALL_TIME: &[&str] = &[
    "runs_repository (connection=? AND repository_id=?)",
    "triggers_ref (connection=? AND repository_id=?)",
    "triggers_ref (connection=? AND repository_id=? AND ref_name=? AND seq<?)",
];

fn is_bounded(step: &str) -> bool {
    let step = &step.replace(" EXISTS ", " ").replace(" COVERING ", " ");
    let of_rows = step.starts_with("SCAN ") && step.ends_with(" CONSTANT ROWS");
    let scans = step.starts_with("SCAN ") && !of_rows && !BOUNDED.contains(&step.as_str());
    !scans && !OF_ALL_TIME.iter().any(|index| step.contains(index))
}

async fn life_of_a_job(lab: &Lab) {
    let run = lab.run(&ci(&[("a", &[]), ("b", &["a"])])).await;
    lab.store.create_trigger(&push(1, &sha(0xac)), "ann").await.unwrap();
    let together = lab.store.claim_triggers(&lab.node, MINUTE, 9).await.unwrap();
    assert_eq!(together.len(), 1);
    for _ in 0..2 {
        lab.store.queued_classes().await.unwrap();
        lab.store.node_usage(&lab.node).await.unwrap();
        lab.store.overdue_removal(&lab.node, MINUTE).await.unwrap();
        lab.store.expire_queued(MINUTE).await.unwrap();
        let claimed = lab.claim().await.unwrap();
        let (attempt, epoch) = (claimed.attempt, claimed.epoch);
        assert!(lab.store.set_join_token(attempt, epoch, &hash(1)).await.unwrap());
        assert_eq!(lab.store.join(attempt, &hash(1), &hash(2)).await.unwrap(), Join::Joined);
        assert!(lab.store.machine_started(attempt, epoch, b"sealed").await.unwrap());
        lab.start(&claimed).await;
        let step = StepUpdate {
            index: 0,
            name: "true".into(),
            state: crate::model::state::StepState::Running,
            exit_code: None,
            message: None,
            started_ms: Some(1),
            ended_ms: None,
            allowed_failure: false,
        };
        assert!(lab.store.step(attempt, epoch, step).await.unwrap());
        assert!(lab.store.checkpoint(attempt, epoch, b"sealed").await.unwrap());
        assert!(lab.store.attempt_finishing(attempt, epoch).await.unwrap());
        lab.store.why(claimed.job).await.unwrap();
        lab.end(&claimed, JobResult::Success).await;
        lab.gone(&claimed).await;
        for owed in lab.claim_reports(9, MINUTE).await {
            lab.store.report_delivered(owed.id, owed.version, None).await.unwrap();
        }
    }
    lab.store.waiting().await.unwrap();
    assert!(lab.store.heartbeat(&lab.node, lab.instance).await.unwrap());
    lab.store.heartbeats(&lab.node).await.unwrap();
    lab.store.reclaim(&lab.node, lab.instance).await.unwrap();
    lab.store.kept_machines(&lab.node).await.unwrap();
    assert!(lab.store.forget_run(run).await.unwrap());
}

/// SQLite chooses an index by what a statement says, and there is no other way to see which.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_statement_of_a_jobs_life_reads_a_whole_table() {
    let lab = Lab::sqlite().await;
    let folder = lab.store.inner._folder.as_ref().unwrap();
    let database = folder.path().join("helios-ci.db");
    plans::watch(&database);
    life_of_a_job(&lab).await;
    let mut explained = BTreeSet::new();
    let mut unbounded = Vec::new();
    for ((what, sql), steps) in plans::seen(&database) {
        if PATH.contains(&what) {
            let found = steps.into_iter().filter(|step| !is_bounded(step));
            unbounded.extend(found.map(|step| format!("{what}: {step}: {sql}")));
            explained.insert(what);
        }
    }
    assert!(unbounded.is_empty(), "{}", unbounded.join("\n"));
    let missing: Vec<_> = PATH.iter().filter(|what| !explained.contains(*what)).collect();
    assert!(missing.is_empty(), "nothing was seen of {missing:?}");
}

/// The indexes that a statement uses on Postgres where it may use any.
async fn indexes(tx: &mut Tx, sql: &str, args: &[Value]) -> Vec<String> {
    let rows = tx.rows(format!("EXPLAIN {sql}"), args).await.unwrap();
    let lines: Vec<String> = rows.iter().map(|row| row.text("QUERY PLAN").unwrap()).collect();
    assert!(
        !lines.iter().any(|line| line.contains("Seq Scan")),
        "{sql}: {}",
        lines.join("\n")
    );
    lines
        .iter()
        .filter_map(|line| line.split_once(" using ")?.1.split(' ').next().map(str::to_owned))
        .collect()
}

/// Of few rows Postgres reads all of a table rather; here it may not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_uses_the_same_indexes() {
    let Some(lab) = Lab::postgres().await else { return };
    lab.run(&ci(ONE)).await;
    let mut tx = lab.store.read("explain a statement").await.unwrap();
    tx.execute("SET LOCAL enable_seqscan = off", &[]).await.unwrap();
    tx.execute("SET LOCAL enable_bitmapscan = off", &[]).await.unwrap();
    let none: &[Value] = &[];
    let turn = OLDEST_TURN.replace("{list}", "($1), ($2)");
    for (sql, args, index) in [
        (QUEUED_CLASSES, none, "jobs_queued"),
        (&turn, args!["small", "large"].as_slice(), "turn_queued"),
        (OLDEST_JOB, args!["small", "forge", "1"].as_slice(), "jobs_queued"),
        (OVERDUE, args![1_i64, 9_i64].as_slice(), "jobs_queued_since"),
        (LANES, args![1_i64].as_slice(), "reports_lane"),
    ] {
        let used = indexes(&mut tx, sql, args).await;
        assert!(used.iter().any(|used| used == index), "{sql}: {used:?}");
    }
}
