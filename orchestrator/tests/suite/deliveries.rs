//! What comes in at the door: only what is signed, each push once, and hostile names harm nobody.

use helios_fakeforge::Fault;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;

use crate::support::{Machines, World};

const SMALL: &str = "name: ci\non: push\njobs:\n  job:\n    steps:\n      - run: echo hello\n";

fn runs(world: &World) -> usize {
    world.get("/api/v1/runs?limit=100")["runs"]
        .as_array()
        .map_or(0, Vec::len)
}

/// A push body of the Forgejo repository.
fn body(world: &World, reference: &str, after: &str) -> Vec<u8> {
    let zero = "0".repeat(40);
    serde_json::json!({
        "ref": reference, "before": zero, "after": after,
        "repository": {"id": world.repository, "full_name": "ada/engine", "name": "engine", "owner": {"login": "ada"}},
        "pusher": {"login": "ada"}, "sender": {"login": "ada"}, "commits": [], "head_commit": null,
    })
    .to_string()
    .into_bytes()
}

fn sign(world: &World, body: &[u8]) -> String {
    let secret = std::fs::read(world.dir.path().join("hook")).expect("the secret");
    let mut mac = Hmac::<Sha256>::new_from_slice(&secret).expect("any length");
    mac.update(body);
    hex::encode(mac.finalize().into_bytes())
}

