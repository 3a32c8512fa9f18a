//! Cancelling: what has not begun ends at once, what runs is asked, and what is committed stays.

use super::*;

contract!(
    a_cancelled_run_ends_what_has_not_begun,
    a_run_in_which_nothing_runs_ends_at_once,
    a_second_request_forces,
    a_committed_result_wins,
    a_cancelled_job_skips_what_needs_it,
    a_running_job_is_asked_to_end,
    infra_after_a_cancel_is_not_tried_again,
    cancelling_races_with_the_end_and_one_wins,
    cancelling_races_with_claims_and_nothing_is_lost,
);

fn requested(outcome: CancelOutcome) -> (Vec<AttemptId>, Vec<JobId>, bool) {
    match outcome {
        CancelOutcome::Requested { running, ended, forced } => (running, ended, forced),
        other => panic!("{other:?}"),
    }
}

async fn a_cancelled_run_ends_what_has_not_begun(lab: Lab) {
    let run = lab.run(&ci(&[("a", &[]), ("b", &[]), ("c", &["a"])])).await;
    let claimed = lab.claim().await.unwrap();
    lab.start(&claimed).await;
    assert_eq!(lab.store.cancel_state(claimed.attempt).await.unwrap(), None);
    let (running, ended, forced) = requested(lab.store.cancel_run(run, "ann", "wrong branch").await.unwrap());
    assert_eq!((running, ended.len(), forced), (vec![claimed.attempt], 2, false));
    let states = lab.job_states(run).await;
    assert_eq!(states, [JobState::Active, JobState::Cancelled, JobState::Cancelled]);
    assert_eq!(lab.claim().await, None);
    let request = lab.store.cancel_state(claimed.attempt).await.unwrap().unwrap();
    assert_eq!(
        (request.by.as_str(), request.reason.as_str(), request.force),
        ("ann", "wrong branch", false)
    );
    let outcome = lab.end(&claimed, JobResult::Cancelled).await;
    assert!(matches!(
        outcome,
        EndOutcome::Ended {
            run: RunState::Cancelled,
            ..
        }
    ));
    assert_eq!(lab.says(0xab, "helios-ci").await.unwrap(), "cancelled: Cancelled");
    assert_eq!(
        lab.says(0xab, "helios-ci / ci / b").await.unwrap(),
        "cancelled: cancelled before it began"
    );
}

async fn a_run_in_which_nothing_runs_ends_at_once(lab: Lab) {
    let run = lab.run(&ci(&[("a", &[]), ("b", &["a"])])).await;
    let (running, ended, _) = requested(lab.store.cancel_run(run, "ann", "").await.unwrap());
    assert_eq!((running.len(), ended.len()), (0, 2));
    assert_eq!(lab.run_state(run).await, RunState::Cancelled);
    let again = lab.store.cancel_run(run, "ann", "").await.unwrap();
    assert_eq!(again, CancelOutcome::AlreadyEnded);
    let unknown = lab.store.cancel_run(RunId::new(), "ann", "").await.unwrap();
    assert_eq!(unknown, CancelOutcome::Unknown);
    assert_eq!(lab.number("SELECT CAST(SUM(queued) AS BIGINT) AS n FROM turn").await, 0);
}

async fn a_second_request_forces(lab: Lab) {
    let run = lab.run(&ci(ONE)).await;
    let claimed = lab.claim().await.unwrap();
    assert!(!requested(lab.store.cancel_run(run, "ann", "one").await.unwrap()).2);
    let first = lab.store.cancel_state(claimed.attempt).await.unwrap().unwrap();
    assert!(requested(lab.store.cancel_run(run, "bob", "two").await.unwrap()).2);
    let second = lab.store.cancel_state(claimed.attempt).await.unwrap().unwrap();
    assert_eq!(
        (second.at_ms, second.by.as_str(), second.force),
        (first.at_ms, "bob", true)
    );
}

async fn a_committed_result_wins(lab: Lab) {
    let run = lab.run(&ci(ONE)).await;
    let (claimed, _) = lab.play(JobResult::Success).await;
    let late = lab.store.cancel_run(run, "ann", "").await.unwrap();
    assert_eq!(late, CancelOutcome::AlreadyEnded);
    let late = lab.store.cancel_job(claimed.job, "ann", "").await.unwrap();
    assert_eq!(late, CancelOutcome::AlreadyEnded);
    assert_eq!(lab.run_state(run).await, RunState::Success);
}

