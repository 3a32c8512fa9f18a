//! What jobs and steps have in common: variables, the longest time.

use super::{
    code::Code,
    literal::literal,
    walk::{Walk, shown},
};
use crate::{
    model::plan::{EnvTemplate, Template},
    yaml::{Node, Value},
};

/// Minutes: 35 days, the longest a run may last at GitHub.
const MAX_MINUTES: u32 = 35 * 24 * 60;

/// Reads an `env:` mapping.
pub(super) fn env(walk: &mut Walk<'_>, node: &Node) -> EnvTemplate {
    let mut env = EnvTemplate::new();
    // `env:` with nothing below it is common while a file is edited, and harmless.
    if node.is_null() {
        return env;
    }
    // One expression that gives all of them.
    if let Value::Scalar(_) = &node.value {
        walk.text(node, "`env`");
        return env;
    }
    for (key, value) in walk.mapping(node, "`env`").unwrap_or_default() {
        if !walk.plain_key(key) {
            continue;
        }
        if key.text.is_empty() || key.text.contains('=') || key.text.chars().any(char::is_control) {
            let message = format!("`{}` cannot be the name of a variable", shown(&key.text));
            walk.report(Code::UnsupportedVariable, key.span, message);
            continue;
        }
        if let Some(text) = walk.text(value, &format!("the variable `{}`", shown(&key.text))) {
            env.push((key.text.clone(), literal(value, text)));
        }
    }
    env
}

/// Reads a time limit.
pub(super) fn minutes(walk: &mut Walk<'_>, node: &Node) -> Option<Template<u32>> {
    let minutes = walk.whole(
        node,
        "`timeout-minutes`",
        (1, MAX_MINUTES),
        false,
        Code::UnsupportedTimeout,
    )?;
    Some(literal(node, minutes))
}
