//! `helios-ci image`

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use miette::miette;

use super::{Common, Exit, Outcome, local::trial, report};
use crate::{
    config::{Backend, Config},
    images::{Format, Library},
    machine::zone::golden::Golden,
    model::names::Label,
};

#[derive(Debug, Subcommand)]
pub(super) enum ImageCommand {
    /// List golden disks: those of the configuration, then imported ones it does not use.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Read a golden disk whole and compare its digest with the expected one.
    Verify {
        /// Its label.
        label: Label,
        /// Then boot a machine from it, and try what a job needs: agent, network, clock, growth, power-off.
        #[arg(long)]
        boot: bool,
    },
    /// Copy a disk into the data directory, checking its digest on the way.
    Import {
        /// The disk's file.
        file: PathBuf,
        /// Its label.
        label: Label,
        /// Its SHA-256, 64 hexadecimal digits.
        #[arg(long)]
        sha256: String,
        /// What the file is. With zones it is always a raw disk, or one packed with zstd, and the digest is of the
        /// unpacked disk.
        #[arg(long, value_enum, default_value_t = Kind::Qcow2)]
        format: Kind,
    },
    /// Take an image's newest version out of use (zones only). Machines that run keep it.
    Rollback {
        /// Its label.
        label: Label,
    },
    /// Remove a version that nothing uses (zones only).
    Remove {
        /// Its label.
        label: Label,
        /// Its number, as `image list` shows it.
        version: u32,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    /// A qcow2 image without a backing file.
    Qcow2,
    /// A raw disk.
    Raw,
}

pub(super) async fn run(common: &Common, command: ImageCommand) -> Outcome {
    let config = super::config::load(common)?;
    let boot = match &command {
        ImageCommand::Verify { label, boot: true } => Some(label.clone()),
        _ => None,
    };
    let done = on_disk(config, command)?;
    match boot {
        Some(label) => trial::run(common, &label).await,
        None => Ok(done),
    }
}

/// All that needs no machine.
fn on_disk(config: Config, command: ImageCommand) -> Outcome {
    if config.backend == Backend::Zone {
        return golden(&config, command);
    }
    let library = Library::new(&config.data_dir, config.images);
    match command {
        ImageCommand::Rollback { .. } | ImageCommand::Remove { .. } => {
            return Err(miette!(
                help = "import another file, and change `disk` in the configuration",
                "only a zone host keeps several versions of an image"
            ));
        }
        ImageCommand::List { json } => {
            let entries = library.list().map_err(report)?;
            if json {
                let rows: Vec<_> = entries
                    .iter()
                    .map(|e| {
                        let (bytes, error) = match &e.state {
                            Ok(bytes) => (Some(*bytes), None),
                            Err(error) => (None, Some(error)),
                        };
                        serde_json::json!({"label": e.label, "disk": e.disk, "configured": e.configured, "sha256": e.sha256, "bytes": bytes, "error": error})
                    })
                    .collect();
                println!("{:#}", serde_json::Value::from(rows));
                return Ok(Exit::Success);
            }
            for entry in &entries {
                let state = match &entry.state {
                    Ok(bytes) => format!("{} MiB", bytes >> 20),
                    Err(error) => error.clone(),
                };
                let used = if entry.configured { "configured" } else { "unused" };
                println!("{:<20} {used:<10} {}  {state}", entry.label, entry.disk.display());
            }
        }
        ImageCommand::Verify { label, .. } => {
            let verified = library.verify(&label).map_err(report)?;
            println!(
                "{label}: ok, sha256 {} ({} bytes, {})",
                verified.sha256,
                verified.bytes,
                verified.disk.display()
            );
        }
        ImageCommand::Import {
            file,
            label,
            sha256,
            format,
        } => {
            let format = match format {
                Kind::Qcow2 => Format::Qcow2,
                Kind::Raw => Format::Raw,
            };
            let (imported, _) = library.import(&file, &sha256, &label, format).map_err(report)?;
            println!("{label}: imported as {}", imported.display());
        }
    }
    Ok(Exit::Success)
}

/// The same on a zone host, where golden disks are volumes.
fn golden(config: &Config, command: ImageCommand) -> Outcome {
    let images = Golden {
        node: config.node.clone(),
        root: config.zone.dataset.clone(),
    };
    match command {
        ImageCommand::List { json } => {
            let mut rows = Vec::new();
            for label in config.images.keys() {
                for version in images.versions(label).map_err(report)? {
                    rows.push((label, version));
                }
            }
            if json {
                let rows: Vec<_> = rows
                    .iter()
                    .map(|(label, v)| serde_json::json!({"label": label, "version": v.number, "volume": v.volume.to_string()}))
                    .collect();
                println!("{:#}", serde_json::Value::from(rows));
            } else {
                for (label, version) in rows {
                    println!("{label:<20} v{:<6} {}", version.number, version.volume);
                }
            }
        }
        ImageCommand::Verify { label, .. } => {
            let (version, sha256) = images.verify(&label).map_err(report)?;
            println!("{label}: ok, version {}, sha256 {sha256}", version.number);
        }
        ImageCommand::Import {
            file, label, sha256, ..
        } => {
            let version = images.import(&file, &label, &sha256).map_err(report)?;
            println!("{label}: imported as version {} ({})", version.number, version.volume);
        }
        ImageCommand::Rollback { label } => {
            let version = images.rollback(&label).map_err(report)?;
            println!("{label}: version {} is used from now on", version.number);
        }
        ImageCommand::Remove { label, version } => {
            images.remove_version(&label, version).map_err(report)?;
            println!("{label}: version {version} is gone");
        }
    }
    Ok(Exit::Success)
}
