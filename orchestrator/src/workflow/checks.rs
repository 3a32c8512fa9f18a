//! Names of checks on the forge. Equal names would hide one job behind another, so they are errors
//! of planning, within one file (`job`) and across the files of one commit (here).

use std::collections::HashMap;

use super::text;
use crate::{
    model::{diagnostic::Diagnostic, plan::Plan},
    yaml::{Span, Value},
};

/// Complaints about checks of equal names across the files of one commit: for each file that comes
/// later in the list, what collides with an earlier one. `text` is each file's own.
#[must_use]
pub fn equal_checks(files: &[(&Plan, &[u8])]) -> Vec<Diagnostic> {
    let mut seen: HashMap<String, &str> = HashMap::new();
    let mut found = Vec::new();
    for (plan, text) in files {
        let mut own = Vec::new();
        for job in &plan.jobs {
            let name = plan.check_name(job);
            if let Some(first) = seen.get(&name) {
                let mark = place(text, &job.id);
                found.push(Diagnostic {
                    file: plan.path.clone(),
                    line: mark.line,
                    column: mark.column,
                    message: format!("the check `{name}` is also made by `{first}`"),
                    help: Some("give the workflows different names with `name:`".into()),
                });
            }
            own.push(name);
        }
        for name in own {
            seen.entry(name).or_insert(&plan.path);
        }
    }
    found
}

/// Where the job's key stands. The text was read before, so what cannot be found here has no place
/// of its own (a bare script).
fn place(text: &[u8], id: &str) -> Span {
    let lookup = || {
        let text = std::str::from_utf8(text).ok()?;
        let root = text::parse(text.strip_prefix('\u{feff}').unwrap_or(text)).ok()?;
        let Value::Mapping(entries) = root.value else {
            return None;
        };
        let (_, jobs) = entries.into_iter().find(|(key, _)| key.text == "jobs")?;
        let Value::Mapping(jobs) = jobs.value else { return None };
        jobs.into_iter()
            .find(|(key, _)| key.text == id)
            .map(|(key, _)| key.span)
    };
    lookup().unwrap_or(Span::START)
}
