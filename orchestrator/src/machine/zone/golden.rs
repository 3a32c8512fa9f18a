//! Golden disks as volumes: `images/LABEL/vN@gold`, held. An import writes into `.new-vN` and gives it its name only
//! when all of it was read back; a version that is in use is never touched.

mod raw;

use std::{
    fmt, io,
    path::Path,
    time::{Duration, Instant},
};

use nix::errno::Errno;

use super::{
    command::{CommandError, Failure, zfs},
    host::unless_absent,
};
use crate::{
    exec::{Cmd, ExecError},
    failpoint::{self, Point},
    machine::zone::{life::plan::golden, owned::Owned},
    model::{
        illumos::names::{DatasetName, Unfit, VolumeSize},
        names::{Label, NodeName},
    },
};

/// Where a digest is kept.
const DIGEST: &str = "helios-ci:sha256";
/// How many bytes the digest is of; the volume may be larger by less than one block.
const BYTES: &str = "helios-ci:bytes";
/// What is not yet a version.
const DRAFT: &str = ".new-v";
/// What is one no longer.
const WITHDRAWN: &str = ".withdrawn-v";
/// A device that was just written to is no longer open after this long.
const SETTLED: Duration = Duration::from_secs(10);

/// A step of an import that reads the file or writes the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportStep {
    /// Opening the file.
    Open,
    /// Reading and decompressing all of it.
    Unpack,
    /// Writing it to the raw device.
    Write,
}

impl fmt::Display for ImportStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Unpack => "read",
            Self::Write => "write",
        })
    }
}

/// An operation on golden disks that failed.
#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    /// A name that illumos would not take.
    #[error(transparent)]
    Name(#[from] Unfit),
    /// A command could not be run.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// A command of the host failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The file or the device.
    #[error("cannot {step} {path}")]
    Io {
        /// The step that failed.
        step: ImportStep,
        /// The file, or the raw device.
        path: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// Another file, or a damaged one.
    #[error(
        "{path} unpacks to a disk with the digest {actual}, expected {expected}: fetch it again; nothing was changed"
    )]
    Digest {
        /// The file.
        path: String,
        /// The digest that it should have.
        expected: String,
        /// The digest that it has.
        actual: String,
    },
    /// No room for it.
    #[error(
        "no room for the disk of {path}, {bytes} bytes of which only empty ones take none: {available} bytes were left below {image} when it ended; remove old versions with `helios-ci image remove`, or enlarge the pool; nothing of it was kept"
    )]
    Full {
        /// The file.
        path: String,
        /// Size of the unpacked disk.
        bytes: u64,
        /// Where it should go.
        image: String,
        /// Room, in bytes.
        available: u64,
        /// The error of the write that found no room.
        #[source]
        source: Box<GoldenError>,
    },
    /// What was written is not what is read.
    #[error("{volume} does not read back as it was written: look at `zpool status`; it was not put into use")]
    Damaged {
        /// The volume.
        volume: String,
    },
    /// What was written cannot be read at all, which is neither the file's fault nor the pool's fullness.
    #[error(
        "{device} cannot be read back: look at `zpool status` and `dmesg`; what was imported was not put into use, and what \
         is in use stays so"
    )]
    Unreadable {
        /// The raw device.
        device: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// Not a disk of ours.
    #[error("{dataset} does not carry the owner tag of node {node}; it is left alone")]
    Foreign {
        /// The dataset.
        dataset: String,
        /// This node.
        node: String,
    },
    /// Nothing to go back to, or nothing at all.
    #[error("{0}")]
    Nothing(String),
}

impl GoldenError {
    /// What is wrong with the file itself, so that it must be fetched again; not with this host.
    #[must_use]
    pub fn wrong_file(&self) -> Option<String> {
        match self {
            Self::Digest { actual, .. } => Some(format!("it unpacks to a disk with the digest {actual}")),
            // Errors of the system, unlike those of the format, have a number.
            Self::Io {
                step: ImportStep::Unpack,
                source,
                ..
            } if source.raw_os_error().is_none() => Some(format!("it cannot be unpacked: {source}")),
            _ => None,
        }
    }

    /// Whether a pool or a quota had no room for it, where so many bytes are left. A device may say so with EIO only.
    fn is_full(&self, available: u64, bytes: u64) -> bool {
        match self {
            Self::Command(error) => error.failure == Failure::Full,
            Self::Io { source, .. } => match source.raw_os_error().map(Errno::from_raw) {
                Some(Errno::ENOSPC | Errno::EDQUOT) => true,
                Some(Errno::EIO) => available < bytes,
                _ => false,
            },
            _ => false,
        }
    }
}

