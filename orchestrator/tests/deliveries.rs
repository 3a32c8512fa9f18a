//! What comes in at the door: only what is signed, each push once, and hostile names harm nobody.

mod support;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use support::{Machines, World};

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
    let large = vec![b' '; 11 << 20];
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
    let body = body(&world, "refs/heads/main", &sha);
    let signature = sign(&world, &body);
    let headers = [
        ("x-forgejo-event", "push"),
        ("x-forgejo-signature", signature.as_str()),
        ("x-forgejo-delivery", "one-and-the-same"),
    ];
    let before = runs(&world);
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
    let id = world.forge.state().deliveries().first().expect("a delivery").id.clone();
    world.forge.redeliver(&id).await.expect("a redelivery");
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
    use helios_fakeforge::Fault;
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
