//! Wall-clock time as milliseconds since 1970, the unit of every time we store or show. Durations
//! that decide something are measured with `Instant` instead.
//!
//! A debug build adds the milliseconds that stand in the file `HELIOS_CI_CLOCK_SHIFT` names, so that
//! a test can let the clock of one daemon jump.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now, in milliseconds since 1970.
#[must_use]
pub fn now_ms() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX);
    #[cfg(debug_assertions)]
    let now = now.saturating_add(shift_ms());
    now
}

#[cfg(debug_assertions)]
fn shift_ms() -> i64 {
    use std::{ffi::OsString, fs, sync::OnceLock};

    static FILE: OnceLock<Option<OsString>> = OnceLock::new();
    let file = FILE.get_or_init(|| std::env::var_os("HELIOS_CI_CLOCK_SHIFT"));
    let text = file.as_ref().and_then(|file| fs::read_to_string(file).ok());
    text.and_then(|text| text.trim().parse().ok()).unwrap_or_default()
}
