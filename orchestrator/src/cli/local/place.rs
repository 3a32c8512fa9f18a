//! Where a local run lives, and with what configuration.

use std::{fs, path::PathBuf, sync::Arc};

use miette::miette;

use super::super::{Common, config::load, data_dir};
use crate::config::{Backend, Config, DEFAULT_PATH, Database, LoadOptions};

/// A folder that holds the tiny guest, for runs without a configuration.
const GUEST: &str = "HELIOS_CI_GUEST";
/// The agent's binary, likewise; else the one beside this program.
const AGENT: &str = "HELIOS_CI_AGENT";
/// Paths of sockets below it must stay short.
const SHORT: usize = 24;

/// A directory of its own, removed at the end, and the configuration that puts everything into it.
pub(super) struct Place {
    pub config: Arc<Config>,
    dir: tempfile::TempDir,
    keep: bool,
}

/// What a run of a working tree needs of a configuration.
pub(super) fn no_zones(config: &mut Config) -> miette::Result<()> {
    if config.backend == Backend::Zone {
        return Err(miette!(
            help = "push to the server, or `helios-ci trigger` it",
            "local runs in zones are not there: making zones needs the server's privileges"
        ));
    }
    Ok(())
}

impl Place {
    /// With the configuration as `change` makes it.
    pub fn make(
        common: &Common,
        keep: bool,
        change: impl FnOnce(&mut Config) -> miette::Result<()>,
    ) -> miette::Result<Self> {
        let parent = Some(std::env::temp_dir())
            .filter(|dir| dir.as_os_str().len() <= SHORT)
            .unwrap_or_else(|| PathBuf::from("/tmp"));
        let dir = tempfile::Builder::new()
            .prefix("hci-run-")
            .tempdir_in(&parent)
            .map_err(|e| miette!("cannot make a directory in {}: {e}", parent.display()))?;
        let mut config = if common.config.exists() || common.config.as_os_str() != DEFAULT_PATH {
            load(common)?
        } else {
            without_a_file()?
        };
        change(&mut config)?;
        config.data_dir = dir.path().join("data");
        config.database = Database::Sqlite(config.data_dir.join("helios-ci.db"));
        config.connections.clear();
        // Zones are the host's, and two processes must not keep them; other machines lie in this directory.
        if config.backend != Backend::Zone {
            config.machined = None;
        }
        data_dir::make(&config.data_dir)?;
        Ok(Self {
            config: Arc::new(config),
            dir,
            keep,
        })
    }

    /// Removes everything, or says where it is.
    pub fn leave(self) {
        if self.keep {
            eprintln!("kept: {}", self.dir.keep().display());
        } else if let Err(error) = self.dir.close() {
            eprintln!("cannot remove the run's directory: {error}");
        }
    }
}

/// The tiny guest under every usual label.
fn without_a_file() -> miette::Result<Config> {
    let Some(guest) = std::env::var_os(GUEST).map(PathBuf::from) else {
        return Err(miette!(
            help = format!(
                "write a configuration with an image (docs/config.example.yaml) and give it by --config, or \
                    `make guest` in helios-ci's source and set {GUEST}=build/images/tiny"
            ),
            "there is no configuration at {DEFAULT_PATH}, so there is no image to run in"
        ));
    };
    let guest = fs::canonicalize(&guest).map_err(|e| miette!("{GUEST}={}: {e}", guest.display()))?;
    let quoted = |path: PathBuf| serde_json::Value::from(path.display().to_string());
    let agent = std::env::var_os(AGENT).map_or(serde_json::Value::Null, |agent| quoted(agent.into()));
    // JSON is YAML, and quotes every path.
    let mut text = serde_json::json!({
        "node": "local",
        "capacity": {"machines": 2},
        "default_label": "tiny",
        "images": {"tiny": {
            "disk": quoted(guest.join("disk.qcow2")),
            "kernel": quoted(guest.join("vmlinuz")),
            "initrd": quoted(guest.join("initrd.img")),
            "size": {"cpus": 1, "memory_mib": 1024},
        }},
        "aliases": {"ubuntu-latest": "tiny", "debian-latest": "tiny"},
    });
    if !agent.is_null() {
        text["agent"] = agent;
    }
    let loaded = Config::parse(&guest, &text.to_string(), LoadOptions::default())?;
    Ok(loaded.config)
}
