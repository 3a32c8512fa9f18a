//! How forges and servers of images are reached: by rustls, with the authorities of this host.

use std::io;

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;

/// A connector that speaks TLS and nothing else, or one that plain http is allowed with, which trusts nobody's
/// certificate.
///
/// # Errors
/// When no certification authority can be read on this host.
pub fn tls<R>(mut connector: HttpConnector<R>, https: bool) -> io::Result<HttpsConnector<HttpConnector<R>>> {
    connector.enforce_http(false);
    let ring = rustls::crypto::ring::default_provider();
    let builder = HttpsConnectorBuilder::new();
    Ok(if https {
        let builder = builder.with_provider_and_native_roots(ring)?;
        builder.https_only().enable_http1().wrap_connector(connector)
    } else {
        let tls = rustls::ClientConfig::builder_with_provider(ring.into())
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let builder = builder.with_tls_config(tls);
        builder.https_or_http().enable_http1().wrap_connector(connector)
    })
}
