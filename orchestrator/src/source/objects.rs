//! What a commit contains: its message, its files. One git answers all that is asked of a mirror: to start another takes
//! longer than to read what it says.

use std::{io, path::PathBuf};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout},
    time::timeout,
};

use super::{
    Source, SourceError,
    git::{LOCAL_DEADLINE, Protocol, failed, git, tail},
};
use crate::{
    exec::ExecError,
    foreign_text::one_line,
    model::{
        names::{CommitSha, RepoPath},
        trigger::Repository,
    },
};

/// Bytes of a commit's own text that are read.
const MAX_MESSAGE: usize = 64 << 10;
/// Bytes of a listing that are read.
const MAX_LISTING: usize = 1 << 20;
/// Bytes of the first line of an answer, which repeats a name that is not there.
const MAX_LINE: u64 = 8 << 10;
/// How this git is called in errors.
const BATCH: &str = "cat-file --batch";
/// Modes of a tree's entries: files, and symbolic links.
const FILES: [&[u8]; 3] = [b"100644", b"100755", b"120000"];

/// The objects of one mirror. Its git is started by the first question and ends with this value.
#[derive(Debug)]
pub struct Objects {
    mirror: PathBuf,
    repository: RepoPath,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

/// What git says of a name.
#[derive(Debug)]
enum Answer {
    Object(Object),
    /// There is none, by git's word for why (`missing`, `symlink`, `dangling`, `loop`, `notdir`), and with what it says
    /// of the symbolic link.
    Nothing(String, String),
}

#[derive(Debug)]
struct Object {
    /// `blob`, `tree`, `commit`.
    kind: String,
    /// Its bytes, or as many of them as were asked for.
    content: Vec<u8>,
    /// Whether it has more.
    cut: bool,
}

impl Source {
    /// The objects of a repository's mirror.
    #[must_use]
    pub fn objects(&self, repository: &Repository) -> Objects {
        Objects {
            mirror: self.mirror(repository),
            repository: repository.path.clone(),
            running: None,
        }
    }
}

impl Objects {
    /// A commit's message, at most 64 KiB of it.
    ///
    /// # Errors
    /// When git fails, or there is no such commit.
    pub async fn message(&mut self, commit: &CommitSha) -> Result<String, SourceError> {
        match self.ask(commit.as_str(), MAX_MESSAGE).await? {
            Answer::Object(found) if found.kind == "commit" => {
                // Headers end at the first empty line.
                let text = String::from_utf8_lossy(&found.content);
                Ok(text.split_once("\n\n").map_or("", |(_, message)| message).to_owned())
            }
            _ => Err(SourceError::NoCommit {
                repository: self.repository.clone(),
                commit: commit.clone(),
            }),
        }
    }

    /// The files right at these paths of a commit: one that ends in `/` is a folder, listed without its subfolders.
    /// Symbolic links on the way to a folder are followed inside the commit; one on the way to a file or in its place is a
    /// file here, and whether it leads to one is what [`Objects::read`] says. Submodules are left out; names that are not UTF-8 too.
    ///
    /// Whether a file is there costs its content, up to a MiB, and this git where it is longer: to ask for no more than that
    /// takes `cat-file --batch-command`, of git 2.36. Such files are scripts, and few.
    ///
    /// # Errors
    /// When git fails, or the listing of a folder is longer than a MiB.
    pub async fn list(&mut self, commit: &CommitSha, paths: &[&str]) -> Result<Vec<String>, SourceError> {
        let mut files = Vec::new();
        for path in paths {
            // git is asked line by line.
            if path.contains('\n') {
                continue;
            }
            let Some(folder) = path.strip_suffix('/') else {
                let there = match self.ask(&format!("{commit}:{path}"), MAX_LISTING).await? {
                    Answer::Object(found) => found.kind == "blob",
                    Answer::Nothing(reason, _) => reason != "missing",
                };
                files.extend(there.then(|| (*path).to_owned()));
                continue;
            };
            match self.ask(&format!("{commit}:{folder}"), MAX_LISTING).await? {
                Answer::Object(found) if found.kind == "tree" && found.cut => {
                    return Err(SourceError::ListTooLong {
                        repository: self.repository.clone(),
                    });
                }
                Answer::Object(found) if found.kind == "tree" => {
                    let names = entries(&found.content, commit.as_str().len() / 2);
                    files.extend(names.map(|name| format!("{path}{name}")));
                }
                // There is nothing of the commit.
                Answer::Object(_) | Answer::Nothing(..) => {}
            }
        }
        Ok(files)
    }

