//! From the file to a [`Config`]: each section is read here, and what sections promise each other is
//! checked at the end.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use miette::NamedSource;

use super::{
    Backend, Capacity, Config, ConfigError, Database, Image, Keep, Limits, Problem, Retention, Size, Tls, connections,
    machined,
    problem::Place,
    read::{Map, Reader, nearest, shown},
    secret_ref, show,
    tree::{self, Node, Value},
    zone,
};
use crate::model::names::{Label, NodeName};

/// Where the configuration is when nothing else is said.
pub const DEFAULT_PATH: &str = "/etc/helios-ci/config.yaml";

/// A configuration larger than this is a mistake.
const MAX_BYTES: usize = 1 << 20;

/// How to load.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// Secrets may be `env:NAME`. For development: other processes can read an environment.
    pub dev_env_secrets: bool,
}

/// A configuration with what is worth saying about it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What works but may surprise.
    pub warnings: Vec<Problem>,
    references: BTreeMap<String, String>,
}

impl Loaded {
    /// Everything effective, defaults included, as YAML; secrets as the references they came from.
    #[must_use]
    pub fn to_shown_yaml(&self) -> String {
        show::yaml(&self.config, &self.references)
    }
}

/// The configuration file to use: the one given, else `HELIOS_CI_CONFIG`, else [`DEFAULT_PATH`].
#[must_use]
pub fn config_path(given: Option<PathBuf>) -> PathBuf {
    let from_environment = || {
        std::env::var_os("HELIOS_CI_CONFIG")
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    given
        .or_else(from_environment)
        .unwrap_or_else(|| PathBuf::from(DEFAULT_PATH))
}

impl Config {
    /// Reads, checks and completes the configuration, secrets included.
    ///
    /// # Errors
    /// When the file cannot be read, or with everything that is wrong in it.
    pub fn load(path: &Path, options: LoadOptions) -> Result<Loaded, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => ConfigError::Missing { path: path.to_owned() },
            _ => ConfigError::Read {
                path: path.to_owned(),
                source,
            },
        })?;
        Self::parse(path, &text, options)
    }

    /// As [`Config::load`], for a text that was read already; `path` only names it in messages.
    ///
    /// # Errors
    /// With everything that is wrong in the text.
    pub fn parse(path: &Path, text: &str, options: LoadOptions) -> Result<Loaded, ConfigError> {
        let mut reader = Reader {
            file: path.display().to_string(),
            env_allowed: options.dev_env_secrets,
            problems: Vec::new(),
            warnings: Vec::new(),
            references: BTreeMap::new(),
        };
        // Until the tree is known nobody can tell which part of the text is a secret: show none.
        let mut shown_text = String::new();
        let mut config = None;
        if text.len() > MAX_BYTES {
            reader.problem(Place::start(), format!("it is larger than {MAX_BYTES} bytes"), None);
        } else {
            match tree::parse(text) {
                Ok(root) => {
                    shown_text = secret_ref::redact(text, &root);
                    config = read(&mut reader, &root);
                }
                Err(error) => reader.problem(error.place, format!("this is not YAML: {}", error.reason), None),
            }
        }
        match config {
            Some(config) if reader.problems.is_empty() => Ok(Loaded {
                config,
                warnings: reader.warnings,
                references: reader.references,
            }),
            _ => {
                if shown_text.is_empty() {
                    // Labels must not point past the end of what is shown.
                    for problem in &mut reader.problems {
                        (problem.place.offset, problem.place.length) = (0, 0);
                    }
                }
                reader.problems.sort_by_key(|p| (p.place.line, p.place.column));
                Err(ConfigError::Invalid {
                    path: path.to_owned(),
                    text: NamedSource::new(&reader.file, shown_text),
                    problems: reader.problems,
                })
            }
        }
    }
}

