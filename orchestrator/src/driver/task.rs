//! The one task of an attempt: it feeds the state machine with what happens and performs what the
//! state machine decides. It owns the log, the link and the checkpoint.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use helios_proto::v1;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    Deps,
    checkpoint::{Checkpoint, CheckpointError},
    fetch, finish,
    job::Job,
    prepare::{self, Doors, PrepareError},
    progress::{Effect, End, Event, Exit, Phase, Progress},
};
use crate::{
    agent_api::LinkEvent,
    clock::now_ms,
    failpoint::{self, Point},
    logs::{Channel, LogError, LogWriter},
    machine::Observed,
    model::{
        names::MachineName,
        plan::Action,
        state::{AttemptState, MachineState},
    },
    queue::{Hint, Receiver, Wake},
    store::{AttemptRow, StepUpdate, StoreError},
};

/// Output is made durable and acknowledged this long after the first byte that was not.
const SYNC_AFTER: Duration = Duration::from_millis(10);
/// How often the clocks of an attempt are checkpointed while nothing else is.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// How often a cancel is looked for without a hint: the one who asked may sit at another node.
const LOOK: Duration = Duration::from_secs(5);
/// After the database failed, an attempt is taken up again this much later.
const AGAIN: Duration = Duration::from_secs(2);
/// What is kept of the output that comes after the log's cap.
const TAIL_BYTES: u64 = 1 << 20;

/// How an attempt comes to this task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Claimed just now.
    Fresh,
    /// Owned by this node before the daemon restarted.
    Adopted,
}

/// Why the task stopped without an end: somebody else goes on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stopped {
    /// Another daemon owns the attempt.
    #[error("another daemon took the attempt over")]
    Fenced,
    /// The daemon stops in order; the machine goes on by itself.
    #[error("the daemon is stopping")]
    Shutdown,
    /// The database cannot be used; the attempt is adopted again in a moment.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// As `Store`.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// Drives one attempt to its end, or until the daemon stops. A database that fails (its disk may be
/// full) only interrupts: the machine goes on, its agent keeps what nobody acknowledged, and the
/// attempt is adopted from its last checkpoint.
pub async fn drive(deps: Deps, attempt: AttemptRow, mut start: Start, stop: CancellationToken) {
    let id = attempt.id;
    loop {
        match run(&deps, attempt.clone(), start, stop.clone()).await {
            Ok(()) => return,
            Err(stopped @ Stopped::Shutdown) => {
                return tracing::info!(attempt = %id, %stopped, "left an attempt as it is");
            }
            Err(stopped @ Stopped::Fenced) => {
                tracing::info!(attempt = %id, %stopped, "left an attempt as it is");
                // Given up by another node: the machine is still ours to destroy.
                if let Ok(Some(row)) = deps.store.attempt(id).await
                    && row.state == AttemptState::Ended
                {
                    finish::destroy_once(&deps, &MachineName::of(id)).await;
                }
                return;
            }
            Err(error) => {
                tracing::error!(attempt = %id, error = &error as &dyn std::error::Error, "an attempt was interrupted and will be taken up again");
            }
        }
        start = Start::Adopted;
        if stop.run_until_cancelled(tokio::time::sleep(AGAIN)).await.is_none() {
            return;
        }
    }
}

