//! The built-in `actions/checkout`: the exact commit of the run, from the attempt's grant.

use helios_proto::v1;

use super::{Action, Command, Scope, words};
use crate::{
    driver::resolve::NotRunnable,
    model::plan::{CHECKOUT, Env},
};

/// One checkout.
#[derive(Debug)]
pub struct Checkout {
    /// Commits of history; 0 means all, with all branches and tags.
    depth: u32,
    /// Where in the workspace, relative.
    path: String,
}

impl Checkout {
    /// Reads `with:`.
    ///
    /// # Errors
    /// When it names an input that is not known here, or holds what is no value of one.
    pub fn new(inputs: &[(String, String)]) -> Result<Self, NotRunnable> {
        let mut checkout = Self {
            depth: 1,
            path: ".".to_owned(),
        };
        for (name, value) in inputs {
            match name.as_str() {
                "fetch-depth" => {
                    checkout.depth = value.parse().map_err(|_| NotRunnable::Input {
                        action: CHECKOUT,
                        name: name.clone(),
                    })?;
                }
                "path" => checkout.path.clone_from(value),
                _ => {
                    return Err(NotRunnable::Unsupported {
                        what: format!("the input `{name}` of {CHECKOUT}"),
                    });
                }
            }
        }
        Ok(checkout)
    }

    /// One command of a checkout. Each is judged by its exit code: no shell, no chain that could hide a
    /// failure. Each may be repeated, and what follows works whatever an earlier checkout at this place
    /// left, or a daemon of another version that was replaced meanwhile.
    ///
    /// As GitHub's action does: the folder is emptied; a run of a branch stands on that branch, which follows
    /// the one at `origin`; a run of a tag stands on that tag; everything else stands on the commit; a depth
    /// of 0 brings all branches and tags; and git does no housekeeping of its own while steps run.
    fn argv(&self, scope: &Scope<'_>, part: usize) -> Option<Vec<String>> {
        let path = self.path.as_str();
        let git = |args: &[&str]| [words(&["git", "-C", path]), words(args)].concat();
        let dot_git = format!("{path}/.git");
        Some(match part {
            0 => words(&["rm", "-rf", "--", &dot_git]),
            1 => words(&["git", "init", "-q", "--", path]),
            // Everything here is unknown to the new repository.
            2 => git(&["clean", "-ffdxq"]),
            3 => git(&["config", "remote.origin.url", scope.git_url]),
            4 => git(&["config", "remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*"]),
            5 => git(&["config", "gc.auto", "0"]),
            6 => git(&["config", "maintenance.auto", "false"]),
            7 => self.fetch(scope),
            8 => match (branch(scope), scope.ref_name.tag()) {
                (Some(name), _) => {
                    let upstream = format!("refs/remotes/origin/{name}");
                    git(&["checkout", "-q", "--force", "-B", name, "--track", &upstream])
                }
                (_, Some(_)) => git(&["checkout", "-q", "--force", "--detach", scope.ref_name.as_str()]),
                (None, None) => git(&["checkout", "-q", "--force", "--detach", scope.commit.as_str()]),
            },
            _ => return None,
        })
    }

    fn fetch(&self, scope: &Scope<'_>) -> Vec<String> {
        let (depth, commit, ref_name) = (self.depth, scope.commit, scope.ref_name);
        let mut argv = words(&["git", "-C", &self.path, "fetch", "-q", "--no-tags", "--prune"]);
        argv.push("--no-recurse-submodules".into());
        if depth > 0 {
            argv.push(format!("--depth={depth}"));
        }
        argv.extend(["--end-of-options".into(), "origin".into()]);
        if depth == 0 {
            argv.push("+refs/heads/*:refs/remotes/origin/*".into());
            argv.push("+refs/tags/*:refs/tags/*".into());
        }
        match (branch(scope), ref_name.tag()) {
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
    fn env(scope: &Scope<'_>) -> Env {
        let format = crate::source::object_format(scope.commit);
        [
            ("GIT_DEFAULT_HASH", format),
            ("GIT_LFS_SKIP_SMUDGE", "1"),
            ("GIT_TERMINAL_PROMPT", "0"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }
}

/// The branch of the run, unless git has no such branch: it refuses this name for one of its own.
fn branch<'a>(scope: &Scope<'a>) -> Option<&'a str> {
    scope.ref_name.branch().filter(|name| *name != "HEAD")
}

impl Action for Checkout {
    fn main(&self, part: usize, scope: &Scope<'_>) -> Option<Command> {
        let argv = self.argv(scope, part)?;
        Some(Command::Exec(v1::Exec {
            // What a checkout leaves running is git's, and nobody waits for it.
            outlives: false,
            ..scope.exec(argv, &Self::env(scope))
        }))
    }

    fn opening(&self, scope: &Scope<'_>) -> Option<String> {
        Some(format!("Checking out {}", scope.commit))
    }

    fn source_depth(&self) -> Option<u32> {
        Some(self.depth)
    }
}

#[cfg(test)]
mod real_git;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::driver::{
        actions::testing::{exec, execs, variables},
        job::{
            Job,
            testing::{job, step},
        },
    };

    /// A checkout with these inputs.
    pub(super) fn checkout(depth: u32, path: Option<&str>) -> Arc<dyn Action> {
        let path = path.map(|path| ("path".to_owned(), path.to_owned()));
        let depth = ("fetch-depth".to_owned(), depth.to_string());
        let inputs: Vec<_> = [depth].into_iter().chain(path).collect();
        Arc::new(Checkout::new(&inputs).unwrap())
    }

    #[test]
    fn inputs_that_are_not_known_are_refused_by_name() {
        for (name, value, said) in [
            ("token", "x", "the input `token` of actions/checkout is not supported"),
            ("fetch-depth", "many", "the input `fetch-depth` of actions/checkout"),
            ("fetch-depth", "-1", "the input `fetch-depth` of actions/checkout"),
        ] {
            let error = Checkout::new(&[(name.to_owned(), value.to_owned())]).unwrap_err();
            assert!(error.to_string().starts_with(said), "{error}");
        }
        let Checkout { depth, path } = Checkout::new(&[]).unwrap();
        assert_eq!((depth, path.as_str()), (1, "."));
    }

    fn argvs(job: &Job) -> Vec<String> {
        execs(job, 0).iter().map(|exec| exec.argv.join(" ")).collect()
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
            let mut job = job(vec![step("c", checkout(depth, None))]);
            job.ref_name = ref_name.parse().unwrap();
            let argv = argvs(&job);
            assert_eq!(argv[7], fetched, "{ref_name}");
            assert_eq!(argv[8], format!("git -C . checkout -q --force {checked_out}"));
            assert!(exec(&job, 0, argv.len()).is_none());
        }
    }

    #[test]
    fn a_checkout_names_its_place_and_its_hash_and_asks_nobody() {
        let mut job = job(vec![step("c", checkout(1, Some("sub/x")))]);
        job.commit = "b".repeat(64).parse().unwrap();
        job.steps[0].env = vec![("CI".into(), "true".into()), ("GIT_TERMINAL_PROMPT".into(), "1".into())];
        for exec in execs(&job, 0) {
            assert_eq!(exec.cwd, "/helios/workspace");
            assert!(exec.script.is_empty() && !exec.outlives && exec.argv.iter().any(|word| word.starts_with("sub/x")));
            assert_eq!(
                variables(&exec),
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
