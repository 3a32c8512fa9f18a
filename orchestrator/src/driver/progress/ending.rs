//! What comes after the end is decided, and ends that no step decides.

use super::{Effect, End, Event, Job, JobResult, Phase, Progress, Why};

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
        // Who asked for the end does not care how the machine went.
        let end = match &self.cancelled {
            Some(cancelled) => End::Result {
                result: JobResult::Cancelled,
                message: cancelled.message(),
            },
            None => end,
        };
        self.end(end, now_ms, effects);
    }

    /// Whose fault it is that somebody in the machine has killed its agent: while a step runs nobody else is there.
    pub(super) fn killed(&self, job: &Job, how: String, effects: &mut Vec<Effect>) -> End {
        let Some(running) = &self.running else {
            return End::Infra { cause: how };
        };
        let (result, sentence) = match &running.stop {
            // It was to end, for this reason.
            Some(stop) => {
                let result = match stop.why {
                    Why::JobLimit | Why::Idle => JobResult::TimedOut,
                    Why::StepLimit | Why::Cancelled => JobResult::Failure,
                };
                (result, self.stopped(job, running, stop.why).1)
            }
            None => (JobResult::Failure, how),
        };
        effects.push(Effect::Log(
            running.step,
            format!("The step did not succeed: {sentence}"),
        ));
        let name = job.steps.get(running.step).map_or("", |step| step.name.as_str());
        End::Result {
            result,
            message: format!("step {} “{name}”: {sentence}", running.step + 1),
        }
    }
}
