//! The effective configuration as YAML, without secrets.

use std::{collections::BTreeMap, path::Path};

use serde_yaml_ng::{Mapping, Value};

use super::{Backend, Capacity, Config, Connection, ConnectionKind, Database, Image, Zone};
use crate::model::size::Size;

impl Config {
    /// Everything effective, defaults included, as YAML; `[secret]` stands for each secret. What was
    /// loaded from a file can also show the references: [`super::Loaded::to_shown_yaml`].
    #[must_use]
    pub fn to_shown_yaml(&self) -> String {
        yaml(self, &BTreeMap::new())
    }
}

/// As it was written.
fn number_or_text(text: &str) -> Value {
    text.parse::<u64>().map_or_else(|_| text.into(), Into::into)
}

/// A mapping from keys and values, in their order, without those that are not set.
pub(super) fn map<K: ToString>(entries: impl IntoIterator<Item = (K, Option<Value>)>) -> Value {
    let set = entries
        .into_iter()
        .filter_map(|(key, value)| Some((Value::from(key.to_string()), value?)));
    Value::Mapping(Mapping::from_iter(set))
}

fn path(path: &Path) -> Option<Value> {
    Some(path.display().to_string().into())
}

fn words(items: impl IntoIterator<Item = impl ToString>) -> Option<Value> {
    Some(Value::Sequence(
        items.into_iter().map(|item| item.to_string().into()).collect(),
    ))
}

pub(super) fn yaml(config: &Config, references: &BTreeMap<String, String>) -> String {
    let secret = |path: &str| {
        let shown = references.get(path).map_or("[secret]", String::as_str);
        Some(Value::from(shown))
    };
    let database = match &config.database {
        Database::Sqlite(file) => map([("sqlite", path(file))]),
        Database::Postgres(_) => map([("postgres", secret("database.postgres"))]),
    };
    let whole = map([
        ("node", Some(config.node.as_str().into())),
        ("data_dir", path(&config.data_dir)),
        ("listen", Some(config.listen.to_string().into())),
        ("metrics_listen", config.metrics_listen.map(|a| a.to_string().into())),
        ("public_url", Some(config.public_url.as_str().into())),
        (
            "tls",
            config
                .tls
                .as_ref()
                .map(|tls| map([("certificate", path(&tls.certificate)), ("key", path(&tls.key))])),
        ),
        (
            "trusted_proxies",
            Some(Value::from(
                config
                    .trusted_proxies
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>(),
            )),
        ),
        ("database", Some(database)),
        (
            "connections",
            Some(map(config.connections.iter().map(|(id, c)| {
                (id, Some(connection(c, &format!("connections.{id}"), &secret)))
            }))),
        ),
        (
            "backend",
            Some(
                match config.backend {
                    Backend::Qemu => "qemu",
                    Backend::Process => "process",
                    Backend::Zone => "zone",
                }
                .into(),
            ),
        ),
        (
            "machined",
            config.machined.as_ref().map(|machined| {
                map([
                    ("socket", path(&machined.socket)),
                    ("user", machined.user.as_deref().map(Value::from)),
                ])
            }),
        ),
        ("zone", Some(zone(&config.zone))),
        ("agent", path(&config.agent)),
        (
            "images",
            Some(map(config.images.iter().map(|(label, i)| (label, Some(image(i)))))),
        ),
        (
            "aliases",
            Some(map(config
                .aliases
                .iter()
                .map(|(a, target)| (a, Some(target.as_str().into()))))),
        ),
        (
            "default_label",
            config.default_label.as_ref().map(|label| label.as_str().into()),
        ),
        (
            "sizes",
            Some(map(config.sizes.iter().map(|(name, s)| (name, Some(size(s)))))),
        ),
        ("capacity", Some(capacity(&config.capacity))),
        ("limits", Some(config.limits.shown())),
        ("keep", Some(config.keep.shown())),
        ("retention", Some(config.retention.shown())),
    ]);
    // Plain mappings with text keys can always be written.
    serde_yaml_ng::to_string(&whole).unwrap_or_default()
}

fn zone(zone: &Zone) -> Value {
    map([
        ("dataset", Some(zone.dataset.to_string().into())),
        ("path", Some(zone.path.to_string().into())),
        ("network", Some(zone.network.to_string().into())),
        ("port", Some(zone.port.into())),
        ("bandwidth", Some(zone.bandwidth.to_string().into())),
        ("quota_gib", zone.quota_gib.map(Value::from)),
        ("max_vcpus", Some(zone.max_vcpus.into())),
    ])
}

fn capacity(capacity: &Capacity) -> Value {
    let labels = capacity
        .labels
        .iter()
        .map(|(label, most)| (label, Some((*most).into())));
    map([
        ("machines", Some(capacity.machines.into())),
        ("cpus", capacity.cpus.map(Value::from)),
        ("memory_mib", capacity.memory_mib.map(Value::from)),
        ("labels", Some(map(labels))),
    ])
}

fn connection(connection: &Connection, base: &str, secret: &dyn Fn(&str) -> Option<Value>) -> Value {
    let secrets = connection.webhook_secrets.iter().enumerate().map(|(index, one)| {
        let plain = format!("{base}.webhook_secrets.{index}");
        match &one.repository_id {
            Some(id) => map([
                ("secret", secret(&format!("{plain}.secret"))),
                ("repository_id", Some(number_or_text(id.as_str()))),
            ]),
            // Written without a repository, the reference may stand alone or under `secret`.
            None => match secret(&format!("{plain}.secret")) {
                Some(shown) if shown != "[secret]" => shown,
                _ => secret(&plain).unwrap_or_default(),
            },
        }
    });
    let secrets = Value::Sequence(secrets.collect());
    let mut entries = Vec::new();
    match &connection.kind {
        ConnectionKind::Forgejo { .. } => {
            entries.push(("kind", Some("forgejo".into())));
            entries.push(("url", Some(connection.url.as_str().into())));
            entries.push(("token", secret(&format!("{base}.token"))));
        }
        ConnectionKind::Github { api_url, app_id, .. } => {
            entries.push(("kind", Some("github".into())));
            entries.push(("url", Some(connection.url.as_str().into())));
            entries.push(("api_url", Some(api_url.as_str().into())));
            entries.push(("app_id", Some((*app_id).into())));
            entries.push(("private_key", secret(&format!("{base}.private_key"))));
        }
    }
    entries.push(("webhook_secrets", Some(secrets)));
    entries.push(("repositories", words(&connection.repositories)));
    entries.push(("public", words(&connection.public)));
    entries.push(("allow_private", Some(connection.allow_private.into())));
    map(entries)
}

fn image(image: &Image) -> Value {
    map([
        ("disk", image.disk.as_deref().and_then(path)),
        ("kind", Some(image.kind.as_str().into())),
        (
            "attributes",
            (!image.attributes.is_empty()).then(|| {
                map(image
                    .attributes
                    .iter()
                    .map(|(name, value)| (name, Some(value.to_string().into()))))
            }),
        ),
        ("sha256", image.sha256.as_deref().map(Value::from)),
        ("kernel", image.kernel.as_deref().and_then(path)),
        ("initrd", image.initrd.as_deref().and_then(path)),
        ("cmdline", image.cmdline.as_deref().map(Value::from)),
        ("size", Some(size(&image.size))),
        ("boot_timeout_s", Some(image.boot_timeout_s.into())),
    ])
}

fn size(size: &Size) -> Value {
    map([
        ("cpus", Some(size.cpus.into())),
        ("memory_mib", Some(size.memory_mib.into())),
        ("disk_gib", size.disk_gib.map(Value::from)),
    ])
}
