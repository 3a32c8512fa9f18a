//! The working tree of the person who runs this program, as the person's own git sees it: with their environment and
//! all their settings, for these say what is ignored, how lines end, what is trusted, what is kept off the disk, and
//! where objects come from. It runs nothing that this git would not run by itself, and no hook or file monitor.

use std::{
    ffi::{OsStr, OsString},
    fmt, fs, io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    SourceError,
    git::{run, run_ok},
};
use crate::{
    exec::{Cmd, Output},
    model::names::CommitSha,
};

/// A large tree takes a while to compare, and so do the filters of a person's git.
const DEADLINE: Duration = Duration::from_secs(1800);
/// Bytes of a listing of files.
const MAX_LISTING: usize = 1 << 30;

/// A git working tree, and how its person's git is called there. Only a partial clone is written to: what it does not
/// have, its git fetches when it is needed, as for the person.
#[derive(Clone)]
pub struct WorkTree {
    root: PathBuf,
    git_dir: PathBuf,
    index: PathBuf,
    objects: PathBuf,
    /// Objects may be missing, and come from where the clone was made.
    partial: bool,
    env: Vec<(OsString, OsString)>,
}

/// What of a working tree is not as its index has it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Paths that are on the disk, each followed by a NUL.
    pub present: Vec<u8>,
    /// Paths that are not, likewise.
    pub deleted: Vec<u8>,
    /// Folders that are repositories of their own.
    pub repositories: Vec<PathBuf>,
}

/// A process's environment may hold secrets.
impl fmt::Debug for WorkTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("WorkTree");
        shown.field("root", &self.root).field("git_dir", &self.git_dir);
        shown.field("partial", &self.partial).finish_non_exhaustive()
    }
}

impl WorkTree {
    /// The tree around a folder, for a person with this environment.
    ///
    /// # Errors
    /// [`SourceError::NoWorkTree`] with git's reason; when git cannot be run.
    pub async fn find(folder: &Path, env: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Self, SourceError> {
        let env: Vec<_> = env.into_iter().collect();
        let asked = |args: &[&str]| personal(&env).cwd(folder).args(args);
        let top = run(folder, asked(&["rev-parse", "--show-toplevel"])).await?;
        if top.code != Some(0) {
            return Err(SourceError::NoWorkTree {
                folder: folder.to_owned(),
                reason: top.stderr_tail(),
            });
        }
        let path_of = async |args: &[&str]| {
            let args = [&["rev-parse", "--path-format=absolute"], args].concat();
            Ok::<_, SourceError>(path(run_ok(folder, asked(&args)).await?))
        };
        let promisors = r"^(remote\..+\.promisor|extensions\.partialclone)$";
        let promised = run(folder, asked(&["config", "--get-regexp", promisors])).await?.text();
        Ok(Self {
            git_dir: path_of(&["--git-dir"]).await?,
            // Wherever it is: a hook's git names another.
            index: path_of(&["--git-path", "index"]).await?,
            objects: path_of(&["--git-path", "objects"]).await?,
            root: path(top),
            partial: promised.lines().any(|line| !line.ends_with(" false")),
            env,
        })
    }

    /// Its top folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The commit that is checked out; `None` before the first one.
    ///
    /// # Errors
    /// When git fails.
    pub async fn head(&self) -> Result<Option<CommitSha>, SourceError> {
        let cmd = self.git("rev-parse").args(["--verify", "--quiet", "HEAD^{commit}"]);
        Ok(run(&self.root, cmd).await?.text().trim().parse().ok())
    }

    /// The branch that is checked out, as a full ref; `None` for a commit without one.
    ///
    /// # Errors
    /// When git fails.
    pub async fn branch(&self) -> Result<Option<String>, SourceError> {
        let cmd = self.git("symbolic-ref").args(["--quiet", "HEAD"]);
        let branch = run(&self.root, cmd).await?.text();
        Ok(Some(branch.trim().to_owned()).filter(|branch| !branch.is_empty()))
    }

    /// Whether something is not committed.
    ///
    /// # Errors
    /// When git fails.
    pub async fn is_changed(&self) -> Result<bool, SourceError> {
        let cmd = self.git("status").args([
            "--porcelain",
            "--untracked-files=normal",
            "--no-renames",
            "--ignore-submodules=dirty",
        ]);
        Ok(!run_ok(&self.root, cmd).await?.stdout.is_empty())
    }

    /// The person's git in this tree.
    pub(super) fn git(&self, subcommand: &str) -> Cmd {
        // All that was found out is said, as the names in the environment may be relative to another folder.
        personal(&self.env)
            .deadline(DEADLINE)
            .env("GIT_DIR", &self.git_dir)
            .env("GIT_WORK_TREE", &self.root)
            .env("GIT_INDEX_FILE", &self.index)
            .env("GIT_OBJECT_DIRECTORY", &self.objects)
            .cwd(&self.root)
            .arg(subcommand)
    }

    pub(super) fn is_partial(&self) -> bool {
        self.partial
    }

    /// The commits at which the history of `commit` that can be taken ends before its beginning: those of a shallow
    /// clone, and of a partial one the commit itself, as an older one's files would have to be fetched first.
    pub(super) async fn ends(&self, commit: &CommitSha) -> Result<Vec<CommitSha>, SourceError> {
        if self.partial {
            return Ok(vec![commit.clone()]);
        }
        let shallow = self
            .git("rev-parse")
            .args(["--path-format=absolute", "--git-path", "shallow"]);
        let shallow = path(run_ok(&self.root, shallow).await?);
        let listed = match fs::read_to_string(&shallow) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            read => read.map_err(|source| SourceError::io("read", &shallow, source))?,
        };
        let roots = self
            .git("rev-list")
            .args(["--max-parents=0", "--end-of-options", commit.as_str()])
            .cap(MAX_LISTING);
        let roots = run_ok(&self.root, roots).await?.text();
        // Where git's walk ends, and not because a history begins there.
        let ends = roots.lines().filter(|root| listed.lines().any(|line| line == *root));
        Ok(ends.filter_map(|sha| sha.parse().ok()).collect())
    }

