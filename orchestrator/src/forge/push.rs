//! The push payload, which GitHub, Forgejo and Gitea share in the fields that matter, read by our own
//! minimal structs: an unknown or odd field elsewhere must not cost a delivery.

use std::str::FromStr;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{BadDelivery, Parsed};
use crate::{
    foreign_text::{one_line, title},
    model::{
        names::{CommitSha, ConnectionId, ForgeContext, RefName, RepoPath},
        payload::Payload,
        trigger::{Event, Repository, Retry, Subject, Trigger},
    },
};

/// Whose deliveries are parsed, and which repositories are served.
#[derive(Debug, Clone)]
pub struct Served {
    /// The connection.
    pub connection: ConnectionId,
    /// Empty means all.
    pub repositories: Vec<RepoPath>,
}

impl Served {
    /// Why a repository is not served, if it is not. Forges compare names without regard to case.
    fn refusal(&self, path: &RepoPath) -> Option<String> {
        let same = |r: &RepoPath| r.as_str().eq_ignore_ascii_case(path.as_str());
        (!self.repositories.is_empty() && !self.repositories.iter().any(same)).then(|| {
            format!(
                "the repository {path} is not in the list of connection {}",
                self.connection
            )
        })
    }
}

#[derive(Debug, Deserialize)]
struct Push {
    #[serde(rename = "ref")]
    ref_name: String,
    #[serde(default)]
    before: Option<String>,
    after: String,
    #[serde(default)]
    deleted: Option<bool>,
    #[serde(default)]
    head_commit: Option<Commit>,
    repository: Repo,
    #[serde(default)]
    sender: Option<User>,
}

#[derive(Debug, Deserialize)]
struct Commit {
    #[serde(default)]
    message: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Repo {
    id: u64,
    full_name: String,
}

#[derive(Debug, Deserialize)]
struct User {
    #[serde(default)]
    login: Option<String>,
}

/// Parses a body, naming the event when it is not what the event's name says.
pub fn body<'b, T: Deserialize<'b>>(event: &str, body: &'b [u8]) -> Result<T, BadDelivery> {
    serde_json::from_slice(body).map_err(|error| bad(event, &error))
}

fn bad(event: &str, reason: &dyn std::fmt::Display) -> BadDelivery {
    BadDelivery {
        event: event.to_owned(),
        reason: one_line(&reason.to_string(), 300),
        // A later version may understand it.
        retry: Retry::OnRequest,
    }
}

/// What a body is about: `repository.id`, `repository.full_name`, `ref` and `after`, as far as they are names.
pub fn subject(body: &Map<String, Value>) -> Subject {
    fn name<T: FromStr>(value: Option<&Value>) -> Option<T> {
        value?.as_str()?.parse().ok()
    }
    let repository = body.get("repository");
    Subject {
        repository_id: repository
            .and_then(|r| r.get("id"))
            .and_then(Value::as_u64)
            .map(Into::into),
        repository: name(repository.and_then(|r| r.get("full_name"))),
        ref_name: name(body.get("ref")),
        commit: name(body.get("after")),
    }
}

/// Turns a push into a trigger. `test_when_unmoved`: this forge sends its test delivery as a push
/// that moves nothing.
///
/// # Errors
/// When a field is missing, or a name, ref or commit id is malformed.
pub fn parse(served: &Served, raw: &[u8], test_when_unmoved: bool) -> Result<Parsed, BadDelivery> {
    let push: Push = body("push", raw)?;
    let path: RepoPath = push.repository.full_name.parse().map_err(|e| bad("push", &e))?;
    let ref_name: RefName = push.ref_name.parse().map_err(|e| bad("push", &e))?;
    let after: CommitSha = push.after.parse().map_err(|e| bad("push", &e))?;
    let before: Option<CommitSha> = match push.before.as_deref() {
        None | Some("") => None,
        Some(text) => Some(text.parse().map_err(|e| bad("push", &e))?).filter(|sha: &CommitSha| !sha.is_zero()),
    };
    let ignored = |why: String| Ok(Parsed::Ignored(why));
    if let Some(why) = served.refusal(&path) {
        return Ok(Parsed::NotServed(why));
    }
    if after.is_zero() || push.deleted == Some(true) {
        return ignored(format!("{ref_name} was deleted"));
    }
    if test_when_unmoved && before.as_ref() == Some(&after) {
        return ignored("a test delivery: the webhook works".to_owned());
    }
    if ref_name.branch().is_none() && ref_name.tag().is_none() {
        return ignored(format!("{ref_name} is neither a branch nor a tag"));
    }
    let message = push.head_commit.and_then(|c| c.message).unwrap_or_default();
    let actor = push.sender.and_then(|u| u.login).unwrap_or_default();
    Ok(Parsed::Triggers(vec![Trigger {
        repository: Repository {
            connection: served.connection.clone(),
            id: push.repository.id.into(),
            path,
            context: ForgeContext::default(),
        },
        event: Event::push(ref_name, after, before),
        actor: one_line(&actor, 100),
        title: title(&message),
        payload: Some(Payload::of(raw).map_err(|e| bad("push", &e))?),
    }]))
}

#[cfg(test)]
pub mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::trigger::{RefCause, RefEvent};

