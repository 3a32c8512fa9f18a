//! Bare scripts as pipelines: `.jci/run.sh` and `pico.sh` become one job that checks the commit out
//! and runs the script.

use super::Defaults;
use crate::model::plan::{Action, Env, PLAN_VERSION, Plan, PlannedJob, PlannedStep};

/// The script of jci.
pub(super) const JCI: &str = ".jci/run.sh";
/// The script of pico.
pub(super) const PICO: &str = "pico.sh";

/// The plan of a script; `None` when the path is not one of them. They listen to every event.
pub(super) fn plan(path: &str, defaults: &Defaults) -> Option<Plan> {
    if path != JCI && path != PICO {
        return None;
    }
    let step = |name: &str, action| PlannedStep {
        name: name.to_owned(),
        action,
        env: Env::new(),
        timeout_minutes: None,
        continue_on_error: false,
        line: 1,
    };
    Some(Plan {
        version: PLAN_VERSION,
        path: path.to_owned(),
        name: path.to_owned(),
        env: Env::new(),
        jobs: vec![PlannedJob {
            id: "run".into(),
            name: "run".into(),
            runs_on: None,
            size: None,
            runs_on_at: (1, 1),
            needs: Vec::new(),
            env: Env::new(),
            timeout_minutes: defaults.job_timeout_minutes,
            steps: vec![
                step("actions/checkout", Action::Checkout { depth: 1, path: None }),
                step(path, Action::Script { path: path.to_owned() }),
            ],
        }],
    })
}
