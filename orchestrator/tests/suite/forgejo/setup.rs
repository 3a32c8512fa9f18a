//! What every conversation begins with: a repository of the owner's, a bot that may write to it, its webhook, and a
//! daemon that has the bot's token and the webhook's secret.

use std::{cell::RefCell, collections::HashMap, fs, path::Path};

use nix::sys::signal::Signal;
use serde_json::Value;

use super::server::{self, Answer, BOT, Forgejo, NewHook, Status};
use crate::support::{Machines, installation::Installation};

/// The repository.
pub const ENGINE: &str = "ada/engine";
/// What the daemon's token needs.
pub const SCOPES: [&str; 1] = ["write:repository"];
/// The daemon's name for the forge.
const CONNECTION: &str = "forge";

/// A workflow that says hello.
pub const SMALL: &str = "name: ci\non: push\njobs:\n  job:\n    steps:\n      - run: echo hello\n";

/// A workflow whose job fails.
pub const FAILING: &str = "name: ci\non: push\njobs:\n  job:\n    steps:\n      - run: exit 1\n";

/// A workflow that runs until somebody opens the gate.
pub fn gated(gate: &Path) -> String {
    format!(
        "name: ci\non: push\njobs:\n  job:\n    steps:\n      - run: until [ -e {} ]; do sleep 0.05; done; echo hello\n",
        gate.display()
    )
}

/// A forge with [`ENGINE`], and a daemon that serves it.
pub struct Setup<F> {
    pub ci: Installation,
    pub forge: F,
    pub secret: String,
    /// The number of the webhook of [`ENGINE`].
    pub hook: i64,
    /// The newest commit of each repository's branch.
    tips: RefCell<HashMap<(String, String), String>>,
    pushes: RefCell<u32>,
}

impl<F: Forgejo> Setup<F> {
    /// Everything as the documentation asks for it.
    pub async fn new(forge: F) -> Self {
        let setup = Self::without_right(forge, &SCOPES).await;
        setup.forge.add_collaborator(ENGINE, BOT).await;
        setup
    }

    /// The bot's token has these scopes, and the bot is no collaborator.
    pub async fn without_right(forge: F, scopes: &[&str]) -> Self {
        let (secret, token) = (
            helios_fakeforge::new_webhook_secret(),
            forge.create_token(BOT, scopes).await,
        );
        let connections = |dir: &Path| {
            let (url, dir) = (forge.url(), dir.display());
            format!(
                "connections:
  {CONNECTION}:
    kind: forgejo
    url: {url}
    token: file:{dir}/token
    webhook_secrets: [file:{dir}/hook]
    allow_private: true
"
            )
        };
        let secrets = [("token", token.as_str()), ("hook", &secret)];
        let mut ci = Installation::stopped(Machines::Process, &secrets, connections, "");
        ci.up();
        let mut setup = Self {
            ci,
            forge,
            secret,
            hook: 0,
            tips: RefCell::default(),
            pushes: RefCell::default(),
        };
        setup.forge.create_repository(ENGINE, true).await;
        setup.hook = setup.add_hook(ENGINE).await;
        setup
    }

    /// Another private repository that the daemon serves as it does [`ENGINE`]; its webhook.
    pub async fn add_repository(&self, path: &str) -> i64 {
        self.forge.create_repository(path, true).await;
        self.forge.add_collaborator(path, BOT).await;
        self.add_hook(path).await
    }

    async fn add_hook(&self, path: &str) -> i64 {
        let url = self.hook_url();
        let hook = NewHook {
            kind: "forgejo",
            content_type: "json",
            url: &url,
            secret: &self.secret,
        };
        self.forge.add_hook(path, hook).await
    }

    /// What the daemon answers to a push that another hook of [`ENGINE`], of this kind, delivers; the right hook beside
    /// it runs the push once.
    pub async fn answer_of(&self, kind: &str, content_type: &str, url: &str) -> Answer {
        let hook = NewHook {
            kind,
            content_type,
            url,
            secret: &self.secret,
        };
        let hook = self.forge.add_hook(ENGINE, hook).await;
        let sha = self.push(ENGINE, "main", SMALL);
        self.wait(ENGINE, &sha, "success").await;
        let answer = self.answers(ENGINE, hook, 1).await.remove(0);
        assert_eq!(self.runs(&sha), 1, "{kind}, {content_type}, {url}");
        answer
    }

    /// Where webhooks go.
    pub fn hook_url(&self) -> String {
        self.ci.hook_url(CONNECTION)
    }

    /// Gives the daemon a token of the bot with these scopes, as an administrator does: a new file, and a refresh.
    pub async fn renew_token(&self, scopes: &[&str]) {
        let token = self.forge.create_token(BOT, scopes).await;
        let file = self.ci.dir.path().join("token");
        let ready = || self.ci.daemon_log().matches("helios-ci is ready").count();
        let before = ready();
        helios_fakeforge::write_private(&file, &token).expect("the token's file");
        self.ci.signal(Signal::SIGHUP);
        self.ci
            .until("the new token is taken up", || (ready() > before).then_some(()));
    }

    /// The token that the daemon has.
    pub fn token(&self) -> String {
        fs::read_to_string(self.ci.dir.path().join("token")).expect("the token")
    }

