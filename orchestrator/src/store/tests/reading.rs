//! What pages, the API and the command line read.

use super::*;
use crate::model::{
    names::RepoPath,
    plan::{Template, values},
    state::MachineState,
};

contract!(
    runs_are_listed_newest_first_in_pages,
    runs_are_filtered,
    visitors_see_public_repositories_only,
    a_job_shows_its_plan_attempts_and_steps,
    a_job_needs_no_part_of_the_plan_but_its_own,
    a_jobs_version_changes_with_everything_that_is_shown_of_it,
    what_does_not_exist_is_none,
    the_numbers_add_up,
);

async fn list(lab: &Lab, filter: RunFilter) -> Vec<RunId> {
    lab.store
        .runs(&filter)
        .await
        .unwrap()
        .into_iter()
        .map(|run| run.id)
        .collect()
}

async fn runs_are_listed_newest_first_in_pages(lab: Lab) {
    let mut all = Vec::new();
    for _ in 0..7 {
        all.push(lab.run(&ci(ONE)).await);
    }
    all.sort();
    all.reverse();
    let mut seen = Vec::new();
    loop {
        let page = RunFilter {
            before: seen.last().copied(),
            limit: 3,
            ..RunFilter::default()
        };
        let page = list(&lab, page).await;
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= 3);
        seen.extend(page);
    }
    assert_eq!(seen, all);
    let summary = lab.store.runs(&RunFilter::default()).await.unwrap().remove(0);
    assert_eq!(
        (summary.jobs, summary.workflow.as_str(), summary.event.as_str()),
        ((0, 1), "ci", "push")
    );
}

async fn runs_are_filtered(lab: Lab) {
    let a = lab.run(&ci(ONE)).await;
    lab.play(JobResult::Success).await;
    let b = lab
        .run(&Workflow {
            repository: 2,
            ..ci(ONE)
        })
        .await;
    let by_id = |connection: &str, id: u64| RunFilter {
        repository: Some((connection.parse().unwrap(), id.into())),
        ..RunFilter::default()
    };
    assert_eq!(list(&lab, by_id("forge", 1)).await, [a]);
    assert_eq!(list(&lab, by_id("forge", 2)).await, [b]);
    assert!(list(&lab, by_id("elsewhere", 1)).await.is_empty());
    let by_path = RunFilter {
        path: Some("OWNER/Repo-2".parse().unwrap()),
        ..RunFilter::default()
    };
    assert_eq!(list(&lab, by_path).await, [b]);
    for (state, run) in [(RunState::Success, a), (RunState::Active, b)] {
        let by_state = RunFilter {
            state: Some(state),
            ..RunFilter::default()
        };
        assert_eq!(list(&lab, by_state).await, [run]);
    }
}

async fn visitors_see_public_repositories_only(lab: Lab) {
    lab.run(&ci(ONE)).await;
    let public = lab
        .run(&Workflow {
            repository: 2,
            ..ci(ONE)
        })
        .await;
    let only = |paths: &[(&str, &str)]| RunFilter {
        public_only: Some(
            paths
                .iter()
                .map(|(c, p)| (c.parse().unwrap(), p.parse::<RepoPath>().unwrap()))
                .collect(),
        ),
        ..RunFilter::default()
    };
    assert_eq!(
        list(&lab, only(&[("forge", "owner/repo-2"), ("forge", "owner/x")])).await,
        [public]
    );
    assert!(list(&lab, only(&[("other", "owner/repo-2")])).await.is_empty());
    assert!(
        list(&lab, only(&[])).await.is_empty(),
        "no public repository, nothing to see"
    );
}

async fn a_job_needs_no_part_of_the_plan_but_its_own(lab: Lab) {
    let run = lab.run(&ci(&[("a", &[]), ("b", &[])])).await;
    lab.sql("UPDATE job_plans SET plan = 'none' WHERE job_key = 'b'").await;
    let jobs = lab.jobs(run).await;
    // Neither the run's whole plan nor another job's part is read.
    lab.sql("UPDATE runs SET plan = 'none'").await;
    let detail = lab.store.job(jobs[0].id).await.unwrap().unwrap();
    assert_eq!((detail.plan.id.as_str(), detail.plan.steps.len()), ("a", 1));
    assert_eq!(
        values(&detail.workflow_env, str::to_owned).unwrap(),
        [("A".to_owned(), "1".to_owned())]
    );
    let error = lab.store.job(jobs[1].id).await.unwrap_err();
    assert!(matches!(&error, StoreError::Unreadable { column, .. } if column == "plan"));
    // Every attempt of the run executes the same plan.
    lab.play(JobResult::Failure).await;
    lab.play(JobResult::Success).await;
    lab.store.rerun(run, Rerun::All, "bob").await.unwrap();
    let again = lab.store.job(lab.jobs(run).await[0].id).await.unwrap().unwrap();
    assert_eq!((again.run_attempt, again.plan), (2, detail.plan));
}

