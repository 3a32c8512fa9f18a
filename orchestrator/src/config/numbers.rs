//! Sections that hold whole numbers, each a table: a key stands once, with its type, its default, what it may be and
//! what it means. From the table come the type, its default, its reading and its showing.

use serde_yaml_ng::Value;

use super::{
    read::{Map, Reader},
    show,
};

macro_rules! numbers {
    ($(#[$doc:meta])* $Section:ident, $path:literal { $($(#[$key_doc:meta])* $key:ident: $type:ty = $default:expr, $range:expr;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $Section {
            $($(#[$key_doc])* pub $key: $type,)*
        }

        impl Default for $Section {
            fn default() -> Self {
                Self { $($key: $default,)* }
            }
        }

        impl $Section {
            /// The section as it stands in the file, with the defaults of what it leaves out.
            pub(super) fn read(reader: &mut Reader, top: &Map<'_>) -> Self {
                let map = reader.section(top, $path, &[$(stringify!($key)),*]);
                Self {
                    $($key: reader.number(map.get(stringify!($key)), &map.path(stringify!($key)), $range).unwrap_or($default),)*
                }
            }

            pub(super) fn shown(&self) -> Value {
                show::map([$((stringify!($key), Some(self.$key.into()))),*])
            }
        }
    };
}

/// Minutes.
const WEEK: u32 = 7 * 24 * 60;
/// Minutes.
const MONTH: u32 = 31 * 24 * 60;
/// More bytes than a file system holds.
const MOST_BYTES: u64 = 1 << 50;

numbers! {
    /// Limits on jobs and logs.
    Limits, "limits" {
        /// A job without `timeout-minutes`.
        job_timeout_minutes: u32 = 360, 1..=MONTH;
        /// Longest wait for any output of a running step, in minutes.
        idle_timeout_minutes: u32 = 60, 1..=MONTH;
        /// Longest time in the queue, in minutes.
        queue_timeout_minutes: u32 = 1440, 1..=MONTH;
        /// Bytes of log kept per attempt.
        log_bytes: u64 = 64 << 20, 1 << 20..=MOST_BYTES;
        /// Tries of a job whose machine failed.
        infra_tries: u32 = 3, 1..=100;
        /// A cancelled job's grace, in seconds; 0 ends it at once.
        cancel_grace_s: u64 = 300, 0..=86_400;
        /// After this long without a heartbeat a node's attempts are given up, in seconds. Less than three heartbeats
        /// would give up nodes that live.
        node_grace_s: u64 = 600, 15..=604_800;
        /// A machine whose agent has no connection for this long is given up, in seconds.
        agent_silence_s: u64 = 120, 1..=86_400;
        /// New jobs are refused while the data directory has fewer free bytes; 0 keeps nothing free.
        min_free_bytes: u64 = 1 << 30, 0..=MOST_BYTES;
        /// Largest repository mirror, in bytes.
        repository_bytes: u64 = 4 << 30, 1 << 20..=MOST_BYTES;
    }
}

numbers! {
    /// How long a machine stays for a person to look into, in minutes.
    Keep, "keep" {
        /// When nothing else is asked for.
        default_minutes: u32 = 30, 1..=WEEK;
        /// At most, each time it is asked for.
        max_minutes: u32 = 24 * 60, 1..=WEEK;
    }
}

numbers! {
    /// How long things are kept, in days; 0 is for ever.
    Retention, "retention" {
        /// Logs.
        logs_days: u32 = 90, 0..=36_500;
        /// Runs and everything about them.
        runs_days: u32 = 365, 0..=36_500;
        /// Bodies of deliveries.
        deliveries_days: u32 = 14, 0..=36_500;
    }
}

impl Keep {
    /// As [`Keep::read`]; what is kept by default is never longer than what may be kept.
    pub(super) fn read_consistent(reader: &mut Reader, top: &Map<'_>) -> Self {
        let before = reader.problems.len();
        let keep = Self::read(reader, top);
        if reader.problems.len() > before {
            return keep;
        }
        let Some(node) = top.get("keep").and_then(|section| section.get("default_minutes")) else {
            return Self {
                default_minutes: keep.default_minutes.min(keep.max_minutes),
                ..keep
            };
        };
        let (wanted, most) = (keep.default_minutes, keep.max_minutes);
        if wanted > most {
            let message = format!("keep.default_minutes is {wanted}, more than keep.max_minutes, which is {most}");
            reader.problem(node.span, message, "lower it, or raise keep.max_minutes".to_owned());
        }
        keep
    }
}

impl Retention {
    /// As [`Retention::read`]; warns of logs that would be kept longer than their run.
    pub(super) fn read_consistent(reader: &mut Reader, top: &Map<'_>) -> Self {
        let retention = Self::read(reader, top);
        let forever = |days: u32| if days == 0 { u32::MAX } else { days };
        if forever(retention.logs_days) > forever(retention.runs_days) {
            let message = "retention.logs_days is longer than runs_days: a run's logs go with the run";
            reader.warning(top.get("retention").map_or(top.span, |section| section.span), message);
        }
        retention
    }
}
