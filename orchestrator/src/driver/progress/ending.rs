//! What comes after the end is decided, and ends that no step decides.

use super::{Effect, End, Event, Job, JobResult, Phase, Progress, StepState, Why};

/// How long the end of what steps have left running is waited for; then it ends with its machine.
pub(super) const CLEARING_MS: u64 = 15_000;

impl Progress {
    /// The end that is decided, whatever happens now.
    #[must_use]
    pub fn decided(&self) -> Option<&End> {
        match &self.phase {
            Phase::Ended(end) | Phase::Clearing { end, .. } => Some(end),
            Phase::Booting | Phase::Stepping => None,
        }
    }

    /// Nothing that happens now changes the end.
    pub(super) fn clearing(&mut self, event: Event, effects: &mut Vec<Effect>) {
        let Phase::Clearing {
            end,
            exec: ours,
            since_ms,
        } = &mut self.phase
        else {
            return;
        };
        let over = match event {
            Event::Cleared { exec } | Event::Refused { exec, .. } => exec == *ours,
            Event::Elapsed { ms, .. } => {
                *since_ms = since_ms.saturating_add(ms);
                *since_ms >= CLEARING_MS
            }
            Event::Lost { .. } | Event::AgentKilled { .. } => true,
            Event::Cancel { force, .. } => force,
            Event::AgentReady | Event::Connected | Event::Output { .. } | Event::Exited { .. } => false,
        };
        if over {
            self.phase = Phase::Ended(end.clone());
            effects.extend([Effect::Checkpoint, Effect::End]);
        }
    }

    /// The machine is gone.
    pub(super) fn lost(&mut self, end: End, now_ms: i64, effects: &mut Vec<Effect>) {
        self.survivors = false;
        // A job that has failed is not tried again for it, and who asked for the end does not care how the machine went.
        let end = match (self.interpreter.verdict(), &self.cancelled) {
            (Some((result, message)), _) => End::Result {
                result,
                message: message.to_owned(),
            },
            (None, Some(cancelled)) => End::Result {
                result: JobResult::Cancelled,
                message: cancelled.message(),
            },
            (None, None) => end,
        };
        self.end(end, now_ms, effects);
    }

    /// Whose fault it is that somebody in the machine has killed its agent: while a step runs nobody else is there.
    pub(super) fn killed(&self, job: &Job, how: String, effects: &mut Vec<Effect>) -> End {
        let (Some(running), Some(current)) = (&self.running, self.interpreter.current()) else {
            return End::Infra { cause: how };
        };
        let (result, message) = match &running.stop {
            // It was to end, for this reason.
            Some(stop) => {
                let result = match stop.why {
                    Why::JobLimit | Why::Idle => JobResult::TimedOut,
                    Why::StepLimit | Why::Cancelled => JobResult::Failure,
                };
                (result, self.stopped(job, stop.why))
            }
            None => (JobResult::Failure, how),
        };
        let line = format!("The step did not succeed: {message}");
        effects.push(Effect::Log(current.step, line));
        let message = self.interpreter.sentence(job, current.step, &message);
        End::Result { result, message }
    }

    /// The end, whatever still runs.
    pub(super) fn end(&mut self, end: End, now_ms: i64, effects: &mut Vec<Effect>) {
        self.running = None;
        let (state, message) = match &end {
            End::Result {
                result: JobResult::Cancelled,
                message,
            } => (StepState::Cancelled, message),
            End::Result { message, .. } => (StepState::Failure, message),
            End::Infra { cause } => (StepState::Failure, cause),
        };
        let outputs = self.interpreter.abandon(state, message, now_ms);
        self.follow(outputs, None, now_ms, effects);
        if self.survivors && matches!(end, End::Result { .. }) {
            let exec = self.take_exec();
            self.phase = Phase::Clearing { end, exec, since_ms: 0 };
            return effects.extend([Effect::Checkpoint, Effect::SendClear]);
        }
        self.phase = Phase::Ended(end);
        effects.extend([Effect::Checkpoint, Effect::End]);
    }
}
