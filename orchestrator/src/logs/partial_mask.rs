//! Whether an `::add-mask::` named a part only: a value of several lines that was printed behind the
//! command ends the command with its first line, and the others are output like any other. What
//! follows is no longer secret then, but whoever wrote the step should know.

use crate::secret::Secret;

/// How much of the line behind a command is read, in bytes.
const MAX_LINE: usize = 4 << 10;
/// Lines of tools that wrap what they encode: xxd, PEM, MIME.
const WIDTHS: [usize; 3] = [60, 64, 76];

/// What was named, and the line behind it as far as it has come.
#[derive(Debug)]
pub(super) struct PartialMask {
    named: Secret,
    line: Vec<u8>,
}

impl PartialMask {
    /// Behind a command with this value; none when it cannot be the first line of anything.
    pub(super) fn behind(value: &str) -> Option<Self> {
        kind(value).map(|_| Self {
            named: Secret::new(value),
            line: Vec::new(),
        })
    }

    /// Reads more of the channel's text. Says, once a line is complete, whether it goes on with the
    /// value.
    pub(super) fn feed(&mut self, text: &[u8]) -> Option<bool> {
        for &byte in text {
            match byte {
                // The end of the command's own line.
                b'\r' | b'\n' if self.line.is_empty() => {}
                b'\r' | b'\n' => return Some(self.goes_on()),
                _ if self.line.len() == MAX_LINE => return Some(self.goes_on()),
                _ => self.line.push(byte),
            }
        }
        None
    }

    /// Whether what came, when nothing more comes, goes on with the value.
    pub(super) fn goes_on(&self) -> bool {
        let Ok(line) = std::str::from_utf8(&self.line) else {
            return false;
        };
        kind(self.named.expose()).is_some_and(|kind| kind.goes_on(self.named.expose(), line))
    }
}

/// Of what a value may be the first line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A key or certificate.
    Pem,
    /// Base64 or hexadecimal digits of that many columns.
    Wrapped,
    /// An object or a list.
    Json,
    /// A mapping.
    Yaml,
}

fn kind(value: &str) -> Option<Kind> {
    let text = value.trim();
    // Written with its line ends escaped, so nothing of it is missing.
    if text.contains('\n') {
        None
    } else if text.starts_with("-----BEGIN ") && !text.contains("-----END ") {
        Some(Kind::Pem)
    } else if WIDTHS.contains(&text.len()) && text.bytes().all(is_encoded) {
        Some(Kind::Wrapped)
    } else if text.starts_with(['{', '[']) && depth(text) > 0 {
        Some(Kind::Json)
    } else if text.starts_with("apiVersion: ") || (is_entry(text) && text.ends_with(':')) {
        Some(Kind::Yaml)
    } else {
        None
    }
}

impl Kind {
    fn goes_on(self, value: &str, line: &str) -> bool {
        let text = line.trim();
        match self {
            Self::Pem => text.contains("-----END ") || (text.len() >= 16 && text.bytes().all(is_encoded)),
            Self::Wrapped => {
                let mixed = |is: fn(&u8) -> bool| text.bytes().any(|byte| is(&byte));
                text.bytes().all(is_encoded)
                    && (text.len() == value.trim().len()
                        || text.ends_with('=')
                        || (text.len() >= 8
                            && mixed(u8::is_ascii_digit)
                            && (mixed(u8::is_ascii_uppercase) == value.bytes().any(|b| b.is_ascii_uppercase()))
                            && mixed(u8::is_ascii_lowercase)))
            }
            Self::Json => text.starts_with(['"', '{', '[', '}', ']']),
            Self::Yaml => is_entry(text) || (line.starts_with([' ', '\t', '-']) && text.starts_with("- ")),
        }
    }
}

fn is_encoded(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/=-_".contains(&byte)
}

/// How many brackets are open at the end of `text`, those in strings left out.
fn depth(text: &str) -> i32 {
    let (mut depth, mut quoted, mut escaped) = (0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => depth += 1,
            b'}' | b']' if !quoted => depth -= 1,
            _ => {}
        }
    }
    depth
}

/// Whether a line is `name:` or `name: value`.
fn is_entry(text: &str) -> bool {
    let Some((name, value)) = text.split_once(':') else {
        return false;
    };
    let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    is_name && (value.is_empty() || value.starts_with(' '))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is said of the lines behind `::add-mask::` of the first one, in pieces of this size.
    fn said(text: &str, size: usize) -> bool {
        let (first, others) = text.split_at(text.find('\n').unwrap_or(text.len()));
        let Some(mut rest) = PartialMask::behind(first) else {
            return false;
        };
        let mut pieces = others.as_bytes().chunks(size);
        pieces
            .find_map(|piece| rest.feed(piece))
            .unwrap_or_else(|| rest.goes_on())
    }

    fn wrapped(data: &[u8], columns: usize) -> String {
        use base64::Engine as _;
        let encoded = base64::engine::general_purpose::STANDARD.encode(data);
        let lines: Vec<&str> = encoded
            .as_bytes()
            .chunks(columns)
            .map(|l| std::str::from_utf8(l).unwrap())
            .collect();
        lines.join("\n")
    }

    #[test]
    fn other_output_is_no_rest() {
        for text in [
            "hunter2\nhunter3\n",
            "hunter2\n",
            "-----BEGIN KEY-----\nConnecting to the host\n",
            "-----BEGIN KEY-----\ndone\n",
            "-----BEGIN KEY-----\n",
            "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\ndone\n",
            "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\nCompiling\n",
            "{\"a\": 1}\n{\"b\": 2}\n",
            "{\nCompiling\n",
            "password: x\nresult: done\n",
            "users:\nCompiling the world\n",
            "http://host:1\nhttp://host:2\n",
        ] {
            assert!(!said(text, 7), "{text:?}");
        }
    }

    #[test]
    fn the_rest_of_a_document_is_seen() {
        for text in [
            "-----BEGIN KEY-----\n-----END KEY-----",
            "{\n  \"type\": \"service_account\",\n",
            "{\"a\": [\"}\",\n{\"b\": 1}]}",
            "[\n]",
            "apiVersion: v1\nclusters:\n- cluster:\n",
            "users:\n- name: x\n",
        ] {
            for size in 1..9 {
                assert!(said(text, size), "{text:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn the_rest_of_any_key_is_seen_however_it_is_cut(
            data in proptest::collection::vec(any::<u8>(), 64..400), columns in prop_oneof![Just(64usize), Just(76)], size in 1usize..200,
        ) {
            let lines = wrapped(&data, columns);
            // A last line of a few letters may be any word.
            let mixed = |line: &str| {
                line.len() >= 16
                    && [u8::is_ascii_digit, u8::is_ascii_uppercase, u8::is_ascii_lowercase].iter().all(|is| line.bytes().any(|byte| is(&byte)))
            };
            prop_assume!(lines.lines().nth(1).is_some_and(mixed));
            prop_assert!(said(&lines, size));
            let pem = format!("-----BEGIN PRIVATE KEY-----\r\n{}\r\n-----END PRIVATE KEY-----\r\n", lines.replace('\n', "\r\n"));
            prop_assert!(said(&pem, size));
        }
    }
}
