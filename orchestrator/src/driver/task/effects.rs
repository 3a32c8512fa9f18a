//! What the state machine decided, performed: stored first, then said to the machine.

use helios_proto::v1;

use super::{Task, held, number};
use crate::{
    clock::now_ms,
    driver::{
        progress::{Effect, Event, Phase},
        stopped::Stopped,
    },
    error_chain::chain,
    failpoint::{self, Point},
    queue::Hint,
    source::SourceError,
    store::{AttemptNews, StepUpdate},
};

/// Effects that must be durable before the machine hears of anything that follows them.
#[derive(Debug, Default)]
struct Due {
    running: bool,
    steps: Vec<StepUpdate>,
    checkpoint: bool,
}

impl Due {
    fn is_empty(&self) -> bool {
        !self.running && self.steps.is_empty() && !self.checkpoint
    }
}

impl Task<'_> {
    pub(super) async fn feed(&mut self, event: Event) -> Result<(), Stopped> {
        let mut due = Due::default();
        for effect in self.progress.on(&self.job, event, now_ms()) {
            match effect {
                Effect::Running => due.running = true,
                Effect::StoreStep(index) => due.steps.extend(self.step_update(index)),
                Effect::Checkpoint => due.checkpoint = true,
                effect => {
                    // What is said to the machine is said after everything before it is durable.
                    if !matches!(effect, Effect::Log(..) | Effect::EndStepLog(_)) {
                        self.store(std::mem::take(&mut due)).await?;
                    }
                    self.perform(effect).await?;
                }
            }
        }
        self.store(due).await
    }

    /// Stores everything in one transaction: a step's begin costs one wait for the disk, and so does the end of the last
    /// one with that of all steps.
    async fn store(&self, due: Due) -> Result<(), Stopped> {
        if due.is_empty() {
            return Ok(());
        }
        let (told, changed) = (due.running, due.running || !due.steps.is_empty());
        let news = AttemptNews {
            running: due.running.then(|| self.facts.clone()),
            steps: due.steps,
            checkpoint: match due.checkpoint {
                true => Some(self.sealed()?),
                false => None,
            },
            finishing: matches!(self.progress.phase, Phase::Ended(_)),
        };
        let (id, epoch) = (self.attempt.id, self.attempt.epoch);
        held(self.deps.store.attempt_news(id, epoch, news).await?)?;
        if told {
            self.deps.hints.notify(Hint::Report);
        }
        if changed {
            self.deps.hints.notify(Hint::Run(self.attempt.run));
        }
        Ok(())
    }

    async fn perform(&mut self, effect: Effect) -> Result<(), Stopped> {
        match effect {
            // Gathered before.
            Effect::Running | Effect::StoreStep(_) | Effect::Checkpoint => {}
            Effect::Log(step, line) => self.line(step, &line),
            Effect::EndStepLog(step) => {
                if let Err(error) = self.log.end_step(number(step)) {
                    tracing::warn!(attempt = %self.attempt.id, error = &error as &dyn std::error::Error, "the end of a step is missing in a log");
                }
                self.dirty();
            }
            Effect::Send => {
                failpoint::hit(Point::BeforeCommand);
                self.send_running().await?;
                failpoint::hit(Point::AfterCommand);
            }
            Effect::SendStop => self.send_stop(),
            Effect::SendClear => self.send_clear(),
            // The loop sees the phase.
            Effect::End => {}
        }
        Ok(())
    }

    fn step_update(&self, index: usize) -> Option<StepUpdate> {
        let interpreter = &self.progress.interpreter;
        let (step, planned) = (interpreter.steps().get(index)?, interpreter.planned(&self.job, index)?);
        Some(StepUpdate {
            index: number(index),
            name: interpreter.name(&self.job, index),
            state: step.state,
            exit_code: step.exit_code,
            message: step.message.clone(),
            started_ms: step.started_ms,
            ended_ms: step.ended_ms,
            allowed_failure: planned.continue_on_error,
        })
    }

    /// Sends the running command. What fetches first gets its source granted.
    pub(super) async fn send_running(&mut self) -> Result<(), Stopped> {
        let interpreter = &self.progress.interpreter;
        let (Some(running), Some(current)) = (self.progress.running.clone(), interpreter.current()) else {
            return Ok(());
        };
        let step = interpreter.planned(&self.job, current.step);
        if step.is_some_and(|step| step.action.source_depth().is_some()) {
            if !self.granted
                && let Err(error) = self.grant().await
            {
                let cause = format!("the source cannot be granted: {}", chain(&error));
                return Box::pin(self.feed(Event::Lost { cause })).await;
            }
            if current.part == 0 && self.surveyed != Some(current.step) {
                self.surveyed = Some(current.step);
                self.say_what_is_left_out(current.step).await;
            }
        }
        if let Some(command) = self.progress.interpreter.command(&self.job) {
            self.command(running.exec, command.into());
        }
        Ok(())
    }

    async fn grant(&mut self) -> Result<(), SourceError> {
        let attempt = self.attempt;
        let depth = self.job.source_depth().unwrap_or(1);
        self.deps
            .source
            .grant(
                &attempt.repository,
                attempt.id,
                &attempt.ref_name,
                &attempt.commit,
                depth,
            )
            .await?;
        self.granted = true;
        Ok(())
    }

    /// Names what a checkout does not bring. That it cannot be found out is said, and ends nothing.
    async fn say_what_is_left_out(&mut self, step: usize) {
        let left_out = self
            .deps
            .source
            .left_out(&self.attempt.repository, &self.attempt.commit);
        let sentences = match left_out.await {
            Ok(left_out) => left_out.sentences(),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(attempt = %self.attempt.id, error, "cannot look for submodules and LFS pointers");
                vec!["It could not be found out whether the commit has submodules or LFS pointers.".to_owned()]
            }
        };
        for sentence in sentences {
            self.line(step, &sentence);
        }
    }

    pub(super) fn send_stop(&mut self) {
        let Some(running) = &self.progress.running else { return };
        let Some(stop) = &running.stop else { return };
        let kind = if stop.kill {
            v1::signal::Kind::Kill
        } else {
            v1::signal::Kind::Cancel
        };
        let signal = v1::Signal {
            target: running.exec,
            kind: kind.into(),
            interrupt_grace_ms: 0,
            terminate_grace_ms: 0,
        };
        self.command(stop.signal, v1::command::Command::Signal(signal));
    }

    /// Asks for the end of what steps have left running, in the phase that does so.
    pub(super) fn send_clear(&mut self) {
        if let Phase::Clearing { exec, .. } = self.progress.phase {
            self.command(exec, v1::command::Command::EndProcesses(v1::EndProcesses {}));
        }
    }

    pub(super) fn command(&mut self, exec_id: u64, command: v1::command::Command) {
        self.send(v1::to_agent::Message::Command(v1::Command {
            exec_id,
            command: Some(command),
        }));
    }

    /// An agent that does not read loses its connection; it dials again and hears everything anew.
    pub(super) fn send(&mut self, message: v1::to_agent::Message) {
        if let Some(to_agent) = &self.to_agent
            && to_agent.try_send(v1::ToAgent { message: Some(message) }).is_err()
        {
            self.to_agent = None;
        }
    }
}
