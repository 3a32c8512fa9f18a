//! What the hook says while it works: on standard output in a dry run, in `log/zone.log` at a boot.

use std::{collections::BTreeMap, fmt::Display};

/// How wide a list may be before it is broken into lines.
const WIDTH: usize = 80;

/// Lines in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log(String);

impl Log {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn info(&mut self, text: impl Display) {
        self.0 += &format!("INFO:root:{text}\n");
    }

    pub(super) fn debug(&mut self, text: impl Display) {
        self.0 += &format!("DEBUG:root:{text}\n");
    }

    /// The devices of one kind.
    pub(super) fn list(&mut self, kind: &str, found: &BTreeMap<u8, String>) {
        let items: Vec<String> = found
            .iter()
            .map(|(number, text)| format!("{number}: {}", quoted(text)))
            .collect();
        self.debug(format!("{kind} list: \n{}", bracketed('{', &items, '}')));
    }

    /// What was said.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }
}

fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    let inner = text.replace('\\', "\\\\").replace(quote, &format!("\\{quote}"));
    format!("{quote}{inner}{quote}")
}

/// On one line if that is short enough, else each on its own.
fn bracketed(open: char, items: &[String], close: char) -> String {
    let line = format!("{open}{}{close}", items.join(", "));
    if line.chars().count() <= WIDTH {
        line
    } else {
        format!("{open}{}{close}", items.join(",\n "))
    }
}

/// What can be booted from, by name.
pub(super) fn places(options: &[(String, (&str, String))]) -> String {
    let mut items: Vec<String> = options
        .iter()
        .map(|(name, (kind, place))| format!("{}: ({}, {})", quoted(name), quoted(kind), quoted(place)))
        .collect();
    items.sort_unstable();
    bracketed('{', &items, '}')
}

/// A list of words; one that is too long for a line is broken behind its blanks.
pub(super) fn words(words: &[String]) -> String {
    let items: Vec<String> = words.iter().map(|word| broken(word)).collect();
    bracketed('[', &items, ']')
}

fn broken(word: &str) -> String {
    let (mut lines, mut line) = (Vec::new(), String::new());
    for part in word.split_inclusive(' ') {
        // The bracket before the list, and a comma behind the word.
        if !line.is_empty() && quoted(&format!("{line}{part}")).chars().count() > WIDTH - 2 {
            lines.push(quoted(&std::mem::take(&mut line)));
        }
        line += part;
    }
    lines.push(quoted(&line));
    lines.join("\n ")
}
