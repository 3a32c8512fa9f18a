//! What an attempt has to do, in the agent's words: the steps of the plan become commands. Pure.

use helios_proto::v1;

use crate::model::plan::{Action, Env, PlannedJob, PlannedStep, Shell};

/// Everything an attempt needs to know that never changes while it lives. Not part of the
/// checkpoint: the plan is stored with the run, the rest with the machine.
#[derive(Debug, Clone)]
pub struct Job {
    /// The job of the stored plan.
    pub plan: PlannedJob,
    /// The whole environment of each step, each name once.
    pub env: Vec<Env>,
    /// The commit to check out.
    pub commit: String,
    /// `git://HOST:PORT/repo` as the guest must write it.
    pub git_url: String,
    /// Where steps run, absolute in the guest.
    pub workspace: String,
    /// Limits of this server.
    pub limits: Limits,
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

/// A time limit of a step.
#[must_use]
pub fn step_limit_ms(step: &PlannedStep) -> Option<u64> {
    step.timeout_minutes.map(|minutes| u64::from(minutes) * 60_000)
}

/// How many commands a step takes, one after the other.
#[must_use]
pub fn parts(action: &Action) -> usize {
    match action {
        Action::Checkout { .. } => 4,
        Action::Run { .. } | Action::Script { .. } => 1,
    }
}

/// `bash` is what workflow authors expect; `sh` is everywhere.
const DEFAULT_SHELL: [&[&str]; 2] = [&["bash", "--noprofile", "--norc", "-e", "{0}"], &["sh", "-e", "{0}"]];

/// The same for an agent of an earlier version, which knows no choices. It costs the step those variables whose names
/// are no names of the shell's.
const CHOOSING_SHELL: &str =
    r#"if command -v bash >/dev/null 2>&1; then exec bash --noprofile --norc -e "$1"; else exec sh -e "$1"; fi"#;

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

impl Job {
    /// One command of one step. Nothing foreign is ever part of a script of ours: it travels as an
    /// argument or a variable.
    #[must_use]
    pub fn command(&self, step: usize, part: usize) -> Option<v1::Exec> {
        let planned = self.plan.steps.get(step)?;
        let inside = |path: Option<&str>| match path {
            Some(path) => format!("{}/{}", self.workspace, path),
            None => self.workspace.clone(),
        };
        let mut directories = vec![self.workspace.clone()];
        let mut choices = Vec::new();
        let (argv, script, cwd): (Vec<String>, String, String) = match &planned.action {
            Action::Checkout { depth, path } => {
                let argv = self.checkout(*depth, path.as_deref(), part)?;
                // Its first command makes the directory.
                let path = path.as_deref().filter(|_| part > 0);
                (argv, String::new(), inside(path))
            }
            Action::Run {
                script,
                shell,
                working_directory,
            } => {
                let argv: &[&str] = match shell {
                    Shell::Default => {
                        choices = DEFAULT_SHELL.map(words).to_vec();
                        &["sh", "-c", CHOOSING_SHELL, "sh", "{0}"]
                    }
                    Shell::Bash => &["bash", "--noprofile", "--norc", "-eo", "pipefail", "{0}"],
                    Shell::Sh => &["sh", "-e", "{0}"],
                    Shell::Python => &["python3", "{0}"],
                };
                (words(argv), script.clone(), inside(working_directory.as_deref()))
            }
            Action::Script { path } => {
                let argv = vec!["bash".to_owned(), format!("{}/{path}", self.workspace)];
                let directory = self.script_directory(step);
                directories.push(directory.clone());
                (argv, String::new(), directory)
            }
        };
        let env = self.env.get(step)?;
        Some(v1::Exec {
            argv,
            script,
            env: env
                .iter()
                .map(|(name, value)| v1::EnvVar {
                    name: name.clone(),
                    value: value.clone().into_bytes(),
                })
                .collect(),
            cwd,
            drain_ms: 0,
            directories,
            choices: choices.into_iter().map(|words| v1::Arguments { words }).collect(),
            // What a checkout leaves running is git's, and nobody waits for it.
            outlives: !matches!(planned.action, Action::Checkout { .. }),
        })
    }

    /// How much history the machine's source must hold: what its deepest checkout asks for; 0 is all.
    #[must_use]
    pub fn source_depth(&self) -> u32 {
        let depths = self.plan.steps.iter().filter_map(|step| match step.action {
            Action::Checkout { depth, .. } => Some(depth),
            Action::Run { .. } | Action::Script { .. } => None,
        });
        depths
            .reduce(|a, b| if a == 0 || b == 0 { 0 } else { a.max(b) })
            .unwrap_or(1)
    }

