//! The daemon's end: a back end whose work is done by machined.

use std::{
    fmt,
    future::Future,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use helios_proto::machine::{self as wire, machined_client::MachinedClient};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::{
    Code, Response, Status,
    transport::{Channel, Endpoint},
};

use super::{MachinedError, wire as convert};
use crate::{
    machine::{Console, Endpoints, MachineError, MachineSpec, Machines, Observed, Operation, OwnedMachine},
    model::names::{MachineName, NodeName},
};

/// Largest answer: the list of a full node.
const MESSAGE: usize = 4 * 1024 * 1024;
/// How long machined may be away in the middle of a call. Its machines run on, so a job is not given up
/// before a person has had time to start it again.
const AWAY: Duration = Duration::from_secs(10 * 60);
/// How long the first answer may take: both services may be starting.
const FIRST: Duration = Duration::from_secs(20);
/// Between two tries to reach it.
const AGAIN: Duration = Duration::from_millis(200);
/// How long an answer that needs no work may take, machined's absence included.
const QUICK: Duration = Duration::from_secs(15 * 60);
/// How long typing may take.
const TYPING: Duration = Duration::from_secs(20);
/// How long making, starting and removing may take; each command below has its own, shorter deadline.
const SLOW: Duration = Duration::from_secs(30 * 60);

/// One call: what is asked of which machine, and for how long.
#[derive(Clone, Copy)]
struct Call<'a> {
    operation: Operation,
    machine: &'a str,
    /// How long the answer may take, machined's absence included.
    deadline: Duration,
    /// How long machined may be away in one piece; zero asks once.
    away: Duration,
}

impl<'a> Call<'a> {
    /// A call that may be asked again, as the port's calls are idempotent.
    fn of(operation: Operation, machine: &'a str, deadline: Duration) -> Self {
        Self {
            operation,
            machine,
            deadline,
            away: AWAY,
        }
    }
}

