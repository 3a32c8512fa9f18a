//! The cases nobody here wrote: filter patterns and whole workflow files with what GitHub's own
//! parser makes of them.

use serde_json::Value as Json;

use super::{Defaults, Glob, Globs, Purpose, Subject, inspect, text};
use crate::{model::diagnostic::Severity, prerequisites::needs_conformance_lines, yaml::Rules};

fn cases(file: &str) -> Option<Vec<Json>> {
    let lines = needs_conformance_lines(file)?;
    Some(lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect())
}

fn strings(value: &Json) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect()
}

#[test]
fn filter_patterns() {
    let Some(cases) = cases("globs.jsonl") else { return };
    for case in &cases {
        if let Some(pattern) = case["pattern"].as_str() {
            let subjects: &[Subject] = match case["for"].as_str().unwrap() {
                "ref" => &[Subject::Ref],
                "path" => &[Subject::Path],
                _ => &[Subject::Ref, Subject::Path],
            };
            for subject in subjects {
                let valid = Glob::new(pattern, *subject).is_ok();
                assert_eq!(valid, case["valid"], "{subject:?}: {case}");
            }
            continue;
        }
        let patterns = strings(&case["patterns"]);
        let globs = patterns.iter().map(|p| Glob::new(p, Subject::Path));
        let globs = Globs::new(
            globs
                .collect::<Result<_, _>>()
                .unwrap_or_else(|e| panic!("{e}: {case}")),
        );
        let inputs = strings(&case["inputs"]);
        // A list of names passes `paths` when any of them matches, and is stopped by `paths-ignore`
        // when all of them do; without patterns nothing is stopped.
        let filtered = !patterns.is_empty();
        assert_eq!(
            filtered && !inputs.iter().any(|i| globs.matches(i)),
            case["include_skips"],
            "{case}"
        );
        assert_eq!(
            filtered && inputs.iter().all(|i| globs.matches(i)),
            case["ignore_skips"],
            "{case}"
        );
    }
}

/// Cases in which we differ from GitHub's parser, each with the reason.
const DIFFERENT: [(&str, &str); 2] = [
    (
        "errors-anchor-tag.yml",
        "anchors were no part of the language when the case was written, and are since 2025",
    ),
    (
        "yaml-schema-sequence.yml",
        "a comment right behind `]`, without a blank: YAML 1.2 has no comment there, and GitHub kept what an old library \
         of theirs took for one",
    ),
];

/// Whether a case is about more than what is written in its one file.
fn is_about_more(case: &Json) -> bool {
    let invalid = case["valid"] == false;
    // What another repository's workflow holds is judged when it is called.
    let calls = case["files"].is_object();
    // Counted in bytes of GitHub's own objects in memory.
    let result_size = case["options"].as_str().unwrap().contains("max-result-size");
    invalid && (calls || result_size)
}

/// What an expression names is seen when it is parsed, and nothing parses expressions yet.
fn is_inside_of_expressions(message: &str) -> bool {
    message.contains("within expression")
}

#[test]
fn workflow_files() {
    let Some(cases) = cases("workflow_reader.jsonl") else {
        return;
    };
    let mut wrong = Vec::new();
    let mut differ = Vec::new();
    for case in &cases {
        let id = case["id"].as_str().unwrap();
        if is_about_more(case) {
            continue;
        }
        let options = case["options"].as_str().unwrap();
        let depth = options.lines().find_map(|line| line.strip_prefix("max-depth: "));
        let rules = Rules {
            max_depth: depth.map_or(text::RULES.max_depth, |depth| depth.trim().parse().unwrap()),
            ..text::RULES
        };
        let path = format!(".github/workflows/{id}");
        let defaults = Defaults {
            job_timeout_minutes: 360,
        };
        let input = case["input"].as_str().unwrap();
        let (_, findings) = inspect(&path, input.as_bytes(), Purpose::Findings, &defaults, &rules);
        let errors: Vec<_> = findings
            .diagnostics
            .iter()
            .filter(|d| d.severity == Severity::Error)
            .collect();
        let message = case["expected"]["errors"][0]["Message"].as_str();
        let line: Option<u32> = message
            .and_then(|message| message.split_once("(Line: "))
            .map(|(_, rest)| rest.split(',').next().unwrap().parse().unwrap());
        if message.is_some_and(is_inside_of_expressions) {
            // It does not run all the same.
            let refused = findings.diagnostics.iter().any(|d| d.severity.refuses());
            assert!(refused, "{id}: {message:?}");
            continue;
        }
        let agrees =
            errors.is_empty() == case["valid"] && (errors.is_empty() || line.is_none_or(|line| errors[0].line == line));
        if agrees {
            continue;
        }
        if DIFFERENT.iter().any(|(known, _)| *known == id) {
            differ.push(id);
            continue;
        }
        let said: String = errors.iter().map(|d| format!("\n  {d}")).collect();
        wrong.push(format!("{id}: {message:?}{said}\n{input}"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for (id, reason) in DIFFERENT {
        let is_there = cases.iter().any(|case| case["id"] == *id);
        assert!(!is_there || differ.contains(&id), "{id} no longer differs: {reason}");
    }
}
