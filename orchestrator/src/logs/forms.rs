//! The shapes in which a secret may turn up in a log, and the limit on all of them together.

use std::collections::BTreeSet;

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD},
};

use crate::secret::Secret;

/// What stands in place of a secret.
pub(super) const MASK: &[u8] = b"***";
/// Shorter texts are not masked: they would turn up everywhere and hide nothing.
pub(super) const SHORTEST: usize = 4;
/// All forms of all secrets of one attempt together, in bytes. Memory for searching is about twenty
/// times this in the worst case.
pub(super) const LIMIT: usize = 2 << 20;
/// How many secrets one attempt may have: each `::add-mask::` costs a new automaton of all.
pub(super) const MAX_MASKS: usize = 1000;

/// Adds every form of `secret` to `forms`; says whether the secret is long enough to be masked.
pub(super) fn add(secret: &Secret, forms: &mut BTreeSet<Vec<u8>>) -> bool {
    let whole = secret.expose();
    let mut keep = |form: Vec<u8>| {
        if form.len() >= SHORTEST {
            forms.insert(form);
        }
    };
    // Programs often read a secret without the newline at its end, or without blanks around it.
    for text in BTreeSet::from([whole, whole.trim_end_matches(['\r', '\n']), whole.trim()]) {
        if text.len() < SHORTEST {
            continue;
        }
        keep(text.into());
        for engine in [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD] {
            keep(engine.encode(text).into_bytes());
        }
        for url_safe in [false, true] {
            for before in 0..3 {
                keep(base64_core(text.as_bytes(), before, url_safe));
            }
        }
        for (unescaped, upper) in [("-._~", true), ("-._~", false), ("-._~/", true), ("-._~!*'()", true)] {
            keep(percent(text.as_bytes(), unescaped, upper));
        }
        keep(
            percent(text.as_bytes(), "-._~ ", true)
                .into_iter()
                .map(|b| if b == b' ' { b'+' } else { b })
                .collect(),
        );
        keep(json(text));
        // As a shell's `set -x` writes a quoted word.
        keep(text.replace('\'', r"'\''").into_bytes());
    }
    for line in whole.lines() {
        keep(line.into());
        keep(line.trim().into());
    }
    whole.len() >= SHORTEST
}

/// The characters of the Base64 form that depend on `text` alone when `before` bytes (modulo 3)
/// stand before it in the encoded data and anything may stand behind it.
fn base64_core(text: &[u8], before: usize, url_safe: bool) -> Vec<u8> {
    let mut padded = vec![0; before];
    padded.extend_from_slice(text);
    let encoded = if url_safe {
        URL_SAFE_NO_PAD.encode(&padded)
    } else {
        STANDARD_NO_PAD.encode(&padded)
    };
    // Character i holds bits 6i..6i+6.
    let first = (before * 8).div_ceil(6);
    let last = padded.len() * 8 / 6;
    encoded.as_bytes().get(first..last).unwrap_or_default().to_vec()
}

fn percent(text: &[u8], unescaped: &str, upper: bool) -> Vec<u8> {
    let digits = if upper {
        b"0123456789ABCDEF"
    } else {
        b"0123456789abcdef"
    };
    let mut out = Vec::with_capacity(text.len() * 2);
    for &byte in text {
        if byte.is_ascii_alphanumeric() || unescaped.as_bytes().contains(&byte) {
            out.push(byte);
        } else {
            out.extend([b'%', digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]);
        }
    }
    out
}

fn json(text: &str) -> Vec<u8> {
    let quoted = serde_json::Value::from(text).to_string();
    quoted.as_bytes().get(1..quoted.len() - 1).unwrap_or_default().to_vec()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn forms(secret: &str) -> BTreeSet<Vec<u8>> {
        let mut forms = BTreeSet::new();
        add(&Secret::new(secret), &mut forms);
        forms
    }

    fn has(forms: &BTreeSet<Vec<u8>>, form: &str) -> bool {
        forms.contains(form.as_bytes())
    }

    #[test]
    fn common_encodings_are_known() {
        let known = forms("p@ss/w\"d é");
        for form in [
            "p@ss/w\"d é",
            "cEBzcy93ImQgw6k=",
            "cEBzcy93ImQgw6k",
            "p%40ss%2Fw%22d%20%C3%A9",
            "p%40ss%2fw%22d%20%c3%a9",
            "p%40ss/w%22d%20%C3%A9",
            "p%40ss%2Fw%22d+%C3%A9",
            "p@ss/w\\\"d é",
        ] {
            assert!(has(&known, form), "{form}");
        }
        assert!(has(&forms("it's me"), r"it'\''s me"));
    }

    #[test]
    fn each_line_of_a_secret_is_one() {
        let known = forms("-----BEGIN KEY-----\r\nabcdef\nxy\n  indented\n");
        for form in ["-----BEGIN KEY-----", "abcdef", "indented", "  indented"] {
            assert!(has(&known, form), "{form}");
        }
        assert!(!has(&known, "xy"));
    }

    #[test]
    fn what_is_too_short_is_not_masked() {
        let mut none = BTreeSet::new();
        assert!(!add(&Secret::new("abc"), &mut none));
        assert!(none.is_empty());
    }

    proptest! {
        /// Wherever the secret stands in encoded data, one of its forms stands in the result.
        #[test]
        fn base64_is_found_at_every_alignment(
            secret in "[ -~]{4,40}", before in proptest::collection::vec(any::<u8>(), 0..7), after in proptest::collection::vec(any::<u8>(), 0..7),
        ) {
            let data = [&before[..], secret.as_bytes(), &after[..]].concat();
            let known = forms(&secret);
            for encoded in [STANDARD.encode(&data), URL_SAFE_NO_PAD.encode(&data)] {
                let core = base64_core(secret.as_bytes(), before.len() % 3, encoded.contains(['-', '_']));
                prop_assert!(core.len() * 6 + 16 > secret.len() * 8, "only the edges are missing");
                prop_assert!(known.iter().any(|form| memchr::memmem::find(encoded.as_bytes(), form).is_some()));
            }
        }
    }
}
