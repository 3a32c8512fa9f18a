//! A workflow file's text → its tree, with the limits of a file that anybody may write.

use crate::yaml::{self, Dialect, Document, Fault, FaultKind, Rules, Span};

pub(super) const RULES: Rules = Rules {
    what: "a workflow file",
    dialect: Dialect::Full,
    max_depth: 50,
    max_nodes: 50_000,
    max_text: 4 << 20,
};

/// Reads one document.
pub(super) fn read(source: &str, rules: &Rules) -> Document {
    let mut document = yaml::read(source, rules);
    if document.root.is_none() && document.faults.is_empty() {
        document.faults.push(Fault {
            kind: FaultKind::Syntax,
            span: Span::START,
            message: "the file is empty".into(),
        });
    }
    document
}
