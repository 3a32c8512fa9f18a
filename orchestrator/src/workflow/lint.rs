//! Advice on a valid workflow: what runs, and probably not as it was meant. Each lint is right or silent; none looks
//! into what a script does.
//!
//! A missing `timeout-minutes` is not among them: the configuration gives every job a limit, so nothing runs for ever.

use std::collections::{HashMap, HashSet};

use super::{
    check::expressions,
    code::Code,
    step::MAX_SCRIPT,
    untrusted,
    walk::{Walk, shown},
};
use crate::yaml::{Kind, Node, Scalar, Span, Value};

/// Owners whose actions GitHub itself keeps.
const FIRST_PARTY: [&str; 2] = ["actions", "github"];

/// Workflow commands that were replaced, and by what.
const DEPRECATED: [(&str, &str); 4] = [
    ("::set-output ", "echo \"name=value\" >> \"$GITHUB_OUTPUT\""),
    ("::save-state ", "echo \"name=value\" >> \"$GITHUB_STATE\""),
    ("::set-env ", "echo \"name=value\" >> \"$GITHUB_ENV\""),
    ("::add-path::", "echo \"path\" >> \"$GITHUB_PATH\""),
];

/// Looks at all jobs of a workflow.
pub(super) fn check(walk: &mut Walk<'_>, root: &Node) {
    let Some(Value::Mapping(jobs)) = root.get("jobs").map(|jobs| &jobs.value) else {
        return;
    };
    for (_, job) in jobs {
        always_true(walk, job);
        if let Some(uses) = job.get("uses") {
            pinned(walk, uses);
        }
        if let Some(node) = job.get("steps") {
            steps(walk, node);
        }
    }
    unreachable_jobs(walk, jobs.iter().map(|(key, job)| (key.text.as_str(), key.span, job)));
}

fn steps(walk: &mut Walk<'_>, node: &Node) {
    let Value::Sequence(items) = &node.value else { return };
    for step in items {
        always_true(walk, step);
        if let Some((node, scalar)) = text_of(step.get("run")) {
            script(walk, node, scalar);
            deprecated(walk, node, scalar);
        }
        if let Some(uses) = step.get("uses") {
            pinned(walk, uses);
            let is_script =
                text_of(Some(uses)).is_some_and(|(_, uses)| uses.written.starts_with("actions/github-script@"));
            if is_script && let Some((node, scalar)) = text_of(step.get("with").and_then(|with| with.get("script"))) {
                script(walk, node, scalar);
            }
        }
        if let Some(node) = step.get("parallel") {
            steps(walk, node);
        }
    }
}

fn text_of(node: Option<&Node>) -> Option<(&Node, &Scalar)> {
    let node = node?;
    node.scalar().map(|scalar| (node, scalar))
}

/// Text around an expression makes a text of the whole, and one that is not empty is true.
fn always_true(walk: &mut Walk<'_>, node: &Node) {
    let Some((node, scalar)) = text_of(node.get("if")) else {
        return;
    };
    let text = &scalar.written;
    let mut all = expressions(text);
    let Some(Some(first)) = all.next() else { return };
    let whole = "${{".len() + first.len() + "}}".len();
    if whole == text.len() && text.starts_with("${{") {
        return;
    }
    let help = if text.trim().len() == whole && text.trim().starts_with("${{") {
        "the line break or blank around `${{ … }}` is text as well: write it in one line, or leave `${{` and `}}` out"
    } else {
        "put all of it inside of one `${{ … }}`, or leave `${{` and `}}` out"
    };
    walk.report_help(
        Code::AlwaysTrue,
        node.span,
        "this `if` is always true: there is text outside of `${{ … }}`",
        help,
    );
}

/// A script into which outsiders can write. A longer one than may run is not looked through.
fn script(walk: &mut Walk<'_>, node: &Node, scalar: &Scalar) {
    if scalar.written.chars().count() > MAX_SCRIPT {
        return;
    }
    for text in expressions(&scalar.written).flatten() {
        let Some(path) = untrusted::path(text) else { continue };
        let span = walk.span_inside(Code::ScriptInjection, node.span, &scalar.bytes, text.trim());
        walk.report_with(Code::ScriptInjection, span, || {
            let path = shown(&path);
            (
                format!("`{path}` is text that an outsider chooses, and becomes part of the script"),
                Some(format!(
                    "below `env` of the step write `TEXT: ${{{{ {path} }}}}`, and in the script `\"$TEXT\"`"
                )),
            )
        });
    }
}

