//! The `connections` section.

use std::collections::BTreeMap;

use super::{
    Connection, ConnectionKind, WebhookSecret,
    read::{Map, Reader, shown},
};
use crate::{
    model::names::{ConnectionId, RepoPath},
    secret::Secret,
    yaml::{Node, Value},
};

const COMMON: [&str; 6] = [
    "kind",
    "url",
    "webhook_secrets",
    "repositories",
    "public",
    "allow_private",
];

pub(super) fn read(reader: &mut Reader, top: &Map<'_>) -> BTreeMap<ConnectionId, Connection> {
    let mut connections = BTreeMap::new();
    let entries = top
        .get("connections")
        .map(|node| reader.entries(node, "connections"))
        .unwrap_or_default();
    for (key, node) in entries {
        if let Some(id) = reader.key::<ConnectionId>(key)
            && let Some(connection) = connection(reader, node, &format!("connections.{id}"))
        {
            connections.insert(id, connection);
        }
    }
    connections
}

/// `None` only together with a problem.
fn connection(reader: &mut Reader, node: &Node, path: &str) -> Option<Connection> {
    // Which keys are possible depends on the kind, so that is looked up first.
    let kind = node.get("kind");
    let github = match kind.and_then(Node::scalar).map(|scalar| scalar.written.as_str()) {
        Some("forgejo") => false,
        Some("github") => true,
        _ => {
            let span = kind.map_or(node.span, |kind| kind.span);
            let help = "write `kind: forgejo` (Gitea too) or `kind: github`";
            reader.problem(span, format!("{path}.kind must be forgejo or github"), help.to_owned());
            return None;
        }
    };
    let mut known = COMMON.to_vec();
    known.extend(if github {
        &["api_url", "app_id", "private_key"][..]
    } else {
        &["token"]
    });
    let map = reader.map(node, path, &known);
    let allow_private = reader
        .truth(map.get("allow_private"), &map.path("allow_private"))
        .unwrap_or(false);
    let mut address = |key: &str| {
        map.get(key)
            .map(|node| forge_address(reader, node, &map.path(key), allow_private))
    };
    let (url, api_url) = (address("url"), address("api_url"));
    let url = match url {
        Some(url) => url,
        None if github => Some("https://github.com".to_owned()),
        None => {
            let help = "write the forge's address, such as `url: https://codeberg.org`";
            reader.problem(map.span, format!("{path}.url is missing"), help.to_owned());
            None
        }
    };
    let webhook_secrets = webhook_secrets(reader, &map, path);
    let repositories = paths(reader, &map, "repositories");
    let public = paths(reader, &map, "public");
    for (outside, node) in public
        .iter()
        .filter(|(p, _)| !repositories.is_empty() && repositories.iter().all(|(r, _)| r != p))
    {
        reader.problem(
            node.span,
            format!("{path}.public names {outside}, which {path}.repositories leaves out"),
            None,
        );
    }
    if repositories.is_empty() {
        let message =
            format!("{path} serves every repository that knows its webhook secret; `repositories` would name them");
        reader.warning(map.span, message);
    }
    let kind = if github {
        let app = app(reader, &map, path);
        let api_url = match api_url {
            Some(given) => given?,
            None if url.as_deref() == Some("https://github.com") => "https://api.github.com".to_owned(),
            None => format!("{}/api/v3", url.clone()?),
        };
        let (app_id, private_key) = app?;
        ConnectionKind::Github {
            api_url,
            app_id,
            private_key,
        }
    } else {
        let token = reader.required_secret(&map, "token");
        ConnectionKind::Forgejo {
            token: token.filter(|token| header_safe(reader, &map, token))?,
        }
    };
    Some(Connection {
        kind,
        url: url?,
        webhook_secrets,
        repositories: repositories.into_iter().map(|(path, _)| path).collect(),
        public: public.into_iter().map(|(path, _)| path).collect(),
        allow_private,
    })
}

/// GitHub's App: its number and its key. `None` only together with a problem.
fn app(reader: &mut Reader, map: &Map<'_>, path: &str) -> Option<(u64, Secret)> {
    let private_key = reader.required_secret(map, "private_key");
    let private_key = private_key.filter(|key| pem(reader, map, key));
    let app_id = reader.number(map.get("app_id"), &map.path("app_id"), 1..=u64::MAX);
    if map.get("app_id").is_none() {
        reader.problem(
            map.span,
            format!("{path}.app_id is missing"),
            "its number is on the App's page".to_owned(),
        );
    }
    Some((app_id?, private_key?))
}

