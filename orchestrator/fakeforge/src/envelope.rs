//! What is around a payload when it is sent: the headers with their signatures, and the form that a hook wants it in.

use bytes::Bytes;
use ring::hmac;
use serde_json::{Value, json};

use crate::delivery::{Content, Hook, HookType};

/// A delivery's headers and body.
#[derive(Debug)]
pub(crate) struct Envelope {
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
}

/// As a Forgejo sends it: with its own headers, and those of everything it descends from, whatever the hook speaks.
/// Signed is the JSON, also where a form carries it.
pub(crate) fn forgejo(hook: &Hook, id: &str, (event, event_type): (&str, &str), payload: &Bytes) -> Envelope {
    let json = match hook.kind {
        HookType::Forgejo | HookType::Gitea | HookType::Gogs => payload.clone(),
        HookType::Slack => slack(event, payload),
        HookType::MsTeams => teams(event, payload),
    };
    // The foreign messages are always JSON.
    let form = hook.content == Content::Form && !matches!(hook.kind, HookType::Slack | HookType::MsTeams);
    let (content_type, body) = match form {
        true => ("application/x-www-form-urlencoded", form_of(&json)),
        false => ("application/json", json.clone()),
    };
    let sign = |algorithm| {
        if hook.secret.is_empty() {
            return String::new();
        }
        hex::encode(hmac::sign(&hmac::Key::new(algorithm, hook.secret.as_bytes()), &json))
    };
    let sha256 = sign(hmac::HMAC_SHA256);
    let sha1 = sign(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY);
    let mut headers = vec![("Content-Type".to_owned(), content_type.to_owned())];
    if !hook.authorization_header.is_empty() {
        headers.push(("Authorization".to_owned(), hook.authorization_header.clone()));
    }
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
    Envelope { headers, body }
}

/// As GitHub sends it for an App.
pub(crate) fn github(hook: &Hook, id: &str, event: &str, payload: &Bytes, app: u64) -> Envelope {
    let sign = |algorithm| hex::encode(hmac::sign(&hmac::Key::new(algorithm, hook.secret.as_bytes()), payload));
    let headers = [
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
    .to_vec();
    Envelope {
        headers,
        body: payload.clone(),
    }
}

/// `payload=…`, as a browser would send it.
fn form_of(json: &[u8]) -> Bytes {
    let mut form = String::from("payload=");
    for byte in json {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'*' => form.push(char::from(*byte)),
            b' ' => form.push('+'),
            byte => form.push_str(&format!("%{byte:02X}")),
        }
    }
    form.into()
}

/// One sentence for people, which is all that the foreign messages have.
fn sentence(event: &str, payload: &Value) -> String {
    let text = |path: &str| payload.pointer(path).and_then(Value::as_str).unwrap_or("?");
    let (repository, by, name) = (text("/repository/full_name"), text("/sender/login"), text("/ref"));
    match event {
        "push" => format!(
            "[{repository}:{name}] {} new commits pushed by {by}",
            payload["total_commits"]
        ),
        event => format!("[{repository}] {event} of {name} by {by}"),
    }
}

fn slack(event: &str, payload: &[u8]) -> Bytes {
    let payload = serde_json::from_slice(payload).unwrap_or(Value::Null);
    let message = json!({
        "channel": "#ci", "text": sentence(event, &payload), "username": "", "icon_url": "",
        "unfurl_links": 0, "link_names": 0, "attachments": [],
    });
    message.to_string().into()
}

fn teams(event: &str, payload: &[u8]) -> Bytes {
    let payload = serde_json::from_slice(payload).unwrap_or(Value::Null);
    let title = sentence(event, &payload);
    let message = json!({
        "@type": "MessageCard", "@context": "https://schema.org/extensions", "themeColor": "0", "title": title,
        "summary": title, "sections": [{"activityTitle": "", "text": ""}], "potentialAction": [],
    });
    message.to_string().into()
}

/// A new delivery's id.
pub(crate) fn uuid() -> String {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::NewHook;

    fn envelope(secret: &str, change: impl FnOnce(&mut NewHook), payload: &'static str) -> Envelope {
        let mut new = NewHook::new("http://x/", secret);
        change(&mut new);
        forgejo(
            &Hook::new(1, 1, new),
            "id",
            ("push", "push"),
            &Bytes::from_static(payload.as_bytes()),
        )
    }

    fn header<'e>(envelope: &'e Envelope, name: &str) -> Option<&'e str> {
        let mut all = envelope.headers.iter();
        all.find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    const VECTOR: &str = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

    #[test]
    fn signatures_agree_with_the_published_vector() {
        let envelope = envelope("It's a Secret to Everybody", |_| {}, "Hello, World!");
        assert_eq!(header(&envelope, "X-Forgejo-Signature"), Some(VECTOR));
        let hub = format!("sha256={VECTOR}");
        assert_eq!(header(&envelope, "X-Hub-Signature-256"), Some(hub.as_str()));
        assert_eq!(&envelope.body[..], b"Hello, World!");
    }

    #[test]
    fn without_a_secret_forgejo_sends_empty_signatures() {
        let envelope = envelope("", |_| {}, "x");
        assert_eq!(header(&envelope, "X-Gitea-Signature"), Some(""));
        assert_eq!(header(&envelope, "X-Hub-Signature-256"), Some("sha256="));
    }

    #[test]
    fn a_form_carries_the_payload_and_the_signature_is_that_of_the_payload() {
        let form = |new: &mut NewHook| new.content = Content::Form;
        let envelope = envelope("It's a Secret to Everybody", form, "Hello, World!");
        assert_eq!(&envelope.body[..], b"payload=Hello%2C+World%21");
        assert_eq!(
            header(&envelope, "Content-Type"),
            Some("application/x-www-form-urlencoded")
        );
        assert_eq!(header(&envelope, "X-Forgejo-Signature"), Some(VECTOR));
    }
}
