//! The outbox as the reporter sees it.

use super::*;
use crate::model::{
    names::RefName,
    report::{Lane, ReportState},
};

const BUILD: &str = "helios-ci / ci / build";

contract!(
    the_newest_state_is_told,
    a_report_is_in_flight_once,
    final_reports_go_first,
    a_pause_is_kept_and_a_refusal_is_shown,
    each_state_has_all_its_tries,
    what_waits_for_a_forge_says_so_and_stays_due,
    an_answer_for_an_earlier_generation_lends_no_id,
    an_old_answer_does_not_hide_a_new_state,
    an_expired_lease_is_claimed_again,
    an_unreadable_report_holds_up_no_other,
    of_several_runs_the_worst_is_shown_whoever_ends_last,
    a_red_check_stays_red_until_its_own_run_is_mended,
    the_same_push_again_measures_the_same_thing_again,
    a_push_that_could_not_be_planned_stays_red_until_it_comes_again,
    a_push_that_is_ignored_in_the_end_takes_its_red_back,
);

async fn claim_all(lab: &Lab) -> Vec<ClaimedReport> {
    lab.claim_reports(100, MINUTE).await
}

async fn deliver(lab: &Lab, report: &ClaimedReport) {
    let done = lab.store.report_delivered(report.id, report.version, Some("remote"));
    done.await.unwrap();
}

/// The report of the only job.
fn of_job(reports: Vec<ClaimedReport>) -> ClaimedReport {
    let mut of_job = reports.into_iter().filter(|r| r.report.job.is_some());
    let report = of_job.next().unwrap();
    assert!(of_job.next().is_none());
    report
}

async fn the_newest_state_is_told(lab: Lab) {
    assert!(lab.store.report_lanes().await.unwrap().is_empty());
    let run = lab.run(&ci(ONE)).await;
    lab.play(JobResult::Failure).await;
    let lanes = lab.store.report_lanes().await.unwrap();
    assert!(matches!(&lanes[..], [(_, Duration::ZERO)]), "{lanes:?}");
    let reports = claim_all(&lab).await;
    assert_eq!(reports.len(), 2, "one per check, whatever happened in between");
    for claimed in &reports {
        let report = &claimed.report;
        assert_eq!((report.state, report.run), (ReportState::Failure, Some(run)));
        assert_eq!((&report.commit, &report.repository.context), (&sha(0xab), &7.into()));
        assert!(report.completed_ms >= report.started_ms && report.started_ms.is_some());
        deliver(&lab, claimed).await;
    }
    assert!(lab.store.report_lanes().await.unwrap().is_empty());
    assert!(claim_all(&lab).await.is_empty());
}

async fn a_report_is_in_flight_once(lab: Lab) {
    lab.run(&ci(ONE)).await;
    let first = of_job(claim_all(&lab).await);
    lab.play(JobResult::Success).await;
    assert!(
        claim_all(&lab).await.is_empty(),
        "the forge must not hear two states at once"
    );
    deliver(&lab, &first).await;
    let second = of_job(claim_all(&lab).await);
    assert!(second.version > first.version);
    assert_eq!(
        (second.report.state, second.remote.as_deref()),
        (ReportState::Success, Some("remote"))
    );
}

async fn final_reports_go_first(lab: Lab) {
    lab.run(&Workflow { commit: 1, ..ci(ONE) }).await;
    lab.play(JobResult::Success).await;
    lab.run(&Workflow { commit: 2, ..ci(ONE) }).await;
    lab.sql("UPDATE reports SET due_ms = CASE WHEN completed_ms IS NULL THEN 1 ELSE 2 END")
        .await;
    let first = lab.claim_reports(2, MINUTE).await;
    assert!(first.len() == 2 && first.iter().all(|r| r.report.state.is_final()));
    let all = claim_all(&lab).await;
    assert!(all.len() == 2 && all.iter().all(|r| !r.report.state.is_final()));
}

