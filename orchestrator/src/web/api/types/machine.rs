//! Machines that are kept, and their consoles.

use serde::{Deserialize, Serialize};

use crate::model::{
    ids::{AttemptId, JobId},
    names::{MachineName, NodeName},
    state::MachineState,
};

/// How a machine is kept after its job.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Keep {
    /// The machine; only in answers about jobs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineName>,
    /// Who asked.
    pub by: String,
    /// When.
    pub asked: String,
    /// For how many seconds after the job.
    pub for_s: i64,
    /// Until when; none before the job's end.
    pub until: Option<String>,
    /// What kind of machine it is: `zone`, `qemu`.
    pub backend: Option<String>,
    /// Who types on its console; none also for readers who may not know.
    pub console_by: Option<String>,
    /// The node has let go of the console; none for readers who may not know.
    pub console_free: Option<bool>,
    /// The line that attaches to its console; none while that is not possible, and for readers who may not know.
    pub attach: Option<String>,
    /// All of that in a sentence.
    pub words: String,
}

/// `GET /api/v1/machines/{id}`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Machine {
    /// Its name on the host.
    pub name: MachineName,
    /// The try that it was made for.
    pub attempt: AttemptId,
    /// The job of that try.
    pub job: JobId,
    /// Where it is.
    pub node: NodeName,
    /// Where it stands.
    pub state: MachineState,
    /// When its row was written, which is before it exists.
    pub created: String,
    /// How it is kept, or is to be.
    pub keep: Option<Keep>,
}

/// One machine of a list.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ListedMachine {
    /// Its name on the host.
    pub name: MachineName,
    /// Where it stands.
    pub state: MachineState,
    /// How it is kept, or is to be.
    pub keep: Option<Keep>,
}

/// `GET /api/v1/machines`: the machines of the node that answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MachineList {
    /// The node.
    pub node: NodeName,
    /// Its machines.
    pub machines: Vec<ListedMachine>,
}

/// The body of `POST /api/v1/machines/{id}/keep`; the configured time when there is none.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct KeepBody {
    /// For how many seconds.
    #[serde(default)]
    pub for_s: Option<u64>,
}

/// Since when a machine is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum KeepOutcome {
    /// It is kept now.
    Kept,
    /// It will be, when its job ends.
    AtItsEnd,
}

/// What `POST /api/v1/machines/{id}/keep` answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Kept {
    /// Since when.
    pub outcome: KeepOutcome,
    /// The machine as it is now.
    pub machine: Machine,
}

/// What becomes of a machine that is no longer kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ReleaseOutcome {
    /// Its job runs; it goes with the job.
    Withdrawn,
    /// It is being removed.
    Removing,
    /// It was gone already.
    Gone,
}

impl ReleaseOutcome {
    /// What a person reads after the machine's name.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Withdrawn => "will not be kept and goes with its job",
            Self::Removing => "is being removed",
            Self::Gone => "was gone already",
        }
    }
}

/// What `POST /api/v1/machines/{id}/release` and `…/destroy` answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Released {
    /// The machine.
    pub machine: MachineName,
    /// What becomes of it.
    pub outcome: ReleaseOutcome,
}

/// `GET /api/v1/machines/{id}/console`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ConsoleRead {
    /// What the guest has said, in base64 (RFC 4648, section 4): any bytes.
    pub base64: String,
    /// The `from` of the next call.
    pub next: u64,
    /// Where the machine stands.
    pub state: MachineState,
}

/// What `POST /api/v1/machines/{id}/console` answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ConsoleTyped {
    /// The machine.
    pub machine: MachineName,
    /// Bytes that were typed.
    pub bytes: usize,
}
