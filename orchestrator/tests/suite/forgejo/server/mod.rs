//! A Forgejo for conversations: a real one, or the local forge of the tests. Both implement one trait, so a conversation
//! cannot distinguish them.

#![allow(
    clippy::disallowed_methods,
    reason = "tests start a forge and push to it as persons would"
)]

mod api;
mod fake;
mod git;
mod process;
mod real;
mod web;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub use self::{api::Api, fake::Fake, git::Git, real::Real};
use crate::support::deadline;

/// Who administers the forge; nobody's pushes come from it.
pub const KEEPER: &str = "keeper";
/// Who owns repositories and pushes to them.
pub const OWNER: &str = "ada";
/// Whose token the daemon has. It owns nothing.
pub const BOT: &str = "helios-ci";

/// A webhook as a person enters it, for pushes and whatever else a CI may be sent.
#[derive(Debug, Clone, Copy)]
pub struct NewHook<'h> {
    /// `forgejo`, `gitea`, `slack`…
    pub kind: &'h str,
    /// `json` or `form`.
    pub content_type: &'h str,
    pub url: &'h str,
    pub secret: &'h str,
}

/// What the receiver of a hook answered, as the hook's page shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The delivery's id.
    pub delivery: String,
    /// `push`, `create`…
    pub event: String,
    pub status: u16,
    pub body: String,
}

/// A status of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub context: String,
    pub state: String,
    pub description: String,
    pub target_url: String,
}

/// A forge that is running. Repositories are named by their path, `owner/name`. Dropping it ends it, and nothing of it
/// stays.
#[allow(async_fn_in_trait, reason = "used by tests of one thread each")]
pub trait Forgejo: Sized {
    /// Starts one in which nothing is but its users; where there is none to be started, that is said, and it is `None`.
    async fn start() -> Option<Self>;

    /// Its address, without a trailing slash.
    fn url(&self) -> &str;

    /// Its API, as somebody who administers the repositories.
    fn api(&self) -> &Api;

    /// The owner's git.
    fn git(&self) -> &Git;

    async fn create_token(&self, login: &str, scopes: &[&str]) -> String;

    async fn revoke_token(&self, login: &str, token: &str);

    /// An empty repository, whose default branch will be `main`.
    async fn create_repository(&self, path: &str, private: bool);

    async fn delete_repository(&self, path: &str);

    /// Gives a repository another name.
    async fn rename_repository(&self, path: &str, name: &str);

    /// Gives an owner another name, and with it each of its repositories another path.
    async fn rename_owner(&self, old: &str, new: &str);

    /// Lets a user push to a repository.
    async fn add_collaborator(&self, path: &str, login: &str);

    async fn remove_collaborator(&self, path: &str, login: &str);

    /// The hook's number.
    async fn add_hook(&self, path: &str, hook: NewHook<'_>) -> i64 {
        let mut config = json!({"url": hook.url, "content_type": hook.content_type, "secret": hook.secret});
        if hook.kind == "slack" {
            config["channel"] = "#builds".into();
        }
        let hook = json!({
            "type": hook.kind, "config": config, "events": ["push", "create", "delete", "pull_request"], "active": true,
        });
        let hooks = format!("/repos/{path}/hooks");
        let made = self.api().must("POST", &hooks, Some(hook)).await;
        made["id"].as_i64().expect("its number")
    }

    /// Asks for a test delivery.
    async fn test_hook(&self, path: &str, hook: i64) {
        let route = format!("/repos/{path}/hooks/{hook}/tests");
        self.api().must("POST", &route, None).await;
    }

    /// Presses "redeliver" at the hook's newest delivery of a push.
    async fn redeliver(&self, path: &str, hook: i64);

    /// What deliveries of a hook were answered, newest first.
    async fn answers(&self, path: &str, hook: i64) -> Vec<Answer>;

    /// Merges into a branch only what has this status as a success.
    async fn require(&self, path: &str, branch: &str, context: &str) {
        let rule = json!({
            "branch_name": branch, "rule_name": branch, "enable_push": true, "enable_status_check": true,
            "status_check_contexts": [context],
        });
        let rules = format!("/repos/{path}/branch_protections");
        self.api().must("POST", &rules, Some(rule)).await;
    }

    /// Opens a pull request to `main`; its number.
    async fn open_pull(&self, path: &str, branch: &str) -> i64;

    /// The owner merges a pull request whose head is this commit, without force.
    async fn merge(&self, path: &str, number: i64, head: &str) -> Merge;

    /// The forge is gone: connections are refused.
    async fn stop(&mut self);

    /// It is there again, at the same address.
    async fn restart(&mut self);

    /// It takes connections and answers nothing.
    fn freeze(&mut self);

    /// It goes on where it was.
    fn thaw(&mut self);

    /// Where the owner pushes to.
    fn clone_url(&self, path: &str) -> String {
        format!("{}/{path}.git", self.url())
    }

    /// Every status that a commit ever had, newest first.
    async fn statuses(&self, path: &str, sha: &str) -> Vec<Status> {
        let mut all: Vec<Value> = Vec::new();
        for page in 1.. {
            let route = format!("/repos/{path}/statuses/{sha}?limit=50&page={page}");
            let answer = self.api().get(&route).await;
            let rows = answer.as_array().expect("a list");
            all.extend(rows.iter().cloned());
            if rows.len() < 50 {
                break;
            }
        }
        // Forgejo sorts them by whole seconds; their numbers are in order.
        all.sort_by_key(|row| std::cmp::Reverse(row["id"].as_i64()));
        let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
        let status = |row: &Value| Status {
            context: text(row, "context"),
            state: text(row, "status"),
            description: text(row, "description"),
            target_url: text(row, "target_url"),
        };
        all.iter().map(status).collect()
    }

    /// The one word for a commit that the forge makes of all its statuses.
    async fn combined(&self, path: &str, sha: &str) -> String {
        let answer = self.api().get(&format!("/repos/{path}/commits/{sha}/status")).await;
        answer["state"].as_str().expect("a state").to_owned()
    }
}

/// What came of a wish to merge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Merge {
    Done,
    /// With the forge's words.
    Blocked(String),
}

/// Wishes for a merge until the forge knows whether it can.
async fn merge(api: &Api, path: &str, number: i64, head: &str) -> Merge {
    let route = format!("/repos/{path}/pulls/{number}/merge");
    let wish = json!({"Do": "merge", "head_commit_id": head});
    // For a while after a push it has not yet the new head, or looks whether the two fit together.
    let knows = async || {
        let (status, answer) = api.call("POST", &route, Some(wish.clone())).await;
        let words = answer["message"].as_str().unwrap_or_default().to_owned();
        match status {
            200 => Some(Merge::Done),
            409 => None,
            405 if words.contains("try again later") => None,
            405 => Some(Merge::Blocked(words)),
            _ => panic!("{route}: {status} {answer}"),
        }
    };
    until("the forge knows whether it can merge", String::new, knows).await
}

/// Looks again and again until there is something; where there never is, what else is known is said.
pub async fn until<T>(what: &str, known: impl Fn() -> String, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(started.elapsed() < deadline::GUEST, "never: {what}\n{}", known());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
