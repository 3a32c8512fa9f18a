//! Forges on a bad day, and what strangers write into them.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use helios_fakeforge::Fault;
use serde_json::{Value, json};

use crate::support::{self, Machines, World};

const SMALL: &str = "name: ci\non: push\njobs:\n  job:\n    steps:\n      - run: echo hello\n";

fn id(value: &Value) -> &str {
    value["id"].as_str().expect("an id")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forge_that_hangs_delays_nobody_else_and_hears_the_end() {
    let world = World::start(Machines::Process).await;
    // Every status call of the one forge hangs until the other has been told, however often it is called.
    let calls = "POST /api/v1/repos/ada/engine/statuses/";
    world.forge.fail_all(calls, Fault::Hang(support::deadline::GUEST));
    let slow = world.push(SMALL).await;
    world.wait_job(&slow, "job", "success");
    let quick = world.push_to(world.github, ".github/workflows/ci.yml", SMALL).await;
    world.wait(&quick, "success").await;
    assert!(
        world
            .forge
            .state()
            .latest(&slow, "helios-ci")
            .is_none_or(|r| r.word() != "success"),
        "the hanging forge was not hanging"
    );
    world.forge.end_hangs();
    world.wait(&slow, "success").await;
    world.wait_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_limits_and_lost_answers_of_either_forge_end_in_the_newest_state() {
    let world = World::start(Machines::Process).await;
    for (repository, path, calls) in [
        (world.repository, ".forgejo/workflows/ci.yml", "/statuses/"),
        (world.github, ".github/workflows/ci.yml", "/check-runs"),
    ] {
        for fault in [
            Fault::Status(500),
            Fault::RateLimited { retry_after_s: 1 },
            Fault::AcceptThenCut,
            Fault::Status(502),
        ] {
            world.forge.fail_next(calls, fault);
        }
        let sha = world.push_to(repository, path, SMALL).await;
        world.wait(&sha, "success").await;
        world.until("the job's own check", || {
            (world.forge.state().latest(&sha, "helios-ci / ci / job")?.word() == "success").then_some(())
        });
        assert_eq!(world.jobs(&sha).len(), 1);
    }
    assert_eq!(world.forge.violations(), []);
}

/// Many callers that send a byte now and then hold nothing that others need.
/// A job that fails on a branch and succeeds on a tag, and one that needs it.
const ON_A_TAG: &str = r#"name: ci
on: push
jobs:
  job:
    steps:
      - uses: actions/checkout@v4
        with: {fetch-depth: 0}
      - run: git describe --tags --exact-match && test "$GITHUB_REF_TYPE" = tag
  behind:
    needs: job
    steps:
      - run: echo at last
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_tags_green_job_does_not_hide_the_branchs_red_one_on_either_forge() {
    let world = World::start(Machines::Process).await;
    for (repository, path, skipped) in [
        (world.repository, ".forgejo/workflows/ci.yml", "failure"),
        (world.github, ".github/workflows/ci.yml", "cancelled"),
    ] {
        let sha = world.push_to(repository, path, ON_A_TAG).await;
        world.wait(&sha, "failure").await;
        let red = world.wait_job(&sha, "job", "failure");
        let tag = world.forge.update_ref(repository, "refs/tags/v1", Some(&sha));
        tag.await.expect("a tag");
        world.until("the tag's run", || {
            let runs = world.get("/api/v1/runs?limit=100");
            let of_tag = |run: &&Value| run["commit"] == sha.as_str() && run["ref"] == "refs/tags/v1";
            let found = runs["runs"].as_array()?.iter().find(of_tag)?.clone();
            (found["state"] == "success").then_some(())
        });
        // What is told of a later commit is told after all of this.
        let later = world.push_to(repository, path, SMALL).await;
        world.wait(&later, "success").await;
        for (check, word) in [("job", "failure"), ("behind", skipped)] {
            let check = format!("helios-ci / ci / {check}");
            let words = world.words(&sha, &check);
            assert_eq!(words.last().map(String::as_str), Some(word), "{check}: {words:?}");
            assert!(!words.contains(&"success".to_owned()), "{check}: {words:?}");
        }
        let state = world.forge.state();
        let told = state.latest(&sha, "helios-ci / ci / job").expect("a check");
        assert!(told.description.contains("push, branch main: "), "{}", told.description);
        let link = told.target_url.clone().unwrap_or_default();
        assert!(link.ends_with(&format!("/jobs/{}", id(&red))), "{link}");
        let word = state.latest(&sha, "helios-ci").map(|told| told.word().to_owned());
        assert_eq!(word.as_deref(), Some("failure"));
    }
    world.wait_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_callers_keep_nobody_out() {
    let world = World::start(Machines::Process).await;
    let address = world.url().trim_start_matches("http://").to_owned();
    let mut slow: Vec<TcpStream> = (0..200)
        .map(|number| {
            let mut stream = TcpStream::connect(&address).unwrap();
            let head = if number % 2 == 0 {
                "POST /hooks/local HTTP/1.1\r\nHost: x\r\nX-Forgejo-Sig".to_owned()
            } else {
                format!(
                    "POST /hooks/local HTTP/1.1\r\nHost: x\r\nX-Forgejo-Event: push\r\nX-Forgejo-Signature: {}\r\nContent-Length: 5000\r\n\r\n{{",
                    "0".repeat(64)
                )
            };
            stream.write_all(head.as_bytes()).unwrap();
            stream
        })
        .collect();
    let sha = world.push(SMALL).await;
    for stream in &mut slow {
        let _closed_perhaps = stream.write_all(b" ");
    }
    world.wait(&sha, "success").await;
    // All of them are sent away in the end.
    for mut stream in slow {
        stream.set_read_timeout(Some(support::deadline::GUEST)).unwrap();
        let mut answer = Vec::new();
        let _reset = stream.read_to_end(&mut answer);
        assert!(
            !answer.starts_with(b"HTTP/1.1 2"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
}

/// A delivery that was late brings back nothing: the ref is read again.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_push_after_a_newer_one_runs_its_own_commit_and_changes_no_other() {
    let world = World::start(Machines::Process).await;
    world.forge.hold_deliveries(true);
    let old = world.push(SMALL).await;
    let new = world.push(SMALL).await;
    let gone = {
        world
            .forge
            .update_ref(world.repository, "refs/heads/gone", Some(&old))
            .await
            .unwrap();
        world
            .forge
            .update_ref(world.repository, "refs/heads/gone", None)
            .await
            .unwrap();
        "refs/heads/gone"
    };
    world.forge.hold_deliveries(false);
    let mut ids: Vec<String> = world.forge.state().deliveries().iter().map(|d| d.id.clone()).collect();
    ids.reverse();
    for id in &ids {
        world.forge.release(id).await.unwrap();
    }
    world.wait(&new, "success").await;
    world.wait(&old, "success").await;
    let runs = world.get("/api/v1/runs?limit=100");
    let runs = runs["runs"].as_array().unwrap();
    assert_eq!(runs.iter().filter(|r| r["commit"] == *new).count(), 1, "{runs:#?}");
    assert!(runs.iter().all(|r| r["ref"] != gone), "{runs:#?}");
}

/// Titles, names and labels are foreign text wherever they are shown.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_words_are_only_words() {
    let world = World::start(Machines::Process).await;
    let evil = "<img src=x onerror=alert(1)>'\\\"";
    let workflow = format!(
        "name: \"{evil}\"\non: push\njobs:\n  job:\n    name: \"</title><script>alert(2)</script> {evil}\"\n    steps:\n      - name: \"</details><script>alert(3)</script>\"\n        run: echo \"::error::<script>alert(4)</script>\"\n"
    );
    let title = "<script>alert(5)</script> \u{1b}[31mred\u{7} \u{202e}backwards\n\nbody";
    let files = [(".forgejo/workflows/ci.yml", workflow, 0o644)];
    let sha = world.forge.push(world.repository, "main", &files, title).await.unwrap();
    world.wait(&sha, "success").await;
    let job = world.jobs(&sha).pop().unwrap();
    let run = world.get(&format!("/api/v1/jobs/{}", id(&job)))["run"]
        .as_str()
        .unwrap()
        .to_owned();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for path in ["/".to_owned(), format!("/runs/{run}"), format!("/jobs/{}", id(&job))] {
        let answer = client.get(format!("{}{path}", world.url())).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        let page = answer.text().await.unwrap();
        for markup in ["<script>alert", "<img src=x", "\u{1b}", "\u{7}"] {
            assert!(!page.contains(markup), "{path} holds {markup:?}");
        }
        let shown = page.contains("&lt;script&gt;alert(") || page.contains("&#60;script&#62;alert(");
        assert!(
            shown,
            "{path}:
{page}"
        );
    }
    for args in [
        vec!["runs"],
        vec!["show", &run],
        vec!["show", id(&job)],
        vec!["why", id(&job)],
    ] {
        let output = world.cli(&args);
        assert!(
            !output.stdout.contains(&0x1b) && !output.stdout.contains(&7),
            "{args:?}"
        );
    }
    // What the forge was told keeps to its rules.
    assert_eq!(world.forge.violations(), []);
    for status in world.forge.history(&sha) {
        assert!(!status.description.contains(|c: char| c.is_control()), "{status:?}");
    }
}

/// The end of a wide run is seen by whichever of its jobs ends last.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_end_at_once_end_their_run_once() {
    let world = World::with(Machines::Process, "capacity: {machines: 20}\n").await;
    let gate = world.dir.path().join("gate");
    let mut workflow = "name: ci\non: push\njobs:\n".to_owned();
    let names: Vec<String> = (0..12).map(|number| format!("job{number}")).collect();
    for name in &names {
        workflow += &format!(
            "  {name}:\n    steps:\n      - run: until [ -e {} ]; do sleep 0.02; done\n",
            gate.display()
        );
    }
    workflow += &format!(
        "  last:\n    needs: {}\n    steps:\n      - run: echo all\n",
        json!(names)
    );
    for _ in 0..3 {
        let _absent = std::fs::remove_file(&gate);
        let sha = world.push(&workflow).await;
        world.until("all jobs run", || {
            let active = world.jobs(&sha).iter().filter(|job| job["state"] == "active").count();
            (active == names.len()).then_some(())
        });
        std::fs::write(&gate, "").unwrap();
        world.wait(&sha, "success").await;
        let jobs = world.jobs(&sha);
        assert_eq!(jobs.iter().filter(|job| job["key"] == "last").count(), 1, "{jobs:#?}");
        let last = world.wait_job(&sha, "last", "success");
        assert_eq!(world.log(id(&last)).matches("all\n").count(), 1);
        assert_eq!(
            world
                .forge
                .history(&sha)
                .iter()
                .filter(|r| r.context == "helios-ci" && r.word() == "success")
                .count(),
            1
        );
    }
}
