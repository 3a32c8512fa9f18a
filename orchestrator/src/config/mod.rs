//! `/etc/helios-ci/config.yaml` → a typed, validated [`Config`]. The types are here; `load` reads and
//! checks them, `show` writes them without secrets.

mod attributes;
mod connections;
mod database;
mod images;
pub mod init;
mod label;
mod load;
mod machined;
mod numbers;
mod options;
mod problem;
mod read;
mod secret_ref;
mod show;
#[cfg(test)]
mod tests;
mod web;
mod zone;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use ipnet::IpNet;

use crate::{
    model::size::Size,
    model::{
        illumos::{
            names::{AttrName, AttrValue, Bandwidth, DatasetName, PlainPath},
            network::Range,
        },
        names::{ConnectionId, Label, NodeName, RepoPath, RepositoryId},
    },
    secret::Secret,
};

pub use attributes::brand_since;
pub use label::UnknownLabel;
pub use load::{DEFAULT_PATH, Loaded, config_path};
pub use numbers::{Keep, Limits, Retention};
pub use options::LoadOptions;
pub use problem::{ConfigError, Problem};

/// Everything that is configured; secrets are already read from their references.
#[derive(Debug, Clone)]
pub struct Config {
    /// This node's name. Default: the host's name.
    pub node: NodeName,
    /// Everything we store lies below it. Default `/var/lib/helios-ci`.
    pub data_dir: PathBuf,
    /// The web listener: pages, API, webhooks. Default `127.0.0.1:8080`.
    pub listen: SocketAddr,
    /// Metrics, on their own listener; none when not configured.
    pub metrics_listen: Option<SocketAddr>,
    /// What links begin with, without a trailing slash. Default: the listener's address, when that is
    /// loopback.
    pub public_url: String,
    /// TLS for the web listener: PEM files.
    pub tls: Option<Tls>,
    /// Reverse proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// `sqlite` (default) or a Postgres URL.
    pub database: Database,
    /// Forge connections by name.
    pub connections: BTreeMap<ConnectionId, Connection>,
    /// Which machine back end: `qemu` or (only with the hidden flag) `process`.
    pub backend: Backend,
    /// The privileged process that keeps the machines. `None`: the daemon keeps them itself.
    pub machined: Option<Machined>,
    /// Where machines lie on an illumos host.
    pub zone: Zone,
    /// The agent's static binary, which travels on every machine's seed disk. Default: `helios-agent`
    /// beside this program.
    pub agent: PathBuf,
    /// Images by label.
    pub images: BTreeMap<Label, Image>,
    /// Other names of labels.
    pub aliases: BTreeMap<Label, Label>,
    /// For jobs without `runs-on`.
    pub default_label: Option<Label>,
    /// Size presets by name; `small`, `medium` and `large` exist unless redefined.
    pub sizes: BTreeMap<String, Size>,
    /// How much runs at once on this node.
    pub capacity: Capacity,
    /// Limits on jobs and logs.
    pub limits: Limits,
    /// How long machines are kept for people.
    pub keep: Keep,
    /// How long things are kept.
    pub retention: Retention,
}

/// The process that keeps the machines for the daemon.
#[derive(Debug, Clone)]
pub struct Machined {
    /// Its UNIX socket. Default `/var/run/helios-ci/machined.sock` for zones, else
    /// `<data_dir>/machined.sock`.
    pub socket: PathBuf,
    /// The user who may call it besides root and machined's own: the daemon's. Default `helios-ci` for
    /// zones, else none.
    pub user: Option<String>,
}

/// PEM files for the web listener.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Certificate chain.
    pub certificate: PathBuf,
    /// Private key, readable by the daemon's user only.
    pub key: PathBuf,
}

/// Where the state lives.
#[derive(Debug, Clone)]
pub enum Database {
    /// One file, by default `<data_dir>/helios-ci.db`.
    Sqlite(PathBuf),
    /// A URL with its password.
    Postgres(Secret),
}

/// One forge connection.
#[derive(Debug, Clone)]
pub struct Connection {
    /// What it speaks.
    pub kind: ConnectionKind,
    /// The forge's address, without a trailing slash: `https://codeberg.org`, `https://github.com`.
    pub url: String,
    /// Valid webhook secrets; two during a rotation. For Forgejo each may be bound to one
    /// repository id.
    pub webhook_secrets: Vec<WebhookSecret>,
    /// Only these repositories are served; empty means all that send signed webhooks.
    pub repositories: Vec<RepoPath>,
    /// Repositories whose runs anyone may read.
    pub public: Vec<RepoPath>,
    /// The forge may have a private or loopback address, and plain HTTP.
    pub allow_private: bool,
}

