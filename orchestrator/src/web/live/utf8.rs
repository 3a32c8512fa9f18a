//! Text from bytes that come in pieces: a character that is cut between two of them stays whole.

/// What is left of one piece for the next: the beginning of a character.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decoder {
    begun: Vec<u8>,
}

impl Decoder {
    /// Appends the text of more bytes. What is no character becomes U+FFFD, as in
    /// [`String::from_utf8_lossy`] of the whole.
    pub fn feed(&mut self, bytes: &[u8], out: &mut String) {
        let joined;
        let mut rest = bytes;
        if !self.begun.is_empty() {
            joined = [&self.begun, bytes].concat();
            self.begun.clear();
            rest = &joined;
        }
        loop {
            match std::str::from_utf8(rest) {
                Ok(text) => return out.push_str(text),
                Err(error) => {
                    let (text, behind) = rest.split_at(error.valid_up_to());
                    out.push_str(std::str::from_utf8(text).unwrap_or_default());
                    let Some(length) = error.error_len() else {
                        self.begun = behind.to_vec();
                        return;
                    };
                    out.push(char::REPLACEMENT_CHARACTER);
                    rest = &behind[length..];
                }
            }
        }
    }

    /// Whether the bytes so far end within a character.
    #[must_use]
    pub fn is_within(&self) -> bool {
        !self.begun.is_empty()
    }

    /// The end of the text: a character that was begun will not be completed.
    pub fn end(&mut self, out: &mut String) {
        if self.is_within() {
            out.push(char::REPLACEMENT_CHARACTER);
            self.begun.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_cutting_gives_the_text_of_the_whole(
            parts in proptest::collection::vec(proptest::sample::select(vec![
                &b"a"[..], "é".as_bytes(), "€".as_bytes(), "🦀".as_bytes(), b"\xff", b"\xf0\x9f", b"\xe2\x82",
                b"\x80", b"\xed\xa0\x80", b"\xc0\xaf",
            ]), 0..40),
            sizes in proptest::collection::vec(1usize..6, 1..6),
        ) {
            let bytes = parts.concat();
            let (mut decoder, mut out) = (Decoder::default(), String::new());
            let (mut rest, mut sizes) = (&bytes[..], sizes.iter().cycle());
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at(sizes.next().map_or(rest.len(), |size| (*size).min(rest.len())));
                decoder.feed(piece, &mut out);
                // A character in progress is at most three bytes, and nothing else waits.
                prop_assert!(decoder.begun.len() < 4);
                rest = behind;
            }
            decoder.end(&mut out);
            prop_assert_eq!(out, String::from_utf8_lossy(&bytes).into_owned());
        }
    }
}
