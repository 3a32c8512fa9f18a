//! Webhooks that are set up wrongly say which setting to change, and texts that a pusher makes enormous stop nothing.

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::support::{Machines, World};

const SMALL: &str = "name: ci\non: push\njobs:\n  job:\n    steps:\n      - run: echo hello\n";

/// What a forge shows on its page of a delivery.
struct Shown {
    status: u16,
    content_type: String,
    body: String,
}

/// Posts a delivery as Forgejo does for a webhook of this content type.
async fn deliver(world: &World, path: &str, content_type: &str, payload: &Value, id: &str) -> Shown {
    let payload = payload.to_string();
    let secret = std::fs::read(world.dir.path().join("hook")).expect("the secret");
    let mut mac = Hmac::<Sha256>::new_from_slice(&secret).expect("any length");
    // The JSON is what is signed, also in a form.
    mac.update(payload.as_bytes());
    let body = match content_type {
        "application/json" => payload,
        _ => url::form_urlencoded::Serializer::new(String::new())
            .append_pair("payload", &payload)
            .finish(),
    };
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let answer = client
        .post(format!("{}{path}", world.url()))
        .header("content-type", content_type)
        .header("x-forgejo-event", "push")
        .header("x-forgejo-delivery", id)
        .header("x-forgejo-signature", hex::encode(mac.finalize().into_bytes()))
        .body(body)
        .send()
        .await
        .expect("an answer");
    let content_type = answer.headers().get("content-type");
    Shown {
        status: answer.status().as_u16(),
        content_type: content_type
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned(),
        body: answer.text().await.expect("its text"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_is_set_up_wrongly_is_told_what_to_change() {
    let world = World::start(Machines::Process).await;
    let push = json!({
        "ref": "refs/heads/main", "before": "0".repeat(40), "after": "a".repeat(40),
        "repository": {"id": world.repository, "full_name": "ada/engine"}, "sender": {"login": "ada"},
    });
    let slack = json!({"channel": "#ci", "text": "1 new commit", "attachments": []});
    let teams = json!({"@type": "MessageCard", "title": "1 new commit", "sections": []});
    let json = "application/json";
    let cases = [
        (
            "/hooks/local",
            "application/x-www-form-urlencoded",
            &push,
            415,
            "content type to application/json",
        ),
        (
            "/hooks/local",
            json,
            &slack,
            422,
            "the type Slack sends it; make one of the type Forgejo or Gitea",
        ),
        (
            "/hooks/local/",
            json,
            &teams,
            422,
            "the type Microsoft Teams sends it; make one of the type Forgejo or Gitea",
        ),
        ("/hooks/local/x", json, &push, 404, "/hooks/NAME"),
        ("/hooks", json, &push, 404, "/hooks/NAME"),
        ("/hooks/locla", json, &push, 404, "no connection of this name"),
    ];
    for (number, (path, content_type, payload, status, words)) in cases.into_iter().enumerate() {
        let shown = deliver(&world, path, content_type, payload, &number.to_string()).await;
        assert_eq!(shown.status, status, "{path}: {}", shown.body);
        assert!(shown.body.contains(words), "{path}: {}", shown.body);
        assert!(!shown.content_type.contains("html"), "{path}: {}", shown.content_type);
    }
    for words in ["content type to application/json", "no webhook has this address"] {
        assert!(world.daemon_log().contains(words), "{}", world.daemon_log());
    }
    for kind in ["Slack", "Microsoft Teams"] {
        world.until("the delivery is listed with its reason", || {
            let listed = world.cli(&["deliveries", "--state", "failed"]);
            let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
            listed.contains(&format!("the type {kind} sends it")).then_some(())
        });
    }
    let shown = deliver(&world, "/hooks/local/", json, &push, "slash").await;
    assert_eq!(
        shown.status, 202,
        "a trailing slash is the same address: {}",
        shown.body
    );
}

/// Pushes a commit with a message of so many bytes.
async fn push_with_message(world: &World, bytes: usize) -> String {
    let message = format!("Change the engine\n\n{}\n", "why \u{fc}\n".repeat(bytes / 7));
    let files = [
        (".helios/workflows/ci.yml", SMALL.as_bytes().to_vec(), 0o644),
        ("size", bytes.to_string().into_bytes(), 0o644),
    ];
    let push = world.forge.push(world.repository, "main", &files, &message);
    push.await.expect("a push")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_megabytes_stops_no_push() {
    let world = World::start(Machines::Process).await;
    for bytes in [3_000_000, 10_000_000] {
        let sha = push_with_message(&world, bytes).await;
        world.wait(&sha, "success").await;
        let runs = world.get("/api/v1/runs?limit=1");
        assert_eq!(runs["runs"][0]["title"], "Change the engine", "{runs}");
        // By hand, as for a push that was lost.
        let ran = world.cli(&["trigger", "local", "ada/engine", "main"]);
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    }
    // The database keeps none of it.
    let size = |name: &str| std::fs::metadata(world.data().join(name)).map_or(0, |file| file.len());
    let stored = size("helios-ci.db") + size("helios-ci.db-wal");
    assert!((1..16_000_000).contains(&stored), "{stored}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_is_too_large_says_so_and_its_push_is_found() {
    let world = World::start(Machines::Process).await;
    let first = world.push(SMALL).await;
    world.wait(&first, "success").await;
    assert!(world.cli(&["catch-up"]).status.success());
    let sha = push_with_message(&world, 16_000_000).await;
    world.until("the forge is answered, and not cut off", || {
        let state = world.forge.state();
        let tries = state.deliveries().iter().flat_map(|delivery| &delivery.tries);
        tries.into_iter().any(|one| one.outcome == Ok(413)).then_some(())
    });
    assert!(
        world.daemon_log().contains("larger than 25 MiB"),
        "{}",
        world.daemon_log()
    );
    assert!(world.cli(&["catch-up"]).status.success());
    let listed = world.cli(&["deliveries", "--missed"]);
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.contains(&sha[..10]), "{listed}");
    let command = listed.lines().find_map(|line| line.split_once("helios-ci trigger "));
    let args: Vec<&str> = command.expect("the command").1.split(' ').collect();
    let ran = world.cli(&[&["trigger"], &args[..]].concat());
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    world.wait(&sha, "success").await;
}
