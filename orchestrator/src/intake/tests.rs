use std::sync::Mutex;

use hmac::{Hmac, KeyInit, Mac};
use tower::ServiceExt;

use super::*;
use crate::secret::Secret;

/// Remembers deliveries as the store would: once per connection and key.
#[derive(Default)]
struct Memory {
    stored: Mutex<Vec<(DeliveryId, Delivery)>>,
    broken: bool,
}

#[async_trait]
impl DeliverySink for Memory {
    async fn record(&self, delivery: Delivery) -> Result<Receipt, NotStored> {
        if self.broken {
            return Err(NotStored("disk full".into()));
        }
        let mut stored = self.stored.lock().unwrap();
        let same = |d: &&(DeliveryId, Delivery)| d.1.connection == delivery.connection && d.1.key == delivery.key;
        if let Some((id, _)) = stored.iter().find(same) {
            return Ok(receipt(Recorded::Duplicate(*id)));
        }
        let id = DeliveryId::new();
        stored.push((id, delivery));
        Ok(receipt(Recorded::New(id)))
    }
}

fn receipt(recorded: Recorded) -> Receipt {
    Receipt {
        recorded,
        message: "what comes of it".to_owned(),
    }
}

fn connection(kind: ConnectionKind, secrets: &[(&str, Option<i64>)]) -> Connection {
    let secret = |(s, id): &(&str, Option<i64>)| WebhookSecret {
        secret: Secret::new(*s),
        repository_id: *id,
    };
    Connection {
        kind,
        url: "https://forge.example".to_owned(),
        webhook_secrets: secrets.iter().map(secret).collect(),
        repositories: vec![],
        public: vec![],
        allow_private: false,
    }
}

fn connections() -> BTreeMap<ConnectionId, Connection> {
    let forgejo = ConnectionKind::Forgejo {
        token: Secret::new("t"),
    };
    let github = ConnectionKind::Github {
        api_url: String::new(),
        app_id: 1,
        private_key: Secret::new(""),
    };
    BTreeMap::from([
        (
            "hub".parse().unwrap(),
            connection(github, &[("hub-old", None), ("hub-new", None)]),
        ),
        (
            "berg".parse().unwrap(),
            connection(forgejo, &[("seven", Some(7)), ("eight", Some(8))]),
        ),
    ])
}

struct Rig {
    sink: Arc<Memory>,
    intake: Intake,
}

fn rig() -> Rig {
    let sink = Arc::new(Memory::default());
    Rig {
        intake: Intake::new(&connections(), sink.clone()),
        sink,
    }
}

fn sign(secret: &str, body: &[u8]) -> String {
    hex::encode(
        Hmac::<Sha256>::new_from_slice(secret.as_bytes())
            .unwrap()
            .chain_update(body)
            .finalize()
            .into_bytes(),
    )
}

fn github(secret: &str, key: &str, body: &[u8]) -> Request {
    Request::post("/hooks/hub")
        .header("x-hub-signature-256", format!("sha256={}", sign(secret, body)))
        .header("x-github-event", "push")
        .header("x-github-delivery", key)
        .body(Body::from(body.to_vec()))
        .unwrap()
}

fn forgejo(secret: &str, body: &[u8]) -> Request {
    Request::post("/hooks/berg")
        .header("x-forgejo-signature", sign(secret, body))
        .header("x-forgejo-event", "push")
        .header("x-github-event", "ping")
        .header("x-forgejo-delivery", "f-1")
        .body(Body::from(body.to_vec()))
        .unwrap()
}

