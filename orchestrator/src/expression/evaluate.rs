//! Tree → value. Operands and arguments are evaluated as late as GitHub does, so an error in one that is not needed is
//! none.

use std::{cmp::Ordering, ops::Range};

use super::{
    error::{ErrorKind, ExpressionError},
    functions,
    meter::Meter,
    tree::{Comparison, Function, Node, NodeKind},
    value::{Array, Object, Value},
};

/// What an expression reads.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// Contexts by their names; one that is not here is null.
    pub contexts: &'a Object,
    /// What the status functions tell of.
    pub status: Status<'a>,
    /// Hashes of files that are known.
    pub hashes: &'a [(FileHash, String)],
}

/// How all has gone so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status<'a> {
    /// Of a step: its job. Of a job: all that it needs, directly or not, the worst of them.
    pub so_far: Outcome,
    /// Of a job: each of those it needs, by its id.
    pub jobs: &'a [(String, Outcome)],
}

/// How something ended, the better first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "GitHub's own words")]
pub enum Outcome {
    Success,
    Skipped,
    Failure,
    Cancelled,
}

/// The hash of files of the workspace, by which `hashFiles()` is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileHash {
    /// Globs of `@actions/glob`, in their order.
    pub patterns: Vec<String>,
    /// Whether symbolic links are followed.
    pub follow_links: bool,
}

/// What an evaluation ends with.
#[derive(Debug, Clone, PartialEq)]
pub enum Evaluated {
    /// The value.
    Value(Value),
    /// The expression is to be evaluated again, with this hash in its input.
    NeedsHash(FileHash),
}

/// Why an evaluation ends before its end.
pub(super) enum Stop {
    Error(ExpressionError),
    NeedsHash(FileHash),
}

impl From<ExpressionError> for Stop {
    fn from(error: ExpressionError) -> Self {
        Self::Error(error)
    }
}

pub(super) type Step<T> = Result<T, Stop>;

pub(super) fn evaluate(root: &Node, input: &Input<'_>) -> Result<Evaluated, ExpressionError> {
    let mut evaluator = Evaluator::new(input);
    match evaluator.value(root) {
        Ok(value) => Ok(Evaluated::Value(value)),
        Err(Stop::NeedsHash(hash)) => Ok(Evaluated::NeedsHash(hash)),
        Err(Stop::Error(error)) => Err(error),
    }
}

pub(super) struct Evaluator<'a> {
    pub input: &'a Input<'a>,
    pub meter: Meter,
}

impl<'a> Evaluator<'a> {
    pub fn new(input: &'a Input<'a>) -> Self {
        let meter = Meter::default();
        Self { input, meter }
    }

    /// The value of a part. Recursion is bounded by the tree's depth.
    pub fn value(&mut self, node: &Node) -> Step<Value> {
        self.meter.step(1, &node.span)?;
        let before = self.meter.memory();
        let value = match &node.kind {
            NodeKind::Literal(value) => value.clone(),
            NodeKind::Context(name) => self.input.contexts.get(name).cloned().unwrap_or(Value::Null),
            NodeKind::Index { of, by } => self.index(of, by, &node.span)?,
            NodeKind::Filter { of } => self.filter(of, &node.span)?,
            NodeKind::Call { function, arguments } => self.call(*function, arguments, &node.span)?,
            NodeKind::Not(operand) => Value::Bool(!self.value(operand)?.is_truthy()),
            NodeKind::Compare {
                comparison,
                left,
                right,
            } => {
                let (left, right) = (self.value(left)?, self.value(right)?);
                self.read(&left, &node.span)?;
                self.read(&right, &node.span)?;
                Value::Bool(holds(*comparison, &left, &right))
            }
            NodeKind::And(operands) => self.first(operands, |value| !value.is_truthy())?,
            NodeKind::Or(operands) => self.first(operands, Value::is_truthy)?,
        };
        self.meter.made(&value, before, &node.span)?;
        Ok(value)
    }

    /// Counts that the text of a value is read.
    pub fn read(&mut self, value: &Value, span: &Range<usize>) -> Step<()> {
        if let Value::String(text) = value {
            self.meter.text(text.as_str().len(), span)?;
        }
        Ok(())
    }

    /// The first operand that decides, or the last.
    fn first(&mut self, operands: &[Node], decides: impl Fn(&Value) -> bool) -> Step<Value> {
        let mut value = Value::Null;
        for operand in operands {
            value = self.value(operand)?;
            if decides(&value) {
                break;
            }
        }
        Ok(value)
    }

    fn index(&mut self, of: &Node, by: &Node, span: &Range<usize>) -> Step<Value> {
        match self.value(of)? {
            Value::Object(object) => {
                let index = self.value(by)?;
                let found = name(&index).and_then(|name| object.get(name.as_str()).cloned());
                Ok(found.unwrap_or(Value::Null))
            }
            Value::Array(array) if array.is_filtered() => {
                let index = self.value(by)?;
                let (name, place) = (name(&index), place(&index));
                let mut found = Vec::new();
                for item in array.items() {
                    self.meter.step(1, span)?;
                    found.extend(match item {
                        Value::Object(object) => name.as_ref().and_then(|name| object.get(name.as_str()).cloned()),
                        Value::Array(array) => place.and_then(|place| array.items().get(place).cloned()),
                        _ => None,
                    });
                }
                self.filtered(found, span)
            }
            Value::Array(array) => {
                let place = place(&self.value(by)?);
                Ok(place
                    .and_then(|place| array.items().get(place).cloned())
                    .unwrap_or(Value::Null))
            }
            _ => Ok(Value::Null),
        }
    }

