use std::{collections::BTreeMap, path::Path as FilePath};

use async_trait::async_trait;
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderValue;
use sha2::{Digest, Sha256};
use tower::ServiceExt;

use super::{refusal::MIB, *};
use crate::{
    config::{Connection, ConnectionKind, LoadOptions},
    deadline,
    forge::{FetchAccess, ForgeError},
    model::{
        names::{CommitSha, ForgeContext, RefName, RepoPath},
        report::Report,
        trigger::Repository,
    },
    queue::InProcess,
    secret::Secret,
    store::{ClaimedDelivery, DeliveryFilter, DeliveryRow},
};

fn connection(kind: ConnectionKind, secrets: &[(&str, Option<u64>)]) -> Connection {
    let secret = |(s, id): &(&str, Option<u64>)| WebhookSecret {
        secret: Secret::new(*s),
        repository_id: id.map(Into::into),
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
        api_url: "https://api.forge.example".to_owned(),
        app_id: 1,
        private_key: Secret::new(include_str!("../forge/github/testdata/app.pkcs1.pem")),
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
    store: Store,
    intake: Intake,
}

async fn rig() -> Rig {
    rig_of(connections(), Store::open_temporary().await.unwrap())
}

fn rig_of(connections: BTreeMap<ConnectionId, Connection>, store: Store) -> Rig {
    let forges = connections
        .iter()
        .map(|(id, connection)| (id.clone(), crate::forge::connect(id, connection).unwrap()))
        .collect();
    Rig {
        intake: intake(connections, forges, &store),
        store,
    }
}

fn intake(
    connections: BTreeMap<ConnectionId, Connection>,
    forges: HashMap<ConnectionId, Arc<dyn Forge>>,
    store: &Store,
) -> Intake {
    let options = LoadOptions { dev_env_secrets: false };
    let mut config = Config::parse(FilePath::new("ci.yaml"), "node: n\n", options)
        .unwrap()
        .config;
    config.connections = connections;
    Intake::new(Arc::new(config), forges, store.clone(), Arc::new(InProcess::new()))
}

/// A forge without webhooks.
#[derive(Debug)]
struct Silent;

#[async_trait]
impl Forge for Silent {
    fn workflow_folders(&self) -> &'static [&'static str] {
        &[]
    }

    fn webhooks(&self) -> Option<Arc<dyn Webhooks>> {
        None
    }

    async fn read_ref(&self, _: &Repository, _: &RefName) -> Result<Option<CommitSha>, ForgeError> {
        unreachable!("intake asks forges for nothing")
    }

    async fn find_repository(&self, _: &RepoPath, _: &ForgeContext) -> Result<Option<Repository>, ForgeError> {
        unreachable!("intake asks forges for nothing")
    }

    async fn locate(&self, _: &Repository) -> Result<Repository, ForgeError> {
        unreachable!("intake asks forges for nothing")
    }

    async fn fetch_access(&self, _: &Repository) -> Result<FetchAccess, ForgeError> {
        unreachable!("intake asks forges for nothing")
    }

    async fn report(&self, _: &Report, _: &str, _: Option<&str>) -> Result<Option<String>, ForgeError> {
        unreachable!("intake asks forges for nothing")
    }

    async fn check(&self, _: &[RepoPath]) -> Result<crate::forge::Checked, ForgeError> {
        unreachable!("intake asks forges for nothing")
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
        .header("x-github-event", "ping")
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

    async fn stored(&self) -> Vec<DeliveryRow> {
        self.store.deliveries(&DeliveryFilter::default()).await.unwrap()
    }

    /// The oldest stored delivery, as the planner gets it.
    async fn claimed(&self) -> ClaimedDelivery {
        let node = "n".parse().unwrap();
        let claimed = self.store.claim_delivery(&node, Duration::from_secs(60)).await;
        claimed.unwrap().expect("a stored delivery")
    }
}

#[tokio::test]
async fn a_delivery_is_stored_scrubbed_and_answered_with_its_id() {
    let rig = rig().await;
    let body = br#"{"repository":{"id":3},"secret":"hub-new"}"#;
    let (status, answer) = rig.ask(github("hub-new", "d-1", body)).await;
    assert_eq!(status, 202);
    let row = &rig.stored().await[0];
    assert_eq!(answer["delivery"], json!(row.id));
    assert_eq!(answer["message"], "ignored: a ping: the webhook works");
    assert_eq!((row.key.as_str(), row.event.as_str()), ("d-1", "ping"));

    let (status, again) = rig.ask(github("hub-old", "d-1", body)).await;
    assert_eq!(
        (status, again),
        (
            StatusCode::OK,
            json!({ "delivery": row.id, "message": "delivered before; it is read next" })
        ),
        "a duplicate, signed with the other secret of a rotation"
    );
    let (status, again) = rig.ask(github("hub-new", "d-2", body)).await;
    assert_eq!(status, StatusCode::OK, "the raw body's digest is stored: {again}");
    let claimed = rig.claimed().await;
    assert!(!String::from_utf8_lossy(&claimed.body).contains("hub-new"));
}

#[tokio::test]
async fn no_answer_leaves_a_connection_that_the_next_delivery_could_lose() {
    let rig = rig().await;
    for secret in ["hub-new", "wrong"] {
        let response = rig.intake.clone().router().oneshot(github(secret, "1", b"{}")).await;
        assert_eq!(response.unwrap().headers()["connection"], "close", "{secret}");
    }
}

#[tokio::test]
async fn what_is_stored_wakes_the_planner() {
    let rig = rig().await;
    let mut hints = rig.intake.hints.subscribe();
    assert_eq!(rig.ask(github("hub-new", "1", b"{}")).await.0, 202);
    let hint = hints.wait_for(|hint| hint == Hint::Delivery);
    assert!(timeout(deadline::PROMPT, hint).await.expect("a hint"));
}

#[tokio::test]
async fn both_secrets_of_a_rotation_sign_until_one_is_removed() {
    let before = rig().await;
    assert_eq!(before.ask(github("hub-old", "1", b"{}")).await.0, 202);
    let mut connections = connections();
    connections
        .get_mut(&"hub".parse::<ConnectionId>().unwrap())
        .unwrap()
        .webhook_secrets
        .remove(0);
    let after = rig_of(connections, before.store.clone());
    assert_eq!(after.ask(github("hub-old", "2", b"{\"n\":2}")).await.0, 401);
    assert_eq!(after.ask(github("hub-new", "3", b"{\"n\":3}")).await.0, 202);
}

#[tokio::test]
async fn a_connection_without_webhooks_says_so_and_stores_nothing() {
    let store = Store::open_temporary().await.unwrap();
    let hub: ConnectionId = "hub".parse().unwrap();
    let forges: HashMap<ConnectionId, Arc<dyn Forge>> = HashMap::from([(hub, Arc::new(Silent) as Arc<dyn Forge>)]);
    let rig = Rig {
        intake: intake(connections(), forges, &store),
        store,
    };
    let (status, answer) = rig.ask(github("hub-new", "1", b"{}")).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(
        answer["error"].as_str().unwrap().contains("takes no webhooks"),
        "{answer}"
    );
    assert!(rig.stored().await.is_empty());
}

#[tokio::test]
async fn a_bad_signature_is_always_answered_with_the_same_words() {
    let rig = rig().await;
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
    ];
    let mut unsigned = forgejo("seven", b"{}");
    unsigned
        .headers_mut()
        .insert("x-forgejo-signature", HeaderValue::from_static(""));
    let of_forgejo = [
        rig.ask(unsigned).await,
        rig.ask(forgejo("wrong", b"{}")).await,
        rig.ask(forgejo("seven", br#"{"repository":{"id":8}}"#)).await,
        rig.ask(forgejo("seven", br#"{"repository":{"name":"x"}}"#)).await,
    ];
    for answers in [&answers[..], &of_forgejo[..]] {
        for answer in answers {
            assert_eq!(answer, &answers[0]);
            assert_eq!(answer.0, 401);
        }
    }
    let said = of_forgejo[0].1["error"].as_str().unwrap();
    assert!(said.contains("type is Forgejo or Gitea"), "{said}");
    assert!(rig.stored().await.is_empty());
}

#[tokio::test]
async fn a_repositorys_secret_signs_for_it_and_the_forge_is_not_guessed() {
    let rig = rig().await;
    let body = serde_json::json!({
        "ref": "refs/heads/main", "after": "1".repeat(40), "repository": {"id": 7, "full_name": "acme/tool"},
    });
    let (status, _) = rig.ask(forgejo("seven", body.to_string().as_bytes())).await;
    assert_eq!(
        (status, rig.stored().await[0].event.as_str()),
        (StatusCode::ACCEPTED, "push")
    );
}

#[tokio::test]
async fn requests_that_are_no_deliveries() {
    let rig = rig().await;
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
    assert!(rig.stored().await.is_empty());
}

/// What webhooks of other types send of a push, with the fields that tell them.
fn of_other_types() -> [(&'static str, serde_json::Value); 5] {
    use serde_json::json;
    [
        (
            "the type Slack",
            json!({"channel": "#ci", "text": "[tool:main] 1 new commit", "username": "f", "icon_url": "", "unfurl_links": 0,
                   "link_names": 0, "attachments": []}),
        ),
        (
            "the type Microsoft Teams",
            json!({"@type": "MessageCard", "@context": "https://schema.org/extensions", "title": "1 new commit", "text": ""}),
        ),
        ("the type Discord", json!({"wait": false, "content": "", "embeds": []})),
        (
            "the type DingTalk or WeCom",
            json!({"msgtype": "text", "text": {"content": ""}}),
        ),
        ("none of an event's fields", json!({})),
    ]
}

#[tokio::test]
async fn a_webhook_of_another_type_is_told_which_one_to_make_and_is_listed() {
    let rig = rig().await;
    for (number, (words, body)) in of_other_types().into_iter().enumerate() {
        let ask = async |event: &'static str| {
            // A secret of one repository, and a body of none.
            let mut request = forgejo("seven", body.to_string().as_bytes());
            let headers = request.headers_mut();
            headers.insert("x-forgejo-event", HeaderValue::from_static(event));
            headers.insert("x-forgejo-delivery", HeaderValue::from(number));
            rig.ask(request).await
        };
        for (event, once) in [
            ("push", "failed"),
            ("push", "delivered before"),
            ("create", "delivered before"),
        ] {
            let (status, answer) = ask(event).await;
            let said = answer["message"].as_str().unwrap();
            assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}: {answer}");
            assert!(said.starts_with(once), "{said}");
        }
        let claimed = rig.claimed().await;
        let forge = rig.intake.forges.get(&claimed.connection).unwrap();
        let outcome = verdict(
            Some(&**forge),
            &rig.intake.config,
            &claimed.connection,
            "create",
            &claimed.body,
        );
        let said = verdict_text(&outcome);
        assert!(
            said.contains(words) && said.ends_with("Forgejo or Gitea instead"),
            "{said}"
        );
        rig.store
            .finish_delivery(claimed.id, claimed.epoch, outcome)
            .await
            .unwrap();
        assert_eq!(outcome_text(&rig.stored().await[0]), said, "as deliveries are listed");
    }
}

#[tokio::test]
async fn a_wrong_content_type_is_named_before_the_signature_is_looked_at() {
    let rig = rig().await;
    // A form of Forgejo's: what it signs is the JSON inside.
    let mut form = forgejo("seven", br#"{"repository":{"id":7}}"#);
    *form.body_mut() = Body::from("payload=%7B%22repository%22%3A%7B%22id%22%3A7%7D%7D");
    form.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/x-www-form-urlencoded"),
    );
    let (status, answer) = rig.ask(form).await;
    assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let said = answer["error"].as_str().unwrap();
    assert!(
        said.contains("x-www-form-urlencoded") && said.contains("content type to application/json"),
        "{said}"
    );
    assert!(rig.stored().await.is_empty());
}

#[tokio::test]
async fn addresses_below_hooks_lead_to_the_right_one_in_plain_words() {
    let rig = rig().await;
    let mut slash = github("hub-new", "1", b"{}");
    *slash.uri_mut() = "/hooks/hub/".parse().unwrap();
    assert_eq!(rig.ask(slash).await.0, 202, "the same address");
    let ask = async |method: &str, path: &str| {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .body(Body::from("{}"))
            .unwrap();
        let response = rig.intake.clone().router().oneshot(request).await.unwrap();
        let kind = response.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned();
        let (status, allow) = (response.status(), response.headers().contains_key(header::ALLOW));
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(kind.starts_with("text/plain"), "{method} {path}: {kind}");
        (status, allow, String::from_utf8(body.to_vec()).unwrap())
    };
    let address = format!("{}/hooks/NAME", rig.intake.config.public_url);
    for path in ["/hooks", "/hooks/", "/hooks/hub/x", "/hooks/hub//", "/hooks//hub"] {
        for method in ["POST", "GET", "PUT"] {
            let (status, _, said) = ask(method, path).await;
            assert_eq!(status, 404, "{method} {path}");
            assert!(said.contains(&address), "{method} {path}: {said}");
        }
    }
    // Forgejo offers GET as well.
    for method in ["GET", "PUT"] {
        for path in ["/hooks/hub", "/hooks/hub/"] {
            let (status, allow, said) = ask(method, path).await;
            assert_eq!(
                (status, allow),
                (StatusCode::METHOD_NOT_ALLOWED, true),
                "{method} {path}"
            );
            assert!(said.contains("method to POST"), "{said}");
        }
    }
}

#[tokio::test]
async fn a_delivery_without_an_id_is_known_by_its_digest() {
    let rig = rig().await;
    for expected in [202, 200] {
        let mut request = github("hub-new", "1", b"{}");
        request.headers_mut().remove("x-github-delivery");
        assert_eq!(rig.ask(request).await.0, expected);
    }
    assert_eq!(rig.stored().await[0].key, hex::encode(Sha256::digest(b"{}")));
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_announced_or_not() {
    let rig = rig().await;
    let mut announced = forgejo("seven", b"{}");
    announced
        .headers_mut()
        .insert(header::CONTENT_LENGTH, HeaderValue::from(25 * MIB + 1));
    let (status, said) = rig.ask(announced).await;
    assert_eq!(status, 413);
    assert!(said["error"].as_str().unwrap().contains("--missed"), "{said}");
    let chunks = (0..26).map(|_| Ok::<_, std::io::Error>(vec![b' '; MIB]));
    let (parts, _) = forgejo("seven", b"{}").into_parts();
    let streamed = Request::from_parts(parts, Body::from_stream(tokio_stream::iter(chunks)));
    assert_eq!(rig.ask(streamed).await.0, 413);
    // This one is only slow to parse.
    let large = format!("{{\"x\":\"{}\"}}", "y".repeat(11 * MIB));
    assert_eq!(rig.ask(github("hub-new", "1", large.as_bytes())).await.0, 202);
}

#[tokio::test]
async fn a_body_that_does_not_end_is_given_up() {
    let mut rig = rig().await;
    rig.intake.body_deadline = Duration::from_millis(50);
    let (parts, _) = github("hub-new", "1", b"{}").into_parts();
    let endless = Body::from_stream(tokio_stream::pending::<Result<Vec<u8>, std::io::Error>>());
    assert_eq!(rig.ask(Request::from_parts(parts, endless)).await.0, 408);
}

/// On one thread: what a request does after its body's end, up to its next wait, is done when the body says that it ended.
#[tokio::test]
async fn what_has_arrived_whole_is_kept_when_its_sender_waits_no_longer() {
    let rig = rig().await;
    let busy = rig.intake.parsers.clone().acquire_many_owned(2).await.unwrap();
    let keeping = rig.intake.keeping();
    let (parts, body) = github("hub-new", "1", b"{}").into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let (end, mut ended) = tokio::sync::mpsc::unbounded_channel::<()>();
    let data = futures::stream::once(async { Ok::<_, std::io::Error>(body) });
    let data = futures::StreamExt::chain(
        data,
        futures::stream::poll_fn(move |_| {
            end.send(()).unwrap();
            std::task::Poll::Ready(None)
        }),
    );
    let request = Request::from_parts(parts, Body::from_stream(data));
    let sender = tokio::spawn(rig.intake.clone().router().oneshot(request));
    ended.recv().await.unwrap();
    sender.abort();
    assert!(sender.await.unwrap_err().is_cancelled());
    assert_eq!((keeping.len(), rig.stored().await.len()), (1, 0));
    drop(busy);
    // As at the daemon's stop.
    keeping.close();
    tokio::time::timeout(deadline::PROMPT, keeping.wait()).await.unwrap();
    assert_eq!(rig.stored().await.len(), 1);
}

#[tokio::test]
async fn only_so_many_deliveries_wait_to_be_stored() {
    let rig = rig().await;
    let mut places: Vec<_> = std::iter::from_fn(|| rig.intake.limits.keep()).collect();
    let (status, body) = rig.ask(github("hub-new", "1", b"{}")).await;
    assert_eq!(
        (status.as_u16(), &body["error"]),
        (503, &json!("too many deliveries at once"))
    );
    assert!(rig.stored().await.is_empty());
    places.pop();
    for (key, body) in [("1", r#"{"n":1}"#), ("2", r#"{"n":2}"#)] {
        let (status, _) = rig.ask(github("hub-new", key, body.as_bytes())).await;
        assert_eq!(status, 202, "a place is free again once a delivery is stored");
    }
}

#[tokio::test]
async fn a_store_that_fails_is_said_so_and_asked_again() {
    let rig = rig().await;
    rig.store.close().await;
    let response = rig
        .intake
        .router()
        .oneshot(github("hub-new", "1", b"{}"))
        .await
        .unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()[header::RETRY_AFTER], "30");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(
        !String::from_utf8_lossy(&body).contains("database"),
        "our own failures are for the log"
    );
}

#[tokio::test]
async fn a_flood_is_answered_429_and_counted() {
    let rig = rig().await;
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
    let rig = rig().await;
    let asks = (0..8).map(|_| rig.ask(github("hub-new", "same", b"{}")));
    let answers = futures::future::join_all(asks).await;
    assert_eq!(answers.iter().filter(|(status, _)| *status == 202).count(), 1);
    assert!(
        answers
            .iter()
            .all(|(_, body)| body["delivery"] == answers[0].1["delivery"])
    );
}
