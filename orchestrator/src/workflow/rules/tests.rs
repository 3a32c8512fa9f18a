//! Both layers of whole files, by their codes.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::super::{Findings, findings, validate, walk::MAX_COLLECTED};
use crate::model::diagnostic::Severity;

fn of(text: &str) -> Findings {
    findings("ci.yml", text.as_bytes())
}

/// `line:column code`, one a line, of everything but advice.
fn codes(text: &str) -> String {
    let found = of(text).diagnostics;
    let found = found.iter().filter(|d| d.severity.refuses());
    found.fold(String::new(), |mut all, d| {
        writeln!(all, "{}:{} {}", d.line, d.column, d.code).unwrap();
        all
    })
}

fn advice(text: &str) -> Vec<String> {
    let found = of(text).diagnostics;
    let found = found.into_iter().filter(|d| !d.severity.refuses());
    found.map(|d| format!("{}:{} {}", d.line, d.column, d.code)).collect()
}

/// A file whose `on` is this.
fn on(on: &str) -> String {
    format!("on: {on}\njobs: {{a: {{runs-on: x, steps: [{{run: x}}]}}}}\n")
}

/// A file with this below its one job.
fn job(lines: &str) -> String {
    format!("on: push\njobs:\n  a:\n    runs-on: x\n{lines}    steps: [{{run: x}}]\n")
}