fn io_error(step: ImportStep, path: impl ToString) -> impl FnOnce(io::Error) -> GoldenError {
    let path = path.to_string();
    move |source| GoldenError::Io { step, path, source }
}

/// The golden disks of one node. All its calls block, and need root.
#[derive(Debug, Clone)]
pub struct Golden {
    /// The node that owns the disks.
    pub node: NodeName,
    /// The dataset below which everything is ours.
    pub root: DatasetName,
}

/// A version of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Its number; the highest is used.
    pub number: u32,
    /// The volume.
    pub volume: DatasetName,
}

impl Version {
    /// Reads the disk's first block, as bhyve will.
    ///
    /// # Errors
    /// When its device cannot be read.
    pub fn is_readable(&self) -> Result<(), GoldenError> {
        let device = self.volume.device()?.to_string();
        raw::first_block(Path::new(&device)).map_err(|source| GoldenError::Unreadable { device, source })
    }
}

impl Golden {
    fn image(&self, label: &Label) -> Result<DatasetName, GoldenError> {
        Ok(self.root.child("images")?.child(label.as_str())?)
    }

    fn run(&self, command: Cmd) -> Result<Result<(), CommandError>, GoldenError> {
        Ok(zfs::done(&command.run_blocking()?))
    }

    fn act(&self, command: Cmd) -> Result<(), GoldenError> {
        Ok(self.run(command)??)
    }

    /// A dataset that exists and is ours; an error when it is another's.
    fn owned(&self, dataset: &DatasetName) -> Result<Option<Owned<DatasetName>>, GoldenError> {
        match zfs::dataset(dataset, &zfs::query(dataset).run_blocking()?)? {
            Some(seen) if seen.node.as_deref() != Some(self.node.as_str()) => Err(GoldenError::Foreign {
                dataset: dataset.to_string(),
                node: self.node.to_string(),
            }),
            seen => Ok(seen.map(|_| Owned::by_rule(dataset.clone()))),
        }
    }

    /// As [`Self::owned`], for one that must be there.
    fn ours(&self, dataset: &DatasetName) -> Result<Owned<DatasetName>, GoldenError> {
        let ours = self.owned(dataset)?;
        ours.ok_or_else(|| GoldenError::Nothing(format!("there is no {dataset} any more")))
    }

    /// The versions of an image, the newest last.
    ///
    /// # Errors
    /// When ZFS cannot be asked.
    pub fn versions(&self, label: &Label) -> Result<Vec<Version>, GoldenError> {
        let image = self.image(label)?;
        let numbers = zfs::versions(&image, &zfs::list_snapshots(&image).run_blocking()?)?;
        numbers
            .into_iter()
            .map(|number| {
                Ok(Version {
                    number,
                    volume: image.child(&format!("v{number}"))?,
                })
            })
            .collect()
    }

    /// Imports a raw disk, or a raw disk packed with zstd, as the next version; `sha256` is of the unpacked disk.
    /// Machines that run keep theirs. The version before the last is removed when nothing uses it.
    ///
    /// It may die anywhere: the next import begins again with what is not in use yet, and ends what an earlier one left
    /// undone. When the newest version is this very disk already, nothing is imported.
    ///
    /// # Errors
    /// When the file is not the expected one (then nothing was changed), ZFS refuses, there is no room, or what was
    /// written is not what is read back.
    pub fn import(&self, file: &Path, label: &Label, sha256: &str) -> Result<Version, GoldenError> {
        let expected = sha256.to_ascii_lowercase();
        // All of the file is read before anything is made.
        let mut disk = raw::unpacked(file).map_err(io_error(ImportStep::Open, file.display()))?;
        let (actual, bytes) = raw::digest(&mut disk).map_err(io_error(ImportStep::Unpack, file.display()))?;
        if actual != expected {
            return Err(GoldenError::Digest {
                path: file.display().to_string(),
                expected,
                actual,
            });
        }
        let image = self.image(label)?;
        if self.owned(&image)?.is_none() {
            self.act(zfs::create_filesystem(&image, &self.node, &[]))?;
        }
        // First, as they take room: what an earlier import left.
        self.clear(label, |name| !name.starts_with(WITHDRAWN))?;
        let version = match self.versions(label)?.pop() {
            Some(newest) if self.is_whole(&newest.volume, &expected) => newest,
            _ => self.draft(file, label, &expected, bytes)?,
        };
        failpoint::hit(Point::ImageNamed);
        self.retire(label)?;
        Ok(version)
    }

