//! Typed reading from the tree. A wrong value is written down and reading goes on, so that one look
//! finds everything that is wrong.

use std::{
    collections::BTreeMap,
    fmt::Display,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    str::FromStr,
};

use super::{
    load::LoadOptions,
    problem::{Place, Problem},
    secret_ref,
    tree::{Key, Node, Value},
};
use crate::secret::Secret;

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
    pub(super) place: Place,
    path: String,
    entries: BTreeMap<&'a str, &'a Node>,
}

impl<'a> Map<'a> {
    /// The value of a key; `None` where it is left out or empty.
    pub(super) fn get(&self, key: &str) -> Option<&'a Node> {
        self.entries
            .get(key)
            .copied()
            .filter(|node| !matches!(node.value, Value::Nothing))
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

/// The candidate a person most likely meant.
pub(super) fn nearest<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = |candidate: &&str| strsim::jaro_winkler(text, candidate);
    known
        .into_iter()
        .map(|candidate| (near(&candidate), candidate))
        .filter(|(score, _)| *score > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
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

    pub(super) fn problem(&mut self, place: Place, message: impl Into<String>, help: impl Into<Option<String>>) {
        let problem = self.made(place, message.into(), help.into());
        self.problems.push(problem);
    }

    pub(super) fn warning(&mut self, place: Place, message: impl Into<String>) {
        let problem = self.made(place, message.into(), None);
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

    fn made(&self, place: Place, message: String, help: Option<String>) -> Problem {
        Problem {
            file: self.file.clone(),
            place,
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
            let place_name = if path.is_empty() { "the configuration" } else { path };
            self.problem(key.place, format!("unknown key `{name}` in {place_name}"), help);
        }
        Map {
            place: node.place,
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
                    place: top.place,
                    path: name.to_owned(),
                    entries: BTreeMap::new(),
                }
            }
        }
    }

    /// The entries of a mapping with free keys; a key may stand only once.
    pub(super) fn entries<'a>(&mut self, node: &'a Node, path: &str) -> Vec<(&'a Key, &'a Node)> {
        let entries = match &node.value {
            Value::Map(entries) => entries,
            Value::Nothing => return Vec::new(),
            other => {
                let what = if path.is_empty() { "the configuration" } else { path };
                self.problem(
                    node.place,
                    format!("{what} must be a mapping, not {}", other.kind()),
                    None,
                );
                return Vec::new();
            }
        };
        let mut first: BTreeMap<&str, Place> = BTreeMap::new();
        let mut unique = Vec::new();
        for (key, value) in entries {
            if let Some(place) = first.get(key.text.as_str()) {
                let help = format!("it stands at line {} already; remove one", place.line);
                self.problem(key.place, format!("the key `{}` stands twice", shown(&key.text)), help);
                continue;
            }
            first.insert(&key.text, key.place);
            unique.push((key, value));
        }
        unique
    }

    /// The items of a list.
    pub(super) fn list<'a>(&mut self, node: Option<&'a Node>, path: &str) -> &'a [Node] {
        match node.map(|n| (&n.value, n.place)) {
            None => &[],
            Some((Value::List(items), _)) => items,
            Some((other, place)) => {
                self.problem(place, format!("{path} must be a list, not {}", other.kind()), None);
                &[]
            }
        }
    }

    /// A single value's text.
    pub(super) fn text<'a>(&mut self, node: &'a Node, path: &str) -> Option<&'a str> {
        match &node.value {
            Value::Scalar { text, .. } if !text.trim().is_empty() && !text.chars().any(char::is_control) => Some(text),
            Value::Scalar { .. } => {
                self.problem(node.place, format!("{path} is empty or holds control characters"), None);
                None
            }
            other => {
                self.problem(
                    node.place,
                    format!("{path} must be a single value, not {}", other.kind()),
                    None,
                );
                None
            }
        }
    }

    /// A value of a parsed type; its error becomes the message.
    pub(super) fn parsed<T: FromStr<Err: Display>>(&mut self, node: Option<&Node>, path: &str) -> Option<T> {
        let node = node?;
        let text = self.text(node, path)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem(
                    node.place,
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
                self.problem(key.place, error.to_string(), None);
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
        let Value::Scalar { text, plain: true } = &node.value else {
            self.problem(
                node.place,
                format!("{path} must be a number, not {}", node.value.kind()),
                None,
            );
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
                self.problem(node.place, format!("{path} cannot be {number}"), help);
            }
            None => {
                let message = format!("{path} must be a whole number, not `{}`", shown(text));
                self.problem(node.place, message, format!("possible: {low} to {high}"));
            }
        }
        None
    }

    /// `true` or `false`.
    pub(super) fn truth(&mut self, node: Option<&Node>, path: &str) -> Option<bool> {
        let node = node?;
        match &node.value {
            Value::Scalar { text, plain: true } if text == "true" => Some(true),
            Value::Scalar { text, plain: true } if text == "false" => Some(false),
            _ => {
                self.problem(node.place, format!("{path} must be `true` or `false`"), None);
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
        self.problem(node.place, message, None);
        None
    }

    /// A secret behind its reference. The written text is not repeated when it is no reference.
    pub(super) fn secret(&mut self, node: &Node, path: &str) -> Option<Secret> {
        let reference = match &node.value {
            Value::Scalar { text, .. } => secret_ref::parse(text).map(|reference| (reference, text)),
            _ => None,
        };
        let Some((reference, text)) = reference else {
            let message = format!("{path} must be a reference to a secret, never the secret itself");
            let help = "write `file:/absolute/path` of a file only the daemon's user can read; \
                        if a real secret stood here, replace it at its source";
            self.problem(node.place, message, help.to_owned());
            return None;
        };
        self.references.insert(path.to_owned(), text.clone());
        match secret_ref::fetch(&reference, self.env_allowed) {
            Ok(secret) => {
                if matches!(reference, secret_ref::Reference::Env(_)) {
                    self.warning(
                        node.place,
                        format!("{path} comes from the environment: for development only"),
                    );
                }
                Some(secret)
            }
            Err(unusable) => {
                self.problem(node.place, format!("{path}: {}", unusable.message), unusable.help);
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
                    map.place,
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
