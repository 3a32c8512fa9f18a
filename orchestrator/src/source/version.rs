//! Which git is there, and whether it is one that can be used.

use std::time::Duration;

use crate::exec::{Cmd, ExecError};

/// `GIT_CONFIG_GLOBAL`, by which git is given a forge's credential and kept from the person's own settings, came
/// with this version; an older one ignores it without a word. Protocol version 2 and `--end-of-options` are older.
const OLDEST: (u32, u32) = (2, 32);
const DEADLINE: Duration = Duration::from_secs(20);

/// What mends each of [`GitError`].
pub const GIT_FIX: &str = "install git 2.32 or later, and let it be the first on PATH";

/// A git that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// It ignores the options that we need.
    #[error("{found} is too old: it ignores GIT_CONFIG_GLOBAL, which holds the credential for a forge")]
    TooOld {
        /// What it says of itself.
        found: String,
    },
    /// This is no git.
    #[error("`git --version` names no version: {answer}")]
    Answer {
        /// What it said.
        answer: String,
    },
    /// It cannot be asked.
    #[error("cannot ask git for its version")]
    Exec(#[from] ExecError),
}

/// What the git of this process's `PATH` says of itself.
///
/// # Errors
/// When there is none, or one that cannot be used.
pub async fn git_version() -> Result<String, GitError> {
    let output = Cmd::new("git").arg("--version").deadline(DEADLINE).run().await?.ok()?;
    let found = output.text().trim().to_owned();
    match number(&found) {
        None => Err(GitError::Answer { answer: found }),
        Some(version) if version < OLDEST => Err(GitError::TooOld { found }),
        Some(_) => Ok(found),
    }
}

/// `git version 2.39.5`, with whatever a vendor appends.
fn number(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.strip_prefix("git version ")?.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_all_vendors_write_them() {
        for (text, version) in [
            ("git version 2.39.5", Some((2, 39))),
            ("git version 2.32.0 (Apple Git-132)", Some((2, 32))),
            ("git version 2.45.1.windows.1", Some((2, 45))),
            ("git version 2.9", Some((2, 9))),
            ("git version 3.0-rc1", Some((3, 0))),
            ("git version 2.50.GIT", Some((2, 50))),
            ("git version 2.", None),
            ("git version", None),
            ("hg 6.1", None),
            ("", None),
        ] {
            assert_eq!(number(text), version, "{text}");
        }
        // By number, not by letter.
        assert!(number("git version 2.9").unwrap() < OLDEST && number("git version 2.100").unwrap() > OLDEST);
    }
}
