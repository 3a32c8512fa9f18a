//! Where a local run lives, and with what configuration.

use std::{
    borrow::Cow,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use miette::miette;

use super::{super::config::load, guest};
use crate::{
    cli::{Common, wiring::data_dir},
    config::{Backend, Config, DEFAULT_PATH, Database, LoadOptions},
};

/// Paths of sockets below it must stay short.
const SHORT: usize = 24;

/// A directory of its own, removed at the end, and the configuration that puts everything into it.
pub(super) struct RunDir {
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

impl RunDir {
    /// With the configuration as `change` makes it; a named guest stands in for any configuration.
    pub fn make(
        common: &Common,
        keep: bool,
        guest: Option<&Path>,
        change: impl FnOnce(&mut Config) -> miette::Result<()>,
    ) -> miette::Result<Self> {
        let parent = Some(std::env::temp_dir())
            .filter(|dir| dir.as_os_str().len() <= SHORT)
            .unwrap_or_else(|| PathBuf::from("/tmp"));
        let dir = tempfile::Builder::new()
            .prefix("hci-run-")
            .tempdir_in(&parent)
            .map_err(|e| miette!("cannot make a directory in {}: {e}", parent.display()))?;
        let has_file = common.config.exists() || common.config.as_os_str() != DEFAULT_PATH;
        let mut config = if guest.is_none() && has_file {
            load(common)?
        } else {
            without_a_file(&guest::find(guest)?)?
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

    /// Where logs are kept as text, if anything is to be kept.
    pub fn logs(&self) -> Option<&Path> {
        self.keep.then(|| self.dir.path())
    }

    /// Removes everything, or says where it is and how to read it.
    pub fn leave(self) {
        if self.keep {
            eprint!("{}", how_to_read(&self.dir.keep()));
        } else if let Err(error) = self.dir.close() {
            eprintln!("cannot remove the run's directory: {error}");
        }
    }
}

/// Commands for what a run left in a folder, which can be copied as they are.
fn how_to_read(dir: &Path) -> String {
    use std::fmt::Write as _;

    let quoted = |path: &Path| {
        let text = path.display().to_string();
        // Only a NUL cannot be quoted, which no path has.
        shlex::try_quote(&text).map_or_else(|_| text.clone(), Cow::into_owned)
    };
    let mut logs: Vec<PathBuf> = fs::read_dir(dir)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    logs.retain(|path| path.extension().is_some_and(|e| e == "log"));
    logs.sort();
    let mut text = format!("kept: {}\n", dir.display());
    for log in logs {
        let _ = writeln!(text, "  cat {}", quoted(&log));
    }
    let database = dir.join("data/helios-ci.db");
    if database.exists() {
        let _ = writeln!(
            text,
            "  sqlite3 -readonly {} 'SELECT name, state, reason FROM jobs'",
            quoted(&database)
        );
    }
    let _ = writeln!(text, "  rm -r {}    # when you have seen enough", quoted(dir));
    text
}

/// The tiny guest under every usual label.
fn without_a_file(folder: &Path) -> miette::Result<Config> {
    let quoted = |path: PathBuf| serde_json::Value::from(path.display().to_string());
    let agent = std::env::var_os(guest::AGENT)
        .map(PathBuf::from)
        .or_else(guest::built_agent);
    let agent = agent.map_or(serde_json::Value::Null, quoted);
    // JSON is YAML, and quotes every path.
    let mut text = serde_json::json!({
        "node": "local",
        "capacity": {"machines": 2},
        "default_label": "tiny",
        "images": {"tiny": {
            "disk": quoted(folder.join(guest::DISK)),
            "kernel": quoted(folder.join("vmlinuz")),
            "initrd": quoted(folder.join("initrd.img")),
            "size": {"cpus": 1, "memory_mib": 1024},
        }},
        "aliases": {"ubuntu-latest": "tiny", "debian-latest": "tiny"},
    });
    if !agent.is_null() {
        text["agent"] = agent;
    }
    let loaded = Config::parse(folder, &text.to_string(), LoadOptions::default())?;
    Ok(loaded.config)
}
