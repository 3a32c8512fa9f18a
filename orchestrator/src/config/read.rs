//! Typed reading from the tree. A wrong value is written down and reading goes on, so that one
//! reading finds everything that is wrong.

use std::{
    collections::BTreeMap,
    fmt::Display,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    str::FromStr,
};

use super::{problem::Problem, secret_ref};
use crate::{
    config::options::LoadOptions,
    secret::Secret,
    yaml::{Key, Node, Scalar, Span, Value, nearest},
};

/// Collects what is wrong, and the references behind secrets.
pub(super) struct Reader {
    pub(super) file: String,
    pub(super) env_allowed: bool,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
    /// The reference behind each secret, by its path in the configuration.
    pub(super) references: BTreeMap<String, String>,
    #[cfg(test)]
    pub(super) keys: std::collections::BTreeSet<String>,
}

/// A mapping whose keys were checked.
pub(super) struct Map<'a> {
    pub(super) span: Span,
    path: String,
    entries: BTreeMap<&'a str, &'a Node>,
}

impl<'a> Map<'a> {
    /// The value of a key; `None` where it is left out or empty.
    pub(super) fn get(&self, key: &str) -> Option<&'a Node> {
        self.entries.get(key).copied().filter(|node| !node.is_null())
    }

    /// The path of a key below this mapping, as messages and references name it.
    pub(super) fn path(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }
}

/// What a value is, for messages.
fn kind(node: &Node) -> &'static str {
    match &node.value {
        Value::Sequence(_) => "a list",
        Value::Mapping(_) => "a mapping",
        Value::Scalar(_) if node.is_null() => "nothing",
        Value::Scalar(_) => "a single value",
    }
}

impl Reader {
    /// A reader of the text of this file.
    pub(super) fn new(file: &Path, options: LoadOptions) -> Self {
        Self {
            file: file.display().to_string(),
            env_allowed: options.dev_env_secrets,
            problems: Vec::new(),
            warnings: Vec::new(),
            references: BTreeMap::new(),
            #[cfg(test)]
            keys: std::collections::BTreeSet::new(),
        }
    }

    pub(super) fn problem(&mut self, span: Span, message: impl Into<String>, help: impl Into<Option<String>>) {
        let problem = self.made(span, message.into(), help.into());
        self.problems.push(problem);
    }

    pub(super) fn warning(&mut self, span: Span, message: impl Into<String>) {
        let problem = self.made(span, message.into(), None);
        self.warnings.push(problem);
    }

    /// What keys there are, for the test that the example has every one.
    fn note_keys(&mut self, _path: &str, _known: &[&'static str]) {
        #[cfg(test)]
        for key in _known {
            let separator = if _path.is_empty() { "" } else { "." };
            self.keys.insert(format!("{_path}{separator}{key}"));
        }
    }

    fn made(&self, span: Span, message: String, help: Option<String>) -> Problem {
        Problem {
            file: self.file.clone(),
            span,
            message,
            help,
        }
    }

    /// A mapping with exactly these keys possible. Not even a value of an unknown key is repeated: it
    /// could be a misspelt secret.
    pub(super) fn map<'a>(&mut self, node: &'a Node, path: &str, known: &[&'static str]) -> Map<'a> {
        self.note_keys(path, known);
        let mut entries = BTreeMap::new();
        for (key, value) in self.entries(node, path) {
            if known.contains(&key.text.as_str()) {
                entries.insert(key.text.as_str(), value);
                continue;
            }
            let name = shown(&key.text);
            let help = match nearest(&key.text, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("possible here: {}", known.join(", ")),
            };
            let section = if path.is_empty() { "the configuration" } else { path };
            self.problem(key.span, format!("unknown key `{name}` in {section}"), help);
        }
        Map {
            span: node.span,
            path: path.to_owned(),
            entries,
        }
    }

    /// A section at the top, with exactly these keys possible; empty where it is left out.
    pub(super) fn section<'a>(&mut self, top: &Map<'a>, name: &str, known: &[&'static str]) -> Map<'a> {
        match top.get(name) {
            Some(node) => self.map(node, name, known),
            None => {
                self.note_keys(name, known);
                Map {
                    span: top.span,
                    path: name.to_owned(),
                    entries: BTreeMap::new(),
                }
            }
        }
    }

    /// The entries of a mapping with free keys; a key may stand only once.
    pub(super) fn entries<'a>(&mut self, node: &'a Node, path: &str) -> Vec<(&'a Key, &'a Node)> {
        let entries = match &node.value {
            Value::Mapping(entries) => entries,
            _ if node.is_null() => return Vec::new(),
            _ => {
                let what = if path.is_empty() { "the configuration" } else { path };
                self.problem(node.span, format!("{what} must be a mapping, not {}", kind(node)), None);
                return Vec::new();
            }
        };
        let mut first: BTreeMap<&str, Span> = BTreeMap::new();
        let mut unique = Vec::new();
        for (key, value) in entries {
            if let Some(span) = first.get(key.text.as_str()) {
                let help = format!("it stands at line {} already; remove one", span.line);
                self.problem(key.span, format!("the key `{}` stands twice", shown(&key.text)), help);
                continue;
            }
            first.insert(&key.text, key.span);
            unique.push((key, value));
        }
        unique
    }

    /// The items of a list.
    pub(super) fn list<'a>(&mut self, node: Option<&'a Node>, path: &str) -> &'a [Node] {
        let Some(node) = node else { return &[] };
        match &node.value {
            Value::Sequence(items) => items,
            _ => {
                self.problem(node.span, format!("{path} must be a list, not {}", kind(node)), None);
                &[]
            }
        }
    }

