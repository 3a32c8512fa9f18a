//! Whole files: plans, exact diagnostics, and hostile input.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use crate::{
    deadline,
    model::{
        plan::{Action, Env, PlanSpan, Shell, Template, values},
        trigger::{RefCause, RefEvent},
    },
};

const DEFAULTS: Defaults = Defaults {
    job_timeout_minutes: 360,
};
const PATH: &str = ".github/workflows/ci.yml";

fn push(ref_name: &str) -> Event {
    Event::push(ref_name.parse().unwrap(), "a".repeat(40).parse().unwrap(), None)
}

fn manual() -> Event {
    Event::Ref(RefEvent {
        ref_name: "refs/heads/main".parse().unwrap(),
        cause: RefCause::Manual {
            commit: None,
            as_push: false,
            workflow: None,
        },
    })
}

/// `line:column: message (help)`, one per line.
fn complaints(text: &str) -> String {
    let found = validate(PATH, text.as_bytes(), &DEFAULTS).err().unwrap_or_default();
    found
        .iter()
        .take(walk::MAX_SHOWN)
        .map(|d| d.to_string().replace(&format!("{PATH}:"), "") + "\n")
        .collect()
}

fn known<T: Clone>(template: &Template<T>) -> T {
    template.value(String::new).unwrap().clone()
}

/// Where a word stands in a text for the first time.
fn span(text: &str, word: &str) -> PlanSpan {
    let start = text.find(word).unwrap();
    let before = &text[..start];
    let column = before.rsplit('\n').next().unwrap().chars().count() + 1;
    let number = |n: usize| u32::try_from(n).unwrap();
    PlanSpan {
        line: number(before.matches('\n').count() + 1),
        column: number(column),
        start: number(start),
        end: number(start + word.len()),
    }
}

/// A job with these lines below its `steps:`.
fn with_steps(steps: &str) -> String {
    format!("on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n{steps}")
}

