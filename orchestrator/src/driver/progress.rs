//! The pure state machine of one attempt: what has happened, and what is to be done about it. It is
//! also the checkpoint: a daemon that dies goes on from the last one, and every effect may be
//! repeated.
//!
//! ```text
//! booting ──agent ready──▶ stepping ──last step ended──▶ clearing ──▶ ended
//!    │                        │ cancel, time limit: stop the command, then end
//!    └──── machine lost, boot too long, agent silent too long ────▶ ended (infra)
//! ```
//!
//! Only a job whose steps have left something running is cleared. Its end is decided by then, and stays.

mod ending;

use serde::{Deserialize, Serialize};

use self::ending::CLEARING_MS;
use super::job::Job;
use crate::model::{
    person::person,
    state::{JobResult, StepState},
};

/// The version of the checkpoint this daemon writes.
pub const CHECKPOINT_VERSION: u32 = 1;

/// After a kill, how long until the exit is no longer waited for.
const KILL_PATIENCE_MS: u64 = 10_000;
/// What the agent's own grace periods take before it kills (SIGINT 7.5 s, SIGTERM 2.5 s), with slack.
const CANCEL_PATIENCE_MS: u64 = 20_000;

/// Where the attempt stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// [`CHECKPOINT_VERSION`] of the writer.
    pub version: u32,
    /// The phase.
    pub phase: Phase,
    /// One per planned step.
    pub steps: Vec<Step>,
    /// The exec that runs, or was about to be sent.
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
    #[serde(default)]
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

/// A step's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Where it stands.
    pub state: StepState,
    /// Exit code of its last command.
    pub exit_code: Option<i32>,
    /// Why it did not succeed.
    pub message: Option<String>,
    /// Milliseconds since 1970.
    pub started_ms: Option<i64>,
    /// Milliseconds since 1970.
    pub ended_ms: Option<i64>,
}

/// The command under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Its id.
    pub exec: u64,
    /// The step, counted from 0.
    pub step: usize,
    /// Which of the step's commands.
    pub part: usize,
    /// Since the step began.
    step_ms: u64,
    /// Since the last output.
    idle_ms: u64,
    /// Why it is being stopped, and since when.
    pub stop: Option<Stop>,
}

/// A stop under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// What its end will be called.
    why: Why,
    /// The command's id of the signal that was sent last.
    pub signal: u64,
    /// The signal was a kill.
    pub kill: bool,
    /// Since the last signal.
    since_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Why {
    Cancelled,
    JobLimit,
    StepLimit,
    Idle,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Cancelled {
    by: String,
    reason: String,
    since_ms: u64,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The agent joined for the first time.
    AgentReady,
    /// A connection was made (also the first).
    Connected,
    /// A running command wrote something.
    Output {
        /// Which.
        exec: u64,
    },
    /// A command's leader ended.
    Exited {
        /// Which.
        exec: u64,
        /// Exit code, or the signal that ended it.
        how: Exit,
        /// It has left something running.
        survivors: bool,
    },
    /// What steps had left running is ended.
    Cleared {
        /// By which command.
        exec: u64,
    },
    /// The agent could not carry out a command.
    Refused {
        /// Which.
        exec: u64,
        /// Its words.
        message: String,
    },
    /// Time passed.
    Elapsed {
        /// How much, in milliseconds.
        ms: u64,
        /// Whether the agent was connected.
        connected: bool,
    },
    /// A person asks for the end; the second request forces.
    Cancel {
        /// Who.
        by: String,
        /// Why.
        reason: String,
        /// At once.
        force: bool,
    },
    /// The machine or something of ours failed.
    Lost {
        /// How.
        cause: String,
    },
    /// The machine is gone because somebody in it killed its agent.
    AgentKilled {
        /// How.
        how: String,
    },
}

/// The end of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It returned.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// The attempt is running: tell the store.
    Running,
    /// Store this step's record.
    StoreStep(usize),
    /// A line of ours in the log of a step.
    Log(usize, String),
    /// The step's output is complete.
    EndStepLog(usize),
    /// Store the checkpoint before anything that follows.
    Checkpoint,
    /// Send the running command.
    Send,
    /// Send the stop that `running` names.
    SendStop,
    /// Send the command of the phase that clears.
    SendClear,
    /// It is over: see the phase.
    End,
}

