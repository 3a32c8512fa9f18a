//! Webhooks: what happened becomes a payload in the forge's own format, signed for every hook of the
//! repository, and sent in order by one task.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use ring::hmac;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{
    Error, git,
    git::Moved,
    shapes,
    state::{Delivery, Hook, Kind, Repository, Shared, Try},
    time::now_ms,
};

/// Tells every hook of the repository about moved refs.
pub(crate) async fn pushed(shared: &Arc<Shared>, repository: i64, moved: &[Moved], actor: &str) -> Result<(), Error> {
    let repository = shared.repository(repository)?;
    for one in moved {
        // Refs of pull requests are the forge's own; it tells of them with `pull_request`.
        if one.name.starts_with("refs/pull/") {
            continue;
        }
        let (dir, one_moved, html) = (
            repository.dir.clone(),
            one.clone(),
            format!("{}/{}", shared.url, repository.path),
        );
        let work = move || {
            let commits = git::pushed(&dir, &one_moved, &html)?;
            let head = match git::commit(&dir, &one_moved.after) {
                Some(sha) if one_moved.after != git::ZERO => git::describe(&dir, &sha, &html)?,
                _ => Value::Null,
            };
            let forced = git::forced(&dir, &one_moved.before, &one_moved.after);
            Ok::<_, Error>((commits, head, forced))
        };
        let (commits, head, forced) = blocking(work).await?;
        let body = push_body(shared, &repository, one, actor, (&commits, &head, forced));
        send(shared, &repository, "push", "push", body);
        let tag = one.name.starts_with("refs/tags/");
        let (event, gone) = match (one.before == git::ZERO, one.after == git::ZERO) {
            (true, _) => ("create", false),
            (_, true) => ("delete", true),
            _ => continue,
        };
        let short = one.name.splitn(3, '/').nth(2).unwrap_or_default();
        let mut body = common(shared, &repository, actor);
        body["ref"] = short.into();
        body["ref_type"] = if tag { "tag" } else { "branch" }.into();
        body["pusher_type"] = "user".into();
        if !gone {
            body["sha"] = one.after.clone().into();
            body["master_branch"] = repository.default_branch.clone().into();
        }
        send(shared, &repository, event, event, body);
    }
    Ok(())
}

/// Runs blocking work off the executor.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::Git {
            command: "in the background".to_owned(),
            reason: error.to_string(),
        }),
    }
}

/// What every payload has: repository, sender and, from GitHub, the installation.
pub(crate) fn common(shared: &Shared, repository: &Repository, actor: &str) -> Value {
    let mut state = shared.state();
    let mut body = json!({
        "repository": shapes::repository(&mut state, &shared.url, repository),
        "sender": shapes::user(&mut state, repository.kind, &shared.url, actor),
    });
    if let Some(id) = repository.installation {
        body["installation"] = json!({"id": id, "node_id": format!("I_{id}")});
    }
    body
}

fn push_body(
    shared: &Shared,
    repository: &Repository,
    moved: &Moved,
    actor: &str,
    (commits, head, forced): (&[Value], &Value, bool),
) -> Value {
    let mut body = common(shared, repository, actor);
    body["ref"] = moved.name.clone().into();
    body["before"] = moved.before.clone().into();
    body["after"] = moved.after.clone().into();
    body["commits"] = commits.into();
    body["head_commit"] = head.clone();
    let html = format!("{}/{}", shared.url, repository.path);
    let compare = format!("{html}/compare/{}...{}", moved.before, moved.after);
    match repository.kind {
        Kind::Forgejo => {
            body["compare_url"] = compare.into();
            body["total_commits"] = commits.len().into();
            body["pusher"] = body["sender"].clone();
        }
        Kind::Github => {
            body["compare"] = compare.into();
            body["created"] = (moved.before == git::ZERO).into();
            body["deleted"] = (moved.after == git::ZERO).into();
            body["forced"] = forced.into();
            body["base_ref"] = Value::Null;
            body["pusher"] = json!({"name": actor, "email": format!("{actor}@example.org")});
        }
    }
    body
}

/// Queues one delivery per hook of the repository and answers with their ids.
pub(crate) fn send(
    shared: &Shared,
    repository: &Repository,
    event: &str,
    event_type: &str,
    body: Value,
) -> Vec<String> {
    let body = Bytes::from(body.to_string());
    let hooks: Vec<Hook> = {
        let state = shared.state();
        state
            .hooks
            .values()
            .filter(|h| h.repository == repository.id)
            .cloned()
            .collect()
    };
    let mut ids = Vec::new();
    for hook in hooks {
        let id = uuid();
        let headers = match repository.kind {
            Kind::Forgejo => forgejo_headers(&hook.secret, &id, event, event_type, &body),
            Kind::Github => github_headers(&hook, &id, event, &body, shared.app.id),
        };
        let delivery = Delivery {
            id: id.clone(),
            hook: hook.id,
            event: event.to_owned(),
            url: hook.url,
            headers,
            body: body.clone(),
            tries: Vec::new(),
        };
        let held = shared.change(|state| {
            state.deliveries.push(delivery);
            state.hold
        });
        if !held {
            // The receiver lives as long as the forge; after its end nothing is to be sent.
            let _ = shared.outgoing.send(id.clone());
        }
        ids.push(id);
    }
    ids
}

