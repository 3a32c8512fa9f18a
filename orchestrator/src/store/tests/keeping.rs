//! Machines that stay after their job.

use super::*;
use crate::model::{names::MachineName, state::MachineState};

contract!(
    a_machine_that_is_to_be_kept_stays_after_its_job_and_no_other,
    a_keep_can_be_withdrawn_extended_and_ended,
    what_never_started_or_is_going_is_not_kept,
    a_kept_machine_goes_when_its_time_is_over_and_not_before,
    one_types_at_a_time_and_only_on_a_kept_machine,
    a_silent_nodes_machine_is_kept_for_its_return,
);

async fn machine(lab: &Lab, claimed: &ClaimedJob) -> MachineRow {
    let name = MachineName::of(claimed.attempt);
    lab.store.machine(&name).await.unwrap().unwrap()
}

/// A job that runs, and its machine.
async fn running(lab: &Lab) -> (ClaimedJob, MachineName) {
    lab.run(&ci(ONE)).await;
    let claimed = lab.claim().await.unwrap();
    lab.start(&claimed).await;
    let name = MachineName::of(claimed.attempt);
    (claimed, name)
}

async fn a_machine_that_is_to_be_kept_stays_after_its_job_and_no_other(lab: Lab) {
    let (kept, name) = running(&lab).await;
    let (other, other_name) = running(&lab).await;
    let asked = lab.store.keep_machine(&name, "ann", MINUTE).await.unwrap();
    assert_eq!(asked, KeepOutcome::AtItsEnd);
    assert_eq!(machine(&lab, &kept).await.keep.unwrap().until_ms, None);
    assert_eq!(
        lab.store.take_console(&name, "ann").await.unwrap(),
        None,
        "its results are not sealed"
    );
    let before = crate::clock::now_ms();
    assert!(matches!(
        lab.end(&kept, JobResult::Failure).await,
        EndOutcome::Ended { .. }
    ));
    lab.end(&other, JobResult::Failure).await;
    let row = machine(&lab, &kept).await;
    let keep = row.keep.clone().unwrap();
    assert_eq!(
        (row.state, keep.by.as_str(), keep.for_ms),
        (MachineState::Kept, "ann", 60_000)
    );
    let until = keep.until_ms.unwrap();
    assert!(
        (before + 50_000..before + 120_000).contains(&until),
        "{until} after {before}"
    );
    assert_eq!(machine(&lab, &other).await.state, MachineState::Draining);
    // It uses room, no sweep may take it, and its session is over.
    assert!(
        lab.store
            .node_usage(&lab.node)
            .await
            .unwrap()
            .iter()
            .any(|m| m.name == name)
    );
    assert!(!lab.store.drain(&name).await.unwrap());
    assert!(lab.store.drain(&other_name).await.unwrap());
    assert_eq!(machine(&lab, &kept).await.state, MachineState::Kept);
    assert!(!lab.store.session(kept.attempt, &hash(1)).await.unwrap());
    assert_eq!(lab.store.kept_machines(&lab.node).await.unwrap(), [row]);
    assert_eq!(lab.store.counts().await.unwrap().machines[&MachineState::Kept], 1);
}

async fn a_keep_can_be_withdrawn_extended_and_ended(lab: Lab) {
    let (first, name) = running(&lab).await;
    assert_eq!(lab.store.release_machine(&name).await.unwrap(), ReleaseOutcome::Live);
    lab.store.keep_machine(&name, "ann", MINUTE).await.unwrap();
    assert_eq!(
        lab.store.release_machine(&name).await.unwrap(),
        ReleaseOutcome::Withdrawn
    );
    assert_eq!(lab.store.release_machine(&name).await.unwrap(), ReleaseOutcome::Live);
    lab.end(&first, JobResult::Failure).await;
    assert_eq!(machine(&lab, &first).await.state, MachineState::Draining);
    assert_eq!(
        lab.store.release_machine(&name).await.unwrap(),
        ReleaseOutcome::Removing
    );

    let (second, name) = running(&lab).await;
    lab.store.keep_machine(&name, "ann", MINUTE).await.unwrap();
    lab.end(&second, JobResult::Success).await;
    let until = machine(&lab, &second).await.keep.unwrap().until_ms.unwrap();
    let KeepOutcome::Until { until_ms } = lab.store.keep_machine(&name, "bob", 60 * MINUTE).await.unwrap() else {
        panic!("it is kept")
    };
    let keep = machine(&lab, &second).await.keep.unwrap();
    assert!(until_ms > until);
    assert_eq!((keep.by.as_str(), keep.until_ms), ("bob", Some(until_ms)));
    assert_eq!(
        lab.store.release_machine(&name).await.unwrap(),
        ReleaseOutcome::Removing
    );
    assert_eq!(
        lab.store.release_machine(&name).await.unwrap(),
        ReleaseOutcome::Removing
    );
    let late = lab.store.keep_machine(&name, "ann", MINUTE).await.unwrap();
    assert_eq!(late, KeepOutcome::TooLate, "who was told that it goes can rely on that");
    let over = lab.store.end_keeps(&lab.node).await.unwrap();
    assert_eq!(over, std::slice::from_ref(&name));
    assert!(lab.store.machine_state(&name, MachineState::Gone).await.unwrap());
    assert_eq!(lab.store.release_machine(&name).await.unwrap(), ReleaseOutcome::Gone);
}

