//! Ids of jobs and steps.

use super::super::{
    code::Code,
    walk::{Walk, shown},
};
use crate::yaml::Span;

/// The rule of job and step ids.
pub(super) fn check(walk: &mut Walk<'_>, at: Span, text: &str, what: &str) -> bool {
    let is_id = is_id(text);
    if !is_id {
        walk.report(
            Code::BadId,
            at,
            format!(
                "`{}` is not a {what} id: it must begin with a letter or `_`, hold only letters, digits, `-` and `_`, \
                 and be shorter than 100 characters",
                shown(text)
            ),
        );
    } else if text.starts_with("__") {
        walk.report(
            Code::BadId,
            at,
            format!("the {what} id `{text}` is reserved: ids do not begin with `__`"),
        );
    }
    is_id && !text.starts_with("__")
}

fn is_id(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        && text.len() < 100
}
