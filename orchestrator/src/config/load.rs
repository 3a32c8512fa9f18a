//! From the file to a [`Config`]: each section is read here, and what must hold between sections is
//! checked at the end.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use miette::NamedSource;

use super::{
    Backend, Capacity, Config, ConfigError, Keep, Limits, Problem, Retention, connections, database, images, machined,
    read::{Map, Reader, shown},
    secret_ref, show, web, zone,
};
use crate::{
    config::options::LoadOptions,
    model::names::{Label, NodeName},
    yaml::{self, Dialect, Node, Rules, Span, Value, nearest},
};

/// Where the configuration is when nothing else is said.
pub const DEFAULT_PATH: &str = "/etc/helios-ci/config.yaml";

/// A configuration larger than this is a mistake.
const MAX_BYTES: usize = 1 << 20;

const RULES: Rules = Rules {
    what: "a configuration",
    dialect: Dialect::Plain,
    // It needs five.
    max_depth: 16,
    max_nodes: MAX_BYTES,
    max_text: MAX_BYTES,
};

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
        let mut reader = Reader::new(path, options);
        // Until the tree is known nobody can tell which part of the text is a secret: show none.
        let mut shown_text = String::new();
        let mut config = None;
        if text.len() > MAX_BYTES {
            reader.problem(Span::START, format!("it is larger than {MAX_BYTES} bytes"), None);
        } else {
            match parse(text) {
                Ok(root) => {
                    shown_text = secret_ref::redact(text, &root);
                    config = read(&mut reader, &root);
                }
                Err(faults) => {
                    for fault in faults {
                        reader.problem(fault.span, fault.message, None);
                    }
                }
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
                        (problem.span.offset, problem.span.length) = (0, 0);
                    }
                }
                reader.problems.sort_by_key(|p| (p.span.line, p.span.column));
                Err(ConfigError::Invalid {
                    path: path.to_owned(),
                    text: NamedSource::new(&reader.file, shown_text),
                    problems: reader.problems,
                })
            }
        }
    }
}

/// The whole text as a tree; an empty one says nothing.
pub(super) fn parse(text: &str) -> Result<Node, Vec<yaml::Fault>> {
    let nothing = || Node {
        span: Span::START,
        value: Value::Mapping(Vec::new()),
    };
    Ok(yaml::parse(text, &RULES)?.unwrap_or_else(nothing))
}

/// Reads every section. `None` only together with a problem.
pub(super) fn read(reader: &mut Reader, root: &Node) -> Option<Config> {
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
    let tls = web::tls(reader, &top);
    let node = read_node(reader, &top);
    let backend = read_backend(reader, &top);
    let (zone, max_vcpus) = zone::read(reader, &top);
    let ceiling = (backend == Backend::Zone).then_some(max_vcpus);
    let sizes = images::sizes(reader, &top, ceiling);
    let images = images::images(reader, &top, &sizes, backend, ceiling);
    let aliases = images::aliases(reader, &top, &images);
    let config = Config {
        database: database::read(reader, &top, &data_dir),
        listen,
        metrics_listen: reader.parsed(top.get("metrics_listen"), "metrics_listen"),
        public_url: web::public_url(reader, &top, listen, tls.is_some()),
        tls,
        trusted_proxies: web::trusted_proxies(reader, &top),
        connections: connections::read(reader, &top),
        machined: machined::read(reader, &top, backend, &data_dir),
        backend,
        data_dir,
        agent: reader.path(top.get("agent"), "agent").unwrap_or_else(default_agent),
        default_label: reader.parsed(top.get("default_label"), "default_label"),
        capacity: read_capacity(reader, &top),
        limits: Limits::read(reader, &top),
        keep: Keep::read_consistent(reader, &top),
        retention: Retention::read_consistent(reader, &top),
        images,
        aliases,
        sizes,
        // Last, so that every other section has been read before this gives up.
        node: node?,
        zone: zone?,
    };
    check_consistency(reader, &top, &config);
    reader.problems.is_empty().then_some(config)
}