    /// The same tree with an index and new objects in `folder`, so that what is done with both leaves the person's as
    /// they are.
    pub(super) fn apart(&self, folder: &Path) -> Result<Self, SourceError> {
        let (index, objects) = (folder.join("index"), folder.join("objects"));
        fs::create_dir(&objects).map_err(|source| SourceError::io("create the folder", &objects, source))?;
        copy_index(&self.index, &index).map_err(|source| SourceError::io("copy", &self.index, source))?;
        let alternates = OsStr::new("GIT_ALTERNATE_OBJECT_DIRECTORIES");
        let mut all = quoted(&self.objects);
        if let Some((_, before)) = self.env.iter().rfind(|(name, _)| name == alternates) {
            all.push(b':');
            all.extend_from_slice(before.as_bytes());
        }
        let mut apart = Self {
            index,
            objects,
            ..self.clone()
        };
        apart.env.push((alternates.to_owned(), OsString::from_vec(all)));
        Ok(apart)
    }

    /// What is not as the index has it, as `git status` finds it: not what is ignored, nor what the person or a sparse
    /// checkout keeps off the disk.
    pub(super) async fn changes(&self) -> Result<Changes, SourceError> {
        let mut changes = Changes::default();
        let args = ["-z", "--name-status", "--no-renames", "--ignore-submodules=dirty"];
        let tracked = self.listed("diff-files", &args).await?;
        let mut fields = tracked.split(|byte| *byte == 0);
        while let (Some(state), Some(path)) = (fields.next(), fields.next()) {
            let kind = if state == b"D" {
                &mut changes.deleted
            } else {
                &mut changes.present
            };
            kind.extend_from_slice(path);
            kind.push(0);
        }
        let untracked = self
            .listed("ls-files", &["-z", "--others", "--exclude-standard"])
            .await?;
        for path in untracked.split(|byte| *byte == 0).filter(|path| !path.is_empty()) {
            if let Some(folder) = path.strip_suffix(b"/") {
                changes.repositories.push(OsStr::from_bytes(folder).into());
            } else {
                changes.present.extend_from_slice(path);
                changes.present.push(0);
            }
        }
        Ok(changes)
    }

    async fn listed(&self, subcommand: &'static str, args: &[&str]) -> Result<Vec<u8>, SourceError> {
        let cmd = self.git(subcommand).args(args).cap(MAX_LISTING);
        let listing = run_ok(&self.root, cmd).await?.stdout;
        if listing.len() >= MAX_LISTING {
            return Err(SourceError::Answer {
                what: subcommand,
                answer: format!("more than {MAX_LISTING} bytes of names"),
            });
        }
        Ok(listing)
    }
}

/// git as the person calls it, but for what it could run besides, and for objects that stand in for others: what is
/// taken is what would be pushed.
fn personal(env: &[(OsString, OsString)]) -> Cmd {
    let mut cmd = Cmd::new("git")
        .envs(env.iter().cloned())
        .env("GIT_OPTIONAL_LOCKS", "0")
        .env("GIT_NO_REPLACE_OBJECTS", "1")
        .env("GIT_GRAFT_FILE", "/dev/null");
    let settings = [
        "core.fsmonitor=false",
        "core.hooksPath=/dev/null",
        // Nothing on the disk is changed, so nothing can be lost by it.
        "core.safecrlf=false",
        // Its second half would be written beside the person's index.
        "core.splitIndex=false",
        // The empty list of grafts would be one.
        "advice.graftFileDeprecated=false",
        "gc.auto=0",
        "maintenance.auto=false",
    ];
    for setting in settings {
        cmd = cmd.args(["-c", setting]);
    }
    cmd
}

/// The path that git printed, whatever its bytes.
fn path(output: Output) -> PathBuf {
    let mut bytes = output.stdout;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    OsString::from_vec(bytes).into()
}

/// One that is not there is an empty one. Its time travels with it: a file that was changed at the same moment as the
/// index was written may look unchanged, and git compares its bytes for that reason only.
fn copy_index(from: &Path, to: &Path) -> io::Result<()> {
    let mut from = match fs::File::open(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let mut to = fs::File::create(to)?;
    let written = from.metadata()?.modified()?;
    io::copy(&mut from, &mut to)?;
    to.set_modified(written)
}

/// A folder in a list of them, in which a colon parts one from the next.
fn quoted(folder: &Path) -> Vec<u8> {
    let mut text = vec![b'"'];
    for byte in folder.as_os_str().as_bytes() {
        match byte {
            b'\n' => text.extend_from_slice(b"\\n"),
            b'"' | b'\\' => text.extend_from_slice(&[b'\\', *byte]),
            _ => text.push(*byte),
        }
    }
    text.push(b'"');
    text
}

#[cfg(test)]
mod tests;