    fn filter(&mut self, of: &Node, span: &Range<usize>) -> Step<Value> {
        let of = self.value(of)?;
        let mut found = Vec::new();
        match &of {
            Value::Array(array) if array.is_filtered() => {
                for item in array.items() {
                    self.meter.step(1 + children(item).count(), span)?;
                    found.extend(children(item).cloned());
                }
            }
            of => {
                self.meter.step(children(of).count(), span)?;
                found.extend(children(of).cloned());
            }
        }
        self.filtered(found, span)
    }

    fn filtered(&mut self, found: Vec<Value>, span: &Range<usize>) -> Step<Value> {
        self.meter.take(found.len() * size_of::<usize>(), span)?;
        Ok(Value::Array(Array::filtered(found)))
    }

    fn call(&mut self, function: Function, arguments: &[Node], span: &Range<usize>) -> Step<Value> {
        match function {
            Function::Success | Function::Failure | Function::Cancelled | Function::Always => {
                self.status(function, arguments)
            }
            Function::HashFiles => self.hash_files(arguments),
            Function::Contains => functions::contains(self, arguments, span),
            Function::StartsWith => functions::starts_with(self, arguments, span),
            Function::EndsWith => functions::ends_with(self, arguments, span),
            Function::Format => functions::format(self, arguments, span),
            Function::Join => functions::join(self, arguments, span),
            Function::ToJson => functions::to_json(self, arguments, span),
            Function::FromJson => functions::from_json(self, arguments),
            Function::Case => functions::case(self, arguments),
        }
    }

    fn status(&mut self, function: Function, ids: &[Node]) -> Step<Value> {
        let status = self.input.status;
        let mut named = Vec::new();
        for id in ids {
            let name = self.value(id)?.to_text();
            let job = status
                .jobs
                .iter()
                .find(|(job, _)| job.eq_ignore_ascii_case(name.as_str()));
            match job {
                Some((_, outcome)) => named.push(*outcome),
                None => return Err(ErrorKind::UnknownJob(name.as_str().into()).at(id.span.clone()).into()),
            }
        }
        let all = if ids.is_empty() { vec![status.so_far] } else { named };
        Ok(Value::Bool(match function {
            Function::Success => all.iter().all(|outcome| *outcome == Outcome::Success),
            Function::Failure => all.contains(&Outcome::Failure),
            Function::Cancelled => all.contains(&Outcome::Cancelled),
            _ => true,
        }))
    }

    fn hash_files(&mut self, arguments: &[Node]) -> Step<Value> {
        let mut wanted = FileHash {
            patterns: Vec::new(),
            follow_links: false,
        };
        for (place, argument) in arguments.iter().enumerate() {
            let text = self.value(argument)?.to_text();
            let text = text.as_str();
            if place == 0 && text.eq_ignore_ascii_case("--follow-symbolic-links") {
                wanted.follow_links = true;
            } else if place == 0 && text.starts_with("--") {
                return Err(ErrorKind::HashOption(text.into()).at(argument.span.clone()).into());
            } else {
                wanted.patterns.push(text.into());
            }
        }
        let known = self.input.hashes.iter().find(|(hash, _)| *hash == wanted);
        match known {
            Some((_, hash)) => Ok(hash.as_str().into()),
            None => Err(Stop::NeedsHash(wanted)),
        }
    }
}

/// The values in a collection.
fn children(of: &Value) -> impl Iterator<Item = &Value> {
    let items = match of {
        Value::Array(array) => array.items(),
        _ => &[],
    };
    let entries = match of {
        Value::Object(object) => object.entries(),
        _ => &[],
    };
    items.iter().chain(entries.iter().map(|(_, value)| value))
}

/// An index as the name of a field.
fn name(index: &Value) -> Option<super::Text> {
    index.is_primitive().then(|| index.to_text())
}

/// An index as the place of an item.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is checked")]
fn place(index: &Value) -> Option<usize> {
    let number = index.to_number();
    (0.0..=f64::from(i32::MAX))
        .contains(&number.floor())
        .then(|| number.floor() as usize)
}

fn holds(comparison: Comparison, left: &Value, right: &Value) -> bool {
    let is = |wanted| left.order(right) == Some(wanted);
    match comparison {
        Comparison::Equal => left.equals(right),
        Comparison::NotEqual => !left.equals(right),
        Comparison::Less => is(Ordering::Less),
        Comparison::LessOrEqual => is(Ordering::Less) || left.equals(right),
        Comparison::Greater => is(Ordering::Greater),
        Comparison::GreaterOrEqual => is(Ordering::Greater) || left.equals(right),
    }
}
