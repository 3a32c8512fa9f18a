//! The clocks of an attempt, and what happens when one has run out.

use super::{Effect, End, Event, Job, Phase, Progress, ending::CLEARING_MS, interpreter, stop::Why};
use crate::model::plan::Status;

impl Progress {
    /// Time until a limit may have been reached, in milliseconds.
    #[must_use]
    pub fn next_limit_ms(&self, job: &Job, connected: bool) -> u64 {
        let mut limits = Vec::new();
        match &self.phase {
            Phase::Ended(_) => return u64::MAX,
            Phase::Clearing { since_ms, .. } => return CLEARING_MS.saturating_sub(*since_ms),
            Phase::Booting => limits.push(job.limits.boot_ms.saturating_sub(self.job_ms)),
            Phase::Stepping if connected => {}
            Phase::Stepping => limits.push(job.limits.silence_ms.saturating_sub(self.silent_ms)),
        }
        // Only what would do something: a limit that is over already must not keep its driver awake.
        match self.running.as_ref().map(|running| (running, &running.stop)) {
            None => {}
            Some((running, None)) => {
                limits.push(job.limits.idle_ms.saturating_sub(running.idle_ms));
                let limit = self.step_limit_ms(job);
                limits.extend(limit.map(|limit| limit.saturating_sub(running.step_ms)));
                limits.push(match self.interpreter.status() {
                    Status::Success | Status::Failure => job.limits.job_ms.saturating_sub(self.job_ms),
                    Status::Cancelled => self.grace_ms(job),
                });
            }
            Some((_, Some(stop))) => {
                limits.push(stop.limit_ms().saturating_sub(stop.since_ms));
                if stop.why == Why::Cancelled && !stop.kill {
                    limits.push(self.grace_ms(job));
                }
            }
        }
        limits.into_iter().min().unwrap_or(u64::MAX)
    }

    pub(super) fn elapsed(&mut self, job: &Job, ms: u64, connected: bool, now_ms: i64, effects: &mut Vec<Effect>) {
        self.count(ms, connected);
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
        if self.interpreter.status() == Status::Cancelled && self.grace_ms(job) == 0 {
            self.interpret(job, interpreter::Event::Close, now_ms, effects);
        }
        self.judge(job, now_ms, effects);
    }

    fn count(&mut self, ms: u64, connected: bool) {
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
    }

    /// Stops the command under way when a limit of its says so.
    fn judge(&mut self, job: &Job, now_ms: i64, effects: &mut Vec<Effect>) {
        let Some(running) = self.running.clone() else { return };
        let is_cancelled = self.interpreter.status() == Status::Cancelled;
        let grace_is_over = is_cancelled && self.grace_ms(job) == 0;
        if let Some(stop) = &running.stop {
            if stop.since_ms >= stop.limit_ms() && stop.kill {
                // Killed and yet no exit: whatever holds it, the machine goes away as a whole.
                self.survivors = false;
                self.step_stopped(job, stop, None, now_ms, effects);
            } else if stop.since_ms >= stop.limit_ms() || (grace_is_over && stop.why == Why::Cancelled && !stop.kill) {
                self.stop(stop.why, true, effects);
            }
            return;
        }
        let step_limit = self.step_limit_ms(job);
        if grace_is_over {
            let why = match self.cancelled {
                Some(_) => Why::Cancelled,
                None => Why::JobLimit,
            };
            self.stop(why, true, effects);
        } else if !is_cancelled && self.job_ms >= job.limits.job_ms {
            self.stop(Why::JobLimit, false, effects);
        } else if step_limit.is_some_and(|limit| running.step_ms >= limit) {
            self.stop(Why::StepLimit, false, effects);
        } else if running.idle_ms >= job.limits.idle_ms {
            self.stop(Why::Idle, false, effects);
        }
    }

    /// How long what runs in spite of a cancel, or of the job's time being over, may go on.
    fn grace_ms(&self, job: &Job) -> u64 {
        let after = |since_ms: u64| job.limits.cancel_ms.saturating_sub(since_ms);
        let cancelled = self.cancelled.as_ref().map(|cancelled| after(cancelled.since_ms));
        let over = self.job_ms.checked_sub(job.limits.job_ms).map(after);
        cancelled.into_iter().chain(over).min().unwrap_or(u64::MAX)
    }

    /// The time limit of the step under way.
    pub(super) fn step_limit_ms(&self, job: &Job) -> Option<u64> {
        let current = self.interpreter.current()?;
        self.interpreter.planned(job, current.step)?.limit_ms
    }
}
