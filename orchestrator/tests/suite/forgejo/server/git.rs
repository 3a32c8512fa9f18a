//! Commits made and pushed by the real git, as a person's clone does it.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use super::api::basic;

/// A person's repository on this machine, from which everything is pushed.
pub struct Git {
    dir: tempfile::TempDir,
    authorization: String,
}

impl Git {
    /// The repository of a person who pushes with name and password.
    pub fn new(login: &str) -> Self {
        let made = Self {
            dir: tempfile::tempdir().expect("a temporary directory"),
            authorization: format!("Authorization: {}", basic(login)),
        };
        made.run(&["init", "--quiet", "--bare"], &[], None);
        made
    }

    /// A commit of these files (path, content), and nothing else, on top of another or of nothing; its id.
    pub fn commit(&self, parent: Option<&str>, files: &[(&str, &str)], message: &str) -> String {
        let index = self.dir.path().join("index-of-a-commit");
        let index_file = index.to_str().expect("a path");
        let _absent = std::fs::remove_file(&index);
        for (path, content) in files {
            let blob = self.run(&["hash-object", "-w", "--stdin"], &[], Some(content));
            let entry = format!("100644,{blob},{path}");
            self.run(
                &["update-index", "--add", "--cacheinfo", &entry],
                &[("GIT_INDEX_FILE", index_file)],
                None,
            );
        }
        let tree = self.run(&["write-tree"], &[("GIT_INDEX_FILE", index_file)], None);
        let mut args = vec!["commit-tree", &tree, "-m", message];
        if let Some(parent) = parent {
            args.extend(["-p", parent]);
        }
        self.run(&args, &[], None)
    }

    /// One push of all these refs, each to the commit at its side; to none, it is deleted.
    pub fn push(&self, url: &str, refs: &[(&str, Option<&str>)]) {
        let moves: Vec<String> = refs
            .iter()
            .map(|(name, commit)| format!("{}:{name}", commit.unwrap_or_default()))
            .collect();
        let mut args = vec!["push", "--quiet", "--force", url];
        args.extend(moves.iter().map(String::as_str));
        // In the environment, as others may read the command line.
        let header = [
            ("GIT_CONFIG_COUNT", "1"),
            ("GIT_CONFIG_KEY_0", "http.extraHeader"),
            ("GIT_CONFIG_VALUE_0", self.authorization.as_str()),
        ];
        self.run(&args, &header, None);
    }

    fn run(&self, args: &[&str], env: &[(&str, &str)], input: Option<&str>) -> String {
        let mut command = Command::new("git");
        command
            .args(["-c", "user.name=Ada", "-c", "user.email=ada@example.org"])
            .args(args)
            .current_dir(self.dir.path())
            .env("GIT_CONFIG_GLOBAL", Path::new("/dev/null"))
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env_remove("GIT_ASKPASS")
            .env("no_proxy", "127.0.0.1")
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("git starts");
        let mut stdin = child.stdin.take().expect("its input");
        std::io::Write::write_all(&mut stdin, input.unwrap_or_default().as_bytes()).expect("git reads");
        drop(stdin);
        let output = child.wait_with_output().expect("git ends");
        assert!(
            output.status.success(),
            "git {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}
