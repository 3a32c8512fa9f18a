//! `::add-mask::VALUE` lines. A command stands at the beginning of a line, after blanks; its name
//! ignores case and may be followed by a blank and properties; `%25`, `%0D` and `%0A` in the value
//! are unescaped. Everything else passes through untouched and at once: only a line that begins
//! like the command is held until it has ended or turned out to be another.

use memchr::memmem;

/// Longest command that is understood, in bytes; a longer one is hidden, not obeyed.
const LONGEST: usize = 64 << 10;
const START: &[u8] = b"::add-mask";

/// One channel's place in its text.
#[derive(Debug)]
pub(super) struct Parser {
    /// Only blanks stand before this place in its line.
    at_start: bool,
    mode: Mode,
}

#[derive(Debug)]
enum Mode {
    Text,
    /// A line that may become the command, from its first colon on.
    Held(Vec<u8>),
    /// The rest of an overlong command, up to the line's end.
    Swallow,
}

/// What the text consists of.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// Text to show.
    Text(&'a [u8]),
    /// A command: the line up to and with the second `::`, and the value as written, which the next
    /// piece's beginning (the line's end) does not belong to.
    Mask { head: &'a [u8], value: &'a [u8] },
    /// A command whose value is too long; the rest of the line is dropped.
    TooLong,
}

/// What the beginning of a line may be.
enum Kind {
    Other,
    Unfinished,
    /// The value begins there.
    Command(usize),
}

impl Parser {
    pub(super) fn new(at_start: bool, swallow: bool) -> Self {
        Self {
            at_start,
            mode: if swallow { Mode::Swallow } else { Mode::Text },
        }
    }

    /// Bytes held back.
    pub(super) fn held(&self) -> usize {
        match &self.mode {
            Mode::Held(line) => line.len(),
            _ => 0,
        }
    }

    pub(super) fn at_start(&self) -> bool {
        self.at_start
    }

    pub(super) fn swallows(&self) -> bool {
        matches!(self.mode, Mode::Swallow)
    }

