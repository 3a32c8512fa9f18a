//! Words, shapes and numbers for people. A state is never told by colour alone: each has a word and
//! a shape.

use std::fmt::Write as _;

pub use crate::model::person::person;
use crate::{
    forge::ConnectionState,
    model::state::{IntakeState, JobState, RunState, StepState},
    web::health::Readiness,
};

/// How a state looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Badge {
    /// The word.
    pub word: &'static str,
    /// The shape, one character; hidden from screen readers, which read the word.
    pub shape: &'static str,
    /// The class that colours it.
    pub class: &'static str,
}

const fn badge(word: &'static str, shape: &'static str, class: &'static str) -> Badge {
    Badge { word, shape, class }
}

const OK: Badge = badge("passed", "✓", "ok");
const BAD: Badge = badge("failed", "✗", "bad");
const RUNNING: Badge = badge("running", "▶", "live");
const CANCELLED: Badge = badge("cancelled", "⊘", "off");
const SKIPPED: Badge = badge("skipped", "↷", "off");
const TIMED_OUT: Badge = badge("timed out", "⧖", "bad");
const ERROR: Badge = badge("error", "!", "err");

/// A delivery's or trigger's state.
#[must_use]
pub fn intake(state: IntakeState) -> Badge {
    match state {
        IntakeState::Received => badge("waiting", "…", "idle"),
        IntakeState::Planned => badge("planned", "✓", "ok"),
        IntakeState::Ignored => badge("ignored", "↷", "off"),
        IntakeState::Failed => badge("failed", "✗", "bad"),
    }
}

/// What the daemon can do now.
#[must_use]
pub(in crate::web) fn readiness(readiness: Readiness) -> Badge {
    match readiness {
        Readiness::Ready => badge("ready", "✓", "ok"),
        Readiness::Degraded { .. } => badge("degraded", "!", "err"),
        Readiness::NoStore => badge("not ready", "✗", "bad"),
        Readiness::Stopping => badge("stopping", "⊘", "off"),
    }
}

/// What is known of a connection.
#[must_use]
pub fn connection(state: &ConnectionState) -> Badge {
    match state {
        ConnectionState::Unknown => badge("not asked yet", "…", "idle"),
        ConnectionState::Working { .. } => badge("works", "✓", "ok"),
        ConnectionState::Refused { .. } => badge("refused", "✗", "bad"),
        ConnectionState::Unreachable { .. } => badge("unreachable", "!", "err"),
    }
}

/// A run's state.
#[must_use]
pub fn run(state: RunState) -> Badge {
    match state {
        RunState::Active => RUNNING,
        RunState::Success => OK,
        RunState::Failure => BAD,
        RunState::Skipped => SKIPPED,
        RunState::Cancelled => CANCELLED,
        RunState::Error => ERROR,
    }
}

/// A job's state.
#[must_use]
pub fn job(state: JobState) -> Badge {
    match state {
        JobState::Waiting => badge("waiting", "…", "idle"),
        JobState::Queued => badge("queued", "○", "idle"),
        JobState::Active => RUNNING,
        JobState::Success => OK,
        JobState::Failure => BAD,
        JobState::Skipped => SKIPPED,
        JobState::Cancelled => CANCELLED,
        JobState::TimedOut => TIMED_OUT,
        JobState::Error => ERROR,
    }
}

/// A step's state. `allowed` is a failure that `continue-on-error` let pass.
#[must_use]
pub fn step(state: StepState, allowed: bool) -> Badge {
    match state {
        StepState::Pending => badge("pending", "○", "idle"),
        StepState::Running => RUNNING,
        StepState::Success => OK,
        StepState::Failure if allowed => badge("failed, allowed", "✗", "warn"),
        StepState::Failure => BAD,
        StepState::Skipped => SKIPPED,
        StepState::Cancelled => CANCELLED,
        StepState::TimedOut => TIMED_OUT,
    }
}

/// `2 ms`, `3 s`, `4 min 5 s`, `2 h 3 min`, `3 d 4 h`.
#[must_use]
pub fn duration(ms: i64) -> String {
    let ms = ms.max(0);
    let (s, min, h, d) = (ms / 1000, ms / 60_000, ms / 3_600_000, ms / 86_400_000);
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..10_000 => format!("{}.{} s", s, ms % 1000 / 100),
        10_000..60_000 => format!("{s} s"),
        60_000..3_600_000 => format!("{min} min {} s", s % 60),
        3_600_000..86_400_000 => format!("{h} h {} min", min % 60),
        _ => format!("{d} d {} h", h % 24),
    }
}

/// From `start` to `end`, or to `now` while there is no end; nothing before the start.
#[must_use]
pub fn elapsed(start: Option<i64>, end: Option<i64>, now: i64) -> Option<String> {
    start.map(|start| duration(end.unwrap_or(now) - start))
}

