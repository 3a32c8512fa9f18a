//! The line between agent and node: a proxy that can cut it, and TLS behind it.

use std::{
    io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use helios_proto::v1::agent_server::{Agent, AgentServer};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixListener, UnixStream},
    sync::watch,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// The agent dials `agent.sock`; the node listens behind it.
pub struct Line {
    outer: PathBuf,
    inner: PathBuf,
    certificate: rcgen::CertifiedKey<rcgen::KeyPair>,
    /// Every change cuts what is open; false lets nobody in.
    open: watch::Sender<bool>,
}

impl Line {
    pub fn new(dir: &Path) -> Self {
        let certificate = rcgen::generate_simple_self_signed(vec!["node".to_owned()]).unwrap();
        let (outer, inner) = (dir.join("agent.sock"), dir.join("node.sock"));
        Self {
            outer,
            inner,
            certificate,
            open: watch::Sender::new(true),
        }
    }

    pub fn socket(&self) -> &Path {
        &self.outer
    }

    pub fn fingerprint(&self) -> String {
        hex::encode(ring::digest::digest(&ring::digest::SHA256, self.certificate.cert.der()))
    }

    /// Breaks the connection in the middle of whatever it carries.
    pub fn cut(&self) {
        self.open.send_replace(true);
    }

    /// Breaks it and lets nobody in any more, or lets the agent in again.
    pub fn set_open(&self, open: bool) {
        self.open.send_replace(open);
    }

    /// Serves until the test ends.
    pub async fn serve(&self, service: AgentServer<impl Agent>) {
        let certificate = CertificateDer::from(self.certificate.cert.der().to_vec());
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.certificate.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = UnixListener::bind(&self.inner).unwrap();
        let incoming = futures::stream::unfold((listener, acceptor), |(listener, acceptor)| async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // A handshake that fails is the agent's refusal of this certificate.
                if let Ok(stream) = acceptor.accept(stream).await {
                    return Some((Ok::<_, io::Error>(Io(stream)), (listener, acceptor)));
                }
            }
        });
        let server = tonic::transport::Server::builder()
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(2 << 20)
            .add_service(service)
            .serve_with_incoming(incoming);
        tokio::spawn(server);

        let outer = UnixListener::bind(&self.outer).unwrap();
        let (open, inner) = (self.open.subscribe(), self.inner.clone());
        tokio::spawn(async move {
            loop {
                let (mut agent, _) = outer.accept().await.unwrap();
                let (mut open, inner) = (open.clone(), inner.clone());
                if !*open.borrow_and_update() {
                    continue;
                }
                tokio::spawn(async move {
                    let mut node = UnixStream::connect(inner).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut agent, &mut node) => {}
                        _ = open.changed() => {}
                    }
                });
            }
        });
    }
}

/// A TLS stream that tonic's server takes.
struct Io(TlsStream<UnixStream>);

impl tonic::transport::server::Connected for Io {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Io {
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
