//! The language by its rules, in cases of our own; `conformance` has those of others.

mod hostile;
mod shapes;

use super::{conformance::input, *};

const CONTEXT: &str = r#"{
    "github": {"ref": "refs/heads/main", "Event": {"labels": [{"name": "bug"}, {"name": "Fix me"}, {"other": 1}]}},
    "matrix": {"os": "omnios", "version": 3.10, "list": ["zero", "one", "two"]},
    "needs": {"build": {"outputs": {"list": "[1,2,3]"}}},
    "env": {}
}"#;

const ALL: Available<'static> = Available {
    contexts: &CONTEXTS,
    status: StatusFunctions::OfJobs,
    hash_files: true,
};

fn contexts() -> Object {
    match Value::from_json(CONTEXT, false).unwrap() {
        Value::Object(contexts) => contexts,
        other => panic!("{other:?}"),
    }
}

fn evaluated(text: &str) -> Result<Value, ExpressionError> {
    match Expression::parse(text, &ALL)?.evaluate(&input(&contexts()))? {
        Evaluated::Value(value) => Ok(value),
        Evaluated::NeedsHash(hash) => panic!("{hash:?}"),
    }
}

/// The value as JSON, or what is wrong and the part of the text that it is about.
fn said(text: &str) -> String {
    match evaluated(text) {
        Ok(value) => serde_json::to_string(&value).unwrap(),
        Err(error) => format!("{:?}: {error} [{}]", error.stage(), &text[error.span.clone()]),
    }
}

