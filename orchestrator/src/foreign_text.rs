//! Text from outside (guests, forges, repositories, programs) made fit to be shown: bounded, and without characters
//! that a terminal or a reader's eye would obey.

/// Characters are not counted beyond this: an enormous text is not walked to its end only to be cut.
const MOST: usize = 2 * 1024 * 1024;

/// One line of at most `max` characters: control characters and marks of direction become spaces, a cut is marked
/// with `…`.
#[must_use]
pub fn one_line(text: &str, max: usize) -> String {
    let mut line = String::new();
    for (count, c) in text.trim().chars().take(MOST).enumerate() {
        if count == max {
            line.pop();
            line.push('…');
            break;
        }
        line.push(if is_obeyed(c) { ' ' } else { c });
    }
    line
}

/// The first line of a commit message, at most 200 characters.
#[must_use]
pub fn title(message: &str) -> String {
    one_line(message.trim_start().lines().next().unwrap_or_default(), 200)
}

/// The last `max` bytes of what a program printed, cut between characters, in one line. The beginning is what is left
/// out, as programs say last what stopped them.
#[must_use]
pub fn tail_as_line(output: &[u8], max: usize) -> String {
    let text = String::from_utf8_lossy(&output[output.len().saturating_sub(max)..]);
    // A character that was cut at the front.
    let text = if output.len() > max {
        text.trim_start_matches('\u{fffd}')
    } else {
        &text
    };
    text.trim()
        .chars()
        .map(|c| if is_obeyed(c) { ' ' } else { c })
        .collect()
}

/// The text without control characters and marks of direction, for one cell or one word.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars().filter(|c| !is_obeyed(*c)).collect()
}

/// As [`printable`], with its lines.
#[must_use]
pub fn printable_lines(text: &str) -> String {
    text.chars().filter(|c| *c == '\n' || !is_obeyed(*c)).collect()
}

/// At most `max` bytes of a text, cut between characters.
#[must_use]
pub fn clip(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

/// Whether a terminal or a text's layout obeys this character instead of showing it.
#[must_use]
pub fn is_obeyed(c: char) -> bool {
    c.is_control() || is_direction_mark(c)
}

/// Characters that reorder the text around them and so make a line read as another (Unicode TR 36, section 2.11).
fn is_direction_mark(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{61c}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_holds_no_control_characters_and_says_when_it_was_cut() {
        assert_eq!(one_line("a\nb\u{1b}[31m\u{202e}c", 40), "a b [31m c");
        assert_eq!(one_line("abcdef", 4), "abc…");
        assert_eq!(one_line("abcd", 4), "abcd");
        assert_eq!(title("\n\nFix it\n\nBecause."), "Fix it");
        assert_eq!(title(&"x".repeat(500)).chars().count(), 200);
    }

    #[test]
    fn a_cell_loses_what_is_obeyed_and_lines_stay_lines() {
        assert_eq!(printable("a\u{202e}b\nc\u{1b}"), "abc");
        assert_eq!(printable_lines("a\u{202e}b\nc\r"), "ab\nc");
    }

    #[test]
    fn the_end_of_an_output_is_kept() {
        assert_eq!(tail_as_line(b"warning\nerror: full\n", 100), "warning error: full");
        assert_eq!(tail_as_line(b"warning\nerror: full\n", 14), "g error: full");
        assert_eq!(tail_as_line("é!".as_bytes(), 2), "!");
        assert_eq!(tail_as_line("\u{fffd}x".as_bytes(), 9), "\u{fffd}x");
    }

    proptest! {
        #[test]
        fn nothing_is_longer_than_asked_or_obeyed(text in any::<String>(), max in 1usize..100) {
            let line = one_line(&text, max);
            prop_assert!(line.chars().count() <= max && !line.contains(is_obeyed));
            prop_assert!(clip(&text, max).len() <= max && text.starts_with(clip(&text, max)));
            prop_assert!(!tail_as_line(text.as_bytes(), max).contains(is_obeyed));
        }
    }
}