/// The headers a Forgejo sends: its own, and those of everything it descends from.
pub(crate) fn forgejo_headers(
    secret: &str,
    id: &str,
    event: &str,
    event_type: &str,
    body: &[u8],
) -> Vec<(String, String)> {
    let sign = |algorithm| {
        if secret.is_empty() {
            return String::new();
        }
        hex::encode(hmac::sign(&hmac::Key::new(algorithm, secret.as_bytes()), body))
    };
    let sha256 = sign(hmac::HMAC_SHA256);
    let sha1 = sign(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY);
    let mut headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
    for family in ["Forgejo", "Gitea", "Gogs"] {
        headers.push((format!("X-{family}-Delivery"), id.to_owned()));
        headers.push((format!("X-{family}-Event"), event.to_owned()));
        headers.push((format!("X-{family}-Event-Type"), event_type.to_owned()));
        headers.push((format!("X-{family}-Signature"), sha256.clone()));
    }
    for (name, value) in [
        ("X-Hub-Signature", format!("sha1={sha1}")),
        ("X-Hub-Signature-256", format!("sha256={sha256}")),
        ("X-GitHub-Delivery", id.to_owned()),
        ("X-GitHub-Event", event.to_owned()),
        ("X-GitHub-Event-Type", event_type.to_owned()),
    ] {
        headers.push((name.to_owned(), value));
    }
    headers
}

/// The headers GitHub sends for an App.
pub(crate) fn github_headers(hook: &Hook, id: &str, event: &str, body: &[u8], app: u64) -> Vec<(String, String)> {
    let sign = |algorithm| hex::encode(hmac::sign(&hmac::Key::new(algorithm, hook.secret.as_bytes()), body));
    [
        ("Content-Type", "application/json".to_owned()),
        ("User-Agent", "GitHub-Hookshot/fake".to_owned()),
        ("X-GitHub-Delivery", id.to_owned()),
        ("X-GitHub-Event", event.to_owned()),
        ("X-GitHub-Hook-ID", hook.id.to_string()),
        ("X-GitHub-Hook-Installation-Target-ID", app.to_string()),
        ("X-GitHub-Hook-Installation-Target-Type", "integration".to_owned()),
        (
            "X-Hub-Signature",
            format!("sha1={}", sign(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY)),
        ),
        ("X-Hub-Signature-256", format!("sha256={}", sign(hmac::HMAC_SHA256))),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

fn uuid() -> String {
    let mut bytes: [u8; 16] = rand::random();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = hex::encode(bytes);
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

/// Posts bytes with headers; the answer's status, or why there was none.
pub(crate) async fn post(
    client: &reqwest::Client,
    url: &str,
    headers: &[(String, String)],
    body: Bytes,
) -> Result<u16, String> {
    let mut request = client.post(url).timeout(Duration::from_secs(10)).body(body);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    match request.send().await {
        Ok(response) => Ok(response.status().as_u16()),
        Err(error) => Err(error.without_url().to_string()),
    }
}

/// Sends what is queued, one after the other, and writes down what came of it.
pub(crate) async fn courier(
    shared: Arc<Shared>,
    mut outgoing: mpsc::UnboundedReceiver<String>,
    client: reqwest::Client,
) {
    while let Some(id) = outgoing.recv().await {
        let Some(delivery) = shared.state().deliveries.iter().find(|d| d.id == id).cloned() else {
            continue;
        };
        let outcome = post(&client, &delivery.url, &delivery.headers, delivery.body).await;
        let tried = Try {
            at_ms: now_ms(),
            outcome,
        };
        shared.change(|state| {
            if let Some(delivery) = state.deliveries.iter_mut().find(|d| d.id == id) {
                delivery.tries.push(tried);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_agree_with_the_published_vector() {
        let headers = forgejo_headers("It's a Secret to Everybody", "id", "push", "push", b"Hello, World!");
        let find = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        let expected = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        assert_eq!(find("X-Forgejo-Signature"), Some(expected));
        assert_eq!(find("X-Hub-Signature-256"), Some(format!("sha256={expected}").as_str()));
    }

    #[test]
    fn without_a_secret_forgejo_sends_empty_signatures() {
        let headers = forgejo_headers("", "id", "push", "push", b"x");
        let find = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        assert_eq!(find("X-Gitea-Signature"), Some(""));
        assert_eq!(find("X-Hub-Signature-256"), Some("sha256="));
    }
}
