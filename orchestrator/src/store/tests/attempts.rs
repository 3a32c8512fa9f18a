//! What drivers write, and that only the valid epoch writes.

use super::*;
use crate::model::state::{AttemptState, MachineState, StepState};

contract!(
    a_job_goes_from_hello_to_its_result,
    the_last_of_two_needs_frees_the_job,
    jobs_of_a_wide_run_end_at_once,
    infra_is_tried_again_up_to_the_limit,
    a_stale_epoch_changes_nothing,
    a_join_token_serves_one_key,
    a_dead_attempt_lets_nobody_in,
    steps_move_forward_only,
    checkpoints_end_with_the_attempt,
    machines_move_forward_only,
    an_attempt_that_never_ran_may_end,
);

fn step(index: u32, state: StepState) -> StepUpdate {
    StepUpdate {
        index,
        name: "make".into(),
        state,
        exit_code: None,
        message: None,
        started_ms: Some(1),
        ended_ms: None,
        allowed_failure: false,
    }
}

async fn a_job_goes_from_hello_to_its_result(lab: Lab) {
    let run = lab.run(&ci(ONE)).await;
    let claimed = lab.claim().await.unwrap();
    assert_eq!(
        lab.says(0xab, "helios-ci / ci / build").await.unwrap(),
        "queued: Queued"
    );
    lab.start(&claimed).await;
    lab.start(&claimed).await;
    assert_eq!(
        lab.says(0xab, "helios-ci / ci / build").await.unwrap(),
        "running: Running on node-a"
    );
    assert_eq!(lab.says(0xab, "helios-ci").await.unwrap(), "running: 1 job running");
    let finishing = lab.store.attempt_finishing(claimed.attempt, claimed.epoch);
    assert!(finishing.await.unwrap());
    let outcome = lab.end(&claimed, JobResult::Success).await;
    let expected = EndOutcome::Ended {
        job: JobState::Success,
        run: RunState::Success,
        freed: vec![],
    };
    assert_eq!(outcome, expected);
    assert_eq!(lab.end(&claimed, JobResult::Failure).await, EndOutcome::Fenced);
    assert_eq!(lab.run_state(run).await, RunState::Success);
    assert_eq!(lab.says(0xab, "helios-ci").await.unwrap(), "success: 1 job succeeded");
    let attempt = lab.store.attempt(claimed.attempt).await.unwrap().unwrap();
    assert_eq!(
        (attempt.state, attempt.result),
        (AttemptState::Ended, Some(JobResult::Success))
    );
    assert_eq!(
        lab.store.machines_of(&lab.node).await.unwrap()[0].state,
        MachineState::Draining
    );
}

async fn the_last_of_two_needs_frees_the_job(lab: Lab) {
    let run = lab.run(&ci(&[("a", &[]), ("b", &[]), ("c", &["a", "b"])])).await;
    let (_, first) = lab.play(JobResult::Success).await;
    assert!(matches!(first, EndOutcome::Ended { freed, run: RunState::Active, .. } if freed.is_empty()));
    let (_, second) = lab.play(JobResult::Success).await;
    let c = lab.jobs(run).await[2].id;
    assert!(matches!(second, EndOutcome::Ended { freed, .. } if freed == [c]));
    let (_, last) = lab.play(JobResult::Failure).await;
    assert!(matches!(
        last,
        EndOutcome::Ended {
            run: RunState::Failure,
            ..
        }
    ));
    assert_eq!(
        lab.says(0xab, "helios-ci").await.unwrap(),
        "failure: 1 of 3 jobs failed"
    );
}

/// Two jobs that end at the same time must never both believe that the other still runs.
async fn jobs_of_a_wide_run_end_at_once(lab: Lab) {
    for round in 0..100 {
        let run = lab.run(&ci(&[("a", &[]), ("b", &[]), ("last", &["a", "b"])])).await;
        let (a, b) = (lab.claim().await.unwrap(), lab.claim().await.unwrap());
        let ending = |claimed: ClaimedJob| {
            let lab = lab.clone();
            tokio::spawn(async move { lab.end(&claimed, JobResult::Success).await })
        };
        let (a, b) = tokio::join!(ending(a), ending(b));
        let freed = [a.unwrap(), b.unwrap()]
            .into_iter()
            .filter(|outcome| matches!(outcome, EndOutcome::Ended { freed, .. } if freed.len() == 1));
        assert_eq!(freed.count(), 1, "round {round}");
        assert_eq!(lab.job_states(run).await[2], JobState::Queued, "round {round}");
        lab.play(JobResult::Success).await;
        assert_eq!(lab.run_state(run).await, RunState::Success, "round {round}");
    }
}

