//! Running again: new rows from the stored plan, old ones untouched.

use super::*;

contract!(
    all_jobs_run_again,
    only_what_failed_runs_again,
    a_carried_result_is_carried_on,
    a_rerun_needs_an_ended_run,
    a_rerun_supersedes_its_checks,
    a_run_in_which_everything_was_skipped_is_skipped,
);

async fn all_jobs_run_again(lab: Lab) {
    let run = lab.run(&ci(&[("a", &[]), ("b", &["a"])])).await;
    lab.play(JobResult::Success).await;
    lab.play(JobResult::Success).await;
    let before = lab.store.run(run).await.unwrap().unwrap();
    let outcome = lab.store.rerun(run, Rerun::All, "bob").await.unwrap();
    assert_eq!(outcome, RerunOutcome::Started { run_attempt: 2 });
    let after = lab.store.run(run).await.unwrap().unwrap();
    assert_eq!(after.attempts.len(), 2);
    assert_eq!(format!("{:?}", after.attempts[0]), format!("{:?}", before.attempts[0]));
    assert_eq!((after.attempts[1].by.as_str(), after.summary.attempt), ("bob", 2));
    assert_eq!(lab.job_states(run).await, [JobState::Queued, JobState::Waiting]);
    let claimed = lab.claim().await.unwrap();
    assert_eq!((claimed.run_attempt, claimed.number), (2, 1));
}

async fn only_what_failed_runs_again(lab: Lab) {
    let run = lab.run(&ci(&[("a", &[]), ("b", &[]), ("c", &["a", "b"])])).await;
    let (a, _) = lab.play(JobResult::Success).await;
    lab.sql("INSERT INTO outputs (job_id, name, value) SELECT id, 'version', '7' FROM jobs WHERE job_key = 'a'")
        .await;
    lab.play(JobResult::Failure).await;
    assert_eq!(lab.run_state(run).await, RunState::Failure);
    let outcome = lab.store.rerun(run, Rerun::Failed, "bob").await.unwrap();
    assert_eq!(outcome, RerunOutcome::Started { run_attempt: 2 });
    let jobs = lab.jobs(run).await;
    let states: Vec<JobState> = jobs.iter().map(|job| job.state).collect();
    assert_eq!(states, [JobState::Success, JobState::Queued, JobState::Waiting]);
    assert_eq!((jobs[0].carried_from, jobs[0].attempt), (Some(a.job), Some(a.attempt)));
    assert!(jobs[0].ended_ms.is_some());
    assert_eq!(
        lab.number("SELECT COUNT(*) AS n FROM outputs WHERE value = '7'").await,
        2
    );
    assert_eq!(lab.says(0xab, "helios-ci").await.unwrap(), "queued: 3 jobs queued");
    assert_eq!(
        lab.says(0xab, "helios-ci / ci / a").await.unwrap(),
        "success: ended in Success"
    );
    lab.play(JobResult::Success).await;
    lab.play(JobResult::Success).await;
    assert_eq!(lab.run_state(run).await, RunState::Success);
    let detail = lab.store.job(jobs[0].id).await.unwrap().unwrap();
    assert_eq!((detail.run_attempt, detail.attempts[0].id), (2, a.attempt));
}

async fn a_carried_result_is_carried_on(lab: Lab) {
    let run = lab.run(&ci(&[("a", &[]), ("b", &[])])).await;
    let (a, _) = lab.play(JobResult::Success).await;
    for _ in 0..2 {
        lab.play(JobResult::Failure).await;
        lab.store.rerun(run, Rerun::Failed, "bob").await.unwrap();
        assert_eq!(
            lab.jobs(run).await[0].carried_from,
            Some(a.job),
            "the job that really ran"
        );
    }
}

async fn a_rerun_needs_an_ended_run(lab: Lab) {
    let run = lab.run(&ci(ONE)).await;
    let rerun = async |which| lab.store.rerun(run, which, "bob").await.unwrap();
    assert_eq!(rerun(Rerun::All).await, RerunOutcome::StillActive);
    lab.play(JobResult::Success).await;
    assert_eq!(rerun(Rerun::Failed).await, RerunOutcome::NothingFailed);
    let unknown = lab.store.rerun(RunId::new(), Rerun::All, "bob").await.unwrap();
    assert_eq!(unknown, RerunOutcome::Unknown);
    let (a, b) = tokio::join!(rerun(Rerun::All), rerun(Rerun::All));
    let mut both = [a, b];
    both.sort_by_key(|outcome| *outcome == RerunOutcome::StillActive);
    assert_eq!(
        both,
        [RerunOutcome::Started { run_attempt: 2 }, RerunOutcome::StillActive]
    );
}

async fn a_rerun_supersedes_its_checks(lab: Lab) {
    let run = lab.run(&ci(&[("a", &[]), ("b", &[])])).await;
    lab.play(JobResult::Success).await;
    lab.play(JobResult::Failure).await;
    for report in lab.claim_reports(10, MINUTE).await {
        assert_eq!(report.report.generation, 1, "{}", report.report.name);
        lab.store
            .report_delivered(report.id, report.version, Some("remote-1"))
            .await
            .unwrap();
    }
    lab.store.rerun(run, Rerun::Failed, "bob").await.unwrap();
    let reports = lab.claim_reports(10, MINUTE).await;
    let mut found: Vec<(String, u32, Option<String>)> = reports
        .into_iter()
        .map(|r| (r.report.name, r.report.generation, r.remote))
        .collect();
    found.sort();
    let expected = [
        ("helios-ci".to_owned(), 2, None),
        ("helios-ci / ci / b".to_owned(), 2, None),
    ];
    assert_eq!(found, expected, "only what runs again, as new check runs");
}

/// As a condition will skip them: before they were ever queued.
async fn a_run_in_which_everything_was_skipped_is_skipped(lab: Lab) {
    let run = lab.run(&ci(&[("a", &[]), ("b", &["a"])])).await;
    lab.sql("UPDATE jobs SET state = 'skipped', queued_ms = NULL, ended_ms = 1 WHERE job_key = 'a'")
        .await;
    lab.sql("UPDATE turn SET queued = 0").await;
    let settled = lab.store.write("settle a run", Commit::Synced, move |tx| {
        Box::pin(async move {
            let locked = run::runs::lock(tx, run).await?.unwrap();
            run::runs::settle_and_report(tx, &locked, run, 1, &[]).await
        })
    });
    assert_eq!(settled.await.unwrap().state, RunState::Skipped);
    assert_eq!(lab.run_state(run).await, RunState::Skipped);
    assert_eq!(
        lab.says(0xab, "helios-ci").await.unwrap(),
        "skipped: Nothing ran: all 2 jobs were skipped"
    );
    assert_eq!(
        lab.says(0xab, "helios-ci / ci / b").await.unwrap(),
        "skipped: Skipped: `a` was skipped"
    );
    let filter = RunFilter {
        state: Some(RunState::Skipped),
        ..RunFilter::default()
    };
    assert_eq!(lab.store.runs(&filter).await.unwrap()[0].id, run);
    let failed = lab.store.rerun(run, Rerun::Failed, "bob").await.unwrap();
    assert_eq!(failed, RerunOutcome::NothingFailed);
    let all = lab.store.rerun(run, Rerun::All, "bob").await.unwrap();
    assert_eq!(all, RerunOutcome::Started { run_attempt: 2 });
    assert_eq!(lab.job_states(run).await, [JobState::Queued, JobState::Waiting]);
}
