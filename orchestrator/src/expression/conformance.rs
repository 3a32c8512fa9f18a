//! The cases nobody here wrote: expressions, and what GitHub's own evaluators make of them.

use serde_json::Value as Json;

use super::{Available, Evaluated, Expression, Input, Object, Outcome, Stage, Status, StatusFunctions, Value};
use crate::prerequisites::needs_conformance_lines;

/// Cases that are judged otherwise here, each with its reason.
const APART: [(&str, &str); 0] = [];

/// With numbers in one form, and names in any order.
fn comparable(value: &Value) -> Json {
    serde_json::to_value(value).unwrap()
}

#[test]
fn expressions_mean_what_they_mean_at_github() {
    let Some(lines) = needs_conformance_lines("expressions.jsonl") else {
        return;
    };
    let mut wrong = Vec::new();
    let mut apart: Vec<&str> = APART.iter().map(|(id, _)| *id).collect();
    for line in &lines {
        let case: Json = serde_json::from_str(line).unwrap();
        let id = case["id"].as_str().unwrap();
        if let Some(place) = apart.iter().position(|known| *known == id) {
            apart.remove(place);
            continue;
        }
        // Read from the line itself, as names must keep their order.
        let (_, contexts) = line.split_once("\"contexts\": ").unwrap();
        let mut contexts = serde_json::Deserializer::from_str(contexts).into_iter::<Box<serde_json::value::RawValue>>();
        let contexts = contexts.next().unwrap().unwrap();
        let Value::Object(contexts) = Value::from_json(contexts.get(), false).unwrap() else {
            panic!("{line}");
        };
        let names: Vec<&str> = contexts.entries().iter().map(|(name, _)| &**name).collect();
        let available = Available {
            contexts: &names,
            status: StatusFunctions::None,
            hash_files: false,
        };
        let evaluated = Expression::parse(case["expr"].as_str().unwrap(), &available)
            .and_then(|expression| expression.evaluate(&input(&contexts)));
        let found = match evaluated {
            Ok(Evaluated::Value(value)) => {
                let wanted = &case["expected"];
                let value_there = Value::from_json(&wanted["value"].to_string(), false).unwrap();
                let same = wanted["kind"] == value.kind() && comparable(&value_there) == comparable(&value);
                (!same).then(|| format!("{value:?}"))
            }
            Ok(needs) => Some(format!("{needs:?}")),
            Err(error) => {
                let stage = match error.stage() {
                    Stage::Lexing => "lexing",
                    Stage::Parsing => "parsing",
                    Stage::Evaluation => "evaluation",
                };
                (case["error"]["kind"] != stage).then(|| format!("{stage}: {error}"))
            }
        };
        wrong.extend(found.map(|found| format!("{line}\n  found: {found}")));
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        lines.len(),
        wrong.join("\n")
    );
    assert!(apart.is_empty(), "no such cases any more: {apart:?}");
    assert!(lines.len() >= 400, "{}", lines.len());
}

/// Contexts where all has gone well.
pub(super) fn input(contexts: &Object) -> Input<'_> {
    Input {
        contexts,
        status: Status {
            so_far: Outcome::Success,
            jobs: &[],
        },
        hashes: &[],
    }
}