    /// A single value's text.
    pub(super) fn text<'a>(&mut self, node: &'a Node, path: &str) -> Option<&'a str> {
        let Some(scalar) = node.scalar() else {
            let message = format!("{path} must be a single value, not {}", kind(node));
            self.problem(node.span, message, None);
            return None;
        };
        let text = &scalar.written;
        if text.trim().is_empty() || text.chars().any(char::is_control) {
            self.problem(node.span, format!("{path} is empty or holds control characters"), None);
            return None;
        }
        Some(text)
    }

    /// A value of a parsed type; its error becomes the message.
    pub(super) fn parsed<T: FromStr<Err: Display>>(&mut self, node: Option<&Node>, path: &str) -> Option<T> {
        let node = node?;
        let text = self.text(node, path)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem(
                    node.span,
                    format!("{path} `{}` is not possible: {error}", shown(text)),
                    None,
                );
                None
            }
        }
    }

    /// A parsed key of a mapping.
    pub(super) fn key<T: FromStr<Err: Display>>(&mut self, key: &Key) -> Option<T> {
        match key.text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem(key.span, error.to_string(), None);
                None
            }
        }
    }

    /// A whole number within bounds, optionally with `KiB`, `MiB` or `GiB` behind it. What is out of
    /// bounds is an error, zero included.
    pub(super) fn number<T>(&mut self, node: Option<&Node>, path: &str, range: RangeInclusive<T>) -> Option<T>
    where
        T: Copy + Display + PartialOrd + TryFrom<u64>,
    {
        let node = node?;
        let Some(Scalar {
            written: text,
            plain: true,
            ..
        }) = node.scalar()
        else {
            self.problem(node.span, format!("{path} must be a number, not {}", kind(node)), None);
            return None;
        };
        let (digits, factor) = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)]
            .into_iter()
            .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?.trim_end(), factor)))
            .unwrap_or((text.as_str(), 1));
        let number = match digits.bytes().all(|b| b.is_ascii_digit()) {
            true => digits.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)),
            false => None,
        };
        let (low, high) = (*range.start(), *range.end());
        match number {
            // What does not fit into the type is out of bounds, too.
            Some(number) => {
                if let Some(number) = T::try_from(number).ok().filter(|number| range.contains(number)) {
                    return Some(number);
                }
                let help = format!("possible: {low} to {high}");
                self.problem(node.span, format!("{path} cannot be {number}"), help);
            }
            None => {
                let message = format!("{path} must be a whole number, not `{}`", shown(text));
                self.problem(node.span, message, format!("possible: {low} to {high}"));
            }
        }
        None
    }

    /// `true` or `false`.
    pub(super) fn truth(&mut self, node: Option<&Node>, path: &str) -> Option<bool> {
        let node = node?;
        match node
            .scalar()
            .filter(|scalar| scalar.plain)
            .map(|scalar| scalar.written.as_str())
        {
            Some("true") => Some(true),
            Some("false") => Some(false),
            _ => {
                self.problem(node.span, format!("{path} must be `true` or `false`"), None);
                None
            }
        }
    }

    /// An absolute path without `..`.
    pub(super) fn path(&mut self, node: Option<&Node>, path: &str) -> Option<PathBuf> {
        let node = node?;
        let text = self.text(node, path)?;
        if text.starts_with('/') && !text.split('/').any(|part| part == "..") {
            return Some(PathBuf::from(text));
        }
        let message = format!("{path} `{}` must be an absolute path without `..`", shown(text));
        self.problem(node.span, message, None);
        None
    }

    /// A secret behind its reference. The written text is not repeated when it is no reference.
    pub(super) fn secret(&mut self, node: &Node, path: &str) -> Option<Secret> {
        let text = node.scalar().map(|scalar| &scalar.written);
        let reference = text.and_then(|text| Some((secret_ref::parse(text)?, text)));
        let Some((reference, text)) = reference else {
            let message = format!("{path} must be a reference to a secret, never the secret itself");
            let help = "write `file:/absolute/path` of a file only the daemon's user can read; \
                        if a real secret stood here, replace it at its source";
            self.problem(node.span, message, help.to_owned());
            return None;
        };
        self.references.insert(path.to_owned(), text.clone());
        match secret_ref::fetch(&reference, self.env_allowed) {
            Ok(secret) => {
                if matches!(reference, secret_ref::Reference::Env(_)) {
                    self.warning(
                        node.span,
                        format!("{path} comes from the environment: for development only"),
                    );
                }
                Some(secret)
            }
            Err(unusable) => {
                self.problem(node.span, format!("{path}: {}", unusable.message), unusable.help);
                None
            }
        }
    }

    /// A secret that must be there.
    pub(super) fn required_secret(&mut self, map: &Map<'_>, key: &str) -> Option<Secret> {
        let path = map.path(key);
        match map.get(key) {
            Some(node) => self.secret(node, &path),
            None => {
                self.problem(
                    map.span,
                    format!("{path} is missing"),
                    format!("write `{key}: file:/absolute/path`"),
                );
                None
            }
        }
    }
}

/// Foreign text in a message: bounded, and without control characters.
pub(super) fn shown(text: &str) -> String {
    text.chars()
        .take(60)
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}
