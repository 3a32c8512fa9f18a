//! `images/illumos/prepare.sh`, under four shells, in a folder that stands for the guest's root.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;

use crate::{Fakes, SHELLS, output, project, read, text, write_program};

/// What both systems call what steps use, in the order in which it is installed.
const COMMON: [&str; 6] = [
    "developer/versioning/git",
    "archiver/gnu-tar",
    "compress/gzip",
    "compress/xz",
    "compress/zstd",
    "security/sudo",
];

/// The script with every path of the guest below `root`, and with the programs of `fakes` alone to change anything.
fn inside(root: &Path, fakes: &Fakes) -> String {
    let script = read("images/illumos/prepare.sh");
    let path = "PATH=/usr/sbin:/usr/bin:/sbin\n";
    assert!(script.contains(path));
    let mut script = script.replace(path, &format!("PATH={}\n", fakes.path()));
    for there in ["/etc/", "/lib/svc/", "/var/", "/boot/"] {
        script = script.replace(&format!(" {there}"), &format!(" {}{there}", root.display()));
        script = script.replace(&format!(">{there}"), &format!(">{}{there}", root.display()));
    }
    // It runs on the machine of whoever tests: no path of that may be left.
    for line in script.lines().filter(|line| !line.starts_with(['#', 'P'])) {
        for word in line.split([' ', '>', '<', '=', '"', '\'', '(', ')', ';']) {
            let known = word.starts_with(root.to_str().expect("a path")) || ["/dev/null", "/"].contains(&word);
            assert!(
                !word.starts_with('/') || known || line.contains("echo"),
                "{word} in: {line}"
            );
        }
    }
    script
}

/// A guest that was installed and never prepared.
struct Guest {
    root: TempDir,
    fakes: Fakes,
    shell: &'static str,
}

