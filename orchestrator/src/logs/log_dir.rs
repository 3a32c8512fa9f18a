//! What a log's directory holds besides records: its files' names, `meta.json`, and writing files that are whole or absent.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{error::LogError, record};

pub(super) const META: &str = "meta.json";
pub(super) const RECORDS: &str = "records";
pub(super) const SEALED: &str = "sealed";

/// What is known of the plain file besides its records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Meta {
    format: u32,
    pub(super) generation: u32,
    /// The boot during which the file was last opened for writing.
    pub(super) boot: Option<String>,
}

/// Makes the directory of one log, and makes its name durable.
pub(super) fn create_dir(dir: &Path) -> Result<(), LogError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|error| LogError::io("create", dir, error))?;
    if let Some(parent) = dir.parent() {
        sync_dir(parent)?;
        if let Some(above) = parent.parent() {
            sync_dir(above)?;
        }
    }
    Ok(())
}

/// Makes the names in a directory durable.
pub(super) fn sync_dir(dir: &Path) -> Result<(), LogError> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|error| LogError::io("sync the directory", dir, error))
}

/// Opens the plain file for writing, new or old.
pub(super) fn open_records(dir: &Path) -> Result<(File, PathBuf), LogError> {
    let path = dir.join(RECORDS);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path);
    Ok((file.map_err(|error| LogError::io("open", &path, error))?, path))
}

/// The directory's `meta.json`, if it has one.
pub(super) fn read_meta(dir: &Path) -> Result<Option<Meta>, LogError> {
    let path = dir.join(META);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(LogError::io("read", &path, error)),
    };
    // The format first: of another one the rest means nothing here.
    #[derive(Deserialize)]
    struct Head {
        format: u32,
    }
    let no_json = |_| LogError::Corrupt {
        path: path.clone(),
        detail: "not the JSON it should be",
    };
    let head: Head = serde_json::from_slice(&text).map_err(no_json)?;
    if head.format != u32::from(record::FORMAT) {
        return Err(LogError::OtherFormat {
            path,
            found: head.format,
            known: u32::from(record::FORMAT),
        });
    }
    serde_json::from_slice(&text).map(Some).map_err(no_json)
}

/// Writes `meta.json` durably.
pub(super) fn write_meta(dir: &Path, generation: u32, boot: Option<String>) -> Result<Meta, LogError> {
    let meta = Meta {
        format: u32::from(record::FORMAT),
        generation,
        boot,
    };
    let path = dir.join(META);
    let text = serde_json::to_vec(&meta).map_err(|error| LogError::io("write", &path, error.into()))?;
    replace(dir, META, |file| file.write_all(&text))?;
    Ok(meta)
}

/// Writes a whole file: temporary name, sync, rename, sync of the directory.
pub(super) fn replace(dir: &Path, name: &str, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), LogError> {
    let temp = dir.join(format!("{name}.new"));
    let fail = |action| move |error| LogError::io(action, &dir.join(name), error);
    let open = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temp);
    let mut file = open.map_err(fail("create"))?;
    write(&mut file).and_then(|()| file.sync_all()).map_err(fail("write"))?;
    fs::rename(&temp, dir.join(name)).map_err(fail("rename"))?;
    sync_dir(dir)
}
