//! What a machine's console says at its end.

use crate::{daemon::Deps, model::names::MachineName};

/// How many bytes of the end of a lost machine's console are looked at for what it died of.
const CONSOLE_END: usize = 64 * 1024;

/// The end of a machine's console, at most [`CONSOLE_END`] bytes; nothing when it cannot be read.
pub(super) async fn end_of_console(deps: &Deps, name: &MachineName) -> Vec<u8> {
    let mut end: Vec<u8> = Vec::new();
    let mut at = 0;
    while let Ok(part) = deps.machines.console(name, at).await {
        if part.bytes.is_empty() {
            break;
        }
        end.extend_from_slice(&part.bytes);
        end.drain(..end.len().saturating_sub(CONSOLE_END));
        at = part.next;
    }
    end
}
