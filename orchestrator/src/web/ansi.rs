//! A log line as a terminal would leave it, made safe: HTML with classes for pages, plain text for
//! the command line and for summaries. Of all escape sequences only colours and text styles (SGR) are
//! shown and "erase in line" obeyed; every other one is dropped with its content: titles, links,
//! clipboard access, cursor moves, device strings. Text is always HTML-escaped. There are no inline
//! styles, because the pages' content security policy forbids them.

use std::fmt::Write;

use anstyle_parse::{DefaultCharAccumulator, Params, ParamsIter, Parser, Perform};

/// How text looks. The default is plain text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Style {
    /// Colours 0 to 15; none is the page's own.
    fg: Option<u8>,
    bg: Option<u8>,
    /// One bit for each of [`FLAGS`].
    flags: u8,
}

/// The classes of text styles, in the order of their bits: bold, dim, italic, underlined, inverse,
/// struck through. The style sheet has one rule for each.
const FLAGS: [&str; 6] = ["b", "d", "i", "u", "r", "s"];
const INVERSE: u8 = 1 << 4;

impl Style {
    /// A span with the classes `ansi-f0` … `ansi-f15` (text), `ansi-g0` … `ansi-g15` (ground) and
    /// `ansi-` with each of [`FLAGS`].
    fn open(self, out: &mut String) {
        let Self {
            mut fg,
            mut bg,
            mut flags,
        } = self;
        if flags & INVERSE != 0 {
            (fg, bg) = (bg, fg);
            // The class is for the page's own colour as the ground; any other says so itself.
            if bg.is_some() {
                flags &= !INVERSE;
            }
        }
        let mut separator = "<span class=\"";
        // Writing to a String cannot fail.
        for (letter, colour) in [('f', fg), ('g', bg)] {
            if let Some(colour) = colour {
                let _ = write!(out, "{separator}ansi-{letter}{colour}");
                separator = " ";
            }
        }
        for (bit, name) in FLAGS.iter().enumerate() {
            if flags >> bit & 1 != 0 {
                let _ = write!(out, "{separator}ansi-{name}");
                separator = " ";
            }
        }
        out.push_str("\">");
    }

    fn set(&mut self, params: &Params) {
        let mut params = params.iter();
        while let Some(param) = params.next() {
            let code = param.first().copied().unwrap_or(0);
            match code {
                0 => *self = Self::default(),
                // `4:0` switches underlining off.
                4 if param.get(1) == Some(&0) => self.flags &= !(1 << 3),
                1..=4 => self.flags |= 1 << (code - 1),
                7 => self.flags |= 1 << 4,
                9 => self.flags |= 1 << 5,
                21 => self.flags |= 1 << 3,
                22 => self.flags &= !0b11,
                23 | 24 => self.flags &= !(1 << (code - 21)),
                27 => self.flags &= !(1 << 4),
                29 => self.flags &= !(1 << 5),
                30..=37 => self.fg = Some((code - 30) as u8),
                40..=47 => self.bg = Some((code - 40) as u8),
                90..=97 => self.fg = Some((code - 82) as u8),
                100..=107 => self.bg = Some((code - 92) as u8),
                39 => self.fg = None,
                49 => self.bg = None,
                38 => self.fg = extended(param, &mut params).or(self.fg),
                48 => self.bg = extended(param, &mut params).or(self.bg),
                // The colour of an underline is not shown, and its numbers are no codes.
                58 => {
                    extended(param, &mut params);
                }
                _ => {}
            }
        }
    }
}

/// The colour behind 38 or 48, as one of sixteen: `38;5;n`, `38;2;r;g;b` or the same with colons.
fn extended(param: &[u16], rest: &mut ParamsIter<'_>) -> Option<u8> {
    let joined: Vec<u16>;
    let values: &[u16] = if param.len() > 1 {
        &param[1..]
    } else {
        let kind = rest.next()?.first().copied()?;
        let count = match kind {
            5 => 1,
            2 => 3,
            _ => return None,
        };
        joined = std::iter::once(kind)
            .chain(rest.take(count).filter_map(|p| p.first().copied()))
            .collect();
        &joined
    };
    let byte = |value: u16| u8::try_from(value).ok();
    match *values {
        [5, n] => Some(of_256(byte(n)?)),
        // With colons an empty colour space may stand before the three.
        [2, r, g, b] | [2, _, r, g, b, ..] => Some(nearest(byte(r)?, byte(g)?, byte(b)?)),
        _ => None,
    }
}

