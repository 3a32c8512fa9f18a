//! Defects of the projects that helios-ci comes from, each as a test that bears its number: what went
//! wrong there must not go wrong here. Those that other tests hold are named in [`ELSEWHERE`].

use std::{fs, path::Path, time::Instant};

use serde_json::{Value, json};

use crate::support::{self, Machines, World, deadline};

/// Lessons that a test elsewhere holds.
const ELSEWHERE: &[(&str, &str)] = &[
    ("J5", "cancelling_races_with_claims_and_nothing_is_lost"),
    ("J5", "deliveries_are_claimed_in_order_and_each_by_one"),
    ("J7", "a_forge_that_fails_hears_it_later_and_the_job_does_not_mind"),
    ("J11", "a_deleted_branch_runs_nothing_and_a_tag_runs"),
    ("J12", "leftovers_and_look_alikes"),
    ("P10", "the_daemon_may_die_at_every_fail_point"),
    ("P17", "a_cancelled_run_stops_in_order_and_the_forge_hears_it"),
    ("S1", "modules_depend_downwards"),
    ("S6", "a_full_class_does_not_block_another"),
    ("S8", "wrong_truncated_and_foreign_files_leave_nothing"),
    (
        "S8",
        "an_import_that_was_killed_leaves_nothing_that_is_trusted_and_does_not_stop_the_next",
    ),
    ("T2", "a_committed_result_wins"),
];

fn id(value: &Value) -> &str {
    value["id"].as_str().expect("an id")
}

fn one_step(script: &str) -> String {
    let lines = script.replace('\n', "\n          ");
    format!("name: ci\non: push\njobs:\n  job:\n    steps:\n      - run: |\n          {lines}\n")
}

/// The log of the commit's only job, once it ended so.
fn ended(world: &World, sha: &str, state: &str) -> String {
    let job = world.wait_job(sha, "job", state);
    world.log(id(&job))
}

#[test]
fn lessons_held_elsewhere_are_held() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = String::new();
    let mut folders = vec![root.join("src"), root.join("tests")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else {
                sources += &fs::read_to_string(entry.path()).unwrap_or_default();
            }
        }
    }
    for (lesson, test) in ELSEWHERE {
        assert!(
            sources.contains(&format!("fn {test}(")),
            "lesson {lesson}: no test {test}"
        );
    }
}

/// J3: a shallow clone of the tip cannot check out an older commit.
#[tokio::test(flavor = "multi_thread")]
async fn q_j3_an_older_commit_is_checked_out_exactly() {
    let world = World::start(Machines::Process).await;
    let workflow = "name: ci\non: push\njobs:\n  job:\n    steps:\n      - uses: actions/checkout@v4\n      \
                    - run: test \"$(git rev-parse HEAD)\" = \"$GITHUB_SHA\" && cat README\n";
    let old = world.push(workflow).await;
    let first = ended(&world, &old, "success");
    let new = world.push(workflow).await;
    ended(&world, &new, "success");
    // Forced back to where it was, and a tag on it: both run the older commit.
    let refs = [("refs/heads/main", 3), ("refs/tags/v1", 4)];
    for (name, count) in refs {
        world
            .forge
            .update_ref(world.repository, name, Some(&old))
            .await
            .unwrap();
        let runs = world.until("the run of the older commit", || {
            let runs = world.get("/api/v1/runs?limit=100")["runs"].as_array()?.clone();
            (runs.len() == count && runs.iter().all(|run| run["state"] == "success")).then_some(runs)
        });
        let again = world.get(&format!("/api/v1/runs/{}", id(&runs[0])));
        let job = id(&again["attempts"][0]["jobs"][0]).to_owned();
        let readme = |log: &str| log.lines().find(|l| l.contains("pushed at")).map(str::to_owned);
        assert!(readme(&first).is_some());
        assert_eq!(readme(&world.log(&job)), readme(&first), "{name}");
    }
}

