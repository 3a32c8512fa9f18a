//! `helios-ci image`

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::{Subcommand, ValueEnum};
use miette::miette;
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use serde::Serialize;

use super::local::{pull, trial};
use crate::{
    cli::{Common, Exit, Outcome, client::json_text, commands::image_fetch::Fetched, report, wiring::data_dir},
    config::{Backend, Config},
    exec, files,
    images::{Entry, Format, ImageError, Library, download::Address, parse_digest},
    machine::zone::{
        golden::{Golden, GoldenError},
        life::plan::RUN,
    },
    model::names::Label,
};

/// How long another one's end is waited for.
const LOCK_WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ImageCommand {
    /// List golden disks: those of the configuration, then imported ones it does not use.
    #[command(after_help = "Example:\n  helios-ci image list")]
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Read a golden disk whole and compare its digest with the expected one.
    #[command(after_help = "Examples:\n  helios-ci image verify debian-13\n  helios-ci image verify --boot debian-13")]
    Verify {
        /// Its label.
        label: Label,
        /// Then boot a machine from it, and try what a job needs: agent, network, clock, growth, power-off.
        #[arg(long)]
        boot: bool,
    },
    /// Build the tiny guest, in which `helios-ci run` works without a configuration, into your cache.
    #[command(after_help = "\
On Debian, without privileges: kernel and programs come from the packages of the configured apt sources, some 45 MB, and
about a minute passes. What is missing for it is named. It lies in $XDG_CACHE_HOME/helios-ci, or in ~/.cache/helios-ci;
called again, it builds only when recipe or packages have changed.

Example:
  helios-ci image pull-tiny && helios-ci run")]
    PullTiny,
    /// Copy a disk into the data directory, or onto a volume, checking its digest on the way.
    #[command(after_help = "\
A download lies in DATA_DIR/downloads if the data directory is yours, otherwise in /var/tmp/helios-ci-UID. When it was
cut off, the same command continues where the server allows it. It is removed once it is imported, or when it is not
the file that was expected; one that was left alone for a week goes with the next. https is never left for http; no
proxy is used; addresses hold no password.

Examples:
  helios-ci image import disk.qcow2 debian-13 --sha256 DIGEST
  helios-ci image import https://images.example.org/debian-13.qcow2 debian-13 --sha256 DIGEST")]
    Import {
        /// The disk's file, or an http or https address to fetch it from.
        #[arg(value_name = "FILE|URL")]
        file: PathBuf,
        /// Its label.
        label: Label,
        /// Its SHA-256, 64 hexadecimal digits; of an address's file just the same.
        #[arg(long)]
        sha256: String,
        /// What the file is. With zones it is always a raw disk, or one packed with zstd, and the digest is of the
        /// unpacked disk.
        #[arg(long, value_enum, default_value_t = Kind::Qcow2)]
        format: Kind,
    },
    /// Take an image's newest version out of use (zones only). Machines that run keep it.
    #[command(after_help = "Example:\n  helios-ci image rollback debian-13")]
    Rollback {
        /// Its label.
        label: Label,
    },
    /// Remove a version that nothing uses (zones only).
    #[command(after_help = "Example:\n  helios-ci image remove debian-13 2")]
    Remove {
        /// Its label.
        label: Label,
        /// Its number, as `image list` shows it.
        version: u32,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Kind {
    /// A qcow2 image without a backing file.
    Qcow2,
    /// A raw disk.
    Raw,
}

pub(in crate::cli) async fn run(common: &Common, mut command: ImageCommand) -> Outcome {
    if matches!(command, ImageCommand::PullTiny) {
        // It is for whoever has no configuration.
        return pull::run().await;
    }
    let config = super::config::load(common)?;
    let boot = match &command {
        ImageCommand::Verify { label, boot: true } => Some(label.clone()),
        _ => None,
    };
    if matches!(command, ImageCommand::Import { .. }) && config.backend != Backend::Zone {
        data_dir::make(&config.data_dir)?;
    }
    let fetched = fetched(&config, &mut command).await?;
    let done = on_disk(common, config, command, fetched)?;
    match boot {
        Some(label) => trial::run(common, &label).await,
        None => Ok(done),
    }
}

/// Fetches what is to be imported from an address; its file takes the address's place.
async fn fetched(config: &Config, command: &mut ImageCommand) -> miette::Result<Option<Fetched>> {
    let ImageCommand::Import { file, sha256, .. } = command else {
        return Ok(None);
    };
    let Some(address) = file.to_str().filter(|text| Address::is_meant(text)) else {
        return Ok(None);
    };
    let address = address.parse().map_err(report)?;
    // Before gigabytes travel.
    *sha256 = parse_digest(sha256).map_err(report)?;
    let fetched = Fetched::new(config, address).await?;
    fetched.path().clone_into(file);
    Ok(Some(fetched))
}

/// What to do after an import; `missing` are the keys of the image that the configuration does not have yet.
fn next_step(common: &Common, label: &Label, missing: Option<&[String]>) -> String {
    let try_it = format!("{} image verify {label} --boot", common.program());
    let Some(keys) = missing else {
        return format!("Next: `{try_it}` tries it in a machine of its own.\n");
    };
    let keys: String = keys.iter().map(|key| format!("    {key}\n")).collect();
    format!(
        "Next: put it under `images:` in {},\n\n  {label}:\n{keys}\nthen `{try_it}` tries it in a machine of its own.\n",
        common.config.display()
    )
}

/// What an import ended with, after what was fetched for it was removed, or kept for the next.
fn settled<T, E: std::error::Error + Send + Sync + 'static>(
    fetched: Option<Fetched>,
    imported: Result<T, E>,
    wrong: impl Fn(&E) -> Option<String>,
) -> miette::Result<T> {
    match fetched {
        Some(fetched) => fetched.settle(imported, wrong),
        None => imported.map_err(report),
    }
}

/// One row of `image list --json`, of a disk that is a file.
#[derive(Serialize)]
struct DiskRow<'a> {
    label: &'a Label,
    disk: &'a Path,
    configured: bool,
    sha256: Option<&'a str>,
    bytes: Option<u64>,
    error: Option<&'a str>,
}

