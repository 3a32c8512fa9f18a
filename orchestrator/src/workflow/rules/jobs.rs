//! `jobs`: ids, the graph of `needs`, and what a job must have.

use std::collections::{HashMap, HashSet};

use super::{
    super::{
        code::Code,
        walk::{Walk, shown},
    },
    ids, matrix, steps,
};
use crate::yaml::{Key, Node, Span, Value, nearest};

/// One job, with where each of its `needs` stands.
struct Job<'n> {
    key: &'n Key,
    /// The spelling, its place, and which job it is.
    needs: Vec<(String, Span, Option<usize>)>,
}

/// Checks a whole workflow's jobs, and the shells that it names.
pub(in super::super) fn check(walk: &mut Walk<'_>, root: &Node) {
    steps::defaults(walk, root);
    let Some(node) = root.get("jobs") else { return };
    let Value::Mapping(entries) = &node.value else { return };
    if entries.is_empty() {
        walk.report(Code::EmptyValue, node.span, "the workflow must have at least one job");
    }
    let mut index: HashMap<String, usize> = HashMap::new();
    for (at, (key, _)) in entries.iter().enumerate() {
        // An empty id was complained about as an empty key.
        if key.text.is_empty() || key.text.contains("${{") || !ids::check(walk, key.span, &key.text, "job") {
            continue;
        }
        if let Some(first) = index.get(&key.text.to_lowercase()) {
            let message = format!(
                "the job id `{}` is already taken by `{}`: ids are unique ignoring case",
                key.text, entries[*first].0.text
            );
            walk.report(Code::DuplicateId, key.span, message);
        } else {
            index.insert(key.text.to_lowercase(), at);
        }
    }
    let jobs: Vec<Job<'_>> = entries
        .iter()
        .map(|(key, job)| Job {
            key,
            needs: needs(job, &index),
        })
        .collect();
    unknown(walk, &jobs);
    graph(walk, &jobs);
    for (key, job) in entries {
        one(walk, key, job);
    }
}

fn needs(job: &Node, index: &HashMap<String, usize>) -> Vec<(String, Span, Option<usize>)> {
    let Some(node) = job.get("needs") else {
        return Vec::new();
    };
    let items = match &node.value {
        Value::Sequence(items) => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    let named = items.iter().filter_map(|item| Some((item, item.scalar()?.text())));
    named
        .filter(|(_, text)| !text.is_empty() && !text.contains("${{"))
        .map(|(item, text)| (text.to_string(), item.span, index.get(&text.to_lowercase()).copied()))
        .collect()
}

fn unknown(walk: &mut Walk<'_>, jobs: &[Job<'_>]) {
    // A job whose id is wrong still counts as a name that others may need.
    let names: HashSet<String> = jobs.iter().map(|job| job.key.text.to_lowercase()).collect();
    for job in jobs {
        let mut seen = HashSet::new();
        for (name, span, to) in &job.needs {
            match to {
                Some(to) if !seen.insert(*to) => {
                    walk.report_with(Code::RepeatedNeed, *span, || {
                        let message = format!("the job `{}` needs `{}` twice", shown(&job.key.text), shown(name));
                        (message, None)
                    });
                }
                None if !walk.is_full() && !names.contains(&name.to_lowercase()) => {
                    let message = format!(
                        "the job `{}` needs `{}`, which does not exist",
                        shown(&job.key.text),
                        shown(name)
                    );
                    let known = jobs.iter().map(|job| job.key.text.as_str()).take(256);
                    match nearest(name, known) {
                        Some(near) => {
                            walk.report_help(Code::UnknownNeed, *span, message, format!("did you mean `{near}`?"));
                        }
                        None => walk.report(Code::UnknownNeed, *span, message),
                    }
                }
                _ => {}
            }
        }
    }
}

/// No job may wait for itself by any way, so one at least waits for none.
fn graph(walk: &mut Walk<'_>, jobs: &[Job<'_>]) {
    let all_known = jobs.iter().flat_map(|job| &job.needs).all(|(_, _, to)| to.is_some());
    if !jobs.is_empty() && all_known && jobs.iter().all(|job| !job.needs.is_empty()) {
        let message = "the workflow must have at least one job without `needs`";
        walk.report(Code::NeedsCycle, jobs[0].key.span, message);
        return;
    }
    let circle = circles(jobs);
    for (from, job) in jobs.iter().enumerate() {
        for (_, span, to) in &job.needs {
            let Some(to) = to.filter(|to| circle[*to] == circle[from]) else {
                continue;
            };
            walk.report_with(Code::NeedsCycle, *span, || {
                let id = shown(&job.key.text);
                let message = if to == from {
                    format!("the job `{id}` needs itself")
                } else {
                    let need = shown(&jobs[to].key.text);
                    format!("the job `{id}` needs `{need}`, which in turn needs it: a cycle")
                };
                (message, None)
            });
        }
    }
}

