//! The tree of an expression, checked: every context and function in it may be used where it stands.

use std::{ops::Range, sync::Arc};

use super::value::Value;

/// A part of an expression, with its place in the text.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The bytes of the text.
    pub span: Range<usize>,
    /// What it is.
    pub kind: NodeKind,
}

/// What a part of an expression is.
#[derive(Debug, Clone, PartialEq)]
pub enum NodeKind {
    /// A value that is written out.
    Literal(Value),
    /// A context by its name, as it is written.
    Context(Arc<str>),
    /// `of.name`, `of[index]`.
    Index {
        /// What is looked into.
        of: Box<Node>,
        /// A name or a number.
        by: Box<Node>,
    },
    /// `of.*`, `of[*]`.
    Filter {
        /// What all is taken of.
        of: Box<Node>,
    },
    /// A call.
    Call {
        /// Of this function.
        function: Function,
        /// As many as it takes.
        arguments: Vec<Node>,
    },
    /// `!`.
    Not(Box<Node>),
    /// A comparison.
    Compare {
        /// Which.
        comparison: Comparison,
        /// On its left side.
        left: Box<Node>,
        /// On its right side.
        right: Box<Node>,
    },
    /// `&&` of two or more.
    And(Vec<Node>),
    /// `||` of two or more.
    Or(Vec<Node>),
}

/// An operator that compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the operators' own names")]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A function of the language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the functions' own names")]
pub enum Function {
    Contains,
    StartsWith,
    EndsWith,
    Format,
    Join,
    ToJson,
    FromJson,
    Case,
    HashFiles,
    Success,
    Failure,
    Cancelled,
    Always,
}

/// Arguments that a function takes at most where GitHub names no smaller number.
const MANY: usize = 255;

impl Function {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Contains,
        Self::StartsWith,
        Self::EndsWith,
        Self::Format,
        Self::Join,
        Self::ToJson,
        Self::FromJson,
        Self::Case,
        Self::HashFiles,
        Self::Success,
        Self::Failure,
        Self::Cancelled,
        Self::Always,
    ];

    /// As GitHub's documentation writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Contains => "contains",
            Self::StartsWith => "startsWith",
            Self::EndsWith => "endsWith",
            Self::Format => "format",
            Self::Join => "join",
            Self::ToJson => "toJSON",
            Self::FromJson => "fromJSON",
            Self::Case => "case",
            Self::HashFiles => "hashFiles",
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Cancelled => "cancelled",
            Self::Always => "always",
        }
    }

    /// The function of this name, in any case of letters.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|function| function.name().eq_ignore_ascii_case(name))
    }

    /// Whether it tells how all has gone so far.
    #[must_use]
    pub fn is_status(self) -> bool {
        matches!(self, Self::Success | Self::Failure | Self::Cancelled | Self::Always)
    }

    /// How many arguments it takes, and whether it takes ids of jobs where it stands.
    pub(super) fn arguments(self, status: StatusFunctions) -> (usize, usize) {
        match self {
            Self::Contains | Self::StartsWith | Self::EndsWith => (2, 2),
            Self::Format | Self::HashFiles => (1, MANY),
            Self::Join => (1, 2),
            Self::ToJson | Self::FromJson => (1, 1),
            Self::Case => (3, MANY),
            Self::Success | Self::Failure if status == StatusFunctions::OfJobs => (0, MANY),
            Self::Success | Self::Failure | Self::Cancelled | Self::Always => (0, 0),
        }
    }
}

/// Whether `success()` and its kin can be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusFunctions {
    /// Not here.
    None,
    /// In the `if` of a step: they tell of the job.
    OfStep,
    /// In the `if` of a job: they tell of the jobs that it needs, or of those that are named.
    OfJobs,
}

/// What an expression may use where it stands; GitHub's schema says so for each key.
#[derive(Debug, Clone, Copy)]
pub struct Available<'a> {
    /// Names of contexts.
    pub contexts: &'a [&'a str],
    /// Whether `success()` and its kin can be called.
    pub status: StatusFunctions,
    /// Whether `hashFiles()` can be called.
    pub hash_files: bool,
}

impl Node {
    /// Whether `wanted` holds for this part or one in it.
    pub(super) fn any(&self, wanted: &impl Fn(&Self) -> bool) -> bool {
        wanted(self)
            || match &self.kind {
                NodeKind::Literal(_) | NodeKind::Context(_) => false,
                NodeKind::Index { of, by } => of.any(wanted) || by.any(wanted),
                NodeKind::Filter { of } | NodeKind::Not(of) => of.any(wanted),
                NodeKind::Call { arguments, .. } => arguments.iter().any(|node| node.any(wanted)),
                NodeKind::Compare { left, right, .. } => left.any(wanted) || right.any(wanted),
                NodeKind::And(operands) | NodeKind::Or(operands) => operands.iter().any(|node| node.any(wanted)),
            }
    }
}
