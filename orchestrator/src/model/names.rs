//! Names that come from outside, as parsed types: the constructor is the only way in.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Text that is not a valid name of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {kind}: {rule}")]
pub struct BadName {
    kind: &'static str,
    text: String,
    rule: &'static str,
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident, $kind:literal, $rule:literal, $check:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        #[cfg_attr(test, derive(schemars::JsonSchema))]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }

        impl FromStr for $name {
            type Err = BadName;
            fn from_str(text: &str) -> Result<Self, BadName> {
                let check: fn(&str) -> bool = $check;
                if check(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    // It is shown on terminals and in logs, which must not obey it.
                    let shown = text.chars().take(80).map(|c| if c.is_control() { '\u{fffd}' } else { c });
                    Err(BadName { kind: $kind, text: shown.collect(), rule: $rule })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadName;
            fn try_from(text: String) -> Result<Self, BadName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    )*};
}

fn plain(text: &str, max: usize, extra: &[u8]) -> bool {
    let bytes = text.as_bytes();
    bytes.len() <= max
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || extra.contains(b))
}

/// The rule of `git check-ref-format`, and stricter: no component may begin with `-`, because such
/// a ref reads as an option (facts on git injection: `refs/heads/--upload-pack=…` is a valid ref).
fn ref_name(text: &str) -> bool {
    text.len() <= 1024
        && text.starts_with("refs/")
        && text.split('/').count() >= 3
        && text.split('/').all(|part| {
            !part.is_empty()
                && !part.starts_with(['.', '-'])
                && !part.ends_with('.')
                && !part.ends_with(".lock")
                && !part.contains("..")
                && !part.contains("@{")
        })
        && !text
            .chars()
            .any(|c| c.is_control() || matches!(c, ' ' | '~' | '^' | ':' | '?' | '*' | '[' | '\\'))
}

names! {
    /// A forge connection of the configuration: the last part of its webhook's path.
    ConnectionId, "a connection name", "1 to 40 of a-z, 0-9 and `-`, the first a letter or digit",
        |t| plain(t, 40, b"-") && !t.bytes().any(|b| b.is_ascii_uppercase());
    /// A node of the installation.
    NodeName, "a node name", "1 to 63 of a-z, 0-9, `-` and `.`, the first a letter or digit",
        |t| plain(t, 63, b"-.") && !t.bytes().any(|b| b.is_ascii_uppercase());
    /// What `runs-on` asks for.
    Label, "a label", "1 to 64 letters, digits, `-`, `_` and `.`, the first a letter or digit",
        |t| plain(t, 64, b"-_.");
    /// `owner/name` of a repository, as forges write it; both parts are checked for use in URLs.
    RepoPath, "a repository path", "`owner/name`, each 1 to 100 letters, digits, `-`, `_` and `.`, not beginning with `.` or `-`",
        |t| {
            let mut parts = t.split('/');
            matches!((parts.next(), parts.next(), parts.next()), (Some(o), Some(n), None)
                if [o, n].iter().all(|p| p.len() <= 100 && !p.starts_with(['.', '-']) && !p.is_empty()
                    && p.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))))
        };
    /// A forge's own id of a repository, as text: numbers at GitHub and Forgejo, other text elsewhere. It is compared
    /// and names a folder, and only the forge's adapter knows what it means.
    RepositoryId, "a repository id", "1 to 100 letters, digits, `-`, `_`, `.` and `:`, the first a letter or digit",
        |t| plain(t, 100, b"-_.:");
    #[derive(Default)]
    /// What a forge's adapter wants to be given again with a repository, carried and stored untouched and read by that
    /// adapter alone. Empty where the forge needs none, or none is known yet.
    ForgeContext, "a forge's context", "at most 200 printable ASCII characters without spaces",
        |t| t.len() <= 200 && t.bytes().all(|b| b.is_ascii_graphic());
    /// A full ref name such as `refs/heads/main`.
    RefName, "a ref name", "a valid full ref (`refs/heads/main`) of at most 1024 bytes, no part of which begins with `-` or `.`",
        ref_name;
    /// A whole commit id: 40 or 64 lower-case hexadecimal digits.
    CommitSha, "a commit id", "40 or 64 lower-case hexadecimal digits",
        |t| matches!(t.len(), 40 | 64) && t.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    /// The name of a machine and of everything on the host that belongs to it: `hci-<attempt id>`.
    MachineName, "a machine name", "`hci-` and an attempt id",
        |t| t.strip_prefix("hci-").is_some_and(|id| id.parse::<super::ids::AttemptId>().is_ok_and(|i| i.to_string() == id));
}

impl From<u64> for RepositoryId {
    fn from(id: u64) -> Self {
        Self(id.to_string())
    }
}