/// J4: a failed checkout was masked by a shell's precedence, and the same commit elsewhere was dropped.
#[tokio::test(flavor = "multi_thread")]
async fn q_j4_a_failed_checkout_fails_the_job_and_a_fork_runs_too() {
    let world = World::start(Machines::Process).await;
    let workflow = "name: ci\non: push\njobs:\n  job:\n    steps:\n      - run: cd / && rm -rf \"$GITHUB_WORKSPACE\" && touch \"$GITHUB_WORKSPACE\"\n      \
                    - uses: actions/checkout@v4\n      - run: echo after a failed checkout\n";
    let sha = world.push(workflow).await;
    let log = ended(&world, &sha, "failure");
    assert!(!log.contains("after a failed checkout\n"), "{log}");

    // The same commit in two repositories is two runs.
    let files = [(".github/workflows/ci.yml", one_step("echo here"), 0o644)];
    let sha = world.forge.push(world.github, "main", &files, "x").await.unwrap();
    ended(&world, &sha, "success");
    let copy = world.forge.fork(world.github, "eve/engine").await.unwrap();
    let secret = fs::read_to_string(world.dir.path().join("hook")).unwrap();
    world
        .forge
        .add_hook(copy, &format!("{}/hooks/octo", world.url()), secret.trim());
    world
        .forge
        .update_ref(copy, "refs/heads/again", Some(&sha))
        .await
        .unwrap();
    world.until("two runs of one commit", || {
        let runs = world.get("/api/v1/runs?limit=100");
        let of = runs["runs"].as_array()?.iter().filter(|run| run["commit"] == *sha);
        (of.filter(|run| run["state"] == "success").count() == 2).then_some(())
    });
}

/// J8, S2, S7, S15, S16: a machine that cannot start was a success, a leak, or silence.
#[tokio::test(flavor = "multi_thread")]
async fn q_j8_a_machine_that_cannot_start_ends_the_job_in_words_and_leaves_nothing() {
    let mut world = World::stopped(Machines::Process, "limits: {infra_tries: 2}\n").await;
    let text = fs::read_to_string(world.config()).unwrap();
    let agent = support::agent().display().to_string();
    fs::write(
        world.config(),
        text.replace(&format!("agent: {agent}"), "agent: /nonexistent/agent"),
    )
    .unwrap();
    world.up();
    let sha = world.push(&one_step("echo never")).await;
    let job = world.wait_job(&sha, "job", "error");
    let detail = world.get(&format!("/api/v1/jobs/{}", id(&job)));
    let attempts = detail["attempts"].as_array().unwrap();
    assert!(!attempts.is_empty() && attempts.len() <= 2, "{detail:#}");
    for attempt in attempts {
        assert!(
            attempt["cause"].as_str().unwrap_or_default().contains("agent"),
            "{detail:#}"
        );
    }
    world.until("the forge hears it", || {
        let state = world.forge.state();
        matches!(state.latest(&sha, "helios-ci")?.word(), "error" | "failure").then_some(())
    });
    world.wait_clean();
}

