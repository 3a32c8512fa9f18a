//! How source operations fail.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    exec::ExecError,
    model::{
        ids::AttemptId,
        names::{CommitSha, RefName, RepoPath},
    },
};

/// A source operation that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The address configured for a forge cannot be fetched from.
    #[error("cannot fetch from `{url}`: only https and http addresses are allowed")]
    Address {
        /// The clone URL.
        url: String,
    },
    /// The forge did not give the repository.
    #[error("cannot fetch `{what}` of {repository} from its forge: {reason}")]
    Fetch {
        /// The repository.
        repository: RepoPath,
        /// A ref or commit.
        what: String,
        /// What git said.
        reason: String,
    },
    /// The forge does not give the repository to those that this connection says we are: a state of our rights to it,
    /// and not of the repository.
    #[error("the forge does not give `{what}` of {repository} to the credentials of this connection: {reason}")]
    Denied {
        /// The repository.
        repository: RepoPath,
        /// A ref or commit.
        what: String,
        /// What git said.
        reason: String,
    },
    /// The mirror is larger than the configuration allows.
    #[error(
        "{repository} is larger than the {limit} bytes that `limits.repository_bytes` allows; raise the limit to serve it"
    )]
    TooLarge {
        /// The repository.
        repository: RepoPath,
        /// The limit.
        limit: u64,
    },
    /// A folder is in no working tree that the person's git would use.
    #[error("{} is in no git working tree: {reason}", folder.display())]
    NoWorkTree {
        /// Where it was expected.
        folder: PathBuf,
        /// What git said.
        reason: String,
    },
    /// The person's git did not give a commit with its files.
    #[error("git in {} could not give the commit {commit}: {reason}", root.display())]
    NotPacked {
        /// The commit.
        commit: CommitSha,
        /// The working tree.
        root: PathBuf,
        /// What git said, or where.
        reason: String,
    },
    /// A commit is not in the mirror.
    #[error("the commit {commit} of {repository} is not here; fetch it first")]
    NoCommit {
        /// The repository.
        repository: RepoPath,
        /// The commit.
        commit: CommitSha,
    },
    /// A file of a commit is longer than its reader takes.
    #[error("`{path}` is longer than {max} bytes")]
    FileTooLong {
        /// Its path in the repository.
        path: String,
        /// The limit.
        max: usize,
    },
    /// A commit has no such file, or it cannot be followed to one.
    #[error("`{path}` cannot be read: {why}")]
    Unreadable {
        /// Its path in the repository.
        path: String,
        /// What is there instead.
        why: String,
    },
    /// A repository has more branches and tags than are brought.
    #[error(
        "{repository} has more than {max} branches and tags, too many to list; a checkout needs that only with `fetch-depth: 0`"
    )]
    TooManyRefs {
        /// The repository.
        repository: RepoPath,
        /// The limit.
        max: usize,
    },
    /// A commit has more entries than are listed.
    #[error("{repository} has too many files in its workflow folders to list")]
    ListTooLong {
        /// The repository.
        repository: RepoPath,
    },
    /// git said something unexpected.
    #[error("cannot understand git's answer to `{what}`: {answer}")]
    Answer {
        /// The command.
        what: &'static str,
        /// Its beginning.
        answer: String,
    },
    /// git could not do it.
    #[error("git failed in {}", path.display())]
    Git {
        /// The repository's folder.
        path: PathBuf,
        /// git's own word.
        #[source]
        source: ExecError,
    },
    /// The disk refused.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// A ref does not exist at the forge.
    #[error("{repository} has no `{ref_name}`")]
    NoRef {
        /// The repository.
        repository: RepoPath,
        /// The ref.
        ref_name: RefName,
    },
    /// A machine asked for something else than its grant.
    #[error("refused a git request of attempt {attempt}: {reason}")]
    Request {
        /// Whose machine asked.
        attempt: AttemptId,
        /// What was wrong.
        reason: String,
    },
    /// The connection to a machine broke.
    #[error("lost the git connection of attempt {attempt}")]
    Connection {
        /// Whose machine it was.
        attempt: AttemptId,
        /// The system's word.
        #[source]
        source: io::Error,
    },
}

impl SourceError {
    pub(super) fn io(what: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            what,
            path: path.to_owned(),
            source,
        }
    }

    /// Why, in words for everybody who reads a check at the forge: no address, no limit of ours, and nothing of this
    /// host's disk. The error itself is for the log.
    #[must_use]
    pub fn public_reason(&self) -> String {
        match self {
            Self::Denied { .. } => {
                "helios-ci may not read this repository: its administrator must give helios-ci's user \
                                    or App the right"
                    .to_owned()
            }
            Self::Fetch { .. } => "the commit could not be fetched from the forge".to_owned(),
            Self::TooLarge { .. } => "the repository is larger than the administrator of helios-ci allows".to_owned(),
            Self::Git { .. } | Self::Io { .. } | Self::Answer { .. } => {
                "git failed on the server; its log says why".to_owned()
            }
            _ => crate::error_chain::chain(self),
        }
    }

    /// Whether another try can help: the forge, the network or the disk may recover; a repository
    /// that is too large does not shrink.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Fetch { .. } | Self::Denied { .. } | Self::Git { .. } | Self::Io { .. } | Self::Connection { .. }
        )
    }
}
