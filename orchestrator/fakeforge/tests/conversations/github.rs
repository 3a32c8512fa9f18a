//! Conversations with the GitHub side, as an App has them.

use std::time::{Duration, SystemTime};

use crate::common::{call, delivered, forge, receiver, signed};
use base64::{Engine as _, engine::general_purpose::STANDARD, engine::general_purpose::URL_SAFE_NO_PAD};
use helios_fakeforge::{FakeForge, Kind};
use ring::{rand::SystemRandom, signature};
use serde_json::{Value, json};

fn now() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// An App's word, signed as the real one would be.
fn jwt(forge: &FakeForge, claims: &Value, algorithm: &str) -> String {
    let pem = forge.app_private_key();
    let body: String = pem
        .lines()
        .filter(|l| !l.starts_with('-') && !l.contains(' '))
        .collect();
    let pair = signature::RsaKeyPair::from_der(&STANDARD.decode(body).unwrap()).unwrap();
    let encode = |v: &Value| URL_SAFE_NO_PAD.encode(v.to_string());
    let signed = format!(
        "{}.{}",
        encode(&json!({"alg": algorithm, "typ": "JWT"})),
        encode(claims)
    );
    let mut bytes = vec![0; pair.public().modulus_len()];
    pair.sign(
        &signature::RSA_PKCS1_SHA256,
        &SystemRandom::new(),
        signed.as_bytes(),
        &mut bytes,
    )
    .unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(bytes))
}

fn good_jwt(forge: &FakeForge) -> String {
    let claims = json!({"iat": now() - 60, "exp": now() + 540, "iss": forge.app_id()});
    format!("Bearer {}", jwt(forge, &claims, "RS256"))
}

async fn mint(forge: &FakeForge, installation: i64, body: Option<Value>) -> (u16, Value) {
    let url = format!(
        "{}/app/installations/{installation}/access_tokens",
        forge.github_api_url()
    );
    call("POST", &url, Some(&good_jwt(forge)), body).await
}

struct Scene {
    forge: FakeForge,
    repository: i64,
    installation: i64,
    sha: String,
}

async fn scene() -> Scene {
    let forge = forge().await;
    let repository = forge.create_repository(Kind::Github, "acme/app", true).await.unwrap();
    let sha = forge
        .push(repository, "main", &[("a", "1", 0o644)], "first")
        .await
        .unwrap();
    let installation = forge.state().repository("acme/app").unwrap().installation.unwrap();
    Scene {
        forge,
        repository,
        installation,
        sha,
    }
}

impl Scene {
    async fn token(&self) -> String {
        let (status, answer) = mint(&self.forge, self.installation, None).await;
        assert_eq!(status, 201, "{answer}");
        format!("Bearer {}", answer["token"].as_str().unwrap())
    }

    fn url(&self, path: &str) -> String {
        format!("{}/repos/acme/app{path}", self.forge.github_api_url())
    }
}

#[tokio::test]
async fn the_apps_word_is_checked() {
    let scene = scene().await;
    let forge = &scene.forge;
    let url = format!("{}/app", forge.github_api_url());
    let (status, app) = call("GET", &url, Some(&good_jwt(forge)), None).await;
    assert_eq!((status, &app["id"]), (200, &json!(forge.app_id())));
    let (iat, exp, iss) = (now() - 60, now() + 540, forge.app_id());
    let cases = [
        (json!({"iat": iat, "exp": now() + 700, "iss": iss}), "RS256"),
        (json!({"iat": iat, "exp": now() - 1, "iss": iss}), "RS256"),
        (json!({"iat": now() + 300, "exp": exp, "iss": iss}), "RS256"),
        (json!({"iat": iat, "exp": exp, "iss": 1}), "RS256"),
        (json!({"iat": iat, "exp": exp}), "RS256"),
        (json!({"exp": exp, "iss": iss}), "RS256"),
        (json!({"iat": iat, "exp": exp, "iss": iss}), "none"),
    ];
    for (claims, algorithm) in cases {
        let bearer = format!("Bearer {}", jwt(forge, &claims, algorithm));
        assert_eq!(
            call("GET", &url, Some(&bearer), None).await.0,
            401,
            "{claims} {algorithm}"
        );
    }
    let mut forged = good_jwt(forge);
    forged.truncate(forged.len() - 8);
    assert_eq!(call("GET", &url, Some(&forged), None).await.0, 401);
    assert_eq!(call("GET", &url, None, None).await.0, 401);
    assert_eq!(forge.violations(), []);
}

