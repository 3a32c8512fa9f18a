use std::sync::Arc;

use proptest::prelude::*;

use super::{
    ending::CLEARING_MS,
    stop::{CANCEL_LIMIT_MS, KILL_LIMIT_MS},
    *,
};
use crate::driver::{
    actions::{Action, Checkout, testing},
    job::{
        JobStep,
        testing::{job, run, step},
    },
};
use crate::model::plan::Condition;

fn checkout() -> Arc<dyn Action> {
    Arc::new(Checkout::new(&[]).unwrap())
}

fn start(job: &Job) -> (Progress, Vec<Effect>) {
    let mut progress = Progress::new(job);
    let effects = progress.on(job, Event::AgentReady, 1);
    (progress, effects)
}

fn exit(progress: &mut Progress, job: &Job, code: i32) -> Vec<Effect> {
    exit_leaving(progress, job, code, false)
}

fn exit_leaving(progress: &mut Progress, job: &Job, code: i32, survivors: bool) -> Vec<Effect> {
    let exec = progress.running.as_ref().unwrap().exec;
    let how = Exit::Code(code);
    progress.on(job, Event::Exited { exec, how, survivors }, 2)
}

fn wait(progress: &mut Progress, job: &Job, ms: u64) -> Vec<Effect> {
    progress.on(job, Event::Elapsed { ms, connected: true }, 3)
}

fn result(progress: &Progress) -> Option<(JobResult, &str)> {
    match &progress.phase {
        Phase::Ended(End::Result { result, message }) => Some((*result, message)),
        _ => None,
    }
}

#[test]
fn steps_run_one_after_the_other_and_each_is_checkpointed_before_it_is_sent() {
    let job = job(vec![step("a", run("true")), step("b", run("true"))]);
    let (mut progress, effects) = start(&job);
    assert_eq!(
        effects,
        [Effect::Running, Effect::StoreStep(0), Effect::Checkpoint, Effect::Send]
    );
    let effects = exit(&mut progress, &job, 0);
    assert_eq!(
        effects,
        [
            Effect::EndStepLog(0),
            Effect::StoreStep(0),
            Effect::StoreStep(1),
            Effect::Checkpoint,
            Effect::Send
        ]
    );
    let effects = exit(&mut progress, &job, 0);
    assert_eq!(
        effects,
        [
            Effect::EndStepLog(1),
            Effect::StoreStep(1),
            Effect::Checkpoint,
            Effect::End
        ]
    );
    assert_eq!(result(&progress), Some((JobResult::Success, "all steps succeeded")));
}

#[test]
fn a_failed_step_ends_the_job_and_skips_the_rest() {
    let job = job(vec![step("a", run("false")), step("b", run("true"))]);
    let (mut progress, _) = start(&job);
    exit(&mut progress, &job, 3);
    assert_eq!(result(&progress), Some((JobResult::Failure, "step 1 “a”: exit code 3")));
    assert_eq!(progress.interpreter.steps()[1].state, StepState::Skipped);
}

#[test]
fn continue_on_error_shows_the_failure_and_goes_on() {
    let mut first = step("a", run("false"));
    first.continue_on_error = true;
    let job = job(vec![first, step("b", run("true"))]);
    let (mut progress, _) = start(&job);
    exit(&mut progress, &job, 1);
    assert_eq!(progress.interpreter.steps()[0].state, StepState::Failure);
    exit(&mut progress, &job, 0);
    let allowed = "1 of 2 steps succeeded; continue-on-error allows step 1 “a”: exit code 1";
    assert_eq!(result(&progress), Some((JobResult::Success, allowed)));
}

#[test]
fn a_checkout_runs_its_commands_in_turn_and_any_failure_fails_the_step() {
    let job = job(vec![step("c", checkout())]);
    let commands = testing::execs(&job, 0).len();
    assert!(commands > 1);
    for failing in 0..commands {
        let (mut progress, _) = start(&job);
        for _ in 0..failing {
            assert_eq!(exit(&mut progress, &job, 0), [Effect::Checkpoint, Effect::Send]);
        }
        exit(&mut progress, &job, 128);
        assert_eq!(result(&progress).unwrap().0, JobResult::Failure);
    }
}

