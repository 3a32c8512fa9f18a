//! The one task of an attempt: it feeds the state machine with what happens and performs what the
//! state machine decides. It owns the log, the link and the checkpoint.

mod agent_events;
mod effects;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use helios_proto::v1;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    agent_end,
    checkpoint::{Checkpoint, CheckpointError},
    fetch, finish,
    job::{Job, JobStep},
    prepare::{self, Doors, PrepareError},
    progress::{End, Event, Phase, Progress},
    resolve::resolve,
    sections::MACHINE,
};
use crate::{
    agent_api::LinkEvent,
    daemon::Deps,
    driver::{destroy::destroy_once, stopped::Stopped},
    error_chain::chain,
    failpoint::{self, Point},
    logs::{LogError, LogWriter},
    machine::Observed,
    model::{
        names::MachineName,
        state::{AttemptState, JobResult},
    },
    queue::{Hint, Receiver, Wake},
    store::AttemptRow,
};

/// Output is made durable and acknowledged this long after the first byte that was not.
const SYNC_AFTER: Duration = Duration::from_millis(10);
/// How often the clocks of an attempt are checkpointed while nothing else is.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// How often a cancel is looked for without a hint: the one who asked may sit at another node.
const CANCEL_POLL: Duration = Duration::from_secs(5);
/// After the database failed, an attempt is taken up again this much later.
const AGAIN: Duration = Duration::from_secs(2);

/// How an attempt comes to this task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Claimed just now.
    Fresh,
    /// Owned by this node before the daemon restarted.
    Adopted,
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
                    destroy_once(&deps, &MachineName::of(id)).await;
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
    let checkpoint = match load_checkpoint(deps, &attempt, start).await? {
        Ok(checkpoint) => checkpoint,
        Err(cause) => return finish::unlogged(deps, &attempt, cause, &stop).await,
    };
    let decided = || checkpoint.as_ref().and_then(|c| c.progress.decided().cloned());
    let (masks, log_state) = checkpoint
        .as_ref()
        .map_or_else(Default::default, |c| (c.masks.clone(), Some(c.log.clone())));
    let cap = deps.config.limits.log_bytes;
    let mut log = match deps.logs.open_writer(attempt.id, masks, cap, log_state).await {
        Ok(log) => log,
        Err(error) => return without_log(deps, &attempt, decided(), &error, &stop).await,
    };
    if let Some(Phase::Ended(end)) = checkpoint.as_ref().map(|c| &c.progress.phase) {
        return finish::finish(deps, &attempt, log, end.clone(), &stop).await;
    }
    // An end that no checkpoint has, as the machine could not be taken up again: readers know it, so nothing follows it,
    // though the machine may be there by now.
    if log.has_ended() {
        let cause = "the node was interrupted while the attempt ended".into();
        let end = decided().unwrap_or(End::Infra { cause });
        return finish::finish(deps, &attempt, log, end, &stop).await;
    }
    let resolved = match resolve(&detail.workflow_env, &detail.plan) {
        Ok(resolved) => resolved,
        Err(error) => {
            let (result, message) = (JobResult::Error, error.to_string());
            let end = decided().unwrap_or(End::Result { result, message });
            return finish::finish(deps, &attempt, log, end, &stop).await;
        }
    };
    let made = if checkpoint.is_some() {
        adopt(deps, &attempt, &name).await
    } else {
        if let Some(end) = begin(deps, &attempt, &name, &resolved.steps, &mut log, &stop).await? {
            return finish::finish(deps, &attempt, log, end, &stop).await;
        }
        prepare::start(deps, &attempt).await
    };
    let (endpoints, doors) = match made {
        Ok(made) => made,
        Err(PrepareError::Fenced) => return Err(Stopped::Fenced),
        Err(PrepareError::Store(error)) => return Err(error.into()),
        Err(error) => {
            let end = decided().unwrap_or_else(|| End::Infra { cause: chain(&error) });
            return finish::finish(deps, &attempt, log, end, &stop).await;
        }
    };
    let job = prepare::job(deps, &attempt, &detail, resolved, &endpoints);
    let last_sequence = log.last_sequence();
    let progress = checkpoint.map_or_else(|| Progress::new(&job), |c| c.progress);
    let mut task = Task {
        deps,
        attempt: &attempt,
        name: name.clone(),
        job,
        progress,
        log,
        doors,
        to_agent: None,
        facts: String::new(),
        last_sequence,
        sync_at: None,
        unsynced: 0,
        granted: false,
        surveyed: None,
        anew: false,
    };
    match start {
        // From here on a restarted daemon adopts the machine instead of making another.
        Start::Fresh => task.machine_started().await?,
        Start::Adopted => task.checkpoint().await?,
    }
    let end = task.drive(&stop).await?;
    let Task {
        log, doors, to_agent, ..
    } = task;
    // Closed before the result is stored: an agent that dialled again after that would be refused, which ends its
    // machine, and the machine may be one that stays.
    drop((doors, to_agent));
    finish::finish(deps, &attempt, log, end, &stop).await
}