/// J7 had no link; J10: a re-run read the result of the run before.
#[tokio::test(flavor = "multi_thread")]
async fn q_j10_a_rerun_begins_anew_and_every_status_has_a_link() {
    let world = World::start(Machines::Process).await;
    let gate = world.dir.path().join("gate");
    fs::write(&gate, "").unwrap();
    let sha = world
        .push(&one_step(&format!(
            "until [ -e {} ]; do sleep 0.05; done\nexit 4",
            gate.display()
        )))
        .await;
    let job = world.wait_job(&sha, "job", "failure");
    world.wait(&sha, "failure").await;
    fs::remove_file(&gate).unwrap();
    let run = world.get(&format!("/api/v1/jobs/{}", id(&job)))["run"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(world.cli(&["rerun", &run]).status.success());
    world.wait_job(&sha, "job", "active");
    world.wait(&sha, "pending").await;
    fs::write(&gate, "").unwrap();
    world.wait_job(&sha, "job", "failure");
    world.wait(&sha, "failure").await;
    for status in world.forge.history(&sha) {
        let link = status.target_url.clone().unwrap_or_default();
        assert!(link.starts_with(&world.url()), "{status:?}");
    }
}

/// J13: a job held a credential that could push. P6: a job saw the host's environment.
/// P9: a step that a signal ended counted as a success.
#[tokio::test(flavor = "multi_thread")]
async fn q_j13_a_job_can_read_its_source_and_nothing_more() {
    let mut world = World::stopped(Machines::Process, "").await;
    world.up_with(&[("SECRET_OF_THE_HOST", "tell-nobody")]);
    let workflow = "name: ci\non: push\njobs:\n  job:\n    steps:\n      - uses: actions/checkout@v4\n      - run: |\n          \
                    env\n          git push origin HEAD:refs/heads/evil && echo pushed\n          kill -9 $$\n          echo survived\n";
    let sha = world.push(workflow).await;
    let log = ended(&world, &sha, "failure");
    for never in [
        "SECRET_OF_THE_HOST",
        "tell-nobody",
        "\npushed\n",
        "\nsurvived\n",
        world.token(),
    ] {
        assert!(!log.contains(never), "{never:?} in\n{log}");
    }
    let repository = world.forge.repository_dir(world.repository).unwrap();
    let refs = fs::read_to_string(repository.join("packed-refs")).unwrap_or_default();
    assert!(!repository.join("refs/heads/evil").exists() && !refs.contains("evil"));
    // S10: no secret is written where people look.
    let said = world.daemon_log();
    for file in ["hook", "forgejo-token", "app.pem"] {
        let secret = fs::read_to_string(world.dir.path().join(file)).unwrap();
        let line = secret.lines().max_by_key(|line| line.len()).unwrap();
        assert!(!said.contains(line) && !log.contains(line), "{file}");
    }
}

/// J17: ids were a second and 16 bits. P3: workspaces were never deleted.
#[tokio::test(flavor = "multi_thread")]
async fn q_j17_ids_are_unique_and_workspaces_go() {
    let world = World::start(Machines::Process).await;
    let sha = world
        .push(&one_step("pwd > /dev/null; echo \"at $GITHUB_WORKSPACE\""))
        .await;
    let log = ended(&world, &sha, "success");
    let workspace = log.lines().find_map(|l| l.split("at /").nth(1)).expect("a workspace");
    world.wait_clean();
    assert!(!Path::new(&format!("/{}", workspace.trim())).exists(), "{workspace}");
    let job = world.wait_job(&sha, "job", "success");
    let run = world.get(&format!("/api/v1/jobs/{}", id(&job)))["run"]
        .as_str()
        .unwrap()
        .to_owned();
    for text in [id(&job), &run] {
        assert!(
            text.len() == 26 && text.bytes().all(|b| b.is_ascii_alphanumeric()),
            "{text}"
        );
    }
}

/// P5, S14: a documented zero crashed; options without effect were ignored. S4: no secret meant that
/// anything was accepted.
#[tokio::test(flavor = "multi_thread")]
async fn q_p5_every_option_works_or_is_refused() {
    let world = World::stopped(Machines::Process, "").await;
    let good = fs::read_to_string(world.config()).unwrap();
    let check = |text: &str| {
        fs::write(world.config(), text).unwrap();
        let output = world.cli(&["config", "check"]);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), words)
    };
    assert_eq!(check(&good).0, Some(0));
    for (bad, names) in [
        (format!("{good}capacity: {{machines: 0}}\n"), "capacity.machines"),
        (format!("{good}capacity: {{machines: many}}\n"), "capacity.machines"),
        (format!("{good}capacity: {{labels: {{tini: 1}}}}\n"), "tini"),
        (format!("{good}grpc_addr: 0.0.0.0:50051\n"), "grpc_addr"),
        (good.replace("webhook_secrets", "webhook_secret"), "webhook_secret"),
        (
            good.replace(
                &format!("webhook_secrets: [file:{}/hook]", world.dir.path().display()),
                "webhook_secrets: []",
            ),
            "webhook_secrets",
        ),
    ] {
        let (code, words) = check(&bad);
        assert_eq!(code, Some(2), "{names}: {words}");
        assert!(words.contains(names), "{names}: {words}");
    }
}

