//! The scale of the zone back end's time limits. The limits stand where they are used. A test in which a command hangs
//! shortens all of them at once.

use std::time::Duration;

use crate::exec::Cmd;

/// Divides every time limit of this back end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeoutScale(u32);

impl Default for TimeoutScale {
    /// Full limits.
    fn default() -> Self {
        Self(1)
    }
}

impl TimeoutScale {
    /// Limits divided by `divisor`: 100 makes 300 ms of 30 s. 0 counts as 1.
    #[must_use]
    pub const fn one_in(divisor: u32) -> Self {
        Self(if divisor == 0 { 1 } else { divisor })
    }

    /// A limit at this scale.
    #[must_use]
    pub fn scaled(self, limit: Duration) -> Duration {
        limit / self.0
    }

    /// A command with its deadline at this scale.
    pub(in crate::machine::zone) fn command(self, command: Cmd) -> Cmd {
        command.scale_deadline(self.0)
    }
}