    /// Takes the next bytes of the channel apart.
    pub(super) fn feed(&mut self, mut data: &[u8], mut each: impl FnMut(Piece<'_>)) {
        while !data.is_empty() {
            match &mut self.mode {
                Mode::Text => {
                    let Some(at) = self.candidate(data) else {
                        self.at_start = is_start(data, self.at_start);
                        each(Piece::Text(data));
                        return;
                    };
                    if at > 0 {
                        each(Piece::Text(&data[..at]));
                    }
                    self.at_start = true;
                    self.mode = Mode::Held(Vec::new());
                    data = &data[at..];
                }
                Mode::Held(line) => {
                    let end = memchr::memchr2(b'\n', b'\r', data);
                    // A little more than the limit is enough to know that it is crossed.
                    let take = end.unwrap_or(data.len()).min(LONGEST + 1 - line.len());
                    line.extend_from_slice(&data[..take]);
                    data = &data[take..];
                    self.decide(end == Some(take), &mut each);
                }
                Mode::Swallow => match memchr::memchr2(b'\n', b'\r', data) {
                    Some(end) => {
                        self.mode = Mode::Text;
                        self.at_start = false;
                        data = &data[end..];
                    }
                    None => return,
                },
            }
        }
    }

    /// The step has ended, and with it the line.
    pub(super) fn end(&mut self, mut each: impl FnMut(Piece<'_>)) {
        self.decide(true, &mut each);
        *self = Self::new(true, false);
    }

    /// What the held line is, now that it has grown or ended.
    fn decide(&mut self, ended: bool, each: &mut impl FnMut(Piece<'_>)) {
        let Mode::Held(line) = &self.mode else { return };
        match classify(line) {
            Kind::Other => each(Piece::Text(line)),
            _ if line.len() > LONGEST => {
                each(Piece::TooLong);
                self.mode = Mode::Swallow;
                return;
            }
            Kind::Command(value) if ended => each(Piece::Mask {
                head: &line[..value],
                value: &line[value..],
            }),
            Kind::Unfinished if ended => each(Piece::Text(line)),
            _ => return,
        }
        self.mode = Mode::Text;
        self.at_start = false;
    }

    /// Where in `data` a line begins with what may become the command.
    fn candidate(&self, data: &[u8]) -> Option<usize> {
        if self.at_start && data.iter().find(|b| !is_blank(**b)) == Some(&b':') {
            return data.iter().position(|b| *b == b':');
        }
        let begins_line = |at: usize| is_start(&data[..at], self.at_start);
        if let Some(at) = memmem::find_iter(data, b"::").find(|at| begins_line(*at)) {
            return Some(at);
        }
        // A colon may be the first half of the two.
        let last = data.len() - 1;
        (data[last] == b':' && begins_line(last)).then_some(last)
    }
}

/// Whether only blanks stand behind the last line end in `text`; `before` answers for text without one.
pub(super) fn is_start(text: &[u8], before: bool) -> bool {
    match text.iter().rev().find(|b| !is_blank(**b)) {
        Some(byte) => matches!(byte, b'\n' | b'\r'),
        None => before,
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | 0x0b | 0x0c)
}

fn classify(line: &[u8]) -> Kind {
    let known = line.len().min(START.len());
    if !line[..known].eq_ignore_ascii_case(&START[..known]) {
        return Kind::Other;
    }
    let rest = &line[known..];
    match rest {
        [] | b":" => Kind::Unfinished,
        [b':', b':', ..] => Kind::Command(START.len() + 2),
        [b' ', ..] => match memmem::find(rest, b"::") {
            Some(at) => Kind::Command(START.len() + at + 2),
            None => Kind::Unfinished,
        },
        _ => Kind::Other,
    }
}

/// The value with `%25`, `%0D` and `%0A` unescaped.
pub(super) fn unescape(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some(&byte) = rest.first() {
        let (decoded, size) = match rest.get(..3) {
            Some(b"%25") => (b'%', 3),
            Some(b"%0D") => (b'\r', 3),
            Some(b"%0A") => (b'\n', 3),
            _ => (byte, 1),
        };
        out.push(decoded);
        rest = &rest[size..];
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The text as shown and the values, for `text` cut into pieces of these sizes.
    fn parse(text: &[u8], sizes: &[usize]) -> (Vec<u8>, Vec<Vec<u8>>) {
        let (mut shown, mut values) = (Vec::new(), Vec::new());
        let mut parser = Parser::new(true, false);
        let mut each = |piece: Piece<'_>| match piece {
            Piece::Text(text) => shown.extend_from_slice(text),
            Piece::Mask { head, value } => {
                shown.extend_from_slice(head);
                shown.extend_from_slice(b"***");
                values.push(unescape(value));
            }
            Piece::TooLong => shown.extend_from_slice(b"(too long)"),
        };
        let (mut rest, mut sizes) = (text, sizes.iter().cycle());
        while !rest.is_empty() {
            let size = sizes.next().map_or(rest.len(), |size| (*size).clamp(1, rest.len()));
            parser.feed(&rest[..size], &mut each);
            rest = &rest[size..];
        }
        parser.end(&mut each);
        (shown, values)
    }

    fn one(line: &str) -> Option<String> {
        let (_, mut values) = parse(line.as_bytes(), &[]);
        assert!(values.len() < 2);
        values.pop().map(|value| String::from_utf8(value).unwrap())
    }

    #[test]
    fn commands_are_understood_as_the_runner_does() {
        assert_eq!(one("::add-mask::hunter2\n").as_deref(), Some("hunter2"));
        assert_eq!(
            one("  \t::Add-Mask::a%25b%0D%0Ac%2C\r\n").as_deref(),
            Some("a%b\r\nc%2C")
        );
        assert_eq!(one("::add-mask file=x,line=1::v::w\n").as_deref(), Some("v::w"));
        assert_eq!(one("::add-mask::%250A").as_deref(), Some("%0A"));
        assert_eq!(one("progress\r::add-mask::x\n").as_deref(), Some("x"));
        assert_eq!(one("::add-mask::\n").as_deref(), Some(""));
        for other in [
            "x ::add-mask::v\n",
            "::add-masks::v\n",
            "::add-mask:v\n",
            ":::add-mask::v\n",
            "::add-mask x\nv::w\n",
        ] {
            assert_eq!(one(other), None, "{other}");
            assert_eq!(parse(other.as_bytes(), &[1]).0, other.as_bytes());
        }
    }

    #[test]
    fn the_shared_cases_agree() {
        let Some(lines) = crate::prerequisites::needs_conformance_lines("commands.jsonl") else {
            return;
        };
        for line in lines {
            let case: serde_json::Value = serde_json::from_str(&line).unwrap();
            // The cases are about a command of another name; how a line is read is the same.
            let line = case["line"].as_str().unwrap().replace("do-something", "add-mask");
            let value = case["expected"]["data"].as_str().map(str::to_owned);
            assert_eq!(one(&line), value, "{line}");
        }
    }

    #[test]
    fn an_overlong_value_is_hidden_to_its_last_byte() {
        let text = [b"::add-mask::".to_vec(), vec![b'x'; 3 * LONGEST], b"\nafter\n".to_vec()].concat();
        let (shown, values) = parse(&text, &[1000]);
        assert_eq!(shown, b"(too long)\nafter\n");
        assert_eq!(values, Vec::<Vec<u8>>::new());
    }

    #[test]
    fn a_prompt_is_not_held() {
        let mut parser = Parser::new(true, false);
        for text in ["Password: ", "\n  ", "::error", "::add-masking"] {
            let mut shown = Vec::new();
            parser.feed(text.as_bytes(), |piece| match piece {
                Piece::Text(text) => shown.extend_from_slice(text),
                other => panic!("{other:?}"),
            });
            assert_eq!((shown, parser.held()), (text.as_bytes().to_vec(), 0));
        }
    }

    proptest! {
        #[test]
        fn cutting_the_text_changes_nothing(
            parts in proptest::collection::vec(prop_oneof![
                Just("::add-mask::"), Just("::"), Just(":"), Just("\n"), Just("\r"), Just(" "), Just("add-mask"), Just("%0A"), Just("x"), Just("\t")
            ], 0..40),
            sizes in proptest::collection::vec(1usize..9, 1..9),
        ) {
            let text = parts.concat();
            prop_assert_eq!(parse(text.as_bytes(), &[]), parse(text.as_bytes(), &sizes));
        }
    }
}
