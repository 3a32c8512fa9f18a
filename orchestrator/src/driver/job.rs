//! What an attempt has to do, in the agent's words: the steps of the plan become commands. Pure.

use helios_proto::v1;

use crate::model::{
    names::{CommitSha, RefName},
    plan::{Action, Env, PlannedJob, PlannedStep, Shell},
};

/// Everything an attempt needs to know that never changes while it lives. Not part of the
/// checkpoint: the plan is stored with the run, the rest with the machine.
#[derive(Debug, Clone)]
pub struct Job {
    /// The job of the stored plan.
    pub plan: PlannedJob,
    /// The whole environment of each step, each name once.
    pub env: Vec<Env>,
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

/// See [`Job::checkout`].
const CHECKOUT_PARTS: usize = 9;

/// How many commands a step takes, one after the other.
#[must_use]
pub fn parts(action: &Action) -> usize {
    match action {
        Action::Checkout { .. } => CHECKOUT_PARTS,
        Action::Run { .. } | Action::Script { .. } => 1,
    }
}

/// How many commits of history the source of a job must hold: what its deepest checkout asks for; 0 is all,
/// with all branches and tags. None when nothing is checked out.
#[must_use]
pub fn source_depth(job: &PlannedJob) -> Option<u32> {
    let depths = job.steps.iter().filter_map(|step| match step.action {
        Action::Checkout { depth, .. } => Some(depth),
        Action::Run { .. } | Action::Script { .. } => None,
    });
    depths.reduce(|a, b| if a == 0 || b == 0 { 0 } else { a.max(b) })
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
        let mut ours = Env::new();
        let mut directories = vec![self.workspace.clone()];
        let mut choices = Vec::new();
        let (argv, script, cwd): (Vec<String>, String, String) = match &planned.action {
            Action::Checkout { depth, path } => {
                ours = self.checkout_env();
                let argv = self.checkout(*depth, path.as_deref().unwrap_or("."), part)?;
                (argv, String::new(), self.workspace.clone())
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
        let own = self.env.get(step)?;
        let own = own
            .iter()
            .filter(|(name, _)| ours.iter().all(|(known, _)| known != name));
        Some(v1::Exec {
            argv,
            script,
            env: own
                .chain(&ours)
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

    /// One command of a checkout. Each is judged by its exit code: no shell, no chain that could hide a
    /// failure. Each may be repeated, and what follows works whatever an earlier checkout at this place
    /// left, or a daemon of another version that was replaced meanwhile.
    ///
    /// As GitHub's action does: the folder is emptied; a run of a branch stands on that branch, which follows
    /// the one at `origin`; a run of a tag stands on that tag; everything else stands on the commit; a depth
    /// of 0 brings all branches and tags; and git does no housekeeping of its own while steps run.
    fn checkout(&self, depth: u32, path: &str, part: usize) -> Option<Vec<String>> {
        let git = |args: &[&str]| [words(&["git", "-C", path]), words(args)].concat();
        let dot_git = format!("{path}/.git");
        Some(match part {
            0 => words(&["rm", "-rf", "--", &dot_git]),
            1 => words(&["git", "init", "-q", "--", path]),
            // Everything here is unknown to the new repository.
            2 => git(&["clean", "-ffdxq"]),
            3 => git(&["config", "remote.origin.url", &self.git_url]),
            4 => git(&["config", "remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*"]),
            5 => git(&["config", "gc.auto", "0"]),
            6 => git(&["config", "maintenance.auto", "false"]),
            7 => self.fetch(depth, path),
            8 => match (self.branch(), self.ref_name.tag()) {
                (Some(name), _) => {
                    let upstream = format!("refs/remotes/origin/{name}");
                    git(&["checkout", "-q", "--force", "-B", name, "--track", &upstream])
                }
                (_, Some(_)) => git(&["checkout", "-q", "--force", "--detach", self.ref_name.as_str()]),
                (None, None) => git(&["checkout", "-q", "--force", "--detach", self.commit.as_str()]),
            },
            _ => return None,
        })
    }

    /// The branch of the run, unless git has no such branch: it refuses this name for one of its own.
    fn branch(&self) -> Option<&str> {
        self.ref_name.branch().filter(|name| *name != "HEAD")
    }

    fn fetch(&self, depth: u32, path: &str) -> Vec<String> {
        let (commit, ref_name) = (&self.commit, &self.ref_name);
        let mut argv: Vec<String> = ["git", "-C", path, "fetch", "-q", "--no-tags", "--prune"]
            .map(str::to_owned)
            .into();
        argv.push("--no-recurse-submodules".into());
        if depth > 0 {
            argv.push(format!("--depth={depth}"));
        }
        argv.extend(["--end-of-options".into(), "origin".into()]);
        if depth == 0 {
            argv.push("+refs/heads/*:refs/remotes/origin/*".into());
            argv.push("+refs/tags/*:refs/tags/*".into());
        }
        match (self.branch(), ref_name.tag()) {
            // Among the others already.
            (Some(_), _) | (_, Some(_)) if depth == 0 => {}
            (Some(name), _) => argv.push(format!("+{commit}:refs/remotes/origin/{name}")),
            // By its name: an annotated tag is more than its commit.
            (_, Some(_)) => argv.push(format!("+{ref_name}:{ref_name}")),
            (None, None) => argv.push(commit.to_string()),
        }
        argv
    }

    /// What the commands of a checkout find in their environment besides the step's own: the hash of the
    /// repository, as git's default changes with its version; and that nobody is there to be asked, nor a
    /// server for large files.
    fn checkout_env(&self) -> Env {
        let format = crate::source::object_format(&self.commit);
        [
            ("GIT_DEFAULT_HASH", format),
            ("GIT_LFS_SKIP_SMUDGE", "1"),
            ("GIT_TERMINAL_PROMPT", "0"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
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
mod real_git;

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

    fn argvs(job: &Job, step: usize) -> Vec<String> {
        (0..parts(&job.plan.steps[step].action))
            .map(|part| job.command(step, part).unwrap().argv.join(" "))
            .collect()
    }

    #[test]
    fn the_agent_chooses_the_default_shell_and_no_shell_does() {
        let exec = job(vec![step("x", run("true"))]).command(0, 0).unwrap();
        let programs: Vec<&str> = exec.choices.iter().map(|choice| choice.words[0].as_str()).collect();
        assert_eq!(programs, ["bash", "sh"]);
        assert!(exec.choices.iter().all(|choice| choice.words.last().unwrap() == "{0}"));
    }

    #[test]
    fn a_checkout_fetches_the_exact_commit_onto_its_branch_or_tag() {
        let sha = "a".repeat(40);
        let fetch = "git -C . fetch -q --no-tags --prune --no-recurse-submodules";
        let all = "+refs/heads/*:refs/remotes/origin/* +refs/tags/*:refs/tags/*";
        for (ref_name, depth, fetched, checked_out) in [
            (
                "refs/heads/main",
                1,
                format!("{fetch} --depth=1 --end-of-options origin +{sha}:refs/remotes/origin/main"),
                "-B main --track refs/remotes/origin/main".to_owned(),
            ),
            (
                "refs/heads/a/b",
                0,
                format!("{fetch} --end-of-options origin {all}"),
                "-B a/b --track refs/remotes/origin/a/b".to_owned(),
            ),
            (
                "refs/tags/v1",
                3,
                format!("{fetch} --depth=3 --end-of-options origin +refs/tags/v1:refs/tags/v1"),
                "--detach refs/tags/v1".to_owned(),
            ),
            (
                "refs/tags/v1",
                0,
                format!("{fetch} --end-of-options origin {all}"),
                "--detach refs/tags/v1".to_owned(),
            ),
            (
                "refs/heads/HEAD",
                1,
                format!("{fetch} --depth=1 --end-of-options origin {sha}"),
                format!("--detach {sha}"),
            ),
            (
                "refs/pull/1/head",
                0,
                format!("{fetch} --end-of-options origin {all} {sha}"),
                format!("--detach {sha}"),
            ),
        ] {
            let mut job = job(vec![step("c", Action::Checkout { depth, path: None })]);
            job.ref_name = ref_name.parse().unwrap();
            let argv = argvs(&job, 0);
            assert_eq!(argv[7], fetched, "{ref_name}");
            assert_eq!(argv[8], format!("git -C . checkout -q --force {checked_out}"));
            assert!(job.command(0, argv.len()).is_none());
        }
    }

    #[test]
    fn a_checkout_names_its_place_and_its_hash_and_asks_nobody() {
        let checkout = Action::Checkout {
            depth: 1,
            path: Some("sub/x".into()),
        };
        let mut job = job(vec![step("c", checkout)]);
        job.commit = "b".repeat(64).parse().unwrap();
        job.env = vec![vec![
            ("CI".into(), "true".into()),
            ("GIT_TERMINAL_PROMPT".into(), "1".into()),
        ]];
        for part in 0..parts(&job.plan.steps[0].action) {
            let exec = job.command(0, part).unwrap();
            assert_eq!(exec.cwd, "/helios/workspace");
            assert!(exec.script.is_empty() && exec.argv.iter().any(|word| word.starts_with("sub/x")));
            let env: Vec<_> = exec
                .env
                .iter()
                .map(|v| format!("{}={}", v.name, String::from_utf8_lossy(&v.value)))
                .collect();
            assert_eq!(
                env,
                [
                    "CI=true",
                    "GIT_DEFAULT_HASH=sha256",
                    "GIT_LFS_SKIP_SMUDGE=1",
                    "GIT_TERMINAL_PROMPT=0"
                ]
            );
        }
    }
}
