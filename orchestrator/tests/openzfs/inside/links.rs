//! illumos has a volume's device at `/dev/zvol/rdsk/POOL/NAME` as soon as somebody looks for it. Linux has `/dev/zdN`, and
//! here is no udev to give it a name: a thread asks `zvol_id` what each new one is of, and lays a link.
//!
//! Asking opens the device, which makes it busy for that moment. So each is asked only once, before there is a link and so
//! before production code can use it, and again only when a test says that names have changed.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, Once, PoisonError},
    time::{Duration, Instant},
};

use crate::deadline;

const RAW: &str = "/dev/zvol/rdsk";

/// Links by device; the inode tells a device from a later one of the same number.
static KNOWN: Mutex<BTreeMap<(PathBuf, u64), PathBuf>> = Mutex::new(BTreeMap::new());

/// Begins to lay links, once for this guest.
pub fn keep() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        std::thread::spawn(|| {
            loop {
                look();
                std::thread::sleep(Duration::from_millis(20));
            }
        });
    });
}

fn devices() -> Vec<(PathBuf, u64)> {
    let entries = fs::read_dir("/dev").expect("devices").flatten();
    let volumes = entries.filter(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let number = name.strip_prefix("zd");
        number.is_some_and(|number| number.bytes().all(|b| b.is_ascii_digit()))
    });
    volumes
        .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?.ino())))
        .collect()
}

fn look() {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let now = devices();
    known.retain(|device, link| {
        let stays = now.contains(device);
        if !stays {
            let _replaced_already = fs::remove_file(link);
        }
        stays
    });
    for device in now {
        if known.contains_key(&device) {
            continue;
        }
        let asked = Command::new("/lib/udev/zvol_id")
            .arg(&device.0)
            .output()
            .expect("zvol_id");
        let name = String::from_utf8_lossy(&asked.stdout).trim().to_owned();
        if !asked.status.success() || name.is_empty() {
            continue;
        }
        let link = Path::new(RAW).join(name);
        fs::create_dir_all(link.parent().expect("a folder")).expect("a folder");
        let _older = fs::remove_file(&link);
        std::os::unix::fs::symlink(&device.0, &link).expect("a link");
        known.insert(device, link);
    }
}

/// Lays all links anew: a volume was renamed.
pub fn renew() {
    keep();
    for link in std::mem::take(&mut *KNOWN.lock().unwrap_or_else(PoisonError::into_inner)).into_values() {
        let _gone = fs::remove_file(link);
    }
    look();
}

/// Waits until a volume has its link, after which nobody asks its device any more; returns it.
pub fn of(volume: &impl std::fmt::Display) -> PathBuf {
    keep();
    let link = Path::new(RAW).join(volume.to_string());
    let until = Instant::now() + deadline::PROMPT;
    while !link.exists() {
        assert!(Instant::now() < until, "{} never appears", link.display());
        std::thread::sleep(Duration::from_millis(20));
    }
    // The link is made while it is locked.
    drop(KNOWN.lock().unwrap_or_else(PoisonError::into_inner));
    link
}
