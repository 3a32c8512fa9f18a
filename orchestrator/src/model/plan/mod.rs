//! The stored plan of one workflow file: everything that running it needs, decided once. It is
//! versioned JSON; a daemon upgrade reads it and never plans again.
//!
//! What a file may leave to expressions is a [`Template`]: a value, or the text of an expression with its place. The
//! driver asks templates for their values, and so cannot run an expression as if it were text.

mod condition;
mod template;
mod v1;

use serde::{Deserialize, Serialize};

use super::names::Label;

pub use self::{
    condition::{Condition, Status},
    template::{Data, PlanSpan, Template, Unevaluated, values},
};

/// The version this daemon writes. Every earlier one must stay readable.
pub const PLAN_VERSION: u32 = 2;

/// The built-in checkout, by the name that workflow files use for it.
pub const CHECKOUT: &str = "actions/checkout";

/// A `KEY=value` list in the order of the file; later entries win.
pub type Env = Vec<(String, String)>;

/// An `env:` of the file, in its order; later entries win.
pub type EnvTemplate = Vec<(String, Template<String>)>;

/// A `with:` of the file, in its order.
pub type Inputs = Vec<(String, Template<String>)>;

/// One workflow file, ready to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// [`PLAN_VERSION`] of the writer.
    pub version: u32,
    /// The file's path in the repository.
    pub path: String,
    /// `name:`, else the path: what checks are called after.
    pub name: String,
    /// Environment of every step.
    pub env: EnvTemplate,
    /// The jobs in file order; ids are unique ignoring case.
    pub jobs: Vec<PlannedJob>,
}

/// One job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedJob {
    /// The key under `jobs:`.
    pub id: String,
    /// Of that key.
    pub span: PlanSpan,
    /// `name:`, else the id.
    pub name: Template<String>,
    /// `if:`, judged when the jobs of `needs` have ended.
    pub condition: Template<Condition>,
    /// `strategy:`, which makes several jobs of this one.
    pub strategy: Option<Strategy>,
    /// `runs-on`: a label, and perhaps a size of the configuration after it. Nothing means the default label; a lone
    /// expression may give both.
    pub runs_on: Vec<Template<Label>>,
    /// Ids of jobs that must have ended first.
    pub needs: Vec<String>,
    /// Environment of every step of this job.
    pub env: EnvTemplate,
    /// Wall time of all steps together, in minutes.
    pub timeout_minutes: Template<u32>,
    /// What jobs that need this one may read of it.
    pub outputs: Vec<(String, Template<String>)>,
    /// `uses:`: another workflow is run in place of steps.
    pub call: Option<Call>,
    /// At least one, unless another workflow is called.
    pub steps: Vec<PlannedStep>,
}

/// How one job of the file becomes several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Strategy {
    /// `matrix:` as it is written.
    pub matrix: Data,
    /// The first failure cancels the others.
    pub fail_fast: Template<bool>,
    /// So many run at once; nothing means all.
    pub max_parallel: Option<Template<u32>>,
}

/// A call of another workflow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// `./path` in the repository, or `owner/name/path@ref`.
    pub workflow: String,
    /// Where that is written.
    pub span: PlanSpan,
    /// `with:`.
    pub inputs: Inputs,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedStep {
    /// `id:`, by which expressions name it.
    pub id: Option<String>,
    /// Of the whole step.
    pub span: PlanSpan,
    /// `name:`, else the first line of what it does.
    pub name: Template<String>,
    /// `if:`, judged when its turn comes.
    pub condition: Template<Condition>,
    /// What it does.
    pub action: Action,
    /// Environment of this step alone.
    pub env: EnvTemplate,
    /// In minutes; none means the job's limit alone.
    pub timeout_minutes: Option<Template<u32>>,
    /// A failure is shown, and the job goes on.
    pub continue_on_error: Template<bool>,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// `uses:`.
    Uses {
        /// Which, without host and version: [`CHECKOUT`].
        action: String,
        /// `with:`.
        inputs: Inputs,
        /// The steps of a composite action.
        children: Vec<PlannedStep>,
    },
    /// `run:`.
    Run {
        /// The script's text.
        script: Template<String>,
        /// Which shell.
        shell: Template<Shell>,
        /// Relative to the workspace.
        working_directory: Option<Template<String>>,
    },
    /// A script file of the repository, run as it is (`.jci/run.sh`, `pico.sh`).
    Script {
        /// Its path in the repository.
        path: String,
    },
}

/// The shells `shell:` may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shell {
    /// Nothing was said: `bash -e`, and `sh -e` where there is no bash.
    Default,
    /// `bash --noprofile --norc -eo pipefail`.
    Bash,
    /// `sh -e`.
    Sh,
    /// `python`.
    Python,
}

