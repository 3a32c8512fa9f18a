use std::sync::Arc;

use helios_proto::v1;
use proptest::prelude::*;

use super::*;
use crate::{
    driver::{
        actions::{Action, Scope},
        job::testing::{job, step},
    },
    model::plan::Condition,
};

/// An action of so many commands, each of which names itself.
#[derive(Debug)]
struct Parts {
    main: usize,
    post: usize,
}

fn named(kind: &str, part: usize) -> Command {
    Command::Exec(v1::Exec {
        argv: vec![kind.to_owned(), part.to_string()],
        ..v1::Exec::default()
    })
}

impl Action for Parts {
    fn main(&self, part: usize, _: &Scope<'_>) -> Option<Command> {
        (part < self.main).then(|| named("main", part))
    }

    fn post(&self, part: usize, _: &Scope<'_>) -> Option<Command> {
        (part < self.post).then(|| named("post", part))
    }
}

fn planned(condition: Condition, main: usize, post: usize, continue_on_error: bool) -> JobStep {
    JobStep {
        condition,
        continue_on_error,
        ..step("s", Arc::new(Parts { main, post }))
    }
}

/// How a command ends, or what comes first.
#[derive(Debug, Clone, Copy)]
enum Answer {
    Done,
    Fails,
    Idles,
    IsCancelled,
    IsCancelledAndClosed,
}

fn failure(state: StepState, job: Option<(JobResult, Status)>) -> Event {
    Event::Failed(Failure {
        state,
        exit_code: None,
        message: "m".into(),
        job,
    })
}

/// What a job came to.
struct Played {
    interpreter: Interpreter,
    /// Record and command, in the order in which they were given out.
    commands: Vec<(usize, Command)>,
    result: JobResult,
    message: String,
    closed: bool,
    cancelled: bool,
}

/// Plays a job to its end as the driver would, restoring the interpreter from its text at every border.
fn play(job: &Job, answers: &[Answer]) -> Played {
    let (mut interpreter, mut commands) = (Interpreter::new(job), Vec::new());
    let (mut closed, mut cancelled) = (false, false);
    let mut answers = answers.iter().copied();
    let mut event = Event::Begin;
    let most: usize = job.steps.len() * 6 + 1;
    for _ in 0..=most {
        let mut outputs = interpreter.on(job, event, 5);
        let last = outputs
            .pop()
            .expect("an event about a command leads to the next, or to the end");
        let early = |output: &Output| matches!(output, Output::Command(_) | Output::Finished { .. });
        assert!(!outputs.iter().any(early), "{outputs:?}");
        let command = match last {
            Output::Command(command) => command,
            Output::Finished { result, message } => {
                return Played {
                    interpreter,
                    commands,
                    result,
                    message,
                    closed,
                    cancelled,
                };
            }
            other => panic!("{other:?}"),
        };
        let restored: Interpreter = serde_json::from_str(&serde_json::to_string(&interpreter).unwrap()).unwrap();
        assert_eq!(restored, interpreter);
        assert_eq!(restored.command(job), Some(command.clone()));
        interpreter = restored;
        commands.push((interpreter.current().unwrap().step, command));
        event = match answers.next().unwrap_or(Answer::Done) {
            Answer::Done => Event::Done,
            Answer::Fails => failure(StepState::Failure, None),
            Answer::Idles => failure(StepState::TimedOut, Some((JobResult::TimedOut, Status::Failure))),
            answer => {
                cancelled = true;
                let message = "cancelled by ada".to_owned();
                assert_eq!(interpreter.on(job, Event::Cancel { message }, 5), []);
                if let Answer::IsCancelledAndClosed = answer {
                    closed = true;
                    assert_eq!(interpreter.on(job, Event::Close, 5), []);
                }
                match interpreter.goes_on_when_cancelled(job) && !closed {
                    true => Event::Done,
                    false => failure(StepState::Cancelled, Some((JobResult::Cancelled, Status::Cancelled))),
                }
            }
        };
    }
    panic!("more than {most} commands: {commands:?}")
}

fn states(played: &Played) -> Vec<StepState> {
    played.interpreter.steps().iter().map(|step| step.state).collect()
}

#[test]
fn conditions_decide_which_steps_run() {
    use StepState::{Cancelled, Failure, Skipped, Success};

    let conditions = [
        Condition::Success,
        Condition::Failure,
        Condition::Cancelled,
        Condition::Always,
    ];
    let first = planned(Condition::Success, 1, 0, false);
    let rest = conditions.map(|condition| planned(condition, 1, 0, false));
    let job = job([vec![first], rest.to_vec()].concat());
    for (answer, expected, result, message) in [
        (
            Answer::Done,
            [Success, Success, Skipped, Skipped, Success],
            JobResult::Success,
            "all steps succeeded",
        ),
        (
            Answer::Fails,
            [Failure, Skipped, Success, Skipped, Success],
            JobResult::Failure,
            "step 1 “s”: m",
        ),
        (
            Answer::IsCancelled,
            [Cancelled, Skipped, Skipped, Success, Success],
            JobResult::Cancelled,
            "cancelled by ada",
        ),
        (
            Answer::IsCancelledAndClosed,
            [Cancelled, Skipped, Skipped, Skipped, Skipped],
            JobResult::Cancelled,
            "cancelled by ada",
        ),
    ] {
        let played = play(&job, &[answer]);
        assert_eq!(states(&played), expected, "{answer:?}");
        assert_eq!((played.result, played.message.as_str()), (result, message));
    }
}