#[tokio::test]
async fn tokens_have_what_was_asked_for_and_never_more() {
    let scene = scene().await;
    let forge = &scene.forge;
    let other = forge.create_repository(Kind::Github, "acme/other", true).await.unwrap();
    forge.create_repository(Kind::Github, "foreign/x", true).await.unwrap();
    let (status, answer) = mint(
        forge,
        scene.installation,
        Some(json!({"repository_ids": [scene.repository], "permissions": {"contents": "read"}})),
    )
    .await;
    assert_eq!(status, 201, "{answer}");
    assert_eq!(answer["permissions"], json!({"contents": "read", "metadata": "read"}));
    let token = format!("token {}", answer["token"].as_str().unwrap());
    let get = async |path: &str| call("GET", &format!("{}{path}", forge.github_api_url()), Some(&token), None).await;
    let (status, reference) = get("/repos/acme/app/git/ref/heads/main").await;
    assert_eq!((status, &reference["object"]["sha"]), (200, &json!(scene.sha)));
    assert_eq!(get("/repos/acme/app").await.1["id"], json!(scene.repository));
    assert_eq!(get(&format!("/repositories/{}", scene.repository)).await.0, 200);
    assert_eq!(get("/repos/acme/other").await.0, 404, "not asked for: {other}");
    assert_eq!(get("/repos/foreign/x").await.0, 404);
    let (status, _) = call(
        "POST",
        &scene.url("/check-runs"),
        Some(&token),
        Some(json!({"name": "c", "head_sha": scene.sha})),
    )
    .await;
    assert_eq!(status, 403, "no checks permission");
    assert_eq!(forge.violations(), []);
    for body in [
        json!({"permissions": {"contents": "write"}}),
        json!({"repository_ids": [999_999]}),
        json!({"repositories": ["x"]}),
    ] {
        assert_eq!(
            mint(forge, scene.installation, Some(body.clone())).await.0,
            422,
            "{body}"
        );
    }
    assert_eq!(mint(forge, 1, None).await.0, 404);
    let revoke = format!("{}/installation/token", forge.github_api_url());
    assert_eq!(call("DELETE", &revoke, Some(&token), None).await.0, 204);
    assert_eq!(get("/repos/acme/app").await.0, 401);
}

#[tokio::test]
async fn tokens_expire() {
    let scene = scene().await;
    let token = scene.token().await;
    assert_eq!(call("GET", &scene.url(""), Some(&token), None).await.0, 200);
    scene.forge.expire_installation_tokens();
    assert_eq!(call("GET", &scene.url(""), Some(&token), None).await.0, 401);
    scene.forge.set_token_lifetime(Duration::ZERO);
    let token = scene.token().await;
    assert_eq!(call("GET", &scene.url(""), Some(&token), None).await.0, 401);
}

