//! Workflow commands: the lines with which a step speaks to its runner. Two spellings, read as GitHub's runner reads them
//! (`ActionCommand.cs`):
//!
//! | spelling | where in the line | escapes in the value | escapes in a property |
//! |---|---|---|---|
//! | `::name key=value,key=value::value` | at its start, behind blanks | `%25 %0D %0A` | those, `%3A %2C` |
//! | `##[name key=value;key=value]value` | from the first `##[` on | `%25 %0D %0A %3B %5D` | the same |
//!
//! Names and keys ignore case. The value ends with the line. Properties begin behind the first blank; one without `=` is
//! no property, and of two with one key the last counts. A line of the first spelling whose name is not registered may
//! still be a command of the second.
//!
//! [`Command::parse`] is pure and reads one whole line. A log reads lines as they come: `scanner` holds back those that
//! may be a command that the log itself obeys, which the `gate` says.

mod gate;
mod scanner;

use std::fmt;

use memchr::{memchr, memmem};

pub(super) use self::{
    gate::{Action, CommandGate, TokenDigest},
    scanner::{Piece, Scanner},
};

/// The longest line that is read as a command, in bytes.
pub const MAX_COMMAND: usize = 64 << 10;
/// The longest name of a command, in bytes; `::stop-commands::` may name one.
const MAX_NAME: usize = 256;

/// Every command of GitHub's runner (`ActionCommandManager.cs`).
pub const NAMES: [&str; 16] = [
    "add-mask",
    "add-matcher",
    "add-path",
    "debug",
    "echo",
    "endgroup",
    "error",
    "group",
    "internal-set-repo-path",
    "notice",
    "remove-matcher",
    "save-state",
    "set-env",
    "set-output",
    "stop-commands",
    "warning",
];

/// One command, unescaped. `Debug` leaves out what may be secret: the values.
#[derive(Clone, PartialEq, Eq)]
pub struct Command {
    /// As it was written; [`Command::is`] compares.
    pub name: String,
    /// Keys as they were written, and values, in order.
    pub properties: Vec<(String, String)>,
    /// What stands behind the command in its line; any bytes.
    pub value: Vec<u8>,
}

impl Command {
    /// Reads a line without its end, of at most [`MAX_COMMAND`] bytes. `is_registered` knows the names of commands: those
    /// of [`NAMES`], and the token that ends `::stop-commands::` while it counts. A name is text: bytes that are not
    /// UTF-8 name nothing.
    #[must_use]
    pub fn parse(line: &[u8], is_registered: impl Fn(&str) -> bool) -> Option<Self> {
        if line.len() > MAX_COMMAND {
            return None;
        }
        let blanks = line.iter().take_while(|byte| is_blank(**byte)).count();
        let colons = line.get(blanks..).filter(|text| text.starts_with(COLONS.opening));
        let brackets = memmem::find(line, BRACKETS.opening).and_then(|at| line.get(at..));
        colons.into_iter().chain(brackets).find_map(|text| {
            let opening = Opening::of(text)?;
            let is_known = opening.is_whole && std::str::from_utf8(opening.name).is_ok_and(&is_registered);
            is_known.then(|| opening.close(text)?.command())?
        })
    }

    /// Whether this is the command `name`, whatever its case.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// The property with this key, whatever its case.
    #[must_use]
    pub fn property(&self, key: &str) -> Option<&str> {
        let found = self
            .properties
            .iter()
            .rev()
            .find(|(known, _)| known.eq_ignore_ascii_case(key));
        found.map(|(_, value)| value.as_str())
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<&str> = self.properties.iter().map(|(key, _)| key.as_str()).collect();
        f.debug_struct("Command")
            .field("name", &self.name)
            .field("keys", &keys)
            .finish_non_exhaustive()
    }
}

/// How a command is written.
#[derive(Debug, PartialEq, Eq)]
struct Spelling {
    opening: &'static [u8],
    closing: &'static [u8],
    separator: char,
    /// Behind a `%` in a value, and what it stands for.
    in_value: &'static [([u8; 2], u8)],
    in_property: &'static [([u8; 2], u8)],
}

