//! The tree: scalars with their type, lists and mappings, each with the place that it came from.

use std::{borrow::Cow, ops::Range};

use super::scalar::{Kind, number_text};

/// A piece of a text: where it begins, both counted from 1 and the column in characters, and its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
    /// Bytes before it.
    pub offset: usize,
    /// Its length in bytes.
    pub length: usize,
}

impl Span {
    /// Where a text begins: for complaints about the whole of it.
    pub const START: Self = Self {
        line: 1,
        column: 1,
        offset: 0,
        length: 0,
    };
}

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it stands; of an alias, where the alias does.
    pub span: Span,
    /// What it is.
    pub value: Value,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A single value, or nothing.
    Scalar(Scalar),
    /// A list.
    Sequence(Vec<Node>),
    /// In the order of the text.
    Mapping(Vec<(Key, Node)>),
}

/// A mapping's key. Only scalars can be keys.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    /// Where it stands.
    pub span: Span,
    /// Its text.
    pub text: String,
    /// Its bytes in the text; of an alias, those of what it stands for.
    pub bytes: Range<usize>,
}

/// A scalar.
#[derive(Debug, Clone, PartialEq)]
pub struct Scalar {
    /// Its type and value.
    pub kind: Kind,
    /// Its text as it was written, without quotes and escapes.
    pub written: String,
    /// Written without quotes.
    pub plain: bool,
    /// Its bytes in the text, for a precise place of what is found inside; of an alias, those of what it stands for.
    pub bytes: Range<usize>,
}

impl Scalar {
    /// The value as text: `3.10` reads `3.1`, null reads as nothing, as GitHub does it.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        match self.kind {
            Kind::Null => Cow::Borrowed(""),
            Kind::Bool(value) => Cow::Borrowed(if value { "true" } else { "false" }),
            Kind::Number(value) => Cow::Owned(number_text(value)),
            Kind::Text => Cow::Borrowed(&self.written),
        }
    }
}

impl Node {
    /// The scalar, if it is one and not nothing.
    #[must_use]
    pub fn scalar(&self) -> Option<&Scalar> {
        match &self.value {
            Value::Scalar(scalar) if scalar.kind != Kind::Null => Some(scalar),
            _ => None,
        }
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(scalar) if scalar.kind == Kind::Null)
    }

    /// The value of a key of a mapping; none where it is left out or nothing, and for all that is no mapping.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        let Value::Mapping(entries) = &self.value else {
            return None;
        };
        let (_, value) = entries.iter().find(|(known, _)| known.text == key)?;
        Some(value).filter(|value| !value.is_null())
    }

    /// What a person calls this kind of value.
    #[must_use]
    pub fn noun(&self) -> &'static str {
        match &self.value {
            Value::Sequence(_) => "a list",
            Value::Mapping(_) => "a mapping",
            Value::Scalar(scalar) => match scalar.kind {
                Kind::Null => "nothing",
                Kind::Bool(_) => "a boolean",
                Kind::Number(_) => "a number",
                Kind::Text => "a text",
            },
        }
    }

    /// How many nodes and bytes of text a copy of this would add.
    pub(super) fn size(&self) -> (usize, usize) {
        match &self.value {
            Value::Scalar(scalar) => (1, scalar.written.len()),
            Value::Sequence(items) => items.iter().fold((1, 0), |sum, item| add(sum, item.size())),
            Value::Mapping(entries) => entries.iter().fold((1, 0), |sum, (key, value)| {
                add(add(sum, (1, key.text.len())), value.size())
            }),
        }
    }

    /// How deep this nests; a scalar is 1.
    pub(super) fn depth(&self) -> usize {
        1 + match &self.value {
            Value::Scalar(_) => 0,
            Value::Sequence(items) => items.iter().map(Self::depth).max().unwrap_or(0),
            Value::Mapping(entries) => entries.iter().map(|(_, value)| value.depth()).max().unwrap_or(0),
        }
    }
}

fn add(a: (usize, usize), b: (usize, usize)) -> (usize, usize) {
    (a.0 + b.0, a.1 + b.1)
}