#[tokio::test]
async fn a_check_goes_from_queued_to_completed() {
    let scene = scene().await;
    let token = scene.token().await;
    let create = json!({
        "name": "helios-ci / build", "head_sha": scene.sha, "external_id": "job-1", "details_url": "https://ci/x",
        "status": "queued", "actions": [{"label": "Cancel", "description": "Stop this job", "identifier": "cancel"}],
    });
    let (status, run) = call("POST", &scene.url("/check-runs"), Some(&token), Some(create)).await;
    assert_eq!((status, &run["status"]), (201, &json!("queued")), "{run}");
    let url = scene.url(&format!("/check-runs/{}", run["id"]));
    let annotation =
        json!({"path": "a", "start_line": 1, "end_line": 1, "annotation_level": "failure", "message": "no"});
    let output = json!({"title": "1 of 2", "summary": "s", "annotations": [annotation]});
    let body = json!({"status": "in_progress", "started_at": "2026-01-01T00:00:00Z", "output": output});
    assert_eq!(call("PATCH", &url, Some(&token), Some(body.clone())).await.0, 200);
    assert_eq!(
        call("PATCH", &url, Some(&token), Some(body)).await.1["output"]["annotations_count"],
        2,
        "they append"
    );
    let (_, done) = call("PATCH", &url, Some(&token), Some(json!({"conclusion": "success"}))).await;
    assert_eq!(
        (&done["status"], &done["conclusion"]),
        (&json!("completed"), &json!("success"))
    );
    assert!(done["completed_at"].is_string());
    let words = scene.forge.state().words(&scene.sha, "helios-ci / build");
    assert_eq!(words, ["queued", "in_progress", "in_progress", "success"]);
    assert_eq!(scene.forge.history(&scene.sha)[0].external_id.as_deref(), Some("job-1"));

    let second = json!({"name": "helios-ci / build", "head_sha": scene.sha});
    call("POST", &scene.url("/check-runs"), Some(&token), Some(second)).await;
    let listing = scene.url(&format!(
        "/commits/{}/check-runs?check_name=helios-ci%20%2F%20build",
        scene.sha
    ));
    let (_, latest) = call("GET", &listing, Some(&token), None).await;
    assert_eq!(
        (&latest["total_count"], &latest["check_runs"][0]["status"]),
        (&json!(1), &json!("queued"))
    );
    let (_, all) = call("GET", &format!("{listing}&filter=all"), Some(&token), None).await;
    assert_eq!(all["total_count"], 2);
    assert_eq!(
        call("GET", &url, Some(&token), None).await.1["name"],
        "helios-ci / build"
    );
    assert_eq!(scene.forge.violations(), []);
}

#[tokio::test]
async fn the_rules_that_only_prose_states_hold() {
    let scene = scene().await;
    let token = scene.token().await;
    let base = json!({"name": "c", "head_sha": scene.sha});
    let with = |extra: Value| {
        let mut body = base.clone();
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        body
    };
    let action = |label: &str| json!({"label": label, "description": "d", "identifier": "i"});
    let cases = [
        json!({"name": "c"}),
        json!({"head_sha": scene.sha}),
        json!({"name": "c", "head_sha": "0123456789012345678901234567890123456789"}),
        with(json!({"status": "running"})),
        with(json!({"status": "completed"})),
        with(json!({"completed_at": "2026-01-01T00:00:00Z"})),
        with(json!({"conclusion": "passed"})),
        with(json!({"conclusion": "stale"})),
        with(json!({"output": {"title": "t"}})),
        with(json!({"output": {"summary": "s"}})),
        // 40 000 characters, but 80 000 bytes.
        with(json!({"output": {"title": "t", "summary": "é".repeat(40_000)}})),
        with(json!({"output": {"title": "t", "summary": "s", "text": "x".repeat(65_536)}})),
        with(json!({"actions": [action("a"), action("b"), action("c"), action("d")]})),
        with(json!({"actions": [action("longer than twenty characters")]})),
        with(json!({"details_url": "ftp://x"})),
    ];
    for body in cases {
        let (status, answer) = call("POST", &scene.url("/check-runs"), Some(&token), Some(body.clone())).await;
        assert_eq!(
            status,
            422,
            "{} {answer}",
            body.to_string().chars().take(200).collect::<String>()
        );
    }
    assert_eq!(scene.forge.history(&scene.sha), []);
    let person = format!("token {}", scene.forge.create_token("alice", true));
    assert_eq!(
        call("POST", &scene.url("/check-runs"), Some(&person), Some(base.clone()))
            .await
            .0,
        403
    );
    let fits = with(json!({"output": {"title": "t", "summary": "x".repeat(65_535)}}));
    assert_eq!(
        call("POST", &scene.url("/check-runs"), Some(&token), Some(fits))
            .await
            .0,
        201
    );
}

