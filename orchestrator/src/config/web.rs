//! What the web listener needs beside its address: `public_url`, `tls`, `trusted_proxies`.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::{
    Tls,
    connections::web_address,
    read::{Map, Reader, shown},
};

pub(super) fn public_url(reader: &mut Reader, top: &Map<'_>, listen: SocketAddr, tls: bool) -> String {
    let scheme = if tls { "https" } else { "http" };
    match top.get("public_url") {
        Some(node) => web_address(reader, node, "public_url").unwrap_or_default(),
        None if listen.ip().is_loopback() => format!("{scheme}://{listen}"),
        None => {
            let help = "write the address people and forges use, such as `public_url: https://ci.example.org`";
            reader.problem(top.span, "public_url is missing", help.to_owned());
            String::new()
        }
    }
}

pub(super) fn tls(reader: &mut Reader, top: &Map<'_>) -> Option<Tls> {
    let map = reader.map(top.get("tls")?, "tls", &["certificate", "key"]);
    for key in ["certificate", "key"] {
        if map.get(key).is_none() {
            reader.problem(
                map.span,
                format!("tls.{key} is missing"),
                "tls needs certificate and key".to_owned(),
            );
        }
    }
    let certificate = reader.path(map.get("certificate"), "tls.certificate");
    let key = reader.path(map.get("key"), "tls.key");
    Some(Tls {
        certificate: certificate?,
        key: key?,
    })
}

pub(super) fn trusted_proxies(reader: &mut Reader, top: &Map<'_>) -> Vec<IpNet> {
    let nodes = reader.list(top.get("trusted_proxies"), "trusted_proxies");
    let mut proxies = Vec::new();
    for node in nodes {
        let Some(text) = reader.text(node, "trusted_proxies") else {
            continue;
        };
        // ipnet reads `010.0.0.0/8` as 10/8, where others see octal digits.
        let exact = |network: &IpNet| network.addr().is_ipv6() || network.to_string() == text;
        let found = text
            .parse()
            .ok()
            .filter(exact)
            .or_else(|| Some(IpNet::from(text.parse::<IpAddr>().ok()?)));
        match found {
            Some(network) if network.prefix_len() > 0 => proxies.push(network),
            Some(_) => reader.problem(
                node.span,
                format!("trusted_proxies: `{}` would believe everybody", shown(text)),
                "name the proxy's own address".to_owned(),
            ),
            None => reader.problem(
                node.span,
                format!("trusted_proxies: `{}` is no address and no network", shown(text)),
                "write 127.0.0.1, or 10.0.0.0/8".to_owned(),
            ),
        }
    }
    proxies
}
