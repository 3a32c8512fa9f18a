//! Deadlines of tests: each wait of a test is bounded by a constant of a `deadline` module, which is a minute at least,
//! so that a slow machine is never taken for a hang. What looks like a deadline and is none stands in [`MEANT`].

use std::{collections::BTreeSet, fs, ops::Range, path::Path};

use super::{project, rust_files};

/// No deadline is shorter: ten times what a prompt thing takes on a machine that has other things to do.
const LEAST_SECONDS: u64 = 60;

/// Where deadlines are defined: one place for a package and what is below it.
const DEFINED: [&str; 2] = [
    "orchestrator/tests/support/deadline.rs",
    "agent/tests/common/deadline.rs",
];

/// Bounds that end no hang but are what is tested: the file, the bound as it is written, and why.
const MEANT: &[(&str, &str, &str)] = &[
    ("guests/reach.rs", "SILENCE", "nothing is to be heard"),
    ("zones/random_faults.rs", "patience", "lives are cut short by chance"),
    ("zones/budget.rs", "WATCHED", "the looks of so long are counted"),
    ("inside/machines.rs", "WAITED", "it took at least so long"),
    ("suite/image_trial.rs", "boot_timeout_s: 5", "its guest never speaks"),
    (
        "conversations/deliveries.rs",
        "Duration::from_millis(50)",
        "its receiver never answers",
    ),
    ("suite/hang.rs", "agent_silence_s: 15", "its machine is stopped"),
    ("src/exec/run.rs", "SHORT", "its command never ends"),
    ("forge/http.rs", "SHORT", "its server never answers"),
    ("forgejo/tests.rs", "deadline", "a minute, but where the forge hangs"),
    ("github/tests.rs", "deadline", "a minute, but where the forge hangs"),
    ("reporter/tests.rs", "LONG", "an hour of a clock that stands still"),
    (
        "tests/fuzz.rs",
        "Duration::from_secs(3600)",
        "the longest grace that is let in",
    ),
    (
        "intake/limits.rs",
        "Duration::from_millis(10)",
        "what a caller is told, not a wait",
    ),
    (
        "forge/throttle.rs",
        "Duration::from_secs(10)",
        "a moment that nobody waits for",
    ),
];

/// Keys of the configuration that end what takes longer.
const KEYS: [&str; 2] = ["boot_timeout_s: ", "agent_silence_s: "];

