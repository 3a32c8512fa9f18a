//! `helios-ci run`: a workflow without a server, in machines all the same.

#![allow(clippy::disallowed_methods, reason = "the command is started as a person would")]

mod support;

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use support::{Machines, World};

const GOOD: &str = "name: ci\non:\n  push:\n    branches: [main]\njobs:\n  build:\n    steps:\n      - uses: actions/checkout@v4\n      \
                    - name: Look\n        run: cat file && test \"$(git rev-parse HEAD)\" = \"$GITHUB_SHA\"\n  test:\n    needs: build\n    steps:\n      - run: echo second\n";

/// A person's repository beside a configuration with process machines.
struct Person {
    world: World,
    tree: PathBuf,
    temporary: PathBuf,
}

impl Person {
    async fn with(files: &[(&str, &str)]) -> Self {
        let world = World::stopped(Machines::Process, "").await;
        let (tree, temporary) = (world.dir.path().join("My engine!"), world.dir.path().join("t"));
        fs::create_dir_all(&tree).unwrap();
        fs::create_dir_all(&temporary).unwrap();
        let person = Self { world, tree, temporary };
        person.git(&["init", "-q", "-b", "main"]);
        for (path, text) in files {
            person.write(path, text);
        }
        person.git(&["add", "-A"]);
        person.git(&["commit", "-q", "-m", "Begin"]);
        person
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.tree.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn git(&self, args: &[&str]) -> String {
        let mut command = Command::new("git");
        command.args([
            "-c",
            "user.name=p",
            "-c",
            "user.email=p@x",
            "-c",
            "commit.gpgsign=false",
        ]);
        let output = command.args(args).current_dir(&self.tree).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.world.command(&["run", "--allow-unisolated"]);
        command
            .args(args)
            .current_dir(&self.tree)
            .env("TMPDIR", &self.temporary);
        command
    }

    fn run(&self, args: &[&str]) -> (Option<i32>, String, String) {
        said(&self.command(args).output().unwrap())
    }

    /// Neither files nor processes.
    fn nothing_is_left(&self) {
        let left: Vec<_> = fs::read_dir(&self.temporary)
            .unwrap()
            .flatten()
            .map(|e| e.path())
            .collect();
        assert!(left.is_empty(), "{left:?}");
        assert_eq!(self.world.leftovers(), Vec::<String>::new());
    }
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_is_tested_without_a_server() {
    let person = Person::with(&[(".forgejo/workflows/ci.yml", GOOD), ("file", "committed\n")]).await;
    let before = person.git(&["status", "--porcelain"]);
    let (code, out, err) = person.run(&[]);
    assert_eq!(code, Some(0), "{out}\n{err}");
    assert!(
        out.contains("build | committed\n") && out.contains("test | second\n"),
        "{out}"
    );
    assert!(out.contains("build | ▸ Look"), "{out}");
    assert!(
        err.contains("✓ build: success") && err.contains("✓ test: success"),
        "{err}"
    );
    person.nothing_is_left();

    // HEAD runs, and what is not committed is said; --dirty takes the tree as it is and leaves it so.
    person.write("file", "changed\n");
    person.write("new", "untracked\n");
    let (code, out, err) = person.run(&[".forgejo/workflows/ci.yml"]);
    assert_eq!(code, Some(0), "{out}\n{err}");
    assert!(out.contains("committed\n") && err.contains("--dirty"), "{out}\n{err}");
    let status = person.git(&["status", "--porcelain"]);
    let (code, out, err) = person.run(&["--dirty"]);
    assert_eq!(code, Some(0), "{out}\n{err}");
    assert!(out.contains("build | changed\n"), "{out}");
    assert_eq!(person.git(&["status", "--porcelain"]), status);
    assert_ne!(status, before);
    assert_eq!(person.git(&["for-each-ref"]).lines().count(), 1);
    person.nothing_is_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_result_is_the_exit_code() {
    let person = Person::with(&[(".jci/run.sh", "echo \"commit $JCI_COMMIT\"\nexit 3\n")]).await;
    let head = person.git(&["rev-parse", "HEAD"]);
    let (code, out, err) = person.run(&[]);
    assert_eq!(code, Some(1), "{out}\n{err}");
    assert!(out.contains(&format!("commit {}", head.trim())), "{out}");
    assert!(err.contains("exit code 3"), "{err}");
    person.nothing_is_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_said_with_what_to_do() {
    let person = Person::with(&[("file", "x\n")]).await;
    let (code, _, err) = person.run(&[]);
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("has no workflow file"), "{err}");

    person.write("a.yml", "on: push\njobs:\n  a:\n    step: []\n");
    person.write(".github/workflows/one.yml", GOOD);
    person.write(".github/workflows/two.yml", GOOD);
    let (code, _, err) = person.run(&["a.yml"]);
    assert!(code == Some(2) && err.contains("--dirty"), "{err}");
    person.git(&["add", "-A"]);
    person.git(&["commit", "-q", "-m", "More"]);
    let (code, _, err) = person.run(&["a.yml"]);
    assert!(
        code == Some(2) && err.contains("a.yml:4:5: unknown key `step`"),
        "{err}"
    );
    let (code, _, err) = person.run(&[]);
    assert!(
        code == Some(2) && err.contains("one.yml") && err.contains("two.yml"),
        "{err}"
    );
    let (code, _, err) = person.run(&["../config.yaml"]);
    assert!(code == Some(2) && err.contains("is not in"), "{err}");

    // Filters count; `--as` answers them.
    person.git(&["switch", "-q", "-c", "topic"]);
    let (code, _, err) = person.run(&[".github/workflows/one.yml"]);
    assert!(code == Some(2) && err.contains("--as BRANCH"), "{err}");
    let (code, out, err) = person.run(&[".github/workflows/one.yml", "--as", "main"]);
    assert_eq!(code, Some(0), "{out}\n{err}");

    let mut command = person.command(&[]);
    command.current_dir(&person.temporary);
    command.env("GIT_CEILING_DIRECTORIES", &person.temporary);
    let (code, _, err) = said(&command.output().unwrap());
    assert!(code == Some(2) && err.contains("no git working tree"), "{err}");
    person.nothing_is_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_cancels_in_order_and_leaves_nothing() {
    let script = "trap 'echo interrupted in order; exit 5' INT\necho begun\nwhile :; do sleep 0.05; done\n";
    let person = Person::with(&[(".jci/run.sh", script)]).await;
    let mut child = person
        .command(&[])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("begun")));
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
    assert!(lines.any(|line| line.unwrap().contains("interrupted in order")));
    let (code, _, err) = said(&child.wait_with_output().unwrap());
    assert_eq!(code, Some(3), "{err}");
    person.nothing_is_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_needs_no_configuration() {
    let Some(guest) = support::guest() else {
        println!("skipped: the tiny guest is not built (`make guest`)");
        return;
    };
    if Path::new("/etc/helios-ci/config.yaml").exists() {
        println!("skipped: this machine has a configuration");
        return;
    }
    let person = Person::with(&[(".helios/workflows/ci.yml", GOOD), ("file", "in a guest\n")]).await;
    let command = || {
        let mut command = Command::new(support::helios_ci());
        command
            .arg("run")
            .current_dir(&person.tree)
            .env("TMPDIR", &person.temporary);
        command
            .env_remove("HELIOS_CI_CONFIG")
            .env("HELIOS_CI_AGENT", support::agent());
        command
    };
    let (code, _, err) = said(&command().env_remove("HELIOS_CI_GUEST").output().unwrap());
    assert!(code == Some(2) && err.contains("HELIOS_CI_GUEST"), "{err}");
    let (code, out, err) = said(&command().env("HELIOS_CI_GUEST", guest).output().unwrap());
    assert_eq!(code, Some(0), "{out}\n{err}");
    assert!(out.contains("build | in a guest\n"), "{out}");
    person.nothing_is_left();
}
