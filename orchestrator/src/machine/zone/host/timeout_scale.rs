//! How long the host is waited for. The figures stand where they are used; a test that lets a command hang asks
//! for a part of all of them at once, instead of sleeping through them.

use std::time::Duration;

use crate::exec::Cmd;

/// A part of every time that this back end waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience(u32);

impl Default for Patience {
    /// All of it.
    fn default() -> Self {
        Self(1)
    }
}

impl Patience {
    /// So small a part of it: 100 makes 300 ms of 30 s.
    #[must_use]
    pub const fn part(part: u32) -> Self {
        Self(if part == 0 { 1 } else { part })
    }

    /// That part of a time.
    #[must_use]
    pub fn of(self, whole: Duration) -> Duration {
        whole / self.0
    }

    /// A command with that part of its deadline.
    pub(in crate::machine::zone) fn command(self, command: Cmd) -> Cmd {
        command.hurried(self.0)
    }
}
