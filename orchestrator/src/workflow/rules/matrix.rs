//! A matrix that is written out: it gives at least one job and no more than GitHub takes.

use std::collections::HashSet;

use super::super::{
    code::Code,
    walk::{Walk, shown},
};
use crate::yaml::{Node, Value};

/// Jobs of one matrix.
const MAX_JOBS: usize = 256;

/// Checks the matrix of a job.
pub(super) fn check(walk: &mut Walk<'_>, job: &Node) {
    let Some(matrix) = job.get("strategy").and_then(|strategy| strategy.get("matrix")) else {
        return;
    };
    let Value::Mapping(entries) = &matrix.value else { return };
    let vectors: Vec<_> = entries
        .iter()
        .filter(|(key, _)| key.text != "include" && key.text != "exclude")
        .collect();
    if vectors.is_empty() && matrix.get("include").is_none_or(is_empty_list) {
        let message = "the matrix gives no job: it has neither a list of values nor anything to `include`";
        walk.report(Code::BadMatrix, matrix.span, message);
    }
    let mut jobs: usize = 1;
    for (key, vector) in &vectors {
        match &vector.value {
            Value::Sequence(items) if items.is_empty() => {
                let message = format!("`{}` of the matrix has no value", shown(&key.text));
                walk.report(Code::BadMatrix, vector.span, message);
            }
            Value::Sequence(items) => jobs = jobs.saturating_mul(items.len()),
            // An expression gives it later.
            _ => return,
        }
    }
    let Some(Value::Sequence(excluded)) = matrix.get("exclude").map(|exclude| &exclude.value) else {
        if jobs > MAX_JOBS && matrix.get("exclude").is_none() {
            let message = format!("the matrix gives {jobs} jobs; there can be {MAX_JOBS}");
            walk.report(Code::BadMatrix, matrix.span, message);
        }
        return;
    };
    // A key that an expression makes may be any.
    if vectors.iter().any(|(key, _)| key.text.contains("${{")) {
        return;
    }
    let known: HashSet<String> = vectors.iter().map(|(key, _)| key.text.to_ascii_lowercase()).collect();
    for item in excluded {
        let Value::Mapping(keys) = &item.value else { continue };
        for (key, _) in keys.iter().filter(|(key, _)| !key.text.contains("${{")) {
            if !known.contains(&key.text.to_ascii_lowercase()) {
                walk.report_with(Code::BadMatrix, key.span, || {
                    (format!("the matrix has no `{}` to exclude", shown(&key.text)), None)
                });
            }
        }
    }
}

fn is_empty_list(node: &Node) -> bool {
    matches!(&node.value, Value::Sequence(items) if items.is_empty())
}