/// Reads every section. `None` only together with a problem.
fn read(reader: &mut Reader, root: &Node) -> Option<Config> {
    let top = reader.map(
        root,
        "",
        &[
            "node",
            "data_dir",
            "listen",
            "metrics_listen",
            "public_url",
            "tls",
            "trusted_proxies",
            "database",
            "connections",
            "backend",
            "machined",
            "zone",
            "agent",
            "images",
            "aliases",
            "default_label",
            "sizes",
            "capacity",
            "limits",
            "keep",
            "retention",
        ],
    );
    let data_dir = reader
        .path(top.get("data_dir"), "data_dir")
        .unwrap_or_else(|| "/var/lib/helios-ci".into());
    let listen: SocketAddr = reader
        .parsed(top.get("listen"), "listen")
        .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8080)));
    let tls = read_tls(reader, &top);
    let node = read_node(reader, &top);
    let backend = read_backend(reader, &top);
    let (zone, max_vcpus) = zone::read(reader, &top);
    let ceiling = (backend == Backend::Zone).then_some(max_vcpus);
    let sizes = read_sizes(reader, &top, ceiling);
    let images = read_images(reader, &top, &sizes, backend, ceiling);
    let aliases = read_aliases(reader, &top, &images);
    let config = Config {
        database: read_database(reader, &top, &data_dir),
        listen,
        metrics_listen: reader.parsed(top.get("metrics_listen"), "metrics_listen"),
        public_url: read_public_url(reader, &top, listen, tls.is_some()),
        tls,
        trusted_proxies: read_proxies(reader, &top),
        connections: connections::read(reader, &top),
        machined: machined::read(reader, &top, backend, &data_dir),
        backend,
        data_dir,
        agent: reader.path(top.get("agent"), "agent").unwrap_or_else(default_agent),
        default_label: reader.parsed(top.get("default_label"), "default_label"),
        capacity: read_capacity(reader, &top),
        limits: read_limits(reader, &top),
        keep: read_keep(reader, &top),
        retention: read_retention(reader, &top),
        images,
        aliases,
        sizes,
        // Last, so that every other section has been looked at before this gives up.
        node: node?,
        zone: zone?,
    };
    promises(reader, &top, &config);
    reader.problems.is_empty().then_some(config)
}

/// What one section promises about another.
fn promises(reader: &mut Reader, top: &Map<'_>, config: &Config) {
    let place = |key: &str| top.get(key).map_or(top.place, |node| node.place);
    if !config.listen.ip().is_loopback() && config.tls.is_none() {
        let message = format!(
            "listen {} would serve passwords and cookies over plain HTTP",
            config.listen
        );
        let help = "add `tls`, or listen on 127.0.0.1 behind a proxy that speaks HTTPS";
        reader.problem(place("listen"), message, help.to_owned());
    }
    if config.metrics_listen == Some(config.listen) {
        reader.problem(
            place("metrics_listen"),
            "metrics_listen is the same address as listen",
            None,
        );
    }
    if let Some(metrics) = config.metrics_listen.filter(|m| !m.ip().is_loopback()) {
        reader.warning(
            place("metrics_listen"),
            format!("metrics are readable by whoever reaches {metrics}"),
        );
    }
    let known = || config.images.keys().chain(config.aliases.keys());
    let unknown_label = |reader: &mut Reader, at: Place, what: &str, label: &Label| {
        let near = nearest(label.as_str(), known().map(Label::as_str));
        let help = near.map(|near| format!("did you mean `{near}`?"));
        reader.problem(at, format!("{what} `{label}` is no image and no alias"), help);
    };
    if let Some(label) = &config.default_label
        && !known().any(|k| k == label)
    {
        unknown_label(reader, place("default_label"), "default_label", label);
    }
    for label in config.capacity.labels.keys() {
        if !config.images.contains_key(label) {
            let message = "capacity.labels counts machines of an image, and the label";
            unknown_label(reader, place("capacity"), message, label);
        }
    }
    let labels: Vec<&Label> = config.images.keys().collect();
    zone::check_names(reader, top, &config.zone, &labels);
    zone::check_apart(reader, top, &config.zone, &config.data_dir);
    if config.images.is_empty() {
        reader.warning(place("images"), "no images: this node can run no job");
    }
    for (label, image) in &config.images {
        // A zone host keeps the digest with the golden disk.
        if image.sha256.is_none() && config.backend != Backend::Zone {
            reader.warning(
                place("images"),
                format!("image `{label}` has no sha256: a changed disk goes unnoticed"),
            );
        }
        let (cpus, memory) = (config.capacity.cpus, config.capacity.memory_mib);
        if cpus.is_some_and(|c| image.size.cpus > c) || memory.is_some_and(|m| image.size.memory_mib > m) {
            let message = format!("a machine of image `{label}` does not fit into the capacity of this node");
            reader.problem(
                place("capacity"),
                message,
                "raise capacity.cpus and memory_mib, or lower its size".to_owned(),
            );
        }
    }
    if config.connections.is_empty() {
        reader.warning(place("connections"), "no connections: no forge can start a run");
    }
    if config.backend == Backend::Process {
        reader.warning(
            place("backend"),
            "backend `process` isolates nothing: jobs run as this user",
        );
    }
}

