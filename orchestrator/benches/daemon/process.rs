//! What the kernel knows of a process.

use std::{collections::HashMap, ffi::OsString, fs};

/// A number of kibibytes or of something else in a process's status.
pub fn status(pid: i32, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(field)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Mebibytes of resident memory now.
pub fn resident_mib(pid: i32) -> f64 {
    status(pid, "VmRSS:") as f64 / 1024.0
}

/// The most it ever had, since [`forget_peak`].
pub fn peak_mib(pid: i32) -> f64 {
    status(pid, "VmHWM:") as f64 / 1024.0
}

/// From now on the peak is that of what follows.
pub fn forget_peak(pid: i32) {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("a process of ours");
}

/// Milliseconds of processors that a process and those of its children used that have ended.
pub fn cpu_ms(pid: i32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Its name may hold anything but ends at the last bracket.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    // utime, stime, cutime, cstime, in hundredths of a second.
    let ticks = fields.split_whitespace().skip(11).take(4);
    ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() * 10.0
}

/// Of each thread of a process, how often it waited.
pub fn waits(pid: i32) -> HashMap<OsString, u64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    tasks
        .map(|task| {
            let text = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with("voluntary_ctxt_switches"));
            let count = line
                .and_then(|l| l.split_whitespace().nth(1)?.parse().ok())
                .unwrap_or(0);
            (task.file_name(), count)
        })
        .collect()
}