/// What must hold between sections.
fn check_consistency(reader: &mut Reader, top: &Map<'_>, config: &Config) {
    let span = |key: &str| top.get(key).map_or(top.span, |node| node.span);
    if !config.listen.ip().is_loopback() && config.tls.is_none() {
        let message = format!(
            "listen {} would serve passwords and cookies over plain HTTP",
            config.listen
        );
        let help = "add `tls`, or listen on 127.0.0.1 behind a proxy that speaks HTTPS";
        reader.problem(span("listen"), message, help.to_owned());
    }
    if config.metrics_listen == Some(config.listen) {
        reader.problem(
            span("metrics_listen"),
            "metrics_listen is the same address as listen",
            None,
        );
    }
    if let Some(metrics) = config.metrics_listen.filter(|m| !m.ip().is_loopback()) {
        reader.warning(
            span("metrics_listen"),
            format!("metrics are readable by whoever reaches {metrics}"),
        );
    }
    let known = || config.images.keys().chain(config.aliases.keys());
    let unknown_label = |reader: &mut Reader, at: Span, what: &str, label: &Label| {
        let near = nearest(label.as_str(), known().map(Label::as_str));
        let help = near.map(|near| format!("did you mean `{near}`?"));
        reader.problem(at, format!("{what} `{label}` is no image and no alias"), help);
    };
    if let Some(label) = &config.default_label
        && !known().any(|k| k == label)
    {
        unknown_label(reader, span("default_label"), "default_label", label);
    }
    for label in config.capacity.labels.keys() {
        if !config.images.contains_key(label) {
            let message = "capacity.labels counts machines of an image, and the label";
            unknown_label(reader, span("capacity"), message, label);
        }
    }
    let labels: Vec<&Label> = config.images.keys().collect();
    zone::check_names(reader, top, &config.zone, &labels);
    zone::check_apart(reader, top, &config.zone, &config.data_dir);
    if config.images.is_empty() {
        reader.warning(span("images"), "no images: this node can run no job");
    }
    for (label, image) in &config.images {
        // A zone host keeps the digest with the golden disk.
        if image.sha256.is_none() && config.backend != Backend::Zone {
            reader.warning(
                span("images"),
                format!("image `{label}` has no sha256: a changed disk goes unnoticed"),
            );
        }
        let (cpus, memory) = (config.capacity.cpus, config.capacity.memory_mib);
        if cpus.is_some_and(|c| image.size.cpus > c) || memory.is_some_and(|m| image.size.memory_mib > m) {
            let message = format!("a machine of image `{label}` does not fit into the capacity of this node");
            reader.problem(
                span("capacity"),
                message,
                "raise capacity.cpus and memory_mib, or lower its size".to_owned(),
            );
        }
    }
    if config.connections.is_empty() {
        reader.warning(span("connections"), "no connections: no forge can start a run");
    }
    if config.backend == Backend::Process {
        reader.warning(
            span("backend"),
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
                top.span,
                format!("the host's name cannot name this node: {error}"),
                help.to_owned(),
            );
            None
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
            reader.problem(node.span, format!("there is no backend `{}`", shown(other)), help);
            default
        }
        None => default,
    }
}

fn read_capacity(reader: &mut Reader, top: &Map<'_>) -> Capacity {
    let map = reader.section(top, "capacity", &["machines", "cpus", "memory_mib", "labels"]);
    let mut labels = BTreeMap::new();
    let entries = map
        .get("labels")
        .map(|node| reader.entries(node, "capacity.labels"))
        .unwrap_or_default();
    for (key, node) in entries {
        // Zero means that this node runs no machine of the label.
        let path = format!("capacity.labels.{}", shown(&key.text));
        if let (Some(label), Some(count)) = (reader.key(key), reader.number(Some(node), &path, 0..=4096)) {
            labels.insert(label, count);
        }
    }
    Capacity {
        machines: reader
            .number(map.get("machines"), "capacity.machines", 1..=4096)
            .unwrap_or(2),
        cpus: reader.number(map.get("cpus"), "capacity.cpus", 1..=1 << 20),
        memory_mib: reader.number(map.get("memory_mib"), "capacity.memory_mib", 64..=1 << 40),
        labels,
    }
}
