//! Log lines as a terminal would leave them, made safe: HTML with classes for pages, plain text for
//! the command line and for summaries. Of all escape sequences only colours and text styles (SGR),
//! erasing in the line and moving within it are obeyed; every other one is dropped with its content:
//! titles, links, clipboard access, moves to other lines, device strings. Text is always HTML-escaped.
//! There are no inline styles, because the pages' content security policy forbids them.
//!
//! Bytes get their meaning in a stream ([`Terminal`]), and what is shown is cut only afterwards: a
//! progress bar of any length ends in its last state, and an escape or a character may be cut anywhere.

use std::fmt::Write;

use anstyle_parse::{DefaultCharAccumulator, Params, ParamsIter, Parser, Perform};

use super::utf8::Decoder;

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

/// A character and how it looks.
type Cell = (char, Style);

const BLANK: Cell = (
    ' ',
    Style {
        fg: None,
        bg: None,
        flags: 0,
    },
);

/// As wide as a terminal is taken to be: longer lines go on at its left edge.
const COLUMNS: usize = 64 * 1024;
/// No program moves the cursor further to the right than this; printing does.
const FAR: usize = 1024;

/// One line of a terminal: what is printed, erased and printed over.
#[derive(Debug, Clone, Default)]
struct Screen {
    cells: Vec<Cell>,
    cursor: usize,
    style: Style,
    /// The leftmost column that changed in this row.
    changed: usize,
    /// So many cells at the beginning are blank, so that erasing them again is no work.
    blank: usize,
    /// Characters of this row that have left the terminal at its right edge.
    gone: usize,
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
        let first = params.iter().next().and_then(|param| param.first().copied());
        let number = usize::from(first.unwrap_or(0));
        match action {
            b'm' if params.is_empty() => self.style = Style::default(),
            b'm' => self.style.set(params),
            b'K' if number < 3 => {
                if number > 0 {
                    self.erase_before();
                }
                if number != 1 {
                    self.erase_behind();
                }
            }
            // To the end of the screen: there is but this line.
            b'J' if number == 0 => self.erase_behind(),
            b'C' => self.cursor = self.cursor.max((self.cursor + number.max(1)).min(FAR)),
            b'D' => self.cursor = self.cursor.saturating_sub(number.max(1)),
            b'G' | b'`' => self.cursor = (number.max(1) - 1).min(FAR),
            _ => {}
        }
    }
}

impl Screen {
    fn put(&mut self, c: char) {
        if self.cursor >= COLUMNS {
            self.gone += self.cells.len() - self.changed.min(self.cells.len());
            self.cells.clear();
            (self.cursor, self.changed, self.blank) = (0, 0, 0);
        }
        self.reach(self.cursor);
        let cell = (c, self.style);
        match self.cells.get_mut(self.cursor) {
            Some(old) => *old = cell,
            None => self.cells.push(cell),
        }
        self.changed = self.changed.min(self.cursor);
        self.blank = self.blank.min(self.cursor);
        self.cursor += 1;
    }

    /// Makes the line at least that long.
    fn reach(&mut self, columns: usize) {
        if self.cells.len() < columns {
            self.changed = self.changed.min(self.cells.len());
            self.cells.resize(columns, BLANK);
        }
    }

    /// Erases from the line's beginning to the cursor.
    fn erase_before(&mut self) {
        self.reach(self.cursor);
        let from = self.blank.min(self.cursor);
        self.cells[from..self.cursor].fill(BLANK);
        self.blank = self.blank.max(self.cursor);
        self.changed = 0;
    }

    /// Erases from the cursor to the line's end.
    fn erase_behind(&mut self) {
        self.cells.truncate(self.cursor);
        self.blank = self.blank.min(self.cells.len());
        self.changed = self.changed.min(self.cursor);
    }
}

/// A terminal that shows one line, fed with the bytes of one channel as they come. However they are
/// cut, it shows the same.
///
/// Where a log is cut into rows within a line, because the line is long or another channel spoke, a
/// row shows what changed in it: from the leftmost column that was printed to on. That is the new text
/// when there is only new text, and the whole line when the cursor went back.
#[derive(Debug, Clone, Default)]
pub struct Terminal {
    screen: Screen,
    parser: Parser<DefaultCharAccumulator>,
    utf8: Decoder,
}

impl Terminal {
    /// Takes more bytes of the line.
    pub fn feed(&mut self, bytes: &[u8]) {
        let mut text = String::with_capacity(bytes.len());
        self.utf8.feed(bytes, &mut text);
        for byte in text.bytes() {
            self.parser.advance(&mut self.screen, byte);
        }
    }

    /// The line has ended: the next bytes begin another. Colours stay until they are changed; an
    /// escape that was never closed hides the rest of its line only.
    pub fn end_line(&mut self) {
        self.screen = Screen {
            style: self.screen.style,
            ..Screen::default()
        };
        self.parser = Parser::default();
        self.utf8 = Decoder::default();
    }

