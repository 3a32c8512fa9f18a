//! The tools of the walks through one file: they collect what is wrong, each thing with its place, and read values.
//!
//! Three walks share one collector: the strict one along the table of the language (`check`), the rules that a table
//! cannot hold (`rules`), and the reading of the plan (`listen`, `job`, `step`). The last assumes what the first has
//! said: a value of another form is a reason not to plan, and is said only where nothing else was.

use std::ops::Range;

use super::{code::Code, schema::STARTING};
use crate::{
    foreign_text::one_line,
    model::diagnostic::{Diagnostic, Severity},
    yaml::{Fault, Key, Kind, Node, Scalar, Span, Value},
};

/// How many complaints about one file are stored and shown on the forge.
pub(super) const MAX_SHOWN: usize = 10;
/// Complaints are collected up to here; the rest is counted.
pub(super) const MAX_COLLECTED: usize = 200;

/// What is wrong with one file.
#[derive(Debug, Default)]
pub struct Findings {
    /// In the order of the file.
    pub diagnostics: Vec<Diagnostic>,
    /// How many more there are.
    pub omitted: usize,
    /// How many errors were found, those too that are not among the diagnostics.
    pub errors: usize,
    /// As `errors`, of what is valid and does not run here.
    pub unsupported: usize,
    /// How many values were looked at: what the strict walk cost.
    pub visits: usize,
}

/// The entries of one mapping, for reading a plan.
pub(super) struct Fields<'n>(&'n [(Key, Node)]);

impl<'n> Fields<'n> {
    /// The entry of this key.
    pub fn get(&self, name: &str) -> Option<&'n Node> {
        self.entry(name).map(|(_, node)| node)
    }

    /// As [`Fields::get`], with the key's place.
    pub fn entry(&self, name: &str) -> Option<(&'n Key, &'n Node)> {
        self.0
            .iter()
            .find(|(key, _)| key.text == name)
            .map(|(key, node)| (key, node))
    }
}

/// Below which events of `on` the walks look; the names of all are judged.
#[derive(Debug, Clone, Copy)]
pub(super) enum Below<'a> {
    All,
    /// Those that start runs here: what stands below another one changes nothing here.
    Starting,
    One(&'a str),
}

/// Collects what is wrong with one file.
pub(super) struct Walk<'a> {
    file: &'a str,
    source: &'a str,
    below: Below<'a>,
    found: Vec<Diagnostic>,
    omitted: usize,
    errors: usize,
    unsupported: usize,
    warnings: usize,
    visits: usize,
    /// Values that the plan cannot hold, in case that the strict walk let them pass.
    misread: Vec<(Span, String)>,
}

impl<'a> Walk<'a> {
    /// A walk through `source`, which lies at `file` in its repository.
    pub fn new(file: &'a str, source: &'a str, below: Below<'a>) -> Self {
        Self {
            file,
            source,
            below,
            found: Vec::new(),
            omitted: 0,
            errors: 0,
            unsupported: 0,
            warnings: 0,
            visits: 0,
            misread: Vec::new(),
        }
    }

    /// Whether nothing keeps it from running so far.
    pub fn is_clean(&self) -> bool {
        self.errors == 0 && self.unsupported == 0 && self.misread.is_empty()
    }

    /// Whether it is a valid workflow so far.
    pub fn is_valid(&self) -> bool {
        self.errors == 0
    }

    /// Whether what stands below this event counts.
    pub fn looks_below(&self, event: &str) -> bool {
        match self.below {
            Below::All => true,
            Below::Starting => STARTING.contains(&event),
            Below::One(only) => event == only,
        }
    }

    /// Whether no more errors are collected; then only [`Walk::omit`] counts them, as making one costs.
    pub fn is_full(&self) -> bool {
        !self.has_room(Severity::Error)
    }

    /// None takes the place of a worse one.
    fn has_room(&self, severity: Severity) -> bool {
        let so_far = match severity {
            Severity::Error => self.errors,
            Severity::Unsupported => self.unsupported,
            Severity::Warning => self.warnings,
        };
        so_far < MAX_COLLECTED
    }

    /// Counts an error that is not made.
    pub fn omit(&mut self) {
        self.errors += 1;
        self.omitted += 1;
    }

    /// Counts a value that is looked at: what a walk costs.
    pub fn visit(&mut self) {
        self.visits += 1;
    }