fn deprecated(walk: &mut Walk<'_>, node: &Node, scalar: &Scalar) {
    for (command, instead) in DEPRECATED {
        if scalar.written.contains(command) {
            let name = command.trim_matches([':', ' ']);
            let span = walk.span_inside(Code::DeprecatedCommand, node.span, &scalar.bytes, command.trim_end());
            walk.report_help(
                Code::DeprecatedCommand,
                span,
                format!("the workflow command `{name}` is deprecated"),
                format!("write to the file instead: `{instead}`"),
            );
        }
    }
}

/// Somebody else's action is pinned by a full commit id.
fn pinned(walk: &mut Walk<'_>, node: &Node) {
    let Some(scalar) = node.scalar() else { return };
    let text = &scalar.written;
    let Some((action, version)) = text.split_once('@') else {
        return;
    };
    if text.starts_with('.') || text.starts_with('$') || text.contains("://") || text.contains("${{") {
        return;
    }
    let owner = action.split('/').next().unwrap_or_default();
    let is_commit = version.len() == 40 && version.bytes().all(|b| b.is_ascii_hexdigit());
    if is_commit || FIRST_PARTY.contains(&owner) {
        return;
    }
    walk.report_help(
        Code::UnpinnedAction,
        node.span,
        format!(
            "`{}` can change: `{}` is not a full commit id",
            shown(action),
            shown(version)
        ),
        "write the commit's 40 digits, and the version as a comment behind them",
    );
}

/// A job that is switched off, and all that need it and do not ask how it ended.
fn unreachable_jobs<'n>(walk: &mut Walk<'_>, jobs: impl Iterator<Item = (&'n str, Span, &'n Node)>) {
    let jobs: Vec<_> = jobs.collect();
    let dependents = dependents(jobs.iter().map(|(_, _, job)| *job));
    let mut open: Vec<usize> = (0..jobs.len()).filter(|at| is_never(jobs[*at].2)).collect();
    let mut reason: HashMap<usize, String> = HashMap::new();
    let mut seen: HashSet<usize> = open.iter().copied().collect();
    while let Some(at) = open.pop() {
        let (id, span, job) = jobs[at];
        let span = if reason.contains_key(&at) {
            span
        } else {
            job.get("if").map_or(span, |node| node.span)
        };
        walk.report_with(Code::UnreachableJob, span, || {
            let message = match reason.get(&at) {
                Some(need) => format!(
                    "the job `{}` never runs: it needs `{need}`, which never runs",
                    shown(id)
                ),
                None => format!("the job `{}` never runs: its `if` is never true", shown(id)),
            };
            (message, None)
        });
        for next in dependents.get(&id.to_lowercase()).into_iter().flatten() {
            // Each condition is looked through once: the answer is the same for all that the job needs.
            if seen.insert(*next) {
                walk.visit();
                if !asks_how_it_ended(jobs[*next].2) {
                    reason.insert(*next, shown(id));
                    open.push(*next);
                }
            }
        }
    }
}

/// Which jobs need a job, each of them once, by its id in lower case.
fn dependents<'n>(jobs: impl Iterator<Item = &'n Node>) -> HashMap<String, Vec<usize>> {
    let mut dependents: HashMap<String, Vec<usize>> = HashMap::new();
    for (at, job) in jobs.enumerate() {
        for need in needs(job) {
            let all = dependents.entry(need.to_lowercase()).or_default();
            if all.last() != Some(&at) {
                all.push(at);
            }
        }
    }
    dependents
}

