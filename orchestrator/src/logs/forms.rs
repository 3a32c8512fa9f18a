//! The shapes in which a secret may turn up in a log, and the limit on all of them together.

use std::collections::BTreeSet;

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD},
};

use crate::secret::Secret;

/// What stands in place of a secret.
pub(super) const MASK: &[u8] = b"***";
/// Shorter texts are not masked: they would turn up everywhere and hide nothing.
pub(super) const SHORTEST: usize = 4;
/// All forms of all secrets of one attempt together, in bytes; what forms have in common at their
/// beginnings counts once. Memory for searching is about forty times this in the worst case.
pub(super) const LIMIT: usize = 3 << 20;
/// How many bytes the secrets of one attempt may have together. Their forms are some twenty times as long, and are made
/// and walked again for each `::add-mask::`, whatever they share.
pub(super) const MAX_TEXT: usize = 256 << 10;
/// How many secrets one attempt may have: each `::add-mask::` costs a new automaton of all.
pub(super) const MAX_MASKS: usize = 1000;

/// Encodings shorter than this are searched for on one line only.
pub(super) const FOLDED: usize = 8;
/// What is left of one behind its head may be a little shorter.
const TAIL: usize = 6;
/// How many characters of an encoding may be shown when a line ends within them: so few that they
/// give nothing away, and that a line's end need not wait for what the next line brings. The rest, the
/// tail, is a form by itself.
const BASE64_HEAD: usize = 3;
/// The same of hexadecimal digits: two bytes of the secret.
const HEX_HEAD: usize = 4;

/// All forms of some secrets, by how a log is read to find them.
#[derive(Debug, Default)]
pub(super) struct Forms {
    /// As they are.
    pub(super) plain: BTreeSet<Vec<u8>>,
    /// In the standard alphabet of Base64, however the text is wrapped.
    pub(super) base64: BTreeSet<Vec<u8>>,
    /// In small hexadecimal digits, however the text is wrapped or separated.
    pub(super) hex: BTreeSet<Vec<u8>>,
}

impl Forms {
    /// Every form of `secrets`.
    pub(super) fn of(secrets: &[Secret]) -> Self {
        let mut texts = BTreeSet::new();
        for secret in secrets {
            let whole = secret.expose();
            // Programs often read a secret without the newline at its end, or without blanks around
            // it, and print a value of several lines line by line.
            for text in [whole, whole.trim_end_matches(['\r', '\n'])]
                .into_iter()
                .chain(whole.lines())
            {
                texts.extend([text, text.trim()]);
            }
        }
        let mut forms = Self::default();
        for text in texts.into_iter().filter(|text| text.len() >= SHORTEST) {
            forms.add(text);
        }
        forms
    }

    /// Bytes of all forms, common beginnings counted once.
    pub(super) fn size(&self) -> usize {
        [&self.plain, &self.base64, &self.hex].into_iter().map(size).sum()
    }

    fn add(&mut self, text: &str) {
        self.plain.insert(text.into());
        self.add_base64(text.as_bytes());
        self.add_hex(text.as_bytes());
        for form in urls(text).into_iter().chain(quoted(text)).chain(escaped(text)) {
            self.plain.insert(form);
        }
    }

    fn add_base64(&mut self, text: &[u8]) {
        let whole = STANDARD.encode(text).into_bytes();
        let unpadded = STANDARD_NO_PAD.encode(text).into_bytes();
        let cores = (0..3).map(|before| base64_core(text, before));
        for form in [whole, unpadded].into_iter().chain(cores) {
            if form.len() < FOLDED {
                self.keep_short(form);
                continue;
            }
            let tail = &form[BASE64_HEAD..];
            if tail.len() >= TAIL {
                self.base64.insert(tail.to_vec());
            }
            self.base64.insert(form);
        }
    }

    fn keep_short(&mut self, form: Vec<u8>) {
        if form.len() >= SHORTEST {
            let url_safe = form.iter().map(|byte| match byte {
                b'+' => b'-',
                b'/' => b'_',
                other => *other,
            });
            self.plain.insert(url_safe.collect());
            self.plain.insert(form);
        }
    }

    fn add_hex(&mut self, text: &[u8]) {
        let form: Vec<u8> = text
            .iter()
            .flat_map(|byte| [digit(byte >> 4, false), digit(byte & 15, false)])
            .collect();
        let tail = &form[HEX_HEAD..];
        if tail.len() >= TAIL {
            self.hex.insert(tail.to_vec());
        }
        self.hex.insert(form);
    }
}

fn size(set: &BTreeSet<Vec<u8>>) -> usize {
    let mut before: &[u8] = &[];
    let mut size = 0;
    for form in set {
        let common = form.iter().zip(before).take_while(|(a, b)| a == b).count();
        size += form.len() - common;
        before = form;
    }
    size
}

