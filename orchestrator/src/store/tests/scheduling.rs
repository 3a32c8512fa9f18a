//! Whose turn it is, and that every job is claimed once.

use std::collections::HashSet;

use super::*;
use crate::model::{names::MachineName, state::MachineState};

contract!(
    repositories_take_turns_and_jobs_keep_their_order,
    a_full_class_does_not_block_another,
    two_claimers_take_each_job_once,
    a_look_claims_while_there_is_room,
    the_oldest_turn_of_many_classes_is_served,
    a_claim_leaves_an_attempt_and_a_machine,
    a_machine_that_cannot_be_removed_is_found,
    only_the_registered_instance_claims,
    jobs_that_wait_too_long_time_out,
    of_many_that_wait_too_long_the_oldest_end_first,
    why_tells_the_place_in_turn_order,
    a_turn_that_counted_wrong_mends_itself,
    an_unreadable_job_ends_and_holds_up_no_other,
    an_unreadable_job_that_waits_too_long_holds_up_no_other,
    classes_are_listed_while_anything_of_them_waits,
);

async fn repositories_take_turns_and_jobs_keep_their_order(lab: Lab) {
    let mut of_a = Vec::new();
    for _ in 0..10 {
        of_a.push(lab.run(&ci(ONE)).await);
    }
    let b = lab
        .run(&Workflow {
            repository: 2,
            ..ci(ONE)
        })
        .await;
    let mut order = Vec::new();
    while let Some(claimed) = lab.claim().await {
        order.push(claimed.run);
    }
    assert_eq!(order.remove(1), b, "the other repository is second, and not eleventh");
    assert_eq!(order, of_a, "first in, first out within a repository");
}

async fn a_full_class_does_not_block_another(lab: Lab) {
    for _ in 0..3 {
        lab.run(&Workflow {
            class: "full",
            ..ci(ONE)
        })
        .await;
    }
    let free = lab
        .run(&Workflow {
            class: "free",
            ..ci(ONE)
        })
        .await;
    assert_eq!(lab.claim_of(&["free"]).await.unwrap().run, free);
    assert_eq!(lab.claim_of(&["free"]).await, None);
    assert_eq!(lab.claim_of(&[]).await, None);
    assert!(lab.claim_of(&["free", "full"]).await.is_some());
}

async fn a_machine_that_cannot_be_removed_is_found(lab: Lab) {
    let (node, at_once, later) = (lab.node.clone(), Duration::ZERO, Duration::from_secs(600));
    lab.run(&ci(ONE)).await;
    let claimed = lab.claim().await.unwrap();
    let name = MachineName::of(claimed.attempt);
    // One that is in use is none, however long.
    assert_eq!(lab.store.overdue_removal(&node, at_once).await.unwrap(), None);
    lab.end(&claimed, JobResult::Success).await;
    assert_eq!(
        lab.store.overdue_removal(&node, at_once).await.unwrap(),
        Some(name.clone())
    );
    assert_eq!(lab.store.overdue_removal(&node, later).await.unwrap(), None);
    assert_eq!(
        lab.store
            .overdue_removal(&"another".parse().unwrap(), at_once)
            .await
            .unwrap(),
        None
    );
    assert!(lab.store.machine_state(&name, MachineState::Gone).await.unwrap());
    assert_eq!(lab.store.overdue_removal(&node, at_once).await.unwrap(), None);
}

async fn two_claimers_take_each_job_once(lab: Lab) {
    let keys: Vec<String> = (0..50).map(|n| format!("j{n}")).collect();
    let jobs: Vec<(&str, &[&str])> = keys.iter().map(|key| (key.as_str(), &[][..])).collect();
    for repository in [1, 2] {
        lab.run(&Workflow {
            repository,
            ..ci(&jobs)
        })
        .await;
    }
    let other = lab.node("node-b").await;
    let claimer = |lab: Lab| async move {
        let mut seen = Vec::new();
        while let Some(claimed) = lab.claim().await {
            seen.push(claimed.job);
        }
        seen
    };
    let (a, b) = tokio::join!(tokio::spawn(claimer(lab.clone())), tokio::spawn(claimer(other)));
    let all: Vec<JobId> = a.unwrap().into_iter().chain(b.unwrap()).collect();
    assert_eq!(all.len(), 100);
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), 100);
    assert_eq!(lab.number("SELECT CAST(SUM(queued) AS BIGINT) AS n FROM turn").await, 0);
}

