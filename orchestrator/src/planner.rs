//! From deliveries to runs: claims what intake stored, reads the ref and the workflow files again at
//! their source, and stores plans. A delivery is only a hint; nothing of it is believed that the
//! forge or the mirror can tell.

mod catch_up;
mod decide;

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use self::{
    catch_up::{CatchUp, Caught},
    decide::{WorkflowFile, decide},
};
use crate::{
    config::Config,
    failpoint::{self, Point},
    forge::{Forge, ForgeError},
    intake::{verdict, verdict_text},
    model::{
        names::{CommitSha, ConnectionId},
        trigger::{Event, RefCause, RefEvent, Repository, Retry, Trigger},
    },
    queue::{Hint, Hints},
    source::{Source, SourceError},
    store::{ClaimedDelivery, ClaimedTrigger, Store, StoreError, TriggerOutcome},
    workflow,
};

/// How long a claim lasts unless it is renewed; a daemon that died meanwhile leaves it to the next.
const LEASE: Duration = Duration::from_secs(60);
/// How often a claim is renewed while a trigger is planned: a fetch may take half an hour.
const RENEW: Duration = Duration::from_secs(15);
/// Triggers planned at one time, each of another repository: one that is slow to fetch delays its own alone.
const AT_ONCE: usize = 4;
/// Tries of a trigger before it is given up.
const TRIES: u32 = 20;
/// Workflow files of one commit.
const FILES: usize = 100;

/// Plans deliveries and triggers.
#[derive(Clone)]
pub struct Planner {
    store: Store,
    forges: HashMap<ConnectionId, Arc<dyn Forge>>,
    source: Source,
    config: Arc<Config>,
    hints: Arc<dyn Hints>,
}

/// Why a trigger could not be planned now.
#[derive(Debug, thiserror::Error)]
enum PlanError {
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

/// What keeps a trigger from being planned until somebody mends the connection or its configuration.
fn not_now(reason: String) -> PlanError {
    PlanError::Never {
        reason,
        retry: Retry::Automatic,
    }
}

impl PlanError {
    fn is_retryable(&self) -> bool {
        match self {
            Self::Forge(error) => error.is_retryable(),
            Self::Source(error) => error.is_retryable(),
            Self::Never { .. } => false,
        }
    }

    /// Whether the forge does not accept who we are: no count of tries ends that, the administrator does.
    fn is_unauthorized(&self) -> bool {
        matches!(self, Self::Forge(ForgeError::Unauthorized { .. }))
    }

    /// Whether the delivery may come again once this has ended the trigger.
    fn retry(&self) -> Retry {
        match self {
            // The forge was away too long, or refused: a state of the connection.
            Self::Forge(_) | Self::Source(SourceError::Fetch { .. }) => Retry::Automatic,
            Self::Source(_) => Retry::OnRequest,
            Self::Never { retry, .. } => *retry,
        }
    }

    /// The reason as the forge and visitors may read it. What went wrong on this host's disk is for its log.
    fn reason(&self) -> String {
        match self {
            Self::Source(SourceError::Git { .. } | SourceError::Io { .. }) => {
                "git failed on the server; its log says why".to_owned()
            }
            _ => crate::error_chain::chain(self),
        }
    }

    /// The pause that the forge asked for.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Forge(error) => error.retry_after(),
            _ => None,
        }
    }
}

impl Planner {
    /// A planner over these parts.
    #[must_use]
    pub fn new(
        store: Store,
        forges: HashMap<ConnectionId, Arc<dyn Forge>>,
        source: Source,
        config: Arc<Config>,
        hints: Arc<dyn Hints>,
    ) -> Self {
        Self {
            store,
            forges,
            source,
            config,
            hints,
        }
    }

