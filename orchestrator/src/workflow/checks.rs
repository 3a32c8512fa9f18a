//! Names of checks on the forge. Equal names would hide one job behind another, so they are errors
//! of planning, within one file (`job`) and across the files of one commit (here).

use std::collections::HashMap;

use super::{code::Code, walk::MAX_SHOWN};
use crate::model::{diagnostic::Diagnostic, plan::Plan};

/// Complaints about checks of equal names across the files of one commit: for each file that comes
/// later in the list, what collides with an earlier one, at most ten for each file.
#[must_use]
pub fn equal_checks(files: &[&Plan]) -> Vec<Diagnostic> {
    let mut seen: HashMap<String, &str> = HashMap::new();
    let mut found = Vec::new();
    for plan in files {
        let (mut own, mut complaints) = (Vec::new(), 0);
        for job in &plan.jobs {
            let name = plan.check_name(job);
            if let Some(first) = seen.get(&name).filter(|_| complaints < MAX_SHOWN) {
                complaints += 1;
                found.push(Diagnostic {
                    severity: Code::UnsupportedName.severity(),
                    code: Code::UnsupportedName.name().to_owned(),
                    length: 0,
                    file: plan.path.clone(),
                    line: job.span.line,
                    column: job.span.column,
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