#[test]
fn a_whole_file_becomes_a_plan() {
    let text = r#"
name: Build and test
on: {push: {branches: [main, 'release/**']}, pull_request: {types: [opened]}}
env: {A: 1, B: 3.10, C: yes, D: }
jobs:
  build:
    name: Build it
    runs-on: [illumos, large]
    timeout-minutes: 30
    env: { VERSION: "3.10" }
    steps:
      - uses: actions/checkout@v4
        with: { fetch-depth: "0", path: ./src/, persist-credentials: false }
      - name: Compile
        id: compile
        run: |
          # first
          make -j
        shell: bash
        working-directory: src/./sub
        timeout-minutes: 5
        env: { STEP: x }
        continue-on-error: true
      - run: |

          echo done
  test:
    needs: BUILD
    steps: [{run: "true", shell: python}]
"#;
    let plan = validate(PATH, text.as_bytes(), &DEFAULTS).unwrap();
    assert_eq!(
        (plan.name.as_str(), plan.path.as_str(), plan.version),
        ("Build and test", PATH, PLAN_VERSION)
    );
    let pairs = |env: &EnvTemplate| {
        values(env, str::to_owned)
            .unwrap()
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(pairs(&plan.env), "A=1 B=3.1 C=yes D=");
    let [build, test] = plan.jobs.as_slice() else {
        panic!("{plan:?}")
    };
    assert_eq!((build.name.shown(), known(&build.timeout_minutes)), ("Build it", 30));
    let labels: Vec<String> = build.runs_on.iter().map(|label| known(label).to_string()).collect();
    assert_eq!(labels, ["illumos", "large"]);
    assert_eq!(
        (build.runs_on_span(), build.span),
        (span(text, "illumos"), PlanSpan::at(6, 3))
    );
    assert_eq!(pairs(&build.env), "VERSION=3.10");
    let Action::Uses { action, inputs, .. } = &build.steps[0].action else {
        panic!("{build:?}")
    };
    assert_eq!(action, "actions/checkout");
    assert_eq!(pairs(inputs), "fetch-depth=0 path=src");
    assert_eq!(inputs[1].1.span(), Some(span(text, "./src/")));
    let compile = &build.steps[1];
    assert_eq!(
        (compile.name.shown(), compile.id.as_deref()),
        ("Compile", Some("compile"))
    );
    let Action::Run {
        script,
        shell,
        working_directory,
    } = &compile.action
    else {
        panic!("{compile:?}")
    };
    assert_eq!(
        (known(script).as_str(), known(shell)),
        ("# first\nmake -j\n", Shell::Bash)
    );
    assert_eq!(shell.span(), Some(span(text, "bash")));
    assert_eq!(working_directory.as_ref().map(known).as_deref(), Some("src/sub"));
    assert!(known(&compile.continue_on_error) && !known(&build.steps[2].continue_on_error));
    assert_eq!(
        (compile.timeout_minutes.as_ref().map(known), compile.span),
        (Some(5), PlanSpan::at(14, 9))
    );
    assert_eq!(build.steps[2].name, Template::default_of("echo done".into()));
    assert_eq!(
        (test.needs.clone(), test.runs_on.clone(), test.timeout_minutes.clone()),
        (vec!["build".into()], vec![], Template::default_of(360))
    );
    assert_eq!(plan.check_name(build), "helios-ci / Build and test / Build it");
}

#[test]
fn whether_a_file_is_wanted() {
    let file = |on: &str| format!("on: {on}\njobs: {{a: {{steps: [{{run: x}}]}}}}");
    let branch = push("refs/heads/feature/x");
    let tag = push("refs/tags/v1.0");
    for (on, branch_runs, tag_runs) in [
        ("push", true, true),
        ("[pull_request, push]", true, true),
        ("{push: }", true, true),
        ("{push: {branches: ['feature/**']}}", true, false),
        ("{push: {branches: ['**', '!feature/*']}}", false, false),
        ("{push: {branches-ignore: main}}", true, false),
        ("{push: {tags: ['v1.*']}}", false, true),
        ("{push: {tags-ignore: ['v1.*']}}", false, false),
        ("{push: {branches: [main], tags: ['v*']}}", false, true),
        ("pull_request", false, false),
        ("{schedule: [{cron: '0 0 * * *'}]}", false, false),
        ("{pull_request: {branches: [main], paths: [x]}}", false, false),
    ] {
        for (event, runs) in [(&branch, branch_runs), (&tag, tag_runs)] {
            let wanted = read(PATH, file(on).as_bytes(), event, &DEFAULTS);
            assert_eq!(matches!(wanted, Wanted::Wanted(_)), runs, "{on}: {wanted:?}");
            assert!(!matches!(wanted, Wanted::Invalid(_)), "{on}: {wanted:?}");
        }
    }
    let wanted = |on: &str, event: &Event| read(PATH, file(on).as_bytes(), event, &DEFAULTS);
    assert!(matches!(wanted("workflow_dispatch", &manual()), Wanted::Wanted(_)));
    assert!(matches!(
        wanted("[push, workflow_dispatch]", &branch),
        Wanted::Wanted(_)
    ));
    assert_eq!(
        wanted("push", &manual()),
        Wanted::NotWanted("it listens to `push`, not to `workflow_dispatch`".into())
    );
    assert_eq!(
        wanted("{push: {branches: main}}", &branch),
        Wanted::NotWanted("its `push` filters do not let the branch `feature/x` through".into())
    );
}

#[test]
fn a_file_for_other_events_is_not_wanted_whatever_it_uses() {
    let text =
        "on: pull_request\njobs: {a: {strategy: {matrix: {x: [1]}}, runs-on: '${{ matrix.x }}'}}\npermissions: {}";
    assert!(matches!(
        read(PATH, text.as_bytes(), &push("refs/heads/main"), &DEFAULTS),
        Wanted::NotWanted(_)
    ));
    let text = text.replace("pull_request", "[pull_request, push]");
    let Wanted::Invalid(found) = read(PATH, text.as_bytes(), &push("refs/heads/main"), &DEFAULTS) else {
        panic!()
    };
    assert!(
        found
            .iter()
            .any(|d| d.message == "`strategy` in a job is not supported yet"),
        "{found:?}"
    );
}

#[test]
fn what_is_wrong_below_events_that_start_no_run_here_keeps_no_push_from_its_run() {
    let file = |on: &str| format!("on: {on}\njobs: {{a: {{runs-on: x, steps: [{{run: x}}]}}}}");
    let branch = push("refs/heads/main");
    for other in [
        "schedule: [{cron: '@daily'}]",
        "schedule: ",
        "pull_request: {types: [opend]}",
        "pull_request: {branches: ['v[']}",
        "pull_request: {branches: [a], branches-ignore: [b]}",
        "pull_request: main",
        "workflow_call: {inputs: {a: {}}}",
        "create: {types: [x]}",
    ] {
        let alone = file(&format!("{{{other}}}"));
        let beside = file(&format!("{{push: , workflow_dispatch: , {other}}}"));
        let answer = |text: &str, event| read(PATH, text.as_bytes(), event, &DEFAULTS);
        for event in [&branch, &manual()] {
            let not_wanted = answer(&alone, event);
            assert!(matches!(not_wanted, Wanted::NotWanted(_)), "{other}: {not_wanted:?}");
            let wanted = answer(&beside, event);
            assert!(matches!(wanted, Wanted::Wanted(_)), "{other}: {wanted:?}");
        }
        assert!(validate(PATH, beside.as_bytes(), &DEFAULTS).is_ok(), "{other}");
        // Who wrote it is told.
        assert!(findings(PATH, beside.as_bytes()).errors > 0, "{other}");
    }
    // What stands below the other event that starts runs counts where the file is wanted.
    let text = file("{push: {branches: ['v[']}, workflow_dispatch: }");
    assert!(matches!(
        read(PATH, text.as_bytes(), &manual(), &DEFAULTS),
        Wanted::Invalid(_)
    ));
    let text = file("{workflow_dispatch: {inputs: {a: {type: choice}}}}");
    assert!(matches!(
        read(PATH, text.as_bytes(), &branch, &DEFAULTS),
        Wanted::NotWanted(_)
    ));
    // A name that no event has may be a slip for this one.
    let text = file("{psh: , schedule: [{cron: '@daily'}]}");
    assert!(matches!(
        read(PATH, text.as_bytes(), &branch, &DEFAULTS),
        Wanted::Invalid(_)
    ));
}

#[test]
fn scripts_and_kdl() {
    let Wanted::Wanted(plan) = read(".jci/run.sh", b"\xff", &manual(), &DEFAULTS) else {
        panic!()
    };
    assert_eq!(
        plan.jobs[0].steps[1].action,
        Action::Script {
            path: ".jci/run.sh".into()
        }
    );
    assert!(matches!(
        read("pico.sh", b"", &push("refs/heads/x"), &DEFAULTS),
        Wanted::Wanted(_)
    ));
    for path in [".solstice/workflow.kdl", ".helios/workflows/ci.kdl"] {
        let found = validate(path, b"name \"x\"", &DEFAULTS).unwrap_err();
        assert!(
            found[0].message.contains("KDL workflows are not supported yet"),
            "{found:?}"
        );
    }
}

#[test]
fn golden_diagnostics_of_the_workflow() {
    insta::assert_snapshot!(complaints("onn: push\njbos: {}\npermissions: read-all\n'<<': 1"), @r#"
1:1: unknown key `onn` in a workflow (did you mean `on`?)
1:1: a workflow has no `on`
1:1: a workflow has no `jobs`
2:1: unknown key `jbos` in a workflow (did you mean `jobs`?)
3:1: `permissions` in a workflow is not supported yet (no token of the forge reaches the machine, so there is nothing to limit; remove it)
4:1: unknown key `<<` in a workflow (possible here: `name`, `description`, `run-name`, `on`, `permissions`, `env`, `defaults`, `concurrency`, `enable-email-notifications`, `enable-openid-connect`, `jobs`)
"#);
    insta::assert_snapshot!(complaints("on: [push, pusj, wat]\nname: [a]\njobs: {}"), @r#"
1:12: unknown event `pusj` (did you mean `push`?)
1:18: unknown event `wat` (did you mean `watch`?)
2:7: `name` must be a text, not a list
3:7: the workflow must have at least one job
"#);
    insta::assert_snapshot!(complaints("- a"), @r#"
1:1: a workflow must be a mapping, not a list
"#);
    insta::assert_snapshot!(complaints(""), @r#"
1:1: the file is empty
"#);
    insta::assert_snapshot!(complaints("on: push\njobs: {a: &x {steps: [{run: x}]}, b: *y}"), @r#"
2:38: this is not valid YAML: while parsing node, found unknown anchor
"#);
    insta::assert_snapshot!(complaints("on: push\non: push\njobs:\n  a: {<<: {}, steps: []}"), @r#"
2:1: `on` is already defined
4:7: the merge key `<<` is not supported; repeat the entries or alias the whole value
4:22: the job `a` has no `steps`
"#);
    insta::assert_snapshot!(complaints("on:\n  push:\n    branches: [a]\n    branches-ignore: [b]\n    paths: [c]\n    tags: ['v[', 'x y']\n  workflow_dispatch:\n    inputs: {}\njobs: {a: {steps: [{run: x}]}}"), @r#"
4:5: `branches` and `branches-ignore` cannot both be given (put `!` before the patterns to exclude, under `branches`)
5:5: `paths` in the `push` event is not supported yet (without it, every push that the other filters let through runs)
6:12: `v[` is not a pattern: missing `]` after `[`
6:18: `x y` is not a pattern: a branch or tag name cannot contain ' '
8:5: `inputs` in the `workflow_dispatch` event is not supported yet (write the values into the file)
"#);
    insta::assert_snapshot!(complaints("on: push\njobs: {a: {steps: [{run: x}]}}\n---\nb: 1"), @r#"
3:1: a workflow file is one YAML document; this begins another
"#);
    insta::assert_snapshot!(complaints("on: push\njobs: {a: {steps: [{run: !secret x}]}}"), @r#"
2:26: the tag `!secret` cannot be used here
"#);
    insta::assert_snapshot!(complaints("on: push\njobs:\n\t a: b"), @r#"
3:3: this is not valid YAML: tabs disallowed within this context (block indentation)
"#);
    insta::assert_snapshot!(complaints("on: push\nenv: {A: {b: c}, 'x=y': 1, '${{ a }}': 2}\njobs: {a: {steps: [{run: x}]}}"), @r#"
2:10: `A` must be a text, not a mapping
2:18: `x=y` cannot be the name of a variable
2:29: expressions (`${{ … }}`) are not supported yet (use a shell variable instead; `$GITHUB_SHA`, `$GITHUB_REF_NAME` and others are set in every step)
"#);
}

#[test]
fn golden_diagnostics_of_jobs() {
    insta::assert_snapshot!(complaints("on: push
jobs:
  a:
    runs-on: [x, y, z]
    if: always()
    step: []
    steps: []
  b:
    runs-on: ${{ matrix.os }}
    timeout-minutes: 0.5
    needs: [c, b, zz]
  c:
    needs: b
    name: \"b\"
    steps:
      - run: x
  A: {steps: [{run: x}]}
  __d: {steps: [{run: x}]}
  1e: {steps: [{run: x}]}
"), @r#"
4:21: `runs-on` with more than a label and a size is not supported yet (write one label, and a size of the server after it if need be: `runs-on: [illumos, large]`)
5:5: `if` in a job is not supported yet (every job and step runs as long as nothing before it failed; test inside the script instead)
6:5: unknown key `step` in a job (did you mean `steps`?)
7:12: the job `a` has no `steps`
8:3: the job `b` has no `steps`
9:14: expressions (`${{ … }}`) are not supported yet (use a shell variable instead; `$GITHUB_SHA`, `$GITHUB_REF_NAME` and others are set in every step)
10:22: `timeout-minutes` must be a whole number from 1 to 50400
11:13: the job `b` needs `c`, which in turn needs it: a cycle
11:16: the job `b` needs itself
11:19: the job `b` needs `zz`, which does not exist
"#);
    insta::assert_snapshot!(complaints("on: push\njobs:\n  a: {needs: b, steps: [{run: x}]}\n  b: {needs: a, steps: [{run: x}]}"), @r#"
3:3: the workflow must have at least one job without `needs`
"#);
    insta::assert_snapshot!(complaints("on: push\njobs:\n  s: {steps: [{run: x}]}\n  a: {needs: [s, c], steps: [{run: x}]}\n  b: {needs: a, steps: [{run: x}]}\n  c: {needs: b, steps: [{run: x}]}\n  d: {needs: c, steps: [{run: x}]}"), @r#"
4:18: the job `a` needs `c`, which in turn needs it: a cycle
5:14: the job `b` needs `a`, which in turn needs it: a cycle
6:14: the job `c` needs `b`, which in turn needs it: a cycle
"#);
    insta::assert_snapshot!(complaints("on: push\njobs:\n  a: {name: same, steps: [{run: x}]}\n  b: {name: same, runs-on: 'a b', steps: [{run: x}]}\n  c: {runs-on: {group: x}, uses: ./x.yml}"), @r#"
4:13: the jobs `a` and `b` are both called `same` (give them different names: each is a check of its own on the forge)
4:28: `a b` is not a label: 1 to 64 letters, digits, `-`, `_` and `.`, the first a letter or digit
5:17: `group` in `runs-on` is not supported yet (write one label, and a size of the server after it if need be: `runs-on: [illumos, large]`)
5:28: `runs-on` and `uses` cannot both stand in a job (remove one of them)
"#);
}

#[test]
fn golden_diagnostics_of_steps() {
    insta::assert_snapshot!(complaints(&with_steps("
      - runn: x
      - {}
      - run: x
        uses: actions/checkout@v4
      - uses: actions/setup-node@v4
      - uses: ./local
      - uses: checkout
      - run: x
        shell: pwsh
      - run: x
        shell: bsh
")), @r#"
7:9: unknown key `runn` in a step (did you mean `run`?)
8:9: a step needs `run` or `uses`
10:9: `run` and `uses` cannot both stand in a step (remove one of them)
11:15: the action `actions/setup-node@v4` is not supported yet (the only action so far is `actions/checkout`, built in; use `run` for everything else)
12:15: the action `./local` is not supported yet (the only action so far is `actions/checkout`, built in; use `run` for everything else)
13:15: `checkout` is not an action (write `owner/name@version`, for example `actions/checkout@v4`, `./folder` or `docker://image`)
15:16: the shell `pwsh` is not supported yet (supported: `bash`, `sh` and `python`)
17:16: unknown shell `bsh` (did you mean `bash`?)
"#);
    insta::assert_snapshot!(complaints(&with_steps("
      - uses: actions/checkout@v4
        shell: bash
        with: {fetch-depth: -1, ref: main, pth: x}
      - uses: actions/checkout@v4
        with: {path: ../x, submodules: true}
      - run: x
        working-directory: /tmp
        id: one
        if: failure()
      - run: |
          echo a
          echo ü ${{ secrets.X }}
        id: ONE
      - run: ''
        continue-on-error: maybe
")), @r#"
8:9: `uses` and `shell` cannot both stand in a step (remove one of them)
9:29: `fetch-depth` must be a whole number from 0 to 2147483647
9:33: the input `ref` of `actions/checkout` is not supported yet (supported here: `fetch-depth`, `path`, `persist-credentials`, `submodules`, `lfs`)
9:44: `actions/checkout` has no input `pth` (did you mean `path`?)
11:22: `path` `../x` is not a path inside the workspace (write a relative path, such as `build`)
13:28: `working-directory` `/tmp` is not a path inside the workspace (write a relative path, such as `build`)
15:9: `if` in a step is not supported yet (every job and step runs as long as nothing before it failed; test inside the script instead)
18:18: expressions (`${{ … }}`) are not supported yet (use a shell variable instead; `$GITHUB_SHA`, `$GITHUB_REF_NAME` and others are set in every step)
19:13: the step id `ONE` is already taken by `one`: ids are unique ignoring case
20:14: `run` cannot be empty
"#);
}

#[test]
fn positions_in_aliases_and_byte_order_marks() {
    let text = "\u{feff}on: push\njobs:\n  a: &job\n    steps:\n      - run: x\n        iff: y\n  b: *job\n";
    insta::assert_snapshot!(complaints(text), @r#"
6:9: unknown key `iff` in a step (did you mean `if`?)
"#);
    let found = validate(PATH, b"on: push\nn\xc3\xbcm\xff", &DEFAULTS).unwrap_err();
    assert_eq!((found[0].line, found[0].column), (2, 4), "{found:?}");
}

#[test]
fn at_most_ten_complaints() {
    let text = with_steps(&"      - run: x\n        iff: y\n".repeat(50));
    assert_eq!(complaints(&text).lines().count(), 10);
}

#[test]
fn bombs_cost_little() {
    let started = std::time::Instant::now();
    let mut laughs = String::from("on: push\njobs: {}\na0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for i in 1..40 {
        let before = format!("*a{}, ", i - 1).repeat(9);
        writeln!(laughs, "a{i}: &a{i} [{before}]").unwrap();
    }
    assert!(
        complaints(&laughs).contains("aliases expanded"),
        "{}",
        complaints(&laughs)
    );
    let long = format!("a: &a '{}'\nb: [{}]", "x".repeat(500_000), "*a, ".repeat(1000));
    assert!(complaints(&long).contains("aliases expanded"));
    // So deep that the parser itself gives up, and less deep than that.
    assert!(complaints(&"[".repeat(1000)).contains("recursion limit"));
    assert!(complaints(&("[".repeat(60) + &"]".repeat(60))).contains("deeper"));
    assert!(complaints(&"- ".repeat(60)).contains("deeper"));
    let keys: String = (0..80_000).fold(String::new(), |mut all, i| {
        writeln!(all, "k{i}: 1").unwrap();
        all
    });
    assert!(complaints(&keys).contains("values"));
    assert!(complaints(&"x".repeat(MAX_FILE + 1)).contains("longer than"));
    assert!(
        complaints("a: &a [*a]").contains("inside"),
        "{}",
        complaints("a: &a [*a]")
    );
    // Each of them takes milliseconds; the bound only has to tell them from an exponential one.
    assert!(started.elapsed() < deadline::PROMPT, "{:?}", started.elapsed());
}

#[test]
fn checks_of_equal_names_across_files() {
    let make = |path: &str, name: &str, job: &str| {
        let text = format!("name: {name}\non: push\njobs:\n  {job}:\n    steps: [{{run: x}}]\n");
        validate(path, text.as_bytes(), &DEFAULTS).unwrap()
    };
    let (a, b, c) = (
        make("a.yml", "CI", "build"),
        make("b.yml", "CI", "build"),
        make("c.yml", "CI", "test"),
    );
    let found: Vec<String> = equal_checks(&[&a, &b, &c]).iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "b.yml:4:3: the check `helios-ci / CI / build` is also made by `a.yml` (give the workflows different names with `name:`)"
        ]
    );
}

#[test]
fn the_environment_of_a_step() {
    let text = "on: push\nenv: {A: workflow, GITHUB_SHA: forged, CI: mine}\njobs: {a: {env: {A: job, B: job}, steps: [{run: x, env: {A: step}}]}}";
    let plan = validate(PATH, text.as_bytes(), &DEFAULTS).unwrap();
    let Wanted::Wanted(pico) = read("pico.sh", b"", &manual(), &DEFAULTS) else {
        panic!()
    };
    let Wanted::Wanted(jci) = read(".jci/run.sh", b"", &manual(), &DEFAULTS) else {
        panic!()
    };
    let (repository, ref_name) = ("o/r".parse().unwrap(), "refs/heads/f/x".parse().unwrap());
    let commit = "b".repeat(40).parse().unwrap();
    let (run, job_id) = (crate::model::ids::RunId::new(), crate::model::ids::JobId::new());
    let context = JobContext {
        workflow: &plan.name,
        job: &plan.jobs[0],
        job_id,
        repository: &repository,
        event: "push",
        ref_name: &ref_name,
        commit: &commit,
        run,
        run_attempt: 2,
        workspace: "/w",
    };
    let get = |env: &Env, name: &str| {
        let all: Vec<_> = env.iter().filter(|(n, _)| n == name).map(|(_, v)| v.clone()).collect();
        assert!(all.len() < 2, "{name} is set twice");
        all.into_iter().next()
    };
    let own = [&plan.env, &plan.jobs[0].env, &plan.jobs[0].steps[0].env].map(|env| values(env, str::to_owned).unwrap());
    let env = environment(&context, own.each_ref());
    for (name, value) in [
        ("A", "step"),
        ("B", "job"),
        ("CI", "mine"),
        ("HELIOS_CI", "true"),
        ("GITHUB_SHA", commit_text()),
        ("GITHUB_REF_NAME", "f/x"),
        ("GITHUB_REF", "refs/heads/f/x"),
        ("GITHUB_JOB", "a"),
        ("GITHUB_RUN_ATTEMPT", "2"),
        ("GITHUB_WORKSPACE", "/w"),
        ("GITHUB_WORKFLOW", PATH),
    ] {
        assert_eq!(get(&env, name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(get(&env, "GITHUB_ACTIONS"), None);
    assert_eq!(get(&env, "JCI_COMMIT"), None);
    // The README names what is set, and what whoever knows GitHub would miss.
    let readme = include_str!("../../../README.md");
    let said = readme.split("**Values from step to step**").nth(1).unwrap();
    let said = said.split("\n- ").next().unwrap();
    let (missing, set) = said.split_once("but for").unwrap();
    let names = |text: &str| -> std::collections::BTreeSet<String> {
        let quoted = text.split('`').skip(1).step_by(2);
        quoted
            .filter(|name| name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'))
            .map(str::to_owned)
            .collect()
    };
    let ours: std::collections::BTreeSet<String> = job_env(&context).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names(set), ours);
    assert!(names(missing).len() > 5 && names(missing).is_disjoint(&ours));
    let env = job_env(&JobContext {
        job: &jci.jobs[0],
        ..context
    });
    assert_eq!(
        get(&env, "JCI_OUTPUT_DIR").unwrap(),
        format!("/w/.jci/{}", commit_text())
    );
    assert_eq!(get(&env, "JCI_REPO_ROOT").unwrap(), "/w");
    let env = job_env(&JobContext {
        job: &pico.jobs[0],
        ..context
    });
    assert_eq!(get(&env, "PICI_BRANCH").unwrap(), "f/x");
    assert_eq!(get(&env, "PICO_CI_JOB_ID").unwrap(), job_id.to_string());
    assert_eq!(get(&env, "PICO_CI_REPO").unwrap(), "o/r");
}

fn commit_text() -> &'static str {
    "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
}

/// Text that is nearly a workflow, so that the walk is reached.
fn nearly() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("on".to_owned()),
        Just("push".into()),
        Just("jobs".into()),
        Just("steps".into()),
        Just("run".into()),
        Just("needs".into()),
        Just("a".into()),
        Just("${{ x }}".into()),
        Just("*a".into()),
        Just("&a".into()),
        Just("!!int 3".into()),
        Just("env".into()),
        Just("uses".into()),
        Just("strategy".into()),
        Just("matrix".into()),
        Just("if".into()),
        Just("with".into()),
        Just("runs-on".into()),
        Just("permissions".into()),
        Just("<<".into()),
        "\\PC{0,5}"
    ];
    let piece = (
        0usize..6,
        word,
        prop_oneof![
            Just(": "),
            Just(":\n"),
            Just("\n"),
            Just(", "),
            Just("- "),
            Just("{"),
            Just("}"),
            Just("[")
        ],
    );
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| {
        pieces
            .iter()
            .fold(String::from("on: push\njobs:\n"), |mut text, (indent, word, end)| {
                write!(text, "{}{word}{end}", " ".repeat(*indent)).unwrap();
                text
            })
    })
}

proptest! {
    #[test]
    fn any_bytes_are_read_to_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _answer = validate(PATH, &bytes, &DEFAULTS);
    }

    #[test]
    fn nearly_workflows_are_read_to_an_answer(text in nearly()) {
        if let Err(found) = validate(PATH, text.as_bytes(), &DEFAULTS) {
            prop_assert!(!found.is_empty() && found.len() <= 200);
            let lines = u32::try_from(text.lines().count()).unwrap() + 1;
            prop_assert!(found.iter().all(|d| d.line >= 1 && d.line <= lines && d.column >= 1), "{:?}", found);
            // Each by a code that is explained.
            prop_assert!(found.iter().all(|d| Code::named(&d.code).is_some_and(|code| code.severity() == d.severity)));
        }
    }

    #[test]
    fn what_is_accepted_never_leaves_the_workspace(path in "[./a~ ]{0,12}") {
        let text = with_steps(&format!("      - run: x\n        working-directory: '{path}'\n"));
        if let Ok(plan) = validate(PATH, text.as_bytes(), &DEFAULTS)
            && let Action::Run { working_directory: Some(dir), .. } = &plan.jobs[0].steps[0].action
        {
            let dir = dir.shown();
            prop_assert!(!dir.starts_with('/') && dir.split('/').all(|part| part != ".."), "{}", dir);
        }
    }
}
