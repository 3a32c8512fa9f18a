//! `run:`, a script in a shell.

use super::{Action, Command, Scope, words};
use crate::model::plan::{Env, Shell};
use helios_proto::v1;

/// `bash` is what workflow authors expect; `sh` is everywhere.
const DEFAULT_SHELL: [&[&str]; 2] = [&["bash", "--noprofile", "--norc", "-e", "{0}"], &["sh", "-e", "{0}"]];

/// The same for an agent of an earlier version, which knows no choices. It costs the step those variables whose names
/// are no names of the shell's.
const CHOOSING_SHELL: &str =
    r#"if command -v bash >/dev/null 2>&1; then exec bash --noprofile --norc -e "$1"; else exec sh -e "$1"; fi"#;

/// One script.
#[derive(Debug)]
pub struct Run {
    /// Its text, which travels as a file.
    pub script: String,
    /// What reads it.
    pub shell: Shell,
    /// Relative to the workspace.
    pub working_directory: Option<String>,
}

impl Action for Run {
    fn main(&self, part: usize, scope: &Scope<'_>) -> Option<Command> {
        if part > 0 {
            return None;
        }
        let mut choices = Vec::new();
        let argv: &[&str] = match self.shell {
            Shell::Default => {
                choices = DEFAULT_SHELL
                    .map(|choice| v1::Arguments { words: words(choice) })
                    .to_vec();
                &["sh", "-c", CHOOSING_SHELL, "sh", "{0}"]
            }
            Shell::Bash => &["bash", "--noprofile", "--norc", "-eo", "pipefail", "{0}"],
            Shell::Sh => &["sh", "-e", "{0}"],
            Shell::Python => &["python3", "{0}"],
        };
        Some(Command::Exec(v1::Exec {
            script: self.script.clone(),
            cwd: scope.inside(self.working_directory.as_deref()),
            choices,
            ..scope.exec(words(argv), &Env::new())
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::driver::{
        actions::testing::{exec, execs, variables},
        job::testing::{job, run, step},
    };

    #[test]
    fn scripts_travel_as_files_and_nothing_goes_through_a_shell_of_ours() {
        let action = Run {
            script: "echo '$(id)'\n".into(),
            shell: Shell::Bash,
            working_directory: Some("sub".into()),
        };
        let job = job(vec![step("x", Arc::new(action))]);
        let [exec] = execs(&job, 0).try_into().unwrap();
        assert_eq!(exec.argv, ["bash", "--noprofile", "--norc", "-eo", "pipefail", "{0}"]);
        assert_eq!(exec.script, "echo '$(id)'\n");
        assert_eq!(exec.cwd, "/helios/workspace/sub");
        assert_eq!(exec.directories, ["/helios/workspace"]);
        assert!(exec.choices.is_empty() && exec.outlives);
        assert_eq!(variables(&exec), ["CI=true"]);
    }

    #[test]
    fn the_agent_chooses_the_default_shell_and_no_shell_does() {
        let exec = exec(&job(vec![step("x", run("true"))]), 0, 0).unwrap();
        let programs: Vec<&str> = exec.choices.iter().map(|choice| choice.words[0].as_str()).collect();
        assert_eq!(programs, ["bash", "sh"]);
        assert!(exec.choices.iter().all(|choice| choice.words.last().unwrap() == "{0}"));
    }
}