impl<'a> DiskRow<'a> {
    fn of(entry: &'a Entry) -> Self {
        Self {
            label: &entry.label,
            disk: &entry.disk,
            configured: entry.configured,
            sha256: entry.sha256.as_deref(),
            bytes: entry.state.as_ref().ok().copied(),
            error: entry.state.as_ref().err().map(String::as_str),
        }
    }
}

/// One row of `image list --json` on a zone host.
#[derive(Serialize)]
struct VolumeRow<'a> {
    label: &'a Label,
    version: u32,
    volume: String,
}

/// All that needs no machine.
fn on_disk(common: &Common, config: Config, command: ImageCommand, fetched: Option<Fetched>) -> Outcome {
    if config.backend == Backend::Zone {
        return golden(common, &config, command, fetched);
    }
    let library = Library::new(&config.data_dir, config.images.clone());
    match command {
        ImageCommand::PullTiny => unreachable!("it needs no configuration"),
        ImageCommand::Rollback { .. } | ImageCommand::Remove { .. } => {
            return Err(miette!(
                help = "import another file, and change `disk` in the configuration",
                "only a zone host keeps several versions of an image"
            ));
        }
        ImageCommand::List { json } => {
            let entries = library.list().map_err(report)?;
            if json {
                let rows: Vec<_> = entries.iter().map(DiskRow::of).collect();
                println!("{}", json_text(&rows)?);
                return Ok(Exit::Success);
            }
            for entry in &entries {
                let state = match &entry.state {
                    Ok(bytes) => format!("{} MiB", bytes >> 20),
                    Err(error) => error.clone(),
                };
                let used = if entry.configured { "configured" } else { "unused" };
                println!(
                    "{:<20} {used:<10} {}  {state}",
                    entry.label.as_str(),
                    entry.disk.display()
                );
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
            let imported = library.import(&file, &sha256, &label, format);
            let (imported, metadata) = settled(fetched, imported, |error| match error {
                ImageError::Mismatch { actual, .. } => Some(format!("its digest is {actual}")),
                _ => None,
            })?;
            println!("{label}: imported as {}", imported.display());
            let is_used = config
                .images
                .get(&label)
                .is_some_and(|image| image.disk.as_deref() == Some(imported.as_path()));
            let keys = [
                format!("disk: {}", imported.display()),
                format!("sha256: {}", metadata.sha256),
            ];
            print!("{}", next_step(common, &label, (!is_used).then_some(&keys)));
        }
    }
    Ok(Exit::Success)
}

/// Only one changes golden disks at a time; and the last command of one that was killed ends first, which holds this
/// lock too.
fn alone(run: &Path) -> miette::Result<fs::File> {
    let path = run.join("images.lock");
    let cannot = |e: &dyn std::fmt::Display| miette!("cannot lock {}: {e}", path.display());
    files::public_dir(run).map_err(|e| cannot(&e))?;
    // Readable and empty: commands get it as their standard input.
    let mut options = fs::OpenOptions::new();
    let file = options
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .map_err(|e| cannot(&e))?;
    let until = Instant::now() + LOCK_WITHIN;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) if Instant::now() < until => {
                #[allow(clippy::disallowed_methods, reason = "nothing tells when a lock is free")]
                std::thread::sleep(Duration::from_millis(100));
            }
            Err(Errno::WOULDBLOCK) => {
                return Err(miette!(
                    help = "wait until it has ended; `fuser` on the file names who holds it",
                    "{} is held by another `helios-ci image`, or by the last command of one",
                    path.display()
                ));
            }
            Err(errno) => return Err(cannot(&errno)),
        }
    }
}

/// The same on a zone host, where golden disks are volumes.
fn golden(common: &Common, config: &Config, command: ImageCommand, fetched: Option<Fetched>) -> Outcome {
    let images = Golden {
        node: config.node.clone(),
        root: config.zone.dataset.clone(),
    };
    let changes = !matches!(command, ImageCommand::List { .. } | ImageCommand::Verify { .. });
    if changes {
        exec::children_hold(alone(Path::new(RUN))?);
    }
    match command {
        ImageCommand::PullTiny => unreachable!("it needs no configuration"),
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
                    .map(|(label, version)| VolumeRow {
                        label,
                        version: version.number,
                        volume: version.volume.to_string(),
                    })
                    .collect();
                println!("{}", json_text(&rows)?);
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
            let version = settled(fetched, images.import(&file, &label, &sha256), GoldenError::wrong_file)?;
            println!("{label}: imported as version {} ({})", version.number, version.volume);
            let keys = ["kind: linux-uefi    # or linux-bios, illumos".to_owned()];
            let is_used = config.images.contains_key(&label);
            print!("{}", next_step(common, &label, (!is_used).then_some(&keys)));
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
