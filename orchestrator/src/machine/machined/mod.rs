//! The Machine port over a UNIX socket. `helios-ci machined` holds the privileges and the back end;
//! the daemon, an ordinary user, holds this client. Either may restart while machines run: every call
//! of the port is idempotent, so the client simply asks again.

mod client;
mod listener;
mod server;
#[cfg(test)]
mod tests;
mod wire;

use std::{io, path::PathBuf};

pub use client::{connect, connect_within};
pub use server::{Callers, serve};

/// The socket cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MachinedError {
    /// The socket cannot be made.
    #[error("cannot listen on machined's socket {path}: check the owner and mode of its directory")]
    Listen {
        /// The socket.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// Another machined answers there.
    #[error("another machined answers on {0}: stop it first")]
    Busy(PathBuf),
    /// The client's end: nobody answers.
    #[error(
        "machined does not answer on {path}: {reason}. Start it: `svcadm enable helios-ci/machined`, or `helios-ci machined`"
    )]
    Absent {
        /// The socket.
        path: PathBuf,
        /// What the last try said.
        reason: String,
    },
    /// It answers, but is not the one that this daemon needs.
    #[error("the machined on {path} {reason}")]
    Other {
        /// The socket.
        path: PathBuf,
        /// What is different, and what to do.
        reason: String,
    },
}
