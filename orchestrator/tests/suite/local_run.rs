//! `helios-ci run`: a workflow without a server, in machines all the same.

#![allow(clippy::disallowed_methods, reason = "the command is started as a person would")]

mod recipe;

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

use crate::support::{self, Machines, World, prerequisites};

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

/// As its own first user.
#[tokio::test(flavor = "multi_thread")]
async fn the_projects_own_workflow_runs() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    if !project.join(".git").exists() {
        prerequisites::skip("these sources are no repository of git");
        return;
    }
    let person = Person::with(&[("file", "")]).await;
    fs::remove_dir_all(&person.tree).unwrap();
    // The checkout may be another user's.
    let settings = person.temporary.with_file_name("gitconfig");
    fs::write(&settings, "[safe]\n\tdirectory = *\n").unwrap();
    let cloned = Command::new("git")
        .args(["clone", "-q", "--no-local", "--depth=1"])
        .env("GIT_CONFIG_GLOBAL", &settings)
        .arg(format!("file://{}", project.canonicalize().unwrap().display()))
        .arg(&person.tree)
        .output()
        .unwrap();
    assert!(cloned.status.success(), "{}", String::from_utf8_lossy(&cloned.stderr));
    let (code, out, err) = person.run(&["--as", "main", ".helios/workflows/ci.yml"]);
    assert_eq!(code, Some(0), "{out}\n{err}");
    assert!(
        out.contains("images/tiny/build.sh\n") && out.contains("smf/install.sh\n"),
        "{out}"
    );
    person.nothing_is_left();
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
        err.contains("✓ build: success in ") && err.contains("✓ test: success in "),
        "{err}"
    );
    // What is said of the machine and of the end is in no step, and the time holds the boot.
    let of_build: Vec<&str> = out.lines().filter_map(|line| line.strip_prefix("build | ")).collect();
    let headings: Vec<&str> = of_build.iter().filter_map(|line| line.strip_prefix("▸ ")).collect();
    assert_eq!(headings, ["Machine", "actions/checkout", "Look", "End"], "{out}");
    assert!(
        of_build[0] == "▸ Machine" && of_build[1].starts_with("Machine hci-"),
        "{out}"
    );
    assert!(of_build.last().unwrap().starts_with("Job ended: success"), "{out}");
    for line in err.lines().filter(|line| line.starts_with("✓ ")) {
        let seconds: Vec<f64> = line.split([' ', '(']).filter_map(|word| word.parse().ok()).collect();
        assert!(
            line.ends_with(" s of it to boot)") && seconds[0] >= seconds[1],
            "{line}"
        );
    }
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
    let lines: Vec<&str> = err.lines().collect();
    // It stands there before as the line after another one's.
    let at = lines
        .iter()
        .rposition(|line| line.contains("step: []"))
        .expect("the line");
    let column = |line: &str, c: char| line.chars().position(|x| x == c);
    assert_eq!(
        column(lines[at], 's'),
        column(lines[at + 1], '▲'),
        "a mark below it: {err}"
    );
    let (code, _, err) = person.run(&[]);
    assert!(
        code == Some(2) && err.contains("one.yml") && err.contains("two.yml"),
        "{err}"
    );
    let (code, _, err) = person.run(&["../config.yaml"]);
    assert!(code == Some(2) && err.contains("is not in"), "{err}");
    // A file that is nowhere, in which folder ever, with what to do or not.
    for (args, missing) in [
        (&["b.yml"][..], "b.yml: no such file"),
        (&["none/at/all.yml"], "none/at/all.yml: no such file"),
        (&["--dirty", "b.yml"], "b.yml: no such file"),
        (&[".github"], ".github is a folder"),
    ] {
        let (code, _, err) = person.run(args);
        assert!(code == Some(2) && err.contains(missing), "{args:?}: {err}");
    }
    person.write(".gitignore", "c.yml\n");
    person.write("c.yml", GOOD);
    let (code, _, err) = person.run(&["--dirty", "c.yml"]);
    assert!(code == Some(2) && err.contains("c.yml is ignored by git"), "{err}");
    fs::remove_file(person.tree.join(".gitignore")).unwrap();
    fs::remove_file(person.tree.join("c.yml")).unwrap();
    // Ten complaints, and how many more.
    let steps: String = (0..14).map(|n| format!("      - wrong{n}: x\n")).collect();
    person.write("many.yml", &format!("on: push\njobs:\n  a:\n    steps:\n{steps}"));
    let (code, _, err) = person.run(&["--dirty", "many.yml"]);
    let (shown, more) = (err.matches("many.yml:").count(), err.matches(" more").count());
    assert!(code == Some(2) && err.contains("wrong0") && more == 1, "{err}");
    // Each is named, and stands once more above its lines.
    assert_eq!(shown, 20, "{err}");
    fs::remove_file(person.tree.join("many.yml")).unwrap();

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
async fn what_is_kept_is_said_and_can_be_read_as_said() {
    let script = "echo out; echo err >&2; exit 3\n";
    let person = Person::with(&[(".jci/run.sh", script)]).await;
    let (code, out, err) = person.run(&["--keep"]);
    assert_eq!(code, Some(1), "{out}\n{err}");
    let (_, kept) = err.split_once("kept: ").expect("it is said where");
    let mut lines = kept.lines();
    let folder = PathBuf::from(lines.next().unwrap());
    let commands: Vec<&str> = lines.map_while(|line| line.strip_prefix("  ")).collect();
    let of = |program: &str| {
        let found: Vec<&&str> = commands.iter().filter(|line| line.starts_with(program)).collect();
        let [only] = found.as_slice() else {
            panic!("one {program}: {commands:?}")
        };
        Command::new("sh").args(["-c", only]).output().unwrap()
    };
    let (code, log, _) = said(&of("cat"));
    assert_eq!((code, log.as_str()), (Some(0), out.as_str()), "the log as it was shown");
    assert!(
        log.contains("out\n") && log.contains("err\n") && log.contains("exit code 3"),
        "{log}"
    );
    let (code, rows, err) = said(&of("sqlite3"));
    assert!(code == Some(0) && rows.contains("|failure|"), "{rows}{err}");
    assert!(
        folder.starts_with(&person.temporary) || folder.starts_with("/tmp"),
        "{folder:?}"
    );
    let (code, _, err) = said(&of("rm -r"));
    assert!(code == Some(0) && !folder.exists(), "{err}");
    person.nothing_is_left();
}

