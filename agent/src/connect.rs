//! The way to the node: TLS that accepts exactly one certificate, over TCP or a UNIX socket, and
//! HTTP/2 on top of it.

mod suites;

use std::{io, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use ring::digest;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{
        CryptoProvider, WebPkiSupportedAlgorithms, ring as crypto, verify_tls12_signature, verify_tls13_signature,
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    version::TLS13,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::TlsConnector;
use tonic::{
    codegen::http::Uri,
    transport::{Channel, Endpoint},
};

use crate::seed::{Address, Seed};

/// How often a silent connection is asked whether it lives, and how long it may take to answer.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// A dial, its TLS handshake included, that takes longer has failed.
const DIAL: Duration = Duration::from_secs(10);

/// HTTP/2 windows: what may be on its way without the node having read it.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 2 << 20;

/// The name in the TLS handshake. It proves nothing and is checked by nobody: the pin does that.
const SERVER_NAME: &str = "node.helios-ci.invalid";

/// A connection that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The TLS configuration is impossible: a defect of this build.
    #[error("cannot set up TLS")]
    Tls(#[source] rustls::Error),
    /// The node was not reached, or it is not the node of the seed.
    #[error("cannot connect to the node at {address}")]
    Dial {
        /// Where it should be.
        address: Address,
        /// What happened.
        #[source]
        source: tonic::transport::Error,
    },
}

/// Dials the node of one seed, again and again.
#[derive(Clone)]
pub struct Dialer {
    address: Address,
    tls: TlsConnector,
}

impl Dialer {
    /// A dialer that accepts the seed's certificate only.
    pub fn new(seed: &Seed) -> Result<Self, ConnectError> {
        let provider = crypto::default_provider();
        let provider = Arc::new(CryptoProvider {
            cipher_suites: suites::quickest_first(provider.cipher_suites),
            ..provider
        });
        let pin = Pin {
            fingerprint: seed.fingerprint,
            algorithms: provider.signature_verification_algorithms,
        };
        let mut config = configuration(provider, pin).map_err(ConnectError::Tls)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self {
            address: seed.agent.clone(),
            tls: TlsConnector::from(Arc::new(config)),
        })
    }

    /// A fresh connection.
    pub async fn dial(&self) -> Result<Channel, ConnectError> {
        let dialer = self.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let dialer = dialer.clone();
            async move {
                tokio::time::timeout(DIAL, dialer.stream())
                    .await
                    .map_err(io::Error::from)?
            }
        });
        // The scheme is plain because TLS is the connector's affair.
        Endpoint::from_static("http://node.helios-ci.invalid")
            .connect_timeout(DIAL)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .connect_with_connector(connector)
            .await
            .map_err(|source| ConnectError::Dial {
                address: self.address.clone(),
                source,
            })
    }

    async fn stream(&self) -> io::Result<TokioIo<Box<dyn Stream>>> {
        let name = ServerName::try_from(SERVER_NAME).map_err(io::Error::other)?;
        let stream: Box<dyn Stream> = match &self.address {
            Address::Tcp(address) => {
                let tcp = TcpStream::connect(address).await?;
                tcp.set_nodelay(true)?;
                Box::new(self.tls.connect(name, tcp).await?)
            }
            Address::Unix(path) => Box::new(self.tls.connect(name, UnixStream::connect(path).await?).await?),
        };
        Ok(TokioIo::new(stream))
    }
}

fn configuration(provider: Arc<CryptoProvider>, pin: Pin) -> Result<ClientConfig, rustls::Error> {
    Ok(ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(pin))
        .with_no_client_auth())
}

/// Accepts one certificate, whatever it says about itself, from whoever holds its private key.
#[derive(Debug)]
struct Pin {
    fingerprint: [u8; 32],
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // Neither name, chain nor dates are asked: a machine's clock may be years off before the
        // node has told it the time.
        if digest::digest(&digest::SHA256, end_entity).as_ref() == self.fingerprint {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::Error::General(
            "the certificate is not the one the seed pins".to_owned(),
        ))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        None
    }
}

/// A byte stream to the node, whatever socket it runs over.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}