#[test]
fn all_that_is_wrong_comes_at_once_in_the_order_of_the_file() {
    let text = "
on:
  push: {branches: [a], branches-ignore: [b]}
  schedule: [{cron: '0 0 * *'}]
  pull_request: {types: [opend]}
env: &e {A: 1, A: 2}
permissions: {contents: writ}
jobs:
  a:
    runs-on: x
    timeout-minutes: '5'
    if: always()
    needs: [b, z]
    steps:
      - run: x
        uses: o/n@v1
      - {uses: bad, id: 1x}
      - {run: '${{ }}', shell: bsh}
      - !secret {run: x, continue-on-error: yes}
  B: {uses: ./x.txt, with: {}}
  b: {steps: [], runs-on: []}
";
    insta::assert_snapshot!(codes(text), @r#"
3:25 conflicting-keys
4:21 bad-schedule
5:26 unknown-value
6:16 duplicate-key
7:1 unsupported-permissions
7:25 unknown-value
11:22 wrong-type
12:5 unsupported-if
13:16 unknown-need
16:9 conflicting-keys
17:16 bad-action
17:25 bad-id
18:16 expression-syntax
18:32 unknown-shell
19:9 yaml-tag
19:45 wrong-type
20:7 unsupported-workflow-call
20:13 bad-workflow-call
20:22 unsupported-workflow-call
21:3 duplicate-id
21:14 no-steps
21:27 unsupported-runs-on
"#);
}

#[test]
fn what_is_valid_and_not_run_here_is_told_apart() {
    let text = job("    strategy: {matrix: {a: [1, 2]}}\n    container: alpine\n    outputs: {o: '${{ steps.x }}'}\n");
    insta::assert_snapshot!(codes(&text), @r"
    5:5 unsupported-matrix
    6:5 unsupported-container
    7:5 unsupported-outputs
    ");
    assert!(
        of(&text)
            .diagnostics
            .iter()
            .all(|d| d.severity == Severity::Unsupported)
    );
    assert!(
        validate(
            "ci.yml",
            text.as_bytes(),
            &super::super::Defaults { job_timeout_minutes: 1 }
        )
        .is_err()
    );
    for (text, code) in [
        (on("{workflow_dispatch: {inputs: {a: {}}}}"), "unsupported-inputs"),
        (on("{push: {paths: ['**.rs']}}"), "unsupported-paths"),
        (job("    name: ${{ github.sha }}\n"), "unsupported-expression"),
        (job("    timeout-minutes: 0.5\n"), "unsupported-timeout"),
        ("on: push\njobs: {a: {runs-on: x}}".to_owned(), "no-steps"),
        (
            "on: push\njobs: {a: {runs-on: x, steps: [{uses: ./a}]}}".to_owned(),
            "unsupported-action",
        ),
        (
            "on: push\njobs: {a: {runs-on: x, steps: [{wait-all: }]}}".to_owned(),
            "unsupported-background",
        ),
        (
            "on: push\njobs: {a: {runs-on: x, steps: [{run: ''}]}}".to_owned(),
            "unsupported-empty-run",
        ),
    ] {
        let found = codes(&text);
        assert!(
            found.trim_end().ends_with(code) && found.lines().count() == 1,
            "{text}: {found}"
        );
    }
}

#[test]
fn events_have_their_own_words() {
    for (text, code) in [
        ("pusj", "unknown-event"),
        ("[push, pusj]", "unknown-event"),
        ("{pusj: }", "unknown-event"),
        ("", "empty-value"),
        ("{}", "empty-value"),
        ("[]", "empty-value"),
        ("{push: main}", "wrong-type"),
        ("{push: {types: [x]}}", "unknown-key"),
        ("{push: {branches: }}", "empty-value"),
        ("{push: {tags: ['v[']}}", "bad-filter"),
        ("{pull_request: {types: closd}}", "unknown-value"),
        ("{pull_request: {paths: [a], paths-ignore: [b]}}", "conflicting-keys"),
        ("{create: {types: [x]}}", "wrong-type"),
        ("{schedule: }", "empty-value"),
        ("{schedule: {cron: '0 0 * * *'}}", "wrong-type"),
        ("{schedule: [{cron: '@daily'}]}", "bad-schedule"),
        ("{workflow_call: {inputs: {a: {}}}}", "missing-key"),
        (
            "{workflow_call: {inputs: {a: {type: boolean, default: x}}}}",
            "bad-input",
        ),
        ("{workflow_call: {outputs: {a: {}}}}", "missing-key"),
        ("{push: {branches: ['${{ x }}']}}", "expression-not-allowed"),
    ] {
        let found = codes(&on(text));
        assert_eq!(found.lines().count(), 1, "{text}: {found}");
        assert!(found.contains(code), "{text}: {found}");
    }
    let inputs = |inputs: &str| codes(&on(&format!("{{workflow_dispatch: {{inputs: {{{inputs}}}}}}}")));
    for wrong in [
        "a: {type: choice}",
        "a: {type: choice, options: []}",
        "a: {options: [x]}",
        "a: {type: number, default: x}",
    ] {
        assert!(inputs(wrong).contains("bad-input"), "{wrong}: {}", inputs(wrong));
    }
    let odd = "{push: , workflow_dispatch: {inputs: {a: {type: choice, options: [x], default: y}}}}";
    assert_eq!(advice(&on(odd)), ["1:84 input-default"]);
    assert!(!inputs("a: {type: choice, options: [1, x], default: 1}").contains("bad-input"));
    let many: String = (0..26).fold(String::new(), |all, i| format!("{all}i{i}: {{}}, "));
    assert!(inputs(&many).contains("bad-input"));
}

#[test]
fn a_matrix_gives_jobs() {
    let matrix = |matrix: &str| codes(&job(&format!("    strategy: {{matrix: {matrix}}}\n")));
    for wrong in [
        "{}",
        "{include: []}",
        "{a: []}",
        "{a: [1], exclude: [{b: 1}]}",
        "{a: [1, 2, 3, 4, 5, 6, 7, 8], b: [1, 2, 3, 4, 5, 6, 7, 8], c: [1, 2, 3, 4, 5, 6, 7, 8]}",
    ] {
        let found = matrix(wrong);
        assert!(
            found.contains("bad-matrix") && found.lines().count() == 2,
            "{wrong}: {found}"
        );
    }
    for right in [
        "{a: [1], exclude: [{A: 1}]}",
        "{include: [{a: 1}]}",
        "'${{ fromJSON(x) }}'",
        "{a: '${{ fromJSON(x) }}', b: []}",
    ] {
        let found = matrix(right);
        assert_eq!(found, "5:5 unsupported-matrix\n", "{right}");
    }
}

#[test]
fn where_githubs_service_takes_more_it_is_a_warning() {
    assert_eq!(
        advice(&on("{push: , workflow_dispatch: {inputs: }}")),
        ["1:34 empty-mapping"]
    );
    let int = on("{push: , workflow_call: {inputs: {a: {type: int}}}}");
    assert_eq!(advice(&int), ["1:14 event-never-starts", "1:49 loose-type"]);
    assert_eq!(codes(&int), "");
    assert_eq!(advice(&job("    env:\n")), ["5:5 empty-mapping"]);
    assert_eq!(
        codes(&job("    env: ${{ matrix.env }}\n")),
        "5:10 unsupported-expression\n"
    );
    assert_eq!(advice("on: push\njobs: {a: {steps: [{run: x}]}}"), ["2:8 no-runs-on"]);
    assert_eq!(
        advice(&on("{push: {branches: ['!a']}}")),
        ["1:13 only-negative-patterns"]
    );
    let ignored = on("{push: , workflow_dispatch: {secrets: {A: }}}");
    assert_eq!(
        (advice(&ignored), codes(&ignored).as_str()),
        (vec!["1:34 ignored-key".to_owned()], "")
    );
    assert_eq!(advice(&on("[push, release]")), ["1:12 event-never-starts"]);
}

#[test]
fn keys_that_exclude_each_other_name_both() {
    let found = of("on: push\njobs: {a: {runs-on: x, uses: ./x.yml}, b: {uses: ./x.yml, env: {}}}").diagnostics;
    let messages: Vec<&str> = found
        .iter()
        .filter(|d| d.severity == Severity::Error)
        .map(|d| d.message.as_str())
        .collect();
    assert_eq!(
        messages,
        [
            "`runs-on` and `uses` cannot both stand in a job",
            "`uses` and `env` cannot both stand in a job that calls a workflow"
        ]
    );
}

#[test]
fn complaints_beyond_the_most_are_counted() {
    let steps = "      - run: x\n        iff: y\n".repeat(500);
    let found = of(&format!("on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n{steps}"));
    assert_eq!(
        (found.diagnostics.len(), found.omitted),
        (MAX_COLLECTED, 500 - MAX_COLLECTED)
    );
    let lines: Vec<u32> = found.diagnostics.iter().map(|d| d.line).collect();
    assert!(lines.is_sorted());
}

#[test]
fn an_error_behind_many_things_that_do_not_run_here_is_told() {
    let jobs = (0..300).fold(String::new(), |all, at| {
        format!("{all}  j{at}: {{permissions: {{}}, runs-on: x, steps: [{{run: x}}]}}\n")
    });
    let text = |last: &str| format!("jobs:\n{jobs}{last}");
    for (last, code) in [
        (
            "  z: {iff: x, runs-on: x, steps: [{run: x}]}\non: push\n",
            "unknown-key",
        ),
        ("on: {push: {branches: 'v['}}\n", "bad-filter"),
        ("on: push\non: push\n", "duplicate-key"),
        (
            "  z: {needs: y, runs-on: x, steps: [{run: x}]}\non: push\n",
            "unknown-need",
        ),
    ] {
        let found = of(&text(last));
        assert_eq!((found.errors, found.diagnostics.len()), (1, MAX_COLLECTED), "{last}");
        assert!(found.diagnostics.iter().any(|d| d.code == code), "{last}");
        // The job too many of the plan is one of them.
        assert_eq!(
            (found.unsupported, found.omitted),
            (301, 301 - (MAX_COLLECTED - 1)),
            "{last}"
        );
    }
    // What is taken is no error, wherever it stands.
    let found = of(&text("on: {push: , workflow_call: {inputs: {a: {type: int}}}}\n"));
    assert_eq!((found.errors, found.unsupported), (0, 301));
}

#[test]
fn what_the_reader_of_the_text_leaves_out_is_counted() {
    let found = of(&on("push").replace("runs-on: x,", &"runs-on: x,".repeat(500)));
    assert_eq!(
        (found.errors, found.diagnostics.len(), found.omitted),
        (499, MAX_COLLECTED, 299)
    );
}

/// A MiB of what costs most: the strict walk looks at no more values than the limits let a file hold, a few times.
#[test]
fn hostile_files_cost_what_the_limits_say() {
    const MOST: usize = 4 * 50_000;
    let fill = |piece: &str| piece.repeat((1 << 20) / piece.len() - 64);
    let keys = (0..80_000).fold(String::new(), |mut all, i| {
        writeln!(all, "k{i}: 1").unwrap();
        all
    });
    let columns = |name: char| (0..6_000).map(|at| format!("{name}{at}: [1], ")).collect::<String>();
    let below = |steps: String| format!("on: push\njobs: {{a: {{runs-on: x, steps: [{steps}]}}}}");
    for text in [
        keys.clone(),
        format!("on: push\njobs:\n{}", keys.replace('k', "  k")),
        below("{rum: x},".repeat(12_000)),
        below("{run: '${{ }}', shell: z, id: 1},".repeat(6_000)),
        below(format!("{{run: '{}'}}", fill("${{ a }}"))),
        format!(
            "on: push\njobs: {{a: {{runs-on: x, needs: [{}]}}}}",
            "b,".repeat(40_000)
        ),
        format!("on: {{push: {{branches: [{}]}}}}", "'[',".repeat(900)),
        format!("on: {{push: {{branches: [{}]}}}}", "'**',".repeat(40_000)),
        below(format!("{{run: '{}'}}", fill("${{ github.head_ref }}"))),
        below("{run: '${{ github.head_ref }}'},".repeat(9_000)),
        format!("on: {{schedule: [{}]}}", "{cron: 1},".repeat(12_000)),
        fill("["),
        fill("{a: "),
        fill("- "),
        fill("&a *a "),
        format!("a: &a [{}]\nb: [{}]", "x,".repeat(1000), "*a,".repeat(100_000)),
        fill("\u{1F600}"),
        format!(
            "on: push\njobs: {{x: {{if: false}}, b: {{if: '{}', needs: [{}]}}}}",
            "y".repeat(900_000),
            "x,".repeat(40_000)
        ),
        format!(
            "on: push\njobs: {{x: {{}}, ? {} : {{needs: [{}]}}}}",
            "y".repeat(900_000),
            "x,".repeat(40_000)
        ),
        format!(
            "on: push\njobs: {{? {} : {{}}, b: {{needs: [{}]}}}}",
            "y".repeat(900_000),
            "z,".repeat(40_000)
        ),
        format!(
            "on: push\njobs: {{a: {{strategy: {{matrix: {{{}exclude: [{{{}}}]}}}}}}}}",
            columns('v'),
            columns('w')
        ),
        format!(
            "on: push\nenv: {{a: &a 0x{}, b: [{}]}}",
            "1".repeat(900_000),
            "*a,".repeat(4)
        ),
        format!("on: push\nenv: {{a: !!int {}}}", "y".repeat(900_000)),
        format!(
            "%TAG !t! {}\n---\non: [{}]",
            "y".repeat(900_000),
            "!t!a x,".repeat(9_000)
        ),
        format!("on: [!{} x]", "y".repeat(900_000)),
        format!("on: *{}", "y".repeat(900_000)),
        below(format!(
            "{{run: '${{{{ {}github.head_ref', x: 1}}",
            "f(".repeat(400_000)
        )),
        below(format!(
            "{{run: '${{{{ github.event.commits[''{}''].message }}}}'}}",
            "y".repeat(20_000)
        )),
    ] {
        let found = of(&text);
        assert!(
            found.visits <= MOST,
            "{}: {}",
            &text[..40.min(text.len())],
            found.visits
        );
        assert!(found.diagnostics.len() <= 2 * MAX_COLLECTED);
        let longest = found
            .diagnostics
            .iter()
            .map(|d| d.message.len() + d.help.as_ref().map_or(0, String::len));
        assert!(
            longest.max() < Some(2000),
            "{}",
            text.chars().take(40).collect::<String>()
        );
        assert!(
            !found.diagnostics.is_empty(),
            "{}",
            text.chars().take(40).collect::<String>()
        );
    }
}

#[test]
fn circles_of_jobs_are_found_in_one_pass() {
    // A long chain that closes, and a job outside of it.
    let mut text = "on: push\njobs:\n  start: {runs-on: x, steps: [{run: x}]}\n".to_owned();
    for at in 0..2000 {
        let needs = if at == 0 { 1999 } else { at - 1 };
        writeln!(
            text,
            "  j{at}: {{needs: [start, j{needs}], runs-on: x, steps: [{{run: x}}]}}"
        )
        .unwrap();
    }
    let found = of(&text);
    let cycles = found.diagnostics.iter().filter(|d| d.code == "needs-cycle").count();
    assert_eq!((cycles, found.omitted >= 2000 - MAX_COLLECTED), (MAX_COLLECTED, true));
}

proptest! {
    /// A graph of jobs has a circle exactly where a plain search finds one.
    #[test]
    fn needs_are_judged_as_a_plain_search_does(edges in proptest::collection::vec((1usize..7, 1usize..7), 0..12)) {
        let mut text = "on: push\njobs:\n  j0: {runs-on: x, steps: [{run: x}]}\n".to_owned();
        for job in 1..7 {
            let needs: Vec<String> = edges.iter().filter(|(from, _)| *from == job).map(|(_, to)| format!("j{to}")).collect();
            writeln!(text, "  j{job}: {{needs: [{}], runs-on: x, steps: [{{run: x}}]}}", needs.join(", ")).unwrap();
        }
        let reaches = |from: usize, goal: usize| {
            let (mut seen, mut open) = ([false; 7], vec![from]);
            while let Some(at) = open.pop() {
                for (_, to) in edges.iter().filter(|(from, _)| *from == at) {
                    if *to == goal { return true; }
                    if !std::mem::replace(&mut seen[*to], true) { open.push(*to); }
                }
            }
            false
        };
        let expected = edges.iter().filter(|(from, to)| reaches(*to, *from) || from == to).count();
        let found = of(&text).diagnostics.iter().filter(|d| d.code == "needs-cycle").count();
        // Each mention of a need in a circle is marked where it stands.
        prop_assert_eq!(found, expected);
    }
}
