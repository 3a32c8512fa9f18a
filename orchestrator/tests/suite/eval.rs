//! `helios-ci eval`: no daemon, no configuration, one expression.

#![allow(clippy::disallowed_methods, reason = "the command line is run as a person would")]

use std::{fs, process::Command};

use serde_json::{Value, json};

use crate::support;

/// The exit code, and what is on standard output and standard error.
fn eval(args: &[&str], contexts: Option<&str>) -> (Option<i32>, String, String) {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(support::helios_ci());
    command
        .args(["--config", "/nonexistent/config.yaml", "eval"])
        .args(args);
    if let Some(text) = contexts {
        let file = dir.path().join("contexts.json");
        fs::write(&file, text).unwrap();
        command.arg("--context").arg(file);
    }
    let output = command.env("NO_COLOR", "1").current_dir(dir.path()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

const CONTEXTS: &str = r#"{"github": {"ref": "refs/heads/main", "labels": [{"name": "b"}, {"name": "a"}]},
    "job": {"status": "failure"}, "needs": {"build": {"result": "success"}, "lint": {"result": "skipped"}}}"#;

#[test]
fn a_value_is_printed_as_json() {
    for (args, contexts, wanted) in [
        (&["1 == 1.0"][..], None, json!(true)),
        (&["-1"], None, json!(-1)),
        (&["github.ref"], None, json!(null)),
        (&["secrets || 'x'"], None, json!({})),
        (&["NaN"], None, json!("NaN")),
        (&["github.labels.*.name"], Some(CONTEXTS), json!(["b", "a"])),
        (
            &["toJSON(github.labels[0])"],
            Some(CONTEXTS),
            json!("{\n  \"name\": \"b\"\n}"),
        ),
        (
            &["--type", "string", "on ${{ github.ref }}"],
            Some(CONTEXTS),
            json!("on refs/heads/main"),
        ),
        (
            &["--type", "string", "${{ github.labels }}"],
            Some(CONTEXTS),
            json!([{"name": "b"}, {"name": "a"}]),
        ),
        (&["--type", "string", "1 == 1"], None, json!("1 == 1")),
        (&["--type", "if", "github.ref"], None, json!(false)),
        (&["--type", "if", "!github.ref"], None, json!(true)),
        (&["--type", "if", ""], None, json!(true)),
        (&["--type", "if", "github.ref"], Some(CONTEXTS), json!(false)),
        (&["--type=if", "${{ failure() }}"], Some(CONTEXTS), json!(true)),
        (&["--type=if", "success('build')"], Some(CONTEXTS), json!(true)),
        (&["--type=if", "success('build', 'lint')"], Some(CONTEXTS), json!(false)),
    ] {
        let (code, out, err) = eval(args, contexts);
        assert_eq!((code, err.as_str()), (Some(0), ""), "{args:?}");
        assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), wanted, "{args:?}");
    }
}

#[test]
fn what_is_wrong_is_shown_with_a_mark_below_its_place() {
    for (args, contexts, code, text, marked, help) in [
        (
            &["1 == \"x\""][..],
            None,
            "lexing",
            "is no name, number or operator",
            "\"x\"",
            "single quotes",
        ),
        // There is no arithmetic.
        (&["1 / 3"], None, "lexing", "is no name, number or operator", "/", ""),
        (&["1 <"], None, "parsing", "the expression ends too early", "<", ""),
        (
            &["true || nedds.a"],
            None,
            "parsing",
            "there is no context `nedds` here",
            "nedds",
            "did you mean `needs`?",
        ),
        (
            &["env.A"],
            Some(CONTEXTS),
            "parsing",
            "there is no context `env` here",
            "env",
            "here are: github, job, needs",
        ),
        (
            &["1 == tojso(1)"],
            None,
            "parsing",
            "there is no function `tojso`",
            "tojso",
            "did you mean `toJSON`?",
        ),
        (
            &["always()"],
            None,
            "parsing",
            "`always` cannot be called here",
            "always",
            "only in `if`",
        ),
        (
            &["'' || fromJSON('[')"],
            None,
            "evaluation",
            "`fromJSON` was given no JSON",
            "'['",
            "",
        ),
        (
            &["--type=string", "é ${{ 1 ) }}"],
            None,
            "parsing",
            "`)` is not expected here",
            ")",
            "",
        ),
        (
            &["--type=if", "failure('x')"],
            Some(CONTEXTS),
            "evaluation",
            "there is no job `x`",
            "'x'",
            "",
        ),
    ] {
        let (exit, out, err) = eval(args, contexts);
        assert_eq!((exit, out.as_str()), (Some(1), ""), "{args:?} {err}");
        assert!(
            err.contains(&format!("expression::{code}")) && err.contains(text),
            "{err}"
        );
        assert!(err.contains(help), "{err}");
        // The mark stands under the middle of what it is about.
        let lines: Vec<&str> = err.lines().collect();
        let mark = lines
            .iter()
            .position(|line| line.contains("here") && line.contains('╰'))
            .unwrap()
            - 1;
        let column = lines[mark]
            .chars()
            .position(|c| c == '┬' || c == '▲')
            .unwrap_or_else(|| panic!("{err}"));
        let above: Vec<char> = lines[mark - 1].chars().collect();
        let from = column.saturating_sub(marked.chars().count() / 2);
        let shown: String = above[from..].iter().take(marked.chars().count()).collect();
        assert_eq!(shown, marked, "{err}");
    }
}

#[test]
fn files_cannot_be_hashed_without_a_job() {
    let (code, out, err) = eval(&["hashFiles('**/Cargo.lock')"], None);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.contains("needs the files of a job's workspace"), "{err}");
}

#[test]
fn a_file_that_holds_no_contexts_is_a_wrong_command() {
    for (text, wanted) in [
        ("[]", "holds no object with contexts"),
        ("{", "is not JSON"),
        ("", "is not JSON"),
    ] {
        let (code, out, err) = eval(&["1"], Some(text));
        assert_eq!((code, out.as_str()), (Some(2), ""), "{err}");
        assert!(err.contains(wanted), "{err}");
    }
    let (code, _, err) = eval(&["1", "--context", "nowhere.json"], None);
    assert_eq!(code, Some(2));
    assert!(err.contains("there is no file nowhere.json"), "{err}");
    assert_eq!(eval(&["1", "--type", "number"], None).0, Some(2));
}

#[test]
fn a_terminal_obeys_nothing_of_an_expression() {
    let (code, _, err) = eval(&["1 == \u{1b}[31m\u{202e}"], None);
    assert_eq!(code, Some(1));
    assert!(!err.contains('\u{1b}') && !err.contains('\u{202e}'), "{err:?}");
}
