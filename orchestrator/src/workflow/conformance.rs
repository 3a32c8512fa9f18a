//! The cases nobody here wrote: filter patterns and whole workflow files with what GitHub's own
//! parser makes of them.

use serde_json::Value as Json;

use super::{Defaults, Glob, Globs, Subject, validate};
use crate::prerequisites::needs_conformance_lines;

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

#[test]
fn workflow_files() {
    let Some(cases) = cases("workflow_reader.jsonl") else {
        return;
    };
    let apart = [
        // Broken in the configuration of an event that never happens here, which is not read.
        "errors-on-workflow_call-output.yml",
        // A comment right behind `]`: GitHub takes it, YAML 1.2 and our parser do not.
        "yaml-schema-sequence.yml",
    ];
    let (mut agreed, mut unsupported) = (0, 0);
    for case in &cases {
        let id = case["id"].as_str().unwrap();
        let path = format!(".github/workflows/{id}");
        let input = case["input"].as_str().unwrap();
        let found = validate(
            &path,
            input.as_bytes(),
            &Defaults {
                job_timeout_minutes: 360,
            },
        )
        .err();
        let found = found.unwrap_or_default();
        let text = found.iter().map(|d| format!("\n  {d}")).collect::<String>();
        if found.iter().any(|d| d.message.contains("not supported yet")) {
            unsupported += 1;
            continue;
        }
        let options = case["options"].as_str().unwrap();
        if options.lines().any(|line| line.starts_with("max-")) || apart.contains(&id) {
            continue;
        }
        assert_eq!(
            found.is_empty(),
            case["valid"],
            "{id}:{text}\n{input}\n{}",
            case["expected"]["errors"]
        );
        if let Some(message) = case["expected"]["errors"][0]["Message"].as_str()
            && let Some((_, rest)) = message.split_once("(Line: ")
        {
            let line: u32 = rest.split(',').next().unwrap().parse().unwrap();
            assert_eq!(found[0].line, line, "{id}: {message}:{text}");
        }
        agreed += 1;
    }
    println!("{agreed} files agree, {unsupported} are refused as not supported yet");
    assert!(agreed >= 15, "only {agreed} of {} cases were compared", cases.len());
}