/// `None` only together with a problem.
fn read_node(reader: &mut Reader, top: &Map<'_>) -> Option<NodeName> {
    if top.get("node").is_some() {
        return reader.parsed(top.get("node"), "node");
    }
    let host = nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_default();
    match host.to_lowercase().parse() {
        Ok(name) => Some(name),
        Err(error) => {
            let help = "write `node: a-name`";
            reader.problem(
                top.place,
                format!("the host's name cannot name this node: {error}"),
                help.to_owned(),
            );
            None
        }
    }
}

fn read_public_url(reader: &mut Reader, top: &Map<'_>, listen: SocketAddr, tls: bool) -> String {
    let scheme = if tls { "https" } else { "http" };
    match top.get("public_url") {
        Some(node) => connections::web_address(reader, node, "public_url").unwrap_or_default(),
        None if listen.ip().is_loopback() => format!("{scheme}://{listen}"),
        None => {
            let help = "write the address people and forges use, such as `public_url: https://ci.example.org`";
            reader.problem(top.place, "public_url is missing", help.to_owned());
            String::new()
        }
    }
}

fn read_tls(reader: &mut Reader, top: &Map<'_>) -> Option<Tls> {
    let map = reader.map(top.get("tls")?, "tls", &["certificate", "key"]);
    for key in ["certificate", "key"] {
        if map.get(key).is_none() {
            reader.problem(
                map.place,
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

fn read_proxies(reader: &mut Reader, top: &Map<'_>) -> Vec<IpNet> {
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
                node.place,
                format!("trusted_proxies: `{}` would believe everybody", shown(text)),
                "name the proxy's own address".to_owned(),
            ),
            None => reader.problem(
                node.place,
                format!("trusted_proxies: `{}` is no address and no network", shown(text)),
                "write 127.0.0.1, or 10.0.0.0/8".to_owned(),
            ),
        }
    }
    proxies
}

fn read_database(reader: &mut Reader, top: &Map<'_>, data_dir: &Path) -> Database {
    let default = Database::Sqlite(data_dir.join("helios-ci.db"));
    let Some(node) = top.get("database") else {
        return default;
    };
    let help = "write `sqlite`, `{sqlite: /path}` or `{postgres: file:/path/of/its/url}`";
    match &node.value {
        Value::Scalar { text, .. } if text == "sqlite" => default,
        Value::Map(_) => {
            let map = reader.map(node, "database", &["sqlite", "postgres"]);
            match (map.get("sqlite"), map.get("postgres")) {
                (Some(path), None) => reader
                    .path(Some(path), "database.sqlite")
                    .map_or(default, Database::Sqlite),
                (None, Some(url)) => match reader.secret(url, "database.postgres") {
                    Some(secret)
                        if secret.expose().starts_with("postgres://")
                            || secret.expose().starts_with("postgresql://") =>
                    {
                        Database::Postgres(secret)
                    }
                    Some(_) => {
                        let message = "database.postgres: the file does not hold a `postgres://` URL";
                        reader.problem(url.place, message, None);
                        default
                    }
                    None => default,
                },
                _ => {
                    reader.problem(
                        node.place,
                        "database must be exactly one of sqlite and postgres",
                        help.to_owned(),
                    );
                    default
                }
            }
        }
        // The text is not repeated: it may be a URL with a password.
        _ => {
            reader.problem(node.place, "this is no database", help.to_owned());
            default
        }
    }
}

/// Beside this program, where packages put it.
fn default_agent() -> PathBuf {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|program| Some(program.parent()?.join("helios-agent")));
    beside.unwrap_or_else(|| "/opt/helios-ci/bin/helios-agent".into())
}

