//! The pure state machine of one attempt: what has happened, and what is to be done about it. It is
//! also the checkpoint: a daemon that dies goes on from the last one, and every effect may be
//! repeated.
//!
//! ```text
//! booting ──agent ready──▶ stepping ──last step ended──▶ clearing ──▶ ended
//!    │                        │ cancel, time limit: stop the command
//!    └──── machine lost, boot too long, agent silent too long ────▶ ended (infra)
//! ```
//!
//! Which command comes next is the interpreter's to say; phases and the end are here and in `ending`, time limits in
//! `clocks`, and how a command is stopped in `stop`. Only a job whose steps have left something running is cleared. Its
//! end is decided by then, and stays.

mod clocks;
mod ending;
mod event;
mod stop;
mod v1;

use serde::{Deserialize, Serialize};

pub use self::event::{Effect, Event, Exit};
use self::stop::{Cancelled, Stop, Why};
pub(super) use self::v1::Progress as ProgressV1;
use super::{
    interpreter::{self, Failure, Interpreter, Output},
    job::Job,
};
use crate::model::state::{JobResult, StepState};

/// The version of the checkpoint this daemon writes. It grows with every change of what a checkpoint holds; earlier ones
/// are read by conversion (`v1`).
pub const CHECKPOINT_VERSION: u32 = 2;

/// Where the attempt stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// [`CHECKPOINT_VERSION`] of the writer.
    pub version: u32,
    /// The phase.
    pub phase: Phase,
    /// Where the steps stand.
    pub interpreter: Interpreter,
    /// The command that runs, or was about to be sent: it is the interpreter's current one.
    pub running: Option<Running>,
    /// The next command's id.
    next_exec: u64,
    /// Time in this phase since the machine was started, of which the job's limit is judged.
    job_ms: u64,
    /// Time without a connection.
    silent_ms: u64,
    /// A person asked for the end.
    cancelled: Option<Cancelled>,
    /// Something that a step has left runs in the machine.
    survivors: bool,
}

/// See the module's diagram.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The machine was told to start.
    Booting,
    /// The agent has joined; steps run.
    Stepping,
    /// The end is decided, and what steps have left running is ended.
    Clearing {
        /// What the end will be.
        end: End,
        /// The command's id.
        exec: u64,
        /// Since it was sent.
        since_ms: u64,
    },
    /// Nothing more happens.
    Ended(End),
}

/// How the attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The user's code, a person or a limit decided.
    Result {
        /// How.
        result: JobResult,
        /// One line that says it.
        message: String,
    },
    /// We failed.
    Infra {
        /// One line that says how.
        cause: String,
    },
}

/// The command under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Its id.
    pub exec: u64,
    /// Since the step began.
    step_ms: u64,
    /// Since the last output.
    idle_ms: u64,
    /// Why it is being stopped, and since when.
    pub stop: Option<Stop>,
}

impl Progress {
    /// An attempt whose machine is about to be started.
    #[must_use]
    pub fn new(job: &Job) -> Self {
        Self {
            version: CHECKPOINT_VERSION,
            phase: Phase::Booting,
            interpreter: Interpreter::new(job),
            running: None,
            next_exec: 1,
            job_ms: 0,
            silent_ms: 0,
            cancelled: None,
            survivors: false,
        }
    }

    /// What follows from an event. `now_ms` is only for the records that people read.
    pub fn on(&mut self, job: &Job, event: Event, now_ms: i64) -> Vec<Effect> {
        let mut effects = Vec::new();
        if matches!(self.phase, Phase::Ended(_)) {
            return effects;
        }
        if let Phase::Clearing { .. } = self.phase {
            self.clearing(event, &mut effects);
            return effects;
        }
        match event {
            Event::AgentReady if self.phase == Phase::Booting => {
                self.phase = Phase::Stepping;
                self.job_ms = 0;
                effects.push(Effect::Running);
                self.interpret(job, interpreter::Event::Begin, now_ms, &mut effects);
            }
            Event::AgentReady => {}
            Event::Connected => self.silent_ms = 0,
            Event::Output { exec } => {
                if let Some(running) = self.running.as_mut().filter(|r| r.exec == exec) {
                    running.idle_ms = 0;
                }
            }
            Event::Exited { exec, how, survivors } => {
                self.survivors |= survivors;
                self.exited(job, exec, how, now_ms, &mut effects);
            }
            Event::Cleared { .. } => {}
            Event::Refused { exec, message } => {
                if self.running.as_ref().is_some_and(|r| r.exec == exec) {
                    self.step_failed(job, None, message, now_ms, &mut effects);
                }
            }
            Event::Elapsed { ms, connected } => self.elapsed(job, ms, connected, now_ms, &mut effects),
            Event::Cancel { by, reason, force } => self.cancel(job, by, reason, force, now_ms, &mut effects),
            Event::Lost { cause } => self.lost(End::Infra { cause }, now_ms, &mut effects),
            Event::AgentKilled { how } => {
                let end = self.killed(job, how, &mut effects);
                self.lost(end, now_ms, &mut effects);
            }
        }
        effects
    }

