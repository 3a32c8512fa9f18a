//! Puts a configuration and its secrets where they belong: each file whole or not at all, with its mode and owner, and
//! never over one that exists.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
};

use miette::miette;
use nix::unistd::{AccessFlags, Gid, Uid, User, access};

use crate::{
    config::{Config, LoadOptions},
    files,
    secret::Secret,
};

/// The daemon's user where services and packages make one.
const USUAL: &str = "helios-ci";

/// The user who runs the daemon: secrets are that user's.
#[derive(Debug, Clone)]
pub(super) struct Owner {
    pub name: String,
    uid: Uid,
    gid: Gid,
}

impl Owner {
    /// The one that is named; else, for root, `helios-ci` where there is such a user, and whoever calls.
    pub(super) fn find(named: Option<&str>) -> miette::Result<Self> {
        let me = nix::unistd::geteuid();
        let known = |name: &str| User::from_name(name).map_err(|e| miette!("cannot look up the user {name}: {e}"));
        let user = match named {
            Some(name) => Some(known(name)?.ok_or_else(|| {
                miette!(
                    help = format!("useradd {name}, or name another by --owner"),
                    "there is no user {name}"
                )
            })?),
            None if me.is_root() => known(USUAL)?,
            None => None,
        };
        let owner = match user {
            Some(user) => Self {
                name: user.name,
                uid: user.uid,
                gid: user.gid,
            },
            None => Self {
                name: User::from_uid(me)
                    .ok()
                    .flatten()
                    .map_or_else(|| me.to_string(), |user| user.name),
                uid: me,
                gid: nix::unistd::getegid(),
            },
        };
        if owner.uid != me && !me.is_root() {
            return Err(miette!(
                help = "run it as that user, or as root",
                "only root can write files for {}",
                owner.name
            ));
        }
        Ok(owner)
    }
}

/// What is to be written.
pub(super) struct Files<'a> {
    pub config: &'a Path,
    /// The folder of the secrets.
    pub secrets: &'a Path,
    /// Name and content of each secret.
    pub contents: &'a [(String, Secret)],
    pub owner: &'a Owner,
}

/// What may not be overwritten and exists.
pub(super) fn refuse_existing<'a>(paths: impl IntoIterator<Item = &'a Path>) -> miette::Result<()> {
    match paths.into_iter().find(|path| fs::symlink_metadata(path).is_ok()) {
        None => Ok(()),
        Some(path) => Err(exists(path)),
    }
}

/// Whether the folder of a file can be written to, or made, as far as can be seen without doing it.
pub(super) fn check_writable(file: &Path) -> miette::Result<()> {
    let there = file.ancestors().skip(1).find(|dir| fs::symlink_metadata(dir).is_ok());
    let dir = there.unwrap_or(Path::new("/"));
    let cannot = |reason: &dyn std::fmt::Display| {
        miette!(
            help = "as root, or name another place by --config",
            "cannot write {} below {}: {reason}; nothing was written",
            file.display(),
            dir.display()
        )
    };
    if !dir.is_dir() {
        return Err(cannot(&"that is no directory"));
    }
    access(dir, AccessFlags::W_OK | AccessFlags::X_OK).map_err(|error| cannot(&error))
}

fn exists(path: &Path) -> miette::Report {
    miette!(
        help = "nothing is overwritten: remove it, or name another place by --config, or another connection by --name",
        "{} exists already; nothing was written",
        path.display()
    )
}

impl Files<'_> {
    /// Writes all of it, the configuration last, once it is known to be right; `text` makes it for a folder of secrets.
    /// Returns what was written.
    pub(super) fn write(&self, text: impl Fn(&Path) -> String) -> miette::Result<Vec<PathBuf>> {
        let targets = || self.contents.iter().map(|(name, _)| self.secrets.join(name));
        let all: Vec<PathBuf> = targets().chain([self.config.to_owned()]).collect();
        refuse_existing(all.iter().map(PathBuf::as_path))?;
        let dir = self.config.parent().unwrap_or(Path::new("/"));
        let cannot = |what: &Path| {
            let what = what.display().to_string();
            move |e: io::Error| miette!("cannot write {what}: {e}; nothing was written")
        };
        files::public_dir(dir).map_err(cannot(dir))?;
        // Beside the final places, so that a link is enough to give a file its name.
        let stage = tempfile::Builder::new()
            .prefix(".init-")
            .tempdir_in(dir)
            .map_err(cannot(dir))?;
        for (name, secret) in self.contents {
            let owner = (self.owner.uid, self.owner.gid);
            self.stage(&stage.path().join(name), secret.expose().as_bytes(), 0o600, owner)
                .map_err(cannot(&self.secrets.join(name)))?;
        }
        let loaded = Config::parse(self.config, &text(stage.path()), LoadOptions::default())?;
        for warning in &loaded.warnings {
            eprintln!("{warning}");
        }
        self.make_folder()?;
        // Its writer's, and to be read by the daemon.
        let owner = (nix::unistd::geteuid(), self.owner.gid);
        let staged = stage.path().join("config.yaml");
        self.stage(&staged, text(self.secrets).as_bytes(), 0o640, owner)
            .map_err(cannot(self.config))?;
        let staged = self
            .contents
            .iter()
            .map(|(name, _)| stage.path().join(name))
            .chain([staged]);
        for (number, (staged, path)) in staged.zip(&all).enumerate() {
            // Unlike a rename, a link never replaces anything.
            if let Err(error) = fs::hard_link(&staged, path) {
                for written in &all[..number] {
                    let _undone_as_far_as_possible = fs::remove_file(written);
                }
                return Err(match error.kind() {
                    io::ErrorKind::AlreadyExists => exists(path),
                    _ => cannot(path)(error),
                });
            }
        }
        for dir in [self.secrets, dir] {
            fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(|e| {
                miette!(
                    "{} is written, but a power failure now may take it away: {e}",
                    self.config.display()
                )
            })?;
        }
        Ok(all)
    }

    fn stage(&self, path: &Path, bytes: &[u8], mode: u32, (uid, gid): (Uid, Gid)) -> io::Result<()> {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(bytes)?;
        if nix::unistd::geteuid().is_root() {
            fchown(&file, Some(uid.as_raw()), Some(gid.as_raw()))?;
        }
        // Whatever the umask leaves.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()
    }

    /// The folder of the secrets: made for its owner alone; one that exists stays as it is.
    fn make_folder(&self) -> miette::Result<()> {
        let shown = self.secrets.display();
        match fs::DirBuilder::new().mode(0o700).create(self.secrets) {
            Ok(()) => {
                if nix::unistd::geteuid().is_root() {
                    std::os::unix::fs::chown(
                        self.secrets,
                        Some(self.owner.uid.as_raw()),
                        Some(self.owner.gid.as_raw()),
                    )
                    .map_err(|e| miette!("cannot give {shown} to {}: {e}; nothing was written", self.owner.name))?;
                }
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match fs::metadata(self.secrets) {
                Ok(meta) if meta.is_dir() && meta.mode() & 0o022 == 0 => Ok(()),
                Ok(meta) if meta.is_dir() => Err(miette!(
                    help = format!("chmod go-w {shown}"),
                    "others can write to {shown}, so no secret is put there; nothing was written"
                )),
                _ => Err(miette!("{shown} is no directory; nothing was written")),
            },
            Err(error) => Err(miette!("cannot make {shown}: {error}; nothing was written")),
        }
    }
}
