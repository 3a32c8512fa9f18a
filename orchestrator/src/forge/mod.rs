//! The Forge port: what helios-ci asks of a forge, and what a webhook becomes. Adapters:
//! `forgejo` (Forgejo and Gitea, through gitea-sdk) and `github` (through octocrab).

mod answer;
mod checked;
mod connect;
mod forgejo;
mod github;
pub mod health;
pub mod http;
mod push;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod text;
pub(crate) mod throttle;
mod webhook;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::model::{
    names::{CommitSha, ForgeContext, RefName, RepoPath},
    report::Report,
    trigger::Repository,
};
use crate::secret::Secret;

pub use self::checked::{Access, Checked, CheckedRepository};
pub use self::connect::{ConnectError, connect, connect_noting_refusals};
use self::connect::{encode_part, encode_ref};
pub use self::health::{ConnectionHealth, ConnectionState, MissingRight};
pub use self::webhook::{BadDelivery, Dialect, Parsed, Webhooks};
#[cfg(test)]
pub(crate) use self::{forgejo::DIALECT as FORGEJO, github::DIALECT as GITHUB};
pub use self::{forgejo::WORKFLOWS as FORGEJO_WORKFLOWS, github::WORKFLOWS as GITHUB_WORKFLOWS};

/// Whatever pause a forge asks for, it is asked again after this.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// How a call to a forge failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForgeError {
    /// The forge itself is away, or wants to be left alone: no connection, no answer in time, 429, 502 to 504, 520 to
    /// 530. No other call fares better now.
    #[error("{forge} is away, so `{call}` must wait: {reason}")]
    Away {
        /// The forge's address.
        forge: String,
        /// What was called, without secrets.
        call: String,
        /// Why.
        reason: String,
        /// What the forge asked for (`Retry-After`, rate-limit reset).
        retry_after: Option<Duration>,
    },
    /// This call may work later: 500, 408, 425, an answer that cannot be read. Forgejo answers 500 for what is wrong
    /// with one commit or one repository, so it says nothing of other calls.
    #[error("{forge} did not take `{call}` now: {reason}")]
    Later {
        /// The forge's address.
        forge: String,
        /// What was called, without secrets.
        call: String,
        /// Why.
        reason: String,
        /// What the forge asked for (`Retry-After`, rate-limit reset).
        retry_after: Option<Duration>,
    },
    /// The forge does not accept who we are (401): a state of the connection, and no answer to what was
    /// asked. It works again once the administrator mends token or key.
    #[error("{forge} does not accept the credentials of this connection: {reason} at `{call}`")]
    Unauthorized {
        /// The forge's address.
        forge: String,
        /// What was called, without secrets.
        call: String,
        /// What it said.
        reason: String,
    },
    /// The forge knows us, and does not let us do this (403), or shows us nothing where we ask (404 for what must be
    /// there): a state of a repository and of our rights to it. It works again once somebody gives us the right.
    #[error("{forge} does not let this connection do `{call}`: {reason}")]
    Forbidden {
        /// The forge's address.
        forge: String,
        /// What was called, without secrets.
        call: String,
        /// Why, and which right is missing.
        reason: String,
    },
    /// It will not work like this: other 4xx.
    #[error("{forge} refused `{call}`: {reason}")]
    Refused {
        /// The forge's address.
        forge: String,
        /// What was called, without secrets.
        call: String,
        /// Why, and what to do.
        reason: String,
    },
}