    /// The record of the step that this command belongs to, if it is the one under way.
    #[must_use]
    pub fn step_of(&self, exec: u64) -> Option<usize> {
        let current = self.interpreter.current()?;
        let running = self.running.as_ref()?;
        (running.exec == exec).then_some(current.step)
    }

    fn exited(&mut self, job: &Job, exec: u64, how: Exit, now_ms: i64, effects: &mut Vec<Effect>) {
        let Some(running) = self.running.as_ref().filter(|r| r.exec == exec) else {
            return;
        };
        let code = match how {
            Exit::Code(code) => Some(code),
            Exit::Signal(_) => None,
        };
        if let Some(stop) = running.stop.clone() {
            // Even a command that ends well is judged by why it was stopped: it may have ended
            // because it was asked to.
            return self.step_stopped(job, &stop, code, now_ms, effects);
        }
        let message = match how {
            Exit::Code(0) => return self.interpret(job, interpreter::Event::Done, now_ms, effects),
            Exit::Code(code) => format!("exit code {code}"),
            Exit::Signal(signal) => format!("ended by signal {signal}"),
        };
        self.step_failed(job, code, message, now_ms, effects);
    }

    fn step_failed(&mut self, job: &Job, code: Option<i32>, message: String, now_ms: i64, effects: &mut Vec<Effect>) {
        let failure = Failure {
            state: StepState::Failure,
            exit_code: code,
            message,
            job: None,
        };
        self.interpret(job, interpreter::Event::Failed(failure), now_ms, effects);
    }

    /// Tells the interpreter, and does what it says.
    fn interpret(&mut self, job: &Job, event: interpreter::Event, now_ms: i64, effects: &mut Vec<Effect>) {
        let before = self.interpreter.current();
        let outputs = self.interpreter.on(job, event, now_ms);
        let now = self.interpreter.current();
        let mut earlier = self.running.take_if(|_| before != now);
        // The time limits of a step are those of all its commands together.
        earlier.take_if(|_| before.map(|b| b.step) != now.map(|n| n.step));
        self.follow(outputs, earlier, now_ms, effects);
    }

    /// Does what the interpreter says. `earlier` is the command before, if it is of the same step.
    fn follow(&mut self, outputs: Vec<Output>, earlier: Option<Running>, now_ms: i64, effects: &mut Vec<Effect>) {
        for output in outputs {
            match output {
                Output::Record(step) => effects.push(Effect::StoreStep(step)),
                Output::Log(step, line) => effects.push(Effect::Log(step, line)),
                Output::EndLog(step) => effects.push(Effect::EndStepLog(step)),
                // Made again when it is sent, as it is after a restart.
                Output::Command(_) => {
                    let exec = self.take_exec();
                    let (step_ms, idle_ms) = earlier.as_ref().map_or((0, 0), |r| (r.step_ms, r.idle_ms));
                    self.running = Some(Running {
                        exec,
                        step_ms,
                        idle_ms,
                        stop: None,
                    });
                    effects.extend([Effect::Checkpoint, Effect::Send]);
                }
                Output::Finished { result, message } => {
                    self.end(End::Result { result, message }, now_ms, effects);
                }
            }
        }
    }

    fn take_exec(&mut self) -> u64 {
        let exec = self.next_exec;
        self.next_exec += 1;
        exec
    }
}

#[cfg(test)]
mod tests;