async fn what_never_started_or_is_going_is_not_kept(lab: Lab) {
    lab.run(&ci(ONE)).await;
    let claimed = lab.claim().await.unwrap();
    let name = MachineName::of(claimed.attempt);
    lab.store.keep_machine(&name, "ann", MINUTE).await.unwrap();
    lab.fail_infra(&claimed, "no disk").await;
    assert_eq!(machine(&lab, &claimed).await.state, MachineState::Draining);
    let late = lab.store.keep_machine(&name, "ann", MINUTE).await.unwrap();
    assert_eq!(late, KeepOutcome::TooLate);
    let unknown = MachineName::of(unknown_attempt());
    let keep = lab.store.keep_machine(&unknown, "ann", MINUTE).await.unwrap();
    assert_eq!(keep, KeepOutcome::Unknown);
    assert_eq!(
        lab.store.release_machine(&unknown).await.unwrap(),
        ReleaseOutcome::Unknown
    );
    assert_eq!(lab.store.machine(&unknown).await.unwrap(), None);
    assert!(!lab.store.drain(&unknown).await.unwrap());
}

async fn a_kept_machine_goes_when_its_time_is_over_and_not_before(lab: Lab) {
    let (first, short) = running(&lab).await;
    let (second, long) = running(&lab).await;
    lab.store.keep_machine(&short, "ann", Duration::ZERO).await.unwrap();
    lab.store.keep_machine(&long, "ann", MINUTE).await.unwrap();
    let is_looked_for = async || lab.store.waiting().await.unwrap().contains(&Waiting::Kept);
    assert!(!is_looked_for().await, "their jobs go on");
    for claimed in [&first, &second] {
        lab.fail_infra(claimed, "the agent is gone").await;
    }
    assert!(is_looked_for().await);
    let elsewhere = lab.node("node-b").await;
    assert!(lab.store.end_keeps(&elsewhere.node).await.unwrap().is_empty());
    assert_eq!(lab.store.end_keeps(&lab.node).await.unwrap(), [short]);
    assert!(lab.store.end_keeps(&lab.node).await.unwrap().is_empty());
    assert_eq!(machine(&lab, &first).await.state, MachineState::Draining);
    assert_eq!(machine(&lab, &second).await.state, MachineState::Kept);
    assert!(is_looked_for().await);
    lab.store.release_machine(&long).await.unwrap();
    assert!(is_looked_for().await, "its node has yet to hear of it");
    assert_eq!(lab.store.end_keeps(&lab.node).await.unwrap(), [long]);
    assert!(!is_looked_for().await);
    // Its removal began only now, however long ago its job ended.
    lab.sql("UPDATE attempts SET ended_ms = ended_ms - 3600000").await;
    assert_eq!(lab.store.overdue_removal(&lab.node, MINUTE).await.unwrap(), None);
}

async fn one_types_at_a_time_and_only_on_a_kept_machine(lab: Lab) {
    let (claimed, name) = running(&lab).await;
    lab.store.keep_machine(&name, "ann", MINUTE).await.unwrap();
    assert!(!lab.store.release_console(&name).await.unwrap(), "its job runs");
    lab.end(&claimed, JobResult::Failure).await;
    let take = async |by: &str| lab.store.take_console(&name, by).await.unwrap();
    assert_eq!(take("ann").await, None, "the guest is not cut off yet");
    lab.store.machine_cut_off(&name, "qemu").await.unwrap();
    assert_eq!((take("ann").await, take("ann").await), (Some(true), Some(false)));
    assert_eq!(take("bob").await, Some(true), "a change of hands is one worth noting");
    assert!(lab.store.release_console(&name).await.unwrap());
    assert_eq!(take("bob").await, None, "it is being let go");
    lab.store.console_free(&name).await.unwrap();
    assert_eq!(machine(&lab, &claimed).await.keep.unwrap().console_by, None);
    assert_eq!(take("bob").await, Some(true));
    lab.store.release_machine(&name).await.unwrap();
    lab.store.end_keeps(&lab.node).await.unwrap();
    assert_eq!(take("bob").await, None);
}

async fn a_silent_nodes_machine_is_kept_for_its_return(lab: Lab) {
    let (claimed, name) = running(&lab).await;
    lab.store.keep_machine(&name, "ann", MINUTE).await.unwrap();
    let other = lab.node("node-b").await;
    let heartbeat = lab.store.heartbeats(&other.node).await.unwrap();
    lab.store
        .give_up_node(&lab.node, heartbeat[0].1, MINUTE, TRIES)
        .await
        .unwrap();
    let row = machine(&lab, &claimed).await;
    assert_eq!((row.state, row.name, row.node), (MachineState::Kept, name, lab.node));
}
