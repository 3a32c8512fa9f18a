//! A workflow file's text → its tree, with the limits of a file that anybody may write.

use super::MAX_FILE;
use crate::yaml::{self, Dialect, Fault, Node, Rules, Span};

const RULES: Rules = Rules {
    what: "a workflow file",
    dialect: Dialect::Full,
    max_depth: 50,
    max_nodes: 50_000,
    max_text: 4 << 20,
};

/// Reads one document.
pub(super) fn parse(source: &str) -> Result<Node, Vec<Fault>> {
    let whole = |message: String| {
        vec![Fault {
            span: Span::START,
            message,
        }]
    };
    if source.len() > MAX_FILE {
        return Err(whole(format!("the file is longer than {MAX_FILE} bytes")));
    }
    yaml::parse(source, &RULES)?.ok_or_else(|| whole("the file is empty".into()))
}
