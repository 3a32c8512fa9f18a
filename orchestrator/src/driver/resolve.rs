//! From the plan of a job, which may leave values to expressions, to one that can be run: every value is known, and every
//! action is one of ours. What cannot be had ends the attempt in words before a machine is made for it, and is never
//! taken for the text it is written as.

use std::sync::Arc;

use super::{
    actions::{Action, Checkout, Run, Script},
    job::JobStep,
};
use crate::model::plan::{
    self, CHECKOUT, Condition, Env, EnvTemplate, PlannedJob, PlannedStep, Template, Unevaluated, values,
};

/// A planned job that this version cannot run. No other try helps.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotRunnable {
    /// A value is not known.
    #[error(transparent)]
    Unevaluated(#[from] Unevaluated),
    /// The plan holds something that another version has put there.
    #[error("{what} is not supported by this version of helios-ci: run it on a newer server, or push without it")]
    Unsupported {
        /// Which part of the plan.
        what: String,
    },
    /// A value is none of those that an action takes.
    #[error("the input `{name}` of {action} has a value that it cannot have: correct the workflow file")]
    Input {
        /// The action.
        action: &'static str,
        /// The key of its `with`.
        name: String,
    },
}

/// A job that can be run once its machine is known.
#[derive(Debug)]
pub struct Resolved {
    /// What the workflow sets for every step.
    pub workflow_env: Env,
    /// What the job sets for every step.
    pub env: Env,
    /// Wall time of all steps together.
    pub timeout_minutes: u32,
    /// The steps; each has its own entries for its environment.
    pub steps: Vec<JobStep>,
}

/// Takes every value of a planned job.
///
/// # Errors
/// At the first that is not known, or that this version cannot honour.
pub fn resolve(workflow_env: &EnvTemplate, job: &PlannedJob) -> Result<Resolved, NotRunnable> {
    let of_job = |key: &str| format!("`{key}` of the job `{}`", job.id);
    let is_plain = *job.condition.value(|| of_job("if"))? == Condition::Success;
    for (is_there, key) in [
        (!is_plain, "if"),
        (job.strategy.is_some(), "strategy"),
        (!job.outputs.is_empty(), "outputs"),
        (job.call.is_some(), "uses"),
    ] {
        if is_there {
            return Err(NotRunnable::Unsupported { what: of_job(key) });
        }
    }
    job.name.value(|| of_job("name"))?;
    Ok(Resolved {
        workflow_env: values(workflow_env, |key| format!("`{key}` in `env` of the workflow"))?,
        env: values(&job.env, |key| format!("`{key}` in {}", of_job("env")))?,
        timeout_minutes: *job.timeout_minutes.value(|| of_job("timeout-minutes"))?,
        steps: job.steps.iter().enumerate().map(step).collect::<Result<_, _>>()?,
    })
}

fn step((index, planned): (usize, &PlannedStep)) -> Result<JobStep, NotRunnable> {
    let of_step = |key: &str| format!("`{key}` of step {} (line {})", index + 1, planned.span.line);
    let timeout = planned.timeout_minutes.as_ref();
    let minutes = timeout.map(|minutes| minutes.value(|| of_step("timeout-minutes")));
    Ok(JobStep {
        name: planned.name.value(|| of_step("name"))?.clone(),
        condition: *planned.condition.value(|| of_step("if"))?,
        action: action(&planned.action, of_step)?,
        env: values(&planned.env, |key| format!("`{key}` in {}", of_step("env")))?,
        limit_ms: minutes.transpose()?.map(|minutes| u64::from(*minutes) * 60_000),
        continue_on_error: *planned.continue_on_error.value(|| of_step("continue-on-error"))?,
    })
}