    /// A commit with this workflow on top of a branch, or of `main` where there is no such branch yet.
    pub fn commit(&self, path: &str, branch: &str, workflow: &str) -> String {
        let tips = self.tips.borrow();
        let tip = |branch: &str| tips.get(&(path.to_owned(), branch.to_owned())).map(String::as_str);
        let number = {
            let mut pushes = self.pushes.borrow_mut();
            *pushes += 1;
            pushes.to_string()
        };
        let files = [(".helios/workflows/ci.yml", workflow), ("README", &number)];
        let message = format!("Change number {number}");
        self.forge
            .git()
            .commit(tip(branch).or_else(|| tip("main")), &files, &message)
    }

    /// Commits a workflow to a branch and pushes it; the commit's id.
    pub fn push(&self, path: &str, branch: &str, workflow: &str) -> String {
        let sha = self.commit(path, branch, workflow);
        let reference = format!("refs/heads/{branch}");
        self.forge
            .git()
            .push(&self.forge.clone_url(path), &[(&reference, Some(&sha))]);
        let branch = (path.to_owned(), branch.to_owned());
        self.tips.borrow_mut().insert(branch, sha.clone());
        sha
    }

    /// Looks again and again until there is something.
    pub async fn until<T>(&self, what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
        server::until(what, || self.ci.daemon_log(), look).await
    }

    /// The newest status of a commit in this context.
    pub async fn status(&self, path: &str, sha: &str, context: &str) -> Option<Status> {
        let all = self.forge.statuses(path, sha).await;
        all.into_iter().find(|status| status.context == context)
    }

    /// Waits until the aggregate of a commit is in this state.
    pub async fn wait(&self, path: &str, sha: &str, state: &str) {
        let what = format!("{state} for {sha} of {path}");
        self.until(&what, async || {
            let status = self.status(path, sha, "helios-ci").await?;
            (status.state == state).then_some(())
        })
        .await;
    }

    /// Waits until the forge makes a success of all statuses of a commit: a job's own end may be reported after its run's.
    pub async fn wait_combined(&self, path: &str, sha: &str) {
        self.until(&format!("all of {sha} of {path} is a success"), async || {
            (self.forge.combined(path, sha).await == "success").then_some(())
        })
        .await;
    }

    /// The states that a context went through, oldest first, as they came.
    pub async fn states(&self, path: &str, sha: &str, context: &str) -> Vec<String> {
        let all = self.forge.statuses(path, sha).await;
        let of_context = all.into_iter().rev().filter(|status| status.context == context);
        of_context.map(|status| status.state).collect()
    }

    /// How many runs there are of a commit.
    pub fn runs(&self, sha: &str) -> usize {
        self.all_runs().iter().filter(|commit| *commit == sha).count()
    }

    /// The commit of each run that there is, newest first.
    pub fn all_runs(&self) -> Vec<String> {
        let (mut commits, mut before) = (Vec::new(), String::new());
        loop {
            let page = self.ci.get(&format!("/api/v1/runs?limit=100{before}"));
            let runs = page["runs"].as_array().into_iter().flatten();
            commits.extend(runs.map(|run| run["commit"].as_str().expect("a commit").to_owned()));
            match page["next"].as_str() {
                Some(next) => before = format!("&before={next}"),
                None => return commits,
            }
        }
    }

    /// Waits until the hook's page of a repository shows answers to so many pushes; newest first.
    pub async fn answers(&self, path: &str, hook: i64, count: usize) -> Vec<Answer> {
        let what = format!("{count} answers to pushes at hook {hook} of {path}");
        self.until(&what, async || {
            let mut answers = self.forge.answers(path, hook).await;
            answers.retain(|answer| answer.event == "push");
            (answers.len() >= count).then_some(answers)
        })
        .await
    }

    /// Sends the newest push to [`ENGINE`] again, of which so many were answered; the answer.
    pub async fn redeliver(&self, answered: usize) -> Answer {
        let before = self.answers(ENGINE, self.hook, answered).await;
        self.forge.redeliver(ENGINE, self.hook).await;
        let answer = self.answers(ENGINE, self.hook, before.len() + 1).await.remove(0);
        let is_new = before.iter().all(|known| known.delivery != answer.delivery);
        assert!(is_new, "a redelivery has an id of its own: {before:#?}");
        answer
    }

    /// Waits until the forge has every report that there is by now.
    pub fn wait_reported(&self) {
        self.ci.until("nothing is left to be reported", || {
            let status = self.ci.get("/api/v1/status");
            (status["details"]["work"]["reports_undelivered"] == 0).then_some(())
        });
    }

    /// What the daemon says of the deliveries of this event, newest first.
    pub fn deliveries(&self, event: &str) -> Vec<Value> {
        let all = self.ci.get("/api/v1/deliveries?limit=100");
        let all = all["deliveries"].as_array().cloned().unwrap_or_default();
        all.into_iter().filter(|row| row["event"] == event).collect()
    }

    /// Waits until the newest delivery of a push of this commit has an outcome with these words.
    pub fn wait_outcome(&self, sha: &str, words: &str) {
        self.ci.until(&format!("{words:?} for {sha}"), || {
            let pushes = self.deliveries("push");
            let outcome = pushes.iter().find(|row| row["commit"] == sha)?["outcome"]
                .as_str()?
                .to_owned();
            outcome.contains(words).then_some(())
        });
    }
}
