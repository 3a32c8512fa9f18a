//! Lines of a log as HTML: escaped, coloured, numbered, linked, and bounded.

use std::{collections::HashMap, fmt::Write as _, str::FromStr};

use askama::filters::{Html, escape};

use super::{ansi, view};
use crate::logs::{Channel, Line};

/// Lines in one window of a log.
pub const WINDOW: usize = 500;
/// Bytes of rendered lines in one answer; the page around them stays below 200 kB with it.
pub const MAX_HTML: usize = 150_000;
/// Bytes of one line that are shown; the raw log has the rest.
const MAX_SHOWN: usize = 8 * 1024;

/// A place in a log that a link names: `s2-L10` or `s2-L10-L20`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The step, counted from 0 as everywhere; links count from 1, as people do.
    pub step: u32,
    /// The first line, counted from 1 in the step.
    pub first: u64,
    /// The last line.
    pub last: u64,
}

impl Mark {
    fn covers(self, line: &Line) -> bool {
        line.step == self.step && (self.first..=self.last).contains(&line.line_in_step)
    }
}

/// Text that names no place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a place in a log is written like s2-L10 or s2-L10-L20")]
pub struct BadMark;

impl FromStr for Mark {
    type Err = BadMark;
    fn from_str(text: &str) -> Result<Self, BadMark> {
        let number = |part: Option<&str>, prefix: char| -> Option<u64> {
            let digits = part?.strip_prefix(prefix)?;
            let plain = !digits.is_empty() && digits.len() <= 12 && digits.bytes().all(|b| b.is_ascii_digit());
            plain.then(|| digits.parse().ok())?
        };
        let mut parts = text.split('-');
        let step = number(parts.next(), 's')
            .filter(|n| *n > 0)
            .and_then(|n| u32::try_from(n).ok())
            .ok_or(BadMark)?;
        let first = number(parts.next(), 'L').filter(|n| *n > 0).ok_or(BadMark)?;
        let last = match parts.next() {
            None => first,
            part => number(part, 'L').ok_or(BadMark)?,
        };
        if parts.next().is_some() || last < first {
            return Err(BadMark);
        }
        Ok(Self {
            step: step - 1,
            first,
            last,
        })
    }
}

/// The lines of one step in a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The step.
    pub step: u32,
    /// The first line's number in the attempt.
    pub first: u64,
    /// The last line's number in the attempt.
    pub last: u64,
    /// The first line's number in the step.
    pub first_in_step: u64,
    /// The lines, safe HTML of our own making.
    pub html: String,
}

/// Turns lines into HTML; remembers the colours that earlier lines left switched on.
#[derive(Debug)]
pub struct Renderer {
    link: String,
    mark: Option<Mark>,
    colours: HashMap<(u32, Channel), ansi::State>,
}

impl Renderer {
    /// `link` is the job page's path with a `?` or `&` at its end; permalinks begin with it.
    #[must_use]
    pub fn new(link: String, mark: Option<Mark>) -> Self {
        Self {
            link,
            mark,
            colours: HashMap::new(),
        }
    }

    /// One line.
    pub fn line(&mut self, line: &Line) -> String {
        let colours = self.colours.entry((line.step, line.channel)).or_default();
        let cut = line.bytes.len().min(MAX_SHOWN);
        let text = ansi::render_line(colours, &line.bytes[..cut]);
        let mut class = String::from("l");
        if line.channel == Channel::System {
            class.push_str(" sys");
        }
        if line.channel == Channel::Stderr {
            class.push_str(" err");
        }
        if self.mark.is_some_and(|mark| mark.covers(line)) {
            class.push_str(" hl");
        }
        let place = format!("s{}-L{}", u64::from(line.step) + 1, line.line_in_step);
        let time = view::rfc3339(line.node_ms);
        let mut html = format!(
            "<div class=\"{class}\" id=\"{place}\" data-n=\"{}\"><a href=\"{}lines={place}#{place}\">{}</a><time datetime=\"{time}\">{}</time><span>{text}",
            line.number,
            escape(&self.link, Html)
                .map(|link| link.to_string())
                .unwrap_or_default(),
            line.line_in_step,
            &time[11..19],
        );
        if cut < line.bytes.len() {
            let _ = write!(
                html,
                " <em>… {} more, see the raw log</em>",
                view::bytes((line.bytes.len() - cut) as u64)
            );
        }
        html.push_str("</span></div>\n");
        html
    }

