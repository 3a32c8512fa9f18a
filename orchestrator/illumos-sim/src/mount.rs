//! Mounting: the contents of a mounted file system lie at its mountpoint below the fake root, those of
//! another wait in `unmounted/GUID`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    files,
    host::Host,
    state::{Kind, State},
};

/// The mountpoint that a file system has by its properties; none for `none` and `legacy`.
#[must_use]
pub fn point(state: &State, dataset: &str) -> Option<String> {
    if let Some(set) = state.datasets.get(dataset)?.local.get("mountpoint") {
        return set.starts_with('/').then(|| set.clone());
    }
    match dataset.rsplit_once('/') {
        Some((parent, name)) => {
            let above = point(state, parent)?;
            Some(format!("{}/{name}", above.trim_end_matches('/')))
        }
        None => Some(format!("/{dataset}")),
    }
}

/// The mounted file system whose mountpoint is exactly this path.
#[must_use]
pub fn dataset_at(state: &State, path: &str) -> Option<String> {
    let at = |(name, dataset): &(&String, &crate::state::Dataset)| {
        dataset.kind == Kind::Filesystem && dataset.mounted && point(state, name).as_deref() == Some(path)
    };
    state.datasets.iter().find(at).map(|(name, _)| name.clone())
}

fn stash(host: &Host, guid: u64) -> PathBuf {
    host.dir.join("unmounted").join(guid.to_string())
}

/// Mounts a file system.
///
/// # Errors
/// `InvalidInput` without a mountpoint, `DirectoryNotEmpty` when something lies there.
pub fn mount(host: &mut Host, dataset: &str) -> io::Result<()> {
    let place = point(&host.state, dataset).ok_or(io::ErrorKind::InvalidInput)?;
    let Some(entry) = host.state.datasets.get(dataset) else {
        return Err(io::ErrorKind::NotFound.into());
    };
    if entry.mounted {
        return Ok(());
    }
    let stash = stash(host, entry.guid);
    let dir = host.path(&place);
    fs::create_dir_all(&dir)?;
    if fs::read_dir(&dir)?.next().is_some() {
        return Err(io::ErrorKind::DirectoryNotEmpty.into());
    }
    if stash.exists() {
        fs::rename(stash, &dir)?;
    }
    if let Some(entry) = host.state.datasets.get_mut(dataset) {
        entry.mounted = true;
    }
    Ok(())
}

/// Unmounts a file system; its mountpoint stays as an empty folder. File systems mounted below it go first.
///
/// # Errors
/// The contents cannot be moved.
pub fn unmount(host: &mut Host, dataset: &str) -> io::Result<()> {
    let Some(place) = point(&host.state, dataset) else {
        return Ok(());
    };
    let inside = format!("{}/", place.trim_end_matches('/'));
    let below: Vec<String> = host
        .state
        .datasets
        .iter()
        .filter(|(_, d)| d.kind == Kind::Filesystem && d.mounted)
        .filter(|(name, _)| point(&host.state, name).is_some_and(|p| p.starts_with(&inside)))
        .map(|(name, _)| name.clone())
        .collect();
    for name in below.iter().rev() {
        unmount(host, name)?;
    }
    let Some(entry) = host.state.datasets.get(dataset).filter(|entry| entry.mounted) else {
        return Ok(());
    };
    let (stash, dir) = (stash(host, entry.guid), host.path(&place));
    fs::create_dir_all(stash.parent().unwrap_or(&stash))?;
    // A simulator that was killed after it moved them, and before it said so, left the contents there.
    let moved = stash.exists();
    let mode = fs::metadata(if moved { &stash } else { &dir })?.permissions();
    if moved {
        files::remove(&dir)?;
    } else {
        fs::rename(&dir, stash)?;
    }
    fs::create_dir(&dir)?;
    fs::set_permissions(&dir, mode)?;
    if let Some(entry) = host.state.datasets.get_mut(dataset) {
        entry.mounted = false;
    }
    Ok(())
}

/// Unmounts a file system for good and forgets its contents. The mountpoint goes too, unless it was set.
///
/// # Errors
/// The contents cannot be removed.
pub fn discard(host: &mut Host, dataset: &str) -> io::Result<()> {
    unmount(host, dataset)?;
    let Some(entry) = host.state.datasets.get(dataset) else {
        return Ok(());
    };
    files::remove(&stash(host, entry.guid))?;
    let place = point(&host.state, dataset).filter(|_| !entry.local.contains_key("mountpoint"));
    match place.map(|place| fs::remove_dir(host.path(&place))) {
        Some(Err(error)) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
            Err(error)
        }
        _ => Ok(()),
    }
}

/// The mounted file systems at and below a dataset.
#[must_use]
pub fn mounted(state: &State, top: &str) -> Vec<String> {
    let below = |name: &str| {
        name.strip_prefix(top)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    state
        .datasets
        .iter()
        .filter(|(name, d)| d.mounted && below(name))
        .map(|(name, _)| name.clone())
        .collect()
}

/// Mounts these where they now belong, without those that no longer belong anywhere.
///
/// # Errors
/// A folder cannot be made.
pub fn again(host: &mut Host, names: &[String]) -> io::Result<()> {
    for name in names {
        let off = |d: &crate::state::Dataset| d.local.get("canmount").is_some_and(|value| value == "off");
        if host.state.datasets.get(name).is_some_and(|d| !off(d)) && point(&host.state, name).is_some() {
            mount(host, name)?;
        }
    }
    Ok(())
}

/// What a boot mounts: every file system with `canmount=on`.
///
/// # Errors
/// The folders cannot be made.
pub fn all(host: &mut Host) -> io::Result<()> {
    let systems: Vec<(String, bool)> = host
        .state
        .datasets
        .iter()
        .filter(|(_, d)| d.kind == Kind::Filesystem)
        .map(|(name, d)| (name.clone(), d.local.get("canmount").is_none_or(|value| value == "on")))
        .collect();
    for (name, wanted) in systems {
        if !wanted {
            unmount(host, &name)?;
        } else if point(&host.state, &name).is_some() {
            match mount(host, &name) {
                // As on the real host: the boot goes on without it.
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                other => other?,
            }
        }
    }
    Ok(())
}

/// Copies a folder with its files, folders and links.
///
/// # Errors
/// Something cannot be read or written.
pub fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path())?, target)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
