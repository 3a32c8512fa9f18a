//! What a step does, as commands for its machine's agent: one file for each action, behind one trait. Pure.
//!
//! An action is a row of commands, one after the other; the first that fails fails the step. A command is made again
//! whenever it is sent again, after a restart too, so it must follow from the job and its number alone.

mod checkout;
mod run;
mod script;

use std::fmt::Debug;

use helios_proto::v1;

pub use self::{checkout::Checkout, run::Run, script::Script};
use crate::model::{
    names::{CommitSha, RefName},
    plan::Env,
};

/// What a step does.
pub trait Action: Debug + Send + Sync {
    /// The command with this number, from 0; `None` after the last.
    fn main(&self, part: usize, scope: &Scope<'_>) -> Option<Command>;

    /// As [`Action::main`], for what is left to be done when all steps are over. It is done whatever became of the job,
    /// if the step ran at all, and in the reverse order of the steps.
    fn post(&self, _part: usize, _scope: &Scope<'_>) -> Option<Command> {
        None
    }

    /// A line of ours with which the step's log begins.
    fn opening(&self, _scope: &Scope<'_>) -> Option<String> {
        None
    }

    /// How many commits of history it fetches from the attempt's grant; 0 is all, with all branches and tags. `None`
    /// when it fetches nothing.
    fn source_depth(&self) -> Option<u32> {
        None
    }
}

/// Something that the agent does. A further kind has its variant here, its message below, and its end among the driver's
/// events.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Runs a process to its end.
    Exec(v1::Exec),
}

impl From<Command> for v1::command::Command {
    fn from(command: Command) -> Self {
        match command {
            Command::Exec(exec) => Self::Exec(exec),
        }
    }
}

/// What commands are made of.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// The commit to check out.
    pub commit: &'a CommitSha,
    /// The branch or tag of the run, on which a checkout stands.
    pub ref_name: &'a RefName,
    /// `git://HOST:PORT/repo` as the guest must write it.
    pub git_url: &'a str,
    /// Where steps run, absolute in the guest.
    pub workspace: &'a str,
    /// The whole environment of the step, each name once.
    pub env: &'a Env,
}

impl Scope<'_> {
    /// A path of the workspace, absolute in the guest.
    fn inside(&self, path: Option<&str>) -> String {
        match path {
            Some(path) => format!("{}/{path}", self.workspace),
            None => self.workspace.to_owned(),
        }
    }

    /// A process in the workspace with the step's environment, over which `ours` goes. Nothing foreign is ever part of a
    /// script of ours: it travels as an argument or a variable.
    fn exec(&self, argv: Vec<String>, ours: &Env) -> v1::Exec {
        let own = self
            .env
            .iter()
            .filter(|(name, _)| ours.iter().all(|(known, _)| known != name));
        let env = own.chain(ours).map(|(name, value)| v1::EnvVar {
            name: name.clone(),
            value: value.clone().into_bytes(),
        });
        v1::Exec {
            argv,
            script: String::new(),
            env: env.collect(),
            cwd: self.inside(None),
            drain_ms: 0,
            directories: vec![self.workspace.to_owned()],
            choices: Vec::new(),
            outlives: true,
        }
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

/// What the tests of actions read of a command.
#[cfg(test)]
pub(super) mod testing {
    use super::*;
    use crate::driver::job::Job;

    /// The command with this number of a step.
    pub(crate) fn exec(job: &Job, step: usize, part: usize) -> Option<v1::Exec> {
        let step = &job.steps[step];
        step.action.main(part, &job.scope(step)).map(|Command::Exec(exec)| exec)
    }

    /// All commands of a step.
    pub(crate) fn execs(job: &Job, step: usize) -> Vec<v1::Exec> {
        (0..).map_while(|part| exec(job, step, part)).collect()
    }

    /// `NAME=value` of each variable.
    pub(crate) fn variables(exec: &v1::Exec) -> Vec<String> {
        let text = |v: &v1::EnvVar| format!("{}={}", v.name, String::from_utf8_lossy(&v.value));
        exec.env.iter().map(text).collect()
    }
}
