//! Cutting text to what a forge takes.

use crate::foreign_text::one_line;

/// The longest Markdown a check run takes, in bytes: the forge's own error says `bytesize`, whatever
/// its documentation says about characters.
pub const MAX_MARKDOWN: usize = 65_535;

const CUT: &str = "\n\n… cut here: the details page has everything.\n";

/// A title behind the word that says its state, or the title alone where it says so itself: `2 jobs queued` is not
/// `Queued: 2 jobs queued`.
#[must_use]
pub fn with_word(word: &str, title: &str, max: usize) -> String {
    let title = one_line(title, max);
    if word.is_empty() || says(&title, word) {
        return title;
    }
    if title.is_empty() {
        return word.to_owned();
    }
    one_line(&format!("{word}: {title}"), max)
}

/// Whether a text holds these words as they are, whatever their case: `terror` does not say `error`.
fn says(text: &str, word: &str) -> bool {
    let words = |text: &str| -> Vec<String> {
        text.split(|c: char| !c.is_alphanumeric())
            .filter(|word| !word.is_empty())
            .map(str::to_lowercase)
            .collect()
    };
    let (text, word) = (words(text), words(word));
    text.windows(word.len().max(1)).any(|some| some == word)
}

/// Markdown of at most [`MAX_MARKDOWN`] bytes, cut between characters, with an open code fence closed.
#[must_use]
pub fn markdown(text: &str) -> String {
    cut_markdown(text, MAX_MARKDOWN)
}

fn cut_markdown(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    // A fence can be as long as its writer liked, so the room for closing it is found by trying.
    let mut room = max.saturating_sub(CUT.len());
    loop {
        let head = &text[..text.floor_char_boundary(room)];
        let closing = open_fence(head).map(|fence| format!("\n{fence}")).unwrap_or_default();
        let whole = head.len() + closing.len() + CUT.len();
        if whole <= max {
            return format!("{head}{closing}{CUT}");
        }
        if room == 0 {
            return CUT[..CUT.floor_char_boundary(max)].to_owned();
        }
        room = room.saturating_sub(whole - max);
    }
}

/// The fence that is still open at the end of the text.
fn open_fence(text: &str) -> Option<&str> {
    let mut open: Option<&str> = None;
    for line in text.lines() {
        let line = line.trim_start();
        let mark = match line.chars().next() {
            Some(c @ ('`' | '~')) => c,
            _ => continue,
        };
        let fence = &line[..line.len() - line.trim_start_matches(mark).len()];
        if fence.len() < 3 {
            continue;
        }
        match open {
            None => open = Some(fence),
            Some(o) if fence.starts_with(o) && line.trim_end() == fence => open = None,
            Some(_) => {}
        }
    }
    open
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_cut_inside_a_code_block_closes_it() {
        let text = format!("before\n````text\n{}", "line ``` of log\n".repeat(20));
        let cut = cut_markdown(&text, 200);
        assert!(cut.len() <= 200);
        assert!(cut.contains(&format!("\n````{CUT}")), "{cut}");
        let closed = format!("```\nx\n```\n{}", "y".repeat(300));
        assert!(!cut_markdown(&closed, 200)[10..].contains("```"));
        assert_eq!(markdown("short"), "short");
    }

    #[test]
    fn a_word_is_said_once() {
        for (word, title, whole) in [
            ("Queued", "2 jobs queued", "2 jobs queued"),
            (
                "Queued",
                "Queued again: its machine died",
                "Queued again: its machine died",
            ),
            ("Queued", "Waiting for build", "Queued: Waiting for build"),
            (
                "Running",
                "1 of 3 jobs failed so far",
                "Running: 1 of 3 jobs failed so far",
            ),
            ("Timed out", "the step timed out", "the step timed out"),
            ("Timed out", "after an hour", "Timed out: after an hour"),
            ("Error", "1 run ended in an error", "1 run ended in an error"),
            ("Error", "terrors", "Error: terrors"),
            ("Error", "", "Error"),
            ("", "2 of 3 jobs failed", "2 of 3 jobs failed"),
        ] {
            assert_eq!(with_word(word, title, 140), whole);
        }
    }

    proptest! {
        #[test]
        fn the_word_is_there_once_or_as_often_as_the_title_has_it(
            word in "Queued|Running|Timed out|Error", title in "([a-z]{1,8}|queued|running|timed|out|error)( ([a-z]{1,8}|QUEUED|running|timed out|error)){0,5}",
        ) {
            let count = |text: &str| {
                let padded = format!(" {} ", text.to_lowercase().replace(':', " "));
                padded.matches(&format!(" {} ", word.to_lowercase())).count()
            };
            prop_assert_eq!(count(&with_word(&word, &title, 140)), count(&title).max(1));
        }

        #[test]
        fn what_is_cut_fits_and_leaves_no_fence_open(text in "(```|~~~~|`{1,90}|é|\n|x){0,200}", max in 60usize..400) {
            let cut = cut_markdown(&text, max);
            prop_assert!(cut.len() <= max);
            if text.len() > max {
                prop_assert!(open_fence(&cut).is_none());
            } else {
                prop_assert_eq!(cut, text);
            }
        }
    }
}
