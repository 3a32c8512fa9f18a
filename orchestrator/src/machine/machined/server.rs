//! machined's end: the port's calls, performed by a back end.

use std::{future::Future, path::Path, sync::Arc, time::Duration};

use helios_proto::machine::{
    self as wire,
    machined_server::{Machined, MachinedServer},
};
use nix::unistd::Uid;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status, transport::Server};

use super::{
    MachinedError,
    listener::{admitted, bind},
    wire as convert,
};
use crate::{
    machine::{MachineError, Machines},
    model::names::NodeName,
};

/// Largest message that a caller may send.
const MESSAGE: usize = 64 * 1024;
/// Calls of one connection at a time: each machine of a full node is waited for, and more.
const CALLS: u32 = 16 * 1024;
/// Longest reason that travels back.
const REASON: usize = 2048;

/// Who may call: root, machined's own user, and the daemon's.
#[derive(Debug, Clone, Copy)]
pub struct Callers {
    /// The daemon's user, when it is another than machined's.
    pub user: Option<Uid>,
}

impl Callers {
    pub(super) fn admit(&self, uid: u32) -> bool {
        let uid = Uid::from_raw(uid);
        uid.is_root() || uid == Uid::effective() || self.user == Some(uid)
    }
}

/// Serves a back end on a socket until `stop`; then finishes the calls that have begun, for at most
/// `grace`: `true` when all of them ended. Machines are left as they are.
///
/// # Errors
/// When the socket cannot be made, or another machined answers on it.
pub async fn serve(
    machines: Arc<dyn Machines>,
    node: NodeName,
    socket: &Path,
    callers: Callers,
    stop: CancellationToken,
    grace: Duration,
) -> Result<bool, MachinedError> {
    let listener = bind(socket, &callers).await?;
    let operations = TaskTracker::new();
    let service = Service {
        machines,
        node,
        operations: operations.clone(),
        stop: stop.clone(),
    };
    let served = Server::builder()
        .max_concurrent_streams(CALLS)
        .add_service(MachinedServer::new(service).max_decoding_message_size(MESSAGE))
        .serve_with_incoming_shutdown(admitted(listener, callers), stop.clone().cancelled_owned());
    tokio::pin!(served);
    let finished = async {
        stop.cancelled().await;
        operations.close();
        operations.wait().await;
    };
    tokio::select! {
        result = &mut served => result.map_err(|error| MachinedError::Listen {
            path: socket.to_owned(),
            source: std::io::Error::other(error),
        })?,
        () = finished => {}
        () = async { stop.cancelled().await; tokio::time::sleep(grace).await } => {
            tracing::warn!("some operations did not end in time; the next machined waits for their commands");
        }
    }
    let _replaced_by_the_next = std::fs::remove_file(socket);
    Ok(operations.is_empty())
}

struct Service {
    machines: Arc<dyn Machines>,
    node: NodeName,
    operations: TaskTracker,
    stop: CancellationToken,
}

impl Service {
    /// Performs an operation to its end even when the caller goes away in the middle: half of one is
    /// never left to chance.
    async fn perform<T, F, Fut>(&self, operation: F) -> Result<T, Status>
    where
        T: Send + 'static,
        F: FnOnce(Arc<dyn Machines>) -> Fut,
        Fut: Future<Output = Result<T, MachineError>> + Send + 'static,
    {
        if self.stop.is_cancelled() {
            return Err(Status::unavailable("machined is stopping"));
        }
        let task = self.operations.spawn(operation(Arc::clone(&self.machines)));
        match task.await {
            Ok(result) => result.map_err(|error| failure(&error)),
            Err(error) => Err(Status::internal(format!("the operation broke: {error}"))),
        }
    }
}

fn failure(error: &MachineError) -> Status {
    let reason: String = error.reason.chars().take(REASON).collect();
    if error.retryable {
        Status::aborted(reason)
    } else {
        Status::failed_precondition(reason)
    }
}

#[tonic::async_trait]
impl Machined for Service {
    async fn about(&self, _: Request<wire::AboutRequest>) -> Result<Response<wire::AboutReply>, Status> {
        Ok(Response::new(wire::AboutReply {
            backend: self.machines.backend().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: self.node.to_string(),
        }))
    }