proptest! {
    /// Whichever steps fail where that is allowed: the job's words say "all" exactly when all succeeded,
    /// else name each one that did not.
    #[test]
    fn a_job_that_succeeded_names_what_did_not(codes in proptest::collection::vec(0_i32..2, 1..6)) {
        let steps = codes.iter().enumerate().map(|(index, _)| {
            let mut step = step(&format!("s{index}"), run("x"));
            step.continue_on_error = true;
            step
        });
        let job = job(steps.collect());
        let (mut progress, _) = start(&job);
        for code in &codes {
            exit(&mut progress, &job, *code);
        }
        let (how, words) = result(&progress).unwrap();
        prop_assert_eq!(how, JobResult::Success);
        prop_assert_eq!(words == "all steps succeeded", codes.iter().all(|code| *code == 0));
        for (index, code) in codes.iter().enumerate() {
            prop_assert_eq!(words.contains(&format!("step {} “s{index}”: exit code 1", index + 1)), *code == 1, "{}", words);
        }
    }
}

#[test]
fn what_a_step_wrote_last_stands_before_what_is_said_of_it() {
    let job = job(vec![step("a", run("false"))]);
    let (mut progress, _) = start(&job);
    let effects = exit(&mut progress, &job, 1);
    let at = |wanted: &dyn Fn(&Effect) -> bool| effects.iter().position(wanted).unwrap();
    assert!(at(&|e| *e == Effect::EndStepLog(0)) < at(&|e| matches!(e, Effect::Log(0, _))));
}

#[test]
fn job_step_and_idle_limits_say_different_things() {
    let mut limited = step("a", run("sleep 9999"));
    limited.limit_ms = Some(5 * 60_000);
    let job = job(vec![limited]);
    let cases = [(
        5,
        JobResult::Failure,
        "step 1 “a”: the step ran longer than its 5 minutes (timeout-minutes)",
    )];
    for (minutes, wanted, words) in cases {
        let (mut progress, _) = start(&job);
        assert_eq!(progress.next_limit_ms(&job, true), 5 * 60_000);
        assert_eq!(
            wait(&mut progress, &job, minutes * 60_000),
            [Effect::Checkpoint, Effect::SendStop]
        );
        exit(&mut progress, &job, 0);
        assert_eq!(result(&progress), Some((wanted, words)));
        assert_eq!(progress.interpreter.steps()[0].state, StepState::TimedOut);
    }
    let mut quiet = job.clone();
    quiet.steps[0].limit_ms = None;
    let (mut progress, _) = start(&quiet);
    wait(&mut progress, &quiet, 10 * 60_000);
    exit(&mut progress, &quiet, 130);
    let (how, words) = result(&progress).unwrap();
    assert_eq!(
        (how, words.contains("wrote nothing for 10 minutes")),
        (JobResult::TimedOut, true),
        "{words}"
    );

    let (mut progress, _) = start(&quiet);
    for _ in 0..4 {
        wait(&mut progress, &quiet, 9 * 60_000);
        let exec = progress.running.as_ref().unwrap().exec;
        progress.on(&quiet, Event::Output { exec }, 3);
    }
    exit(&mut progress, &quiet, 130);
    let (how, words) = result(&progress).unwrap();
    assert_eq!(
        (how, words.contains("the job ran longer than its 30 minutes")),
        (JobResult::TimedOut, true),
        "{words}"
    );
}

#[test]
fn a_stop_that_is_ignored_becomes_a_kill_and_then_the_end() {
    let job = job(vec![step("a", run("trap '' INT TERM; sleep 9999"))]);
    let (mut progress, _) = start(&job);
    let cancel = Event::Cancel {
        by: "ada".into(),
        reason: String::new(),
        force: false,
    };
    assert_eq!(progress.on(&job, cancel, 3), [Effect::Checkpoint, Effect::SendStop]);
    assert_eq!(
        wait(&mut progress, &job, CANCEL_LIMIT_MS),
        [Effect::Checkpoint, Effect::SendStop]
    );
    assert!(progress.running.as_ref().unwrap().stop.as_ref().unwrap().kill);
    let effects = wait(&mut progress, &job, KILL_LIMIT_MS);
    assert_eq!(effects.last(), Some(&Effect::End));
    assert_eq!(result(&progress), Some((JobResult::Cancelled, "cancelled by ada")));
    // Everybody reads it: neither a user's number nor a token's id is in it.
    let by_a_token = Cancelled {
        by: "uid 1000 (token 01k9zk6x0f5t3b8w2q7m4d1c0e)".into(),
        reason: String::new(),
        since_ms: 0,
    };
    assert_eq!(by_a_token.message(), "cancelled by the command line");
}

