//! The local forge of the tests, in the part of a Forgejo.

use helios_fakeforge::{Access, FakeForge, Kind, Options};

use super::{
    Answer, Api, Forgejo, Git, Merge, OWNER,
    api::{PASSWORD, basic},
};
use crate::support::prerequisites;

/// The local forge.
pub struct Fake {
    forge: FakeForge,
    api: Api,
    git: Git,
}

impl Fake {
    /// The number of a repository.
    fn number(&self, path: &str) -> i64 {
        let state = self.forge.state();
        state.repository(path).expect("a repository").id
    }
}

impl Forgejo for Fake {
    async fn start() -> Option<Self> {
        let options = Options {
            schemas: prerequisites::needs_conformance("openapi"),
            ..Options::default()
        };
        let forge = FakeForge::start(options).await.expect("the forge starts");
        // It has no passwords, but takes a token in their place.
        forge.add_token_with(OWNER, &["all"], PASSWORD);
        forge.set_delivery_timeout(super::deadline::PROMPT);
        Some(Self {
            api: Api::new(forge.url(), basic(OWNER)),
            git: Git::new(OWNER),
            forge,
        })
    }

    fn url(&self) -> &str {
        self.forge.url()
    }

    fn api(&self) -> &Api {
        &self.api
    }

    fn git(&self) -> &Git {
        &self.git
    }

    async fn create_token(&self, login: &str, scopes: &[&str]) -> String {
        self.forge.create_token_with(login, scopes)
    }

    async fn revoke_token(&self, _login: &str, token: &str) {
        self.forge.revoke_token(token);
    }

    async fn create_repository(&self, path: &str, private: bool) {
        let made = self.forge.create_repository(Kind::Forgejo, path, private);
        made.await.expect("a repository");
    }

    async fn delete_repository(&self, path: &str) {
        let number = self.number(path);
        self.forge.delete_repository(number).await.expect("it was there");
    }

    async fn rename_repository(&self, path: &str, name: &str) {
        let (owner, _) = path.split_once('/').expect("owner/name");
        let renamed = self
            .forge
            .rename_repository(self.number(path), &format!("{owner}/{name}"));
        renamed.expect("another name");
    }

    async fn rename_owner(&self, old: &str, new: &str) {
        self.forge.rename_owner(old, new).expect("another name");
    }

    async fn add_collaborator(&self, path: &str, login: &str) {
        self.forge.add_collaborator(self.number(path), login, Access::Write);
    }

    async fn remove_collaborator(&self, path: &str, login: &str) {
        self.forge.remove_collaborator(self.number(path), login);
    }

    async fn redeliver(&self, _path: &str, hook: i64) {
        let newest = {
            let state = self.forge.state();
            let pushes = state.deliveries().iter().rev();
            let mut pushes = pushes.filter(|delivery| delivery.hook == hook && delivery.event == "push");
            pushes.next().expect("a delivery of a push").id.clone()
        };
        self.forge.redeliver(&newest).await.expect("its hook is there");
    }

    async fn answers(&self, _path: &str, hook: i64) -> Vec<Answer> {
        let state = self.forge.state();
        let of_hook = state.deliveries().iter().rev().filter(|delivery| delivery.hook == hook);
        let answered = of_hook.filter_map(|delivery| {
            let tried = delivery.tries.last()?;
            Some(Answer {
                delivery: delivery.id.clone(),
                event: delivery.event.clone(),
                status: *tried.outcome.as_ref().ok()?,
                body: tried.answer.clone(),
            })
        });
        answered.collect()
    }

    async fn open_pull(&self, path: &str, branch: &str) -> i64 {
        let number = self.number(path);
        let opened = self.forge.open_pull_request((number, "main"), (number, branch), OWNER);
        opened.await.expect("a pull request").0
    }

    async fn merge(&self, path: &str, number: i64, head: &str) -> Merge {
        // A Forgejo sees by itself that its branch moved.
        let seen = self.forge.synchronize_pull_request(number).await;
        assert_eq!(seen.expect("the pull request"), head);
        super::merge(&self.api, path, number, head).await
    }

    async fn stop(&mut self) {
        self.forge.stop().await;
    }

    async fn restart(&mut self) {
        self.forge.restart().await;
    }

    fn freeze(&mut self) {
        self.forge.set_suspended(true);
    }

    fn thaw(&mut self) {
        self.forge.set_suspended(false);
    }
}

impl Drop for Fake {
    /// The end of a conversation, in which nobody may have sent what the published description forbids.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.forge.violations(), []);
        }
    }
}
