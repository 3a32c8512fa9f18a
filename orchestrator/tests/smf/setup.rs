//! `.ci/setup` on Debian machines in odd states, with a Debian of our own: packages are files that hold the release that
//! they are from, and apt-get installs, refuses and removes by the rules that matter here.

use std::{fs, path::Path, process::Command};

use tempfile::TempDir;

use crate::{Fakes, output, project, text};

/// Says what the file `.says` holds and fails, where there is one for this call. Else installs what is named. The
/// emulator and its tools must be of one release: where they are not, the tools go, unless nothing may go or they are
/// asked for in the emulator's.
const APT_GET: &str = r#"
no_remove= aligned= named= call=
for word; do
	case $word in
		--no-remove) no_remove=yes ;;
		update|install) call=$word ;;
		-*|DPkg::*) ;;
		qemu-utils/bookworm) aligned=yes; named="$named qemu-utils" ;;
		*) named="$named ${word%/*}" ;;
	esac
done
if [ -e "STATE/.says-$call" ]; then cat "STATE/.says-$call" >&2; exit 100; fi
[ -z "$aligned" ] || echo bookworm >STATE/qemu-utils
case " $named " in *" qemu-system-x86 "*)
	if grep -qs backports STATE/qemu-utils; then
		[ -z "$no_remove" ] || { echo "E: Error, pkgProblemResolver::Resolve generated breaks, this may be caused by held packages." >&2; exit 100; }
		rm STATE/qemu-utils
	fi ;;
esac
for package in $named; do
	[ "$package" = "$(cat STATE/.broken 2>/dev/null)" ] && continue
	[ -e "STATE/$package" ] || echo bookworm >"STATE/$package"
	rm -f "STATE/.half-$package"
done
"#;

const DPKG_QUERY: &str = r#"
shift 3
for package; do
	state=installed
	[ ! -e "STATE/.half-$package" ] || state=half-configured
	[ ! -e "STATE/$package" ] || echo "$package install ok $state"
done
"#;

const RUSTUP: &str = r#"
case "$*" in
	"toolchain list") [ ! -e STATE/.toolchain ] || echo "$(cat STATE/.toolchain)-x86_64-unknown-linux-gnu (active)" ;;
	"target list --installed") cat STATE/.targets ;;
	"toolchain install "*) echo "$3" >STATE/.toolchain ;;
	"target add "*) shift 2; printf '%s\n' "$@" >>STATE/.targets ;;
	*) exit 2 ;;
esac
"#;

/// What scripts may call beside the fakes, and nothing else: another program of this machine could be a sudo.
const TOOLS: [&str; 24] = [
    "bash", "cat", "chmod", "cp", "dirname", "env", "grep", "mkdir", "mktemp", "paste", "printf", "realpath", "rm",
    "script", "sed", "seq", "sh", "sleep", "stty", "tail", "tee", "touch", "tr", "uname",
];

pub struct Debian {
    pub fakes: Fakes,
    state: TempDir,
}

impl Debian {
    /// A machine with Rust and nothing else, where setup is called by root.
    pub fn new() -> Self {
        let (fakes, state) = (Fakes::new(), TempDir::new().expect("a folder"));
        let debian = Self { fakes, state };
        debian.fakes.add("dpkg-query", &debian.at(DPKG_QUERY));
        debian.fakes.record("apt-get", &debian.at(APT_GET));
        debian.fakes.record("rustup", &debian.at(RUSTUP));
        debian.fakes.add("id", "echo 0");
        for tool in TOOLS {
            let found = ["/usr/bin", "/bin"].map(|dir| Path::new(dir).join(tool));
            let found = found.iter().find(|path| path.exists()).expect(tool);
            debian.fakes.add(tool, &format!("exec {} \"$@\"", found.display()));
        }
        debian.put(".toolchain", "1.95.0");
        debian.put(".targets", "x86_64-unknown-linux-gnu\n");
        debian
    }

    /// A fake's text, with the folder of the state put in.
    pub fn at(&self, body: &str) -> String {
        body.replace("STATE", &self.state.path().display().to_string())
    }

    pub fn has(&self, package: &str) -> bool {
        self.state.path().join(package).exists()
    }

    fn targets(&self) -> String {
        fs::read_to_string(self.state.path().join(".targets")).expect("the targets")
    }

    pub fn put(&self, name: &str, content: &str) {
        fs::write(self.state.path().join(name), content).expect("a file of the state");
    }

    /// A script on this machine, whatever the environment of the test is.
    pub fn bash(&self, script: &Path) -> Command {
        let mut command = Command::new("bash");
        command.arg(script).env_clear().env("PATH", self.fakes.0.path());
        command
    }

