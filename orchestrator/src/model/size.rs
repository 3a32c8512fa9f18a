//! How large a machine is.

use std::collections::BTreeMap;

/// What a machine gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Virtual processors.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Disk in GiB.
    pub disk_gib: Option<u64>,
}

impl Default for Size {
    /// What an image gets that names no size: 2 processors, 2 GiB.
    fn default() -> Self {
        Self {
            cpus: 2,
            memory_mib: 2048,
            disk_gib: None,
        }
    }
}

impl Size {
    /// The presets that exist unless redefined: `small` (1 processor, 1 GiB), `medium` (2, 2 GiB) and
    /// `large` (4, 4 GiB).
    #[must_use]
    pub fn presets() -> BTreeMap<String, Self> {
        [("small", 1, 1024), ("medium", 2, 2048), ("large", 4, 4096)]
            .map(|(name, cpus, memory_mib)| {
                let size = Self {
                    cpus,
                    memory_mib,
                    disk_gib: None,
                };
                (name.to_owned(), size)
            })
            .into()
    }
}
