//! The checkpoint of version 1, in which the state machine sequenced the steps itself. It is read by conversion, so that
//! no job is lost when a daemon is upgraded; nothing writes it any more. `survivors` and the phase that clears came
//! while the version stayed the same, so both may be absent.

use serde::Deserialize;

use super::{CHECKPOINT_VERSION, Cancelled, Phase, Running, StepState, Stop};
use crate::driver::interpreter::{Current, Interpreter, Step};

/// [`super::Progress`] as version 1 had it.
#[derive(Debug, Deserialize)]
pub struct Progress {
    phase: Phase,
    steps: Vec<Record>,
    running: Option<Command>,
    next_exec: u64,
    job_ms: u64,
    silent_ms: u64,
    cancelled: Option<Cancelled>,
    #[serde(default)]
    survivors: bool,
}

#[derive(Debug, Deserialize)]
struct Record {
    state: StepState,
    exit_code: Option<i32>,
    message: Option<String>,
    started_ms: Option<i64>,
    ended_ms: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct Command {
    exec: u64,
    step: usize,
    part: usize,
    step_ms: u64,
    idle_ms: u64,
    stop: Option<Stop>,
}

impl From<Progress> for super::Progress {
    fn from(old: Progress) -> Self {
        let steps = old.steps.into_iter().map(|step| Step {
            state: step.state,
            exit_code: step.exit_code,
            message: step.message,
            started_ms: step.started_ms,
            ended_ms: step.ended_ms,
            post_of: None,
        });
        let current = old.running.as_ref().map(|command| Current {
            step: command.step,
            part: command.part,
        });
        let cancelled = old.cancelled.as_ref().map(Cancelled::message);
        Self {
            version: CHECKPOINT_VERSION,
            phase: old.phase,
            interpreter: Interpreter::resumed(steps.collect(), current, cancelled),
            running: old.running.map(|command| Running {
                exec: command.exec,
                step_ms: command.step_ms,
                idle_ms: command.idle_ms,
                stop: command.stop,
            }),
            next_exec: old.next_exec,
            job_ms: old.job_ms,
            silent_ms: old.silent_ms,
            cancelled: old.cancelled,
            survivors: old.survivors,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        driver::{
            actions::Checkout,
            job::testing::{job, run, step},
            progress::{Effect, End, Event, Exit, Progress as Now},
        },
        model::state::JobResult,
    };

    fn read(text: &str) -> Now {
        serde_json::from_str::<Progress>(text).unwrap().into()
    }

    /// As version 1 wrote it in the third command of a checkout; never to be changed.
    const STEPPING: &str = r#"{"version":1,"phase":"stepping","steps":[
        {"state":"success","exit_code":0,"message":null,"started_ms":1,"ended_ms":2},
        {"state":"running","exit_code":null,"message":null,"started_ms":3,"ended_ms":null},
        {"state":"pending","exit_code":null,"message":null,"started_ms":null,"ended_ms":null}],
        "running":{"exec":4,"step":1,"part":2,"step_ms":70,"idle_ms":60,"stop":null},
        "next_exec":5,"job_ms":900,"silent_ms":8,"cancelled":null,"survivors":true}"#;

    #[test]
    fn a_frozen_checkpoint_of_version_1_goes_on_where_it_was() {
        let checkout = std::sync::Arc::new(Checkout::new(&[]).unwrap());
        let job = job(vec![step("a", run("a")), step("b", checkout), step("c", run("c"))]);
        let mut progress = read(STEPPING);
        assert_eq!(
            (progress.version, &progress.phase),
            (CHECKPOINT_VERSION, &Phase::Stepping)
        );
        assert_eq!(progress.step_of(4), Some(1));
        let crate::driver::actions::Command::Exec(exec) = progress.interpreter.command(&job).unwrap();
        assert_eq!(exec.argv, ["git", "-C", ".", "clean", "-ffdxq"]);
        let exited = |exec, code| Event::Exited {
            exec,
            how: Exit::Code(code),
            survivors: false,
        };
        assert_eq!(progress.on(&job, exited(4, 0), 9), [Effect::Checkpoint, Effect::Send]);
        assert_eq!(progress.step_of(5), Some(1));
        let effects = progress.on(&job, exited(5, 128), 9);
        // What a step had left running is still ended.
        assert_eq!(effects[effects.len() - 2..], [Effect::Checkpoint, Effect::SendClear]);
        let states: Vec<StepState> = progress.interpreter.steps().iter().map(|step| step.state).collect();
        assert_eq!(states, [StepState::Success, StepState::Failure, StepState::Skipped]);
    }

    #[test]
    fn a_stop_a_cancel_and_an_end_of_version_1_stay_what_they_were() {
        let job = job(vec![step("a", run("a")), step("b", run("b")), step("c", run("c"))]);
        let stopping = STEPPING
            .replace("\"part\":2", "\"part\":0")
            .replace(
                "\"stop\":null",
                r#""stop":{"why":"cancelled","signal":5,"kill":false,"since_ms":10}"#,
            )
            .replace("\"next_exec\":5", "\"next_exec\":6")
            .replace(
                "\"cancelled\":null",
                r#""cancelled":{"by":"ada","reason":"","since_ms":10}"#,
            )
            .replace(",\"survivors\":true", "");
        let mut progress = read(&stopping);
        let exited = Event::Exited {
            exec: 4,
            how: Exit::Signal(2),
            survivors: false,
        };
        progress.on(&job, exited, 9);
        let cancelled = End::Result {
            result: JobResult::Cancelled,
            message: "cancelled by ada".into(),
        };
        assert_eq!(progress.phase, Phase::Ended(cancelled));

        let clearing = r#"{"clearing":{"end":{"result":{"result":"failure","message":"m"}},"exec":5,"since_ms":7}}"#;
        let text = STEPPING.replace("\"stepping\"", clearing);
        let failure = End::Result {
            result: JobResult::Failure,
            message: "m".into(),
        };
        assert_eq!(read(&text).decided(), Some(&failure));
        let text = STEPPING.replace("\"stepping\"", r#"{"ended":{"infra":{"cause":"c"}}}"#);
        assert_eq!(read(&text).phase, Phase::Ended(End::Infra { cause: "c".into() }));
    }
}
