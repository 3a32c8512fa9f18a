//! `.ci/setup` on Debian machines in odd states, with a Debian of our own: packages are files that hold the release that
//! they are from, and apt-get installs, refuses and removes by the rules that matter here.

use std::{fs, process::Command};

use tempfile::TempDir;

use crate::{Fakes, output, project, text};

/// Installs what is named. The emulator and its tools must be of one release: where they are not, the tools go, unless
/// nothing may go or they are asked for in the emulator's.
const APT_GET: &str = r#"
[ "$1" = update ] && exit 0
no_remove= named= aligned=
for word; do
	case $word in
		--no-remove) no_remove=yes ;;
		install|-*) ;;
		qemu-utils/bookworm) aligned=yes; echo bookworm >STATE/qemu-utils ;;
		*) named="$named ${word%/*}" ;;
	esac
done
case " $named " in *" qemu-system-x86 "*)
	if grep -qs backports STATE/qemu-utils; then
		[ -z "$no_remove" ] || { echo "E: Packages need to be removed but remove is disabled." >&2; exit 100; }
		rm STATE/qemu-utils
	fi ;;
esac
for package in $named; do
	[ "$package" = "$(cat STATE/.broken 2>/dev/null)" ] || [ -e "STATE/$package" ] || echo bookworm >"STATE/$package"
done
"#;

struct Debian {
    fakes: Fakes,
    state: TempDir,
}

impl Debian {
    fn new() -> Self {
        let (fakes, state) = (Fakes::new(), TempDir::new().expect("a folder"));
        let at = |body: &str| body.replace("STATE", &state.path().display().to_string());
        fakes.add(
            "dpkg-query",
            &at("[ -e \"STATE/$4\" ] && printf 'install ok installed'"),
        );
        fakes.record("apt-get", &at(APT_GET));
        fakes.add("rustup", "echo x86_64-unknown-linux-musl; echo x86_64-unknown-illumos");
        fakes.add("id", "echo 0");
        Self { fakes, state }
    }

    fn has(&self, package: &str) -> bool {
        self.state.path().join(package).exists()
    }

    fn put(&self, package: &str, release: &str) {
        fs::write(self.state.path().join(package), release).expect("a package");
    }

    /// Whether setup succeeds, and what it says.
    fn set_up(&self) -> (bool, String) {
        let mut command = Command::new("bash");
        command.arg(project().join(".ci/setup")).env("PATH", self.fakes.path());
        let output = output(&mut command);
        (output.status.success(), text(&output.stdout) + &text(&output.stderr))
    }

    fn installs(&self) -> usize {
        let recorded = self.fakes.recorded();
        recorded.iter().filter(|line| line.contains(" install ")).count()
    }
}

#[test]
fn a_bare_machine_gets_everything_at_once_and_then_nothing() {
    let debian = Debian::new();
    let (done, said) = debian.set_up();
    assert!(
        done && said.contains("installing from Debian's packages: build-essential"),
        "{said}"
    );
    assert!(debian.has("qemu-utils") && debian.has("qemu-system-x86") && debian.has("chromium"));
    assert_eq!(debian.installs(), 1);
    debian.fakes.forget();
    assert_eq!(debian.set_up(), (true, String::new()));
    assert_eq!(debian.fakes.recorded(), Vec::<String>::new());
}

/// The tools of another release stood there, and the emulator took them away: the demo failed ten minutes later.
#[test]
fn tools_of_another_release_are_not_removed_but_aligned() {
    let debian = Debian::new();
    debian.put("qemu-utils", "backports");
    let (done, said) = debian.set_up();
    assert!(done && said.contains("trying again"), "{said}");
    assert!(debian.has("qemu-utils") && debian.has("qemu-system-x86"));
    let removing = debian
        .fakes
        .recorded()
        .into_iter()
        .filter(|line| line.contains(" install "));
    assert!(
        removing.clone().all(|line| line.contains("--no-remove")),
        "{:?}",
        removing.collect::<Vec<_>>()
    );
}

#[test]
fn what_is_still_missing_afterwards_is_named() {
    let debian = Debian::new();
    fs::write(debian.state.path().join(".broken"), "mksh").expect("a package");
    let (done, said) = debian.set_up();
    assert!(!done && said.contains("still missing after installing: mksh"), "{said}");
}
