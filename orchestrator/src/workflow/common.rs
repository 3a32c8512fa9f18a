//! What jobs and steps have in common: ids, variables, the longest time.

use super::{
    literal::literal,
    walk::{Walk, shown},
};
use crate::{
    model::plan::EnvTemplate,
    yaml::{Node, Span},
};

/// Minutes: 35 days, the longest a run may last at GitHub.
pub(super) const MAX_MINUTES: u32 = 35 * 24 * 60;

/// The rule of job and step ids.
pub(super) fn id(walk: &mut Walk<'_>, at: Span, text: &str, what: &str) -> bool {
    let mut bytes = text.bytes();
    let sound = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        && text.len() < 100;
    if !sound {
        walk.error(
            at,
            format!(
                "`{}` is not a {what} id: it must begin with a letter or `_`, hold only letters, digits, `-` and `_`, \
                 and be shorter than 100 characters",
                shown(text)
            ),
        );
    } else if text.starts_with("__") {
        walk.error(
            at,
            format!("the {what} id `{text}` is reserved: ids do not begin with `__`"),
        );
    }
    sound && !text.starts_with("__")
}

/// Reads an `env:` mapping.
pub(super) fn env(walk: &mut Walk<'_>, node: &Node) -> EnvTemplate {
    let mut env = EnvTemplate::new();
    // `env:` with nothing below it is common while a file is edited, and harmless.
    if node.is_null() {
        return env;
    }
    for (key, value) in walk.mapping(node, "`env`").unwrap_or_default() {
        if !walk.plain_key(key) {
            continue;
        }
        if key.text.is_empty() || key.text.contains('=') || key.text.chars().any(char::is_control) {
            walk.error(
                key.span,
                format!("`{}` cannot be the name of a variable", shown(&key.text)),
            );
            continue;
        }
        if let Some(text) = walk.text(value, &format!("the variable `{}`", shown(&key.text))) {
            env.push((key.text.clone(), literal(value, text)));
        }
    }
    env
}