fn read_backend(reader: &mut Reader, top: &Map<'_>) -> Backend {
    let default = if cfg!(target_os = "illumos") {
        Backend::Zone
    } else {
        Backend::Qemu
    };
    let Some(node) = top.get("backend") else {
        return default;
    };
    match reader.text(node, "backend") {
        Some("qemu") => Backend::Qemu,
        Some("zone") => Backend::Zone,
        Some("process") => Backend::Process,
        Some(other) => {
            let near = nearest(other, ["qemu", "zone", "process"]).map(|n| format!("did you mean `{n}`?"));
            let help = near.unwrap_or_else(|| "possible: qemu, zone, process".to_owned());
            reader.problem(node.place, format!("there is no backend `{}`", shown(other)), help);
            default
        }
        None => default,
    }
}

/// A size; `ceiling` is how many virtual processors this node's machines can have, where that is known.
fn read_size(
    reader: &mut Reader,
    node: &Node,
    path: &str,
    presets: &BTreeMap<String, Size>,
    ceiling: Option<u32>,
) -> Option<Size> {
    let size = read_any_size(reader, node, path, presets)?;
    if let Some(most) = ceiling.filter(|most| size.cpus > *most) {
        let message = format!("{path} has {} processors, and bhyve takes {most} here", size.cpus);
        let help = "ask for fewer, or raise zone.max_vcpus where this host's bhyve takes more".to_owned();
        reader.problem(node.place, message, help);
    }
    Some(size)
}

fn read_any_size(reader: &mut Reader, node: &Node, path: &str, presets: &BTreeMap<String, Size>) -> Option<Size> {
    if let Value::Scalar { text, .. } = &node.value {
        let found = presets.get(text).copied();
        if found.is_none() {
            let help = format!("possible: {}", presets.keys().cloned().collect::<Vec<_>>().join(", "));
            reader.problem(node.place, format!("{path}: there is no size `{}`", shown(text)), help);
        }
        return found;
    }
    let map = reader.map(node, path, &["cpus", "memory_mib", "disk_gib"]);
    let default = Size::default();
    let number = |reader: &mut Reader, key: &str, range| reader.number(map.get(key), &map.path(key), range);
    Some(Size {
        cpus: reader
            .small(map.get("cpus"), &map.path("cpus"), 1..=256)
            .unwrap_or(default.cpus),
        memory_mib: number(reader, "memory_mib", 64..=4 << 20).unwrap_or(default.memory_mib),
        disk_gib: number(reader, "disk_gib", 1..=64 << 10),
    })
}

fn read_sizes(reader: &mut Reader, top: &Map<'_>, ceiling: Option<u32>) -> BTreeMap<String, Size> {
    let mut sizes = Size::presets();
    let entries = top
        .get("sizes")
        .map(|node| reader.entries(node, "sizes"))
        .unwrap_or_default();
    for (key, node) in entries {
        // A size's name has the rule of a label's: both stand in workflow files.
        let Some(name) = reader.key::<Label>(key) else {
            continue;
        };
        if !matches!(node.value, Value::Map(_)) {
            reader.problem(
                node.place,
                format!("sizes.{name} must be a mapping of cpus, memory_mib and disk_gib"),
                None,
            );
        } else if let Some(size) = read_size(reader, node, &format!("sizes.{name}"), &BTreeMap::new(), ceiling) {
            sizes.insert(name.to_string(), size);
        }
    }
    sizes
}

