//! The environment of a job's steps: what helios-ci sets, and in which order the file's own entries
//! go over it.

use super::script::{JCI, PICO};
use crate::model::{
    ids::{JobId, RunId},
    names::{CommitSha, RefName, RepoPath},
    plan::{Action, Env, PlannedJob},
};

/// What is known once a job runs.
#[derive(Debug, Clone, Copy)]
pub struct JobContext<'a> {
    /// The workflow's name.
    pub workflow: &'a str,
    /// One job of it.
    pub job: &'a PlannedJob,
    /// The job's id.
    pub job_id: JobId,
    /// The repository.
    pub repository: &'a RepoPath,
    /// The event's name: `push`.
    pub event: &'a str,
    /// The branch or tag.
    pub ref_name: &'a RefName,
    /// The commit of the run.
    pub commit: &'a CommitSha,
    /// The run.
    pub run: RunId,
    /// Its attempt, from 1.
    pub run_attempt: u32,
    /// Where the workspace lies in the machine, absolute.
    pub workspace: &'a str,
}

/// What helios-ci sets for every step of a job: `CI`, `HELIOS_CI`, the basic `GITHUB_` variables
/// and, for a bare script, those of its kind. `GITHUB_ACTIONS` is not set: scripts take it for a
/// promise we do not keep. `GITHUB_RUN_ID` is our run id, which is not a number.
///
/// `JCI_OUTPUT_DIR` is `.jci/<commit>` below the workspace; who runs the script makes the folder
/// and starts the script in it.
#[must_use]
pub fn job_env(context: &JobContext<'_>) -> Env {
    let commit = context.commit.as_str();
    let mut env: Env = vec![("CI".into(), "true".into()), ("HELIOS_CI".into(), "true".into())];
    for (name, value) in github(context) {
        env.push((name.into(), value));
    }
    let mut set = |name: &str, value: &str| env.push((name.into(), value.into()));
    for step in &context.job.steps {
        match &step.action {
            Action::Script { path } if path == JCI => {
                set("JCI_COMMIT", commit);
                set("JCI_REPO_ROOT", context.workspace);
                set(
                    "JCI_OUTPUT_DIR",
                    &format!("{}/.jci/{commit}", context.workspace.trim_end_matches('/')),
                );
            }
            Action::Script { path } if path == PICO => {
                set("PICO_CI_JOB_ID", &context.job_id.to_string());
                set("PICO_CI_REPO", context.repository.as_str());
                set("PICO_CI_EVENT_TYPE", context.event);
                set("PICI_EVENT", context.event);
                if let Some(branch) = context.ref_name.branch() {
                    set("PICI_BRANCH", branch);
                }
                if let Some(tag) = context.ref_name.tag() {
                    set("PICI_TAG", tag);
                }
            }
            _ => {}
        }
    }
    env
}

/// The whole environment of one step, each name once: what helios-ci sets, then the workflow's, the
/// job's and the step's own entries, which `own` gives in this order, and `GITHUB_` names of ours last,
/// which a file cannot change.
#[must_use]
pub fn environment(context: &JobContext<'_>, own: [&Env; 3]) -> Env {
    let ours = job_env(context);
    let fixed = ours.iter().filter(|(name, _)| name.starts_with("GITHUB_"));
    let layers = ours.iter().chain(own.into_iter().flatten()).chain(fixed);
    let mut env = Env::new();
    for (name, value) in layers {
        match env.iter_mut().find(|(known, _)| known == name) {
            Some(entry) => entry.1.clone_from(value),
            None => env.push((name.clone(), value.clone())),
        }
    }
    env
}

fn github(context: &JobContext<'_>) -> [(&'static str, String); 11] {
    let kind = if context.ref_name.tag().is_some() {
        "tag"
    } else {
        "branch"
    };
    [
        ("GITHUB_SHA", context.commit.to_string()),
        ("GITHUB_REF", context.ref_name.to_string()),
        ("GITHUB_REF_NAME", context.ref_name.short().into()),
        ("GITHUB_REF_TYPE", kind.into()),
        ("GITHUB_REPOSITORY", context.repository.to_string()),
        ("GITHUB_EVENT_NAME", context.event.into()),
        ("GITHUB_WORKFLOW", context.workflow.to_owned()),
        ("GITHUB_JOB", context.job.id.clone()),
        ("GITHUB_RUN_ID", context.run.to_string()),
        ("GITHUB_RUN_ATTEMPT", context.run_attempt.to_string()),
        ("GITHUB_WORKSPACE", context.workspace.into()),
    ]
}
