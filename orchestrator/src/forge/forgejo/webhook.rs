//! Events of Forgejo and Gitea. A new tag arrives as `push` and as `create`; `push` acts. There is no
//! ping: a test delivery is a push of the default branch that moves nothing.

use std::collections::BTreeMap;

use serde_json::{Map, Value, value::RawValue};

use super::super::{
    BadDelivery, Dialect, Parsed, Webhooks,
    push::{self, Served},
};
use crate::model::trigger::{Retry, Subject};

/// Forgejo's headers and those of Gitea, which it descends from; GitHub's are sent as well.
///
/// Neither has a limit of its own, and a body holds the head commit's whole message at least twice: this is room for one
/// of 10 MB.
pub static DIALECT: Dialect = Dialect {
    body_limit: 25 << 20,
    event_headers: &["x-forgejo-event", "x-gitea-event"],
    delivery_headers: &["x-forgejo-delivery", "x-gitea-delivery"],
    signature_headers: &[
        ("x-forgejo-signature", ""),
        ("x-gitea-signature", ""),
        ("x-hub-signature-256", "sha256="),
    ],
    signature_remedy: "check the webhook's secret, and that its type is Forgejo or Gitea",
};

/// Of these fields every event of Forgejo and Gitea has one.
const OF_EVENTS: [&str; 3] = ["repository", "sender", "action"];

/// The other types of webhooks, each with a field that its bodies have. Whoever sets a secret by the API makes them sign,
/// and their headers name the event as ours do.
const OF_OTHERS: [(&str, &str); 8] = [
    ("@type", "Microsoft Teams"),
    ("embeds", "Discord"),
    ("parse_mode", "Telegram"),
    ("msg_type", "Feishu"),
    ("formatted_body", "Matrix"),
    ("msgtype", "DingTalk or WeCom"),
    ("attachments", "Slack"),
    ("text", "Slack"),
];

/// What is wrong with a body whose fields are of no event.
fn foreign(event: &str, has: impl Fn(&str) -> bool) -> Option<BadDelivery> {
    if OF_EVENTS.iter().any(|field| has(field)) {
        return None;
    }
    let sender = match OF_OTHERS.iter().find(|(field, _)| has(field)) {
        Some((_, kind)) => format!("a webhook of the type {kind} sends it"),
        None => "it has none of an event's fields".to_owned(),
    };
    Some(BadDelivery {
        event: event.to_owned(),
        reason: format!("{sender}; make one of the type Forgejo or Gitea instead"),
        retry: Retry::Never,
    })
}

/// The webhooks of one Forgejo or Gitea connection.
#[derive(Debug)]
pub struct Events(pub Served);

impl Webhooks for Events {
    fn dialect(&self) -> &'static Dialect {
        &DIALECT
    }

    fn subject(&self, body: &Map<String, Value>) -> Subject {
        push::subject(body)
    }

    fn is_foreign(&self, body: &Map<String, Value>) -> bool {
        foreign("", |field| body.contains_key(field)).is_some()
    }

    fn parse(&self, event: &str, body: &[u8]) -> Result<Parsed, BadDelivery> {
        parse(&self.0, event, body)
    }
}

fn parse(served: &Served, event: &str, body: &[u8]) -> Result<Parsed, BadDelivery> {
    let fields: BTreeMap<String, &RawValue> = push::body(event, body)?;
    if let Some(bad) = foreign(event, |field| fields.contains_key(field)) {
        return Err(bad);
    }
    if event == "push" {
        return push::parse(served, body, true);
    }
    let why = match event {
        "create" => "a branch or tag was created: its push is what triggers",
        "delete" => "a branch or tag was deleted",
        "pull_request" => "pull requests are not run yet",
        _ => "an event that nothing here reacts to",
    };
    Ok(Parsed::Ignored(why.to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::forge::push::tests::{A, B, ignored, push, served};

    #[test]
    fn a_test_delivery_only_shows_that_the_webhook_works() {
        let body = push("refs/heads/main", A, A).to_string();
        assert!(ignored(parse(&served(&[]), "push", body.as_bytes())).contains("the webhook works"));
        let body = push("refs/heads/main", A, B).to_string();
        assert!(matches!(parse(&served(&[]), "push", body.as_bytes()), Ok(Parsed::Triggers(t)) if t.len() == 1));
    }

    #[test]
    fn everything_else_is_ignored_in_words() {
        for (event, word) in [
            ("create", "push"),
            ("delete", "deleted"),
            ("pull_request", "pull requests"),
            ("issue_comment", "nothing"),
        ] {
            let body = json!({"action": "synchronized", "ref": "v1", "ref_type": "tag", "secret": "x"}).to_string();
            assert!(
                ignored(parse(&served(&[]), event, body.as_bytes())).contains(word),
                "{event}"
            );
        }
        assert!(parse(&served(&[]), "create", b"{").is_err());
    }

    #[test]
    fn a_body_of_no_event_is_refused_whatever_its_event_is_called_and_no_event_is_taken_for_one() {
        let events = Events(served(&[]));
        for body in [
            json!({"text": "x"}),
            json!({"ref": "refs/heads/main", "after": B}),
            json!({}),
        ] {
            assert!(events.is_foreign(body.as_object().unwrap()), "{body}");
            for event in ["push", "create", "issues"] {
                let bad = events.parse(event, body.to_string().as_bytes()).unwrap_err();
                assert_eq!((bad.event.as_str(), bad.retry), (event, Retry::Never), "{body}");
            }
        }
        // A person may write these words, and an event may have one of its fields alone.
        for body in [
            json!({"action": "opened", "text": "x", "attachments": []}),
            json!({"repository": null, "embeds": 1}),
            json!({"sender": {}, "msgtype": "text"}),
        ] {
            assert!(!events.is_foreign(body.as_object().unwrap()), "{body}");
            assert!(events.parse("issues", body.to_string().as_bytes()).is_ok(), "{body}");
        }
    }

    proptest! {
        #[test]
        fn no_json_panics(event in "push|create|[a-z_]{0,9}", text in "\\PC{0,60}", key in "ref|after|before|repository|sender") {
            let _ = parse(&served(&[]), &event, text.as_bytes());
            let mut body = push("refs/heads/main", A, B);
            body[key] = serde_json::from_str(&text).unwrap_or(json!(text));
            let _ = parse(&served(&[]), &event, body.to_string().as_bytes());
        }
    }
}
