//! A script file of the repository, run as it is (`.jci/run.sh`, `pico.sh`).

use super::{Action, Command, Scope};
use crate::model::plan::Env;
use helios_proto::v1;

/// One file.
#[derive(Debug)]
pub struct Script {
    /// Its path in the repository.
    pub path: String,
}

impl Action for Script {
    /// Those of the `.jci` kind run in their output directory, others in the workspace.
    fn main(&self, part: usize, scope: &Scope<'_>) -> Option<Command> {
        if part > 0 {
            return None;
        }
        let output = scope.env.iter().find(|(name, _)| name == "JCI_OUTPUT_DIR");
        let cwd = output.map_or_else(|| scope.inside(None), |(_, folder)| folder.clone());
        let argv = vec!["bash".to_owned(), scope.inside(Some(&self.path))];
        Some(Command::Exec(v1::Exec {
            directories: vec![scope.inside(None), cwd.clone()],
            cwd,
            ..scope.exec(argv, &Env::new())
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::driver::{
        actions::testing::execs,
        job::testing::{job, step},
    };

    #[test]
    fn a_script_runs_where_its_output_belongs() {
        let path = || ".jci/run.sh".to_owned();
        let mut job = job(vec![step("x", Arc::new(Script { path: path() }))]);
        for folder in [None, Some("/helios/workspace/.jci/abc")] {
            let variable = folder.map(|folder| ("JCI_OUTPUT_DIR".to_owned(), folder.to_owned()));
            job.steps[0].env = variable.into_iter().collect();
            let [exec] = execs(&job, 0).try_into().unwrap();
            assert_eq!(exec.argv, ["bash", "/helios/workspace/.jci/run.sh"]);
            assert_eq!(exec.cwd, folder.unwrap_or("/helios/workspace"));
            assert_eq!(exec.directories, ["/helios/workspace", exec.cwd.as_str()]);
        }
    }
}