async fn a_job_shows_its_plan_attempts_and_steps(lab: Lab) {
    let run = lab.run(&ci(&[("a", &[]), ("b", &["a"])])).await;
    let first = lab.claim().await.unwrap();
    lab.fail_infra(&first, "no boot").await;
    let second = lab.claim().await.unwrap();
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
    assert!(
        lab.store
            .step(second.attempt, second.epoch, step.clone())
            .await
            .unwrap()
    );
    let detail = lab.store.job(first.job).await.unwrap().unwrap();
    assert_eq!(
        (detail.run.id, detail.run_attempt, detail.plan.id.as_str()),
        (run, 1, "a")
    );
    assert_eq!(
        detail.workflow_env,
        [("A".to_owned(), Template::default_of("1".to_owned()))]
    );
    let attempts: Vec<AttemptId> = detail.attempts.iter().map(|a| a.id).collect();
    assert_eq!(attempts, [first.attempt, second.attempt]);
    assert_eq!(detail.attempts[0].cause.as_deref(), Some("no boot"));
    assert_eq!((detail.steps, detail.job.attempt), (vec![step], Some(second.attempt)));
}

async fn a_jobs_version_changes_with_everything_that_is_shown_of_it(lab: Lab) {
    use crate::model::state::StepState;
    lab.run(&ci(ONE)).await;
    let claimed = lab.claim().await.unwrap();
    let mut seen = Vec::new();
    let mut look = async |what: &str, changes: bool| {
        let version = lab.store.job_version(claimed.job).await.unwrap().unwrap();
        assert_eq!(seen.last() != Some(&version), changes, "{what}");
        seen.push(version.clone());
        version
    };
    let version = look("claimed", true).await;
    assert_eq!(
        (version.state, version.attempt, version.attempt_ended),
        (JobState::Active, Some(claimed.attempt), false)
    );
    look("nothing happened", false).await;
    lab.start(&claimed).await;
    look("its attempt runs", true).await;
    let step = |state, started_ms, ended_ms| StepUpdate {
        index: 0,
        name: "true".into(),
        state,
        exit_code: None,
        message: None,
        started_ms,
        ended_ms,
        allowed_failure: false,
    };
    for (what, step) in [
        ("a step is known", step(StepState::Pending, None, None)),
        ("it runs", step(StepState::Running, Some(5), None)),
        ("it has ended", step(StepState::Success, Some(5), Some(7))),
    ] {
        assert!(lab.store.step(claimed.attempt, claimed.epoch, step).await.unwrap());
        look(what, true).await;
    }
    lab.store.cancel_job(claimed.job, "ann", "why not").await.unwrap();
    look("somebody asked for its end", true).await;
    lab.fail_infra(&claimed, "lost").await;
    let version = look("its attempt has ended", true).await;
    assert_eq!((version.state, version.attempt_ended), (JobState::Cancelled, true));
    assert!(lab.store.job_version(unknown_job()).await.unwrap().is_none());
}

async fn what_does_not_exist_is_none(lab: Lab) {
    assert!(lab.store.run(RunId::new()).await.unwrap().is_none());
    assert!(lab.store.job(unknown_job()).await.unwrap().is_none());
    assert!(lab.store.attempt(unknown_attempt()).await.unwrap().is_none());
    assert!(
        lab.store
            .trigger(crate::model::ids::TriggerId::new())
            .await
            .unwrap()
            .is_none()
    );
    assert!(lab.store.steps(unknown_attempt()).await.unwrap().is_empty());
    assert!(lab.store.claim_trigger(&lab.node, MINUTE).await.unwrap().is_none());
}

async fn the_numbers_add_up(lab: Lab) {
    lab.run(&ci(&[("a", &[]), ("b", &[]), ("c", &["a"])])).await;
    lab.claim().await.unwrap();
    lab.store.create_trigger(&push(1, &sha(1)), "ann").await.unwrap();
    let counts = lab.store.counts().await.unwrap();
    let jobs = [(JobState::Waiting, 1), (JobState::Queued, 1), (JobState::Active, 1)];
    assert_eq!(counts.jobs, jobs.into_iter().collect());
    let machines = [
        (MachineState::Preparing, 1),
        (MachineState::Running, 0),
        (MachineState::Kept, 0),
        (MachineState::Draining, 0),
    ];
    assert_eq!(counts.machines, machines.into_iter().collect());
    assert_eq!((counts.attempts_live, counts.triggers_received), (1, 1));
    assert_eq!((counts.reports_undelivered, counts.deliveries_received), (4, 0));
    lab.store.ping().await.unwrap();
}