impl ForgeError {
    /// Whether another try can help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Later { .. } | Self::Away { .. } | Self::Unauthorized { .. })
    }

    /// Why, in words for everybody who reads a check at the forge: no address, no path and no limit of ours, which the
    /// author of a commit neither knows nor can change. The error itself is for the log.
    #[must_use]
    pub fn public_reason(&self) -> &'static str {
        match self {
            Self::Away { .. } => "the forge did not answer",
            Self::Later { .. } => "the forge answered with an error",
            Self::Unauthorized { .. } => {
                "the forge does not accept helios-ci's credentials: the administrator of helios-ci must mend them"
            }
            Self::Forbidden { .. } => {
                "helios-ci may not read this repository: its administrator must give helios-ci's user or App the right"
            }
            Self::Refused { .. } => {
                "the forge refused what helios-ci asked of it: the administrator of helios-ci finds the cause in its log"
            }
        }
    }

    /// The pause that the forge asked for, if it did: an hour at most.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Later { retry_after, .. } | Self::Away { retry_after, .. } => {
                retry_after.map(|after| after.min(LONGEST_PAUSE))
            }
            Self::Unauthorized { .. } | Self::Forbidden { .. } | Self::Refused { .. } => None,
        }
    }
}

/// How the node fetches a repository: nothing of it reaches a guest, an argv or a URL.
#[derive(Debug, Clone)]
pub struct FetchAccess {
    /// The clone URL, made from configuration and repository path, never from a payload.
    pub url: String,
    /// The value of the `Authorization` header for it (`Basic …`), given to git through its environment.
    pub authorization: Option<Secret>,
}

/// One forge connection.
#[async_trait]
pub trait Forge: Send + Sync + fmt::Debug {
    /// The folders of a repository that the forge reads workflow files from, the preferred one first.
    fn workflow_folders(&self) -> &'static [&'static str];

    /// How many reports a minute it takes about the repositories of one context.
    fn reports_per_minute(&self) -> u32 {
        600
    }

    /// Its webhooks; none where its kind of forge sends none.
    fn webhooks(&self) -> Option<Arc<dyn Webhooks>>;

    /// What the ref points at now; `None` when it does not exist.
    async fn read_ref(&self, repository: &Repository, name: &RefName) -> Result<Option<CommitSha>, ForgeError>;

    /// The repository under this path now, with the context that calls about it take: its id must be compared with the
    /// one that is meant. `known` is the context it had before, if any.
    async fn find_repository(&self, path: &RepoPath, known: &ForgeContext) -> Result<Option<Repository>, ForgeError>;

    /// The same repository, by its id, as it is now: it may have another path than it had.
    ///
    /// # Errors
    /// [`ForgeError::Forbidden`] when it is gone or hidden from us, which a forge does not tell apart.
    async fn locate(&self, repository: &Repository) -> Result<Repository, ForgeError>;

    /// How to fetch it.
    async fn fetch_access(&self, repository: &Repository) -> Result<FetchAccess, ForgeError>;

    /// Reports one check's state to the forge. `known` is what the last delivery of the same check and
    /// generation returned (GitHub's check-run id); the answer is stored for the next. `details` is
    /// the absolute URL of our page.
    async fn report(&self, report: &Report, details: &str, known: Option<&str>) -> Result<Option<String>, ForgeError>;

    /// Asks for its cheapest answer, whatever that says: success and [`ForgeError::Forbidden`] mean that it is there and
    /// knows us, and every other error that no report can be delivered now.
    async fn answers(&self) -> Result<(), ForgeError> {
        self.check(&[]).await.map(drop)
    }

    /// Whether the connection works, and which rights it has to these repositories.
    async fn check(&self, repositories: &[RepoPath]) -> Result<Checked, ForgeError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_everybody_reads_names_neither_forge_nor_call() {
        let call = answer::Call {
            forge: "http://10.1.2.3:3000".to_owned(),
            call: "GET /repositories/42".to_owned(),
        };
        let long = "403: token does not have the required scope";
        let errors = [
            call.away("502: Bad Gateway", None),
            call.later("500: Internal Server Error", None),
            call.unauthorized(long),
            call.forbidden(long),
            call.refused(http::SendError::TooLarge.to_string()),
        ];
        let told: std::collections::HashSet<_> = errors.iter().map(ForgeError::public_reason).collect();
        assert_eq!(told.len(), errors.len(), "each has words of its own");
        for words in told {
            assert!(words.is_ascii() && words.len() <= 120, "{words}");
            assert!(!words.contains(['/', '`', '0', '1', '5']), "{words}");
        }
    }
}