    /// All complaints, in the order of the file.
    pub fn finish(mut self) -> Findings {
        if self.errors == 0 && self.unsupported == 0 {
            for (span, message) in std::mem::take(&mut self.misread) {
                self.report(Code::WrongType, span, message);
            }
        }
        // At one place, what is most wrong comes first.
        self.found.sort_by_key(|d| (d.line, d.column, d.severity));
        self.found.dedup();
        // What is wrong need not also be called unsupported.
        let mut wrong = (0, 0);
        self.found.retain(|d| {
            if d.severity == Severity::Error {
                wrong = (d.line, d.column);
            }
            d.severity != Severity::Unsupported || wrong != (d.line, d.column)
        });
        // Both together are no more than either may be.
        let errors = self.found.iter().filter(|d| d.severity == Severity::Error).count();
        let mut room = MAX_COLLECTED.saturating_sub(errors);
        let before = self.found.len();
        self.found.retain(|d| {
            let is_kept = d.severity != Severity::Unsupported || room > 0;
            room -= usize::from(is_kept && d.severity == Severity::Unsupported);
            is_kept
        });
        self.omitted += before - self.found.len();
        Findings {
            diagnostics: self.found,
            omitted: self.omitted,
            errors: self.errors,
            unsupported: self.unsupported,
            visits: self.visits,
        }
    }

    /// One complaint.
    pub fn report(&mut self, code: Code, at: Span, message: impl Into<String>) {
        self.report_with(code, at, || (message.into(), None));
    }

    /// One complaint, with what to do about it.
    pub fn report_help(&mut self, code: Code, at: Span, message: impl Into<String>, help: impl Into<String>) {
        self.report_with(code, at, || (message.into(), Some(help.into())));
    }

    /// What the reader of the text found, and how many more it did.
    pub fn faults(&mut self, faults: Vec<Fault>, omitted: usize) {
        for fault in faults {
            self.report(fault.kind.into(), fault.span, fault.message);
        }
        self.errors += omitted;
        self.omitted += omitted;
    }

    /// One complaint and perhaps a help, which are made only if they are kept.
    pub fn report_with(&mut self, code: Code, at: Span, make: impl FnOnce() -> (String, Option<String>)) {
        let room = self.has_room(code.severity());
        *match code.severity() {
            Severity::Error => &mut self.errors,
            Severity::Unsupported => &mut self.unsupported,
            Severity::Warning => &mut self.warnings,
        } += 1;
        if !room {
            self.omitted += 1;
            return;
        }
        let (message, help) = make();
        self.found.push(Diagnostic {
            severity: code.severity(),
            code: code.name().to_owned(),
            file: self.file.to_owned(),
            line: at.line,
            column: at.column,
            length: u32::try_from(at.length).unwrap_or(u32::MAX),
            message,
            help,
        });
    }

