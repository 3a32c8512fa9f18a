use proptest::prelude::*;

use super::*;

fn registered(name: &str) -> bool {
    NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))
}

fn parse(line: &str) -> Option<Command> {
    Command::parse(line.as_bytes(), registered)
}

/// What a scanner makes of text: what is shown, and the commands that it obeyed, with the gate that they lead to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Scanned {
    shown: Vec<u8>,
    obeyed: Vec<String>,
    gate: CommandGate,
}

/// For a whole text, cut into pieces of these sizes.
fn scan(text: &[u8], sizes: &[usize]) -> Scanned {
    scan_beginning(text, sizes, true)
}

/// For `text` cut into pieces of these sizes, which `ends` or goes on.
fn scan_beginning(text: &[u8], sizes: &[usize], ends: bool) -> Scanned {
    let mut scanned = Scanned::default();
    let mut scanner = Scanner::new(true, false);
    let (mut rest, mut sizes) = (text, sizes.iter().cycle());
    loop {
        let size = sizes.next().map_or(rest.len(), |size| *size).min(rest.len());
        let (mut data, behind) = rest.split_at(size);
        rest = behind;
        while let Some(piece) = scanner.next(&mut data, ends && rest.is_empty(), &scanned.gate) {
            scanned.take(piece);
        }
        assert!(scanner.held().len() <= MAX_COMMAND, "what is held is bounded");
        if rest.is_empty() {
            return scanned;
        }
    }
}

impl Scanned {
    fn take(&mut self, piece: Piece<'_>) {
        match piece {
            Piece::Text(text) => self.shown.extend_from_slice(text),
            Piece::Command { head, value, action } => {
                self.shown.extend_from_slice(head);
                match action {
                    Action::Mask(secret) => {
                        self.shown.extend_from_slice(b"***");
                        self.obeyed.push(format!("mask {}", String::from_utf8(secret).unwrap()));
                    }
                    Action::Stop(token) => {
                        self.shown.extend_from_slice(value);
                        self.gate.stop(&token);
                        self.obeyed.push(format!("stop {token}"));
                    }
                    Action::Resume => {
                        self.shown.extend_from_slice(value);
                        self.gate.resume();
                        self.obeyed.push("resume".to_owned());
                    }
                }
            }
            Piece::TooLong => self.shown.extend_from_slice(b"(too long)"),
        }
    }
}

fn mask(line: &str) -> Option<String> {
    let mut obeyed = scan(line.as_bytes(), &[]).obeyed;
    assert!(obeyed.len() < 2);
    obeyed
        .pop()
        .map(|obeyed| obeyed.strip_prefix("mask ").unwrap().to_owned())
}

#[test]
fn every_command_has_its_name_properties_and_value() {
    let properties = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    };
    for (line, name, pairs, value) in [
        ("::debug::text", "debug", &[][..], "text"),
        ("::endgroup::", "endgroup", &[], ""),
        (
            " \t::Error file=a.rs,line=3::it broke",
            "Error",
            &[("file", "a.rs"), ("line", "3")],
            "it broke",
        ),
        (
            "::warning title=a%3Ab%2Cc%25,,col=,x::a%3Ab%0Ac::d",
            "warning",
            &[("title", "a:b,c%"), ("col", "")],
            "a%3Ab\nc::d",
        ),
        ("::set-output name=x=y::1", "set-output", &[("name", "x=y")], "1"),
        ("::notice   file=a ::x", "notice", &[("file", "a")], "x"),
        ("##[group]title", "group", &[], "title"),
        (
            "at last ##[error file=a;line=1;]b%3Bc%5D%2C",
            "error",
            &[("file", "a"), ("line", "1")],
            "b;c]%2C",
        ),
        ("::unknown::##[debug]x", "debug", &[], "x"),
        ("::debug ##[warning]x", "warning", &[], "x"),
        ("##[echo]::debug::x", "echo", &[], "::debug::x"),
    ] {
        let command = Command {
            name: name.to_owned(),
            properties: properties(pairs),
            value: value.into(),
        };
        assert!(parse(line).as_ref() == Some(&command), "{line}: {:?}", parse(line));
    }
    for line in [
        "",
        ":",
        "::",
        "::::",
        "::debug",
        "::debug:",
        "text ::debug::x",
        ":::debug::x",
        "::debug\t::x",
        "::deb::x",
        "##[",
        "##[debug",
        "##[deb]x",
        "##[x ##[debug]y",
        "#[debug]x",
    ] {
        assert_eq!(parse(line), None, "{line}");
    }
    assert_eq!(
        Command::parse(&[b"::debug::".to_vec(), vec![b'x'; MAX_COMMAND]].concat(), registered),
        None
    );
    let command = Command::parse(b"::ERROR Line=1,line=2::s3cret", registered).unwrap();
    assert!(command.is("error") && !command.is("debug"));
    assert_eq!((command.property("LINE"), command.property("file")), (Some("2"), None));
    assert!(!format!("{command:?}").contains("s3cret"));
}

