//! Wall-clock time as milliseconds since 1970, the unit of every time we store or show. Durations
//! that decide something are measured with `Instant` instead.
//!
//! A debug build adds the milliseconds that stand in the file `HELIOS_CI_CLOCK_SHIFT` names, so that
//! a test can let the clock of one daemon jump.

use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{DateTime, SecondsFormat};

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

/// RFC 3339 in UTC with milliseconds, for `datetime` attributes and the API. A time beyond the calendar is shown as 1970.
#[must_use]
pub fn rfc3339(ms: i64) -> String {
    let time = DateTime::from_timestamp_millis(ms).unwrap_or_default();
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// `2026-11-21 01:19:01 UTC`.
#[must_use]
pub fn moment(ms: i64) -> String {
    let time = DateTime::from_timestamp_millis(ms).unwrap_or_default();
    time.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(951_782_399_999), "2000-02-28T23:59:59.999Z");
        assert_eq!(rfc3339(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(rfc3339(1_795_223_941_000), "2026-11-21T01:19:01.000Z");
        assert_eq!(moment(-1), "1969-12-31 23:59:59 UTC");
    }
}