/// A repository with an older commit, whose file a clone without files does not have.
async fn person_with_history() -> Person {
    let person = Person::with(&[("file", "older\n")]).await;
    person.write("file", "committed\n");
    person.write(
        ".forgejo/workflows/ci.yml",
        "on: push\njobs:\n  a:\n    steps:\n      - uses: actions/checkout@v4\n        with: {fetch-depth: 0}\n      \
         - run: cat file && echo \"commits $(git rev-list --count HEAD)\" && ls\n",
    );
    person.git(&["add", "-A"]);
    person.git(&["commit", "-q", "-m", "More"]);
    person.git(&["config", "uploadpack.allowFilter", "true"]);
    person
}

#[tokio::test(flavor = "multi_thread")]
async fn clones_that_lack_something_run_all_the_same() {
    let mut person = person_with_history().await;
    let origin = format!("file://{}", person.tree.display());
    for (options, commits) in [
        (&["--depth=1"][..], 1),
        (&["--filter=blob:none", "--sparse"], 1),
        (&[], 2),
    ] {
        let clone = person.world.dir.path().join(format!("clone {}", options.len()));
        let args = [&["clone", "-q"], options, &[origin.as_str(), clone.to_str().unwrap()]].concat();
        person.git(&args);
        let whole = std::mem::replace(&mut person.tree, clone);
        for dirty in [&[][..], &["--dirty"]] {
            // A change is on top of what is there.
            if !dirty.is_empty() {
                person.write("new", "x\n");
            }
            let (code, out, err) = person.run(&[&[".forgejo/workflows/ci.yml"], dirty].concat());
            let commits = commits + dirty.len();
            assert_eq!(code, Some(0), "{options:?} {dirty:?}: {out}\n{err}");
            assert!(
                out.contains(&format!("committed\ncommits {commits}\n")),
                "{options:?}: {out}"
            );
            assert_eq!(out.contains("\nnew\n"), !dirty.is_empty(), "{options:?}: {out}");
            assert_eq!(
                err.contains("does not have all of its history"),
                !options.is_empty(),
                "{err}"
            );
        }
        person.tree = whole;
    }
    person.nothing_is_left();
}