/// One webhook secret.
#[derive(Debug, Clone)]
pub struct WebhookSecret {
    /// The shared secret, never empty.
    pub secret: Secret,
    /// The only repository whose deliveries it may sign.
    pub repository_id: Option<RepositoryId>,
}

/// What a connection speaks, with what it needs to act there.
#[derive(Debug, Clone)]
pub enum ConnectionKind {
    /// Forgejo or Gitea.
    Forgejo {
        /// A bot's token with `write:repository`.
        token: Secret,
    },
    /// GitHub or GitHub Enterprise Server.
    Github {
        /// The REST API's address: `https://api.github.com`, or `https://HOST/api/v3`.
        api_url: String,
        /// The App's id.
        app_id: u64,
        /// The App's private key, PEM.
        private_key: Secret,
    },
}

/// The machine back end of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// QEMU guests (Linux).
    Qemu,
    /// Plain processes: no isolation. Only with `--allow-unisolated`.
    Process,
    /// bhyve zones (illumos).
    Zone,
}

/// Where machines lie on an illumos host.
#[derive(Debug, Clone)]
pub struct Zone {
    /// The dataset below which everything is ours. Default `rpool/hci`.
    pub dataset: DatasetName,
    /// Where the zones' own datasets are mounted. Default `/zones/hci`.
    pub path: PlainPath,
    /// The machines' addresses. Default 10.77.0.0/16.
    pub network: Range,
    /// The agent's port at each host address; git's is the next. Default 9417.
    pub port: u16,
    /// The greatest rate of a guest's link. Default `1G`.
    pub bandwidth: Bandwidth,
    /// What all machines' disks may take together, in GiB. Default: only the pool bounds them.
    pub quota_gib: Option<u64>,
    /// The most virtual processors that this host's bhyve gives a guest. Default 32, its `VM_MAXCPU` in most builds.
    pub max_vcpus: u32,
}

/// What a golden disk holds, as far as firmware and devices depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestKind {
    /// Linux that boots from an EFI system partition.
    LinuxUefi,
    /// Linux that boots from a master boot record.
    LinuxBios,
    /// An illumos distribution, by UEFI.
    Illumos,
}

impl GuestKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::LinuxUefi, Self::LinuxBios, Self::Illumos];

    /// As the configuration writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LinuxUefi => "linux-uefi",
            Self::LinuxBios => "linux-bios",
            Self::Illumos => "illumos",
        }
    }
}

/// A golden image.
#[derive(Debug, Clone)]
pub struct Image {
    /// The golden disk (qcow2), read-only. None with zones, whose golden disks are volumes.
    pub disk: Option<PathBuf>,
    /// What it holds. Default `linux-uefi`.
    pub kind: GuestKind,
    /// Attributes of the bhyve brand for its machines, checked.
    pub attributes: BTreeMap<AttrName, AttrValue>,
    /// Hex SHA-256 of the disk file; checked by `image verify` and at import.
    pub sha256: Option<String>,
    /// A kernel for direct boot; firmware boot without one.
    pub kernel: Option<PathBuf>,
    /// Its initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// Its command line.
    pub cmdline: Option<String>,
    /// What machines of this image get unless the job says otherwise.
    pub size: Size,
    /// How long until the agent must have said hello, in seconds. Default 120.
    pub boot_timeout_s: u64,
}

impl Default for Image {
    /// An image of which nothing is said, on a zone host.
    fn default() -> Self {
        Self {
            disk: None,
            kind: GuestKind::LinuxUefi,
            attributes: BTreeMap::new(),
            sha256: None,
            kernel: None,
            initrd: None,
            cmdline: None,
            size: Size::default(),
            boot_timeout_s: 120,
        }
    }
}

/// How much runs at once on this node. Every limit holds by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capacity {
    /// Machines. Default 2.
    pub machines: u32,
    /// Virtual processors of all machines together; none means no limit.
    pub cpus: Option<u32>,
    /// Memory of all machines together, in MiB. Default on a zone host: what the largest ARC and a reserve for
    /// the host leave; elsewhere no limit.
    pub memory_mib: Option<u64>,
    /// Machines per label; 0 keeps this node from running any of it.
    pub labels: BTreeMap<Label, u32>,
}
