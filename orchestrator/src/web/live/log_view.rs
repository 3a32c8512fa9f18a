//! Lines of a log as HTML: escaped, coloured, numbered, linked, and bounded.

use std::{collections::HashMap, str::FromStr};

use askama::filters::{Html, escape};

use super::ansi;
use crate::{
    logs::{Channel, Line, LogError, LogStore},
    model::ids::AttemptId,
    web::pages::view,
};

/// Lines in one window of a log.
pub const WINDOW: usize = 500;
/// Bytes of rendered lines in one answer; the page around them stays below 200 kB with it.
pub const MAX_HTML: usize = 150_000;
/// Bytes of one line's HTML: of a longer line, its beginning and its end. The raw log has the rest.
const MAX_SHOWN: usize = 16 * 1024;
/// So many lines before the first one that is shown are read for what they leave to it: colours, and
/// the beginning of a line that it goes on with.
const LEAD: u64 = 8;

/// A place in a log that a link names: `s2-L10` or `s2-L10-L20`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineRange {
    /// The step, counted from 0 as everywhere; links count from 1, as people do.
    pub step: u32,
    /// The first line, counted from 1 in the step.
    pub first: u64,
    /// The last line.
    pub last: u64,
}

impl LineRange {
    fn covers(self, line: &Line) -> bool {
        line.step == self.step && (self.first..=self.last).contains(&line.line_in_step)
    }
}

/// Text that names no place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a place in a log is written like s2-L10 or s2-L10-L20")]
pub struct BadLineRange;

