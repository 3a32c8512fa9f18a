//! Golden disks as volumes: `images/LABEL/vN@gold`, held. An import writes into `.new-vN` and gives it its name only
//! when all of it was read back; a version that is in use is never touched.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

use sha2::{Digest, Sha256};

use super::{
    command::{CommandError, zfs},
    plan::golden,
};
use crate::{
    exec::{Cmd, ExecError},
    model::{
        illumos::names::{DatasetName, Unfit, VolumeSize},
        names::{Label, NodeName},
    },
};

/// What is read and written at a time: zeroes of this size are not written at all.
const BLOCK: usize = 1 << 20;
/// Where a digest is kept.
const DIGEST: &str = "helios-ci:sha256";
/// How many bytes the digest is of; the volume may be larger by less than one block.
const BYTES: &str = "helios-ci:bytes";
/// A zstd frame begins so (RFC 8878).
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// A new volume's device can be opened after this long at the latest.
const DEVICE: Duration = Duration::from_secs(2);
/// Largest disk that is imported.
const LARGEST: u64 = 16 << 40;

/// An operation on golden disks that failed.
#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    /// A name that illumos would not take.
    #[error(transparent)]
    Name(#[from] Unfit),
    /// A command could not be run.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// A command failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The file or the device.
    #[error("cannot {doing} {path}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: String,
        /// The system's word.
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
        /// What it should be.
        expected: String,
        /// What it is.
        actual: String,
    },
    /// What was written is not what is read.
    #[error("{volume} does not read back as it was written: look at `zpool status`; it was not put into use")]
    Damaged {
        /// The volume.
        volume: String,
    },
    /// Not a disk of ours.
    #[error("{dataset} does not carry the mark of node {node}; it is left alone")]
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

fn io_error(doing: &'static str, path: impl ToString) -> impl FnOnce(io::Error) -> GoldenError {
    let path = path.to_string();
    move |source| GoldenError::Io { doing, path, source }
}

