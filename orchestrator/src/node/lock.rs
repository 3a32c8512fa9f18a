//! The lock on the data directory, which says that the daemon before is dead.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use super::NodeError;

/// Holds the data directory for this process; the kernel lets go of it when the process dies, however
/// it dies.
#[derive(Debug)]
pub struct DataLock {
    _file: Flock<fs::File>,
    /// The file that names the instance which held the lock last.
    pub(super) previous: PathBuf,
}

impl DataLock {
    /// Whether a living process holds the data directory. Makes nothing.
    ///
    /// # Errors
    /// As [`DataLock::take`].
    pub fn is_held(data_dir: &Path) -> Result<bool, NodeError> {
        if !data_dir.join("daemon.lock").exists() {
            return Ok(false);
        }
        match Self::take(data_dir) {
            Ok(_) => Ok(false),
            Err(NodeError::Locked(_)) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Takes the data directory.
    ///
    /// # Errors
    /// When another process has it, or it cannot be written.
    pub fn take(data_dir: &Path) -> Result<Self, NodeError> {
        let path = data_dir.join("daemon.lock");
        let file = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path);
        let file = file.map_err(|source| NodeError::File {
            path: path.clone(),
            source,
        })?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Self {
                _file: file,
                previous: data_dir.join("instance"),
            }),
            Err((_, Errno::EWOULDBLOCK)) => Err(NodeError::Locked(data_dir.to_owned())),
            Err((_, errno)) => Err(NodeError::File {
                path,
                source: errno.into(),
            }),
        }
    }
}
