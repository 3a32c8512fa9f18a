//! What can go wrong.

use std::{io, net::SocketAddr, path::PathBuf};

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// git failed.
    #[error("`git {command}` failed: {reason}")]
    Git {
        /// Its arguments.
        command: String,
        /// Its words.
        reason: String,
    },
    /// A file or folder could not be used.
    #[error("cannot use {path}")]
    Io {
        /// Which one.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which one.
        address: SocketAddr,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// The built-in test key cannot be used.
    #[error("the test key cannot be used: {0}")]
    TestKey(String),
    /// The HTTP client for webhooks cannot be made.
    #[error("cannot make an HTTP client: {0}")]
    Client(String),
    /// No such repository.
    #[error("there is no repository {0}")]
    UnknownRepository(i64),
    /// The path is taken, or not `owner/name`.
    #[error("`{0}` cannot be a new repository: it exists or is not `owner/name` of letters, digits, `-`, `_` and `.`")]
    BadPath(String),
    /// No such ref or commit.
    #[error("there is no `{0}`")]
    UnknownRef(String),
    /// No such thing of another kind.
    #[error("there is no {what} `{id}`")]
    Unknown {
        /// `delivery`, `check run`, `pull request`.
        what: &'static str,
        /// Which one.
        id: String,
    },
    /// What was waited for did not come.
    #[error("{what} did not come within {seconds} s; last seen: {last}")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
        /// The newest states received.
        last: String,
    },
}
