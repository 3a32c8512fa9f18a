//! The configuration that `helios-ci config init` writes, made from the answers to its questions. Only what was asked
//! stands in it; everything else keeps its default.

use std::{
    fmt::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use super::{GuestKind, Tls};
use crate::model::names::{ConnectionId, Label, NodeName, RepoPath};

/// What was answered. Every path is absolute UTF-8.
#[derive(Debug, Clone)]
pub struct Answers {
    /// None: the host's name.
    pub node: Option<NodeName>,
    /// Everything that is stored lies below it.
    pub data_dir: PathBuf,
    /// The web listener.
    pub listen: SocketAddr,
    /// What people and forges call, without a trailing slash.
    pub public_url: String,
    /// For a listener that others reach.
    pub tls: Option<Tls>,
    /// The connection's name.
    pub connection: ConnectionId,
    /// What it speaks.
    pub forge: ForgeAnswer,
    /// The forge's address.
    pub url: String,
    /// The forge may have a private or loopback address, and plain HTTP.
    pub allow_private: bool,
    /// What is served; never empty.
    pub repositories: Vec<RepoPath>,
    /// The agent's binary; none where it lies beside this program.
    pub agent: Option<PathBuf>,
    /// The image's label, which is the default label.
    pub label: Label,
    /// The image, and with it the back end.
    pub image: ImageAnswer,
    /// Other names of the image.
    pub aliases: Vec<Label>,
}

/// What the forge speaks, with what is no secret of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForgeAnswer {
    /// Forgejo or Gitea, with a bot's token.
    Forgejo,
    /// GitHub, with an App's private key.
    Github {
        /// The App's number.
        app_id: u64,
    },
}

/// Where the golden disk is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageAnswer {
    /// A file, for QEMU.
    File {
        /// The qcow2 image.
        disk: PathBuf,
        /// Its digest, where it is known.
        sha256: Option<String>,
        /// For direct boot.
        kernel: Option<PathBuf>,
        /// Only with a kernel.
        initrd: Option<PathBuf>,
    },
    /// A volume that `image import` makes, for zones.
    Volume {
        /// What it holds.
        kind: GuestKind,
    },
}

impl Answers {
    /// The name of the file with the token or the App's key, in the folder of secrets.
    #[must_use]
    pub fn credential_file(&self) -> String {
        match self.forge {
            ForgeAnswer::Forgejo => format!("{}-token", self.connection),
            ForgeAnswer::Github { .. } => format!("{}-app.pem", self.connection),
        }
    }

    /// The name of the file with the webhook's secret, in the same folder.
    #[must_use]
    pub fn webhook_file(&self) -> String {
        format!("{}-webhook", self.connection)
    }

    /// Where the forge's webhooks must go.
    #[must_use]
    pub fn webhook_url(&self) -> String {
        format!("{}/hooks/{}", self.public_url.trim_end_matches('/'), self.connection)
    }

    /// The configuration file, whose secrets lie in this folder.
    #[must_use]
    pub fn to_yaml(&self, secrets: &Path) -> String {
        let mut lines = Lines(
            "# Written by `helios-ci config init`. `helios-ci config check` says what is wrong with it, `helios-ci config\n\
             # show` what is in effect; config.example.yaml has every key.\n"
                .to_owned(),
        );
        if let Some(node) = &self.node {
            lines.add(0, "node", &scalar(node.as_str()));
        }
        lines.add(0, "data_dir", &path(&self.data_dir));
        lines.add(0, "listen", &scalar(&self.listen.to_string()));
        lines.add(0, "public_url", &scalar(&self.public_url));
        if let Some(tls) = &self.tls {
            lines.add(0, "tls", "");
            lines.add(2, "certificate", &path(&tls.certificate));
            lines.add(2, "key", &path(&tls.key));
        }
        let backend = match self.image {
            ImageAnswer::File { .. } => "qemu",
            ImageAnswer::Volume { .. } => "zone",
        };
        lines.add(0, "backend", backend);
        if let Some(agent) = &self.agent {
            lines.add(0, "agent", &path(agent));
        }
        self.add_connection(&mut lines, secrets);
        self.add_image(&mut lines);
        lines.0
    }

    fn add_connection(&self, lines: &mut Lines, secrets: &Path) {
        let secret = |name: &str| scalar(&format!("file:{}", secrets.join(name).display()));
        lines.add(0, "connections", "");
        lines.add(2, &scalar(self.connection.as_str()), "");
        let credential = secret(&self.credential_file());
        match self.forge {
            ForgeAnswer::Forgejo => {
                lines.add(4, "kind", "forgejo");
                lines.add(4, "token", &credential);
            }
            ForgeAnswer::Github { app_id } => {
                lines.add(4, "kind", "github");
                lines.add(4, "app_id", &app_id.to_string());
                lines.add(4, "private_key", &credential);
            }
        }
        lines.add(4, "url", &scalar(&self.url));
        if self.allow_private {
            lines.add(4, "allow_private", "true");
        }
        lines.add(4, "webhook_secrets", &format!("[{}]", secret(&self.webhook_file())));
        let repositories: Vec<String> = self.repositories.iter().map(|path| scalar(path.as_str())).collect();
        lines.add(4, "repositories", &format!("[{}]", repositories.join(", ")));
    }

