//! `jobs:`: each job's own keys, and the graph of `needs`.

use std::collections::HashMap;

use super::{
    Defaults, step,
    tree::{Key, Mark, Node, Value},
    walk::{Table, Walk, clip, nearest},
};
use crate::model::{
    names::Label,
    plan::{Env, PlannedJob},
};

/// Jobs of one file.
const MAX_JOBS: usize = 256;
/// Minutes: 35 days, the longest a run may last at GitHub.
pub(super) const MAX_MINUTES: u32 = 35 * 24 * 60;

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
    key: Mark,
    name: Mark,
    needs: Vec<Mark>,
}

/// Reads the value of `jobs:`.
pub(super) fn read(walk: &mut Walk<'_>, node: &Node, defaults: &Defaults) -> Vec<PlannedJob> {
    let Some(entries) = walk.mapping(node, "`jobs`") else {
        return Vec::new();
    };
    if entries.is_empty() {
        walk.error(node.mark, "the workflow must have at least one job");
    }
    if let Some((key, _)) = entries.get(MAX_JOBS) {
        walk.error(key.mark, format!("a workflow has at most {MAX_JOBS} jobs"));
        return Vec::new();
    }
    let mut ids: HashMap<String, &str> = HashMap::new();
    let mut jobs = Vec::new();
    for (key, value) in entries {
        if !walk.plain_key(key) || !id(walk, key.mark, &key.text, "job") {
            continue;
        }
        if let Some(first) = ids.insert(key.text.to_lowercase(), &key.text) {
            walk.error(
                key.mark,
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

/// The rule of job and step ids.
pub(super) fn id(walk: &mut Walk<'_>, at: Mark, text: &str, what: &str) -> bool {
    let mut bytes = text.bytes();
    let sound = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        && text.len() < 100;
    if !sound {
        walk.error(
            at,
            format!(
                "`{}` is not a {what} id: it must begin with a letter or `_`, hold only letters, digits, `-` and `_`, \
                 and be shorter than 100 characters",
                clip(text)
            ),
        );
    } else if text.starts_with("__") {
        walk.error(
            at,
            format!("the {what} id `{text}` is reserved: ids do not begin with `__`"),
        );
    }
    sound && !text.starts_with("__")
}

fn one(walk: &mut Walk<'_>, key: &Key, node: &Node, defaults: &Defaults) -> Placed {
    let mut placed = Placed {
        job: PlannedJob {
            id: key.text.clone(),
            name: key.text.clone(),
            runs_on: None,
            size: None,
            runs_on_at: (key.mark.line, key.mark.column),
            needs: Vec::new(),
            env: Env::new(),
            timeout_minutes: defaults.job_timeout_minutes,
            steps: Vec::new(),
        },
        key: key.mark,
        name: key.mark,
        needs: Vec::new(),
    };
    let Some(fields) = walk.fields(node, &JOB) else {
        return placed;
    };
    if let Some(node) = fields.get("name") {
        placed.name = node.mark;
        if let Some(Some(name)) = walk.line(node, "a job's `name`") {
            placed.job.name = name;
        }
    }
    if let Some(node) = fields.get("runs-on") {
        let at = match &node.value {
            Value::Sequence(labels) => labels.first().map_or(node.mark, |label| label.mark),
            _ => node.mark,
        };
        placed.job.runs_on_at = (at.line, at.column);
        (placed.job.runs_on, placed.job.size) = runs_on(walk, node);
    }
    if let Some(node) = fields.get("needs") {
        for (mark, need) in walk.texts(node, "`needs`").unwrap_or_default() {
            placed.job.needs.push(need);
            placed.needs.push(mark);
        }
    }
    if let Some(node) = fields.get("env") {
        placed.job.env = env(walk, node);
    }
    if let Some(node) = fields.get("timeout-minutes")
        && let Some(minutes) = walk.whole(node, "`timeout-minutes`", (1, MAX_MINUTES), false)
    {
        placed.job.timeout_minutes = minutes;
    }
    match fields.get("steps") {
        Some(node) => placed.job.steps = step::read(walk, node),
        // A job that calls another workflow has no steps; that `uses` is refused is said already.
        None if has(node, "uses") => {}
        None => walk.error(key.mark, format!("the job `{}` has no `steps`", key.text)),
    }
    placed
}

fn has(node: &Node, name: &str) -> bool {
    matches!(&node.value, Value::Mapping(entries) if entries.iter().any(|(key, _)| key.text == name))
}

/// A label, and perhaps a size after it.
fn runs_on(walk: &mut Walk<'_>, node: &Node) -> (Option<Label>, Option<Label>) {
    const HELP: &str = "write one label, and a size of the server after it if need be: `runs-on: [illumos, large]`";
    if let Value::Mapping(_) = &node.value {
        walk.error_help(
            node.mark,
            "`runs-on` with `group` or `labels` is not supported yet",
            HELP,
        );
        return (None, None);
    }
    let labels = walk.texts(node, "`runs-on`").unwrap_or_default();
    if let [_, _, (mark, _), ..] = labels.as_slice() {
        walk.error_help(
            *mark,
            "`runs-on` with more than a label and a size is not supported yet",
            HELP,
        );
    } else if labels.is_empty() && matches!(&node.value, Value::Sequence(_)) {
        walk.error(node.mark, "`runs-on` names no label");
    }
    let mut words = labels.iter().map(|(mark, text)| match text.parse() {
        Ok(label) => Some(label),
        Err(error) => {
            let error: crate::model::names::BadName = error;
            walk.error(*mark, error.to_string());
            None
        }
    });
    (words.next().flatten(), words.next().flatten())
}

/// Reads an `env:` mapping.
pub(super) fn env(walk: &mut Walk<'_>, node: &Node) -> Env {
    let mut env = Env::new();
    // `env:` with nothing below it is common while a file is edited, and harmless.
    if node.is_null() {
        return env;
    }
    for (key, value) in walk.mapping(node, "`env`").unwrap_or_default() {
        if !walk.plain_key(key) {
            continue;
        }
        if key.text.is_empty() || key.text.contains('=') || key.text.chars().any(char::is_control) {
            walk.error(
                key.mark,
                format!("`{}` cannot be the name of a variable", clip(&key.text)),
            );
            continue;
        }
        if let Some(text) = walk.text(value, &format!("the variable `{}`", clip(&key.text))) {
            env.push((key.text.clone(), text));
        }
    }
    env
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
    let mut edges: Vec<Vec<(usize, Mark)>> = Vec::with_capacity(jobs.len());
    for placed in jobs.iter_mut() {
        let mut own: Vec<(usize, Mark)> = Vec::new();
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
                        clip(need)
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

fn reaches(edges: &[Vec<(usize, Mark)>], from: usize, goal: usize) -> bool {
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
        if let Some(first) = seen.insert(&placed.job.name, &placed.job.id) {
            walk.error_help(
                placed.name,
                format!(
                    "the jobs `{first}` and `{}` are both called `{}`",
                    placed.job.id, placed.job.name
                ),
                "give them different names: each is a check of its own on the forge",
            );
        }
    }
}