fn action(planned: &plan::Action, of_step: impl Fn(&str) -> String) -> Result<Arc<dyn Action>, NotRunnable> {
    Ok(match planned {
        plan::Action::Uses {
            action,
            inputs,
            children,
        } => {
            let inputs = values(inputs, |key| format!("`{key}` in {}", of_step("with")))?;
            if action != CHECKOUT || !children.is_empty() {
                return Err(NotRunnable::Unsupported {
                    what: format!("the action {action}, {},", of_step("uses")),
                });
            }
            Arc::new(Checkout::new(&inputs)?)
        }
        plan::Action::Run {
            script,
            shell,
            working_directory,
        } => {
            let directory = working_directory.as_ref();
            let directory = directory.map(|path: &Template<String>| path.value(|| of_step("working-directory")));
            Arc::new(Run {
                script: script.value(|| of_step("run"))?.clone(),
                shell: *shell.value(|| of_step("shell"))?,
                working_directory: directory.transpose()?.cloned(),
            })
        }
        plan::Action::Script { path } => Arc::new(Script { path: path.clone() }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::plan::{Call, Data, Plan, PlanSpan, Shell, Strategy},
        workflow::{Defaults, validate},
    };

    const FILE: &str = "on: push\nenv: {W: w}\njobs:\n  build:\n    name: Build\n    env: {J: j}\n    timeout-minutes: 7\n    \
                        steps:\n      - uses: actions/checkout@v4\n        with: {fetch-depth: 3}\n      - run: make\n        \
                        shell: sh\n        working-directory: sub\n        env: {S: s}\n        timeout-minutes: 2\n        \
                        continue-on-error: true\n";

    fn plan() -> Plan {
        let defaults = Defaults {
            job_timeout_minutes: 360,
        };
        validate("ci.yml", FILE.as_bytes(), &defaults).unwrap()
    }

    type Change = fn(&mut Plan);

    /// What is said of the plan after a change.
    fn refusal(change: impl FnOnce(&mut Plan)) -> String {
        let mut plan = plan();
        change(&mut plan);
        resolve(&plan.env, &plan.jobs[0]).unwrap_err().to_string()
    }

    fn expression<T>() -> Template<T> {
        Template::Expression {
            text: "${{ github.token }}".into(),
            span: PlanSpan::at(3, 9),
        }
    }

    #[test]
    fn literals_become_a_job() {
        let plan = plan();
        let resolved = resolve(&plan.env, &plan.jobs[0]).unwrap();
        assert_eq!(resolved.workflow_env, [("W".to_owned(), "w".to_owned())]);
        assert_eq!(resolved.env, [("J".to_owned(), "j".to_owned())]);
        assert_eq!(resolved.timeout_minutes, 7);
        let [checkout, make] = resolved.steps.as_slice() else {
            panic!("{resolved:?}")
        };
        assert_eq!(
            (checkout.action.source_depth(), make.action.source_depth()),
            (Some(3), None)
        );
        assert_eq!(
            (make.name.as_str(), make.limit_ms, make.continue_on_error),
            ("make", Some(120_000), true)
        );
        assert_eq!(make.env, [("S".to_owned(), "s".to_owned())]);
        assert_eq!(make.condition, Condition::Success);
    }

    #[test]
    fn an_expression_is_named_wherever_it_stands_and_never_run() {
        fn run(
            plan: &mut Plan,
        ) -> (
            &mut Template<String>,
            &mut Template<Shell>,
            &mut Option<Template<String>>,
        ) {
            match &mut plan.jobs[0].steps[1].action {
                plan::Action::Run {
                    script,
                    shell,
                    working_directory,
                } => (script, shell, working_directory),
                other => panic!("{other:?}"),
            }
        }
        let cases: [(&str, Change); 14] = [
            ("`W` in `env` of the workflow", |plan| plan.env[0].1 = expression()),
            ("`name` of the job `build`", |plan| plan.jobs[0].name = expression()),
            ("`if` of the job `build`", |plan| plan.jobs[0].condition = expression()),
            ("`J` in `env` of the job `build`", |plan| {
                plan.jobs[0].env[0].1 = expression()
            }),
            ("`timeout-minutes` of the job `build`", |plan| {
                plan.jobs[0].timeout_minutes = expression()
            }),
            ("`name` of step 2 (line 11)", |plan| {
                plan.jobs[0].steps[1].name = expression()
            }),
            ("`if` of step 2 (line 11)", |plan| {
                plan.jobs[0].steps[1].condition = expression()
            }),
            ("`S` in `env` of step 2 (line 11)", |plan| {
                plan.jobs[0].steps[1].env[0].1 = expression()
            }),
            ("`timeout-minutes` of step 2 (line 11)", |plan| {
                plan.jobs[0].steps[1].timeout_minutes = Some(expression());
            }),
            ("`continue-on-error` of step 2 (line 11)", |plan| {
                plan.jobs[0].steps[1].continue_on_error = expression();
            }),
            ("`run` of step 2 (line 11)", |plan| *run(plan).0 = expression()),
            ("`shell` of step 2 (line 11)", |plan| *run(plan).1 = expression()),
            ("`working-directory` of step 2 (line 11)", |plan| {
                *run(plan).2 = Some(expression())
            }),
            ("`fetch-depth` in `with` of step 1 (line 9)", |plan| {
                let plan::Action::Uses { inputs, .. } = &mut plan.jobs[0].steps[0].action else {
                    panic!("no checkout")
                };
                inputs[0].1 = expression();
            }),
        ];
        for (what, change) in cases {
            let said = refusal(change);
            let begins = format!("{what} is an expression (line 3, column 9)");
            assert!(said.starts_with(&begins) && !said.contains("github.token"), "{said}");
        }
    }

    #[test]
    fn what_only_a_newer_version_can_honour_is_refused_by_name() {
        let strategy = || Strategy {
            matrix: Data::Mapping(Vec::new()),
            fail_fast: Template::default_of(true),
            max_parallel: None,
        };
        for (what, said) in [
            (
                "`if` of the job `build`",
                refusal(|plan| plan.jobs[0].condition = Template::default_of(Condition::Always)),
            ),
            (
                "`strategy` of the job `build`",
                refusal(|plan| plan.jobs[0].strategy = Some(strategy())),
            ),
            (
                "`outputs` of the job `build`",
                refusal(|plan| {
                    plan.jobs[0].outputs = vec![("v".into(), Template::default_of("1".into()))];
                }),
            ),
            (
                "`uses` of the job `build`",
                refusal(|plan| {
                    plan.jobs[0].call = Some(Call {
                        workflow: "./w.yml".into(),
                        span: PlanSpan::at(1, 1),
                        inputs: Vec::new(),
                    });
                }),
            ),
            (
                "the action actions/cache, `uses` of step 1 (line 9),",
                refusal(|plan| {
                    plan.jobs[0].steps[0].action = uses("actions/cache", Vec::new());
                }),
            ),
            (
                "the action actions/checkout, `uses` of step 1 (line 9),",
                refusal(|plan| {
                    let child = plan.jobs[0].steps[1].clone();
                    plan.jobs[0].steps[0].action = uses(CHECKOUT, vec![child]);
                }),
            ),
        ] {
            assert!(
                said.starts_with(&format!("{what} is not supported by this version")),
                "{said}"
            );
        }
    }

    fn uses(action: &str, children: Vec<PlannedStep>) -> plan::Action {
        plan::Action::Uses {
            action: action.into(),
            inputs: Vec::new(),
            children,
        }
    }
}
