//! The working tree that a person stands in.

use std::path::{Path, PathBuf};

use miette::miette;

use super::super::report;
use crate::{
    exec::Cmd,
    model::{
        names::{CommitSha, RefName},
        trigger::Repository,
    },
};

/// A git working tree.
#[derive(Debug)]
pub(super) struct Tree {
    /// Its top folder.
    pub root: PathBuf,
    /// The commit checked out.
    pub head: CommitSha,
    /// The ref to run as.
    pub ref_name: RefName,
    /// Something is not committed.
    pub changed: bool,
    /// Who runs it, for people.
    pub person: String,
}

fn git(subcommand: &str) -> Cmd {
    // The person's own settings count (safe.directory, excludes); nothing here fetches or runs hooks.
    let mut cmd = Cmd::new("git").env("GIT_OPTIONAL_LOCKS", "0");
    for name in ["HOME", "XDG_CONFIG_HOME"] {
        if let Some(value) = std::env::var_os(name) {
            cmd = cmd.env(name, value);
        }
    }
    cmd.arg("-c").arg("core.fsmonitor=false").arg(subcommand)
}

impl Tree {
    /// The tree around the current folder.
    pub async fn find(run_as: Option<&str>) -> miette::Result<Self> {
        let said = |cmd: Cmd| async { cmd.run().await.map_err(report) };
        let top = said(git("rev-parse").arg("--show-toplevel")).await?;
        if top.code != Some(0) {
            return Err(miette!(
                help = "`cd` into the working tree of a repository",
                "this folder is in no git working tree: {}",
                top.stderr_tail().trim()
            ));
        }
        let root = PathBuf::from(top.text().trim_end_matches('\n'));
        let head = said(git("rev-parse").args(["--verify", "--quiet", "HEAD^{commit}"])).await?;
        let head = head
            .text()
            .trim()
            .parse()
            .map_err(|_| miette!(help = "`git commit` first", "{} has no commit yet", root.display()))?;
        let branch = said(git("symbolic-ref").args(["--quiet", "HEAD"])).await?.text();
        let branch = branch.trim();
        let ref_name = match run_as {
            Some(name) if name.starts_with("refs/") => name.to_owned(),
            Some(name) => format!("refs/heads/{name}"),
            // Nothing is checked out by name; filters want one.
            None if branch.is_empty() => "refs/heads/HEAD".to_owned(),
            None => branch.to_owned(),
        };
        let changed = said(git("status").args(["--porcelain", "--untracked-files=normal"])).await?;
        let person = std::env::var("USER").unwrap_or_else(|_| "somebody".to_owned());
        Ok(Self {
            root,
            head,
            ref_name: ref_name.parse().map_err(report)?,
            changed: !changed.stdout.is_empty(),
            person: person.chars().filter(|c| !c.is_control()).take(40).collect(),
        })
    }

    /// What the store calls it.
    pub fn repository(&self) -> Repository {
        // Only characters that such a path may have; it is shown and never resolved.
        let name: String = self
            .root
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' })
            .skip_while(|c| *c == '-')
            .take(60)
            .collect();
        let path = format!("local/{}", if name.is_empty() { "tree" } else { &name });
        Repository {
            connection: valid("local"),
            id: 1,
            path: valid(&path),
        }
    }

    /// A file of the tree, by its path from the top.
    pub fn relative(&self, file: &Path) -> miette::Result<String> {
        let outside = || {
            miette!(
                help = "name a file of this working tree",
                "{} is not in {}",
                file.display(),
                self.root.display()
            )
        };
        // The folder must exist; the file itself may be only in the commit.
        let absolute = std::path::absolute(file).map_err(|_| outside())?;
        let (folder, name) = (
            absolute.parent().ok_or_else(outside)?,
            absolute.file_name().ok_or_else(outside)?,
        );
        let folder = folder.canonicalize().map_err(|_| outside())?;
        let root = self.root.canonicalize().map_err(|_| outside())?;
        let relative = folder.join(name);
        let relative = relative.strip_prefix(&root).map_err(|_| outside())?;
        Ok(relative.to_str().ok_or_else(outside)?.to_owned())
    }
}

/// Names that are valid as they are written here.
fn valid<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    #[allow(
        clippy::expect_used,
        reason = "made of letters, digits, `-` and `_` a few lines above"
    )]
    text.parse().expect("a valid name")
}
