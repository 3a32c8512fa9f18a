//! Words, shapes and numbers for people. A state is never told by colour alone: each has a word and
//! a shape.

use std::fmt::Write as _;

use crate::{
    forge::ConnectionState,
    model::state::{IntakeState, JobState, RunState, StepState},
    web::health::Readiness,
};

pub use crate::{
    clock::{moment, rfc3339},
    model::{person::person, text::count},
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
    fn a_clock_shows_hours_minutes_and_seconds() {
        assert_eq!(clock(1_795_223_941_000), "01:19:01");
    }
}
