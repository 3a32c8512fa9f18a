//! Webhooks in: `POST /hooks/<connection>`. A delivery is bounded, verified over its raw bytes, scrubbed, stored, and
//! answered; nothing else happens before the answer, which says what will come of it. A webhook that is set up wrongly
//! is answered with the setting to change: its forge shows that on the page of the delivery, and here nothing else would.
//!
//! The connection in the path decides which forge's dialect is read and which secrets count. The deadline for the
//! request's *headers* is the listener's (`http1().header_read_timeout`); the one for its body is here.

mod content_type;
mod elsewhere;
mod limits;
mod outcome;
mod refusal;
mod scrub;
mod signature;
#[cfg(test)]
mod tests;
mod verdict;
mod verify;

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::{ConnectInfo, Path, Request, State},
    response::{IntoResponse, Response},
    routing::{any, post},
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
use tokio::{sync::Semaphore, time::timeout};
use tokio_util::task::TaskTracker;
use tower_http::set_header::SetResponseHeaderLayer;

use self::{
    limits::{BodyRoom, Limits},
    refusal::{Refusal, RequestOutcome},
    verify::verify,
};
pub use self::{
    outcome::outcome_text,
    verdict::{serves, verdict, verdict_text},
};
use crate::{
    config::{Config, WebhookSecret},
    failpoint::{self, Point},
    forge::{Forge, Webhooks},
    model::{ids::DeliveryId, names::ConnectionId},
    queue::{Hint, Hints},
    store::{DeliveryOutcome, NewDelivery, RecordOutcome, Store, StoreError},
};

/// A whole body must have arrived within this. Forges give up after 5 to 10 s themselves.
const BODY_DEADLINE: Duration = Duration::from_secs(10);
/// Parsing is the only work that grows with a body; this many at once keep its memory bounded.
const PARSERS: usize = 2;
/// Of a longer body, in bytes, the answer does not say what will come of it: reading it twice would hold up others.
const READ_AT_ONCE: usize = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

/// The webhook endpoint's state. Cheap to clone.
#[derive(Clone)]
pub struct Intake {
    config: Arc<Config>,
    forges: HashMap<ConnectionId, Arc<dyn Forge>>,
    store: Store,
    hints: Arc<dyn Hints>,
    limits: Arc<Limits>,
    parsers: Arc<Semaphore>,
    outcomes: Family<OutcomeLabel, Counter>,
    body_deadline: Duration,
    keeping: TaskTracker,
}

impl std::fmt::Debug for Intake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Intake")
            .field("forges", &self.forges)
            .finish_non_exhaustive()
    }
}

/// What a sender is answered: forges show it on the page of the delivery.
struct Receipt {
    recorded: RecordOutcome,
    /// What will come of it, or what came of it before, in one sentence.
    message: String,
    /// Whether its body can be used: one that cannot is stored for people to find, and its sender is told.
    usable: bool,
}

/// What is needed to read one connection's deliveries.
struct Endpoint {
    connection: ConnectionId,
    webhooks: Arc<dyn Webhooks>,
    secrets: Vec<WebhookSecret>,
}

impl Intake {
    /// An endpoint for the connections of this configuration.
    #[must_use]
    pub fn new(
        config: Arc<Config>,
        forges: HashMap<ConnectionId, Arc<dyn Forge>>,
        store: Store,
        hints: Arc<dyn Hints>,
    ) -> Self {
        Self {
            config,
            forges,
            store,
            hints,
            limits: Arc::default(),
            parsers: Arc::new(Semaphore::new(PARSERS)),
            outcomes: Family::default(),
            body_deadline: BODY_DEADLINE,
            keeping: TaskTracker::new(),
        }
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
            .route("/hooks", any(elsewhere::no_webhook))
            .route("/hooks/", any(elsewhere::no_webhook))
            .route("/hooks/{*address}", post(receive).fallback(elsewhere::not_posted))
            // A connection that is kept may be closed by a stop or a new configuration just when the next delivery is
            // on its way, and no forge sends it twice.
            .layer(SetResponseHeaderLayer::overriding(
                header::CONNECTION,
                HeaderValue::from_static("close"),
            ))
            .with_state(self)
    }