/// The golden disks of one node. All its calls block, and need root.
#[derive(Debug, Clone)]
pub struct Golden {
    /// Whose they are.
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
    fn owned(&self, dataset: &DatasetName) -> Result<Option<zfs::Seen>, GoldenError> {
        match zfs::seen(dataset, &zfs::look(dataset).run_blocking()?)? {
            Some(seen) if seen.node.as_deref() != Some(self.node.as_str()) => Err(GoldenError::Foreign {
                dataset: dataset.to_string(),
                node: self.node.to_string(),
            }),
            seen => Ok(seen),
        }
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
    /// # Errors
    /// When the file is not the expected one (then nothing was changed), ZFS refuses, or what was written is
    /// not what is read back.
    pub fn import(&self, file: &Path, label: &Label, sha256: &str) -> Result<Version, GoldenError> {
        let expected = sha256.to_ascii_lowercase();
        // All of the file is read before anything is made.
        let mut disk = unpacked(file)?;
        let (actual, bytes) = digest(&mut disk, u64::MAX).map_err(io_error("read", file.display()))?;
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
        let number = self.versions(label)?.last().map_or(1, |version| version.number + 1);
        let draft = image.child(&format!(".new-v{number}"))?;
        self.discard(&draft)?;
        self.act(zfs::create_volume(&draft, &self.node, VolumeSize::at_least(bytes)))?;
        let device = draft.device()?.to_string();
        write_disk(&mut unpacked(file)?, Path::new(&device)).map_err(io_error("write", &device))?;
        let (read, rest) = read_back(Path::new(&device), bytes).map_err(io_error("read", &device))?;
        if read != expected || !rest {
            self.discard(&draft)?;
            return Err(GoldenError::Damaged {
                volume: draft.to_string(),
            });
        }
        self.act(zfs::set(&draft, DIGEST, &expected))?;
        self.act(zfs::set(&draft, BYTES, &bytes.to_string()))?;
        let gold = draft.snapshot("gold")?;
        self.act(zfs::snapshot(&gold))?;
        self.act(zfs::hold(&gold))?;
        let volume = image.child(&format!("v{number}"))?;
        self.act(zfs::rename(&draft, &volume))?;
        for old in self.versions(label)?.iter().rev().skip(2) {
            if let Err(error) = self.remove_version(label, old.number) {
                tracing::warn!(image = %label, version = old.number, %error, "an old version is kept: something still uses it");
            }
        }
        Ok(Version { number, volume })
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
        let withdrawn = self.image(label)?.child(&format!(".withdrawn-v{}", newest.number))?;
        self.owned(&newest.volume)?;
        self.act(zfs::rename(&newest.volume, &withdrawn))?;
        Ok(before)
    }

    /// Removes one version: never while a machine is a clone of it.
    ///
    /// # Errors
    /// When it is in use, or not ours.
    pub fn remove_version(&self, label: &Label, number: u32) -> Result<(), GoldenError> {
        let gold = golden(&self.root, label, number)?;
        let volume = self.image(label)?.child(&format!("v{number}"))?;
        if self.owned(&volume)?.is_none() {
            return Err(GoldenError::Nothing(format!(
                "there is no version {number} of image {label}"
            )));
        }
        absent_is_done(self.run(zfs::release(&gold))?)?;
        if let Err(error) = self.run(zfs::destroy_snapshot(&gold))?
            && !error.is_absent()
        {
            // It stays whole: held again, as it was.
            self.act(zfs::hold(&gold))?;
            return Err(error.into());
        }
        self.act(zfs::destroy(&volume))
    }

    /// Reads a version's disk whole and compares its digest with the one noted at its import.
    ///
    /// # Errors
    /// When it is another, or none was noted.
    pub fn verify(&self, label: &Label) -> Result<(Version, String), GoldenError> {
        let newest = self.versions(label)?.pop();
        let newest = newest.ok_or_else(|| GoldenError::Nothing(format!("image {label} has no version here")))?;
        let noted = zfs::noted(&zfs::get(&newest.volume, &[DIGEST, BYTES]).run_blocking()?)?;
        let (Some(expected), Some(bytes)) = (noted.get(DIGEST), noted.get(BYTES).and_then(|bytes| bytes.parse().ok()))
        else {
            return Err(GoldenError::Nothing(format!(
                "{} has no digest: import it again",
                newest.volume
            )));
        };
        let device = newest.volume.device()?.to_string();
        let (actual, rest) = read_back(Path::new(&device), bytes).map_err(io_error("read", &device))?;
        if actual != *expected || !rest {
            return Err(GoldenError::Damaged {
                volume: newest.volume.to_string(),
            });
        }
        Ok((newest, actual))
    }

    /// What an interrupted import left.
    fn discard(&self, draft: &DatasetName) -> Result<(), GoldenError> {
        if self.owned(draft)?.is_none() {
            return Ok(());
        }
        let gold = draft.snapshot("gold")?;
        absent_is_done(self.run(zfs::release(&gold))?)?;
        absent_is_done(self.run(zfs::destroy_snapshot(&gold))?)?;
        self.act(zfs::destroy(draft))
    }
}

fn absent_is_done(result: Result<(), CommandError>) -> Result<(), CommandError> {
    match result {
        Err(error) if error.is_absent() => Ok(()),
        other => other,
    }
}

/// The disk in a file, packed or not.
fn unpacked(path: &Path) -> Result<Box<dyn Read>, GoldenError> {
    let open = || -> io::Result<Box<dyn Read>> {
        let file = File::open(path)?;
        let mut begin = [0; 4];
        let read = file.read_at(&mut begin, 0)?;
        Ok(if read == 4 && begin == ZSTD {
            Box::new(zstd::Decoder::new(file)?)
        } else {
            Box::new(file)
        })
    };
    open().map_err(io_error("open", path.display()))
}

/// Fills a block as far as there is something; 0 at the end.
fn fill(from: &mut dyn Read, block: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < block.len() {
        match from.read(&mut block[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Digest and size of at most `limit` bytes.
fn digest(from: &mut dyn Read, limit: u64) -> io::Result<(String, u64)> {
    let (mut hash, mut bytes, mut block) = (Sha256::new(), 0_u64, vec![0; BLOCK]);
    while bytes < limit {
        let room = usize::try_from(limit - bytes).unwrap_or(BLOCK).min(BLOCK);
        let count = fill(from, &mut block[..room])?;
        if count == 0 {
            break;
        }
        hash.update(&block[..count]);
        bytes += count as u64;
        if bytes > LARGEST {
            return Err(io::Error::other("the disk is larger than 16 TiB"));
        }
    }
    Ok((hex::encode(hash.finalize()), bytes))
}

/// Writes everything that is not zero to a fresh volume, which reads as zeroes.
fn write_disk(from: &mut dyn Read, device: &Path) -> io::Result<()> {
    let until = Instant::now() + DEVICE;
    let to = loop {
        // The device of a new volume appears when it is first looked for, or a moment later.
        match OpenOptions::new().write(true).open(device) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && Instant::now() < until => {
                #[allow(clippy::disallowed_methods, reason = "nothing tells when a device node appears")]
                std::thread::sleep(Duration::from_millis(50));
            }
            opened => break opened?,
        }
    };
    let (mut at, mut block) = (0_u64, vec![0; BLOCK]);
    loop {
        let count = fill(from, &mut block)?;
        if count == 0 {
            break;
        }
        // A raw device takes whole sectors; what is beyond the end of the disk is zero anyway.
        let whole = count.next_multiple_of(512).min(BLOCK);
        block[count..whole].fill(0);
        if block[..whole].iter().any(|byte| *byte != 0) {
            to.write_all_at(&block[..whole], at)?;
        }
        at += count as u64;
    }
    let mut to = to;
    to.flush()?;
    to.sync_all()
}

/// The digest of a volume's first bytes, and whether the rest is zero.
fn read_back(device: &Path, bytes: u64) -> io::Result<(String, bool)> {
    let mut file = File::open(device)?;
    let (digest, read) = digest(&mut file, bytes)?;
    if read != bytes {
        return Ok((digest, false));
    }
    let mut block = vec![0; BLOCK];
    loop {
        match fill(&mut file, &mut block)? {
            0 => return Ok((digest, true)),
            count if block[..count].iter().any(|byte| *byte != 0) => return Ok((digest, false)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        /// A sparse file stands for the volume.
        #[test]
        fn what_is_written_is_read_back_whatever_its_size(
            size in 0usize..3_000_000, packed: bool, holes in prop::collection::vec(0usize..3_000_000, 0..4),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let (source, device) = (dir.path().join("disk"), dir.path().join("device"));
            let mut disk: Vec<u8> = (0..size).map(|n| u8::try_from(n % 251).unwrap() + 1).collect();
            for hole in holes {
                let end = (hole + 1_200_000).min(size);
                disk[hole.min(end)..end].fill(0);
            }
            let bytes = if packed { zstd::encode_all(disk.as_slice(), 1).unwrap() } else { disk.clone() };
            std::fs::write(&source, bytes).unwrap();
            let volume = File::create(&device).unwrap();
            volume.set_len(VolumeSize::at_least(size as u64).bytes()).unwrap();
            let (wanted, length) = digest(&mut unpacked(&source).unwrap(), u64::MAX).unwrap();
            prop_assert_eq!(length, size as u64);
            prop_assert_eq!(&wanted, &hex::encode(Sha256::digest(&disk)));
            write_disk(&mut unpacked(&source).unwrap(), &device).unwrap();
            prop_assert_eq!(read_back(&device, length).unwrap(), (wanted.clone(), true));
            if size > 0 {
                volume.write_all_at(&[disk[size - 1].wrapping_add(1)], length - 1).unwrap();
                prop_assert_ne!(read_back(&device, length).unwrap(), (wanted, true));
            }
        }
    }
}
