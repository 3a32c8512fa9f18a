//! How fast expressions are evaluated, on one thread, beside the floor of the same run: one look-up of a name in a map.
//! Ratios travel between machines, numbers do not.
//!
//! `cargo bench -p helios-ci --bench workflow`

use std::{
    collections::HashMap,
    hint::black_box,
    time::{Duration, Instant},
};

use helios_ci::expression::{
    Available, CONTEXTS, Condition, Evaluated, Expression, Input, Outcome, Status, StatusFunctions, Template, Value,
};

/// Long enough for the clock, short enough for a person.
const MEASURED: Duration = Duration::from_millis(500);

const CONTEXT: &str = r#"{
    "github": {"ref": "refs/heads/main", "event_name": "push", "repository": "ada/engine", "event": {
        "head_commit": {"message": "fix the pump"}, "labels": [{"name": "bug"}, {"name": "urgent"}]}},
    "matrix": {"os": "omnios", "version": 3}, "runner": {"os": "illumos"}, "env": {"DEBUG": ""},
    "needs": {"build": {"result": "success", "outputs": {"list": "[1,2,3]"}}}
}"#;

/// Expressions as workflow files have them, the simple ones first.
const EXPRESSIONS: [&str; 8] = [
    "github.ref",
    "github.ref == 'refs/heads/main'",
    "github.event_name == 'push' && matrix.version > 2",
    "env.DEBUG || 'none'",
    "startsWith(github.ref, 'refs/heads/')",
    "contains(github.event.labels.*.name, 'urgent')",
    "format('{0}-{1}', runner.os, matrix.version)",
    "fromJSON(needs.build.outputs.list)[1]",
];

/// How often in a second.
fn rate(mut act: impl FnMut()) -> f64 {
    let mut done = 0u32;
    let begin = Instant::now();
    while begin.elapsed() < MEASURED {
        for _ in 0..1000 {
            act();
        }
        done += 1000;
    }
    f64::from(done) / begin.elapsed().as_secs_f64()
}

fn row(what: &str, rate: f64, floor: f64) {
    println!(
        "| {what:<66} | {:>8.0} k/s | {:>6.2} us | {:>6.1} x floor |",
        rate / 1e3,
        1e6 / rate,
        floor / rate
    );
}

fn main() {
    let Ok(Value::Object(contexts)) = Value::from_json(CONTEXT, false) else {
        panic!("the contexts are an object");
    };
    let available = Available {
        contexts: &CONTEXTS,
        status: StatusFunctions::OfStep,
        hash_files: true,
    };
    let input = Input {
        contexts: &contexts,
        status: Status {
            so_far: Outcome::Success,
            jobs: &[],
        },
        hashes: &[],
    };
    let map: HashMap<String, usize> = CONTEXTS.iter().map(|name| ((*name).to_owned(), name.len())).collect();
    let floor = rate(|| {
        black_box(map.get(black_box("github")));
    });
    row("floor: one look-up in a map", floor, floor);
    for text in EXPRESSIONS {
        let expression = Expression::parse(text, &available).expect("an expression");
        row(
            &format!("evaluate {text}"),
            rate(|| {
                let evaluated = black_box(&expression).evaluate(&input);
                assert!(matches!(black_box(evaluated), Ok(Evaluated::Value(_))));
            }),
            floor,
        );
    }
    for text in EXPRESSIONS {
        row(
            &format!("parse and evaluate {text}"),
            rate(|| {
                let expression = Expression::parse(black_box(text), &available).expect("an expression");
                assert!(black_box(expression.evaluate(&input)).is_ok());
            }),
            floor,
        );
    }
    let text = "cache-${{ runner.os }}-${{ matrix.version }}";
    row(
        &format!("parse and evaluate the text {text}"),
        rate(|| {
            let template = Template::parse(black_box(text), &available).expect("a text");
            assert!(black_box(template.evaluate(&input)).is_ok());
        }),
        floor,
    );
    let text = "${{ github.ref == 'refs/heads/main' }}";
    row(
        &format!("parse and evaluate if: {text}"),
        rate(|| {
            let condition = Condition::parse(black_box(text), &available).expect("a condition");
            assert!(black_box(condition.evaluate(&input)).is_ok());
        }),
        floor,
    );
    let hostile: Vec<(&str, String)> = vec![
        ("!! to the limit of length", "!".repeat(20_999) + "1"),
        ("|| to the limit of length", format!("0{}", "||0".repeat(6_999))),
        ("a text that doubles until memory ends", doubling()),
        ("[ to the limit of length", "github[".repeat(2_999)),
    ];
    for (what, text) in hostile {
        let begin = Instant::now();
        let evaluated = Expression::parse(&text, &available).and_then(|expression| expression.evaluate(&input));
        let took = begin.elapsed().as_secs_f64() * 1e3;
        let end = match evaluated {
            Ok(_) => "a value".to_owned(),
            Err(error) => error.to_string(),
        };
        println!("| hostile: {what:<57} | {took:>8.2} ms | {end} |");
    }
}

/// `format` of itself, ten times as long with every level.
fn doubling() -> String {
    let tenfold = "{0}".repeat(10);
    (0..9).fold("'0123456789'".to_owned(), |inner, _| {
        format!("format('{tenfold}', {inner})")
    })
}