    /// The deliveries that have arrived whole and are not stored yet. Whoever stops waits for them after the last request.
    #[must_use]
    pub fn keeping(&self) -> TaskTracker {
        self.keeping.clone()
    }

    fn endpoint(&self, name: &str) -> Result<Endpoint, Refusal> {
        let known = name.parse::<ConnectionId>().ok().and_then(|connection| {
            let forge = self.forges.get(&connection)?;
            let secrets = self.config.connections.get(&connection)?.webhook_secrets.clone();
            Some((connection, forge, secrets))
        });
        let Some((connection, forge, secrets)) = known else {
            return Err(Refusal::unknown_connection("no connection of this name is configured"));
        };
        let Some(webhooks) = forge.webhooks() else {
            return Err(Refusal::unknown_connection(
                "this connection takes no webhooks: its kind of forge sends none",
            ));
        };
        Ok(Endpoint {
            connection,
            webhooks,
            secrets,
        })
    }

    fn count_address(&self, request: &Request) -> Result<(), Refusal> {
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
        peer.map_or(Ok(()), |ConnectInfo(peer)| self.limits.for_address(peer.ip()))
            .map_err(Refusal::too_many)
    }

    async fn take(&self, connection: &str, request: Request) -> Result<Receipt, Refusal> {
        self.count_address(&request)?;
        let endpoint = self.endpoint(connection)?;
        self.limits
            .for_connection(&endpoint.connection)
            .map_err(Refusal::too_many)?;

        let dialect = endpoint.webhooks.dialect();
        let (parts, body) = request.into_parts();
        content_type::check(&parts.headers)?;
        // A request without any signature is not worth reading.
        let signature = signature::presented(dialect.signature_headers, &parts.headers)
            .ok_or_else(|| Refusal::bad_signature(dialect))?;
        let (raw, room) = self.read(&parts.headers, body, dialect.body_limit).await?;
        // A forge that has waited long enough closes its connection, which ends this request, and sends nothing twice:
        // what has arrived whole is kept all the same.
        let place = self.limits.keep().ok_or_else(|| Refusal::no_room("deliveries"))?;
        let intake = self.clone();
        let kept = self.keeping.spawn(async move {
            let _until_stored = (room, place);
            intake.keep(endpoint, parts.headers, signature, raw).await
        });
        kept.await.map_err(|error| Refusal::not_stored(&error))?
    }

