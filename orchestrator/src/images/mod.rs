//! The image library behind `helios-ci image list | verify | import`. An imported image lies at
//! `<data>/images/<label>/<sha256>.qcow2` beside a `<sha256>.json` that says where it came from.
//! It gets its name only when it is whole, verified and on disk; a partial file never has it.
//! [`download`] fetches what is to be imported.

pub mod download;
pub mod qcow2;

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    clock,
    config::Image,
    exec::{Cmd, ExecError},
    files,
    model::names::Label,
};

/// How a file to import is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A qcow2 image that refers to no other file.
    Qcow2,
    /// The disk's bytes as they are; converted to qcow2. Never guessed: any file is a raw image.
    Raw,
}

/// What is recorded of an imported image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// Of this format: 1.
    pub version: u32,
    /// Digest of the stored file.
    pub sha256: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// The disk's size as guests see it, in bytes.
    pub virtual_size: u64,
    /// Digest of the file that was imported; another one only for raw images.
    pub source_sha256: String,
    /// The name of the file that was imported, for people.
    pub source_name: String,
    /// When, in milliseconds since 1970.
    pub imported_ms: i64,
}

/// One image as `image list` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its label.
    pub label: Label,
    /// The disk's file.
    pub disk: PathBuf,
    /// Whether the configuration uses it.
    pub configured: bool,
    /// The digest it must have, from the configuration or the import; `None` when nobody said.
    pub sha256: Option<String>,
    /// Its size in bytes, or why it cannot be used.
    pub state: Result<u64, String>,
}

/// A verified image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// The disk's file.
    pub disk: PathBuf,
    /// Its digest, which is the expected one.
    pub sha256: String,
    /// Its size in bytes.
    pub bytes: u64,
}

/// An operation on images that failed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// No such label.
    #[error("no image is configured for label {0}; see helios-ci image list")]
    Unknown(Label),
    /// Its golden disk is no file.
    #[error("the golden disk of {0} is a volume of a zone host, not a file: only that host can verify it")]
    Volume(Label),
    /// Nobody said what the digest should be.
    #[error(
        "nothing says what the digest of {disk} should be: add sha256: {actual} to the image's configuration if you trust the file"
    )]
    Unrecorded {
        /// The disk's file.
        disk: PathBuf,
        /// Its digest now.
        actual: String,
    },
    /// A digest that cannot be one.
    #[error("`{0}` is not a SHA-256 digest: expected 64 hexadecimal digits")]
    BadDigest(String),
    /// The file is not the expected one.
    #[error("{path} has the digest {actual}, expected {expected}: it is another file, or damaged; fetch it again")]
    Mismatch {
        /// Which file.
        path: PathBuf,
        /// What it should be.
        expected: String,
        /// What it is.
        actual: String,
    },
    /// Not a usable qcow2 image.
    #[error("{path} {source}")]
    Format {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: qcow2::Qcow2Error,
    },
    /// qemu-img failed.
    #[error("cannot convert the image")]
    Convert(#[source] ExecError),
    /// The file system failed.
    #[error("cannot {doing} {path}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ImageError {
    let path = path.to_owned();
    move |source| ImageError::Io { doing, path, source }
}

/// The images of one node. All its calls block.
#[derive(Debug, Clone)]
pub struct Library {
    root: PathBuf,
    configured: BTreeMap<Label, Image>,
}

impl Library {
    /// The library below a data directory.
    #[must_use]
    pub fn new(data_dir: &Path, configured: BTreeMap<Label, Image>) -> Self {
        Self {
            root: data_dir.join("images"),
            configured,
        }
    }

