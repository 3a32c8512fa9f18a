//! The commands of a checkout, run with the real git against a served grant.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;
use tokio::net::TcpListener;

use super::tests::checkout;
use crate::{
    config::{Config, LoadOptions},
    driver::{
        actions::testing::execs,
        job::{
            Job,
            testing::{job, step},
        },
    },
    exec::{Cmd, Output},
    forge::FetchAccess,
    model::{ids::AttemptId, names::CommitSha, trigger::Repository},
    source::Source,
};

/// A repository at a forge, a node that mirrors it, and a guest's folder.
struct World {
    folder: TempDir,
    source: Source,
    repository: Repository,
    access: FetchAccess,
}

fn git(cwd: &Path, args: &[&str]) -> Output {
    let mut cmd = Cmd::new("git").cwd(cwd).args(args);
    for name in ["AUTHOR", "COMMITTER"] {
        cmd = cmd
            .env(format!("GIT_{name}_NAME"), "a")
            .env(format!("GIT_{name}_EMAIL"), "a@b");
    }
    cmd.env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .run_blocking()
        .unwrap()
}

fn said(cwd: &Path, args: &[&str]) -> String {
    let output = git(cwd, args);
    assert_eq!(output.code, Some(0), "git {args:?}: {}", output.stderr_tail());
    output.text().trim().to_owned()
}

impl World {
    fn new(format: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = format!("node: n\ndata_dir: {}\n", folder.path().join("data").display());
        let config = Config::parse(Path::new("config.yaml"), &text, LoadOptions::default()).unwrap();
        let world = Self {
            source: Source::new(&config.config),
            repository: Repository {
                connection: "forge".parse().unwrap(),
                id: 7.into(),
                path: "o/r".parse().unwrap(),
                context: crate::model::names::ForgeContext::default(),
            },
            access: FetchAccess {
                url: format!("file://{}/work/.git", folder.path().display()),
                authorization: None,
            },
            folder,
        };
        for name in ["work", "guest"] {
            fs::create_dir(world.folder.path().join(name)).unwrap();
        }
        let format = format!("--object-format={format}");
        world.work(&["init", "--quiet", "--initial-branch=main", &format, "."]);
        world
    }

    fn work(&self, args: &[&str]) -> String {
        said(&self.folder.path().join("work"), args)
    }

    fn guest(&self, args: &[&str]) -> String {
        said(&self.workspace(), args)
    }

    fn workspace(&self) -> PathBuf {
        self.folder.path().join("guest")
    }

    fn commit(&self, file: &str, text: &str) -> CommitSha {
        fs::write(self.folder.path().join("work").join(file), text).unwrap();
        self.work(&["add", "--all"]);
        self.work(&["commit", "--quiet", "--message", text]);
        self.work(&["rev-parse", "HEAD"]).parse().unwrap()
    }

    /// As the planner does it when a push is heard of.
    async fn mirror(&self, ref_name: &str) {
        let ref_name = ref_name.parse().unwrap();
        let fetched = self.source.fetch(&self.repository, &self.access, &ref_name);
        fetched.await.unwrap();
    }

    /// An attempt with these checkouts, as far as its first command: granted and served.
    async fn attempt(&self, ref_name: &str, commit: &CommitSha, checkouts: &[(u32, Option<&str>)]) -> Job {
        let steps = checkouts.iter().map(|(depth, path)| {
            let mut step = step("c", checkout(*depth, *path));
            step.env = vec![("HOME".into(), self.folder.path().display().to_string())];
            step
        });
        let mut job = job(steps.collect());
        job.commit = commit.clone();
        job.ref_name = ref_name.parse().unwrap();
        job.workspace = self.workspace().display().to_string();
        let attempt = AttemptId::new();
        let depth = job.source_depth().unwrap();
        if depth == 0 {
            let left_out = self.source.fetch_refs(&self.repository, &self.access, attempt).await;
            assert_eq!(left_out.unwrap(), 0);
        }
        let granted = self
            .source
            .grant(&self.repository, attempt, &job.ref_name, commit, depth);
        granted.await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        job.git_url = format!("git://127.0.0.1:{}/repo", listener.local_addr().unwrap().port());
        let source = self.source.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let source = source.clone();
                tokio::spawn(async move { source.serve(stream, attempt).await });
            }
        });
        job
    }
}

/// Runs one step's commands as the agent would.
async fn play(job: &Job, step: usize) {
    for exec in execs(job, step) {
        let mut cmd = Cmd::new(&exec.argv[0]).args(&exec.argv[1..]).cwd(&exec.cwd);
        for variable in &exec.env {
            cmd = cmd.env(&variable.name, std::str::from_utf8(&variable.value).unwrap());
        }
        let output = cmd.run().await.unwrap();
        assert_eq!(output.code, Some(0), "{}: {}", output.command, output.stderr_tail());
    }
}