async fn a_pause_is_kept_and_a_refusal_is_shown(lab: Lab) {
    let run = lab.run(&ci(ONE)).await;
    for claimed in claim_all(&lab).await {
        let (id, version) = (claimed.id, claimed.version);
        if claimed.report.job.is_some() {
            let refused = lab
                .store
                .put_off_report(id, version, MINUTE, "the forge answered 403", PutOff::Refused);
            refused.await.unwrap();
        } else {
            let held = lab
                .store
                .put_off_report(id, version, MINUTE, "the forge answered 429", PutOff::Held);
            held.await.unwrap();
        }
    }
    assert!(claim_all(&lab).await.is_empty());
    let lanes = lab.store.report_lanes().await.unwrap();
    assert!(
        lanes.len() == 1 && !lanes[0].1.is_zero() && lanes[0].1 <= MINUTE,
        "{lanes:?}"
    );
    let shown = lab.store.run(run).await.unwrap().unwrap().undelivered;
    let expected = [
        "helios-ci: the forge answered 429",
        "helios-ci / ci / build: the forge answered 403",
    ];
    assert_eq!(shown, expected);
    let counts = lab.store.counts().await.unwrap();
    assert_eq!((counts.reports_undelivered, counts.reports_refused), (2, 1));
    lab.play(JobResult::Success).await;
    // The refused check has something new to say, the paused one still waits.
    let again = of_job(claim_all(&lab).await);
    deliver(&lab, &again).await;
    lab.sql("UPDATE reports SET due_ms = 0").await;
    for claimed in claim_all(&lab).await {
        assert_eq!(claimed.tries, 0, "a pause is no try");
        deliver(&lab, &claimed).await;
    }
    assert!(lab.store.run(run).await.unwrap().unwrap().undelivered.is_empty());
}

async fn each_state_has_all_its_tries(lab: Lab) {
    lab.run(&ci(ONE)).await;
    for tries in 0..3 {
        lab.sql("UPDATE reports SET due_ms = 0").await;
        let claimed = of_job(claim_all(&lab).await);
        assert_eq!(claimed.tries, tries);
        let failed = lab.store.put_off_report(
            claimed.id,
            claimed.version,
            MINUTE,
            "the forge answered 500",
            PutOff::Failed,
        );
        failed.await.unwrap();
        lab.sql("UPDATE reports SET lease_until = 0 WHERE job_id IS NULL").await;
    }
    assert_eq!(lab.store.counts().await.unwrap().reports_refused, 0);
    let old = {
        lab.sql("UPDATE reports SET due_ms = 0").await;
        of_job(claim_all(&lab).await)
    };
    lab.play(JobResult::Success).await;
    // What became of the old state counts for nothing.
    let failed = lab
        .store
        .put_off_report(old.id, old.version, MINUTE, "the forge answered 500", PutOff::Failed);
    failed.await.unwrap();
    let new = of_job(claim_all(&lab).await);
    assert_eq!((new.tries, new.report.state), (0, ReportState::Success));
}

async fn what_waits_for_a_forge_says_so_and_stays_due(lab: Lab) {
    let run = lab.run(&ci(ONE)).await;
    let lanes = lab.store.report_lanes().await.unwrap();
    let lane = &lanes[0].0;
    let claim = async |limit, lease| {
        let claimed = lab
            .store
            .claim_reports(&lab.node, lane, ReportStates::All, limit, lease);
        claimed.await.unwrap()
    };
    let under_way = claim(1, MINUTE).await;
    let shown = async || lab.store.run(run).await.unwrap().unwrap().undelivered;
    for reason in ["the forge is away", "the forge is away", "the forge is very much away"] {
        lab.store.hold_reports(lane, Duration::ZERO, reason).await.unwrap();
        assert_eq!(shown().await.len(), 1, "one that is under way waits for nothing");
        assert!(
            shown().await[0].ends_with(&format!(": {reason}")),
            "{:?}",
            shown().await
        );
    }
    let other = Lane {
        context: 8.into(),
        ..lane.clone()
    };
    lab.store.hold_reports(&other, MINUTE, "another one").await.unwrap();
    assert!(!shown().await[0].contains("another one"));
    let waiting = claim(9, Duration::ZERO).await;
    assert_eq!((waiting.len(), under_way.len()), (1, 1), "it is due all the time");
    // Where the forge asked for a pause it is kept, also by a daemon that starts meanwhile.
    lab.store
        .hold_reports(lane, MINUTE, "the forge answered 429")
        .await
        .unwrap();
    assert!(claim_all(&lab).await.is_empty());
    lab.store.hold_reports(lane, Duration::ZERO, "x").await.unwrap();
    assert!(claim_all(&lab).await.is_empty());
    assert!(shown().await[0].contains("429"));
}

