//! People and bots: their tokens, and what they may in which repository.

use crate::{
    Access, FakeForge,
    access::Scopes,
    auth::{Grant, Token, new_secret},
};

impl FakeForge {
    /// Gives a person (or bot) a token for everything, and the right to read each repository, with `write` to push to it
    /// and to set statuses in it as well; [`FakeForge::remove_collaborator`] takes the right in one of them away. It works
    /// for the APIs of both kinds and for git.
    #[must_use]
    pub fn create_token(&self, login: &str, write: bool) -> String {
        let secret = new_secret("");
        self.add_token(login, write, &secret);
        secret
    }

    /// As [`FakeForge::create_token`], with a given secret.
    pub fn add_token(&self, login: &str, write: bool, secret: &str) {
        let (access, scopes): (_, &[&str]) = match write {
            true => (Access::Write, &["all"]),
            false => (Access::Read, &["read:repository", "read:user"]),
        };
        self.shared.change(|state| {
            let given = state.everywhere.entry(login.to_owned()).or_insert(access);
            *given = access.max(*given);
        });
        self.add_token_with(login, scopes, secret);
    }

    /// Gives a person (or bot) a token with these scopes, such as `write:repository`; it may where its user may:
    /// [`FakeForge::add_collaborator`].
    #[must_use]
    pub fn create_token_with(&self, login: &str, scopes: &[&str]) -> String {
        let secret = new_secret("");
        self.add_token_with(login, scopes, &secret);
        secret
    }

    /// As [`FakeForge::create_token_with`], with a given secret; a token of this secret is replaced, so that one that
    /// lacked a scope is mended.
    pub fn add_token_with(&self, login: &str, scopes: &[&str], secret: &str) {
        let token = Token {
            secret: secret.to_owned(),
            grant: Grant::Person {
                login: login.to_owned(),
                scopes: Scopes::new(scopes),
            },
            repositories: None,
        };
        self.shared.change(|state| {
            state.user(login);
            state.tokens.retain(|t| t.secret != secret);
            state.tokens.push(token);
        });
    }

    /// Takes a token back.
    pub fn revoke_token(&self, secret: &str) {
        self.shared.change(|state| state.tokens.retain(|t| t.secret != secret));
    }

    /// Gives a user a right in a Forgejo repository, in place of what it had there.
    pub fn add_collaborator(&self, repository: i64, login: &str, access: Access) {
        self.shared.change(|state| {
            state.user(login);
            state.collaborators.insert((repository, login.to_owned()), Some(access));
        });
    }

    /// Takes a user's right in a Forgejo repository, also the one that [`FakeForge::create_token`] gave everywhere.
    pub fn remove_collaborator(&self, repository: i64, login: &str) {
        self.shared.change(|state| {
            state.collaborators.insert((repository, login.to_owned()), None);
        });
    }
}
