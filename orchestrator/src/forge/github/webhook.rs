//! GitHub's events. `push` is what triggers: an App gets one `check_suite` per commit however many
//! branches it was pushed to, so a suite says less than a push does.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::{
    BadDelivery, Dialect, Parsed, Webhooks,
    push::{self, Served},
};
use crate::model::{names::ForgeContext, trigger::Subject};

/// Which installation of the App the event is about.
#[derive(Deserialize)]
struct Installed {
    #[serde(default)]
    installation: Option<Installation>,
}

#[derive(Deserialize)]
struct Installation {
    id: u64,
}

impl Installed {
    fn context(self) -> ForgeContext {
        self.installation.map(|it| it.id.into()).unwrap_or_default()
    }
}

#[derive(Deserialize)]
struct Action {
    #[serde(default)]
    action: Option<String>,
}

/// GitHub's headers; its documentation names 25 MiB as the longest body.
pub static DIALECT: Dialect = Dialect {
    body_limit: 25 << 20,
    event_headers: &["x-github-event"],
    delivery_headers: &["x-github-delivery"],
    signature_headers: &[("x-hub-signature-256", "sha256=")],
    signature_remedy: "check the webhook's secret",
};

/// The webhooks of one GitHub connection.
#[derive(Debug)]
pub struct Events(pub Served);

impl Webhooks for Events {
    fn dialect(&self) -> &'static Dialect {
        &DIALECT
    }

    fn subject(&self, body: &Map<String, Value>) -> Subject {
        push::subject(body)
    }

    /// GitHub's webhooks have no types to choose from.
    fn is_foreign(&self, _: &Map<String, Value>) -> bool {
        false
    }

    fn parse(&self, event: &str, body: &[u8]) -> Result<Parsed, BadDelivery> {
        parse(&self.0, event, body)
    }
}

fn parse(served: &Served, event: &str, body: &[u8]) -> Result<Parsed, BadDelivery> {
    if event == "push" {
        let mut parsed = push::parse(served, body, false)?;
        if let Parsed::Triggers(triggers) = &mut parsed {
            let context = push::body::<Installed>(event, body)?.context();
            for trigger in triggers {
                trigger.repository.context = context.clone();
            }
        }
        return Ok(parsed);
    }
    let action = push::body::<Action>(event, body)?.action.unwrap_or_default();
    let why = match (event, action.as_str()) {
        ("ping", _) => "a ping: the webhook works",
        ("check_suite", "requested") => "a check suite was requested: its push is what triggers",
        ("check_suite" | "check_run", "rerequested") => "runs are started again on their own page",
        ("check_suite" | "check_run", _) => "news of a check, which we only write",
        ("create", _) => "a branch or tag was created: its push is what triggers",
        ("delete", _) => "a branch or tag was deleted",
        ("pull_request", _) => "pull requests are not run yet",
        ("merge_group", _) => "merge queues are not run yet",
        ("installation" | "installation_repositories" | "repository", _) => {
            "an installation or a repository changed: rights are read when they are used"
        }
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
    fn a_push_carries_its_installation() {
        let mut body = push("refs/heads/main", A, B);
        body["installation"] = json!({"id": 99, "node_id": "x"});
        let Parsed::Triggers(triggers) = parse(&served(&[]), "push", body.to_string().as_bytes()).unwrap() else {
            panic!("not a trigger");
        };
        assert_eq!(triggers[0].repository.context.as_str(), "99");
    }

    #[test]
    fn everything_else_is_ignored_in_words() {
        for (event, body, word) in [
            ("ping", r#"{"zen":"x","hook_id":1}"#, "works"),
            (
                "check_suite",
                r#"{"action":"requested","check_suite":{"head_branch":null}}"#,
                "push",
            ),
            ("check_run", r#"{"action":"rerequested"}"#, "again"),
            ("check_run", r#"{"action":"created"}"#, "only write"),
            ("create", r#"{"ref":"v1","ref_type":"tag"}"#, "push"),
            ("delete", r#"{"ref":"v1","ref_type":"tag"}"#, "deleted"),
            ("installation", r#"{"action":"created"}"#, "rights"),
            ("pull_request", r#"{"action":"opened","number":1}"#, "pull requests"),
            ("sponsorship", "{}", "nothing"),
        ] {
            let why = ignored(parse(&served(&[]), event, body.as_bytes()));
            assert!(why.contains(word), "{event}: {why}");
        }
        assert!(parse(&served(&[]), "ping", b"[").is_err());
    }

    proptest! {
        #[test]
        fn no_json_panics(event in "push|ping|check_suite|create|[a-z_]{0,9}", text in "\\PC{0,60}", key in "ref|after|repository|action") {
            let _ = parse(&served(&[]), &event, text.as_bytes());
            let mut body = push("refs/heads/main", A, B);
            body[key] = serde_json::from_str(&text).unwrap_or(json!(text));
            let _ = parse(&served(&[]), &event, body.to_string().as_bytes());
        }
    }
}
