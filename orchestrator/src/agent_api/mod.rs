//! The server that agents dial. Every machine has a listener of its own, so the socket itself names
//! the attempt; TLS proves the node to the agent, the join token and then the session key prove the
//! agent to the node. What an agent says is untrusted: sizes are bounded here, meaning is judged by
//! the driver.

pub mod identity;
mod listener;
mod service;

use std::sync::Arc;

use helios_proto::v1;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::identity::Identity;
use crate::{
    machine::{ListenAt, listen::ListenError},
    model::ids::AttemptId,
    store::Store,
};

/// What an attempt's agent does, for its driver.
#[derive(Debug)]
pub enum LinkEvent {
    /// An agent has proved itself. It expects a welcome through `to_agent`; dropping that sender
    /// ends the connection. A newer connection replaces an older one.
    Connected {
        /// Its hello, already checked.
        hello: Box<v1::Hello>,
        /// Where messages to it go.
        to_agent: mpsc::Sender<v1::ToAgent>,
    },
    /// Something happened in the machine.
    Event(v1::Event),
    /// The newest connection ended.
    Disconnected,
    /// An agent of this machine was started again, and was refused: the one that was driven is no more.
    AgentRestarted,
}

/// How many events may wait for the driver: with 128 KiB each this bounds memory to 1 MiB an attempt,
/// and a slow driver slows the agent down through the connection's flow control.
const WAITING_EVENTS: usize = 8;

/// Serves agents.
#[derive(Debug, Clone)]
pub struct AgentApi {
    identity: Identity,
    store: Store,
}

/// A machine's listener and what comes through it; dropping it closes both.
#[derive(Debug)]
pub struct Link {
    /// What the agent says.
    pub events: mpsc::Receiver<LinkEvent>,
    _open: tokio_util::sync::DropGuard,
}

impl AgentApi {
    /// A server with this identity that asks `store` whom to believe.
    #[must_use]
    pub fn new(identity: Identity, store: Store) -> Self {
        Self { identity, store }
    }

    /// What agents pin.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.identity.fingerprint
    }

    /// Listens for one machine's agent.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn listen(&self, attempt: AttemptId, at: &ListenAt) -> Result<Link, ListenError> {
        let connections = listener::bind(at, Arc::clone(&self.identity.tls)).await?;
        let (sender, events) = mpsc::channel(WAITING_EVENTS);
        let service = service::Service::new(attempt, self.store.clone(), sender);
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move {
            let agent = v1::agent_server::AgentServer::new(service)
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(MAX_MESSAGE);
            let (health, health_service) = tonic_health::server::health_reporter();
            health
                .set_serving::<v1::agent_server::AgentServer<service::Service>>()
                .await;
            let served = tonic::transport::Server::builder()
                .http2_keepalive_interval(Some(std::time::Duration::from_secs(10)))
                .http2_keepalive_timeout(Some(std::time::Duration::from_secs(10)))
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(2 * STREAM_WINDOW)
                .max_frame_size(MAX_FRAME)
                .max_concurrent_streams(16)
                .add_service(health_service)
                .add_service(agent)
                .serve_with_incoming_shutdown(connections, stopped.cancelled_owned())
                .await;
            if let Err(error) = served {
                tracing::warn!(%attempt, %error, "the agent listener ended");
            }
        });
        Ok(Link {
            events,
            _open: stop.drop_guard(),
        })
    }
}

/// What an agent may send before it is read: a few of its messages.
const STREAM_WINDOW: u32 = 512 << 10;

/// HTTP/2's frames hold a whole output message, whose pieces of 16 KiB would each cost a turn.
const MAX_FRAME: u32 = 256 << 10;
const _: () = assert!(MAX_FRAME as usize > helios_proto::MAX_OUTPUT);

/// The largest message either side may send: output with room for its envelope, and the
/// list of files of a walk.
const MAX_MESSAGE: usize = 4 << 20;
