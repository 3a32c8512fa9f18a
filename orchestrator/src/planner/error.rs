//! Why a trigger could not be planned, and what follows from that.

use std::time::Duration;

use crate::{error_chain::chain, forge::ForgeError, model::trigger::Retry, source::SourceError};

/// Why a trigger could not be planned now.
#[derive(Debug, thiserror::Error)]
pub(super) enum PlanError {
    #[error(transparent)]
    Forge(#[from] ForgeError),
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Nothing that another try could change.
    #[error("{reason}")]
    Never {
        /// Why.
        reason: String,
        /// Whether it may change, and the delivery come again.
        retry: Retry,
    },
}

/// What keeps a trigger from being planned until somebody mends the configuration.
pub(super) fn not_now(reason: String) -> PlanError {
    PlanError::Never {
        reason,
        retry: Retry::Automatic,
    }
}

impl PlanError {
    pub(super) fn is_retryable(&self) -> bool {
        match self {
            Self::Forge(error) => error.is_retryable(),
            Self::Source(error) => error.is_retryable(),
            Self::Never { .. } => false,
        }
    }

    /// Whether a credential or a right is missing: a state of the connection or of the repository, and no verdict on
    /// the trigger. No count of tries ends it; somebody does who mends it.
    pub(super) fn waits_for_a_right(&self) -> bool {
        matches!(self, Self::Forge(ForgeError::Unauthorized { .. })) || self.concerns_the_repository()
    }

    /// Whether the right that is missing is one to this repository.
    pub(super) fn concerns_the_repository(&self) -> bool {
        matches!(
            self,
            Self::Forge(ForgeError::Forbidden { .. }) | Self::Source(SourceError::Denied { .. })
        )
    }

    /// Whether a fetch of several refs failed for good and one of them may be the cause: the others alone may fare better.
    pub(super) fn may_concern_one_ref(&self) -> bool {
        matches!(self, Self::Source(error) if !error.is_retryable())
    }

    /// Whether the delivery may come again once this has ended the trigger.
    pub(super) fn retry(&self) -> Retry {
        match self {
            // The forge was away too long, or refused: a state of the connection.
            Self::Forge(_) | Self::Source(SourceError::Fetch { .. } | SourceError::Denied { .. }) => Retry::Automatic,
            Self::Source(_) => Retry::OnRequest,
            Self::Never { retry, .. } => *retry,
        }
    }

    /// The reason as the forge and visitors may read it: no address and no limit of ours, and nothing of this host's
    /// disk. All of that is for the log.
    pub(super) fn reason(&self) -> String {
        match self {
            Self::Forge(error) => error.public_reason().to_owned(),
            Self::Source(error) => error.public_reason(),
            Self::Never { .. } => chain(self),
        }
    }

    /// The pause that the forge asked for.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Forge(error) => error.retry_after(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::names::RepoPath;

    #[test]
    fn a_missing_right_is_no_verdict_and_everybody_may_read_why() {
        let (forge, call) = ("http://10.0.0.1:3000".to_owned(), "GET /repos/ada/engine".to_owned());
        let (repository, what): (RepoPath, _) = ("ada/engine".parse().unwrap(), "refs/heads/main".to_owned());
        let reason = "http://10.0.0.1:3000 said 403".to_owned();
        let unauthorized = ForgeError::Unauthorized {
            forge: forge.clone(),
            call: call.clone(),
            reason: reason.clone(),
        };
        let forbidden = ForgeError::Forbidden {
            forge: forge.clone(),
            call: call.clone(),
            reason: reason.clone(),
        };
        let refused = ForgeError::Refused {
            forge,
            call,
            reason: reason.clone(),
        };
        let denied = SourceError::Denied {
            repository: repository.clone(),
            what: what.clone(),
            reason: reason.clone(),
        };
        let fetch = SourceError::Fetch {
            repository: repository.clone(),
            what,
            reason,
        };
        let large = SourceError::TooLarge {
            repository,
            limit: 4096,
        };
        for (error, waits, of_the_repository) in [
            (PlanError::from(unauthorized), true, false),
            (forbidden.into(), true, true),
            (denied.into(), true, true),
            (refused.into(), false, false),
            (fetch.into(), false, false),
            (large.into(), false, false),
        ] {
            let judged = (error.waits_for_a_right(), error.concerns_the_repository());
            assert_eq!(judged, (waits, of_the_repository), "{error}");
            let public = error.reason();
            assert!(!public.contains("10.0.0.1") && !public.contains("4096"), "{public}");
            assert!(!waits || error.retry() == Retry::Automatic, "{error}");
        }
    }
}
