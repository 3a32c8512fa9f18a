//! The node's side of the protocol, small and strict, and the real agent against it.
#![allow(dead_code)] // Each test file uses its own part.
#![allow(
    clippy::disallowed_methods,
    reason = "tests start the agent as a machine would, and look for its end"
)]

pub mod deadline;
pub mod net;

use std::{
    collections::HashMap,
    fs,
    path::PathBuf,
    pin::Pin,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::Stream;
use helios_proto::{
    MAX_OUTPUT, MAX_OUTPUT_UNSAID,
    v1::{
        self, Acknowledge, Event, FromAgent, GetChunk, GetRequest, Hello, PutChunk, PutDone, ToAgent, Welcome,
        agent_server::{Agent, AgentServer},
        command, event, exited, from_agent,
        output::Stream as OutputStream,
        to_agent,
    },
};
use tokio::{
    sync::{Notify, mpsc},
    time::timeout,
};
use tonic::{Request, Response, Status, Streaming};

/// The attempt of every test.
pub const ATTEMPT: &str = "01J9ZP7Q3V8Y2M4N6R5T0W1X2Y";

/// What the node knows and does.
#[derive(Default)]
pub struct State {
    /// Every hello, in order.
    pub hellos: Vec<Hello>,
    /// Every event, without gap or repetition (else `violations`).
    pub events: Vec<Event>,
    /// What the agent did that it must not.
    pub violations: Vec<String>,
    /// Answers to the next hellos, instead of welcome.
    pub refusals: Vec<Status>,
    /// The version of the welcome; 0 is 1.
    pub version: u32,
    /// The node is of an earlier build, which does not say how much output it takes in one event, and takes 64 KiB.
    pub is_earlier: bool,
    /// The node's clock in milliseconds; 0 is the real one.
    pub time_ms: i64,
    /// Acknowledge nothing.
    pub mute: bool,
    /// Commands so far; all are sent again in every session.
    pub commands: Vec<v1::Command>,
    /// Files for Get.
    pub downloads: HashMap<String, Vec<u8>>,
    /// Files from Put.
    pub uploads: HashMap<String, Vec<u8>>,
    session: Option<mpsc::UnboundedSender<ToAgent>>,
}

/// A node for one machine.
pub struct Node {
    pub dir: tempfile::TempDir,
    pub state: Mutex<State>,
    pub changed: Notify,
    pub line: net::Line,
}

type Stop = Result<Response<Pin<Box<dyn Stream<Item = Result<ToAgent, Status>> + Send>>>, Status>;

/// The service, sharing the node.
struct Service(Arc<Node>);

impl Node {
    /// A node that listens on a UNIX socket in a directory of its own.
    pub async fn start() -> Arc<Self> {
        let dir = tempfile::tempdir().unwrap();
        let line = net::Line::new(dir.path());
        let node = Arc::new(Self {
            dir,
            state: Mutex::default(),
            changed: Notify::new(),
            line,
        });
        let service = AgentServer::new(Service(node.clone()));
        node.line.serve(service).await;
        node
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Waits until the state shows something.
    pub async fn until<T>(&self, what: &str, mut look: impl FnMut(&State) -> Option<T>) -> T {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if let Some(found) = look(&self.lock()) {
                    return found;
                }
                changed.await;
            }
        };
        let waited = timeout(deadline::PROMPT, wait).await;
        waited.unwrap_or_else(|_| panic!("never saw {what}; {} events", self.lock().events.len()))
    }

    /// Gives a command.
    pub fn command(&self, exec_id: u64, command: command::Command) {
        let mut state = self.lock();
        let command = v1::Command {
            exec_id,
            command: Some(command),
        };
        state.commands.push(command.clone());
        if let Some(session) = &state.session {
            let _ = session.send(ToAgent {
                message: Some(to_agent::Message::Command(command)),
            });
        }
    }

    /// Runs a shell script.
    pub fn sh(&self, exec_id: u64, script: &str) {
        self.command(exec_id, command::Command::Exec(self.script(script)));
    }

    /// A shell script as an exec.
    pub fn script(&self, script: &str) -> v1::Exec {
        let path = v1::EnvVar {
            name: "PATH".into(),
            value: b"/usr/local/bin:/usr/bin:/bin".to_vec(),
        };
        v1::Exec {
            argv: vec!["sh".into(), "-c".into(), script.into()],
            env: vec![path],
            cwd: self.dir.path().join("work").display().to_string(),
            ..v1::Exec::default()
        }
    }

    /// The last event of a command, once it has come.
    pub async fn end(&self, exec_id: u64) -> event::Event {
        let is_end = |event: &event::Event| {
            use event::Event::{Done, Exited, Failed, Files, ProcessesEnded};
            matches!(event, Exited(_) | Done(_) | Failed(_) | Files(_) | ProcessesEnded(_))
        };
        self.until(&format!("the end of command {exec_id}"), |state| {
            let mut events = state.events.iter().filter(|event| event.exec_id == exec_id);
            events.find_map(|event| event.event.clone().filter(is_end))
        })
        .await
    }

    /// The exit code of an exec, once it has ended.
    pub async fn code(&self, exec_id: u64) -> i32 {
        match self.end(exec_id).await {
            event::Event::Exited(v1::Exited {
                how: Some(exited::How::Code(code)),
                ..
            }) => code,
            other => panic!("exec {exec_id} ended with {other:?}"),
        }
    }

    /// What an exec wrote to one stream so far.
    pub fn output(&self, exec_id: u64, stream: OutputStream) -> Vec<u8> {
        let mut bytes = Vec::new();
        for event in self.lock().events.iter().filter(|event| event.exec_id == exec_id) {
            if let Some(event::Event::Output(output)) = &event.event
                && output.stream() == stream
            {
                bytes.extend_from_slice(&output.data);
            }
        }
        bytes
    }

    /// The agent did nothing that the protocol forbids.
    pub fn assert_clean(&self) {
        assert_eq!(self.lock().violations, Vec::<String>::new());
    }

    /// The seed of this node.
    pub fn seed(&self) -> serde_json::Value {
        serde_json::json!({
            "version": 1, "attempt": ATTEMPT, "agent": format!("unix:{}", self.line.socket().display()),
            "git": "127.0.0.1:9418", "fingerprint": self.line.fingerprint(),
            "token": "hjt_0123456789abcdefghijklmnop", "time_ms": 1_790_000_000_000_i64,
            "state_dir": self.dir.path().join("state"), "power_off": false,
        })
    }

    /// Starts the agent of this node.
    pub fn agent(&self) -> AgentProcess {
        self.agent_with(&self.seed())
    }

    /// Starts an agent with some seed.
    pub fn agent_with(&self, seed: &serde_json::Value) -> AgentProcess {
        let directory = self.dir.path().join("seed");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("helios.json"), seed.to_string()).unwrap();
        AgentProcess::start(&directory)
    }
}

