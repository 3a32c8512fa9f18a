//! Webhooks in: `POST /hooks/<connection>`. A delivery is bounded, verified over its raw bytes,
//! scrubbed, stored, and answered; nothing else happens before the answer.
//!
//! The connection in the path decides what is spoken and which secrets count. The deadline for the
//! request's *headers* is the listener's (`http1().header_read_timeout`); the one for its body is here.

mod limits;
mod scrub;
#[cfg(test)]
mod tests;
mod verdict;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use async_trait::async_trait;
use axum::{
    Json, Router,
    body::Body,
    extract::{ConnectInfo, Path, Request, State},
    response::{IntoResponse, Response},
    routing::post,
};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::BodyExt;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::{sync::Semaphore, time::timeout};

use self::limits::Limits;
pub use self::verdict::{serves, verdict, words};
use crate::{
    config::{Connection, ConnectionKind, WebhookSecret},
    forge::signature,
    model::{ids::DeliveryId, names::ConnectionId, trigger::Subject},
};

const MIB: usize = 1024 * 1024;
/// A whole body must have arrived within this. Forges give up after 5 to 10 s themselves.
const BODY_DEADLINE: Duration = Duration::from_secs(10);
/// Parsing is the only work that grows with a body; this many at once keep its memory bounded.
const PARSERS: usize = 2;

/// A verified, scrubbed delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Which connection it came in at.
    pub connection: ConnectionId,
    /// The forge's delivery id, or the digest's hexadecimal form where it sent none.
    pub key: String,
    /// The event's name.
    pub event: String,
    /// JSON, scrubbed.
    pub body: Vec<u8>,
    /// SHA-256 of the raw body.
    pub digest: [u8; 32],
    /// What it is about.
    pub subject: Subject,
}

/// What recording did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// Stored now.
    New(DeliveryId),
    /// It had been stored before, and is done or on its way.
    Duplicate(DeliveryId),
}

/// What the one who delivered is told: forges show the answer on the page of the delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// What was done.
    pub recorded: Recorded,
    /// What will come of it, or what came of it before, in one sentence.
    pub message: String,
}

/// The delivery could not be stored durably.
#[derive(Debug, thiserror::Error)]
#[error("the delivery could not be stored")]
pub struct NotStored(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Where deliveries go: stored durably when this returns, and whoever plans them has been woken.
#[async_trait]
pub trait DeliverySink: Send + Sync {
    /// Records a delivery once.
    async fn record(&self, delivery: Delivery) -> Result<Receipt, NotStored>;
}

/// What intake needs of one connection.
#[derive(Debug, Clone)]
struct Door {
    kind: ConnectionKind,
    secrets: Vec<WebhookSecret>,
}

impl Door {
    fn limit(&self) -> usize {
        match self.kind {
            ConnectionKind::Github { .. } => 25 * MIB,
            ConnectionKind::Forgejo { .. } => 10 * MIB,
        }
    }

    /// The headers with the event's name and the delivery's id, the forge's own first.
    fn headers(&self) -> (&'static [&'static str], &'static [&'static str]) {
        match self.kind {
            ConnectionKind::Github { .. } => (&["x-github-event"], &["x-github-delivery"]),
            ConnectionKind::Forgejo { .. } => (
                &["x-forgejo-event", "x-gitea-event"],
                &["x-forgejo-delivery", "x-gitea-delivery"],
            ),
        }
    }
}

/// How requests end; the label of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Outcome {
    Stored,
    Duplicate,
    BadSignature,
    BadRequest,
    UnknownConnection,
    TooLarge,
    TooSlow,
    TooMany,
    NotStored,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

/// The webhook endpoint's state. Cheap to clone.
#[derive(Clone)]
pub struct Intake {
    doors: Arc<RwLock<BTreeMap<ConnectionId, Door>>>,
    sink: Arc<dyn DeliverySink>,
    limits: Arc<Limits>,
    parsers: Arc<Semaphore>,
    outcomes: Family<OutcomeLabel, Counter>,
    body_deadline: Duration,
}

impl std::fmt::Debug for Intake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Intake")
            .field("doors", &self.doors)
            .finish_non_exhaustive()
    }
}

impl Intake {
    /// An endpoint for these connections.
    #[must_use]
    pub fn new(connections: &BTreeMap<ConnectionId, Connection>, sink: Arc<dyn DeliverySink>) -> Self {
        let intake = Self {
            doors: Arc::default(),
            sink,
            limits: Arc::default(),
            parsers: Arc::new(Semaphore::new(PARSERS)),
            outcomes: Family::default(),
            body_deadline: BODY_DEADLINE,
        };
        intake.reload(connections);
        intake
    }