/// P8: `--wait` said 0 for a failed job.
#[tokio::test(flavor = "multi_thread")]
async fn q_p8_waiting_ends_with_the_result() {
    let world = World::start(Machines::Process).await;
    let wait = || {
        let waited = world.cli(&[
            "trigger",
            "local",
            "ada/engine",
            "main",
            "--event",
            "workflow_dispatch",
            "--wait",
        ]);
        let said = String::from_utf8_lossy(&waited.stdout).into_owned();
        (waited.status.code(), said)
    };
    for (script, code, state) in [("exit 0", 0, "success"), ("exit 7", 1, "failure")] {
        let workflow = one_step(script).replace("on: push", "on: [push, workflow_dispatch]");
        let sha = world.push(&workflow).await;
        let job = world.wait_job(&sha, "job", state);
        let (waited, said) = wait();
        assert_eq!(waited, Some(code), "{said}");
        assert_eq!(world.cli(&["logs", "-f", id(&job)]).status.code(), Some(code));
    }
    // Nothing listens, so nothing succeeded.
    let sha = world.push(&one_step("exit 0")).await;
    world.wait(&sha, "success").await;
    let (waited, said) = wait();
    assert_eq!(waited, Some(1), "{said}");
    assert!(said.contains("workflow_dispatch"), "{said}");
}

/// P12: what a command wrote just before it died was lost.
#[tokio::test(flavor = "multi_thread")]
async fn q_p12_the_last_words_of_a_dying_command_are_kept() {
    let world = World::start(Machines::Process).await;
    let sha = world.push(&one_step("seq 1 200000\nkill -9 $$")).await;
    let log = ended(&world, &sha, "failure");
    let numbers = log.lines().filter_map(|l| l.parse::<u32>().ok());
    assert!(numbers.eq(1..=200_000), "a gap");
}

/// P13: terminal output became markup.
#[tokio::test(flavor = "multi_thread")]
async fn q_p13_output_is_never_markup() {
    let world = World::start(Machines::Process).await;
    let sha = world
        .push(&one_step(
            "printf '<script>alert(1)</script>\\033[31m<img src=x onerror=y>\\033[0m\\n'",
        ))
        .await;
    let job = world.wait_job(&sha, "job", "success");
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let page = client
        .get(format!("{}/jobs/{}", world.url(), id(&job)))
        .send()
        .await
        .unwrap();
    assert_eq!(page.status(), 200);
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.contains("default-src 'none'"), "{policy}");
    let page = page.text().await.unwrap();
    assert!(page.contains("&lt;script&gt;alert(1)"), "{page}");
    assert!(
        !page.contains("<script>alert") && !page.contains("<img src=x"),
        "{page}"
    );
    let plain = world.log(id(&job));
    assert!(plain.contains("<script>alert(1)</script>"), "{plain}");
}

/// S5: the daemon never ended after SIGTERM while a job ran.
#[tokio::test(flavor = "multi_thread")]
async fn q_s5_a_stop_ends_in_time_while_a_job_runs() {
    let mut world = World::start(Machines::Process).await;
    let gate = world.dir.path().join("gate");
    let sha = world
        .push(&one_step(&format!(
            "until [ -e {} ]; do sleep 0.05; done",
            gate.display()
        )))
        .await;
    world.wait_job(&sha, "job", "active");
    let started = Instant::now();
    assert_eq!(world.down(), Some(0));
    assert!(started.elapsed() < deadline::GUEST);
    fs::write(gate, "").unwrap();
    world.up();
    ended(&world, &sha, "success");
}

/// S12: whatever address a webhook named was cloned.
#[tokio::test(flavor = "multi_thread")]
async fn q_s12_addresses_in_a_webhook_are_not_followed() {
    let world = World::start(Machines::Process).await;
    let sha = world.push(&one_step("echo mine")).await;
    ended(&world, &sha, "success");
    let trap = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    trap.set_nonblocking(true).unwrap();
    let evil = format!("http://{}/evil.git", trap.local_addr().unwrap());
    let repository = json!({
        "id": world.repository, "full_name": "ada/engine", "name": "engine", "owner": {"login": "ada"},
        "clone_url": evil, "html_url": evil, "ssh_url": evil, "url": evil, "git_url": evil,
    });
    let body = json!({"ref": "refs/heads/main", "before": "0".repeat(40), "after": sha, "repository": repository, "compare_url": evil});
    world.forge.deliver_event(world.repository, "push", body).unwrap();
    world.until("its run", || {
        let runs = world.get("/api/v1/runs?limit=100")["runs"].as_array()?.clone();
        (runs.len() == 2 && runs.iter().all(|run| run["state"] == "success")).then_some(())
    });
    assert_eq!(
        trap.accept().unwrap_err().kind(),
        std::io::ErrorKind::WouldBlock,
        "somebody called"
    );
}

