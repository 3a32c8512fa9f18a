//! Catching up: what was missed while a connection was broken, or this daemon away.
//!
//! [`ConnectionHealth`] knows whether a connection works. When it works (again), everything that waits for it becomes
//! due, and the branches and tags at the forge are compared with the pushes that are known; when a right to one repository
//! is given, the same is done for that repository alone. A push whose delivery we hold is delivered again by ourselves: its
//! sender asked for a run, and only our side kept it from running. Where we hold no delivery, nobody has asked us for
//! anything, so the ref is only listed, and a person runs it with `helios-ci trigger`.

use std::time::{Duration, Instant};

use futures::future;
use tokio_util::sync::CancellationToken;

use crate::{
    daemon::Deps,
    error_chain::chain,
    failpoint::{self, Point},
    forge::{ConnectionHealth, Forge, ForgeError},
    intake::serves,
    model::{
        names::{ConnectionId, ForgeContext, RepoPath},
        trigger::Repository,
    },
    queue::Hint,
    source::{RemoteRef, SourceError},
    store::{StoreError, Tip},
};

/// How often repositories for which a push is held, or that were never compared, are compared.
const COMPARE_DUE: Duration = Duration::from_secs(600);
/// How often all are compared while the connection works: deliveries get lost on the way as well.
const COMPARE_ALL: Duration = Duration::from_secs(6 * 3600);
/// How long after a comparison that failed the next one is tried; a forge may ask for a longer pause.
const AFTER_FAILURE: Duration = Duration::from_secs(60);

/// Compares forges with what is known of them. Cheap to clone.
#[derive(Clone)]
pub struct CatchUp {
    deps: Deps,
    connections: ConnectionHealth,
}

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
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl CompareError {
    /// Whether the forge would answer the same about the next repository.
    fn is_of_connection(&self) -> bool {
        matches!(self, Self::Forge(error) if error.is_retryable())
    }
}

impl Caught {
    fn nothing(connection: &ConnectionId) -> Self {
        Self {
            connection: connection.clone(),
            repositories: 0,
            delivered_again: 0,
            broken: None,
        }
    }
}

/// One round of comparisons over a connection.
struct Round {
    caught: Caught,
    /// The pause that the forge asked for.
    pause: Option<Duration>,
}

impl Round {
    /// One that ended early.
    fn failed(caught: Caught, error: CompareError) -> Result<Self, StoreError> {
        let pause = match &error {
            CompareError::Forge(error) => error.retry_after(),
            _ => None,
        };
        match error {
            CompareError::Store(error) => Err(error),
            error => Ok(Self {
                caught: Caught {
                    broken: Some(chain(&error)),
                    ..caught
                },
                pause,
            }),
        }
    }
}

/// How long to wait after a round that failed, when the forge asked for this pause.
fn after_failure(pause: Option<Duration>) -> Duration {
    pause.unwrap_or_default().max(AFTER_FAILURE)
}

impl CatchUp {
    /// `connections` says when a connection works.
    #[must_use]
    pub fn new(deps: Deps, connections: ConnectionHealth) -> Self {
        Self { deps, connections }
    }

