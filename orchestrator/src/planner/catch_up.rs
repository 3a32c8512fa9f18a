//! Catching up: what was missed while a connection was broken, or this daemon away.
//!
//! A connection is tried at the start and again and again; when it works (again), everything that waits for it becomes
//! due, and the branches and tags at the forge are compared with the pushes that are known. A push whose delivery we
//! hold is delivered again by ourselves: its sender asked for a run, and only our side kept it from running. Where we
//! hold no delivery, nobody has asked us for anything, so the ref is only listed, and a person runs it with
//! `helios-ci trigger`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::verdict::serves;
use crate::{
    driver::{Deps, chain},
    failpoint::{self, Point},
    forge::{Forge, ForgeError},
    model::{
        names::{ConnectionId, RepoPath},
        trigger::Repository,
    },
    queue::Hint,
    source::{RemoteRef, SourceError},
    store::{StoreError, Tip},
};

/// How often a connection that does not work is tried.
const TRY_BROKEN: Duration = Duration::from_secs(60);
/// How often one that works is tried.
const TRY_WORKING: Duration = Duration::from_secs(600);
/// How often the refs of a connection that always worked are compared: deliveries get lost on the way as well.
const COMPARE: Duration = Duration::from_secs(6 * 3600);

/// Compares forges with what is known of them. Cheap to clone.
#[derive(Clone)]
pub struct CatchUp(Deps);

/// What catching up with one connection came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caught {
    /// Which.
    pub connection: ConnectionId,
    /// Repositories that were compared.
    pub repositories: u32,
    /// Pushes whose deliveries we held, delivered again by ourselves.
    pub delivered_again: u32,
    /// Why the connection does not work, if it does not.
    pub broken: Option<String>,
}