impl From<u64> for ForgeContext {
    fn from(id: u64) -> Self {
        Self(id.to_string())
    }
}

impl ForgeContext {
    /// Whether it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl MachineName {
    /// The machine of one attempt.
    #[must_use]
    pub fn of(attempt: super::ids::AttemptId) -> Self {
        Self(format!("hci-{attempt}"))
    }

    /// The attempt this machine belongs to.
    #[must_use]
    pub fn attempt(&self) -> super::ids::AttemptId {
        match self.0[4..].parse() {
            Ok(id) => id,
            Err(_) => unreachable!("checked by the constructor"),
        }
    }
}

impl RefName {
    /// The branch's name, where the ref is one.
    #[must_use]
    pub fn branch(&self) -> Option<&str> {
        self.0.strip_prefix("refs/heads/")
    }

    /// The tag's name, where the ref is one.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.0.strip_prefix("refs/tags/")
    }

    /// What a person calls it: the branch or tag name, else the whole ref.
    #[must_use]
    pub fn short(&self) -> &str {
        self.branch().or(self.tag()).unwrap_or(&self.0)
    }
}

impl CommitSha {
    /// The first ten digits, for people.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.0[..10]
    }

    /// Whether this is the all-zero id that forges send for "no commit".
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.0.bytes().all(|b| b == b'0')
    }
}

impl RepoPath {
    /// Owner and name.
    #[must_use]
    pub fn split(&self) -> (&str, &str) {
        self.0.split_once('/').unwrap_or((&self.0, ""))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hostile_refs_that_git_accepts_are_refused() {
        for text in [
            "refs/heads/--upload-pack=touch${IFS}PWNED;",
            "refs/heads/-x",
            "refs/heads/a/-b",
            "refs/heads/../../x",
            "refs/heads/",
            "main",
            "refs/heads/a b",
            "refs/heads/x.lock",
            "refs/heads/a\nb",
        ] {
            assert!(text.parse::<RefName>().is_err(), "{text:?}");
        }
        for text in [
            "refs/heads/main",
            "refs/tags/v1.0",
            "refs/heads/a;id",
            "refs/heads/$(id)",
            "refs/heads/<img>",
        ] {
            assert!(text.parse::<RefName>().is_ok(), "{text:?}");
        }
    }

    #[test]
    fn repository_paths_cannot_leave_their_place() {
        for text in [
            "a/../b", "../a", "a/..", "a/b/c", "a", "/b", "a/", "a/-b", "a/b?x=1", "a/b#c", "a b/c", ".git/x",
        ] {
            assert!(text.parse::<RepoPath>().is_err(), "{text:?}");
        }
        assert_eq!("Own-er/na.me".parse::<RepoPath>().unwrap().split(), ("Own-er", "na.me"));
    }

    #[test]
    fn repository_ids_are_bounded_text_that_can_name_a_folder() {
        for text in ["42", "did:plc:ewvi7nxzyoun6zhxrhs64oiz", "0a3b-4c", &"7".repeat(100)] {
            assert!(text.parse::<RepositoryId>().is_ok(), "{text:?}");
        }
        for text in [
            "",
            "-1",
            "..",
            ".git",
            "a/b",
            "a b",
            "a\0b",
            "{0a3b}",
            "ä",
            &"7".repeat(101),
        ] {
            assert!(text.parse::<RepositoryId>().is_err(), "{text:?}");
        }
        assert_eq!(RepositoryId::from(u64::MAX).as_str(), "18446744073709551615");
    }

    #[test]
    fn a_forges_context_may_say_nothing() {
        assert!(ForgeContext::default().is_empty() && "".parse::<ForgeContext>().is_ok());
        for text in ["a b", "a\nb", &"7".repeat(201)] {
            assert!(text.parse::<ForgeContext>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn machine_names_carry_their_attempt() {
        let attempt = crate::model::ids::AttemptId::new();
        let name = MachineName::of(attempt);
        assert_eq!(name.as_str().parse::<MachineName>().unwrap().attempt(), attempt);
        assert!("hci-x".parse::<MachineName>().is_err());
        assert!(
            format!("hci-{}", attempt.to_string().to_uppercase())
                .parse::<MachineName>()
                .is_err()
        );
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_is_free_of_option_and_control_characters(text in "\\PC{0,80}") {
            if let Ok(name) = text.parse::<RefName>() {
                prop_assert!(!name.as_str().contains("/-") && name.as_str().starts_with("refs/"));
            }
            if let Ok(name) = text.parse::<Label>() {
                prop_assert!(name.as_str().is_ascii() && !name.as_str().starts_with('-'));
            }
        }
    }
}