    /// Every configured image, then every imported one that the configuration does not use.
    ///
    /// # Errors
    /// When the library's directory cannot be read. An image that cannot be used is an entry that
    /// says so.
    pub fn list(&self) -> Result<Vec<Entry>, ImageError> {
        let mut entries = Vec::new();
        for (label, image) in &self.configured {
            let Some(disk) = &image.disk else { continue };
            let digest = image.sha256.clone().or_else(|| recorded(disk).map(|meta| meta.sha256));
            entries.push(entry(label.clone(), disk.clone(), true, digest));
        }
        for (label, meta) in self.imported()? {
            let disk = self.disk(&label, &meta.sha256);
            if !self.configured.values().any(|image| image.disk.as_ref() == Some(&disk)) {
                entries.push(entry(label, disk, false, Some(meta.sha256)));
            }
        }
        Ok(entries)
    }

    /// Reads a configured image whole and compares its digest with the one in the configuration, or
    /// with the one noted at its import.
    ///
    /// # Errors
    /// When the label is unknown, the file cannot be read or is no lone qcow2 image, the digest is
    /// another, or none is known.
    pub fn verify(&self, label: &Label) -> Result<Verified, ImageError> {
        let image = self
            .configured
            .get(label)
            .ok_or_else(|| ImageError::Unknown(label.clone()))?;
        let disk = image.disk.clone().ok_or_else(|| ImageError::Volume(label.clone()))?;
        let mut file = File::open(&disk).map_err(io_error("open", &disk))?;
        let (actual, bytes) = digest(&mut file, &mut io::sink()).map_err(io_error("read", &disk))?;
        let expected = match (&image.sha256, recorded(&disk)) {
            (Some(sha256), _) => parse_digest(sha256)?,
            (None, Some(meta)) => meta.sha256,
            (None, None) => return Err(ImageError::Unrecorded { disk, actual }),
        };
        if actual != expected {
            return Err(ImageError::Mismatch {
                path: disk,
                expected,
                actual,
            });
        }
        qcow2::read(&disk).map_err(|source| ImageError::Format {
            path: disk.clone(),
            source,
        })?;
        Ok(Verified {
            disk,
            sha256: actual,
            bytes,
        })
    }

