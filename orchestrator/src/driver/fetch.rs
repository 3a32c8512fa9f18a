//! Makes sure that an attempt's commit is on this node before a machine is made for it. The planner
//! fetched it once, but maybe on another node, into a mirror that is gone, or from a ref that has moved
//! since.

use tokio_util::sync::CancellationToken;

use super::{
    Deps,
    progress::End,
    sections::FETCHING,
    task::{Stopped, chain},
};
use crate::{
    forge::ForgeError,
    model::{
        plan::{Action, PlannedJob},
        state::JobResult,
    },
    queue::Hint,
    source::SourceError,
    store::AttemptRow,
};

/// Why the commit could not be had.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Forge(#[from] ForgeError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("the connection {0} is no longer configured: add it again, or push anew elsewhere")]
    NoConnection(String),
    /// The forge was asked and does not have it.
    #[error(
        "the commit {commit} of {repository} is neither on this node nor at its forge any more: \
         push it again, or run another commit"
    )]
    Gone { commit: String, repository: String },
}

impl FetchError {
    /// What another try may mend is a failure of ours; the rest is final, and no machine helps.
    fn end(&self) -> End {
        let retryable = match self {
            Self::Forge(error) => error.is_retryable(),
            Self::Source(error) => error.is_retryable(),
            Self::NoConnection(_) | Self::Gone { .. } => false,
        };
        let said = chain(self);
        if retryable {
            End::Infra { cause: said }
        } else {
            End::Result {
                result: JobResult::Error,
                message: said,
            }
        }
    }
}

/// Fetches the attempt's commit when the job checks it out and it is not here. `Some` is the end of the
/// attempt: the commit cannot be had.
pub(super) async fn commit(
    deps: &Deps,
    attempt: &AttemptRow,
    plan: &PlannedJob,
    stop: &CancellationToken,
    say: impl FnOnce(&str),
) -> Result<Option<End>, Stopped> {
    let checks_out = |action: &Action| matches!(action, Action::Checkout { .. });
    if !plan.steps.iter().any(|step| checks_out(&step.action)) {
        return Ok(None);
    }
    let mut hints = deps.hints.subscribe();
    let fetch = missing(deps, attempt, say);
    tokio::pin!(fetch);
    loop {
        // A fetch may take long; whoever cancels the job or stops the daemon does not wait for it.
        if let Some(cancel) = deps.store.cancel_state(attempt.id).await? {
            return Ok(Some(End::Result {
                result: JobResult::Cancelled,
                message: format!("cancelled by {}", cancel.by),
            }));
        }
        tokio::select! {
            done = &mut fetch => return Ok(done.err().map(|error| error.end())),
            () = stop.cancelled() => return Err(Stopped::Shutdown),
            true = hints.heard(|hint| hint == Hint::Cancel(attempt.id)) => {}
        }
    }
}

async fn missing(deps: &Deps, attempt: &AttemptRow, say: impl FnOnce(&str)) -> Result<(), FetchError> {
    let (repository, commit) = (&attempt.repository, &attempt.commit);
    if deps.source.has_commit(repository, commit).await? {
        return Ok(());
    }
    say(&format!("{FETCHING}; fetching it from the forge."));
    let forge = deps
        .forges
        .get(&repository.connection)
        .ok_or_else(|| FetchError::NoConnection(repository.connection.to_string()))?;
    let access = forge.fetch_access(repository, attempt.installation).await?;
    match deps.source.fetch_commit(repository, &access, commit).await {
        Err(SourceError::NoCommit { repository, commit }) => Err(FetchError::Gone {
            commit: commit.to_string(),
            repository: repository.to_string(),
        }),
        done => Ok(done?),
    }
}
