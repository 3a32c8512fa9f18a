//! A machine that went wrong is kept for a person, looked into, and removed.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    os::fd::OwnedFd,
    process::{Child, Output, Stdio},
    sync::{Arc, Mutex},
};

use rustix::termios::{LocalModes, Termios, tcgetattr};
use serde_json::Value;

use super::terminal;
use crate::support::{self, Machines, World, hold::grow};

/// Fails when its disk grows. A guest that was built without a shell on its console gets one from the job, outside of
/// what ends with the step.
const FAILS: &str = r#"
name: ci
on: push
jobs:
  build:
    steps:
      - run: |
          grep -q ttyS0 /etc/inittab && exit
          sh -c 'echo $$ >/sys/fs/cgroup/cgroup.procs && touch /run/out && exec sh </dev/ttyS0 >/dev/ttyS0 2>&1' &
          until [ -e /run/out ]; do sleep 0.1; done
      - run: |
          size=$(cat /sys/block/vd*/size)
          echo begun
          while [ "$(cat /sys/block/vd*/size)" = "$size" ]; do sleep 0.1; done
          exit 3
"#;

const WAITS: &str = "\
name: ci
on: push
jobs:
  build:
    steps:
      - run: while true; do sleep 0.1; done
";

fn id(value: &Value) -> String {
    value["id"].as_str().expect("an id").to_owned()
}

