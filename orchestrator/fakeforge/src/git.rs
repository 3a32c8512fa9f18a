//! The `git` program on bare repositories: the only place of this crate that spawns. Everything here
//! blocks; callers wrap it in `spawn_blocking`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Output,
};

use duct::cmd;
use serde_json::{Value, json};

use crate::Error;

/// The id forges send for "no commit".
pub(crate) const ZERO: &str = "0000000000000000000000000000000000000000";

/// A ref that moved: name, old id, new id; [`ZERO`] for "did not exist".
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) name: String,
    pub(crate) before: String,
    pub(crate) after: String,
}

impl Moved {
    /// The branch's name, where it is one.
    pub(crate) fn branch(&self) -> Option<&str> {
        self.name.strip_prefix("refs/heads/")
    }
}

/// An environment in which no person's configuration and no terminal interferes.
pub(crate) fn environment() -> Vec<(String, String)> {
    let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".to_owned());
    [
        ("PATH", path.as_str()),
        ("LC_ALL", "C"),
        ("HOME", "/nonexistent"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_TERMINAL_PROMPT", "0"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

fn run(dir: &Path, args: &[&str], stdin: &[u8], extra: &[(&str, String)]) -> Result<Vec<u8>, Error> {
    let ended = start(dir, args, stdin, extra)?;
    if ended.status.success() {
        return Ok(ended.stdout);
    }
    Err(failed(args, &ended))
}

fn failed(args: &[&str], ended: &Output) -> Error {
    Error::Git {
        command: args.join(" "),
        reason: String::from_utf8_lossy(&ended.stderr).trim().to_owned(),
    }
}

/// Runs git to its end, whatever that is.
fn start(dir: &Path, args: &[&str], stdin: &[u8], extra: &[(&str, String)]) -> Result<Output, Error> {
    let mut env = environment();
    env.extend(extra.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    cmd("git", args)
        .dir(dir)
        .full_env(env)
        .stdin_bytes(stdin)
        .stdout_capture()
        .stderr_capture()
        .unchecked()
        .run()
        .map_err(|e| Error::Git {
            command: args.join(" "),
            reason: e.to_string(),
        })
}

fn text(dir: &Path, args: &[&str]) -> Result<String, Error> {
    let bytes = run(dir, args, b"", &[])?;
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

/// Makes a bare repository, configured as the big forges are: any object may be asked for by id,
/// pushes over HTTP are possible (who may is decided before git is asked).
pub(crate) fn init(dir: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(dir).map_err(|source| Error::Io {
        path: dir.to_owned(),
        source,
    })?;
    run(dir, &["init", "--quiet", "--bare", "--initial-branch=main"], b"", &[])?;
    for (key, value) in [
        ("http.receivepack", "true"),
        ("uploadpack.allowAnySHA1InWant", "true"),
        ("uploadpack.allowFilter", "true"),
        ("gc.auto", "0"),
    ] {
        run(dir, &["config", key, value], b"", &[])?;
    }
    Ok(())
}

/// Copies every object and ref of another repository, as a fork does.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    let from = from.display().to_string();
    run(to, &["fetch", "--quiet", &from, "+refs/heads/*:refs/heads/*"], b"", &[])?;
    Ok(())
}

/// Brings one commit of another repository here under this ref, as forges do for pull requests.
pub(crate) fn fetch(from: &Path, to: &Path, sha: &str, name: &str) -> Result<(), Error> {
    let from = from.display().to_string();
    run(to, &["fetch", "--quiet", &from, &format!("+{sha}:{name}")], b"", &[])?;
    Ok(())
}

/// Every ref and what it points at.
pub(crate) fn refs(dir: &Path) -> Result<BTreeMap<String, String>, Error> {
    let listing = text(dir, &["for-each-ref", "--format=%(refname) %(objectname)"])?;
    Ok(listing
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, sha)| (name.to_owned(), sha.to_owned()))
        .collect())
}

/// Every ref whose whole name begins so: its name, what it points at, and whether that is a `commit` or a `tag`.
pub(crate) fn refs_below(dir: &Path, start: &str) -> Result<Vec<[String; 3]>, Error> {
    let listing = text(
        dir,
        &["for-each-ref", "--format=%(refname) %(objectname) %(objecttype)"],
    )?;
    let parts = |line: &str| -> Option<[String; 3]> {
        let parts: Vec<String> = line.split(' ').map(str::to_owned).collect();
        parts.try_into().ok()
    };
    Ok(listing
        .lines()
        .filter(|line| line.starts_with(start))
        .filter_map(parts)
        .collect())
}

/// What moved between two listings, in the order of names.
pub(crate) fn moved(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<Moved> {
    let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
    names.sort();
    names.dedup();
    names
        .into_iter()
        .filter(|name| before.get(*name) != after.get(*name))
        .map(|name| Moved {
            name: name.clone(),
            before: before.get(name).cloned().unwrap_or_else(|| ZERO.to_owned()),
            after: after.get(name).cloned().unwrap_or_else(|| ZERO.to_owned()),
        })
        .collect()
}

/// The full id of a commit the repository has; `None` when it has none of that name.
pub(crate) fn commit(dir: &Path, name: &str) -> Option<String> {
    if name.is_empty() || name.starts_with('-') {
        return None;
    }
    text(
        dir,
        &[
            "rev-parse",
            "--verify",
            "--quiet",
            "--end-of-options",
            &format!("{name}^{{commit}}"),
        ],
    )
    .ok()
}

/// Writes a commit on top of the branch: the tree of its tip with these files replaced or added. A
/// new branch begins at the tip of `main`, or with no parent in an empty repository. Plumbing only,
/// so that trees no work tree could hold (odd modes, odd names) can be made too.
pub(crate) fn write_commit(
    dir: &Path,
    branch: &str,
    files: &[(String, Vec<u8>, u32)],
    message: &str,
    author: &str,
) -> Result<String, Error> {
    let parent = commit(dir, &format!("refs/heads/{branch}")).or_else(|| commit(dir, "refs/heads/main"));
    let scratch = tempfile::tempdir().map_err(|source| Error::Io {
        path: PathBuf::from("a temporary directory"),
        source,
    })?;
    let index = [("GIT_INDEX_FILE", scratch.path().join("index").display().to_string())];
    if let Some(parent) = &parent {
        run(dir, &["read-tree", parent], b"", &index)?;
    }
    let mut entries = Vec::new();
    for (path, content, mode) in files {
        let blob = run(dir, &["hash-object", "-w", "--stdin"], content, &[])?;
        let mode = match mode & 0o170_000 {
            0 if mode & 0o111 != 0 => 0o100_755,
            0 => 0o100_644,
            _ => *mode,
        };
        entries.extend(format!("{mode:o} {}\t", String::from_utf8_lossy(&blob).trim()).into_bytes());
        entries.extend(path.as_bytes());
        entries.push(0);
    }
    run(dir, &["update-index", "--add", "-z", "--index-info"], &entries, &index)?;
    let tree = String::from_utf8_lossy(&run(dir, &["write-tree"], b"", &index)?)
        .trim()
        .to_owned();
    let mut args = vec!["commit-tree", &tree];
    if let Some(parent) = &parent {
        args.extend(["-p", parent]);
    }
    let mail = format!("{author}@example.org");
    let person = [
        ("GIT_AUTHOR_NAME", author.to_owned()),
        ("GIT_AUTHOR_EMAIL", mail.clone()),
        ("GIT_COMMITTER_NAME", author.to_owned()),
        ("GIT_COMMITTER_EMAIL", mail),
    ];
    let sha = run(dir, &args, message.as_bytes(), &person)?;
    Ok(String::from_utf8_lossy(&sha).trim().to_owned())
}

/// Points a ref at a commit, or removes it.
pub(crate) fn update_ref(dir: &Path, name: &str, sha: Option<&str>) -> Result<(), Error> {
    match sha {
        Some(sha) => run(dir, &["update-ref", name, sha], b"", &[])?,
        None => run(dir, &["update-ref", "-d", name], b"", &[])?,
    };
    Ok(())
}

/// Makes a branch the one that a clone checks out.
pub(crate) fn set_head(dir: &Path, branch: &str) -> Result<(), Error> {
    run(
        dir,
        &["symbolic-ref", "HEAD", &format!("refs/heads/{branch}")],
        b"",
        &[],
    )?;
    Ok(())
}

/// Writes the object of an annotated tag. Its id.
pub(crate) fn write_tag(dir: &Path, name: &str, commit: &str, message: &str) -> Result<String, Error> {
    let object = format!(
        "object {commit}\ntype commit\ntag {name}\ntagger alice <alice@example.org> 1700000000 +0000\n\n{message}\n"
    );
    let sha = run(dir, &["mktag"], object.as_bytes(), &[])?;
    Ok(String::from_utf8_lossy(&sha).trim().to_owned())
}

/// Merges a commit into a branch, as a forge does when a person says so.
pub(crate) fn merge(dir: &Path, branch: &str, commit: &str) -> Result<(), Error> {
    let tree = text(dir, &["merge-tree", "--write-tree", branch, commit])?;
    let person = [
        ("GIT_AUTHOR_NAME", "alice".to_owned()),
        ("GIT_AUTHOR_EMAIL", "alice@example.org".to_owned()),
        ("GIT_COMMITTER_NAME", "alice".to_owned()),
        ("GIT_COMMITTER_EMAIL", "alice@example.org".to_owned()),
    ];
    let merged = run(
        dir,
        &["commit-tree", &tree, "-p", branch, "-p", commit],
        b"Merge",
        &person,
    )?;
    update_ref(dir, branch, Some(String::from_utf8_lossy(&merged).trim()))
}

/// Whether `new` does not contain `old`.
pub(crate) fn forced(dir: &Path, old: &str, new: &str) -> bool {
    old != ZERO && new != ZERO && run(dir, &["merge-base", "--is-ancestor", old, new], b"", &[]).is_err()
}

/// The commits of a push, oldest first and at most 20, in the shape both forges share.
pub(crate) fn pushed(dir: &Path, moved: &Moved, html: &str) -> Result<Vec<Value>, Error> {
    if moved.after == ZERO {
        return Ok(Vec::new());
    }
    let range = if moved.before == ZERO {
        moved.after.clone()
    } else {
        format!("{}..{}", moved.before, moved.after)
    };
    let max = if moved.before == ZERO { "1" } else { "20" };
    let listing = text(dir, &["rev-list", "--reverse", "--max-count", max, &range])?;
    listing.lines().map(|sha| describe(dir, sha, html)).collect()
}

/// The commits that a push brought to a branch, newest first; of a new branch no more than `of_new`.
pub(crate) fn newest_of(dir: &Path, moved: &Moved, of_new: usize) -> Result<Vec<String>, Error> {
    let listing = match moved.before == ZERO {
        true => text(dir, &["rev-list", "--max-count", &of_new.to_string(), &moved.after])?,
        false => text(dir, &["rev-list", &format!("{}..{}", moved.before, moved.after)])?,
    };
    Ok(listing.lines().map(str::to_owned).collect())
}

/// One commit as push payloads show it.
pub(crate) fn describe(dir: &Path, sha: &str, html: &str) -> Result<Value, Error> {
    let format = "--format=%H%x00%T%x00%an%x00%ae%x00%cn%x00%ce%x00%cI%x00%B";
    let shown = text(dir, &["show", "-s", format, sha])?;
    let mut parts = shown.splitn(8, '\0');
    let mut next = || parts.next().unwrap_or_default().to_owned();
    let (id, tree, author, author_mail, committer, committer_mail, at) =
        (next(), next(), next(), next(), next(), next(), next());
    let message = next();
    let changes = text(
        dir,
        &[
            "diff-tree",
            "-r",
            "--root",
            "--no-commit-id",
            "--no-renames",
            "--name-status",
            "-z",
            sha,
        ],
    )?;
    let mut fields = changes.split('\0');
    let (mut added, mut removed, mut modified) = (Vec::new(), Vec::new(), Vec::new());
    while let (Some(status), Some(path)) = (fields.next(), fields.next()) {
        match status {
            "A" => added.push(path),
            "D" => removed.push(path),
            _ => modified.push(path),
        }
    }
    Ok(json!({
        "id": id,
        "tree_id": tree,
        "message": message.trim_end(),
        "timestamp": at,
        "url": format!("{html}/commit/{sha}"),
        "distinct": true,
        "author": {"name": author, "email": author_mail, "username": author},
        "committer": {"name": committer, "email": committer_mail, "username": committer},
        "added": added,
        "removed": removed,
        "modified": modified,
    }))
}

/// One exchange with `git http-backend`: the CGI program's answer as it printed it.
pub(crate) fn http_backend(env: &[(&str, String)], body: &[u8]) -> Result<Vec<u8>, Error> {
    let ended = start(Path::new("/"), &["http-backend"], body, env)?;
    // A refused object is told to the caller in the answer itself, and the program then ends with a
    // failure; a forge hands the answer on.
    if ended.status.success() || ended.stdout.starts_with(b"Expires:") || ended.stdout.starts_with(b"Status:") {
        return Ok(ended.stdout);
    }
    Err(failed(&["http-backend"], &ended))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_build_on_their_branch_and_say_what_changed() {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path()).unwrap();
        let file = |path: &str, text: &str, mode| vec![(path.to_owned(), text.as_bytes().to_vec(), mode)];
        let first = write_commit(dir.path(), "main", &file("a/b.sh", "x", 0o755), "one", "alice").unwrap();
        update_ref(dir.path(), "refs/heads/main", Some(&first)).unwrap();
        let second = write_commit(dir.path(), "topic", &file("c", "y", 0o644), "two\n\nmore", "bob").unwrap();
        update_ref(dir.path(), "refs/heads/topic", Some(&second)).unwrap();
        let tree = text(
            dir.path(),
            &["ls-tree", "-r", "--format=%(objectmode) %(path)", &second],
        )
        .unwrap();
        assert_eq!(tree, "100755 a/b.sh\n100644 c");
        let shown = describe(dir.path(), &second, "http://x").unwrap();
        assert_eq!(shown["message"], "two\n\nmore");
        assert_eq!(shown["added"], json!(["c"]));
        assert_eq!(shown["author"]["name"], "bob");
        assert!(forced(dir.path(), &second, &first) && !forced(dir.path(), &first, &second));
    }

    #[test]
    fn moved_refs_are_found_in_both_directions() {
        let old = BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())]);
        let new = BTreeMap::from([("b".to_owned(), "3".to_owned()), ("c".to_owned(), "4".to_owned())]);
        let seen: Vec<(String, String, String)> = moved(&old, &new)
            .into_iter()
            .map(|m| (m.name, m.before, m.after))
            .collect();
        let row = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(seen, [row("a", "1", ZERO), row("b", "2", "3"), row("c", ZERO, "4")]);
    }
}