    /// Uses these connections and secrets from the next request on: how a secret is rotated.
    pub fn reload(&self, connections: &BTreeMap<ConnectionId, Connection>) {
        let doors = connections
            .iter()
            .map(|(id, c)| {
                (
                    id.clone(),
                    Door {
                        kind: c.kind.clone(),
                        secrets: c.webhook_secrets.clone(),
                    },
                )
            })
            .collect();
        *self.doors.write().unwrap_or_else(PoisonError::into_inner) = doors;
    }

    /// Adds the endpoint's counters to a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "webhook_requests",
            "Requests to the webhook endpoint by outcome",
            self.outcomes.clone(),
        );
    }

    /// The route. Requests should carry [`ConnectInfo`], so that addresses can be limited.
    pub fn router(self) -> Router {
        Router::new()
            .route("/hooks/{connection}", post(receive))
            .with_state(self)
    }

    fn door(&self, id: &ConnectionId) -> Option<Door> {
        self.doors
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(id)
            .cloned()
    }
}

/// An answer that is not about a stored delivery.
struct Refusal {
    outcome: Outcome,
    status: StatusCode,
    words: String,
    retry_after: Option<Duration>,
}

impl Refusal {
    fn new(outcome: Outcome, status: StatusCode, words: impl Into<String>) -> Self {
        Self {
            outcome,
            status,
            words: words.into(),
            retry_after: None,
        }
    }

    fn again_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// The same words whatever was wrong, so that nobody learns which part to work on.
    fn bad_signature() -> Self {
        Self::new(
            Outcome::BadSignature,
            StatusCode::UNAUTHORIZED,
            "the signature is missing or does not match: check the webhook's secret",
        )
    }

    fn bad_request(words: impl Into<String>) -> Self {
        Self::new(Outcome::BadRequest, StatusCode::BAD_REQUEST, words)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(json!({ "error": self.words }))).into_response();
        if let Some(wait) = self.retry_after {
            // Rounded up: an early return would only be refused again.
            let seconds = HeaderValue::from(wait.as_secs() + u64::from(wait.subsec_nanos() > 0));
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}

async fn receive(State(intake): State<Intake>, Path(connection): Path<String>, request: Request) -> Response {
    let result = intake.take(&connection, request).await;
    let (outcome, response) = match result {
        Ok(Receipt { recorded, message }) => {
            let (outcome, status, id) = match recorded {
                Recorded::New(id) => (Outcome::Stored, StatusCode::ACCEPTED, id),
                Recorded::Duplicate(id) => (Outcome::Duplicate, StatusCode::OK, id),
            };
            let answer = json!({ "delivery": id, "message": message });
            (outcome, (status, Json(answer)).into_response())
        }
        Err(refusal) => {
            // A connection's name comes from the path, so it is shown quoted and cut.
            let shown: String = connection.chars().take(40).collect();
            tracing::warn!(connection = ?shown, status = refusal.status.as_u16(), reason = %refusal.words, "webhook refused");
            (refusal.outcome, refusal.into_response())
        }
    };
    intake
        .outcomes
        .get_or_create(&OutcomeLabel {
            outcome: outcome.label(),
        })
        .inc();
    response
}

impl Outcome {
    fn label(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Duplicate => "duplicate",
            Self::BadSignature => "bad_signature",
            Self::BadRequest => "bad_request",
            Self::UnknownConnection => "unknown_connection",
            Self::TooLarge => "too_large",
            Self::TooSlow => "too_slow",
            Self::TooMany => "too_many",
            Self::NotStored => "not_stored",
        }
    }
}

