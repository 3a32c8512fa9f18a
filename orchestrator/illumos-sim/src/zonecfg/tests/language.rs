//! The language: what is a word where, and which line an error names.

use super::{
    super::{
        grammar::{Command, Given, Parser, Step},
        keywords::Verb,
    },
    *,
};

fn steps(text: &str) -> Vec<(usize, Step)> {
    let mut parser = Parser::new(text, None);
    let mut steps = Vec::new();
    loop {
        let step = parser.step();
        let line = parser.line();
        match &step {
            Step::End => return steps,
            Step::Unexpected(_) | Step::Usage(_) => {
                steps.push((line, step));
                parser.skip();
            }
            _ => steps.push((line, step)),
        }
    }
}

fn value(text: &str) -> Given {
    match steps(&format!("set value={text}\n")).remove(0).1 {
        Step::Run(Command::Set(None, "value", value)) => value,
        other => panic!("{text}: {other:?}"),
    }
}

fn unexpected(line: usize, text: &str) -> (usize, Step) {
    (line, Step::Unexpected(text.to_owned()))
}

#[test]
fn values_are_words_quotations_lists_and_pairs() {
    let simple = |text: &str| Given::Simple(text.to_owned());
    for (text, is) in [
        ("a,b", "a,b"),
        ("#x", "#x"),
        ("net", "net"),
        ("name", "name"),
        ("end", "end"),
        ("\"a ; b = [c]\"", "a ; b = [c]"),
        ("\"\"", ""),
        ("ü", "ü"),
    ] {
        assert_eq!(value(text), simple(is), "{text}");
    }
    assert_eq!(value("[]"), Given::List(vec![]));
    assert_eq!(value("[a, \"b,c\"]"), Given::List(vec![simple("a"), simple("b,c")]));
    let pairs = Given::Complex(vec![("name", "[x]".into()), ("value", "type".into())]);
    assert_eq!(value("(name=[x], value=type)"), pairs);
    assert_eq!(value("[(name=[x],value=type)]"), Given::List(vec![pairs]));
}

#[test]
fn a_verb_is_known_by_its_beginning() {
    let plain = |verb, word: &str| Step::Run(Command::Plain(verb, vec![word.to_owned()]));
    assert_eq!(steps("ended\n"), [(2, plain(Verb::End, "ed"))]);
    assert_eq!(steps("exit-F\n"), [(2, plain(Verb::Exit, "-F"))]);
    assert_eq!(steps("addnet\n"), [(2, Step::Run(Command::Add("net")))]);
    assert_eq!(steps("SET a=b\n"), [unexpected(1, "S")]);
    assert_eq!(
        steps("# set a\n  # b\n;\n"),
        [2, 3, 3, 4].map(|line| (line, Step::Empty))
    );
}

#[test]
fn an_error_names_the_line_that_was_read() {
    for (text, step) in [
        ("set foo=1\n", unexpected(1, "=")),
        ("set name=a b\n", unexpected(1, "b")),
        ("set name=a\"b\"\n", unexpected(1, "\"b\"")),
        ("set name=\n", unexpected(2, "\\n")),
        ("set name\n", unexpected(2, "\\n")),
        ("set name=[a,]\n", unexpected(1, "]")),
        ("set name=[a\n", unexpected(2, "\\n")),
        ("set name=a=b\n", unexpected(1, "=")),
        ("add name (foo=1)\n", unexpected(1, "foo")),
        ("add options []\n", unexpected(1, "]")),
        ("add net x\n", unexpected(1, "x")),
        ("remove -F net name=a\n", unexpected(1, "name")),
        ("remove net name=a name=a name=a name=a\n", unexpected(1, "name")),
        ("commit x y\n", unexpected(1, "y")),
        ("info name\n", unexpected(1, "name")),
        ("é\n", unexpected(1, "é")),
        ("set\n", (2, Step::Usage(Verb::Set))),
        ("clear foo\n", (1, Step::Usage(Verb::Clear))),
        ("select net\n", (2, Step::Usage(Verb::Select))),
        ("select net foo\n", (1, Step::Usage(Verb::Select))),
        ("remove foo\n", (2, Step::Usage(Verb::Remove))),
        ("info foo\n", (1, Step::Usage(Verb::Info))),
    ] {
        let steps = steps(&format!("{text}verify\n"));
        assert_eq!(steps[0], step, "{text}");
        let next = Step::Run(Command::Plain(Verb::Verify, vec![]));
        assert_eq!(steps[1..], [(3, next)], "{text}: the next command is read");
    }
}

