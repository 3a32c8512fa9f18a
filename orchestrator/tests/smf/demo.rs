//! `.ci/demo`: what it says before it does anything, its counted lines, and how it names what failed. On a Debian of
//! ours, with a cargo, a guest's recipe and a demo that say what they are told to.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::{output, project, setup::Debian, text, write_program};

/// Says forty lines; then fails if it is the one that the file `.fails` names.
const WORK: &str = r#"
work() {
	seq -f "$1 says line %g." 40
	[ "$(cat STATE/.fails 2>/dev/null)" != "$1" ] || { echo "error: $1 is broken" >&2; exit 7; }
}
"#;

const CARGO: &str = r#"
case "$1 $*" in
	fetch*) work fetch ;;
	build*--profile\ agent*)
		work agent
		mkdir -p target/x86_64-unknown-linux-musl/agent
		touch target/x86_64-unknown-linux-musl/agent/helios-agent ;;
	build*)
		work build
		mkdir -p target/debug
		cp STATE/.demo target/debug/helios-demo
		chmod +x target/debug/helios-demo ;;
esac
"#;

const DEMO: &str = r#"#!/bin/sh
echo "== Seen, with $*"
[ -e "$HELIOS_CI_AGENT" ] || exit 9
[ "$(cat STATE/.fails 2>/dev/null)" != demo ]
"#;

struct Demo {
    debian: Debian,
    tree: TempDir,
}

impl Demo {
    /// A clone on a machine with Rust and nothing else.
    fn new() -> Self {
        let (debian, tree) = (Debian::new(), TempDir::new().expect("a folder"));
        fs::create_dir(tree.path().join(".ci")).expect("a folder");
        for file in [".ci/demo", ".ci/setup", "rust-toolchain.toml"] {
            fs::copy(project().join(file), tree.path().join(file)).expect(file);
        }
        let work = debian.at(WORK);
        debian.fakes.record("cargo", &(work.clone() + &debian.at(CARGO)));
        debian.fakes.add("nproc", "echo 2");
        debian.put(".demo", &debian.at(DEMO));
        let recipe = format!("#!/bin/sh\n{work}\nwork guest\n");
        write_program(&tree.path().join("images/tiny/build.sh"), &recipe);
        Self { debian, tree }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.tree.path().join(name)
    }

    fn command(&self) -> Command {
        self.debian.bash(&self.path(".ci/demo"))
    }

    /// Its exit code, what it says, and what it complains of.
    fn run(&self, command: &mut Command) -> (Option<i32>, String, String) {
        let output = output(command);
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    }

    fn builds(&self) -> Vec<String> {
        let recorded = self.debian.fakes.recorded();
        recorded
            .into_iter()
            .filter(|line| line.starts_with("cargo build"))
            .collect()
    }
}

/// The counted lines, without the seconds that they end with.
fn steps(said: &str) -> Vec<String> {
    let counted = said.lines().filter(|line| line.starts_with('['));
    counted
        .map(|line| match line.split_once(" … ") {
            Some((step, end)) => {
                let seconds = end.strip_suffix(" s").and_then(|n| n.parse::<u32>().ok());
                assert!(seconds.is_some(), "{line}");
                step.to_owned()
            }
            None => line.to_owned(),
        })
        .collect()
}

const COLD: [&str; 6] = [
    "[1/6] installing what is missing",
    "[2/6] fetching the libraries",
    "[3/6] building the daemon",
    "[4/6] building the agent",
    "[5/6] building the guest",
    "[6/6] the demo itself",
];