async fn infra_is_tried_again_up_to_the_limit(lab: Lab) {
    let run = lab.run(&ci(&[("build", &[]), ("test", &["build"])])).await;
    for tries in 1..TRIES {
        let claimed = lab.claim().await.unwrap();
        assert_eq!(claimed.number, tries);
        lab.start(&claimed).await;
        assert_eq!(
            lab.fail_infra(&claimed, "the machine died").await,
            EndOutcome::Requeued { tries }
        );
        assert_eq!(
            lab.says(0xab, "helios-ci / ci / build").await.unwrap(),
            "queued: Queued again: the machine died"
        );
    }
    let claimed = lab.claim().await.unwrap();
    let outcome = lab.fail_infra(&claimed, "no boot").await;
    assert!(matches!(
        outcome,
        EndOutcome::Ended {
            job: JobState::Error,
            run: RunState::Error,
            ..
        }
    ));
    let jobs = lab.jobs(run).await;
    assert_eq!(jobs[0].reason.as_deref(), Some("we failed 3 times, last: no boot"));
    assert_eq!((jobs[0].tries, jobs[1].state), (3, JobState::Skipped));
    assert_eq!(lab.says(0xab, "helios-ci").await.unwrap(), "error: 1 of 2 jobs failed");
    assert_eq!(
        lab.number("SELECT generation AS n FROM reports WHERE name = 'helios-ci / ci / build'")
            .await,
        1
    );
}

async fn a_stale_epoch_changes_nothing(lab: Lab) {
    lab.run(&ci(ONE)).await;
    let old = lab.claim().await.unwrap();
    assert!(lab.store.checkpoint(old.attempt, old.epoch, b"one").await.unwrap());
    let taken = lab.store.reclaim(&lab.node, lab.instance).await.unwrap();
    assert_eq!((taken.len(), taken[0].id, taken[0].epoch), (1, old.attempt, 2));
    let (id, epoch, store) = (old.attempt, old.epoch, &lab.store);
    assert!(!store.set_join_token(id, epoch, &hash(1)).await.unwrap());
    assert!(!store.attempt_running(id, epoch, "{}").await.unwrap());
    assert!(!store.attempt_finishing(id, epoch).await.unwrap());
    assert!(!store.step(id, epoch, step(0, StepState::Running)).await.unwrap());
    assert!(!store.checkpoint(id, epoch, b"two").await.unwrap());
    assert_eq!(lab.end(&old, JobResult::Success).await, EndOutcome::Fenced);
    assert_eq!(lab.fail_infra(&old, "lost").await, EndOutcome::Fenced);
    assert_eq!(store.load_checkpoint(id).await.unwrap().unwrap(), b"one");
    assert!(store.steps(id).await.unwrap().is_empty());
    let row = store.attempt(id).await.unwrap().unwrap();
    assert_eq!((row.state, row.running_ms), (AttemptState::Preparing, None));
    assert!(store.attempt_running(id, 2, "{}").await.unwrap());
}

async fn a_join_token_serves_one_key(lab: Lab) {
    lab.run(&ci(ONE)).await;
    let job = lab.claim().await.unwrap();
    let (token, key, store) = (hash(1), hash(2), &lab.store);
    assert_eq!(store.join(job.attempt, &token, &key).await.unwrap(), Join::Refused);
    assert!(store.set_join_token(job.attempt, job.epoch, &token).await.unwrap());
    assert_eq!(store.join(job.attempt, &hash(9), &key).await.unwrap(), Join::Refused);
    assert!(!store.session(job.attempt, &key).await.unwrap());
    assert_eq!(store.join(job.attempt, &token, &key).await.unwrap(), Join::Joined);
    assert_eq!(store.join(job.attempt, &token, &key).await.unwrap(), Join::Again);
    assert_eq!(
        store.join(job.attempt, &token, &hash(3)).await.unwrap(),
        Join::AgentRestarted
    );
    assert!(store.session(job.attempt, &key).await.unwrap());
    assert!(!store.session(job.attempt, &hash(3)).await.unwrap());
    assert!(store.attempt(job.attempt).await.unwrap().unwrap().joined);
    let new_token = store.set_join_token(job.attempt, job.epoch, &hash(4)).await;
    assert!(!new_token.unwrap(), "after a join there is no second agent");
}

