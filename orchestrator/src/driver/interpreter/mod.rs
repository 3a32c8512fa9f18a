//! The interpreter of a job's steps: which command comes next, and what becomes of each step. Pure, and a value that the
//! checkpoint holds: a daemon that takes over goes on from it and makes the same commands again.
//!
//! ```text
//! main parts in the order of the plan ──▶ post parts of the steps that ran, newest first ──▶ finished
//! ```
//!
//! No step's end is the job's end. A failure or a cancel changes the [`Status`], and a step is skipped when its condition
//! does not hold as its turn comes; so the steps that `always()` keeps run after a failure and after a cancel, until the
//! interpreter is closed. Clocks, signals and machines are the driver's (`progress`).

use serde::{Deserialize, Serialize};

use super::{
    actions::Command,
    job::{Job, JobStep},
};
use crate::model::{
    plan::Status,
    state::{JobResult, StepState},
};

/// Where the steps of a job stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interpreter {
    /// The main part of each planned step, in its order; behind them the post parts that have begun.
    steps: Vec<Step>,
    /// The part under way.
    current: Option<Current>,
    /// Planned steps whose post part is to come, the newest last.
    post: Vec<usize>,
    status: Status,
    /// What is said of the job when its end was asked for.
    cancelled: Option<String>,
    /// What went wrong first. It is the job's result.
    verdict: Option<Verdict>,
    /// Nothing is begun any more.
    closed: bool,
}

/// The record of one part of a step.
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
    /// The planned step whose post part it is; none of a main part.
    pub post_of: Option<usize>,
}

/// The part of a step that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Current {
    /// Its record, counted from 0; so the store and the log number it, too.
    pub step: usize,
    /// Which of its commands.
    pub part: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Verdict {
    result: JobResult,
    message: String,
}

/// What happened to the command that was given out last, or to the job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Commands can be given out.
    Begin,
    /// The command ended well.
    Done,
    /// The step ends with this command.
    Failed(Failure),
    /// A person asks for the end of the job. The part under way is not touched; see [`Interpreter::goes_on_when_cancelled`].
    Cancel {
        /// What will be said of the job.
        message: String,
    },
    /// Nothing more may be begun, whatever its condition.
    Close,
}

/// How a step failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// A terminal state other than success.
    pub state: StepState,
    /// Of its last command.
    pub exit_code: Option<i32>,
    /// One line that says how.
    pub message: String,
    /// What it means for the whole job, whatever the step's `continue-on-error` says; `None` when it is the step's own
    /// failure.
    pub job: Option<(JobResult, Status)>,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// This record has changed.
    Record(usize),
    /// A line of ours in the log of a record.
    Log(usize, String),
    /// The output of a record is complete.
    EndLog(usize),
    /// The agent is to do this. The event about its end comes next.
    Command(Command),
    /// All is over.
    Finished {
        /// The job's result.
        result: JobResult,
        /// One line that says it.
        message: String,
    },
}

impl Interpreter {
    /// Before the first step.
    #[must_use]
    pub fn new(job: &Job) -> Self {
        Self::resumed(vec![Step::pending(); job.steps.len()], None, None)
    }

    /// With these main parts, as a checkpoint of version 1 has them.
    pub(super) fn resumed(steps: Vec<Step>, current: Option<Current>, cancelled: Option<String>) -> Self {
        Self {
            steps,
            current,
            post: Vec::new(),
            status: match cancelled {
                Some(_) => Status::Cancelled,
                None => Status::Success,
            },
            cancelled,
            verdict: None,
            closed: false,
        }
    }

    /// The records; see [`Current::step`].
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The part under way.
    #[must_use]
    pub fn current(&self) -> Option<Current> {
        self.current
    }

