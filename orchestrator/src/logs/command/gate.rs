//! Which commands the log obeys, and when: `::add-mask::` and `::stop-commands::`, and behind the latter nothing but its
//! token, until the token comes or the step ends. Both channels of a step share this state, as in GitHub's runner.

use sha2::{Digest, Sha256};

use super::{BRACKETS, Command, MAX_NAME, NAMES, Opening, Parts};

const ADD_MASK: &str = "add-mask";
const STOP: &str = "stop-commands";
/// A command of GitHub's service that no token may be.
const PAUSE: &str = "pause-logging";

/// Tells a token without being it: it lies in the log's file, and a token of some length is a secret.
pub(in crate::logs) type TokenDigest = [u8; 16];

/// See the module.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::logs) struct CommandGate {
    /// Of the token that is waited for.
    pub(in crate::logs) stopped: Option<TokenDigest>,
}

/// What a command asks of the log.
pub(in crate::logs) enum Action {
    /// To hide this from here on.
    Mask(Vec<u8>),
    /// To obey nothing until this token comes.
    Stop(String),
    /// To obey commands again.
    Resume,
}

impl CommandGate {
    /// Obeys nothing from here on but `token`.
    pub(in crate::logs) fn stop(&mut self, token: &str) {
        self.stopped = Some(digest(token.as_bytes()));
    }

    /// Obeys commands again; whether it did not before.
    pub(in crate::logs) fn resume(&mut self) -> bool {
        self.stopped.take().is_some()
    }

    /// Whether what begins so may become a command that is obeyed.
    pub(super) fn may_obey(&self, opening: &Opening<'_>) -> bool {
        let name = opening.name;
        match self.stopped {
            None => [ADD_MASK, STOP].into_iter().any(|known| match opening.is_whole {
                true => known.as_bytes().eq_ignore_ascii_case(name),
                false => known
                    .as_bytes()
                    .get(..name.len())
                    .is_some_and(|begin| begin.eq_ignore_ascii_case(name)),
            }),
            Some(token) => !opening.is_whole || digest(name) == token,
        }
    }

    /// Whether what begins so hides its value.
    pub(super) fn is_mask(&self, opening: &Opening<'_>) -> bool {
        self.stopped.is_none() && opening.is_whole && ADD_MASK.as_bytes().eq_ignore_ascii_case(opening.name)
    }

    /// What a whole command that [`CommandGate::may_obey`] asks for. `at_start` says that only blanks stand before it in
    /// its line.
    pub(super) fn action(&self, parts: &Parts<'_>, at_start: bool) -> Option<Action> {
        if self.stopped.is_some() {
            return Some(Action::Resume);
        }
        let command = parts.command()?;
        if command.is(ADD_MASK) {
            return Some(Action::Mask(command.value));
        }
        // In the middle of a line that may be a command of the other spelling, the runner may not see this one. To stop
        // is to show what comes, so that it is done only when it is certain.
        if parts.spelling == &BRACKETS && !at_start {
            return None;
        }
        usable_token(command).map(Action::Stop)
    }
}

/// A token that a command can name again.
fn usable_token(command: Command) -> Option<String> {
    let token = String::from_utf8(command.value).ok()?;
    let is_taken = NAMES
        .into_iter()
        .chain([PAUSE])
        .any(|name| token.eq_ignore_ascii_case(name));
    (!token.is_empty() && token.len() <= MAX_NAME && !is_taken).then_some(token)
}

fn digest(token: &[u8]) -> TokenDigest {
    let whole: [u8; 32] = Sha256::digest(token.to_ascii_lowercase()).into();
    let mut digest = TokenDigest::default();
    digest.copy_from_slice(&whole[..16]);
    digest
}
