//! What is wrong with a workflow file, with its lines.

use miette::Diagnostic;

use crate::{
    cli::commands::complaint::{Complaint, ShownFile},
    model::diagnostic,
};

/// How many are shown; whoever has mended ten looks again.
const SHOWN: usize = 10;

/// A file that cannot be used.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("{file} cannot be used")]
pub(super) struct Complaints {
    file: String,
    #[related]
    found: Vec<Complaint>,
}

impl Complaints {
    /// Of a file with this text.
    pub fn new(file: &str, text: &str, found: &[diagnostic::Diagnostic]) -> Self {
        let shown = ShownFile::new(file, text);
        let mut complaints: Vec<Complaint> = found
            .iter()
            .take(SHOWN)
            .map(|one| Complaint::new(one, &shown))
            .collect();
        if let more @ 1.. = found.len().saturating_sub(SHOWN) {
            complaints.push(Complaint::more(more));
        }
        Self {
            file: file.to_owned(),
            found: complaints,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str, places: &[(u32, u32)]) -> String {
        let found: Vec<_> = places
            .iter()
            .map(|(line, column)| diagnostic::Diagnostic {
                file: "a.yml".into(),
                line: *line,
                column: *column,
                message: "odd".into(),
                help: Some("even it".into()),
                ..diagnostic::Diagnostic::default()
            })
            .collect();
        let mut out = String::new();
        miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::unicode_nocolor())
            .render_report(&mut out, &Complaints::new("a.yml", text, &found))
            .unwrap();
        out
    }

    #[test]
    fn a_complaint_stands_with_its_line_and_a_mark_below_its_place() {
        let out = shown("on: push\n  \u{e9}: x\n", &[(2, 3)]);
        let lines: Vec<&str> = out.lines().collect();
        let at = lines.iter().position(|line| line.contains("\u{e9}: x")).unwrap();
        let column = |line: &str, c: char| line.chars().position(|x| x == c);
        assert_eq!(column(lines[at], '\u{e9}'), column(lines[at + 1], '\u{25b2}'), "{out}");
        assert!(out.contains("a.yml:2:3: odd") && out.contains("help: even it"), "{out}");
        assert!(!out.contains("more"), "{out}");
    }

    #[test]
    fn the_first_ten_are_shown_and_the_rest_counted() {
        let text = "x\n".repeat(13);
        let places: Vec<_> = (1..=13).map(|line| (line, 1)).collect();
        let out = shown(&text, &places);
        assert_eq!(out.matches(": odd").count(), 10, "{out}");
        assert!(out.contains("3 more"), "{out}");
        assert!(!shown(&text, &places[..10]).contains("more"));
    }

    proptest! {
        /// Whatever the file holds and wherever the complaint points.
        #[test]
        fn any_text_is_shown_and_nothing_of_it_commands_a_terminal(
            text in "(\\PC|[\n\t\r\u{1b}\u{9b}é€]){0,60}",
            line in 0..8u32,
            column in 0..20u32,
        ) {
            let out = shown(&text, &[(line, column)]);
            prop_assert!(out.contains("odd"));
            prop_assert!(!out.contains(|c: char| c.is_control() && c != '\n' && c != '\t'), "{out:?}");
        }
    }
}