/// A stored plan that this daemon cannot use.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A newer daemon wrote it; its shape may be another.
    #[error("the plan has version {found}, and this version of helios-ci knows up to {PLAN_VERSION}")]
    Newer {
        /// Its version.
        found: u32,
    },
    /// It is not what this version of a plan looks like.
    #[error("the plan is not of the shape of its version: {0}")]
    Shape(#[from] serde_json::Error),
}

impl Plan {
    /// Reads a stored plan: its version first, since the rest of a newer plan means nothing here.
    ///
    /// # Errors
    /// When its version is newer than [`PLAN_VERSION`], or it is no plan.
    pub fn read(text: &str) -> Result<Self, PlanError> {
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        let Head { version: found } = serde_json::from_str(text)?;
        match found {
            0 | 1 => Ok(serde_json::from_str::<v1::Plan>(text)?.into()),
            PLAN_VERSION => Ok(serde_json::from_str(text)?),
            _ => Err(PlanError::Newer { found }),
        }
    }

    /// The name of a job's check on the forge.
    #[must_use]
    pub fn check_name(&self, job: &PlannedJob) -> String {
        format!("helios-ci / {} / {}", self.name, job.name.shown())
    }
}

impl PlannedJob {
    /// Where `runs-on` is written; the job itself, where it has none.
    #[must_use]
    pub fn runs_on_span(&self) -> PlanSpan {
        self.runs_on.first().and_then(Template::span).unwrap_or(self.span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_plan_is_refused_by_its_version_whatever_its_shape() {
        let plan = Plan {
            version: PLAN_VERSION,
            path: ".helios/workflows/ci.yml".into(),
            name: "ci".into(),
            env: vec![("A".into(), Template::default_of("1".into()))],
            jobs: Vec::new(),
        };
        let mut stored = serde_json::to_value(&plan).unwrap();
        assert_eq!(Plan::read(&stored.to_string()).unwrap(), plan);
        stored["version"] = (PLAN_VERSION + 1).into();
        stored["jobs"] = "a shape of the future".into();
        stored["env"] = serde_json::Value::Null;
        let error = Plan::read(&stored.to_string()).unwrap_err();
        assert!(
            matches!(error, PlanError::Newer { found } if found == PLAN_VERSION + 1),
            "{error}"
        );
        stored["version"] = PLAN_VERSION.into();
        assert!(matches!(Plan::read(&stored.to_string()), Err(PlanError::Shape(_))));
        assert!(matches!(Plan::read("{}"), Err(PlanError::Shape(_))));
    }

    #[test]
    fn what_the_language_will_need_is_data_and_what_is_unknown_is_refused() {
        let text = r#"{"version":2,"path":"p","name":"n","env":[],"jobs":[{
            "id":"a","span":[2,3,0,0],"name":{"expression":{"text":"on ${{ matrix.os }}","span":[3,11,30,49]}},
            "condition":{"literal":{"value":"always","span":[4,9,60,68]}},
            "strategy":{"matrix":{"mapping":[["os",{"sequence":[
                {"scalar":{"literal":{"value":"omnios"}}},
                {"scalar":{"expression":{"text":"${{ vars.OS }}","span":[6,20,90,104]}}}]}]]},
                "fail_fast":{"literal":{"value":true}},"max_parallel":null},
            "runs_on":[{"expression":{"text":"${{ matrix.os }}","span":[7,14,120,136]}}],
            "needs":[],"env":[],"timeout_minutes":{"literal":{"value":360}},
            "outputs":[["v",{"expression":{"text":"${{ steps.x.outputs.v }}","span":[8,10,150,174]}}]],
            "call":null,"steps":[{
                "id":"x","span":[10,9,200,300],"name":{"literal":{"value":"local"}},
                "condition":{"expression":{"text":"steps.y.outcome == 'failure'","span":[11,13,210,238]}},
                "action":{"uses":{"action":"./action","inputs":[["k",{"literal":{"value":"v"}}]],"children":[{
                    "id":null,"span":[1,1,0,0],"name":{"literal":{"value":"inner"}},
                    "condition":{"literal":{"value":"success"}},"action":{"script":{"path":"s.sh"}},"env":[],
                    "timeout_minutes":null,"continue_on_error":{"literal":{"value":false}}}]}},
                "env":[],"timeout_minutes":null,"continue_on_error":{"literal":{"value":false}}}]}]}"#;
        let plan = Plan::read(text).unwrap();
        assert_eq!(plan.check_name(&plan.jobs[0]), "helios-ci / n / on ${{ matrix.os }}");
        assert_eq!(Plan::read(&serde_json::to_string(&plan).unwrap()).unwrap(), plan);
        let odd = text.replace("\"fail_fast\"", "\"fail_slow\":1,\"fail_fast\"");
        assert!(matches!(Plan::read(&odd), Err(PlanError::Shape(_))));
    }
}