async fn run(deps: &Deps, attempt: AttemptRow, start: Start, stop: CancellationToken) -> Result<(), Stopped> {
    let Some(detail) = deps.store.job(attempt.job).await? else {
        return Err(Stopped::Fenced);
    };
    let name = MachineName::of(attempt.id);
    let checkpoint = match start {
        Start::Fresh => None,
        Start::Adopted => match Checkpoint::load(&deps.store, &deps.seal, attempt.id).await {
            Ok(None) => {
                return finish::unlogged(
                    deps,
                    &attempt,
                    "the node was interrupted while the machine was being made".into(),
                )
                .await;
            }
            Ok(checkpoint) => checkpoint,
            Err(CheckpointError::Store(error)) => return Err(error.into()),
            Err(error) => return finish::unlogged(deps, &attempt, format!("the node was interrupted: {error}")).await,
        },
    };
    let ended = checkpoint.as_ref().and_then(|c| match &c.progress.phase {
        Phase::Ended(end) => Some(end.clone()),
        Phase::Booting | Phase::Stepping => None,
    });
    let (masks, log_state) = checkpoint
        .as_ref()
        .map_or_else(Default::default, |c| (c.masks.clone(), Some(c.log)));
    let mut log = match LogWriter::open(&deps.logs, attempt.id, masks, deps.config.limits.log_bytes, log_state).await {
        Ok(log) => log,
        // The daemon died between sealing the log and storing the result.
        Err(LogError::Sealed { .. }) if let Some(end) = ended => return finish::commit(deps, &attempt, end).await,
        Err(error) => {
            return finish::unlogged(deps, &attempt, format!("the log cannot be written: {}", chain(&error))).await;
        }
    };
    if let Some(end) = ended {
        return finish::finish(deps, &attempt, log, end).await;
    }
    let made = if checkpoint.is_some() {
        adopt(deps, &attempt, &name).await
    } else {
        let size = attempt.size;
        let line = format!(
            "Machine {name}: image {}, {} CPU, {} MiB, node {} (try {})",
            attempt.label, size.cpus, size.memory_mib, attempt.node, attempt.number
        );
        log.system(0, &line).ok();
        let missing = |line: &str| {
            log.system(0, line).ok();
        };
        if let Some(end) = fetch::commit(deps, &attempt, &detail.plan, &stop, missing).await? {
            return finish::finish(deps, &attempt, log, end).await;
        }
        prepare::start(deps, &attempt).await
    };
    let (endpoints, doors) = match made {
        Ok(made) => made,
        Err(PrepareError::Fenced) => return Err(Stopped::Fenced),
        Err(PrepareError::Store(error)) => return Err(error.into()),
        Err(error) => {
            let cause = chain(&error);
            return finish::finish(deps, &attempt, log, End::Infra { cause }).await;
        }
    };
    if start == Start::Fresh {
        deps.store.machine_state(&name, MachineState::Running).await?;
    }
    let job = prepare::job(deps, &attempt, &detail, &endpoints);
    let last_sequence = log.last_sequence();
    let progress = checkpoint.map_or_else(|| Progress::new(&job), |c| c.progress);
    let mut task = Task {
        deps,
        attempt: &attempt,
        name,
        job,
        progress,
        log,
        doors,
        to_agent: None,
        facts: String::new(),
        last_sequence,
        sync_at: None,
        granted: false,
    };
    // From here on a restarted daemon adopts the machine instead of making another.
    task.checkpoint().await?;
    let end = task.drive(stop).await?;
    finish::finish(deps, &attempt, task.log, end).await
}

/// The endpoints of a machine that an earlier daemon started.
async fn adopt(
    deps: &Deps,
    attempt: &AttemptRow,
    name: &MachineName,
) -> Result<(crate::machine::Endpoints, Doors), PrepareError> {
    let gone = |reason: String| {
        PrepareError::Machine(crate::machine::MachineError {
            operation: crate::machine::Operation::Observe,
            machine: name.to_string(),
            reason,
            retryable: true,
        })
    };
    match deps.machines.observe(name).await? {
        Observed::Running => {}
        Observed::Stopped(how) => return Err(gone(format!("it ended while the node was away: {how}"))),
        Observed::Prepared | Observed::Absent => return Err(gone("it was gone when the node came back".into())),
    }
    let endpoints = deps
        .machines
        .endpoints(name)
        .await?
        .ok_or_else(|| gone("it has no endpoints".into()))?;
    let doors = prepare::open(deps, attempt, &endpoints).await?;
    Ok((endpoints, doors))
}

