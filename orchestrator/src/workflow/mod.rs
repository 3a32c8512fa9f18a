//! Workflow files → plans. Pure: text in, plan or diagnostics out; no I/O, no clock.
//!
//! Text becomes a tree with places (`text`, [`crate::yaml`]), a walk along tables of keys reads its
//! meaning and collects what is wrong (`walk`, `listen`, `job`, `step`), and the rest is finding
//! files (`places`), bare scripts (`script`), names of checks (`checks`) and the environment of a
//! job (`env`). Values carry their place into the plan (`literal`). What we do not support is named
//! precisely, with line and column; nothing of a file is ever ignored silently.

mod checks;
mod common;
#[cfg(test)]
mod conformance;
mod env;
mod glob;
mod job;
mod listen;
mod literal;
mod places;
mod script;
mod step;
#[cfg(test)]
mod tests;
mod text;
mod walk;

pub use checks::equal_checks;
pub use env::{JobContext, environment, job_env};
pub use glob::{Glob, Globs, Subject};
pub use places::{Pick, Place, listed, pick};

use self::{
    listen::Listen,
    walk::{Fields, Table, Walk},
};
use crate::{
    model::{
        diagnostic::Diagnostic,
        plan::{EnvTemplate, PLAN_VERSION, Plan},
        trigger::Event,
    },
    yaml::{Node, Span, Value},
};

/// The longest workflow file, in bytes; longer ones are refused.
pub const MAX_FILE: usize = 1 << 20;

/// What the configuration says where a file is silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Defaults {
    /// For jobs without `timeout-minutes`.
    pub job_timeout_minutes: u32,
}

/// What a workflow file means for one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// It runs.
    Wanted(Plan),
    /// It is not for this event, and why: `it listens to ...`.
    NotWanted(String),
    /// It cannot be used; at most ten complaints, in the order of the file.
    Invalid(Vec<Diagnostic>),
}

const WORKFLOW: Table = Table {
    what: "a workflow",
    supported: &["name", "on", "env", "jobs"],
    not_yet: &[
        "concurrency",
        "defaults",
        "enable-email-notifications",
        "enable-openid-connect",
        "permissions",
        "run-name",
    ],
};

/// What the file at `path` means for `event`. A file that does not listen to the event is not
/// read any further, whatever else it holds.
#[must_use]
pub fn read(path: &str, text: &[u8], event: &Event, defaults: &Defaults) -> Wanted {
    let mut wanted = inspect(path, text, Some(event), defaults);
    if let Wanted::Invalid(found) = &mut wanted {
        found.truncate(walk::MAX_SHOWN);
    }
    wanted
}

/// The plan of the file at `path`, whatever it listens to: for `helios-ci validate`.
///
/// # Errors
/// Everything that is wrong with it, at most 200 complaints in the order of the file.
pub fn validate(path: &str, text: &[u8], defaults: &Defaults) -> Result<Plan, Vec<Diagnostic>> {
    match inspect(path, text, None, defaults) {
        Wanted::Wanted(plan) => Ok(plan),
        Wanted::Invalid(found) => Err(found),
        Wanted::NotWanted(_) => unreachable!("without an event every file is wanted"),
    }
}

fn inspect(path: &str, bytes: &[u8], event: Option<&Event>, defaults: &Defaults) -> Wanted {
    if let Some(plan) = script::plan(path, defaults) {
        return Wanted::Wanted(plan);
    }
    let text = match decode(path, bytes) {
        Ok(text) => text,
        Err(diagnostic) => return Wanted::Invalid(vec![diagnostic]),
    };
    let mut walk = Walk::new(path, text);
    if std::path::Path::new(path).extension().is_some_and(|e| e == "kdl") {
        walk.error_help(
            Span::START,
            "KDL workflows are not supported yet",
            "write it as YAML, in a `.yml` file",
        );
        return Wanted::Invalid(walk.finish());
    }
    let root = match text::parse(text) {
        Ok(root) => root,
        Err(faults) => {
            walk.faults(faults);
            return Wanted::Invalid(walk.finish());
        }
    };
    match decide(&mut walk, &root, path, event, defaults) {
        Wanted::Wanted(plan) if walk.is_clean() => Wanted::Wanted(plan),
        Wanted::NotWanted(reason) => Wanted::NotWanted(reason),
        _ => Wanted::Invalid(walk.finish()),
    }
}

fn decide(walk: &mut Walk<'_>, root: &Node, path: &str, event: Option<&Event>, defaults: &Defaults) -> Wanted {
    // First the question whether the file is for this event, with complaints about `on` alone.
    let listen = listening(walk, root);
    if let (Some(listen), Some(event)) = (&listen, event)
        && walk.is_clean()
        && let Some(reason) = listen.why_not(event)
    {
        return Wanted::NotWanted(reason);
    }
    let Some(fields) = walk.fields(root, &WORKFLOW) else {
        return Wanted::Invalid(Vec::new());
    };
    for name in ["on", "jobs"] {
        if fields.get(name).is_none() {
            walk.error(root.span, format!("the workflow has no `{name}`"));
        }
    }
    Wanted::Wanted(plan(walk, &fields, path, defaults))
}

fn listening(walk: &mut Walk<'_>, root: &Node) -> Option<Listen> {
    let Value::Mapping(entries) = &root.value else {
        return None;
    };
    let (_, node) = entries.iter().find(|(key, _)| key.text == "on")?;
    Some(listen::read(walk, node))
}

fn plan(walk: &mut Walk<'_>, fields: &Fields<'_>, path: &str, defaults: &Defaults) -> Plan {
    let name = fields
        .get("name")
        .and_then(|node| walk.line(node, "the workflow's `name`"))
        .flatten();
    Plan {
        version: PLAN_VERSION,
        path: path.to_owned(),
        name: name.unwrap_or_else(|| path.to_owned()),
        env: fields
            .get("env")
            .map_or_else(EnvTemplate::new, |node| common::env(walk, node)),
        jobs: fields
            .get("jobs")
            .map_or_else(Vec::new, |node| job::read(walk, node, defaults)),
    }
}

/// The text of a file, without a byte order mark.
fn decode<'t>(path: &str, bytes: &'t [u8]) -> Result<&'t str, Diagnostic> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.strip_prefix('\u{feff}').unwrap_or(text)),
        Err(error) => {
            let before = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
            Err(Diagnostic {
                file: path.to_owned(),
                line: u32::try_from(before.matches('\n').count() + 1).unwrap_or(u32::MAX),
                column: u32::try_from(column).unwrap_or(u32::MAX),
                message: "the file is not UTF-8 text from here on".into(),
                help: None,
            })
        }
    }
}