    /// Copies a file into the library under a label, checking its digest on the way, and returns
    /// where it lies. Waits for another import of the same label. Importing a file again repairs it.
    ///
    /// # Errors
    /// When the file cannot be read, has another digest, is not what `format` says or refers to
    /// other files; nothing is then added.
    pub fn import(
        &self,
        file: &Path,
        sha256: &str,
        label: &Label,
        format: Format,
    ) -> Result<(PathBuf, Metadata), ImageError> {
        let expected = parse_digest(sha256)?;
        let dir = self.root.join(label.as_str());
        std::fs::create_dir_all(&dir).map_err(io_error("make", &dir))?;
        let lock = dir.join(".lock");
        let locked = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&lock)
            .and_then(|lock| lock.lock().map(|()| lock))
            .map_err(io_error("lock", &lock))?;
        // We hold the lock, so what is partial here belongs to an import that died.
        let incoming = dir.join(".incoming");
        let converted = dir.join(".converted");
        let clean = || [&incoming, &converted].into_iter().try_for_each(|path| remove(path));
        clean()?;
        let result = self.take_in(file, &expected, label, format, &incoming, &converted);
        let cleaned = clean();
        drop(locked);
        let done = result?;
        cleaned?;
        Ok(done)
    }

    fn take_in(
        &self,
        file: &Path,
        expected: &str,
        label: &Label,
        format: Format,
        incoming: &Path,
        converted: &Path,
    ) -> Result<(PathBuf, Metadata), ImageError> {
        let mut source = File::open(file).map_err(io_error("open", file))?;
        let mut target = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(incoming)
            .map_err(io_error("create", incoming))?;
        let (actual, mut bytes) = digest(&mut source, &mut target).map_err(io_error("copy to", incoming))?;
        if actual != expected {
            return Err(ImageError::Mismatch {
                path: file.to_owned(),
                expected: expected.to_owned(),
                actual,
            });
        }
        let mut sha256 = actual.clone();
        let mut whole = incoming;
        if format == Format::Raw {
            Cmd::new("qemu-img")
                .args(["convert", "-q", "-f", "raw", "-O", "qcow2"])
                .arg(incoming)
                .arg(converted)
                .deadline(std::time::Duration::from_secs(3600))
                .run_blocking()
                .and_then(crate::exec::Output::ok)
                .map_err(ImageError::Convert)?;
            target = File::open(converted).map_err(io_error("open", converted))?;
            (sha256, bytes) = digest(&mut target, &mut io::sink()).map_err(io_error("read", converted))?;
            whole = converted;
        }
        let header = qcow2::read(whole).map_err(|source| ImageError::Format {
            path: file.to_owned(),
            source,
        })?;
        let metadata = Metadata {
            version: 1,
            sha256: sha256.clone(),
            bytes,
            virtual_size: header.virtual_size,
            source_sha256: actual,
            source_name: file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            imported_ms: clock::now_ms(),
        };
        let disk = self.disk(label, &sha256);
        let finish = || -> io::Result<()> {
            // A golden disk is never written again, by anybody.
            target.set_permissions(std::fs::Permissions::from_mode(0o444))?;
            target.sync_all()?;
            std::fs::rename(whole, &disk)?;
            let note = disk.with_extension("json");
            let text = serde_json::to_vec_pretty(&metadata)?;
            // Of the disk's directory, so that its name becomes durable too.
            files::write_whole(&note, &text, 0o644)
        };
        finish().map_err(io_error("store", &disk))?;
        Ok((disk, metadata))
    }

    fn disk(&self, label: &Label, sha256: &str) -> PathBuf {
        self.root.join(label.as_str()).join(format!("{sha256}.qcow2"))
    }

    /// Every image with a record, by label and digest.
    fn imported(&self) -> Result<Vec<(Label, Metadata)>, ImageError> {
        let mut found = Vec::new();
        for label in names(&self.root)? {
            let Ok(label) = label.parse::<Label>() else { continue };
            for name in names(&self.root.join(label.as_str()))? {
                if let Some(sha256) = name.strip_suffix(".qcow2")
                    && let Some(meta) = recorded(&self.disk(&label, sha256))
                {
                    found.push((label.clone(), meta));
                }
            }
        }
        Ok(found)
    }
}

fn names(dir: &Path) -> Result<Vec<String>, ImageError> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(io_error("read", dir)(error)),
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    Ok(names)
}

/// What was noted at the import of a disk, when its name is the digest that was noted.
fn recorded(disk: &Path) -> Option<Metadata> {
    let bytes = std::fs::read(disk.with_extension("json")).ok()?;
    let meta: Metadata = serde_json::from_slice(&bytes).ok()?;
    (disk.file_stem()?.to_str()? == meta.sha256).then_some(meta)
}

fn entry(label: Label, disk: PathBuf, configured: bool, sha256: Option<String>) -> Entry {
    let state = qcow2::read(&disk)
        .map_err(|error| error.to_string())
        .and_then(|_| std::fs::metadata(&disk).map_err(|error| error.to_string()))
        .map(|meta| meta.len());
    Entry {
        label,
        disk,
        configured,
        sha256,
        state,
    }
}

/// The digest that a person gave, as it is compared.
pub(crate) fn parse_digest(text: &str) -> Result<String, ImageError> {
    let lower = text.trim().to_ascii_lowercase();
    if lower.len() == 64 && lower.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(lower)
    } else {
        Err(ImageError::BadDigest(text.chars().take(80).collect()))
    }
}

/// Copies everything and returns its digest and length.
fn digest(from: &mut impl Read, to: &mut impl Write) -> io::Result<(String, u64)> {
    let mut hash = Sha256::new();
    let mut block = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        match from.read(&mut block) {
            Ok(0) => return Ok((hex::encode(hash.finalize()), bytes)),
            Ok(n) => {
                hash.update(&block[..n]);
                to.write_all(&block[..n])?;
                bytes += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn remove(path: &Path) -> Result<(), ImageError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
