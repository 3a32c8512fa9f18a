//! What the agent tells of its machine.

use std::{io, path::Path, thread, time::Duration};

use helios_proto::v1::{MachineFacts, Metrics};
use nix::{
    libc,
    sys::{statvfs::statvfs, utsname::uname},
};

use crate::clock;

/// How often measurements are sent while something runs.
pub const METRICS_EVERY: Duration = Duration::from_secs(15);

/// The agent's version as it is shown to people.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The machine as it is now.
pub fn facts() -> io::Result<MachineFacts> {
    let system = uname()?;
    Ok(MachineFacts {
        os: std::env::consts::OS.to_owned(),
        architecture: std::env::consts::ARCH.to_owned(),
        kernel: kernel(
            std::env::consts::OS,
            &system.release().to_string_lossy(),
            &system.version().to_string_lossy(),
        )
        .to_owned(),
        hostname: system.nodename().to_string_lossy().into_owned(),
        cpus: thread::available_parallelism().map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX)),
        memory_bytes: pages(libc::_SC_PHYS_PAGES)?,
        agent_version: VERSION.to_owned(),
        time_ms: clock::now_ms(),
    })
}

/// The word of uname(2) that tells one kernel from another. Every illumos has the release `5.11`; there the version
/// does it, such as `omnios-r151054-d06a7e2e9c`.
fn kernel<'a>(os: &str, release: &'a str, version: &'a str) -> &'a str {
    if os == "illumos" { version } else { release }
}

/// What is used of the machine now; `disk` lies on the file system that is measured.
pub fn metrics(disk: &Path) -> io::Result<Metrics> {
    let disk = statvfs(disk)?;
    // The widths of these differ between systems.
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
    let (unit, total, free) = (
        disk.fragment_size() as u64,
        disk.blocks() as u64,
        disk.blocks_free() as u64,
    );
    Ok(Metrics {
        memory_used_bytes: pages(libc::_SC_PHYS_PAGES)?.saturating_sub(memory_available()?),
        disk_used_bytes: total.saturating_sub(free).saturating_mul(unit),
        disk_total_bytes: total.saturating_mul(unit),
        load_milli: load_milli(),
    })
}

/// Bytes in a number of pages that sysconf(3) knows.
fn pages(name: libc::c_int) -> io::Result<u64> {
    // SAFETY: sysconf takes an integer and touches no memory of ours.
    let (pages, size) = unsafe { (libc::sysconf(name), libc::sysconf(libc::_SC_PAGESIZE)) };
    match (u64::try_from(pages), u64::try_from(size)) {
        (Ok(pages), Ok(size)) => Ok(pages.saturating_mul(size)),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(target_os = "linux")]
fn memory_available() -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    available(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/meminfo has no MemAvailable"))
}

#[cfg(target_os = "linux")]
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(not(target_os = "linux"))]
fn memory_available() -> io::Result<u64> {
    pages(libc::_SC_AVPHYS_PAGES)
}

/// The load of the last minute in thousandths; 0 where the system does not tell.
fn load_milli() -> u32 {
    let mut load = [0.0_f64];
    // SAFETY: one element is asked for and there is one.
    let got = unsafe { libc::getloadavg(load.as_mut_ptr(), 1) };
    // A conversion from float saturates, which is what is wanted.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    if got == 1 { (load[0] * 1000.0) as u32 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_facts() {
        let facts = facts().unwrap();
        assert_eq!(facts.os, std::env::consts::OS);
        assert!(facts.cpus >= 1 && facts.memory_bytes > 1 << 20 && !facts.kernel.is_empty());
        let metrics = metrics(Path::new("/")).unwrap();
        assert!(metrics.memory_used_bytes > 0 && metrics.memory_used_bytes < facts.memory_bytes);
        assert!(metrics.disk_used_bytes <= metrics.disk_total_bytes && metrics.disk_total_bytes > 0);
    }

    #[test]
    fn a_kernel_is_named_by_the_word_that_tells_it_from_others() {
        let linux = ("6.1.0-39-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.148-1 (2025-08-26)");
        assert_eq!(kernel("linux", linux.0, linux.1), linux.0);
        assert_eq!(
            kernel("illumos", "5.11", "omnios-r151054-d06a7e2e9c"),
            "omnios-r151054-d06a7e2e9c"
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn meminfo_is_read() {
        assert_eq!(available("MemTotal:  9 kB\nMemAvailable:   12 kB\n"), Some(12 * 1024));
        assert_eq!(available("MemTotal:  9 kB\n"), None);
    }
}