struct Task<'a> {
    deps: &'a Deps,
    attempt: &'a AttemptRow,
    name: MachineName,
    job: Arc<Job>,
    progress: Progress,
    log: LogWriter,
    doors: Doors,
    /// The newest connection, once it was welcomed.
    to_agent: Option<mpsc::Sender<v1::ToAgent>>,
    /// The machine's facts as JSON, from the newest hello.
    facts: String,
    /// The agent's last event that needs no more handling.
    last_sequence: u64,
    /// When what was written must be made durable.
    sync_at: Option<tokio::time::Instant>,
    /// The source is ready to be fetched.
    granted: bool,
}

/// Effects that must be durable before the machine hears of anything that follows them.
#[derive(Debug, Default)]
struct Due {
    running: bool,
    steps: Vec<StepUpdate>,
    checkpoint: bool,
}

/// What one turn of the loop saw.
#[allow(clippy::large_enum_variant, reason = "one value at a time, on the stack of one task")]
enum Turn {
    Link(Option<LinkEvent>),
    Sync,
    Wake(Wake),
    Stopped(String),
    Limit,
    Heartbeat,
}

impl Task<'_> {
    async fn drive(&mut self, stop: CancellationToken) -> Result<End, Stopped> {
        let mut hints = self.deps.hints.subscribe();
        let (machines, name) = (Arc::clone(&self.deps.machines), self.name.clone());
        let stopped = async move {
            match machines.wait_stopped(&name).await {
                Ok(Observed::Stopped(how)) => how,
                Ok(_) => "it is gone".to_owned(),
                Err(error) => chain(&error),
            }
        };
        tokio::pin!(stopped);
        let mut last = Instant::now();
        let mut heartbeat = tokio::time::interval_at(tokio::time::Instant::now() + HEARTBEAT, HEARTBEAT);
        let mut look = tokio::time::interval(LOOK);
        // A cancel that came before the subscription is found here, one that comes later by its hint.
        self.look_for_cancel().await?;
        loop {
            if let Phase::Ended(end) = &self.progress.phase {
                return Ok(end.clone());
            }
            let limit = Duration::from_millis(
                self.progress
                    .next_limit_ms(&self.job, self.to_agent.is_some())
                    .min(86_400_000),
            );
            let sync_at = self.sync_at;
            let turn = tokio::select! {
                biased;
                () = stop.cancelled() => {
                    self.sync().await;
                    self.checkpoint().await?;
                    return Err(Stopped::Shutdown);
                }
                () = async { match sync_at { Some(at) => tokio::time::sleep_until(at).await, None => std::future::pending().await } } => Turn::Sync,
                event = self.doors.link.events.recv() => Turn::Link(event),
                wake = next(&mut hints) => Turn::Wake(wake),
                how = &mut stopped => Turn::Stopped(how),
                _ = heartbeat.tick() => Turn::Heartbeat,
                _ = look.tick() => Turn::Wake(Wake::Everything),
                () = tokio::time::sleep(limit) => Turn::Limit,
            };
            let ms = u64::try_from(last.elapsed().as_millis()).unwrap_or(u64::MAX);
            last += Duration::from_millis(ms);
            self.feed(Event::Elapsed {
                ms,
                connected: self.to_agent.is_some(),
            })
            .await?;
            match turn {
                Turn::Link(Some(event)) => self.link(event).await?,
                Turn::Link(None) => {
                    self.feed(Event::Lost {
                        cause: "the node closed the machine's listener".into(),
                    })
                    .await?
                }
                Turn::Sync => self.sync().await,
                Turn::Wake(Wake::Hint(Hint::Cancel(id))) if id == self.attempt.id => self.look_for_cancel().await?,
                Turn::Wake(Wake::Everything) => self.look_for_cancel().await?,
                Turn::Wake(Wake::Hint(_)) | Turn::Limit => {}
                Turn::Stopped(how) => {
                    // What the agent said before it went is still in the channel.
                    while let Ok(event) = self.doors.link.events.try_recv() {
                        self.link(event).await?;
                    }
                    self.feed(Event::Lost {
                        cause: format!("the machine stopped: {how}"),
                    })
                    .await?;
                }
                Turn::Heartbeat => self.checkpoint().await?,
            }
        }
    }

    async fn look_for_cancel(&mut self) -> Result<(), Stopped> {
        if let Some(cancel) = self.deps.store.cancel_state(self.attempt.id).await? {
            self.feed(Event::Cancel {
                by: cancel.by,
                reason: cancel.reason,
                force: cancel.force,
            })
            .await?;
        }
        Ok(())
    }

    async fn link(&mut self, event: LinkEvent) -> Result<(), Stopped> {
        match event {
            LinkEvent::Connected { hello, to_agent } => self.connected(&hello, to_agent).await,
            LinkEvent::Disconnected => {
                self.to_agent = None;
                Ok(())
            }
            LinkEvent::Event(event) => self.event(event).await,
        }
    }

    async fn connected(&mut self, hello: &v1::Hello, to_agent: mpsc::Sender<v1::ToAgent>) -> Result<(), Stopped> {
        if let Some(facts) = &hello.facts {
            self.facts = facts_json(facts);
        }
        self.to_agent = Some(to_agent);
        self.send(v1::to_agent::Message::Welcome(v1::Welcome {
            version: helios_proto::VERSIONS.1.min(hello.version_max),
            last_sequence: self.last_sequence.max(self.log.last_sequence()),
            time_ms: now_ms(),
            known_ended: Vec::new(),
        }));
        if self.progress.phase == Phase::Booting {
            failpoint::hit(Point::AgentJoined);
            return self.feed(Event::AgentReady).await;
        }
        self.feed(Event::Connected).await?;
        // The agent ignores what it has seen before.
        if let Some(running) = self.progress.running.clone() {
            self.send_running().await?;
            if running.stop.is_some() {
                self.send_stop();
            }
        }
        Ok(())
    }

    /// One event of the agent: its output goes to the log, its meaning to the state machine, and
    /// only then it counts as handled.
    async fn event(&mut self, event: v1::Event) -> Result<(), Stopped> {
        let v1::Event {
            sequence,
            exec_id: exec,
            time_ms,
            event: Some(event),
        } = event
        else {
            return Ok(());
        };
        if sequence <= self.last_sequence {
            return Ok(());
        }
        let step = self
            .progress
            .running
            .as_ref()
            .filter(|r| r.exec == exec)
            .map(|r| r.step);
        match event {
            v1::event::Event::Output(output) => {
                let channel = match output.stream() {
                    v1::output::Stream::Stderr => Channel::Stderr,
                    _ => Channel::Stdout,
                };
                if let Some(step) = step {
                    self.output(sequence, step, channel, time_ms, &output.data).await?;
                    self.feed(Event::Output { exec }).await?;
                }
            }
            v1::event::Event::Exited(exited) => {
                let how = match exited.how {
                    Some(v1::exited::How::Code(code)) => Exit::Code(code),
                    Some(v1::exited::How::Signal(signal)) => Exit::Signal(signal),
                    None => Exit::Code(-1),
                };
                if let (Some(step), true) = (step, exited.leftovers > 0) {
                    self.line(
                        step,
                        &format!(
                            "{} process(es) of this step were still running and were ended.",
                            exited.leftovers
                        ),
                    );
                }
                failpoint::hit(Point::StepEnded);
                self.feed(Event::Exited { exec, how }).await?;
            }
            v1::event::Event::Failed(failed) => {
                let message: String = failed.message.chars().filter(|c| !c.is_control()).take(500).collect();
                self.feed(Event::Refused { exec, message }).await?;
            }
            v1::event::Event::OutputSkipped(skipped) => {
                if let Some(step) = step {
                    self.line(step, &format!("{} bytes of output were left out here.", skipped.bytes));
                }
            }
            v1::event::Event::ClockStepped(stepped) => {
                self.line(
                    0,
                    &format!("The machine's clock was off by {} ms and was set.", stepped.offset_ms),
                );
            }
            v1::event::Event::Started(_)
            | v1::event::Event::Done(_)
            | v1::event::Event::Files(_)
            | v1::event::Event::Metrics(_) => {}
        }
        self.last_sequence = sequence;
        self.log.consumed(sequence);
        self.dirty();
        Ok(())
    }

    async fn output(
        &mut self,
        sequence: u64,
        step: usize,
        channel: Channel,
        guest_ms: i64,
        data: &[u8],
    ) -> Result<(), Stopped> {
        let caused = match self.log.output(sequence, number(step), channel, guest_ms, data) {
            Ok(caused) => caused,
            Err(error) => return self.log_failed(&error).await,
        };
        failpoint::hit(Point::OutputWritten);
        self.deps
            .metrics
            .log_bytes(u64::try_from(data.len()).unwrap_or(u64::MAX));
        self.dirty();
        if !caused.new_masks.is_empty() {
            failpoint::hit(Point::MaskFound);
            // Before the frame is acknowledged: a daemon that takes over must know the mask.
            self.checkpoint().await?;
        }
        if caused.cap_reached {
            let target = self.progress.running.as_ref().map_or(0, |r| r.exec);
            self.command(
                QUIET_BASE + target,
                v1::command::Command::QuietOutput(v1::QuietOutput {
                    target: 0,
                    tail_bytes: TAIL_BYTES,
                }),
            );
        }
        Ok(())
    }

    /// A log that cannot be written ends the attempt in words: a result without its log is none.
    async fn log_failed(&mut self, error: &LogError) -> Result<(), Stopped> {
        let cause = format!("the log cannot be written: {}", chain(error));
        Box::pin(self.feed(Event::Lost { cause })).await
    }

    fn line(&mut self, step: usize, line: &str) {
        if let Err(error) = self.log.system(number(step), line) {
            tracing::warn!(attempt = %self.attempt.id, error = &error as &dyn std::error::Error, "a line of ours is missing in a log");
        }
        self.dirty();
    }

    fn dirty(&mut self) {
        self.sync_at
            .get_or_insert_with(|| tokio::time::Instant::now() + SYNC_AFTER);
    }

    /// Makes the log durable and acknowledges what it holds.
    async fn sync(&mut self) {
        self.sync_at = None;
        match self.log.sync().await {
            Ok(sequence) => {
                failpoint::hit(Point::OutputSynced);
                self.send(v1::to_agent::Message::Acknowledge(v1::Acknowledge { sequence }));
            }
            Err(error) => {
                tracing::error!(attempt = %self.attempt.id, error = &error as &dyn std::error::Error, "a log cannot be made durable");
                let cause = format!("the log cannot be made durable: {}", chain(&error));
                if let Err(stopped) = Box::pin(self.feed(Event::Lost { cause })).await {
                    tracing::error!(attempt = %self.attempt.id, %stopped, "an attempt with a broken log was left");
                }
            }
        }
    }

    async fn checkpoint(&self) -> Result<(), Stopped> {
        let checkpoint = Checkpoint {
            progress: self.progress.clone(),
            masks: self.log.masks().to_vec(),
            log: self.log.state_for_checkpoint(),
        };
        if checkpoint
            .store(&self.deps.store, &self.deps.seal, self.attempt.id, self.attempt.epoch)
            .await?
        {
            Ok(())
        } else {
            Err(Stopped::Fenced)
        }
    }

    async fn feed(&mut self, event: Event) -> Result<(), Stopped> {
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

    /// Stores everything side by side, which the store makes one transaction: a step's begin costs one
    /// wait for the disk and not three.
    async fn store(&self, due: Due) -> Result<(), Stopped> {
        let (id, epoch, store) = (self.attempt.id, self.attempt.epoch, &self.deps.store);
        let (told, changed) = (due.running, due.running || !due.steps.is_empty());
        let running = async {
            match due.running {
                true => store.attempt_running(id, epoch, &self.facts).await,
                false => Ok(true),
            }
        };
        let steps = futures::future::try_join_all(due.steps.into_iter().map(|update| store.step(id, epoch, update)));
        let checkpoint = async {
            match due.checkpoint {
                true => self.checkpoint().await,
                false => Ok(()),
            }
        };
        let (running, steps, checkpoint) = tokio::join!(running, steps, checkpoint);
        if !running? || steps?.contains(&false) {
            return Err(Stopped::Fenced);
        }
        checkpoint?;
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
            // The loop sees the phase.
            Effect::End => {}
        }
        Ok(())
    }

    fn step_update(&self, index: usize) -> Option<StepUpdate> {
        let (step, planned) = (self.progress.steps.get(index)?, self.job.plan.steps.get(index)?);
        Some(StepUpdate {
            index: number(index),
            name: planned.name.clone(),
            state: step.state,
            exit_code: step.exit_code,
            message: step.message.clone(),
            started_ms: step.started_ms,
            ended_ms: step.ended_ms,
            allowed_failure: planned.continue_on_error,
        })
    }

    /// Sends the running command. A checkout first gets its source granted.
    async fn send_running(&mut self) -> Result<(), Stopped> {
        let Some(running) = self.progress.running.clone() else {
            return Ok(());
        };
        let action = self.job.plan.steps.get(running.step).map(|step| &step.action);
        if let Some(Action::Checkout { .. }) = action
            && !self.granted
        {
            let depth = self.job.source_depth();
            match self
                .deps
                .source
                .grant(&self.attempt.repository, self.attempt.id, &self.attempt.commit, depth)
                .await
            {
                Ok(_) => {
                    self.granted = true;
                    let source = &self.deps.source;
                    if source
                        .has_submodules(&self.attempt.repository, &self.attempt.commit)
                        .await
                        .unwrap_or(false)
                    {
                        self.line(running.step, "This commit has submodules; they are not fetched.");
                    }
                }
                Err(error) => {
                    let cause = format!("the source cannot be granted: {}", chain(&error));
                    return Box::pin(self.feed(Event::Lost { cause })).await;
                }
            }
        }
        if let Some(exec) = self.job.command(running.step, running.part) {
            self.command(running.exec, v1::command::Command::Exec(exec));
        }
        Ok(())
    }

    fn send_stop(&mut self) {
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

    fn command(&mut self, exec_id: u64, command: v1::command::Command) {
        self.send(v1::to_agent::Message::Command(v1::Command {
            exec_id,
            command: Some(command),
        }));
    }

    /// An agent that does not read loses its connection; it dials again and hears everything anew.
    fn send(&mut self, message: v1::to_agent::Message) {
        if let Some(to_agent) = &self.to_agent
            && to_agent.try_send(v1::ToAgent { message: Some(message) }).is_err()
        {
            self.to_agent = None;
        }
    }
}

/// Ids of quiet commands lie far above those of the state machine.
const QUIET_BASE: u64 = 1 << 40;

/// The next hint; without a sender there is none, ever.
async fn next(hints: &mut Receiver) -> Wake {
    match hints.next().await {
        Some(wake) => wake,
        None => std::future::pending().await,
    }
}

fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

/// An error with its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

fn facts_json(facts: &v1::MachineFacts) -> String {
    let short = |text: &str| text.chars().take(200).collect::<String>();
    serde_json::json!({
        "os": short(&facts.os),
        "architecture": short(&facts.architecture),
        "kernel": short(&facts.kernel),
        "hostname": short(&facts.hostname),
        "cpus": facts.cpus,
        "memory_bytes": facts.memory_bytes,
        "agent_version": short(&facts.agent_version),
    })
    .to_string()
}
