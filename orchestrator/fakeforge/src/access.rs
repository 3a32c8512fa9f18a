//! Who may what on the Forgejo side: the scopes of a token, and the right of a user in each repository. Both must allow
//! a call, and each fails with words of its own.

use crate::state::{ForgeState, Repository};

/// A user's right in a repository; each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Sees it, clones it.
    Read,
    /// Pushes, sets statuses.
    Write,
    /// Changes its webhooks and asks for others' rights.
    Admin,
}

impl Access {
    /// The API's word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

/// What a person's token was made for, in Forgejo's words: `read:user`, `write:repository`, `public-only`, `all`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scopes(Vec<String>);

impl Scopes {
    pub(crate) fn new(scopes: &[&str]) -> Self {
        Self(scopes.iter().map(|scope| (*scope).to_owned()).collect())
    }

    /// Whether it may read or write things of this category, such as `repository`; writing includes reading.
    pub(crate) fn have(&self, category: &str, write: bool) -> bool {
        let (reading, writing) = (format!("read:{category}"), format!("write:{category}"));
        self.0
            .iter()
            .any(|scope| scope == "all" || *scope == writing || !write && *scope == reading)
    }

    /// Whether private repositories are out of its reach, whatever its user may.
    pub(crate) fn public_only(&self) -> bool {
        self.0.iter().any(|scope| scope == "public-only")
    }
}

impl ForgeState {
    /// What a user (nobody in particular: `None`) may in this repository: the owner everything, others what they were
    /// given, everybody read a public one. `None` means that for this user it does not exist.
    pub(crate) fn access(&self, repository: &Repository, login: Option<&str>) -> Option<Access> {
        let given = login.and_then(|login| {
            if repository.split().0.eq_ignore_ascii_case(login) {
                return Some(Access::Admin);
            }
            let everywhere = || self.everywhere.get(login).copied();
            let here = self.collaborators.get(&(repository.id, login.to_owned()));
            here.map_or_else(everywhere, |given| *given)
        });
        let public = (!repository.private).then_some(Access::Read);
        given.max(public)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writing_includes_reading_and_one_category_says_nothing_of_another() {
        let scopes = Scopes::new(&["write:repository", "read:user"]);
        assert!(scopes.have("repository", true) && scopes.have("repository", false));
        assert!(scopes.have("user", false) && !scopes.have("user", true));
        assert!(!scopes.have("organization", false) && !scopes.public_only());
        assert!(Scopes::new(&["all"]).have("user", true));
        assert!(!Scopes::new(&["public-only"]).have("repository", false));
    }
}