fn of_256(n: u8) -> u8 {
    match n {
        0..=15 => n,
        16..=231 => {
            let level = |i: u8| if i == 0 { 0 } else { 55 + 40 * i };
            let n = n - 16;
            nearest(level(n / 36), level(n / 6 % 6), level(n % 6))
        }
        232.. => {
            let grey = 8 + 10 * (n - 232);
            nearest(grey, grey, grey)
        }
    }
}

/// The nearest of the sixteen colours as xterm shows them.
fn nearest(r: u8, g: u8, b: u8) -> u8 {
    const PALETTE: [[u8; 3]; 16] = [
        [0, 0, 0],
        [205, 0, 0],
        [0, 205, 0],
        [205, 205, 0],
        [0, 0, 238],
        [205, 0, 205],
        [0, 205, 205],
        [229, 229, 229],
        [127, 127, 127],
        [255, 0, 0],
        [0, 255, 0],
        [255, 255, 0],
        [92, 92, 255],
        [255, 0, 255],
        [0, 255, 255],
        [255, 255, 255],
    ];
    let distance = |colour: &[u8; 3]| {
        let square = |a: u8, b: u8| u32::from(a.abs_diff(b)).pow(2);
        square(colour[0], r) + square(colour[1], g) + square(colour[2], b)
    };
    (0..16u8)
        .min_by_key(|i| distance(&PALETTE[usize::from(*i)]))
        .unwrap_or(7)
}

/// One line of a terminal without width: what is printed, erased and printed over.
struct Screen {
    cells: Vec<(char, Style)>,
    cursor: usize,
    style: Style,
}

impl Perform for Screen {
    fn print(&mut self, c: char) {
        // Characters that turn the direction of text around can make it read as something else.
        let c = match c {
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => char::REPLACEMENT_CHARACTER,
            c if c.is_control() => return,
            c => c,
        };
        self.put(c);
    }

    fn execute(&mut self, byte: u8) {
        match byte {
            b'\r' => self.cursor = 0,
            0x08 => self.cursor = self.cursor.saturating_sub(1),
            b'\t' => self.put('\t'),
            _ => {}
        }
    }

    fn csi_dispatch(&mut self, params: &Params, intermediates: &[u8], ignore: bool, action: u8) {
        if ignore || !intermediates.is_empty() {
            return;
        }
        match action {
            b'm' if params.is_empty() => self.style = Style::default(),
            b'm' => self.style.set(params),
            b'K' => match params
                .iter()
                .next()
                .and_then(|param| param.first().copied())
                .unwrap_or(0)
            {
                0 => self.cells.truncate(self.cursor),
                1 => self.blank(),
                2 => {
                    self.blank();
                    self.cells.truncate(self.cursor);
                }
                _ => {}
            },
            _ => {}
        }
    }
}

impl Screen {
    fn put(&mut self, c: char) {
        let cell = (c, self.style);
        match self.cells.get_mut(self.cursor) {
            Some(old) => *old = cell,
            None => self.cells.push(cell),
        }
        self.cursor += 1;
    }

    /// Erases from the line's beginning to the cursor.
    fn blank(&mut self) {
        for cell in self.cells.iter_mut().take(self.cursor) {
            *cell = (' ', Style::default());
        }
        if self.cells.len() <= self.cursor {
            self.cells.resize(self.cursor, (' ', Style::default()));
        }
    }
}

fn screen(line: &[u8], style: Style) -> Screen {
    let mut screen = Screen {
        cells: Vec::with_capacity(line.len()),
        cursor: 0,
        style,
    };
    // A new parser for every line: an escape that is never closed hides the rest of its line only.
    let mut parser = Parser::<DefaultCharAccumulator>::new();
    for byte in String::from_utf8_lossy(line).bytes() {
        parser.advance(&mut screen, byte);
    }
    screen
}

