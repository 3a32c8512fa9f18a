//! Whose request it is when a reverse proxy stands in front.

use std::{net::IpAddr, sync::Arc};

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

const FORWARDED: HeaderName = HeaderName::from_static("x-forwarded-for");
/// More proxies in a row than this is nonsense, or an attack on our patience.
const HOPS: usize = 16;

/// The proxies that are believed.
#[derive(Debug, Clone, Default)]
pub struct Proxies(Arc<[IpNet]>);

impl Proxies {
    /// These networks.
    #[must_use]
    pub fn new(networks: &[IpNet]) -> Self {
        Self(networks.into())
    }

    /// Whether this address is one of ours.
    #[must_use]
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The client: the peer itself unless it is trusted; else the last address of `X-Forwarded-For` that
    /// is not trusted in turn. Each proxy appends the address it saw, so what stands left of the first
    /// stranger was written by the stranger and is not read.
    #[must_use]
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        if !self.trusts(client) {
            return client;
        }
        let values: Vec<&str> = headers
            .get_all(FORWARDED)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .collect();
        let hops = values.iter().rev().flat_map(|value| value.rsplit(','));
        for hop in hops.take(HOPS) {
            let Some(address) = address(hop) else { return client };
            client = address;
            if !self.trusts(client) {
                return client;
            }
        }
        client
    }
}

/// An address as proxies write it: alone, with a port, in brackets.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.split(']').next());
    let alone = bracketed.unwrap_or(text);
    let found: Option<IpAddr> = alone.parse().ok();
    found
        .or_else(|| {
            text.parse::<std::net::SocketAddr>()
                .ok()
                .map(|with_port| with_port.ip())
        })
        .map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn proxies() -> Proxies {
        Proxies::new(&[
            "127.0.0.1/32".parse().unwrap(),
            "10.0.0.0/8".parse().unwrap(),
            "fd00::/8".parse().unwrap(),
        ])
    }

    fn client(peer: &str, forwarded: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED, value.parse().unwrap());
        }
        proxies().client(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn only_what_a_trusted_proxy_appended_counts() {
        // A stranger may write what it likes.
        assert_eq!(client("203.0.113.9", &["1.2.3.4"]), "203.0.113.9");
        assert_eq!(client("127.0.0.1", &["1.2.3.4"]), "1.2.3.4");
        assert_eq!(client("127.0.0.1", &["6.6.6.6, 1.2.3.4"]), "1.2.3.4");
        assert_eq!(client("127.0.0.1", &["6.6.6.6", "1.2.3.4, 10.1.1.1"]), "1.2.3.4");
        assert_eq!(client("::ffff:127.0.0.1", &["[2001:db8::1]:4711"]), "2001:db8::1");
        assert_eq!(client("fd00::1", &["1.2.3.4:80"]), "1.2.3.4");
        // Nothing usable: the last one that is known.
        assert_eq!(client("127.0.0.1", &[]), "127.0.0.1");
        assert_eq!(client("127.0.0.1", &["unknown"]), "127.0.0.1");
        assert_eq!(client("127.0.0.1", &["1.2.3.4, unknown, 10.2.2.2"]), "10.2.2.2");
        assert_eq!(
            Proxies::default()
                .client("127.0.0.1".parse().unwrap(), &HeaderMap::new())
                .to_string(),
            "127.0.0.1"
        );
    }

    proptest! {
        /// Whatever a stranger writes before, the address that our proxy appended is the client.
        #[test]
        fn what_stands_before_changes_nothing(before in "[ -~]{0,200}") {
            let value = format!("{before}, 198.51.100.7");
            if let Ok(value) = value.parse::<http::HeaderValue>() {
                let headers = HeaderMap::from_iter([(FORWARDED, value)]);
                prop_assert_eq!(proxies().client("10.0.0.1".parse().unwrap(), &headers).to_string(), "198.51.100.7");
            }
        }
    }
}