async fn a_look_claims_while_there_is_room(lab: Lab) {
    for _ in 0..4 {
        lab.run(&ci(ONE)).await;
    }
    let mut used = Vec::new();
    let room_for_three = |used: &[MachineUse]| match used.len() {
        0..3 => vec!["small".to_owned()],
        _ => Vec::new(),
    };
    loop {
        let claimed = lab
            .store
            .claim_jobs(&lab.node, lab.instance, used.clone(), room_for_three)
            .await
            .unwrap();
        if claimed.is_empty() {
            break;
        }
        used.extend(claimed.iter().map(MachineUse::of));
    }
    assert_eq!(used.len(), 3);
    let mut in_use = lab.store.node_usage(&lab.node).await.unwrap();
    used.sort_by_key(|machine| machine.name.to_string());
    in_use.sort_by_key(|machine| machine.name.to_string());
    assert_eq!(used, in_use, "what was counted is what is there");
}

/// On Postgres each claim is a transaction, and so a look, of its own.
#[tokio::test]
async fn one_look_at_sqlite_serves_turn_after_turn_until_its_batch_is_full() {
    let lab = Lab::sqlite().await;
    let keys: Vec<String> = (0..10).map(|n| format!("j{n}")).collect();
    let jobs: Vec<(&str, &[&str])> = keys.iter().map(|key| (key.as_str(), &[][..])).collect();
    let mut runs = Vec::new();
    for repository in [1, 2] {
        let workflow = Workflow {
            repository,
            ..ci(&jobs)
        };
        runs.push(lab.run(&workflow).await);
    }
    let look = async || {
        let room = |_: &[MachineUse]| vec!["small".to_owned()];
        let claimed = lab.store.claim_jobs(&lab.node, lab.instance, Vec::new(), room).await;
        claimed.unwrap()
    };
    let first = look().await;
    assert_eq!(first.len(), 16, "no transaction is long");
    let all: Vec<_> = first.into_iter().chain(look().await).collect();
    assert_eq!(all.len(), 20);
    assert!(all.windows(2).all(|pair| pair[0].run != pair[1].run), "{all:?}");
    for run in runs {
        let claimed: Vec<JobId> = all.iter().filter(|a| a.run == run).map(|a| a.job).collect();
        let waited: Vec<JobId> = lab.jobs(run).await.iter().map(|job| job.id).collect();
        assert_eq!(claimed, waited, "first in, first out");
    }
}

/// As above.
#[tokio::test]
async fn a_class_that_gets_full_in_a_look_at_sqlite_is_left_out_from_then_on() {
    let lab = Lab::sqlite().await;
    let mut runs = Vec::new();
    for class in ["full", "free", "full", "free", "full", "free"] {
        runs.push(lab.run(&Workflow { class, ..ci(ONE) }).await);
    }
    let full_after_two = |used: &[MachineUse]| match used.len() {
        0..2 => vec!["free".to_owned(), "full".to_owned()],
        _ => vec!["free".to_owned()],
    };
    let claimed = lab
        .store
        .claim_jobs(&lab.node, lab.instance, Vec::new(), full_after_two)
        .await
        .unwrap();
    let claimed: Vec<RunId> = claimed.iter().map(|attempt| attempt.run).collect();
    assert_eq!(claimed.len(), 4, "{claimed:?} of {runs:?}");
    assert_eq!(claimed[2..], [runs[3], runs[5]]);
    assert_eq!(
        HashSet::from([claimed[0], claimed[1]]),
        HashSet::from([runs[0], runs[1]])
    );
}

async fn the_oldest_turn_of_many_classes_is_served(lab: Lab) {
    let classes = ["large", "medium", "small"];
    let mut runs = Vec::new();
    for repository in [1, 2] {
        for class in classes {
            let workflow = Workflow {
                repository,
                class,
                ..ci(ONE)
            };
            runs.push(lab.run(&workflow).await);
        }
    }
    // Whatever was served longest ago, of which class ever.
    lab.sql("UPDATE turn SET since_ms = 5, last_served = 7").await;
    lab.sql("UPDATE turn SET last_served = 3 WHERE class = 'medium' AND repository_id = '2'")
        .await;
    lab.sql("UPDATE turn SET last_served = 4 WHERE class = 'small' AND repository_id = '1'")
        .await;
    assert_eq!(lab.claim_of(&["small", "large"]).await.unwrap().run, runs[2]);
    assert_eq!(lab.claim_of(&classes).await.unwrap().run, runs[4]);
    assert_eq!(lab.claim_of(&["absent"]).await, None);
    let mut rest = HashSet::new();
    while let Some(claimed) = lab.claim_of(&classes).await {
        rest.insert(claimed.run);
    }
    assert_eq!(rest, HashSet::from([runs[0], runs[1], runs[3], runs[5]]));
}