#[test]
fn a_second_cancel_kills_at_once_and_a_cancel_before_any_step_ends_at_once() {
    let job = job(vec![step("a", run("sleep 9999"))]);
    let cancel = |force| Event::Cancel {
        by: "ada".into(),
        reason: "wrong branch".into(),
        force,
    };
    let (mut progress, _) = start(&job);
    progress.on(&job, cancel(false), 3);
    assert_eq!(
        progress.on(&job, cancel(true), 3),
        [Effect::Checkpoint, Effect::SendStop]
    );
    assert!(progress.running.as_ref().unwrap().stop.as_ref().unwrap().kill);

    let mut booting = Progress::new(&job);
    assert_eq!(booting.on(&job, cancel(false), 3).last(), Some(&Effect::End));
    assert_eq!(
        result(&booting),
        Some((JobResult::Cancelled, "cancelled by ada: wrong branch"))
    );
}

fn condition(name: &str, condition: Condition) -> JobStep {
    JobStep {
        condition,
        ..step(name, run(name))
    }
}

fn cancel(force: bool) -> Event {
    Event::Cancel {
        by: "ada".into(),
        reason: String::new(),
        force,
    }
}

fn states(progress: &Progress) -> Vec<&'static str> {
    progress
        .interpreter
        .steps()
        .iter()
        .map(|step| step.state.as_str())
        .collect()
}

#[test]
fn a_cancel_leaves_what_always_keeps_its_grace_and_a_second_one_leaves_nothing() {
    let steps = || {
        vec![
            step("a", run("a")),
            condition("b", Condition::Always),
            condition("c", Condition::Always),
        ]
    };
    let job = job(steps());
    // The step that runs is stopped, and those that `always()` keeps run.
    let (mut progress, _) = start(&job);
    assert_eq!(
        progress.on(&job, cancel(false), 3),
        [Effect::Checkpoint, Effect::SendStop]
    );
    assert_eq!(exit(&mut progress, &job, 130).last(), Some(&Effect::Send));
    // They are not stopped by the same cancel when it is read again.
    assert_eq!(progress.on(&job, cancel(false), 3), []);
    exit(&mut progress, &job, 0);
    exit(&mut progress, &job, 0);
    assert_eq!(states(&progress), ["cancelled", "success", "success"]);
    assert_eq!(result(&progress), Some((JobResult::Cancelled, "cancelled by ada")));

    // The grace is for all of them together.
    let (mut progress, _) = start(&job);
    progress.on(&job, cancel(false), 3);
    exit(&mut progress, &job, 130);
    assert_eq!(progress.next_limit_ms(&job, true), job.limits.cancel_ms);
    let effects = wait(&mut progress, &job, job.limits.cancel_ms);
    assert_eq!(effects, [Effect::Checkpoint, Effect::SendStop]);
    assert!(progress.running.as_ref().unwrap().stop.as_ref().unwrap().kill);
    exit(&mut progress, &job, 137);
    assert_eq!(states(&progress), ["cancelled", "cancelled", "skipped"]);

    let (mut progress, _) = start(&job);
    progress.on(&job, cancel(true), 3);
    exit(&mut progress, &job, 137);
    assert_eq!(states(&progress), ["cancelled", "skipped", "skipped"]);
}

#[test]
fn when_the_jobs_time_is_over_what_always_keeps_has_the_same_grace() {
    let job = job(vec![
        step("a", run("a")),
        condition("b", Condition::Always),
        step("c", run("c")),
    ]);
    let (mut progress, _) = start(&job);
    for _ in 0..3 {
        wait(&mut progress, &job, 9 * 60_000);
        let exec = progress.running.as_ref().unwrap().exec;
        progress.on(&job, Event::Output { exec }, 3);
    }
    assert_eq!(
        wait(&mut progress, &job, 3 * 60_000),
        [Effect::Checkpoint, Effect::SendStop]
    );
    // What is over already wakes nobody.
    assert_eq!(progress.next_limit_ms(&job, true), CANCEL_LIMIT_MS);
    exit(&mut progress, &job, 130);
    assert_eq!(progress.next_limit_ms(&job, true), job.limits.cancel_ms);
    exit(&mut progress, &job, 0);
    assert_eq!(states(&progress), ["timed_out", "success", "skipped"]);
    let (how, words) = result(&progress).unwrap();
    assert_eq!(how, JobResult::TimedOut);
    assert!(words.contains("the job ran longer than its 30 minutes"), "{words}");
}

