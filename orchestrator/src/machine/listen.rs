//! Listening at a machine's endpoints.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    os::unix::fs::PermissionsExt,
    time::Duration,
};

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
        ListenAt::Tcp(address) => tcp(*address, None).await,
        ListenAt::Slot { address, guest } => tcp(*address, Some(*guest)).await,
    }
}

async fn tcp(
    address: SocketAddr,
    guest: Option<IpAddr>,
) -> Result<BoxStream<'static, io::Result<Box<dyn Bytes>>>, ListenError> {
    let error = |source| ListenError {
        at: address.to_string(),
        source,
    };
    let listener = TcpListener::bind(address).await.map_err(error)?;
    let next = move |listener: TcpListener| async move {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => return Some((pause_on_error(Err(error)).await, listener)),
            };
            if let Some(guest) = guest
                && (stream.peer_addr().ok().map(|peer| peer.ip()) != Some(guest)
                    || stream.local_addr().ok() != Some(address))
            {
                tracing::warn!(%address, peer = ?stream.peer_addr(), "closed a connection that is not the machine's");
                continue;
            }
            let ready = stream.set_nodelay(true).map(|()| Box::new(stream) as Box<dyn Bytes>);
            return Some((pause_on_error(ready).await, listener));
        }
    };
    Ok(stream::unfold(listener, next).boxed())
}

/// A process out of file descriptors would otherwise spin here.
async fn pause_on_error<T>(result: io::Result<T>) -> io::Result<T> {
    if result.is_err() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    result
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt, io::AsyncWriteExt, net::TcpSocket};

    use super::*;

    #[tokio::test]
    async fn a_slots_address_is_its_guests_alone() {
        // The whole of 127/8 is this host's, so it can speak as two machines.
        let free = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let at = ListenAt::Slot {
            address: free,
            guest: "127.0.0.2".parse().unwrap(),
        };
        let mut connections = accept(&at).await.unwrap();
        let speak = async |from: &str, word: &'static [u8]| {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
            let mut stream = socket.connect(free).await.unwrap();
            // A connection that was closed at once may refuse the word.
            let _maybe_closed = stream.write_all(word).await;
            stream
        };
        let _stranger = speak("127.0.0.3", b"no!").await;
        let _guest = speak("127.0.0.2", b"yes").await;
        let mut said = [0; 3];
        connections
            .next()
            .await
            .unwrap()
            .unwrap()
            .read_exact(&mut said)
            .await
            .unwrap();
        assert_eq!(&said, b"yes");
    }
}
