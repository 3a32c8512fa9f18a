//! The agent for the life of its machine: what it was told, what runs, and the one attempt it
//! serves. Sessions come and go; this stays.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    future::Future,
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use helios_proto::{
    VERSIONS,
    v1::{self, Hello, command, event, hello::Credential},
};
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use tonic::transport::Channel;

use crate::{
    clock,
    exec::{self, Control, Place, escalation::Stop, tree::Trees},
    facts,
    files::{FileError, transfer::Transfers, walk},
    outbox::Outbox,
    random,
    seed::Seed,
    spool::{Limits, Spool},
};

/// How long a message of the agent may be; the rest says nothing new.
const MAX_MESSAGE: usize = 8 * 1024;

/// How long the last events may take to be acknowledged before the machine goes off without.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What is left of a tree that was killed has this long to go.
const LAST_KILL: Duration = Duration::from_secs(15);

/// See the module.
#[derive(Debug)]
pub struct Agent {
    /// What the seed disk says.
    pub seed: Seed,
    /// Events on their way to the node.
    pub outbox: Arc<Outbox>,
    /// The open connection, for transfers.
    pub channel: watch::Sender<Option<Channel>>,
    session_key: [u8; 32],
    place: Place,
    /// A plain mutex: nothing is awaited while it is held.
    state: Mutex<State>,
    /// How many execs run.
    active: watch::Sender<usize>,
    /// Becomes true when a Shutdown is through.
    over: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    /// Every exec id of the machine's life: a command that comes again after a reconnect is known.
    /// That is why `known_ended` of a welcome removes nothing here.
    seen: BTreeSet<u64>,
    running: BTreeMap<u64, Running>,
    /// Set once all output is only to be counted, that of execs to come included.
    quiet: Option<u64>,
    /// No exec is started any more.
    ending: bool,
    /// The offset that was reported last, where the clock may not be set.
    reported_offset: Option<i64>,
}

/// How to reach an exec that runs.
#[derive(Debug)]
struct Running {
    stops: mpsc::UnboundedSender<Stop>,
    quiet: watch::Sender<Option<u64>>,
}

impl Agent {
    /// A new agent for the attempt of `seed`, whose `state_dir` exists.
    pub fn new(seed: Seed) -> io::Result<Arc<Self>> {
        let trees = Trees::detect(seed.power_off, &random::hex::<8>()?);
        let outbox = Arc::new(Outbox::new(Spool::new(seed.state_dir.clone(), Limits::default())));
        Ok(Arc::new(Self {
            session_key: random::bytes()?,
            place: Place::new(trees, seed.state_dir.clone(), Arc::clone(&outbox)),
            outbox,
            seed,
            state: Mutex::default(),
            channel: watch::Sender::new(None),
            active: watch::Sender::new(0),
            over: watch::Sender::new(false),
        }))
    }

    /// What the agent says first on every connection.
    pub fn hello(&self, joined: bool) -> io::Result<Hello> {
        let token = || Credential::JoinToken(self.seed.token.expose().to_owned());
        Ok(Hello {
            version_min: VERSIONS.0,
            version_max: VERSIONS.1,
            features: vec![self.place.trees.feature().to_owned()],
            session_key: self.session_key.to_vec(),
            attempt: self.seed.attempt.clone(),
            credential: Some(if joined { Credential::Resume(true) } else { token() }),
            last_sequence: self.outbox.last(),
            facts: Some(facts::facts()?),
            running: self.lock().running.keys().copied().collect(),
        })
    }

    /// Steps the clock when it is off, or says by how much where it may not.
    pub fn correct_clock(&self, node_ms: i64) {
        let Some(offset) = clock::offset(node_ms) else { return };
        if !self.seed.power_off {
            // Not our machine. Once is enough: it will be the same at every reconnect.
            let last = self.lock().reported_offset.replace(offset);
            if last.is_some_and(|last| last.abs_diff(offset) <= clock::TOLERANCE_MS.unsigned_abs()) {
                return;
            }
        } else if let Err(error) = clock::set(node_ms) {
            eprintln!("helios-agent: the clock is off by {offset} ms and cannot be set: {error}");
            return;
        }
        self.outbox
            .push(0, event::Event::ClockStepped(v1::ClockStepped { offset_ms: offset }));
    }

