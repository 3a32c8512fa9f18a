//! A verified body becomes what is stored: parsed once, without its secrets and the ends of enormous texts, written out
//! again. The parse is also what the delivery's subject is read from, so a body with the same key twice cannot be
//! one repository to us and another to the planner, which parses it later.

use serde_json::{Map, Value};

use crate::model::payload::{self, names_a_credential};

/// What stands where a secret was.
const REMOVED: &str = "[removed]";
/// Bytes of a text that are kept: of a commit's message, which is as long as its author likes, only the beginning is
/// read. A field with a text that was cut is still too large for a payload, whose fields are as they were sent.
const LONGEST_TEXT: usize = 2 * payload::MAX_BYTES;

/// A body that may be stored.
#[derive(Debug)]
pub struct Scrubbed {
    /// JSON.
    pub body: Vec<u8>,
    /// The same, parsed.
    pub object: Map<String, Value>,
}

/// Parses, scrubs and writes a body out again.
///
/// # Errors
/// When it is not a JSON object, or nested deeper than 128 levels.
pub fn scrub(body: &[u8]) -> Result<Scrubbed, serde_json::Error> {
    let mut object: Map<String, Value> = serde_json::from_slice(body)?;
    object.iter_mut().for_each(|(key, value)| clean(key, value));
    Ok(Scrubbed {
        body: serde_json::to_vec(&object)?,
        object,
    })
}

/// Recursion is bounded by the parser's own limit of 128 levels.
fn clean(key: &str, value: &mut Value) {
    // Older Forgejo and Gitea put the webhook's own secret into the body; hook descriptions carry the `Authorization`
    // they were given.
    let secret = names_a_credential(key);
    match value {
        // An object under such a key is somebody's structure, such as a workflow's `secret:` section.
        Value::Object(map) => map.iter_mut().for_each(|(key, value)| clean(key, value)),
        Value::Array(items) => items.iter_mut().for_each(|value| clean(key, value)),
        Value::Null => {}
        _ if secret => *value = Value::String(REMOVED.to_owned()),
        Value::String(text) => text.truncate(text.floor_char_boundary(LONGEST_TEXT)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::model::payload::Payload;

    #[test]
    fn secrets_go_wherever_they_are_and_the_rest_stays() {
        let body = br#"{"secret":"s1","repository":{"id":7,"name":"x"},"hook":{"config":{"Secret":"s2"},
            "Authorization":["s3"],"authorization_header":"s4"},"list":[{"secret":5}],"n":-1.5,"big":18446744073709551615}"#;
        let scrubbed = scrub(body).unwrap();
        let text = String::from_utf8(scrubbed.body).unwrap();
        for secret in ["s1", "s2", "s3", "s4", "5}]"] {
            assert!(
                !text.contains(&format!("\"{secret}\"")) && !text.contains(":5"),
                "{secret} in {text}"
            );
        }
        assert_eq!(scrubbed.object["repository"]["id"], 7);
        assert!(text.contains("18446744073709551615") && text.contains("-1.5") && text.contains("\"name\":\"x\""));
    }

    #[test]
    fn of_an_enormous_text_the_beginning_is_kept_and_no_payload_takes_it_for_the_whole() {
        let message = format!("Fix it\n\n{}", "ü".repeat(3 << 20));
        let body =
            json!({"ref": "refs/heads/main", "head_commit": {"message": message}, "commits": [{"message": message}]});
        let scrubbed = scrub(body.to_string().as_bytes()).unwrap();
        assert!(scrubbed.body.len() < 1 << 20, "{}", scrubbed.body.len());
        let kept = scrubbed.object["head_commit"]["message"].as_str().unwrap();
        assert!(message.starts_with(kept) && kept.starts_with("Fix it\n"));
        let payload = Payload::of(&scrubbed.body).unwrap();
        assert_eq!(payload.fields.keys().collect::<Vec<_>>(), ["ref"]);
        assert_eq!(payload.left_out, ["commits", "head_commit"]);
    }

    #[test]
    fn a_key_given_twice_is_read_and_stored_the_same() {
        let scrubbed = scrub(br#"{"repository":{"id":1},"repository":{"id":2}}"#).unwrap();
        assert_eq!(scrubbed.object["repository"]["id"], 2);
        assert_eq!(scrubbed.body, br#"{"repository":{"id":2}}"#);
    }

    #[test]
    fn what_is_not_an_object_or_too_deep_is_refused() {
        for body in ["", "[]", "null", "1", "{", "{} {}", "payload=%7B%7D"] {
            assert!(scrub(body.as_bytes()).is_err(), "{body:?}");
        }
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(200_000), "]".repeat(200_000));
        assert!(scrub(deep.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_handled_and_what_is_kept_parses(body in "\\{?(\"[a-z]{0,9}\"|[\\[\\]{},:0-9]|null){0,40}\\}?") {
            if let Ok(scrubbed) = scrub(body.as_bytes()) {
                prop_assert!(scrub(&scrubbed.body).is_ok());
            }
        }
    }
}
