//! Text → tree. The grammar is `github-actions-expressions`'s; what it does not check is checked here: names, arguments,
//! depth, and what may be used where the expression stands.

use std::ops::Range;

use github_actions_expressions::{self as crate_api, Expr, SpannedExpr, call::Call, context::Context, literal, op};

use super::{
    MAX_DEPTH, MAX_LENGTH,
    calls::{self, Prepared},
    error::{ErrorKind, ExpressionError},
    tree::{Available, Comparison, Function, Node, NodeKind, StatusFunctions},
    value::{Text, Value},
};

/// What the crate's lexer says, as its errors do not tell their stage.
const LEXER: [&str; 6] = [
    "expected `==`",
    "expected `&&`",
    "expected `||`",
    "unexpected symbol",
    NO_NUMBER,
    OPEN_STRING,
];
const NO_NUMBER: &str = "invalid numeric literal";
const OPEN_STRING: &str = "unterminated string literal";

/// The tree of an expression, `depth` levels below its root, that begins at the byte `base` of a longer text.
pub(super) fn parse(text: &str, available: &Available<'_>, base: usize, depth: usize) -> Result<Node, ExpressionError> {
    let shifted = |mut error: ExpressionError| {
        error.span = base + error.span.start..base + error.span.end;
        error
    };
    // Before the crate, whose tree is freed level by level: beyond this its depth is no longer bounded.
    if length(text) > MAX_LENGTH {
        return Err(shifted(ErrorKind::TooLong.at(0..text.len())));
    }
    if text.trim().is_empty() {
        return Err(shifted(ErrorKind::Empty.at(0..text.len())));
    }
    let prepared = Prepared::new(text);
    let parsed = Expr::parse(&prepared.text).map_err(|error| shifted(refused(text, &prepared, &error)))?;
    if let Some(at) = prepared.stray_end {
        let unexpected = ErrorKind::Unexpected {
            found: ")".into(),
            wanted: "expected an expression",
        };
        return Err(shifted(unexpected.at(at..at + 1)));
    }
    let reader = Reader {
        text,
        prepared: &prepared,
        available,
        base,
    };
    reader.read(parsed, depth)
}

/// Characters as GitHub counts them.
pub(super) fn length(text: &str) -> usize {
    if text.is_ascii() {
        text.len()
    } else {
        text.encode_utf16().count()
    }
}

/// Where in the text the crate has refused it, and why.
fn refused(text: &str, prepared: &Prepared, error: &crate_api::Error) -> ExpressionError {
    let crate_api::Error::Syntax(error) = error else {
        // Calls are not refused under the name that they have for the crate.
        return ErrorKind::TooDeep.at(0..text.len());
    };
    let start = prepared.original(error.offset).min(text.len());
    let rest = &text[start..];
    if error.message == OPEN_STRING {
        return ErrorKind::UnclosedString.at(start..text.len());
    }
    if error.message == NO_NUMBER {
        // A number goes on after its dots.
        let end = rest.find(|c| c != '.' && calls::is_boundary(c));
        let end = start + end.unwrap_or(rest.len());
        return ErrorKind::Number(text[start..end].into()).at(start..end);
    }
    if LEXER.contains(&error.message) {
        // An operator's first character, and what follows up to the next boundary.
        let first = rest.chars().next().map_or(0, char::len_utf8);
        let more = rest[first..].find(calls::is_boundary);
        let end = start + first + more.unwrap_or(rest.len() - first);
        return ErrorKind::Symbol(text[start..end].into()).at(start..end);
    }
    if rest.trim().is_empty() {
        let wanted = wanted_there(error.message);
        // At the last character, as nothing can be marked behind it.
        let end = text.trim_end().len();
        let last = text[..end].chars().next_back().map_or(0, char::len_utf8);
        return ErrorKind::EndsEarly { wanted }.at(end - last..end);
    }
    let found = calls::word(rest);
    let unexpected = ErrorKind::Unexpected {
        found: found.into(),
        wanted: wanted_there(error.message),
    };
    unexpected.at(start..start + found.len())
}

/// What the parser says, as what would be right.
fn wanted_there(message: &'static str) -> &'static str {
    match message {
        "unexpected end of expression" => "expected an expression",
        "unexpected trailing input" => "expected an operator or the end",
        message => message,
    }
}

struct Reader<'t> {
    text: &'t str,
    prepared: &'t Prepared,
    available: &'t Available<'t>,
    base: usize,
}

