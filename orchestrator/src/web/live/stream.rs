//! Live logs as server-sent events. Every viewer reads the file at its own pace: a slow one delays
//! nobody, holds a few events at most, and is sent away with `resync` when it stops reading.
//!
//! | event | of | data |
//! |---|---|---|
//! | `lines` | page | lines of one step as HTML; a line that was shown before replaces it |
//! | `skip` | page | lines that came too fast to be shown |
//! | `step`, `state` | page | a step or the job changed |
//! | `log` | API | one record |
//! | `resync` | both | what is shown no longer holds, or the log cannot be read here: ask again for the reason |
//! | `end` | both | nothing follows |
//!
//! The id of an event says where to read on; a client that comes back with it (`Last-Event-ID`, or
//! `?from=`) misses nothing and gets nothing twice.
//!
//! Here is what both kinds share; [`super::record_stream`] is the API's, [`super::page_stream`] the page's.

use std::{convert::Infallible, time::Duration};

use axum::{
    http::HeaderMap,
    response::{
        Sse,
        sse::{Event, KeepAlive},
    },
};
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    logs::LogError,
    model::ids::AttemptId,
    web::{
        AppState,
        api::types::Resync,
        http::{limits::Viewer, problem::Problem},
        identity::Caller,
    },
};

/// Events held for a viewer that does not read.
const BUFFER: usize = 4;
/// A viewer that takes nothing for so long is sent away.
const SLOW: Duration = Duration::from_secs(20);
/// A stream ends after this long and the client comes back: rights are checked again.
const MAX_AGE: Duration = Duration::from_secs(600);
/// How long a client waits before it comes back, in milliseconds.
const RETRY: Duration = Duration::from_millis(1500);

/// `?…` of the streams.
#[derive(Debug, Deserialize, Default)]
pub struct StreamQuery {
    pub(super) from: Option<String>,
    #[serde(rename = "try")]
    pub(super) number: Option<u32>,
}

/// The viewer is gone, or was sent away.
pub(super) struct Gone;

/// Where events go.
pub(super) struct Sink {
    tx: mpsc::Sender<Event>,
    /// One slot of the buffer is kept back, so that a slow viewer can still be told to start again.
    spare: Option<mpsc::OwnedPermit<Event>>,
    _viewer: Viewer,
}

impl Sink {
    async fn send(&mut self, event: Event) -> Result<(), Gone> {
        match tokio::time::timeout(SLOW, self.tx.send(event)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Gone),
            Err(_) => {
                if let Some(spare) = self.spare.take() {
                    spare.send(Event::default().event("resync").data("{}"));
                }
                Err(Gone)
            }
        }
    }

    /// Sends one event with its data, and with an id where a client can go on behind it.
    pub async fn event(&mut self, name: &str, id: Option<String>, data: &impl Serialize) -> Result<(), Gone> {
        let event = Event::default().event(name).json_data(data);
        let event = event.map_err(|error| {
            tracing::error!(%error, event = name, "an event of a stream cannot be written as JSON");
            Gone
        })?;
        self.send(match id {
            Some(id) => event.id(id),
            None => event,
        })
        .await
    }

    /// Ends the stream; whoever asks again learns why.
    pub async fn ask_again(&mut self) -> Result<(), Gone> {
        self.event("resync", None, &Resync::default()).await
    }

    /// A log that cannot be read: our log says why, the viewer starts again later.
    pub async fn failed(&mut self, error: &LogError) -> Result<(), Gone> {
        tracing::warn!(%error, "following a log failed");
        self.ask_again().await
    }
}

pub(in crate::web) type Events = Sse<
    axum::response::sse::KeepAliveStream<
        futures::stream::Map<ReceiverStream<Event>, fn(Event) -> Result<Event, Infallible>>,
    >,
>;

/// Starts a stream: `produce` runs until it is done, the viewer is gone, the daemon stops or the
/// stream is old.
pub(super) async fn start<F>(state: &AppState, caller: &Caller, produce: F) -> Result<Events, Problem>
where
    F: Producer,
{
    let viewer = state
        .viewers()
        .enter(caller.address)
        .ok_or_else(|| Problem::too_many("Too many live logs are open from your address. Close one.", 10))?;
    let (tx, rx) = mpsc::channel(BUFFER);
    let spare = tx.clone().reserve_owned().await.ok();
    let mut sink = Sink {
        tx,
        spare,
        _viewer: viewer,
    };
    let state = state.clone();
    tokio::spawn(async move {
        let closed = sink.tx.clone();
        let hello = sink.send(Event::default().retry(RETRY)).await;
        if hello.is_err() {
            return;
        }
        tokio::select! {
            _ = produce.run(&state, &mut sink) => {}
            () = closed.closed() => {}
            () = state.draining().cancelled() => {}
            () = tokio::time::sleep(MAX_AGE) => {}
        }
    });
    let ok: fn(Event) -> Result<Event, Infallible> = Ok;
    Ok(Sse::new(ReceiverStream::new(rx).map(ok))
        .keep_alive(KeepAlive::new().interval(Duration::from_secs(15)).text("still here")))
}

/// What a stream sends.
pub(super) trait Producer: Send + 'static {
    fn run(self, state: &AppState, sink: &mut Sink) -> impl Future<Output = Result<(), Gone>> + Send;
}

pub(super) fn last_event_id(headers: &HeaderMap) -> Option<&str> {
    headers
        .get("last-event-id")
        .and_then(|v| v.to_str().ok())
        .filter(|v| !v.is_empty())
}

/// Whether a log will never come: its attempt has ended, and there is none.
pub(super) async fn never_comes(state: &AppState, attempt: AttemptId) -> bool {
    let row = state.store().attempt(attempt).await.ok().flatten();
    row.is_none_or(|row| row.state.is_terminal()) && !state.logs().exists(attempt).await
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::web::http::limits::Viewers;

    #[tokio::test(start_paused = true)]
    async fn a_viewer_that_takes_nothing_is_sent_away_and_told_so() {
        let (tx, mut rx) = mpsc::channel(2);
        let spare = tx.clone().reserve_owned().await.ok();
        let viewer = Viewers::new(1, 1).enter([192, 0, 2, 1].into()).unwrap();
        let mut sink = Sink {
            tx,
            spare,
            _viewer: viewer,
        };
        assert!(sink.event("log", None, &Resync::default()).await.is_ok());
        let started = Instant::now();
        assert!(sink.event("log", None, &Resync::default()).await.is_err());
        assert!(started.elapsed() >= SLOW);
        drop(sink);
        let mut names = Vec::new();
        while let Some(event) = rx.recv().await {
            names.push(format!("{event:?}"));
        }
        assert_eq!(names.len(), 2);
        assert!(names[0].contains("log") && names[1].contains("resync"), "{names:?}");
    }
}