/// The back end behind a machined.
pub struct Remote {
    backend: &'static str,
    socket: PathBuf,
    client: MachinedClient<Channel>,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote")
            .field("backend", &self.backend)
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

/// Reaches the machined of this node, which may be starting just now.
///
/// # Errors
/// When nobody answers within 20 s, or the one that answers keeps another node's machines or is of
/// another version.
pub async fn connect(socket: &Path, node: &NodeName) -> Result<Arc<dyn Machines>, MachinedError> {
    connect_within(socket, node, FIRST).await
}

/// Reaches the machined of this node.
///
/// # Errors
/// As [`connect`], after `wait`.
pub async fn connect_within(
    socket: &Path,
    node: &NodeName,
    wait: Duration,
) -> Result<Arc<dyn Machines>, MachinedError> {
    let path = socket.to_owned();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    // The address is needed by the protocol and used by nobody.
    let channel = Endpoint::from_static("http://machined.invalid").connect_with_connector_lazy(connector);
    let mut remote = Remote {
        backend: "",
        socket: socket.to_owned(),
        client: MachinedClient::new(channel).max_decoding_message_size(MESSAGE),
    };
    let about = remote
        .ask(QUICK, wait, wire::AboutRequest {}, |mut client, request| async move {
            client.about(request).await
        })
        .await
        .map_err(|status| MachinedError::Absent {
            path: socket.to_owned(),
            reason: status.message().to_owned(),
        })?;
    let other = |reason| MachinedError::Other {
        path: socket.to_owned(),
        reason,
    };
    if about.node != node.as_str() {
        return Err(other(format!(
            "keeps the machines of node `{}`, this is `{node}`: both must read the same configuration",
            about.node.escape_debug()
        )));
    }
    if about.version != env!("CARGO_PKG_VERSION") {
        return Err(other(format!(
            "is of version {}, this is {}: restart it after an upgrade",
            about.version.escape_debug(),
            env!("CARGO_PKG_VERSION")
        )));
    }
    let known = ["zone", "qemu", "process"].into_iter().find(|b| *b == about.backend);
    remote.backend = known.ok_or_else(|| other("has a back end that this daemon does not know".to_owned()))?;
    Ok(Arc::new(remote))
}

/// Whether the answer came from machined itself. All else is the connection's, and asking again is
/// right because every call is idempotent.
fn is_an_answer(code: Code) -> bool {
    matches!(
        code,
        Code::Aborted | Code::FailedPrecondition | Code::InvalidArgument | Code::Internal | Code::Unimplemented
    )
}

impl Remote {
    /// Asks until machined answers, at most `deadline` long, of which it may be away for `away` in one
    /// piece; zero asks once.
    async fn ask<Q, A, F, Fut>(&self, deadline: Duration, away: Duration, request: Q, rpc: F) -> Result<A, Status>
    where
        Q: Clone,
        F: Fn(MachinedClient<Channel>, Q) -> Fut,
        Fut: Future<Output = Result<Response<A>, Status>>,
    {
        let started = Instant::now();
        let mut last_seen = Instant::now();
        loop {
            let asked = Instant::now();
            let left = deadline.saturating_sub(started.elapsed());
            let Ok(result) = tokio::time::timeout(left, rpc(self.client.clone(), request.clone())).await else {
                return Err(Status::deadline_exceeded(format!(
                    "machined gave no answer within {} s",
                    deadline.as_secs()
                )));
            };
            let status = match result {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) if is_an_answer(status.code()) => return Err(status),
                Err(status) => status,
            };
            // A call that hung for a while before its connection broke shows that it was there.
            if asked.elapsed() > AGAIN {
                last_seen = Instant::now();
            }
            if away.is_zero() || last_seen.elapsed() > away {
                return Err(status);
            }
            tracing::debug!(%status, socket = %self.socket.display(), "machined is away; asking again");
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Makes a call of the port.
    async fn call<Q, A, F, Fut>(&self, call: Call<'_>, request: Q, rpc: F) -> Result<A, MachineError>
    where
        Q: Clone,
        F: Fn(MachinedClient<Channel>, Q) -> Fut,
        Fut: Future<Output = Result<Response<A>, Status>>,
    {
        self.ask(call.deadline, call.away, request, rpc)
            .await
            .map_err(|status| self.error(call, &status))
    }

    fn error(&self, call: Call<'_>, status: &Status) -> MachineError {
        let own = matches!(status.code(), Code::Aborted | Code::FailedPrecondition);
        let reason = if own {
            status.message().to_owned()
        } else {
            format!("machined at {}: {}", self.socket.display(), status.message())
        };
        MachineError {
            operation: call.operation,
            machine: call.machine.to_owned(),
            reason,
            retryable: !matches!(status.code(), Code::FailedPrecondition | Code::InvalidArgument),
        }
    }

    /// The answer of a call, when it can be read.
    fn checked<A>(&self, call: Call<'_>, answer: Result<A, convert::Refused>) -> Result<A, MachineError> {
        answer.map_err(|refused| {
            let status = Status::internal(format!("its answer cannot be read: {refused}"));
            self.error(call, &status)
        })
    }
}

fn machine(name: &MachineName) -> wire::Machine {
    wire::Machine { name: name.to_string() }
}

/// Names a method of the generated client, for [`Remote::ask`].
macro_rules! rpc {
    ($method:ident) => {
        |mut client, request| async move { client.$method(request).await }
    };
}

#[async_trait]
impl Machines for Remote {
    fn backend(&self) -> &'static str {
        self.backend
    }

    async fn prepare(&self, spec: &MachineSpec) -> Result<Endpoints, MachineError> {
        let call = Call::of(Operation::Prepare, spec.name.as_str(), SLOW);
        let reply = self.call(call, convert::spec_to_wire(spec), rpc!(prepare)).await?;
        self.checked(call, convert::endpoints(reply))
    }

    async fn endpoints(&self, name: &MachineName) -> Result<Option<Endpoints>, MachineError> {
        let call = Call::of(Operation::Observe, name.as_str(), QUICK);
        let reply = self.call(call, machine(name), rpc!(get_endpoints)).await?;
        self.checked(call, reply.endpoints.map(convert::endpoints).transpose())
    }

    async fn start(&self, name: &MachineName) -> Result<(), MachineError> {
        let call = Call::of(Operation::Start, name.as_str(), SLOW);
        self.call(call, machine(name), rpc!(start)).await.map(drop)
    }

    async fn console(&self, name: &MachineName, from: u64) -> Result<Console, MachineError> {
        let call = Call::of(Operation::Console, name.as_str(), QUICK);
        let name = name.to_string();
        let request = wire::ConsoleRequest { name, from };
        self.call(call, request, rpc!(read_console)).await.map(convert::console)
    }

    async fn stop(&self, name: &MachineName, grace: Duration) -> Result<(), MachineError> {
        let call = Call::of(Operation::Stop, name.as_str(), SLOW + grace);
        let request = wire::StopRequest {
            name: name.to_string(),
            grace_ms: u64::try_from(grace.as_millis()).unwrap_or(u64::MAX),
        };
        self.call(call, request, rpc!(stop)).await.map(drop)
    }

    async fn keep(&self, name: &MachineName) -> Result<(), MachineError> {
        let call = Call::of(Operation::Keep, name.as_str(), SLOW);
        self.call(call, machine(name), rpc!(keep)).await.map(drop)
    }

    /// Asked once: nobody knows what became of bytes whose answer was lost, and typing them again may do harm.
    async fn write_console(&self, name: &MachineName, bytes: &[u8]) -> Result<(), MachineError> {
        let call = Call {
            away: Duration::ZERO,
            ..Call::of(Operation::Write, name.as_str(), TYPING)
        };
        let request = wire::InputRequest {
            name: name.to_string(),
            data: bytes.to_vec(),
        };
        self.call(call, request, rpc!(write_console)).await.map(drop)
    }

    async fn release_console(&self, name: &MachineName) -> Result<(), MachineError> {
        let call = Call::of(Operation::Release, name.as_str(), QUICK);
        self.call(call, machine(name), rpc!(release_console)).await.map(drop)
    }

    async fn destroy(&self, name: &MachineName) -> Result<(), MachineError> {
        let call = Call::of(Operation::Destroy, name.as_str(), SLOW);
        self.call(call, machine(name), rpc!(destroy)).await.map(drop)
    }

    async fn observe(&self, name: &MachineName) -> Result<Observed, MachineError> {
        let call = Call::of(Operation::Observe, name.as_str(), QUICK);
        let reply = self.call(call, machine(name), rpc!(observe)).await?;
        self.checked(call, convert::observed(reply))
    }

    async fn list(&self) -> Result<Vec<OwnedMachine>, MachineError> {
        let call = Call::of(Operation::Observe, "*", QUICK);
        let reply = self.call(call, wire::ListRequest {}, rpc!(list)).await?;
        self.checked(call, reply.machines.into_iter().map(convert::owned).collect())
    }

    async fn findings(&self) -> Result<Vec<String>, MachineError> {
        let call = Call::of(Operation::Observe, "*", QUICK);
        let reply = self.call(call, wire::FindingsRequest {}, rpc!(findings)).await?;
        Ok(reply.findings)
    }

    /// While machined is away, nothing is known of the machine; it may well run. So this waits on, and
    /// the job's own clocks decide.
    async fn wait_stopped(&self, name: &MachineName) -> Result<Observed, MachineError> {
        let call = Call {
            away: Duration::MAX,
            ..Call::of(Operation::Observe, name.as_str(), Duration::MAX)
        };
        let reply = self.call(call, machine(name), rpc!(wait_stopped)).await?;
        self.checked(call, convert::observed(reply))
    }
}
