//! Text in which `${{ }}` may stand, as most keys take it, and `if`, in which it may be left away.

use std::ops::Range;

use super::{
    Expression, MAX_LENGTH,
    error::{ErrorKind, ExpressionError},
    evaluate::{Evaluated, Input},
    parse,
    tree::{Available, Function, Node, NodeKind, StatusFunctions},
    value::Value,
};

const OPEN: &str = "${{";
const CLOSE: &str = "}}";

/// A text in which `${{ }}` may stand.
#[derive(Debug, Clone, PartialEq)]
pub enum Template {
    /// None does.
    Literal(String),
    /// One expression is all of it, and its value keeps its kind.
    Whole(Expression),
    /// Text and expressions, which make one text: GitHub reads it as a call of `format`.
    Mixed(Expression),
}

/// A part of a text.
enum Part<'t> {
    Text(&'t str),
    /// The bytes between the braces.
    Expression(Range<usize>),
}

impl Template {
    /// Reads a text.
    ///
    /// # Errors
    /// When an expression in it is none, or uses what is not available. Its place is that in the whole text.
    pub fn parse(text: &str, available: &Available<'_>) -> Result<Self, ExpressionError> {
        let parts = parts(text)?;
        match parts.as_slice() {
            [] => Ok(Self::Literal(String::new())),
            [Part::Text(text)] => Ok(Self::Literal((*text).to_owned())),
            [Part::Expression(inner)] => {
                let root = parse::parse(&text[inner.clone()], available, inner.start, 1)?;
                Ok(Self::Whole(Expression { root }))
            }
            parts => Ok(Self::Mixed(Expression {
                root: call_of_format(text, parts, available)?,
            })),
        }
    }

    /// Its value, or the files whose hash it needs first.
    ///
    /// # Errors
    /// As [`Expression::evaluate`].
    pub fn evaluate(&self, input: &Input<'_>) -> Result<Evaluated, ExpressionError> {
        match self {
            Self::Literal(text) => Ok(Evaluated::Value(text.as_str().into())),
            Self::Whole(expression) | Self::Mixed(expression) => expression.evaluate(input),
        }
    }
}

fn parts(text: &str) -> Result<Vec<Part<'_>>, ExpressionError> {
    let mut parts = Vec::new();
    let mut from = 0;
    while let Some(at) = text[from..].find(OPEN) {
        let open = from + at;
        if at > 0 {
            parts.push(Part::Text(&text[from..open]));
        }
        let inner = open + OPEN.len();
        let length = end(&text[inner..]).ok_or_else(|| ErrorKind::Unclosed.at(open..inner))?;
        parts.push(Part::Expression(inner..inner + length));
        from = inner + length + CLOSE.len();
    }
    if from < text.len() {
        parts.push(Part::Text(&text[from..]));
    }
    Ok(parts)
}

/// Where the braces close that are open before this text: not in a string. A quote that is written twice closes the
/// string and opens it again.
fn end(text: &str) -> Option<usize> {
    let mut in_string = false;
    for (at, c) in text.char_indices() {
        if c == '\'' {
            in_string = !in_string;
        } else if !in_string && text[at..].starts_with(CLOSE) {
            return Some(at);
        }
    }
    None
}

fn call_of_format(text: &str, parts: &[Part<'_>], available: &Available<'_>) -> Result<Node, ExpressionError> {
    let span = 0..text.len();
    let mut format = String::new();
    let mut arguments = Vec::new();
    // What GitHub would have to parse: `format('…', first, second)`.
    let mut length = "format('')".len();
    for part in parts {
        match part {
            Part::Text(text) => {
                length += text.matches('\'').count();
                format.push_str(&text.replace('{', "{{").replace('}', "}}"));
            }
            Part::Expression(inner) => {
                let expression = &text[inner.clone()];
                length += ", ".len() + parse::length(expression.trim());
                format.push_str(&format!("{{{}}}", arguments.len()));
                arguments.push(parse::parse(expression, available, inner.start, 2)?);
            }
        }
    }
    if length + parse::length(&format) > MAX_LENGTH {
        return Err(ErrorKind::TooLong.at(span));
    }
    let function = Function::Format;
    let (least, most) = function.arguments(StatusFunctions::None);
    let found = arguments.len() + 1;
    if found > most {
        let wanted = format!("{least} to {most} arguments");
        return Err(ErrorKind::Arguments {
            function,
            wanted,
            found,
        }
        .at(span));
    }
    let format = NodeKind::Literal(Value::from(format.as_str()));
    arguments.insert(
        0,
        Node {
            span: span.clone(),
            kind: format,
        },
    );
    let kind = NodeKind::Call { function, arguments };
    Ok(Node { span, kind })
}

/// An `if`.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    expression: Expression,
    has_text_outside: bool,
}

impl Condition {
    /// Reads the value of an `if`: an expression, with or without `${{ }}` around it. Where it asks for no status it holds
    /// only if all has gone well: `success() && (…)`; so does an empty one.
    ///
    /// # Errors
    /// As [`Template::parse`].
    pub fn parse(text: &str, available: &Available<'_>) -> Result<Self, ExpressionError> {
        let (expression, has_text_outside) = if text.contains(OPEN) {
            match Template::parse(text, available)? {
                Template::Mixed(expression) => (Some(expression), true),
                Template::Whole(expression) => (Some(expression), false),
                Template::Literal(_) => (None, false),
            }
        } else if text.trim().is_empty() {
            (None, false)
        } else {
            (Some(Expression::parse(text, available)?), false)
        };
        let success = || Node {
            span: 0..0,
            kind: NodeKind::Call {
                function: Function::Success,
                arguments: Vec::new(),
            },
        };
        let root = match expression {
            None => success(),
            Some(expression) if expression.asks_for_status() => expression.root,
            Some(Expression { root }) => Node {
                span: root.span.clone(),
                kind: NodeKind::And(vec![success(), root]),
            },
        };
        Ok(Self {
            expression: Expression { root },
            has_text_outside,
        })
    }

    /// Whether text stands outside of `${{ }}`. Then the value is a text and counts as true, whatever the expression says.
    #[must_use]
    pub fn has_text_outside(&self) -> bool {
        self.has_text_outside
    }

    /// All of it as one expression.
    #[must_use]
    pub fn expression(&self) -> &Expression {
        &self.expression
    }

    /// Whether it holds, or the files whose hash it needs first.
    ///
    /// # Errors
    /// As [`Expression::evaluate`].
    pub fn evaluate(&self, input: &Input<'_>) -> Result<Evaluated, ExpressionError> {
        Ok(match self.expression.evaluate(input)? {
            Evaluated::Value(value) => Evaluated::Value(Value::Bool(value.is_truthy())),
            needs => needs,
        })
    }
}