async fn of_many_that_wait_too_long_the_oldest_end_first(lab: Lab) {
    let keys: Vec<String> = (0..120).map(|n| format!("j{n}")).collect();
    let jobs: Vec<(&str, &[&str])> = keys.iter().map(|key| (key.as_str(), &[][..])).collect();
    let newer = lab.run(&ci(&jobs)).await;
    let oldest = lab.run(&Workflow { commit: 1, ..ci(ONE) }).await;
    lab.sql("UPDATE jobs SET queued_ms = queued_ms - 120000").await;
    lab.sql("UPDATE jobs SET queued_ms = queued_ms - 60000 WHERE seq = (SELECT MAX(seq) FROM jobs)")
        .await;
    let first = lab.store.expire_queued(MINUTE).await.unwrap();
    assert!(first.len() < 121, "a transaction is not long");
    assert_eq!(lab.run_state(oldest).await, RunState::Failure);
    assert_eq!(lab.run_state(newer).await, RunState::Active);
    let mut all = first.len();
    while let ended @ 1.. = lab.store.expire_queued(MINUTE).await.unwrap().len() {
        all += ended;
    }
    assert_eq!((all, lab.run_state(newer).await), (121, RunState::Failure));
    assert_eq!(lab.number("SELECT CAST(SUM(queued) AS BIGINT) AS n FROM turn").await, 0);
}

async fn a_claim_leaves_an_attempt_and_a_machine(lab: Lab) {
    let run = lab.run(&ci(ONE)).await;
    let claimed = lab.claim().await.unwrap();
    assert_eq!(
        (claimed.run, claimed.run_attempt, claimed.number, claimed.epoch),
        (run, 1, 1, 1)
    );
    assert_eq!(lab.job_states(run).await, [JobState::Active]);
    let attempt = lab.store.attempt(claimed.attempt).await.unwrap().unwrap();
    assert_eq!(
        (attempt.job_key.as_str(), attempt.joined, &attempt.node),
        ("build", false, &lab.node)
    );
    assert_eq!((attempt.commit, attempt.repository.context), (sha(0xab), 7.into()));
    let machines = lab.store.machines_of(&lab.node).await.unwrap();
    assert_eq!(machines.len(), 1);
    assert_eq!(
        (machines[0].attempt, machines[0].state),
        (claimed.attempt, MachineState::Preparing)
    );
    let usage = lab.store.node_usage(&lab.node).await.unwrap();
    assert_eq!((usage[0].size.cpus, usage[0].size.memory_mib), (2, 2048));
}

async fn only_the_registered_instance_claims(lab: Lab) {
    lab.run(&ci(ONE)).await;
    let old = Lab {
        instance: InstanceId::new(),
        ..lab.clone()
    };
    assert_eq!(old.claim().await, None);
    assert!(lab.claim().await.is_some());
}

async fn jobs_that_wait_too_long_time_out(lab: Lab) {
    let run = lab.run(&ci(&[("build", &[]), ("test", &["build"])])).await;
    assert_eq!(lab.store.expire_queued(MINUTE).await.unwrap(), []);
    lab.sql("UPDATE jobs SET queued_ms = queued_ms - 120000 WHERE state = 'queued'")
        .await;
    let expired = lab.store.expire_queued(MINUTE).await.unwrap();
    assert_eq!(expired.len(), 1);
    assert_eq!(lab.job_states(run).await, [JobState::TimedOut, JobState::Skipped]);
    assert_eq!(lab.run_state(run).await, RunState::Failure);
    assert_eq!(
        lab.says(0xab, "helios-ci / ci / build").await.unwrap(),
        "timed_out: no machine for it within 1 minutes"
    );
    assert_eq!(lab.claim().await, None);
    assert_eq!(lab.store.expire_queued(MINUTE).await.unwrap(), []);
}

async fn why_tells_the_place_in_turn_order(lab: Lab) {
    let mut jobs = Vec::new();
    for repository in [1, 1, 1, 2, 3] {
        let run = lab.run(&Workflow { repository, ..ci(ONE) }).await;
        jobs.push(lab.jobs(run).await[0].id);
    }
    let mut found = Vec::new();
    for job in &jobs {
        let why = lab.store.why(*job).await.unwrap().unwrap();
        assert_eq!((why.state, why.class_running), (JobState::Queued, 0));
        found.push((why.position, *job));
    }
    found.sort();
    for (position, job) in found {
        let claimed = lab.claim().await.unwrap();
        assert_eq!(claimed.job, job, "place {position}");
    }
    let run = lab.run(&ci(&[("a", &[]), ("b", &["a"])])).await;
    let b = lab.jobs(run).await[1].id;
    let why = lab.store.why(b).await.unwrap().unwrap();
    assert_eq!(why.state, JobState::Waiting);
    assert_eq!(
        (why.position, why.class_running, why.waiting_for),
        (0, 5, vec!["a".to_owned()])
    );
    assert_eq!(lab.store.why(unknown_job()).await.unwrap(), None);
}

