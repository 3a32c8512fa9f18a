//! `make demo`: the main job on this machine, with real parts. Ends with 0 only if all of it was seen.

mod keep;
mod stop;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::{
    io::IsTerminal,
    os::unix::fs::symlink,
    path::PathBuf,
    process::{ExitCode, Stdio},
    sync::Arc,
    time::Instant,
};

use clap::Parser;
use stop::Stop;
use support::{Machines, World};
use tokio::runtime::Handle;

/// A local forge, helios-ci, a push, virtual machines, live logs and statuses, all on this machine.
#[derive(Debug, Parser)]
#[command(name = "helios-demo", version)]
struct Args {
    /// Leave all of it running at the end, and say how to log in, to push and to stop.
    #[arg(long)]
    keep: bool,
    /// Where the daemon's log goes; it stays when all else is removed.
    #[arg(long, value_name = "FILE")]
    daemon_log: PathBuf,
}

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
    if std::io::stdout().is_terminal() {
        println!("\n\x1b[1m== {what}\x1b[0m");
    } else {
        println!("\n== {what}");
    }
}

/// One line of the final account; all must be true.
fn seen(all: &mut bool, what: &str, is: bool) {
    println!("  {} {what}", if is { "yes" } else { "NO " });
    *all &= is;
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    if support::guest().is_none() {
        eprintln!("the tiny guest is not built; use `make demo`");
        return ExitCode::from(2);
    }
    // A wait that ended in vain quotes the whole log of the daemon, which has a file of its own here.
    let log = args.daemon_log.display().to_string();
    std::panic::set_hook(Box::new(move |panic| {
        let words = panic.payload_as_str().unwrap_or("the demo failed");
        let first = words.lines().next().unwrap_or_default();
        eprintln!("\ndemo: {first}\ndemo: the daemon's log is {log}");
    }));
    let stop = Arc::new(Stop::default());
    // On a thread of its own: much of it blocks, as it waits for what commands say.
    let shown = {
        let (here, stop) = (Handle::current(), Arc::clone(&stop));
        tokio::task::spawn_blocking(move || here.block_on(show(args, stop)))
    };
    tokio::select! {
        shown = shown => match shown {
            Ok(true) => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        },
        () = stop.signalled() => {
            eprintln!("\ndemo: stopped; nothing is left of it");
            std::process::exit(130)
        }
    }
}

/// Shows everything; whether all was as it should be.
async fn show(args: Args, stop: Arc<Stop>) -> bool {
    let started = Instant::now();
    say("A local forge and helios-ci start");
    let mut world = World::stopped(Machines::Qemu, "").await;
    stop.owns(world.dir.path());
    std::fs::write(&args.daemon_log, "").expect("the file for the daemon's log");
    let log = args.daemon_log.canonicalize().expect("the file for the daemon's log");
    symlink(log, world.dir.path().join("daemon.log")).expect("a link to the daemon's log");
    world.up();
    println!("  forge      {}", world.forge.url());
    println!("  helios-ci  {}", world.url());

    say("Somebody pushes to ada/engine: one workflow that passes, one that fails");
    let files = [
        (".helios/workflows/engine.yml", PASSING.as_bytes(), 0o644),
        (".helios/workflows/broken.yml", FAILING.as_bytes(), 0o644),
        ("src/engine.c", b"int main;\n", 0o644),
    ];
    let sha = world
        .forge
        .push(world.repository, "main", &files, "Build the engine")
        .await
        .expect("a push");
    println!("  commit     {sha}");

    say("The log of engine / build, live from its virtual machine");
    let build = job_of(&world, &sha);
    let followed = world
        .command(&["logs", "-f", &build])
        .stdin(Stdio::null())
        .status()
        .expect("the command line runs");

    say("What the forge heard");
    world.wait(&sha, "failure").await;
    let contexts = world.forge.state().contexts(&sha);
    for context in contexts {
        println!("  {context:<32} {}", world.words(&sha, &context).join(" → "));
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
    let mut all = account(&world, &sha, &build, followed.success(), &github);
    println!("\n  page       {}/jobs/{build}", world.url());
    println!("  statuses   {}/", world.forge.url());
    println!("  took       {:.1} s", started.elapsed().as_secs_f64());
    if args.keep {
        say("All of it keeps running");
        keep::say(&world);
        stop.asked().await;
        println!();
    }
    seen(&mut all, "the daemon stops in order", world.down() == Some(0));
    all
}

/// The first job of the run of the workflow `engine` of this commit, once it is planned.
fn job_of(world: &World, sha: &str) -> String {
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
    let job = &detail["attempts"][0]["jobs"][0]["id"];
    job.as_str().unwrap_or_default().to_owned()
}

/// What must have been seen, line by line; whether it was.
fn account(world: &World, sha: &str, build: &str, followed: bool, github: &[String]) -> bool {
    let mut all = true;
    let log = world.log(build);
    let words = |context: &str| world.words(sha, context);
    let ends_as = |context: &str, word: &str| words(context).last().is_some_and(|last| last == word);
    let lines = [
        ("the log was followed live and ended with the job's success", followed),
        (
            "the guest ran exactly the pushed commit",
            log.contains(&format!("commit {sha} of ada/engine")),
        ),
        (
            "the masked secret appears nowhere",
            log.contains("the password is ***") && !log.contains("correct-horse"),
        ),
        (
            "engine / build went pending → success",
            words("helios-ci / engine / build") == ["pending", "success"],
        ),
        (
            "engine / test ran after it",
            ends_as("helios-ci / engine / test", "success"),
        ),
        ("broken / lint failed", ends_as("helios-ci / broken / lint", "failure")),
        ("the aggregate is red", ends_as("helios-ci", "failure")),
        (
            "GitHub heard queued, in_progress and success",
            github == ["queued", "in_progress", "success"],
        ),
    ];
    for (what, is) in lines {
        seen(&mut all, what, is);
    }
    all
}