    /// Stores a delivery once its signature is verified.
    async fn keep(
        &self,
        endpoint: Endpoint,
        headers: HeaderMap,
        signature: [u8; 32],
        raw: Bytes,
    ) -> Result<Receipt, Refusal> {
        // Hashing and parsing 25 MiB takes long enough to disturb everything else on the thread.
        let permit = self.parsers.clone().acquire_owned().await;
        let verified = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            verify(&endpoint, &headers, &signature, &raw)
        });
        let delivery = verified.await.map_err(|error| Refusal::not_stored(&error))??;
        self.record(delivery).await.map_err(|error| Refusal::not_stored(&error))
    }

    async fn read(&self, headers: &HeaderMap, body: Body, limit: usize) -> Result<(Bytes, BodyRoom), Refusal> {
        let announced = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
        if announced.is_some_and(|length| length > limit) {
            return Err(Refusal::too_large(limit));
        }
        let mut room = self.limits.body();
        let mut body = body;
        let reading = async {
            let mut bytes = BytesMut::new();
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|_| Refusal::bad_request("the body ended before it was complete"))?;
                let Some(data) = frame.data_ref() else { continue };
                if bytes.len() + data.len() > limit {
                    return Err(Refusal::too_large(limit));
                }
                if !room.grow(bytes.len() + data.len()) {
                    return Err(Refusal::no_room("large bodies"));
                }
                bytes.extend_from_slice(data);
            }
            Ok(bytes.freeze())
        };
        let bytes = timeout(self.body_deadline, reading)
            .await
            .map_err(|_| Refusal::too_slow())??;
        Ok((bytes, room))
    }

    /// Stores a delivery and wakes the planner.
    async fn record(&self, delivery: NewDelivery) -> Result<Receipt, StoreError> {
        // Pure, so nothing happens before the delivery is durable.
        let expected = (delivery.body.len() <= READ_AT_ONCE).then(|| {
            let forge = self.forges.get(&delivery.connection).map(AsRef::as_ref);
            let (event, body) = (&delivery.event, &delivery.body);
            verdict(forge, &self.config, &delivery.connection, event, body)
        });
        let usable = !matches!(expected, Some(DeliveryOutcome::Failed { .. }));
        let recorded = self.store.record_delivery(delivery).await?;
        let message = match recorded {
            RecordOutcome::New(_) => {
                failpoint::hit(Point::DeliveryStored);
                self.hints.notify(Hint::Delivery);
                expected
                    .as_ref()
                    .map_or_else(|| "stored; it is read next".to_owned(), verdict_text)
            }
            RecordOutcome::Duplicate(id) => self.earlier(id).await?,
            RecordOutcome::Woken(id) => {
                self.hints.notify(Hint::Trigger);
                self.waking(id).await?
            }
        };
        Ok(Receipt {
            recorded,
            message,
            usable,
        })
    }

    fn count(&self, outcome: RequestOutcome) {
        let outcome = outcome.label();
        self.outcomes.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// The answer to a request that was not stored, after it was counted and logged.
    fn refused(&self, connection: &str, refusal: Refusal) -> Response {
        // A connection's name comes from the path, so it is shown quoted and cut.
        let shown: String = connection.chars().take(40).collect();
        tracing::warn!(connection = ?shown, status = refusal.status.as_u16(), reason = %refusal.reason, "webhook refused");
        self.count(refusal.outcome);
        refusal.into_response()
    }

    /// What came of a delivery that was recorded before.
    async fn earlier(&self, id: DeliveryId) -> Result<String, StoreError> {
        let row = self.store.delivery(id).await?;
        let outcome = row.map_or_else(|| "it was forgotten since".to_owned(), |row| outcome_text(&row));
        Ok(format!("delivered before; {outcome}"))
    }

    /// What a delivery waited for that is tried again because it was delivered again.
    async fn waking(&self, id: DeliveryId) -> Result<String, StoreError> {
        let row = self.store.delivery(id).await?;
        let waited = row.and_then(|row| row.builds.into_iter().find_map(|build| build.reason));
        Ok(match waited {
            Some(reason) => format!("delivered before, and tried again now; it waited: {reason}"),
            None => "delivered before, and tried again now".to_owned(),
        })
    }
}

/// The connection of a webhook's address, what stands behind `/hooks/`: whoever copies an address may leave a slash at its
/// end.
fn named(address: &str) -> Option<&str> {
    let name = address.strip_suffix('/').unwrap_or(address);
    (!name.is_empty() && !name.contains('/')).then_some(name)
}

async fn receive(State(intake): State<Intake>, Path(address): Path<String>, request: Request) -> Response {
    let Some(connection) = named(&address) else {
        return elsewhere::no_webhook(State(intake), request).await;
    };
    let Receipt {
        recorded,
        message,
        usable,
    } = match intake.take(connection, request).await {
        Ok(receipt) => receipt,
        Err(refusal) => return intake.refused(connection, refusal),
    };
    let (outcome, status, id) = match recorded {
        RecordOutcome::New(id) if usable => (RequestOutcome::Stored, StatusCode::ACCEPTED, id),
        RecordOutcome::Duplicate(id) if usable => (RequestOutcome::Duplicate, StatusCode::OK, id),
        RecordOutcome::Woken(id) => (RequestOutcome::Duplicate, StatusCode::ACCEPTED, id),
        RecordOutcome::New(id) | RecordOutcome::Duplicate(id) => {
            (RequestOutcome::Unusable, StatusCode::UNPROCESSABLE_ENTITY, id)
        }
    };
    intake.count(outcome);
    (status, Json(json!({ "delivery": id, "message": message }))).into_response()
}
