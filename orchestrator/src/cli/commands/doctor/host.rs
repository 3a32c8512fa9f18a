//! Where the daemon's files are: data directory, database, disk, listeners.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::MetadataExt,
    time::Duration,
};

use nix::unistd::Uid;

use super::{Findings, Line};
use crate::{
    cli::wiring::data_dir,
    config::{Config, Database},
    error_chain::chain,
    files::free_bytes,
    node::DataLock,
    store::{Inspection, inspect},
};

const INODES: u64 = 10_000;

pub(super) async fn check(config: &Config, findings: &mut Findings) {
    let running = directory(config, findings);
    database(config, findings).await;
    disk(config, findings);
    findings.add(listener("listen", config.listen, running));
    if let Some(at) = config.metrics_listen {
        findings.add(listener("metrics_listen", at, running));
    }
}

/// Whether a daemon runs here.
fn directory(config: &Config, findings: &mut Findings) -> bool {
    let (dir, name) = (&config.data_dir, "data directory");
    let shown = dir.display();
    let meta = match fs::metadata(dir) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = dir.ancestors().find(|parent| parent.exists());
            let usable = parent.is_some_and(|p| nix::unistd::access(p, nix::unistd::AccessFlags::W_OK).is_ok());
            findings.add(if usable {
                Line::ok(name, format!("{shown} does not exist yet; the daemon makes it"))
            } else {
                let fix = format!("mkdir -m 0700 {shown} && chown helios-ci {shown}");
                Line::failure(
                    name,
                    format!("{shown} does not exist and cannot be made by this user"),
                    fix,
                )
            });
            return false;
        }
        Err(error) => {
            findings.add(Line::failure(
                name,
                format!("{shown}: {error}"),
                "check the path and its rights",
            ));
            return false;
        }
    };
    if !meta.is_dir() {
        findings.add(Line::failure(
            name,
            format!("{shown} is no directory"),
            "name another `data_dir`",
        ));
        return false;
    }
    // Root may inspect what is another's, and on a zone host has more to inspect.
    if meta.uid() != Uid::effective().as_raw() && !Uid::effective().is_root() {
        let detail = format!(
            "{shown} belongs to user {}, this is user {}",
            meta.uid(),
            Uid::effective()
        );
        findings.add(Line::warning(name, detail, "run doctor as the daemon's user"));
    }
    if let Err(open) = data_dir::check(dir) {
        let fix = miette::Diagnostic::help(&open).map_or_else(String::new, |fix| fix.to_string());
        findings.add(Line::failure(name, open, fix));
        return false;
    }
    let (running, words) = match DataLock::is_held(dir) {
        Ok(false) => (false, "no daemon runs here"),
        Ok(true) => (true, "a daemon runs here"),
        Err(error) => {
            findings.add(Line::failure(
                name,
                chain(&error),
                format!("chown -R helios-ci {shown}"),
            ));
            return false;
        }
    };
    findings.add(Line::ok(name, format!("{shown}, {words}")));
    running
}

async fn database(config: &Config, findings: &mut Findings) {
    let (name, place) = match &config.database {
        Database::Sqlite(path) => ("database", path.display().to_string()),
        Database::Postgres(_) => ("database", "Postgres".to_owned()),
    };
    findings.add(match inspect(&config.database).await {
        Ok(Inspection::Absent) => Line::ok(name, format!("{place} does not exist yet; the daemon makes it")),
        Ok(Inspection::Present {
            damage: Some(damage), ..
        }) => Line::failure(
            name,
            format!("{place} is damaged: {damage}"),
            "stop the daemon and restore the last backup",
        ),
        Ok(Inspection::Present { version, ours, .. }) if version > ours => Line::failure(
            name,
            format!("{place} was written by a later helios-ci (schema {version}, this one knows {ours})"),
            "install that version again, or restore the backup made before the upgrade",
        ),
        Ok(Inspection::Present { version, ours, .. }) if version < ours => Line::ok(
            name,
            format!("{place}, schema {version}; the daemon brings it to {ours} at its start"),
        ),
        Ok(Inspection::Present { version, .. }) => Line::ok(name, format!("{place}, schema {version}")),
        Err(error) => Line::failure(name, chain(&error), "check the path, the address and the rights"),
    });
}

fn disk(config: &Config, findings: &mut Findings) {
    let Some(dir) = config.data_dir.ancestors().find(|dir| dir.exists()) else {
        return;
    };
    let least = config.limits.min_free_bytes;
    let (name, gib) = ("disk", |bytes: u64| bytes as f64 / f64::from(1 << 30));
    findings.add(match free_bytes(dir) {
        Ok(free) if free < least => Line::failure(
            name,
            format!(
                "{:.1} GiB are free at {}, new jobs need {:.1}",
                gib(free),
                dir.display(),
                gib(least)
            ),
            "make room, or lower limits.min_free_bytes",
        ),
        Ok(free) if free < least.saturating_mul(2) => Line::warning(
            name,
            format!("{:.1} GiB are free; below {:.1} no job starts", gib(free), gib(least)),
            "make room",
        ),
        Ok(free) => Line::ok(name, format!("{:.1} GiB are free", gib(free))),
        Err(error) => Line::failure(name, format!("{}: {error}", dir.display()), "check the path"),
    });
    // Some file systems have no fixed number of them and say 0.
    if let Ok(stat) = nix::sys::statvfs::statvfs(dir) {
        #[allow(clippy::useless_conversion, reason = "these types differ between systems")]
        let (all, free) = (u64::from(stat.files()), u64::from(stat.files_available()));
        if all > 0 && free < INODES {
            findings.add(Line::warning(
                "inodes",
                format!("{free} are free"),
                "remove files or make a larger file system",
            ));
        }
    }
}

fn listener(name: &str, at: SocketAddr, running: bool) -> Line {
    match TcpListener::bind(at) {
        Ok(_) if running => Line::warning(
            name,
            format!("nobody listens on {at} although a daemon runs here"),
            "was the configuration changed? Restart the daemon",
        ),
        Ok(_) => Line::ok(name, format!("{at} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && running => {
            match TcpStream::connect_timeout(&at, Duration::from_secs(2)) {
                Ok(_) => Line::ok(name, format!("the daemon answers on {at}")),
                Err(error) => Line::warning(name, format!("{at}: {error}"), "look at the daemon's log"),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Line::failure(
            name,
            format!("another program listens on {at}"),
            format!("stop it, or choose another `{name}`"),
        ),
        Err(error) => Line::failure(name, format!("{at}: {error}"), format!("choose another `{name}`")),
    }
}
