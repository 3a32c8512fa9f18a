//! A workflow file's text → its tree, with the limits of a file that anybody may write.

use super::MAX_FILE;
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
    let whole = |kind, message: String| Document {
        root: None,
        faults: vec![Fault {
            kind,
            span: Span::START,
            message,
        }],
        nodes: 0,
    };
    if source.len() > MAX_FILE {
        return whole(FaultKind::TooLarge, format!("the file is longer than {MAX_FILE} bytes"));
    }
    let document = yaml::read(source, rules);
    if document.root.is_none() && document.faults.is_empty() {
        return whole(FaultKind::Syntax, "the file is empty".into());
    }
    document
}