fn read_images(
    reader: &mut Reader,
    top: &Map<'_>,
    sizes: &BTreeMap<String, Size>,
    backend: Backend,
    ceiling: Option<u32>,
) -> BTreeMap<Label, Image> {
    let mut images = BTreeMap::new();
    let entries = top
        .get("images")
        .map(|node| reader.entries(node, "images"))
        .unwrap_or_default();
    for (key, node) in entries {
        let Some(label) = reader.key::<Label>(key) else {
            continue;
        };
        let path = format!("images.{label}");
        let known = [
            "disk",
            "kind",
            "attributes",
            "sha256",
            "kernel",
            "initrd",
            "cmdline",
            "size",
            "boot_timeout_s",
        ];
        let map = reader.map(node, &path, &known);
        if map.get("disk").is_none() && backend != Backend::Zone {
            reader.problem(
                key.place,
                format!("{path}.disk is missing"),
                "write the path of its golden disk".to_owned(),
            );
        }
        let sha256 = map.get("sha256").and_then(|node| {
            let text = reader.text(node, &map.path("sha256"))?.to_owned();
            let fits = text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            if !fits {
                reader.problem(
                    node.place,
                    format!("{path}.sha256 must be 64 lower-case hexadecimal digits"),
                    None,
                );
            }
            fits.then_some(text)
        });
        let image = Image {
            disk: reader.path(map.get("disk"), &map.path("disk")),
            kind: zone::kind(reader, &map),
            attributes: zone::attributes(reader, &map),
            sha256,
            kernel: reader.path(map.get("kernel"), &map.path("kernel")),
            initrd: reader.path(map.get("initrd"), &map.path("initrd")),
            cmdline: map
                .get("cmdline")
                .and_then(|n| reader.text(n, &map.path("cmdline")))
                .map(str::to_owned),
            size: map
                .get("size")
                .and_then(|n| read_size(reader, n, &map.path("size"), sizes, ceiling))
                .unwrap_or_default(),
            boot_timeout_s: reader
                .number(map.get("boot_timeout_s"), &map.path("boot_timeout_s"), 1..=3600)
                .unwrap_or(120),
        };
        if backend == Backend::Zone {
            zone::check_attributes(reader, &map, &image);
        }
        for (key, given) in [("initrd", image.initrd.is_some()), ("cmdline", image.cmdline.is_some())] {
            if given && map.get("kernel").is_none() {
                let at = map.get(key).map_or(map.place, |node| node.place);
                reader.problem(at, format!("{path}.{key} has no meaning without {path}.kernel"), None);
            }
        }
        images.insert(label, image);
    }
    images
}

fn read_aliases(reader: &mut Reader, top: &Map<'_>, images: &BTreeMap<Label, Image>) -> BTreeMap<Label, Label> {
    let mut aliases = BTreeMap::new();
    let entries = top
        .get("aliases")
        .map(|node| reader.entries(node, "aliases"))
        .unwrap_or_default();
    for (key, node) in entries {
        let path = format!("aliases.{}", shown(&key.text));
        let (Some(alias), Some(target)) = (reader.key::<Label>(key), reader.parsed::<Label>(Some(node), &path)) else {
            continue;
        };
        if images.contains_key(&alias) {
            reader.problem(
                key.place,
                format!("`{alias}` is an image; an alias needs another name"),
                None,
            );
        }
        if !images.contains_key(&target) {
            let near = nearest(target.as_str(), images.keys().map(Label::as_str));
            let help = near.map(|near| format!("did you mean `{near}`?"));
            reader.problem(node.place, format!("{path} names `{target}`, which is no image"), help);
        }
        aliases.insert(alias, target);
    }
    aliases
}

