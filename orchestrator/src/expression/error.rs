//! What is wrong with an expression, where, and in which stage it was found.

use std::ops::Range;

use super::{MAX_DEPTH, MAX_LENGTH, MAX_MEMORY, tree::Function};
use crate::foreign_text::one_line;

/// How much of a foreign text an error shows, in characters.
const SHOWN: usize = 60;

/// The stage that refused an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The text has a part that is no word, number or operator of the language.
    Lexing,
    /// The words make no expression, or name what is not here.
    Parsing,
    /// The expression has no value.
    Evaluation,
}

/// An expression that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub struct ExpressionError {
    /// The bytes of the text that it is about.
    pub span: Range<usize>,
    /// What is wrong.
    pub kind: ErrorKind,
}

/// What is wrong with an expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its field is")]
pub enum ErrorKind {
    #[error("`{}` is no name, number or operator", shown(.0))]
    Symbol(String),
    #[error("`{}` is no number", shown(.0))]
    Number(String),
    #[error("the string has no closing quote")]
    UnclosedString,

    #[error("an expression is missing")]
    Empty,
    #[error("`${{{{` has no closing `}}}}`")]
    Unclosed,
    #[error("`{}` is not expected here: {wanted}", shown(found))]
    Unexpected { found: String, wanted: &'static str },
    #[error("the expression ends too early: {wanted}")]
    EndsEarly { wanted: &'static str },
    #[error("the expression is longer than {MAX_LENGTH} characters")]
    TooLong,
    #[error("the expression is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    #[error("there is no context `{}` here", shown(name))]
    UnknownContext { name: String, known: Vec<String> },
    #[error("there is no function `{}`", shown(.0))]
    UnknownFunction(String),
    #[error("`{}` cannot be called here", .0.name())]
    FunctionElsewhere(Function),
    #[error("`{}` takes {wanted}, and {found} {} given", function.name(), if *found == 1 { "is" } else { "are" })]
    Arguments {
        function: Function,
        wanted: String,
        found: usize,
    },

    #[error("the conditions of `case` must be true or false, and this one is neither")]
    CaseCondition,
    #[error("`{}` is no format: {reason}", shown(format))]
    Format { format: String, reason: &'static str },
    #[error("`fromJSON` was given no JSON: {0}")]
    Json(String),
    #[error("`hashFiles` has no option `{}`", shown(.0))]
    HashOption(String),
    #[error("there is no job `{}` among those that this one needs", shown(.0))]
    UnknownJob(String),
    #[error("the value needs more than {} MiB of memory", MAX_MEMORY >> 20)]
    Memory,
    #[error("the expression takes too many steps")]
    Steps,
}

fn shown(text: &str) -> String {
    one_line(text, SHOWN)
}

impl ErrorKind {
    /// At these bytes.
    pub(super) fn at(self, span: Range<usize>) -> ExpressionError {
        ExpressionError { span, kind: self }
    }
}

impl ExpressionError {
    /// The stage that found it.
    #[must_use]
    pub fn stage(&self) -> Stage {
        match self.kind {
            ErrorKind::Symbol(_) | ErrorKind::Number(_) | ErrorKind::UnclosedString => Stage::Lexing,
            ErrorKind::Empty
            | ErrorKind::Unclosed
            | ErrorKind::Unexpected { .. }
            | ErrorKind::EndsEarly { .. }
            | ErrorKind::TooLong
            | ErrorKind::TooDeep
            | ErrorKind::UnknownContext { .. }
            | ErrorKind::UnknownFunction(_)
            | ErrorKind::FunctionElsewhere(_)
            | ErrorKind::Arguments { .. } => Stage::Parsing,
            ErrorKind::CaseCondition
            | ErrorKind::Format { .. }
            | ErrorKind::Json(_)
            | ErrorKind::HashOption(_)
            | ErrorKind::UnknownJob(_)
            | ErrorKind::Memory
            | ErrorKind::Steps => Stage::Evaluation,
        }
    }

    /// What to do about it, where that is known.
    #[must_use]
    pub fn help(&self) -> Option<String> {
        let help = match &self.kind {
            ErrorKind::Symbol(text) if text.starts_with('"') => "strings stand in single quotes: 'text'",
            ErrorKind::Symbol(text) if text.starts_with('=') => "`==` compares",
            ErrorKind::Symbol(text) if text.starts_with('&') => "`&&` is the logical and",
            ErrorKind::Symbol(text) if text.starts_with('|') => "`||` is the logical or",
            ErrorKind::Symbol(text) if text.starts_with('$') => "inside of an expression there is no `${{ }}`",
            ErrorKind::UnclosedString => "a quote inside of a string is written twice: 'it''s'",
            ErrorKind::Unclosed => "close the expression with `}}` outside of its strings",
            ErrorKind::UnknownContext { known, .. } if known.is_empty() => "no context can be read here",
            ErrorKind::UnknownContext { known, .. } => return Some(format!("here are: {}", known.join(", "))),
            ErrorKind::UnknownFunction(_) => {
                let names: Vec<&str> = Function::ALL.iter().map(|function| function.name()).collect();
                return Some(format!("functions are: {}", names.join(", ")));
            }
            ErrorKind::FunctionElsewhere(Function::HashFiles) => {
                "files can be hashed only where a step's values are: the workspace is on its machine"
            }
            ErrorKind::FunctionElsewhere(_) => "status functions can be called only in `if`",
            ErrorKind::CaseCondition => "compare it, as in `case(github.ref == 'refs/heads/main', …)`",
            ErrorKind::Format { .. } => "braces that are meant as such are written twice: `{{` and `}}`",
            ErrorKind::HashOption(_) => "the only one is `--follow-symbolic-links`",
            _ => return None,
        };
        Some(help.to_owned())
    }
}