/// Where an attempt goes on; the inner error says why it cannot.
async fn load_checkpoint(
    deps: &Deps,
    attempt: &AttemptRow,
    start: Start,
) -> Result<Result<Option<Checkpoint>, String>, Stopped> {
    match start {
        Start::Fresh => Ok(Ok(None)),
        Start::Adopted => match Checkpoint::load(&deps.store, &deps.seal, attempt.id).await {
            Ok(Some(checkpoint)) => Ok(Ok(Some(checkpoint))),
            Ok(None) => Ok(Err("the node was interrupted while the machine was being made".into())),
            Err(CheckpointError::Store(error)) => Err(error.into()),
            Err(error) => Ok(Err(format!("the node was interrupted: {error}"))),
        },
    }
}

/// Ends an attempt whose log cannot be opened. What was decided stays, also where its last lines are lost.
async fn without_log(
    deps: &Deps,
    attempt: &AttemptRow,
    decided: Option<End>,
    error: &LogError,
    stop: &CancellationToken,
) -> Result<(), Stopped> {
    let Some(end) = decided else {
        let cause = format!("the log cannot be written: {}", chain(error));
        return finish::unlogged(deps, attempt, cause, stop).await;
    };
    // Sealed, the log is whole: the daemon died before it stored the result.
    if !matches!(error, LogError::Sealed { .. }) {
        tracing::error!(attempt = %attempt.id, error = chain(error), "the log of an attempt that has ended is left as it is");
    }
    finish::commit(deps, attempt, end, stop).await
}

/// Says what the machine will be, and fetches the source. `Some` is the attempt's end: it cannot be had.
async fn begin(
    deps: &Deps,
    attempt: &AttemptRow,
    name: &MachineName,
    steps: &[JobStep],
    log: &mut LogWriter,
    stop: &CancellationToken,
) -> Result<Option<End>, Stopped> {
    let size = attempt.size;
    let line = format!(
        "{MACHINE}{name}: image {}, {} CPU, {} MiB, node {} (try {})",
        attempt.label, size.cpus, size.memory_mib, attempt.node, attempt.number
    );
    log.system(0, &line).ok();
    fetch::source(deps, attempt, steps, stop, |line: &str| {
        log.system(0, line).ok();
    })
    .await
}

/// The endpoints of a machine that an earlier daemon started.
async fn adopt(
    deps: &Deps,
    attempt: &AttemptRow,
    name: &MachineName,
) -> Result<(crate::machine::Endpoints, Doors), PrepareError> {
    let gone = |how: String| PrepareError::Gone {
        machine: name.to_string(),
        how,
    };
    match deps.machines.observe(name).await? {
        Observed::Running => {}
        Observed::Stopped(how) => return Err(gone(format!("ended while the node was away: {how}"))),
        Observed::Prepared | Observed::Absent => return Err(gone("was gone when the node came back".into())),
    }
    let endpoints = deps
        .machines
        .endpoints(name)
        .await?
        .ok_or_else(|| gone("has no endpoints".into()))?;
    let doors = prepare::open(deps, attempt, &endpoints).await?;
    Ok((endpoints, doors))
}

/// What an agent's second hello with its token means, when its machine ends after it.
const ANEW: &str = "the guest rebooted, or its agent was started again, and knew nothing of its job";

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
    /// Bytes of output that were written since the last sync began.
    unsynced: usize,
    /// The source is ready to be fetched.
    granted: bool,
    /// The step of which was said what its checkout leaves out.
    surveyed: Option<usize>,
    /// An agent with the token of this one began anew, and was refused.
    anew: bool,
}

/// What one turn of the loop saw.
#[allow(clippy::large_enum_variant, reason = "one value at a time, on the stack of one task")]
enum Turn {
    Link(Option<LinkEvent>),
    Sync,
    Synced(Result<u64, LogError>),
    Wake(Wake),
    Stopped(String),
    Limit,
    Heartbeat,
}

