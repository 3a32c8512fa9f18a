//! Releases of OmniOS, whose bhyve brand differs from one to the next.

use std::{fmt, str::FromStr};

/// A release, ordered by age: `r151054`, or `master`, which is newer than all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release(u32);

/// Text that names no release.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no release of OmniOS: write r151054, r151058 or master")]
pub struct NoRelease(String);

impl Release {
    /// The oldest that is supported: what works there works everywhere.
    pub const OLDEST: Self = Self(151_054);
    /// The development after r151058 (bloody releases have odd numbers): what is in none of the stable ones yet.
    pub const AFTER_R151058: Self = Self(151_059);
    /// Newer than every release.
    pub const MASTER: Self = Self(u32::MAX);

    /// The release that `uname -v` names: `omnios-r151054-1234abcd`, `omnios-master-1234abcd`. None on other systems.
    #[must_use]
    pub fn of_kernel(version: &str) -> Option<Self> {
        version.strip_prefix("omnios-")?.split('-').next()?.parse().ok()
    }
}

impl FromStr for Release {
    type Err = NoRelease;
    fn from_str(text: &str) -> Result<Self, NoRelease> {
        let number = || {
            let digits = text.strip_prefix('r')?;
            let plain = digits.len() == 6 && digits.bytes().all(|b| b.is_ascii_digit());
            digits.parse().ok().filter(|_| plain).map(Self)
        };
        match text {
            "master" => Ok(Self::MASTER),
            _ => number().ok_or_else(|| NoRelease(text.chars().take(40).collect())),
        }
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::MASTER => f.write_str("master"),
            Self(number) => write!(f, "r{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read_and_ordered_by_age() {
        let release = |text: &str| text.parse::<Release>().unwrap();
        assert!(Release::OLDEST < release("r151056") && release("r151058") < Release::AFTER_R151058);
        assert!(Release::AFTER_R151058 < release("r151060") && release("r151060") < Release::MASTER);
        for text in ["r151054", "master"] {
            assert_eq!(release(text).to_string(), text);
        }
        for bad in ["", "151054", "r15105", "r1510544", "r+51054", "Master", "r15105x"] {
            bad.parse::<Release>().unwrap_err();
        }
        assert_eq!(Release::of_kernel("omnios-r151054-3f8d6b1c0a"), Some(Release::OLDEST));
        assert_eq!(Release::of_kernel("omnios-master-3f8d6b1c0a"), Some(Release::MASTER));
        for other in [
            "joyent_20260101T000000Z",
            "illumos-3f8d6b1c0a",
            "omnios",
            "helios-2.0.1",
        ] {
            assert_eq!(Release::of_kernel(other), None, "{other}");
        }
    }
}