/// A repository could not be compared.
#[derive(Debug, thiserror::Error)]
enum CompareError {
    #[error(transparent)]
    Forge(#[from] ForgeError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("{0} does not exist (any more), or is hidden from us")]
    Absent(RepoPath),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl CatchUp {
    /// Over these parts.
    #[must_use]
    pub fn new(deps: Deps) -> Self {
        Self(deps)
    }

    /// Tries every connection until `stop`, and catches up with those that work.
    pub async fn run(self, stop: CancellationToken) {
        let mut watches = JoinSet::new();
        for (id, forge) in self.0.forges.iter() {
            watches.spawn(self.clone().watch(id.clone(), Arc::clone(forge), stop.clone()));
        }
        while watches.join_next().await.is_some() {}
    }

    /// Catches up with every connection now.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn now(&self) -> Result<Vec<Caught>, StoreError> {
        let all = self.0.forges.iter();
        let caught = all.map(|(id, forge)| self.connection(id, forge.as_ref(), false));
        future::try_join_all(caught).await
    }

    async fn watch(self, id: ConnectionId, forge: Arc<dyn Forge>, stop: CancellationToken) {
        let mut works = None;
        let mut compared: Option<Instant> = None;
        loop {
            let all = works != Some(true) || compared.is_none_or(|at| at.elapsed() > COMPARE);
            let caught = stop
                .run_until_cancelled(self.connection(&id, forge.as_ref(), !all))
                .await;
            let wait = match caught {
                None => return,
                Some(Err(error)) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(connection = %id, error, "cannot catch up now");
                    TRY_BROKEN
                }
                Some(Ok(Caught {
                    broken: Some(reason), ..
                })) => {
                    if works != Some(false) {
                        tracing::warn!(connection = %id, reason, "the connection does not work; what it brings waits until it does");
                    }
                    works = Some(false);
                    TRY_BROKEN
                }
                Some(Ok(_)) => {
                    if works == Some(false) {
                        tracing::info!(connection = %id, "the connection works again");
                    }
                    works = Some(true);
                    if all {
                        compared = Some(Instant::now());
                    }
                    TRY_WORKING
                }
            };
            if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                return;
            }
        }
    }

    /// Tries a connection and, if it works, compares its repositories: all, or those that are due
    /// ([`crate::store::Store::comparison_due`]).
    async fn connection(&self, id: &ConnectionId, forge: &dyn Forge, only_due: bool) -> Result<Caught, StoreError> {
        let store = &self.0.store;
        let mut caught = Caught {
            connection: id.clone(),
            repositories: 0,
            delivered_again: 0,
            broken: None,
        };
        if let Err(error) = forge.check().await {
            caught.broken = Some(chain(&error));
            return Ok(caught);
        }
        // Only when it may have been broken: what waits because a forge said so must go on waiting.
        if !only_due {
            store.connection_works(id).await?;
            for hint in [Hint::Trigger, Hint::Report] {
                self.0.hints.notify(hint);
            }
        }
        for (repository, installation) in self.repositories(id, forge, only_due).await? {
            match self.compare(forge, &repository, installation).await {
                Ok(delivered) => {
                    caught.repositories += 1;
                    caught.delivered_again += delivered;
                }
                Err(CompareError::Store(error)) => return Err(error),
                Err(error) => {
                    let reason = chain(&error);
                    tracing::warn!(connection = %id, repository = %repository.path, reason, "cannot compare a repository's refs");
                    store.not_compared(&repository, &reason).await?;
                    // What a forge refuses or cannot do for one repository now, it would for the next, too.
                    if let CompareError::Forge(ForgeError::Unauthorized { .. } | ForgeError::Later { .. }) = error {
                        caught.broken = Some(reason);
                        return Ok(caught);
                    }
                }
            }
        }
        let missed = store.missed().await?;
        let missed = missed
            .iter()
            .filter(|missed| missed.repository.connection == *id)
            .count();
        if caught.delivered_again > 0 || missed > 0 {
            let again = caught.delivered_again;
            tracing::info!(connection = %id, again, missed, "caught up; `helios-ci deliveries --missed` lists what was missed");
        }
        Ok(caught)
    }

    /// The repositories that are served, with GitHub's installation where one is known: those that were heard of, and
    /// those that the configuration lists.
    async fn repositories(
        &self,
        id: &ConnectionId,
        forge: &dyn Forge,
        only_due: bool,
    ) -> Result<Vec<(Repository, Option<i64>)>, StoreError> {
        let (config, store) = (&self.0.config, &self.0.store);
        let mut found: Vec<(Repository, Option<i64>)> = store
            .known_repositories(id)
            .await?
            .into_iter()
            .filter(|known| serves(config, &known.repository))
            .map(|known| (known.repository, known.installation))
            .collect();
        let listed = config.connections.get(id).map_or(&[][..], |c| &c.repositories);
        for path in listed {
            let same = |known: &(Repository, _)| known.0.path.as_str().eq_ignore_ascii_case(path.as_str());
            if found.iter().any(same) {
                continue;
            }
            match forge.find_repository(path, None).await {
                Ok(Some(repository)) => found.push((repository, None)),
                Ok(None) => {
                    tracing::warn!(connection = %id, repository = %path, "a repository of the configuration does not exist, or is hidden from us")
                }
                Err(error) => {
                    tracing::warn!(connection = %id, repository = %path, reason = chain(&error), "cannot look a repository up")
                }
            }
        }
        if !only_due {
            return Ok(found);
        }
        let mut due = Vec::new();
        for (repository, installation) in found {
            if store.comparison_due(&repository).await? {
                due.push((repository, installation));
            }
        }
        Ok(due)
    }

    /// Compares one repository; how many pushes were delivered again.
    async fn compare(
        &self,
        forge: &dyn Forge,
        repository: &Repository,
        installation: Option<i64>,
    ) -> Result<u32, CompareError> {
        let store = &self.0.store;
        let now = match forge.find_repository(&repository.path, installation).await? {
            Some(now) if now.id == repository.id => now,
            _ => return Err(CompareError::Absent(repository.path.clone())),
        };
        let installation = match installation {
            None => forge.installation(&now.path).await?,
            known => known,
        };
        let access = forge.fetch_access(&now, installation).await?;
        let refs = self.0.source.list_refs(&now, &access).await?;
        store.compared(&now, refs.iter().map(tip).collect()).await?;
        let mut delivered = 0;
        for held in store.held_pushes(&now).await? {
            // What the ref does not point at any more was followed by another push.
            let stands = |r: &RemoteRef| r.name == held.ref_name && [&r.commit, &r.object].contains(&&held.commit);
            if !refs.iter().any(stands) {
                continue;
            }
            if let Some(id) = store.deliver_again(held.delivery).await? {
                failpoint::hit(Point::DeliveredAgain);
                tracing::info!(delivery = %id, again = %held.delivery, ref_name = %held.ref_name, "delivered a push again that the connection had kept from running");
                self.0.hints.notify(Hint::Delivery);
                delivered += 1;
            }
        }
        Ok(delivered)
    }
}

fn tip(found: &RemoteRef) -> Tip {
    Tip {
        ref_name: found.name.clone(),
        commit: found.commit.clone(),
        object: found.object.clone(),
    }
}