impl Intake {
    async fn take(&self, connection: &str, request: Request) -> Result<Receipt, Refusal> {
        let too_many = |wait| {
            Refusal::new(
                Outcome::TooMany,
                StatusCode::TOO_MANY_REQUESTS,
                "too many deliveries at once",
            )
            .again_after(wait)
        };
        if let Some(ConnectInfo(peer)) = request.extensions().get::<ConnectInfo<SocketAddr>>() {
            self.limits.for_address(peer.ip()).map_err(too_many)?;
        }
        let (connection, door) = connection
            .parse::<ConnectionId>()
            .ok()
            .and_then(|id| self.door(&id).map(|door| (id, door)))
            .ok_or_else(|| {
                Refusal::new(
                    Outcome::UnknownConnection,
                    StatusCode::NOT_FOUND,
                    "no connection of this name is configured",
                )
            })?;
        self.limits.for_connection(&connection).map_err(too_many)?;

        let (parts, body) = request.into_parts();
        // A request without any signature is not worth reading.
        let signature = signature::presented(&door.kind, &parts.headers).ok_or_else(Refusal::bad_signature)?;
        let raw = self.read(&parts.headers, body, door.limit()).await?;
        // Hashing and parsing 25 MiB takes long enough to disturb everything else on the thread.
        let permit = self.parsers.clone().acquire_owned().await;
        let verified = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            verify(&connection, &door, &parts.headers, &signature, &raw)
        });
        let delivery = verified.await.map_err(|error| not_stored(&error))??;
        self.sink.record(delivery).await.map_err(|error| not_stored(&error))
    }

    async fn read(&self, headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, Refusal> {
        let too_large = || {
            let words = format!("the body is larger than {} MiB", limit / MIB);
            Refusal::new(Outcome::TooLarge, StatusCode::PAYLOAD_TOO_LARGE, words)
        };
        let announced = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
        if announced.is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        let mut room = self.limits.body();
        let mut body = body;
        let reading = async {
            let mut bytes = BytesMut::new();
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|_| Refusal::bad_request("the body ended before it was complete"))?;
                let Some(data) = frame.data_ref() else { continue };
                if bytes.len() + data.len() > limit {
                    return Err(too_large());
                }
                if !room.grow(bytes.len() + data.len()) {
                    let words = "too many large bodies at once";
                    return Err(Refusal::new(Outcome::TooMany, StatusCode::SERVICE_UNAVAILABLE, words)
                        .again_after(Duration::from_secs(10)));
                }
                bytes.extend_from_slice(data);
            }
            Ok(bytes.freeze())
        };
        let too_slow = |_| {
            Refusal::new(
                Outcome::TooSlow,
                StatusCode::REQUEST_TIMEOUT,
                "the body did not arrive in time",
            )
        };
        timeout(self.body_deadline, reading).await.map_err(too_slow)?
    }
}

fn not_stored(error: &(dyn std::error::Error + 'static)) -> Refusal {
    let mut reason = error.to_string();
    let mut at = error.source();
    while let Some(cause) = at {
        reason = format!("{reason}: {cause}");
        at = cause.source();
    }
    tracing::error!(%reason, "a webhook could not be stored");
    Refusal::new(
        Outcome::NotStored,
        StatusCode::SERVICE_UNAVAILABLE,
        "the delivery could not be stored: deliver it again",
    )
    .again_after(Duration::from_secs(30))
}

/// Everything about a delivery that needs its bytes, and no I/O.
fn verify(
    connection: &ConnectionId,
    door: &Door,
    headers: &HeaderMap,
    signature: &[u8; 32],
    raw: &[u8],
) -> Result<Delivery, Refusal> {
    let signers: Vec<&WebhookSecret> = signature::signers(&door.secrets, signature, raw).collect();
    if signers.is_empty() {
        return Err(Refusal::bad_signature());
    }
    let scrubbed = scrub::scrub(raw).map_err(|error| {
        Refusal::bad_request(format!(
            "the body is not a JSON object ({error}): set the webhook's content type to application/json"
        ))
    })?;
    // A secret that belongs to one repository signs for that one only.
    let may_sign = |s: &&WebhookSecret| s.repository_id.is_none() || s.repository_id == scrubbed.repository_id;
    if !signers.iter().any(may_sign) {
        return Err(Refusal::bad_signature());
    }
    let digest: [u8; 32] = Sha256::digest(raw).into();
    let (events, keys) = door.headers();
    let event = first(headers, events)
        .filter(|e| (1..=64).contains(&e.len()) && e.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
        .ok_or_else(|| {
            Refusal::bad_request(format!(
                "the header {} with the event's name is missing or malformed",
                events[0]
            ))
        })?;
    let key = match first(headers, keys) {
        None => hex::encode(digest),
        Some(key) if is_key(key) => key.to_owned(),
        Some(_) => return Err(Refusal::bad_request(format!("the header {} is malformed", keys[0]))),
    };
    Ok(Delivery {
        connection: connection.clone(),
        key,
        event: event.to_owned(),
        body: scrubbed.body,
        digest,
        subject: scrubbed.subject,
    })
}

/// The first of these headers that is present; a value that is not text reads as empty and so as malformed.
fn first<'a>(headers: &'a HeaderMap, names: &[&str]) -> Option<&'a str> {
    names
        .iter()
        .find_map(|name| headers.get(*name))
        .map(|value| value.to_str().unwrap_or_default())
}

/// Forges send UUIDs; anything that fits an id of that kind will do.
fn is_key(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
}