fn needs(job: &Node) -> Vec<String> {
    let Some(node) = job.get("needs") else {
        return Vec::new();
    };
    let items = match &node.value {
        Value::Sequence(items) => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    items
        .iter()
        .filter_map(Node::scalar)
        .map(|scalar| scalar.text().into_owned())
        .collect()
}

fn is_never(job: &Node) -> bool {
    let Some((_, scalar)) = text_of(job.get("if")) else {
        return false;
    };
    let text = scalar.text();
    let bare = text.trim();
    let inner = bare.strip_prefix("${{").and_then(|rest| rest.strip_suffix("}}"));
    // With a line break behind it, the second form is a text, and true.
    matches!(scalar.kind, Kind::Bool(false))
        || bare == "false"
        || (inner.is_some_and(|t| t.trim() == "false") && bare == text)
}

/// Whether a job's `if` names a status function, without which `success()` is implied.
fn asks_how_it_ended(job: &Node) -> bool {
    text_of(job.get("if")).is_some_and(|(_, scalar)| {
        let text = scalar.written.to_lowercase();
        ["always", "failure", "cancelled", "success"]
            .iter()
            .any(|name| text.contains(name))
    })
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            findings, text,
            walk::{Below, Walk},
        },
        check, dependents,
    };

    /// What is advised of a file with one job that holds this, as `line: message`.
    fn advice(jobs: &str) -> String {
        let text = format!("on: push\njobs:\n{jobs}");
        let found = findings("ci.yml", text.as_bytes()).diagnostics;
        let advice = found.iter().filter(|d| !d.severity.refuses());
        advice
            .map(|d| format!("{}:{}: {} [{}]\n", d.line, d.column, d.message, d.code))
            .collect()
    }

    fn step(step: &str) -> String {
        advice(&format!("  a:\n    runs-on: x\n    steps:\n      - {step}\n"))
    }

    #[test]
    fn text_around_an_expression_makes_a_condition_true() {
        for condition in ["${{ false }} ", "! ${{ a }}", "${{ a }} && ${{ b }}", "${{ a }} == 'x'"] {
            let said = step(&format!("{{run: x, if: \"{condition}\"}}"));
            assert!(said.contains("[if-always-true]"), "{condition}: {said}");
        }
        assert!(step("{run: x}\n      - run: x\n        if: |\n          ${{ a }}\n").contains("[if-always-true]"));
        for condition in ["${{ a && b }}", "a == 'x'", "${{ a == '}}' }}", "always()"] {
            assert_eq!(step(&format!("{{run: x, if: \"{condition}\"}}")), "", "{condition}");
        }
    }

    #[test]
    fn what_outsiders_choose_does_not_belong_into_a_script() {
        insta::assert_snapshot!(step("run: |\n          echo a\n          echo ${{ github.head_ref }}\n"), @"8:20: `github.head_ref` is text that an outsider chooses, and becomes part of the script [script-injection]");
        assert_eq!(step("{run: x, env: {A: '${{ github.head_ref }}'}}"), "");
        assert_eq!(step("run: echo ${{ github.sha }} ${{ github.head_ref == 'x' }}"), "");
        let script = "{uses: actions/github-script@v7, with: {script: 'f(\"${{ github.event.issue.title }}\")'}}";
        assert!(step(script).contains("[script-injection]"));
    }

    #[test]
    fn actions_of_others_are_pinned_by_a_commit() {
        assert!(
            step("uses: owner/name@v1")
                .contains("`owner/name` can change: `v1` is not a full commit id [unpinned-action]")
        );
        assert!(step(&format!("uses: owner/name@{}", "a".repeat(39))).contains("[unpinned-action]"));
        for uses in ["actions/cache@v4", "github/x@v1", "./a", "docker://alpine:3"] {
            assert_eq!(step(&format!("uses: {uses}")), "", "{uses}");
        }
        assert_eq!(step(&format!("uses: owner/name@{}", "a".repeat(40))), "");
        let call = advice("  a: {uses: o/r/.github/workflows/x.yml@main}\n");
        assert!(call.contains("[unpinned-action]"), "{call}");
    }

    #[test]
    fn commands_that_files_replaced_are_named() {
        let said = step("run: echo '::set-output name=a::b'");
        assert!(
            said.contains("the workflow command `set-output` is deprecated [deprecated-command]"),
            "{said}"
        );
        assert!(step("run: echo '::add-path::/x'").contains("`add-path`"));
        assert_eq!(step("run: echo '::notice::set-output'"), "");
    }

    #[test]
    fn a_condition_is_looked_through_once_however_often_its_job_needs_others() {
        let never: String = (0..50).map(|at| format!("x{at}: {{if: false}}, ")).collect();
        let needs: String = (0..50).map(|at| format!("x{at}, ").repeat(100)).collect();
        let source = format!("jobs: {{{never} b: {{if: always(), needs: [{needs}]}}, c: {{needs: [{needs}]}}}}");
        let root = text::read(&source, &text::RULES).root.unwrap();
        let mut walk = Walk::new("ci.yml", &source, Below::All);
        check(&mut walk, &root);
        let found = walk.finish();
        assert_eq!((found.visits, found.diagnostics.len()), (2, 51));
        let jobs = ["b", "c"].map(|id| root.get("jobs").and_then(|jobs| jobs.get(id)).unwrap());
        assert!(dependents(jobs.into_iter()).values().all(|all| *all == [0, 1]));
    }

    #[test]
    fn a_job_that_is_switched_off_takes_others_with_it() {
        let job = |id: &str, more: &str| format!("  {id}: {{runs-on: x, {more}steps: [{{run: x}}]}}\n");
        let jobs = job("a", "if: false, ")
            + &job("b", "needs: a, ")
            + &job("c", "needs: [B], if: always(), ")
            + &job("d", "needs: c, ")
            + &job("e", "if: '${{ false }}', ");
        insta::assert_snapshot!(advice(&jobs), @r#"
3:23: the job `a` never runs: its `if` is never true [unreachable-job]
4:3: the job `b` never runs: it needs `a`, which never runs [unreachable-job]
7:23: the job `e` never runs: its `if` is never true [unreachable-job]
"#);
    }
}