    /// How the job has gone so far.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status
    }

    /// The job's result and what is said of it, as soon as something went wrong.
    #[must_use]
    pub fn verdict(&self) -> Option<(JobResult, &str)> {
        self.verdict.as_ref().map(|v| (v.result, v.message.as_str()))
    }

    /// The planned step of a record.
    #[must_use]
    pub fn planned<'j>(&self, job: &'j Job, step: usize) -> Option<&'j JobStep> {
        job.steps.get(self.planned_index(step)?)
    }

    /// What people call a record.
    #[must_use]
    pub fn name(&self, job: &Job, step: usize) -> String {
        let name = self.planned(job, step).map_or("", |planned| planned.name.as_str());
        match self.steps.get(step).and_then(|step| step.post_of) {
            Some(_) => format!("Post {name}"),
            None => name.to_owned(),
        }
    }

    /// Names a record and what is said of it.
    #[must_use]
    pub fn sentence(&self, job: &Job, step: usize, message: &str) -> String {
        let number = self.planned_index(step).unwrap_or(step) + 1;
        format!("step {number} “{}”: {message}", self.name(job, step))
    }

    /// The command under way, made again.
    #[must_use]
    pub fn command(&self, job: &Job) -> Option<Command> {
        self.current.and_then(|current| self.made(job, current))
    }

    /// Whether the part under way goes on when a person asks for the end of the job.
    #[must_use]
    pub fn goes_on_when_cancelled(&self, job: &Job) -> bool {
        let Some(current) = self.current else { return false };
        let is_post = self.steps.get(current.step).is_some_and(|step| step.post_of.is_some());
        let planned = self.planned(job, current.step);
        is_post || planned.is_some_and(|planned| planned.condition.holds(Status::Cancelled))
    }

    /// What follows from an event. `now_ms` is only for the records that people read.
    pub fn on(&mut self, job: &Job, event: Event, now_ms: i64) -> Vec<Output> {
        let mut outputs = Vec::new();
        match event {
            Event::Begin => self.next(job, now_ms, &mut outputs),
            Event::Done => self.done(job, now_ms, &mut outputs),
            Event::Failed(failure) => self.failed(job, failure, now_ms, &mut outputs),
            Event::Cancel { message } => {
                // Now and not at the next step: what went wrong first is the job's result.
                self.decide(JobResult::Cancelled, message.clone(), Status::Cancelled);
                self.cancelled.get_or_insert(message);
                self.status = Status::Cancelled;
            }
            Event::Close => self.closed = true,
        }
        outputs
    }

    /// The machine is gone: ends what runs in this state, for this reason, and begins nothing more.
    pub fn abandon(&mut self, state: StepState, message: &str, now_ms: i64) -> Vec<Output> {
        let mut outputs = Vec::new();
        self.closed = true;
        if let Some(Current { step, .. }) = self.current.take() {
            self.record_end(step, state, None, Some(message), now_ms);
            outputs.extend([Output::EndLog(step), Output::Record(step)]);
        }
        self.post.clear();
        self.skip_pending(&mut outputs);
        outputs
    }

    fn planned_index(&self, step: usize) -> Option<usize> {
        self.steps.get(step).map(|record| record.post_of.unwrap_or(step))
    }

    fn made(&self, job: &Job, current: Current) -> Option<Command> {
        let planned = self.planned(job, current.step)?;
        let scope = job.scope(planned);
        match self.steps.get(current.step)?.post_of {
            None => planned.action.main(current.part, &scope),
            Some(_) => planned.action.post(current.part, &scope),
        }
    }

    fn done(&mut self, job: &Job, now_ms: i64, outputs: &mut Vec<Output>) {
        let Some(current) = self.current else { return };
        let following = Current {
            part: current.part + 1,
            ..current
        };
        match self.made(job, following) {
            Some(command) => {
                self.current = Some(following);
                outputs.push(Output::Command(command));
            }
            None => self.succeeded(job, current.step, Some(0), now_ms, outputs),
        }
    }

    fn succeeded(&mut self, job: &Job, step: usize, code: Option<i32>, now_ms: i64, outputs: &mut Vec<Output>) {
        self.current = None;
        self.record_end(step, StepState::Success, code, None, now_ms);
        outputs.extend([Output::EndLog(step), Output::Record(step)]);
        self.leave_post(job, step);
        self.next(job, now_ms, outputs);
    }

    fn failed(&mut self, job: &Job, failure: Failure, now_ms: i64, outputs: &mut Vec<Output>) {
        let Some(Current { step, .. }) = self.current.take() else {
            return;
        };
        let Failure {
            state,
            exit_code,
            message,
            job: decided,
        } = failure;
        self.record_end(step, state, exit_code, Some(&message), now_ms);
        // What the step wrote last stands before what is said of it.
        outputs.push(Output::EndLog(step));
        outputs.push(Output::Log(step, format!("The step did not succeed: {message}")));
        outputs.push(Output::Record(step));
        let is_allowed = self.planned(job, step).is_some_and(|planned| planned.continue_on_error);
        match decided {
            Some((JobResult::Cancelled, status)) => self.decide(JobResult::Cancelled, message, status),
            Some((result, status)) => self.decide(result, self.sentence(job, step, &message), status),
            None if is_allowed => {
                let line = "The job goes on: continue-on-error is set.";
                outputs.push(Output::Log(step, line.to_owned()));
            }
            None => self.decide(JobResult::Failure, self.sentence(job, step, &message), Status::Failure),
        }
        self.leave_post(job, step);
        self.next(job, now_ms, outputs);
    }

    /// The first that decides is the job's result; the status only becomes worse.
    fn decide(&mut self, result: JobResult, message: String, status: Status) {
        self.verdict.get_or_insert(Verdict { result, message });
        self.status = self.status.max(status);
    }

    /// Remembers what is left to be done of a step whose main part has ended, however it did.
    fn leave_post(&mut self, job: &Job, step: usize) {
        let Some(planned) = job.steps.get(step).filter(|_| self.steps[step].post_of.is_none()) else {
            return;
        };
        if planned.action.post(0, &job.scope(planned)).is_some() {
            self.post.push(step);
        }
    }

    fn next(&mut self, job: &Job, now_ms: i64, outputs: &mut Vec<Output>) {
        if let Some(message) = self.cancelled.clone() {
            self.decide(JobResult::Cancelled, message, Status::Cancelled);
        }
        while let Some(step) = self.steps.iter().position(|step| step.state == StepState::Pending) {
            let condition = job.steps.get(step).map(|planned| planned.condition);
            if !self.closed && condition.is_some_and(|condition| condition.holds(self.status)) {
                return self.begin(job, step, now_ms, outputs);
            }
            self.steps[step].state = StepState::Skipped;
            outputs.push(Output::Record(step));
        }
        if let Some(step) = self.post.pop().filter(|_| !self.closed) {
            self.steps.push(Step {
                post_of: Some(step),
                ..Step::pending()
            });
            return self.begin(job, self.steps.len() - 1, now_ms, outputs);
        }
        self.post.clear();
        let Verdict { result, message } = self.verdict.clone().unwrap_or_else(|| Verdict {
            result: JobResult::Success,
            message: self.success(job),
        });
        outputs.push(Output::Finished { result, message });
    }

    fn begin(&mut self, job: &Job, step: usize, now_ms: i64, outputs: &mut Vec<Output>) {
        self.steps[step].state = StepState::Running;
        self.steps[step].started_ms = Some(now_ms);
        outputs.push(Output::Record(step));
        let current = Current { step, part: 0 };
        let Some(command) = self.made(job, current) else {
            return self.succeeded(job, step, None, now_ms, outputs);
        };
        if let (Some(planned), None) = (job.steps.get(step), self.steps[step].post_of) {
            let line = planned.action.opening(&job.scope(planned));
            outputs.extend(line.map(|line| Output::Log(step, line)));
        }
        self.current = Some(current);
        outputs.push(Output::Command(command));
    }

    fn record_end(&mut self, step: usize, state: StepState, code: Option<i32>, message: Option<&str>, now_ms: i64) {
        if let Some(record) = self.steps.get_mut(step) {
            record.state = state;
            record.exit_code = code;
            record.message = message.map(str::to_owned);
            record.ended_ms = Some(now_ms);
        }
    }

    fn skip_pending(&mut self, outputs: &mut Vec<Output>) {
        for (index, step) in self.steps.iter_mut().enumerate() {
            if step.state == StepState::Pending {
                step.state = StepState::Skipped;
                outputs.push(Output::Record(index));
            }
        }
    }

    /// What is said of a job that succeeded: all its steps did, or some were allowed to fail.
    fn success(&self, job: &Job) -> String {
        let mut succeeded = 0;
        let mut failed = Vec::new();
        for (index, step) in self.steps.iter().enumerate() {
            match step.state {
                StepState::Success if step.post_of.is_none() => succeeded += 1,
                StepState::Failure | StepState::TimedOut => {
                    failed.push(self.sentence(job, index, step.message.as_deref().unwrap_or("failed")));
                }
                StepState::Success
                | StepState::Pending
                | StepState::Running
                | StepState::Skipped
                | StepState::Cancelled => {}
            }
        }
        if failed.is_empty() {
            return "all steps succeeded".into();
        }
        format!(
            "{succeeded} of {} steps succeeded; continue-on-error allows {}",
            job.steps.len(),
            failed.join("; ")
        )
    }
}

impl Step {
    fn pending() -> Self {
        Self {
            state: StepState::Pending,
            exit_code: None,
            message: None,
            started_ms: None,
            ended_ms: None,
            post_of: None,
        }
    }
}

#[cfg(test)]
mod tests;