#[tonic::async_trait]
impl Agent for Service {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<ToAgent, Status>> + Send>>;
    type GetStream = Pin<Box<dyn Stream<Item = Result<GetChunk, Status>> + Send>>;

    async fn session(&self, request: Request<Streaming<FromAgent>>) -> Stop {
        let mut incoming = request.into_inner();
        let first = incoming.message().await?;
        let Some(FromAgent {
            message: Some(from_agent::Message::Hello(hello)),
        }) = first
        else {
            return Err(Status::invalid_argument("no hello"));
        };
        let node = self.0.clone();
        let (sender, receiver) = mpsc::unbounded_channel();
        {
            let mut state = node.lock();
            state.hellos.push(hello);
            node.changed.notify_waiters();
            if !state.refusals.is_empty() {
                return Err(state.refusals.remove(0));
            }
            let now = std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .unwrap()
                .as_millis();
            let welcome = Welcome {
                version: state.version.max(1),
                last_sequence: state.events.len() as u64,
                time_ms: if state.time_ms == 0 { now as i64 } else { state.time_ms },
                known_ended: vec![],
                max_output: if state.is_earlier { 0 } else { MAX_OUTPUT as u32 },
            };
            let _ = sender.send(ToAgent {
                message: Some(to_agent::Message::Welcome(welcome)),
            });
            for command in &state.commands {
                let _ = sender.send(ToAgent {
                    message: Some(to_agent::Message::Command(command.clone())),
                });
            }
            state.session = Some(sender.clone());
        }
        tokio::spawn(async move {
            // Only what this session begins with is expected to follow.
            let mut expected = None;
            while let Ok(Some(message)) = incoming.message().await {
                let Some(from_agent::Message::Event(event)) = message.message else {
                    node.lock().violations.push("a second hello".into());
                    continue;
                };
                let mut state = node.lock();
                let next = expected.unwrap_or(state.events.len() as u64 + 1);
                if event.sequence != next {
                    state
                        .violations
                        .push(format!("event {} instead of {next}", event.sequence));
                }
                expected = Some(event.sequence + 1);
                let most = if state.is_earlier {
                    MAX_OUTPUT_UNSAID
                } else {
                    MAX_OUTPUT
                };
                if let Some(event::Event::Output(output)) = &event.event
                    && output.data.len() > most
                {
                    state.violations.push(format!("{} bytes of output", output.data.len()));
                }
                let sequence = event.sequence;
                if sequence == state.events.len() as u64 + 1 {
                    state.events.push(event);
                }
                if !state.mute {
                    let acknowledge = to_agent::Message::Acknowledge(Acknowledge { sequence });
                    let _ = sender.send(ToAgent {
                        message: Some(acknowledge),
                    });
                }
                drop(state);
                node.changed.notify_waiters();
            }
        });
        let stream = tokio_stream::wrappers::UnboundedReceiverStream::new(receiver);
        Ok(Response::new(Box::pin(futures::StreamExt::map(stream, Ok))))
    }

