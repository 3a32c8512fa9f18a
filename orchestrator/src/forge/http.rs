//! The one way out to a forge: a client for exactly one configured address.
//!
//! - The target comes from the configuration alone; a request for another host cannot be expressed,
//!   because callers give paths.
//! - `https` only, unless the connection says `allow_private`.
//! - Every address a name resolves to is checked in the resolver of the connector itself, so the
//!   address that was checked is the address that is connected to: a name that answers differently
//!   the second time (DNS rebinding) gains nothing.
//! - No redirect is followed, no proxy variable is read, a body is read up to [`MAX_BODY`] and an
//!   overall deadline covers everything from resolving to the last byte.

use std::{
    fmt,
    future::Future,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{
        Client,
        connect::{HttpConnector, dns::Name},
    },
    rt::TokioExecutor,
};
use tokio::sync::Notify;
use tower::Service;

use crate::{connector, foreign_text::one_line};

/// Longest answer that is read, in bytes.
pub const MAX_BODY: usize = 2 * 1024 * 1024;
/// The whole of one call: resolving, connecting, sending and reading.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// Connecting alone, so that a dead first address leaves time for the next.
const CONNECT_DEADLINE: Duration = Duration::from_secs(4);

/// A connection's address that cannot be used. It is found at start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadTarget {
    /// Not an address at all.
    #[error("`{url}` is not a forge's address: write it as https://HOST or https://HOST:PORT")]
    NotAUrl {
        /// What was configured.
        url: String,
    },
    /// Plain HTTP without permission.
    #[error("`{url}` is not https: use https, or set allow_private for a forge inside your own network")]
    NotHttps {
        /// What was configured.
        url: String,
    },
    /// A literal address that is not public.
    #[error("`{url}` has the address {address}, which is not public: set allow_private to use it")]
    Private {
        /// What was configured.
        url: String,
        /// The address in it.
        address: IpAddr,
    },
    /// No certification authorities on this host.
    #[error(
        "no certification authority can be read on this host ({reason}): install ca-certificates or set SSL_CERT_FILE"
    )]
    NoRoots {
        /// What the operating system said.
        reason: String,
    },
}

/// Why a request got no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Nothing, or not everything, arrived in time.
    #[error("no complete answer within {} s", .0.as_secs())]
    Deadline(Duration),
    /// The name resolves to an address that is not public.
    #[error("{host} resolves to {address}, which is not public: set allow_private on the connection if that is meant")]
    Blocked {
        /// The configured name.
        host: String,
        /// What it resolved to.
        address: IpAddr,
    },
    /// The answer is larger than [`MAX_BODY`].
    #[error("the answer is larger than {MAX_BODY} bytes")]
    TooLarge,
    /// Resolving, connecting, TLS or the transport failed.
    #[error("{0}")]
    Transport(String),
}

/// Whether an address is one that anybody on the Internet could be meant by. Everything with a
/// special purpose is refused: loopback, private, link-local (with every cloud's metadata service),
/// carrier-grade NAT, unique-local, multicast, documentation, reserved, and IPv4 inside IPv6.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        || address.is_documentation()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (18..20).contains(&b)))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    // Only 2000::/3 is global unicast; that leaves out ::1, ::, v4-mapped and v4-compatible
    // addresses, NAT64 (64:ff9b::/96), fc00::/7, fe80::/10 and ff00::/8 in one comparison.
    (segments[0] & 0xe000) == 0x2000
        && !(segments[0] == 0x2001 && segments[1] < 0x0200) // protocol assignments, Teredo, ORCHID
        && !(segments[0] == 0x2001 && segments[1] == 0x0db8) // documentation
        && segments[0] != 0x2002 // 6to4 carries an IPv4 address of the sender's choice
        && !(segments[0] == 0x3fff && segments[1] < 0x1000) // documentation
}

/// Resolves names with the system's resolver and lets only checked addresses through.
#[derive(Debug, Clone)]
struct CheckedResolver {
    allow_private: bool,
}

type Resolving = Pin<Box<dyn Future<Output = Result<std::vec::IntoIter<SocketAddr>, SendError>> + Send>>;

impl Service<Name> for CheckedResolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = SendError;
    type Future = Resolving;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found = tokio::net::lookup_host((host.as_str(), 0)).await;
            let addresses: Vec<SocketAddr> = found
                .map_err(|error| SendError::Transport(format!("{host} cannot be resolved: {error}")))?
                .collect();
            check(&host, &addresses, allow_private)?;
            Ok(addresses.into_iter())
        })
    }
}