    /// Whether setup succeeds, and what it says.
    fn set_up(&self, args: &[&str]) -> (bool, String) {
        let output = output(self.bash(&project().join(".ci/setup")).args(args));
        (output.status.success(), text(&output.stdout) + &text(&output.stderr))
    }

    /// The calls of apt-get that install.
    fn installs(&self) -> Vec<String> {
        let installs = |line: &String| line.starts_with("apt-get ") && line.contains(" install ");
        self.fakes.recorded().into_iter().filter(installs).collect()
    }

    /// The calls that change something.
    fn changes(&self) -> Vec<String> {
        let asks = |line: &String| line.starts_with("rustup ") && line.contains(" list");
        self.fakes.recorded().into_iter().filter(|line| !asks(line)).collect()
    }
}

#[test]
fn a_bare_machine_gets_everything_at_once_and_then_nothing() {
    let debian = Debian::new();
    let (done, said) = debian.set_up(&["test"]);
    assert!(
        done && said.contains("installing from Debian's packages: build-essential"),
        "{said}"
    );
    assert!(debian.has("qemu-utils") && debian.has("qemu-system-x86") && debian.has("chromium"));
    assert!(debian.targets().contains("x86_64-unknown-illumos"));
    assert_eq!(debian.installs().len(), 1);
    debian.fakes.forget();
    assert_eq!(debian.set_up(&["test"]), (true, String::new()));
    assert_eq!(debian.changes(), Vec::<String>::new());
}

#[test]
fn each_part_gets_what_it_needs_and_no_more() {
    let debian = Debian::new();
    let (done, said) = debian.set_up(&["build"]);
    assert!(done && debian.has("musl-tools"), "{said}");
    assert!(!debian.has("qemu-system-x86") && !debian.has("chromium"));
    let (done, said) = debian.set_up(&["demo"]);
    assert!(
        done && debian.has("qemu-system-x86") && debian.has("qemu-utils"),
        "{said}"
    );
    // A browser, a database and shells are for tests alone, and so is the other system.
    for package in ["chromium", "postgresql", "mksh", "sqlite3", "nftables"] {
        assert!(!debian.has(package), "{package}");
    }
    assert_eq!(
        debian.targets(),
        "x86_64-unknown-linux-gnu\nx86_64-unknown-linux-musl\n"
    );
    let (done, said) = debian.set_up(&["build", "mtools"]);
    assert!(done && debian.has("mtools"), "{said}");
    for usage in [&[][..], &["everything"]] {
        let (done, said) = debian.set_up(usage);
        assert!(!done && said.contains("usage: .ci/setup"), "{said}");
    }
}

#[test]
fn a_list_names_what_is_missing_and_changes_nothing() {
    let debian = Debian::new();
    fs::remove_file(debian.state.path().join(".toolchain")).expect("no Rust");
    debian.put("git", "bookworm");
    let (done, said) = debian.set_up(&["--list", "demo"]);
    let listed: Vec<&str> = said.lines().collect();
    assert!(
        done && listed.contains(&"qemu-utils") && !listed.contains(&"git"),
        "{said}"
    );
    assert!(
        listed.ends_with(&["rust-1.95.0", "rust-std-x86_64-unknown-linux-musl"]),
        "{said}"
    );
    assert_eq!(debian.changes(), Vec::<String>::new());
    let (done, said) = debian.set_up(&["demo"]);
    assert!(done && said.contains("installing with rustup: Rust 1.95.0"), "{said}");
    assert_eq!(debian.set_up(&["--list", "demo"]), (true, String::new()));
}

/// The tools of another release stood there, and the emulator took them away: the demo failed ten minutes later.
#[test]
fn tools_of_another_release_are_not_removed_but_aligned() {
    let debian = Debian::new();
    debian.put("qemu-utils", "backports");
    let (done, said) = debian.set_up(&["demo"]);
    assert!(done && said.contains("trying again"), "{said}");
    assert!(debian.has("qemu-utils") && debian.has("qemu-system-x86"));
    let installs = debian.installs();
    assert_eq!(installs.len(), 2);
    assert!(installs.iter().all(|line| line.contains("--no-remove")), "{installs:?}");
}

#[test]
fn a_package_that_is_half_installed_is_missing() {
    let debian = Debian::new();
    assert!(debian.set_up(&["demo"]).0);
    debian.put(".half-qemu-utils", "");
    let (done, said) = debian.set_up(&["demo"]);
    assert!(
        done && said == "setup: installing from Debian's packages: qemu-utils\n",
        "{said}"
    );
}

#[test]
fn what_is_still_missing_afterwards_is_named() {
    let debian = Debian::new();
    debian.put(".broken", "mksh");
    let (done, said) = debian.set_up(&["test"]);
    assert!(!done && said.contains("still missing after installing: mksh"), "{said}");
}