impl Guest {
    /// `release` is the first line of its `/etc/release`.
    fn new(shell: &'static str, release: &str) -> Self {
        let (root, fakes) = (TempDir::new().expect("a folder"), Fakes::new());
        fakes.add("uname", "case $1 in -s) echo SunOS ;; -v) echo illumos-0 ;; esac");
        // 4: there is nothing to do.
        fakes.record("pkg", "case $3 in */sudo) exit 4 ;; esac");
        for program in ["git", "python3", "sync"] {
            fakes.add(program, "");
        }
        for program in ["svccfg", "svcadm", "zpool"] {
            fakes.record(program, "");
        }
        fakes.record(
            "ipadm",
            "[ $1 != show-addr ] || printf 'lo0/v4\\nlo0/v6\\nvioif0/v4\\n'",
        );
        let guest = Self { root, fakes, shell };
        fs::create_dir_all(guest.at("lib/svc/method")).expect("a folder");
        guest.lay("etc/release", &format!("  {release}\n  Copyright (c) 2026\n"));
        guest.lay("etc/ssh/ssh_host_ed25519_key", "private");
        guest.lay("etc/ssh/sshd_config", "kept");
        guest
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn lay(&self, path: &str, text: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    fn run(&self) -> Output {
        let here = self.at("mnt");
        for file in ["start-agent", "helios-agent.xml"] {
            self.lay(&format!("mnt/{file}"), &read(&format!("images/illumos/{file}")));
        }
        write_program(&here.join("prepare.sh"), &inside(self.root.path(), &self.fakes));
        output(
            Command::new(self.shell)
                .arg(here.join("prepare.sh"))
                .env_clear()
                .current_dir(self.root.path()),
        )
    }

    #[track_caller]
    fn refuses(&self, says: &[&str]) {
        let output = self.run();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{}: {said}", self.shell);
        for words in says {
            assert!(said.contains(words), "{}: no {words:?} in {said}", self.shell);
        }
        assert!(!self.at("lib/svc/method/helios-agent").exists(), "{}", self.shell);
        assert!(self.at("etc/ssh/ssh_host_ed25519_key").exists(), "{}", self.shell);
    }

    fn installed(&self) -> Vec<String> {
        let recorded = self.fakes.recorded();
        let packages = recorded.iter().filter_map(|line| line.strip_prefix("pkg install -q "));
        packages.map(str::to_owned).collect()
    }
}

#[test]
fn each_system_gets_its_own_packages_and_the_service() {
    for shell in SHELLS {
        for (release, authorities) in [
            ("OmniOS v11 r151054", "web/ca-bundle"),
            (
                "OpenIndiana Hipster 2025.10 (powered by illumos)",
                "crypto/ca-certificates",
            ),
        ] {
            let guest = Guest::new(shell, release);
            let output = guest.run();
            assert!(output.status.success(), "{shell}, {release}: {}", text(&output.stderr));
            let wanted: Vec<&str> = COMMON.into_iter().chain([authorities]).collect();
            assert_eq!(guest.installed(), wanted, "{shell}, {release}");
            let laid = fs::read_to_string(guest.at("lib/svc/method/helios-agent")).expect("the method");
            assert_eq!(laid, read("images/illumos/start-agent"), "{shell}");
            assert!(guest.at("var/svc/manifest/site/helios-agent.xml").exists(), "{shell}");
            let console = fs::read_to_string(guest.at("boot/conf.d/helios-ci")).expect("the loader's file");
            assert_eq!(console.lines().count(), 4, "{shell}: {console}");
            assert!(!guest.at("etc/ssh/ssh_host_ed25519_key").exists(), "{shell}");
            assert!(guest.at("etc/ssh/sshd_config").exists(), "{shell}");
            let recorded = guest.fakes.recorded();
            let deleted: Vec<&String> = recorded.iter().filter(|l| l.starts_with("ipadm delete")).collect();
            assert_eq!(deleted, ["ipadm delete-addr vioif0/v4"], "{shell}");
        }
    }
}

#[test]
fn a_system_whose_packages_are_not_known_is_refused_before_anything_is_done() {
    for shell in SHELLS {
        let guest = Guest::new(shell, "SmartOS 20260101T000000Z");
        guest.refuses(&["SmartOS 20260101T000000Z", "illumos-0", "OmniOS", "OpenIndiana"]);
        assert_eq!(guest.fakes.recorded(), Vec::<String>::new(), "{shell}");
        let nameless = Guest::new(shell, "");
        fs::remove_file(nameless.at("etc/release")).expect("removed");
        nameless.refuses(&["/etc/release", "illumos-0"]);
        let linux = Guest::new(shell, "OmniOS v11 r151054");
        linux.fakes.add("uname", "echo Linux");
        linux.refuses(&["inside the illumos guest"]);
        assert_eq!(linux.fakes.recorded(), Vec::<String>::new(), "{shell}");
    }
}

#[test]
fn packages_that_cannot_be_had_are_all_named_and_nothing_else_is_changed() {
    for shell in SHELLS {
        let guest = Guest::new(shell, "OmniOS v11 r151054");
        guest
            .fakes
            .record("pkg", "case $3 in compress/zstd | web/*) exit 1 ;; esac");
        guest.refuses(&["cannot install compress/zstd web/ca-bundle;"]);
        assert_eq!(
            guest.installed().len(),
            COMMON.len() + 1,
            "{shell}: the others were tried too"
        );
    }
}

/// What starts the agent in the guest can be tried on illumos alone; that each shell reads it is known here.
#[test]
fn the_guests_scripts_are_read_by_every_shell() {
    for shell in SHELLS {
        for script in ["prepare.sh", "start-agent"] {
            let file = project().join("images/illumos").join(script);
            let read = output(Command::new(shell).arg("-n").arg(file));
            assert_eq!(text(&read.stderr), "", "{shell} {script}");
            assert!(read.status.success(), "{shell} {script}");
        }
    }
}
