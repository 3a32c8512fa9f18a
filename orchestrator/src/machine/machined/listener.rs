//! The socket of machined. The peer's credentials decide whether a connection is served; the file's
//! owner and mode are a second guard.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::Path,
    time::Duration,
};

use futures::{Stream, StreamExt, stream};
use nix::unistd::Uid;
use tokio::net::{UnixListener, UnixStream};

use super::{Callers, MachinedError};

/// Makes the socket. One that a dead machined left is replaced; one that answers is not.
pub(super) async fn bind(path: &Path, callers: &Callers) -> Result<UnixListener, MachinedError> {
    let error = |source| MachinedError::Listen {
        path: path.to_owned(),
        source,
    };
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(error(io::Error::other("something that is no socket lies there")));
        }
        Ok(_) => {
            if UnixStream::connect(path).await.is_ok() {
                return Err(MachinedError::Busy(path.to_owned()));
            }
            fs::remove_file(path).map_err(error)?;
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(error(e)),
    }
    let listener = UnixListener::bind(path).map_err(error)?;
    if let Some(user) = callers.user.filter(|user| *user != Uid::effective()) {
        nix::unistd::chown(path, Some(user), None).map_err(|errno| error(errno.into()))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(error)?;
    Ok(listener)
}

/// Connections of admitted users. Any other is closed at once.
pub(super) fn admitted(listener: UnixListener, callers: Callers) -> impl Stream<Item = io::Result<UnixStream>> {
    stream::unfold(listener, |listener| async move {
        let next = listener.accept().await.map(|(stream, _)| stream);
        if next.is_err() {
            // A process out of file descriptors would otherwise spin here.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Some((next, listener))
    })
    .filter_map(move |next| {
        let admitted = match next.and_then(|stream| Ok((stream.peer_cred()?.uid(), stream))) {
            Ok((uid, stream)) if callers.admit(uid) => Some(Ok(stream)),
            Ok((uid, _)) => {
                tracing::warn!(uid, "refused a caller: machined serves the daemon's user and root only");
                None
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a caller");
                None
            }
        };
        std::future::ready(admitted)
    })
}
