//! The stored plan of one workflow file: everything that running it needs, decided once. It is
//! versioned JSON; a daemon upgrade reads it and never plans again.

use serde::{Deserialize, Serialize};

use super::names::Label;

/// The version this daemon writes. Every earlier one must stay readable.
pub const PLAN_VERSION: u32 = 1;

/// A `KEY=value` list in the order of the file; later entries win.
pub type Env = Vec<(String, String)>;

/// One workflow file, ready to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// [`PLAN_VERSION`] of the writer.
    pub version: u32,
    /// The file's path in the repository.
    pub path: String,
    /// `name:`, else the path: what checks are called after.
    pub name: String,
    /// Environment of every step.
    pub env: Env,
    /// The jobs in file order; ids are unique ignoring case.
    pub jobs: Vec<PlannedJob>,
}

/// One job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedJob {
    /// The key under `jobs:`.
    pub id: String,
    /// `name:`, else the id.
    pub name: String,
    /// `runs-on`, where the file has one; the default label applies otherwise.
    pub runs_on: Option<Label>,
    /// The second word of `runs-on: [label, size]`: a size of the configuration.
    #[serde(default)]
    pub size: Option<Label>,
    /// Line and column of the label, else of the job, counted from 1; 1 and 1 in plans of old.
    #[serde(default = "start")]
    pub runs_on_at: (u32, u32),
    /// Ids of jobs that must succeed first.
    pub needs: Vec<String>,
    /// Environment of every step of this job.
    pub env: Env,
    /// Wall time of all steps together, in minutes.
    pub timeout_minutes: u32,
    /// At least one.
    pub steps: Vec<PlannedStep>,
}

fn start() -> (u32, u32) {
    (1, 1)
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedStep {
    /// `name:`, else the first line of what it does.
    pub name: String,
    /// What it does.
    pub action: Action,
    /// Environment of this step alone.
    pub env: Env,
    /// In minutes; none means the job's limit alone.
    pub timeout_minutes: Option<u32>,
    /// A failure is shown, and the job goes on.
    pub continue_on_error: bool,
    /// The line of the step in the workflow file, counted from 1.
    pub line: u32,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Action {
    /// `actions/checkout`, built in: the exact commit of the run.
    Checkout {
        /// Commits of history; 0 means all.
        depth: u32,
        /// Where in the workspace, relative; none means the workspace itself.
        path: Option<String>,
    },
    /// `run:`.
    Run {
        /// The script's text.
        script: String,
        /// Which shell.
        shell: Shell,
        /// Relative to the workspace.
        working_directory: Option<String>,
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
        if found > PLAN_VERSION {
            return Err(PlanError::Newer { found });
        }
        Ok(serde_json::from_str(text)?)
    }

    /// The name of a job's check on the forge.
    #[must_use]
    pub fn check_name(&self, job: &PlannedJob) -> String {
        format!("helios-ci / {} / {}", self.name, job.name)
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
            env: vec![("A".into(), "1".into())],
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
}
