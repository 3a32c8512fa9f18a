//! What is written in the file, as values of the plan that know their place.

use super::tree::{Node, Value};
use crate::model::plan::{Span, Template};

/// Where a node is written.
pub(super) fn span(node: &Node) -> Span {
    let mut span = Span::at(node.mark.line, node.mark.column);
    if let Value::Scalar(scalar) = &node.value {
        // A file is at most a MiB.
        span.start = u32::try_from(scalar.span.start).unwrap_or(u32::MAX);
        span.end = u32::try_from(scalar.span.end).unwrap_or(u32::MAX);
    }
    span
}

/// A value that was read from this node.
pub(super) fn literal<T>(node: &Node, value: T) -> Template<T> {
    Template::literal(value, span(node))
}