#[test]
fn a_job_that_has_failed_is_not_tried_again_for_a_machine_that_was_lost_later() {
    let job = job(vec![step("a", run("a")), condition("b", Condition::Failure)]);
    let (mut progress, _) = start(&job);
    exit(&mut progress, &job, 3);
    progress.on(
        &job,
        Event::Lost {
            cause: "QEMU ended".into(),
        },
        3,
    );
    assert_eq!(result(&progress), Some((JobResult::Failure, "step 1 “a”: exit code 3")));
    assert_eq!(states(&progress), ["failure", "failure"]);
}

#[test]
fn a_lost_machine_is_ours_unless_the_job_was_being_cancelled() {
    let job = job(vec![step("a", run("true"))]);
    let (mut progress, _) = start(&job);
    progress.on(
        &job,
        Event::Lost {
            cause: "QEMU ended".into(),
        },
        3,
    );
    assert_eq!(
        progress.phase,
        Phase::Ended(End::Infra {
            cause: "QEMU ended".into()
        })
    );

    let (mut progress, _) = start(&job);
    progress.on(
        &job,
        Event::Cancel {
            by: "ada".into(),
            reason: String::new(),
            force: false,
        },
        3,
    );
    progress.on(
        &job,
        Event::Lost {
            cause: "QEMU ended".into(),
        },
        3,
    );
    assert_eq!(result(&progress).unwrap().0, JobResult::Cancelled);
}

fn clearing(job: &Job) -> (Progress, u64) {
    let (mut progress, _) = start(job);
    exit_leaving(&mut progress, job, 0, true);
    assert_eq!(progress.phase, Phase::Stepping);
    let effects = exit(&mut progress, job, 3);
    assert_eq!(effects[effects.len() - 2..], [Effect::Checkpoint, Effect::SendClear]);
    let Phase::Clearing { exec, .. } = progress.phase else {
        panic!("{progress:?}")
    };
    (progress, exec)
}

#[test]
fn what_steps_left_running_is_ended_after_the_last_and_changes_no_result() {
    let job = job(vec![step("a", run("serve &")), step("b", run("false"))]);
    let ended = Some((JobResult::Failure, "step 2 “b”: exit code 3"));
    let cancel = |force| Event::Cancel {
        by: "ada".into(),
        reason: String::new(),
        force,
    };
    let (_, exec) = clearing(&job);
    for over in [
        Event::Cleared { exec },
        // An agent that does not know the command.
        Event::Refused {
            exec,
            message: "what?".into(),
        },
        Event::Elapsed {
            ms: CLEARING_MS,
            connected: false,
        },
        Event::Lost { cause: "gone".into() },
        Event::AgentKilled { how: "killed".into() },
        cancel(true),
    ] {
        let (mut progress, _) = clearing(&job);
        for meanwhile in [Event::Connected, cancel(false), Event::Cleared { exec: exec + 1 }] {
            assert_eq!(progress.on(&job, meanwhile, 4), []);
        }
        assert_eq!(progress.next_limit_ms(&job, true), CLEARING_MS);
        assert_eq!(progress.on(&job, over, 4), [Effect::Checkpoint, Effect::End]);
        assert_eq!(result(&progress), ended);
    }
}

#[test]
fn an_agent_that_is_killed_in_mid_step_is_the_jobs_failure_and_otherwise_ours() {
    let mut tolerant = step("a", run("kill -9 -1"));
    tolerant.continue_on_error = true;
    tolerant.limit_ms = Some(5 * 60_000);
    let job = job(vec![tolerant, step("b", run("true"))]);
    let killed = || Event::AgentKilled { how: "killed".into() };
    let (mut progress, _) = start(&job);
    progress.on(&job, killed(), 3);
    assert_eq!(result(&progress), Some((JobResult::Failure, "step 1 “a”: killed")));
    assert_eq!(
        (
            progress.interpreter.steps()[0].state,
            progress.interpreter.steps()[1].state
        ),
        (StepState::Failure, StepState::Skipped)
    );
    // A step that was to end anyway ends for that reason.
    let (mut progress, _) = start(&job);
    wait(&mut progress, &job, 5 * 60_000);
    progress.on(&job, killed(), 3);
    assert!(result(&progress).unwrap().1.contains("ran longer than its 5 minutes"));
    let mut booting = Progress::new(&job);
    booting.on(&job, killed(), 3);
    assert_eq!(booting.phase, Phase::Ended(End::Infra { cause: "killed".into() }));
}

