//! What a forge is told: one state per check name and commit. Adapters translate it; nothing above
//! them knows how a forge words it.

use serde::{Deserialize, Serialize};

use super::{
    ids::{JobId, RunId},
    names::{CommitSha, ConnectionId, ForgeContext},
    trigger::Repository,
};

/// The name of the aggregate check over a commit's current runs.
pub const AGGREGATE: &str = "helios-ci";

/// The wanted state of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Where.
    pub repository: Repository,
    /// The commit.
    pub commit: CommitSha,
    /// [`AGGREGATE`], or a job's name from [`super::plan::Plan::check_name`].
    pub name: String,
    /// Raised when a check that was final goes on, as in a re-run: a new number supersedes the earlier
    /// check run.
    pub generation: u32,
    /// The state.
    pub state: ReportState,
    /// One line that carries the fact: `2 of 3 jobs failed`.
    pub title: String,
    /// Markdown of our own making; foreign text in it is escaped by its writer.
    pub summary: String,
    /// The run the details link leads to, and the job where the check is a job's.
    pub run: Option<RunId>,
    /// See `run`.
    pub job: Option<JobId>,
    /// Milliseconds since 1970.
    pub started_ms: Option<i64>,
    /// Milliseconds since 1970; set exactly when the state is final.
    pub completed_ms: Option<i64>,
}

impl Report {
    /// The lane it goes by.
    #[must_use]
    pub fn lane(&self) -> Lane {
        Lane {
            connection: self.repository.connection.clone(),
            context: self.repository.context.clone(),
        }
    }
}

/// The way of reports to one forge context of a connection: what a forge limits, and what it is away for, together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane {
    /// The forge.
    pub connection: ConnectionId,
    /// What it knows the repositories by.
    pub context: ForgeContext,
}

/// The states a check goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReportState {
    /// Known, not begun.
    Queued,
    /// A machine runs it.
    Running,
    /// Final.
    Success,
    /// Final.
    Failure,
    /// Final.
    Cancelled,
    /// Final.
    TimedOut,
    /// Final: not run, because what it needs did not succeed. It is no success: a rule that requires
    /// the check is not met.
    Skipped,
    /// Final: we failed, or the workflow file is wrong.
    Error,
}

impl ReportState {
    /// Whether nothing follows it within its generation.
    #[must_use]
    pub fn is_final(self) -> bool {
        match self {
            Self::Queued | Self::Running => false,
            Self::Success | Self::Failure | Self::Cancelled | Self::TimedOut | Self::Skipped | Self::Error => true,
        }
    }

    /// How bad it is: of several facts under one check's name the worst is shown. What has gone wrong
    /// already outweighs what is not known yet, and that outweighs success.
    #[must_use]
    pub fn severity(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Queued => 1,
            Self::Running => 2,
            Self::Skipped => 3,
            Self::Cancelled => 4,
            Self::TimedOut => 5,
            Self::Failure => 6,
            Self::Error => 7,
        }
    }
}