impl Progress {
    /// An attempt whose machine is about to be started.
    #[must_use]
    pub fn new(job: &Job) -> Self {
        let step = Step {
            state: StepState::Pending,
            exit_code: None,
            message: None,
            started_ms: None,
            ended_ms: None,
        };
        Self {
            version: CHECKPOINT_VERSION,
            phase: Phase::Booting,
            steps: vec![step; job.steps.len()],
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
                self.next_step(job, now_ms, &mut effects);
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
                    self.end_step(job, StepState::Failure, None, Some(message), now_ms, &mut effects);
                }
            }
            Event::Elapsed { ms, connected } => self.elapsed(job, ms, connected, now_ms, &mut effects),
            Event::Cancel { by, reason, force } => self.cancel(by, reason, force, now_ms, &mut effects),
            Event::Lost { cause } => self.lost(End::Infra { cause }, now_ms, &mut effects),
            Event::AgentKilled { how } => {
                let end = self.killed(job, how, &mut effects);
                self.lost(end, now_ms, &mut effects);
            }
        }
        effects
    }

    /// Time until a limit may have been reached, in milliseconds.
    #[must_use]
    pub fn next_limit_ms(&self, job: &Job, connected: bool) -> u64 {
        let mut limits = Vec::new();
        match &self.phase {
            Phase::Ended(_) => return u64::MAX,
            Phase::Clearing { since_ms, .. } => return CLEARING_MS.saturating_sub(*since_ms),
            Phase::Booting => limits.push(job.limits.boot_ms.saturating_sub(self.job_ms)),
            Phase::Stepping => {
                if !connected {
                    limits.push(job.limits.silence_ms.saturating_sub(self.silent_ms));
                }
                limits.push(job.limits.job_ms.saturating_sub(self.job_ms));
            }
        }
        if let Some(running) = &self.running {
            match &running.stop {
                None => {
                    limits.push(job.limits.idle_ms.saturating_sub(running.idle_ms));
                    let limit = job.steps.get(running.step).and_then(|step| step.limit_ms);
                    limits.extend(limit.map(|limit| limit.saturating_sub(running.step_ms)));
                }
                Some(stop) => limits.push(stop.patience().saturating_sub(stop.since_ms)),
            }
        }
        if let Some(cancelled) = &self.cancelled {
            limits.push(job.limits.cancel_ms.saturating_sub(cancelled.since_ms));
        }
        limits.into_iter().min().unwrap_or(u64::MAX)
    }

    /// Whether a command with this id was ever given out: an event of another is not ours.
    #[must_use]
    pub fn knows(&self, exec: u64) -> bool {
        exec < self.next_exec
    }

    fn exited(&mut self, job: &Job, exec: u64, how: Exit, now_ms: i64, effects: &mut Vec<Effect>) {
        let Some(running) = self.running.clone().filter(|r| r.exec == exec) else {
            return;
        };
        let code = match how {
            Exit::Code(code) => Some(code),
            Exit::Signal(_) => None,
        };
        if let Some(stop) = &running.stop {
            // Even a command that ends well is judged by why it was stopped: it may have ended
            // because it was asked to.
            let (state, message) = self.stopped(job, &running, stop.why);
            return self.end_step(job, state, code, Some(message), now_ms, effects);
        }
        if how == Exit::Code(0) {
            if job.command(running.step, running.part + 1).is_some() {
                let exec = self.take_exec();
                self.running = Some(Running {
                    exec,
                    part: running.part + 1,
                    ..running
                });
                effects.extend([Effect::Checkpoint, Effect::Send]);
            } else {
                self.end_step(job, StepState::Success, code, None, now_ms, effects);
            }
            return;
        }
        let message = match how {
            Exit::Code(code) => format!("exit code {code}"),
            Exit::Signal(signal) => format!("ended by signal {signal}"),
        };
        self.end_step(job, StepState::Failure, code, Some(message), now_ms, effects);
    }

    fn stopped(&self, job: &Job, running: &Running, why: Why) -> (StepState, String) {
        let planned = job.steps.get(running.step);
        match why {
            Why::Cancelled => (
                StepState::Cancelled,
                self.cancelled
                    .as_ref()
                    .map_or_else(|| "cancelled".into(), Cancelled::message),
            ),
            Why::JobLimit => (
                StepState::TimedOut,
                format!(
                    "the job ran longer than its {} (timeout-minutes)",
                    minutes(job.limits.job_ms)
                ),
            ),
            Why::StepLimit => {
                let limit = planned.and_then(|step| step.limit_ms).unwrap_or_default();
                (
                    StepState::TimedOut,
                    format!("the step ran longer than its {} (timeout-minutes)", minutes(limit)),
                )
            }
            Why::Idle => (
                StepState::TimedOut,
                format!(
                    "the step wrote nothing for {} (idle limit of this server)",
                    minutes(job.limits.idle_ms)
                ),
            ),
        }
    }

    /// Ends the current step and decides what follows.
    fn end_step(
        &mut self,
        job: &Job,
        state: StepState,
        code: Option<i32>,
        message: Option<String>,
        now_ms: i64,
        effects: &mut Vec<Effect>,
    ) {
        let Some(running) = self.running.take() else { return };
        let why = running.stop.as_ref().map(|stop| stop.why);
        let (index, planned) = (running.step, job.steps.get(running.step));
        if let Some(step) = self.steps.get_mut(index) {
            step.state = state;
            step.exit_code = code;
            step.message.clone_from(&message);
            step.ended_ms = Some(now_ms);
        }
        // What the step wrote last stands before what is said of it.
        effects.push(Effect::EndStepLog(index));
        if let Some(message) = &message {
            effects.push(Effect::Log(index, format!("The step did not succeed: {message}")));
        }
        effects.push(Effect::StoreStep(index));
        let name = planned.map_or("", |p| p.name.as_str());
        let sentence = message.unwrap_or_default();
        match (state, why) {
            (_, Some(Why::Cancelled)) => self.end(
                End::Result {
                    result: JobResult::Cancelled,
                    message: sentence,
                },
                now_ms,
                effects,
            ),
            (_, Some(Why::JobLimit | Why::Idle)) => {
                let message = format!("step {} “{name}”: {sentence}", index + 1);
                self.end(
                    End::Result {
                        result: JobResult::TimedOut,
                        message,
                    },
                    now_ms,
                    effects,
                );
            }
            (StepState::Success, _) => self.next_step(job, now_ms, effects),
            _ if planned.is_some_and(|p| p.continue_on_error) => {
                effects.push(Effect::Log(index, "The job goes on: continue-on-error is set.".into()));
                self.next_step(job, now_ms, effects);
            }
            _ => {
                let message = format!("step {} “{name}”: {sentence}", index + 1);
                self.end(
                    End::Result {
                        result: JobResult::Failure,
                        message,
                    },
                    now_ms,
                    effects,
                );
            }
        }
    }

    fn next_step(&mut self, job: &Job, now_ms: i64, effects: &mut Vec<Effect>) {
        if let Some(cancelled) = &self.cancelled {
            let message = cancelled.message();
            return self.end(
                End::Result {
                    result: JobResult::Cancelled,
                    message,
                },
                now_ms,
                effects,
            );
        }
        let Some(index) = self.steps.iter().position(|step| step.state == StepState::Pending) else {
            return self.end(
                End::Result {
                    result: JobResult::Success,
                    message: self.success(job),
                },
                now_ms,
                effects,
            );
        };
        self.steps[index].state = StepState::Running;
        self.steps[index].started_ms = Some(now_ms);
        let exec = self.take_exec();
        self.running = Some(Running {
            exec,
            step: index,
            part: 0,
            step_ms: 0,
            idle_ms: 0,
            stop: None,
        });
        effects.push(Effect::StoreStep(index));
        effects.extend(job.opening(index).map(|line| Effect::Log(index, line)));
        effects.extend([Effect::Checkpoint, Effect::Send]);
    }

    /// The words of a job that succeeded: all its steps did, or some were allowed to fail.
    fn success(&self, job: &Job) -> String {
        let mut succeeded = 0;
        let mut failed = Vec::new();
        for (index, (step, planned)) in self.steps.iter().zip(&job.steps).enumerate() {
            match step.state {
                StepState::Success => succeeded += 1,
                StepState::Failure | StepState::TimedOut => {
                    let why = step.message.as_deref().unwrap_or("failed");
                    failed.push(format!("step {} “{}”: {why}", index + 1, planned.name));
                }
                StepState::Pending | StepState::Running | StepState::Skipped | StepState::Cancelled => {}
            }
        }
        if failed.is_empty() {
            return "all steps succeeded".into();
        }
        format!(
            "{succeeded} of {} steps succeeded; continue-on-error allows {}",
            self.steps.len(),
            failed.join("; ")
        )
    }

    fn elapsed(&mut self, job: &Job, ms: u64, connected: bool, now_ms: i64, effects: &mut Vec<Effect>) {
        self.job_ms = self.job_ms.saturating_add(ms);
        self.silent_ms = if connected {
            0
        } else {
            self.silent_ms.saturating_add(ms)
        };
        if let Some(running) = &mut self.running {
            running.step_ms = running.step_ms.saturating_add(ms);
            // An unreachable machine is judged by its silence, not by its step's.
            if connected {
                running.idle_ms = running.idle_ms.saturating_add(ms);
            }
            if let Some(stop) = &mut running.stop {
                stop.since_ms = stop.since_ms.saturating_add(ms);
            }
        }
        if let Some(cancelled) = &mut self.cancelled {
            cancelled.since_ms = cancelled.since_ms.saturating_add(ms);
        }
        if self.phase == Phase::Booting {
            if self.job_ms >= job.limits.boot_ms {
                let cause = format!(
                    "the machine's agent did not say hello within {} s",
                    job.limits.boot_ms / 1000
                );
                self.end(End::Infra { cause }, now_ms, effects);
            }
            return;
        }
        if self.silent_ms >= job.limits.silence_ms {
            let cause = format!(
                "the machine's agent was not heard for {} s",
                job.limits.silence_ms / 1000
            );
            return effects.extend(self.on(job, Event::Lost { cause }, now_ms));
        }
        let Some(running) = self.running.clone() else { return };
        if let Some(stop) = &running.stop {
            if stop.since_ms >= stop.patience() {
                if stop.kill {
                    // Killed and yet no exit: whatever holds it, the machine goes away as a whole.
                    self.survivors = false;
                    let (state, message) = self.stopped(job, &running, stop.why);
                    return self.end_step(job, state, None, Some(message), now_ms, effects);
                }
                return self.stop(stop.why, true, effects);
            }
            if stop.why == Why::Cancelled
                && !stop.kill
                && self
                    .cancelled
                    .as_ref()
                    .is_some_and(|c| c.since_ms >= job.limits.cancel_ms)
            {
                self.stop(Why::Cancelled, true, effects);
            }
            return;
        }
        let step_limit = job.steps.get(running.step).and_then(|step| step.limit_ms);
        if self.job_ms >= job.limits.job_ms {
            self.stop(Why::JobLimit, false, effects);
        } else if step_limit.is_some_and(|limit| running.step_ms >= limit) {
            self.stop(Why::StepLimit, false, effects);
        } else if running.idle_ms >= job.limits.idle_ms {
            self.stop(Why::Idle, false, effects);
        }
    }

    fn cancel(&mut self, by: String, reason: String, force: bool, now_ms: i64, effects: &mut Vec<Effect>) {
        let cancelled = self.cancelled.get_or_insert(Cancelled {
            by,
            reason,
            since_ms: 0,
        });
        let message = cancelled.message();
        match &self.running {
            None => self.end(
                End::Result {
                    result: JobResult::Cancelled,
                    message,
                },
                now_ms,
                effects,
            ),
            Some(running) => match &running.stop {
                None => self.stop(Why::Cancelled, force, effects),
                Some(stop) if force && !stop.kill => self.stop(stop.why, true, effects),
                Some(_) => {}
            },
        }
    }

    fn stop(&mut self, why: Why, kill: bool, effects: &mut Vec<Effect>) {
        let signal = self.take_exec();
        if let Some(running) = &mut self.running {
            running.stop = Some(Stop {
                why,
                signal,
                kill,
                since_ms: 0,
            });
            effects.extend([Effect::Checkpoint, Effect::SendStop]);
        }
    }

    fn end(&mut self, end: End, now_ms: i64, effects: &mut Vec<Effect>) {
        let cancelled = matches!(
            &end,
            End::Result {
                result: JobResult::Cancelled,
                ..
            }
        );
        if let Some(running) = self.running.take() {
            // Reached when the machine is lost or the job is cancelled with a command under way.
            if let Some(step) = self.steps.get_mut(running.step) {
                step.state = if cancelled {
                    StepState::Cancelled
                } else {
                    StepState::Failure
                };
                step.message = Some(match &end {
                    End::Result { message, .. } => message.clone(),
                    End::Infra { cause } => cause.clone(),
                });
                step.ended_ms = Some(now_ms);
            }
            effects.extend([Effect::EndStepLog(running.step), Effect::StoreStep(running.step)]);
        }
        for (index, step) in self.steps.iter_mut().enumerate() {
            if step.state == StepState::Pending {
                step.state = StepState::Skipped;
                effects.push(Effect::StoreStep(index));
            }
        }
        if self.survivors && matches!(end, End::Result { .. }) {
            let exec = self.take_exec();
            self.phase = Phase::Clearing { end, exec, since_ms: 0 };
            return effects.extend([Effect::Checkpoint, Effect::SendClear]);
        }
        self.phase = Phase::Ended(end);
        effects.extend([Effect::Checkpoint, Effect::End]);
    }

    fn take_exec(&mut self) -> u64 {
        let exec = self.next_exec;
        self.next_exec += 1;
        exec
    }
}

impl Stop {
    fn patience(&self) -> u64 {
        if self.kill {
            KILL_PATIENCE_MS
        } else {
            CANCEL_PATIENCE_MS
        }
    }
}

impl Cancelled {
    fn message(&self) -> String {
        if self.reason.is_empty() {
            format!("cancelled by {}", person(&self.by))
        } else {
            format!("cancelled by {}: {}", person(&self.by), self.reason)
        }
    }
}

fn minutes(ms: u64) -> String {
    match ms {
        60_000 => "1 minute".into(),
        ms if ms % 60_000 == 0 => format!("{} minutes", ms / 60_000),
        ms => format!("{} seconds", ms.div_ceil(1000)),
    }
}

#[cfg(test)]
mod tests;