#[test]
fn it_says_what_it_will_do_and_then_counts_its_steps() {
    let demo = Demo::new();
    let (code, said, complaints) = demo.run(&mut demo.command());
    assert_eq!((code, complaints.as_str()), (Some(0), ""), "{said}");
    let (announced, done) = said
        .split_once("\n[1/6]")
        .expect("an announcement before the first step");
    for word in [
        "installs",
        "qemu-utils",
        "rust-std-x86_64-unknown-linux-musl",
        "builds",
        "boots",
        "takes     about",
    ] {
        assert!(announced.contains(word), "{word}: {announced}");
    }
    assert!(
        !announced.contains("chromium"),
        "that belongs to the tests: {announced}"
    );
    assert_eq!(steps(&said), COLD);
    assert!(
        done.contains("== Seen, with --daemon-log build/demo/daemon.log\n"),
        "{done}"
    );
    assert!(!said.contains("says line"), "what a step says is not shown: {said}");

    // It builds what runs and not the workspace, and the agent once.
    let builds = demo.builds();
    assert_eq!(builds.len(), 2, "{builds:?}");
    assert!(
        builds
            .iter()
            .all(|line| line.contains(" -p ") && !line.contains("--workspace"))
    );

    // All is there now.
    let (code, said, _) = demo.run(demo.command().env("KEEP", "1"));
    assert_eq!((code, steps(&said).len()), (Some(0), 5), "{said}");
    assert!(
        said.contains("nothing: all is there") && said.contains("about 1 min"),
        "{said}"
    );
    assert!(said.contains("daemon.log --keep\n"), "{said}");
}

#[test]
fn a_step_that_fails_names_its_file_and_shows_its_last_lines() {
    for (at, name) in ["fetch", "build", "agent", "guest"].iter().enumerate() {
        let demo = Demo::new();
        demo.debian.put(".fails", name);
        let (code, said, complaints) = demo.run(&mut demo.command());
        assert_eq!(code, Some(7), "{name}: {said}");
        let last = said.lines().last().expect("a line");
        assert!(
            last.starts_with(COLD[at + 1]) && last.contains(" … failed after "),
            "{last}"
        );
        let log = format!("build/demo/{name}.log");
        assert!(complaints.contains(&log), "{complaints}");
        assert!(
            complaints.contains(&format!("{name} says line 40."))
                && complaints.contains(&format!("error: {name} is broken")),
            "{complaints}"
        );
        assert!(!complaints.contains("says line 1."), "not all of it: {complaints}");
        let kept = fs::read_to_string(demo.path(&log)).expect("the file");
        assert!(kept.contains(&format!("{name} says line 1.")), "{kept}");
        // When it is mended, the next call does it again.
        demo.debian.put(".fails", "");
        assert_eq!(demo.run(&mut demo.command()).0, Some(0));
    }
}

#[test]
fn what_cannot_be_installed_is_said_in_setups_own_words() {
    let demo = Demo::new();
    demo.debian.put(
        ".says-install",
        "E: You don't have enough free space in /var/cache/apt/archives/.\n",
    );
    let (code, said, complaints) = demo.run(&mut demo.command());
    assert_eq!(code, Some(1), "{said}");
    assert!(
        complaints.contains("build/demo/install.log") && complaints.contains("make room"),
        "{complaints}"
    );
    fs::remove_file(demo.debian.fakes.path_of("rustup")).expect("no rustup");
    let (code, said, complaints) = demo.run(&mut demo.command());
    assert_eq!((code, said.as_str()), (Some(1), ""), "before it announces anything");
    assert!(complaints.contains("https://rustup.rs"), "{complaints}");
}

#[test]
fn a_demo_that_did_not_see_all_names_the_daemons_log() {
    let demo = Demo::new();
    demo.debian.put(".fails", "demo");
    let (code, said, complaints) = demo.run(&mut demo.command());
    assert_eq!(code, Some(1), "{said}");
    assert!(complaints.contains("build/demo/daemon.log"), "{complaints}");
}

/// What a terminal shows of a text: a carriage return goes back to the line's begin.
fn shown(text: &str) -> String {
    let line = |line: &str| {
        let mut cells: Vec<char> = Vec::new();
        let mut at = 0;
        for c in line.trim_end_matches('\r').chars() {
            if c == '\r' {
                at = 0;
                continue;
            }
            if at < cells.len() {
                cells[at] = c;
            } else {
                cells.push(c);
            }
            at += 1;
        }
        cells.into_iter().collect::<String>()
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_terminal_shows_the_same_lines() {
    let demo = Demo::new();
    let script = format!("bash {}", demo.path(".ci/demo").display());
    let mut command = Command::new(demo.debian.fakes.path_of("script"));
    command.args(["-qec", &script, "/dev/null"]).env_clear().envs([
        ("PATH", demo.debian.fakes.0.path()),
        ("TERM", Path::new("xterm")),
        ("SHELL", Path::new("/bin/sh")),
    ]);
    let (code, said, _) = demo.run(&mut command);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(steps(&shown(&said)), COLD);
}
