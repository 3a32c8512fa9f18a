//! What others do on this machine: it would be measured as ours.

use std::{
    fs,
    time::{Duration, Instant},
};

/// The part of a processor that others may use.
pub const BOUND: f64 = 0.1;
/// How long this machine is watched.
const WATCHED: Duration = Duration::from_secs(1);
/// How often it is watched before this gives up.
const TRIES: u32 = 60;
/// The kernel counts in hundredths of a second.
const TICKS_A_SECOND: f64 = 100.0;

/// Waits until nobody else works here; the part of a processor that others use then. No daemon of ours may run.
///
/// # Errors
/// What they use, when that goes on for a minute; never when `busy` allows it.
pub fn wait_for_quiet(busy: bool) -> Result<f64, f64> {
    let mut others = watch();
    for _ in 1..TRIES {
        if busy || others <= BOUND {
            return Ok(others);
        }
        others = watch();
    }
    if others <= BOUND { Ok(others) } else { Err(others) }
}

fn watch() -> f64 {
    let (begun, before) = (Instant::now(), (busy_ticks(), own_ticks()));
    std::thread::sleep(WATCHED);
    let (all, own) = (busy_ticks() - before.0, own_ticks() - before.1);
    (all - own).max(0.0) / TICKS_A_SECOND / begun.elapsed().as_secs_f64()
}

/// Ticks in which any processor did something, or was taken away by the host.
fn busy_ticks() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let all = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    // user, nice, system, idle, iowait, irq, softirq, steal; guests are part of the first two.
    let ticks = all.take(8).filter_map(|field| field.parse::<f64>().ok()).enumerate();
    ticks
        .filter(|(field, _)| !matches!(field, 3 | 4))
        .map(|(_, ticks)| ticks)
        .sum()
}

fn own_ticks() -> f64 {
    super::process::cpu_ms(i32::try_from(std::process::id()).unwrap_or(0)) * TICKS_A_SECOND / 1000.0
}
