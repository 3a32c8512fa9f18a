//! Pools and datasets.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Bytes.
    pub size: u64,
    /// `ONLINE`, `DEGRADED`, …
    pub health: String,
}

/// What a dataset is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Filesystem,
    Volume,
    /// A snapshot of either.
    Snapshot,
}

impl Kind {
    /// As `zfs list -o type` prints it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Filesystem => "filesystem",
            Self::Volume => "volume",
            Self::Snapshot => "snapshot",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dataset {
    pub kind: Kind,
    /// A number that no other dataset ever had.
    pub guid: u64,
    /// Seconds since the epoch.
    pub creation: u64,
    /// Local properties, native ones and users'.
    pub local: BTreeMap<String, String>,
    /// The snapshot a clone was made of.
    pub origin: Option<String>,
    /// Bytes of a volume, or of the volume a snapshot was taken of.
    pub volsize: u64,
    /// Bytes of one block of a volume.
    pub volblocksize: u64,
    /// Holds of a snapshot: tag, and when it was made.
    pub holds: BTreeMap<String, u64>,
    /// Whether a file system is mounted.
    pub mounted: bool,
    /// So many destroys are still refused as busy.
    pub busy: u32,
    /// A snapshot to be destroyed when its last hold and clone are gone.
    #[serde(default)]
    pub defer: bool,
}

impl Dataset {
    /// An empty one, made now.
    #[must_use]
    pub fn new(kind: Kind, guid: u64) -> Self {
        Self {
            kind,
            guid,
            creation: now(),
            local: BTreeMap::new(),
            origin: None,
            volsize: 0,
            volblocksize: 0,
            holds: BTreeMap::new(),
            mounted: false,
            busy: 0,
            defer: false,
        }
    }
}

/// Seconds since the epoch.
#[must_use]
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
