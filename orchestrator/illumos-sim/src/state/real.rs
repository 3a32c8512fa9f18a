//! What makes guests real.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Guests are emulated machines, and links, addresses and filter rules are the kernel's own. It needs a
/// network namespace that belongs to this host alone, and `/dev/net/tun`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Real {
    /// The kernel that the firmware starts: this one looks for none on the disk.
    pub kernel: PathBuf,
    /// Its initial RAM disk.
    pub initrd: PathBuf,
    pub cmdline: String,
}
