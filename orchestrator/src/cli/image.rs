//! `helios-ci image`

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};

use super::{Common, Exit, Outcome, report};
use crate::{
    images::{Format, Library},
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
        /// What the file is.
        #[arg(long, value_enum, default_value_t = Kind::Qcow2)]
        format: Kind,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    /// A qcow2 image without a backing file.
    Qcow2,
    /// A raw disk.
    Raw,
}

pub(super) fn run(common: &Common, command: ImageCommand) -> Outcome {
    let config = super::config::load(common)?;
    let library = Library::new(&config.data_dir, config.images);
    match command {
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
        ImageCommand::Verify { label } => {
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