/// The token travels in a header, and an HTTP client may not survive a line break in it.
fn header_safe(reader: &mut Reader, map: &Map<'_>, token: &Secret) -> bool {
    let safe = token.expose().bytes().all(|b| b.is_ascii_graphic());
    if !safe {
        let span = map.get("token").map_or(map.span, |node| node.span);
        reader.problem(
            span,
            format!("{}: a token has one line and no spaces", map.path("token")),
            None,
        );
    }
    safe
}

fn pem(reader: &mut Reader, map: &Map<'_>, key: &Secret) -> bool {
    let fits = key.expose().contains("-----BEGIN") && key.expose().contains("PRIVATE KEY-----");
    if !fits {
        let span = map.get("private_key").map_or(map.span, |node| node.span);
        let help = "download it from the App's page: the file begins with `-----BEGIN RSA PRIVATE KEY-----`";
        reader.problem(
            span,
            format!("{} is no PEM private key", map.path("private_key")),
            help.to_owned(),
        );
    }
    fits
}

fn webhook_secrets(reader: &mut Reader, map: &Map<'_>, path: &str) -> Vec<WebhookSecret> {
    let list_path = map.path("webhook_secrets");
    let mut secrets = Vec::new();
    let items = reader.list(map.get("webhook_secrets"), &list_path);
    for (index, item) in items.iter().enumerate() {
        let item_path = format!("{list_path}.{index}");
        if !matches!(item.value, Value::Mapping(_)) {
            if let Some(secret) = reader.secret(item, &item_path) {
                secrets.push(WebhookSecret {
                    secret,
                    repository_id: None,
                });
            }
            continue;
        }
        let entry = reader.map(item, &item_path, &["secret", "repository_id"]);
        let most = i64::MAX.unsigned_abs();
        let repository_id = reader.number(entry.get("repository_id"), &entry.path("repository_id"), 1..=most);
        if let Some(secret) = reader.required_secret(&entry, "secret") {
            secrets.push(WebhookSecret {
                secret,
                // Both kinds number their repositories.
                repository_id: repository_id.map(Into::into),
            });
        }
    }
    if items.is_empty() {
        let span = map.get("webhook_secrets").map_or(map.span, |node| node.span);
        let help = "without one no webhook can be trusted; write `webhook_secrets: [file:/absolute/path]`";
        reader.problem(span, format!("{path} has no webhook secret"), help.to_owned());
    }
    secrets
}

fn paths<'a>(reader: &mut Reader, map: &Map<'a>, key: &str) -> Vec<(RepoPath, &'a Node)> {
    let path = map.path(key);
    let items = reader.list(map.get(key), &path);
    items
        .iter()
        .filter_map(|item| Some((reader.parsed(Some(item), &path)?, item)))
        .collect()
}

/// A forge's address: plain HTTP carries tokens in the clear and needs a word.
fn forge_address(reader: &mut Reader, node: &Node, path: &str, allow_private: bool) -> Option<String> {
    let address = web_address(reader, node, path)?;
    if address.starts_with("http://") && !allow_private {
        let help = "write https, or `allow_private: true` for a forge on this host or network";
        reader.problem(
            node.span,
            format!("{path} `{}` would carry tokens in the clear", shown(&address)),
            help.to_owned(),
        );
        return None;
    }
    Some(address)
}

/// An absolute `http` or `https` address without credentials, query and trailing slash.
pub(super) fn web_address(reader: &mut Reader, node: &Node, path: &str) -> Option<String> {
    let text = reader.text(node, path)?.trim_end_matches('/');
    let uri = text.parse::<http::Uri>().ok();
    let scheme = uri.as_ref().and_then(|u| u.scheme_str()).unwrap_or_default();
    let authority = uri
        .as_ref()
        .and_then(|u| u.authority())
        .map(|a| a.as_str())
        .unwrap_or_default();
    if authority.contains('@') {
        // Not repeated: it holds a password.
        reader.problem(node.span, format!("{path} must not hold a user or password"), None);
        return None;
    }
    let plain = uri
        .as_ref()
        .is_some_and(|u| u.query().is_none() && u.host().is_some_and(|h| !h.is_empty()));
    let fits = matches!(scheme, "http" | "https") && plain && !text.contains('#');
    if !fits {
        let message = format!("{path} must be an absolute http or https address without `?` and `#`");
        reader.problem(node.span, message, "such as https://ci.example.org".to_owned());
        return None;
    }
    Some(text.to_owned())
}
