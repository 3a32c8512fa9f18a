//! How a log is read in search of a form. An encoded secret may be wrapped into lines and, in
//! hexadecimal, separated; what only parts its characters is passed over, so one form is found
//! wherever the breaks are.

/// The longest gap within an encoding, in bytes: a line's end and the next line's indentation.
pub(super) const MAX_GAP: usize = 32;

/// A way to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alphabet {
    /// Every byte counts.
    Plain,
    /// Base64, of either alphabet, over line ends and indentation.
    Base64,
    /// Hexadecimal digits, large or small, over line ends, blanks, colons and dashes.
    Hex,
}

/// What one byte is in an alphabet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// A character of an encoding, the same for all its spellings.
    Symbol(u8),
    /// Passed over when at least so many symbols of a form stand before the gap that it is in. At a
    /// line's end they are many: otherwise the last letter of nearly every line would have to wait
    /// for the next line.
    Gap(u8),
    /// Passed over behind a line's end only.
    Indent,
    /// Part of no encoding.
    Other,
}

/// Symbols that must stand before a line's end, or any gap of several bytes: as many as the filter
/// looks at.
pub(super) const BEFORE_GAP: u8 = 4;
/// Symbols that must stand before a separator of hexadecimal bytes.
const BEFORE_SEPARATOR: u8 = 2;

impl Alphabet {
    /// What `byte` is.
    pub(super) fn class(self, byte: u8) -> Class {
        match (self, byte) {
            (Self::Plain, byte) => Class::Symbol(byte),
            (_, b'\r' | b'\n') => Class::Gap(BEFORE_GAP),
            (Self::Base64, b'-') => Class::Symbol(b'+'),
            (Self::Base64, b'_') => Class::Symbol(b'/'),
            (Self::Base64, b'+' | b'/' | b'=') => Class::Symbol(byte),
            (Self::Base64, byte) if byte.is_ascii_alphanumeric() => Class::Symbol(byte),
            (Self::Base64, b' ' | b'\t') => Class::Indent,
            (Self::Hex, byte) if byte.is_ascii_hexdigit() => Class::Symbol(byte.to_ascii_lowercase()),
            (Self::Hex, b' ' | b'\t' | b':' | b'-') => Class::Gap(BEFORE_SEPARATOR),
            _ => Class::Other,
        }
    }

    /// Every four bytes with which a form may begin in a log, for its first four symbols.
    pub(super) fn openings(self, first: [u8; 4]) -> Vec<[u8; 4]> {
        match self {
            Self::Plain => vec![first],
            Self::Base64 => {
                let mut all = vec![first];
                for i in 0..4 {
                    let other = match first[i] {
                        b'+' => b'-',
                        b'/' => b'_',
                        _ => continue,
                    };
                    for mut spelling in all.clone() {
                        spelling[i] = other;
                        all.push(spelling);
                    }
                }
                all
            }
            Self::Hex => {
                let mut all = Vec::new();
                for [a, b, c, d] in [first, first.map(|digit| digit.to_ascii_uppercase())] {
                    all.push([a, b, c, d]);
                    for separator in [b' ', b'\t', b':', b'-'] {
                        all.extend([[a, b, separator, c], [a, b, c, separator]]);
                    }
                }
                all
            }
        }
    }
}
