//! Everything an attempt needs to know that never changes while it lives. It is no part of the checkpoint: the plan is
//! stored with the run, the rest with the machine.

use std::sync::Arc;

use super::actions::{Action, Scope};
use crate::model::{
    names::{CommitSha, RefName},
    plan::{Condition, Env},
};

/// What an attempt has to do.
#[derive(Debug, Clone)]
pub struct Job {
    /// The steps of the plan, in its order.
    pub steps: Vec<JobStep>,
    /// The commit to check out.
    pub commit: CommitSha,
    /// The branch or tag of the run, on which a checkout stands.
    pub ref_name: RefName,
    /// `git://HOST:PORT/repo` as the guest must write it.
    pub git_url: String,
    /// Where steps run, absolute in the guest.
    pub workspace: String,
    /// Limits of this server.
    pub limits: Limits,
}

/// One step.
#[derive(Debug, Clone)]
pub struct JobStep {
    /// What people call it; foreign text.
    pub name: String,
    /// When it runs.
    pub condition: Condition,
    /// What it does.
    pub action: Arc<dyn Action>,
    /// Its whole environment, each name once.
    pub env: Env,
    /// Its own time limit, in milliseconds.
    pub limit_ms: Option<u64>,
    /// A failure is shown, and the job goes on.
    pub continue_on_error: bool,
}

/// Time limits in milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From start to hello.
    pub boot_ms: u64,
    /// All steps together.
    pub job_ms: u64,
    /// Without any output of a running step.
    pub idle_ms: u64,
    /// From the first cancel request to force.
    pub cancel_ms: u64,
    /// Without a connection of an agent that has said hello.
    pub silence_ms: u64,
}

impl Job {
    /// What the commands of a step are made of.
    #[must_use]
    pub fn scope<'a>(&'a self, step: &'a JobStep) -> Scope<'a> {
        Scope {
            commit: &self.commit,
            ref_name: &self.ref_name,
            git_url: &self.git_url,
            workspace: &self.workspace,
            env: &step.env,
        }
    }

    /// How many commits of history the source of the job must hold; see [`source_depth`].
    #[must_use]
    pub fn source_depth(&self) -> Option<u32> {
        source_depth(&self.steps)
    }
}

/// How many commits of history the source of these steps must hold: what the deepest checkout asks for; 0 is all, with
/// all branches and tags. `None` when nothing is checked out.
#[must_use]
pub fn source_depth(steps: &[JobStep]) -> Option<u32> {
    let depths = steps.iter().filter_map(|step| step.action.source_depth());
    depths.reduce(|a, b| if a == 0 || b == 0 { 0 } else { a.max(b) })
}

/// Jobs for tests.
#[cfg(test)]
pub(super) mod testing {
    use super::*;
    use crate::{driver::actions::Run, model::plan::Shell};

    pub(crate) fn step(name: &str, action: Arc<dyn Action>) -> JobStep {
        JobStep {
            name: name.into(),
            condition: Condition::Success,
            action,
            env: vec![("CI".into(), "true".into())],
            limit_ms: None,
            continue_on_error: false,
        }
    }

    pub(crate) fn run(script: &str) -> Arc<dyn Action> {
        Arc::new(Run {
            script: script.into(),
            shell: Shell::Default,
            working_directory: None,
        })
    }

    pub(crate) fn job(steps: Vec<JobStep>) -> Job {
        Job {
            steps,
            commit: "a".repeat(40).parse().unwrap(),
            ref_name: "refs/heads/main".parse().unwrap(),
            git_url: "git://10.0.2.100:9418/repo".into(),
            workspace: "/helios/workspace".into(),
            limits: Limits {
                boot_ms: 120_000,
                job_ms: 30 * 60_000,
                idle_ms: 10 * 60_000,
                cancel_ms: 300_000,
                silence_ms: 120_000,
            },
        }
    }
}
