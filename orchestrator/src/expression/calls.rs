//! The text of an expression as the parser's crate takes it.
//!
//! `github-actions-expressions` knows the names and the arguments of GitHub's functions, and refuses others without
//! saying where; it also refuses `success('job')`, which is right in the `if` of a job. So every call is shown to it under
//! the one name that takes any arguments, `format`, and the tree's calls get their own names back from the text. Blanks
//! that GitHub takes and the crate does not are shown as spaces.

/// The name every call has for the crate.
const ANY: &str = "format";

/// What the crate sees, and what it would not refuse.
pub(super) struct Prepared {
    pub text: String,
    /// From which byte of `text` on how many bytes were put in before.
    shifts: Vec<(usize, usize)>,
    /// Where a `)` follows a comma, which the crate takes and GitHub does not.
    pub stray_end: Option<usize>,
}

impl Prepared {
    pub(super) fn new(original: &str) -> Self {
        let mut prepared = Self {
            text: String::with_capacity(original.len() + 8),
            shifts: Vec::new(),
            stray_end: None,
        };
        let (mut rest, mut previous) = (original, None);
        while let Some(c) = rest.chars().next() {
            let at = original.len() - rest.len();
            let length = if c.is_whitespace() {
                prepared.text.extend(std::iter::repeat_n(' ', c.len_utf8()));
                c.len_utf8()
            } else {
                if c == ')' && previous == Some(',') {
                    prepared.stray_end.get_or_insert(at);
                }
                let length = word(rest).len();
                let (word, after) = rest.split_at(length);
                let is_call = after.trim_start().starts_with('(') && previous != Some('.') && is_name(word);
                if is_call {
                    prepared.rename(word);
                } else {
                    prepared.text.push_str(word);
                }
                previous = Some(c);
                length
            };
            rest = &rest[length..];
        }
        prepared
    }

    fn rename(&mut self, name: &str) {
        self.text.push_str(ANY);
        if let Some(blanks) = name.len().checked_sub(ANY.len()) {
            self.text.extend(std::iter::repeat_n(' ', blanks));
        } else {
            let before = self.shifts.last().map_or(0, |(_, bytes)| *bytes);
            self.shifts.push((self.text.len(), before + ANY.len() - name.len()));
        }
    }

    /// The byte of the original text for one of what the crate saw.
    pub(super) fn original(&self, offset: usize) -> usize {
        let after = self.shifts.partition_point(|(from, _)| *from <= offset);
        offset - after.checked_sub(1).map_or(0, |last| self.shifts[last].1)
    }
}

/// The name at the beginning of a text.
pub(super) fn name(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-')));
    &text[..end.unwrap_or(text.len())]
}

fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && name(word).len() == word.len()
}

/// Whether a character ends the word before it.
pub(super) fn is_boundary(c: char) -> bool {
    c.is_whitespace() || "()[],.!<>=&|".contains(c)
}

/// What belongs together at the beginning of a text that begins with no blank: a string, an operator, or all up to what
/// ends a word.
pub(super) fn word(text: &str) -> &str {
    let length = if text.starts_with('\'') {
        string(text)
    } else if text.starts_with(is_boundary) || text.starts_with('*') {
        1
    } else {
        text.find(is_boundary).unwrap_or(text.len())
    };
    &text[..length]
}

/// How long the string at the beginning of a text is, in which a quote is written twice.
fn string(text: &str) -> usize {
    let mut quotes = text.match_indices('\'').skip(1).map(|(at, _)| at).peekable();
    while let Some(at) = quotes.next() {
        if quotes.next_if_eq(&(at + 1)).is_none() {
            return at + 1;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_shown_under_one_name_and_their_places_are_found_again() {
        let original = "case (a.join, success('it''s join(1)'), now('ü'))\u{a0}|| x.case(1) || join(a,)";
        let prepared = Prepared::new(original);
        assert_eq!(
            prepared.text,
            "format (a.join, format ('it''s join(1)'), format('ü'))  || x.case(1) || format(a,)"
        );
        assert_eq!(prepared.stray_end, original.rfind(')'));
        for part in ["(a.join", "('it''s", "('ü')", "|| x", "x.case", "(a,)"] {
            let shown = prepared.text.find(part).unwrap();
            assert_eq!(prepared.original(shown), original.find(part).unwrap(), "{part}");
        }
    }

    #[test]
    fn words_end_where_they_end() {
        for (text, wanted) in [
            ("'a''b' c", "'a''b'"),
            ("''", "''"),
            ("'''", "'''"),
            ("'open", "'open"),
            ("a-b.c", "a-b"),
            ("b@r)", "b@r"),
            ("*]", "*"),
            ("==", "="),
        ] {
            assert_eq!(word(text), wanted);
        }
    }
}