async fn a_cancelled_job_skips_what_needs_it(lab: Lab) {
    let run = lab.run(&ci(&[("a", &[]), ("b", &["a"]), ("c", &[])])).await;
    let jobs = lab.jobs(run).await;
    let (running, ended, forced) = requested(lab.store.cancel_job(jobs[0].id, "ann", "").await.unwrap());
    assert_eq!((running.len(), ended, forced), (0, vec![jobs[0].id, jobs[1].id], false));
    let states = lab.job_states(run).await;
    assert_eq!(states, [JobState::Cancelled, JobState::Skipped, JobState::Queued]);
    assert_eq!(lab.claim().await.unwrap().job, jobs[2].id);
    let unknown = lab.store.cancel_job(unknown_job(), "ann", "").await.unwrap();
    assert_eq!(unknown, CancelOutcome::Unknown);
}

async fn a_running_job_is_asked_to_end(lab: Lab) {
    let run = lab.run(&ci(&[("a", &[]), ("b", &[])])).await;
    let (a, b) = (lab.claim().await.unwrap(), lab.claim().await.unwrap());
    let (running, ended, forced) = requested(lab.store.cancel_job(a.job, "ann", "slow").await.unwrap());
    assert_eq!((running, ended.len(), forced), (vec![a.attempt], 0, false));
    assert!(lab.store.cancel_state(a.attempt).await.unwrap().is_some());
    assert_eq!(lab.store.cancel_state(b.attempt).await.unwrap(), None, "only this job");
    assert!(requested(lab.store.cancel_job(a.job, "ann", "slow").await.unwrap()).2);
    assert!(lab.jobs(run).await[0].cancel.as_ref().unwrap().force);
}

async fn infra_after_a_cancel_is_not_tried_again(lab: Lab) {
    for by_run in [true, false] {
        let run = lab.run(&ci(ONE)).await;
        let claimed = lab.claim().await.unwrap();
        let outcome = if by_run {
            lab.store.cancel_run(run, "ann", "").await
        } else {
            lab.store.cancel_job(claimed.job, "ann", "").await
        };
        assert_eq!(requested(outcome.unwrap()).0, [claimed.attempt]);
        let outcome = lab.fail_infra(&claimed, "lost").await;
        assert!(matches!(
            outcome,
            EndOutcome::Ended {
                job: JobState::Cancelled,
                run: RunState::Cancelled,
                ..
            }
        ));
    }
}

async fn cancelling_races_with_the_end_and_one_wins(lab: Lab) {
    for _ in 0..30 {
        let run = lab.run(&ci(ONE)).await;
        let claimed = lab.claim().await.unwrap();
        let (cancel, end) = tokio::join!(
            tokio::spawn({
                let lab = lab.clone();
                async move { lab.store.cancel_run(run, "ann", "").await.unwrap() }
            }),
            tokio::spawn({
                let lab = lab.clone();
                async move { lab.end(&claimed, JobResult::Success).await }
            })
        );
        assert!(matches!(
            end.unwrap(),
            EndOutcome::Ended {
                job: JobState::Success,
                ..
            }
        ));
        assert!(!matches!(cancel.unwrap(), CancelOutcome::Unknown));
        assert_eq!(
            lab.run_state(run).await,
            RunState::Success,
            "a finished job stays finished"
        );
    }
}

async fn cancelling_races_with_claims_and_nothing_is_lost(lab: Lab) {
    for _ in 0..30 {
        let run = lab.run(&ci(&[("a", &[]), ("b", &[]), ("c", &[])])).await;
        let (cancel, claims) = tokio::join!(
            tokio::spawn({
                let lab = lab.clone();
                async move { lab.store.cancel_run(run, "ann", "").await.unwrap() }
            }),
            tokio::spawn({
                let lab = lab.clone();
                async move {
                    let mut claims = Vec::new();
                    while let Some(claimed) = lab.claim().await {
                        claims.push(claimed);
                    }
                    claims
                }
            })
        );
        let claims = claims.unwrap();
        match cancel.unwrap() {
            CancelOutcome::Requested { running, ended, .. } => {
                assert_eq!(running.len() + ended.len(), 3);
                assert_eq!(running.len(), claims.len());
            }
            other => panic!("{other:?}"),
        }
        for claimed in claims {
            lab.end(&claimed, JobResult::Cancelled).await;
        }
        assert_eq!(lab.run_state(run).await, RunState::Cancelled);
    }
}