    fn add_image(&self, lines: &mut Lines) {
        lines.add(0, "images", "");
        lines.add(2, &scalar(self.label.as_str()), "");
        match &self.image {
            ImageAnswer::File {
                disk,
                sha256,
                kernel,
                initrd,
            } => {
                lines.add(4, "disk", &path(disk));
                if let Some(sha256) = sha256 {
                    lines.add(4, "sha256", &scalar(sha256));
                }
                for (key, file) in [("kernel", kernel), ("initrd", initrd)] {
                    if let Some(file) = file {
                        lines.add(4, key, &path(file));
                    }
                }
            }
            ImageAnswer::Volume { kind } => lines.add(4, "kind", kind.as_str()),
        }
        if !self.aliases.is_empty() {
            lines.add(0, "aliases", "");
            for alias in &self.aliases {
                lines.add(2, &scalar(alias.as_str()), &scalar(self.label.as_str()));
            }
        }
        lines.add(0, "default_label", &scalar(self.label.as_str()));
    }
}

/// The text while it grows.
struct Lines(String);

impl Lines {
    /// A key with its value, or, without one, the head of what is indented below it.
    fn add(&mut self, indent: usize, key: &str, value: &str) {
        let gap = if value.is_empty() { "" } else { " " };
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{:indent$}{key}:{gap}{value}", "");
    }
}

fn path(path: &Path) -> String {
    scalar(&path.display().to_string())
}