/// What it printed, however its lines were broken.
fn words(output: &Output) -> String {
    let all = [&output.stdout[..], &output.stderr[..]].concat();
    let all = String::from_utf8_lossy(&all).replace('│', " ");
    all.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn done(world: &World, args: &[&str]) -> String {
    let output = world.cli(args);
    assert!(output.status.success(), "{args:?}: {}", words(&output));
    words(&output)
}

/// What the daemon says of a job's machine.
fn machine(world: &World, job: &str) -> Value {
    world.get(&format!("/api/v1/machines/{job}"))
}

/// Lets the job of [`FAILS`] fail.
fn fail(world: &World, job: &str) {
    world.until("it has begun", || {
        world.log_now(job).lines().any(|line| line == "begun").then_some(())
    });
    grow(&world.machine());
}

/// Waits until nobody has a console any more: its node lets go of it after the person has left.
fn console_is_free(world: &World, name: &str) {
    world.until("a console that is free", || {
        (machine(world, name)["keep"]["console_free"] == true).then_some(())
    });
}

/// Waits until the machine of a job is kept and cut off; its name.
fn kept(world: &World, job: &str) -> String {
    world.until("a machine that is kept and cut off", || {
        let machine = machine(world, job);
        (machine["state"] == "kept" && machine["keep"]["attach"].is_string())
            .then(|| machine["name"].as_str().expect("a name").to_owned())
    })
}

/// Types lines on a console until it answers.
fn type_and_hear(world: &World, name: &str, line: &str, answer: &str) {
    let mut console = world
        .command(&["console", name])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a console");
    let mut keys = console.stdin.take().expect("standard input");
    keys.write_all(line.as_bytes()).expect("it is typed");
    keys.flush().expect("it is typed");
    let said = BufReader::new(console.stdout.take().expect("standard output"));
    let heard = said.lines().map_while(Result::ok).any(|line| line.contains(answer));
    // Leaving in order lets go of the console.
    let pid = nix::unistd::Pid::from_raw(i32::try_from(console.id()).expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).ok();
    let ended = console.wait_with_output().expect("it ends");
    assert!(heard, "never {answer:?}: {}", words(&ended));
    console_is_free(world, name);
}

/// Who did what to a machine, oldest first.
async fn audited(world: &World, name: &str) -> Vec<String> {
    use sqlx::{Connection as _, Row as _};
    let path = format!("sqlite://{}?mode=ro", world.data().join("helios-ci.db").display());
    let mut database = sqlx::SqliteConnection::connect(&path).await.expect("the database");
    let rows = sqlx::query("SELECT action FROM audit WHERE subject LIKE $1 || '%' ORDER BY seq")
        .bind(name)
        .fetch_all(&mut database)
        .await
        .expect("the audit log");
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_went_wrong_is_kept_typed_on_and_goes_when_its_time_is_over() {
    if support::needs_guest().is_none() {
        return;
    }
    let mut world = World::start(Machines::Qemu).await;
    let sha = world.push(FAILS).await;
    let job = id(&world.wait_job(&sha, "build", "active"));
    let said = done(&world, &["machine", "keep", &job, "--for", "10m"]);
    assert!(
        said.contains("to be kept for 10 min") && said.contains("counts as busy"),
        "{said}"
    );
    let refused = world.cli(&["machine", "destroy", &job]);
    assert_eq!(refused.status.code(), Some(5));
    assert!(words(&refused).contains("Cancel the job"), "{}", words(&refused));
    let early = world.cli(&["console", "--release", &job]);
    assert!(words(&early).contains("is not kept"), "{}", words(&early));

    fail(&world, &job);
    // The result is reported as ever, and the machine stays without its agent.
    world.wait(&sha, "failure").await;
    world.wait_job(&sha, "build", "failure");
    let name = kept(&world, &job);
    let home = world.data().join("machines").join(&name);
    assert!(home.join("input.sock").exists() && !home.join("agent.sock").exists() && !home.join("git.sock").exists());
    assert!(
        !world
            .data()
            .join("grants")
            .join(name.trim_start_matches("hci-"))
            .exists()
    );
    world.until("the agent has lost its node", || {
        let said = done(&world, &["console", "--direct", "--once", &name]);
        said.contains("no connection to the node").then_some(())
    });
    for (args, word) in [
        (vec!["machine", "list"], "kept until"),
        (vec!["show", &job], "kept until"),
        (vec!["why", &job], "helios-ci console hci-"),
        (vec!["console", "--release", &job], "helios-ci console hci-"),
    ] {
        let said = done(&world, &args);
        assert!(said.contains(word), "{args:?}: {said}");
    }
    type_and_hear(&world, &name, "\necho $((6 * 7))-typed\n", "42-typed");

    // A daemon that was killed finds it as it was.
    world.kill();
    world.up();
    assert_eq!(kept(&world, &job), name);
    type_and_hear(&world, &name, "\necho $((7 * 7))-again\n", "49-again");
    let acts = audited(&world, &name).await;
    assert_eq!(acts[0], "keep machine", "{acts:?}");
    assert_eq!(
        acts.iter().filter(|act| *act == "console input").count(),
        2,
        "each session once: {acts:?}"
    );
    assert!(acts.contains(&"release console".to_owned()), "{acts:?}");

    // Its time is over while nobody is there to remove it.
    let said = done(&world, &["machine", "keep", &name, "--for", "1s"]);
    assert!(said.contains("kept until"), "{said}");
    world.kill();
    world.up();
    world.wait_clean();
    let gone = world.until("the row says so", || {
        let machine = machine(&world, &name);
        (machine["state"] == "gone").then_some(machine)
    });
    assert!(gone["keep"].is_null(), "{gone}");
    assert!(done(&world, &["machine", "destroy", &name]).contains("was gone already"));
    let late = world.cli(&["machine", "keep", &job]);
    assert!(words(&late).contains("Ask while its job runs"), "{}", words(&late));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_machine_counts_as_busy_and_goes_when_it_is_released() {
    if support::needs_guest().is_none() {
        return;
    }
    let world = World::with(Machines::Qemu, "capacity: {machines: 1}\nkeep: {max_minutes: 60}\n").await;
    let sha = world.push(FAILS).await;
    let job = id(&world.wait_job(&sha, "build", "active"));
    let long = world.cli(&["machine", "keep", &job, "--for", "2h"]);
    assert!(words(&long).contains("1 s to 60 min"), "{}", words(&long));
    done(&world, &["machine", "keep", &job]);
    fail(&world, &job);
    world.wait(&sha, "failure").await;
    let name = kept(&world, &job);
    let next = world.push(WAITS).await;
    let next = id(&world.wait_job(&next, "build", "queued"));
    world.until("the next job knows why it waits", || {
        let said = done(&world, &["why", &next]);
        said.contains("1 of them kept for a person").then_some(())
    });
    assert!(done(&world, &["cancel", &next]).contains("requested"));
    assert!(done(&world, &["machine", "destroy", &name]).contains("is being removed"));
    world.wait_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_is_not_kept_and_says_so() {
    let world = World::start(Machines::Process).await;
    let sha = world.push(WAITS).await;
    let job = id(&world.wait_job(&sha, "build", "active"));
    let refused = world.cli(&["machine", "keep", &job]);
    assert_eq!(refused.status.code(), Some(5));
    let said = words(&refused);
    assert!(
        said.contains("`process`") && said.contains("use `qemu` or `zone`"),
        "{said}"
    );
    for (what, word) in [("release", "not kept"), ("destroy", "Cancel the job")] {
        let refused = world.cli(&["machine", what, &job]);
        assert!(words(&refused).contains(word), "{what}: {}", words(&refused));
    }
    done(&world, &["cancel", &job]);
    world.wait_job(&sha, "build", "cancelled");
    world.wait_clean();
}

/// A terminal: what a person sees of it and types on it, and the end that programs have.
struct Terminal {
    keys: File,
    seen: Arc<Mutex<Vec<u8>>>,
    line: OwnedFd,
}

impl Terminal {
    fn open() -> Self {
        let (keys, line) = terminal::open();
        let (mut screen, seen) = (keys.try_clone().expect("its screen"), Arc::default());
        let all: Arc<Mutex<Vec<u8>>> = Arc::clone(&seen);
        // Ends with the last program at the other end.
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                all.lock().expect("one writer").extend_from_slice(&bytes[..count]);
            }
        });
        Self { keys, seen, line }
    }

    /// A console's program at it, once it takes what is typed.
    fn console(&self, world: &World, name: &str) -> Child {
        let already = self.seen().matches("what is typed goes to the machine").count();
        let end = || Stdio::from(self.line.try_clone().expect("the line"));
        let mut command = world.command(&["console", name]);
        let console = command.stdin(end()).stdout(end()).stderr(end()).spawn();
        world.until("the console may be typed on", || {
            let said = self.seen().matches("what is typed goes to the machine").count() > already;
            (said && !self.modes().local_modes.contains(LocalModes::ICANON)).then_some(())
        });
        console.expect("a console")
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("it is typed");
    }

    fn seen(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().expect("one writer")).into_owned()
    }

    fn hears(&self, world: &World, words: &str) {
        world.until(&format!("{words:?} on the screen"), || {
            self.seen().contains(words).then_some(())
        });
    }

    fn modes(&self) -> Termios {
        tcgetattr(&self.line).expect("its settings")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_becomes_the_guests_and_is_given_back_as_it_was() {
    if support::needs_guest().is_none() {
        return;
    }
    let world = World::start(Machines::Qemu).await;
    let sha = world.push(FAILS).await;
    let job = id(&world.wait_job(&sha, "build", "active"));
    done(&world, &["machine", "keep", &job]);
    fail(&world, &job);
    world.wait(&sha, "failure").await;
    let name = kept(&world, &job);

    let mut terminal = Terminal::open();
    let before = format!("{:?}", terminal.modes());
    assert!(
        terminal
            .modes()
            .local_modes
            .contains(LocalModes::ICANON | LocalModes::ECHO)
    );
    let mut console = terminal.console(&world, &name);
    // Every key is the guest's: no line, no echo and no interrupt of this terminal's own.
    let taken = [
        LocalModes::ICANON,
        LocalModes::ECHO,
        LocalModes::ISIG,
        LocalModes::IEXTEN,
    ];
    assert!(taken.iter().all(|mode| !terminal.modes().local_modes.contains(*mode)));
    // A guest that was built with a shell on its console wants Enter first.
    terminal.press("\recho $((6 * 7))-typed\r");
    terminal.hears(&world, "42-typed");
    assert!(
        terminal.seen().contains("echo $((6 * 7))-typed"),
        "the guest shows what it gets"
    );
    // An interrupt is the guest's, and so is the escape in the middle of a line.
    terminal.press("\x03");
    terminal.hears(&world, "^C");
    terminal.press("echo $((7 * 7))~.-again\r");
    terminal.hears(&world, "49~.-again");
    assert_eq!(console.try_wait().expect("its state"), None);
    terminal.press("~.");
    let left = console.wait().expect("it ends");
    assert!(left.success(), "{left:?}: {}", terminal.seen());
    assert_eq!(format!("{:?}", terminal.modes()), before);
    console_is_free(&world, &name);

    // Also when it is told to end.
    let mut console = terminal.console(&world, &name);
    let pid = nix::unistd::Pid::from_raw(i32::try_from(console.id()).expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("a signal");
    assert!(console.wait().expect("it ends").success(), "{}", terminal.seen());
    assert_eq!(format!("{:?}", terminal.modes()), before);
    done(&world, &["machine", "destroy", &name]);
    world.wait_clean();
}
