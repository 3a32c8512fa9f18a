//! Texts that want to cost much, and texts that are nearly right.

use super::*;
use crate::expression::{conformance::input, evaluate::Evaluator};

/// What an evaluation ends with, and the steps that it took.
fn cost(text: &str, contexts: &Object) -> (Result<String, ErrorKind>, usize) {
    let expression = match Expression::parse(text, &ALL) {
        Ok(expression) => expression,
        Err(error) => return (Err(error.kind), 0),
    };
    let input = input(contexts);
    let mut evaluator = Evaluator::new(&input);
    let ended = evaluator.value(expression.root());
    let steps = evaluator.meter.steps();
    let evaluated = expression.evaluate(&input).map(|value| format!("{value:?}"));
    assert_eq!(ended.is_ok(), evaluated.is_ok());
    (evaluated.map_err(|error| error.kind), steps)
}

#[test]
fn depth_and_length_are_bounded_and_long_chains_are_not_deep() {
    let contexts = contexts();
    let ends = |text: String| cost(&text, &contexts).0.map(drop);
    let nested = |open: &str, times: usize, close: &str| format!("{}1{}", open.repeat(times), close.repeat(times));
    for (open, close) in [("!", ""), ("join(", ")"), ("github[", "]"), ("case(true, ", ", 1)")] {
        assert_eq!(ends(nested(open, MAX_DEPTH - 1, close)), Ok(()), "{open}");
        assert_eq!(ends(nested(open, MAX_DEPTH, close)), Err(ErrorKind::TooDeep), "{open}");
        assert_eq!(ends(nested(open, 1200, close)), Err(ErrorKind::TooDeep), "{open}");
    }
    for (part, most) in [
        (".a", MAX_DEPTH - 1),
        (".*", MAX_DEPTH - 1),
        ("[0]", MAX_DEPTH - 1),
        (" < 1", MAX_DEPTH - 1),
    ] {
        assert_eq!(ends(format!("github{}", part.repeat(most))), Ok(()), "{part}");
        assert_eq!(
            ends(format!("github{}", part.repeat(most + 1))),
            Err(ErrorKind::TooDeep),
            "{part}"
        );
        assert_eq!(
            ends(format!("github{}", part.repeat(5000))),
            Err(ErrorKind::TooDeep),
            "{part}"
        );
    }
    // One level each, however long and however bracketed.
    assert_eq!(ends(format!("0{}", "||0".repeat(6999))), Ok(()));
    assert_eq!(ends(format!("1{}", "&&1".repeat(6999))), Ok(()));
    assert_eq!(ends(format!("{}1{}", "(1||".repeat(20), ")".repeat(20))), Ok(()));
    assert_eq!(
        ends(format!("1{})", "||1".repeat(6999))),
        Err(ErrorKind::Unexpected {
            found: ")".into(),
            wanted: "expected an operator or the end",
        })
    );
    // Counted as UTF-16, and not in bytes.
    assert_eq!(ends(format!("'{}'", "é".repeat(MAX_LENGTH - 2))), Ok(()));
    assert_eq!(
        ends(format!("'{}'", "é".repeat(MAX_LENGTH - 1))),
        Err(ErrorKind::TooLong)
    );
    assert_eq!(ends("(".repeat(MAX_LENGTH)), Err(ErrorKind::TooDeep));
    // Brackets are levels, too, as in GitHub's editors.
    assert_eq!(ends(nested("(", MAX_DEPTH - 1, ")")), Ok(()));
    assert_eq!(ends(nested("(", MAX_DEPTH, ")")), Err(ErrorKind::TooDeep));
    assert_eq!(ends("'".repeat(MAX_LENGTH)), Ok(()));
    assert_eq!(ends("'".repeat(MAX_LENGTH - 1)), Err(ErrorKind::UnclosedString));
}

#[test]
fn a_text_of_github_counts_with_what_stands_around_its_expressions() {
    let fits = |text: &str| Template::parse(text, &ALL).is_ok();
    let around = "format('{0}', 1)".len();
    let long = "x".repeat(MAX_LENGTH - around);
    assert!(fits(&format!("{long}${{{{ 1 }}}}")));
    assert!(!fits(&format!("{long}x${{{{ 1 }}}}")));
    assert!(fits(&"x".repeat(10 * MAX_LENGTH)));
    assert!(fits(&"${{ 1 }}".repeat(254)));
    assert!(!fits(&"${{ 1 }}".repeat(255)));
}

#[test]
fn memory_is_bounded_before_it_is_taken() {
    let contexts = contexts();
    let tenfold = "{0}".repeat(10);
    let grown = |levels| {
        (0..levels).fold("'0123456789'".to_owned(), |inner, _| {
            format!("format('{tenfold}', {inner})")
        })
    };
    assert!(cost(&grown(5), &contexts).0.is_ok());
    for levels in [6, 20] {
        let (ended, steps) = cost(&grown(levels), &contexts);
        assert_eq!(ended, Err(ErrorKind::Memory));
        assert!(steps < 500_000, "{steps}");
    }
    // What is read into values takes more than its text.
    let list = format!(
        "fromJSON(format('[{{0}}[]]', {}))",
        grown(5).replace("0123456789", "[],[],[],[],[],")
    );
    assert_eq!(cost(&list, &contexts).0, Err(ErrorKind::Memory));
    // What was dropped counts no more: a hundred values of a tenth of the memory, one after the other.
    let tests = vec![format!("'' == {}", grown(4)); 100].join(" || ");
    assert_eq!(cost(&tests, &contexts).0, Ok("Value(Bool(false))".into()));
}