/// A scalar that every reader of YAML takes for this text: quoted unless it is evidently a word, a path or an address.
fn scalar(text: &str) -> String {
    let words = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-:".contains(&b))
        && !text.ends_with(':')
        && !words.contains(&text.to_ascii_lowercase().as_str());
    match plain {
        true => text.to_owned(),
        // JSON's strings are YAML's.
        false => serde_json::Value::from(text).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use proptest::prelude::*;

    use super::*;
    use crate::config::{Backend, Config, ConnectionKind, LoadOptions};

    fn parsed<T>(pattern: &'static str) -> impl Strategy<Value = T>
    where
        T: std::str::FromStr<Err: std::fmt::Debug> + std::fmt::Debug,
    {
        pattern.prop_map(|text| text.parse().unwrap())
    }

    /// Words that YAML could take for something else are as likely as any other.
    const LABEL: &str = "null|true|no|1e3|0x10|24\\.04|-?[a-zA-Z0-9][a-zA-Z0-9_.-]{0,12}";

    fn label() -> impl Strategy<Value = Label> {
        LABEL.prop_filter_map("no label", |text| text.parse().ok())
    }

    fn file() -> impl Strategy<Value = PathBuf> {
        "(/[a-zA-Z0-9 äß#:'\"{}\\[\\],&*!|>%@`-]{1,10}){1,3}"
            .prop_filter("blank or `..`", |text| {
                !text
                    .split('/')
                    .skip(1)
                    .any(|part| part.trim().is_empty() || part == "..")
            })
            .prop_map(PathBuf::from)
    }

    fn image() -> impl Strategy<Value = ImageAnswer> {
        let kind = prop_oneof![
            Just(GuestKind::LinuxUefi),
            Just(GuestKind::LinuxBios),
            Just(GuestKind::Illumos)
        ];
        let boot = proptest::option::of((file(), proptest::option::of(file())));
        prop_oneof![
            (file(), proptest::option::of("[0-9a-f]{64}"), boot).prop_map(|(disk, sha256, boot)| {
                let (kernel, initrd) = boot.unzip();
                ImageAnswer::File {
                    disk,
                    sha256,
                    kernel,
                    initrd: initrd.flatten(),
                }
            }),
            kind.prop_map(|kind| ImageAnswer::Volume { kind }),
        ]
    }

    fn forge() -> impl Strategy<Value = (ForgeAnswer, String, bool)> {
        let speaks = prop_oneof![
            Just(ForgeAnswer::Forgejo),
            (1u64..=u64::MAX).prop_map(|app_id| ForgeAnswer::Github { app_id })
        ];
        let address = prop_oneof![
            (
                "https://[a-z0-9]{1,8}\\.example(:[1-9][0-9]{0,3})?(/[a-z]{1,5})?",
                any::<bool>()
            ),
            ("http://(127\\.0\\.0\\.1|\\[::1\\]|forge):3000", Just(true)),
        ];
        (speaks, address).prop_map(|(speaks, (url, private))| (speaks, url, private))
    }

    fn listener() -> impl Strategy<Value = (SocketAddr, String, Option<Tls>)> {
        let tls = (file(), file()).prop_map(|(certificate, key)| Tls { certificate, key });
        prop_oneof![
            (prop_oneof![Just("127.0.0.1:8080"), Just("[::1]:80")], Just(None)),
            (prop_oneof![Just("0.0.0.0:8443"), Just("[::]:8443")], tls.prop_map(Some)),
        ]
        .prop_flat_map(|(listen, tls)| ("https://ci\\.[a-z]{1,8}", Just(listen), Just(tls)))
        .prop_map(|(url, listen, tls)| (listen.parse().unwrap(), url, tls))
    }

    prop_compose! {
        fn answers()(
            node in proptest::option::of(parsed("[a-z0-9][a-z0-9.-]{0,10}|null|true")),
            (data_dir, agent) in (file(), proptest::option::of(file())),
            (listen, public_url, tls) in listener(),
            connection in parsed("[a-z0-9][a-z0-9-]{0,20}|null|no|0x1"),
            (forge, url, allow_private) in forge(),
            repositories in proptest::collection::vec(parsed("[a-z0-9_][a-z0-9._-]{0,8}/[a-z0-9_][a-z0-9._-]{0,8}"), 1..4),
            (label, image, others) in (label(), image(), proptest::collection::btree_set(label(), 0..3)),
        ) -> Answers {
            let aliases = others.into_iter().filter(|other| *other != label).collect();
            Answers {
                node, data_dir, listen, public_url, tls, connection, forge, url, allow_private, repositories, agent,
                label, image, aliases,
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_was_answered(answers in answers()) {
            let dir = tempfile::tempdir().unwrap();
            let pem = "-----BEGIN RSA PRIVATE KEY-----\nx\n-----END RSA PRIVATE KEY-----\n";
            for name in [answers.credential_file(), answers.webhook_file()] {
                let path = dir.path().join(name);
                std::fs::write(&path, if path.extension().is_some() { pem } else { "s3cret\n" }).unwrap();
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            }
            let text = answers.to_yaml(dir.path());
            let loaded = Config::parse(Path::new("config.yaml"), &text, LoadOptions::default());
            prop_assert!(loaded.is_ok(), "{text}\n{:?}", loaded.unwrap_err().problems());
            let loaded = loaded.unwrap();
            let config = &loaded.config;
            if let Some(node) = &answers.node {
                prop_assert_eq!(&config.node, node);
            }
            prop_assert_eq!((&config.data_dir, config.listen), (&answers.data_dir, answers.listen));
            prop_assert_eq!(&config.public_url, &answers.public_url);
            prop_assert_eq!(config.tls.is_some(), answers.tls.is_some());
            if let Some(agent) = &answers.agent {
                prop_assert_eq!(&config.agent, agent);
            }
            let connection = &config.connections[&answers.connection];
            prop_assert_eq!((&connection.url, connection.allow_private), (&answers.url, answers.allow_private));
            prop_assert_eq!(&connection.repositories, &answers.repositories);
            prop_assert_eq!(connection.webhook_secrets[0].secret.expose(), "s3cret");
            match (&connection.kind, answers.forge) {
                (ConnectionKind::Forgejo { token }, ForgeAnswer::Forgejo) => prop_assert_eq!(token.expose(), "s3cret"),
                (ConnectionKind::Github { app_id, .. }, ForgeAnswer::Github { app_id: asked }) => {
                    prop_assert_eq!(*app_id, asked);
                }
                other => prop_assert!(false, "{other:?}"),
            }
            let image = &config.images[&answers.label];
            match &answers.image {
                ImageAnswer::File { disk, sha256, kernel, initrd } => {
                    prop_assert_eq!(config.backend, Backend::Qemu);
                    prop_assert_eq!((&image.disk, &image.sha256), (&Some(disk.clone()), sha256));
                    prop_assert_eq!((&image.kernel, &image.initrd), (kernel, initrd));
                }
                ImageAnswer::Volume { kind } => {
                    prop_assert_eq!((config.backend, image.kind), (Backend::Zone, *kind));
                }
            }
            let aliases: Vec<&Label> = config.aliases.keys().collect();
            prop_assert_eq!(aliases, answers.aliases.iter().collect::<Vec<_>>());
            prop_assert_eq!(&config.default_label, &Some(answers.label.clone()));
            // Nothing is left that would be worth a word, but a disk whose digest nobody knows.
            let known = !matches!(answers.image, ImageAnswer::File { sha256: None, .. });
            prop_assert_eq!(loaded.warnings.is_empty(), known, "{:?}", loaded.warnings);
        }
    }
}
