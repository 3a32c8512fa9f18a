//! `jobs:`: the plan of each job.

use std::collections::HashMap;

use super::{
    Defaults,
    code::Code,
    common::{env, minutes},
    literal::literal,
    step,
    walk::Walk,
};
use crate::{
    model::{
        names::Label,
        plan::{Condition, EnvTemplate, PlanSpan, PlannedJob, Template},
    },
    yaml::{Key, Node, Span, Value},
};

/// Jobs of one file.
const MAX_JOBS: usize = 256;

/// One job with the place of its name.
struct Placed {
    job: PlannedJob,
    name: Span,
}

/// Reads the value of `jobs:`, which was checked before.
pub(super) fn read(walk: &mut Walk<'_>, node: &Node, defaults: &Defaults) -> Vec<PlannedJob> {
    let entries = walk.mapping(node, "`jobs`").unwrap_or_default();
    if let Some((key, _)) = entries.get(MAX_JOBS) {
        let message = format!("a workflow has at most {MAX_JOBS} jobs");
        walk.report(Code::UnsupportedSize, key.span, message);
        return Vec::new();
    }
    let mut jobs: Vec<Placed> = entries
        .iter()
        .map(|(key, value)| one(walk, key, value, defaults))
        .collect();
    spell_needs(&mut jobs);
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
        name: key.span,
    };
    let Some(fields) = walk.fields(node, "a job") else {
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
        let needs = walk.texts(node, "`needs`").unwrap_or_default();
        placed.job.needs = needs.into_iter().map(|(_, need)| need).collect();
    }
    if let Some(node) = fields.get("env") {
        placed.job.env = env(walk, node);
    }
    if let Some(node) = fields.get("timeout-minutes")
        && let Some(minutes) = minutes(walk, node)
    {
        placed.job.timeout_minutes = minutes;
    }
    if let Some(node) = fields.get("steps") {
        placed.job.steps = step::read(walk, node);
    }
    placed
}

/// A label, and perhaps a size after it.
fn runs_on(walk: &mut Walk<'_>, node: &Node) -> Vec<Template<Label>> {
    const NO_LABEL: &str = "`runs-on` names no label";
    const HELP: &str = "write one label, and a size of the server after it if need be: `runs-on: [illumos, large]`";
    if let Value::Mapping(entries) = &node.value {
        // Its keys were named, where it has any.
        if entries.is_empty() {
            walk.report(Code::UnsupportedRunsOn, node.span, NO_LABEL);
        }
        return Vec::new();
    }
    let labels = walk.texts(node, "`runs-on`").unwrap_or_default();
    if let [_, _, (node, _), ..] = labels.as_slice() {
        walk.report_help(
            Code::UnsupportedRunsOn,
            node.span,
            "`runs-on` with more than a label and a size is not supported yet",
            HELP,
        );
    } else if labels.is_empty() && matches!(&node.value, Value::Sequence(_)) {
        walk.report(Code::UnsupportedRunsOn, node.span, NO_LABEL);
    }
    let mut words = Vec::new();
    for (node, text) in labels.iter().take(2) {
        match text.parse() {
            Ok(label) => words.push(literal(node, label)),
            Err(error) => {
                let error: crate::model::names::BadName = error;
                walk.report(Code::UnsupportedRunsOn, node.span, error.to_string());
            }
        }
    }
    words
}

/// Puts the names of `needs` into the spelling of the job's own key, each once.
fn spell_needs(jobs: &mut [Placed]) {
    let ids: HashMap<String, String> = jobs
        .iter()
        .map(|placed| (placed.job.id.to_lowercase(), placed.job.id.clone()))
        .collect();
    for placed in jobs {
        let mut needs: Vec<String> = Vec::new();
        for need in &placed.job.needs {
            if let Some(id) = ids.get(&need.to_lowercase())
                && !needs.contains(id)
            {
                needs.push(id.clone());
            }
        }
        placed.job.needs = needs;
    }
}

/// Two jobs of one name would share a check on the forge, where the later hides the earlier.
fn names(walk: &mut Walk<'_>, jobs: &[Placed]) {
    let mut seen: HashMap<&str, &str> = HashMap::new();
    for placed in jobs {
        let name = placed.job.name.shown();
        if let Some(first) = seen.insert(name, &placed.job.id) {
            walk.report_help(
                Code::UnsupportedName,
                placed.name,
                format!("the jobs `{first}` and `{}` are both called `{name}`", placed.job.id),
                "give them different names: each is a check of its own on the forge",
            );
        }
    }
}
