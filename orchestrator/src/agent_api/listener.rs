//! The TLS handshake in front of gRPC.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{Stream, StreamExt};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::server::Connected;

use crate::machine::{
    ListenAt,
    listen::{Bytes, ListenError, accept},
};

/// How long a TLS handshake may take; a guest that stalls it holds one slot that long.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes under way at once on one machine's listener.
const HANDSHAKES: usize = 4;

/// What is read of a connection at once: TLS itself asks for 4 KiB at a time.
const READ: usize = 64 << 10;

/// A connection after its handshake.
pub(super) struct Connection(TlsStream<BufReader<Box<dyn Bytes>>>);

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
                let stream = BufReader::with_capacity(READ, stream?);
                let handshake = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await;
                handshake
                    .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
                    .map(Connection)
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