/// The person's own ssh is asked, in front, where it could ask back; a terminal's Ctrl-C goes to all that runs there.
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_ends_a_fetch_of_the_persons_git() {
    let mut person = person_with_history().await;
    let (clone, fifo) = (
        person.world.dir.path().join("clone"),
        person.world.dir.path().join("fifo"),
    );
    let ssh = person.world.dir.path().join("ssh");
    let origin = format!("file://{}", person.tree.display());
    person.git(&[
        "clone",
        "-q",
        "--filter=blob:none",
        "--no-checkout",
        &origin,
        clone.to_str().unwrap(),
    ]);
    person.tree = clone;
    let script = format!("#!/bin/sh\necho \"$*\" >'{}'\nexec cat\n", fifo.display());
    support::write_program(&ssh, &script);
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    person.git(&["config", "remote.origin.url", "ssh://there/tree"]);
    person.git(&["config", "core.sshCommand", ssh.to_str().unwrap()]);
    person.git(&["config", "ssh.variant", "ssh"]);
    let mut command = person.command(&[]);
    command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let group = Pid::from_raw(i32::try_from(child.id()).unwrap());
    // Not waited for: were ssh never called, nobody would come to the other end.
    std::thread::spawn(move || {
        let asked = fs::read_to_string(&fifo).unwrap();
        assert!(asked.contains("there git-upload-pack '/tree'"), "{asked}");
        killpg(group, Signal::SIGINT).unwrap();
    });
    let (code, out, err) = said(&child.wait_with_output().unwrap());
    assert_eq!(code, Some(3), "{out}\n{err}");
    assert!(err.contains("interrupted before the run began"), "{err}");
    person.nothing_is_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_persons_git_ignores_does_not_run() {
    let person = Person::with(&[
        (".jci/run.sh", "cd \"$JCI_REPO_ROOT\" && ls -A\n"),
        ("away/file", "x\n"),
    ])
    .await;
    let home = person.world.dir.path().join("home");
    fs::create_dir_all(home.join(".config/git")).unwrap();
    fs::write(home.join(".config/git/ignore"), "*.mine\n").unwrap();
    person.git(&["sparse-checkout", "set", ".jci"]);
    person.write("secret.mine", "x\n");
    person.write("new", "x\n");
    let mut command = person.command(&["--dirty"]);
    command.env("HOME", &home).env_remove("XDG_CONFIG_HOME");
    let (code, out, err) = said(&command.output().unwrap());
    assert_eq!(code, Some(0), "{out}\n{err}");
    assert!(
        out.contains("\nnew\n") && out.contains("\naway\n") && !out.contains("secret"),
        "{out}"
    );
    person.nothing_is_left();
}

/// A program as it is installed: not where cargo built it, beside nothing.
fn installed(person: &Person) -> PathBuf {
    let program = person.world.dir.path().join("bin/helios-ci");
    fs::create_dir_all(program.parent().unwrap()).unwrap();
    // By another process, as `support::write_program` does.
    let copied = Command::new("cp").arg(support::helios_ci()).arg(&program).status();
    assert!(copied.is_ok_and(|status| status.success()), "{}", program.display());
    program
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_needs_no_configuration() {
    if Path::new("/etc/helios-ci/config.yaml").exists() {
        prerequisites::skip("this machine has a configuration");
        return;
    }
    let person = Person::with(&[(".helios/workflows/ci.yml", GOOD), ("file", "in a guest\n")]).await;
    let (program, home) = (installed(&person), person.world.dir.path().join("home"));
    let command = |args: &[&str]| {
        let mut command = Command::new(&program);
        command.arg("run").args(args).current_dir(&person.tree);
        command.env("TMPDIR", &person.temporary).env("HOME", &home);
        for name in ["HELIOS_CI_CONFIG", "HELIOS_CI_GUEST", "XDG_CACHE_HOME"] {
            command.env_remove(name);
        }
        command.env("HELIOS_CI_AGENT", support::agent());
        command
    };
    let refused = |mut command: Command, words: &[&str]| {
        let (code, _, err) = said(&command.output().unwrap());
        let err = err.split_whitespace().collect::<Vec<_>>().join(" ").replace(" │ ", " ");
        assert_eq!(code, Some(2), "{err}");
        for word in words {
            assert!(err.contains(word), "{word}: {err}");
        }
    };
    // Nowhere: what makes one is said, and where it would be found.
    refused(
        command(&[]),
        &["HELIOS_CI_GUEST", "helios-ci image pull-tiny", "helios-ci/images/tiny"],
    );
    // What was named is not passed over.
    let nowhere = home.join("nowhere");
    refused(command(&["--guest", nowhere.to_str().unwrap()]), &["no such folder"]);
    fs::create_dir_all(&nowhere).unwrap();
    let mut named = command(&[]);
    named.env("HELIOS_CI_GUEST", &nowhere);
    refused(named, &["it has no disk.qcow2"]);
    person.nothing_is_left();

    let Some(guest) = support::needs_guest() else {
        return;
    };
    let images = home.join(".cache/helios-ci/images");
    fs::create_dir_all(&images).unwrap();
    std::os::unix::fs::symlink(&guest, images.join("tiny")).unwrap();
    let (code, out, err) = said(&command(&[]).output().unwrap());
    assert_eq!(code, Some(0), "{out}\n{err}");
    assert!(out.contains("build | in a guest\n"), "{out}");
    person.nothing_is_left();
    // The others come before it.
    fs::remove_file(images.join("tiny")).unwrap();
    let mut named = command(&["--as", "main"]);
    named.env("HELIOS_CI_GUEST", &guest);
    assert_eq!(said(&named.output().unwrap()).0, Some(0));
    person.nothing_is_left();
}
