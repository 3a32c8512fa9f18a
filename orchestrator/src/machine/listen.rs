//! Listening at a machine's endpoints.

use std::{fs, io, os::unix::fs::PermissionsExt, time::Duration};

use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
};

use super::ListenAt;

/// A machine's address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for a machine at {at}")]
pub struct ListenError {
    at: String,
    #[source]
    source: io::Error,
}

/// A connection from a machine.
pub trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

/// Connections at a machine's address, for ever. A UNIX socket left by an earlier process is
/// replaced; it lies in the machine's own private directory.
///
/// # Errors
/// When the address cannot be bound.
pub async fn accept(at: &ListenAt) -> Result<BoxStream<'static, io::Result<Box<dyn Bytes>>>, ListenError> {
    match at {
        ListenAt::Unix(path) => {
            let error = |source| ListenError {
                at: path.display().to_string(),
                source,
            };
            match fs::remove_file(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(error(e)),
                _ => {}
            }
            let listener = UnixListener::bind(path).map_err(error)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(error)?;
            Ok(stream::unfold(listener, |listener| async move {
                let next = listener
                    .accept()
                    .await
                    .map(|(stream, _)| Box::new(stream) as Box<dyn Bytes>);
                Some((pause_on_error(next).await, listener))
            })
            .boxed())
        }
        ListenAt::Tcp(address) => {
            let error = |source| ListenError {
                at: address.to_string(),
                source,
            };
            let listener = TcpListener::bind(address).await.map_err(error)?;
            Ok(stream::unfold(listener, |listener| async move {
                let next = listener.accept().await.and_then(|(stream, _)| {
                    stream.set_nodelay(true)?;
                    Ok(Box::new(stream) as Box<dyn Bytes>)
                });
                Some((pause_on_error(next).await, listener))
            })
            .boxed())
        }
    }
}

/// A process out of file descriptors would otherwise spin here.
async fn pause_on_error<T>(result: io::Result<T>) -> io::Result<T> {
    if result.is_err() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    result
}
