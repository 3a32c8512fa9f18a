//! What can go wrong.

use std::{io, net::SocketAddr, path::PathBuf};

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("`git {command}` failed: {reason}")]
    Git { command: String, reason: String },
    /// A file or folder could not be used.
    #[error("cannot use {path}")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    /// The built-in test key cannot be used.
    #[error("the test key cannot be used: {0}")]
    TestKey(String),
    /// The HTTP client for webhooks cannot be made.
    #[error("cannot make an HTTP client: {0}")]
    Client(String),
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
        id: String,
    },
    /// What was waited for did not come.
    #[error("{what} did not come within {seconds} s; last seen: {last}")]
    TimedOut {
        /// What was waited for.
        what: String,
        seconds: u64,
        /// The newest states received.
        last: String,
    },
}
