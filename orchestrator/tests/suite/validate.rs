//! `helios-ci validate` and `explain`, as a person at a desk without a server uses them.

#![allow(clippy::disallowed_methods, reason = "the command line is run as a person would")]

use std::{fs, path::Path, process::Command};

use serde_json::Value;

use crate::support;

const GOOD: &str = "on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n      - run: x\n";
const LATER: &str = "on: push\npermissions: {}\njobs:\n  a:\n    runs-on: x\n    steps:\n      - run: x\n";
const WRONG: &str = "on: push\njobs:\n  a:\n    runs-on: x\n    step:\n      - run: x\n    steps:\n      - runn: x\n";

/// Exit code, standard output, standard error.
fn said(dir: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(support::helios_ci());
    command.args(["--config", "/nonexistent/config.yaml"]).args(args);
    let output = command.current_dir(dir).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn desk() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [("good.yml", GOOD), ("later.yml", LATER), ("wrong.yml", WRONG)] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

#[test]
fn the_exit_code_tells_the_two_layers_apart() {
    let dir = desk();
    for (args, code) in [
        (["validate", "good.yml", "--runnable"], 0),
        (["validate", "later.yml", "--format=short"], 0),
        (["validate", "later.yml", "--runnable"], 1),
        (["validate", "wrong.yml", "--format=json"], 1),
        (["validate", "absent.yml", "--format=short"], 2),
    ] {
        let (exit, out, err) = said(dir.path(), &args);
        assert_eq!(exit, Some(code), "{args:?}: {out}{err}");
    }
}

#[test]
fn each_form_names_the_place_the_code_and_the_word_that_was_meant() {
    let dir = desk();
    let (_, short, _) = said(dir.path(), &["validate", "wrong.yml", "--format", "short"]);
    assert_eq!(
        short,
        "wrong.yml:5:5: unknown key `step` in a job (did you mean `steps`?) [unknown-key]\n\
         wrong.yml:8:9: unknown key `runn` in a step (did you mean `run`?) [unknown-key]\n"
    );
    let (_, human, _) = said(dir.path(), &["validate", "wrong.yml"]);
    for part in [
        "unknown-key",
        "wrong.yml:5:5",
        "    step:",
        "did you mean `run`?",
        "1 file: not valid (2 errors",
    ] {
        assert!(human.contains(part), "{part}: {human}");
    }
    let (_, json, _) = said(dir.path(), &["validate", "later.yml", "wrong.yml", "--format", "json"]);
    let answer: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&answer["valid"], &answer["files"][0]["runnable"]),
        (&false.into(), &false.into())
    );
    let first = &answer["files"][1]["diagnostics"][0];
    assert_eq!(
        (
            &first["severity"],
            &first["code"],
            &first["line"],
            &first["column"],
            &first["length"]
        ),
        (&"error".into(), &"unknown-key".into(), &5.into(), &5.into(), &4.into())
    );
    assert_eq!(answer["files"][0]["diagnostics"][0]["severity"], "unsupported");
}

#[test]
fn files_are_found_as_in_a_repository() {
    let dir = tempfile::tempdir().unwrap();
    let (exit, _, err) = said(dir.path(), &["validate"]);
    assert!(exit == Some(2) && err.contains("no workflow files"), "{err}");
    let folder = dir.path().join(".github/workflows");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("a.yml"), WRONG).unwrap();
    fs::write(folder.join("notes.md"), "no workflow").unwrap();
    for args in [
        &["validate", "--format=short"][..],
        &["validate", ".github/workflows", "--format=short"],
    ] {
        let (exit, out, _) = said(dir.path(), args);
        assert!(
            exit == Some(1) && out.starts_with(".github/workflows/a.yml:5:5: "),
            "{out}"
        );
    }
    // The project's own folder comes before all.
    fs::create_dir_all(dir.path().join(".helios/workflows")).unwrap();
    fs::write(dir.path().join(".helios/workflows/ci.yml"), GOOD).unwrap();
    assert_eq!(said(dir.path(), &["validate"]).0, Some(0));
}

#[test]
fn a_key_and_a_code_are_explained() {
    let dir = tempfile::tempdir().unwrap();
    let (exit, out, _) = said(dir.path(), &["explain", "jobs.<id>.strategy.matrix"]);
    assert!(exit == Some(0) && out.contains("one job for each combination"), "{out}");
    assert!(
        said(dir.path(), &["explain", "unknown-key"])
            .1
            .contains("not a valid workflow")
    );
    let (exit, _, err) = said(dir.path(), &["explain", "stepz"]);
    assert!(exit == Some(2) && err.contains("did you mean `steps`?"), "{err}");
}