async fn an_answer_for_an_earlier_generation_lends_no_id(lab: Lab) {
    let run = lab.run(&ci(ONE)).await;
    lab.play(JobResult::Failure).await;
    let old = claim_all(&lab).await;
    lab.store.rerun(run, Rerun::All, "bob").await.unwrap();
    for claimed in &old {
        deliver(&lab, claimed).await;
    }
    let new = claim_all(&lab).await;
    assert_eq!(new.len(), 2);
    for claimed in new {
        assert_eq!(
            (claimed.report.generation, claimed.remote),
            (2, None),
            "{}",
            claimed.report.name
        );
    }
}

async fn an_old_answer_does_not_hide_a_new_state(lab: Lab) {
    lab.run(&ci(ONE)).await;
    let slow = of_job(lab.claim_reports(100, Duration::ZERO).await);
    lab.play(JobResult::Success).await;
    let fast = of_job(claim_all(&lab).await);
    deliver(&lab, &fast).await;
    let done = async || {
        lab.number("SELECT COUNT(*) AS n FROM reports WHERE delivered = version AND job_id IS NOT NULL")
            .await
    };
    let late = lab
        .store
        .put_off_report(slow.id, slow.version, MINUTE, "no", PutOff::Refused)
        .await;
    late.unwrap();
    assert_eq!(done().await, 1, "what was refused changed nothing at the forge");
    // The forge may show the old state now, so it hears the new one once more.
    for late in [true, false] {
        if late {
            deliver(&lab, &slow).await;
        } else {
            let failed = lab
                .store
                .put_off_report(slow.id, slow.version, MINUTE, "no answer", PutOff::Failed);
            failed.await.unwrap();
        }
        assert_eq!(done().await, 0);
        let again = of_job(claim_all(&lab).await);
        assert_eq!(
            (again.version, again.report.state),
            (fast.version, ReportState::Success)
        );
        deliver(&lab, &again).await;
        deliver(&lab, &again).await;
        assert_eq!(done().await, 1);
    }
}

async fn an_expired_lease_is_claimed_again(lab: Lab) {
    lab.run(&ci(ONE)).await;
    let lost = lab.claim_reports(100, Duration::ZERO).await;
    assert_eq!(claim_all(&lab).await.len(), lost.len());
}

async fn an_unreadable_report_holds_up_no_other(lab: Lab) {
    let run = lab.run(&ci(ONE)).await;
    lab.sql("UPDATE reports SET state = 'purple' WHERE job_id IS NOT NULL")
        .await;
    let claimed = claim_all(&lab).await;
    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0].report.name, "helios-ci");
    let shown = lab.store.run(run).await.unwrap().unwrap().undelivered;
    assert!(
        shown.len() == 1 && shown[0].contains("`purple` is no state of a report"),
        "{shown:?}"
    );
    let counts = lab.store.counts().await.unwrap();
    assert_eq!((counts.rows_unreadable, counts.reports_refused), (1, 1));
    assert!(claim_all(&lab).await.is_empty(), "it is tried again in an hour");
    lab.play(JobResult::Success).await;
    assert_eq!(
        of_job(claim_all(&lab).await).report.state,
        ReportState::Success,
        "and at once when there is something new to say"
    );
}

/// A push of this ref that ends so; its runs.
async fn pushed(lab: &Lab, commit: u8, ref_name: &str, outcome: TriggerOutcome) -> Vec<RunId> {
    let ref_name: RefName = ref_name.parse().unwrap();
    let mut trigger = push(1, &sha(commit));
    trigger.event = Event::push(ref_name, sha(commit), None);
    lab.store.create_trigger(&trigger, "ann").await.unwrap();
    let claimed = lab.store.claim_trigger(&lab.node, MINUTE).await.unwrap().unwrap();
    let runs = lab.store.finish_trigger(claimed.id, claimed.epoch, outcome).await;
    runs.unwrap().unwrap()
}

/// One run, of workflow `ci` with one job.
fn one_run(commit: u8) -> TriggerOutcome {
    TriggerOutcome::Planned {
        commit: sha(commit),
        title: String::new(),
        runs: vec![planned(&ci(ONE))],
    }
}

