//! What a log's directory holds besides records: its files' names, `meta.json`, and writing files that are whole or absent.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{error::LogError, record};
use crate::files;

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

/// Makes the directory of one log, whose name is not durable yet, and says whether there was none. Only the log's writer
/// may ask.
pub(super) fn create_dir(dir: &Path) -> Result<bool, LogError> {
    let fail = |error| LogError::io("create", dir, error);
    let is_new = !dir.try_exists().map_err(fail)?;
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(fail)?;
    Ok(is_new)
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

/// The directory's `meta.json`, if it has one. One that is empty or all NULs is what a power failure left of it, and none.
pub(super) fn read_meta(dir: &Path) -> Result<Option<Meta>, LogError> {
    let path = dir.join(META);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(LogError::io("read", &path, error)),
    };
    if text.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
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

/// Writes the first `meta.json` of a log, which is not durable yet: a log that has lost it counts as one of a later
/// generation.
pub(super) fn write_first_meta(dir: &Path, boot: Option<String>) -> Result<Meta, LogError> {
    let (meta, text) = meta(dir, 1, boot)?;
    write_beside(dir, META, |file| file.write_all(&text))?;
    Ok(meta)
}

/// Writes `meta.json` durably.
pub(super) fn write_meta(dir: &Path, generation: u32, boot: Option<String>) -> Result<Meta, LogError> {
    let (meta, text) = meta(dir, generation, boot)?;
    replace(dir, META, |file| file.write_all(&text))?;
    Ok(meta)
}

fn meta(dir: &Path, generation: u32, boot: Option<String>) -> Result<(Meta, Vec<u8>), LogError> {
    let meta = Meta {
        format: u32::from(record::FORMAT),
        generation,
        boot,
    };
    let text = serde_json::to_vec(&meta).map_err(|error| LogError::io("write", &dir.join(META), error.into()))?;
    Ok((meta, text))
}

/// Writes a whole file durably: temporary name, sync, rename, sync of the directory.
pub(super) fn replace(dir: &Path, name: &str, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), LogError> {
    write_beside(dir, name, |file| write(file).and_then(|()| file.sync_all()))?;
    files::sync_dir(dir).map_err(|error| LogError::io("sync the directory", dir, error))
}

/// Writes a file that readers find whole or not at all. After a power failure it may be empty, unless `write` syncs it.
fn write_beside(dir: &Path, name: &str, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), LogError> {
    let temp = dir.join(format!("{name}.new"));
    let fail = |action| move |error| LogError::io(action, &dir.join(name), error);
    let open = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temp);
    let mut file = open.map_err(fail("create"))?;
    write(&mut file).map_err(fail("write"))?;
    fs::rename(&temp, dir.join(name)).map_err(fail("rename"))
}