    /// The entries of a mapping.
    pub fn fields<'n>(&mut self, node: &'n Node, what: &str) -> Option<Fields<'n>> {
        self.mapping(node, what).map(Fields)
    }

    /// The entries of a mapping.
    pub fn mapping<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n [(Key, Node)]> {
        match &node.value {
            Value::Mapping(entries) => Some(entries),
            _ => {
                self.wrong(node, "a mapping", what);
                None
            }
        }
    }

    /// The items of a list.
    pub fn sequence<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n [Node]> {
        match &node.value {
            Value::Sequence(items) => Some(items),
            _ => {
                self.wrong(node, "a list", what);
                None
            }
        }
    }

    /// A text, or a list of texts; each with its node.
    pub fn texts<'n>(&mut self, node: &'n Node, what: &str) -> Option<Vec<(&'n Node, String)>> {
        match &node.value {
            Value::Sequence(items) => {
                let all: Vec<_> = items
                    .iter()
                    .map(|item| self.text(item, what).map(|text| (item, text)))
                    .collect();
                all.into_iter().collect()
            }
            _ => self.text(node, what).map(|text| vec![(node, text)]),
        }
    }

    /// A scalar as text, which may be empty.
    pub fn text(&mut self, node: &Node, what: &str) -> Option<String> {
        if !self.is_not_expression(node) {
            return None;
        }
        let Value::Scalar(scalar) = &node.value else {
            self.wrong(node, "a text", what);
            return None;
        };
        let text = scalar.text();
        if text.contains('\0') {
            self.report(
                Code::UnsupportedVariable,
                node.span,
                format!("{what} cannot contain a NUL character"),
            );
            return None;
        }
        Some(text.into_owned())
    }

    /// A text of one line, trimmed, for people: at most 200 characters, no control characters.
    /// `Some(None)` when it is empty.
    pub fn line(&mut self, node: &Node, what: &str) -> Option<Option<String>> {
        let text = self.text(node, what)?;
        let text = text.trim();
        if text.chars().any(char::is_control) {
            let message = format!("{what} must be one line without control characters");
            self.report(Code::UnsupportedName, node.span, message);
            return None;
        }
        if text.chars().count() > 200 {
            let message = format!("{what} is longer than 200 characters");
            self.report(Code::UnsupportedName, node.span, message);
            return None;
        }
        Some((!text.is_empty()).then(|| text.to_owned()))
    }

    /// A boolean.
    pub fn boolean(&mut self, node: &Node, what: &str) -> Option<bool> {
        match &node.value {
            Value::Scalar(Scalar {
                kind: Kind::Bool(value),
                ..
            }) => Some(*value),
            _ => {
                if self.is_not_expression(node) {
                    self.wrong(node, "`true` or `false`", what);
                }
                None
            }
        }
    }

    /// A whole number within bounds, which `code` complains about otherwise; `quoted` where a number written as text is
    /// one too.
    pub fn whole(&mut self, node: &Node, what: &str, (min, max): (u32, u32), quoted: bool, code: Code) -> Option<u32> {
        let number = match &node.value {
            Value::Scalar(Scalar {
                kind: Kind::Number(value),
                ..
            }) => Some(*value),
            Value::Scalar(Scalar {
                kind: Kind::Text,
                written,
                ..
            }) if quoted => written.trim().parse::<u32>().ok().map(f64::from),
            _ => None,
        };
        match number {
            Some(n) if n.fract() == 0.0 && n >= f64::from(min) && n <= f64::from(max) => {
                // In range and whole, so nothing is cut off.
                #[allow(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "checked just above"
                )]
                Some(n as u32)
            }
            None if !quoted => {
                if self.is_not_expression(node) {
                    self.wrong(node, "a number", what);
                }
                None
            }
            _ => {
                if self.is_not_expression(node) {
                    let message = format!("{what} must be a whole number from {min} to {max}");
                    self.report(code, node.span, message);
                }
                None
            }
        }
    }

    /// Says so when a key holds an expression.
    pub fn plain_key(&mut self, key: &Key) -> bool {
        if key.text.contains("${{") {
            let at = self.span_inside(Code::UnsupportedExpression, key.span, &key.bytes, "${{");
            self.expression(at);
            return false;
        }
        true
    }

    fn is_not_expression(&mut self, node: &Node) -> bool {
        match &node.value {
            Value::Scalar(scalar) if scalar.text().contains("${{") => {
                let at = self.span_inside(Code::UnsupportedExpression, node.span, &scalar.bytes, "${{");
                self.expression(at);
                false
            }
            _ => true,
        }
    }

    fn expression(&mut self, at: Span) {
        self.report_help(
            Code::UnsupportedExpression,
            at,
            "expressions (`${{ … }}`) are not supported yet",
            "use a shell variable instead; `$GITHUB_SHA`, `$GITHUB_REF_NAME` and others are set in every step",
        );
    }

    /// Where a word stands for the first time within a scalar; where the scalar begins if it was escaped.
    pub fn span_inside(&self, code: Code, whole: Span, bytes: &Range<usize>, word: &str) -> Span {
        // Counting lines costs; nobody reads the place of a complaint that is not shown.
        if !self.has_room(code.severity()) {
            return whole;
        }
        let Some(found) = self.source.get(bytes.clone()).and_then(|slice| slice.find(word)) else {
            return whole;
        };
        let offset = bytes.start + found;
        let before = &self.source[..offset];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        Span {
            line: u32::try_from(line).unwrap_or(u32::MAX),
            column: u32::try_from(column).unwrap_or(u32::MAX),
            offset,
            length: word.len(),
        }
    }

    fn wrong(&mut self, node: &Node, expected: &str, what: &str) {
        if self.misread.len() < MAX_COLLECTED {
            let message = format!("{what} must be {expected}, not {}", node.noun());
            self.misread.push((node.span, message));
        }
    }
}

/// Foreign text for a message.
pub(super) fn shown(text: &str) -> String {
    one_line(text, 80)
}

/// Words for a help, at most so many that a person reads them.
pub(super) fn quoted_list(words: &[&str]) -> String {
    if words.is_empty() {
        return "nothing".to_owned();
    }
    format!("`{}`", words.join("`, `"))
}
