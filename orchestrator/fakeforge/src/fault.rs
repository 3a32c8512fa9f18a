//! Faults on order: what a forge does on a bad day, for the next request that matches or for all; and outages.

use std::time::Duration;

use crate::state::ForgeState;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// This status, and nothing is done.
    Status(u16),
    /// 429 with `Retry-After`, and nothing is done.
    RateLimited {
        /// Seconds in the header.
        retry_after_s: u64,
    },
    /// This status with `Retry-After`, and nothing is done.
    Postponed {
        status: u16,
        /// Seconds in the header.
        retry_after_s: u64,
    },
    /// Silence for this long or until `end_hangs`, then a closed connection; nothing is done.
    Hang(Duration),
    /// The request is done in full, but the connection closes without an answer: the caller cannot
    /// know.
    AcceptThenCut,
    /// The request is done in full, and then answered with this status: what a Forgejo does that fails after it has
    /// stored a commit status.
    AcceptThenStatus(u16),
}

/// A fault that waits for its requests.
#[derive(Debug)]
pub(crate) struct Ordered {
    pub(crate) pattern: String,
    pub(crate) fault: Fault,
    /// It meets all of them, not only the next.
    lasts: bool,
}

impl Ordered {
    pub(crate) fn once(pattern: &str, fault: Fault) -> Self {
        Self {
            pattern: pattern.to_owned(),
            fault,
            lasts: false,
        }
    }

    pub(crate) fn lasting(pattern: &str, fault: Fault) -> Self {
        Self {
            lasts: true,
            ..Self::once(pattern, fault)
        }
    }
}

/// A bad day that lasts until it is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outage {
    /// The process has ended: nobody listens at its address, and connections that were open are cut.
    Stopped,
    /// Every request gets this status.
    Status(u16),
    /// Requests are taken, and done when it is over, also those whose callers have given up: a process that is
    /// suspended and goes on.
    Suspended,
}

impl ForgeState {
    /// The oldest fault whose pattern is part of `METHOD /path`, which is gone then unless it lasts.
    pub(crate) fn take_fault(&mut self, method: &str, path: &str) -> Option<Fault> {
        let request = format!("{method} {path}");
        let position = self
            .faults
            .iter()
            .position(|ordered| request.contains(&ordered.pattern))?;
        match &self.faults[position] {
            Ordered { lasts: true, fault, .. } => Some(fault.clone()),
            _ => Some(self.faults.remove(position).fault),
        }
    }
}
