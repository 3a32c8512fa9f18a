//! The triggers of one repository, planned together: the repository is looked up once, all refs are fetched at once, and
//! a commit that several of them name is read once; then each is decided and stored for itself, so that neither a failure
//! nor a crash takes more than one along.

use std::{collections::HashMap, error::Error, time::Duration};

use futures::{StreamExt as _, stream};
use tokio_util::sync::CancellationToken;

use super::{
    LEASE, Planner,
    claims::while_held,
    commits::Commits,
    decide,
    error::{PlanError, not_now},
};
use crate::{
    error_chain::chain,
    failpoint::{self, Point},
    forge::Forge,
    model::{
        ids::TriggerId,
        names::{CommitSha, RefName},
        trigger::{Event, RefCause, RefEvent, Repository, Retry},
    },
    queue::Hint,
    store::{ClaimedTrigger, StoreError, TriggerOutcome},
};

/// How often claims are renewed while their triggers are planned: a fetch may take half an hour.
const RENEW: Duration = Duration::from_secs(15);
/// Tries of a trigger before it is given up.
const TRIES: u32 = 20;
/// How long a trigger waits for a credential or a right that is missing, before its commit turns red. What is delivered
/// again afterwards, or by ourselves when the right is there, is planned all the same.
const WAIT_FOR_A_RIGHT: Duration = Duration::from_secs(24 * 3600);
/// The longest pause before the next try.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// Triggers whose commits are read at one time.
const READERS: usize = 4;
/// What an administrator does about a repository that we may not read.
const GIVE_THE_RIGHT: &str =
    "give the token's user or the App the right to the repository; `helios-ci doctor` says which one is missing";

impl Planner {
    /// Plans what was claimed together, unless the daemon stops before; what is left is given back then.
    pub(super) async fn batch(&self, batch: Vec<ClaimedTrigger>, stop: &CancellationToken) {
        let claims: Vec<(TriggerId, i64)> = batch.iter().map(|claimed| (claimed.id, claimed.epoch)).collect();
        let renew = || self.store.renew_triggers(&claims, LEASE);
        let give_back = self.store.release_triggers(&claims);
        if let Err(error) = while_held(self.plan_all(&batch), RENEW, stop, renew, give_back).await {
            let (error, triggers) = (&error as &dyn Error, claims.len());
            tracing::error!(triggers, error, "triggers were left until their lease ends");
        }
    }

    async fn plan_all(&self, batch: &[ClaimedTrigger]) {
        // Without an attempt: a trigger that kills the daemon each time must end, too.
        let (spent, others): (Vec<_>, Vec<_>) = batch.iter().partition(|claimed| claimed.tries > TRIES + 1);
        for claimed in spent {
            let reason = format!("given up after {} tries", claimed.tries);
            let retry = Retry::OnRequest;
            self.end(claimed, Err(&PlanError::Never { reason, retry })).await;
        }
        if !others.is_empty() {
            failpoint::hit(Point::TriggerClaimed);
        }
        // A repository that was renamed meanwhile has another path in later triggers.
        for same in others.chunk_by(|a, b| a.trigger.repository == b.trigger.repository) {
            self.plan_together(same).await;
        }
    }

    /// Plans triggers that name the same repository, in their order. What git will never fetch may be one ref of many:
    /// then each is planned alone, and only that one fails.
    async fn plan_together(&self, batch: &[&ClaimedTrigger]) {
        let Err(error) = self.try_together(batch).await else {
            return;
        };
        if batch.len() == 1 || !error.may_concern_one_ref() {
            return self.cannot_read(batch, &error).await;
        }
        tracing::warn!(
            triggers = batch.len(),
            cause = chain(&error),
            "a joint fetch failed; each trigger is planned alone"
        );
        for alone in batch.chunks(1) {
            if let Err(error) = self.try_together(alone).await {
                self.cannot_read(alone, &error).await;
            }
        }
    }

    /// Fails, and ends none of these triggers, when their refs cannot be fetched.
    async fn try_together(&self, batch: &[&ClaimedTrigger]) -> Result<(), PlanError> {
        let Some(repository) = batch.first().map(|claimed| &claimed.trigger.repository) else {
            return Ok(());
        };
        let names = batch.iter().map(|claimed| claimed.trigger.event.ref_name());
        let forge = self.forges.get(&repository.connection);
        let forge = forge.ok_or_else(|| {
            not_now(format!(
                "the connection {} is no longer configured",
                repository.connection
            ))
        })?;
        let fetched = self.fetch(forge.as_ref(), repository, names).await;
        self.note_rights(repository, fetched.as_ref().err());
        let heads = fetched?;
        let commits = Commits::new(&self.source, repository, forge.workflow_folders());
        let plans: Vec<_> = batch
            .iter()
            .map(|claimed| self.plan(&commits, claimed, heads.get(claimed.trigger.event.ref_name())))
            .collect();
        let mut plans = stream::iter(plans).buffered(READERS);
        for claimed in batch {
            let Some(planned) = plans.next().await else { break };
            match planned {
                Ok(outcome) => self.end(claimed, Ok(outcome)).await,
                Err(error) => self.end(claimed, Err(&error)).await,
            }
        }
        Ok(())
    }

    async fn cannot_read(&self, batch: &[&ClaimedTrigger], error: &PlanError) {
        let (path, triggers) = (
            batch.first().map(|claimed| &claimed.trigger.repository.path),
            batch.len(),
        );
        let (repository, cause) = (path.map(tracing::field::display), chain(error));
        tracing::warn!(
            repository,
            triggers,
            cause,
            "a repository cannot be read; its triggers wait or fail"
        );
        for claimed in batch {
            self.end(claimed, Err(error)).await;
        }
    }

