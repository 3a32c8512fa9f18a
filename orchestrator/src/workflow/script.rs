//! Bare scripts as pipelines: `.jci/run.sh` and `pico.sh` become one job that checks the commit out
//! and runs the script.

use super::Defaults;
use crate::model::plan::{
    Action, CHECKOUT, Condition, EnvTemplate, PLAN_VERSION, Plan, PlanSpan, PlannedJob, PlannedStep, Template,
};

/// The script of jci.
pub(super) const JCI: &str = ".jci/run.sh";
/// The script of pico.
pub(super) const PICO: &str = "pico.sh";

/// The plan of a script; `None` when the path is not one of them. They listen to every event.
pub(super) fn plan(path: &str, defaults: &Defaults) -> Option<Plan> {
    if path != JCI && path != PICO {
        return None;
    }
    let start = PlanSpan::at(1, 1);
    let step = |name: &str, action| PlannedStep {
        id: None,
        span: start,
        name: Template::default_of(name.to_owned()),
        condition: Template::default_of(Condition::Success),
        action,
        env: EnvTemplate::new(),
        timeout_minutes: None,
        continue_on_error: Template::default_of(false),
    };
    let checkout = Action::Uses {
        action: CHECKOUT.to_owned(),
        inputs: Vec::new(),
        children: Vec::new(),
    };
    Some(Plan {
        version: PLAN_VERSION,
        path: path.to_owned(),
        name: path.to_owned(),
        env: EnvTemplate::new(),
        jobs: vec![PlannedJob {
            id: "run".into(),
            span: start,
            name: Template::default_of("run".into()),
            condition: Template::default_of(Condition::Success),
            strategy: None,
            runs_on: Vec::new(),
            needs: Vec::new(),
            env: EnvTemplate::new(),
            timeout_minutes: Template::default_of(defaults.job_timeout_minutes),
            outputs: Vec::new(),
            call: None,
            steps: vec![
                step(CHECKOUT, checkout),
                step(path, Action::Script { path: path.to_owned() }),
            ],
        }],
    })
}
