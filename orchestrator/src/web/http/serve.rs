//! Listeners: plain or TLS, HTTP/1 and HTTP/2, with limits on everything a stranger could hold on to.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{Router, extract::ConnectInfo};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::Semaphore,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::{limits::Viewers, linger::Lingering, proxies::Proxies};
use crate::{config, web::identity::Peer};

/// Connections at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 2048;
/// Connections at once of one address.
const MAX_PER_ADDRESS: usize = 512;
/// How long a client may take for the TLS handshake, and for the head of each request.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// Who connected before the end has so long for a first request.
const BEGINS_WITHIN: Duration = Duration::from_secs(1);
/// How long answers under way may take once we stop.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// Why the web listener cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A PEM file cannot be used.
    #[error("cannot use {path} for TLS: {reason}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Certificate and key do not fit, or the like.
    #[error("cannot set up TLS with {certificate}")]
    Tls {
        /// The certificate's file.
        certificate: PathBuf,
        /// The library's words.
        #[source]
        source: rustls::Error,
    },
}

/// Reads certificate and key.
///
/// # Errors
/// When a file cannot be read or used.
pub fn tls_config(tls: &config::Tls) -> Result<Arc<rustls::ServerConfig>, ServeError> {
    let bad = |path: &Path, reason: String| ServeError::Pem {
        path: path.to_owned(),
        reason,
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&tls.certificate)
        .and_then(Iterator::collect)
        .map_err(|e| bad(&tls.certificate, e.to_string()))?;
    if chain.is_empty() {
        return Err(bad(&tls.certificate, "it holds no certificate".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|e| bad(&tls.key, e.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let failed = |source| ServeError::Tls {
        certificate: tls.certificate.clone(),
        source,
    };
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(failed)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Serves until `shutdown` is cancelled, then lets answers under way end for up to ten seconds.
/// Streams that should end earlier must watch the same token.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    router: Router,
    proxies: Proxies,
    shutdown: CancellationToken,
) {
    let acceptor = tls.map(TlsAcceptor::from);
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let callers = Viewers::new(MAX_PER_ADDRESS, MAX_CONNECTIONS);
    let mut connections = JoinSet::new();
    loop {
        // A permit first: when all are taken, nothing more is accepted.
        let permit = tokio::select! {
            () = shutdown.cancelled() => break,
            permit = room.clone().acquire_owned() => match permit { Ok(permit) => permit, Err(_) => break },
        };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, or a client that was gone already: neither ends the daemon.
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // A proxy of ours speaks for many.
        let place = if proxies.trusts(peer.ip()) {
            None
        } else {
            let Some(place) = callers.enter(peer.ip()) else {
                tracing::debug!(%peer, "too many connections of one address");
                continue;
            };
            Some(place)
        };
        // Log lines are small and should leave at once.
        let _ = stream.set_nodelay(true);
        let stream = Lingering::new(stream);
        let (router, acceptor, shutdown) = (router.clone(), acceptor.clone(), shutdown.clone());
        let proxies = proxies.clone();
        connections.spawn(async move {
            let _held = (permit, place);
            match acceptor {
                None => connection(stream, peer, router, proxies, shutdown).await,
                Some(acceptor) => match tokio::time::timeout(HEAD_WITHIN, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => connection(stream, peer, router, proxies, shutdown).await,
                    Ok(Err(error)) => tracing::debug!(%peer, %error, "a TLS handshake failed"),
                    Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
                },
            }
        });
    }
    let ended = tokio::time::timeout(STOP_WITHIN, async { while connections.join_next().await.is_some() {} }).await;
    if ended.is_err() {
        tracing::info!(
            left = connections.len(),
            "some connections did not end in time and are dropped"
        );
    }
}

async fn connection<S>(stream: S, peer: SocketAddr, router: Router, proxies: Proxies, shutdown: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let begun = CancellationToken::new();
    let begins = begun.clone();
    let service = router.map_request(move |mut request: http::Request<hyper::body::Incoming>| {
        begins.cancel();
        let client = proxies.client(peer.ip(), request.headers());
        let extensions = request.extensions_mut();
        extensions.insert(Peer(client));
        // What the webhook door counts.
        extensions.insert(ConnectInfo(SocketAddr::new(client, peer.port())));
        request.map(axum::body::Body::new)
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(32 * 1024);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(64)
        .max_header_list_size(32 * 1024)
        .max_pending_accept_reset_streams(20)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    let served = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    tokio::pin!(served);
    let result = tokio::select! {
        result = served.as_mut() => result,
        () = shutdown.cancelled() => {
            // hyper closes a connection that has said nothing yet, and with it the request that is on its way: a webhook
            // that comes while a configuration changes, and that its forge does not send twice.
            let ended = tokio::select! {
                result = served.as_mut() => Some(result),
                () = begun.cancelled() => None,
                () = tokio::time::sleep(BEGINS_WITHIN) => None,
            };
            match ended {
                Some(result) => result,
                None => {
                    served.as_mut().graceful_shutdown();
                    served.await
                }
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(%peer, %error, "a connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn start(
        router: Router,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve(listener, tls, router, Proxies::default(), stop.clone()));
        (address, stop, task)
    }

    #[tokio::test]
    async fn serves_and_stops() {
        let router = Router::new().route(
            "/",
            axum::routing::get(
                async |axum::Extension(peer): axum::Extension<Peer>, ConnectInfo(seen): ConnectInfo<SocketAddr>| {
                    assert_eq!(seen.ip(), peer.0);
                    peer.0.to_string()
                },
            ),
        );
        let (address, stop, task) = start(router, None).await;
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with("127.0.0.1"),
            "{answer}"
        );
        let idle = tokio::net::TcpStream::connect(address).await.unwrap();
        stop.cancel();
        task.await.unwrap();
        drop(idle);
    }

    #[tokio::test]
    async fn a_body_that_nobody_reads_does_not_cost_the_client_its_answer() {
        let router = Router::new().route("/", axum::routing::post(async || http::StatusCode::PAYLOAD_TOO_LARGE));
        let (address, stop, task) = start(router, None).await;
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let body = vec![b' '; 11 << 20];
        let head = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await.unwrap();
        // A client that sends all it has before it reads.
        stream.write_all(&body).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert!(
            answer.starts_with(b"HTTP/1.1 413"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
        stop.cancel();
        task.await.unwrap();
    }

    #[tokio::test]
    async fn a_request_that_was_on_its_way_at_the_end_is_answered() {
        let router = Router::new().route("/", axum::routing::get(async || "in time"));
        let (mut client, server) = tokio::io::duplex(4096);
        let stop = CancellationToken::new();
        stop.cancel();
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let served = tokio::spawn(connection(server, peer, router, Proxies::default(), stop));
        // It has had its turn, and its client has said nothing yet.
        tokio::task::yield_now().await;
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("in time"), "{answer}");
        served.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_never_ends_its_head_is_cut_off() {
        let (address, stop, task) = start(Router::new(), None).await;
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
            .await
            .unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP/1.1 200"));
        stop.cancel();
        task.await.unwrap();
    }

    #[tokio::test]
    async fn speaks_tls_and_refuses_a_bad_key() {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let paths = config::Tls {
            certificate: folder.path().join("c.pem"),
            key: folder.path().join("k.pem"),
        };
        std::fs::write(&paths.certificate, made.cert.pem()).unwrap();
        std::fs::write(&paths.key, "no key").unwrap();
        let error = tls_config(&paths).unwrap_err().to_string();
        assert!(error.contains("k.pem"), "{error}");
        std::fs::write(&paths.key, made.signing_key.serialize_pem()).unwrap();
        let router = Router::new().route("/", axum::routing::get(async || "over tls"));
        let (address, stop, task) = start(router, Some(tls_config(&paths).unwrap())).await;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let client = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
        let mut stream = tokio_rustls::TlsConnector::from(Arc::new(client))
            .connect(name, stream)
            .await
            .unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        assert!(answer.ends_with("over tls"), "{answer}");
        stop.cancel();
        task.await.unwrap();
    }
}
