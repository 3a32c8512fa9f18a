//! The working tree that a person stands in.

use std::{
    ffi::OsString,
    path::{Component, Path},
};

use miette::miette;

use crate::{
    cli::report,
    foreign_text::one_line,
    model::{
        names::{CommitSha, RefName},
        trigger::Repository,
    },
    source::{SourceError, WorkTree},
};

/// A git working tree, and what of it is to run.
#[derive(Debug)]
pub(super) struct Tree {
    /// As its person's git sees it.
    pub worktree: WorkTree,
    /// The commit checked out.
    pub head: CommitSha,
    /// The ref to run as.
    pub ref_name: RefName,
    /// Who runs it, for people.
    pub person: String,
}

impl Tree {
    /// The tree around a folder, for a person with this environment.
    pub async fn find(
        folder: &Path,
        env: impl IntoIterator<Item = (OsString, OsString)>,
        run_as: Option<&str>,
    ) -> miette::Result<Self> {
        let worktree = WorkTree::find(folder, env).await.map_err(|error| match error {
            SourceError::NoWorkTree { .. } => {
                miette!(help = "`cd` into the working tree of a repository", "{error}")
            }
            error => report(error),
        })?;
        let head = worktree.head().await.map_err(report)?.ok_or_else(|| {
            let root = worktree.root().display();
            miette!(help = "`git commit` first", "{root} has no commit yet")
        })?;
        let ref_name = match run_as {
            Some(name) if name.starts_with("refs/") => name.to_owned(),
            Some(name) => format!("refs/heads/{name}"),
            // Where nothing is checked out by name; filters want one.
            None => {
                let branch = worktree.branch().await.map_err(report)?;
                branch.unwrap_or_else(|| "refs/heads/HEAD".to_owned())
            }
        };
        let person = std::env::var("USER").unwrap_or_else(|_| "somebody".to_owned());
        Ok(Self {
            worktree,
            head,
            ref_name: ref_name.parse().map_err(report)?,
            person: one_line(&person, 40),
        })
    }

    /// What the store calls it.
    pub fn repository(&self) -> Repository {
        // Only characters that such a path may have; it is shown and never resolved.
        let name: String = self
            .worktree
            .root()
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
            id: 1.into(),
            path: valid(&path),
            context: crate::model::names::ForgeContext::default(),
        }
    }

    /// A file of the tree, by its path from the top.
    pub fn relative(&self, file: &Path) -> miette::Result<String> {
        let root = self.worktree.root();
        let outside = || {
            miette!(
                help = "name a file of this working tree",
                "{} is not in {}",
                file.display(),
                root.display()
            )
        };
        let absolute = std::path::absolute(file).map_err(|_| outside())?;
        let (folder, name) = (
            absolute.parent().ok_or_else(outside)?,
            absolute.file_name().ok_or_else(outside)?,
        );
        // What is kept off the disk is in the commit all the same, whole folders of it.
        let (there, real) = folder
            .ancestors()
            .find_map(|ancestor| Some((ancestor, ancestor.canonicalize().ok()?)))
            .ok_or_else(outside)?;
        let rest = folder.strip_prefix(there).map_err(|_| outside())?;
        if rest.components().any(|part| part == Component::ParentDir) {
            return Err(no_such_file(file));
        }
        let folder = real.join(rest);
        let root = root.canonicalize().map_err(|_| outside())?;
        let relative = folder.join(name);
        let relative = relative.strip_prefix(&root).map_err(|_| outside())?;
        Ok(relative.to_str().ok_or_else(outside)?.to_owned())
    }

    /// Why there is no file at a path of a commit that is to be run.
    pub fn absent(&self, file: &Path, path: &str, commit: &CommitSha, dirty: bool) -> miette::Report {
        let (shown, commit) = (file.display(), commit.short());
        match self.worktree.root().join(path).symlink_metadata() {
            Err(_) => no_such_file(file),
            Ok(meta) if meta.is_dir() => miette!(help = "name a workflow file", "{shown} is a folder"),
            Ok(meta) if !meta.is_file() => miette!(help = "name the file itself", "{shown} is not a regular file"),
            Ok(_) if dirty => miette!(
                help = "`git add --force` it; then --dirty includes it",
                "{shown} is ignored by git, and what is ignored does not run"
            ),
            Ok(_) => miette!(
                help = "a file that is not committed needs --dirty",
                "{shown} is not in the commit {commit}"
            ),
        }
    }
}

fn no_such_file(file: &Path) -> miette::Report {
    miette!(
        help = "name a workflow file of this working tree, or none for the one that a push would run",
        "{}: no such file",
        file.display()
    )
}

/// Names that are valid as they are written here.
fn valid<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    #[allow(
        clippy::expect_used,
        reason = "made of letters, digits, `-` and `_` a few lines above"
    )]
    text.parse().expect("a valid name")
}