const NAMES: &[&str] = &["for-each-ref", "--format=%(refname)"];

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_a_branch_stands_on_it_and_of_a_tag_on_that_in_every_object_format() {
    for format in ["sha1", "sha256"] {
        let world = World::new(format);
        let first = world.commit("a", "one");
        world.work(&["tag", "--annotate", "--message=x", "v1"]);
        world.work(&["branch", "other/deep"]);
        let tip = world.commit("a", "two");
        world.work(&["tag", "v2"]);
        for name in ["refs/heads/main", "refs/tags/v1"] {
            world.mirror(name).await;
        }

        let job = world.attempt("refs/heads/main", &tip, &[(1, None)]).await;
        play(&job, 0).await;
        let three = format!("{tip}\n{tip}\n{tip}");
        assert_eq!(world.guest(&["rev-parse", "HEAD", "main", "@{upstream}"]), three);
        let names = world.guest(&["rev-parse", "--abbrev-ref", "HEAD", "@{upstream}"]);
        assert_eq!(names, "main\norigin/main");
        assert_eq!(world.guest(&["rev-list", "--count", "HEAD"]), "1", "{format}");
        assert_eq!(world.guest(&["rev-parse", "--show-object-format"]), format);
        assert_eq!(world.guest(NAMES), "refs/heads/main\nrefs/remotes/origin/main");
        for (setting, value) in [("gc.auto", "0"), ("maintenance.auto", "false")] {
            assert_eq!(world.guest(&["config", "--local", setting]), value);
        }

        let job = world.attempt("refs/heads/main", &tip, &[(0, None)]).await;
        play(&job, 0).await;
        assert_eq!(world.guest(&["rev-list", "--count", "HEAD"]), "2");
        assert_eq!(
            world.guest(NAMES),
            "refs/heads/main\nrefs/remotes/origin/main\nrefs/remotes/origin/other/deep\nrefs/tags/v1\nrefs/tags/v2"
        );
        assert!(
            world.guest(&["describe", "--long"]).starts_with("v1-1-g"),
            "v1 is an annotated tag here too"
        );

        for depth in [1, 0] {
            let job = world.attempt("refs/tags/v1", &first, &[(depth, None)]).await;
            play(&job, 0).await;
            assert_eq!(world.guest(&["rev-parse", "HEAD"]), first.as_str());
            assert_eq!(world.guest(&["describe", "--exact-match"]), "v1");
            assert_eq!(world.guest(&["cat-file", "-t", "v1"]), "tag");
            let branch = git(&world.workspace(), &["symbolic-ref", "-q", "HEAD"]);
            assert_eq!(branch.code, Some(1), "{}", branch.text());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_moved_on_or_went_away_is_granted_as_it_was_pushed() {
    let world = World::new("sha1");
    let pushed = world.commit("a", "pushed");
    world.work(&["branch", "gone"]);
    for name in ["refs/heads/main", "refs/heads/gone"] {
        world.mirror(name).await;
    }
    world.work(&["branch", "-D", "gone"]);
    let job = world.attempt("refs/heads/gone", &pushed, &[(0, None)]).await;
    play(&job, 0).await;
    assert_eq!(
        world.guest(&["rev-parse", "--abbrev-ref", "HEAD", "@{upstream}"]),
        "gone\norigin/gone"
    );
    world.commit("a", "moved on");
    let job = world.attempt("refs/heads/main", &pushed, &[(0, None)]).await;
    play(&job, 0).await;
    let both = format!("{pushed}\n{pushed}");
    assert_eq!(world.guest(&["rev-parse", "HEAD", "origin/main"]), both);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_checkout_at_a_place_is_as_good_as_the_first() {
    let world = World::new("sha1");
    fs::write(world.folder.path().join("work/.gitignore"), "*.log\n").unwrap();
    world.commit("a", "one");
    let tip = world.commit("a", "two");
    world.mirror("refs/heads/main").await;
    let tree = |place: &Path| {
        let mut names: Vec<_> = fs::read_dir(place).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        (names, fs::read_to_string(place.join("a")).unwrap())
    };
    for place in [None, Some("sub/x")] {
        for depths in [[1, 1], [1, 0], [0, 1], [0, 0], [2, 1]] {
            let checkouts = depths.map(|depth| (depth, place));
            let job = world.attempt("refs/heads/main", &tip, &checkouts).await;
            // What a step before the first checkout left there goes as well.
            let at = world.workspace().join(place.unwrap_or("."));
            fs::create_dir_all(at.join("b/c")).unwrap();
            fs::write(at.join("b/c/d.log"), "").unwrap();
            play(&job, 0).await;
            let fresh = tree(&at);
            // What steps leave: changes, unknown and ignored files, commits, settings, locks, a repository.
            fs::write(at.join("a"), "changed").unwrap();
            fs::write(at.join("new"), "new").unwrap();
            fs::write(at.join("x.log"), "ignored").unwrap();
            fs::create_dir_all(at.join("nested")).unwrap();
            said(&at.join("nested"), &["init", "--quiet", "."]);
            said(&at, &["checkout", "--quiet", "-b", "mine"]);
            said(&at, &["commit", "--quiet", "--all", "--message", "mine"]);
            said(&at, &["config", "core.sparseCheckout", "true"]);
            for lock in ["shallow.lock", "index.lock"] {
                fs::write(at.join(".git").join(lock), "").unwrap();
            }
            play(&job, 1).await;
            assert_eq!(tree(&at), fresh, "{place:?} {depths:?}");
            assert_eq!(said(&at, &["status", "--porcelain", "--ignored"]), "");
            assert_eq!(said(&at, &["rev-parse", "HEAD", "main"]), format!("{tip}\n{tip}"));
            let history = if depths[1] == 1 { "1" } else { "2" };
            assert_eq!(said(&at, &["rev-list", "--count", "HEAD"]), history, "{depths:?}");
            fs::remove_dir_all(world.workspace()).unwrap();
            fs::create_dir(world.workspace()).unwrap();
        }
    }
}
