//! What is written in the file, as values of the plan that know their place.

use crate::model::plan::{PlanSpan, Template};
use crate::yaml::{Node, Value};

/// Where a node is written.
pub(super) fn span(node: &Node) -> PlanSpan {
    let mut span = PlanSpan::at(node.span.line, node.span.column);
    if let Value::Scalar(_) = &node.value {
        // A file is at most a MiB.
        let byte = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        span.start = byte(node.span.offset);
        span.end = byte(node.span.offset + node.span.length);
    }
    span
}

/// A value that was read from this node.
pub(super) fn literal<T>(node: &Node, value: T) -> Template<T> {
    Template::literal(value, span(node))
}