#[test]
fn expressions_have_these_values() {
    for (text, wanted) in [
        // Access.
        ("github.ref", "\"refs/heads/main\""),
        ("GitHub['REF']", "\"refs/heads/main\""),
        ("github.event.labels[1.9].name", "\"Fix me\""),
        ("github.event.labels[-1].name", "null"),
        ("github.event.labels.first", "null"),
        ("github.event.labels.*.name", r#"["bug","Fix me"]"#),
        ("github.event.labels.*.name[0]", "[]"),
        ("github.event.labels[*].*", r#"["bug","Fix me",1]"#),
        ("matrix.list[null]", "\"zero\""),
        ("matrix.nothing.at.all", "null"),
        ("matrix.nothing.*", "[]"),
        ("secrets.TOKEN", "null"),
        ("(matrix.list)[1]", "\"one\""),
        ("fromJSON(needs.build.outputs.list)[1]", "2"),
        // Operators.
        ("!github.ref == false", "true"),
        ("1 < 2 == true", "true"),
        ("3 > 2 > 1", "false"),
        ("'b' > 'A' && 'B' >= 'b'", "true"),
        ("true && 'x' || 'y'", "\"x\""),
        ("0 || '' || null", "null"),
        ("NaN && 1", "\"NaN\""),
        ("NaN == NaN || NaN != NaN", "true"),
        ("null >= null && !(null > null)", "true"),
        ("github == github && github != matrix", "true"),
        ("github.event.labels.* == github.event.labels.*", "false"),
        ("'0x10' == 16 && ' ' == 0 && 'a' != 0", "true"),
        ("matrix.version", "3.1"),
        // Functions.
        ("contains('Hello', 'ELL') && contains('', '')", "true"),
        ("contains(matrix.list, 'ONE')", "true"),
        ("contains(matrix, 'os')", "false"),
        ("contains(fromJSON('[0]'), false)", "true"),
        ("startsWith(123, 12) && endsWith('MAIN', 'in')", "true"),
        ("startsWith(matrix, '')", "false"),
        ("format('{1} {0}{{}}', 'a', matrix.version)", "\"3.1 a{}\""),
        ("format('{0} {1}', matrix, matrix.list)", "\"Object Array\""),
        ("join(matrix.list)", "\"zero,one,two\""),
        ("join(matrix.list, ' - ')", "\"zero - one - two\""),
        ("join(matrix.list, matrix)", "\"zero,one,two\""),
        ("join('text', '-')", "\"text\""),
        ("join(matrix)", "\"\""),
        ("toJSON(github.event.labels[0])", r#""{\n  \"name\": \"bug\"\n}""#),
        (
            "toJSON(fromJSON('[[],{},[1.50,null]]'))",
            r#""[\n  [],\n  {},\n  [\n    1.5,\n    null\n  ]\n]""#,
        ),
        ("toJSON('it''s\u{2028}\u{1}')", r#""\"it's\\u2028\\u0001\"""#),
        ("fromJSON('{\"b\": 1, \"a\": 2, \"B\": 3}')", r#"{"b":3,"a":2}"#),
        ("case(false, 1, matrix.os == 'OmniOS', 2, 3)", "2"),
        ("case(false, 1, 3)", "3"),
        // What is not needed is not evaluated.
        ("true || fromJSON('x')", "true"),
        ("case(true, 1, fromJSON('x'))", "1"),
        ("format('none', fromJSON('x'))", "\"none\""),
        ("contains(fromJSON('[]'), fromJSON('x'))", "false"),
        ("matrix.nothing[fromJSON('x')]", "null"),
        // Blanks of every kind; words that are keywords elsewhere.
        ("\u{a0}format\u{2003}( 'a'\n,\t1 )\u{b}", "\"a\""),
        ("github.true || github.null || github.NaN || 'none'", "\"none\""),
        ("case  (true,'case(' , join  ('a'))", "\"case(\""),
    ] {
        assert_eq!(said(text), wanted, "{text}");
    }
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    for (text, wanted) in [
        ("a && github.b@r", "Lexing: `b@r` is no name, number or operator [b@r]"),
        ("1 = 2", "Lexing: `=` is no name, number or operator [=]"),
        ("1 &2", "Lexing: `&2` is no name, number or operator [&2]"),
        (
            "\"text\"",
            "Lexing: `\"text\"` is no name, number or operator [\"text\"]",
        ),
        ("github.ref == 'open", "Lexing: the string has no closing quote ['open]"),
        ("1 + 0xFZ", "Lexing: `+` is no number [+]"),
        ("case(1.2.3)", "Lexing: `1.2.3` is no number [1.2.3]"),
        (
            "join( , 'b@r') || b@r",
            "Lexing: `b@r` is no name, number or operator [b@r]",
        ),
        ("", "Parsing: an expression is missing []"),
        (
            "1 <",
            "Parsing: the expression ends too early: expected an expression [<]",
        ),
        (
            "case(1, 2",
            "Parsing: the expression ends too early: expected `,` or `)` [2]",
        ),
        ("1 < )", "Parsing: `)` is not expected here: expected an expression [)]"),
        ("case(true, 1, 2) 'x y'", "Parsing: `'x y'` is not expected here"),
        ("github.(x)", "Parsing: `(` is not expected here"),
        ("matrix['a'].2", "Parsing: `2` is not expected here"),
        ("join('a',)", "Parsing: `)` is not expected here"),
        (
            "github.ref == matrixx.os",
            "Parsing: there is no context `matrixx` here [matrixx]",
        ),
        ("True", "Parsing: there is no context `True` here [True]"),
        ("true || now()", "Parsing: there is no function `now` [now]"),
        (
            "1 == (case('x', nope(1), 1))",
            "Parsing: there is no function `nope` [nope]",
        ),
        (
            "join()",
            "Parsing: `join` takes 1 to 2 arguments, and 0 are given [join]",
        ),
        (
            "!(toJSON ('a', 1))",
            "Parsing: `toJSON` takes one argument, and 2 are given [toJSON]",
        ),
        (
            "case(1, 2, 3, 4)",
            "Parsing: `case` takes an odd number of arguments, at least 3, and 4 are given [case]",
        ),
        (
            "always('x')",
            "Parsing: `always` takes no argument, and 1 is given [always]",
        ),
        (
            "case('a', 1, 2)",
            "Evaluation: the conditions of `case` must be true or false, and this one is neither ['a']",
        ),
        ("1 == format('{0', 1)", "Evaluation: `{0` is no format"),
        (
            "format('{1}', 1)",
            "Evaluation: `{1}` is no format: it names more arguments than there are ['{1}']",
        ),
        ("format('{0:x}', 1)", "Evaluation: `{0:x}` is no format"),
        ("format('{256}', 1)", "Evaluation: `{256}` is no format"),
        ("format('}')", "Evaluation: `}` is no format"),
        ("fromJSON('')", "Evaluation: `fromJSON` was given no JSON"),
        ("fromJSON('1 2')", "Evaluation: `fromJSON` was given no JSON"),
        (
            "success('build')",
            "Evaluation: there is no job `build` among those that this one needs ['build']",
        ),
        (
            "hashFiles('--fast', 'x')",
            "Evaluation: `hashFiles` has no option `--fast` ['--fast']",
        ),
    ] {
        let found = said(text);
        assert!(found.starts_with(wanted), "{text}\n  {found}\n  {wanted}");
    }
}

#[test]
fn contexts_and_functions_are_those_of_the_place() {
    let available = Available {
        contexts: &["github", "inputs"],
        status: StatusFunctions::None,
        hash_files: false,
    };
    let error = |text: &str| Expression::parse(text, &available).unwrap_err();
    for text in ["env.A", "github[env.A]", "format('{0}', false && env.A)"] {
        let error = error(text);
        assert_eq!((error.stage(), &text[error.span.clone()]), (Stage::Parsing, "env"));
        assert_eq!(error.help().as_deref(), Some("here are: github, inputs"));
    }
    for (text, function) in [("always()", Function::Always), ("hashFiles('x')", Function::HashFiles)] {
        assert_eq!(error(text).kind, ErrorKind::FunctionElsewhere(function));
    }
    // Ids of jobs are for the `if` of a job.
    let of_step = Available {
        status: StatusFunctions::OfStep,
        ..available
    };
    assert!(Expression::parse("success()", &of_step).is_ok());
    let error = Expression::parse("success('a')", &of_step).unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Arguments { found: 1, .. }), "{error}");
}

#[test]
fn status_functions_tell_of_all_or_of_those_that_are_named() {
    use Outcome::{Cancelled, Failure, Skipped, Success};
    let contexts = contexts();
    let holds = |text: &str, so_far: Outcome| {
        let jobs = [
            ("a".to_owned(), Success),
            ("b".to_owned(), Failure),
            ("c".to_owned(), Skipped),
        ];
        let status = Status { so_far, jobs: &jobs };
        let input = Input {
            status,
            ..input(&contexts)
        };
        let condition = Condition::parse(text, &ALL).unwrap();
        condition.evaluate(&input).unwrap() == Evaluated::Value(Value::Bool(true))
    };
    for (text, wanted) in [
        ("success()", [true, false, false, false]),
        ("failure()", [false, false, true, false]),
        ("cancelled()", [false, false, false, true]),
        ("always()", [true, true, true, true]),
        ("success('a')", [true, true, true, true]),
        ("success('A', 'c')", [false, false, false, false]),
        ("failure('a', 'b')", [true, true, true, true]),
        // Without a status function all must have gone well.
        ("1 == 1", [true, false, false, false]),
        ("${{ true }}", [true, false, false, false]),
        ("", [true, false, false, false]),
        ("'' == fromJSON('1') && !always()", [false, false, false, false]),
        ("${{ failure() }}", [false, false, true, false]),
    ] {
        let found = [Success, Skipped, Failure, Cancelled].map(|so_far| holds(text, so_far));
        assert_eq!(found, wanted, "{text}");
    }
    // Nothing of an `if` is evaluated where it does not matter.
    assert!(!holds("fromJSON('x')", Failure));
}

#[test]
fn text_outside_of_braces_makes_an_if_always_true_and_is_noticed() {
    let contexts = contexts();
    for (text, outside, wanted) in [
        ("${{ false }}", false, false),
        ("${{ false }} && true", true, true),
        (" ${{ false }}", true, true),
        ("false", false, false),
        ("!!matrix.os", false, true),
    ] {
        let condition = Condition::parse(text, &ALL).unwrap();
        assert_eq!(condition.has_text_outside(), outside, "{text}");
        let evaluated = condition.evaluate(&input(&contexts)).unwrap();
        assert_eq!(evaluated, Evaluated::Value(Value::Bool(wanted)), "{text}");
    }
}

#[test]
fn a_text_keeps_the_kind_of_the_one_expression_that_it_is() {
    let contexts = contexts();
    for (text, wanted) in [
        ("", "\"\""),
        ("plain }} {0} 'text'", "\"plain }} {0} 'text'\""),
        ("${{ matrix.version }}", "3.1"),
        ("${{matrix.list}}", r#"["zero","one","two"]"#),
        ("v${{ matrix.version }}", "\"v3.1\""),
        ("${{ 1 }}${{ null }}${{ true }}", "\"1true\""),
        ("{${{ 'a}}b' }}} it's {{x}}", "\"{a}}b} it's {{x}}\""),
        ("${{ 'it''s }}' }}", "\"it's }}\""),
        ("${{ matrix }} $", "\"Object $\""),
    ] {
        let template = Template::parse(text, &ALL).unwrap();
        let Evaluated::Value(value) = template.evaluate(&input(&contexts)).unwrap() else {
            panic!("{text}");
        };
        assert_eq!(serde_json::to_string(&value).unwrap(), wanted, "{text}");
    }
    for (text, wanted) in [
        ("a ${{ 1 ", "${{"),
        ("a ${{ 'x }}", "${{"),
        ("é ${{ 1 }} ${{ nope }}", "nope"),
        ("a ${{ join() }}", "join"),
        ("a ${{ }}", " "),
        ("${{ 1 2 }}", "2"),
    ] {
        let error = Template::parse(text, &ALL).unwrap_err();
        assert_eq!(&text[error.span.clone()], wanted, "{text}: {error}");
    }
}

#[test]
fn files_are_asked_for_and_their_hash_is_used() {
    let contexts = contexts();
    let expression =
        Expression::parse("format('{0}-{1}', matrix.os, hashFiles('**/Cargo.lock', env.X))", &ALL).unwrap();
    let input = input(&contexts);
    let wanted = FileHash {
        patterns: vec!["**/Cargo.lock".into(), String::new()],
        follow_links: false,
    };
    assert_eq!(
        expression.evaluate(&input).unwrap(),
        Evaluated::NeedsHash(wanted.clone())
    );
    let hashes = [(wanted, "abc".to_owned())];
    let input = Input {
        hashes: &hashes,
        ..input
    };
    assert_eq!(
        expression.evaluate(&input).unwrap(),
        Evaluated::Value("omnios-abc".into())
    );
    let links = Expression::parse("hashFiles('--FOLLOW-symbolic-links', 'x')", &ALL).unwrap();
    let Evaluated::NeedsHash(hash) = links.evaluate(&input).unwrap() else {
        panic!()
    };
    assert_eq!((hash.patterns, hash.follow_links), (vec!["x".to_owned()], true));
}

#[test]
fn what_is_made_of_an_outsiders_text_is_theirs() {
    let theirs = Value::from_json(
        r#"{"title": "x", "list": ["[\"y\"]"], "number": 1, "key": "ref"}"#,
        true,
    )
    .unwrap();
    let ours = Value::from_json(r#"{"ref": "main"}"#, false).unwrap();
    let contexts = Object::new([("inputs", theirs), ("github", ours)]);
    for (text, wanted) in [
        ("inputs.title", true),
        ("github.ref", false),
        ("github.ref || inputs.title", false),
        ("'' || inputs.title", true),
        ("format('{0}{1}', github.ref, inputs.title)", true),
        ("format(inputs.title)", true),
        ("format('{0}', github.ref, inputs.title)", false),
        ("join(inputs.list)", true),
        ("join(inputs.*, ',')", true),
        ("join(fromJSON('[1,2]'), inputs.title)", true),
        ("toJSON(inputs)", true),
        ("toJSON(github)", false),
        ("fromJSON(inputs.list[0])[0]", true),
        ("case(inputs.title == 'x', github.ref, inputs.title)", false),
        ("github[inputs.key]", false),
        ("format('{0}', inputs.number)", false),
    ] {
        let expression = Expression::parse(text, &ALL).unwrap();
        match expression.evaluate(&input(&contexts)).unwrap() {
            Evaluated::Value(Value::String(text_of)) => assert_eq!(text_of.is_untrusted(), wanted, "{text}"),
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn the_page_of_expressions_says_what_they_mean() {
    let page = crate::prerequisites::project().join("docs/expressions.md");
    let page = std::fs::read_to_string(page).unwrap();
    let contexts = r#"{"github": {"event": {"labels": [{"name": "bug"}, {"name": "urgent"}]}},
        "matrix": {"os": "omnios", "list": ["zero", "one"]}}"#;
    let Value::Object(contexts) = Value::from_json(contexts, false).unwrap() else {
        unreachable!("it is an object")
    };
    let (mut rows, mut is_text) = (0, false);
    for line in page.lines() {
        is_text = match line {
            "| expression | value |" => false,
            "| text | value |" => true,
            _ => is_text,
        };
        let row = line.strip_prefix("| `").and_then(|row| row.strip_suffix("` |"));
        let Some((text, wanted)) = row.and_then(|row| row.split_once("` | `")) else {
            continue;
        };
        // So is a bar written in a table.
        let text = text.replace("\\|", "|");
        let template = if is_text {
            text.clone()
        } else {
            format!("${{{{ {text} }}}}")
        };
        let template = Template::parse(&template, &ALL).unwrap();
        let Evaluated::Value(value) = template.evaluate(&input(&contexts)).unwrap() else {
            panic!("{text}");
        };
        assert_eq!(serde_json::to_string(&value).unwrap(), wanted, "{text}");
        rows += 1;
    }
    assert!(rows > 30, "{rows}");
}
