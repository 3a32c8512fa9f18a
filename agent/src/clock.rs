//! The machine's clock: without a route there is no NTP, so the node tells the time.

use std::{
    io,
    time::{SystemTime, UNIX_EPOCH},
};

use nix::{
    sys::time::TimeSpec,
    time::{ClockId, clock_settime},
};

/// A clock that is off by less is left alone, in milliseconds.
pub const TOLERANCE_MS: i64 = 1000;

/// Milliseconds since 1970 by this machine's clock.
pub fn now_ms() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
    }
}

/// How far this machine's clock is behind `node_ms`, when that is more than the tolerance.
pub fn offset(node_ms: i64) -> Option<i64> {
    let offset = node_ms.saturating_sub(now_ms());
    (offset.saturating_abs() > TOLERANCE_MS).then_some(offset)
}

/// Sets the clock.
pub fn set(time_ms: i64) -> io::Result<()> {
    if time_ms <= 0 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{time_ms} ms is not a time after 1970"),
        ));
    }
    let time = std::time::Duration::from_millis(time_ms.unsigned_abs());
    clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::from(time))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_offsets_are_left_alone() {
        assert_eq!(offset(now_ms()), None);
        assert_eq!(offset(now_ms() + TOLERANCE_MS / 2), None);
        assert!(offset(now_ms() + 3_600_000).is_some_and(|ms| (3_590_000..=3_600_000).contains(&ms)));
        assert!(offset(now_ms() - 3_600_000).is_some_and(|ms| (-3_610_000..=-3_600_000).contains(&ms)));
        assert!(offset(i64::MIN).is_some() && offset(i64::MAX).is_some());
    }

    #[test]
    fn an_impossible_time_is_refused() {
        assert_eq!(set(-5).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