    pub const A: &str = "1111111111111111111111111111111111111111";
    pub const B: &str = "2222222222222222222222222222222222222222";
    pub const ZERO: &str = "0000000000000000000000000000000000000000";

    pub fn served(repositories: &[&str]) -> Served {
        Served {
            connection: "berg".parse().unwrap(),
            repositories: repositories.iter().map(|r| r.parse().unwrap()).collect(),
        }
    }

    pub fn push(ref_name: &str, before: &str, after: &str) -> Value {
        json!({
            "ref": ref_name, "before": before, "after": after, "unknown": [1, {"x": null}],
            "head_commit": {"id": after, "message": "Fix the\u{7} thing\n\nBecause.", "author": {"name": "Forged", "username": "root"}},
            "repository": {"id": 42, "full_name": "acme/tool", "clone_url": "http://169.254.169.254/x.git"},
            "pusher": {"name": "someone"}, "sender": {"id": 5, "login": "ada"},
        })
    }

    pub fn parsed(served: &Served, value: &Value) -> Result<Parsed, BadDelivery> {
        parse(served, value.to_string().as_bytes(), true)
    }

    pub fn ignored(result: Result<Parsed, BadDelivery>) -> String {
        match result.unwrap() {
            Parsed::Ignored(why) | Parsed::NotServed(why) => why,
            Parsed::Triggers(triggers) => panic!("{triggers:?}"),
        }
    }

    #[test]
    fn a_push_becomes_a_trigger_with_the_forges_facts_only() {
        let mut body = push("refs/heads/main", A, B);
        body["sender"]["access_token"] = json!("t");
        let Parsed::Triggers(triggers) = parsed(&served(&["ACME/Tool"]), &body).unwrap() else {
            panic!("not a trigger");
        };
        let sent = push("refs/heads/main", A, B);
        let payload = Payload::of(sent.to_string().as_bytes()).unwrap();
        assert_eq!(Value::Object(payload.fields.clone()), sent);
        let expected = Trigger {
            repository: Repository {
                connection: "berg".parse().unwrap(),
                id: 42.into(),
                path: "acme/tool".parse().unwrap(),
                context: ForgeContext::default(),
            },
            event: Event::push(
                "refs/heads/main".parse().unwrap(),
                B.parse().unwrap(),
                Some(A.parse().unwrap()),
            ),
            actor: "ada".to_owned(),
            title: "Fix the  thing".to_owned(),
            payload: Some(payload),
        };
        assert_eq!(triggers, [expected]);
    }

    #[test]
    fn a_new_branch_and_a_tag_act_too() {
        for name in ["refs/heads/feature/x", "refs/tags/v1.0"] {
            let Parsed::Triggers(triggers) = parsed(&served(&[]), &push(name, ZERO, B)).unwrap() else {
                panic!("not a trigger");
            };
            assert!(
                matches!(&triggers[0].event, Event::Ref(RefEvent { ref_name, cause: RefCause::Push { before: None, .. } }) if ref_name.as_str() == name)
            );
        }
    }

    #[test]
    fn what_needs_no_run_is_ignored_in_words() {
        let all = served(&[]);
        assert_eq!(
            ignored(parsed(&all, &push("refs/heads/x", A, ZERO))),
            "refs/heads/x was deleted"
        );
        let mut deleted = push("refs/heads/x", A, B);
        deleted["deleted"] = json!(true);
        assert_eq!(ignored(parsed(&all, &deleted)), "refs/heads/x was deleted");
        assert!(ignored(parsed(&all, &push("refs/heads/x", A, A))).contains("the webhook works"));
        assert!(ignored(parsed(&all, &push("refs/pull/1/head", A, B))).contains("neither"));
        assert!(ignored(parsed(&served(&["acme/other"]), &push("refs/heads/x", A, B))).contains("acme/tool"));
    }

    #[test]
    fn hostile_or_missing_fields_are_bad_deliveries() {
        let all = served(&[]);
        for (field, value) in [
            ("ref", json!("refs/heads/--upload-pack=touch x;")),
            ("ref", json!("main")),
            ("ref", json!(null)),
            ("after", json!("HEAD")),
            ("after", json!("-1111111111111111111111111111111111111111")),
            ("before", json!("zzz")),
            ("repository", json!({"id": 1, "full_name": "../../etc"})),
            ("repository", json!({"id": "1", "full_name": "a/b"})),
            ("repository", json!({"full_name": "a/b"})),
        ] {
            let mut body = push("refs/heads/main", A, B);
            body[field] = value.clone();
            assert!(parsed(&all, &body).is_err(), "{field} = {value}");
        }
        let mut bare = push("refs/heads/main", A, B);
        for field in ["head_commit", "sender", "pusher", "before"] {
            bare.as_object_mut().unwrap().remove(field);
        }
        assert!(
            matches!(parsed(&all, &bare), Ok(Parsed::Triggers(t)) if t[0].title.is_empty() && t[0].actor.is_empty())
        );
    }
}