/// T1, M: anybody could cancel anything.
#[tokio::test(flavor = "multi_thread")]
async fn q_t1_nothing_is_done_for_strangers() {
    let world = World::start(Machines::Process).await;
    let sha = world.push(&one_step("echo mine")).await;
    ended(&world, &sha, "success");
    let job = world.wait_job(&sha, "job", "success");
    let run = world.get(&format!("/api/v1/jobs/{}", id(&job)))["run"]
        .as_str()
        .unwrap()
        .to_owned();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let builds = format!("{}/api/v1/builds", world.url());
    for (path, token) in [
        (builds.clone(), None),
        (builds.clone(), Some("hci_guessed")),
        (format!("{builds}/{run}/cancel"), None),
        (format!("{builds}/{run}/rerun"), None),
    ] {
        let mut request = client.post(&path).header("content-type", "application/json").body("{}");
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let status = request.send().await.unwrap().status().as_u16();
        assert!(matches!(status, 401 | 403 | 404), "{path}: {status}");
    }
    assert_eq!(world.jobs(&sha).len(), 1);
}

/// T3: five malformed events stopped everything. T4: a backlog stalled after a hundred.
#[tokio::test(flavor = "multi_thread")]
async fn q_t3_poison_and_a_backlog_delay_nobody() {
    let world = World::start(Machines::Process).await;
    let only_main = one_step("echo fine").replace("on: push", "on:\n  push:\n    branches: [main]");
    let sha = world.push(&only_main).await;
    ended(&world, &sha, "success");
    for body in [
        json!({"ref": null, "after": 3, "repository": {"id": "x"}}),
        json!({"ref": "refs/heads/main", "after": "zz"}),
        json!({"ref": ["a"], "commits": {"a": []}}),
        json!({"ref": "refs/heads/".to_owned() + &"x".repeat(3000), "after": "a".repeat(40)}),
        json!({"ref": "refs/heads/main", "after": "a".repeat(40), "before": "b".repeat(40)}),
    ] {
        world.forge.deliver_event(world.repository, "push", body).unwrap();
    }
    // All at once, as after an outage of the forge's queue.
    world.forge.hold_deliveries(true);
    for number in 0..130 {
        let name = format!("refs/tags/t{number}");
        world
            .forge
            .update_ref(world.repository, &name, Some(&sha))
            .await
            .unwrap();
    }
    let next = world.push(&only_main).await;
    world.forge.hold_deliveries(false);
    let held: Vec<String> = {
        let state = world.forge.state();
        let held = state.deliveries().iter().filter(|delivery| delivery.tries.is_empty());
        held.map(|delivery| delivery.id.clone()).collect()
    };
    assert!(held.len() > 130, "{}", held.len());
    futures::future::join_all(held.iter().map(|id| world.forge.release(id))).await;
    world.wait(&next, "success").await;
    assert_eq!(world.jobs(&next).len(), 1);
}

/// T7: a workflow that failed cancelled its neighbours.
#[tokio::test(flavor = "multi_thread")]
async fn q_t7_workflows_do_not_share_their_fate() {
    let world = World::start(Machines::Process).await;
    let gate = world.dir.path().join("gate");
    let good =
        one_step(&format!("until [ -e {} ]; do sleep 0.05; done", gate.display())).replace("name: ci", "name: good");
    let bad = one_step("exit 1").replace("name: ci", "name: bad");
    let files = [
        (".forgejo/workflows/bad.yml", bad, 0o644),
        (".forgejo/workflows/good.yml", good, 0o644),
        (".forgejo/workflows/ugly.yml", "on: push\njobs: 3\n".to_owned(), 0o644),
    ];
    let sha = world
        .forge
        .push(world.repository, "main", &files, "three")
        .await
        .unwrap();
    let context = |name: &str| format!("helios-ci / {name} / job");
    world.until("the failure", || {
        (world.forge.state().latest(&sha, &context("bad"))?.word() == "failure").then_some(())
    });
    fs::write(&gate, "").unwrap();
    world.until("the success", || {
        (world.forge.state().latest(&sha, &context("good"))?.word() == "success").then_some(())
    });
    // The unusable file is an error of its own, and the worst counts.
    world.wait(&sha, "error").await;
}