    /// Lines in order, grouped by step. Whatever does not fit [`MAX_HTML`] is left out: at the front
    /// when the end matters (`keep_end`), else at the back. One line always fits.
    pub fn groups(&mut self, lines: &[Line], keep_end: bool) -> Vec<Group> {
        let rendered: Vec<String> = lines.iter().map(|line| self.line(line)).collect();
        let mut budget = MAX_HTML;
        let mut fits = |html: &&String| {
            let fits = html.len() <= budget;
            budget = budget.saturating_sub(html.len());
            fits
        };
        let kept = if keep_end {
            let count = rendered.iter().rev().take_while(&mut fits).count();
            lines.len() - count..lines.len()
        } else {
            0..rendered.iter().take_while(&mut fits).count()
        };
        let mut groups: Vec<Group> = Vec::new();
        for (line, html) in lines[kept.clone()].iter().zip(&rendered[kept]) {
            match groups.last_mut().filter(|group| group.step == line.step) {
                Some(group) => {
                    group.last = line.number;
                    group.html.push_str(html);
                }
                None => groups.push(Group {
                    step: line.step,
                    first: line.number,
                    last: line.number,
                    first_in_step: line.line_in_step,
                    html: html.clone(),
                }),
            }
        }
        groups
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(number: u64, step: u32, bytes: &[u8]) -> Line {
        Line {
            number,
            step,
            line_in_step: number,
            channel: Channel::Stdout,
            node_ms: 0,
            bytes: bytes.to_vec(),
            continued: false,
        }
    }

    fn renderer(mark: Option<&str>) -> Renderer {
        Renderer::new("/jobs/x?".to_owned(), mark.map(|m| m.parse().unwrap()))
    }

    #[test]
    fn places_are_parsed_strictly() {
        assert_eq!(
            "s2-L10".parse(),
            Ok(Mark {
                step: 1,
                first: 10,
                last: 10
            })
        );
        assert_eq!(
            "s2-L10-L20".parse(),
            Ok(Mark {
                step: 1,
                first: 10,
                last: 20
            })
        );
        for bad in [
            "",
            "s2",
            "2-L1",
            "s2-L0",
            "s0-L1",
            "s2-L5-L4",
            "s2-L1-L2-L3",
            "s2-L+1",
            "s99999999999-L1",
            "s1-L\"><img>",
        ] {
            assert_eq!(bad.parse::<Mark>(), Err(BadMark), "{bad}");
        }
    }

    #[test]
    fn a_line_is_numbered_linked_and_escaped() {
        let html = renderer(Some("s2-L3-L4")).line(&line(3, 1, b"<img src=x onerror=alert(1)>"));
        assert!(
            html.contains("id=\"s2-L3\"")
                && html.contains("href=\"/jobs/x?lines=s2-L3#s2-L3\"")
                && html.contains("class=\"l hl\"")
        );
        assert!(!html.contains("<img"), "{html}");
    }

    #[test]
    fn a_window_is_bounded_and_keeps_the_end_that_matters() {
        let lines: Vec<Line> = (1..=500).map(|n| line(n, u32::from(n > 250), &[b'<'; 4000])).collect();
        let end = renderer(None).groups(&lines, true);
        let front = renderer(None).groups(&lines, false);
        for groups in [&end, &front] {
            assert!(groups.iter().map(|g| g.html.len()).sum::<usize>() <= MAX_HTML);
            assert!(!groups.is_empty());
        }
        assert_eq!(end.last().unwrap().last, 500);
        assert_eq!(front[0].first, 1);
        let whole = renderer(None).groups(&[line(1, 1, b"a"), line(2, 1, b"b"), line(3, 2, b"c")], false);
        assert_eq!(
            whole.iter().map(|g| (g.step, g.first, g.last)).collect::<Vec<_>>(),
            [(1, 1, 2), (2, 3, 3)]
        );
    }

    #[test]
    fn a_huge_line_fits_an_answer() {
        let html = renderer(None).line(&line(1, 1, &vec![b'"'; 64 << 10]));
        assert!(html.len() < MAX_HTML && html.contains("more, see the raw log"));
    }

    proptest! {
        #[test]
        fn foreign_bytes_open_no_element(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let html = renderer(None).line(&line(1, 1, &bytes));
            for tag in html.split('<').skip(1) {
                let ours = ["div ", "a ", "time ", "span", "em>", "/div>", "/a>", "/time>", "/span>", "/em>"];
                prop_assert!(ours.iter().any(|o| tag.starts_with(o)), "{}", html);
            }
            prop_assert!(!html.contains(char::from(27)));
        }

        #[test]
        fn marks_never_panic(text in "\\PC{0,40}") {
            let _ = text.parse::<Mark>();
        }
    }
}