fn section<'a>(reader: &mut Reader, top: &Map<'a>, name: &str, known: &[&'static str]) -> Map<'a> {
    static EMPTY: Node = Node {
        place: Place {
            line: 1,
            column: 1,
            offset: 0,
            length: 0,
        },
        value: Value::Nothing,
    };
    reader.map(top.get(name).unwrap_or(&EMPTY), name, known)
}

fn read_capacity(reader: &mut Reader, top: &Map<'_>) -> Capacity {
    let map = section(reader, top, "capacity", &["machines", "cpus", "memory_mib", "labels"]);
    let mut labels = BTreeMap::new();
    let entries = map
        .get("labels")
        .map(|node| reader.entries(node, "capacity.labels"))
        .unwrap_or_default();
    for (key, node) in entries {
        // Zero means that this node runs no machine of the label.
        let path = format!("capacity.labels.{}", shown(&key.text));
        if let (Some(label), Some(count)) = (reader.key(key), reader.small(Some(node), &path, 0..=4096)) {
            labels.insert(label, count);
        }
    }
    Capacity {
        machines: reader
            .small(map.get("machines"), "capacity.machines", 1..=4096)
            .unwrap_or(2),
        cpus: reader.small(map.get("cpus"), "capacity.cpus", 1..=1 << 20),
        memory_mib: reader.number(map.get("memory_mib"), "capacity.memory_mib", 64..=1 << 40),
        labels,
    }
}

fn read_limits(reader: &mut Reader, top: &Map<'_>) -> Limits {
    let default = Limits::default();
    let known = [
        "job_timeout_minutes",
        "idle_timeout_minutes",
        "queue_timeout_minutes",
        "log_bytes",
        "infra_tries",
        "cancel_grace_s",
        "node_grace_s",
        "agent_silence_s",
        "min_free_bytes",
        "repository_bytes",
    ];
    let map = section(reader, top, "limits", &known);
    let mut small = |key: &str, range, default| reader.small(map.get(key), &map.path(key), range).unwrap_or(default);
    let month = 60 * 24 * 31;
    let (job_timeout_minutes, idle_timeout_minutes, queue_timeout_minutes, infra_tries) = (
        small("job_timeout_minutes", 1..=month, default.job_timeout_minutes),
        small("idle_timeout_minutes", 1..=month, default.idle_timeout_minutes),
        small("queue_timeout_minutes", 1..=month, default.queue_timeout_minutes),
        small("infra_tries", 1..=100, default.infra_tries),
    );
    let mut number = |key: &str, range, default| reader.number(map.get(key), &map.path(key), range).unwrap_or(default);
    let most = 1 << 50;
    Limits {
        job_timeout_minutes,
        idle_timeout_minutes,
        queue_timeout_minutes,
        infra_tries,
        log_bytes: number("log_bytes", 1 << 20..=most, default.log_bytes),
        // Zero means that a cancelled job is ended at once.
        cancel_grace_s: number("cancel_grace_s", 0..=86_400, default.cancel_grace_s),
        // Less than three heartbeats would give up nodes that live.
        node_grace_s: number("node_grace_s", 15..=604_800, default.node_grace_s),
        agent_silence_s: number("agent_silence_s", 1..=86_400, default.agent_silence_s),
        // Zero means that nothing is kept free.
        min_free_bytes: number("min_free_bytes", 0..=most, default.min_free_bytes),
        repository_bytes: number("repository_bytes", 1 << 20..=most, default.repository_bytes),
    }
}

fn read_keep(reader: &mut Reader, top: &Map<'_>) -> Keep {
    let default = Keep::default();
    let map = section(reader, top, "keep", &["default_minutes", "max_minutes"]);
    let week = 7 * 24 * 60;
    let max = reader.small(map.get("max_minutes"), "keep.max_minutes", 1..=week);
    let max_minutes = max.unwrap_or(default.max_minutes);
    let wanted = reader.small(map.get("default_minutes"), "keep.default_minutes", 1..=week);
    if let (Some(wanted), Some(node)) = (wanted, map.get("default_minutes"))
        && wanted > max_minutes
    {
        let message = format!("keep.default_minutes is {wanted}, more than keep.max_minutes, which is {max_minutes}");
        reader.problem(node.place, message, "lower it, or raise keep.max_minutes".to_owned());
    }
    Keep {
        default_minutes: wanted.unwrap_or(default.default_minutes.min(max_minutes)),
        max_minutes,
    }
}

fn read_retention(reader: &mut Reader, top: &Map<'_>) -> Retention {
    let default = Retention::default();
    let map = section(reader, top, "retention", &["logs_days", "runs_days", "deliveries_days"]);
    let mut days = |key: &str, default| {
        reader
            .small(map.get(key), &map.path(key), 0..=36_500)
            .unwrap_or(default)
    };
    let retention = Retention {
        logs_days: days("logs_days", default.logs_days),
        runs_days: days("runs_days", default.runs_days),
        deliveries_days: days("deliveries_days", default.deliveries_days),
    };
    // 0 is for ever.
    let forever = |days: u32| if days == 0 { u32::MAX } else { days };
    if forever(retention.logs_days) > forever(retention.runs_days) {
        let message = "retention.logs_days is longer than runs_days: a run's logs go with the run";
        reader.warning(map.place, message);
    }
    retention
}