async fn post(world: &World, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> u16 {
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let mut request = client.post(format!("{}{path}", world.url())).body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.expect("an answer").status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_signed_deliveries_get_in() {
    let world = World::start(Machines::Process).await;
    let body = body(&world, "refs/heads/main", &"a".repeat(40));
    let good = sign(&world, &body);
    let event = ("x-forgejo-event", "push");
    let sha1 = format!("sha1={}", "0".repeat(40));
    let wrong = "0".repeat(64);
    type Headers<'a> = &'a [(&'a str, &'a str)];
    let cases: &[(&str, Headers<'_>, u16)] = &[
        ("/hooks/local", &[event], 401),
        ("/hooks/local", &[event, ("x-forgejo-signature", "")], 401),
        ("/hooks/local", &[event, ("x-forgejo-signature", &wrong)], 401),
        ("/hooks/local", &[event, ("x-hub-signature", &sha1)], 401),
        ("/hooks/nobody", &[event, ("x-forgejo-signature", &good)], 404),
        ("/hooks/..%2Flocal", &[event, ("x-forgejo-signature", &good)], 404),
    ];
    for (path, headers, status) in cases {
        assert_eq!(
            post(&world, path, headers, body.clone()).await,
            *status,
            "{path} {headers:?}"
        );
    }
    let large = vec![b' '; 26 << 20];
    let signature = sign(&world, &large);
    assert_eq!(
        post(
            &world,
            "/hooks/local",
            &[event, ("x-forgejo-signature", &signature)],
            large
        )
        .await,
        413
    );
    assert_eq!(runs(&world), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_delivery_any_number_of_times_is_one_run() {
    let world = World::start(Machines::Process).await;
    let sha = world.push(SMALL).await;
    world.wait(&sha, "success").await;
    let before = runs(&world);
    // Before another push of the branch, after which the same body could mean that it was pushed back.
    let id = world.forge.state().deliveries().first().expect("a delivery").id.clone();
    world.forge.redeliver(&id).await.expect("a redelivery");
    let body = body(&world, "refs/heads/main", &sha);
    let signature = sign(&world, &body);
    let headers = [
        ("x-forgejo-event", "push"),
        ("x-forgejo-signature", signature.as_str()),
        ("x-forgejo-delivery", "one-and-the-same"),
    ];
    let answers =
        futures::future::join_all((0..10).map(|_| post(&world, "/hooks/local", &headers, body.clone()))).await;
    assert_eq!(
        answers.iter().filter(|status| **status == 202).count(),
        1,
        "{answers:?}"
    );
    assert!(answers.iter().all(|status| matches!(status, 200 | 202)), "{answers:?}");
    // This delivery is another than the one of the push itself, so it makes a run of its own: one.
    world.until("the one run", || (runs(&world) == before + 1).then_some(()));
    let next = world.push(SMALL).await;
    world.wait(&next, "success").await;
    assert_eq!(runs(&world), before + 2, "the redelivery made none");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_branch_runs_nothing_and_a_tag_runs() {
    let world = World::start(Machines::Process).await;
    let sha = world.push(SMALL).await;
    world.wait(&sha, "success").await;
    world
        .forge
        .update_ref(world.repository, "refs/tags/v1", Some(&sha))
        .await
        .expect("a tag");
    world.until("the tag's run", || (runs(&world) == 2).then_some(()));
    world
        .forge
        .update_ref(world.repository, "refs/heads/gone", Some(&sha))
        .await
        .expect("a branch");
    world.until("the branch's run", || (runs(&world) == 3).then_some(()));
    world
        .forge
        .update_ref(world.repository, "refs/heads/gone", None)
        .await
        .expect("no branch");
    let next = world.push(SMALL).await;
    world.wait(&next, "success").await;
    assert_eq!(runs(&world), 4, "the deletion ran nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_workflow_is_a_failed_status_with_its_line() {
    let world = World::start(Machines::Process).await;
    let broken = "name: ci\non: push\njobs:\n  job:\n    runs-on: windows-11\n    stepz: []\n    steps:\n      - uses: actions/setup-node@v4\n";
    let sha = world.push(broken).await;
    world.until("a final word", || {
        let word = world.forge.state().latest(&sha, "helios-ci")?.word().to_owned();
        matches!(word.as_str(), "failure" | "error").then_some(())
    });
    let runs = world.get("/api/v1/runs?limit=10");
    let run = world.get(&format!(
        "/api/v1/runs/{}",
        runs["runs"][0]["id"].as_str().expect("a run")
    ));
    let text = run["diagnostics"].to_string();
    assert!(
        text.contains("stepz") && text.contains("steps"),
        "names the key and the nearest: {text}"
    );
    assert_eq!(run["diagnostics"][0]["line"], 6, "{text}");
    assert!(text.contains("setup-node"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_branch_names_harm_nobody() {
    let world = World::start(Machines::Process).await;
    let sha = world.push(SMALL).await;
    world.wait(&sha, "success").await;
    for (name, runs_it) in [
        ("refs/heads/--upload-pack=touch${IFS}PWNED;", false),
        ("refs/heads/$(id)", true),
        ("refs/heads/<img>", true),
    ] {
        let before = runs(&world);
        world
            .forge
            .update_ref(world.repository, name, Some(&sha))
            .await
            .expect("git takes the name");
        if runs_it {
            world.until(&format!("a run of {name}"), || (runs(&world) > before).then_some(()));
        }
    }
    let next = world.push(SMALL).await;
    world.wait(&next, "success").await;
    let page = reqwest::Client::builder()
        .no_proxy()
        .build()
        .expect("a client")
        .get(format!("{}/", world.url()))
        .send()
        .await;
    let page = page.expect("the page").text().await.expect("its text");
    assert!(
        page.contains("&lt;img&gt;") || page.contains("&#60;img&#62;"),
        "the name is shown as text"
    );
    assert!(!page.contains("<img>"), "{page}");
    world.wait_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forge_that_fails_hears_it_later_and_the_job_does_not_mind() {
    let world = World::start(Machines::Process).await;
    for fault in [
        Fault::Status(500),
        Fault::RateLimited { retry_after_s: 1 },
        Fault::AcceptThenCut,
    ] {
        world.forge.fail_next("/statuses/", fault);
    }
    let sha = world.push(SMALL).await;
    world.wait_job(&sha, "job", "success");
    world.wait(&sha, "success").await;
}

/// Posts a delivery; the status and what the answer says, as a forge's page of the delivery shows it.
async fn deliver(world: &World, headers: &[(String, String)], body: Vec<u8>) -> (u16, String) {
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let mut request = client.post(format!("{}/hooks/local", world.url())).body(body);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let answer = request.send().await.expect("an answer");
    let status = answer.status().as_u16();
    let answer: Value = serde_json::from_str(&answer.text().await.expect("its text")).expect("JSON");
    (status, answer["message"].as_str().unwrap_or_default().to_owned())
}

/// Delivers the push of a commit once more: under its own id, as GitHub does, or under another, as Forgejo does.
pub(crate) async fn again(world: &World, sha: &str, same_id: bool) -> (u16, String) {
    let of_the_push = |delivery: &&helios_fakeforge::Delivery| {
        let body = serde_json::from_slice::<Value>(&delivery.body).unwrap_or_default();
        delivery.event == "push" && body["after"] == *sha
    };
    let found = world.forge.state().deliveries().iter().find(of_the_push).cloned();
    let delivery = found.expect("the delivery of the push");
    let new = format!("another-{}", rand::random::<u64>());
    let headers: Vec<_> = delivery
        .headers
        .into_iter()
        .map(
            |(name, value)| match name.to_ascii_lowercase().ends_with("-delivery") && !same_id {
                true => (name, new.clone()),
                false => (name, value),
            },
        )
        .collect();
    deliver(world, &headers, delivery.body.to_vec()).await
}

/// What the API says came of the newest delivery of a push of this commit.
pub(crate) fn outcome(world: &World, sha: &str) -> Option<String> {
    let all = world.get("/api/v1/deliveries?limit=100");
    let all = all["deliveries"].as_array().cloned().unwrap_or_default();
    let of_the_push = |row: &&Value| row["event"] == "push" && row["commit"] == *sha;
    all.iter().find(of_the_push)?["outcome"].as_str().map(str::to_owned)
}

pub(crate) fn runs_of(world: &World, sha: &str) -> usize {
    let runs = world.get("/api/v1/runs?limit=100");
    let runs = runs["runs"].as_array().cloned().unwrap_or_default();
    runs.iter().filter(|run| run["commit"] == *sha).count()
}

/// How a push is lost through our or the administrator's mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lost {
    /// The forge takes our token back.
    WrongToken,
    /// The configuration does not list the repository yet.
    NotListed,
    /// The forge refuses to tell of the repository for a moment.
    Refused,
    /// The forge is broken for a moment.
    Away,
    /// The daemon dies after it has stored the delivery, and leaves its lease.
    Killed(&'static str),
}

/// Makes the configuration list another repository alone, or all again.
fn list_another(world: &World, another: bool) {
    let (all, other) = ("    public: [ada/engine]\n", "    repositories: [ada/other]\n");
    let text = std::fs::read_to_string(world.config()).expect("the configuration");
    let (from, to) = if another { (all, other) } else { (other, all) };
    assert!(text.contains(from), "{text}");
    std::fs::write(world.config(), text.replace(from, to)).expect("the configuration");
}

fn token(world: &World) -> String {
    std::fs::read_to_string(world.dir.path().join("forgejo-token")).expect("the token")
}

/// How a repository is asked for: by its path, and by its number.
const LOOK_UPS: [&str; 2] = ["GET /api/v1/repos/ada/engine", "GET /api/v1/repositories/"];

/// A world in which the push of the returned commit was lost, and what is said of it.
async fn lose(how: Lost) -> (World, String) {
    let mut world = World::stopped(Machines::Process, "").await;
    if how == Lost::NotListed {
        list_another(&world, true);
    }
    match how {
        Lost::Killed(point) => {
            world.launch(&[("HELIOS_CI_FAILPOINT", point)]);
            world.ready();
        }
        _ => world.up(),
    }
    match how {
        Lost::WrongToken => world.forge.revoke_token(&token(&world)),
        Lost::Refused => LOOK_UPS
            .iter()
            .for_each(|call| world.forge.fail_all(call, Fault::Status(403))),
        Lost::Away => LOOK_UPS
            .iter()
            .for_each(|call| world.forge.fail_all(call, Fault::Status(502))),
        Lost::NotListed | Lost::Killed(_) => {}
    }
    let sha = world.push(SMALL).await;
    let words = match how {
        Lost::WrongToken => "does not accept helios-ci's credentials",
        Lost::NotListed => "is not in the list of connection local",
        Lost::Refused => "may not read this repository",
        Lost::Away => "the forge did not answer",
        Lost::Killed(_) => {
            world.died();
            return (world, sha);
        }
    };
    world.until(words, || {
        outcome(&world, &sha).filter(|said| said.contains(words)).map(drop)
    });
    (world, sha)
}

async fn mend(world: &mut World, how: Lost) {
    match how {
        Lost::WrongToken => world.forge.add_token("helios-ci", true, &token(world)),
        Lost::NotListed => {
            assert_eq!(world.down(), Some(0));
            list_another(world, false);
            world.up();
        }
        Lost::Killed(_) => world.up(),
        Lost::Refused | Lost::Away => LOOK_UPS.iter().for_each(|call| world.forge.drop_faults(call)),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_was_lost_by_mistake_comes_back_as_exactly_one_run() {
    for how in [
        Lost::WrongToken,
        Lost::NotListed,
        Lost::Refused,
        Lost::Away,
        Lost::Killed("DeliveryStored"),
        Lost::Killed("DeliveryRead"),
        Lost::Killed("TriggerClaimed"),
        Lost::Killed("RunsPlanned"),
    ] {
        for same_id in [true, false] {
            let what = format!("{how:?}, same id: {same_id}");
            let (mut world, sha) = lose(how).await;
            if how == Lost::WrongToken {
                // It waits for the connection, and is tried once more: by its turn or for the delivery.
                let (status, said) = again(&world, &sha, same_id).await;
                assert!(matches!(status, 200 | 202), "{what}: {status} {said}");
                assert!(
                    said.contains("does not accept helios-ci's credentials"),
                    "{what}: {said}"
                );
                assert_eq!(runs_of(&world, &sha), 0, "{what}");
            }
            mend(&mut world, how).await;
            // Delivered again at once, it may meet what we do by ourselves.
            let (status, said) = again(&world, &sha, same_id).await;
            assert!(matches!(status, 200 | 202), "{what}: {status} {said}");
            assert!(world.cli(&["catch-up"]).status.success(), "{what}");
            world.wait(&sha, "success").await;
            for same_id in [true, false] {
                let (status, said) = again(&world, &sha, same_id).await;
                assert_eq!(status, 200, "{what}: {said}");
                assert!(said.contains("delivered before"), "{what}: {said}");
            }
            // Pushes to one repository are planned in their order, so whatever came of all that is there.
            let next = world.push(SMALL).await;
            world.wait(&next, "success").await;
            assert_eq!(runs_of(&world, &sha), 1, "{what}\n{}", world.daemon_log());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_connection_kept_from_running_comes_back_by_itself() {
    for how in [Lost::WrongToken, Lost::NotListed, Lost::Refused] {
        let (mut world, sha) = lose(how).await;
        mend(&mut world, how).await;
        let caught = world.cli(&["catch-up"]);
        assert!(caught.status.success(), "{}", String::from_utf8_lossy(&caught.stderr));
        world.wait(&sha, "success").await;
        assert_eq!(runs_of(&world, &sha), 1, "{how:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_held_is_delivered_again_once_also_when_the_daemon_dies_meanwhile() {
    let (mut world, sha) = lose(Lost::NotListed).await;
    assert_eq!(world.down(), Some(0));
    list_another(&world, false);
    world.launch(&[("HELIOS_CI_FAILPOINT", "DeliveredAgain")]);
    world.died();
    world.up();
    world.wait(&sha, "success").await;
    assert_eq!(runs_of(&world, &sha), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_was_deleted_and_pushed_again_is_a_new_push() {
    let world = World::start(Machines::Process).await;
    let sha = world.push(SMALL).await;
    world.wait(&sha, "success").await;
    let set = async |sha: Option<&str>| {
        let set = world.forge.update_ref(world.repository, "refs/heads/again", sha);
        set.await.expect("the branch is set");
    };
    for round in 1..=3 {
        set(Some(&sha)).await;
        world.until("a run for each push", || {
            (runs_of(&world, &sha) == 1 + round).then_some(())
        });
        set(None).await;
    }
    // Nothing of all this happens once more, however it is delivered.
    let all = world.forge.state().deliveries().to_vec();
    for delivery in all {
        world.forge.redeliver(&delivery.id).await.expect("a redelivery");
    }
    again(&world, &sha, false).await;
    let next = world.push(SMALL).await;
    world.wait(&next, "success").await;
    assert_eq!(runs_of(&world, &sha), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_to_a_delivery_says_what_comes_of_it() {
    let world = World::start(Machines::Process).await;
    let sha = world.push(SMALL).await;
    world.wait(&sha, "success").await;
    let say = async |event: &str, id: &str, body: Vec<u8>| {
        let headers = [
            ("x-forgejo-event", event.to_owned()),
            ("x-forgejo-signature", sign(&world, &body)),
            ("x-forgejo-delivery", id.to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value));
        deliver(&world, &headers, body).await.1
    };
    let zero = "0".repeat(40);
    assert_eq!(
        say("push", "a", body(&world, "refs/heads/gone", &zero)).await,
        "ignored: refs/heads/gone was deleted"
    );
    let said = say("pull_request", "b", body(&world, "refs/heads/x", &sha)).await;
    assert_eq!(said, "ignored: pull requests are not run yet");
    let said = say("push", "c", b"{\"ref\": 3}".to_vec()).await;
    assert!(said.starts_with("failed: the body of this `push` delivery"), "{said}");
    let said = say("push", "d", body(&world, "refs/heads/main", &sha)).await;
    assert!(said.starts_with("to be planned: refs/heads/main at "), "{said}");
    world.until("its run", || (runs_of(&world, &sha) == 2).then_some(()));
    let said = say("push", "d", body(&world, "refs/heads/main", &sha)).await;
    assert_eq!(said, "delivered before; planned: 1 run");
    // The log and the command line say the same.
    assert!(world.daemon_log().contains("ignored: refs/heads/gone was deleted"));
    let listed = world.cli(&["deliveries", "--state", "ignored"]);
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.contains("refs/heads/gone was deleted"), "{listed}");
}

fn said(output: &std::process::Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_missed_while_the_daemon_was_away_is_offered_and_run_by_hand() {
    let mut world = World::start(Machines::Process).await;
    let sha = world.push(SMALL).await;
    world.wait(&sha, "success").await;
    let caught = world.cli(&["catch-up"]);
    assert!(said(&caught).contains("nothing was missed"), "{}", said(&caught));
    assert_eq!(world.down(), Some(0));
    let missed = world.push(SMALL).await;
    for name in ["refs/heads/fresh", "refs/tags/v1"] {
        let set = world.forge.update_ref(world.repository, name, Some(&missed));
        set.await.expect("the ref is set");
    }
    world.up();
    let listed = world.until("what was missed", || {
        let listed = said(&world.cli(&["deliveries", "--missed"]));
        listed.contains("refs/heads/fresh").then_some(listed)
    });
    assert_eq!(runs_of(&world, &missed), 0, "nobody asked us for a run");
    let mut commands: Vec<Vec<String>> = Vec::new();
    for line in listed.lines().filter_map(|line| line.split_once("helios-ci ")) {
        commands.push(line.1.split(' ').map(str::to_owned).collect());
    }
    assert_eq!(commands.len(), 3, "{listed}");
    for command in &commands {
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        let ran = world.cli(&[&command[..], &["--wait"]].concat());
        assert!(ran.status.success(), "{}", said(&ran));
        assert!(
            said(&ran).contains("success") && said(&ran).contains(&missed[..10]),
            "{}",
            said(&ran)
        );
    }
    world.wait(&missed, "success").await;
    let listed = world.cli(&["deliveries", "--missed"]);
    assert!(said(&listed).contains("nothing was missed"), "{}", said(&listed));
    assert_eq!(runs_of(&world, &missed), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_runs_any_workflow_of_a_ref() {
    let world = World::start(Machines::Process).await;
    let on = |on: &str, name: &str| {
        SMALL
            .replace("name: ci", &format!("name: {name}"))
            .replace("on: push", on)
    };
    let files = [
        (
            ".forgejo/workflows/ci.yml",
            on("on: {push: {branches: [main]}}", "ci").into_bytes(),
            0o644,
        ),
        (
            ".forgejo/workflows/hand.yml",
            on("on: workflow_dispatch", "hand").into_bytes(),
            0o644,
        ),
    ];
    let push = world.forge.push(world.repository, "main", &files, "Two workflows");
    let sha = push.await.expect("a push");
    world.wait(&sha, "success").await;
    let set = world.forge.update_ref(world.repository, "refs/heads/other", Some(&sha));
    set.await.expect("a branch");
    let cases: &[(&[&str], i32, &str)] = &[
        (&["local", "ada/engine", "main"], 0, " ci"),
        (
            &["local", "ada/engine", "main", "--event", "workflow_dispatch"],
            0,
            " hand",
        ),
        (
            &["local", "ada/engine", "other"],
            1,
            "do not let the branch `other` through",
        ),
        (&["local", "ada/engine", "other", "--workflow", "ci.yml"], 0, " ci"),
        (
            &[
                "local",
                "ada/engine",
                "other",
                "--workflow",
                ".forgejo/workflows/hand.yml",
            ],
            0,
            " hand",
        ),
        (
            &["local", "ada/engine", "main", "--workflow", "x.yml"],
            1,
            "there are .forgejo/workflows/ci.yml",
        ),
        (&["locla", "ada/engine", "main"], 5, "there are local, octo"),
        (&["local", "ada/engin", "main"], 5, "has no repository ada/engin"),
        (&["local", "ada/engine", "mian"], 5, "no branch or tag mian"),
    ];
    for (args, code, words) in cases {
        let ran = world.cli(&[&["trigger"], *args].concat());
        let said = said(&ran);
        assert_eq!(ran.status.code(), Some(*code), "{args:?}: {said}");
        // What goes to a terminal is broken into lines.
        assert!(said.replace("\n  │ ", " ").contains(words), "{args:?}: {said}");
    }
    // Runs made by hand say who asked, and not which user's number that has here.
    let shown = world.get("/api/v1/runs?limit=100").to_string();
    assert!(!shown.contains("uid "), "{shown}");
}