    /// Carries out a command, once however often it comes.
    pub fn apply(self: &Arc<Self>, command: v1::Command) {
        let exec_id = command.exec_id;
        if exec_id == 0 {
            eprintln!("helios-agent: a command without an exec id is ignored");
            return;
        }
        if !self.lock().seen.insert(exec_id) {
            return;
        }
        let agent = Arc::clone(self);
        match command.command {
            Some(command::Command::Exec(exec)) => self.exec(exec_id, exec),
            Some(command::Command::Signal(signal)) => self.settle(exec_id, self.signal(&signal)),
            Some(command::Command::QuietOutput(quiet)) => self.settle(exec_id, self.quiet(&quiet)),
            Some(command::Command::SetTime(time)) => self.settle(exec_id, self.set_time(time.time_ms)),
            Some(command::Command::WriteFile(file)) => {
                self.spawn(exec_id, async move { agent.transfers().write(file).await.map(done) });
            }
            Some(command::Command::ReadFile(file)) => {
                self.spawn(exec_id, async move { agent.transfers().read(file).await.map(done) });
            }
            Some(command::Command::Walk(walk)) => {
                self.search(exec_id, move || walk::walk(walk.root, &walk.patterns, walk.max_files));
            }
            Some(command::Command::HashFiles(hash)) => {
                self.search(exec_id, move || walk::hash(hash.root, &hash.patterns, hash.max_files));
            }
            Some(command::Command::EndProcesses(_)) => self.spawn(exec_id, async move {
                Ok(event::Event::ProcessesEnded(agent.place.survivors.end().await))
            }),
            Some(command::Command::Shutdown(shutdown)) => {
                tokio::spawn(async move {
                    agent
                        .stop_all(Duration::from_millis(u64::from(shutdown.grace_ms)))
                        .await;
                    agent.outbox.push(exec_id, done(0));
                    agent.over.send_replace(true);
                });
            }
            None => self.settle(
                exec_id,
                Err(format!(
                    "this agent ({}) does not know the command; the node is newer",
                    facts::VERSION
                )),
            ),
        }
    }

    /// Starts no exec any more, stops all that run, and waits until they are gone or cannot be
    /// killed.
    pub async fn stop_all(&self, grace: Duration) {
        let gentle = Stop::Cancel(grace / 2, grace / 2);
        let stop = if grace.is_zero() { Stop::Kill } else { gentle };
        {
            let mut state = self.lock();
            state.ending = true;
            for running in state.running.values() {
                // An error means that it has just ended.
                let _ = running.stops.send(stop);
            }
        }
        let mut active = self.active.subscribe();
        if timeout(grace + LAST_KILL, active.wait_for(|active| *active == 0))
            .await
            .is_err()
        {
            eprintln!("helios-agent: some processes cannot be killed");
        }
        // Each of them is reported when it cannot be killed.
        self.place.survivors.end().await;
    }

    /// Waits until a Shutdown is through and the node has heard of it, or does not listen.
    pub async fn finished(&self) {
        let mut over = self.over.subscribe();
        // The sender is a field of self, so this cannot end early.
        let _ = over.wait_for(|over| *over).await;
        if timeout(LAST_WORDS, self.outbox.flushed()).await.is_err() {
            eprintln!("helios-agent: the node has not acknowledged the last events");
        }
    }

    /// Reports what the machine uses for as long as something runs.
    pub async fn measure(&self) {
        let mut active = self.active.subscribe();
        // The sender is a field of self, so this cannot end early.
        while active.wait_for(|active| *active > 0).await.is_ok() {
            sleep(facts::METRICS_EVERY).await;
            if *active.borrow() == 0 {
                continue;
            }
            match facts::metrics(Path::new("/")) {
                Ok(metrics) => self.outbox.push(0, event::Event::Metrics(metrics)),
                Err(error) => eprintln!("helios-agent: cannot measure the machine: {error}"),
            }
        }
    }

