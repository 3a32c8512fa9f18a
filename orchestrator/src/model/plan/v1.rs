//! Plans of version 1, which held no expression, no condition and only the places of `runs-on`. What is stored so is read
//! by conversion; nothing writes it any more.

use serde::Deserialize;

use super::{super::names::Label, Action, CHECKOUT, Condition, PLAN_VERSION, PlanSpan, Template};

#[derive(Debug, Deserialize)]
pub(super) struct Plan {
    path: String,
    name: String,
    env: Env,
    jobs: Vec<Job>,
}

type Env = Vec<(String, String)>;

#[derive(Debug, Deserialize)]
struct Job {
    id: String,
    name: String,
    runs_on: Option<Label>,
    #[serde(default)]
    size: Option<Label>,
    #[serde(default = "start")]
    runs_on_at: (u32, u32),
    needs: Vec<String>,
    env: Env,
    timeout_minutes: u32,
    steps: Vec<Step>,
}

fn start() -> (u32, u32) {
    (1, 1)
}

#[derive(Debug, Deserialize)]
struct Step {
    name: String,
    action: Work,
    env: Env,
    timeout_minutes: Option<u32>,
    continue_on_error: bool,
    line: u32,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Work {
    Checkout {
        depth: u32,
        path: Option<String>,
    },
    Run {
        script: String,
        shell: super::Shell,
        working_directory: Option<String>,
    },
    Script {
        path: String,
    },
}

impl From<Plan> for super::Plan {
    fn from(plan: Plan) -> Self {
        Self {
            version: PLAN_VERSION,
            path: plan.path,
            name: plan.name,
            env: env(plan.env),
            jobs: plan.jobs.into_iter().map(job).collect(),
        }
    }
}

fn job(job: Job) -> super::PlannedJob {
    let (line, column) = job.runs_on_at;
    let span = PlanSpan::at(line, column);
    // A size without a label was never written.
    let labels = job.runs_on.into_iter().chain(job.size);
    super::PlannedJob {
        id: job.id,
        span,
        name: Template::default_of(job.name),
        condition: Template::default_of(Condition::Success),
        strategy: None,
        runs_on: labels.map(|label| Template::literal(label, span)).collect(),
        needs: job.needs,
        env: env(job.env),
        timeout_minutes: Template::default_of(job.timeout_minutes),
        outputs: Vec::new(),
        call: None,
        steps: job.steps.into_iter().map(step).collect(),
    }
}

fn step(step: Step) -> super::PlannedStep {
    super::PlannedStep {
        id: None,
        span: PlanSpan::at(step.line, 1),
        name: Template::default_of(step.name),
        condition: Template::default_of(Condition::Success),
        action: action(step.action),
        env: env(step.env),
        timeout_minutes: step.timeout_minutes.map(Template::default_of),
        continue_on_error: Template::default_of(step.continue_on_error),
    }
}

fn action(work: Work) -> Action {
    match work {
        Work::Checkout { depth, path } => {
            let mut inputs = vec![("fetch-depth".to_owned(), Template::default_of(depth.to_string()))];
            inputs.extend(path.map(|path| ("path".to_owned(), Template::default_of(path))));
            Action::Uses {
                action: CHECKOUT.to_owned(),
                inputs,
                children: Vec::new(),
            }
        }
        Work::Run {
            script,
            shell,
            working_directory,
        } => Action::Run {
            script: Template::default_of(script),
            shell: Template::default_of(shell),
            working_directory: working_directory.map(Template::default_of),
        },
        Work::Script { path } => Action::Script { path },
    }
}

fn env(env: Env) -> super::EnvTemplate {
    env.into_iter()
        .map(|(name, value)| (name, Template::default_of(value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::{PlanError, PlannedStep, Shell};
    use super::*;

    /// As version 1 wrote it; never to be changed.
    const FROZEN: &str = r##"{"version":1,"path":".github/workflows/ci.yml","name":"ci","env":[["A","1"]],"jobs":[
        {"id":"build","name":"Build it","runs_on":"illumos","size":"large","runs_on_at":[8,15],"needs":[],
         "env":[["V","3.10"]],"timeout_minutes":30,"steps":[
          {"name":"actions/checkout","action":{"kind":"checkout","depth":0,"path":"src"},"env":[],
           "timeout_minutes":null,"continue_on_error":false,"line":12},
          {"name":"Compile","action":{"kind":"run","script":"make\n","shell":"bash","working_directory":"src/sub"},
           "env":[["STEP","x"]],"timeout_minutes":5,"continue_on_error":true,"line":14}]},
        {"id":"test","name":"test","runs_on":null,"needs":["build"],"env":[],"timeout_minutes":360,"steps":[
          {"name":"pico.sh","action":{"kind":"script","path":"pico.sh"},"env":[],
           "timeout_minutes":null,"continue_on_error":false,"line":1}]}]}"##;

    fn known<T: Clone>(template: &Template<T>) -> T {
        template.value(String::new).unwrap().clone()
    }

    #[test]
    fn a_frozen_plan_of_version_1_is_read() {
        let plan = super::super::Plan::read(FROZEN).unwrap();
        assert_eq!(
            (plan.version, plan.path.as_str(), plan.name.as_str()),
            (PLAN_VERSION, ".github/workflows/ci.yml", "ci")
        );
        assert_eq!((plan.env[0].0.as_str(), known(&plan.env[0].1).as_str()), ("A", "1"));
        let [build, test] = plan.jobs.as_slice() else {
            panic!("{plan:?}")
        };
        assert_eq!(plan.check_name(build), "helios-ci / ci / Build it");
        let labels: Vec<String> = build.runs_on.iter().map(|label| known(label).to_string()).collect();
        assert_eq!(labels, ["illumos", "large"]);
        assert_eq!(build.runs_on_span(), PlanSpan::at(8, 15));
        assert_eq!(
            (known(&build.timeout_minutes), known(&build.env[0].1).as_str()),
            (30, "3.10")
        );
        assert_eq!(
            (test.runs_on.len(), test.needs.as_slice()),
            (0, ["build".to_owned()].as_slice())
        );
        let [checkout, compile] = build.steps.as_slice() else {
            panic!("{build:?}")
        };
        let Action::Uses { action, inputs, .. } = &checkout.action else {
            panic!("{checkout:?}")
        };
        let inputs: Vec<(&str, String)> = inputs
            .iter()
            .map(|(name, value)| (name.as_str(), known(value)))
            .collect();
        assert_eq!(action, CHECKOUT);
        assert_eq!(inputs, [("fetch-depth", "0".to_owned()), ("path", "src".to_owned())]);
        let Action::Run {
            script,
            shell,
            working_directory,
        } = &compile.action
        else {
            panic!("{compile:?}")
        };
        assert_eq!((known(script).as_str(), known(shell)), ("make\n", Shell::Bash));
        assert_eq!(working_directory.as_ref().map(known).as_deref(), Some("src/sub"));
        assert_eq!(compile.span, PlanSpan::at(14, 1));
        assert_eq!(
            (
                compile.timeout_minutes.as_ref().map(known),
                known(&compile.continue_on_error)
            ),
            (Some(5), true)
        );
        assert!(
            build
                .steps
                .iter()
                .all(|step: &PlannedStep| known(&step.condition) == Condition::Success)
        );
        assert_eq!(test.steps[0].action, Action::Script { path: "pico.sh".into() });
        // What is read is written as of now, and read again.
        let again = serde_json::to_string(&plan).unwrap();
        assert_eq!(super::super::Plan::read(&again).unwrap(), plan);
    }

    #[test]
    fn a_damaged_plan_of_version_1_is_refused() {
        let damaged = FROZEN.replace("\"kind\":\"script\"", "\"kind\":\"magic\"");
        assert!(matches!(super::super::Plan::read(&damaged), Err(PlanError::Shape(_))));
    }
}