    /// The bytes of a file of a commit. Symbolic links are followed inside the commit.
    ///
    /// # Errors
    /// [`SourceError::FileTooLong`] beyond `max` bytes; [`SourceError::Unreadable`] when there is no such
    /// file, or a symbolic link leads elsewhere; others when git fails.
    pub async fn read(&mut self, commit: &CommitSha, path: &str, max: usize) -> Result<Vec<u8>, SourceError> {
        let unreadable = |why: &str| SourceError::Unreadable {
            path: one_line(path, 200),
            why: why.to_owned(),
        };
        // git is asked line by line.
        if path.contains('\n') {
            return Err(unreadable("its name has a line break"));
        }
        let (reason, link) = match self.ask(&format!("{commit}:{path}"), max).await? {
            Answer::Object(found) if found.kind != "blob" => return Err(unreadable("it is no file")),
            Answer::Object(found) if found.cut => {
                return Err(SourceError::FileTooLong {
                    path: path.to_owned(),
                    max,
                });
            }
            Answer::Object(found) => return Ok(found.content),
            Answer::Nothing(reason, link) => (reason, link),
        };
        Err(match reason.as_str() {
            "missing" => unreadable("there is no such file in the commit"),
            "symlink" => unreadable(&format!(
                "it is a symbolic link that leads out of the repository, to `{}`",
                one_line(&link, 200)
            )),
            "dangling" => unreadable("it is a symbolic link to something that is not in the commit"),
            "loop" => unreadable("it is a symbolic link that leads in a circle"),
            "notdir" => unreadable("it is a symbolic link through something that is no folder"),
            other => SourceError::Answer {
                what: BATCH,
                answer: one_line(other, 80),
            },
        })
    }

    /// Asks for what a name leads to, and reads at most `max` bytes of it.
    async fn ask(&mut self, name: &str, max: usize) -> Result<Answer, SourceError> {
        let mut running = match self.running.take() {
            Some(running) => running,
            None => self.start()?,
        };
        let error = match timeout(LOCAL_DEADLINE, running.answer(name, max)).await {
            Ok(Ok(answer)) => {
                // Whoever has more to say than is read ends here, as does one whose answer nobody waited for.
                if !matches!(&answer, Answer::Object(found) if found.cut) {
                    self.running = Some(running);
                }
                return Ok(answer);
            }
            Ok(Err(error)) if error.kind() != io::ErrorKind::InvalidData => {
                let stderr = tail(running.child.stderr.take()).await;
                ExecError::Failed {
                    command: BATCH.to_owned(),
                    how: error.to_string(),
                    stderr,
                }
            }
            Ok(Err(error)) => {
                return Err(SourceError::Answer {
                    what: BATCH,
                    answer: one_line(&error.to_string(), 80),
                });
            }
            Err(_) => ExecError::Deadline {
                command: BATCH.to_owned(),
                seconds: LOCAL_DEADLINE.as_secs(),
            },
        };
        Err(failed(&self.mirror, error))
    }

