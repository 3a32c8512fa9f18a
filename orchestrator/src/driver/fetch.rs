//! Makes sure that what an attempt checks out is on this node before a machine is made for it. The planner
//! fetched the commit once, but maybe on another node, into a mirror that is gone, or from a ref that has
//! moved since; and the other branches and tags, which a checkout of the whole history brings, are fetched
//! by nobody else.

use tokio_util::sync::CancellationToken;

use super::{
    job::{JobStep, source_depth},
    progress::End,
    sections::{FETCHING, NO_OTHER_REFS, REFS_LEFT_OUT},
};
use crate::{
    daemon::Deps,
    driver::stopped::Stopped,
    error_chain::chain,
    forge::ForgeError,
    model::{person::cancelled_by, state::JobResult},
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
    /// The reason as the forge and visitors may read it.
    fn public_reason(&self) -> String {
        match self {
            Self::Forge(error) => error.public_reason().to_owned(),
            Self::Source(error) => error.public_reason(),
            Self::NoConnection(_) | Self::Gone { .. } => chain(self),
        }
    }

    /// What another try may mend is a failure of ours; the rest is final, and no machine helps.
    fn end(&self) -> End {
        let retryable = match self {
            Self::Forge(error) => error.is_retryable(),
            Self::Source(error) => error.is_retryable(),
            Self::NoConnection(_) | Self::Gone { .. } => false,
        };
        let said = self.public_reason();
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

/// Fetches what the job checks out and is not here. `Some` is the end of the attempt: it cannot be had.
pub(super) async fn source(
    deps: &Deps,
    attempt: &AttemptRow,
    steps: &[JobStep],
    stop: &CancellationToken,
    say: impl FnMut(&str),
) -> Result<Option<End>, Stopped> {
    let Some(depth) = source_depth(steps) else {
        return Ok(None);
    };
    let mut hints = deps.hints.subscribe();
    let fetch = missing(deps, attempt, depth, say);
    tokio::pin!(fetch);
    loop {
        // A fetch may take long; whoever cancels the job or stops the daemon does not wait for it.
        if let Some(cancel) = deps.store.cancel_state(attempt.id).await? {
            return Ok(Some(End::Result {
                result: JobResult::Cancelled,
                message: cancelled_by(&cancel.by, &cancel.reason),
            }));
        }
        tokio::select! {
            done = &mut fetch => return Ok(done.err().map(|error| {
                tracing::warn!(attempt = %attempt.id, cause = chain(&error), "what a job checks out cannot be had");
                error.end()
            })),
            () = stop.cancelled() => return Err(Stopped::Shutdown),
            true = hints.wait_for(|hint| hint == Hint::Cancel(attempt.id)) => {}
        }
    }
}

async fn missing(deps: &Deps, attempt: &AttemptRow, depth: u32, mut say: impl FnMut(&str)) -> Result<(), FetchError> {
    let (repository, commit, source) = (&attempt.repository, &attempt.commit, &deps.source);
    let here = source.has_commit(repository, commit).await?;
    let wants_tag = attempt.ref_name.tag().is_some() && !source.has_ref(repository, &attempt.ref_name).await?;
    if here && !wants_tag && depth > 0 {
        return Ok(());
    }
    let Some(forge) = deps.forges.get(&repository.connection) else {
        if here {
            // A run without a forge: what is here is all there is.
            if depth == 0 {
                say(NO_OTHER_REFS);
            }
            return Ok(());
        }
        return Err(FetchError::NoConnection(repository.connection.to_string()));
    };
    let access = forge.fetch_access(repository).await?;
    if !here {
        say(&format!("{FETCHING}; fetching it from the forge."));
        match source.fetch_commit(repository, &access, commit).await {
            Err(SourceError::NoCommit { repository, commit }) => {
                return Err(FetchError::Gone {
                    commit: commit.to_string(),
                    repository: repository.to_string(),
                });
            }
            done => done?,
        }
    }
    if wants_tag {
        match source.fetch(repository, &access, &attempt.ref_name).await {
            // The run goes on: its commit is here.
            Ok(_) | Err(SourceError::NoRef { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if depth == 0 {
        let left_out = source.fetch_refs(repository, &access, attempt.id).await?;
        if left_out > 0 {
            say(&format!("{REFS_LEFT_OUT}{left_out} branches or tags."));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_fetched_is_said_without_addresses_and_limits() {
        let repository: crate::model::names::RepoPath = "ada/engine".parse().unwrap();
        let (forge, call) = ("http://10.1.2.3:3000".to_owned(), "GET /repositories/42".to_owned());
        let errors = [
            FetchError::Forge(ForgeError::Away {
                forge,
                call,
                reason: "502".to_owned(),
                retry_after: None,
            }),
            FetchError::Source(SourceError::TooLarge {
                repository: repository.clone(),
                limit: 10_000_000,
            }),
            FetchError::Source(SourceError::Fetch {
                repository,
                what: "refs/heads/main".to_owned(),
                reason: "fatal: unable to access 'http://10.1.2.3:3000/ada/engine.git/'".to_owned(),
            }),
        ];
        for error in errors {
            let (End::Infra { cause: said } | End::Result { message: said, .. }) = error.end();
            for inner in ["10.1.2.3", "10000000", "repositories", "limits."] {
                assert!(chain(&error) != said && !said.contains(inner), "{said}");
            }
        }
    }
}
