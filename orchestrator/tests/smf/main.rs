//! What is installed on illumos, as far as another system can tell: manifests against the system's own document
//! type, methods under four shells, rights, and the package's list of files against what is laid. And what the project's
//! own set-up installs on Debian, and what `make demo` says.
//!
//! A program of its own beside `suite`: it writes programs and starts them at once, and what a child that was forked in
//! between holds open for writing cannot be run, so all its tests take [`STARTING`] for that; others need not.

#![allow(
    clippy::disallowed_methods,
    reason = "shells, make and xmllint are started as a person would"
)]

mod demo;
mod manifests;
mod methods;
mod package;
mod prepare;
#[path = "../support/prerequisites.rs"]
mod prerequisites;
mod rights;
mod setup;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Mutex, PoisonError},
};

use tempfile::TempDir;

/// The shells whose POSIX mode every script must stay within. The last is the one that runs them: `/sbin/sh` of illumos
/// is ksh93.
const SHELLS: [&str; 4] = ["sh", "dash", "mksh", "ksh93"];

/// Held while a program is written or started: a process forked in between would hold the file open for
/// writing, and such a file cannot be run.
static STARTING: Mutex<()> = Mutex::new(());

fn project() -> PathBuf {
    fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).expect("the project")
}

fn read(path: &str) -> String {
    fs::read_to_string(project().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn spawn(command: &mut Command) -> Child {
    let _starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}; .ci/setup installs what tests need"))
}

fn output(command: &mut Command) -> Output {
    spawn(command).wait_with_output().expect("its output")
}

fn write_program(path: &Path, text: &str) {
    let _starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    fs::write(path, text).expect("a program");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("its mode");
}

/// The standard output or error of a process.
fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// Programs in front of the system's own. Each run of one that `record` made is a line of the record.
pub struct Fakes(TempDir);

impl Fakes {
    fn new() -> Self {
        Self(TempDir::new().expect("a folder"))
    }

    fn add(&self, name: &str, body: &str) {
        write_program(&self.0.path().join(name), &format!("#!/bin/sh\n{body}\n"));
    }

    fn record(&self, name: &str, body: &str) {
        let record = self.0.path().join("record.log");
        self.add(name, &format!("echo \"{name} $*\" >>{}\n{body}", record.display()));
    }

    fn recorded(&self) -> Vec<String> {
        let text = fs::read_to_string(self.0.path().join("record.log")).unwrap_or_default();
        text.lines().map(|line| line.trim_end().to_owned()).collect()
    }

    fn forget(&self) {
        fs::write(self.0.path().join("record.log"), "").expect("an empty record");
    }

    /// Where one of them is.
    fn path_of(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// For the environment of a process.
    fn path(&self) -> String {
        format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.0.path().display())
    }
}
