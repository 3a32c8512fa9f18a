//! What holds for every command of this process, whoever runs it. It is set once, by whoever owns the process, and is kept
//! beside the commands because they are made in many modules, none of which may be forgotten.

use std::{
    fs::File,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

static COMMANDS: Commands = Commands {
    held: OnceLock::new(),
    finish: AtomicBool::new(false),
};

struct Commands {
    /// See [`children_hold`].
    held: OnceLock<File>,
    /// See [`finish_commands`].
    finish: AtomicBool,
}

/// From now on every command run to its end holds this file open, as the empty file on its standard
/// input. A lock (`flock`) taken on it therefore lasts until this process *and its last command* are
/// gone: an SMF restarter does not kill the commands of a process that crashed, and who starts next
/// must not act beside them.
pub fn children_hold(file: File) {
    let _only_the_first_counts = COMMANDS.held.set(file);
}

/// From now on commands that nobody waits for any more are not ended, but run to their ends or deadlines: a process that
/// stops leaves none of them half done. The runtime's own end waits for them.
pub fn finish_commands() {
    COMMANDS.finish.store(true, Ordering::SeqCst);
}

/// The file that commands hold, if any.
pub(super) fn held() -> Option<&'static File> {
    COMMANDS.held.get()
}

/// Whether commands are left to their ends.
pub(super) fn are_finished() -> bool {
    COMMANDS.finish.load(Ordering::SeqCst)
}
