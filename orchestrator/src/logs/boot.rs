//! Which boot of the host this is: after another one, what was written but not synced may be gone.

/// A text that differs between two boots of this host; none where it cannot be read, and every
/// opening of a log then counts as one after a power loss, which costs readers a fresh start only.
#[cfg(target_os = "linux")]
pub(super) fn boot_id() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned())
}

/// See above. On illumos the start time of process 1 (bytes 88 to 104 of its `psinfo`, `pr_start`)
/// tells two boots of the host or of the zone apart.
#[cfg(target_os = "illumos")]
pub(super) fn boot_id() -> Option<String> {
    let psinfo = std::fs::read("/proc/1/psinfo").ok()?;
    psinfo.get(88..104).map(hex::encode)
}

/// See above.
#[cfg(not(any(target_os = "linux", target_os = "illumos")))]
pub(super) fn boot_id() -> Option<String> {
    None
}