/// One address that is not public refuses the whole name: a name that mixes them is an attack.
fn check(host: &str, addresses: &[SocketAddr], allow_private: bool) -> Result<(), SendError> {
    match addresses.iter().map(SocketAddr::ip).find(|ip| !is_public(*ip)) {
        Some(address) if !allow_private => Err(SendError::Blocked {
            host: host.to_owned(),
            address,
        }),
        _ => Ok(()),
    }
}

/// A client for one configured address. Cheap to clone.
#[derive(Clone)]
pub struct Outgoing {
    client: Client<HttpsConnector<HttpConnector<CheckedResolver>>, Full<Bytes>>,
    base: Uri,
    deadline: Duration,
    refused: Arc<Notify>,
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing")
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

impl Outgoing {
    /// A client for this address.
    ///
    /// # Errors
    /// When the address may not be used as configured, or this host knows no certification
    /// authorities.
    pub fn new(url: &str, allow_private: bool) -> Result<Self, BadTarget> {
        let trimmed = url.trim_end_matches('/');
        let not_a_url = || BadTarget::NotAUrl { url: url.to_owned() };
        let base: Uri = trimmed.parse().map_err(|_| not_a_url())?;
        let authority = base.authority().ok_or_else(not_a_url)?;
        if authority.as_str().contains('@') || base.query().is_some() {
            return Err(not_a_url());
        }
        let literal = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<IpAddr>();
        if let Ok(address) = literal
            && !allow_private
            && !is_public(address)
        {
            return Err(BadTarget::Private {
                url: url.to_owned(),
                address,
            });
        }
        let https = match base.scheme_str() {
            Some("https") => true,
            Some("http") if allow_private => false,
            Some("http") => return Err(BadTarget::NotHttps { url: url.to_owned() }),
            _ => return Err(not_a_url()),
        };
        let mut connector = HttpConnector::new_with_resolver(CheckedResolver { allow_private });
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_DEADLINE));
        let connector = connector::tls(connector, https).map_err(|error| BadTarget::NoRoots {
            reason: error.to_string(),
        })?;
        // A kept connection that the forge has closed makes the first request after a pause fail;
        // hyper repeats only those that were never written.
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(20))
            .build(connector);
        Ok(Self {
            client,
            base,
            deadline: DEADLINE,
            refused: Arc::default(),
        })
    }

    /// The same client with another overall deadline.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The same client, which notifies when an answer was 401: the credential may be wrong, whatever was asked.
    #[must_use]
    pub fn notifying_when_refused(mut self, refused: Arc<Notify>) -> Self {
        self.refused = refused;
        self
    }

    /// The configured address.
    #[must_use]
    pub fn base(&self) -> &Uri {
        &self.base
    }

    /// Sends one request and reads its whole answer. The request's address must lie at the
    /// configured host.
    ///
    /// # Errors
    /// When no complete answer arrived; a status of 400 and more is an answer.
    pub async fn send(&self, mut request: Request<Full<Bytes>>) -> Result<Response<Bytes>, SendError> {
        if (request.uri().scheme(), request.uri().authority()) != (self.base.scheme(), self.base.authority()) {
            return Err(SendError::Transport(
                "the request names another host than the configuration".to_owned(),
            ));
        }
        request.headers_mut().insert(
            header::USER_AGENT,
            HeaderValue::from_static(concat!("helios-ci/", env!("CARGO_PKG_VERSION"))),
        );
        let exchange = async {
            let response = self.client.request(request).await.map_err(|error| cause(&error))?;
            let (parts, mut body) = response.into_parts();
            if parts.status == StatusCode::UNAUTHORIZED {
                self.refused.notify_one();
            }
            let mut bytes = BytesMut::new();
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| cause(&error))?;
                if let Some(data) = frame.data_ref() {
                    if bytes.len() + data.len() > MAX_BODY {
                        return Err(SendError::TooLarge);
                    }
                    bytes.extend_from_slice(data);
                }
            }
            Ok(Response::from_parts(parts, bytes.freeze()))
        };
        match tokio::time::timeout(self.deadline, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(SendError::Deadline(self.deadline)),
        }
    }
}

