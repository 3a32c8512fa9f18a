//! The only place that spawns processes. `run` is for commands that end by themselves (bounded
//! output, deadline); `spawn` is for processes that run beside this one, most of them with pipes that are
//! read meanwhile. All start from an empty environment with `LC_ALL=C`, so that no secret of the daemon
//! reaches a helper and no locale changes a text that is parsed.
//!
//! ```text
//!  Cmd ─▶ spawn, in a process group of its own ─▶ two readers, each bounded by `cap` ─▶ exit ─▶ ends of the pipes ─▶ Output
//!                                                                                      └── deadline ──┴─▶ group killed
//! ```
//!
//! **What a program left behind may hold its pipes** after its exit. They are read to their ends within the same deadline,
//! and at least half a second; then the group is killed.
//!
//! **A deadline kills the group**, so that helpers of the program go with it. A command of a host that must not be cut in
//! the middle (`zfs`, `zoneadm`) gets a deadline that only ends a hang.
//!
//! **A command can outlive a daemon that was killed.** `children_hold` lets each command hold a lock that the next daemon
//! waits for, so that nobody acts beside it.

mod command;
mod output;
mod process_wide;
mod run;
mod spawn;

pub use command::Cmd;
pub use output::{ExecError, Output};
pub use process_wide::{children_hold, finish_commands};