    /// Four commands, each judged by its exit code: no shell, no chain that could hide a failure.
    fn checkout(&self, depth: u32, path: Option<&str>, part: usize) -> Option<Vec<String>> {
        Some(match part {
            0 => words(&["git", "init", "-q", "--", path.unwrap_or(".")]),
            1 => words(&["git", "remote", "add", "origin", &self.git_url]),
            2 => {
                let mut argv = words(&["git", "fetch", "-q", "--no-tags", "--no-recurse-submodules"]);
                if depth > 0 {
                    argv.push(format!("--depth={depth}"));
                }
                argv.extend(words(&[
                    "--end-of-options",
                    "origin",
                    &format!("+{}:refs/remotes/origin/helios-ci", self.commit),
                ]));
                argv
            }
            3 => words(&["git", "checkout", "-q", "--force", "--detach", &self.commit]),
            _ => return None,
        })
    }

    /// Bare scripts of the `.jci` kind run in their output directory, others in the workspace.
    fn script_directory(&self, step: usize) -> String {
        let output = self
            .env
            .get(step)
            .and_then(|env| env.iter().find(|(name, _)| name == "JCI_OUTPUT_DIR"));
        output.map_or_else(|| self.workspace.clone(), |(_, dir)| dir.clone())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn step(name: &str, action: Action) -> PlannedStep {
        PlannedStep {
            name: name.into(),
            action,
            env: vec![],
            timeout_minutes: None,
            continue_on_error: false,
            line: 1,
        }
    }

    pub(crate) fn run(script: &str) -> Action {
        Action::Run {
            script: script.into(),
            shell: Shell::Default,
            working_directory: None,
        }
    }

    pub(crate) fn job(steps: Vec<PlannedStep>) -> Job {
        Job {
            plan: PlannedJob {
                id: "build".into(),
                name: "build".into(),
                runs_on: None,
                size: None,
                runs_on_at: (1, 1),
                needs: vec![],
                env: vec![],
                timeout_minutes: 30,
                steps,
            },
            env: vec![vec![("CI".into(), "true".into())]; 9],
            commit: "a".repeat(40),
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

    #[test]
    fn scripts_travel_as_files_and_nothing_goes_through_a_shell_of_ours() {
        let mut planned = step(
            "x",
            Action::Run {
                script: "echo '$(id)'\n".into(),
                shell: Shell::Bash,
                working_directory: Some("sub".into()),
            },
        );
        planned.env = vec![("A".into(), "step".into()), ("B".into(), "1".into())];
        let exec = job(vec![planned]).command(0, 0).unwrap();
        assert_eq!(exec.argv, ["bash", "--noprofile", "--norc", "-eo", "pipefail", "{0}"]);
        assert_eq!(exec.script, "echo '$(id)'\n");
        assert_eq!(exec.cwd, "/helios/workspace/sub");
        assert_eq!(exec.directories, ["/helios/workspace"]);
        assert!(exec.choices.is_empty() && exec.outlives);
        let env: Vec<_> = exec
            .env
            .iter()
            .map(|v| format!("{}={}", v.name, String::from_utf8_lossy(&v.value)))
            .collect();
        assert_eq!(env, ["CI=true"]);
    }

    #[test]
    fn the_agent_chooses_the_default_shell_and_no_shell_does() {
        let exec = job(vec![step("x", run("true"))]).command(0, 0).unwrap();
        let programs: Vec<&str> = exec.choices.iter().map(|choice| choice.words[0].as_str()).collect();
        assert_eq!(programs, ["bash", "sh"]);
        assert!(exec.choices.iter().all(|choice| choice.words.last().unwrap() == "{0}"));
    }

    #[test]
    fn a_checkout_makes_its_directory_itself() {
        let path = Some("vendor/engine".to_owned());
        let job = job(vec![step("c", Action::Checkout { depth: 1, path })]);
        let (init, fetch) = (job.command(0, 0).unwrap(), job.command(0, 2).unwrap());
        assert_eq!(init.cwd, "/helios/workspace");
        assert_eq!(init.argv, ["git", "init", "-q", "--", "vendor/engine"]);
        assert_eq!(fetch.cwd, "/helios/workspace/vendor/engine");
        assert!(!init.outlives && init.directories == fetch.directories);
    }

    #[test]
    fn checkout_is_four_commands_and_fetches_the_exact_commit() {
        let job = job(vec![step("c", Action::Checkout { depth: 1, path: None })]);
        let argv: Vec<String> = (0..parts(&job.plan.steps[0].action))
            .map(|p| job.command(0, p).unwrap().argv.join(" "))
            .collect();
        let sha = "a".repeat(40);
        assert_eq!(
            argv[2],
            format!(
                "git fetch -q --no-tags --no-recurse-submodules --depth=1 --end-of-options origin +{sha}:refs/remotes/origin/helios-ci"
            )
        );
        assert_eq!(argv[3], format!("git checkout -q --force --detach {sha}"));
        assert!(job.command(0, 4).is_none());
    }
}
