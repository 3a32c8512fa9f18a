//! How long tests wait at most. A deadline of a test only ends a hang: it is no statement about speed, so each is at
//! least ten times what the thing takes on an idle machine. `tests/suite/tidy/deadlines.rs` sees to it that every wait of
//! a test is bounded by one of these.

#![allow(dead_code, reason = "each program that includes this uses its own part")]

use std::time::Duration;

/// What takes a second or less: a command, a call, a connection, a file that appears, a process that ends.
pub const PROMPT: Duration = Duration::from_secs(60);

/// Whatever waits for a daemon, its machines and their jobs. An emulated guest boots in two to four seconds alone on
/// an idle machine and in fifteen and more beside others, and a job boots one, works and reports.
pub const GUEST: Duration = Duration::from_secs(400);

/// Emulated Debian: half a minute and more from power to agent.
pub const DEBIAN: Duration = Duration::from_secs(900);

/// All tests of the zone back end inside an emulated guest with real ZFS: two to three minutes.
pub const OPENZFS: Duration = Duration::from_secs(1800);
