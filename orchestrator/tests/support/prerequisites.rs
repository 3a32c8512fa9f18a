//! What some tests need and not every machine has: a guest that `make` builds, data that nobody here wrote. A test
//! without it passes, says that it was skipped, and is counted at the end of `make test`; `make test-full`
//! (`HELIOS_CI_FULL`) builds all that can be built, and fails for lack of any of it.

#![allow(dead_code, reason = "each program that includes this uses its own part")]

use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
};

/// Says that the calling test does not run here, and why: one line, also to the file that `HELIOS_CI_SKIPPED` names.
pub fn skip(reason: &str) {
    println!("skipped: {reason}");
    let Some(list) = env::var_os("HELIOS_CI_SKIPPED") else {
        return;
    };
    let thread = std::thread::current();
    let line = format!("{reason}\t{}\n", thread.name().unwrap_or("a test"));
    // Written at once: other programs append to it meanwhile.
    fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(list)
        .and_then(|mut list| list.write_all(line.as_bytes()))
        .expect("the list of skipped tests can be written");
}

/// As [`skip`], for lack of what `make test-full` has: there the test fails.
pub fn skip_unless_full(reason: &str) {
    assert!(
        env::var_os("HELIOS_CI_FULL").is_none(),
        "`make test-full` skips nothing: {reason}"
    );
    skip(reason);
}

/// Whether a program can be started here; without it the caller's test is skipped.
pub fn needs_program(name: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let is_there = env::split_paths(&path).any(|folder| folder.join(name).is_file());
    if !is_there {
        skip_unless_full(&format!("no {name}"));
    }
    is_there
}

/// The folder of this project.
pub fn project() -> &'static Path {
    let mut folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    folders
        .find(|folder| folder.join("Cargo.lock").exists())
        .expect("a workspace")
}

/// A file or folder of the conformance data, which lies outside the project as its licences are not ours.
pub fn conformance(name: &str) -> Option<PathBuf> {
    let folder =
        env::var_os("HELIOS_CI_CONFORMANCE").map_or_else(|| project().join("../shared/conformance"), PathBuf::from);
    let path = folder.join(name);
    path.exists().then_some(path)
}

/// As [`conformance`]; without it the caller's test is skipped.
pub fn needs_conformance(name: &str) -> Option<PathBuf> {
    let path = conformance(name);
    if path.is_none() {
        skip_unless_full(&format!("no conformance data ({name})"));
    }
    path
}

/// As [`needs_conformance`], the lines of a file.
pub fn needs_conformance_lines(name: &str) -> Option<Vec<String>> {
    let text = fs::read_to_string(needs_conformance(name)?).expect("conformance data");
    Some(text.lines().map(str::to_owned).collect())
}

/// What `make` built below `build`, or where the variable says that it is.
pub fn built(name: &str, variable: &str) -> Option<PathBuf> {
    let folder = env::var_os(variable).map_or_else(|| project().join("build").join(name), PathBuf::from);
    // It is written last.
    folder
        .join("digest")
        .exists()
        .then(|| folder.canonicalize().expect("a folder"))
}

/// The tiny guest's folder.
pub fn guest() -> Option<PathBuf> {
    built("images/tiny", "HELIOS_CI_GUEST")
}

/// As [`guest`]; without it the caller's test is skipped.
pub fn needs_guest() -> Option<PathBuf> {
    let guest = guest();
    if guest.is_none() {
        skip_unless_full("the tiny guest is not built (`make guest`)");
    }
    guest
}