    /// A row ends here and another begins, in the same line.
    pub fn end_row(&mut self) {
        self.screen.changed = self.screen.cursor;
        self.screen.gone = 0;
    }

    /// The row's cells.
    fn row(&self) -> impl Iterator<Item = Cell> {
        let Screen {
            cells,
            changed,
            cursor,
            style,
            ..
        } = &self.screen;
        // The beginning of a character stands for itself until it goes on.
        let within = self.utf8.is_within() && *cursor >= cells.len();
        let last = within.then_some((char::REPLACEMENT_CHARACTER, *style));
        cells.iter().skip(*changed).copied().chain(last)
    }

    /// The row as plain text: no escape and no control character but the tab is left.
    #[must_use]
    pub fn text(&self) -> String {
        self.row().map(|(c, _)| c).collect()
    }

    /// The row as HTML: escaped text and balanced `<span class="…">` alone. Of a long one the beginning
    /// and the end are shown, in at most about `most` bytes; `left_out` says in HTML how many bytes of
    /// text stand between them.
    pub fn html(&self, most: usize, left_out: impl FnOnce(usize) -> String) -> String {
        let row: Vec<Cell> = self.row().collect();
        let gone = self.screen.gone;
        let mut out = Html::default();
        if gone == 0 && fitting(row.iter(), most) == row.len() {
            row.iter().for_each(|cell| out.push(*cell));
            out.close();
            return out.text;
        }
        // What is gone stood before the row. Otherwise three quarters of what is shown are the beginning.
        let begin = if gone > 0 { 0 } else { fitting(row.iter(), most / 4 * 3) };
        let end = row.len() - fitting(row[begin..].iter().rev(), most / 4);
        row[..begin].iter().for_each(|cell| out.push(*cell));
        out.close();
        let bytes: usize = row[begin..end].iter().map(|(c, _)| c.len_utf8()).sum();
        out.text.push_str(&left_out(gone + bytes));
        row[end..].iter().for_each(|cell| out.push(*cell));
        out.close();
        out.text
    }
}

/// How many cells' HTML takes at most `most` bytes. Markup counts as well: a colour for every letter
/// makes much of it.
fn fitting<'a>(cells: impl Iterator<Item = &'a Cell>, most: usize) -> usize {
    let mut html = Html::default();
    let fits = |cell: &&Cell| {
        html.push(**cell);
        html.text.len() <= most
    };
    cells.take_while(fits).count()
}

/// HTML as it is written: at most one span is open.
#[derive(Default)]
struct Html {
    text: String,
    open: Style,
}

impl Html {
    fn push(&mut self, (c, style): Cell) {
        if style != self.open {
            self.close();
            if style != Style::default() {
                style.open(&mut self.text);
            }
            self.open = style;
        }
        match c {
            '&' => self.text.push_str("&amp;"),
            '<' => self.text.push_str("&lt;"),
            '>' => self.text.push_str("&gt;"),
            '"' => self.text.push_str("&quot;"),
            '\'' => self.text.push_str("&#39;"),
            c => self.text.push(c),
        }
    }

    fn close(&mut self) {
        if self.open != Style::default() {
            self.text.push_str("</span>");
            self.open = Style::default();
        }
    }
}