    /// Makes a new version out of a file.
    fn draft(&self, file: &Path, label: &Label, expected: &str, bytes: u64) -> Result<Version, GoldenError> {
        let image = self.image(label)?;
        let names = zfs::children(&image, &zfs::list(&image).run_blocking()?)?;
        // A version that was rolled back keeps its number: a new disk is not confused with it.
        let number = names.iter().filter_map(|name| number_of(name)).max().unwrap_or(0) + 1;
        let draft = image.child(&format!("{DRAFT}{number}"))?;
        let volume = image.child(&format!("v{number}"))?;
        let made = self.fill(file, &draft, expected, bytes);
        if let Err(error) = made.and_then(|()| self.act(zfs::rename(&self.ours(&draft)?, &volume))) {
            let left = zfs::space(&image).run_blocking().ok();
            let available = left.and_then(|output| zfs::available(&output).ok()).flatten();
            if let Err(left) = self.discard(&draft) {
                tracing::warn!(volume = %draft, error = %left, "half a disk is left; the next import of this image removes it");
            }
            return Err(match available {
                Some(available) if error.is_full(available, bytes) => GoldenError::Full {
                    path: file.display().to_string(),
                    bytes,
                    image: image.to_string(),
                    available,
                    source: Box::new(error),
                },
                _ => error,
            });
        }
        Ok(Version { number, volume })
    }

    /// Makes a volume out of a file, up to its held snapshot.
    fn fill(&self, file: &Path, draft: &DatasetName, expected: &str, bytes: u64) -> Result<(), GoldenError> {
        self.act(zfs::create_volume(draft, &self.node, VolumeSize::at_least(bytes)))?;
        failpoint::hit(Point::ImageDrafted);
        let device = draft.device()?.to_string();
        let mut disk = raw::unpacked(file).map_err(io_error(ImportStep::Open, file.display()))?;
        raw::write(&mut disk, Path::new(&device)).map_err(io_error(ImportStep::Write, &device))?;
        if !reads_as(draft, expected, bytes)? {
            return Err(GoldenError::Damaged {
                volume: draft.to_string(),
            });
        }
        failpoint::hit(Point::ImageReadBack);
        self.act(zfs::set(draft, DIGEST, expected))?;
        self.act(zfs::set(draft, BYTES, &bytes.to_string()))?;
        let gold = draft.snapshot("gold")?;
        self.act(zfs::snapshot(&gold))?;
        failpoint::hit(Point::ImageSnapped);
        self.act(zfs::hold(&gold))?;
        failpoint::hit(Point::ImageHeld);
        Ok(())
    }

    /// Keeps the two newest versions, held, and removes what is older or was withdrawn and is used by no machine.
    fn retire(&self, label: &Label) -> Result<(), GoldenError> {
        for (age, version) in self.versions(label)?.iter().rev().enumerate() {
            if age < 2 {
                // A removal that was refused or died may have left it without.
                match self.run(zfs::hold(&golden(&self.root, label, version.number)?))? {
                    Err(error) if error.failure != Failure::Exists => return Err(error.into()),
                    _ => {}
                }
            } else if let Err(error) = self.remove_version(label, version.number) {
                tracing::warn!(image = %label, version = version.number, %error, "an old version is kept: something still uses it");
            }
        }
        self.clear(label, |_| true)
    }

    /// Removes volumes of ours that are neither in use nor used by a machine: drafts, halves of a removal, withdrawn
    /// versions.
    fn clear(&self, label: &Label, wanted: impl Fn(&str) -> bool) -> Result<(), GoldenError> {
        let image = self.image(label)?;
        let used: Vec<String> = self.versions(label)?.iter().map(|v| format!("v{}", v.number)).collect();
        for name in zfs::children_by_owner(&image, &self.node, &zfs::list(&image).run_blocking()?)?.ours {
            let known = number_of(&name).is_some() || name.starts_with(DRAFT);
            if !known || !wanted(&name) || used.contains(&name) {
                continue;
            }
            match self.discard(&image.child(&name)?) {
                Err(GoldenError::Command(error)) if error.is_busy() => {
                    tracing::warn!(image = %label, volume = name, %error, "it is kept: something still uses it");
                }
                done => done?,
            }
        }
        Ok(())
    }

    /// Takes the newest version out of use; machines that run keep it. Returns the one that is used now.
    ///
    /// # Errors
    /// When there is no version before it.
    pub fn rollback(&self, label: &Label) -> Result<Version, GoldenError> {
        let mut versions = self.versions(label)?;
        let (Some(newest), Some(before)) = (versions.pop(), versions.pop()) else {
            return Err(GoldenError::Nothing(format!(
                "image {label} has no version to go back to"
            )));
        };
        let withdrawn = self.image(label)?.child(&format!("{WITHDRAWN}{}", newest.number))?;
        self.act(zfs::rename(&self.ours(&newest.volume)?, &withdrawn))?;
        Ok(before)
    }

