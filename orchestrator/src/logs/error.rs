//! What can go wrong with a log.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::forms::{LIMIT, MAX_MASKS};
use crate::model::ids::AttemptId;

/// A log that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// No space, no quota, or a file size limit.
    #[error("the disk that holds {path} is full: free space there, or lower the retention of logs")]
    Full {
        /// The file or directory being written.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// Any other failure of the file system.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// The file is not what was written.
    #[error("{path} is damaged ({detail}): restore it from a backup or remove the attempt's log")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: &'static str,
    },
    /// Another version of helios-ci wrote the log.
    #[error(
        "{path} has format {found}, and this version of helios-ci reads format {known}: run the version that wrote it"
    )]
    OtherFormat {
        /// The file that says so.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The only one that is known here.
        known: u32,
    },
    /// There is no log of this attempt here.
    #[error("attempt {attempt} has no log on this node: it has not started, or the log has expired")]
    NotFound {
        /// The attempt.
        attempt: AttemptId,
    },
    /// A second writer, or removal under the writer.
    #[error("the log of attempt {attempt} is being written: one task at a time owns it")]
    Busy {
        /// The attempt.
        attempt: AttemptId,
    },
    /// Its last record says that nothing follows.
    #[error("the log of attempt {attempt} has ended: nothing can be added")]
    Ended {
        /// The attempt.
        attempt: AttemptId,
    },
    /// The log has ended and is sealed; [`super::LogStore::summary`] tells how.
    #[error("the log of attempt {attempt} is sealed: nothing can be added")]
    Sealed {
        /// The attempt.
        attempt: AttemptId,
    },
    /// An earlier call failed and the state in memory is ahead of the file.
    #[error("an earlier write to {path} failed: open the log again, the agent then sends again what is missing")]
    Broken {
        /// The file.
        path: PathBuf,
    },
    /// More secrets than a log can search for.
    #[error(
        "{masks} secrets with {bytes} bytes to search for exceed the limits of {MAX_MASKS} and {LIMIT}: use fewer or shorter secrets, or less `::add-mask::`"
    )]
    TooManyMasks {
        /// How many secrets.
        masks: usize,
        /// Their size together, or that of all their forms.
        bytes: usize,
    },
    /// The daemon is stopping and its worker threads are gone.
    #[error("the log of attempt {attempt} cannot be read while the daemon stops")]
    Stopping {
        /// The attempt.
        attempt: AttemptId,
    },
}

impl LogError {
    /// Wraps a failure on `path`; a full disk gets its own words.
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::Full { path, source }
            }
            _ => Self::Io { action, path, source },
        }
    }
}

/// Text that is no position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no log position: expected `<generation>:<record>` such as 1:250")]
pub struct BadPosition {
    pub(super) text: String,
}