    fn exec(self: &Arc<Self>, exec_id: u64, exec: v1::Exec) {
        let (stops, stops_received) = mpsc::unbounded_channel();
        let quiet = {
            let mut state = self.lock();
            if state.ending {
                drop(state);
                return self.settle(exec_id, Err("the machine is shutting down".to_owned()));
            }
            let quiet = watch::Sender::new(state.quiet);
            let received = quiet.subscribe();
            state.running.insert(exec_id, Running { stops, quiet });
            received
        };
        self.active.send_modify(|active| *active += 1);
        let agent = Arc::clone(self);
        tokio::spawn(async move {
            let control = Control {
                stops: stops_received,
                quiet,
            };
            let ran = exec::run(exec_id, exec, &agent.place, control).await;
            if let Err(error) = ran {
                agent.fail(exec_id, &error);
            }
            agent.lock().running.remove(&exec_id);
            agent.active.send_modify(|active| *active -= 1);
        });
    }

    fn signal(&self, signal: &v1::Signal) -> Result<(), String> {
        let stop = Stop::try_from(signal)?;
        let state = self.lock();
        let running = state.running.get(&signal.target);
        running
            .and_then(|running| running.stops.send(stop).ok())
            .ok_or_else(|| not_running(signal.target))
    }

    fn quiet(&self, quiet: &v1::QuietOutput) -> Result<(), String> {
        let mut state = self.lock();
        if quiet.target != 0 {
            let running = state
                .running
                .get(&quiet.target)
                .ok_or_else(|| not_running(quiet.target))?;
            running.quiet.send_replace(Some(quiet.tail_bytes));
            return Ok(());
        }
        state.quiet = Some(quiet.tail_bytes);
        for running in state.running.values() {
            running.quiet.send_replace(Some(quiet.tail_bytes));
        }
        Ok(())
    }

    fn set_time(&self, time_ms: i64) -> Result<(), String> {
        if !self.seed.power_off {
            return Err("the clock is not this machine's own and is left alone".to_owned());
        }
        clock::set(time_ms).map_err(|error| format!("cannot set the clock: {error}"))
    }

    fn transfers(&self) -> Transfers {
        Transfers {
            attempt: self.seed.attempt.clone(),
            session_key: Bytes::copy_from_slice(&self.session_key),
            channel: self.channel.subscribe(),
        }
    }

    /// Runs a search on a thread of its own, as it waits for the disk all the time.
    fn search(self: &Arc<Self>, exec_id: u64, search: impl FnOnce() -> Result<v1::Files, FileError> + Send + 'static) {
        self.spawn(exec_id, async move {
            match tokio::task::spawn_blocking(search).await {
                Ok(found) => found.map(event::Event::Files),
                Err(error) => Err(FileError::Invalid(format!("the search was lost: {error}"))),
            }
        });
    }

    /// Runs a command whose outcome is one event.
    fn spawn(
        self: &Arc<Self>,
        exec_id: u64,
        command: impl Future<Output = Result<event::Event, FileError>> + Send + 'static,
    ) {
        let agent = Arc::clone(self);
        tokio::spawn(async move {
            match command.await {
                Ok(event) => agent.outbox.push(exec_id, event),
                Err(error) => agent.fail(exec_id, &error),
            }
        });
    }

    fn settle(&self, exec_id: u64, outcome: Result<(), String>) {
        let event = match outcome {
            Ok(()) => done(0),
            Err(message) => event::Event::Failed(v1::Failed { message }),
        };
        self.outbox.push(exec_id, event);
    }

    fn fail(&self, exec_id: u64, error: &dyn Error) {
        self.settle(exec_id, Err(chain(error)));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn done(bytes: u64) -> event::Event {
    event::Event::Done(v1::Done { bytes })
}

fn not_running(target: u64) -> String {
    format!("exec {target} does not run")
}

/// An error with all its causes on one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    let mut end = text.len().min(MAX_MESSAGE);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}