impl Task<'_> {
    async fn drive(&mut self, stop: &CancellationToken) -> Result<End, Stopped> {
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
        let mut cancel_poll = tokio::time::interval(CANCEL_POLL);
        // A cancel that came before the subscription is found here, one that comes later by its hint.
        self.poll_cancel().await?;
        loop {
            if let Phase::Ended(end) = &self.progress.phase {
                return Ok(end.clone());
            }
            let limit = Duration::from_millis(
                self.progress
                    .next_limit_ms(&self.job, self.to_agent.is_some())
                    .min(86_400_000),
            );
            let sync_at = self.sync_at.filter(|_| !self.log.is_syncing());
            let turn = tokio::select! {
                biased;
                () = stop.cancelled() => {
                    let synced = self.log.sync().await;
                    self.synced(synced).await?;
                    self.checkpoint().await?;
                    return Err(Stopped::Shutdown);
                }
                synced = self.log.synced() => Turn::Synced(synced),
                () = async { match sync_at { Some(at) => tokio::time::sleep_until(at).await, None => std::future::pending().await } } => Turn::Sync,
                event = self.doors.link.events.recv() => Turn::Link(event),
                wake = next(&mut hints) => Turn::Wake(wake),
                how = &mut stopped => Turn::Stopped(how),
                _ = heartbeat.tick() => Turn::Heartbeat,
                _ = cancel_poll.tick() => Turn::Wake(Wake::Everything),
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
                Turn::Sync => self.begin_sync().await?,
                Turn::Synced(synced) => self.synced(synced).await?,
                Turn::Wake(Wake::Hint(Hint::Cancel(id))) if id == self.attempt.id => self.poll_cancel().await?,
                Turn::Wake(Wake::Everything) => self.poll_cancel().await?,
                Turn::Wake(Wake::Hint(_)) | Turn::Limit => {}
                Turn::Stopped(how) => {
                    // What the agent said before it went is still in the channel.
                    while let Ok(event) = self.doors.link.events.try_recv() {
                        self.link(event).await?;
                    }
                    let event = self.stopped(how).await;
                    self.feed(event).await?;
                }
                Turn::Heartbeat => self.checkpoint().await?,
            }
        }
    }

    /// What the end of the machine means. Who killed its agent is asked only while a step runs: nobody else could have.
    async fn stopped(&self, how: String) -> Event {
        if self.progress.running.is_some()
            && let Some(how) = agent_end::killed(self.deps, &self.name).await
        {
            return Event::AgentKilled { how };
        }
        Event::Lost {
            cause: match self.anew {
                true => format!("{ANEW}; then the machine stopped: {how}"),
                false => format!("the machine stopped: {how}"),
            },
        }
    }

    async fn poll_cancel(&mut self) -> Result<(), Stopped> {
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

    /// Begins to make durable what was written; more is written meanwhile.
    async fn begin_sync(&mut self) -> Result<(), Stopped> {
        (self.sync_at, self.unsynced) = (None, 0);
        match self.log.begin_sync() {
            Ok(()) => Ok(()),
            Err(error) => self.synced(Err(error)).await,
        }
    }

    /// Acknowledges what the log holds durably now.
    async fn synced(&mut self, synced: Result<u64, LogError>) -> Result<(), Stopped> {
        match synced {
            Ok(mut sequence) => {
                failpoint::hit(Point::OutputSynced);
                if self.log.needs_checkpoint() {
                    self.checkpoint().await?;
                    sequence = self.log.checkpointed();
                }
                self.send(v1::to_agent::Message::Acknowledge(v1::Acknowledge { sequence }));
                Ok(())
            }
            Err(error) => {
                tracing::error!(attempt = %self.attempt.id, error = &error as &dyn std::error::Error, "a log cannot be made durable");
                let cause = format!("the log cannot be made durable: {}", chain(&error));
                Box::pin(self.feed(Event::Lost { cause })).await
            }
        }
    }

    /// Stores that the machine runs, together with what a daemon that takes over goes on from.
    async fn machine_started(&self) -> Result<(), Stopped> {
        let (id, epoch) = (self.attempt.id, self.attempt.epoch);
        held(self.deps.store.machine_started(id, epoch, &self.sealed()?).await?)
    }

    async fn checkpoint(&self) -> Result<(), Stopped> {
        let (id, epoch) = (self.attempt.id, self.attempt.epoch);
        held(self.deps.store.checkpoint(id, epoch, &self.sealed()?).await?)
    }

    /// The checkpoint of this moment.
    fn sealed(&self) -> Result<Vec<u8>, CheckpointError> {
        let checkpoint = Checkpoint {
            progress: self.progress.clone(),
            masks: self.log.masks().to_vec(),
            log: self.log.state_for_checkpoint(),
        };
        checkpoint.seal(&self.deps.seal, self.attempt.id)
    }
}

/// What the store says of a write: whether the attempt is still this daemon's.
fn held(held: bool) -> Result<(), Stopped> {
    if held { Ok(()) } else { Err(Stopped::Fenced) }
}

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