/// For each job the circle that it is in, by Tarjan's algorithm, in time of jobs and needs together; jobs that are in
/// none have a number of their own.
fn circles(jobs: &[Job<'_>]) -> Vec<usize> {
    const UNSEEN: usize = usize::MAX;
    let (mut order, mut low) = (vec![UNSEEN; jobs.len()], vec![UNSEEN; jobs.len()]);
    let mut circle = vec![UNSEEN; jobs.len()];
    let (mut counter, mut path) = (0, Vec::new());
    for root in 0..jobs.len() {
        if order[root] != UNSEEN {
            continue;
        }
        // A call stack of our own: the job, and which of its needs comes next.
        let mut stack = vec![(root, 0)];
        while let Some((at, next)) = stack.pop() {
            if next == 0 {
                order[at] = counter;
                low[at] = counter;
                counter += 1;
                path.push(at);
            }
            let mut deeper = None;
            for (step, (_, _, to)) in jobs[at].needs.iter().enumerate().skip(next) {
                match to {
                    Some(to) if order[*to] == UNSEEN => {
                        deeper = Some((step, *to));
                        break;
                    }
                    // Still on the path: no circle has taken it yet.
                    Some(to) if circle[*to] == UNSEEN => low[at] = low[at].min(order[*to]),
                    _ => {}
                }
            }
            if let Some((step, to)) = deeper {
                stack.push((at, step + 1));
                stack.push((to, 0));
                continue;
            }
            if low[at] == order[at] {
                while let Some(member) = path.pop() {
                    circle[member] = at;
                    if member == at {
                        break;
                    }
                }
            }
            if let Some((parent, _)) = stack.last() {
                low[*parent] = low[*parent].min(low[at]);
            }
        }
    }
    circle
}

fn one(walk: &mut Walk<'_>, key: &Key, job: &Node) {
    let Value::Mapping(entries) = &job.value else { return };
    let has = |name: &str| entries.iter().any(|(key, _)| key.text == name);
    let id = shown(&key.text);
    steps::defaults(walk, job);
    matrix::check(walk, job);
    if let Some(node) = job.get("uses") {
        calls(walk, node);
    } else if !has("uses") {
        match (has("runs-on"), has("steps")) {
            (false, false) => {
                let help = "a job has `runs-on` and `steps`, or `uses` alone";
                let message = format!("the job `{id}` has neither `steps` nor `uses`");
                walk.report_help(Code::MissingKey, job.span, message, help);
            }
            (true, false) => no_steps(walk, key.span, &id),
            (false, true) => walk.report_help(
                Code::NoRunsOn,
                key.span,
                format!("the job `{id}` has no `runs-on`: it gets this server's default label"),
                "GitHub refuses such a job; write the label out to run the file in both places",
            ),
            (true, true) => {}
        }
    }
    if let Some(node) = job.get("steps") {
        if matches!(&node.value, Value::Sequence(items) if items.is_empty()) {
            no_steps(walk, node.span, &id);
        }
        steps::check(walk, node);
    }
}

fn no_steps(walk: &mut Walk<'_>, at: Span, id: &str) {
    walk.report(Code::NoSteps, at, format!("the job `{id}` has no `steps`"));
}

/// `./.github/workflows/x.yml`, or `owner/name/.github/workflows/x.yml@version`.
fn calls(walk: &mut Walk<'_>, node: &Node) {
    let Some(scalar) = node.scalar() else { return };
    let text = scalar.text();
    let (path, version) = match text.split_once('@') {
        Some((path, version)) => (path, Some(version)),
        None => (text.as_ref(), None),
    };
    let is_file = |path: &str| {
        let ending = std::path::Path::new(path).extension();
        ending.is_some_and(|ending| ending == "yml" || ending == "yaml")
    };
    let is_local = path.starts_with("./") || path.starts_with("$/");
    let sound = match version {
        None => is_local,
        Some(version) => {
            !is_local && !version.is_empty() && path.split('/').filter(|part| !part.is_empty()).count() > 2
        }
    };
    if !sound || !is_file(path) {
        walk.report_help(
            Code::BadWorkflowCall,
            node.span,
            format!("`{}` is not a workflow file", shown(&text)),
            "write `./.github/workflows/x.yml`, or `owner/name/.github/workflows/x.yml@version`",
        );
    }
}
