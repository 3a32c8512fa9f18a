//! Listening sockets and the TLS handshake in front of gRPC.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{Stream, StreamExt, stream};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, UnixListener},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::server::Connected;

use crate::machine::ListenAt;

/// A machine's address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for a machine at {at}")]
pub struct ListenError {
    at: String,
    #[source]
    source: io::Error,
}

/// How long a TLS handshake may take; a guest that stalls it holds one slot that long.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes under way at once on one machine's listener.
const HANDSHAKES: usize = 4;

trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

/// A connection after its handshake.
pub(super) struct Connection(TlsStream<Box<dyn Bytes>>);

/// Listens, and yields connections whose handshake succeeded; failed ones are dropped.
pub(super) async fn bind(
    at: &ListenAt,
    tls: Arc<ServerConfig>,
) -> Result<impl Stream<Item = io::Result<Connection>> + use<>, ListenError> {
    let acceptor = TlsAcceptor::from(tls);
    let incoming = accept(at).await?;
    Ok(incoming
        .map(move |stream| {
            let acceptor = acceptor.clone();
            async move {
                let handshake = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream?)).await;
                handshake.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map(Connection)
            }
        })
        .buffer_unordered(HANDSHAKES)
        .filter_map(|result| async move {
            match result {
                Ok(connection) => Some(Ok(connection)),
                Err(error) => {
                    tracing::debug!(%error, "a machine's connection failed before it was one");
                    None
                }
            }
        }))
}

/// Raw connections at a machine's address. A UNIX socket left by an earlier process is replaced; it
/// lies in the machine's own private directory.
async fn accept(at: &ListenAt) -> Result<stream::BoxStream<'static, io::Result<Box<dyn Bytes>>>, ListenError> {
    match at {
        ListenAt::Unix(path) => {
            let error = |source| ListenError { at: path.display().to_string(), source };
            match fs::remove_file(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(error(e)),
                _ => {}
            }
            let listener = UnixListener::bind(path).map_err(error)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(error)?;
            Ok(stream::unfold(listener, |listener| async move {
                let next = listener.accept().await.map(|(stream, _)| Box::new(stream) as Box<dyn Bytes>);
                Some((pause_on_error(next).await, listener))
            })
            .boxed())
        }
        ListenAt::Tcp(address) => {
            let error = |source| ListenError { at: address.to_string(), source };
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

impl Connected for Connection {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
