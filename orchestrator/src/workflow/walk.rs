//! The tools of the schema walk: it goes through the tree along tables of keys and collects what is
//! wrong, each thing with its place. A key is supported, known but not supported yet, or unknown;
//! growing the language moves a name from one table to another and adds the function that reads it.

use crate::{
    foreign_text::one_line,
    model::diagnostic::Diagnostic,
    yaml::{Fault, Key, Kind, Node, Scalar, Span, Value, nearest},
};

/// How many complaints about one file are shown.
pub(super) const MAX_SHOWN: usize = 10;
/// Complaints are collected up to here, to show the first ones of the file.
const MAX_COLLECTED: usize = 200;

/// The keys of one kind of mapping.
pub(super) struct Table {
    /// What the mapping is: `a job`.
    pub what: &'static str,
    /// What we read.
    pub supported: &'static [&'static str],
    /// What GitHub or Forgejo know and we refuse.
    pub not_yet: &'static [&'static str],
}

impl Table {
    fn help(&self) -> String {
        if self.supported.is_empty() {
            return "nothing is supported here".into();
        }
        format!("supported here: `{}`", self.supported.join("`, `"))
    }
}

/// The supported entries of one mapping.
pub(super) struct Fields<'n>(Vec<(&'n Key, &'n Node)>);

impl<'n> Fields<'n> {
    /// The entry of this key.
    pub fn get(&self, name: &str) -> Option<&'n Node> {
        self.entry(name).map(|(_, node)| node)
    }

    /// As [`Fields::get`], with the key's place.
    pub fn entry(&self, name: &str) -> Option<(&'n Key, &'n Node)> {
        self.0.iter().find(|(key, _)| key.text == name).copied()
    }
}

/// Collects what is wrong with one file.
pub(super) struct Walk<'a> {
    file: &'a str,
    source: &'a str,
    found: Vec<Diagnostic>,
}

impl<'a> Walk<'a> {
    /// A walk through `source`, which lies at `file` in its repository.
    pub fn new(file: &'a str, source: &'a str) -> Self {
        Self {
            file,
            source,
            found: Vec::new(),
        }
    }

    /// Whether nothing is wrong so far.
    pub fn is_clean(&self) -> bool {
        self.found.is_empty()
    }

    /// All complaints, in the order of the file.
    pub fn finish(mut self) -> Vec<Diagnostic> {
        self.found.sort_by_key(|d| (d.line, d.column));
        self.found.dedup();
        self.found
    }

    /// One complaint.
    pub fn error(&mut self, at: Span, message: impl Into<String>) {
        self.push(at, message.into(), None);
    }

    /// One complaint, with what to do about it.
    pub fn error_help(&mut self, at: Span, message: impl Into<String>, help: impl Into<String>) {
        self.push(at, message.into(), Some(help.into()));
    }

    /// What the reader of the text found.
    pub fn faults(&mut self, faults: Vec<Fault>) {
        for fault in faults {
            self.push(fault.span, fault.message, None);
        }
    }

    fn push(&mut self, at: Span, message: String, help: Option<String>) {
        if self.found.len() < MAX_COLLECTED {
            self.found.push(Diagnostic {
                file: self.file.to_owned(),
                line: at.line,
                column: at.column,
                message,
                help,
            });
        }
    }