/// A run of workflow `ci` with one job, for a push of this ref.
async fn run_of(lab: &Lab, commit: u8, ref_name: &str) -> RunId {
    pushed(lab, commit, ref_name, one_run(commit)).await[0]
}

/// What the outbox wants a check of a commit to say and where it leads: state, title, run, job.
async fn wanted(lab: &Lab, commit: u8, check: &str) -> (String, String, RunId, Option<JobId>) {
    let mut tx = lab.store.read("look into the outbox").await.unwrap();
    let row = tx
        .row(
            "SELECT state, title, run_id, job_id FROM reports WHERE commit_sha = $1 AND name = $2",
            engine::tx::args![&sha(commit), check],
        )
        .await
        .unwrap()
        .unwrap();
    (
        row.text("state").unwrap(),
        row.text("title").unwrap(),
        row.parse("run_id").unwrap(),
        row.opt_parse("job_id").unwrap(),
    )
}

async fn of_several_runs_the_worst_is_shown_whoever_ends_last(lab: Lab) {
    use JobResult::{Cancelled, Error, Failure, Success, TimedOut};
    // From the best to the worst.
    let ranks = [Success, Cancelled, TimedOut, Failure, Error];
    let rank = |result: JobResult| ranks.iter().position(|known| *known == result).unwrap();
    let refs = ["refs/heads/main", "refs/tags/v1", "refs/heads/v1"];
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let cases = [
        [Failure, Success, Success],
        [Success, Failure, Success],
        [Success, Success, Success],
        [Cancelled, TimedOut, Success],
        [Failure, Failure, Cancelled],
        [Error, Failure, Success],
        [TimedOut, Success, Cancelled],
    ];
    for (case, results) in cases.into_iter().enumerate() {
        for (nth, order) in orders.into_iter().enumerate() {
            let commit = u8::try_from(1 + case * orders.len() + nth).unwrap();
            let mut claimed = Vec::new();
            for name in refs {
                let run = run_of(&lab, commit, name).await;
                claimed.push((run, lab.claim().await.unwrap()));
            }
            let mut before = 0;
            for index in order {
                lab.start(&claimed[index].1).await;
                lab.end(&claimed[index].1, results[index]).await;
                let (state, ..) = wanted(&lab, commit, BUILD).await;
                let now = ["success", "cancelled", "timed_out", "failure", "error"]
                    .iter()
                    .position(|word| *word == state)
                    .unwrap_or(0);
                assert!(
                    now >= before,
                    "{results:?} in the order {order:?} became better: {state}"
                );
                before = now;
            }
            let worst = (0..3).max_by_key(|index| (rank(results[*index]), *index)).unwrap();
            let (run, job) = (claimed[worst].0, claimed[worst].1.job);
            let (state, title, to_run, to_job) = wanted(&lab, commit, BUILD).await;
            assert_eq!(state, results[worst].state().to_string(), "{results:?}, {order:?}");
            assert_eq!((to_run, to_job), (run, Some(job)), "{results:?}, {order:?}");
            let origin = ["push, branch main: ", "push, tag v1: ", "push, branch v1: "][worst];
            assert!(title.starts_with(origin), "{title}");
            let (aggregate, _, to_run, _) = wanted(&lab, commit, "helios-ci").await;
            let red = rank(results[worst]) > 0;
            assert_eq!(aggregate != "success", red, "{results:?}: {aggregate}");
            if red {
                let of_run = |index: &usize| claimed[*index].0 == to_run;
                let led_to = (0..3).find(of_run).unwrap();
                assert!(
                    rank(results[led_to]) > 0,
                    "the aggregate leads to a green run: {results:?}"
                );
            }
        }
    }
}

async fn a_red_check_stays_red_until_its_own_run_is_mended(lab: Lab) {
    let branch = run_of(&lab, 1, "refs/heads/main").await;
    lab.play(JobResult::Failure).await;
    let tag = run_of(&lab, 1, "refs/tags/v1").await;
    let red = "push, branch main: ended in Failure";
    assert_eq!(lab.says(1, BUILD).await.unwrap(), format!("failure: {red}"));
    lab.play(JobResult::Success).await;
    assert_eq!(lab.says(1, BUILD).await.unwrap(), format!("failure: {red}"));
    assert_eq!(
        wanted(&lab, 1, "helios-ci").await.2,
        branch,
        "it leads to the worst run"
    );
    let number = "SELECT generation AS n FROM reports WHERE name = 'helios-ci / ci / build'";
    assert_eq!(lab.number(number).await, 1);
    lab.store.rerun(branch, Rerun::All, "ann").await.unwrap();
    assert!(lab.says(1, BUILD).await.unwrap().starts_with("queued: "));
    assert_eq!(lab.number(number).await, 2, "what was final goes on as a new check run");
    lab.play(JobResult::Success).await;
    assert_eq!(
        lab.says(1, BUILD).await.unwrap(),
        "success: push, tag v1: ended in Success",
        "of equals the newest run's"
    );
    assert_eq!(wanted(&lab, 1, BUILD).await.2, tag);
}

