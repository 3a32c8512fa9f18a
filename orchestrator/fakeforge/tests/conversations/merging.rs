//! Protected branches of the Forgejo side.

use crate::common::{call, forge, status_of};
use helios_fakeforge::{Access, FakeForge, Kind};
use serde_json::json;

/// A pull request to a branch that requires these statuses, and how to go on from there.
struct Scene {
    forge: FakeForge,
    repository: i64,
    number: i64,
    head: String,
    admin: String,
}

impl Scene {
    async fn new(contexts: &[&str]) -> Self {
        let forge = forge().await;
        let repository = forge.create_repository(Kind::Forgejo, "acme/app", false).await.unwrap();
        forge.push(repository, "main", &[("a", "1", 0o644)], "1").await.unwrap();
        forge
            .push(repository, "topic", &[("b", "1", 0o644)], "2")
            .await
            .unwrap();
        forge.push(repository, "main", &[("c", "1", 0o644)], "3").await.unwrap();
        let opened = forge
            .open_pull_request((repository, "main"), (repository, "topic"), "alice")
            .await;
        let (number, head) = opened.unwrap();
        forge.add_collaborator(repository, "carol", Access::Admin);
        let admin = format!("token {}", forge.create_token_with("carol", &["write:repository"]));
        let scene = Self {
            forge,
            repository,
            number,
            head,
            admin,
        };
        let body = json!({"rule_name": "main", "enable_status_check": true, "status_check_contexts": contexts});
        assert_eq!(scene.post("branch_protections", body).await, 201);
        scene
    }

    async fn post(&self, path: &str, body: serde_json::Value) -> u16 {
        let url = format!("{}/api/v1/repos/acme/app/{path}", self.forge.url());
        call("POST", &url, Some(&self.admin), Some(body)).await.0
    }

    async fn set(&self, state: &str, context: &str) {
        let body = status_of(state, context).unwrap();
        assert_eq!(self.post(&format!("statuses/{}", self.head), body).await, 201);
    }

    async fn merge(&self) -> u16 {
        self.post(&format!("pulls/{}/merge", self.number), json!({"Do": "merge"}))
            .await
    }
}

#[tokio::test]
async fn a_required_name_blocks_a_merge_until_it_is_green() {
    let scene = Scene::new(&["helios-ci"]).await;
    assert_eq!(scene.merge().await, 405, "nothing was said yet");
    scene.set("success", "helios-ci / ci / job").await;
    assert_eq!(scene.merge().await, 405, "another name");
    for state in ["pending", "failure", "error", "warning"] {
        scene.set(state, "helios-ci").await;
        assert_eq!(scene.merge().await, 405, "{state}");
    }
    scene.set("success", "helios-ci").await;
    assert_eq!(scene.merge().await, 200);
    // It is a real merge, and sent as a push.
    let dir = scene.forge.repository_dir(scene.repository).unwrap();
    let files = crate::common::git(&dir, &["ls-tree", "--name-only", "refs/heads/main"]);
    assert_eq!(String::from_utf8_lossy(&files.stdout), "a\nb\nc\n");
    assert_eq!(scene.forge.violations(), []);
}

#[tokio::test]
async fn of_what_matches_a_pattern_only_the_first_counts() {
    let scene = Scene::new(&["helios-ci*"]).await;
    scene.set("success", "helios-ci / ci / green").await;
    scene.set("failure", "helios-ci").await;
    assert_eq!(scene.merge().await, 200, "the red one is hidden");
    let scene = Scene::new(&["helios-ci/*"]).await;
    scene.set("success", "helios-ci / ci / job").await;
    assert_eq!(scene.merge().await, 405, "it matches nothing");
}