#[test]
fn an_open_quotation_swallows_its_newline() {
    // The next line goes on with the command, and is not counted.
    assert_eq!(steps("set name=\"abc\nend\nverify\n")[0], unexpected(1, "end"));
    let open = Given::Simple("abc\n".into());
    assert_eq!(
        steps("set name=\"abc\n\nverify\n")[0],
        (2, Step::Run(Command::Set(None, "name", open)))
    );
    assert_eq!(steps("set name=\"abc"), [unexpected(1, "\"")]);
}

#[test]
fn a_command_without_its_newline_is_none() {
    let (out, stored) = script("set autoboot=true");
    assert_eq!(out.code, 0);
    assert!(stored.unwrap().contains("set autoboot=false\n"));
}

#[test]
fn carriage_returns_are_parts_of_words() {
    assert!(refused(
        "add attr\r\nset name=x\r\n",
        "syntax error on line 6 of SCRIPT\nusage:\nadd "
    ));
    assert!(refused("set pool=\"y\"\r\n", "syntax error on line 6 at '\r'"));
    assert_eq!(taken("set pool=y\r\n").len(), 0);
}

#[test]
fn any_text_is_read_without_panic() {
    // Every triple of the signs that mean something.
    let signs = [
        "add", "\"", ";", "=", "[", "]", "(", ")", ",", "\n", "#", " ", "set name", "x", "net", "é", "?",
    ];
    for a in signs {
        for b in signs {
            for c in signs {
                let text = format!("{a}{b}{c}");
                assert!(steps(&text).len() <= text.len(), "{text}");
            }
        }
    }
}

#[test]
fn options_are_getopts() {
    for (text, with) in [
        ("create -x\n", "syntax error on line 6 of SCRIPT\nusage:\ncreate "),
        ("create -b x\n", "syntax error on line 6 of SCRIPT"),
        (
            "create -t none\n",
            "On line 6 of SCRIPT:\nOMNInone: No such zone configured\n",
        ),
        (
            "create -t None\n",
            "On line 6 of SCRIPT:\nNone: No such zone configured\n",
        ),
        ("end x\n", "syntax error on line 6 of SCRIPT\nusage:\nend\n"),
        ("export -f\n", "syntax error on line 6 of SCRIPT\nusage:\nexport "),
        ("add foo\n", "syntax error on line 6 of SCRIPT\nusage:\nadd "),
        (
            "set -F zonepath=/a\n",
            "Zonepath is changeable only in an alternate root.",
        ),
        ("set -x zonepath=/a\n", "syntax error on line 6 of SCRIPT\nusage:\nset "),
    ] {
        assert!(refused(text, with), "{text}: what was set before is stored");
    }
    // Options that are not known are forgiven by verbs that know none but `-F`.
    assert_eq!(taken("verify -x\nverify x\ncancel -?\nexit -F\n"), "");
    let fixture = TestHost::new();
    let said = fixture.no("zonecfg -z z create -x", 1);
    assert!(
        said.starts_with("zonecfg: illegal option -- x\nusage:\ncreate "),
        "{said}"
    );
}

#[test]
fn help_is_for_people_and_no_error() {
    let (out, _) = script("help\n");
    assert!(
        out.stdout
            .starts_with("Commands:\n\nadd <resource-type>\n\t(global scope)\n"),
        "{out:?}"
    );
    let (out, _) = script("help set\n? usage\nhelp foo\n");
    assert_eq!(out.code, 0);
    assert!(
        out.stdout
            .starts_with("usage:\nset <property-name>=<property-value>\nusage:\tzonecfg help\n")
    );
    assert!(
        out.stderr
            .starts_with("Unknown help subject foo.  More help is available for the following:\n")
    );
}