/// The characters of the Base64 form that depend on `text` alone when `before` bytes (modulo 3)
/// stand before it in the encoded data and anything may stand behind it.
pub(super) fn base64_core(text: &[u8], before: usize) -> Vec<u8> {
    let mut padded = vec![0; before];
    padded.extend_from_slice(text);
    let encoded = STANDARD.encode(&padded);
    // Character i holds bits 6i..6i+6.
    let first = (before * 8).div_ceil(6);
    let last = padded.len() * 8 / 6;
    encoded.as_bytes().get(first..last).unwrap_or_default().to_vec()
}

fn digit(nibble: u8, upper: bool) -> u8 {
    match nibble {
        0..=9 => b'0' + nibble,
        _ if upper => b'A' + nibble - 10,
        _ => b'a' + nibble - 10,
    }
}

/// As URLs and forms of web pages carry it.
fn urls(text: &str) -> Vec<Vec<u8>> {
    // What is left as it is: by RFC 3986 and most libraries; in a path; by JavaScript's
    // encodeURIComponent; in a password before the host; by JavaScript's encodeURI; in a form.
    let unescaped = [
        "-._~",
        "-._~/",
        "-._~!*'()",
        "-._~!$&'()*+,;=",
        "-._~!*'();,/?:@&=+$#",
        "-._~ ",
        "-._* ",
    ];
    let mut forms = Vec::new();
    for kept in unescaped {
        for upper in [true, false] {
            let mut form = percent(text.as_bytes(), kept, upper);
            if kept.contains(' ') {
                form.iter_mut()
                    .filter(|byte| **byte == b' ')
                    .for_each(|byte| *byte = b'+');
            }
            forms.push(form);
        }
    }
    forms
}

fn percent(text: &[u8], unescaped: &str, upper: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() * 2);
    for &byte in text {
        if byte.is_ascii_alphanumeric() || unescaped.as_bytes().contains(&byte) {
            out.push(byte);
        } else {
            out.extend([b'%', digit(byte >> 4, upper), digit(byte & 15, upper)]);
        }
    }
    out
}