/// The program alone: comments, and what is between quotes, are blank.
fn code(text: &str) -> Vec<char> {
    let mut code: Vec<char> = text.chars().collect();
    let mut at = 0;
    while at < code.len() {
        let next = |n: usize| code.get(at + n).copied().unwrap_or(' ');
        let hashes = (at + 1..).take_while(|i| code.get(*i) == Some(&'#')).count();
        let blank = match code[at] {
            '/' if next(1) == '/' => at..end_of(&code, at, "\n"),
            '/' if next(1) == '*' => at..end_of(&code, at + 2, "*/"),
            'r' if next(1 + hashes) == '"' && (at == 0 || !is_word(code[at - 1]) || code[at - 1] == 'b') => {
                let close = format!("\"{}", "#".repeat(hashes));
                at..end_of(&code, at + hashes + 2, &close)
            }
            '"' => at..end_of_quotes(&code, at + 1, '"'),
            // What else begins with one is a lifetime.
            '\'' if next(1) == '\\' || next(2) == '\'' => at..end_of_quotes(&code, at + 1, '\''),
            _ => {
                at += 1;
                continue;
            }
        };
        at = blank.end;
        for c in &mut code[blank] {
            if *c != '\n' {
                *c = ' ';
            }
        }
    }
    code
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Behind the next `close`, or the end.
fn end_of(code: &[char], from: usize, close: &str) -> usize {
    let close: Vec<char> = close.chars().collect();
    let found = (from..code.len()).find(|at| code[*at..].starts_with(&close));
    found.map_or(code.len(), |at| at + close.len())
}

fn end_of_quotes(code: &[char], mut at: usize, quote: char) -> usize {
    while at < code.len() && code[at] != quote {
        at += if code[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(code.len())
}

/// Where a piece of text is.
fn places(code: &[char], what: &str) -> Vec<usize> {
    let what: Vec<char> = what.chars().collect();
    (0..code.len()).filter(|at| code[*at..].starts_with(&what)).collect()
}

/// From `from` to the first of these characters that no bracket encloses, or to the end of the brackets around.
fn up_to(code: &[char], from: usize, ends: &[char]) -> Range<usize> {
    let mut depth = 0;
    for (at, c) in code.iter().enumerate().skip(from) {
        match c {
            c if depth == 0 && ends.contains(c) => return from..at,
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth == 0 => return from..at,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
    }
    from..code.len()
}

/// The block that opens next, or nothing when a `;` comes before.
fn block(code: &[char], from: usize) -> Range<usize> {
    match (from..code.len()).find(|at| matches!(code[*at], '{' | ';')) {
        Some(at) if code[at] == '{' => up_to(code, at + 1, &[]),
        other => from..other.unwrap_or(code.len()),
    }
}

/// The tests of a file, and nothing of those whose clock stands still: there all waits end at once.
fn tests_of(path: &Path, text: &str) -> Vec<char> {
    let mut code = code(text);
    let is_test = path
        .iter()
        .any(|part| matches!(part.to_str(), Some("tests" | "tests.rs" | "testing.rs")));
    if !is_test {
        let tests: Vec<Range<usize>> = places(&code, "#[cfg(test)]")
            .into_iter()
            .map(|at| block(&code, at))
            .collect();
        for (at, c) in code.iter_mut().enumerate() {
            if *c != '\n' && !tests.iter().any(|test| test.contains(&at)) {
                *c = ' ';
            }
        }
    }
    for at in places(&code, "start_paused = true") {
        let test = block(&code, at);
        code[test].fill(' ');
    }
    code
}

/// A wait as it is written, and where.
struct Bound {
    at: usize,
    text: String,
}

/// What ends an expression that something is compared with.
const COMPARED: [char; 5] = [',', ';', '{', '&', '|'];

/// Everything in a program that bounds a wait.
fn bounds(code: &[char]) -> Vec<Bound> {
    let mut bounds = Vec::new();
    let mut bound = |at: usize, range: Range<usize>| {
        let text = code[range].iter().collect::<String>();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        bounds.push(Bound { at, text });
    };
    for call in ["timeout(", "timeout_at(", "deadline(", "at_most("] {
        for at in places(code, call) {
            let name = (0..at).rev().find(|at| !is_word(code[*at])).map_or(0, |at| at + 1);
            if !code[..name].ends_with(&['f', 'n', ' ']) {
                bound(at, up_to(code, at + call.chars().count(), &[',']));
            }
        }
    }
    for at in places(code, "Instant::now() +") {
        bound(at, up_to(code, at + "Instant::now() +".len(), &[',', ';', '{']));
    }
    for at in places(code, "elapsed()") {
        let from = at + "elapsed()".len();
        let compared: String = code[from..].iter().take(3).collect();
        if let Some(rest) = compared.strip_prefix(" <").or_else(|| compared.strip_prefix(" >")) {
            let from = from + if rest == "=" { 3 } else { 2 };
            bound(at, up_to(code, from, &COMPARED));
        }
    }
    let is_elapsed = |at: usize| code[..at].ends_with(&['(', ')', ' ']);
    for less in ["< Duration::", "<= Duration::"] {
        for at in places(code, less).into_iter().filter(|at| !is_elapsed(*at)) {
            bound(at, up_to(code, at + less.find('D').unwrap_or(0), &COMPARED));
        }
    }
    bounds
}

/// Loops that count their tries and wait between them: a deadline in disguise.
fn counted_waits(code: &[char]) -> Vec<usize> {
    let waits = |at: &usize| {
        let body: String = code[block(code, *at)].iter().collect();
        ["sleep(", "pause()", "yield_now("]
            .iter()
            .any(|wait| body.contains(wait))
    };
    places(code, "for _ in 0..").into_iter().filter(waits).collect()
}

/// The constants of the `deadline` modules, each long enough.
fn defined() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in DEFINED {
        let text = fs::read_to_string(project().join(file)).expect("a source");
        for line in text.lines().filter(|line| line.contains("const ")) {
            let (name, seconds) = line
                .strip_prefix("pub const ")
                .and_then(|rest| rest.strip_suffix(");"))
                .and_then(|rest| rest.split_once(": Duration = Duration::from_secs("))
                .unwrap_or_else(|| panic!("{file}: {line}"));
            let seconds: u64 = seconds.parse().unwrap_or_else(|_| panic!("{file}: {line}"));
            assert!(seconds >= LEAST_SECONDS, "{file}: {line}");
            names.insert(name.to_owned());
        }
    }
    names
}

/// Whether a bound is one of those, or a moment that was made with one.
fn is_long_enough(bound: &str, defined: &BTreeSet<String>) -> bool {
    let mut words = bound.split(|c| !is_word(c));
    let whole = !bound.contains('/') && !bound.contains("from_") && !bound.contains("Duration::new");
    whole && words.any(|word| defined.contains(word) || word == "until")
}

fn line_of(code: &[char], at: usize) -> usize {
    1 + code[..at].iter().filter(|c| **c == '\n').count()
}

/// What is wrong with a file, as `line: words`; `meant` says whether something written is meant to be short.
fn complaints(path: &Path, text: &str, defined: &BTreeSet<String>, mut meant: impl FnMut(&str) -> bool) -> Vec<String> {
    let code = tests_of(path, text);
    let mut found = Vec::new();
    for bound in bounds(&code) {
        if !is_long_enough(&bound.text, defined) && !meant(&bound.text) {
            found.push(format!("{}: bounded by `{}`", line_of(&code, bound.at), bound.text));
        }
    }
    for at in counted_waits(&code) {
        found.push(format!("{}: waits for a number of tries", line_of(&code, at)));
    }
    if !DEFINED.iter().any(|file| path.ends_with(file)) {
        for name in defined {
            let elsewhere = places(&code, &format!("const {name}:"));
            found.extend(
                elsewhere
                    .iter()
                    .map(|at| format!("{}: another {name}", line_of(&code, *at))),
            );
        }
    }
    // In the text of configurations, which stand between quotes.
    let configures = path.iter().any(|part| part == "tests") && !path.ends_with("tidy/deadlines.rs");
    for key in KEYS.iter().filter(|_| configures) {
        for (at, _) in text.match_indices(key) {
            let digits: String = text[at + key.len()..]
                .chars()
                .take_while(char::is_ascii_digit)
                .collect();
            let short = digits.parse::<u64>().is_ok_and(|seconds| seconds < LEAST_SECONDS);
            if short && !meant(&format!("{key}{digits}")) {
                found.push(format!("{}: {key}{digits}", 1 + text[..at].matches('\n').count()));
            }
        }
    }
    found
}

#[test]
fn no_deadline_of_a_test_is_short() {
    let defined = defined();
    let (mut wrong, mut used) = (Vec::new(), BTreeSet::<(&str, &str, &str)>::new());
    for package in ["orchestrator", "agent", "proto"] {
        let mut files = Vec::new();
        rust_files(&project().join(package), &mut files);
        for file in files {
            let text = fs::read_to_string(&file).expect("a source");
            let relative = file.strip_prefix(project()).expect("below the project");
            let meant = |bound: &str| {
                let known = MEANT
                    .iter()
                    .find(|(path, text, _)| relative.ends_with(path) && *text == bound);
                used.extend(known);
                known.is_some()
            };
            let complaints = complaints(relative, &text, &defined, meant);
            wrong.extend(
                complaints
                    .into_iter()
                    .map(|what| format!("{}:{what}", relative.display())),
            );
        }
    }
    assert!(
        wrong.is_empty(),
        "take a constant of {DEFINED:?}, or say in {} why it is meant: {wrong:#?}",
        file!()
    );
    let unused: Vec<_> = MEANT.iter().filter(|meant| !used.contains(meant)).collect();
    assert!(unused.is_empty(), "nothing is written so any more: {unused:#?}");
}

#[test]
fn short_deadlines_are_found_however_they_are_written() {
    let defined = BTreeSet::from(["PROMPT".to_owned()]);
    let found = |path: &str, text: &str| complaints(Path::new(path), text, &defined, |_| false).len();
    let in_test = |statement: &str| found("orchestrator/tests/x.rs", &format!("fn test() {{ {statement} }}"));
    for wrong in [
        "timeout(Duration::from_secs(15), listener.accept()).await;",
        "tokio::time::timeout(\n    Duration::from_millis(9_000),\n    wait(1, 2),\n)",
        "timeout(PROMPT / 10, wait)",
        "timeout(PROMPT.min(Duration::from_secs(3)), wait)",
        "timeout(PATIENCE, wait)",
        "stream.set_read_timeout(Some(Duration::new(5, 0)))",
        "let end = Instant::now() + Duration::from_secs(5);",
        "let end = std::time::Instant::now() + patience;",
        "assert!(started.elapsed() < Duration::from_secs(5), \"slow\");",
        "if started.elapsed() >= LIMIT { panic!() }",
        "client.with_deadline(Duration::from_secs(2))",
        "let took = started.elapsed(); assert!(took < Duration::from_secs(5));",
        "for _ in 0..100 { if so() { return; } std::thread::sleep(TICK); }",
        "const PROMPT: Duration = Duration::from_secs(1);",
        "config(\"    boot_timeout_s: 15\\n\");",
    ] {
        assert_eq!(in_test(wrong), 1, "{wrong}");
    }
    for right in [
        "timeout(deadline::PROMPT, wait(Duration::from_secs(1)))",
        "timeout(2 * PROMPT, wait)",
        "let until = Instant::now() + deadline::PROMPT; heard.recv_timeout(until - Instant::now());",
        "// timeout(Duration::from_secs(15), …)\n /* elapsed() < SHORT */",
        "say(\"timeout(Duration::from_secs(15), x)\"); say(r#\"elapsed() < \"SHORT\"#); let c = '\"';",
        "while started.elapsed() < deadline::PROMPT { sleep(Duration::from_millis(5)); }",
        "for _ in 0..100 { work(); }",
        "config(\"    boot_timeout_s: 150\\n\");",
        "async fn timeout(after: Duration) {}",
    ] {
        assert_eq!(in_test(right), 0, "{right}");
    }
    // Of a source only its tests, and of tests only those whose clock runs.
    let short = "timeout(Duration::from_secs(1), wait)";
    assert_eq!(found("agent/src/x.rs", &format!("fn product() {{ {short} }}")), 0);
    let source = format!(
        "#[cfg(test)]\nmod tests;\nfn product() {{ {short} }}\n#[cfg(test)]\nmod test {{ fn a<'a>() {{ {short} }} }}"
    );
    assert_eq!(found("agent/src/x.rs", &source), 1);
    assert_eq!(found("agent/src/x/tests.rs", &format!("fn test() {{ {short} }}")), 1);
    let paused = format!("#[tokio::test(start_paused = true)]\nasync fn test() {{ {short} }}");
    assert_eq!(found("agent/src/x/tests.rs", &paused), 0);
}