/// What went wrong first is the result, whichever of the two it was.
#[test]
fn a_cancel_wins_over_later_failures_and_loses_to_earlier_ones() {
    let always = || planned(Condition::Always, 1, 0, false);
    let job = job(vec![always(), always()]);
    let cancel = || Event::Cancel {
        message: "cancelled by ada".to_owned(),
    };
    let fails = || failure(StepState::Failure, None);
    for (events, result) in [
        ([cancel(), fails(), Event::Done], JobResult::Cancelled),
        ([fails(), cancel(), Event::Done], JobResult::Failure),
    ] {
        let mut interpreter = Interpreter::new(&job);
        interpreter.on(&job, Event::Begin, 1);
        for event in events {
            interpreter.on(&job, event, 2);
        }
        assert_eq!(interpreter.verdict().map(|(result, _)| result), Some(result));
    }
}

#[test]
fn post_parts_have_records_and_names_of_their_own() {
    let job = job(vec![
        planned(Condition::Success, 1, 2, false),
        planned(Condition::Success, 2, 1, false),
    ]);
    let played = play(&job, &[Answer::Done, Answer::Done, Answer::Done, Answer::Fails]);
    let order: Vec<usize> = played.commands.iter().map(|(step, _)| *step).collect();
    assert_eq!(order, [0, 1, 1, 2, 3, 3]);
    let of: Vec<_> = played.interpreter.steps().iter().map(|step| step.post_of).collect();
    assert_eq!(of, [None, None, Some(1), Some(0)]);
    assert_eq!(played.interpreter.name(&job, 2), "Post s");
    assert_eq!(
        (played.result, played.message.as_str()),
        (JobResult::Failure, "step 2 “Post s”: m")
    );
}

#[test]
fn a_lost_machine_ends_what_runs_and_begins_nothing_more() {
    let job = job(vec![
        planned(Condition::Success, 1, 1, false),
        planned(Condition::Always, 1, 0, false),
    ]);
    let mut interpreter = Interpreter::new(&job);
    interpreter.on(&job, Event::Begin, 1);
    let outputs = interpreter.abandon(StepState::Failure, "gone", 2);
    assert_eq!(outputs, [Output::EndLog(0), Output::Record(0), Output::Record(1)]);
    assert_eq!(interpreter.steps()[0].message.as_deref(), Some("gone"));
    assert_eq!(
        (interpreter.steps()[1].state, interpreter.command(&job)),
        (StepState::Skipped, None)
    );
    assert_eq!(interpreter.abandon(StepState::Failure, "gone", 3), []);
}

fn steps() -> impl Strategy<Value = Vec<JobStep>> {
    let condition = prop_oneof![
        4 => Just(Condition::Success),
        1 => Just(Condition::Failure),
        1 => Just(Condition::Cancelled),
        2 => Just(Condition::Always),
    ];
    let step = (condition, 0..4_usize, 0..3_usize, any::<bool>());
    proptest::collection::vec(
        step.prop_map(|(c, main, post, tolerant)| planned(c, main, post, tolerant)),
        0..7,
    )
}

fn answers() -> impl Strategy<Value = Vec<Answer>> {
    let answer = prop_oneof![
        6 => Just(Answer::Done),
        3 => Just(Answer::Fails),
        1 => Just(Answer::Idles),
        1 => Just(Answer::IsCancelled),
        1 => Just(Answer::IsCancelledAndClosed),
    ];
    proptest::collection::vec(answer, 0..20)
}

proptest! {
    /// Whatever happens, every job ends with every record in a terminal state, and a daemon that takes over at any
    /// command makes the same one again.
    #[test]
    fn every_job_ends(steps in steps(), answers in answers()) {
        let job = job(steps);
        let played = play(&job, &answers);
        prop_assert!(played.interpreter.current().is_none());
        prop_assert!(states(&played).iter().all(|state| state.is_terminal()));
        let went_well = played.result == JobResult::Success;
        prop_assert_eq!(went_well, played.interpreter.verdict().is_none());
        prop_assert!(!(went_well && played.cancelled), "a cancelled job is no success");
    }

    /// The post parts of exactly those steps that ran come after all main parts, in reverse order.
    #[test]
    fn post_parts_run_in_reverse_order_after_their_main_parts(steps in steps(), answers in answers()) {
        let job = job(steps);
        let played = play(&job, &answers);
        let records = played.interpreter.steps();
        let (mains, posts) = records.split_at(job.steps.len());
        let ran = |at: &usize| mains[*at].state != StepState::Skipped && job.steps[*at].action.post(0, &job.scope(&job.steps[*at])).is_some();
        let wanted: Vec<usize> = (0..mains.len()).rev().filter(ran).collect();
        let found: Vec<usize> = posts.iter().map(|step| step.post_of.unwrap()).collect();
        match played.closed {
            true => prop_assert!(wanted.starts_with(&found), "{:?} of {:?}", found, wanted),
            false => prop_assert_eq!(found, wanted),
        }
        let order: Vec<usize> = played.commands.iter().map(|(step, _)| *step).collect();
        prop_assert!(order.is_sorted(), "{:?}", order);
    }

    /// What `always()` keeps runs through failures and cancels, until the job is closed; what `success()` keeps does not
    /// run after either.
    #[test]
    fn conditions_hold_through_failures_and_cancels(steps in steps(), answers in answers()) {
        let job = job(steps);
        let played = play(&job, &answers);
        let mut status = Status::Success;
        for (step, planned) in played.interpreter.steps().iter().zip(&job.steps) {
            if planned.condition == Condition::Always && !played.closed {
                prop_assert!(step.state != StepState::Skipped);
            }
            if planned.condition == Condition::Success && status != Status::Success {
                prop_assert_eq!(step.state, StepState::Skipped);
            }
            status = match step.state {
                StepState::Failure if !planned.continue_on_error => status.max(Status::Failure),
                StepState::TimedOut => status.max(Status::Failure),
                StepState::Cancelled => Status::Cancelled,
                _ => status,
            };
        }
    }
}
