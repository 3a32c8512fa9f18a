//! Files on their way between node and machine, each on a stream of its own.

pub mod transfer;
pub mod walk;

use std::{
    io,
    path::{Path, PathBuf},
};

/// A file operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The command itself makes no sense.
    #[error("the command is not valid: {0}")]
    Invalid(String),
    /// The system refused something.
    #[error("cannot {doing} {path}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Only regular files are read.
    #[error("{0} is not a regular file")]
    NotRegular(PathBuf),
    /// The file is larger than the node takes.
    #[error("{path} has more than {max} bytes")]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// The most the node takes.
        max: u64,
    },
    /// What arrived is not what was sent.
    #[error("the bytes of {path} arrived damaged (SHA-256 {found}, expected {expected})")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What was computed here.
        found: String,
        /// What the node says.
        expected: String,
    },
    /// The node refused the transfer, or every try of it broke.
    #[error("the transfer failed: {0}")]
    Transfer(String),
    /// The directory tree is beyond what a walk takes.
    #[error("{root} has {what}: narrow the path")]
    Limit {
        /// Where the walk began.
        root: PathBuf,
        /// Which limit.
        what: String,
    },
    /// A pattern cannot be understood.
    #[error("the pattern `{pattern}` is not valid")]
    Pattern {
        /// Which.
        pattern: String,
        /// Why.
        #[source]
        source: globset::Error,
    },
}

impl FileError {
    fn system(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::System { doing, path, source }
    }
}

/// A path of a command; it must be absolute.
fn absolute(path: String) -> Result<PathBuf, FileError> {
    let valid = path.starts_with('/') && !path.contains('\0');
    let path = PathBuf::from(path);
    if valid {
        Ok(path)
    } else {
        Err(FileError::Invalid(format!(
            "`{}` is not an absolute path",
            path.display()
        )))
    }
}