impl FromStr for LineRange {
    type Err = BadLineRange;
    fn from_str(text: &str) -> Result<Self, BadLineRange> {
        let number = |part: Option<&str>, prefix: char| -> Option<u64> {
            let digits = part?.strip_prefix(prefix)?;
            let plain = !digits.is_empty() && digits.len() <= 12 && digits.bytes().all(|b| b.is_ascii_digit());
            plain.then(|| digits.parse().ok())?
        };
        let mut parts = text.split('-');
        let step = number(parts.next(), 's')
            .filter(|n| *n > 0)
            .and_then(|n| u32::try_from(n).ok())
            .ok_or(BadLineRange)?;
        let first = number(parts.next(), 'L').filter(|n| *n > 0).ok_or(BadLineRange)?;
        let last = match parts.next() {
            None => first,
            part => number(part, 'L').ok_or(BadLineRange)?,
        };
        if parts.next().is_some() || last < first {
            return Err(BadLineRange);
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

/// What the lines before line `first` leave to it: for [`Renderer::pass`].
///
/// # Errors
/// When the log cannot be read.
pub(in crate::web) async fn lead(logs: &LogStore, attempt: AttemptId, first: u64) -> Result<Vec<Line>, LogError> {
    let from = first.saturating_sub(LEAD).max(1);
    let count = usize::try_from(first.saturating_sub(from)).unwrap_or_default();
    match count {
        0 => Ok(Vec::new()),
        count => Ok(logs.lines(attempt, from, count).await?.lines),
    }
}

/// Turns lines into HTML. Lines come in order, and the last one may come again, grown; what they leave
/// to the next ones is remembered.
#[derive(Debug)]
pub struct Renderer {
    link: String,
    mark: Option<LineRange>,
    terminals: HashMap<(u32, Channel), ansi::Terminal>,
    /// The last line's number, and its terminal as it was before it.
    last: Option<(u64, ansi::Terminal)>,
}

impl Renderer {
    /// `link` is the job page's path with a `?` or `&` at its end; permalinks begin with it.
    #[must_use]
    pub fn new(link: String, mark: Option<LineRange>) -> Self {
        Self {
            link,
            mark,
            terminals: HashMap::new(),
            last: None,
        }
    }

    /// Lines that are not shown, before the first one that is.
    pub fn pass(&mut self, lines: &[Line]) {
        for line in lines {
            self.feed(line);
        }
    }

    fn feed(&mut self, line: &Line) -> &ansi::Terminal {
        let terminal = self.terminals.entry((line.step, line.channel)).or_default();
        match &self.last {
            Some((number, before)) if *number == line.number => terminal.clone_from(before),
            _ => {
                if line.continued {
                    terminal.end_row();
                } else {
                    terminal.end_line();
                }
                self.last = Some((line.number, terminal.clone()));
            }
        }
        terminal.feed(&line.bytes);
        terminal
    }

    /// One line.
    pub fn line(&mut self, line: &Line) -> String {
        let text = self.feed(line).html(MAX_SHOWN, |left_out| {
            format!(" <em>… {} more, see the raw log …</em> ", view::bytes(left_out as u64))
        });
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
        format!(
            "<div class=\"{class}\" id=\"{place}\" data-n=\"{}\"><a href=\"{}lines={place}#{place}\">{}</a><time datetime=\"{time}\">{}</time><span>{text}</span></div>\n",
            line.number,
            escape(&self.link, Html)
                .map(|link| link.to_string())
                .unwrap_or_default(),
            line.line_in_step,
            &time[11..19],
        )
    }

    /// Lines in order, grouped by step. Whatever does not fit [`MAX_HTML`] is left out: at the front
    /// when the end matters (`keep_end`), else at the back. One line always fits.
    pub fn groups(&mut self, lines: &[Line], keep_end: bool) -> Vec<Group> {
        let mut budget = MAX_HTML;
        let mut fits = |html: &String| {
            let fits = html.len() <= budget;
            budget = budget.saturating_sub(html.len());
            fits
        };
        let (kept, rendered): (_, Vec<String>) = if keep_end {
            let mut rendered: Vec<String> = lines.iter().map(|line| self.line(line)).collect();
            let first = lines.len() - rendered.iter().rev().take_while(|html| fits(html)).count();
            (first..lines.len(), rendered.split_off(first))
        } else {
            // The first line that does not fit is the last one rendered, so it can come again.
            let rendered: Vec<String> = lines.iter().map(|line| self.line(line)).take_while(&mut fits).collect();
            (0..rendered.len(), rendered)
        };
        let mut groups: Vec<Group> = Vec::new();
        for (line, html) in lines[kept].iter().zip(&rendered) {
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
            Ok(LineRange {
                step: 1,
                first: 10,
                last: 10
            })
        );
        assert_eq!(
            "s2-L10-L20".parse(),
            Ok(LineRange {
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
            assert_eq!(bad.parse::<LineRange>(), Err(BadLineRange), "{bad}");
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

    #[test]
    fn a_long_progress_bar_ends_in_its_last_state() {
        let bar: Vec<u8> = (0..=10_000)
            .flat_map(|i| format!("\r\x1b[Kfetched {i} of 10000").into_bytes())
            .collect();
        assert!(bar.len() > MAX_SHOWN);
        // In the rows into which the log cuts a line, the first of which is not in the window.
        let rows: Vec<Line> = bar
            .chunks(64 << 10)
            .zip(1..)
            .map(|(bytes, number)| Line {
                continued: number > 1,
                ..line(number, 1, bytes)
            })
            .collect();
        let mut renderer = renderer(None);
        renderer.pass(&rows[..1]);
        let html = renderer.groups(&rows[1..], true).pop().unwrap().html;
        assert!(html.ends_with("<span>fetched 10000 of 10000</span></div>\n"), "{html}");
    }

    proptest! {
        /// A line that is shown again and again while it grows is what it is when it is shown once, and so
        /// are the lines behind it.
        #[test]
        fn a_growing_line_is_shown_as_the_whole_one(
            lines in proptest::collection::vec((proptest::collection::vec(proptest::sample::select(vec![
                &b"\x1b[31m"[..], b"\x1b[0m", b"\r", b"\x1b[K", b"word", "é".as_bytes(), b"\x1b[1m",
            ]), 0..8), any::<bool>()), 1..6),
            step in 1usize..7,
        ) {
            let lines: Vec<Line> = lines
                .iter()
                .zip(1..)
                .map(|((parts, continued), number)| Line { continued: *continued && number > 1, ..line(number, 1, &parts.concat()) })
                .collect();
            let (mut once, mut growing) = (renderer(None), renderer(None));
            for line in &lines {
                let mut html = String::new();
                for len in (0..line.bytes.len()).step_by(step).chain([line.bytes.len()]) {
                    html = growing.line(&Line { bytes: line.bytes[..len].to_vec(), ..line.clone() });
                }
                prop_assert_eq!(html, once.line(line));
            }
        }

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
            let _ = text.parse::<LineRange>();
        }
    }
}
