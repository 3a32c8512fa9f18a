//! The bounds of one evaluation: what its values take, and what it does.

use std::ops::Range;

use super::{
    MAX_MEMORY, MAX_STEPS,
    error::{ErrorKind, ExpressionError},
    value::Value,
};

/// What a text takes beside its characters, and what any other value takes; GitHub's figures.
const TEXT: usize = 26;
const OTHER: usize = 24;

/// What a text takes, in bytes.
pub(super) fn size_of_text(text: &str) -> usize {
    TEXT + 2 * text.len()
}

/// What a value takes, without what is in a collection.
pub(super) fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => size_of_text(text.as_str()),
        _ => OTHER,
    }
}

/// Bytes of text that count as one step.
const BYTES_A_STEP: usize = 64;

/// Counts what one evaluation takes.
#[derive(Debug, Default)]
pub(super) struct Meter {
    memory: usize,
    steps: usize,
}

impl Meter {
    /// What values take now.
    pub fn memory(&self) -> usize {
        self.memory
    }

    /// What values may take beside those that are here.
    pub fn left(&self) -> usize {
        MAX_MEMORY.saturating_sub(self.memory)
    }

    /// Parts of the tree or items, which the part at `span` has cost.
    pub fn step(&mut self, steps: usize, span: &Range<usize>) -> Result<(), ExpressionError> {
        self.steps += steps;
        if self.steps > MAX_STEPS {
            return Err(ErrorKind::Steps.at(span.clone()));
        }
        Ok(())
    }

    /// Text that is read or written.
    pub fn text(&mut self, bytes: usize, span: &Range<usize>) -> Result<(), ExpressionError> {
        self.step(bytes / BYTES_A_STEP, span)
    }

    /// A value was made, of others made since `before` was taken. A primitive one holds nothing of these.
    pub fn made(&mut self, value: &Value, before: usize, span: &Range<usize>) -> Result<(), ExpressionError> {
        if value.is_primitive() {
            self.memory = before;
        }
        self.take(size(value), span)
    }

    /// Memory that is taken beside the value itself, as for the items of a list.
    pub fn take(&mut self, bytes: usize, span: &Range<usize>) -> Result<(), ExpressionError> {
        self.memory += bytes;
        self.fits(0, span)
    }

    fn fits(&self, more: usize, span: &Range<usize>) -> Result<(), ExpressionError> {
        if self.memory + more > MAX_MEMORY {
            return Err(ErrorKind::Memory.at(span.clone()));
        }
        Ok(())
    }
}

/// A text in the making, which never grows beyond what the evaluation may take.
pub(super) struct Writer<'m> {
    meter: &'m mut Meter,
    span: Range<usize>,
    text: String,
}

impl<'m> Writer<'m> {
    /// The result of the part at `span`.
    pub fn new(meter: &'m mut Meter, span: &Range<usize>) -> Self {
        Self {
            meter,
            span: span.clone(),
            text: String::new(),
        }
    }

    /// Writes more.
    pub fn push(&mut self, text: &str) -> Result<(), ExpressionError> {
        self.meter.text(text.len(), &self.span)?;
        self.meter.fits(2 * (self.text.len() + text.len()), &self.span)?;
        self.text.push_str(text);
        Ok(())
    }

    /// Counts an item of a collection.
    pub fn step(&mut self) -> Result<(), ExpressionError> {
        self.meter.step(1, &self.span)
    }

    /// All that was written.
    pub fn finish(self) -> String {
        self.text
    }
}

#[cfg(test)]
impl Meter {
    /// How many were counted.
    pub fn steps(&self) -> usize {
        self.steps
    }
}
