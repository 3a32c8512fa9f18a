//! What a forge said of an event, for expressions to read: bounded, and without credentials.
//!
//! A field of the delivery's body is here as it was sent, or it is not here at all; nothing is cut in the middle:
//!
//! - What a key calls a credential is never here, at any depth: see `names_a_credential`.
//! - Of the body's own fields the largest go until all together are at most [`MAX_BYTES`], and those that nest deeper than
//!   [`MAX_DEPTH`]. Their names are kept, so that an expression can be told that its field was left out and is not null.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};

/// Bytes of all fields together, as they were sent.
pub const MAX_BYTES: usize = 64 << 10;
/// Levels of lists and mappings in one field.
pub const MAX_DEPTH: usize = 32;
/// Names of fields that were left out.
const MAX_NAMED: usize = 100;
/// Characters of such a name.
const MAX_NAME: usize = 100;

/// The bounded body of an event. It is foreign text throughout, although the forge signed it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload {
    /// What is here.
    pub fields: Map<String, Value>,
    /// Names of the body's fields that are not, because they are too large or nest too deep.
    pub left_out: Vec<String>,
}

impl Payload {
    /// The payload in a delivery's body.
    ///
    /// # Errors
    /// When the body is not a JSON object.
    pub fn of(body: &[u8]) -> Result<Self, serde_json::Error> {
        // What is too large is never parsed.
        let raw: BTreeMap<String, &RawValue> = serde_json::from_slice(body)?;
        let mut by_size: Vec<(&String, &RawValue)> = raw.iter().map(|(name, value)| (name, *value)).collect();
        by_size.sort_by_key(|(name, value)| name.len() + value.get().len());
        let (mut payload, mut bytes) = (Self::default(), 0_usize);
        for (name, value) in by_size {
            if names_a_credential(name) {
                continue;
            }
            bytes = bytes.saturating_add(name.len() + value.get().len());
            let parsed = (bytes <= MAX_BYTES).then(|| serde_json::from_str::<Value>(value.get()));
            match parsed {
                Some(Ok(mut value)) if depth(&value) <= MAX_DEPTH => {
                    scrub(&mut value);
                    payload.fields.insert(name.clone(), value);
                }
                _ if payload.left_out.len() < MAX_NAMED => {
                    payload.left_out.push(name.chars().take(MAX_NAME).collect());
                }
                _ => {}
            }
        }
        Ok(payload)
    }
}

/// Whether a key names a credential: one of these words is in it, in any case.
#[must_use]
pub fn names_a_credential(key: &str) -> bool {
    const WORDS: [&str; 9] = [
        "token",
        "secret",
        "password",
        "passwd",
        "authorization",
        "credential",
        "private_key",
        "api_key",
        "apikey",
    ];
    let key = key.to_lowercase();
    WORDS.iter().any(|word| key.contains(word))
}

/// Recursion is bounded by [`MAX_DEPTH`].
fn scrub(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, _| !names_a_credential(key));
            map.values_mut().for_each(scrub);
        }
        Value::Array(items) => items.iter_mut().for_each(scrub),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Recursion is bounded by the parser's own limit of 128 levels.
fn depth(value: &Value) -> usize {
    match value {
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn of(body: &Value) -> Payload {
        Payload::of(body.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn credentials_are_not_here_at_any_depth_and_the_rest_is_as_it_was_sent() {
        let payload = of(&json!({
            "ref": "refs/heads/main", "size": 1.5, "none": null,
            "access_token": "t1", "TOKEN": {"x": 1},
            "hook": {"config": {"url": "u", "Secret": "s1"}, "list": [{"apiKey": 5, "id": 7}]},
        }));
        assert_eq!(
            Value::Object(payload.fields),
            json!({"ref": "refs/heads/main", "size": 1.5, "none": null,
                   "hook": {"config": {"url": "u"}, "list": [{"id": 7}]}})
        );
        assert_eq!(payload.left_out, Vec::<String>::new());
    }

    #[test]
    fn the_largest_and_the_deepest_fields_are_left_out_by_name() {
        let commits: Vec<Value> = (0..5000).map(|n| json!({"id": n, "message": "x".repeat(40)})).collect();
        let nested = |levels: usize| (0..levels).fold(json!(1), |value, _| json!([value]));
        let payload = of(&json!({
            "ref": "refs/heads/main", "commits": commits, "repository": {"id": 7},
            "deep": nested(MAX_DEPTH + 1), "shallow": nested(MAX_DEPTH),
        }));
        let names: Vec<&String> = payload.fields.keys().collect();
        assert_eq!(names, ["ref", "repository", "shallow"]);
        assert_eq!(payload.left_out, ["deep", "commits"]);
    }

    #[test]
    fn what_is_no_object_is_no_payload() {
        for body in ["", "[]", "null", "1", "{", "{} {}"] {
            assert!(Payload::of(body.as_bytes()).is_err(), "{body:?}");
        }
    }

    proptest! {
        /// However many fields there are and however large: what is kept is within the bounds, is what was sent, and is
        /// read as it was written.
        #[test]
        fn a_payload_is_bounded(sizes in proptest::collection::vec(0..40_000_usize, 0..12)) {
            let body: Map<String, Value> = sizes.iter().enumerate().map(|(n, size)| (format!("f{n}"), json!("x".repeat(*size)))).collect();
            let payload = of(&Value::Object(body.clone()));
            let kept: usize = payload.fields.iter().map(|(name, value)| name.len() + value.to_string().len()).sum();
            prop_assert!(kept <= MAX_BYTES, "{}", kept);
            prop_assert!(payload.fields.iter().all(|(name, value)| &body[name] == value));
            prop_assert_eq!(payload.fields.len() + payload.left_out.len(), body.len());
            let again: Payload = serde_json::from_str(&serde_json::to_string(&payload).unwrap()).unwrap();
            prop_assert_eq!(again, payload);
        }
    }
}
