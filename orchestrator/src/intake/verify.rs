//! From raw bytes to a delivery that may be stored: everything that needs the body, and no I/O.

use http::HeaderMap;
use sha2::{Digest, Sha256};

use super::{Endpoint, refusal::Refusal, scrub, signature};
use crate::{config::WebhookSecret, store::NewDelivery};

/// Checks the signature over the raw bytes, then reads them.
pub(super) fn verify(
    endpoint: &Endpoint,
    headers: &HeaderMap,
    signature: &[u8; 32],
    raw: &[u8],
) -> Result<NewDelivery, Refusal> {
    let signers: Vec<&WebhookSecret> = signature::signers(&endpoint.secrets, signature, raw).collect();
    let dialect = endpoint.webhooks.dialect();
    if signers.is_empty() {
        return Err(Refusal::bad_signature(dialect));
    }
    let scrubbed = scrub::scrub(raw).map_err(|error| {
        Refusal::bad_request(format!(
            "the body is not a JSON object ({error}): set the webhook's content type to application/json"
        ))
    })?;
    let subject = endpoint.webhooks.subject(&scrubbed.object);
    // A secret that belongs to one repository signs for that one only. A body that is of none leads to nothing, and its
    // sender, who knows the secret, should learn why.
    let may_sign = |s: &&WebhookSecret| s.repository_id.is_none() || s.repository_id == subject.repository_id;
    if !signers.iter().any(may_sign) && !endpoint.webhooks.is_foreign(&scrubbed.object) {
        return Err(Refusal::bad_signature(dialect));
    }
    let digest: [u8; 32] = Sha256::digest(raw).into();
    let (events, keys) = (dialect.event_headers, dialect.delivery_headers);
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
    Ok(NewDelivery {
        connection: endpoint.connection.clone(),
        key,
        event: event.to_owned(),
        body: scrubbed.body,
        digest,
        subject: subject.said_by(event),
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