async fn a_dead_attempt_lets_nobody_in(lab: Lab) {
    lab.run(&ci(ONE)).await;
    let job = lab.claim().await.unwrap();
    let (token, key, store) = (hash(1), hash(2), &lab.store);
    assert!(store.set_join_token(job.attempt, job.epoch, &token).await.unwrap());
    assert_eq!(store.join(job.attempt, &token, &key).await.unwrap(), Join::Joined);
    lab.fail_infra(&job, "lost").await;
    assert_eq!(store.join(job.attempt, &token, &key).await.unwrap(), Join::Refused);
    assert!(!store.session(job.attempt, &key).await.unwrap());
    assert_eq!(
        store.join(unknown_attempt(), &token, &key).await.unwrap(),
        Join::Refused
    );
}

async fn steps_move_forward_only(lab: Lab) {
    lab.run(&ci(ONE)).await;
    let job = lab.claim().await.unwrap();
    let tell = async |update: StepUpdate| lab.store.step(job.attempt, job.epoch, update).await.unwrap();
    for index in [0, 1] {
        assert!(tell(step(index, StepState::Pending)).await);
    }
    assert!(tell(step(0, StepState::Running)).await);
    let done = StepUpdate {
        exit_code: Some(1),
        message: Some("exit code 1".into()),
        started_ms: None,
        ended_ms: Some(5),
        ..step(0, StepState::Failure)
    };
    assert!(tell(done.clone()).await);
    assert!(
        tell(step(0, StepState::Running)).await,
        "the epoch counts, and nothing is undone"
    );
    assert!(tell(step(0, StepState::Success)).await);
    let steps = lab.store.steps(job.attempt).await.unwrap();
    let stored = StepUpdate {
        started_ms: Some(1),
        ..done
    };
    assert_eq!(steps, [stored, step(1, StepState::Pending)]);
}

async fn checkpoints_end_with_the_attempt(lab: Lab) {
    lab.run(&ci(ONE)).await;
    let job = lab.claim().await.unwrap();
    for text in [&b"one"[..], b"two"] {
        assert!(lab.store.checkpoint(job.attempt, job.epoch, text).await.unwrap());
        assert_eq!(lab.store.load_checkpoint(job.attempt).await.unwrap().unwrap(), text);
    }
    lab.end(&job, JobResult::Success).await;
    assert_eq!(lab.store.load_checkpoint(job.attempt).await.unwrap(), None);
    assert!(!lab.store.checkpoint(job.attempt, job.epoch, b"three").await.unwrap());
}

async fn machines_move_forward_only(lab: Lab) {
    use crate::model::names::MachineName;
    lab.run(&ci(ONE)).await;
    let job = lab.claim().await.unwrap();
    let name = MachineName::of(job.attempt);
    let go = async |to| lab.store.machine_state(&name, to).await.unwrap();
    assert!(!go(MachineState::Gone).await, "not before it is drained");
    assert!(go(MachineState::Running).await && go(MachineState::Running).await);
    assert!(go(MachineState::Draining).await);
    assert!(!go(MachineState::Running).await);
    assert!(go(MachineState::Gone).await && go(MachineState::Gone).await);
    assert!(!go(MachineState::Draining).await);
    assert!(lab.store.machines_of(&lab.node).await.unwrap().is_empty());
    let other = MachineName::of(unknown_attempt());
    assert!(!lab.store.machine_state(&other, MachineState::Draining).await.unwrap());
}

async fn an_attempt_that_never_ran_may_end(lab: Lab) {
    let run = lab.run(&ci(ONE)).await;
    let job = lab.claim().await.unwrap();
    lab.end(&job, JobResult::Cancelled).await;
    assert_eq!(lab.run_state(run).await, RunState::Cancelled);
    assert_eq!(lab.says(0xab, "helios-ci").await.unwrap(), "cancelled: Cancelled");
}
