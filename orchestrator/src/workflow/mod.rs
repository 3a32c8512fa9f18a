//! Workflow files → plans. Pure: text in, plan or diagnostics out; no I/O, no clock.
//!
//! Text becomes a tree with places (`text`, [`crate::yaml`]). Two layers are told apart from there on. The first says
//! whether it is a valid workflow: a strict walk (`check`) along the table of the language (`schema`), and the rules that
//! no table holds (`rules`). The second reads the plan (`listen`, `job`, `step`) and names what is valid but does not run
//! here. Both collect in one place (`walk`), each complaint with its stable code (`code`), line and column; nothing of a
//! file is ever ignored silently.
//!
//! The rest is finding files (`places`), bare scripts (`script`), names of checks (`checks`) and the environment of a
//! job (`env`). Values carry their place into the plan (`literal`).

mod check;
mod checks;
mod code;
mod common;
#[cfg(test)]
mod conformance;
mod env;
mod explain;
mod glob;
mod job;
mod lint;
mod listen;
mod literal;
mod places;
mod rules;
mod schema;
mod script;
mod step;
#[cfg(test)]
mod tests;
mod text;
mod untrusted;
mod walk;

pub use checks::equal_checks;
pub use code::Code;
pub use env::{JobContext, environment, job_env};
pub use explain::{Explained, explain};
pub use glob::{Glob, Globs, Subject};
pub use places::{Pick, Place, listed, pick};
pub use walk::Findings;

use self::{
    listen::Listen,
    walk::{Below, Fields, Walk},
};
use crate::{
    model::{
        diagnostic::Diagnostic,
        plan::{EnvTemplate, PLAN_VERSION, Plan},
        trigger::Event,
    },
    yaml::{Node, Rules, Span},
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

/// What an answer about a file is for.
#[derive(Debug, Clone, Copy)]
enum Purpose<'e> {
    /// A run for this event.
    Event(&'e Event),
    /// A run whatever the file listens to.
    Run,
    /// All that can be said, for who wrote it.
    Findings,
}

/// What the file at `path` means for `event`. A file that does not listen to the event is not read any further, whatever
/// else it holds; what stands below events that never start a run here is passed over.
#[must_use]
pub fn read(path: &str, text: &[u8], event: &Event, defaults: &Defaults) -> Wanted {
    let (wanted, _) = inspect(path, text, Purpose::Event(event), defaults, &text::RULES);
    match wanted {
        Wanted::Invalid(mut found) => {
            found.truncate(walk::MAX_SHOWN);
            Wanted::Invalid(found)
        }
        wanted => wanted,
    }
}

/// The plan of the file at `path`, whatever it listens to; what stands below events that never start a run here is passed
/// over.
///
/// # Errors
/// Everything that keeps it from running, at most 200 complaints in the order of the file.
pub fn validate(path: &str, text: &[u8], defaults: &Defaults) -> Result<Plan, Vec<Diagnostic>> {
    match inspect(path, text, Purpose::Run, defaults, &text::RULES).0 {
        Wanted::Wanted(plan) => Ok(plan),
        Wanted::Invalid(found) => Err(found),
        Wanted::NotWanted(_) => unreachable!("without an event every file is wanted"),
    }
}

/// Everything that can be said about the file at `path`, advice too: for `helios-ci validate`.
#[must_use]
pub fn findings(path: &str, text: &[u8]) -> Findings {
    // No complaint depends on what the configuration says where the file is silent.
    let defaults = Defaults { job_timeout_minutes: 1 };
    inspect(path, text, Purpose::Findings, &defaults, &text::RULES).1
}

fn inspect(path: &str, bytes: &[u8], purpose: Purpose<'_>, defaults: &Defaults, rules: &Rules) -> (Wanted, Findings) {
    if let Some(plan) = script::plan(path, defaults) {
        return (Wanted::Wanted(plan), Findings::default());
    }
    let (text, not_text) = decode(bytes);
    let below = match purpose {
        Purpose::Findings => Below::All,
        Purpose::Event(_) | Purpose::Run => Below::Starting,
    };
    let mut walk = Walk::new(path, text, below);
    let wanted = if bytes.len() > MAX_FILE {
        let message = format!("the file is longer than {MAX_FILE} bytes");
        walk.report(Code::TooLarge, Span::START, message);
        None
    } else if let Some(span) = not_text {
        walk.report(Code::NotUtf8, span, "the file is not UTF-8 text from here on");
        None
    } else if std::path::Path::new(path).extension().is_some_and(|e| e == "kdl") {
        walk.report_help(
            Code::UnsupportedKdl,
            Span::START,
            "KDL workflows are not supported yet",
            "write it as YAML, in a `.yml` file",
        );
        None
    } else {
        let document = text::read(text, rules);
        walk.faults(document.faults, document.omitted);
        document
            .root
            .map(|root| decide(&mut walk, &root, path, purpose, defaults))
    };
    let is_clean = walk.is_clean();
    let findings = walk.finish();
    let wanted = match wanted {
        Some(wanted @ Wanted::NotWanted(_)) => wanted,
        Some(wanted @ Wanted::Wanted(_)) if is_clean => wanted,
        _ => {
            let refusals = findings.diagnostics.iter().filter(|d| d.severity.refuses());
            Wanted::Invalid(refusals.cloned().collect())
        }
    };
    (wanted, findings)
}

fn decide(walk: &mut Walk<'_>, root: &Node, path: &str, purpose: Purpose<'_>, defaults: &Defaults) -> Wanted {
    // First the question whether the file is for this event.
    if let Purpose::Event(event) = purpose
        && walk.is_clean()
        && let Some(listen) = listening(path, root, event)
        && let Some(reason) = listen.why_not(event)
    {
        return Wanted::NotWanted(reason);
    }
    check::check(walk, root, &schema::WORKFLOW);
    if let Some(on) = root.get("on") {
        rules::events(walk, on);
    }
    rules::jobs(walk, root);
    if matches!(purpose, Purpose::Findings) && walk.is_valid() {
        lint::check(walk, root);
    }
    match walk.fields(root, "a workflow") {
        Some(fields) => Wanted::Wanted(plan(walk, &fields, path, defaults)),
        None => Wanted::Invalid(Vec::new()),
    }
}

/// What a file listens to, when nothing is wrong with the names of its events and what stands below this one.
fn listening(path: &str, root: &Node, event: &Event) -> Option<Listen> {
    let on = root.get("on")?;
    let mut walk = Walk::new(path, "", Below::One(event.name()));
    check::check_below(&mut walk, "on", on, schema::on());
    rules::events(&mut walk, on);
    let listen = listen::read(&mut walk, on);
    walk.is_clean().then_some(listen)
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

/// The text of a file without a byte order mark, as far as it is one, and where it ends to be.
fn decode(bytes: &[u8]) -> (&str, Option<Span>) {
    let (text, end) = match std::str::from_utf8(bytes) {
        Ok(text) => (text, None),
        Err(error) => {
            let text = std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default();
            let column = text.rsplit('\n').next().unwrap_or("").chars().count() + 1;
            let span = Span {
                line: u32::try_from(text.matches('\n').count() + 1).unwrap_or(u32::MAX),
                column: u32::try_from(column).unwrap_or(u32::MAX),
                offset: text.len(),
                length: 0,
            };
            (text, Some(span))
        }
    };
    (text.strip_prefix('\u{feff}').unwrap_or(text), end)
}