    fn start(&self) -> Result<Running, SourceError> {
        let cmd = git(&self.mirror, Protocol::None, "cat-file").args(["--batch", "--follow-symlinks"]);
        let mut child = cmd.stream().map_err(|error| failed(&self.mirror, error))?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (stdin, stdout) = pipes.ok_or_else(|| {
            let lost = io::Error::other("a pipe is missing");
            SourceError::io("ask git in", &self.mirror, lost)
        })?;
        Ok(Running {
            child,
            stdin,
            stdout: BufReader::new(stdout),
        })
    }
}

impl Running {
    async fn answer(&mut self, name: &str, max: usize) -> io::Result<Answer> {
        self.stdin.write_all(format!("{name}\n").as_bytes()).await?;
        let mut line = Vec::new();
        (&mut self.stdout).take(MAX_LINE).read_until(b'\n', &mut line).await?;
        if line.pop() != Some(b'\n') {
            return Err(match line.len() as u64 + 1 < MAX_LINE {
                true => io::ErrorKind::UnexpectedEof.into(),
                false => unexpected(&line),
            });
        }
        let text = String::from_utf8_lossy(&line).into_owned();
        match text.split(' ').collect::<Vec<_>>().as_slice() {
            // What is not there is repeated, with its blanks.
            [.., "missing"] => Ok(Answer::Nothing("missing".to_owned(), String::new())),
            [reason @ ("symlink" | "dangling" | "loop" | "notdir"), size] => {
                let size = size.parse().map_err(|_| unexpected(&line))?;
                let (link, cut) = self.content(size, max).await?;
                match cut {
                    true => Err(unexpected(&line)),
                    false => Ok(Answer::Nothing(
                        (*reason).to_owned(),
                        String::from_utf8_lossy(&link).into_owned(),
                    )),
                }
            }
            [_, kind, size] => {
                let size = size.parse().map_err(|_| unexpected(&line))?;
                let (content, cut) = self.content(size, max).await?;
                let kind = (*kind).to_owned();
                Ok(Answer::Object(Object { kind, content, cut }))
            }
            _ => Err(unexpected(&line)),
        }
    }

    /// So many bytes and a line's end, or the first `max` of them; whether there are more.
    async fn content(&mut self, size: u64, max: usize) -> io::Result<(Vec<u8>, bool)> {
        let cut = size > max as u64;
        let mut content = Vec::new();
        let wanted = size.min(max as u64);
        (&mut self.stdout).take(wanted).read_to_end(&mut content).await?;
        if (content.len() as u64) < wanted {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if !cut && self.stdout.read_u8().await? != b'\n' {
            return Err(unexpected(&content));
        }
        Ok((content, cut))
    }
}

fn unexpected(answer: &[u8]) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, String::from_utf8_lossy(answer).into_owned())
}

/// The names of the files among a tree's entries, each of them `mode name\0` and an id of so many bytes.
fn entries(mut tree: &[u8], id: usize) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        loop {
            let name = tree.iter().position(|byte| *byte == b' ')?;
            let end = tree.iter().position(|byte| *byte == 0)?;
            let (mode, entry) = (&tree[..name], tree.get(name + 1..end)?);
            tree = tree.get(end + 1 + id..)?;
            if FILES.contains(&mode)
                && let Ok(entry) = std::str::from_utf8(entry)
            {
                return Some(entry);
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(mode: &str, name: &[u8], id: usize) -> Vec<u8> {
        [mode.as_bytes(), b" ", name, b"\0", &vec![0xa5; id]].concat()
    }

    #[test]
    fn a_tree_of_either_hash_is_listed_without_folders_and_submodules() {
        for id in [20, 32] {
            let tree = [
                entry("100644", b"a.yml", id),
                entry("40000", b"folder", id),
                entry("160000", b"module", id),
                entry("100755", b"with blank", id),
                entry("100644", &[0xff, 0xfe], id),
                entry("120000", b"link", id),
            ]
            .concat();
            let names: Vec<_> = entries(&tree, id).collect();
            assert_eq!(names, ["a.yml", "with blank", "link"]);
        }
    }

    proptest! {
        /// Whatever git says, each name is a piece of it.
        #[test]
        fn no_tree_is_too_broken_to_be_listed(tree in proptest::collection::vec(any::<u8>(), 0..200)) {
            let listed: usize = entries(&tree, 20).map(|name| name.len() + 8 + 20).sum();
            prop_assert!(listed <= tree.len());
        }
    }
}
