//! `jobs:`: each job's own keys, and the graph of `needs`.

use std::collections::HashMap;

use super::{
    Defaults,
    literal::literal,
    step,
    walk::{Table, Walk, shown},
};
use crate::{
    model::{
        names::Label,
        plan::{Condition, EnvTemplate, PlanSpan, PlannedJob, Template},
    },
    workflow::common::{MAX_MINUTES, env, id},
    yaml::{Key, Node, Span, Value, nearest},
};

/// Jobs of one file.
const MAX_JOBS: usize = 256;

const JOB: Table = Table {
    what: "a job",
    supported: &["name", "runs-on", "needs", "env", "timeout-minutes", "steps"],
    not_yet: &[
        "cancel-timeout-minutes",
        "concurrency",
        "container",
        "continue-on-error",
        "defaults",
        "environment",
        "if",
        "outputs",
        "permissions",
        "secrets",
        "services",
        "snapshot",
        "strategy",
        "uses",
        "with",
    ],
};

/// One job with the places its checks need.
struct Placed {
    job: PlannedJob,
    key: Span,
    name: Span,
    needs: Vec<Span>,
}

/// Reads the value of `jobs:`.
pub(super) fn read(walk: &mut Walk<'_>, node: &Node, defaults: &Defaults) -> Vec<PlannedJob> {
    let Some(entries) = walk.mapping(node, "`jobs`") else {
        return Vec::new();
    };
    if entries.is_empty() {
        walk.error(node.span, "the workflow must have at least one job");
    }
    if let Some((key, _)) = entries.get(MAX_JOBS) {
        walk.error(key.span, format!("a workflow has at most {MAX_JOBS} jobs"));
        return Vec::new();
    }
    let mut ids: HashMap<String, &str> = HashMap::new();
    let mut jobs = Vec::new();
    for (key, value) in entries {
        if !walk.plain_key(key) || !id(walk, key.span, &key.text, "job") {
            continue;
        }
        if let Some(first) = ids.insert(key.text.to_lowercase(), &key.text) {
            walk.error(
                key.span,
                format!(
                    "the job id `{}` is already taken by `{first}`: ids are unique ignoring case",
                    key.text
                ),
            );
            continue;
        }
        jobs.push(one(walk, key, value, defaults));
    }
    // Jobs that could not be read still count as names others may need.
    let known: Vec<&str> = entries.iter().map(|(key, _)| key.text.as_str()).collect();
    graph(walk, &mut jobs, &known);
    names(walk, &jobs);
    jobs.into_iter().map(|placed| placed.job).collect()
}

fn one(walk: &mut Walk<'_>, key: &Key, node: &Node, defaults: &Defaults) -> Placed {
    let mut placed = Placed {
        job: PlannedJob {
            id: key.text.clone(),
            span: PlanSpan::at(key.span.line, key.span.column),
            name: Template::default_of(key.text.clone()),
            condition: Template::default_of(Condition::Success),
            strategy: None,
            runs_on: Vec::new(),
            needs: Vec::new(),
            env: EnvTemplate::new(),
            timeout_minutes: Template::default_of(defaults.job_timeout_minutes),
            outputs: Vec::new(),
            call: None,
            steps: Vec::new(),
        },
        key: key.span,
        name: key.span,
        needs: Vec::new(),
    };
    let Some(fields) = walk.fields(node, &JOB) else {
        return placed;
    };
    if let Some(node) = fields.get("name") {
        placed.name = node.span;
        if let Some(Some(name)) = walk.line(node, "a job's `name`") {
            placed.job.name = literal(node, name);
        }
    }
    if let Some(node) = fields.get("runs-on") {
        placed.job.runs_on = runs_on(walk, node);
    }
    if let Some(node) = fields.get("needs") {
        for (node, need) in walk.texts(node, "`needs`").unwrap_or_default() {
            placed.job.needs.push(need);
            placed.needs.push(node.span);
        }
    }
    if let Some(node) = fields.get("env") {
        placed.job.env = env(walk, node);
    }
    if let Some(node) = fields.get("timeout-minutes")
        && let Some(minutes) = walk.whole(node, "`timeout-minutes`", (1, MAX_MINUTES), false)
    {
        placed.job.timeout_minutes = literal(node, minutes);
    }
    match fields.get("steps") {
        Some(node) => placed.job.steps = step::read(walk, node),
        // A job that calls another workflow has no steps; that `uses` is refused is said already.
        None if has(node, "uses") => {}
        None => walk.error(key.span, format!("the job `{}` has no `steps`", key.text)),
    }
    placed
}

