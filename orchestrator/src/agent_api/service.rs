//! `helios.agent.v1.Agent` for one attempt: who may speak, in which version, and that only the newest
//! connection may speak.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{Stream, StreamExt};
use helios_proto::{MAX_OUTPUT, VERSIONS, v1};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::LinkEvent;
use crate::{
    digest::sha256,
    model::ids::AttemptId,
    store::{Join, Store},
};

/// How long a connection may take to say hello.
const HELLO: Duration = Duration::from_secs(10);
/// Messages to the agent that may wait for the network.
const OUTGOING: usize = 64;

/// The service behind one machine's listener.
#[derive(Debug)]
pub(super) struct Service {
    attempt: AttemptId,
    store: Store,
    events: mpsc::Sender<LinkEvent>,
    /// Counts connections; an event of one that is not the newest is dropped.
    newest: Arc<AtomicU64>,
}

impl Service {
    pub(super) fn new(attempt: AttemptId, store: Store, events: mpsc::Sender<LinkEvent>) -> Self {
        Self {
            attempt,
            store,
            events,
            newest: Arc::default(),
        }
    }

    /// Checks a hello: the attempt, the version, the credential.
    async fn admit(&self, hello: &v1::Hello) -> Result<(), Status> {
        if hello.attempt != self.attempt.to_string() {
            return Err(Status::permission_denied("this address serves another attempt"));
        }
        let (min, max) = VERSIONS;
        if hello.version_min > max || hello.version_max < min || hello.version_min > hello.version_max {
            return Err(Status::failed_precondition(format!(
                "no common protocol version: this node speaks {min} to {max}, the agent {} to {}",
                hello.version_min, hello.version_max
            )));
        }
        if hello.session_key.len() != 32 {
            return Err(Status::invalid_argument("a session key has 32 bytes"));
        }
        let key = sha256(&hello.session_key);
        let unavailable = |error: crate::store::StoreError| {
            tracing::error!(attempt = %self.attempt, error = &error as &dyn std::error::Error, "cannot judge an agent's hello");
            Status::unavailable("the node cannot read its database now; dial again")
        };
        let admitted = match &hello.credential {
            Some(v1::hello::Credential::JoinToken(token)) if token.len() <= 128 => {
                let joined = self
                    .store
                    .join(self.attempt, &sha256(token.as_bytes()), &key)
                    .await
                    .map_err(unavailable)?;
                if joined == Join::AgentRestarted {
                    // A driver that is gone has an end already.
                    let _over = self.events.send(LinkEvent::AgentRestarted).await;
                }
                matches!(joined, Join::Joined | Join::Again)
            }
            Some(v1::hello::Credential::Resume(true)) => {
                self.store.session(self.attempt, &key).await.map_err(unavailable)?
            }
            _ => return Err(Status::invalid_argument("a hello carries a join token or resumes")),
        };
        if admitted {
            return Ok(());
        }
        tracing::warn!(attempt = %self.attempt, "an agent's credential was refused");
        Err(Status::permission_denied(
            "this join token or session is not valid, or no longer",
        ))
    }
}

/// What the rest of the daemon may rely on in an event.
fn acceptable(event: &v1::Event) -> bool {
    match &event.event {
        Some(v1::event::Event::Output(output)) => output.data.len() <= MAX_OUTPUT,
        Some(_) => true,
        None => false,
    }
}

type Outgoing = Pin<Box<dyn Stream<Item = Result<v1::ToAgent, Status>> + Send>>;
type Chunks = Pin<Box<dyn Stream<Item = Result<v1::GetChunk, Status>> + Send>>;

#[tonic::async_trait]
impl v1::agent_server::Agent for Service {
    type SessionStream = Outgoing;
    type GetStream = Chunks;

    async fn session(&self, request: Request<Streaming<v1::FromAgent>>) -> Result<Response<Outgoing>, Status> {
        let mut incoming = request.into_inner();
        let first = tokio::time::timeout(HELLO, incoming.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no hello came"))??;
        let Some(v1::FromAgent {
            message: Some(v1::from_agent::Message::Hello(hello)),
        }) = first
        else {
            return Err(Status::invalid_argument("the first message of a session is a hello"));
        };
        self.admit(&hello).await?;
        let mine = self.newest.fetch_add(1, Ordering::SeqCst) + 1;
        let (to_agent, outgoing) = mpsc::channel(OUTGOING);
        // The daemon is stopping, or the attempt ends just now: who has no right any more is told so
        // when it dials again, and a refusal here would end an agent whose job goes on.
        let over = || Status::unavailable("nobody drives this attempt now; dial again");
        self.events
            .send(LinkEvent::Connected {
                hello: Box::new(hello),
                to_agent,
            })
            .await
            .map_err(|_| over())?;
        let (events, newest, attempt) = (self.events.clone(), Arc::clone(&self.newest), self.attempt);
        tokio::spawn(async move {
            while let Some(message) = incoming.next().await {
                if newest.load(Ordering::SeqCst) != mine {
                    return;
                }
                let event = match message {
                    Ok(v1::FromAgent {
                        message: Some(v1::from_agent::Message::Event(event)),
                    }) if acceptable(&event) => event,
                    Ok(_) => {
                        tracing::warn!(%attempt, "the agent sent a message that means nothing here; closing");
                        break;
                    }
                    Err(status) => {
                        tracing::debug!(%attempt, %status, "the agent's connection broke");
                        break;
                    }
                };
                if events.send(LinkEvent::Event(event)).await.is_err() {
                    return;
                }
            }
            if newest.load(Ordering::SeqCst) == mine {
                let _driver_is_gone = events.send(LinkEvent::Disconnected).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing).map(Ok))))
    }

    async fn put(&self, _request: Request<Streaming<v1::PutChunk>>) -> Result<Response<v1::PutDone>, Status> {
        Err(Status::not_found("no transfer of this name was asked for"))
    }

    async fn get(&self, _request: Request<v1::GetRequest>) -> Result<Response<Chunks>, Status> {
        Err(Status::not_found("no transfer of this name was offered"))
    }
}
