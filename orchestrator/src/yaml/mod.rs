//! YAML as a tree that knows where everything stands, for workflow files and for the configuration, and what a
//! misspelt word was meant to be. Pure.
//!
//! - `tree`: the tree
//! - `scalar`: what a plain scalar is, by YAML 1.2's core schema
//! - `parse`: text → tree, with the limits that keep a hostile text cheap

mod nearest;
mod parse;
mod scalar;
mod tree;

pub use nearest::nearest;
pub use parse::{Dialect, Document, Fault, FaultKind, Rules, parse, read};
pub use scalar::Kind;
pub use tree::{Key, Node, Scalar, Span, Value};