/// A new machine fetches its lists by itself, and setup comes in between.
#[test]
fn the_lock_of_the_lists_is_waited_for() {
    let debian = Debian::new();
    debian.put(
        ".says-update",
        "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 812 (apt-get)\n",
    );
    debian.fakes.add("sleep", &debian.at("rm STATE/.says-update"));
    let (done, said) = debian.set_up(&["build"]);
    assert!(done && debian.has("musl-tools"), "{said}");
}

/// What apt-get said on a Debian 12 in these states, and what setup makes of it.
#[test]
fn what_apt_refuses_ends_in_words_that_say_what_to_do() {
    let cases = [
        (
            "update",
            "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 812 (apt-get)",
            "wait for its end",
        ),
        (
            "install",
            "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 812 (unattended-upgr)",
            "wait for its end",
        ),
        (
            "install",
            "E: dpkg was interrupted, you must manually run 'dpkg --configure -a' to correct the problem.",
            "mend it with `dpkg --configure -a`",
        ),
        (
            "install",
            "dpkg: error processing package qemu-utils (--configure):\nE: Sub-process /usr/bin/dpkg returned an error code (1)",
            "mend it with `dpkg --configure -a`",
        ),
        (
            "install",
            "Err:1 http://deb.debian.org/debian bookworm InRelease\n  Temporary failure resolving 'deb.debian.org'\nE: Unable to locate package musl-tools",
            "look at the network",
        ),
        (
            "install",
            "E: Unable to locate package musl-tools",
            "this is made for Debian 12",
        ),
        (
            "install",
            "E: You don't have enough free space in /var/cache/apt/archives/.",
            "make room",
        ),
        (
            "install",
            "E: Packages need to be removed but remove is disabled.",
            "only by removing others",
        ),
        ("install", "E: something that nobody knows", "its own words are above"),
    ];
    for (call, says, wanted) in cases {
        let debian = Debian::new();
        debian.fakes.add("sleep", "");
        debian.put(&format!(".says-{call}"), &format!("{says}\n"));
        let (done, said) = debian.set_up(&["demo"]);
        assert!(
            !done && said.contains(says) && said.contains(wanted),
            "{wanted}: {said}"
        );
        assert!(!debian.has("qemu-utils"));
    }
}

#[test]
fn who_may_not_install_hears_what_root_must_do() {
    let debian = Debian::new();
    debian.fakes.add("id", "echo 1000");
    let (done, said) = debian.set_up(&["build"]);
    assert!(
        !done && said.contains("there is no sudo: have root run `apt-get install build-essential"),
        "{said}"
    );
    let refusals = [
        ("sudo: a password is required", "do this in a terminal"),
        (
            "ada is not in the sudoers file.",
            "have an administrator run `apt-get install build-essential",
        ),
    ];
    for (says, wanted) in refusals {
        debian.fakes.record("sudo", &format!("echo '{says}' >&2; exit 1"));
        let (done, said) = debian.set_up(&["build"]);
        assert!(!done && said.contains(wanted), "{said}");
    }
    assert_eq!(debian.installs(), Vec::<String>::new());
    // Nobody can type a password here, so sudo may not ask for one.
    debian.fakes.forget();
    debian.fakes.record("sudo", "shift; exec \"$@\"");
    let (done, said) = debian.set_up(&["build"]);
    assert!(done && debian.has("musl-tools"), "{said}");
    let sudos: Vec<String> = debian.fakes.recorded();
    assert!(sudos.iter().any(|line| line.starts_with("sudo -n env ")), "{sudos:?}");
}

#[test]
fn without_rustup_or_debian_it_says_where_to_get_it() {
    let debian = Debian::new();
    fs::remove_file(debian.fakes.path_of("apt-get")).expect("no apt-get");
    let (done, said) = debian.set_up(&["build"]);
    assert!(!done && said.contains("install by hand: build-essential"), "{said}");
    fs::remove_file(debian.fakes.path_of("rustup")).expect("no rustup");
    let (done, said) = debian.set_up(&["build"]);
    assert!(!done && said.contains("https://rustup.rs"), "{said}");
    debian.fakes.add(
        "rustup",
        &debian.at("[ \"$1 $2\" != 'target add' ] || exit 1; echo 1.95.0"),
    );
    for package in [
        "build-essential",
        "pkg-config",
        "libssl-dev",
        "musl-tools",
        "git",
        "ca-certificates",
    ] {
        debian.put(package, "bookworm");
    }
    let (done, said) = debian.set_up(&["build"]);
    assert!(
        !done && said.contains("could not install x86_64-unknown-linux-musl: look at the network"),
        "{said}"
    );
}