async fn a_turn_that_counted_wrong_mends_itself(lab: Lab) {
    lab.run(&ci(ONE)).await;
    let late = lab
        .run(&Workflow {
            repository: 2,
            ..ci(ONE)
        })
        .await;
    lab.sql("UPDATE turn SET queued = 5").await;
    assert!(lab.claim().await.is_some());
    assert_eq!(lab.claim().await.unwrap().run, late);
    assert_eq!(lab.claim().await, None);
    assert_eq!(lab.number("SELECT CAST(SUM(queued) AS BIGINT) AS n FROM turn").await, 0);
}

async fn classes_are_listed_while_anything_of_them_waits(lab: Lab) {
    assert_eq!(lab.store.queued_classes().await.unwrap(), []);
    lab.run(&Workflow {
        class: "big",
        ..ci(ONE)
    })
    .await;
    lab.run(&ci(&[("a", &[]), ("b", &[]), ("c", &["a"])])).await;
    let classes = lab.store.queued_classes().await.unwrap();
    let found: Vec<&str> = classes.iter().map(|c| c.class.as_str()).collect();
    assert_eq!(found, ["big", "small"]);
    assert_eq!((classes[0].label.as_str(), classes[0].size.cpus), ("debian", 2));
    lab.claim_of(&["big"]).await.unwrap();
    let left = lab.store.queued_classes().await.unwrap();
    assert_eq!(left, classes[1..]);
}

/// Changes by hand, each of a run named `odd`, with the column that they make unreadable.
const ODD: [(&str, &str); 5] = [
    (
        "repository_path",
        "UPDATE runs SET repository_path = '' WHERE name = 'odd'",
    ),
    ("ref_name", "UPDATE runs SET ref_name = '' WHERE name = 'odd'"),
    ("commit_sha", "UPDATE runs SET commit_sha = '' WHERE name = 'odd'"),
    (
        "label",
        "UPDATE jobs SET label = '' WHERE run_id IN (SELECT id FROM runs WHERE name = 'odd')",
    ),
    (
        "memory_mib",
        "UPDATE jobs SET memory_mib = -1 WHERE run_id IN (SELECT id FROM runs WHERE name = 'odd')",
    ),
];

const ENDED: &str = "SELECT COUNT(*) AS n FROM jobs j JOIN run_attempts a ON a.run_id = j.run_id
    WHERE j.state = 'error' AND a.state = 'error' AND j.reason LIKE '%cannot read%'";

/// A look at the queue, as the scheduler has it: what is claimed.
async fn look(lab: &Lab) -> Vec<RunId> {
    let classes = lab.store.queued_classes().await.unwrap();
    let fitting = move |used: &[MachineUse]| match used.len() {
        0..3 => classes.iter().map(|class| class.class.clone()).collect(),
        _ => Vec::new(),
    };
    let claimed = lab.store.claim_jobs(&lab.node, lab.instance, Vec::new(), fitting).await;
    claimed.unwrap().into_iter().map(|attempt| attempt.run).collect()
}

async fn an_unreadable_job_ends_and_holds_up_no_other(lab: Lab) {
    for (found, (column, sql)) in (1..).zip(ODD) {
        // One that is claimed before it, and one of its turn behind it.
        let first = Workflow {
            repository: 2,
            ..ci(ONE)
        };
        let odd = Workflow {
            name: "odd",
            commit: 0xcd,
            ..ci(ONE)
        };
        let mut readable = vec![lab.run(&first).await];
        lab.run(&odd).await;
        readable.push(lab.run(&ci(ONE)).await);
        lab.sql(sql).await;
        let mut claimed = Vec::new();
        while let runs @ [_, ..] = look(&lab).await.as_slice() {
            claimed.extend_from_slice(runs);
        }
        claimed.sort_unstable();
        readable.sort_unstable();
        assert_eq!(claimed, readable, "{column}");
        assert_eq!(lab.number(ENDED).await, 1, "{column}");
        assert_eq!(lab.store.counts().await.unwrap().rows_unreadable, found, "{column}");
        assert_eq!(lab.number("SELECT CAST(SUM(queued) AS BIGINT) AS n FROM turn").await, 0);
        lab.sql("DELETE FROM runs WHERE name = 'odd'").await;
    }
}

async fn an_unreadable_job_that_waits_too_long_holds_up_no_other(lab: Lab) {
    let odd = Workflow { name: "odd", ..ci(ONE) };
    lab.run(&odd).await;
    let readable = lab.run(&ci(ONE)).await;
    lab.sql("UPDATE runs SET repository_path = '' WHERE name = 'odd'").await;
    lab.sql("UPDATE jobs SET queued_ms = queued_ms - 120000").await;
    assert_eq!(lab.store.expire_queued(MINUTE).await.unwrap().len(), 2);
    assert_eq!(lab.run_state(readable).await, RunState::Failure);
    assert_eq!(
        lab.number("SELECT COUNT(*) AS n FROM jobs WHERE state = 'timed_out'")
            .await,
        2
    );
}