    async fn put(&self, request: Request<Streaming<PutChunk>>) -> Result<Response<PutDone>, Status> {
        let mut chunks = request.into_inner();
        let Some(first) = chunks.message().await? else {
            return Err(Status::invalid_argument("empty"));
        };
        self.known(&first.attempt, &first.session_key)?;
        let mut bytes = first.data.to_vec();
        while let Some(chunk) = chunks.message().await? {
            bytes.extend_from_slice(&chunk.data);
        }
        let sha256 = ring::digest::digest(&ring::digest::SHA256, &bytes).as_ref().to_vec();
        let done = PutDone {
            bytes: bytes.len() as u64,
            sha256,
        };
        self.0.lock().uploads.insert(first.transfer, bytes);
        Ok(Response::new(done))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<Self::GetStream>, Status> {
        let request = request.into_inner();
        self.known(&request.attempt, &request.session_key)?;
        let found = self.0.lock().downloads.get(&request.transfer).cloned();
        let bytes = found.ok_or_else(|| Status::not_found("there is no such transfer"))?;
        let chunks: Vec<_> = bytes
            .chunks(50_000)
            .map(|data| {
                Ok(GetChunk {
                    data: Bytes::copy_from_slice(data),
                })
            })
            .collect();
        Ok(Response::new(Box::pin(futures::stream::iter(chunks))))
    }
}

impl Service {
    fn known(&self, attempt: &str, session_key: &[u8]) -> Result<(), Status> {
        let state = self.0.lock();
        let known = state
            .hellos
            .last()
            .is_some_and(|hello| hello.session_key == session_key);
        if known && attempt == ATTEMPT {
            Ok(())
        } else {
            Err(Status::permission_denied("who is this?"))
        }
    }
}

/// The real agent. It is killed when the test ends.
pub struct AgentProcess {
    pub child: Child,
    stderr: PathBuf,
}

impl AgentProcess {
    pub fn start(seed: &std::path::Path) -> Self {
        let stderr = seed.join("stderr");
        let program = std::env::var("HELIOS_AGENT_UNDER_TEST").unwrap_or(env!("CARGO_BIN_EXE_helios-agent").into());
        let child = Command::new(program)
            .arg("--seed")
            .arg(seed)
            .stdin(Stdio::null())
            .stderr(fs::File::create(&stderr).unwrap())
            .spawn()
            .unwrap();
        Self { child, stderr }
    }

    /// What it has said so far.
    pub fn stderr(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap()
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self) -> ExitStatus {
        poll("the agent's end", || self.child.try_wait().unwrap()).await
    }

    /// The most memory it ever had resident, in KiB.
    pub fn peak_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for AgentProcess {
    fn drop(&mut self) {
        // Gently, so that its steps go too.
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        if self.child.try_wait().unwrap().is_none() {
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
            let until = Instant::now() + deadline::PROMPT;
            while Instant::now() < until {
                if self.child.try_wait().unwrap().is_some() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Looks again and again at something that nobody announces.
pub async fn poll<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(deadline::PROMPT, wait)
        .await
        .unwrap_or_else(|_| panic!("never saw {what}"))
}

/// Bytes without a pattern that a mistake could hide in.
pub fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
