//! GitHub's expressions: text → tree → value. Pure and synchronous: what an expression reads is given to it, and where it
//! would need files it answers which ones, to be evaluated again with their hashes ([`Evaluated::NeedsHash`]).
//!
//! The rules are those of GitHub's own evaluator in C# (`actions/runner`, `src/Sdk/Expressions`), which its service uses
//! as well: number formats of .NET, comparison in capitals character by character, arguments evaluated as late as they
//! can be. Contexts and functions that may not be used where the expression stands are errors of parsing, also in a part
//! that is never reached.
//!
//! Texts are foreign. Length and depth are bounded while parsing, memory and steps while evaluating, so that no text
//! costs more than a few milliseconds.
//!
//! | file | what is in it |
//! |---|---|
//! | `calls`, `parse`, `tree` | text → tree; what may be used where |
//! | `evaluate`, `functions`, `meter` | tree → value, within bounds |
//! | `template` | text with `${{ }}`, and `if` |
//! | `value`, `json`, `number`, `letters` | values, and how they become others |

mod calls;
#[cfg(test)]
mod conformance;
mod error;
mod evaluate;
mod functions;
mod json;
mod letters;
mod meter;
mod number;
mod parse;
mod template;
#[cfg(test)]
mod tests;
mod tree;
mod value;

pub use self::{
    error::{ErrorKind, ExpressionError, Stage},
    evaluate::{Evaluated, FileHash, Input, Outcome, Status},
    template::{Condition, Template},
    tree::{Available, Comparison, Function, Node, NodeKind, StatusFunctions},
    value::{Array, Object, Text, Value},
};

/// The longest expression, in UTF-16 units, as GitHub counts.
pub const MAX_LENGTH: usize = 21_000;

/// The deepest tree, in levels.
pub const MAX_DEPTH: usize = 50;

/// What the values of one evaluation may take at a time, in bytes, counted as GitHub does (two for each character).
pub const MAX_MEMORY: usize = 10 << 20;

/// What one evaluation may do: parts of the tree, items of collections, and 64 bytes of text each count as one. GitHub
/// has no such bound; its longest expressions over its largest payloads stay far below.
pub const MAX_STEPS: usize = 1 << 20;

/// The names of GitHub's contexts.
pub const CONTEXTS: [&str; 12] = [
    "github", "env", "vars", "job", "jobs", "steps", "runner", "secrets", "strategy", "matrix", "needs", "inputs",
];

/// An expression that may be used where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Expression {
    root: Node,
}

impl Expression {
    /// Reads the text between `${{` and `}}`.
    ///
    /// # Errors
    /// When it is no expression, or uses what is not available.
    pub fn parse(text: &str, available: &Available<'_>) -> Result<Self, ExpressionError> {
        let root = parse::parse(text, available, 0, 1)?;
        Ok(Self { root })
    }

    /// Its tree.
    #[must_use]
    pub fn root(&self) -> &Node {
        &self.root
    }

    /// Whether `success()`, `failure()`, `cancelled()` or `always()` is called in it.
    #[must_use]
    pub fn asks_for_status(&self) -> bool {
        self.root
            .any(&|node| matches!(&node.kind, NodeKind::Call { function, .. } if function.is_status()))
    }

    /// Its value, or the files whose hash it needs first.
    ///
    /// # Errors
    /// When it has no value, or needs too much to have one.
    pub fn evaluate(&self, input: &Input<'_>) -> Result<Evaluated, ExpressionError> {
        evaluate::evaluate(&self.root, input)
    }
}
