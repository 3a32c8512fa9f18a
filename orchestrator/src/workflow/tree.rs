//! The small tree every workflow text becomes before anything looks at its meaning: scalars with
//! their type, lists and mappings, each with the place it came from. One schema walk reads it,
//! whatever syntax it was written in.

use std::{borrow::Cow, ops::Range};

/// A place in a file, both counted from 1; the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark {
    pub line: u32,
    pub column: u32,
}

impl Mark {
    /// Where a file begins: for complaints about the whole of it.
    pub const START: Self = Self { line: 1, column: 1 };
}

/// One value of the file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub mark: Mark,
    pub value: Value,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Scalar(Scalar),
    Sequence(Vec<Node>),
    /// In the order of the file; the reader has refused equal keys.
    Mapping(Vec<(Key, Node)>),
}

/// A mapping's key. Only scalars can be keys.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Key {
    pub mark: Mark,
    pub text: String,
    /// Where it lies in the source, in bytes.
    pub span: Range<usize>,
}

/// A scalar with the type YAML 1.2's core schema gives it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scalar {
    pub kind: Kind,
    /// Where it lies in the source, in bytes: a precise place for what is found inside it.
    pub span: Range<usize>,
}

/// The type and value of a scalar.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
}

impl Scalar {
    /// The value as text: `3.10` reads `3.1`, null reads as nothing, as GitHub does it.
    pub fn text(&self) -> Cow<'_, str> {
        match &self.kind {
            Kind::Null => Cow::Borrowed(""),
            Kind::Bool(value) => Cow::Borrowed(if *value { "true" } else { "false" }),
            Kind::Number(value) => Cow::Owned(number_text(*value)),
            Kind::Text(text) => Cow::Borrowed(text),
        }
    }
}

impl Node {
    /// What a person calls this kind of value.
    pub fn noun(&self) -> &'static str {
        match &self.value {
            Value::Sequence(_) => "a list",
            Value::Mapping(_) => "a mapping",
            Value::Scalar(scalar) => match scalar.kind {
                Kind::Null => "nothing",
                Kind::Bool(_) => "a boolean",
                Kind::Number(_) => "a number",
                Kind::Text(_) => "a text",
            },
        }
    }

    /// Whether nothing is there: an empty value, `~` or `null`.
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(scalar) if scalar.kind == Kind::Null)
    }

    /// How many nodes and bytes of text a copy of this would add.
    pub fn size(&self) -> (usize, usize) {
        match &self.value {
            Value::Scalar(scalar) => match &scalar.kind {
                Kind::Text(text) => (1, text.len()),
                _ => (1, 0),
            },
            Value::Sequence(items) => items.iter().fold((1, 0), |sum, item| add(sum, item.size())),
            Value::Mapping(entries) => entries.iter().fold((1, 0), |sum, (key, value)| {
                add(add(sum, (1, key.text.len())), value.size())
            }),
        }
    }

    /// How deep this nests; a scalar is 1.
    pub fn depth(&self) -> usize {
        1 + match &self.value {
            Value::Scalar(_) => 0,
            Value::Sequence(items) => items.iter().map(Self::depth).max().unwrap_or(0),
            Value::Mapping(entries) => entries.iter().map(|(_, value)| value.depth()).max().unwrap_or(0),
        }
    }
}

fn add(a: (usize, usize), b: (usize, usize)) -> (usize, usize) {
    (a.0 + b.0, a.1 + b.1)
}

/// Types a plain scalar by the core schema alone: `yes` and `on` are texts, `010` is ten.
/// `Err` for a hexadecimal or octal number that does not fit into 32 bits.
pub(super) fn resolve(text: &str) -> Result<Kind, ()> {
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Kind::Null,
        "true" | "True" | "TRUE" => Kind::Bool(true),
        "false" | "False" | "FALSE" => Kind::Bool(false),
        ".nan" | ".NaN" | ".NAN" => Kind::Number(f64::NAN),
        _ => match infinity(text).or_else(|| decimal(text)) {
            Some(number) => Kind::Number(number),
            None => match radix(text) {
                Some(number) => Kind::Number(f64::from(number?)),
                None => Kind::Text(text.to_owned()),
            },
        },
    })
}

fn infinity(text: &str) -> Option<f64> {
    let (sign, rest) = match text.as_bytes().first()? {
        b'-' => (-1.0, &text[1..]),
        b'+' => (1.0, &text[1..]),
        _ => (1.0, text),
    };
    matches!(rest, ".inf" | ".Inf" | ".INF").then_some(sign * f64::INFINITY)
}

/// `[-+]? ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`
fn decimal(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let sound = digits(whole)
        && digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|e| !e.is_empty() && digits(e));
    sound.then(|| text.parse().ok()).flatten()
}

fn radix(text: &str) -> Option<Result<i32, ()>> {
    let (digits, base) = match text.get(..2)? {
        "0x" => (&text[2..], 16),
        "0o" => (&text[2..], 8),
        _ => return None,
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(base)) {
        return None;
    }
    // GitHub reads the bit pattern: 0xffffffff is -1.
    Some(u32::from_str_radix(digits, base).map(u32::cast_signed).map_err(|_| ()))
}

/// Fifteen significant digits without trailing zeros, as GitHub prints numbers (`G15`).
pub(super) fn number_text(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.into();
    }
    let scientific = format!("{value:.14e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-5..15).contains(&exponent) {
        let decimals = usize::try_from(14 - exponent).unwrap_or(0);
        let text = format!("{value:.decimals$}");
        let text = if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.')
        } else {
            &text
        };
        return if text == "-0" { "0".into() } else { text.into() };
    }
    let mantissa = mantissa.trim_end_matches('0').trim_end_matches('.');
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}E{sign}{:02}", exponent.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn as_text(text: &str) -> String {
        let kind = resolve(text).unwrap();
        Scalar { kind, span: 0..0 }.text().into_owned()
    }

    #[test]
    fn plain_scalars_follow_the_core_schema() {
        for (text, expected) in [
            ("yes", "yes"),
            ("on", "on"),
            ("True", "true"),
            ("~", ""),
            ("010", "10"),
            ("3.10", "3.1"),
            ("1e3", "1000"),
            ("1_000", "1_000"),
            ("0x1F", "31"),
            ("0xffffffff", "-1"),
            ("0o17", "15"),
            ("0b11", "0b11"),
            ("+12", "12"),
            ("-.inf", "-Infinity"),
            (".5", "0.5"),
            ("5.", "5"),
            ("1.2.3", "1.2.3"),
            ("1e", "1e"),
            (".", "."),
            ("-", "-"),
            ("1E400", "Infinity"),
            ("123456789012345678", "1.23456789012346E+17"),
            ("0.000001", "1E-06"),
            ("0.1", "0.1"),
        ] {
            assert_eq!(as_text(text), expected, "{text}");
        }
        assert!(resolve("0x100000000").is_err());
    }
}