static COLONS: Spelling = Spelling {
    opening: b"::",
    closing: b"::",
    separator: ',',
    in_value: &[(*b"25", b'%'), (*b"0D", b'\r'), (*b"0A", b'\n')],
    in_property: &[
        (*b"25", b'%'),
        (*b"0D", b'\r'),
        (*b"0A", b'\n'),
        (*b"3A", b':'),
        (*b"2C", b','),
    ],
};
static BRACKETS: Spelling = Spelling {
    opening: b"##[",
    closing: b"]",
    separator: ';',
    in_value: &[
        (*b"25", b'%'),
        (*b"0D", b'\r'),
        (*b"0A", b'\n'),
        (*b"3B", b';'),
        (*b"5D", b']'),
    ],
    in_property: &[
        (*b"25", b'%'),
        (*b"0D", b'\r'),
        (*b"0A", b'\n'),
        (*b"3B", b';'),
        (*b"5D", b']'),
    ],
};

/// The beginning of what may be a command, as far as it has come.
struct Opening<'a> {
    spelling: &'static Spelling,
    name: &'a [u8],
    /// The name does not go on.
    is_whole: bool,
}

impl<'a> Opening<'a> {
    /// Of the command with which `text` begins; none when it begins with none, whatever follows.
    fn of(text: &'a [u8]) -> Option<Self> {
        let spelling = [&COLONS, &BRACKETS].into_iter().find(|spelling| {
            let common = spelling.opening.len().min(text.len());
            !text.is_empty() && text[..common] == spelling.opening[..common]
        })?;
        let begun = |name, is_whole| {
            Some(Self {
                spelling,
                name,
                is_whole,
            })
        };
        let rest = text.get(spelling.opening.len()..).unwrap_or_default();
        // The name and what ends it: a longer one is none.
        let window = &rest[..rest.len().min(MAX_NAME + spelling.closing.len())];
        let blank = memchr(b' ', window);
        match blank.into_iter().chain(memmem::find(window, spelling.closing)).min() {
            Some(end) => begun(&window[..end], true),
            None if window.len() == MAX_NAME + spelling.closing.len() => None,
            // One colon may be the first of the two that end it.
            None if spelling.closing.len() == 2 => begun(window.strip_suffix(b":").unwrap_or(window), false),
            None => begun(window, false),
        }
    }

    /// The whole command, when `text` has the end of its properties.
    fn close(&self, text: &'a [u8]) -> Option<Parts<'a>> {
        let begin = self.spelling.opening.len() + self.name.len();
        let length = memmem::find(text.get(begin..)?, self.spelling.closing)?;
        let value = begin + length + self.spelling.closing.len();
        Some(Parts {
            spelling: self.spelling,
            name: self.name,
            properties: &text[begin..begin + length],
            head: &text[..value],
            value: &text[value..],
        })
    }
}

/// A command in its line, still escaped.
struct Parts<'a> {
    spelling: &'static Spelling,
    name: &'a [u8],
    properties: &'a [u8],
    /// Everything before the value.
    head: &'a [u8],
    value: &'a [u8],
}

impl Parts<'_> {
    /// The command, unless its name is no text.
    fn command(&self) -> Option<Command> {
        let name = std::str::from_utf8(self.name).ok()?.to_owned();
        let text = String::from_utf8_lossy(self.properties);
        let text = match self.spelling == &COLONS {
            true => text.trim(),
            false => text.strip_prefix(' ').unwrap_or_default(),
        };
        let properties = text.split(self.spelling.separator).filter_map(|property| {
            let (key, value) = property.split_once('=')?;
            let value = unescape(value.as_bytes(), self.spelling.in_property);
            Some((key.to_owned(), String::from_utf8_lossy(&value).into_owned()))
        });
        Some(Command {
            name,
            properties: properties.collect(),
            value: unescape(self.value, self.spelling.in_value),
        })
    }
}

/// What stands for itself, and the escapes; from left to right, so that `%250A` is `%0A`.
fn unescape(text: &[u8], escapes: &[([u8; 2], u8)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memchr(b'%', rest) {
        out.extend_from_slice(&rest[..at]);
        let code = rest.get(at + 1..at + 3);
        let escape = escapes.iter().find(|(escape, _)| code == Some(escape));
        let (byte, size) = escape.map_or((b'%', 1), |(_, byte)| (*byte, 3));
        out.push(byte);
        rest = &rest[at + size..];
    }
    out.extend_from_slice(rest);
    out
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | 0x0b | 0x0c)
}

#[cfg(test)]
mod tests;