    /// Plans until `stop`; what is under way then is given back.
    pub async fn run(self, stop: CancellationToken) {
        let mut hints = self.hints.subscribe();
        let mut planning = JoinSet::new();
        loop {
            if let Err(error) = self.claim_due(&mut planning, &stop).await {
                tracing::error!(error = &error as &dyn std::error::Error, "cannot plan now");
            }
            let more = tokio::select! {
                () = stop.cancelled() => false,
                Some(ended) = planning.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "planning a trigger broke down; it is tried again when its lease ends");
                    }
                    true
                }
                more = hints.wait_for(|hint| matches!(hint, Hint::Delivery | Hint::Trigger)) => more,
            };
            if !more {
                // Each task sees the stop by itself.
                while planning.join_next().await.is_some() {}
                return;
            }
        }
    }

    /// Takes everything that is due and that there is room for.
    async fn claim_due(&self, planning: &mut JoinSet<()>, stop: &CancellationToken) -> Result<(), StoreError> {
        while !stop.is_cancelled() {
            let Some(delivery) = self.store.claim_delivery(&self.config.node, LEASE).await? else {
                break;
            };
            self.delivery(delivery).await?;
        }
        while !stop.is_cancelled() && planning.len() < AT_ONCE {
            let Some(trigger) = self.store.claim_trigger(&self.config.node, LEASE).await? else {
                break;
            };
            let (planner, stop) = (self.clone(), stop.clone());
            planning.spawn(async move {
                let id = trigger.id;
                if let Err(error) = planner.trigger(trigger, &stop).await {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(trigger = %id, error, "a trigger was left until its lease ends");
                }
            });
        }
        Ok(())
    }

    async fn delivery(&self, claimed: ClaimedDelivery) -> Result<(), StoreError> {
        let forge = self.forges.get(&claimed.connection).cloned();
        let config = Arc::clone(&self.config);
        // A body may have 25 MB, and reading it would hold up leases and heartbeats.
        let read = tokio::task::spawn_blocking(move || {
            let outcome = verdict(
                forge.as_deref(),
                &config,
                &claimed.connection,
                &claimed.event,
                &claimed.body,
            );
            (outcome, claimed)
        });
        let (outcome, claimed) = match read.await {
            Ok(read) => read,
            Err(error) => {
                tracing::error!(%error, "reading a delivery broke down; it is read again when its lease ends");
                return Ok(());
            }
        };
        let (id, connection, event) = (claimed.id, &claimed.connection, &claimed.event);
        tracing::info!(delivery = %id, %connection, event, outcome = verdict_text(&outcome), "read a delivery");
        self.store.finish_delivery(claimed.id, claimed.epoch, outcome).await?;
        failpoint::hit(Point::DeliveryRead);
        self.hints.notify(Hint::Trigger);
        Ok(())
    }

    async fn trigger(&self, claimed: ClaimedTrigger, stop: &CancellationToken) -> Result<(), StoreError> {
        // Without an attempt: a trigger that kills the daemon each time must end, too.
        let planned = if claimed.tries > TRIES + 1 {
            Err(PlanError::Never {
                reason: format!("given up after {} tries", claimed.tries),
                retry: Retry::OnRequest,
            })
        } else {
            failpoint::hit(Point::TriggerClaimed);
            match self.while_claimed(&claimed, stop, self.plan(&claimed)).await? {
                Some(planned) => planned,
                None => return Ok(()),
            }
        };
        let outcome = match planned {
            Ok(outcome) => outcome,
            Err(error) if error.is_unauthorized() || error.is_retryable() && claimed.tries < TRIES => {
                self.put_off(&claimed, &error).await?;
                return Ok(());
            }
            Err(error) => {
                let cause = crate::error_chain::chain(&error);
                tracing::warn!(trigger = %claimed.id, cause, "a trigger cannot be planned");
                TriggerOutcome::Failed {
                    reason: error.reason(),
                    commit: claimed.trigger.event.commit().cloned(),
                    retry: error.retry(),
                }
            }
        };
        if let TriggerOutcome::Ignored { reason, .. } = &outcome {
            tracing::info!(trigger = %claimed.id, reason, "ignored a trigger");
        }
        let planned = self.store.finish_trigger(claimed.id, claimed.epoch, outcome).await?;
        failpoint::hit(Point::RunsPlanned);
        tracing::info!(trigger = %claimed.id, runs = ?planned, "planned a trigger");
        for hint in [Hint::Job, Hint::Report] {
            self.hints.notify(hint);
        }
        Ok(())
    }

    /// Gives a trigger back for another try, with the reason.
    async fn put_off(&self, claimed: &ClaimedTrigger, error: &PlanError) -> Result<(), StoreError> {
        let after = error
            .retry_after()
            .unwrap_or_else(|| backoff(claimed.tries + claimed.refusals));
        let cause = crate::error_chain::chain(error);
        tracing::warn!(trigger = %claimed.id, cause, ?after, "a trigger will be planned later");
        self.store
            .retry_trigger(
                claimed.id,
                claimed.epoch,
                after,
                &error.reason(),
                error.is_unauthorized(),
            )
            .await
            .map(drop)
    }

    /// Works while the claim is held: renews it, and gives it back when the daemon stops. `None` when the
    /// work did not come to its end.
    async fn while_claimed<T>(
        &self,
        claimed: &ClaimedTrigger,
        stop: &CancellationToken,
        work: impl Future<Output = T>,
    ) -> Result<Option<T>, StoreError> {
        tokio::pin!(work);
        let mut renew = tokio::time::interval_at(tokio::time::Instant::now() + RENEW, RENEW);
        loop {
            tokio::select! {
                done = &mut work => return Ok(Some(done)),
                () = stop.cancelled() => {
                    self.store.release_trigger(claimed.id, claimed.epoch).await?;
                    return Ok(None);
                }
                _ = renew.tick() => {
                    if !self.store.renew_trigger(claimed.id, claimed.epoch, LEASE).await? {
                        tracing::warn!(trigger = %claimed.id, "another planner took this trigger over");
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Reads what the trigger is about and decides what runs.
    async fn plan(&self, claimed: &ClaimedTrigger) -> Result<TriggerOutcome, PlanError> {
        let trigger = &claimed.trigger;
        let repository = &trigger.repository;
        let Some(forge) = self.forges.get(&repository.connection) else {
            let connection = &repository.connection;
            return Err(not_now(format!("the connection {connection} is no longer configured")));
        };
        same_repository(forge.as_ref(), trigger).await?;
        let ref_name = trigger.event.ref_name();
        let gone = || TriggerOutcome::Ignored {
            reason: format!("{ref_name} is gone"),
            commit: None,
            retry: Retry::OnRequest,
        };
        let Some(now) = forge.read_ref(repository, ref_name).await? else {
            return Ok(gone());
        };
        let access = forge.fetch_access(repository).await?;
        let head = match self.source.fetch(repository, &access, ref_name).await {
            Ok(head) => head,
            Err(SourceError::NoRef { .. }) => return Ok(gone()),
            Err(error) => return Err(error.into()),
        };
        tracing::debug!(%now, %head, "read a ref at the forge and in the mirror");
        let commit = match trigger.event.commit() {
            Some(commit) => {
                // An annotated tag's event names the tag object.
                let commit = self
                    .source
                    .resolve(repository, commit)
                    .await?
                    .unwrap_or_else(|| commit.clone());
                if claimed.tip_only && commit != head {
                    return Ok(TriggerOutcome::Ignored {
                        reason: format!(
                            "an earlier push delivered again: {ref_name} points at {} now",
                            head.short()
                        ),
                        commit: None,
                        retry: Retry::Never,
                    });
                }
                if commit != head && !self.source.reachable(repository, &commit, ref_name).await? {
                    return Ok(TriggerOutcome::Ignored {
                        reason: format!("{} is not on {ref_name} any more", commit.short()),
                        commit: None,
                        retry: Retry::OnRequest,
                    });
                }
                commit
            }
            None => head,
        };
        let ignored = |reason, commit, retry| TriggerOutcome::Ignored {
            reason,
            commit: Some(commit),
            retry,
        };
        let message = self.source.commit_message(repository, &commit).await?;
        // A person who asks knows what the message says.
        let Event::Ref(RefEvent { cause, .. }) = &trigger.event;
        if let (RefCause::Push { .. }, Some(word)) = (cause, decide::skip_word(&message)) {
            let reason = format!("the commit message says {word}");
            return Ok(ignored(reason, commit, Retry::Never));
        }
        let files = self.files(forge.workflow_folders(), repository, &commit).await?;
        Ok(match decide::asked(files, &trigger.event, &commit, &self.config) {
            Ok(runs) => TriggerOutcome::Planned {
                title: crate::foreign_text::title(&message),
                commit,
                runs,
            },
            Err(reason) => ignored(reason, commit, Retry::OnRequest),
        })
    }

    async fn files(
        &self,
        folders: &[&'static str],
        repository: &Repository,
        commit: &CommitSha,
    ) -> Result<Vec<WorkflowFile>, PlanError> {
        let paths = workflow::listed(folders);
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        let entries = self.source.list_tree(repository, commit, &paths).await?;
        let Some(pick) = workflow::pick(folders, entries.iter().map(|entry| entry.path.as_str())) else {
            return Ok(Vec::new());
        };
        if pick.files.len() > FILES {
            return Err(PlanError::Never {
                reason: format!(
                    "the commit has {} workflow files; {FILES} are the most",
                    pick.files.len()
                ),
                retry: Retry::OnRequest,
            });
        }
        let mut files = Vec::new();
        for path in pick.files {
            let text = match self
                .source
                .read_file(repository, commit, &path, workflow::MAX_FILE)
                .await
            {
                Ok(bytes) => Ok(bytes),
                Err(SourceError::FileTooLong { max, .. }) => Err(format!("the file is longer than {max} bytes")),
                Err(SourceError::Unreadable { why, .. }) => Err(format!("the file cannot be read: {why}")),
                Err(error) => return Err(error.into()),
            };
            files.push(WorkflowFile { path, text });
        }
        Ok(files)
    }
}

/// The path must still be that of the repository that is meant.
async fn same_repository(forge: &dyn Forge, trigger: &Trigger) -> Result<(), PlanError> {
    let Repository { path, id, context, .. } = &trigger.repository;
    match forge.find_repository(path, context).await? {
        Some(found) if found.id == *id => Ok(()),
        Some(_) => Err(PlanError::Never {
            reason: format!("{path} is another repository by now than the one of the event"),
            retry: Retry::Never,
        }),
        None => Err(not_now(format!(
            "{path} does not exist (any more), or is hidden from us"
        ))),
    }
}

/// 1 s, doubled each time up to 10 minutes, and up to a quarter more so that many do not meet again.
fn backoff(tries: u32) -> Duration {
    let base = Duration::from_secs(1 << tries.min(10)).min(Duration::from_secs(600));
    base + base.mul_f64(0.25 * rand::random::<f64>())
}
