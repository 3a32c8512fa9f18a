//! Events of Forgejo and Gitea. A new tag arrives as `push` and as `create`; `push` acts. There is no
//! ping: a test delivery is a push of the default branch that moves nothing.

use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::super::{
    BadDelivery, Dialect, Parsed, Webhooks,
    push::{self, Served},
};
use crate::model::trigger::Subject;

/// Forgejo's headers and those of Gitea, which it descends from; GitHub's are sent as well.
pub static DIALECT: Dialect = Dialect {
    body_limit: 10 << 20,
    event_headers: &["x-forgejo-event", "x-gitea-event"],
    delivery_headers: &["x-forgejo-delivery", "x-gitea-delivery"],
    signature_headers: &[
        ("x-forgejo-signature", ""),
        ("x-gitea-signature", ""),
        ("x-hub-signature-256", "sha256="),
    ],
};

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

    fn parse(&self, event: &str, body: &[u8]) -> Result<Parsed, BadDelivery> {
        parse(&self.0, event, body)
    }
}

fn parse(served: &Served, event: &str, body: &[u8]) -> Result<Parsed, BadDelivery> {
    if event == "push" {
        return push::parse(served, body, true);
    }
    push::body::<IgnoredAny>(event, body)?;
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