    /// Goes through a mapping along its table. `None` when it is no mapping, which is said.
    pub fn fields<'n>(&mut self, node: &'n Node, table: &Table) -> Option<Fields<'n>> {
        let entries = self.mapping(node, table.what)?;
        let mut fields = Vec::new();
        for (key, value) in entries {
            if table.supported.contains(&key.text.as_str()) {
                fields.push((key, value));
            } else if table.not_yet.contains(&key.text.as_str()) {
                let message = format!("`{}` in {} is not supported yet", key.text, table.what);
                self.error_help(key.span, message, table.help());
            } else {
                self.unknown(key.span, &key.text, table);
            }
        }
        Some(Fields(fields))
    }

    fn unknown(&mut self, at: Span, text: &str, table: &Table) {
        let candidates = table.supported.iter().chain(table.not_yet).copied();
        let help = match nearest(text, candidates) {
            Some(near) => format!("did you mean `{near}`?"),
            None => table.help(),
        };
        let message = format!("unknown key `{}` in {}", shown(text), table.what);
        self.error_help(at, message, help);
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
                    .map(|item| self.required(item, what).map(|text| (item, text)))
                    .collect();
                all.into_iter().collect()
            }
            _ => self.required(node, what).map(|text| vec![(node, text)]),
        }
    }

    /// A scalar as text, which may be empty.
    pub fn text(&mut self, node: &Node, what: &str) -> Option<String> {
        let Value::Scalar(scalar) = &node.value else {
            self.wrong(node, "a text", what);
            return None;
        };
        let text = scalar.text();
        if text.contains("${{") {
            let at = self.place_in(node.span, &scalar.bytes);
            self.expression(at);
            return None;
        }
        if text.contains('\0') {
            self.error(node.span, format!("{what} cannot contain a NUL character"));
            return None;
        }
        Some(text.into_owned())
    }

    /// A scalar as text that is not empty.
    pub fn required(&mut self, node: &Node, what: &str) -> Option<String> {
        let text = self.text(node, what)?;
        if text.trim().is_empty() {
            self.error(node.span, format!("{what} cannot be empty"));
            return None;
        }
        Some(text)
    }

    /// A text of one line, trimmed, for people: at most 200 characters, no control characters.
    /// `Some(None)` when it is empty.
    pub fn line(&mut self, node: &Node, what: &str) -> Option<Option<String>> {
        let text = self.text(node, what)?;
        let text = text.trim();
        if text.chars().any(char::is_control) {
            self.error(node.span, format!("{what} must be one line without control characters"));
            return None;
        }
        if text.chars().count() > 200 {
            self.error(node.span, format!("{what} is longer than 200 characters"));
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

    /// A whole number within bounds; `quoted` where a number written as text is one too.
    pub fn whole(&mut self, node: &Node, what: &str, (min, max): (u32, u32), quoted: bool) -> Option<u32> {
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
            _ => {
                if self.is_not_expression(node) {
                    self.error(node.span, format!("{what} must be a whole number from {min} to {max}"));
                }
                None
            }
        }
    }

    /// Says so when a key holds an expression.
    pub fn plain_key(&mut self, key: &Key) -> bool {
        if key.text.contains("${{") {
            let at = self.place_in(key.span, &key.bytes);
            self.expression(at);
            return false;
        }
        true
    }

    fn is_not_expression(&mut self, node: &Node) -> bool {
        match &node.value {
            Value::Scalar(scalar) if scalar.text().contains("${{") => {
                let at = self.place_in(node.span, &scalar.bytes);
                self.expression(at);
                false
            }
            _ => true,
        }
    }

    fn expression(&mut self, at: Span) {
        self.error_help(
            at,
            "expressions (`${{ … }}`) are not supported yet",
            "use a shell variable instead; `$GITHUB_SHA`, `$GITHUB_REF_NAME` and others are set in every step",
        );
    }

    /// The place of the first `${{` within a scalar; where the scalar begins if it was escaped.
    fn place_in(&self, whole: Span, bytes: &std::ops::Range<usize>) -> Span {
        let Some(found) = self.source.get(bytes.clone()).and_then(|slice| slice.find("${{")) else {
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
            length: "${{".len(),
        }
    }

    fn wrong(&mut self, node: &Node, expected: &str, what: &str) {
        self.error(node.span, format!("{what} must be {expected}, not {}", node.noun()));
    }
}

/// Foreign text for a message.
pub(super) fn shown(text: &str) -> String {
    one_line(text, 80)
}