#[test]
fn steps_are_bounded_for_large_contexts() {
    let large = Value::from("x".repeat(1 << 20).as_str());
    let list = Value::Array(Array::new(vec![Value::Number(1.0); 100_000]));
    let contexts = Object::new([("github", large), ("matrix", list)]);
    for part in [
        "contains(github, 'y')",
        "github == 'y'",
        "startsWith(github, 'y')",
        "contains(matrix, 2)",
    ] {
        let (ended, once) = cost(part, &contexts);
        assert_eq!(ended, Ok("Value(Bool(false))".into()));
        assert!((16_000..150_000).contains(&once), "{once}");
        let (ended, steps) = cost(&vec![part; 200].join(" || "), &contexts);
        assert_eq!(ended, Err(ErrorKind::Steps), "{part}");
        assert!(steps <= MAX_STEPS + once, "{steps}");
    }
}

/// Numbers that look random, the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 1).unwrap_or(0) % end.max(1)
    }
}

const WORDS: [&str; 34] = [
    "github",
    "matrix.list",
    ".*",
    "[*]",
    "[",
    "]",
    "(",
    ")",
    ",",
    ".",
    "!",
    "==",
    "!=",
    "<",
    ">=",
    "&&",
    "||",
    "'",
    "''",
    "'it''s'",
    "1",
    "-0x1F",
    "1e400",
    "NaN",
    "null",
    "contains(",
    "format('{0}',",
    "case(",
    "success('a')",
    "fromJSON(",
    "\u{a0}",
    "ü",
    "${{",
    "}}",
];

const CORPUS: [&str; 10] = [
    "github.event.labels.*.name",
    "contains(github.event.labels.*.name, 'bug') && matrix.version >= 3.1",
    "format('{0}-{1}', matrix['os'], join(matrix.list, '/')) || 'none'",
    "fromJSON(needs.build.outputs.list)[1.5] == ' 0x2 '",
    "case(github.ref == 'refs/heads/main', 'it''s main', startsWith(github.ref, 'refs/tags/'), toJSON(matrix), null)",
    "!cancelled() && (success('a', 'b') || failure())",
    "${{ github.ref }} and ${{ matrix }}",
    "v${{ format('{{{0}}}', '}}') }}",
    "hashFiles('**/*.lock', matrix.os)",
    "-Infinity < +.5 && NaN != 1E-2",
];

/// Some of one text, some of another, or a word: parts of what is right in an order that is not.
fn mutated(numbers: &mut Numbers) -> String {
    let mut text: Vec<char> = CORPUS[numbers.below(CORPUS.len())].chars().collect();
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(text.len() + 1);
        let end = (at + numbers.below(12)).min(text.len());
        let new: Vec<char> = match numbers.below(3) {
            0 => Vec::new(),
            1 => WORDS[numbers.below(WORDS.len())].chars().collect(),
            _ => {
                let other: Vec<char> = CORPUS[numbers.below(CORPUS.len())].chars().collect();
                let from = numbers.below(other.len());
                other[from..(from + numbers.below(20)).min(other.len())].to_vec()
            }
        };
        text.splice(at..end, new);
    }
    text.into_iter().collect()
}

/// Whether a text is read or refused, places are places in it, and what it means is always the same.
fn check(text: &str, contexts: &Object) -> bool {
    let input = input(contexts);
    let placed = |error: &ExpressionError| {
        let part = text.get(error.span.clone());
        assert!(part.is_some(), "{text:?}: {error:?}");
        assert!(!error.to_string().is_empty());
    };
    let mut is_read = false;
    if let Ok(expression) = Expression::parse(text, &ALL).inspect_err(placed) {
        is_read = true;
        let value = expression.evaluate(&input).inspect_err(placed);
        assert_eq!(
            format!("{:?}", expression.evaluate(&input)),
            format!("{value:?}"),
            "{text:?}"
        );
    }
    if let Ok(template) = Template::parse(text, &ALL).inspect_err(placed) {
        let _ = template.evaluate(&input).inspect_err(placed);
    }
    if let Ok(condition) = Condition::parse(text, &ALL).inspect_err(placed) {
        let evaluated = condition.evaluate(&input).inspect_err(placed);
        let is_bool = matches!(
            evaluated,
            Ok(Evaluated::Value(Value::Bool(_)) | Evaluated::NeedsHash(_)) | Err(_)
        );
        assert!(is_bool, "{text:?}");
    }
    is_read
}

#[test]
fn texts_that_are_nearly_right_are_read_or_refused_with_a_place() {
    let contexts = contexts();
    let mut numbers = Numbers(0x9E37_79B9_7F4A_7C15);
    let read = (0..20_000).filter(|_| check(&mutated(&mut numbers), &contexts)).count();
    // Both ways were gone.
    assert!((500..19_000).contains(&read), "{read}");
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in ".{0,60}") {
        check(&text, &contexts());
    }

    #[test]
    fn any_words_are_read_or_refused(words in proptest::collection::vec(proptest::sample::select(WORDS.to_vec()), 0..20)) {
        check(&words.concat(), &contexts());
        check(&words.join(" "), &contexts());
    }
}
