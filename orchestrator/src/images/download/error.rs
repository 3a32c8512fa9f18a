//! What can go wrong with a download.

use std::{io, path::PathBuf, time::Duration};

use http::StatusCode;
use hyper_util::client::legacy;

use super::{Address, AddressError, REDIRECTS};

/// A download that failed. What is there stays for a later call, unless the message says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// Nothing is fetched from there.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The directory for downloads is not the caller's alone.
    #[error("nothing is downloaded into {dir}: {wrong}; mend or remove it")]
    Directory {
        /// Which.
        dir: PathBuf,
        /// What is wrong with it.
        wrong: &'static str,
    },
    /// Another process fetches it.
    #[error("{address} is being downloaded or imported by another process; wait until that one has ended")]
    Busy {
        /// From where.
        address: Address,
    },
    /// The file system failed.
    #[error("cannot {doing} {path}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// Nobody can be trusted.
    #[error("no certification authority can be read on this host: install ca-certificates or set SSL_CERT_FILE")]
    NoRoots(#[source] io::Error),
    /// No connection, or no answer on it.
    #[error("{address} cannot be reached: check the address, and whether this host may reach it")]
    Unreachable {
        /// Which.
        address: Address,
        /// What failed.
        #[source]
        source: legacy::Error,
    },
    /// Nothing came for too long.
    #[error(
        "{address} sent nothing for {} s; repeat the command: it continues after {bytes} bytes if the server can", idle.as_secs_f32()
    )]
    Idle {
        /// From where.
        address: Address,
        /// The limit.
        idle: Duration,
        /// What is there.
        bytes: u64,
    },
    /// The connection broke.
    #[error("{address} broke off; repeat the command: it continues after {bytes} bytes if the server can")]
    Broken {
        /// From where.
        address: Address,
        /// What is there.
        bytes: u64,
        /// What failed.
        #[source]
        source: hyper::Error,
    },
    /// It ended early without saying so.
    #[error("{address} ended after {bytes} of {total} bytes; repeat the command: it continues if the server can")]
    Short {
        /// From where.
        address: Address,
        /// What is there.
        bytes: u64,
        /// What was promised.
        total: u64,
    },
    /// The server gives no file.
    #[error("{address} answered {status}, not with a file: check the address, or try again later")]
    Refused {
        /// From where.
        address: Address,
        /// Its word.
        status: StatusCode,
    },
    /// It leads on and on.
    #[error("{address} leads to other addresses more than {REDIRECTS} times: give the last one")]
    Redirects {
        /// Where it began.
        address: Address,
    },
    /// More than any disk has, or more than the server said.
    #[error("{address} sends more than {largest} bytes, which cannot be right; nothing of it was kept")]
    TooLarge {
        /// From where.
        address: Address,
        /// The limit.
        largest: u64,
    },
    /// It does not fit.
    #[error(
        "no room for {address} in {dir}: it takes at least {needed} bytes more, and {free} are free, of which {reserve} are left to others; make room and repeat the command"
    )]
    NoRoom {
        /// From where.
        address: Address,
        /// Where to.
        dir: PathBuf,
        /// What would have to be written.
        needed: u64,
        /// What is free.
        free: u64,
        /// What stays free.
        reserve: u64,
    },
}