    /// Removes one version, withdrawn or not: never while a machine is a clone of it.
    ///
    /// # Errors
    /// When it is in use, or not ours.
    pub fn remove_version(&self, label: &Label, number: u32) -> Result<(), GoldenError> {
        let image = self.image(label)?;
        for name in [format!("v{number}"), format!("{WITHDRAWN}{number}")] {
            let volume = image.child(&name)?;
            if self.owned(&volume)?.is_some() {
                return self.discard(&volume);
            }
        }
        Err(GoldenError::Nothing(format!(
            "there is no version {number} of image {label}"
        )))
    }

    /// Removes an image with all its versions; one that is not there is removed.
    ///
    /// # Errors
    /// When a machine is a clone of it, or it is another's.
    pub fn remove_image(&self, label: &Label) -> Result<(), GoldenError> {
        let image = self.image(label)?;
        let Some(ours) = self.owned(&image)? else {
            return Ok(());
        };
        for name in zfs::children_by_owner(&image, &self.node, &zfs::list(&image).run_blocking()?)?.ours {
            self.discard(&image.child(&name)?)?;
        }
        self.act(zfs::destroy(&ours))
    }

    /// Reads a version's disk whole and compares its digest with the one noted at its import.
    ///
    /// # Errors
    /// When it is another, or none was noted.
    pub fn verify(&self, label: &Label) -> Result<(Version, String), GoldenError> {
        let newest = self.versions(label)?.pop();
        let newest = newest.ok_or_else(|| GoldenError::Nothing(format!("image {label} has no version here")))?;
        let Some((digest, bytes)) = self.noted(&newest.volume)? else {
            return Err(GoldenError::Nothing(format!(
                "{} has no digest: import it again",
                newest.volume
            )));
        };
        if !reads_as(&newest.volume, &digest, bytes)? {
            return Err(GoldenError::Damaged {
                volume: newest.volume.to_string(),
            });
        }
        Ok((newest, digest))
    }

    /// The digest that was noted at a version's import, and of how many bytes it is.
    fn noted(&self, volume: &DatasetName) -> Result<Option<(String, u64)>, GoldenError> {
        let mut noted = zfs::noted(&zfs::get(volume, &[DIGEST, BYTES]).run_blocking()?)?;
        let bytes = noted.get(BYTES).and_then(|bytes| bytes.parse().ok());
        Ok(noted.remove(DIGEST).zip(bytes))
    }

    /// Whether a volume is this disk, and undamaged; one that cannot be read is not.
    fn is_whole(&self, volume: &DatasetName, expected: &str) -> bool {
        match self.noted(volume) {
            Ok(Some((digest, bytes))) => digest == expected && reads_as(volume, &digest, bytes).unwrap_or(false),
            _ => false,
        }
    }

    /// Destroys a volume of ours with its golden snapshot, whatever of it is there. One that a machine is a clone of
    /// stays whole.
    fn discard(&self, volume: &DatasetName) -> Result<(), GoldenError> {
        let Some(volume) = self.owned(volume)? else {
            return Ok(());
        };
        let gold = volume.snapshot("gold")?;
        unless_absent(self.run(zfs::release(&gold))?)?;
        if let Err(error) = unless_absent(self.run(zfs::destroy_snapshot(&gold))?) {
            // Held again, as it was.
            self.act(zfs::hold(&gold))?;
            return Err(error.into());
        }
        let until = Instant::now() + SETTLED;
        loop {
            match unless_absent(self.run(zfs::destroy(&volume))?) {
                Err(error) if error.is_busy() && Instant::now() < until => {
                    #[allow(clippy::disallowed_methods, reason = "nothing tells when a device was let go")]
                    std::thread::sleep(Duration::from_millis(200));
                }
                done => return Ok(done?),
            }
        }
    }
}

/// Whether a volume's first bytes have this digest, and zeroes follow up to the size that ZFS gives it.
fn reads_as(volume: &DatasetName, digest: &str, bytes: u64) -> Result<bool, GoldenError> {
    let device = volume.device()?.to_string();
    let size = zfs::dataset(volume, &zfs::query(volume).run_blocking()?)?.and_then(|seen| seen.volsize);
    let size = size.ok_or_else(|| GoldenError::Nothing(format!("zfs says no size of {volume}")))?;
    match raw::read_back(Path::new(&device), bytes, size) {
        Ok((actual, rest)) => Ok(actual == digest && rest),
        Err(source) => Err(GoldenError::Unreadable { device, source }),
    }
}

/// The number of a version, in use or withdrawn, by its volume's name.
fn number_of(name: &str) -> Option<u32> {
    let number = name.strip_prefix(WITHDRAWN).or_else(|| name.strip_prefix('v'))?;
    number.parse().ok()
}