#[tokio::test]
async fn violations_of_the_published_description_are_recorded() {
    if crate::prerequisites::needs_conformance("openapi").is_none() {
        return;
    }
    let scene = scene().await;
    let token = scene.token().await;
    let body = json!({"name": "c", "head_sha": scene.sha, "status": "running"});
    assert_eq!(
        call("POST", &scene.url("/check-runs"), Some(&token), Some(body))
            .await
            .0,
        422
    );
    let violations = scene.forge.violations();
    assert_eq!(violations.len(), 1, "{violations:?}");
    assert_eq!(violations[0].operation, "POST /repos/{owner}/{repo}/check-runs");
    assert!(
        violations[0].problem.contains("status") || violations[0].problem.contains("running"),
        "{violations:?}"
    );
}

#[tokio::test]
async fn hooks_carry_the_installation_and_buttons_their_identifier() {
    let scene = scene().await;
    let (url, inbox) = receiver().await;
    scene.forge.add_hook(scene.repository, &url, "hush");
    let sha = scene
        .forge
        .push(scene.repository, "main", &[("a", "2", 0o644)], "second")
        .await
        .unwrap();
    let token = scene.token().await;
    let body = json!({"name": "c", "head_sha": sha});
    let (_, run) = call("POST", &scene.url("/check-runs"), Some(&token), Some(body)).await;
    let id = run["id"].as_i64().unwrap();
    scene.forge.press(id, None).unwrap();
    scene.forge.press(id, Some("cancel")).unwrap();
    let got = delivered(&scene.forge, &inbox, 3).await;
    let (headers, push) = &got[0];
    assert_eq!((&push["after"], &push["created"]), (&json!(sha), &json!(false)));
    assert_eq!(push["installation"]["id"], json!(scene.installation));
    assert_eq!(headers["x-github-event"], "push");
    assert!(headers.get("x-forgejo-event").is_none() && headers.get("x-gitea-event").is_none());
    assert_eq!(got[1].1["action"], "rerequested");
    assert_eq!(got[2].1["requested_action"]["identifier"], "cancel");
    assert_eq!(got[2].1["check_run"]["id"], json!(id));
    let raw = inbox.lock().unwrap().clone();
    assert!(raw.iter().all(|(headers, body)| signed(headers, body, "hush")));
}

#[tokio::test(flavor = "multi_thread")]
async fn git_takes_an_installation_token_and_no_other() {
    let scene = scene().await;
    let dir = tempfile::tempdir().unwrap();
    let clone = scene.forge.clone_url(scene.repository).unwrap();
    let fetch = |token: &str, name: &str| {
        let basic = STANDARD.encode(format!("x-access-token:{token}"));
        std::process::Command::new("git")
            .args([
                "-c",
                &format!("http.extraHeader=Authorization: Basic {basic}"),
                "clone",
                "-q",
                &clone,
                name,
            ])
            .current_dir(dir.path())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("no_proxy", "127.0.0.1")
            .output()
            .unwrap()
            .status
            .success()
    };
    let bearer = scene.token().await;
    assert!(fetch(bearer.strip_prefix("Bearer ").unwrap(), "good"));
    assert!(dir.path().join("good/a").exists());
    assert!(!fetch("ghs_wrong", "bad"));
    let (_, narrow) = mint(
        &scene.forge,
        scene.installation,
        Some(json!({"permissions": {"checks": "write"}})),
    )
    .await;
    assert!(!fetch(narrow["token"].as_str().unwrap(), "narrow"));
}
