//! One connection after another: hello, welcome, then events one way and commands the other.

mod outgoing;

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use futures::{Stream, StreamExt, stream};
use helios_proto::{
    VERSIONS,
    v1::{FromAgent, ToAgent, Welcome, agent_client::AgentClient, from_agent, to_agent},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};
use tonic::{Code, Status, body::Body, codegen::http};
use tower::ServiceExt as _;

use crate::{
    agent::{Agent, chain},
    connect::{ConnectError, Dialer},
    random,
};
use outgoing::Outgoing;

/// The first pause after a lost connection, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// A node that took the connection has this long to say welcome.
const WELCOME: Duration = Duration::from_secs(30);

/// The largest message from the node: a command with its script and environment.
const MAX_FROM_NODE: usize = 8 << 20;

/// Why the agent cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The node does not want this agent and will not later.
    #[error("the node refuses this agent: {0}")]
    Refused(String),
    /// An event that the node has not got cannot be read back: its output would have a gap.
    #[error("output that the node has not acknowledged is lost")]
    Lost(#[source] io::Error),
    /// The connection cannot even be tried.
    #[error("this agent cannot connect to any node")]
    Connect(#[source] ConnectError),
}

/// Why one connection ended.
enum End {
    Fatal(SessionError),
    Broken(String),
}

/// Connects again and again until the node refuses.
pub async fn serve(agent: &Arc<Agent>) -> Result<Infallible, SessionError> {
    let dialer = Dialer::new(&agent.seed).map_err(SessionError::Connect)?;
    let mut joined = false;
    let mut pause = FIRST_PAUSE;
    let mut told = String::new();
    loop {
        let mut welcomed = false;
        let end = connection(agent, &dialer, joined, &mut welcomed).await;
        agent.outbox.set_connected(false);
        agent.channel.send_replace(None);
        let why = match end {
            Ok(never) => match never {},
            Err(End::Fatal(error)) => return Err(error),
            Err(End::Broken(why)) => why,
        };
        if welcomed {
            joined = true;
            pause = FIRST_PAUSE;
            told.clear();
        }
        if told != why {
            eprintln!("helios-agent: no connection to the node: {why}; trying again");
            told = why;
        }
        sleep(jittered(pause)).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

/// Between half and the whole of a pause, so that machines do not return in step.
fn jittered(pause: Duration) -> Duration {
    let [random] = random::bytes().unwrap_or([255]);
    pause / 2 + pause / 2 * u32::from(random) / 255
}

async fn connection(agent: &Arc<Agent>, dialer: &Dialer, joined: bool, welcomed: &mut bool) -> Result<Infallible, End> {
    let channel = dialer.dial().await.map_err(|error| End::Broken(chain(&error)))?;
    let hello = agent
        .hello(joined)
        .map_err(|error| End::Broken(format!("cannot describe this machine: {error}")))?;
    let made = hello.last_sequence;
    let (begin, begins) = oneshot::channel();
    let (lost, mut loses) = mpsc::channel(1);
    let hello = FromAgent {
        message: Some(from_agent::Message::Hello(hello)),
    };
    let outgoing = stream::iter([hello]).chain(events(agent, begins, lost)).boxed();
    // The body that tonic makes of no messages gives way to ours.
    let (opening, mut body) = (channel.clone(), Some(Body::new(Outgoing::new(outgoing))));
    let opening = tower::service_fn(move |request: http::Request<Body>| {
        let body = body.take().unwrap_or_default();
        opening.clone().oneshot(request.map(|_| body))
    });
    let mut client = AgentClient::new(opening).max_decoding_message_size(MAX_FROM_NODE);

    let open = async {
        let mut incoming = client.session(stream::empty()).await?.into_inner();
        let first = incoming.message().await?;
        Ok::<_, Status>((incoming, first))
    };
    let opened = timeout(WELCOME, open)
        .await
        .map_err(|_| End::Broken("the node says nothing".to_owned()))?;
    let (mut incoming, first) = opened.map_err(ended)?;
    let Some(ToAgent {
        message: Some(to_agent::Message::Welcome(welcome)),
    }) = first
    else {
        return Err(End::Broken("the node does not begin with a welcome".to_owned()));
    };
    check(&welcome, made)?;
    *welcomed = true;
    let cursor = agent.outbox.acknowledge(welcome.last_sequence);
    agent.outbox.set_max_output(welcome.max_output);
    agent.outbox.set_connected(true);
    agent.correct_clock(welcome.time_ms);
    agent.channel.send_replace(Some(channel));
    // The stream is gone when the connection is; then the next message says so.
    let _ = begin.send(cursor);

    loop {
        let message = tokio::select! {
            message = incoming.message() => message.map_err(ended)?,
            Some(error) = loses.recv() => return Err(End::Fatal(SessionError::Lost(error))),
        };
        match message.map(|message| message.message) {
            Some(Some(to_agent::Message::Command(command))) => agent.apply(command),
            Some(Some(to_agent::Message::Acknowledge(acknowledge))) => {
                agent.outbox.acknowledge(acknowledge.sequence);
            }
            // What a newer node says beyond version 1 does not concern this agent.
            Some(Some(to_agent::Message::Welcome(_)) | None) => {}
            None => return Err(End::Broken("the node has closed the session".to_owned())),
        }
    }
}

fn check(welcome: &Welcome, made: u64) -> Result<(), End> {
    let refuse = |why| Err(End::Fatal(SessionError::Refused(why)));
    let (min, max) = VERSIONS;
    if welcome.version < min || welcome.version > max {
        return refuse(format!(
            "it wants version {} of the protocol, and this agent speaks {min} to {max} only",
            welcome.version
        ));
    }
    if welcome.last_sequence > made {
        return refuse(format!(
            "it has {} events of this agent, which made {made}",
            welcome.last_sequence
        ));
    }
    Ok(())
}

/// What a status of the session means for the agent.
fn ended(status: Status) -> End {
    match status.code() {
        Code::PermissionDenied | Code::FailedPrecondition => {
            End::Fatal(SessionError::Refused(status.message().to_owned()))
        }
        code => End::Broken(format!("{code:?}: {}", status.message())),
    }
}

/// The events from the welcome's cursor on. HTTP/2 asks for the next only when it may send it.
fn events(
    agent: &Arc<Agent>,
    begins: oneshot::Receiver<u64>,
    lost: mpsc::Sender<io::Error>,
) -> impl Stream<Item = FromAgent> + Send + 'static {
    let outbox = Arc::clone(&agent.outbox);
    stream::once(async move {
        let Ok(cursor) = begins.await else {
            // No welcome came: the session is about to be dropped.
            return std::future::pending().await;
        };
        stream::unfold((outbox, cursor, lost), |(outbox, cursor, lost)| async move {
            match outbox.next(cursor).await {
                Ok(event) => {
                    let cursor = event.sequence;
                    Some((
                        FromAgent {
                            message: Some(from_agent::Message::Event(event)),
                        },
                        (outbox, cursor, lost),
                    ))
                }
                Err(error) => {
                    let _ = lost.send(error).await;
                    std::future::pending().await
                }
            }
        })
    })
    .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_jittered_within_bounds() {
        for _ in 0..100 {
            let pause = jittered(LAST_PAUSE);
            assert!(pause >= LAST_PAUSE / 2 && pause <= LAST_PAUSE, "{pause:?}");
        }
    }

    #[test]
    fn only_a_refusal_is_final() {
        for code in [Code::PermissionDenied, Code::FailedPrecondition] {
            assert!(matches!(ended(Status::new(code, "no")), End::Fatal(SessionError::Refused(why)) if why == "no"));
        }
        for code in [
            Code::Unavailable,
            Code::Unknown,
            Code::Aborted,
            Code::ResourceExhausted,
            Code::Cancelled,
        ] {
            assert!(matches!(ended(Status::new(code, "later")), End::Broken(_)));
        }
    }

    #[test]
    fn a_welcome_must_fit_this_agent() {
        let welcome = |version, last_sequence| Welcome {
            version,
            last_sequence,
            ..Welcome::default()
        };
        assert!(check(&welcome(1, 5), 5).is_ok());
        assert!(
            matches!(check(&welcome(2, 0), 5), Err(End::Fatal(SessionError::Refused(why))) if why.contains("speaks 1"))
        );
        assert!(matches!(
            check(&welcome(1, 6), 5),
            Err(End::Fatal(SessionError::Refused(_)))
        ));
    }
}