/// `just now`, `5 min ago`, `3 d ago`.
#[must_use]
pub fn ago(ms: i64, now: i64) -> String {
    let s = (now - ms).max(0) / 1000;
    match s {
        0..45 => "just now".to_owned(),
        45..3600 => format!("{} min ago", (s + 30) / 60),
        3600..86_400 => format!("{} h ago", s / 3600),
        _ => format!("{} d ago", s / 86_400),
    }
}

/// `in 27 min`, `in 45 s`, `in 3 h`; `now` when it is past.
#[must_use]
pub fn ahead(ms: i64, now: i64) -> String {
    let s = (ms - now).max(0) / 1000;
    match s {
        0 => "now".to_owned(),
        1..60 => format!("in {s} s"),
        60..7200 => format!("in {} min", s / 60),
        7200..172_800 => format!("in {} h", s / 3600),
        _ => format!("in {} d", s / 86_400),
    }
}

/// Year, month, day of a number of days since 1970 (proleptic Gregorian calendar).
fn civil(days: i64) -> (i64, i64, i64) {
    // Days are counted in eras of 400 years that begin in March, so that the leap day is the last.
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// RFC 3339 in UTC with milliseconds, for `datetime` attributes and the API.
#[must_use]
pub fn rfc3339(ms: i64) -> String {
    let (year, month, day) = civil(ms.div_euclid(86_400_000));
    let t = ms.rem_euclid(86_400_000);
    let (h, m, s, milli) = (t / 3_600_000, t / 60_000 % 60, t / 1000 % 60, t % 1000);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{milli:03}Z")
}

/// `2026-11-21 01:19:01 UTC`.
#[must_use]
pub fn moment(ms: i64) -> String {
    let text = rfc3339(ms);
    format!("{} {} UTC", &text[..10], &text[11..19])
}

/// `01:19:01`, in UTC.
#[must_use]
pub fn clock(ms: i64) -> String {
    rfc3339(ms)[11..19].to_owned()
}

/// `12 bytes`, `3.4 KiB`, `5.6 MiB`.
#[must_use]
pub fn bytes(n: u64) -> String {
    let mut out = String::new();
    let _ = match n {
        0..1024 => write!(out, "{n} bytes"),
        1024..1_048_576 => write!(out, "{}.{} KiB", n >> 10, (n & 1023) * 10 / 1024),
        _ => write!(out, "{}.{} MiB", n >> 20, ((n >> 10) & 1023) * 10 / 1024),
    };
    out
}

/// `1 job`, `2 jobs`.
#[must_use]
pub fn count(n: usize, one: &str) -> String {
    if n == 1 {
        format!("1 {one}")
    } else {
        format!("{n} {one}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_a_word_and_a_shape_of_its_own() {
        let mut seen = std::collections::BTreeMap::new();
        let all = JobState::ALL
            .iter()
            .map(|s| job(*s))
            .chain(RunState::ALL.iter().map(|s| run(*s)));
        for b in all {
            assert!(!b.word.is_empty() && b.shape.chars().count() == 1, "{b:?}");
            assert_eq!(
                *seen.entry(b.shape).or_insert(b.word),
                b.word,
                "two words share {}",
                b.shape
            );
        }
        assert_eq!(step(StepState::Failure, true).word, "failed, allowed");
    }

    #[test]
    fn durations_read_well() {
        let cases = [
            (0, "0 ms"),
            (2, "2 ms"),
            (3200, "3.2 s"),
            (59_999, "59 s"),
            (61_000, "1 min 1 s"),
            (7_384_000, "2 h 3 min"),
            (90_000_000, "1 d 1 h"),
            (-5, "0 ms"),
        ];
        for (ms, want) in cases {
            assert_eq!(duration(ms), want);
        }
        assert_eq!(elapsed(None, None, 5), None);
        assert_eq!(elapsed(Some(1000), None, 4000).as_deref(), Some("3.0 s"));
        assert_eq!(ago(0, 120_000), "2 min ago");
        for (ms, want) in [
            (0, "now"),
            (-5000, "now"),
            (45_900, "in 45 s"),
            (1_620_000, "in 27 min"),
            (10_800_000, "in 3 h"),
            (345_600_000, "in 4 d"),
        ] {
            assert_eq!(ahead(1000 + ms, 1000), want);
        }
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(count(1, "job"), "1 job");
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(951_782_399_999), "2000-02-28T23:59:59.999Z");
        assert_eq!(rfc3339(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(rfc3339(1_795_223_941_000), "2026-11-21T01:19:01.000Z");
        assert_eq!(moment(-1), "1969-12-31 23:59:59 UTC");
        assert_eq!(clock(1_795_223_941_000), "01:19:01");
    }
}
