//! Stopping the command under way: why, by which signal, and what is said of it.

use serde::{Deserialize, Serialize};

use super::{Effect, End, Failure, Job, JobResult, Phase, Progress, StepState, interpreter};
use crate::model::{person::cancelled_by, plan::Status};

/// After a kill, how long until the exit is no longer waited for.
pub(super) const KILL_LIMIT_MS: u64 = 10_000;
/// What the agent's own grace periods take before it kills (SIGINT 7.5 s, SIGTERM 2.5 s), with slack.
pub(super) const CANCEL_LIMIT_MS: u64 = 20_000;

/// A stop under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// What its end will be called.
    pub(super) why: Why,
    /// The command's id of the signal that was sent last.
    pub signal: u64,
    /// The signal was a kill.
    pub kill: bool,
    /// Since the last signal.
    pub(super) since_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Why {
    Cancelled,
    JobLimit,
    StepLimit,
    Idle,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cancelled {
    pub by: String,
    pub reason: String,
    pub since_ms: u64,
}

impl Progress {
    /// A person asks for the end. What `always()` keeps goes on, unless it is forced.
    pub(super) fn cancel(
        &mut self,
        job: &Job,
        by: String,
        reason: String,
        force: bool,
        now_ms: i64,
        effects: &mut Vec<Effect>,
    ) {
        let cancelled = self.cancelled.get_or_insert(Cancelled {
            by,
            reason,
            since_ms: 0,
        });
        let message = cancelled.message();
        let Some(running) = self.running.clone().filter(|_| self.phase == Phase::Stepping) else {
            let result = JobResult::Cancelled;
            return self.end(End::Result { result, message }, now_ms, effects);
        };
        self.interpret(job, interpreter::Event::Cancel { message }, now_ms, effects);
        if force {
            self.interpret(job, interpreter::Event::Close, now_ms, effects);
        }
        match &running.stop {
            None if force || !self.interpreter.goes_on_when_cancelled(job) => {
                self.stop(Why::Cancelled, force, effects);
            }
            Some(stop) if force && !stop.kill => self.stop(stop.why, true, effects),
            None | Some(_) => {}
        }
    }

    /// Sends the first signal, or the next.
    pub(super) fn stop(&mut self, why: Why, kill: bool, effects: &mut Vec<Effect>) {
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

    /// The command that was to be stopped has ended, or is given up.
    pub(super) fn step_stopped(
        &mut self,
        job: &Job,
        stop: &Stop,
        code: Option<i32>,
        now_ms: i64,
        effects: &mut Vec<Effect>,
    ) {
        let failure = Failure {
            state: match stop.why {
                Why::Cancelled => StepState::Cancelled,
                Why::JobLimit | Why::StepLimit | Why::Idle => StepState::TimedOut,
            },
            exit_code: code,
            message: self.stopped(job, stop.why),
            job: match stop.why {
                Why::Cancelled => Some((JobResult::Cancelled, Status::Cancelled)),
                // To the steps that follow it is as if a person had asked for the end.
                Why::JobLimit => Some((JobResult::TimedOut, Status::Cancelled)),
                Why::Idle => Some((JobResult::TimedOut, Status::Failure)),
                Why::StepLimit => None,
            },
        };
        self.interpret(job, interpreter::Event::Failed(failure), now_ms, effects);
    }

    /// What is said of a step that was stopped.
    pub(super) fn stopped(&self, job: &Job, why: Why) -> String {
        match why {
            Why::Cancelled => self
                .cancelled
                .as_ref()
                .map_or_else(|| "cancelled".into(), Cancelled::message),
            Why::JobLimit => format!(
                "the job ran longer than its {} (timeout-minutes)",
                minutes(job.limits.job_ms)
            ),
            Why::StepLimit => {
                let limit = self.step_limit_ms(job).unwrap_or_default();
                format!("the step ran longer than its {} (timeout-minutes)", minutes(limit))
            }
            Why::Idle => format!(
                "the step wrote nothing for {} (idle limit of this server)",
                minutes(job.limits.idle_ms)
            ),
        }
    }
}

impl Stop {
    pub(super) fn limit_ms(&self) -> u64 {
        if self.kill { KILL_LIMIT_MS } else { CANCEL_LIMIT_MS }
    }
}

impl Cancelled {
    pub(super) fn message(&self) -> String {
        cancelled_by(&self.by, &self.reason)
    }
}

fn minutes(ms: u64) -> String {
    match ms {
        60_000 => "1 minute".into(),
        ms if ms % 60_000 == 0 => format!("{} minutes", ms / 60_000),
        ms => format!("{} seconds", ms.div_ceil(1000)),
    }
}