#[test]
fn silence_is_judged_only_while_disconnected() {
    let job = job(vec![step("a", run("true"))]);
    let (mut progress, _) = start(&job);
    wait(&mut progress, &job, 5 * 60_000);
    assert_eq!(progress.phase, Phase::Stepping);
    let silent = |ms| Event::Elapsed { ms, connected: false };
    progress.on(&job, silent(119_000), 3);
    progress.on(&job, Event::Connected, 3);
    progress.on(&job, silent(119_000), 3);
    assert_eq!(progress.phase, Phase::Stepping);
    progress.on(&job, silent(1_000), 3);
    assert!(matches!(progress.phase, Phase::Ended(End::Infra { .. })));
}

#[test]
fn a_machine_that_never_says_hello_is_given_up() {
    let job = job(vec![step("a", run("true"))]);
    let mut progress = Progress::new(&job);
    assert_eq!(progress.next_limit_ms(&job, false), 120_000);
    progress.on(
        &job,
        Event::Elapsed {
            ms: 120_000,
            connected: false,
        },
        3,
    );
    assert_eq!(
        progress.phase,
        Phase::Ended(End::Infra {
            cause: "the machine's agent did not say hello within 120 s".into()
        })
    );
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(Event::AgentReady),
        Just(Event::Connected),
        (1..9u64).prop_map(|exec| Event::Output { exec }),
        (1..9u64, -1..3i32, any::<bool>()).prop_map(|(exec, code, survivors)| Event::Exited {
            exec,
            how: if code < 0 { Exit::Signal(9) } else { Exit::Code(code) },
            survivors
        }),
        (1..9u64).prop_map(|exec| Event::Cleared { exec }),
        Just(Event::AgentKilled { how: "k".into() }),
        (1..9u64).prop_map(|exec| Event::Refused {
            exec,
            message: "no".into()
        }),
        (0..2_000_000u64, any::<bool>()).prop_map(|(ms, connected)| Event::Elapsed { ms, connected }),
        any::<bool>().prop_map(|force| Event::Cancel {
            by: "p".into(),
            reason: String::new(),
            force
        }),
        Just(Event::Lost { cause: "x".into() }),
    ]
}

proptest! {
    /// Whatever happens in whatever order: exactly one end, which is the one that was decided first, every step's state
    /// moves legally, a checkpoint precedes every command, and nothing happens after the end. Going on from a
    /// checkpoint that went through JSON is the same as going on without.
    #[test]
    fn the_machine_is_sound(events in proptest::collection::vec(events(), 0..60)) {
        let mut tolerant = step("b", checkout());
        tolerant.continue_on_error = true;
        let job = job(vec![step("a", run("x")), tolerant, step("c", run("x")), condition("d", Condition::Always)]);
        let mut progress = Progress::new(&job);
        let mut ends = 0;
        for event in events {
            let before = progress.clone();
            let restored: Progress = serde_json::from_str(&serde_json::to_string(&progress).unwrap()).unwrap();
            prop_assert_eq!(&restored, &progress);
            let effects = progress.on(&job, event, 5);
            if matches!(before.phase, Phase::Ended(_)) {
                prop_assert!(effects.is_empty() && before == progress);
            }
            if let Some(decided) = before.decided() {
                prop_assert_eq!(progress.decided(), Some(decided));
            }
            for (old, new) in before.interpreter.steps().iter().zip(progress.interpreter.steps()) {
                prop_assert!(old.state == new.state || old.state.next().contains(&new.state), "{:?} -> {:?}", old.state, new.state);
            }
            for (index, effect) in effects.iter().enumerate() {
                if matches!(effect, Effect::Send | Effect::SendStop | Effect::SendClear | Effect::End) {
                    prop_assert_eq!(&effects[index - 1], &Effect::Checkpoint);
                }
            }
            ends += effects.iter().filter(|e| **e == Effect::End).count();
            prop_assert_eq!(ends, usize::from(matches!(progress.phase, Phase::Ended(_))));
            if progress.decided().is_some() {
                prop_assert!(progress.interpreter.steps().iter().all(|s| s.state.is_terminal()));
            }
        }
    }
}
