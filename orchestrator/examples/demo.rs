//! `make demo`: the main job on this machine, with real parts. Ends with 0 only if all of it was seen.

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    process::{ExitCode, Stdio},
    time::Instant,
};

use support::{Machines, World};

const PASSING: &str = "\
name: engine
on: push
jobs:
  build:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - name: Where are we?
        run: |
          echo \"commit $GITHUB_SHA of $GITHUB_REPOSITORY\"
          echo \"kernel $(uname -r) on $(hostname), $(nproc) CPU\"
      - name: Keep a secret
        run: |
          echo '::add-mask::correct-horse-battery'
          echo 'the password is correct-horse-battery'
      - name: Build
        run: for i in 1 2 3 4 5; do echo \"compiling part $i of 5\"; sleep 0.2; done
  test:
    needs: build
    steps:
      - run: echo 'all 42 tests passed'
";

const FAILING: &str = "\
name: broken
on: push
jobs:
  lint:
    steps:
      - uses: actions/checkout@v4
      - name: Lint
        run: |
          echo 'src/engine.c:3: this is not C'
          exit 7
";

fn say(what: &str) {
    println!("\n\x1b[1m== {what}\x1b[0m");
}

/// One line of the final account; all must be true.
fn seen(all: &mut bool, what: &str, is: bool) {
    println!("  {} {what}", if is { "yes" } else { "NO " });
    *all &= is;
}

#[tokio::main]
async fn main() -> ExitCode {
    let started = Instant::now();
    if support::guest().is_none() {
        eprintln!("the tiny guest is not built; use `make demo`");
        return ExitCode::from(2);
    }
    say("A local forge and helios-ci start");
    let mut world = World::start(Machines::Qemu).await;
    println!("  forge      {}", world.forge.url());
    println!("  helios-ci  {}", world.url());

    say("Somebody pushes to ada/engine: one workflow that passes, one that fails");
    let files = [
        (".forgejo/workflows/engine.yml", PASSING.as_bytes(), 0o644),
        (".forgejo/workflows/broken.yml", FAILING.as_bytes(), 0o644),
        ("src/engine.c", b"int main;\n", 0o644),
    ];
    let sha = world
        .forge
        .push(world.repository, "main", &files, "Build the engine")
        .await
        .expect("a push");
    println!("  commit     {sha}");

    say("The log of engine / build, live from its virtual machine");
    let run = world.until("the runs are planned", || {
        let runs = world.get("/api/v1/runs?limit=10");
        let found = runs["runs"]
            .as_array()?
            .iter()
            .find(|run| run["commit"] == *sha && run["workflow"] == "engine")?
            .clone();
        Some(found["id"].as_str()?.to_owned())
    });
    let detail = world.get(&format!("/api/v1/runs/{run}"));
    let build = detail["attempts"][0]["jobs"][0]["id"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let followed = world
        .command(&["logs", "-f", &build])
        .stdin(Stdio::null())
        .status()
        .expect("the command line runs");

    say("What the forge heard");
    for _ in 0..1 {
        world.wait(&sha, "failure").await;
    }
    let contexts = world.forge.state().contexts(&sha);
    for context in &contexts {
        println!("  {context:<32} {}", world.words(&sha, context).join(" → "));
    }

    say("The same push on a repository of a GitHub App");
    let octo = world.push_to(world.github, ".github/workflows/ci.yml", PASSING).await;
    world.wait(&octo, "success").await;
    let github = world.words(&octo, "helios-ci / engine / build");
    println!("  {:<32} {}", "helios-ci / engine / build", github.join(" → "));

    say("What is left");
    world.wait_clean();
    println!("  no process, no disk, no grant");

    say("Seen");
    let mut all = true;
    let log = world.log(&build);
    seen(
        &mut all,
        "the log was followed live and ended with the job's success",
        followed.success(),
    );
    seen(
        &mut all,
        "the guest ran exactly the pushed commit",
        log.contains(&format!("commit {sha} of ada/engine")),
    );
    seen(
        &mut all,
        "the masked secret appears nowhere",
        log.contains("the password is ***") && !log.contains("correct-horse"),
    );
    let words = |context: &str| world.words(&sha, context);
    seen(
        &mut all,
        "engine / build went pending → success",
        words("helios-ci / engine / build") == ["pending", "success"],
    );
    seen(
        &mut all,
        "engine / test ran after it",
        words("helios-ci / engine / test")
            .last()
            .is_some_and(|w| w == "success"),
    );
    seen(
        &mut all,
        "broken / lint failed",
        words("helios-ci / broken / lint")
            .last()
            .is_some_and(|w| w == "failure"),
    );
    seen(
        &mut all,
        "the aggregate is red",
        words("helios-ci").last().is_some_and(|w| w == "failure"),
    );
    seen(
        &mut all,
        "GitHub heard queued, in_progress and success",
        github == ["queued", "in_progress", "success"],
    );
    seen(
        &mut all,
        "every request fits the forges' own API descriptions",
        world.forge.violations().is_empty(),
    );
    println!("\n  page       {}/jobs/{build}", world.url());
    println!("  statuses   {}/", world.forge.url());
    println!("  took       {:.1} s", started.elapsed().as_secs_f64());

    if std::env::var("HELIOS_CI_DEMO_KEEP").is_ok_and(|keep| !keep.is_empty()) {
        println!(
            "\nKept running; log in with the token in {}. Ctrl-C ends it.",
            keep_token(&world)
        );
        tokio::signal::ctrl_c().await.ok();
    }
    seen(&mut all, "the daemon stops in order", world.down() == Some(0));
    if all { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn keep_token(world: &World) -> String {
    let path = world.dir.path().join("admin-token");
    helios_fakeforge::write_private(&path, world.token()).expect("the token's file");
    path.display().to_string()
}
