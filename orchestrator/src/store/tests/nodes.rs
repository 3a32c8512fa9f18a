//! Nodes come, go, and fall silent.

use super::*;
use crate::model::state::AttemptState;

contract!(
    one_instance_runs_under_a_name,
    a_restarted_node_takes_its_attempts_up,
    another_instance_reclaims_nothing,
    attempts_of_a_silent_node_are_given_up,
    a_late_driver_of_a_silent_node_is_fenced,
);

async fn one_instance_runs_under_a_name(lab: Lab) {
    let other = InstanceId::new();
    let register = async |instance| lab.store.register_node(&lab.node, instance, MINUTE).await.unwrap();
    assert!(matches!(register(other).await, Registered::Busy { since_ms } if since_ms > 0));
    assert_eq!(register(lab.instance).await, Registered::Ok);
    assert!(lab.store.heartbeat(&lab.node, lab.instance).await.unwrap());
    assert!(!lab.store.heartbeat(&lab.node, other).await.unwrap());
    lab.store.leave(&lab.node, other).await.unwrap();
    assert!(
        matches!(register(other).await, Registered::Busy { .. }),
        "only the instance itself leaves"
    );
    lab.store.leave(&lab.node, lab.instance).await.unwrap();
    assert_eq!(
        register(other).await,
        Registered::Ok,
        "after an orderly stop there is no wait"
    );
    assert!(!lab.store.heartbeat(&lab.node, lab.instance).await.unwrap());
    lab.sql("UPDATE nodes SET heartbeat_ms = heartbeat_ms - 120000").await;
    assert_eq!(
        register(lab.instance).await,
        Registered::Ok,
        "the other has been silent"
    );
    assert!(
        !lab.store.heartbeat(&lab.node, other).await.unwrap(),
        "and learns that it was replaced"
    );
}

async fn a_restarted_node_takes_its_attempts_up(lab: Lab) {
    lab.run(&ci(&[("a", &[]), ("b", &[]), ("c", &[])])).await;
    lab.play(JobResult::Success).await;
    let claimed = [lab.claim().await.unwrap(), lab.claim().await.unwrap()];
    lab.start(&claimed[0]).await;
    let foreign = lab.node("node-b").await;
    lab.store.leave(&lab.node, lab.instance).await.unwrap();
    let restarted = Lab {
        instance: InstanceId::new(),
        ..lab.clone()
    };
    restarted.register().await;
    let mut taken = restarted.store.reclaim(&lab.node, restarted.instance).await.unwrap();
    taken.sort_by_key(|attempt| attempt.created_ms);
    let mut found: Vec<_> = taken.iter().map(|a| (a.id, a.epoch, a.state)).collect();
    found.sort_by_key(|t| t.0);
    let mut expected = vec![
        (claimed[0].attempt, 2, AttemptState::Running),
        (claimed[1].attempt, 2, AttemptState::Preparing),
    ];
    expected.sort_by_key(|t| t.0);
    assert_eq!(found, expected);
    assert!(
        lab.store
            .reclaim(&foreign.node, foreign.instance)
            .await
            .unwrap()
            .is_empty()
    );
    let newer = ClaimedJob {
        epoch: 2,
        ..claimed[0].clone()
    };
    assert!(matches!(
        lab.end(&newer, JobResult::Success).await,
        EndOutcome::Ended { .. }
    ));
}

async fn another_instance_reclaims_nothing(lab: Lab) {
    lab.run(&ci(ONE)).await;
    let claimed = lab.claim().await.unwrap();
    let stranger = lab.store.reclaim(&lab.node, InstanceId::new()).await.unwrap();
    assert!(stranger.is_empty());
    assert_eq!(lab.store.attempt(claimed.attempt).await.unwrap().unwrap().epoch, 1);
}

async fn attempts_of_a_silent_node_are_given_up(lab: Lab) {
    let run = lab.run(&ci(&[("a", &[]), ("b", &[])])).await;
    let silent = lab.node("silent").await;
    assert!(
        lab.store.heartbeats(&lab.node).await.unwrap().is_empty(),
        "a node without attempts does not matter"
    );
    let lost = silent.claim().await.unwrap();
    let kept = lab.claim().await.unwrap();
    let seen = lab.store.heartbeats(&lab.node).await.unwrap();
    let [(name, heartbeat)] = seen.as_slice() else {
        panic!("{seen:?}")
    };
    assert_eq!(*name, silent.node);
    let give_up = async |heartbeat| {
        let given_up = lab.store.give_up_node(&silent.node, heartbeat, MINUTE * 2, TRIES).await;
        given_up.unwrap()
    };
    assert!(
        give_up(heartbeat - 1).await.is_empty(),
        "it was heard since that heartbeat"
    );
    assert_eq!(give_up(*heartbeat).await, [lost.attempt]);
    assert!(give_up(*heartbeat).await.is_empty());
    let attempt = lab.store.attempt(lost.attempt).await.unwrap().unwrap();
    assert_eq!(attempt.cause.as_deref(), Some("node silent has been silent for 120 s"));
    let jobs = lab.jobs(run).await;
    assert_eq!((jobs[0].state, jobs[0].tries), (JobState::Queued, 1));
    let again = lab.claim().await.unwrap();
    assert_eq!((again.job, again.number), (lost.job, 2));
    assert!(matches!(
        lab.end(&kept, JobResult::Success).await,
        EndOutcome::Ended { .. }
    ));
}

async fn a_late_driver_of_a_silent_node_is_fenced(lab: Lab) {
    lab.run(&ci(ONE)).await;
    let claimed = lab.claim().await.unwrap();
    let other = lab.node("other").await;
    let seen = lab.store.heartbeats(&other.node).await.unwrap();
    let given_up = lab.store.give_up_node(&seen[0].0, seen[0].1, MINUTE, TRIES).await;
    assert_eq!(given_up.unwrap(), [claimed.attempt]);
    assert_eq!(lab.end(&claimed, JobResult::Success).await, EndOutcome::Fenced);
    let started = lab.store.attempt_running(claimed.attempt, claimed.epoch, "{}").await;
    assert!(!started.unwrap());
}
