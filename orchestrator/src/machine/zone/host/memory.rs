//! How much memory machines may have together. vmm wires all of a guest's memory at its start, in competition with
//! ZFS's cache (the ARC): a guest that finds none left cannot be created. So the node admits machines into what is
//! left beside the largest ARC and a reserve for the host itself.

use std::{fs, io};

use nix::libc;

/// Where the ARC's greatest size is set, by `set zfs:zfs_arc_max = BYTES` (system(5)).
const SYSTEM: &str = "/etc/system";
/// What the host itself needs.
const RESERVE: u64 = 2 << 30;

/// A host's memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Memory of the host, in bytes.
    pub physical: u64,
    /// What the ARC may have; none when nobody set it.
    pub arc_max: Option<u64>,
}

impl Memory {
    /// This host's.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn of_this_host() -> io::Result<Self> {
        let text = match fs::read_to_string(SYSTEM) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        Ok(Self {
            physical: physical()?,
            arc_max: arc_max(&text),
        })
    }

    /// What all machines together may have, in MiB. An ARC that nobody limits takes nearly everything and gives it
    /// back slowly; half is counted for it then.
    #[must_use]
    pub fn for_machines_mib(self) -> u64 {
        let arc = self.arc_max.unwrap_or(self.physical / 2);
        self.physical.saturating_sub(arc).saturating_sub(RESERVE) >> 20
    }
}

fn physical() -> io::Result<u64> {
    // SAFETY: sysconf takes an integer and touches no memory of ours.
    let (pages, size) = unsafe { (libc::sysconf(libc::_SC_PHYS_PAGES), libc::sysconf(libc::_SC_PAGESIZE)) };
    match (u64::try_from(pages), u64::try_from(size)) {
        (Ok(pages), Ok(size)) => Ok(pages.saturating_mul(size)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The last setting counts; numbers are decimal, hexadecimal (`0x`) or octal (`0`). Comments begin with `*` or `#`.
fn arc_max(system: &str) -> Option<u64> {
    let number = |text: &str| match (text.strip_prefix("0x"), text.strip_prefix('0')) {
        (Some(hex), _) => u64::from_str_radix(hex, 16).ok(),
        (None, Some(octal)) if !octal.is_empty() => u64::from_str_radix(octal, 8).ok(),
        _ => text.parse().ok(),
    };
    let set = |line: &str| {
        let (name, value) = line.trim().strip_prefix("set ")?.split_once('=')?;
        (name.trim() == "zfs:zfs_arc_max").then(|| number(value.trim()))?
    };
    // 0 is what nobody set.
    system.lines().filter_map(set).next_back().filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_arc_is_as_large_as_the_last_setting_says() {
        for (text, bytes) in [
            ("", None),
            ("* set zfs:zfs_arc_max = 5\n# set zfs:zfs_arc_max=6\n", None),
            ("set zfs:zfs_arc_max = 0x100000000\n", Some(4 << 30)),
            (
                "set zfs:zfs_arc_max=1073741824\nset zfs:zfs_arc_min = 5\n",
                Some(1 << 30),
            ),
            ("set zfs:zfs_arc_max=1\n\tset  zfs:zfs_arc_max =\t010\n", Some(8)),
            ("set zfs:zfs_arc_max = 0\n", None),
            ("set zfs:zfs_arc_max = much\n", None),
        ] {
            assert_eq!(arc_max(text), bytes, "{text}");
        }
    }

    #[test]
    fn machines_get_what_arc_and_host_leave() {
        let host = |physical: u64, arc: Option<u64>| Memory {
            physical: physical << 30,
            arc_max: arc.map(|gib| gib << 30),
        };
        assert_eq!(host(64, Some(16)).for_machines_mib(), 46 << 10);
        assert_eq!(host(64, None).for_machines_mib(), 30 << 10);
        assert_eq!(host(2, Some(1)).for_machines_mib(), 0);
        assert!(Memory::of_this_host().unwrap().physical > 1 << 27);
    }

    proptest! {
        #[test]
        fn any_file_is_read(text in ".*") {
            let _no_panic = arc_max(&text);
        }
    }
}
