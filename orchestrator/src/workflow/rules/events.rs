//! `on`: filters, times and inputs.

use super::{
    super::{
        code::Code,
        glob::{Glob, MAX_PATTERNS, Subject},
        schema::{EVENTS, STARTING},
        walk::{Walk, quoted_list, shown},
    },
    cron,
};
use crate::yaml::{Key, Kind, Node, Scalar, Value};

/// Inputs of a manually started workflow, at GitHub.
const MAX_INPUTS: usize = 25;

/// Each filter with its opposite, and what its patterns are for.
const FILTERS: [(&str, &str, Subject); 3] = [
    ("branches", "branches-ignore", Subject::Ref),
    ("tags", "tags-ignore", Subject::Ref),
    ("paths", "paths-ignore", Subject::Path),
];

/// Checks the value of `on`.
pub(in super::super) fn check(walk: &mut Walk<'_>, node: &Node) {
    match &node.value {
        Value::Mapping(entries) => {
            if entries.is_empty() {
                no_event(walk, node);
            }
            for (key, value) in entries {
                never_starts(walk, key.span, &key.text);
                if !walk.looks_below(&key.text) {
                    continue;
                }
                match (key.text.as_str(), &value.value) {
                    ("schedule", Value::Sequence(items)) => items.iter().for_each(|item| schedule(walk, item)),
                    ("workflow_dispatch", _) => dispatch(walk, value),
                    ("workflow_call", _) => call(walk, value),
                    (_, Value::Mapping(_)) => filters(walk, value),
                    _ => {}
                }
            }
        }
        Value::Sequence(items) => {
            if items.is_empty() {
                no_event(walk, node);
            }
            for item in items {
                if let Some(scalar) = item.scalar() {
                    never_starts(walk, item.span, &scalar.text());
                }
            }
        }
        Value::Scalar(scalar) => never_starts(walk, node.span, &scalar.text()),
    }
}

fn no_event(walk: &mut Walk<'_>, node: &Node) {
    walk.report(Code::EmptyValue, node.span, "`on` names no event");
}

fn never_starts(walk: &mut Walk<'_>, at: crate::yaml::Span, name: &str) {
    if EVENTS.contains(&name) && !STARTING.contains(&name) {
        walk.report_help(
            Code::EventNeverStarts,
            at,
            format!("the event `{name}` starts no run here yet"),
            format!("the events that start runs here are {}", quoted_list(&STARTING)),
        );
    }
}

/// The entry of a key; `Node::get` gives its value alone.
fn entry<'n>(node: &'n Node, name: &str) -> Option<(&'n Key, &'n Node)> {
    match &node.value {
        Value::Mapping(entries) => entries
            .iter()
            .find(|(key, _)| key.text == name)
            .map(|(key, value)| (key, value)),
        _ => None,
    }
}

fn filters(walk: &mut Walk<'_>, event: &Node) {
    for (only, except, subject) in FILTERS {
        let (positive, negative) = (entry(event, only), entry(event, except));
        if let (Some((first, _)), Some((second, _))) = (positive, negative) {
            let later = if first.span.offset > second.span.offset {
                first
            } else {
                second
            };
            walk.report_help(
                Code::ConflictingKeys,
                later.span,
                format!("`{only}` and `{except}` cannot both be given"),
                format!("put `!` before the patterns to exclude, under `{only}`"),
            );
        }
        for (key, node) in positive.into_iter().chain(negative) {
            patterns(walk, key, node, subject, key.text == only);
        }
    }
}

fn patterns(walk: &mut Walk<'_>, key: &Key, node: &Node, subject: Subject, is_positive: bool) {
    let items: Vec<&Node> = match &node.value {
        Value::Sequence(items) => items.iter().collect(),
        _ => vec![node],
    };
    if let Some(item) = items.get(MAX_PATTERNS) {
        let message = format!("`{}` has more than {MAX_PATTERNS} patterns", key.text);
        walk.report(Code::UnsupportedSize, item.span, message);
        return;
    }
    let mut positive = 0;
    for item in &items {
        let Some(scalar) = item.scalar() else { return };
        let pattern = scalar.text();
        positive += usize::from(!pattern.starts_with('!'));
        if walk.is_full() {
            return;
        }
        // An expression cannot be used here, which was said.
        if pattern.contains("${{") {
            continue;
        }
        if let Err(reason) = Glob::new(&pattern, subject) {
            let message = format!("`{}` is not a pattern: {reason}", shown(&pattern));
            walk.report(Code::BadFilter, item.span, message);
        }
    }
    if is_positive && positive == 0 && !items.is_empty() {
        walk.report_help(
            Code::OnlyNegative,
            key.span,
            format!("every pattern of `{}` begins with `!`, so nothing passes", key.text),
            format!("put `'**'` before them, or use `{}-ignore`", key.text),
        );
    }
}

