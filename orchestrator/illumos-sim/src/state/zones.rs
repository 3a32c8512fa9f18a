//! Zones as the kernel and zoneadmd know them.

use serde::{Deserialize, Serialize};

/// The state of a zone. The first three are stored in the index; the rest the kernel holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ZoneState {
    Configured,
    /// An install or uninstall did not end.
    Incomplete,
    Installed,
    /// The kernel knows it; no process runs.
    Ready,
    Running,
    /// It is being halted.
    ShuttingDown,
    /// It is halted, but something is left.
    Down,
}

impl ZoneState {
    /// As `zoneadm list` prints it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Configured => "configured",
            Self::Incomplete => "incomplete",
            Self::Installed => "installed",
            Self::Ready => "ready",
            Self::Running => "running",
            Self::ShuttingDown => "shutting_down",
            Self::Down => "down",
        }
    }

    /// The state of this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [
            Self::Configured,
            Self::Incomplete,
            Self::Installed,
            Self::Ready,
            Self::Running,
            Self::ShuttingDown,
            Self::Down,
        ]
        .into_iter()
        .find(|state| state.as_str() == text)
    }
}

/// One zone that the kernel knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelZone {
    pub id: u64,
    /// Ready, running, shutting down or down.
    pub state: ZoneState,
    /// Whether bhyve is alive.
    pub guest: bool,
    /// How often bhyve was started since the boot.
    pub starts: u32,
    /// Volumes that bhyve holds open.
    pub volumes: Vec<String>,
    /// When a halt began to wait for the guest, in seconds since the epoch.
    pub halting_since: Option<u64>,
    /// bhyve is gone and the kernel does not know it yet (running), or still halts the zone (shutting down): so many
    /// listings show it, then the next comes.
    #[serde(default)]
    pub lingers: u32,
    /// What `lastexited` will say then.
    #[serde(default)]
    pub status: i64,
}

/// An act of zoneadmd whose client is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The arguments of the zoneadm that was killed.
    pub args: Vec<String>,
    /// Passes of any program until it is done.
    pub after: u32,
}
