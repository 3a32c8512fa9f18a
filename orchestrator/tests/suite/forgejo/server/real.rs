//! A real Forgejo, where `HELIOS_CI_FORGEJO` names its program.

use std::{os::unix::fs::PermissionsExt as _, path::PathBuf};

use nix::sys::signal::Signal;
use serde_json::json;

use super::{
    Answer, Api, BOT, Forgejo, Git, KEEPER, Merge, OWNER,
    api::{PASSWORD, basic},
    process::Process,
    web::Session,
};
use crate::support::prerequisites::skip;

/// A real Forgejo.
pub struct Real {
    process: Process,
    url: String,
    api: Api,
    git: Git,
}

impl Real {
    /// Tokens are made and taken back with the password.
    fn tokens(&self, login: &str) -> (Api, String) {
        (self.api.of(basic(login)), format!("/users/{login}/tokens"))
    }
}

impl Forgejo for Real {
    async fn start() -> Option<Self> {
        let Some(named) = std::env::var_os("HELIOS_CI_FORGEJO").map(PathBuf::from) else {
            skip("no Forgejo (HELIOS_CI_FORGEJO)");
            return None;
        };
        // It is started in a folder of its own, where a relative path would mean another file.
        let program = named
            .canonicalize()
            .unwrap_or_else(|e| panic!("HELIOS_CI_FORGEJO={}: {e}", named.display()));
        let mode = program.metadata().map_or(0, |file| file.permissions().mode());
        assert!(
            program.is_file() && mode & 0o111 != 0,
            "HELIOS_CI_FORGEJO={} is no program",
            named.display()
        );
        let (mut process, token) = Process::new(&program);
        process.up();
        let url = process.url();
        let api = Api::new(&url, format!("token {token}"));
        for login in [OWNER, BOT] {
            let user = json!({
                "username": login, "password": PASSWORD, "email": format!("{login}@example.org"),
                "must_change_password": false,
            });
            api.must("POST", "/admin/users", Some(user)).await;
        }
        println!("Forgejo {}", api.get("/version").await["version"]);
        Some(Self {
            process,
            url,
            api,
            git: Git::new(OWNER),
        })
    }

    fn url(&self) -> &str {
        &self.url
    }

    fn api(&self) -> &Api {
        &self.api
    }

    fn git(&self) -> &Git {
        &self.git
    }

    async fn create_token(&self, login: &str, scopes: &[&str]) -> String {
        let (api, path) = self.tokens(login);
        let token = json!({"name": helios_fakeforge::new_webhook_secret(), "scopes": scopes});
        let made = api.must("POST", &path, Some(token)).await;
        made["sha1"].as_str().expect("a token").to_owned()
    }

    async fn revoke_token(&self, login: &str, token: &str) {
        let (api, path) = self.tokens(login);
        let all = api.get(&path).await;
        let end = &token[token.len() - 8..];
        let found = all.as_array().expect("a list").iter();
        let mut found = found.filter(|row| row["token_last_eight"] == end);
        let id = found.next().expect("the token")["id"].as_i64().expect("its number");
        api.must("DELETE", &format!("{path}/{id}"), None).await;
    }

    async fn create_repository(&self, path: &str, private: bool) {
        let (owner, name) = path.split_once('/').expect("owner/name");
        let repository = json!({"name": name, "private": private, "default_branch": "main"});
        self.api
            .must("POST", &format!("/admin/users/{owner}/repos"), Some(repository))
            .await;
    }

    async fn delete_repository(&self, path: &str) {
        self.api.must("DELETE", &format!("/repos/{path}"), None).await;
    }

    async fn rename_repository(&self, path: &str, name: &str) {
        let change = json!({"name": name});
        self.api.must("PATCH", &format!("/repos/{path}"), Some(change)).await;
    }

    async fn rename_owner(&self, old: &str, new: &str) {
        let change = json!({"new_username": new});
        let path = format!("/admin/users/{old}/rename");
        self.api.must("POST", &path, Some(change)).await;
    }

    async fn add_collaborator(&self, path: &str, login: &str) {
        let route = format!("/repos/{path}/collaborators/{login}");
        self.api.must("PUT", &route, Some(json!({"permission": "write"}))).await;
    }

    async fn remove_collaborator(&self, path: &str, login: &str) {
        let route = format!("/repos/{path}/collaborators/{login}");
        self.api.must("DELETE", &route, None).await;
    }

    async fn redeliver(&self, path: &str, hook: i64) {
        let mut session = Session::new(&self.url, KEEPER).await;
        let answers = session.answers(path, hook).await;
        let newest = answers.iter().find(|answer| answer.event == "push");
        let newest = newest.expect("a delivery of a push");
        session.redeliver(path, hook, &newest.delivery).await;
    }

    async fn answers(&self, path: &str, hook: i64) -> Vec<Answer> {
        Session::new(&self.url, KEEPER).await.answers(path, hook).await
    }

    async fn open_pull(&self, path: &str, branch: &str) -> i64 {
        let pull = json!({"title": format!("Merge {branch}"), "head": branch, "base": "main"});
        let owner = self.api.of(basic(OWNER));
        let made = owner.must("POST", &format!("/repos/{path}/pulls"), Some(pull)).await;
        made["number"].as_i64().expect("its number")
    }

    async fn merge(&self, path: &str, number: i64, head: &str) -> Merge {
        super::merge(&self.api.of(basic(OWNER)), path, number, head).await
    }

    async fn stop(&mut self) {
        self.process.down();
    }

    async fn restart(&mut self) {
        self.process.up();
    }

    fn freeze(&mut self) {
        self.process.signal(Signal::SIGSTOP);
    }

    fn thaw(&mut self) {
        self.process.signal(Signal::SIGCONT);
    }
}