fn schedule(walk: &mut Walk<'_>, item: &Node) {
    let Some(node) = item.get("cron") else { return };
    if let Value::Scalar(scalar) = &node.value
        && let Some(wrong) = cron::wrong(&scalar.text())
    {
        let message = format!("`{}` is not a time: {wrong}", shown(&scalar.text()));
        walk.report(Code::BadSchedule, node.span, message);
    }
}

fn inputs(node: &Node) -> &[(Key, Node)] {
    match node.get("inputs").map(|node| &node.value) {
        Some(Value::Mapping(entries)) => entries,
        _ => &[],
    }
}

fn dispatch(walk: &mut Walk<'_>, event: &Node) {
    let inputs = inputs(event);
    if let Some((key, _)) = inputs.get(MAX_INPUTS) {
        walk.report(
            Code::BadInput,
            key.span,
            format!("a workflow has at most {MAX_INPUTS} inputs"),
        );
    }
    for (key, input) in inputs.iter().take(MAX_INPUTS) {
        let kind = input
            .get("type")
            .and_then(Node::scalar)
            .map(|scalar| scalar.text().into_owned());
        let kind = kind.as_deref().unwrap_or("string");
        let options = input.get("options");
        match (kind, options) {
            ("choice", None) => {
                let message = format!("the input `{}` is a choice without `options`", shown(&key.text));
                walk.report(Code::BadInput, key.span, message);
            }
            ("choice", Some(options)) => choice(walk, key, input, options),
            (_, Some(options)) => {
                let message = format!(
                    "`options` belong to an input of the type `choice`, not `{}`",
                    shown(kind)
                );
                walk.report(Code::BadInput, options.span, message);
            }
            _ => default_fits(walk, key, input, kind),
        }
    }
}

fn choice(walk: &mut Walk<'_>, key: &Key, input: &Node, options: &Node) {
    let Value::Sequence(items) = &options.value else { return };
    let words: Vec<String> = items
        .iter()
        .filter_map(Node::scalar)
        .map(|scalar| scalar.text().into_owned())
        .collect();
    if words.is_empty() {
        let message = format!("the input `{}` has nothing to choose from", shown(&key.text));
        walk.report(Code::BadInput, options.span, message);
    } else if let Some(default) = input.get("default")
        && let Some(scalar) = default.scalar()
        && !words.iter().any(|word| *word == scalar.text())
    {
        let message = format!("the default `{}` is not one of the `options`", shown(&scalar.text()));
        walk.report(Code::InputDefault, default.span, message);
    }
}

fn call(walk: &mut Walk<'_>, event: &Node) {
    for (key, input) in inputs(event) {
        if let Some(kind) = input.get("type").and_then(Node::scalar) {
            default_fits(walk, key, input, &kind.text());
        }
    }
}

/// A default must be of its input's type.
fn default_fits(walk: &mut Walk<'_>, key: &Key, input: &Node, kind: &str) {
    let Some(default) = input.get("default") else { return };
    let Value::Scalar(scalar) = &default.value else { return };
    let fits = match kind {
        "boolean" => is_boolean(scalar),
        "number" => matches!(scalar.kind, Kind::Number(_)) || scalar.text().trim().parse::<f64>().is_ok(),
        _ => true,
    };
    if !fits && !scalar.text().is_empty() && !scalar.text().contains("${{") {
        let message = format!(
            "the default of the input `{}` must be a {kind}, not `{}`",
            shown(&key.text),
            shown(&scalar.text())
        );
        walk.report(Code::BadInput, default.span, message);
    }
}

fn is_boolean(scalar: &Scalar) -> bool {
    matches!(scalar.kind, Kind::Bool(_)) || matches!(scalar.text().as_ref(), "true" | "false")
}