impl Rig {
    async fn ask(&self, request: Request) -> (StatusCode, serde_json::Value) {
        let response = self.intake.clone().router().oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    fn stored(&self) -> Vec<Delivery> {
        self.sink
            .stored
            .lock()
            .unwrap()
            .iter()
            .map(|(_, d)| d.clone())
            .collect()
    }
}

#[tokio::test]
async fn a_delivery_is_stored_scrubbed_and_answered_with_its_id() {
    let rig = rig();
    let body = br#"{"repository":{"id":3},"secret":"hub-new"}"#;
    let (status, answer) = rig.ask(github("hub-new", "d-1", body)).await;
    assert_eq!(status, 202);
    let id = rig.sink.stored.lock().unwrap()[0].0;
    assert_eq!(answer, json!({ "delivery": id, "message": "what comes of it" }));
    let stored = &rig.stored()[0];
    assert_eq!((stored.key.as_str(), stored.event.as_str()), ("d-1", "push"));
    assert!(!String::from_utf8_lossy(&stored.body).contains("hub-new"));
    assert_eq!(stored.digest, <[u8; 32]>::from(Sha256::digest(body)));

    let (status, again) = rig.ask(github("hub-old", "d-1", body)).await;
    assert_eq!(
        (status, again),
        (StatusCode::OK, answer),
        "a duplicate, signed with the other secret of a rotation"
    );
}

#[tokio::test]
async fn both_secrets_of_a_rotation_sign_until_one_is_removed() {
    let rig = rig();
    assert_eq!(rig.ask(github("hub-old", "1", b"{}")).await.0, 202);
    let mut after = connections();
    after
        .get_mut(&"hub".parse::<ConnectionId>().unwrap())
        .unwrap()
        .webhook_secrets
        .remove(0);
    rig.intake.reload(&after);
    assert_eq!(rig.ask(github("hub-old", "2", b"{}")).await.0, 401);
    assert_eq!(rig.ask(github("hub-new", "3", b"{}")).await.0, 202);
}

#[tokio::test]
async fn a_bad_signature_is_always_answered_with_the_same_words() {
    let rig = rig();
    let mut unsigned = github("hub-new", "1", b"{}");
    unsigned.headers_mut().remove("x-hub-signature-256");
    let mut sha1 = github("hub-new", "1", b"{}");
    sha1.headers_mut().remove("x-hub-signature-256");
    sha1.headers_mut().insert(
        "x-hub-signature",
        HeaderValue::from_static("sha1=5d61605c3feea9799210ddcb71307d4ba264225f"),
    );
    let answers = [
        rig.ask(unsigned).await,
        rig.ask(sha1).await,
        rig.ask(github("", "1", b"{}")).await,
        rig.ask(github("wrong", "1", b"not json")).await,
        rig.ask(forgejo("seven", br#"{"repository":{"id":8}}"#)).await,
        rig.ask(forgejo("seven", br#"{"repository":{"name":"x"}}"#)).await,
    ];
    for answer in &answers {
        assert_eq!(answer, &answers[0]);
        assert_eq!(answer.0, 401);
    }
    assert!(rig.stored().is_empty());
}

#[tokio::test]
async fn a_repositorys_secret_signs_for_it_and_the_forge_is_not_guessed() {
    let rig = rig();
    let (status, _) = rig.ask(forgejo("seven", br#"{"repository":{"id":7}}"#)).await;
    assert_eq!((status, rig.stored()[0].event.as_str()), (StatusCode::ACCEPTED, "push"));
}

#[tokio::test]
async fn requests_that_are_no_deliveries() {
    let rig = rig();
    assert_eq!(rig.ask(github("hub-new", "1", b"payload=x")).await.0, 400);
    assert_eq!(rig.ask(github("hub-new", "a b", b"{}")).await.0, 400);
    assert_eq!(rig.ask(github("hub-new", &"k".repeat(129), b"{}")).await.0, 400);
    let mut no_event = github("hub-new", "1", b"{}");
    no_event.headers_mut().remove("x-github-event");
    assert_eq!(rig.ask(no_event).await.0, 400);
    for path in ["/hooks/other", "/hooks/..%2fx", "/hooks/HUB"] {
        let mut elsewhere = github("hub-new", "1", b"{}");
        *elsewhere.uri_mut() = path.parse().unwrap();
        assert_eq!(rig.ask(elsewhere).await.0, 404, "{path}");
    }
    let get = Request::get("/hooks/hub").body(Body::empty()).unwrap();
    assert_eq!(rig.ask(get).await.0, 405);
    assert!(rig.stored().is_empty());
}

#[tokio::test]
async fn a_delivery_without_an_id_is_known_by_its_digest() {
    let rig = rig();
    for expected in [202, 200] {
        let mut request = github("hub-new", "1", b"{}");
        request.headers_mut().remove("x-github-delivery");
        assert_eq!(rig.ask(request).await.0, expected);
    }
    assert_eq!(rig.stored()[0].key, hex::encode(Sha256::digest(b"{}")));
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_announced_or_not() {
    let rig = rig();
    let mut announced = forgejo("seven", b"{}");
    announced
        .headers_mut()
        .insert(header::CONTENT_LENGTH, HeaderValue::from(10 * MIB + 1));
    assert_eq!(rig.ask(announced).await.0, 413);
    let chunks = (0..11).map(|_| Ok::<_, std::io::Error>(vec![b' '; MIB]));
    let (parts, _) = forgejo("seven", b"{}").into_parts();
    let streamed = Request::from_parts(parts, Body::from_stream(tokio_stream::iter(chunks)));
    assert_eq!(rig.ask(streamed).await.0, 413);
    // GitHub's limit is higher; this one is only slow to parse.
    let large = format!("{{\"x\":\"{}\"}}", "y".repeat(11 * MIB));
    assert_eq!(rig.ask(github("hub-new", "1", large.as_bytes())).await.0, 202);
}

#[tokio::test]
async fn a_body_that_does_not_end_is_given_up() {
    let mut rig = rig();
    rig.intake.body_deadline = Duration::from_millis(50);
    let (parts, _) = github("hub-new", "1", b"{}").into_parts();
    let endless = Body::from_stream(tokio_stream::pending::<Result<Vec<u8>, std::io::Error>>());
    assert_eq!(rig.ask(Request::from_parts(parts, endless)).await.0, 408);
}

#[tokio::test]
async fn a_store_that_fails_is_said_so_and_asked_again() {
    let sink = Arc::new(Memory {
        broken: true,
        ..Memory::default()
    });
    let intake = Intake::new(&connections(), sink);
    let response = intake.router().oneshot(github("hub-new", "1", b"{}")).await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()[header::RETRY_AFTER], "30");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(
        !String::from_utf8_lossy(&body).contains("disk"),
        "our troubles are for the log"
    );
}

#[tokio::test]
async fn a_flood_is_answered_429_and_counted() {
    let rig = rig();
    let mut refused = None;
    for _ in 0..5_000 {
        let mut request = Request::post("/hooks/nobody").body(Body::empty()).unwrap();
        request
            .extensions_mut()
            .insert(ConnectInfo::<SocketAddr>("192.0.2.1:1".parse().unwrap()));
        let response = rig.intake.clone().router().oneshot(request).await.unwrap();
        if response.status() == 429 {
            refused = Some(response);
            break;
        }
        assert_eq!(response.status(), 404);
    }
    assert_eq!(
        refused.expect("the address is limited").headers()[header::RETRY_AFTER],
        "1"
    );
    let mut registry = Registry::default();
    rig.intake.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    assert!(
        text.contains(r#"webhook_requests_total{outcome="too_many"} 1"#),
        "{text}"
    );
}

#[tokio::test]
async fn the_same_delivery_posted_at_once_is_one() {
    let rig = rig();
    let asks = (0..8).map(|_| rig.ask(github("hub-new", "same", b"{}")));
    let answers = futures::future::join_all(asks).await;
    assert_eq!(answers.iter().filter(|(status, _)| *status == 202).count(), 1);
    assert!(answers.iter().all(|(_, body)| body == &answers[0].1));
}