async fn the_same_push_again_measures_the_same_thing_again(lab: Lab) {
    let _first = run_of(&lab, 1, "refs/heads/main").await;
    let slow = lab.claim().await.unwrap();
    let second = run_of(&lab, 1, "refs/heads/main").await;
    lab.end(&slow, JobResult::Failure).await;
    assert_eq!(lab.says(1, BUILD).await.unwrap(), "queued: Queued");
    lab.play(JobResult::Success).await;
    assert_eq!(lab.says(1, BUILD).await.unwrap(), "success: ended in Success");
    let (state, title, run, _) = wanted(&lab, 1, "helios-ci").await;
    assert_eq!(
        (state.as_str(), title.as_str(), run),
        ("success", "1 job succeeded", second)
    );
}

const MAIN: &str = "refs/heads/main";

fn too_large(commit: u8) -> TriggerOutcome {
    TriggerOutcome::Failed {
        reason: "the repository is too large".into(),
        commit: Some(sha(commit)),
        retry: Retry::OnRequest,
    }
}

async fn a_push_that_could_not_be_planned_stays_red_until_it_comes_again(lab: Lab) {
    let says = async || lab.says(1, "helios-ci").await.unwrap();
    pushed(&lab, 1, MAIN, too_large(1)).await;
    assert_eq!(says().await, "error: the repository is too large");
    // Another ref's run at the same commit does not hide it, neither while it runs nor when it went well.
    let tag = run_of(&lab, 1, "refs/tags/v1").await;
    assert_eq!(
        says().await,
        "queued: branch main: the repository is too large; 1 job queued"
    );
    lab.play(JobResult::Success).await;
    assert_eq!(says().await, "error: branch main: the repository is too large");
    // Nor does a push of another commit, or the same failure once more.
    pushed(&lab, 2, MAIN, one_run(2)).await;
    lab.play(JobResult::Success).await;
    pushed(&lab, 1, MAIN, too_large(1)).await;
    assert_eq!(says().await, "error: branch main: the repository is too large");
    // The same push again, which can be planned now, is what the commit says from here on.
    let run = run_of(&lab, 1, MAIN).await;
    lab.play(JobResult::Success).await;
    let (state, title, to_run, _) = wanted(&lab, 1, "helios-ci").await;
    assert_eq!((state.as_str(), title.as_str()), ("success", "2 jobs succeeded"));
    assert!(to_run == run && run != tag, "it leads to a run again");
}

async fn a_push_that_is_ignored_in_the_end_takes_its_red_back(lab: Lab) {
    let ignored = || TriggerOutcome::Ignored {
        reason: "no workflow wants it".into(),
        commit: None,
        retry: Retry::Never,
    };
    let says = async |commit| lab.says(commit, "helios-ci").await;
    pushed(&lab, 1, MAIN, too_large(1)).await;
    pushed(&lab, 2, MAIN, too_large(2)).await;
    pushed(&lab, 1, MAIN, ignored()).await;
    assert_eq!(
        says(1).await.unwrap(),
        "skipped: Nothing to run: no workflow wants it",
        "it is neither red nor green"
    );
    assert_eq!(says(2).await.unwrap(), "error: the repository is too large");
    pushed(&lab, 3, MAIN, ignored()).await;
    assert_eq!(says(3).await, None, "what never was red needs no word");
    // With a run of another ref the commit says what that one does.
    run_of(&lab, 2, "refs/tags/v1").await;
    lab.play(JobResult::Success).await;
    pushed(&lab, 2, MAIN, ignored()).await;
    assert_eq!(says(2).await.unwrap(), "success: 1 job succeeded");
}