impl Reader<'_> {
    fn span(&self, expr: &SpannedExpr<'_>) -> Range<usize> {
        let span = expr.origin.span;
        self.base + self.prepared.original(span.start)..self.base + self.prepared.original(span.end)
    }

    /// One part that stands `depth` levels deep. Recursion is bounded by that.
    fn read(&self, expr: SpannedExpr<'_>, depth: usize) -> Result<Node, ExpressionError> {
        let span = self.span(&expr);
        if depth > MAX_DEPTH {
            return Err(ErrorKind::TooDeep.at(span));
        }
        let below = |expr| self.read(expr, depth + 1).map(Box::new);
        let kind = match expr.inner {
            Expr::Literal(literal) => NodeKind::Literal(value(literal)),
            Expr::Call(call) => self.call(&span, call, depth)?,
            Expr::Context(context) => return self.context(context, depth),
            Expr::UnExpr {
                op: op::UnOp::Not,
                expr,
            } => NodeKind::Not(below(*expr)?),
            Expr::BinExpr(binary) => match comparison(&binary.op) {
                Some(comparison) => NodeKind::Compare {
                    comparison,
                    left: below(*binary.lhs)?,
                    right: below(*binary.rhs)?,
                },
                None => self.logical(binary, depth)?,
            },
            // These three stand in contexts only.
            Expr::Identifier(name) => NodeKind::Context(self.known(name.as_str(), &span)?.into()),
            Expr::Index(index) => return self.read(*index, depth),
            Expr::Star => {
                return Err(ErrorKind::Symbol("*".into()).at(span));
            }
        };
        Ok(Node { span, kind })
    }

    /// `a || b || c` is one part, however it is bracketed, and not nested. Its tree may be as long as the text.
    fn logical(&self, binary: op::BinExpr<'_>, depth: usize) -> Result<NodeKind, ExpressionError> {
        let operator = binary.op;
        let mut operands = Vec::new();
        let mut waiting = vec![*binary.rhs, *binary.lhs];
        while let Some(expr) = waiting.pop() {
            match expr.inner {
                Expr::BinExpr(nested) if nested.op == operator => waiting.extend([*nested.rhs, *nested.lhs]),
                inner => {
                    let origin = expr.origin;
                    operands.push(self.read(SpannedExpr { origin, inner }, depth + 1)?);
                }
            }
        }
        Ok(match operator {
            op::BinOp::And => NodeKind::And(operands),
            _ => NodeKind::Or(operands),
        })
    }

    fn call(&self, span: &Range<usize>, call: Call<'_>, depth: usize) -> Result<NodeKind, ExpressionError> {
        // Its own name, in the text; brackets around it belong to its place.
        let at = &self.text[span.start - self.base..];
        let at = at.trim_start_matches(|c: char| c == '(' || c.is_whitespace());
        let name = calls::name(at);
        let start = self.base + self.text.len() - at.len();
        let called = start..start + name.len();
        let function =
            Function::named(name).ok_or_else(|| ErrorKind::UnknownFunction(name.into()).at(called.clone()))?;
        let is_here = match function {
            Function::HashFiles => self.available.hash_files,
            function => !function.is_status() || self.available.status != StatusFunctions::None,
        };
        if !is_here {
            return Err(ErrorKind::FunctionElsewhere(function).at(called));
        }
        let found = call.args.len();
        let (least, most) = function.arguments(self.available.status);
        if found < least || found > most || (function == Function::Case && found.is_multiple_of(2)) {
            let wanted = wanted(function, least, most);
            let arguments = ErrorKind::Arguments {
                function,
                wanted,
                found,
            };
            return Err(arguments.at(called));
        }
        let arguments = call.args.into_iter().map(|argument| self.read(argument, depth + 1));
        Ok(NodeKind::Call {
            function,
            arguments: arguments.collect::<Result<_, _>>()?,
        })
    }

    /// `head.name[index].*`: the last part is the root, so the head is the deepest.
    fn context(&self, context: Context<'_>, depth: usize) -> Result<Node, ExpressionError> {
        let mut levels = context.parts.len();
        let mut parts = context.parts.into_iter();
        let Some(head) = parts.next() else {
            return Err(ErrorKind::Empty.at(self.base..self.base + self.text.len()));
        };
        levels -= 1;
        let mut node = self.read(head, depth + levels)?;
        for part in parts {
            levels -= 1;
            let part_span = self.span(&part);
            let span = node.span.start..part_span.end;
            let of = Box::new(node);
            let kind = match part.inner {
                Expr::Star => NodeKind::Filter { of },
                Expr::Index(index) if matches!(index.inner, Expr::Star) => NodeKind::Filter { of },
                Expr::Identifier(name) => NodeKind::Index {
                    of,
                    by: Box::new(Node {
                        span: part_span,
                        kind: NodeKind::Literal(name.as_str().into()),
                    }),
                },
                inner => {
                    let origin = part.origin;
                    let by = self.read(SpannedExpr { origin, inner }, depth + levels + 1)?;
                    NodeKind::Index { of, by: Box::new(by) }
                }
            };
            node = Node { span, kind };
        }
        Ok(node)
    }

    fn known<'n>(&self, name: &'n str, span: &Range<usize>) -> Result<&'n str, ExpressionError> {
        let contexts = self.available.contexts;
        if contexts.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            return Ok(name);
        }
        let unknown = ErrorKind::UnknownContext {
            name: name.into(),
            known: contexts.iter().map(|&known| known.into()).collect(),
        };
        Err(unknown.at(span.clone()))
    }
}

fn value(literal: literal::Literal<'_>) -> Value {
    match literal {
        literal::Literal::Number(number) => Value::Number(number),
        literal::Literal::String(text) => Value::String(Text::new(&*text, false)),
        literal::Literal::Boolean(value) => Value::Bool(value),
        literal::Literal::Null => Value::Null,
    }
}

fn comparison(operator: &op::BinOp) -> Option<Comparison> {
    Some(match operator {
        op::BinOp::Eq => Comparison::Equal,
        op::BinOp::Neq => Comparison::NotEqual,
        op::BinOp::Lt => Comparison::Less,
        op::BinOp::Le => Comparison::LessOrEqual,
        op::BinOp::Gt => Comparison::Greater,
        op::BinOp::Ge => Comparison::GreaterOrEqual,
        op::BinOp::And | op::BinOp::Or => return None,
    })
}

fn wanted(function: Function, least: usize, most: usize) -> String {
    match (least, most) {
        (0, 0) => "no argument".into(),
        (1, 1) => "one argument".into(),
        (least, most) if least == most => format!("{least} arguments"),
        (3, _) if function == Function::Case => "an odd number of arguments, at least 3".into(),
        (least, most) => format!("{least} to {most} arguments"),
    }
}