fn has(node: &Node, name: &str) -> bool {
    matches!(&node.value, Value::Mapping(entries) if entries.iter().any(|(key, _)| key.text == name))
}

/// A label, and perhaps a size after it.
fn runs_on(walk: &mut Walk<'_>, node: &Node) -> Vec<Template<Label>> {
    const HELP: &str = "write one label, and a size of the server after it if need be: `runs-on: [illumos, large]`";
    if let Value::Mapping(_) = &node.value {
        walk.error_help(
            node.span,
            "`runs-on` with `group` or `labels` is not supported yet",
            HELP,
        );
        return Vec::new();
    }
    let labels = walk.texts(node, "`runs-on`").unwrap_or_default();
    if let [_, _, (node, _), ..] = labels.as_slice() {
        walk.error_help(
            node.span,
            "`runs-on` with more than a label and a size is not supported yet",
            HELP,
        );
    } else if labels.is_empty() && matches!(&node.value, Value::Sequence(_)) {
        walk.error(node.span, "`runs-on` names no label");
    }
    let mut words = Vec::new();
    for (node, text) in labels.iter().take(2) {
        match text.parse() {
            Ok(label) => words.push(literal(node, label)),
            Err(error) => {
                let error: crate::model::names::BadName = error;
                walk.error(node.span, error.to_string());
            }
        }
    }
    words
}

/// Checks `needs`: every name exists, and no job waits for itself by any way. Names are put into
/// the spelling of the job's own key.
fn graph(walk: &mut Walk<'_>, jobs: &mut [Placed], known: &[&str]) {
    let index: HashMap<String, usize> = jobs
        .iter()
        .enumerate()
        .map(|(at, placed)| (placed.job.id.to_lowercase(), at))
        .collect();
    let ids: Vec<String> = jobs.iter().map(|placed| placed.job.id.clone()).collect();
    let mut edges: Vec<Vec<(usize, Span)>> = Vec::with_capacity(jobs.len());
    for placed in jobs.iter_mut() {
        let mut own: Vec<(usize, Span)> = Vec::new();
        for (need, mark) in placed.job.needs.iter().zip(&placed.needs) {
            match index.get(&need.to_lowercase()) {
                Some(&to) if own.iter().any(|(seen, _)| *seen == to) => {
                    walk.error(*mark, format!("the job `{}` needs `{need}` twice", placed.job.id));
                }
                Some(&to) => own.push((to, *mark)),
                None if known.iter().any(|id| id.eq_ignore_ascii_case(need)) => {}
                None => {
                    let message = format!(
                        "the job `{}` needs `{}`, which does not exist",
                        placed.job.id,
                        shown(need)
                    );
                    match nearest(need, known.iter().copied()) {
                        Some(near) => walk.error_help(*mark, message, format!("did you mean `{near}`?")),
                        None => walk.error(*mark, message),
                    }
                }
            }
        }
        placed.job.needs = own.iter().map(|(to, _)| ids[*to].clone()).collect();
        edges.push(own);
    }
    if !jobs.is_empty() && jobs.iter().all(|placed| !placed.needs.is_empty()) {
        walk.error(jobs[0].key, "the workflow must have at least one job without `needs`");
        return;
    }
    for (from, own) in edges.iter().enumerate() {
        for (to, mark) in own {
            if *to == from {
                walk.error(*mark, format!("the job `{}` needs itself", ids[from]));
            } else if reaches(&edges, *to, from) {
                walk.error(
                    *mark,
                    format!(
                        "the job `{}` needs `{}`, which in turn needs it: a cycle",
                        ids[from], ids[*to]
                    ),
                );
            }
        }
    }
}

fn reaches(edges: &[Vec<(usize, Span)>], from: usize, goal: usize) -> bool {
    let mut seen = vec![false; edges.len()];
    let mut open = vec![from];
    while let Some(at) = open.pop() {
        if at == goal {
            return true;
        }
        if !std::mem::replace(&mut seen[at], true) {
            open.extend(edges[at].iter().map(|(to, _)| *to));
        }
    }
    false
}

/// Two jobs of one name would share a check on the forge, where the later hides the earlier.
fn names(walk: &mut Walk<'_>, jobs: &[Placed]) {
    let mut seen: HashMap<&str, &str> = HashMap::new();
    for placed in jobs {
        let name = placed.job.name.shown();
        if let Some(first) = seen.insert(name, &placed.job.id) {
            walk.error_help(
                placed.name,
                format!("the jobs `{first}` and `{}` are both called `{name}`", placed.job.id),
                "give them different names: each is a check of its own on the forge",
            );
        }
    }
}