/// As shells write a word: `set -x`, `declare -p`, `printf %q`, and Python's shlex.
fn quoted(text: &str) -> [Vec<u8>; 5] {
    let backslashes = |special: &dyn Fn(char) -> bool| {
        let mut out = String::with_capacity(text.len() + 8);
        for c in text.chars() {
            if special(c) {
                out.push('\\');
            }
            out.push(c);
        }
        out.into_bytes()
    };
    let word = |c: char| {
        c == '\t' || (c.is_ascii_graphic() && !c.is_ascii_alphanumeric() && !"%+-./:=@_#~".contains(c)) || c == ' '
    };
    [
        text.replace('\'', r"'\''").into_bytes(),
        text.replace('\'', r#"'"'"'"#).into_bytes(),
        backslashes(&|c| "\"$`\\".contains(c)),
        backslashes(&word),
        ansi_c(text),
    ]
}

/// Between `$'` and `'`.
fn ansi_c(text: &str) -> Vec<u8> {
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\'' => out.push_str(r"\'"),
            '\\' => out.push_str(r"\\"),
            '\n' => out.push_str(r"\n"),
            '\r' => out.push_str(r"\r"),
            '\t' => out.push_str(r"\t"),
            '\x07' => out.push_str(r"\a"),
            '\x08' => out.push_str(r"\b"),
            '\x0b' => out.push_str(r"\v"),
            '\x0c' => out.push_str(r"\f"),
            '\x1b' => out.push_str(r"\E"),
            c if c.is_ascii_control() => out.push_str(&format!("\\{:03o}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.into_bytes()
}

/// In strings of JSON as serde, Go, Python and PHP write them, and in XML and HTML.
fn escaped(text: &str) -> Vec<Vec<u8>> {
    let json = serde_json::Value::from(text).to_string();
    let json = json.get(1..json.len() - 1).unwrap_or_default();
    let mut forms = vec![json.to_owned()];
    let tags = [('<', "\\u003c"), ('>', "\\u003e"), ('&', "\\u0026")];
    forms.push(
        tags.iter()
            .fold(json.to_owned(), |text, (c, escape)| text.replace(*c, escape)),
    );
    let ascii = json.chars().fold(String::new(), |mut out, c| {
        if c.is_ascii() {
            out.push(c);
        } else {
            let mut units = [0; 2];
            out.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        }
        out
    });
    forms.push(ascii.replace('/', "\\/"));
    forms.push(json.replace('/', "\\/"));
    forms.push(ascii);
    let markup = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    // Within text nobody need escape quotes, and there are three ways to.
    for (quote, apostrophe) in [
        ("\"", "'"),
        ("&quot;", "&apos;"),
        ("&quot;", "&#39;"),
        ("&quot;", "&#x27;"),
        ("&#34;", "&#39;"),
    ] {
        forms.push(markup.replace('"', quote).replace('\'', apostrophe));
    }
    forms.into_iter().map(String::into_bytes).collect()
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use proptest::prelude::*;

    use super::*;

    fn forms(secret: &str) -> Forms {
        Forms::of(&[Secret::new(secret)])
    }

    #[test]
    fn common_encodings_are_known() {
        let known = forms("p@ss/w\"d é");
        for form in [
            "p@ss/w\"d é",
            "p%40ss%2Fw%22d%20%C3%A9",
            "p%40ss%2fw%22d%20%c3%a9",
            "p%40ss/w%22d%20%C3%A9",
            "p%40ss%2Fw%22d+%C3%A9",
            "p%40ss%2fw%22d+%c3%a9",
            "p@ss/w%22d%20%C3%A9",
            "p@ss/w\\\"d é",
            "p@ss\\/w\\\"d \\u00e9",
            "p@ss/w\\\"d \\u00e9",
            "p@ss/w&quot;d é",
            "p@ss/w\\\"d\\ é",
        ] {
            assert!(known.plain.contains(form.as_bytes()), "{form}");
        }
        for form in ["cEBzcy93ImQgw6k=", "cEBzcy93ImQgw6k"] {
            assert!(known.base64.contains(form.as_bytes()), "{form}");
        }
        assert!(
            known.hex.contains(
                &b"7040 7373 2f77 2264 20c3 a9"
                    .iter()
                    .copied()
                    .filter(|b| *b != b' ')
                    .collect::<Vec<_>>()
            )
        );
        for form in [
            r"it'\''s a $1",
            r#"it'"'"'s a $1"#,
            r"it\'s\ a\ \$1",
            r"it's a \$1",
            r"it\'s a $1",
        ] {
            assert!(forms("it's a $1").plain.contains(form.as_bytes()), "{form}");
        }
        assert!(forms("a<b>&c").plain.contains(&br"a\u003cb\u003e\u0026c"[..]));
        assert!(forms("a<b>&c").plain.contains(&b"a&lt;b&gt;&amp;c"[..]));
        assert!(forms("two\nlines").plain.contains(&br"two\nlines"[..]));
    }

    #[test]
    fn each_line_of_a_secret_has_every_form() {
        let known = forms("-----BEGIN KEY-----\r\nabc+def/ghi\nxy\n  indented\n");
        for form in [
            "-----BEGIN KEY-----",
            "abc+def/ghi",
            "abc%2Bdef%2Fghi",
            "indented",
            "  indented",
        ] {
            assert!(known.plain.contains(form.as_bytes()), "{form}");
        }
        assert!(known.base64.contains(STANDARD.encode("abc+def/ghi").as_bytes()));
        assert!(known.hex.contains(&b"696e64656e746564"[..]));
        assert!(!known.plain.contains(&b"xy"[..]));
    }

    #[test]
    fn what_is_too_short_is_not_masked() {
        assert_eq!(forms("abc").size(), 0);
    }

    #[test]
    fn a_long_key_is_within_the_limit() {
        // As long as `::add-mask::` takes, in lines of 64 characters of Base64, and none like another.
        let key: Vec<u8> = (0..48u32 << 10)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect();
        let mut text = String::from("-----BEGIN PRIVATE KEY-----\n");
        for line in STANDARD.encode(key).as_bytes().chunks(64) {
            text.push_str(std::str::from_utf8(line).unwrap());
            text.push('\n');
        }
        let size = forms(&text).size();
        assert!(size < LIMIT, "{size}");
    }

    proptest! {
        /// Wherever the secret stands in encoded data, one of its forms stands in the result.
        #[test]
        fn base64_is_found_at_every_alignment(
            secret in "[ -~]{4,40}", before in proptest::collection::vec(any::<u8>(), 0..7), after in proptest::collection::vec(any::<u8>(), 0..7),
        ) {
            let data = [&before[..], secret.as_bytes(), &after[..]].concat();
            let known = forms(&secret);
            let core = base64_core(secret.as_bytes(), before.len() % 3);
            prop_assert!(core.len() * 6 + 16 > secret.len() * 8, "only the edges are missing");
            let found = |forms: &BTreeSet<Vec<u8>>, encoded: &str| {
                forms.iter().any(|form| memchr::memmem::find(encoded.as_bytes(), form).is_some())
            };
            prop_assert!(found(&known.base64, &STANDARD.encode(&data)) || found(&known.plain, &STANDARD.encode(&data)));
            let url_safe = URL_SAFE_NO_PAD.encode(&data);
            prop_assert!(found(&known.base64, &url_safe.replace('-', "+").replace('_', "/")) || found(&known.plain, &url_safe));
        }
    }
}
