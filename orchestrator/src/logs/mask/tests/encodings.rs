//! Secrets as programs print them: whatever the form, the wrapping and the cuts, next to nothing is shown.

use std::fmt::Write as _;

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD},
};

use super::*;

/// So many bytes of a secret in a row are never shown.
const SHOWN: usize = 8;

/// How a secret is printed.
#[derive(Debug, Clone)]
enum Form {
    /// Base64, of the standard alphabet or another, of all that stands around the secret as well.
    Base64(usize),
    /// Digits, large or not, and what stands between two bytes.
    Hex(bool, &'static str),
    /// As text, by one of [`texts`].
    Text(usize),
    /// Each line by itself, as text.
    Lines(usize),
}

/// How long text is broken into lines.
#[derive(Debug, Clone)]
struct Wrap {
    columns: Option<usize>,
    end: &'static str,
    indent: &'static str,
}

/// Encoders written from the programs' own rules, not from ours.
fn texts(which: usize, text: &str) -> String {
    let each = |encode: &dyn Fn(char) -> String| text.chars().map(encode).collect::<String>();
    let percent = |c: char, kept: &str, upper: bool| {
        let mut out = String::new();
        for byte in c.to_string().bytes() {
            if byte.is_ascii_alphanumeric() || kept.contains(char::from(byte)) && byte.is_ascii() {
                out.push(char::from(byte));
            } else if upper {
                let _ = write!(out, "%{byte:02X}");
            } else {
                let _ = write!(out, "%{byte:02x}");
            }
        }
        out
    };
    let escape = |c: char| match c {
        '"' => "\\\"".to_owned(),
        '\\' => "\\\\".to_owned(),
        '\n' => "\\n".to_owned(),
        '\r' => "\\r".to_owned(),
        '\t' => "\\t".to_owned(),
        c => c.to_string(),
    };
    match which {
        0 => text.to_owned(),
        1 => serde_json::to_string(text).unwrap(),
        // Go, Python, PHP.
        2 => each(&|c| match c {
            '<' | '>' | '&' => format!("\\u{:04x}", u32::from(c)),
            c => escape(c),
        }),
        3 => each(&|c| match c {
            c if !c.is_ascii() => format!("\\u{:04x}", u32::from(c)),
            c => escape(c),
        }),
        4 => each(&|c| match c {
            '/' => "\\/".to_owned(),
            c if !c.is_ascii() => format!("\\u{:04x}", u32::from(c)),
            c => escape(c),
        }),
        // curl, encodeURIComponent, encodeURI, Python's quote and quote_plus, Java's URLEncoder.
        5 => each(&|c| percent(c, "-._~", true)),
        6 => each(&|c| percent(c, "-._~", false)),
        7 => each(&|c| percent(c, "-_.!~*'()", true)),
        8 => each(&|c| percent(c, ";/?:@&=+$,#-_.!~*'()", true)),
        9 => each(&|c| percent(c, "_.-~/", true)),
        10 => each(&|c| if c == ' ' { "+".into() } else { percent(c, "_.-~", true) }),
        11 => each(&|c| if c == ' ' { "+".into() } else { percent(c, "_.-*", true) }),
        // set -x, Python's shlex, declare -p, $'…'.
        12 => format!("'{}'", text.replace('\'', "'\\''")),
        13 => format!("'{}'", text.replace('\'', "'\"'\"'")),
        14 => each(&|c| {
            if "\"$`\\".contains(c) {
                format!("\\{c}")
            } else {
                c.to_string()
            }
        }),
        15 => each(&|c| match c {
            '\'' => "\\'".to_owned(),
            '"' => "\"".to_owned(),
            c => escape(c),
        }),
        // XML in two ways.
        16 => each(&|c| match c {
            '&' => "&amp;".into(),
            '<' => "&lt;".into(),
            '>' => "&gt;".into(),
            '"' => "&quot;".into(),
            '\'' => "&apos;".into(),
            c => c.to_string(),
        }),
        _ => each(&|c| match c {
            '&' => "&amp;".into(),
            '<' => "&lt;".into(),
            '>' => "&gt;".into(),
            c => c.to_string(),
        }),
    }
}

const TEXTS: usize = 18;

fn base64(which: usize, data: &[u8]) -> String {
    [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD][which].encode(data)
}

fn hex(data: &[u8], upper: bool, between: &str) -> String {
    let digits: Vec<String> = data
        .iter()
        .map(|byte| {
            if upper {
                format!("{byte:02X}")
            } else {
                format!("{byte:02x}")
            }
        })
        .collect();
    digits.join(between)
}

fn wrap(text: &str, wrap: &Wrap) -> String {
    let Some(columns) = wrap.columns else {
        return text.to_owned();
    };
    let mut out = String::new();
    for (i, line) in text.as_bytes().chunks(columns).enumerate() {
        if i > 0 {
            out.push_str(wrap.end);
            out.push_str(wrap.indent);
        }
        out.push_str(std::str::from_utf8(line).unwrap());
    }
    out
}

/// What a program prints of `before`, the secret and `after`.
fn printed(form: &Form, secret: &str, before: &[u8], after: &[u8], lines: &Wrap) -> String {
    let data = [before, secret.as_bytes(), after].concat();
    match form {
        Form::Base64(which) => wrap(&base64(*which, &data), lines),
        Form::Hex(upper, between) => wrap(&hex(&data, *upper, between), lines),
        Form::Text(which) => texts(*which, secret),
        Form::Lines(which) => secret.lines().map(|line| texts(*which, line) + "\n").collect(),
    }
}

/// Whether `shown` tells `part` of a secret in the form it was printed in.
fn tells(form: &Form, part: &str, shown: &str) -> bool {
    let squeezed: String = shown
        .chars()
        .filter(|c| !matches!(c, '\r' | '\n' | ' ' | '\t'))
        .collect();
    match form {
        Form::Base64(_) => {
            let shown = squeezed.replace('-', "+").replace('_', "/");
            (0..3).any(|before| {
                shown.contains(std::str::from_utf8(&forms::base64_core(part.as_bytes(), before)).unwrap())
            })
        }
        Form::Hex(upper, between) => squeezed.contains(&hex(part.as_bytes(), *upper, between.trim())),
        // The quotes around a word say nothing.
        Form::Text(which) | Form::Lines(which) => {
            let printed = texts(*which, part);
            let quote = if *which == 1 { "\"" } else { "'" };
            let quoted = matches!(which, 1 | 12 | 13);
            shown.contains(if quoted {
                printed.trim_start_matches(quote).trim_end_matches(quote)
            } else {
                &printed
            })
        }
    }
}

fn form() -> impl Strategy<Value = Form> {
    prop_oneof![
        3 => (0usize..4).prop_map(Form::Base64),
        2 => (any::<bool>(), prop_oneof![Just(""), Just(":"), Just(" ")]).prop_map(|(upper, between)| Form::Hex(upper, between)),
        2 => (0..TEXTS).prop_map(Form::Text),
        1 => (0..TEXTS).prop_map(Form::Lines),
    ]
}

fn wrapping() -> impl Strategy<Value = Wrap> {
    let columns = prop_oneof![
        Just(None),
        Just(Some(60)),
        Just(Some(64)),
        Just(Some(76)),
        (16usize..100).prop_map(Some)
    ];
    (
        columns,
        prop_oneof![Just("\n"), Just("\r\n")],
        prop_oneof![Just(""), Just("    ")],
    )
        .prop_map(|(columns, end, indent)| Wrap { columns, end, indent })
}

/// Of one line or several, each long enough to be masked.
fn value() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        "[A-Za-z0-9+/=]{8,40}",
        "[ -~]{8,30}",
        "[a-z\"'\\\\$`&<>/é%+ ]{8,20}",
        "[A-Za-z0-9+/]{64}",
    ];
    (
        proptest::collection::vec(line, 1..4),
        prop_oneof![Just("\n"), Just("\r\n")],
        any::<bool>(),
    )
        .prop_map(|(lines, end, ended)| {
            let mut text = lines.join(end);
            if ended {
                text.push_str(end);
            }
            text
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn of_no_form_eight_bytes_are_shown(
        secret in value(), form in form(), lines in wrapping(),
        before in proptest::collection::vec(0x80u8.., 0..90), after in proptest::collection::vec(0x80u8.., 0..90),
        sizes in proptest::collection::vec(1usize..70, 1..6),
    ) {
        let patterns = Patterns::new(&[Secret::new(secret.clone())]).unwrap();
        let text = format!("{{\u{1}{}\u{1}}}\n", printed(&form, &secret, &before, &after, &lines));
        let (mut out, mut masker) = (Vec::new(), Masker::default());
        let (mut rest, mut cuts) = (text.as_bytes(), sizes.iter().cycle());
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(cuts.next().map_or(rest.len(), |size| (*size).min(rest.len())));
            masker.feed(patterns.as_ref(), piece, &mut out);
            rest = later;
        }
        masker.flush(&mut out);
        let shown = String::from_utf8(out).unwrap();
        prop_assert!(shown.starts_with("{\u{1}") && shown.ends_with("\u{1}}\n"), "what stands around is shown: {shown:?}");
        for at in secret.char_indices().map(|(at, _)| at) {
            let part = &secret[at..];
            let end = part.char_indices().map(|(i, c)| i + c.len_utf8()).find(|end| *end >= SHOWN);
            if let Some(part) = end.map(|end| &part[..end]) && !part.contains(['\r', '\n']) {
                prop_assert!(!tells(&form, part, &shown), "{part:?} of {secret:?} in {shown:?}");
            }
        }
    }
}