    /// What these refs point at, fetched into the mirror. A ref that the forge does not have is not among them.
    async fn fetch<'n>(
        &self,
        forge: &dyn Forge,
        repository: &Repository,
        names: impl Iterator<Item = &'n RefName>,
    ) -> Result<HashMap<RefName, CommitSha>, PlanError> {
        let now = forge.locate(repository).await?;
        let access = forge.fetch_access(&now).await?;
        Ok(self.source.fetch_heads(&now, &access, names).await?)
    }

    /// Says where administrators look whether the repository can be read.
    fn note_rights(&self, repository: &Repository, error: Option<&PlanError>) {
        let Repository { connection, path, .. } = repository;
        match error {
            Some(error) if error.concerns_the_repository() => {
                let reason = format!("the token or App may not read {path}: {}", chain(error));
                self.connections
                    .repository_refused(connection, path, &reason, GIVE_THE_RIGHT);
            }
            None => self.connections.repository_works(connection, path),
            Some(_) => {}
        }
    }

    /// Stores what came of a trigger. When the store fails it is left until its lease ends.
    async fn end(&self, claimed: &ClaimedTrigger, planned: Result<TriggerOutcome, &PlanError>) {
        let ended = match planned {
            Ok(outcome) => self.finish(claimed, outcome).await,
            Err(error) if error.waits_for_a_right() => match claimed.waited.unwrap_or_default() < WAIT_FOR_A_RIGHT {
                true => self.put_off(claimed, error).await,
                false => self.fail(claimed, error).await,
            },
            Err(error) if error.is_retryable() && claimed.tries < TRIES => self.put_off(claimed, error).await,
            Err(error) => self.fail(claimed, error).await,
        };
        if let Err(error) = ended {
            let error = &error as &dyn Error;
            tracing::error!(trigger = %claimed.id, error, "a trigger was left until its lease ends");
        }
    }

    async fn fail(&self, claimed: &ClaimedTrigger, error: &PlanError) -> Result<(), StoreError> {
        tracing::warn!(trigger = %claimed.id, cause = chain(error), "a trigger cannot be planned");
        let failed = TriggerOutcome::Failed {
            reason: error.reason(),
            commit: claimed.trigger.event.commit().cloned(),
            retry: error.retry(),
        };
        self.finish(claimed, failed).await
    }

    async fn finish(&self, claimed: &ClaimedTrigger, outcome: TriggerOutcome) -> Result<(), StoreError> {
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
        tracing::info!(trigger = %claimed.id, cause = chain(error), ?after, "a trigger will be planned later");
        let waits = error.waits_for_a_right();
        self.store
            .retry_trigger(claimed.id, claimed.epoch, after, &error.reason(), waits)
            .await?;
        if waits {
            self.hints.notify(Hint::Report);
        }
        Ok(())
    }

    /// Decides what runs for a trigger whose ref points at `head`; `None` when the forge has no such ref. The forge's own
    /// git said so just now.
    async fn plan(
        &self,
        commits: &Commits<'_>,
        claimed: &ClaimedTrigger,
        head: Option<&CommitSha>,
    ) -> Result<TriggerOutcome, PlanError> {
        let trigger = &claimed.trigger;
        let (repository, ref_name) = (&trigger.repository, trigger.event.ref_name());
        let Some(head) = head else {
            return Ok(TriggerOutcome::Ignored {
                reason: format!("{ref_name} is gone"),
                commit: None,
                retry: Retry::OnRequest,
            });
        };
        let commit = match trigger.event.commit() {
            Some(commit) if commit != head => {
                // An annotated tag's event names the tag object.
                let commit = self
                    .source
                    .resolve(repository, commit)
                    .await?
                    .unwrap_or_else(|| commit.clone());
                if claimed.tip_only && commit != *head {
                    return Ok(TriggerOutcome::Ignored {
                        reason: format!(
                            "an earlier push delivered again: {ref_name} points at {} now",
                            head.short()
                        ),
                        commit: None,
                        retry: Retry::Never,
                    });
                }
                if commit != *head && !self.source.reachable(repository, &commit, ref_name).await? {
                    return Ok(TriggerOutcome::Ignored {
                        reason: format!("{} is not on {ref_name} any more", commit.short()),
                        commit: None,
                        retry: Retry::OnRequest,
                    });
                }
                commit
            }
            _ => head.clone(),
        };
        let ignored = |reason, commit, retry| TriggerOutcome::Ignored {
            reason,
            commit: Some(commit),
            retry,
        };
        let message = commits.message(&commit).await?;
        // A person who asks knows what the message says.
        let Event::Ref(RefEvent { cause, .. }) = &trigger.event;
        if let (RefCause::Push { .. }, Some(word)) = (cause, decide::skip_word(&message)) {
            let reason = format!("the commit message says {word}");
            return Ok(ignored(reason, commit, Retry::Never));
        }
        let files = commits.files(&commit).await?;
        Ok(match decide::asked(&files, &trigger.event, &commit, &self.config) {
            Ok(runs) => TriggerOutcome::Planned {
                title: crate::foreign_text::title(&message),
                commit,
                runs,
            },
            Err(reason) => ignored(reason, commit, Retry::OnRequest),
        })
    }
}

/// 1 s, doubled each time, and up to a quarter more so that many do not meet again; 10 minutes at most.
fn backoff(tries: u32) -> Duration {
    let base = Duration::from_secs(1 << tries.min(10)).min(LONGEST_PAUSE);
    (base + base.mul_f64(0.25 * rand::random::<f64>())).min(LONGEST_PAUSE)
}