#[test]
fn masks_are_understood_as_the_runner_does() {
    assert_eq!(mask("::add-mask::hunter2\n").as_deref(), Some("hunter2"));
    assert_eq!(
        mask("  \t::Add-Mask::a%25b%0D%0Ac%2C\r\n").as_deref(),
        Some("a%b\r\nc%2C")
    );
    assert_eq!(mask("::add-mask file=x,line=1::v::w\n").as_deref(), Some("v::w"));
    assert_eq!(mask("::add-mask::%250A").as_deref(), Some("%0A"));
    assert_eq!(mask("progress\r::add-mask::x\n").as_deref(), Some("x"));
    assert_eq!(mask("::add-mask::\n").as_deref(), Some(""));
    assert_eq!(mask("##[add-mask]a%3Bb\n").as_deref(), Some("a;b"));
    assert_eq!(mask("found ##[Add-Mask x=y]c\n").as_deref(), Some("c"));
    assert_eq!(mask("::##[x]##[add-mask]d\n").as_deref(), Some("d"));
    for other in [
        "x ::add-mask::v\n",
        "::add-masks::v\n",
        "::add-mask:v\n",
        ":::add-mask::v\n",
        "::add-mask x\nv::w\n",
        "##[add-mask\n]x",
        "#[add-mask]x",
        "::error::##[stop-commands]x",
        "::stop-commands::add-mask\n",
        "::stop-commands::\n",
    ] {
        assert_eq!(mask(other), None, "{other}");
        assert_eq!(scan(other.as_bytes(), &[1]).shown, other.as_bytes());
    }
}

#[test]
fn between_stop_and_its_token_nothing_is_obeyed() {
    let text = "::stop-commands::Tok%3A\n::add-mask::a\n::stop-commands::b\n##[add-mask]c\n::tok::\n::ToK%3a::\n::add-mask::d\n";
    for sizes in [&[][..], &[1], &[3]] {
        let scanned = scan(text.as_bytes(), sizes);
        assert_eq!(scanned.obeyed, ["stop Tok%3A", "resume", "mask d"]);
        assert_eq!(scanned.shown, text.replace("::d\n", "::***\n").into_bytes());
    }
    let scanned = scan(b"##[stop-commands]t\n::add-mask::a\nand now ##[t]\n::add-mask::b", &[]);
    assert_eq!(scanned.obeyed, ["stop t", "resume", "mask b"]);
    // A token that no command can name stops nothing: what asks to be hidden is hidden.
    let long = format!("::stop-commands::{}\n::add-mask::a\n", "t".repeat(MAX_NAME + 1));
    assert_eq!(scan(long.as_bytes(), &[]).obeyed, ["mask a"]);
}

#[test]
fn the_shared_cases_agree() {
    let Some(lines) = crate::prerequisites::needs_conformance_lines("commands.jsonl") else {
        return;
    };
    for line in lines {
        let case: serde_json::Value = serde_json::from_str(&line).unwrap();
        let names: Vec<&str> = case["registered"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|n| n.as_str())
            .collect();
        let line = case["line"].as_str().unwrap();
        let found = Command::parse(line.as_bytes(), |name| {
            names.iter().any(|known| name.eq_ignore_ascii_case(known))
        });
        let found = found.map_or(serde_json::Value::Null, |command| {
            serde_json::json!({
                "command": command.name,
                "data": String::from_utf8(command.value).unwrap(),
                "properties": command.properties.into_iter().collect::<std::collections::BTreeMap<_, _>>(),
            })
        });
        assert_eq!(found, case["expected"], "{line}");
        // Of a command that the log obeys the value is the same.
        let line = line.replace("do-something", "add-mask");
        assert_eq!(mask(&line).as_deref(), case["expected"]["data"].as_str(), "{line}");
    }
}

#[test]
fn an_overlong_value_is_hidden_to_its_last_byte() {
    let long = vec![b'x'; 3 * MAX_COMMAND];
    for command in ["::add-mask::", "##[add-mask]", "::add-mask ", "##[add-mask "] {
        let text = [command.as_bytes(), &long, b"\nafter\n"].concat();
        for sizes in [&[1000][..], &[]] {
            let scanned = scan(&text, sizes);
            assert_eq!(scanned.shown, b"(too long)\nafter\n", "{command}");
            assert_eq!(scanned.obeyed, Vec::<String>::new());
        }
    }
    let text = [&b"::stop-commands::"[..], &long, b"\nafter\n"].concat();
    assert_eq!(scan(&text, &[1000]).shown, text);
}

#[test]
fn a_prompt_is_not_held() {
    for stopped in [false, true] {
        let (mut scanner, mut gate) = (Scanner::new(true, false), CommandGate::default());
        if stopped {
            gate.stop("token");
        }
        for text in ["Password: ", "\n  ", "::error ", "\n::add-masking::", "\n##[x]", "# "] {
            let (mut data, mut shown) = (text.as_bytes(), Vec::new());
            while let Some(piece) = scanner.next(&mut data, false, &gate) {
                match piece {
                    Piece::Text(text) => shown.extend_from_slice(text),
                    _ => panic!("{text}"),
                }
            }
            assert_eq!((shown.as_slice(), scanner.held()), (text.as_bytes(), &b""[..]));
        }
    }
}

