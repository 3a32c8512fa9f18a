//! Who may do what. Every route names its [`Action`] in the table of [`super::routes`], and every
//! handler that touches something of a repository asks [`authorize`] about that repository, as we
//! read it ourselves from the store: never as the caller named it.

use crate::{
    config::Config,
    model::{
        ids::TokenId,
        names::{ConnectionId, RepoPath},
        trigger::Repository,
    },
};

/// Who is asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// Nobody we know.
    Anonymous,
    /// The holder of a token with the scope `admin`.
    SiteAdmin {
        /// The token that was shown, or that the session was opened with.
        token: TokenId,
        /// The token's owner, for the audit log.
        owner: String,
    },
}

impl Identity {
    /// What the audit log and `cancel_requested.by` call this identity.
    #[must_use]
    pub fn who(&self) -> String {
        match self {
            Self::Anonymous => "anonymous".to_owned(),
            Self::SiteAdmin { token, owner } => format!("{owner} (token {token})"),
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Things that say nothing of any repository: static files, liveness, the login form, logout.
    Open,
    /// The list of runs, which holds only what the caller may see.
    List,
    /// See a run, its jobs and their logs.
    See,
    /// See what became of a trigger.
    SeeTrigger,
    /// Ask for the end of a run or a job.
    Cancel,
    /// Run again, with the same privilege.
    Rerun,
    /// Ask for runs of a branch or tag.
    Dispatch,
    /// Keep the machine of a trusted run after its job, and let it go.
    Keep,
    /// Watch the console of a machine, which no mask has passed.
    Watch,
    /// Type on the console of a kept machine, and have its node let go of it.
    Type,
    /// See the machines of all repositories.
    Machines,
    /// See what forges delivered and what was missed, of all repositories, and look for what was missed.
    Deliveries,
}

/// The repository an action is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryRef {
    /// Its connection.
    pub connection: ConnectionId,
    /// Its path when the event was made.
    pub path: RepoPath,
    /// Whether the configuration lists it among those that anyone may read.
    pub public: bool,
}

impl RepositoryRef {
    /// The repository with its visibility as the configuration says. A connection that is no longer
    /// configured makes everything of it private.
    #[must_use]
    pub fn of(repository: &Repository, config: &Config) -> Self {
        let public = config
            .connections
            .get(&repository.connection)
            .is_some_and(|connection| connection.public.contains(&repository.path));
        Self {
            connection: repository.connection.clone(),
            path: repository.path.clone(),
            public,
        }
    }
}

/// The answer of [`authorize`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Go on.
    Allow,
    /// The caller sees the thing but may not do this to it; logging in may help.
    Deny,
    /// The caller must get the very answer that an absent thing gets.
    Hide,
}

/// Decides. Whatever is not listed is refused.
#[must_use]
pub fn authorize(identity: &Identity, action: Action, repository: Option<&RepositoryRef>) -> Decision {
    let visible = repository.is_some_and(|r| r.public);
    match (identity, action) {
        (_, Action::Open | Action::List) => Decision::Allow,
        (Identity::SiteAdmin { .. }, _) => Decision::Allow,
        (Identity::Anonymous, Action::See) if visible => Decision::Allow,
        (Identity::Anonymous, Action::Cancel | Action::Rerun | Action::Keep | Action::Watch | Action::Type)
            if visible =>
        {
            Decision::Deny
        }
        // Asking for runs names a repository that may or may not exist; whoever is not logged in
        // learns only that logging in is needed, before any repository is looked up.
        (Identity::Anonymous, Action::Dispatch | Action::Machines) => Decision::Deny,
        (
            Identity::Anonymous,
            Action::See
            | Action::SeeTrigger
            | Action::Cancel
            | Action::Rerun
            | Action::Keep
            | Action::Watch
            | Action::Type
            | Action::Deliveries,
        ) => Decision::Hide,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(public: bool) -> RepositoryRef {
        RepositoryRef {
            connection: "berg".parse().unwrap(),
            path: "o/r".parse().unwrap(),
            public,
        }
    }

    #[test]
    fn nobody_changes_anything_without_login_and_a_private_repository_does_not_exist() {
        let nobody = Identity::Anonymous;
        for action in [
            Action::See,
            Action::SeeTrigger,
            Action::Cancel,
            Action::Rerun,
            Action::Keep,
            Action::Watch,
            Action::Type,
            Action::Deliveries,
        ] {
            assert_eq!(
                authorize(&nobody, action, Some(&repository(false))),
                Decision::Hide,
                "{action:?}"
            );
            assert_eq!(authorize(&nobody, action, None), Decision::Hide, "{action:?}");
        }
        for action in [
            Action::SeeTrigger,
            Action::Cancel,
            Action::Rerun,
            Action::Dispatch,
            Action::Keep,
            Action::Watch,
            Action::Type,
            Action::Machines,
            Action::Deliveries,
        ] {
            assert_ne!(
                authorize(&nobody, action, Some(&repository(true))),
                Decision::Allow,
                "{action:?}"
            );
        }
        assert_eq!(
            authorize(&nobody, Action::See, Some(&repository(true))),
            Decision::Allow
        );
    }

    #[test]
    fn a_site_admin_may() {
        let admin = Identity::SiteAdmin {
            token: TokenId::new(),
            owner: "ada".into(),
        };
        for action in [
            Action::See,
            Action::SeeTrigger,
            Action::Cancel,
            Action::Rerun,
            Action::Dispatch,
            Action::Keep,
            Action::Watch,
            Action::Type,
            Action::Machines,
            Action::Deliveries,
        ] {
            assert_eq!(
                authorize(&admin, action, Some(&repository(false))),
                Decision::Allow,
                "{action:?}"
            );
        }
    }
}
