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
/// As [`connect`], after `patience`.
pub async fn connect_within(
    socket: &Path,
    node: &NodeName,
    patience: Duration,
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
        .ask(QUICK, patience, |mut client| async move {
            client.about(wire::AboutRequest {}).await
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
    async fn ask<T, F, Fut>(&self, deadline: Duration, away: Duration, call: F) -> Result<T, Status>
    where
        F: Fn(MachinedClient<Channel>) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let started = Instant::now();
        let mut last_seen = Instant::now();
        loop {
            let asked = Instant::now();
            let left = deadline.saturating_sub(started.elapsed());
            let Ok(result) = tokio::time::timeout(left, call(self.client.clone())).await else {
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

    async fn call<T, F, Fut>(
        &self,
        operation: Operation,
        machine: &str,
        deadline: Duration,
        call: F,
    ) -> Result<T, MachineError>
    where
        F: Fn(MachinedClient<Channel>) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        self.ask(deadline, AWAY, call)
            .await
            .map_err(|status| self.error(operation, machine, &status))
    }

    fn error(&self, operation: Operation, machine: &str, status: &Status) -> MachineError {
        let own = matches!(status.code(), Code::Aborted | Code::FailedPrecondition);
        let reason = if own {
            status.message().to_owned()
        } else {
            format!("machined at {}: {}", self.socket.display(), status.message())
        };
        MachineError {
            operation,
            machine: machine.to_owned(),
            reason,
            retryable: !matches!(status.code(), Code::FailedPrecondition | Code::InvalidArgument),
        }
    }

    fn refused(&self, operation: Operation, machine: &str, refused: &convert::Refused) -> MachineError {
        let status = Status::internal(format!("its answer cannot be read: {refused}"));
        self.error(operation, machine, &status)
    }
}

fn machine(name: &MachineName) -> wire::Machine {
    wire::Machine { name: name.to_string() }
}

#[async_trait]
impl Machines for Remote {
    fn backend(&self) -> &'static str {
        self.backend
    }

    async fn prepare(&self, spec: &MachineSpec) -> Result<Endpoints, MachineError> {
        let (operation, name) = (Operation::Prepare, spec.name.as_str());
        let request = convert::spec_to_wire(spec);
        let reply = self
            .call(operation, name, SLOW, |mut client| {
                let request = request.clone();
                async move { client.prepare(request).await }
            })
            .await?;
        convert::endpoints(reply).map_err(|refused| self.refused(operation, name, &refused))
    }

    async fn endpoints(&self, name: &MachineName) -> Result<Option<Endpoints>, MachineError> {
        let reply = self
            .call(Operation::Observe, name.as_str(), QUICK, |mut client| {
                let request = machine(name);
                async move { client.get_endpoints(request).await }
            })
            .await?;
        let found = reply.endpoints.map(convert::endpoints).transpose();
        found.map_err(|refused| self.refused(Operation::Observe, name.as_str(), &refused))
    }

    async fn start(&self, name: &MachineName) -> Result<(), MachineError> {
        self.call(Operation::Start, name.as_str(), SLOW, |mut client| {
            let request = machine(name);
            async move { client.start(request).await }
        })
        .await?;
        Ok(())
    }

    async fn console(&self, name: &MachineName, from: u64) -> Result<Console, MachineError> {
        let reply = self
            .call(Operation::Console, name.as_str(), QUICK, |mut client| {
                let name = name.to_string();
                async move { client.read_console(wire::ConsoleRequest { name, from }).await }
            })
            .await?;
        Ok(convert::console(reply))
    }

    async fn stop(&self, name: &MachineName, grace: Duration) -> Result<(), MachineError> {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        self.call(Operation::Stop, name.as_str(), SLOW + grace, |mut client| {
            let name = name.to_string();
            async move { client.stop(wire::StopRequest { name, grace_ms }).await }
        })
        .await?;
        Ok(())
    }

    async fn keep(&self, name: &MachineName) -> Result<(), MachineError> {
        self.call(Operation::Keep, name.as_str(), SLOW, |mut client| {
            let request = machine(name);
            async move { client.keep(request).await }
        })
        .await?;
        Ok(())
    }

    /// Asked once: nobody knows what became of bytes whose answer was lost, and typing them again may do harm.
    async fn write_console(&self, name: &MachineName, bytes: &[u8]) -> Result<(), MachineError> {
        let request = wire::InputRequest {
            name: name.to_string(),
            data: bytes.to_vec(),
        };
        self.ask(TYPING, Duration::ZERO, |mut client| {
            let request = request.clone();
            async move { client.write_console(request).await }
        })
        .await
        .map_err(|status| self.error(Operation::Write, name.as_str(), &status))?;
        Ok(())
    }

    async fn release_console(&self, name: &MachineName) -> Result<(), MachineError> {
        self.call(Operation::Release, name.as_str(), QUICK, |mut client| {
            let request = machine(name);
            async move { client.release_console(request).await }
        })
        .await?;
        Ok(())
    }

    async fn destroy(&self, name: &MachineName) -> Result<(), MachineError> {
        self.call(Operation::Destroy, name.as_str(), SLOW, |mut client| {
            let request = machine(name);
            async move { client.destroy(request).await }
        })
        .await?;
        Ok(())
    }

    async fn observe(&self, name: &MachineName) -> Result<Observed, MachineError> {
        let reply = self
            .call(Operation::Observe, name.as_str(), QUICK, |mut client| {
                let request = machine(name);
                async move { client.observe(request).await }
            })
            .await?;
        convert::observed(reply).map_err(|refused| self.refused(Operation::Observe, name.as_str(), &refused))
    }

    async fn list(&self) -> Result<Vec<OwnedMachine>, MachineError> {
        let reply = self
            .call(Operation::Observe, "*", QUICK, |mut client| async move {
                client.list(wire::ListRequest {}).await
            })
            .await?;
        let machines: Result<Vec<_>, _> = reply.machines.into_iter().map(convert::owned).collect();
        machines.map_err(|refused| self.refused(Operation::Observe, "*", &refused))
    }

    async fn findings(&self) -> Result<Vec<String>, MachineError> {
        let reply = self
            .call(Operation::Observe, "*", QUICK, |mut client| async move {
                client.findings(wire::FindingsRequest {}).await
            })
            .await?;
        Ok(reply.findings)
    }

    /// While machined is away, nothing is known of the machine; it may well run. So this waits on, and
    /// the job's own clocks decide.
    async fn wait_stopped(&self, name: &MachineName) -> Result<Observed, MachineError> {
        let reply = self
            .ask(Duration::MAX, Duration::MAX, |mut client| {
                let request = machine(name);
                async move { client.wait_stopped(request).await }
            })
            .await
            .map_err(|status| self.error(Operation::Observe, name.as_str(), &status))?;
        convert::observed(reply).map_err(|refused| self.refused(Operation::Observe, name.as_str(), &refused))
    }
}