/// Plain text of any number of lines: no escape and no control character but newline and tab is left.
#[must_use]
pub fn strip(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut terminal = Terminal::default();
    for (i, line) in text.split(|byte| *byte == b'\n').enumerate() {
        if i > 0 {
            out.push('\n');
            terminal.end_line();
        }
        terminal.feed(line);
        out.push_str(&terminal.text());
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(terminal: &mut Terminal, line: &[u8]) -> String {
        terminal.end_line();
        terminal.feed(line);
        terminal.html(usize::MAX, |bytes| panic!("{bytes} are left out"))
    }

    fn html(line: &[u8]) -> String {
        row(&mut Terminal::default(), line)
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
        let sheet = include_str!("../../../static/style.css");
        let colours = (0..16).flat_map(|i| [format!("f{i}"), format!("g{i}")]);
        for class in colours.chain(FLAGS.map(str::to_owned)) {
            assert!(sheet.contains(&format!(".ansi-{class} ")), "{class}");
        }
    }

    #[test]
    fn a_colour_stays_over_lines_and_an_open_escape_does_not() {
        let mut terminal = Terminal::default();
        assert_eq!(
            row(&mut terminal, b"\x1b[32mgreen"),
            r#"<span class="ansi-f2">green</span>"#
        );
        assert_eq!(
            row(&mut terminal, b"still\x1b[0m\x1b]0;title never closed"),
            r#"<span class="ansi-f2">still</span>"#
        );
        assert_eq!(row(&mut terminal, b"shown"), "shown");
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
            (b"long text\x1b[1Gab\x1b[0J", "ab"),
            (b"long text\x1b[4Dab", "long abxt"),
            (b"ab\x1b[3Cc\r\x1b[C-", "a-   c"),
            (b"abc\x1b[1Kd\x1b[1K\r\x1b[5`x", "    x"),
            (b"abc\x1b[2J\x1b[3Kd", "abcd"),
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

    /// What is left when bytes are rendered in pieces of these sizes.
    fn cut(bytes: &[u8], sizes: &[usize]) -> Terminal {
        let (mut terminal, mut rest, mut sizes) = (Terminal::default(), bytes, sizes.iter().cycle());
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(sizes.next().map_or(rest.len(), |size| (*size).min(rest.len())));
            terminal.feed(piece);
            rest = behind;
        }
        terminal
    }

    #[test]
    fn a_row_shows_what_changed_in_it() {
        let mut terminal = Terminal::default();
        let rows = [
            &b"fetch: 10%"[..],
            b"\rfetch: 20",
            b"%\x1b[3D30",
            b" and \xe2\x82",
            b"\xac",
            b"\x1b[2K\rdone",
            b" soon",
        ];
        let shown = rows.map(|row| {
            terminal.feed(row);
            let text = terminal.text();
            terminal.end_row();
            text
        });
        assert_eq!(
            shown,
            [
                "fetch: 10%",
                "fetch: 20%",
                "30%",
                " and \u{fffd}",
                "€",
                "done           ",
                " soon      "
            ]
        );
    }

    #[test]
    fn the_end_of_a_long_line_is_shown() {
        let long = [&vec![b'<'; 40_000][..], b"end"].concat();
        let shown = cut(&long, &[7000]).html(8000, |bytes| format!("({bytes})"));
        assert!(shown.len() < 8100 && shown.ends_with("&lt;end"), "{}", shown.len());
        let left: usize = shown.split(['(', ')']).nth(1).unwrap().parse().unwrap();
        assert_eq!(shown.matches("&lt;").count() + left, 40_000);
        // Every letter in another colour.
        let colours: Vec<u8> = (0..20_000)
            .flat_map(|i| format!("\x1b[3{}mx", i % 7).into_bytes())
            .collect();
        assert!(cut(&colours, &[100]).html(8000, |_| String::new()).len() < 8500);
        // Wider than any terminal, in one row.
        let shown = cut(&vec![b'a'; 3 * COLUMNS + 5], &[100_000]).html(8000, |bytes| format!("({bytes})"));
        assert_eq!(shown, format!("({}){}", 3 * COLUMNS, "aaaaa"));
    }

    #[test]
    fn a_hostile_line_takes_little_time() {
        let far = format!("{}\x1b[1K", "x".repeat(60_000));
        let again = "\rx\x1b[65535C\x1b[1K\x1b[9999Gy\x1b[K".repeat(100_000);
        let terminal = cut([far, again].concat().as_bytes(), &[1 << 16]);
        assert!(terminal.text().chars().count() <= COLUMNS);
    }

    proptest! {
        /// A line's last state is the same however its bytes came, and in the row that it ends with.
        #[test]
        fn rendering_in_any_cut_is_rendering_the_whole(
            parts in proptest::collection::vec(proptest::sample::select(vec![
                &b"\r"[..], b"\x1b[K", b"\x1b[1K", b"\x1b[2K", b"\x1b[31m", b"\x1b[0m", b"\x1b[5D", b"\x1b[3C",
                b"\x1b[7G", b"\x08", b"50%", "█é".as_bytes(), b"\xff", b"\x1b]0;title\x07", b"\x1b[", b"\x1b[J", b"word",
            ]), 0..40),
            sizes in proptest::collection::vec(1usize..9, 1..6),
            rows in proptest::collection::vec(1usize..9, 1..6),
        ) {
            let bytes = parts.concat();
            let (whole, pieces) = (cut(&bytes, &[bytes.len().max(1)]), cut(&bytes, &sizes));
            let html = |terminal: &Terminal| terminal.html(usize::MAX, |_| String::new());
            prop_assert_eq!(html(&pieces), html(&whole));
            prop_assert_eq!(pieces.text(), whole.text());

            let (mut terminal, mut rest, mut rows) = (Terminal::default(), &bytes[..], rows.iter().cycle());
            let mut joined = String::new();
            let mut only_new = true;
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at(rows.next().map_or(rest.len(), |size| (*size).min(rest.len())));
                terminal.end_row();
                let before = terminal.screen.cells.len();
                terminal.feed(piece);
                only_new &= terminal.screen.changed >= before;
                joined.push_str(&terminal.text());
                rest = behind;
            }
            prop_assert!(whole.text().ends_with(&terminal.text()));
            if only_new && !joined.contains(char::REPLACEMENT_CHARACTER) {
                prop_assert_eq!(joined, whole.text());
            }
        }

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