/// What one line of a step leaves to the next: a colour stays until it is changed. The default is
/// the beginning of a step.
#[derive(Debug, Clone, Default)]
pub struct State {
    style: Style,
}

/// One line, without its newline, as HTML: escaped text and balanced `<span class="…">` alone.
pub fn render_line(state: &mut State, line: &[u8]) -> String {
    let screen = screen(line, state.style);
    state.style = screen.style;
    let mut out = String::with_capacity(line.len() + 32);
    let mut open = Style::default();
    for (c, style) in screen.cells {
        if style != open {
            if open != Style::default() {
                out.push_str("</span>");
            }
            if style != Style::default() {
                style.open(&mut out);
            }
            open = style;
        }
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    if open != Style::default() {
        out.push_str("</span>");
    }
    out
}

/// Plain text of any number of lines: no escape and no control character but newline and tab is left.
#[must_use]
pub fn strip(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for (i, line) in text.split(|byte| *byte == b'\n').enumerate() {
        if i > 0 {
            out.push('\n');
        }
        out.extend(screen(line, Style::default()).cells.iter().map(|(c, _)| *c));
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn html(line: &[u8]) -> String {
        render_line(&mut State::default(), line)
    }

    #[test]
    fn colours_and_styles_become_classes() {
        for (line, expected) in [
            ("\x1b[31mred\x1b[0m plain", r#"<span class="ansi-f1">red</span> plain"#),
            (
                "\x1b[1;4;92;41mx\x1b[22;24my",
                r#"<span class="ansi-f10 ansi-g1 ansi-b ansi-u">x</span><span class="ansi-f10 ansi-g1">y</span>"#,
            ),
            (
                "\x1b[3mi\x1b[23;9ms\x1b[29;7mr\x1b[27;2md\x1b[mp",
                r#"<span class="ansi-i">i</span><span class="ansi-s">s</span><span class="ansi-r">r</span><span class="ansi-d">d</span>p"#,
            ),
            (
                "\x1b[38;5;9ma\x1b[38;5;21mb\x1b[48;5;255mc",
                r#"<span class="ansi-f9">a</span><span class="ansi-f4">b</span><span class="ansi-f4 ansi-g7">c</span>"#,
            ),
            (
                "\x1b[38;2;250;5;5ma\x1b[38:2::0:250:0mb",
                r#"<span class="ansi-f9">a</span><span class="ansi-f10">b</span>"#,
            ),
            (
                "\x1b[38;5;1;1ma\x1b[39mb",
                r#"<span class="ansi-f1 ansi-b">a</span><span class="ansi-b">b</span>"#,
            ),
            ("\x1b[58;5;1mplain\x1b[38;9mx\x1b[38;5;300my", "plainxy"),
        ] {
            assert_eq!(html(line.as_bytes()), expected, "{line:?}");
        }
    }

    #[test]
    fn inverse_swaps_the_colours() {
        assert_eq!(html(b"\x1b[7;31ma"), r#"<span class="ansi-g1">a</span>"#);
        assert_eq!(html(b"\x1b[7;41ma"), r#"<span class="ansi-f1 ansi-r">a</span>"#);
        assert_eq!(html(b"\x1b[7;31;42ma"), r#"<span class="ansi-f2 ansi-g1">a</span>"#);
    }

    #[test]
    fn every_class_has_a_rule() {
        let sheet = include_str!("../../static/style.css");
        let colours = (0..16).flat_map(|i| [format!("f{i}"), format!("g{i}")]);
        for class in colours.chain(FLAGS.map(str::to_owned)) {
            assert!(sheet.contains(&format!(".ansi-{class} ")), "{class}");
        }
    }

    #[test]
    fn a_colour_stays_over_lines_and_an_open_escape_does_not() {
        let mut state = State::default();
        assert_eq!(
            render_line(&mut state, b"\x1b[32mgreen"),
            r#"<span class="ansi-f2">green</span>"#
        );
        assert_eq!(
            render_line(&mut state, b"still\x1b[0m\x1b]0;title never closed"),
            r#"<span class="ansi-f2">still</span>"#
        );
        assert_eq!(render_line(&mut state, b"shown"), "shown");
    }

    #[test]
    fn what_is_printed_over_is_gone() {
        for (line, expected) in [
            (&b"10%\r50%\r100% done\r"[..], "100% done"),
            (b"long text\rab", "abng text"),
            (b"long text\r\x1b[Kab", "ab"),
            (b"long text\x1b[2K\rab", "ab       "),
            (b"abc\x08\x08X", "aXc"),
            (b"\x08\x08x", "x"),
        ] {
            assert_eq!(strip(line), expected);
            assert_eq!(html(line), expected);
        }
    }

    #[test]
    fn every_other_escape_is_dropped_with_its_content() {
        for line in [
            &b"a\x1b]8;;javascript:alert(1)\x1b\\b\x1b]8;;\x1b\\"[..],
            b"a\x1b]52;c;ZXZpbA==\x07b",
            b"a\x1b]0;<script>\x07b",
            b"a\x1b[2J\x1b[10;10H\x1b[?25lb",
            b"a\x1bPq<img>\x1b\\b",
            b"a\x1b_<b>\x1b\\b",
            b"a\x1b^x\x1b\\\x1b(0\x1bcb",
            b"a\0\x01\x7fb",
            "a\u{9b}b\u{85}".as_bytes(),
        ] {
            let text = strip(line);
            assert!(
                text.starts_with('a') && text.contains('b') && !text.contains(['\x1b', '<', '\u{9b}']),
                "{line:?}: {text:?}"
            );
        }
        assert_eq!(html(b"a\xff\xfeb"), "a\u{fffd}\u{fffd}b");
        assert_eq!(strip("a\u{202e}b".as_bytes()), "a\u{fffd}b");
        assert_eq!(strip(b"a\tb\r\nc\n"), "a\tb\nc\n");
    }

    #[test]
    fn markup_is_text() {
        for line in [
            "<script>alert(1)</script>",
            "<img src=x onerror=alert(1)>",
            "</span></pre><svg onload=alert(1)>",
            "\x1b[31m<\x1b[32mscript>",
            "\"><iframe srcdoc='&lt;script&gt;'>",
            "<\0script>",
            "<scr\x08\x08\x08\x08<img>",
        ] {
            check(line.as_bytes());
            assert!(!html(line.as_bytes()).contains(['\'']), "{line}");
        }
        assert_eq!(
            html(b"<a b=\"c\" d='e'>&"),
            "&lt;a b=&quot;c&quot; d=&#39;e&#39;&gt;&amp;"
        );
    }

    /// Nothing but our own tags, balanced, never nested; no control characters.
    fn check(line: &[u8]) {
        let html = html(line);
        let mut rest = html.as_str();
        let mut open = false;
        while let Some(at) = rest.find(['<', '>', '"']) {
            rest = &rest[at..];
            if open {
                rest = rest.strip_prefix("</span>").expect("our own end tag");
            } else {
                rest = rest.strip_prefix("<span class=\"").expect("our own tag");
                let (classes, behind) = rest.split_once("\">").expect("the tag's end");
                assert!(
                    classes
                        .bytes()
                        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"- ".contains(&b))
                );
                rest = behind;
            }
            open = !open;
        }
        assert!(!open);
        assert!(!html.chars().any(|c| c.is_control() && c != '\t'));
        let text = strip(line);
        assert!(!text.chars().any(|c| c.is_control() && c != '\n' && c != '\t'));
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe(line in proptest::collection::vec(any::<u8>(), 0..300)) {
            check(&line);
        }

        #[test]
        fn any_escapes_are_safe(parts in proptest::collection::vec(prop_oneof![
            Just("\x1b"), Just("["), Just("]"), Just("m"), Just(";"), Just("38"), Just("5"), Just("1"), Just("<"), Just(">"), Just("\""), Just("&"),
            Just("\r"), Just("\x08"), Just("P"), Just("\\"), Just("\x07"), Just("x"), Just("\u{9b}"), Just("K"), Just(":"), Just("é"), Just("\n")
        ], 0..60)) {
            check(parts.concat().as_bytes());
        }
    }
}