    async fn prepare(&self, request: Request<wire::PrepareRequest>) -> Result<Response<wire::Endpoints>, Status> {
        let spec = convert::spec(request.into_inner())?;
        if spec.node != self.node {
            return Err(Status::invalid_argument(format!(
                "node is {}, this machined keeps the machines of {}",
                spec.node, self.node
            )));
        }
        let endpoints = self.perform(|m| async move { m.prepare(&spec).await }).await?;
        Ok(Response::new(convert::endpoints_to_wire(&endpoints)))
    }

    async fn get_endpoints(&self, request: Request<wire::Machine>) -> Result<Response<wire::EndpointsReply>, Status> {
        let name = convert::name(&request.into_inner().name)?;
        let found = self.perform(|m| async move { m.endpoints(&name).await }).await?;
        Ok(Response::new(wire::EndpointsReply {
            endpoints: found.as_ref().map(convert::endpoints_to_wire),
        }))
    }

    async fn start(&self, request: Request<wire::Machine>) -> Result<Response<wire::Done>, Status> {
        let name = convert::name(&request.into_inner().name)?;
        self.perform(|m| async move { m.start(&name).await }).await?;
        Ok(Response::new(wire::Done {}))
    }

    async fn read_console(
        &self,
        request: Request<wire::ConsoleRequest>,
    ) -> Result<Response<wire::ConsoleReply>, Status> {
        let request = request.into_inner();
        let name = convert::name(&request.name)?;
        let part = self
            .perform(|m| async move { m.console(&name, request.from).await })
            .await?;
        Ok(Response::new(wire::ConsoleReply {
            data: part.bytes,
            next: part.next,
        }))
    }

    async fn stop(&self, request: Request<wire::StopRequest>) -> Result<Response<wire::Done>, Status> {
        let request = request.into_inner();
        let (name, grace) = (convert::name(&request.name)?, convert::grace(request.grace_ms)?);
        self.perform(|m| async move { m.stop(&name, grace).await }).await?;
        Ok(Response::new(wire::Done {}))
    }

    async fn keep(&self, request: Request<wire::Machine>) -> Result<Response<wire::Done>, Status> {
        let name = convert::name(&request.into_inner().name)?;
        self.perform(|m| async move { m.keep(&name).await }).await?;
        Ok(Response::new(wire::Done {}))
    }

    async fn write_console(&self, request: Request<wire::InputRequest>) -> Result<Response<wire::Done>, Status> {
        let request = request.into_inner();
        let (name, bytes) = (convert::name(&request.name)?, convert::input(request.data)?);
        self.perform(|m| async move { m.write_console(&name, &bytes).await })
            .await?;
        Ok(Response::new(wire::Done {}))
    }

    async fn release_console(&self, request: Request<wire::Machine>) -> Result<Response<wire::Done>, Status> {
        let name = convert::name(&request.into_inner().name)?;
        self.perform(|m| async move { m.release_console(&name).await }).await?;
        Ok(Response::new(wire::Done {}))
    }

    async fn destroy(&self, request: Request<wire::Machine>) -> Result<Response<wire::Done>, Status> {
        let name = convert::name(&request.into_inner().name)?;
        self.perform(|m| async move { m.destroy(&name).await }).await?;
        Ok(Response::new(wire::Done {}))
    }

    async fn observe(&self, request: Request<wire::Machine>) -> Result<Response<wire::Observed>, Status> {
        let name = convert::name(&request.into_inner().name)?;
        let observed = self.perform(|m| async move { m.observe(&name).await }).await?;
        Ok(Response::new(convert::observed_to_wire(observed)))
    }

    async fn list(&self, _: Request<wire::ListRequest>) -> Result<Response<wire::ListReply>, Status> {
        let machines = self.perform(|m| async move { m.list().await }).await?;
        Ok(Response::new(wire::ListReply {
            machines: machines.into_iter().map(convert::owned_to_wire).collect(),
        }))
    }

    async fn findings(&self, _: Request<wire::FindingsRequest>) -> Result<Response<wire::FindingsReply>, Status> {
        let findings = self.perform(|m| async move { m.findings().await }).await?;
        Ok(Response::new(wire::FindingsReply { findings }))
    }

    /// Not an operation: nothing is left half done when the caller goes away.
    async fn wait_stopped(&self, request: Request<wire::Machine>) -> Result<Response<wire::Observed>, Status> {
        let name = convert::name(&request.into_inner().name)?;
        tokio::select! {
            observed = self.machines.wait_stopped(&name) => {
                let observed = observed.map_err(|error| failure(&error))?;
                Ok(Response::new(convert::observed_to_wire(observed)))
            }
            () = self.stop.cancelled() => Err(Status::unavailable("machined is stopping")),
        }
    }
}
