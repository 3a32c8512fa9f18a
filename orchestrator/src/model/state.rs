//! The states of everything that moves, and the moves that are legal. The store's guarded SQL is
//! written from these tables and a test compares the two; the diagrams in docs/architecture.md are
//! compared with them as well.

use serde::{Deserialize, Serialize};

macro_rules! states {
    ($($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),* $(,)? }
        moves { $($from:ident => [$($to:ident),*]),* $(,)? } )*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[cfg_attr(test, derive(schemars::JsonSchema))]
        pub enum $name { $($(#[$vdoc])* $variant),* }

        impl $name {
            /// Every state, in the order of life.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The word that the database, the API and the pages use.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }

            /// The states that may follow this one. None for a terminal state.
            #[must_use]
            pub fn next(self) -> &'static [Self] {
                match self { $(Self::$from => &[$(Self::$to),*],)* #[allow(unreachable_patterns)] _ => &[] }
            }

            /// Whether a row in this state never changes again.
            #[must_use]
            pub fn is_terminal(self) -> bool {
                self.next().is_empty()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = UnknownState;
            fn from_str(text: &str) -> Result<Self, UnknownState> {
                match text {
                    $($text => Ok(Self::$variant),)*
                    _ => Err(UnknownState { kind: stringify!($name), text: text.chars().take(40).collect() }),
                }
            }
        }
    )*};
}

/// A word that is no state of its kind: the database was written by something else.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no {kind}")]
pub struct UnknownState {
    kind: &'static str,
    text: String,
}

states! {
    /// A webhook or trigger on its way to runs. Both are claimed with a lease.
    IntakeState {
        /// Stored and answered; not looked at yet.
        Received = "received",
        /// Something came of it.
        Planned = "planned",
        /// Nothing to do, for a reason that is stored.
        Ignored = "ignored",
        /// Could not be used; the reason is stored.
        Failed = "failed",
    } moves { Received => [Planned, Ignored, Failed] }

    /// A run attempt.
    RunState {
        /// Some job has not ended.
        Active = "active",
        /// At least one job succeeded, and each of the others succeeded or was skipped.
        Success = "success",
        /// A job failed.
        Failure = "failure",
        /// Every job was skipped: nothing went wrong, and nothing was shown to work.
        Skipped = "skipped",
        /// Cancelled by a person.
        Cancelled = "cancelled",
        /// We failed, or the workflow cannot be planned.
        Error = "error",
    } moves { Active => [Success, Failure, Skipped, Cancelled, Error] }

    /// A job of a run attempt.
    JobState {
        /// For its `needs`, a concurrency group or an approval; the reason is a column.
        Waiting = "waiting",
        /// Any node with room may claim it.
        Queued = "queued",
        /// An attempt is under way.
        Active = "active",
        /// All steps that count succeeded.
        Success = "success",
        /// A step failed.
        Failure = "failure",
        /// Not run, because of its `needs`.
        Skipped = "skipped",
        /// Cancelled by a person.
        Cancelled = "cancelled",
        /// A time limit was reached.
        TimedOut = "timed_out",
        /// We failed; the cause is a column.
        Error = "error",
    } moves {
        Waiting => [Queued, Skipped, Cancelled, Error],
        Queued => [Active, Cancelled, TimedOut, Error],
        Active => [Queued, Success, Failure, Cancelled, TimedOut, Error],
    }

    /// One try of a job.
    AttemptState {
        /// Its machine is being made and has not said hello.
        Preparing = "preparing",
        /// Steps run.
        Running = "running",
        /// Steps are over; results are being collected.
        Finishing = "finishing",
        /// Over: `result` or `infra` say how.
        Ended = "ended",
    } moves { Preparing => [Running, Finishing, Ended], Running => [Finishing, Ended], Finishing => [Ended] }

    /// A step of an attempt.
    StepState {
        /// Not begun.
        Pending = "pending",
        /// Under way.
        Running = "running",
        /// Exit code zero.
        Success = "success",
        /// Any other end; with `continue-on-error` the job goes on.
        Failure = "failure",
        /// Not run: its condition did not hold when its turn came, or the job had ended.
        Skipped = "skipped",
        /// Stopped by a cancellation.
        Cancelled = "cancelled",
        /// Stopped by a time limit.
        TimedOut = "timed_out",
    } moves { Pending => [Running, Skipped, Cancelled], Running => [Success, Failure, Cancelled, TimedOut] }

    /// A machine's row: intent before action.
    MachineState {
        /// The row exists; the host may hold any part of the machine.
        Preparing = "preparing",
        /// Started.
        Running = "running",
        /// Its job has ended, and it stays for a person to look into.
        Kept = "kept",
        /// To be destroyed, one idempotent step after another.
        Draining = "draining",
        /// Nothing of it is left on the host.
        Gone = "gone",
    } moves {
        Preparing => [Running, Draining],
        Running => [Kept, Draining],
        Kept => [Draining],
        Draining => [Gone],
    }
}

/// How a job ends when its steps were ours to judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum JobResult {
    /// All steps that count succeeded.
    Success,
    /// A step failed.
    Failure,
    /// Cancelled by a person.
    Cancelled,
    /// A time limit was reached.
    TimedOut,
    /// We failed in a way that a retry cannot mend.
    Error,
}

impl JobResult {
    /// The job's terminal state.
    #[must_use]
    pub fn state(self) -> JobState {
        match self {
            Self::Success => JobState::Success,
            Self::Failure => JobState::Failure,
            Self::Cancelled => JobState::Cancelled,
            Self::TimedOut => JobState::TimedOut,
            Self::Error => JobState::Error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_round_trip() {
        for state in JobState::ALL {
            assert_eq!(state.as_str().parse::<JobState>().unwrap(), *state);
        }
        assert!("done".parse::<JobState>().is_err());
    }

    #[test]
    fn an_active_job_may_be_queued_again_but_nothing_leaves_a_terminal_state() {
        assert!(JobState::Active.next().contains(&JobState::Queued));
        for state in JobState::ALL.iter().filter(|s| s.is_terminal()) {
            assert!(state.next().is_empty());
        }
        assert!(
            !JobState::Queued.next().contains(&JobState::Success),
            "only an attempt can succeed"
        );
    }
}