    /// Catches up with every connection whenever it begins to work, and now and then, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let watches = self
            .deps
            .forges
            .iter()
            .map(|(id, forge)| self.watch(id, forge.as_ref()));
        stop.run_until_cancelled(future::join_all(watches)).await;
    }

    /// Asks every connection whether it works, and catches up with those that do.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn now(&self) -> Result<Vec<Caught>, StoreError> {
        let forges = self.deps.forges.iter();
        future::try_join_all(forges.map(|(id, forge)| self.one_now(id, forge.as_ref()))).await
    }

    async fn one_now(&self, id: &ConnectionId, forge: &dyn Forge) -> Result<Caught, StoreError> {
        let state = self.connections.probe(id, forge).await;
        if state.is_broken() {
            return Ok(Caught {
                broken: Some(state.to_string()),
                ..Caught::nothing(id)
            });
        }
        self.wake_waiting(id).await?;
        Ok(self.connection(id, forge, false).await?.caught)
    }

    async fn watch(&self, id: &ConnectionId, forge: &dyn Forge) {
        // The connection may have been broken since the last comparison.
        let (mut was_broken, mut interrupted) = (true, true);
        let mut compared: Option<Instant> = None;
        loop {
            self.connections.until_working(id).await;
            let all = interrupted || compared.is_none_or(|at| at.elapsed() > COMPARE_ALL);
            let round = async {
                // Only then: what waits because a forge said so must go on waiting.
                if was_broken {
                    self.wake_waiting(id).await?;
                }
                self.connection(id, forge, !all).await
            };
            let round = round.await;
            let pause = match round {
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(connection = %id, error, "cannot catch up now");
                    None
                }
                Ok(round) => match round.caught.broken {
                    Some(reason) => {
                        tracing::warn!(connection = %id, reason, "cannot catch up now; what was missed waits");
                        was_broken = self.connections.state(id).is_broken();
                        round.pause
                    }
                    None => {
                        if all {
                            compared = Some(Instant::now());
                        }
                        was_broken = self.until_broken(id, forge).await;
                        interrupted = was_broken;
                        continue;
                    }
                },
            };
            interrupted = true;
            tokio::time::sleep(after_failure(pause)).await;
        }
    }

    /// Waits until a connection is broken, or repositories are to be compared again (`false`). Catches up meanwhile with
    /// each repository to which a right was given.
    async fn until_broken(&self, id: &ConnectionId, forge: &dyn Forge) -> bool {
        let watched = async {
            loop {
                let granted = tokio::select! {
                    () = self.connections.until_broken(id) => return,
                    granted = self.connections.until_granted(id) => granted,
                };
                for path in granted {
                    if let Err(error) = self.granted(id, forge, &path).await {
                        let reason = chain(&error);
                        tracing::warn!(connection = %id, repository = %path, reason, "cannot catch up with a repository now");
                    }
                }
            }
        };
        tokio::time::timeout(COMPARE_DUE, watched).await.is_ok()
    }

    /// Lets what waits for a right to this repository go on at once, and compares it.
    async fn granted(&self, id: &ConnectionId, forge: &dyn Forge, path: &RepoPath) -> Result<(), CompareError> {
        let known = self
            .deps
            .store
            .known_repositories(id)
            .await?
            .into_iter()
            .find(|known| same_path(&known.path, path));
        let found = match known {
            Some(known) => Some(known),
            None => forge.find_repository(path, &ForgeContext::default()).await?,
        };
        let Some(repository) = found else { return Ok(()) };
        self.deps.store.repository_works(&repository).await?;
        self.wake();
        self.compare(forge, &repository).await.map(drop)
    }

    /// Lets what waits for a connection go on at once.
    async fn wake_waiting(&self, id: &ConnectionId) -> Result<(), StoreError> {
        self.deps.store.connection_works(id).await?;
        self.wake();
        Ok(())
    }

    fn wake(&self) {
        for hint in [Hint::Trigger, Hint::Report] {
            self.deps.hints.notify(hint);
        }
    }

    /// Compares the repositories of a connection that works: all, or those that are due
    /// ([`crate::store::Store::comparison_due`]).
    async fn connection(&self, id: &ConnectionId, forge: &dyn Forge, only_due: bool) -> Result<Round, StoreError> {
        let store = &self.deps.store;
        let mut caught = Caught::nothing(id);
        let repositories = match self.repositories(id, forge, only_due).await {
            Ok(repositories) => repositories,
            Err(error) => return Round::failed(caught, error),
        };
        for repository in repositories {
            match self.compare(forge, &repository).await {
                Ok(delivered) => {
                    caught.repositories += 1;
                    caught.delivered_again += delivered;
                }
                Err(CompareError::Store(error)) => return Err(error),
                Err(error) => {
                    let reason = chain(&error);
                    tracing::warn!(connection = %id, repository = %repository.path, reason, "cannot compare a repository's refs");
                    store.not_compared(&repository, &reason).await?;
                    if error.is_of_connection() {
                        return Round::failed(caught, error);
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
        Ok(Round { caught, pause: None })
    }

    /// The repositories that are served: those that deliveries or runs have named, and those that the configuration
    /// lists.
    async fn repositories(
        &self,
        id: &ConnectionId,
        forge: &dyn Forge,
        only_due: bool,
    ) -> Result<Vec<Repository>, CompareError> {
        let (config, store) = (&self.deps.config, &self.deps.store);
        let mut found = store.known_repositories(id).await?;
        found.retain(|known| serves(config, known));
        let listed = config.connections.get(id).map_or(&[][..], |c| &c.repositories);
        for path in listed {
            if found.iter().any(|known| same_path(&known.path, path)) {
                continue;
            }
            match forge.find_repository(path, &ForgeContext::default()).await {
                Ok(Some(repository)) => found.push(repository),
                Ok(None) => {
                    tracing::warn!(connection = %id, repository = %path, "a repository of the configuration does not exist, or is hidden from us")
                }
                Err(error) if error.is_retryable() => return Err(error.into()),
                Err(error) => {
                    tracing::warn!(connection = %id, repository = %path, reason = chain(&error), "cannot find a repository of the configuration")
                }
            }
        }
        if !only_due {
            return Ok(found);
        }
        let mut due = Vec::new();
        for repository in found {
            if store.comparison_due(&repository).await? {
                due.push(repository);
            }
        }
        Ok(due)
    }

    /// Compares one repository; how many pushes were delivered again.
    async fn compare(&self, forge: &dyn Forge, repository: &Repository) -> Result<u32, CompareError> {
        let store = &self.deps.store;
        let now = forge.locate(repository).await?;
        let access = forge.fetch_access(&now).await?;
        let refs = self.deps.source.list_refs(&now, &access).await?;
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
                self.deps.hints.notify(Hint::Delivery);
                delivered += 1;
            }
        }
        Ok(delivered)
    }
}

/// To a forge, two paths that differ in case alone are one.
fn same_path(a: &RepoPath, b: &RepoPath) -> bool {
    a.as_str().eq_ignore_ascii_case(b.as_str())
}

fn tip(found: &RemoteRef) -> Tip {
    Tip {
        ref_name: found.name.clone(),
        commit: found.commit.clone(),
        object: found.object.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_that_the_forge_asks_for_is_kept() {
        let hour = Duration::from_secs(3600);
        assert_eq!(after_failure(Some(hour)), hour);
        assert_eq!(after_failure(Some(Duration::from_secs(5))), AFTER_FAILURE);
        assert_eq!(after_failure(None), AFTER_FAILURE);
        let later = CompareError::Forge(ForgeError::Away {
            forge: "https://forge.example".to_owned(),
            call: "GET /x".to_owned(),
            reason: "429".to_owned(),
            retry_after: Some(hour),
        });
        assert!(later.is_of_connection());
        let round = Round::failed(Caught::nothing(&"berg".parse().unwrap()), later).unwrap();
        assert_eq!((round.pause, round.caught.broken.is_some()), (Some(hour), true));
    }
}