/// What the runner makes of whole lines, one by one. In doubt about the spelling a mask counts, and a stop does not.
fn model(text: &str) -> Vec<String> {
    let mut gate = CommandGate::default();
    let mut obeyed = Vec::new();
    for line in text.split(['\n', '\r']) {
        let mut starts = (0..line.len()).filter(|at| {
            line[*at..].starts_with("##[") || (line[*at..].starts_with("::") && line[..*at].trim().is_empty())
        });
        let found = starts.find_map(|at| {
            let opening = Opening::of(&line.as_bytes()[at..])?;
            let parts = opening
                .close(&line.as_bytes()[at..])
                .filter(|_| opening.is_whole && gate.may_obey(&opening))?;
            gate.action(&parts, line[..at].trim().is_empty())
        });
        match found {
            Some(Action::Mask(value)) => obeyed.push(format!("mask {}", String::from_utf8(value).unwrap())),
            Some(Action::Stop(token)) => {
                gate.stop(&token);
                obeyed.push(format!("stop {token}"));
            }
            Some(Action::Resume) => {
                gate.resume();
                obeyed.push("resume".to_owned());
            }
            None => {}
        }
    }
    obeyed
}

/// Text full of beginnings of commands.
fn text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("::add-mask::"),
        Just("::stop-commands::"),
        Just("::t::"),
        Just("##[t]"),
        Just("##[add-mask]"),
        Just("##["),
        Just("]"),
        Just("#"),
        Just("::"),
        Just(":"),
        Just("\n"),
        Just("\r"),
        Just(" "),
        Just("add-mask"),
        Just("%0A"),
        Just("t"),
        Just("\t")
    ];
    proptest::collection::vec(part, 0..40).prop_map(|parts| parts.concat())
}

/// As `@actions/core` escapes.
fn escape(text: &str, escapes: &[([u8; 2], u8)]) -> String {
    let escape = |c: char| match escapes.iter().find(|(_, byte)| c == char::from(*byte)) {
        Some((code, _)) => format!("%{}{}", char::from(code[0]), char::from(code[1])),
        None => c.to_string(),
    };
    text.chars().map(escape).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn cutting_the_text_changes_nothing(text in text(), sizes in proptest::collection::vec(1usize..9, 1..9)) {
        prop_assert_eq!(scan(text.as_bytes(), &[]), scan(text.as_bytes(), &sizes));
    }

    /// What follows changes nothing of what was shown and obeyed.
    #[test]
    fn a_beginning_is_read_as_it_is_in_the_whole(text in text(), at in any::<prop::sample::Index>()) {
        let whole = scan(text.as_bytes(), &[]);
        let beginning = scan_beginning(&text.as_bytes()[..at.index(text.len() + 1)], &[], false);
        prop_assert!(whole.shown.starts_with(&beginning.shown));
        prop_assert!(whole.obeyed.starts_with(&beginning.obeyed));
    }

    #[test]
    fn what_is_obeyed_is_what_whole_lines_say(text in text(), sizes in proptest::collection::vec(1usize..9, 1..9)) {
        prop_assert_eq!(scan(text.as_bytes(), &sizes).obeyed, model(&text));
    }

    /// Nothing is lost or made up: what is not the value of a mask is shown as it came.
    #[test]
    fn all_but_masks_is_shown(text in text()) {
        let scanned = scan(text.as_bytes(), &[]);
        if scanned.obeyed.iter().all(|obeyed| !obeyed.starts_with("mask")) {
            prop_assert_eq!(scanned.shown, text.into_bytes());
        }
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), size in 1usize..40) {
        let _any = Command::parse(&bytes, |_| true);
        let scanned = scan(&bytes, &[size]);
        prop_assert!(!scanned.obeyed.is_empty() || scanned.shown == bytes);
    }

    #[test]
    fn what_was_escaped_comes_back(
        value in "[ -~\\n\\r%:,;\\]é]{0,30}", property in "[!-~\\n\\r%:,;\\]é]{1,20}", at in any::<bool>(),
    ) {
        let (spelling, line) = if at {
            let [value, property] = [escape(&value, COLONS.in_value), escape(&property, COLONS.in_property)];
            (&COLONS, format!("::error title={property},x=1::{value}"))
        } else {
            let [value, property] = [escape(&value, BRACKETS.in_value), escape(&property, BRACKETS.in_property)];
            (&BRACKETS, format!("##[error title={property};x=1]{value}"))
        };
        let command = Command::parse(line.as_bytes(), registered).unwrap();
        prop_assert_eq!(command.property("title"), Some(property.as_str()), "{:?}", spelling);
        prop_assert_eq!(command.property("x"), Some("1"));
        prop_assert_eq!(String::from_utf8(command.value).unwrap(), value);
    }
}