/// Finds our own reason in an error's chain, else the text of the innermost cause.
pub(super) fn cause(error: &(dyn std::error::Error + 'static)) -> SendError {
    let mut at = error;
    loop {
        if let Some(ours) = at.downcast_ref::<SendError>() {
            return ours.clone();
        }
        match at.source() {
            Some(next) => at = next,
            None => return SendError::Transport(one_line(&at.to_string(), 200)),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, routing::get};
    use proptest::prelude::*;

    use super::*;

    /// For a server that does not answer.
    const SHORT: Duration = Duration::from_millis(50);

    async fn serve(router: Router) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        format!("http://{address}")
    }

    fn request(base: &str, path: &str) -> Request<Full<Bytes>> {
        Request::get(format!("{base}{path}")).body(Full::default()).unwrap()
    }

    #[test]
    fn special_addresses_are_not_public() {
        for text in [
            "127.0.0.1",
            "127.9.9.9",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "100.127.255.255",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "192.0.0.192",
            "198.18.0.1",
            "240.0.0.1",
            "::1",
            "::",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::7f00:1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
        ] {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
        for text in [
            "8.8.8.8",
            "140.82.121.4",
            "100.128.0.1",
            "172.32.0.1",
            "2606:4700::1111",
            "2a01:4f8::1",
        ] {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_ipv4_address_inside_ipv6_is_never_public(octets: [u8; 4]) {
            prop_assert!(!is_public(IpAddr::V6(Ipv4Addr::from(octets).to_ipv6_mapped())));
        }
    }

    #[test]
    fn targets_that_may_not_be_used_are_refused_at_start() {
        let new = |url: &str| Outgoing::new(url, false).map(|_| ()).unwrap_err();
        assert!(matches!(new("http://forge.example"), BadTarget::NotHttps { .. }));
        assert!(matches!(new("https://169.254.169.254"), BadTarget::Private { .. }));
        assert!(matches!(new("https://[::1]:3000"), BadTarget::Private { .. }));
        for url in [
            "forge.example",
            "ftp://forge.example",
            "https://user:pw@forge.example",
            "",
            "https://",
        ] {
            assert!(matches!(new(url), BadTarget::NotAUrl { .. }), "{url}");
        }
    }

    #[tokio::test]
    async fn a_name_that_resolves_to_a_private_address_is_refused_by_the_connector_itself() {
        let mut resolver = CheckedResolver { allow_private: false };
        let refused = resolver.call("localhost".parse().unwrap()).await.unwrap_err();
        assert!(
            matches!(refused, SendError::Blocked { ref host, .. } if host == "localhost"),
            "{refused}"
        );
        let mut resolver = CheckedResolver { allow_private: true };
        assert!(resolver.call("localhost".parse().unwrap()).await.unwrap().count() > 0);
        let mixed = ["8.8.8.8:0".parse().unwrap(), "10.0.0.1:0".parse().unwrap()];
        assert!(check("mixed.example", &mixed, false).is_err());
    }

    #[tokio::test]
    async fn redirects_are_answers_and_not_followed() {
        let base = serve(Router::new().route(
            "/moved",
            get(|| async {
                (
                    http::StatusCode::FOUND,
                    [(header::LOCATION, "http://169.254.169.254/latest")],
                    "",
                )
            }),
        ))
        .await;
        let answer = Outgoing::new(&base, true)
            .unwrap()
            .send(request(&base, "/moved"))
            .await
            .unwrap();
        assert_eq!(answer.status(), 302);
    }

    #[tokio::test]
    async fn another_host_than_the_configured_one_cannot_be_asked() {
        let base = serve(Router::new()).await;
        let refused = Outgoing::new(&base, true)
            .unwrap()
            .send(request("http://127.0.0.2:1", "/"))
            .await;
        assert!(matches!(refused, Err(SendError::Transport(_))));
    }

    #[tokio::test]
    async fn a_silent_server_ends_at_the_deadline_and_a_flood_at_the_limit() {
        let base = serve(
            Router::new()
                .route("/silent", get(std::future::pending::<()>))
                .route("/flood", get(|| async { vec![b'x'; MAX_BODY + 1] }))
                .route("/full", get(|| async { vec![b'x'; MAX_BODY] })),
        )
        .await;
        let client = Outgoing::new(&base, true).unwrap();
        let quick = client.clone().with_deadline(SHORT);
        assert!(matches!(
            quick.send(request(&base, "/silent")).await,
            Err(SendError::Deadline(_))
        ));
        assert_eq!(
            client.send(request(&base, "/flood")).await.unwrap_err(),
            SendError::TooLarge
        );
        assert_eq!(
            client.send(request(&base, "/full")).await.unwrap().body().len(),
            MAX_BODY
        );
    }
}
